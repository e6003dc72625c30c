//! What this member did and saw itself: operations, probes, its watchdog, its leases, its power devices. The log knows
//! what was decided; only the member knows what came of it. Nothing decides by a journal: the shell keeps it on the disk as well as
//! that goes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::fence::FenceId;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::node::{self, Found, OperationId, OperationKind, Outcome};
use tiebreaker_pipeline::report::Leave;

use crate::clock::ClockFault;

/// Lines that a journal keeps: those of some hours of trouble, in a few hundred kilobytes.
pub const JOURNAL_MAX: usize = 500;
/// Texts of programs are cut to so many characters.
const TEXT_MAX: usize = 300;

/// One line of a member's journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalLine {
    /// The member's wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub deed: Deed,
}

/// Something that a member did or saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Deed {
    /// Its daemon started.
    Up,
    /// An operation began.
    Began {
        /// On which resource.
        resource: ResourceName,
        /// What.
        operation: OperationKind,
        /// To where, if it moves live.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<MemberName>,
    },
    /// An operation ended. What runs then, only a probe says.
    Ended {
        /// On which resource.
        resource: ResourceName,
        /// What.
        operation: OperationKind,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// An operation was cancelled.
    Cancelled {
        /// On which resource.
        resource: ResourceName,
        /// What.
        operation: OperationKind,
    },
    /// A probe found something else than the one before.
    Found {
        /// Which resource.
        resource: ResourceName,
        /// running, stopped, broken or unknown.
        state: String,
        /// More about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The watchdog was armed.
    WatchdogArmed,
    /// The watchdog was disarmed.
    WatchdogDisarmed,
    /// The watchdog could not be armed or disarmed.
    WatchdogFailed {
        /// Why.
        why: String,
    },
    /// It has a lease from now on.
    LeaseHeld,
    /// Its lease ran out.
    LeaseLost,
    /// It was asked to end, alone or with its machine.
    Going {
        /// How.
        how: Leave,
    },
    /// The cluster has agreed that it goes.
    MayGo,
    /// Its life has ended in the log: its agent starts anew.
    StartsAnew,
    /// It resets itself, because it is fenced.
    Resets {
        /// By which fence.
        fence: FenceId,
    },
    /// A power device was told something.
    DeviceTold {
        /// Whose device.
        node: MemberName,
        /// Which.
        device: String,
        /// What.
        command: DeviceCommand,
    },
    /// A power device answered something else than before, or a command.
    DeviceSaid {
        /// Whose device.
        node: MemberName,
        /// Which.
        device: String,
        /// To what.
        command: DeviceCommand,
        /// What.
        result: DeviceResult,
    },
    /// Its wall clock is wrong, or has jumped.
    ClockWrong(ClockFault),
    /// This journal can't be kept on the disk.
    JournalNotKept {
        /// Why.
        why: String,
    },
    /// It leads from now on.
    Leads {
        /// In this term.
        term: u64,
    },
    /// It doesn't lead any more.
    LeadsNoMore,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("its daemon started"),
            Self::Began { resource, operation, target: Some(target) } => {
                let which = if *operation == OperationKind::Receive { "from" } else { "to" };
                write!(f, "{} of {resource} {which} {target} began", operation.word())
            }
            Self::Began { resource, operation, target: None } => write!(f, "{} of {resource} began", operation.word()),
            Self::Ended { resource, operation, failed: None } => {
                write!(f, "{} of {resource} is done", operation.word())
            }
            Self::Ended { resource, operation, failed: Some(why) } => {
                write!(f, "{} of {resource} failed: {why}", operation.word())
            }
            Self::Cancelled { resource, operation } => write!(f, "{} of {resource} was cancelled", operation.word()),
            Self::Found { resource, state, why: None } => write!(f, "a probe found {resource} {state}"),
            Self::Found { resource, state, why: Some(why) } => write!(f, "a probe found {resource} {state}: {why}"),
            Self::WatchdogArmed => f.write_str("its watchdog is armed"),
            Self::WatchdogDisarmed => f.write_str("its watchdog is off"),
            Self::WatchdogFailed { why } => write!(f, "its watchdog does not obey: {why}"),
            Self::LeaseHeld => f.write_str("it has a lease"),
            Self::LeaseLost => f.write_str("its lease ran out"),
            Self::Going { how } => write!(f, "it is about to {how}"),
            Self::MayGo => f.write_str("it may go: the cluster has agreed"),
            Self::StartsAnew => f.write_str("its life has ended in the log: its agent starts anew"),
            Self::Resets { fence } => write!(f, "it resets itself for fence {fence}"),
            Self::DeviceTold { node, device, command } => {
                write!(f, "power device {device} of {node} was asked: {}", word(*command))
            }
            Self::DeviceSaid { node, device, command, result } => {
                write!(f, "power device {device} of {node} answered {}: {}", word(*command), said(result))
            }
            Self::ClockWrong(fault) => fault.fmt(f),
            Self::JournalNotKept { why } => f.write_str(why),
            Self::Leads { term } => write!(f, "it leads, in term {term}"),
            Self::LeadsNoMore => f.write_str("it leads no more"),
        }
    }
}

const fn word(command: DeviceCommand) -> &'static str {
    match command {
        DeviceCommand::Look => "look",
        DeviceCommand::Off => "off",
        DeviceCommand::On => "on",
    }
}

fn said(result: &DeviceResult) -> String {
    match result {
        DeviceResult::IsOn => "it is on".to_owned(),
        DeviceResult::IsOff { sign } => format!("it is off, {sign}"),
        DeviceResult::Taken => "taken".to_owned(),
        DeviceResult::Refused { why } => format!("refused, {why}"),
        DeviceResult::Unanswered { why } => format!("no answer, {why}"),
    }
}

/// A member's journal.
#[derive(Default)]
pub(super) struct Journal {
    lines: VecDeque<JournalLine>,
    /// So many of the last ones have not been handed out to be kept.
    fresh: usize,
    operations: BTreeMap<OperationId, (ResourceName, OperationKind)>,
    found: BTreeMap<ResourceName, &'static str>,
    devices: BTreeMap<u64, (MemberName, String, DeviceCommand)>,
    looks: BTreeMap<(MemberName, String), DeviceResult>,
    has_lease: bool,
    leads: Option<u64>,
}

impl Journal {
    /// The last lines, oldest first.
    pub fn last(&self, count: usize) -> Vec<JournalLine> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).cloned().collect()
    }

    pub fn write(&mut self, at_ms: u64, deed: Deed) {
        if self.lines.len() >= JOURNAL_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(JournalLine { at_ms, deed });
        self.fresh = (self.fresh + 1).min(self.lines.len());
    }

    /// What came since the last call, oldest first.
    pub fn fresh(&mut self) -> Vec<JournalLine> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh == 0 { Vec::new() } else { self.last(fresh) }
    }

    /// What earlier processes of this member have left, oldest first.
    pub fn precede(&mut self, lines: Vec<JournalLine>) {
        let room = JOURNAL_MAX.saturating_sub(self.lines.len());
        for line in lines.into_iter().rev().take(room) {
            self.lines.push_front(line);
        }
    }

    /// What the node's executor or watchdog has reported.
    pub fn event(&mut self, at_ms: u64, event: &node::Event) {
        let deed = match event {
            node::Event::Ended(id, outcome) => {
                let Some((resource, operation)) = self.operations.remove(id) else { return };
                let failed = match outcome {
                    Outcome::Done => None,
                    Outcome::Failed { why } => Some(cut(why)),
                };
                Deed::Ended { resource, operation, failed }
            }
            node::Event::Probed(id, found) => {
                let Some((resource, _)) = self.operations.remove(id) else { return };
                let (state, why) = match found {
                    Found::Running => ("running", None),
                    Found::Stopped => ("stopped", None),
                    Found::Broken { why } => ("broken", Some(cut(why))),
                    Found::Unknown { why } => ("unknown", Some(cut(why))),
                };
                if self.found.insert(resource.clone(), state) == Some(state) {
                    return;
                }
                Deed::Found { resource, state: state.to_owned(), why }
            }
            node::Event::Armed(Ok(())) => Deed::WatchdogArmed,
            node::Event::Disarmed(Ok(())) => Deed::WatchdogDisarmed,
            node::Event::Armed(Err(why)) | node::Event::Disarmed(Err(why)) => Deed::WatchdogFailed { why: cut(why) },
            node::Event::Leaving(how) => Deed::Going { how: *how },
            // Who is given up by its cluster ends at once, and nobody asks it what it did.
            node::Event::TakenOver
            | node::Event::LeftoversKilled
            | node::Event::Answered(_)
            | node::Event::Hears(_)
            | node::Event::Used(_) => return,
        };
        self.write(at_ms, deed);
    }

    /// What the node's side wants done.
    pub fn action(&mut self, at_ms: u64, action: &node::Action) {
        let deed = match action {
            node::Action::Begin { id, resource, kind, target, .. } => {
                self.operations.insert(*id, (resource.clone(), *kind));
                match kind {
                    OperationKind::Probe => return,
                    OperationKind::Start | OperationKind::Stop | OperationKind::Migrate | OperationKind::Receive => {
                        Deed::Began { resource: resource.clone(), operation: *kind, target: target.clone() }
                    }
                }
            }
            node::Action::Cancel(id) => match self.operations.get(id) {
                Some((resource, operation)) => Deed::Cancelled { resource: resource.clone(), operation: *operation },
                None => return,
            },
            node::Action::StartAnew => Deed::StartsAnew,
            node::Action::MayGo => Deed::MayGo,
            node::Action::ResetSelf(fence) => Deed::Resets { fence: *fence },
            node::Action::ResetParted
            | node::Action::Renew { .. }
            | node::Action::Extend(_)
            | node::Action::Arm
            | node::Action::Disarm => return,
        };
        self.write(at_ms, deed);
    }

    /// A power device is told something.
    pub fn device(&mut self, at_ms: u64, token: u64, node: &MemberName, device: &str, command: DeviceCommand) {
        self.devices.insert(token, (node.clone(), device.to_owned(), command));
        match command {
            DeviceCommand::Look => {}
            DeviceCommand::Off | DeviceCommand::On => {
                self.write(at_ms, Deed::DeviceTold { node: node.clone(), device: device.to_owned(), command });
            }
        }
    }

    /// A power device has answered. Looks come several times a second: only what is new is kept.
    pub fn device_done(&mut self, at_ms: u64, token: u64, result: &DeviceResult) {
        let Some((node, device, command)) = self.devices.remove(&token) else { return };
        if command == DeviceCommand::Look {
            let before = self.looks.insert((node.clone(), device.clone()), result.clone());
            if before.as_ref() == Some(result) {
                return;
            }
        }
        self.write(at_ms, Deed::DeviceSaid { node, device, command, result: brief(result) });
    }

    /// Whether the node has a lease, and in which term the member leads.
    pub fn stands(&mut self, at_ms: u64, has_lease: bool, leads: Option<u64>) {
        if has_lease != self.has_lease {
            self.has_lease = has_lease;
            self.write(at_ms, if has_lease { Deed::LeaseHeld } else { Deed::LeaseLost });
        }
        if leads != self.leads {
            self.leads = leads;
            self.write(at_ms, leads.map_or(Deed::LeadsNoMore, |term| Deed::Leads { term }));
        }
    }

    /// What is known of resources that are gone needn't be remembered.
    pub fn forget(&mut self, is_there: impl Fn(&ResourceName) -> bool) {
        self.found.retain(|name, _| is_there(name));
    }
}

fn brief(result: &DeviceResult) -> DeviceResult {
    match result {
        DeviceResult::Refused { why } => DeviceResult::Refused { why: cut(why) },
        DeviceResult::Unanswered { why } => DeviceResult::Unanswered { why: cut(why) },
        DeviceResult::IsOn | DeviceResult::IsOff { .. } | DeviceResult::Taken => result.clone(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::fence::OffSign;

    use super::*;

    fn resource() -> ResourceName {
        ResourceName::new("web").unwrap()
    }

    fn begin(journal: &mut Journal, id: u64, kind: OperationKind) {
        journal.operations.insert(OperationId(id), (resource(), kind));
    }

    #[test]
    fn a_probe_is_told_only_when_it_finds_something_else() {
        let mut journal = Journal::default();
        for (id, found) in [Found::Stopped, Found::Running, Found::Running, Found::Stopped].into_iter().enumerate() {
            let id = u64::try_from(id).unwrap();
            begin(&mut journal, id, OperationKind::Probe);
            journal.event(id, &node::Event::Probed(OperationId(id), found));
        }
        let told: Vec<(u64, String)> =
            journal.last(9).into_iter().map(|line| (line.at_ms, line.deed.to_string())).collect();
        let expected = ["stopped", "running", "stopped"].map(|state| format!("a probe found web {state}"));
        assert_eq!(told.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(told.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[test]
    fn it_is_bounded_and_keeps_the_newest() {
        let mut journal = Journal::default();
        for term in 0..=JOURNAL_MAX as u64 {
            journal.write(term, Deed::Leads { term });
        }
        assert_eq!(journal.last(usize::MAX).len(), JOURNAL_MAX);
        assert_eq!(journal.last(1)[0].deed, Deed::Leads { term: JOURNAL_MAX as u64 });
        assert_eq!(journal.last(usize::MAX)[0].at_ms, 1);
    }

    #[test]
    fn what_is_new_is_handed_out_once_and_what_was_before_stands_before_it() {
        let line = |at_ms| JournalLine { at_ms, deed: Deed::Up };
        let mut journal = Journal::default();
        journal.write(7, Deed::Up);
        journal.precede((0..JOURNAL_MAX as u64).map(line).collect());
        assert_eq!(journal.last(usize::MAX).len(), JOURNAL_MAX);
        assert_eq!(journal.last(2), [line(JOURNAL_MAX as u64 - 1), line(7)]);
        assert_eq!(journal.last(usize::MAX)[0], line(1), "the oldest has to go");
        assert_eq!(journal.fresh(), [line(7)]);
        assert_eq!(journal.fresh(), []);
        for at_ms in 0..JOURNAL_MAX as u64 + 9 {
            journal.write(at_ms, Deed::Up);
        }
        assert_eq!(journal.fresh().len(), JOURNAL_MAX, "nobody has asked for long");
    }

    #[test]
    fn what_a_program_says_is_cut() {
        let mut journal = Journal::default();
        begin(&mut journal, 1, OperationKind::Start);
        let why = "ä".repeat(10_000);
        journal.event(0, &node::Event::Ended(OperationId(1), Outcome::Failed { why }));
        let [JournalLine { deed: Deed::Ended { failed: Some(why), .. }, .. }] = &journal.last(9)[..] else {
            panic!("{:?}", journal.last(9))
        };
        assert_eq!(why.chars().count(), TEXT_MAX);
    }

    #[test]
    fn leases_and_the_lead_are_told_when_they_change() {
        let mut journal = Journal::default();
        for (has_lease, leads) in [(false, None), (true, None), (true, Some(3)), (false, Some(3)), (false, None)] {
            journal.stands(0, has_lease, leads);
        }
        let deeds: Vec<Deed> = journal.last(9).into_iter().map(|line| line.deed).collect();
        assert_eq!(deeds, [Deed::LeaseHeld, Deed::Leads { term: 3 }, Deed::LeaseLost, Deed::LeadsNoMore]);
    }

    #[test]
    fn a_device_that_is_looked_at_again_and_again_says_the_same_once() {
        let mut journal = Journal::default();
        let node = MemberName::new("n1").unwrap();
        let off = DeviceResult::IsOff { sign: OffSign::Bmc };
        for (token, result) in [DeviceResult::IsOn, DeviceResult::IsOn, off].into_iter().enumerate() {
            let token = u64::try_from(token).unwrap();
            journal.device(0, token, &node, "bmc", DeviceCommand::Look);
            journal.device_done(0, token, &result);
        }
        assert_eq!(journal.last(9).len(), 2);
    }
}
