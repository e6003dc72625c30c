//! Evening out the load.

use std::collections::BTreeMap;

use super::*;
use crate::command::Setting;
use crate::fixture::live;
use crate::name::ResourceName;
use crate::placement::score::Scoring;
use crate::resource::{Phase, ResourceSpec};
use crate::state::DisarmMode;

const GIB: u64 = 1 << 30;

/// Nodes of 32 GiB and 16 processors, in virtual time: what is told to move live moves within a second.
struct Rack {
    lead: Lead,
    nodes: Vec<&'static str>,
    runs_on: BTreeMap<ResourceName, MemberName>,
    /// Everything that was decided about moves.
    moves: Vec<String>,
}

fn resource(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

impl Rack {
    fn new(nodes: &[&'static str], placement: Scoring) -> Self {
        let mut log = Log::joined(Rules::ALL, nodes);
        for node in nodes {
            let Command::Admit { node, incarnation, boot, watchdog, machine, closed, booted_in_ms, .. } =
                Log::admit(node, 1, &format!("boot-{node}1"), 0)
            else {
                panic!("an admission")
            };
            let capacity = Capacity { memory: Some(32 * GIB), milli_cpus: Some(16_000) };
            log.must(Command::Admit { node, incarnation, boot, watchdog, machine, closed, capacity, booted_in_ms });
        }
        log.must(Command::Set(Setting::Placement(placement)));
        log.must(Command::Set(Setting::Rebalance(true)));
        Self { lead: Lead::new(log), nodes: nodes.to_vec(), runs_on: BTreeMap::new(), moves: Vec::new() }
    }

    /// A resource that runs somewhere, with its memory in GiB and its thousandths of processors.
    fn run(&mut self, name: &str, node: &str, gib: u64, milli_cpus: Option<u64>) {
        let spec = ResourceSpec { memory: Some(gib * GIB), milli_cpus, ..live() };
        let (name, log) = (resource(name), &mut self.lead.log);
        log.must(Command::AddResource { name: name.clone(), spec, requested: Requested::Started, node: None });
        let generation = log.state.resources[&name].generation;
        log.must(Command::Assign { resource: name.clone(), generation, to: member(node), incarnation: 1 });
        self.runs_on.insert(name, member(node));
    }

    fn four_on_one(placement: Scoring) -> Self {
        let mut rack = Self::new(&["a", "b"], placement);
        for name in ["v1", "v2", "v3", "v4"] {
            rack.run(name, "a", 4, Some(2_000));
        }
        rack
    }

    fn tell(&mut self, node: &str) {
        let mut says = report(self.lead.log.state.applied, None);
        for (name, at) in &self.runs_on {
            let here = at.as_str() == node;
            says.resources.insert(name.clone(), if here { Observed::Running } else { Observed::Stopped });
            if here {
                let spec = &self.lead.log.state.resources[name].spec;
                let used =
                    crate::report::Usage { memory: spec.memory.unwrap(), milli_cpus: spec.milli_cpus.unwrap_or(0) };
                says.usage.insert(name.clone(), used);
            }
        }
        self.lead.hear(node, says);
    }

    /// Every node reports, and everything that the manager wants is done.
    fn second(&mut self) {
        self.lead.pass(ms(1_000));
        for node in self.nodes.clone() {
            self.tell(node);
        }
        for command in self.lead.look().proposals {
            self.lead.log.must(command.clone());
            match command {
                Command::Migrate { resource, to, why, .. } => {
                    self.moves.push(format!("{resource} to {to}: {why}"));
                    assert!(matches!(self.lead.plan().why[&resource], Why::WaitingForReport { .. }));
                }
                Command::Go { resource, .. } => {
                    let to = self.lead.log.state.resources[&resource].phase.second_owner().cloned().unwrap();
                    self.runs_on.insert(resource, to);
                }
                Command::Assign { .. } | Command::Fenced { .. } => {}
                other => panic!("nobody wants that: {other:?}"),
            }
        }
        let moving = |resource: &&crate::resource::Resource| matches!(resource.phase, Phase::Migrating { .. });
        assert!(self.lead.log.state.resources.values().filter(moving).count() <= 1, "one at a time");
    }

    fn seconds(&mut self, seconds: u32) {
        (0..seconds).for_each(|_| self.second());
    }

    fn on(&self, node: &str) -> usize {
        self.runs_on.values().filter(|at| at.as_str() == node).count()
    }
}

#[test]
fn the_load_is_evened_out_one_move_at_a_time_and_each_move_says_why() {
    for placement in [Scoring::Static, Scoring::Dynamic] {
        let mut rack = Rack::four_on_one(placement);
        rack.seconds(20);
        assert_eq!(rack.moves.len(), 0, "{placement}: the loads have to differ for a while");
        rack.seconds(2);
        assert_eq!(rack.moves.len(), 1, "{placement}");
        assert!(
            rack.moves[0].contains("v1 from a to b: the imbalance has been above 0.3 for 3 rounds"),
            "{:?}",
            rack.moves
        );
        rack.seconds(3_600);
        assert_eq!((rack.on("a"), rack.on("b"), rack.moves.len()), (2, 2, 2), "{placement}: and no way back");
    }
}

#[test]
fn why_tells_what_a_move_is_for() {
    let mut rack = Rack::four_on_one(Scoring::Static);
    while rack.moves.is_empty() {
        rack.second();
    }
    rack.tell("a");
    rack.tell("b");
    // Its target doesn't guard it yet.
    let mut unarmed = report(rack.lead.log.state.applied, None);
    unarmed.armed = false;
    unarmed.resources = rack.runs_on.keys().map(|name| (name.clone(), Observed::Stopped)).collect();
    rack.lead.hear("b", unarmed);
    let said = rack.lead.plan().why[&resource("v1")].to_string();
    assert!(said.starts_with("it moves live from a to b: ") && said.contains("the imbalance has been above"), "{said}");
}

#[test]
fn nothing_is_moved_for_the_load_while_anything_else_is_going_on() {
    type Prepare = fn(&mut Rack);
    let prepare: [(&str, Prepare); 7] = [
        ("the setting is off", |rack| rack.lead.log.must(Command::Set(Setting::Rebalance(false)))),
        ("placement is basic", |rack| rack.lead.log.must(Command::Set(Setting::Placement(Scoring::Basic)))),
        ("a node is in maintenance", |rack| {
            rack.lead.log.must(Command::SetMaintenance { node: member("c"), on: true });
        }),
        ("a node goes", |rack| rack.lead.log.must(Log::leave("c", crate::report::Leave::AgentRestart))),
        ("something can't be placed", |rack| {
            let spec = ResourceSpec { memory: Some(64 * GIB), ..live() };
            let name = resource("huge");
            rack.lead.log.must(Command::AddResource { name, spec, requested: Requested::Started, node: None });
            rack.runs_on.insert(resource("huge"), member("nowhere"));
        }),
        ("a node is fenced", |rack| rack.lead.log.must(Log::fence("c", 1))),
        ("the cluster is disarmed", |rack| rack.lead.log.disarm(DisarmMode::Freeze)),
    ];
    for (what, prepare) in prepare {
        let mut rack = Rack::new(&["a", "b", "c"], Scoring::Static);
        for name in ["v1", "v2", "v3", "v4"] {
            rack.run(name, "a", 4, Some(2_000));
        }
        prepare(&mut rack);
        if what == "a node is fenced" {
            rack.nodes.pop();
        }
        rack.seconds(120);
        assert_eq!(rack.moves, Vec::<String>::new(), "{what}");
    }
    let mut quiet = Rack::new(&["a", "b", "c"], Scoring::Static);
    for name in ["v1", "v2", "v3", "v4"] {
        quiet.run(name, "a", 4, Some(2_000));
    }
    quiet.seconds(120);
    assert_eq!(quiet.moves.len(), 2, "what kept it from moving was what was said");
}

#[test]
fn what_cant_move_live_is_not_stopped_for_the_load() {
    let mut rack = Rack::four_on_one(Scoring::Static);
    for name in ["v1", "v2", "v3", "v4"] {
        let spec = ResourceSpec { memory: Some(4 * GIB), milli_cpus: Some(2_000), ..spec() };
        let set = Command::SetResource { name: resource(name), spec: Some(spec), requested: Requested::Started };
        rack.lead.log.must(set);
    }
    rack.seconds(300);
    assert_eq!(rack.moves, Vec::<String>::new());
}

#[test]
fn no_move_for_the_load_breaks_the_goal() {
    let rack = |goal| {
        let mut rack = Rack::new(&["a", "b", "c"], Scoring::Static);
        rack.run("big1", "a", 20, Some(4_000));
        rack.run("big2", "b", 20, Some(4_000));
        for (name, node) in [("v1", "c"), ("v2", "c"), ("v3", "b")] {
            rack.run(name, node, 6, None);
        }
        rack.lead.log.must(Command::Set(Setting::Tolerate(goal)));
        rack.seconds(300);
        rack
    };
    let tolerable = |rack: &Rack| {
        let view = rack.lead.view();
        view.outlook(&view.planned(), true).tolerable
    };
    let free = rack(None);
    assert!(free.moves.len() == 1 && free.moves[0].starts_with("v3 to c"), "{:?}", free.moves);
    assert_eq!(tolerable(&free), Some(0), "c has no room for big1 or big2 any more");
    let bound = rack(Some(1));
    assert_eq!(bound.moves, Vec::<String>::new());
    assert_eq!(tolerable(&bound), Some(1));
}
