//! One resource, whatever its driver.

use std::path::PathBuf;
use std::time::Duration;

use super::{CommandSpec, OcfRoot, OcfSpec};
use crate::operation::{Kind, OperationError, OperationRequest, Operations, Outcome};

/// A resource as the executor handles it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// How it is driven.
    pub driver: Driver,
    /// How long its operations may take.
    pub deadlines: Deadlines,
}

/// How a resource is driven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Driver {
    /// By three programs.
    Command(CommandSpec),
    /// By an OCF resource agent.
    Ocf(OcfSpec, OcfRoot),
}

/// How long operations may take until they are killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadlines {
    /// A start.
    pub start: Duration,
    /// A stop.
    pub stop: Duration,
    /// A probe.
    pub monitor: Duration,
    /// Each end's part of a live move.
    pub migrate: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            stop: Duration::from_secs(60),
            monitor: Duration::from_secs(20),
            migrate: Duration::from_secs(600),
        }
    }
}

impl Deadlines {
    const fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Start => self.start,
            Kind::Stop => self.stop,
            Kind::Monitor => self.monitor,
            Kind::Migrate | Kind::Receive => self.migrate,
        }
    }
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// It runs.
    Running,
    /// Nothing of it runs.
    Stopped,
    /// It is broken; parts of it may run.
    Failed,
    /// Nobody knows.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Probe {
    /// Whether the resource must be taken to run on this node: always, unless a probe says that it is stopped.
    #[must_use]
    pub const fn counts_as_running(&self) -> bool {
        match self {
            Self::Running | Self::Failed | Self::Unknown { .. } => true,
            Self::Stopped => false,
        }
    }
}

/// Why an operation was not even begun, or what became of it is unknown.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The OCF agent is not installed.
    #[error(
        "the OCF agent ocf:{provider}:{kind} is not installed: {path} is missing; the agents of provider `heartbeat` \
         are in the Debian package resource-agents"
    )]
    AgentMissing {
        /// Its vendor.
        provider: String,
        /// Its type.
        kind: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A part of a specification can't be used.
    #[error("{what} {value:?} can't be used: {why}")]
    Spec {
        /// Which part.
        what: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operation itself.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl Resource {
    /// Starts it. Whether it runs then is for [`Resource::probe`] to say.
    pub async fn start(&self, operations: &Operations) -> Result<Outcome, DriverError> {
        self.run(operations, Kind::Start, None).await
    }

    /// Stops it. Whatever the outcome says, it is stopped when [`Resource::probe`] says so, and not before.
    pub async fn stop(&self, operations: &Operations) -> Result<Outcome, DriverError> {
        self.run(operations, Kind::Stop, None).await
    }

    /// Moves it live to another node. Where it runs then is for the probes of both nodes to say.
    pub async fn migrate(&self, operations: &Operations, target: &str) -> Result<Outcome, DriverError> {
        self.run(operations, Kind::Migrate, Some(target)).await
    }

    /// Finishes a live move that came from another node, where the resource is gone. Whether it runs then is for
    /// [`Resource::probe`] to say.
    pub async fn receive(&self, operations: &Operations, source: &str) -> Result<Outcome, DriverError> {
        self.run(operations, Kind::Receive, Some(source)).await
    }

    /// Looks whether it runs. Everything that keeps the look from an answer makes it unknown: a missing agent, a
    /// probe that hangs, an operation still in flight.
    pub async fn probe(&self, operations: &Operations) -> Probe {
        match self.run(operations, Kind::Monitor, None).await {
            Ok(Outcome::Done) => self.judge(0, ""),
            Ok(Outcome::Failed { code, output }) => self.judge(code, &output),
            Ok(Outcome::TimedOut) => unknown("the probe did not end in time"),
            Ok(Outcome::Cancelled) => unknown("the probe was cancelled"),
            Ok(Outcome::KilledLeftover) => unknown("the probe was killed"),
            Err(error) => unknown(&error.to_string()),
        }
    }

    async fn run(&self, operations: &Operations, kind: Kind, other: Option<&str>) -> Result<Outcome, DriverError> {
        let deadline = self.deadlines.of(kind);
        let (argv, env) = match &self.driver {
            Driver::Command(spec) => spec.program(kind, other)?,
            Driver::Ocf(spec, root) => tokio::task::block_in_place(|| {
                spec.program(root, &self.name, kind, other, deadline, operations.runtime_dir())
            })?,
        };
        let request = OperationRequest { resource: self.name.clone(), kind, argv, env, deadline };
        Ok(operations.run(request).await?)
    }

    fn judge(&self, code: i32, output: &str) -> Probe {
        match &self.driver {
            Driver::Command(_) => CommandSpec::judge(code, output),
            Driver::Ocf(..) => OcfSpec::judge(code, output),
        }
    }
}

pub(super) fn unknown(why: &str) -> Probe {
    Probe::Unknown { why: why.to_owned() }
}

/// An exit code that says nothing of the resource, with the last line that the program wrote.
pub(super) fn unknown_code(code: i32, meaning: &str, output: &str) -> Probe {
    let said = output.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
    unknown(&format!("the probe ended with code {code} ({meaning}){said}"))
}
