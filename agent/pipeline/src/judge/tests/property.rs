//! What must hold after every command, in whatever order they come: tried on random logs, and on what the manager makes
//! of the states that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, ENTRY_VERSION, Entry, Setting};
use crate::fence::{Evidence, FenceId, FenceReason, Progress};
use crate::fixture::{Lead, Log, live, lost, member, promise, proven, renewal, report, spec};
use crate::name::{MemberName, ResourceName, RuleName};
use crate::placement::rule::{PlacementRule, RuleKind};
use crate::placement::score::Scoring;
use crate::profile::Profile;
use crate::report::{Capacity, Leave, Observed, Trust};
use crate::resource::{Class, MoveReason, Phase, Requested, Resource};
use crate::rules::Rules;
use crate::state::{Arming, DisarmMode, FewerVotes, Role, ShutdownPolicy, State};

/// How many logs are tried.
const LOGS: u64 = 300;
/// Logs that the manager is shown.
const MANAGED: u64 = 60;
/// Commands in each log.
const COMMANDS: u64 = 300;

/// SplitMix64: a seed makes a log, on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()].clone()
    }

    fn node(&mut self) -> MemberName {
        // One that never joins, and the appliance, are among them.
        let rare = self.one_in(12);
        member(if rare { self.of(&["pi", "ghost"]) } else { self.of(&["a", "b", "c"]) })
    }

    fn resource(&mut self) -> ResourceName {
        ResourceName::new(self.of(&["web", "db", "vm"])).unwrap()
    }

    /// Mostly what is so, sometimes what was or will be.
    fn about(&mut self, now: u64) -> u64 {
        if self.one_in(8) { now.wrapping_add(self.roll(5)).saturating_sub(2) } else { now }
    }

    fn why(&mut self) -> MoveReason {
        match self.roll(5) {
            0 => MoveReason::Failed { why: "it died".into() },
            1 => MoveReason::Asked,
            2 => MoveReason::Maintenance,
            3 => MoveReason::Shutdown,
            _ => MoveReason::Better { why: "it belongs there".into() },
        }
    }

    fn observed(&mut self) -> Observed {
        let why = || "who knows".to_owned();
        match self.roll(12) {
            0..=3 => Observed::Stopped,
            4..=6 => Observed::Running,
            7 => Observed::Starting,
            8 => Observed::Moving,
            9 => Observed::MoveFailed { why: why() },
            10 => Observed::Failed { why: why() },
            _ => self.of(&[Observed::Unknown { why: why() }, Observed::StopFailed { why: why() }, Observed::Stopping]),
        }
    }

    fn generation(&mut self, state: &State, name: &ResourceName) -> u64 {
        let now = state.resources.get(name).map_or(1, |resource| resource.generation);
        self.about(now)
    }

    fn incarnation(&mut self, state: &State, node: &MemberName) -> u64 {
        let now = state.life(node).map_or(1, |life| life.incarnation);
        self.about(now)
    }

    fn fence(&mut self, state: &State) -> FenceId {
        FenceId(state.next_fence.saturating_sub(1 + self.roll(2)))
    }

    fn setting(&mut self, at: u64) -> Setting {
        match self.roll(7) {
            0 => Setting::Shutdown(self.of(&ShutdownPolicy::ALL)),
            1 => Setting::Placement(self.of(&Scoring::ALL)),
            2 => Setting::Rebalance(self.one_in(2)),
            3 => Setting::Tolerate(self.of(&[None, Some(1), Some(2)])),
            4 => Setting::Moves { most: self.of(&[None, Some(0), Some(1), Some(9)]), force: self.one_in(2) },
            5 => Setting::OrderDelay { class: self.of(&Class::ALL), seconds: self.of(&[0, 5, 4_000]) },
            _ => {
                let without = BTreeSet::from([self.node()]);
                let fewer = FewerVotes { without, until_ms: self.of(&[0, at + 1_000, u64::MAX]) };
                Setting::FewerVotes(self.of(&[None, Some(fewer)]))
            }
        }
    }

    fn rule(&mut self) -> PlacementRule {
        let resources = (0..2).map(|_| self.resource()).collect();
        let kind = match self.roll(3) {
            0 => RuleKind::Apart,
            1 => RuleKind::Together,
            _ => RuleKind::NodeAffinity {
                nodes: (0..2).map(|_| (self.node(), u32::try_from(self.roll(3)).unwrap())).collect(),
                strict: self.one_in(2),
            },
        };
        PlacementRule { resources, kind, disabled_by_operator: self.one_in(5) }
    }

    /// Any command there is.
    fn command(&mut self, state: &State, at: u64) -> Command {
        let (node, resource) = (self.node(), self.resource());
        let generation = self.generation(state, &resource);
        let incarnation = self.incarnation(state, &node);
        let held = state.nodes.get(&node);
        let name = RuleName::new(self.of(&["one", "two"])).unwrap();
        // Half of them are of those that need several others before they can be taken.
        let needy = self.one_in(2);
        let kind = if needy { self.of(&[3, 12, 20, 20, 20, 23, 23, 24, 36, 36, 36, 36]) } else { self.roll(48) };
        match kind {
            0 => Log::add(node.as_str(), Role::Node),
            1 if self.one_in(4) => {
                let raft_id = state.members.get(&node).map_or(9, |member| member.raft_id);
                Command::RemoveMember { name: node, raft_id }
            }
            1 => Command::AddOperator { name: "alice".into(), key: "aa".into() },
            2 => Command::RemoveOperator { name: "alice".into() },
            3..=6 => {
                let last = held.map_or(0, |node| node.last_incarnation);
                let boot = format!("boot-{}", self.roll(4));
                Command::Admit {
                    node,
                    incarnation: self.about(last + 1),
                    boot,
                    watchdog: (!self.one_in(5)).then(|| promise(Trust::Drilled)),
                    machine: None,
                    closed: held.map_or(0, |node| node.closed_at),
                    capacity: Capacity { memory: self.of(&[None, Some(4 << 30)]), milli_cpus: None },
                    booted_in_ms: self.of(&[0, 30_000, u64::MAX]),
                }
            }
            7 | 8 => {
                let since = held.and_then(|node| node.life.as_ref()).and_then(|life| life.unbound).unwrap_or(0);
                Command::Bind { node, incarnation, since: self.about(since) }
            }
            9 => {
                let how = self.of(&[Leave::AgentRestart, Leave::Reboot, Leave::PowerOff]);
                Command::Leave { node, incarnation, how }
            }
            10 => {
                let since = held.and_then(|node| node.leaving.as_ref()).map_or(0, |leaving| leaving.since);
                Command::Left { node, incarnation, since: self.about(since) }
            }
            11 => Command::SetMaintenance { node, on: self.one_in(2) },
            12 | 13 => {
                let mut spec = self.of(&[spec(), live(), live()]);
                spec.class = self.of(&Class::ALL);
                spec.order = self.of(&[0, 1]);
                spec.failback = self.one_in(2);
                spec.memory = self.of(&[None, Some(1 << 30), Some(1 << 60)]);
                let requested = self.of(&Requested::ALL);
                let home = self.of(&[None, Some(node)]);
                Command::AddResource { name: resource, spec, requested, node: home }
            }
            14..=16 => Command::SetResource {
                name: resource,
                spec: self.of(&[None, Some(live())]),
                requested: self.of(&Requested::ALL),
            },
            17 if self.one_in(3) => Command::RemoveResource { name: resource },
            17..=19 => Command::Release { resource, generation, to: self.of(&[None, Some(node)]), why: self.why() },
            20..=22 => Command::Migrate { resource, generation, to: node, incarnation, why: self.why() },
            23 => Command::CallOff { resource, generation, why: "it failed".into() },
            24 | 25 => Command::Go { resource, generation },
            26 => Command::Forget { resource, generation },
            27 => Command::SetLock {
                resource,
                reason: self.of(&[None, Some("backup".to_owned()), Some("x".repeat(201))]),
            },
            28 => Command::SetRule { name, rule: self.rule() },
            29 => Command::RemoveRule { name },
            30 => Command::Set(self.setting(at)),
            31 if self.one_in(3) => Command::Disarm { mode: self.of(&[DisarmMode::Freeze, DisarmMode::Ignore]) },
            31 => Command::Arm,
            32 => Command::Disarmed,
            33 | 34 => {
                let since = match state.settings.arming {
                    Arming::Arming { since, .. } => since,
                    Arming::Armed | Arming::Disarming { .. } | Arming::Disarmed { .. } => 0,
                };
                if self.one_in(3) {
                    Command::ArmingFailed { since, why: "no".into() }
                } else {
                    Command::Armed { since: self.about(since) }
                }
            }
            35 => Command::Forced { by: "alice".into(), done: "it".into(), breaks: "all".into() },
            36..=39 => Command::Assign { resource, generation, to: node, incarnation },
            40 => Command::GiveUp { resource, generation, why: "it is hopeless".into() },
            41 => Command::FenceWanted {
                node,
                incarnation,
                reason: self.of(&[lost(), FenceReason::Asked { by: "alice".into() }]),
            },
            42 | 43 => {
                let evidence = self.of(&[
                    Evidence::WatchdogTime { waited_ms: 1 },
                    Evidence::BmcOff { device: "bmc".into() },
                    Evidence::Operator { by: "alice".into() },
                ]);
                Command::Fenced { id: self.fence(state), evidence }
            }
            44 | 45 => Command::Closed { id: self.fence(state) },
            46 => self.of(&[
                Command::FenceFailed { id: FenceId(state.next_fence - 1), why: "no answer".into() },
                Command::SetDevices { node, devices: vec![proven("bmc")] },
                Command::SetTakeback { seconds: 5 },
            ]),
            _ => self.of(&[
                Command::SetProfile { profile: Profile::Fast },
                Command::SetProfile { profile: Profile::Patient },
                Command::SettleProfile { profile: state.settings.profile, since: state.settings.profile_since },
            ]),
        }
    }
}

fn owners(resource: &Resource) -> BTreeSet<MemberName> {
    resource.phase.owner().into_iter().chain(resource.phase.second_owner()).cloned().collect()
}

/// What is true of every state.
fn check(state: &State) {
    let mut generations = BTreeSet::new();
    for (name, resource) in &state.resources {
        assert!(resource.generation < state.next_generation, "{name} has a generation of the future");
        assert!(generations.insert(resource.generation), "{name} shares its generation");
        assert!(resource.since <= state.applied);
        for node in owners(resource) {
            assert!(state.nodes.contains_key(&node), "{name} belongs to {node}, which is no node: {resource:?}");
        }
        let needs_a_life = match &resource.phase {
            Phase::Releasing { .. } | Phase::Migrating { .. } => owners(resource),
            // It may wait for a node that left, or be nobody's business while it is disabled.
            Phase::Placed { node } => {
                let waits = state.nodes[node].leaving.is_some() || resource.requested == Requested::Disabled;
                if waits { BTreeSet::new() } else { BTreeSet::from([node.clone()]) }
            }
            Phase::New | Phase::Free { .. } | Phase::Error { .. } | Phase::Ignored => BTreeSet::new(),
        };
        for node in needs_a_life {
            assert!(state.life(&node).is_some(), "{name} is on {node}, which has no life: {resource:?}");
        }
        if let Phase::Migrating { from, to, .. } = &resource.phase {
            assert_ne!(from, to);
        }
    }
    for (node, held) in &state.nodes {
        let open: Vec<_> = state.fences.values().filter(|fence| fence.node == *node && fence.is_open()).collect();
        assert!(open.len() <= 1, "{node} is fenced twice");
        if let Some(fence) = open.first() {
            assert_eq!(held.life.is_some(), fence.progress == Progress::Wanted, "{node}: {fence:?}");
        }
        if matches!(state.settings.arming, Arming::Disarmed { .. }) {
            let bound = held.life.as_ref().is_some_and(|life| life.unbound.is_none());
            assert!(!bound, "{node} counts as guarded while the cluster is disarmed");
        }
        assert!(held.leaving.as_ref().is_none_or(|leaving| leaving.incarnation == held.last_incarnation));
    }
    if state.applied.is_multiple_of(16) {
        let again = State::decode(&state.encode()).unwrap();
        assert_eq!((&again, again.digest()), (state, state.digest()));
    }
}

/// What a command may do to who owns what.
fn check_step(before: &State, command: &Command, after: &State) {
    for (name, now) in &after.resources {
        let Some(then) = before.resources.get(name) else {
            assert!(owners(now).is_empty(), "{name} is new and has an owner");
            continue;
        };
        let new: Vec<_> = owners(now).difference(&owners(then)).cloned().collect();
        for node in &new {
            let given = match command {
                Command::Assign { to, .. } => match &then.phase {
                    Phase::New | Phase::Free { .. } | Phase::Releasing { .. } => to == node,
                    Phase::Placed { .. } | Phase::Migrating { .. } | Phase::Error { .. } | Phase::Ignored => false,
                },
                Command::Migrate { to, .. } => matches!(then.phase, Phase::Placed { .. }) && to == node,
                _ => false,
            };
            assert!(given, "{command:?} gave {name} to {node}: {then:?}");
        }
        // Nobody stops being an owner but by his own report, by proof, or because nobody cares any more.
        let gone: Vec<_> = owners(then).difference(&owners(now)).cloned().collect();
        for node in &gone {
            let rightly = match command {
                Command::Assign { .. } => {
                    matches!(then.phase, Phase::Releasing { .. } | Phase::Migrating { .. })
                }
                Command::Fenced { .. } | Command::Left { .. } => {
                    before.life(node).is_some() && after.life(node).is_none()
                }
                Command::Release { .. } | Command::SetResource { .. } => {
                    before.life(node).is_none() || now.phase == Phase::Ignored
                }
                Command::Disarmed | Command::ArmingFailed { .. } => now.phase == Phase::Ignored,
                _ => false,
            };
            assert!(rightly, "{command:?} took {name} from {node}: {then:?} is {now:?}");
        }
    }
}

fn entry_survives(command: &Command) {
    let entry = Entry { version: ENTRY_VERSION, ticket: 7, at_ms: 1, command: command.clone() };
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &entry).unwrap();
    let again: Entry = cbor4ii::serde::from_slice(bytes.as_slice()).unwrap();
    assert_eq!(again, entry);
}

#[test]
fn whatever_is_applied_void_commands_change_nothing_and_owners_change_by_proof_alone() {
    let (mut taken, mut void) = (BTreeMap::new(), 0_u32);
    for seed in 0..LOGS {
        let mut dice = Dice(seed);
        let mut state = Log::joined(Rules::ALL, &["a", "b", "c"]).state;
        for _ in 0..COMMANDS {
            let index = state.applied + 1;
            let at_ms = if dice.one_in(100) { u64::MAX } else { index * 1_000 };
            let command = dice.command(&state, index * 1_000);
            entry_survives(&command);
            let mut before = state.clone();
            match state.apply(index, Entry { version: ENTRY_VERSION, ticket: 0, at_ms, command: command.clone() }) {
                Ok(()) => {
                    let word = format!("{command:?}");
                    *taken.entry(word.split([' ', '(']).next().unwrap_or_default().to_owned()).or_insert(0_u32) += 1;
                    check_step(&before, &command, &state);
                }
                Err(_) => {
                    void += 1;
                    (before.applied, before.newest_ms) = (state.applied, state.newest_ms);
                    assert_eq!(before, state, "{command:?} was void, and changed something");
                }
            }
            check(&state);
        }
    }
    // A test that never gets anywhere proves nothing.
    assert!(void > 1_000);
    for word in
        ["Left", "Migrate", "CallOff", "Go", "Bind", "Disarmed", "Armed", "ArmingFailed", "Fenced", "RemoveMember"]
    {
        assert!(taken.get(word).is_some_and(|times| *times > 5), "{word} was hardly ever taken: {taken:?}");
    }
}

#[test]
fn whatever_the_state_the_manager_proposes_only_what_the_judge_takes() {
    let mut seen = BTreeSet::new();
    for seed in 0..MANAGED {
        let mut dice = Dice(seed);
        let mut state = Log::joined(Rules::ALL, &["a", "b", "c"]).state;
        for _ in 0..COMMANDS / 3 {
            let index = state.applied + 1;
            let command = dice.command(&state, index * 1_000);
            // In two of three logs the cluster acts all the time.
            let command =
                if seed % 3 > 0 && matches!(command, Command::Disarm { .. }) { Log::add_web() } else { command };
            let _ = state.apply(index, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: index * 1_000, command });
        }
        let mut lead = Lead::new(Log { state });
        for seq in 1..60 {
            if dice.one_in(3) {
                let command = Command::SetMaintenance { node: dice.node(), on: dice.one_in(3) };
                let _ = lead.log.apply(command);
            }
            lead.pass(std::time::Duration::from_millis(dice.of(&[100, 500, 500, 500, 500, 2_000, 60_000])));
            lead.wall_ms = lead.log.state.newest_ms + dice.of(&[0, 4_000_000]);
            for node in ["a", "b", "c"] {
                if dice.one_in(4) {
                    continue;
                }
                let state = &lead.log.state;
                let life = state.life(&member(node));
                let boot = life.map_or("boot-0", |life| life.boot.as_str()).to_owned();
                let incarnation = dice.incarnation(state, &member(node));
                let mut says = report(dice.about(state.applied), None);
                says.resources = state
                    .resources
                    .iter()
                    .map(|(name, resource)| {
                        let likely = if resource.phase.owner() == Some(&member(node)) {
                            Observed::Running
                        } else {
                            Observed::Stopped
                        };
                        (name.clone(), if dice.one_in(4) { dice.observed() } else { likely })
                    })
                    .collect();
                says.armed = !dice.one_in(4);
                says.leaving = dice.one_in(10).then(|| dice.of(&[Leave::AgentRestart, Leave::PowerOff]));
                says.trouble = dice.one_in(9).then(|| "it is stuck".to_owned());
                lead.renew(node, renewal(incarnation, &boot, seq, says));
            }
            let plan = lead.plan();
            for command in &plan.proposals {
                let mut after = lead.log.state.clone();
                let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: lead.wall_ms, command: command.clone() };
                let taken = after.apply(after.applied + 1, entry);
                assert_eq!(taken, Ok(()), "seed {seed}: {command:?} is proposed again and again");
                check(&after);
                check_step(&lead.log.state, command, &after);
                let word = format!("{command:?}");
                seen.insert(word.split([' ', '(']).next().unwrap_or_default().to_owned());
            }
            for resource in lead.log.state.resources.keys() {
                assert!(plan.why.contains_key(resource), "{resource} has no reason");
            }
            for command in plan.proposals {
                // What came before it in this very plan may have made it void.
                let _ = lead.log.apply(command);
            }
        }
    }
    for word in
        ["Admit", "Assign", "Bind", "CallOff", "FenceWanted", "Fenced", "Go", "Leave", "Left", "Migrate", "Release"]
    {
        assert!(seen.contains(word), "{word} was never proposed: {seen:?}");
    }
}
