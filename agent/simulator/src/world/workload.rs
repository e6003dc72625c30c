//! What really runs on a machine, and the programs that start, stop and probe it: slow, hanging, failing, lying.

use std::collections::{BTreeMap, BTreeSet};

use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::node::{Found, OperationId, OperationKind, Outcome};
use tiebreaker_pipeline::resource::ResourceSpec;

use super::dice::{Dice, MS};
use super::machine::Who;

/// How often the programs of a machine misbehave, per thousand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mood {
    /// Starts and stops fail.
    pub fails: u64,
    /// They do nothing, and say that they did.
    pub lies: u64,
    /// They hang until their timeout.
    pub hangs: u64,
    /// Probes fail.
    pub unknown: u64,
    /// The longest that a well-behaved start or stop takes, in nanoseconds.
    pub longest: u64,
}

impl Mood {
    /// Nothing goes wrong.
    pub const GOOD: Self = Self { fails: 0, lies: 0, hangs: 0, unknown: 0, longest: 800 * MS };
    /// Starts and stops always fail.
    pub const HOPELESS: Self = Self { fails: 1000, ..Self::GOOD };
    /// Something goes wrong now and then.
    pub const USUAL: Self = Self { fails: 5, lies: 5, hangs: 5, unknown: 5, longest: 1500 * MS };
    /// They fail, lie, hang and don't know.
    pub const BAD: Self = Self { fails: 150, lies: 150, hangs: 150, unknown: 200, longest: 3000 * MS };
    /// They hang and are slow.
    pub const SLOW: Self = Self { fails: 0, lies: 0, hangs: 500, unknown: 0, longest: 3000 * MS };
}

/// What the programs of one resource do wrong, on top of the mood of their machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failing {
    /// So many starts fail before one succeeds.
    pub starts: u32,
    /// So many live moves fail before one succeeds.
    pub moves: u32,
    /// Every stop fails.
    pub stops: bool,
    /// On these machines alone; on all if empty.
    pub only_on: BTreeSet<Who>,
}

impl Failing {
    /// Whether the next operation of this kind fails.
    pub(crate) fn fails_next(&mut self, who: Who, kind: OperationKind) -> bool {
        if !self.only_on.is_empty() && !self.only_on.contains(&who) {
            return false;
        }
        match kind {
            OperationKind::Start => counts(&mut self.starts),
            OperationKind::Migrate => counts(&mut self.moves),
            OperationKind::Stop => self.stops,
            OperationKind::Probe | OperationKind::Receive => false,
        }
    }
}

/// True while there is something left to count down.
const fn counts(left: &mut u32) -> bool {
    let fails = *left > 0;
    *left = left.saturating_sub(1);
    fails
}

/// What an operation does to the machine when its moment comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    Runs,
    Stops,
    /// It goes on running elsewhere.
    Sends,
    /// It is gone from here, and runs elsewhere once it has been received there.
    Leaves,
    Nothing,
    Looks,
}

/// An operation under way. It is a unit of its own: the death of the agent that began it doesn't end it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) resource: ResourceName,
    pub(crate) kind: OperationKind,
    pub(crate) id: OperationId,
    /// The process that began it.
    pub(crate) instance: u64,
    effect: Effect,
    outcome: Outcome,
    found: Found,
    /// To where it moves live.
    target: Option<Target>,
    /// When it began, in true time.
    began: u64,
}

/// What has just moved live.
pub(crate) struct Sent {
    pub(crate) resource: ResourceName,
    pub(crate) to: MemberName,
    /// When that began, in true time.
    pub(crate) began: u64,
}

/// The other end of a live move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) machine: MemberName,
    /// Since when it has run: what had come there, and the connection to it, don't outlive a reset.
    pub(crate) epoch: u64,
}

/// What an agent wants done.
pub(crate) struct Order<'a> {
    /// The process that wants it.
    pub(crate) instance: u64,
    pub(crate) id: OperationId,
    pub(crate) resource: ResourceName,
    pub(crate) kind: OperationKind,
    pub(crate) spec: &'a ResourceSpec,
    /// To where it moves live.
    pub(crate) target: Option<Target>,
    /// True time.
    pub(crate) now: u64,
}

/// How an operation will go, in spans from now.
pub(crate) struct Course {
    pub(crate) key: u64,
    pub(crate) effect_in: u64,
    pub(crate) ends_in: u64,
}

/// What an agent hears of an operation's end.
pub(crate) enum End {
    Ended(OperationId, OperationKind, Outcome),
    Probed(OperationId, Found),
}

/// What runs on one machine.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    /// Resources that run, and whether the cluster has put them or taken them over.
    running: BTreeMap<ResourceName, bool>,
    operations: BTreeMap<u64, Operation>,
    next_key: u64,
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed { why: why.to_owned() }
}

impl Workloads {
    pub(crate) fn runs(&self, resource: &ResourceName) -> bool {
        self.running.contains_key(resource)
    }

    /// It runs, or a start is under way that may still bring it up.
    pub(crate) fn is_alive(&self, resource: &ResourceName) -> bool {
        self.runs(resource) || self.operations.values().any(|op| op.effect == Effect::Runs && op.resource == *resource)
    }

    /// What the cluster has put here and is alive.
    pub(crate) fn managed(&self) -> impl Iterator<Item = &ResourceName> {
        let pending = self.operations.values().filter(|op| op.effect == Effect::Runs).map(|op| &op.resource);
        self.running.iter().filter(|(_, managed)| **managed).map(|(name, _)| name).chain(pending)
    }

    /// What really runs and was put here by the cluster.
    pub(crate) fn managed_running(&self) -> impl Iterator<Item = &ResourceName> {
        self.running.iter().filter(|(_, managed)| **managed).map(|(name, _)| name)
    }

    /// Somebody started it by hand.
    pub(crate) fn start_by_hand(&mut self, resource: &ResourceName) {
        self.running.entry(resource.clone()).or_insert(false);
    }

    pub(crate) fn set_managed(&mut self, resource: &ResourceName, managed: bool) {
        if let Some(is) = self.running.get_mut(resource) {
            *is = managed;
        }
    }

    pub(crate) fn die(&mut self, resource: &ResourceName) -> bool {
        self.running.remove(resource).is_some()
    }

    pub(crate) fn die_all(&mut self) {
        self.running.clear();
        self.operations.clear();
    }

    pub(crate) fn begin(&mut self, dice: &mut Dice, mood: Mood, order: Order<'_>) -> Course {
        let Order { instance, id, resource, kind, spec, target, now } = order;
        let key = self.next_key;
        self.next_key += 1;
        let (timeout_ms, effect) = match kind {
            OperationKind::Start => (spec.start_timeout_ms, Effect::Runs),
            OperationKind::Receive => (spec.migrate_timeout_ms, Effect::Runs),
            OperationKind::Stop => (spec.stop_timeout_ms, Effect::Stops),
            OperationKind::Probe => (spec.monitor_timeout_ms, Effect::Looks),
            // Of what has a part to do at the target, some agents hand over all of it, some only what it is to begin with.
            OperationKind::Migrate if spec.driver.is_received() && dice.one_in(2) => {
                (spec.migrate_timeout_ms, Effect::Leaves)
            }
            OperationKind::Migrate => (spec.migrate_timeout_ms, Effect::Sends),
        };
        let timeout = timeout_ms * MS;
        let mut unknown = Found::Unknown { why: "the probe has not ended".into() };
        let (effect, outcome, effect_in, ends_in) = if kind == OperationKind::Probe {
            if dice.permille(mood.unknown) {
                unknown = Found::Unknown { why: "the probe failed".into() };
                (Effect::Nothing, Outcome::Done, 0, dice.between(5 * MS, timeout))
            } else {
                let ends = if dice.one_in(20) { dice.between(50 * MS, timeout) } else { dice.between(5 * MS, 50 * MS) };
                (effect, Outcome::Done, dice.below(ends), ends)
            }
        } else {
            let ends = dice.between(50 * MS, mood.longest.max(51 * MS)).min(timeout);
            let throw = dice.below(1000);
            if throw < mood.fails {
                (Effect::Nothing, failed("it failed"), 0, ends)
            } else if throw < mood.fails + mood.lies {
                (Effect::Nothing, Outcome::Done, 0, ends)
            } else if throw < mood.fails + mood.lies + mood.hangs {
                // It hangs until its timeout; what it was to do may happen meanwhile, or be done by the end.
                let effect = if dice.one_in(2) { effect } else { Effect::Nothing };
                (effect, failed("killed at its timeout"), dice.below(timeout), timeout)
            } else {
                (effect, Outcome::Done, dice.below(ends), ends)
            }
        };
        self.operations.insert(
            key,
            Operation { resource, kind, id, instance, effect, outcome, found: unknown, target, began: now },
        );
        Course { key, effect_in, ends_in }
    }

    /// The moment of an operation has come. `Some` if a resource runs now that didn't before.
    pub(crate) fn take_effect(&mut self, key: u64) -> Option<ResourceName> {
        let op = self.operations.get_mut(&key)?;
        match op.effect {
            Effect::Runs => {
                op.effect = Effect::Nothing;
                let resource = op.resource.clone();
                self.running.insert(resource.clone(), true).is_none().then_some(resource)
            }
            Effect::Stops | Effect::Leaves => {
                op.effect = Effect::Nothing;
                self.running.remove(&op.resource);
                None
            }
            Effect::Looks => {
                op.found = if self.running.contains_key(&op.resource) { Found::Running } else { Found::Stopped };
                None
            }
            // That takes two machines.
            Effect::Nothing | Effect::Sends => None,
        }
    }

    /// The moment of a live move has come: what moves, and to where, if it still runs here. From here on it doesn't.
    pub(crate) fn send(&mut self, key: u64, takes: impl FnOnce(&Target) -> bool) -> Option<Sent> {
        let op = self.operations.get_mut(&key).filter(|op| op.effect == Effect::Sends)?;
        op.effect = Effect::Nothing;
        let to = op.target.clone()?;
        if !self.running.contains_key(&op.resource) || !takes(&to) {
            op.outcome = failed("the other side didn't take it");
            return None;
        }
        self.running.remove(&op.resource);
        Some(Sent { resource: op.resource.clone(), to: to.machine, began: op.began })
    }

    /// A live move has brought a resource here.
    pub(crate) fn receive(&mut self, resource: ResourceName) {
        self.running.insert(resource, true);
    }

    /// An operation ends by itself: the process that began it, and what it is told.
    pub(crate) fn end(&mut self, key: u64) -> Option<(u64, ResourceName, End)> {
        let op = self.operations.remove(&key)?;
        let end = match op.kind {
            OperationKind::Probe => End::Probed(op.id, op.found),
            OperationKind::Start | OperationKind::Stop | OperationKind::Migrate | OperationKind::Receive => {
                End::Ended(op.id, op.kind, op.outcome)
            }
        };
        Some((op.instance, op.resource, end))
    }

    pub(crate) fn key_of(&self, instance: u64, id: OperationId) -> Option<u64> {
        self.operations.iter().find(|(_, op)| op.instance == instance && op.id == id).map(|(key, _)| *key)
    }

    /// Kills an operation: nothing of it happens any more.
    pub(crate) fn kill(&mut self, key: u64) -> Option<(u64, ResourceName, End)> {
        let op = self.operations.get_mut(&key)?;
        op.outcome = failed("cancelled");
        self.end(key)
    }

    /// Kills what processes other than `instance` have begun.
    pub(crate) fn kill_leftovers(&mut self, instance: u64) -> usize {
        let before = self.operations.len();
        self.operations.retain(|_, op| op.instance == instance);
        before - self.operations.len()
    }
}
