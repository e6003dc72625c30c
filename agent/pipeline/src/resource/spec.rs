//! The configuration of a resource: how it is operated, how important it is, and what it needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::MemberName;

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
        /// Moves it live to the node whose name is in `TIEBREAKER_TARGET`, and returns when that is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        migrate: Option<Vec<String>>,
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
    /// Whether its target has a part in a live move: a program of its own, once the source's has succeeded and the resource
    /// is gone from there. A plain command does all of it at the source.
    #[must_use]
    pub const fn is_received(&self) -> bool {
        match self {
            Self::Command { .. } => false,
            Self::Ocf { .. } => true,
        }
    }

    /// The bytes of its texts.
    fn size(&self) -> usize {
        match self {
            Self::Command { start, stop, status, migrate } => {
                [start, stop, status].into_iter().chain(migrate).flatten().map(String::len).sum()
            }
            Self::Ocf { provider, agent, params } => {
                provider.len()
                    + agent.len()
                    + params.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
        }
    }
}

/// How much the cluster does for a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Recovered wherever it fits, in the order of its number, for as long as it takes; the planner counts on room for it.
    #[default]
    Protected,
    /// Recovered once every protected resource runs; one attempt, then it is given up.
    BestEffort,
    /// Never recovered: after the loss of its node it stays stopped until an operator starts it.
    Unprotected,
}

impl Class {
    /// All of them, most important first.
    pub const ALL: [Self; 3] = [Self::Protected, Self::BestEffort, Self::Unprotected];
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Protected => "protected",
            Self::BestEffort => "best-effort",
            Self::Unprotected => "unprotected",
        })
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// How much the cluster does for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub class: Class,
    /// Its place in the start order of its class, lowest first; stops go the other way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: u32,
    /// Memory that it needs, in bytes; a hard limit of where it fits. `None` counts as nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processors that it needs, in thousandths; placement weighs them, nothing is refused for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milli_cpus: Option<u64>,
    /// It moves back to a better node as soon as that can have it. Off by default: each move is a disruption.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failback: bool,
    /// It can move live from node to node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub live: bool,
    /// Bound of one live migration.
    #[serde(default = "migrate_timeout_ms", skip_serializing_if = "is_usual_migrate_timeout")]
    pub migrate_timeout_ms: u64,
    /// The only nodes that can run it, because its storage or hardware is there; empty means all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub only_on: BTreeSet<MemberName>,
}

const MIGRATE_TIMEOUT_MS: u64 = 600_000;

const fn migrate_timeout_ms() -> u64 {
    MIGRATE_TIMEOUT_MS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_usual_migrate_timeout(ms: &u64) -> bool {
    *ms == MIGRATE_TIMEOUT_MS
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
            class: Class::Protected,
            order: 0,
            memory: None,
            milli_cpus: None,
            failback: false,
            live: false,
            migrate_timeout_ms: MIGRATE_TIMEOUT_MS,
            only_on: BTreeSet::new(),
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
        bounded("migrate_timeout_ms", self.migrate_timeout_ms, 100, 24 * 3_600_000)?;
        bounded("order", self.order.into(), 0, 1_000_000)?;
        bounded("memory", self.memory.unwrap_or(0), 0, 1 << 50)?;
        bounded("milli_cpus", self.milli_cpus.unwrap_or(0), 0, 10_000_000)?;
        let size = self.driver.size();
        if size > DRIVER_MAX {
            return Err(SpecError::TooLarge { size });
        }
        match &self.driver {
            Driver::Command { start, stop, status, migrate } => {
                let programs = [("start", start), ("stop", stop), ("status", status)];
                for (key, argv) in programs.into_iter().chain(migrate.iter().map(|argv| ("migrate", argv))) {
                    match argv.first() {
                        Some(program) if program.starts_with('/') => {}
                        Some(_) | None => return Err(SpecError::NoProgram { key }),
                    }
                }
                if self.live && migrate.is_none() {
                    return Err(SpecError::CannotMigrate);
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
        /// Which of start, stop, status, migrate.
        key: &'static str,
    },
    /// Live migration without a program for it.
    #[error("it can't be live without a program that migrates it: name one, or leave out live")]
    CannotMigrate,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_names_its_fault() {
        let argv = || vec!["/bin/true".to_owned()];
        let good =
            ResourceSpec::with_defaults(Driver::Command { start: argv(), stop: argv(), status: argv(), migrate: None });
        assert_eq!(good.check(), Ok(()));
        let mut slow = good.clone();
        slow.monitor_every_ms = 1;
        assert!(matches!(slow.check(), Err(SpecError::OutOfRange { key: "monitor_every_ms", .. })));
        let relative = vec!["true".to_owned()];
        let bad = ResourceSpec::with_defaults(Driver::Command {
            start: relative,
            stop: argv(),
            status: argv(),
            migrate: None,
        });
        assert_eq!(bad.check(), Err(SpecError::NoProgram { key: "start" }));
        let agent = Driver::Ocf { provider: "../x".into(), agent: "Dummy".into(), params: BTreeMap::new() };
        assert!(ResourceSpec::with_defaults(agent).check().is_err());
    }
}
