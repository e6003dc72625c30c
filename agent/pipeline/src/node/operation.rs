//! Operations: what a node has done to a resource, and what comes of it.

use serde::{Deserialize, Serialize};

/// Names one operation of one agent start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OperationId(pub u64);

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Starts a resource.
    Start,
    /// Stops it.
    Stop,
    /// Asks whether it runs.
    Probe,
    /// Moves it live to another node.
    Migrate,
    /// Finishes a live move at its target, once the resource is gone from its source.
    Receive,
}

impl OperationKind {
    /// The operation as a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Probe => "probe",
            Self::Migrate => "migrate",
            Self::Receive => "receive",
        }
    }
}

/// How a start or stop ended. None of these says what runs: only a probe does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its program said that it succeeded.
    Done,
    /// Its program failed, was killed at its deadline, or was cancelled.
    Failed {
        /// What happened.
        why: String,
    },
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It runs.
    Running,
    /// It doesn't run.
    Stopped,
    /// It runs, or half runs, and is broken: it must be stopped before it can be started.
    Broken {
        /// What is wrong.
        why: String,
    },
    /// No answer that can be trusted. Counts as running.
    Unknown {
        /// Why.
        why: String,
    },
}
