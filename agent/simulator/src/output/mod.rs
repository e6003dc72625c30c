//! What comes out of a run: one JSON document, or a timeline for people.

mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a scenario went. Times are seconds from its beginning, to the millisecond.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Document {
    /// Resources at the end, by id.
    pub resources: BTreeMap<String, ResourceEnd>,
    /// Nodes at the end, by name.
    pub nodes: BTreeMap<String, NodeEnd>,
    /// Fences that were proven, in their order.
    pub fenced: Vec<Fenced>,
    /// Resources that were recovered from a fenced node, in their order.
    pub recovered: Vec<Recovered>,
    /// Who led, in the order in which they began.
    pub leaders: Vec<String>,
    /// Broken invariants: none, if the product is right.
    pub violations: Vec<Violation>,
    /// Everything that happened.
    pub timeline: Vec<Line>,
}

/// A resource at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceEnd {
    /// Its state, as the cluster sees it.
    pub state: String,
    /// Where it belongs.
    pub node: Option<String>,
    /// Where it really runs: one node at most, if the product is right.
    pub running_on: Vec<String>,
}

/// A node at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEnd {
    /// Its state, as the cluster sees it.
    pub state: String,
    /// `on` or `off`.
    pub power: Switch,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// A fence that was proven.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Fenced {
    /// Whose.
    pub node: String,
    /// When the proof was committed.
    pub at_s: f64,
    /// The proof's grade: `bmc-off`, `new-boot`, `watchdog-time` or `operator`; a real device can give others.
    pub evidence: String,
}

/// A resource that was recovered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recovered {
    /// Which.
    pub resource: String,
    /// From whom.
    pub from: String,
    /// By whom.
    pub to: String,
    /// When its start began; where it is to stay stopped, when it was placed.
    pub at_s: f64,
    /// The time since its node was lost.
    pub after_s: f64,
}

/// A broken invariant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Violation {
    /// When.
    pub at_s: f64,
    /// Which.
    pub invariant: String,
    /// How.
    pub how: String,
}

/// One line of the timeline.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a line tells.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// An event of the scenario.
    Event {
        /// As the scenario writes it.
        event: String,
    },
    /// What an operator was answered.
    Answer {
        /// Done.
        done: bool,
        /// In words.
        answer: String,
    },
    /// The cluster decided something.
    Decision {
        /// In words.
        decision: String,
    },
    /// A member leads from here on.
    Leader {
        /// Who.
        member: String,
        /// In which term.
        term: u64,
    },
    /// Something happened on a machine.
    Machine {
        /// Which.
        member: String,
        /// In words.
        happened: String,
    },
    /// Something happened to a resource.
    Resource {
        /// Which.
        resource: String,
        /// Where.
        node: String,
        /// What.
        happened: Happened,
    },
    /// An invariant was broken.
    Violation {
        /// Which.
        invariant: String,
        /// How.
        how: String,
    },
}

/// What happened to a resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// Its start begins.
    Starts,
    /// It runs.
    Runs,
    /// Its stop begins.
    Stops,
    /// Its live move begins.
    Moves,
    /// It came live, and its node begins to finish that.
    Receives,
    /// It runs no more.
    Stopped,
    /// It died.
    Died,
    /// A start or stop failed.
    Failed {
        /// How.
        why: String,
    },
}

/// Seconds to the millisecond, of nanoseconds.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    Duration::from_millis(ns / 1_000_000).as_secs_f64()
}

#[cfg(test)]
mod tests;
