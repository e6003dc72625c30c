//! How long one look of the manager takes, with 2,000 resources on 2, 16 and 64 nodes: it comes ten times a second, and
//! leases are renewed in between. The target is 5 ms.
//!
//! `cargo bench -p tiebreaker-pipeline --bench manager`. Before the times, what the look decides is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry, Setting};
use tiebreaker_pipeline::fence::{Evidence, FenceReason};
use tiebreaker_pipeline::leader::Leases;
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::manager::{Memory, View, manage, wanted_voters};
use tiebreaker_pipeline::name::{ClusterName, MemberName, ResourceName};
use tiebreaker_pipeline::placement::score::Scoring;
use tiebreaker_pipeline::report::{Capacity, Observed, Renew, Report};
use tiebreaker_pipeline::resource::{Driver, Requested, ResourceSpec};
use tiebreaker_pipeline::state::{DeviceStatus, Role, State};
use tiebreaker_pipeline::time::Reading;

const RESOURCES: usize = 2_000;
const GIB: u64 = 1 << 30;

/// What the manager finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stands {
    /// Everything runs where it belongs.
    Settled,
    /// A node was fenced, and what it had is to be placed.
    Lost,
    /// Nobody knows where anything is, as when the cluster is armed again: all of it is to be placed.
    Anew,
}

#[derive(Clone, Copy)]
struct Case {
    nodes: usize,
    stands: Stands,
    scoring: Scoring,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>2} nodes, {:?}, {}", self.nodes, self.stands, self.scoring)
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for stands in [Stands::Settled, Stands::Lost, Stands::Anew] {
        for scoring in [Scoring::Basic, Scoring::Dynamic] {
            cases.extend([2, 16, 64].map(|nodes| Case { nodes, stands, scoring }));
        }
    }
    cases
}

fn main() {
    for case in cases() {
        let world = World::of(case);
        let plan = manage(&world.view());
        println!("{case}: {} decisions", plan.proposals.len());
    }
    divan::main();
}

#[divan::bench(args = cases())]
fn one_look(bencher: divan::Bencher, case: Case) {
    let world = World::of(case);
    bencher.bench(|| manage(&world.view()));
}

struct World {
    state: State,
    leases: Leases,
    memory: Memory,
    met: BTreeSet<MemberName>,
}

fn node(n: usize) -> MemberName {
    MemberName::new(&format!("node{n}")).expect("a name")
}

fn resource(n: usize) -> ResourceName {
    ResourceName::new(&format!("vm:{}", 100 + n)).expect("a name")
}

fn spec() -> ResourceSpec {
    let argv = |verb: &str| vec!["/opt/vm".to_owned(), verb.to_owned()];
    let driver = Driver::Command {
        start: argv("start"),
        stop: argv("stop"),
        status: argv("status"),
        migrate: Some(argv("migrate")),
    };
    ResourceSpec { live: true, memory: Some(GIB), milli_cpus: Some(500), ..ResourceSpec::with_defaults(driver) }
}

fn apply(state: &mut State, command: Command) {
    let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
    state.apply(state.applied + 1, entry).expect("the cluster is made in good order");
}

impl World {
    fn of(case: Case) -> Self {
        let Case { nodes, stands, scoring } = case;
        let cluster = ClusterName::new("bench").expect("a name");
        let appliance = MemberName::new("pi").expect("a name");
        let mut state = State::new(cluster, appliance, vec!["pi:5404".into()], "00".into());
        let capacity = Capacity { memory: Some(4_000 * GIB), milli_cpus: Some(256_000) };
        for n in 0..nodes {
            let add = Command::AddMember { name: node(n), role: Role::Node, addresses: vec![], key: format!("{n:02}") };
            apply(&mut state, add);
            let bmc = DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven: true, why: None };
            apply(&mut state, Command::SetDevices { node: node(n), devices: vec![bmc] });
            let boot = format!("boot-{n}");
            apply(
                &mut state,
                Command::Admit {
                    node: node(n),
                    incarnation: 1,
                    boot,
                    watchdog: None,
                    machine: None,
                    closed: 0,
                    capacity,
                    booted_in_ms: 0,
                },
            );
        }
        let voters = wanted_voters(&state);
        state.apply_voters(state.applied + 1, voters);
        apply(&mut state, Command::Set(Setting::Placement(scoring)));
        for n in 0..RESOURCES {
            let add =
                Command::AddResource { name: resource(n), spec: spec(), requested: Requested::Started, node: None };
            apply(&mut state, add);
            if stands != Stands::Anew {
                let generation = state.resources.get(&resource(n)).map_or(0, |resource| resource.generation);
                let to = node(n % nodes);
                apply(&mut state, Command::Assign { resource: resource(n), generation, to, incarnation: 1 });
            }
        }
        if stands == Stands::Lost {
            let reason = FenceReason::Lost { silent_ms: 2_000 };
            apply(&mut state, Command::FenceWanted { node: node(0), incarnation: 1, reason });
            let id = *state.fences.keys().next().expect("the fence is open");
            apply(&mut state, Command::Fenced { id, evidence: Evidence::BmcOff { device: "bmc".into() } });
        }
        let now = Reading::both(1_000_000_000);
        let mut leases = Leases::start(now, 1, &state);
        let silent = (stands == Stands::Lost).then(|| node(0));
        let heard: Vec<MemberName> = (0..nodes).map(node).filter(|name| Some(name) != silent.as_ref()).collect();
        for name in &heard {
            let owned = |resource: &ResourceName| {
                state.resources.get(resource).is_some_and(|resource| resource.phase.owner() == Some(name))
            };
            let seen = |resource: &ResourceName| if owned(resource) { Observed::Running } else { Observed::Stopped };
            let renew = Renew {
                seq: 1,
                term: 1,
                incarnation: 1,
                boot: state.life(name).map(|life| life.boot.clone()).unwrap_or_default(),
                watchdog: None,
                machine: None,
                capacity,
                booted_in_ms: None,
                level: Level::KNOWN,
                report: Report {
                    applied: state.applied,
                    resources: state.resources.keys().map(|name| (name.clone(), seen(name))).collect(),
                    hears: heard.iter().filter(|other| *other != name).cloned().collect(),
                    armed: true,
                    leases_lost: 0,
                    leaving: None,
                    trouble: None,
                    usage: BTreeMap::new(),
                },
            };
            leases.renew(now, &state, Some(Reading::both(u64::MAX)), state.applied, name, renew);
        }
        Self { state, leases, memory: Memory::default(), met: BTreeSet::new() }
    }

    fn view(&self) -> View<'_> {
        let now = Reading::both(1_100_000_000);
        View {
            state: &self.state,
            leases: &self.leases,
            now,
            started: Reading::both(0),
            met: &self.met,
            wall_ms: 0,
            memory: &self.memory,
            settled: true,
        }
    }
}
