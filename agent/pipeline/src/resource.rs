//! Resources: what an operator asks for, and where the cluster has put it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{MemberName, ResourceName};

/// How a resource is started, stopped and probed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "lowercase", deny_unknown_fields)]
pub enum Driver {
    /// Three programs with their arguments. `status` exits 0 for running and 3 for stopped; anything else is unknown.
    Command {
        /// Starts the resource and returns.
        start: Vec<String>,
        /// Stops the resource and returns.
        stop: Vec<String>,
        /// Tells whether it runs.
        status: Vec<String>,
    },
    /// An OCF resource agent, for instance `ocf:heartbeat:IPaddr2`.
    Ocf {
        /// The agent's vendor, `heartbeat` in `ocf:heartbeat:Dummy`.
        provider: String,
        /// The agent, `Dummy` in `ocf:heartbeat:Dummy`.
        agent: String,
        /// Its parameters, without the prefix `OCF_RESKEY_`.
        #[serde(default)]
        params: BTreeMap<String, String>,
    },
}

/// Programs, arguments and parameters of one resource, in bytes at most: every member holds all of them.
pub const DRIVER_MAX: usize = 16 * 1024;

impl Driver {
    /// The bytes of its texts.
    fn size(&self) -> usize {
        match self {
            Self::Command { start, stop, status } => [start, stop, status].into_iter().flatten().map(String::len).sum(),
            Self::Ocf { provider, agent, params } => {
                provider.len()
                    + agent.len()
                    + params.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
        }
    }
}

/// What an operator wants of a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requested {
    /// Keep it running.
    #[default]
    Started,
    /// Keep it stopped, but placed.
    Stopped,
}

/// The configuration of a resource. Times are in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// How it is operated.
    pub driver: Driver,
    /// Restarts on the same node before it is moved.
    pub max_restart: u32,
    /// Moves after failures before it is given up.
    pub max_relocate: u32,
    /// Bound of one start.
    pub start_timeout_ms: u64,
    /// Bound of one stop.
    pub stop_timeout_ms: u64,
    /// Time between two probes of a running resource.
    pub monitor_every_ms: u64,
    /// Bound of one probe.
    pub monitor_timeout_ms: u64,
}

impl ResourceSpec {
    /// A specification with the usual limits: one restart, one move, 60 s to start and stop, a probe every 10 s.
    #[must_use]
    pub fn with_defaults(driver: Driver) -> Self {
        Self {
            driver,
            max_restart: 1,
            max_relocate: 1,
            start_timeout_ms: 60_000,
            stop_timeout_ms: 60_000,
            monitor_every_ms: 10_000,
            monitor_timeout_ms: 20_000,
        }
    }

    /// Checks the bounds that every member relies on.
    ///
    /// # Errors
    /// Says which value is wrong and what is allowed.
    pub fn check(&self) -> Result<(), SpecError> {
        let bounded = |key: &'static str, value: u64, from: u64, to: u64| {
            if (from..=to).contains(&value) { Ok(()) } else { Err(SpecError::OutOfRange { key, value, from, to }) }
        };
        bounded("max_restart", self.max_restart.into(), 0, 100)?;
        bounded("max_relocate", self.max_relocate.into(), 0, 100)?;
        bounded("start_timeout_ms", self.start_timeout_ms, 100, 3_600_000)?;
        bounded("stop_timeout_ms", self.stop_timeout_ms, 100, 3_600_000)?;
        bounded("monitor_every_ms", self.monitor_every_ms, 100, 3_600_000)?;
        bounded("monitor_timeout_ms", self.monitor_timeout_ms, 100, 600_000)?;
        let size = self.driver.size();
        if size > DRIVER_MAX {
            return Err(SpecError::TooLarge { size });
        }
        match &self.driver {
            Driver::Command { start, stop, status } => {
                for (key, argv) in [("start", start), ("stop", stop), ("status", status)] {
                    match argv.first() {
                        Some(program) if program.starts_with('/') => {}
                        Some(_) | None => return Err(SpecError::NoProgram { key }),
                    }
                }
            }
            Driver::Ocf { provider, agent, params } => {
                for (key, text) in [("provider", provider), ("agent", agent)] {
                    let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                    if text.is_empty() || text.starts_with('.') || !text.chars().all(clean) {
                        return Err(SpecError::BadAgent { key, text: text.clone() });
                    }
                }
                for name in params.keys() {
                    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                        return Err(SpecError::BadParameter { name: name.clone() });
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is wrong with a specification.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecError {
    /// A number outside its bounds.
    #[error("{key} = {value} is out of range: use {from} to {to}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What was given.
        value: u64,
        /// The least allowed.
        from: u64,
        /// The most allowed.
        to: u64,
    },
    /// Too much text.
    #[error("its programs, arguments and parameters have {size} bytes, more than {DRIVER_MAX}: put them into a script")]
    TooLarge {
        /// How much.
        size: usize,
    },
    /// A program that is missing or not an absolute path.
    #[error("the program for {key} must be given by its absolute path")]
    NoProgram {
        /// Which of start, stop, status.
        key: &'static str,
    },
    /// A name that can't be an OCF agent's.
    #[error("{text:?} can't be the {key} of an OCF agent: use letters, digits, '-', '_' and '.'")]
    BadAgent {
        /// provider or agent.
        key: &'static str,
        /// What was given.
        text: String,
    },
    /// A name that can't be a parameter's.
    #[error("{name:?} can't be a parameter of an OCF agent: use letters, digits and '_'")]
    BadParameter {
        /// What was given.
        name: String,
    },
}

/// Why a resource leaves its node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveReason {
    /// It failed there more often than `max_restart` allows.
    Failed {
        /// What the node reported.
        why: String,
    },
    /// An operator asked for it.
    Asked,
}

/// Where a resource stands. Whoever owns it by this state may be running it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Just added: every node is asked whether it runs there already.
    New,
    /// It belongs on `node`, which runs it or keeps it stopped, as requested.
    Placed {
        /// The owner.
        node: MemberName,
    },
    /// `node` must stop it and say so before anyone else may have it.
    Releasing {
        /// The owner until it has reported the stop.
        node: MemberName,
        /// Where it shall go, if that is settled.
        to: Option<MemberName>,
        /// Why.
        why: MoveReason,
    },
    /// Proven to run nowhere: its owner was fenced.
    Free {
        /// The node that was fenced.
        from: MemberName,
    },
    /// Given up until an operator sets it anew. The owner, if any, may still run it.
    Error {
        /// The owner.
        node: Option<MemberName>,
        /// What went wrong.
        why: String,
    },
}

impl Phase {
    /// The node that may be running the resource by this phase.
    #[must_use]
    pub fn owner(&self) -> Option<&MemberName> {
        match self {
            Self::Placed { node } | Self::Releasing { node, .. } => Some(node),
            Self::Error { node, .. } => node.as_ref(),
            Self::New | Self::Free { .. } => None,
        }
    }
}

/// A resource as the replicated state holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resource {
    /// Its configuration.
    pub spec: ResourceSpec,
    /// What the operator wants.
    pub requested: Requested,
    /// Where it stands.
    pub phase: Phase,
    /// Counts every change of phase or request, over all resources: names one decision for good.
    pub generation: u64,
    /// The log index of that decision. A report counts only when its node had applied it.
    pub since: u64,
    /// Moves after failures so far.
    pub relocations: u32,
    /// Nodes on which it failed since an operator last set it.
    pub failed_on: BTreeSet<MemberName>,
}

/// Resources by name.
pub type Resources = BTreeMap<ResourceName, Resource>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_names_its_fault() {
        let argv = || vec!["/bin/true".to_owned()];
        let good = ResourceSpec::with_defaults(Driver::Command { start: argv(), stop: argv(), status: argv() });
        assert_eq!(good.check(), Ok(()));
        let mut slow = good.clone();
        slow.monitor_every_ms = 1;
        assert!(matches!(slow.check(), Err(SpecError::OutOfRange { key: "monitor_every_ms", .. })));
        let relative = vec!["true".to_owned()];
        let bad = ResourceSpec::with_defaults(Driver::Command { start: relative, stop: argv(), status: argv() });
        assert_eq!(bad.check(), Err(SpecError::NoProgram { key: "start" }));
        let agent = Driver::Ocf { provider: "../x".into(), agent: "Dummy".into(), params: BTreeMap::new() };
        assert!(ResourceSpec::with_defaults(agent).check().is_err());
    }
}
