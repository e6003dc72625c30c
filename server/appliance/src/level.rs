//! Levels of a node's plan: the devices of one confirm together, and the next follows when that fails.
//!
//! The cluster's state and the fencer know levels alone, each under one name, in the order in which they are tried.

use std::sync::Arc;
use std::time::Duration;

use tiebreaker_fence::{AllOf, BoxFuture, Device, DeviceError, OffSign, PowerState, Proof};
use tiebreaker_member::errors::chain;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state::DeviceStatus;
use tiebreaker_pipeline::time::Reading;
use tokio::time::Instant;

use crate::audit::{Audit, Event};
use crate::devices::Managed;

/// One level of a node's plan: one device, or several that all have to confirm.
#[derive(Clone)]
pub(crate) struct Level {
    name: String,
    first: Arc<Managed>,
    others: Vec<Arc<Managed>>,
}

/// What is known of one device of a level.
pub(crate) struct Verdict {
    /// The device.
    pub(crate) name: String,
    /// It was proven.
    pub(crate) proven: bool,
    /// What is wrong, if anything.
    pub(crate) why: Option<String>,
}

impl Level {
    /// The plans of all nodes, each in the order in which its levels are tried: those with a number, then each device
    /// without one by itself, in the order of their names.
    pub(crate) fn all(devices: &[Arc<Managed>]) -> Vec<Self> {
        let mut sorted: Vec<&Arc<Managed>> = devices.iter().collect();
        sorted.sort_by_key(|device| {
            let level = device.recipe().level;
            (device.node().clone(), level.is_none(), level, device.name().to_owned())
        });
        let mut levels: Vec<Self> = Vec::new();
        for device in sorted {
            let level = device.recipe().level;
            match levels.last_mut() {
                Some(last)
                    if level.is_some() && last.first.recipe().level == level && last.first.node() == device.node() =>
                {
                    last.name = format!("{}+{}", last.name, device.name());
                    last.others.push(Arc::clone(device));
                }
                Some(_) | None => {
                    levels.push(Self { name: device.name().to_owned(), first: Arc::clone(device), others: Vec::new() })
                }
            }
        }
        levels
    }

    /// All devices of these levels, each with its level.
    pub(crate) fn with_parts(levels: &[Self]) -> Vec<(&Self, &Arc<Managed>)> {
        let mut parts = Vec::new();
        for level in levels {
            parts.extend(level.parts().map(|part| (level, part)));
        }
        parts
    }

    /// Its cluster.
    pub(crate) fn cluster(&self) -> &ClusterName {
        self.first.cluster()
    }

    /// Whose power it switches.
    pub(crate) fn node(&self) -> &MemberName {
        self.first.node()
    }

    /// Its name: that of its device, or those of all of them with a `+` between.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its devices.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Arc<Managed>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether several devices have to confirm.
    pub(crate) fn is_of_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// What it is called in the cluster's state.
    pub(crate) fn kind(&self) -> String {
        self.parts().map(|part| part.kind()).collect::<Vec<_>>().join("+")
    }

    /// All that it switches, in words.
    pub(crate) fn address(&self) -> String {
        self.parts().map(|part| part.recipe().address()).collect::<Vec<_>>().join(", ")
    }

    /// When all of it was proven in this run of the daemon.
    pub(crate) fn proven_at(&self) -> Option<Reading> {
        self.parts().map(|part| part.proven_at()).reduce(|one, other| Some(one?.earlier_of(other?))).flatten()
    }

    /// How long its slowest device took to answer its last proof, in this run of the daemon.
    pub(crate) fn answers(&self) -> Option<Duration> {
        self.parts().filter_map(|part| part.answers()).max()
    }

    /// A fence wants its devices: a proof that is under way gives way.
    pub(crate) fn want(&self) {
        for part in self.parts() {
            part.wanted.notify_waiters();
        }
    }

    /// Its devices as one; `audit` is told of each attempt at each of them.
    pub(crate) fn device(&self, audit: &Audit) -> Box<dyn Device> {
        let recorded = |managed: &Arc<Managed>| Recorded { managed: Arc::clone(managed), audit: audit.clone() };
        if !self.is_of_several() {
            return Box::new(recorded(&self.first));
        }
        let parts = self.parts().map(|part| Arc::new(recorded(part)) as Arc<dyn Device>).collect();
        Box::new(AllOf::new(parts).expect("a level has a device"))
    }

    /// What the cluster is told of it: it is proven if all of its devices are.
    pub(crate) fn status(&self, verdicts: &[Verdict]) -> DeviceStatus {
        let mut proven = true;
        let mut whys = Vec::new();
        for part in self.parts() {
            let verdict = verdicts.iter().find(|verdict| verdict.name == part.name());
            proven &= verdict.is_some_and(|verdict| verdict.proven);
            let why = verdict.and_then(|verdict| verdict.why.clone());
            whys.extend(why.map(|why| if self.is_of_several() { format!("{}: {why}", part.name()) } else { why }));
        }
        let why = (!whys.is_empty()).then(|| whys.join("; "));
        DeviceStatus { name: self.name.clone(), kind: self.kind(), proven, why }
    }
}

/// A device whose attempts are recorded, and whose errors name it.
struct Recorded {
    managed: Arc<Managed>,
    audit: Audit,
}

impl Recorded {
    async fn tell<T>(
        &self,
        command: &'static str,
        ask: impl Future<Output = Result<T, DeviceError>>,
        word: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, DeviceError> {
        let names = || {
            let managed = &self.managed;
            (managed.cluster().to_string(), managed.node().to_string(), managed.name().to_owned(), command.to_owned())
        };
        let (cluster, node, device, command) = names();
        self.audit.record(Event::Attempt { cluster, node, device, command });
        let answer = ask.await;
        let (result, why) = match &answer {
            Ok(answer) => (word(answer), None),
            Err(error) if error.fault.is_refusal() => ("refused", Some(chain(error))),
            Err(error) => ("unanswered", Some(chain(error))),
        };
        let (cluster, node, device, command) = names();
        self.audit.record(Event::Answer { cluster, node, device, command, result: result.to_owned(), why });
        answer.map_err(|error| DeviceError { device: format!("{}: {}", self.managed.name(), error.device), ..error })
    }
}

impl Device for Recorded {
    fn name(&self) -> &str {
        self.managed.device().name()
    }

    fn sign(&self) -> OffSign {
        self.managed.device().sign()
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(self.tell("look", self.managed.device().state(deadline), |state| match state {
            PowerState::On => "on",
            PowerState::Off => "off",
        }))
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.tell("off", self.managed.device().off(deadline), |()| "taken"))
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.tell("on", self.managed.device().on(deadline), |()| "taken"))
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        self.managed.device().prove(deadline)
    }
}
