//! A small cluster for tests: the appliance `pi`, the nodes `a` and `b`, and the resource `web`.

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::command::{Command, ENTRY_VERSION, Entry, Void};
use crate::fence::{Evidence, FenceId, FenceReason};
use crate::leader::Leases;
use crate::level::Level;
use crate::manager::{Memory, Plan, View, Why, manage};
use crate::name::{ClusterName, MemberName, ResourceName};
use crate::report::{Capacity, LeaseVerdict, Leave, Observed, Renew, Report, Trust, WatchdogPromise};
use crate::resource::{Driver, MoveReason, Phase, Requested, Resource, ResourceSpec};
use crate::rules::Rules;
use crate::state::{DeviceStatus, DisarmMode, Role, State};
use crate::time::Reading;

pub(crate) use machine::Machine;

pub(crate) fn at(ms: u64) -> Reading {
    Reading::both(ms * 1_000_000)
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

pub(crate) fn web() -> ResourceName {
    ResourceName::new("web").unwrap()
}

pub(crate) fn driver(name: &str) -> Driver {
    let argv = |verb: &str| vec![format!("/opt/{name}"), verb.to_owned()];
    Driver::Command { start: argv("start"), stop: argv("stop"), status: argv("status"), migrate: None }
}

pub(crate) fn spec() -> ResourceSpec {
    ResourceSpec::with_defaults(driver("web"))
}

pub(crate) fn live() -> ResourceSpec {
    let mut spec = spec();
    let Driver::Command { migrate, .. } = &mut spec.driver else { panic!("a command") };
    *migrate = Some(vec!["/opt/web".into(), "migrate".into()]);
    spec.live = true;
    spec
}

/// Moves live by an OCF agent, so its target has a part in it.
pub(crate) fn agent() -> ResourceSpec {
    let (provider, agent) = ("heartbeat".to_owned(), "Dummy".to_owned());
    let driver = Driver::Ocf { provider, agent, params: BTreeMap::new() };
    ResourceSpec { live: true, ..ResourceSpec::with_defaults(driver) }
}

pub(crate) fn promise(trust: Trust) -> WatchdogPromise {
    WatchdogPromise { driver: "iTCO_wdt".into(), promised_ms: 10_000, trust }
}

pub(crate) fn proven(name: &str) -> DeviceStatus {
    DeviceStatus { name: name.into(), kind: "ipmi".into(), proven: true, why: None }
}

pub(crate) fn lost() -> FenceReason {
    FenceReason::Lost { silent_ms: 2_000 }
}

pub(crate) fn word() -> Evidence {
    Evidence::Operator { by: "alice".into() }
}

/// A state and the log that makes it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub state: State,
}

impl Log {
    /// A new cluster of the appliance alone.
    pub fn new(rules: Rules) -> Self {
        let cluster = ClusterName::new("home").unwrap();
        let state = State::new(cluster, member("pi"), vec!["pi:5404".into()], "00".into()).with_rules(rules);
        Self { state }
    }

    /// The appliance and the named nodes, all of them voters, none admitted.
    pub fn joined(rules: Rules, nodes: &[&str]) -> Self {
        let mut log = Self::new(rules);
        for node in nodes {
            log.must(Self::add(node, Role::Node));
        }
        let voters: BTreeSet<u64> = (1..=nodes.len() as u64 + 1).collect();
        let index = log.state.applied + 1;
        log.state.apply_voters(index, voters);
        log
    }

    /// `pi`, `a` and `b`, both nodes admitted with a drilled watchdog.
    pub fn cluster(rules: Rules) -> Self {
        let mut log = Self::joined(rules, &["a", "b"]);
        log.must(Self::admit("a", 1, "boot-a1", 0));
        log.must(Self::admit("b", 1, "boot-b1", 0));
        log
    }

    /// The same with `web` placed on `a`.
    pub fn placed(rules: Rules) -> Self {
        let mut log = Self::cluster(rules);
        log.must(Self::add_web());
        log.must(log.assign("a", 1));
        log
    }

    pub fn apply(&mut self, command: Command) -> Result<(), Void> {
        let index = self.state.applied + 1;
        self.state.apply(index, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: index * 1_000, command })
    }

    #[track_caller]
    pub fn must(&mut self, command: Command) {
        self.apply(command).unwrap();
    }

    /// The command is void, and voids without a trace.
    #[track_caller]
    pub fn void(&mut self, command: Command) -> Void {
        let mut before = self.state.clone();
        let why = self.apply(command).unwrap_err();
        (before.applied, before.newest_ms) = (self.state.applied, self.state.newest_ms);
        assert_eq!(before, self.state, "a void command must change nothing");
        why
    }

    pub fn web(&self) -> &Resource {
        &self.state.resources[&web()]
    }

    pub fn phase(&self) -> &Phase {
        &self.web().phase
    }

    pub fn add(name: &str, role: Role) -> Command {
        Command::AddMember { name: member(name), role, addresses: vec![format!("{name}:5404")], key: name.into() }
    }

    pub fn admit(node: &str, incarnation: u64, boot: &str, closed: u64) -> Command {
        let watchdog = Some(promise(Trust::Drilled));
        Command::Admit {
            node: member(node),
            incarnation,
            boot: boot.into(),
            watchdog,
            machine: None,
            closed,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        }
    }

    pub fn add_web() -> Command {
        Command::AddResource { name: web(), spec: spec(), requested: Requested::Started, node: None }
    }

    pub fn set_web(requested: Requested) -> Command {
        Command::SetResource { name: web(), spec: None, requested }
    }

    pub fn assign(&self, to: &str, incarnation: u64) -> Command {
        Command::Assign { resource: web(), generation: self.web().generation, to: member(to), incarnation }
    }

    pub fn release(&self, to: Option<&str>, why: MoveReason) -> Command {
        Command::Release { resource: web(), generation: self.web().generation, to: to.map(member), why }
    }

    pub fn give_up(&self) -> Command {
        Command::GiveUp { resource: web(), generation: self.web().generation, why: "it is hopeless".into() }
    }

    /// The same with `web` able to move live.
    pub fn live(rules: Rules) -> Self {
        let mut log = Self::cluster(rules);
        log.must(Command::AddResource { name: web(), spec: live(), requested: Requested::Started, node: None });
        log.must(log.assign("a", 1));
        log
    }

    /// `web` can move live by an OCF agent, and is placed on this node.
    pub fn agent(rules: Rules, node: &str) -> Self {
        let mut log = Self::cluster(rules);
        log.must(Command::AddResource { name: web(), spec: agent(), requested: Requested::Started, node: None });
        log.must(log.assign(node, 1));
        log
    }

    /// The same, and its live move to that node has begun.
    pub fn agent_sent(rules: Rules, from: &str, to: &str) -> Self {
        let mut log = Self::agent(rules, from);
        log.must(log.migrate(to, 1));
        log.must(log.go());
        log
    }

    /// `web` has begun to move live from a to b, or the other way round.
    pub fn moving(rules: Rules, from: &str, to: &str) -> Self {
        let mut log = Self::live(rules);
        if from == "b" {
            log.must(log.release(Some("b"), MoveReason::Asked));
            log.must(log.assign("b", 1));
        }
        log.must(log.migrate(to, 1));
        log
    }

    pub fn migrate(&self, to: &str, incarnation: u64) -> Command {
        let generation = self.web().generation;
        Command::Migrate { resource: web(), generation, to: member(to), incarnation, why: MoveReason::Asked }
    }

    pub fn arrive(&self, incarnation: u64) -> Command {
        Command::Arrive { resource: web(), generation: self.web().generation, incarnation }
    }

    pub fn go(&self) -> Command {
        Command::Go { resource: web(), generation: self.web().generation }
    }

    pub fn leave(node: &str, how: Leave) -> Command {
        Command::Leave { node: member(node), incarnation: 1, how }
    }

    /// A node that goes has said that it runs nothing.
    pub fn left(&self, node: &str) -> Command {
        let since = self.state.nodes[&member(node)].leaving.as_ref().unwrap().since;
        Command::Left { node: member(node), incarnation: 1, since }
    }

    /// The cluster is disarmed.
    pub fn disarm(&mut self, mode: DisarmMode) {
        self.must(Command::Disarm { mode });
        self.must(Command::Disarmed);
    }

    pub fn unbound(&self, node: &str) -> Option<u64> {
        self.state.life(&member(node)).unwrap().unbound
    }

    pub fn fence(node: &str, incarnation: u64) -> Command {
        Command::FenceWanted { node: member(node), incarnation, reason: lost() }
    }

    pub fn fenced(id: u64) -> Command {
        Command::Fenced { id: FenceId(id), evidence: word() }
    }

    pub fn closed(id: u64) -> Command {
        Command::Closed { id: FenceId(id) }
    }
}

/// What a node says of `web`.
pub(crate) fn report(applied: u64, web_is: Option<Observed>) -> Report {
    Report {
        applied,
        resources: web_is.map(|observed| BTreeMap::from([(web(), observed)])).unwrap_or_default(),
        hears: BTreeSet::new(),
        armed: true,
        leases_lost: 0,
        leaving: None,
        trouble: None,
        usage: BTreeMap::new(),
    }
}

pub(crate) fn renewal(incarnation: u64, boot: &str, seq: u64, report: Report) -> Renew {
    let watchdog = Some(promise(Trust::Drilled));
    Renew {
        seq,
        term: 3,
        incarnation,
        boot: boot.into(),
        watchdog,
        machine: None,
        capacity: Capacity::default(),
        booted_in_ms: None,
        level: Level::KNOWN,
        report,
    }
}

/// A leader of term 3, which began long after its machine's start.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    pub log: Log,
    pub leases: Leases,
    pub now: Reading,
    pub started: Reading,
    pub wall_ms: u64,
    pub memory: Memory,
    /// Nothing is on its way through the log.
    pub settled: bool,
    /// Whom the leader's process has heard in earlier terms.
    pub met: BTreeSet<MemberName>,
    seq: u64,
}

impl Lead {
    pub fn new(log: Log) -> Self {
        let now = at(100_000);
        let leases = Leases::start(now, 3, &log.state);
        Self {
            log,
            leases,
            now,
            started: at(0),
            wall_ms: 0,
            memory: Memory::default(),
            settled: true,
            met: BTreeSet::new(),
            seq: 0,
        }
    }

    pub fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    /// Any renewal, inside the quorum lease.
    pub fn renew(&mut self, node: &str, renew: Renew) -> LeaseVerdict {
        let until = Some(self.now.after(ms(500)));
        self.leases.renew(self.now, &self.log.state, until, self.log.state.applied, &member(node), renew).verdict
    }

    /// A node's first life on its first boot reports.
    pub fn hear(&mut self, node: &str, report: Report) -> LeaseVerdict {
        self.seq += 1;
        let renew = renewal(1, &format!("boot-{node}1"), self.seq, report);
        self.renew(node, renew)
    }

    /// The same, with everything applied.
    pub fn hear_that(&mut self, node: &str, web_is: Observed) -> LeaseVerdict {
        self.hear(node, report(self.log.state.applied, Some(web_is)))
    }

    pub fn view(&self) -> View<'_> {
        View {
            state: &self.log.state,
            leases: &self.leases,
            now: self.now,
            started: self.started,
            met: &self.met,
            wall_ms: self.wall_ms,
            memory: &self.memory,
            settled: self.settled,
        }
    }

    pub fn plan(&self) -> Plan {
        manage(&self.view())
    }

    /// One look whose memory is handed on to the next.
    pub fn look(&mut self) -> Plan {
        let plan = self.plan();
        self.memory = plan.memory.clone();
        plan
    }

    pub fn proposals(&self) -> Vec<Command> {
        self.plan().proposals
    }

    pub fn why(&self) -> Why {
        self.plan().why[&web()].clone()
    }

    /// Applies everything that the manager proposes now.
    pub fn obey(&mut self) -> Vec<Command> {
        let proposals = self.proposals();
        for command in &proposals {
            self.log.must(command.clone());
        }
        proposals
    }
}

pub(crate) fn is_granted(verdict: &LeaseVerdict) -> bool {
    matches!(verdict, LeaseVerdict::Granted { .. })
}
