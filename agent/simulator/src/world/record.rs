//! What happened in a world, in order.

use std::fmt::{self, Display};

use tiebreaker_member::core::{Reply, Request, RequestId};
use tiebreaker_pipeline::decision::LogLine;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::node::{OperationId, OperationKind, Outcome};

use super::World;
use super::invariants::Violation;
use super::machine::Who;

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// When, in nanoseconds.
    pub at: u64,
    /// To whom; `None` where it is nobody's alone.
    pub member: Option<MemberName>,
    /// What.
    pub what: Record,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// Something, in words.
    Words(String),
    /// It leads, and may grant leases.
    Leads {
        /// In which term.
        term: u64,
    },
    /// The cluster decided something.
    Decided(LogLine),
    /// An operation on a resource begins: a start or a stop.
    Begins {
        /// On which.
        resource: ResourceName,
        /// What kind.
        kind: OperationKind,
    },
    /// An operation on a resource is over.
    Ended {
        /// On which.
        resource: ResourceName,
        /// What kind.
        kind: OperationKind,
        /// Its number.
        id: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// An operation is cancelled.
    Cancels(OperationId),
    /// A resource runs.
    Runs(ResourceName),
    /// A resource died.
    Dies(ResourceName),
    /// Somebody asks something.
    Asked(Box<Request>),
    /// A request was answered.
    Answered {
        /// Which.
        request: RequestId,
        /// How.
        reply: Reply,
    },
    /// An invariant was broken.
    Violated(Violation),
}

impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::Leads { term } => write!(f, "leads term {term} and may grant"),
            Self::Decided(line) => write!(f, "#{} {}", line.index, line.decision),
            Self::Begins { resource, kind } => write!(f, "begins to {} {resource}", kind.word()),
            Self::Ended { resource, id, outcome, .. } => {
                write!(f, "operation {} on {resource} ended: {outcome:?}", id.0)
            }
            Self::Cancels(id) => write!(f, "cancels operation {}", id.0),
            Self::Runs(resource) => write!(f, "{resource} runs"),
            Self::Dies(resource) => write!(f, "{resource} dies"),
            Self::Asked(request) => write!(f, "is asked: {request:?}"),
            Self::Answered { reply, .. } => write!(f, "answers an operator: {reply:?}"),
            Self::Violated(violation) => write!(f, "VIOLATION {violation}"),
        }
    }
}

/// A line of a trace: time, machine, event.
impl Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at / 1_000_000;
        let who = self.member.as_ref().map_or("*", MemberName::as_str);
        write!(f, "{:>4}.{:03} {who:<9} {}", ms / 1000, ms % 1000, self.what)
    }
}

impl World {
    /// What was recorded since the last call.
    pub fn take_records(&mut self) -> Vec<Entry> {
        self.records.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records something in words, of nobody in particular.
    pub fn note(&mut self, words: impl FnOnce() -> String) {
        self.record(None, || Record::Words(words()));
    }

    pub(super) fn say(&mut self, who: Who, words: impl FnOnce() -> String) {
        self.record(Some(who), || Record::Words(words()));
    }

    pub(super) fn record(&mut self, who: Option<Who>, what: impl FnOnce() -> Record) {
        if let Some(records) = &mut self.records {
            let member = who.map(|who| self.machines[who].name.clone());
            records.push(Entry { at: self.now, member, what: what() });
        }
    }
}
