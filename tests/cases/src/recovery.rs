//! Recoveries of theirs, and how long each took from the loss of the node to the running resource.

use std::fmt;

use crate::command::Command;
use crate::fault::named;
use crate::published::{Case, CaseError, Event};
use crate::schedule::Schedule;

/// A recovery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// The resource, by its name with us.
    pub resource: String,
    /// The lost node.
    pub from: String,
    /// The node that was chosen.
    pub to: String,
    /// How long it took, or why that says nothing.
    pub time: Result<Took, Untimed>,
}

/// When a node was lost, and how long it was until the resource ran again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Took {
    /// Seconds from the scenario's start.
    pub lost_at_s: u32,
    /// Seconds from the loss.
    pub after_s: u32,
}

/// Why the time of a recovery says nothing about the manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untimed {
    /// The node was lost before the case begins.
    LostBefore,
    /// The node was shut down in order.
    ShutDown,
    /// It had to wait for the lost node itself.
    WaitedForItsNode,
    /// The cluster was disarmed meanwhile.
    Disarmed,
    /// An operator asked for something else of the resource meanwhile.
    Asked,
    /// It isn't started: it is to stay stopped, or it fails.
    NotStarted,
    /// Its first starts fail. Ours tells when the first began, theirs when one succeeded.
    StartsFail,
}

impl fmt::Display for Untimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LostBefore => "the node was lost before",
            Self::ShutDown => "the node was shut down in order",
            Self::WaitedForItsNode => "it waited for the lost node itself",
            Self::Disarmed => "disarmed meanwhile",
            Self::Asked => "an operator changed what is wanted meanwhile",
            Self::NotStarted => "it isn't started",
            Self::StartsFail => "its first starts fail",
        })
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, from, to, time } = self;
        write!(f, "{resource} recovered from {from} to {to}: ")?;
        match time {
            Ok(took) => write!(f, "runs {} s after the loss at {} s", took.after_s, took.lost_at_s),
            Err(untimed) => write!(f, "no time, {untimed}"),
        }
    }
}

/// The recoveries of a case; `shift_s` is how much later it begins in the scenario.
pub(crate) fn recoveries(case: &Case, schedule: &Schedule, shift_s: u32) -> Result<Vec<Recovery>, CaseError> {
    let recovers = case.outcome.events.iter().filter(|event| event.ev == "recover");
    recovers
        .map(|event| {
            let (Some(sid), Some(from), Some(to)) = (&event.sid, &event.frm, &event.to) else {
                return Err(case.unknown("a recovery without resource or nodes, at second", &event.t.to_string()));
            };
            let named = named(sid).ok_or_else(|| case.unknown("the resource", sid))?;
            let time = if named.fails.start > 0 {
                Err(Untimed::StartsFail)
            } else {
                took(&case.outcome.events, schedule, event.t, sid, (from, to))
                    .map(|took| Took { lost_at_s: took.lost_at_s + shift_s, ..took })
            };
            Ok(Recovery { resource: named.id, from: from.clone(), to: to.clone(), time })
        })
        .collect()
}

fn took(
    events: &[Event],
    schedule: &Schedule,
    recovered_s: u32,
    sid: &str,
    (from, to): (&str, &str),
) -> Result<Took, Untimed> {
    let before = schedule.commands().rev().filter(|(at, _)| *at <= recovered_s);
    let lost_at_s = before.filter_map(|(at, command)| loss(command, from).map(|loss| loss.map(|()| at))).next();
    let lost_at_s = lost_at_s.unwrap_or(Err(Untimed::LostBefore))?;
    if from == to {
        return Err(Untimed::WaitedForItsNode);
    }
    let started = |event: &&Event| event.ev == "started" && event.sid.as_deref() == Some(sid) && event.t >= recovered_s;
    let started_s = events.iter().find(started).ok_or(Untimed::NotStarted)?.t;
    for (_, command) in schedule.commands().filter(|(at, _)| (lost_at_s + 1..=started_s).contains(at)) {
        if matches!(command, Command::Disarm(_)) {
            return Err(Untimed::Disarmed);
        }
        if command.sid() == Some(sid) {
            return Err(Untimed::Asked);
        }
    }
    Ok(Took { lost_at_s, after_s: started_s - lost_at_s })
}

/// Whether a command is how this node was lost, and whether it went in order.
fn loss(command: &Command, lost: &str) -> Option<Result<(), Untimed>> {
    match command {
        Command::Power { node, on: false } | Command::Network { node, on: false } if node == lost => Some(Ok(())),
        Command::Shutdown(node) | Command::Reboot(node) if node == lost => Some(Err(Untimed::ShutDown)),
        Command::Power { .. }
        | Command::Network { .. }
        | Command::Shutdown(_)
        | Command::Reboot(_)
        | Command::Delay(_)
        | Command::RestartAgent(_)
        | Command::StartAgent
        | Command::Maintenance { .. }
        | Command::Disarm(_)
        | Command::Arm
        | Command::Request { .. }
        | Command::Add { .. }
        | Command::Remove(_)
        | Command::Migrate { .. }
        | Command::Relocate { .. }
        | Command::Lock { .. }
        | Command::Unlock(_)
        | Command::ManualMove(_)
        | Command::SkipRound
        | Command::ConfigFilesystem
        | Command::Load
        | Command::Version => None,
    }
}
