//! The power devices of one cluster, and commands of the fencer for them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{Device, DeviceError, Fault, PowerState};
use tiebreaker_member::clock;
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::fence::OffSign;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::time::Reading;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::info;

use crate::audit::{Audit, Event};
use crate::config::ClusterConfig;
use crate::desk::unix_ms;
use crate::drill::Drills;
use crate::proofs::PROVE_EVERY;
use crate::recipe::Recipe;

/// A command that isn't done by then counts as unanswered.
pub(crate) const COMMAND_WITHIN: Duration = Duration::from_secs(10);
pub(crate) type Key = (MemberName, String);

/// The devices of one cluster.
#[derive(Clone)]
pub struct Devices {
    cluster: ClusterName,
    devices: Arc<RwLock<BTreeMap<Key, Arc<Managed>>>>,
    pub(crate) prove_every: Duration,
    pub(crate) audit: Audit,
    pub(crate) drills: Drills,
}

/// A device, and what the configuration says of it.
pub(crate) struct Managed {
    recipe: Recipe,
    device: Box<dyn Device>,
    /// A fence wants it: a device does one thing at a time, and a proof can take seconds.
    pub(crate) wanted: Notify,
    /// When it was proven last, milliseconds since 1970; 0: not yet.
    proven_at_ms: AtomicU64,
    /// The same by the clocks that nobody sets.
    proven_at: Mutex<Option<Reading>>,
    /// It was configured anew: it is proven at once.
    anew: AtomicBool,
}

impl Managed {
    fn open(recipe: Recipe) -> Result<Self> {
        let device = recipe.open().with_context(|| format!("device {} of {}", recipe.name, recipe.node))?;
        let (wanted, proven_at_ms, proven_at) = (Notify::new(), AtomicU64::new(0), Mutex::new(None));
        Ok(Self { recipe, device, wanted, proven_at_ms, proven_at, anew: AtomicBool::new(true) })
    }

    /// Its cluster.
    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.recipe.cluster
    }

    /// Whose power it switches.
    pub(crate) fn node(&self) -> &MemberName {
        &self.recipe.node
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Its kind, as the configuration names it.
    pub(crate) fn kind(&self) -> &'static str {
        self.recipe.kind
    }

    /// The driver.
    pub(crate) fn device(&self) -> &dyn Device {
        self.device.as_ref()
    }

    /// As it is configured.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// When it was proven last in this run of the daemon.
    pub(crate) fn proven_at_ms(&self) -> Option<u64> {
        Some(self.proven_at_ms.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// The same by the clocks that nobody sets.
    pub(crate) fn proven_at(&self) -> Option<Reading> {
        *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn proven_now(&self) {
        self.proven_at_ms.store(unix_ms(), Ordering::Relaxed);
        *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
    }

    /// Whether it has not been tried since it was configured; told once.
    pub(crate) fn is_anew(&self) -> bool {
        self.anew.swap(false, Ordering::Relaxed)
    }

    /// Its secret is another now: it is proven at once.
    pub(crate) fn renew(&self) {
        self.anew.store(true, Ordering::Relaxed);
    }
}

impl Devices {
    /// Devices from their configuration.
    ///
    /// # Errors
    /// One can't be opened.
    pub(crate) fn new(cluster: &ClusterName, config: &ClusterConfig, audit: Audit, root: &Path) -> Result<Self> {
        let mut devices = BTreeMap::new();
        for recipe in &config.devices {
            let managed = Managed::open(recipe.clone())?;
            devices.insert((recipe.node.clone(), recipe.name.clone()), Arc::new(managed));
        }
        let prove_every = config.prove_every.unwrap_or(PROVE_EVERY);
        let (devices, drills) = (Arc::new(RwLock::new(devices)), Drills::below(root));
        Ok(Self { cluster: cluster.clone(), devices, prove_every, audit, drills })
    }

    /// Their cluster.
    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Takes one more device, or one in the place of another.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn add(&self, recipe: Recipe) -> Result<()> {
        let key = (recipe.node.clone(), recipe.name.clone());
        let managed = Arc::new(Managed::open(recipe)?);
        self.devices.write().unwrap_or_else(PoisonError::into_inner).insert(key, managed);
        Ok(())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Managed>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn get(&self, node: &MemberName, name: &str) -> Option<Arc<Managed>> {
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        devices.get(&(node.clone(), name.to_owned())).cloned()
    }

    /// The devices of a node, or one of them; all without a node.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn find(&self, node: Option<&str>, device: Option<&str>) -> Result<Vec<Arc<Managed>>> {
        let all = self.all();
        let Some(node) = node else { return Ok(all) };
        let mine: Vec<Arc<Managed>> = all.into_iter().filter(|managed| managed.node().as_str() == node).collect();
        if mine.is_empty() {
            bail!("{node} has no power device here: `tiebreaker-server device list` shows which there are");
        }
        let Some(device) = device else { return Ok(mine) };
        let names = mine.iter().map(|managed| managed.name().to_owned()).collect::<Vec<_>>().join(", ");
        let found: Vec<Arc<Managed>> = mine.into_iter().filter(|managed| managed.name() == device).collect();
        if found.is_empty() {
            bail!("{node} has no power device {device:?}: it has {names}");
        }
        Ok(found)
    }

    /// Carries out a command of the fencer and reports its result.
    pub fn command(&self, member: MemberHandle, token: u64, node: MemberName, device: String, command: DeviceCommand) {
        let (found, audit, drills) = (self.get(&node, &device), self.audit.clone(), self.drills.clone());
        tokio::spawn(async move {
            let result = match found {
                Some(found) => {
                    let (cluster, words) = (found.cluster().to_string(), words_of(command));
                    drills.before(&member, &found, command).await;
                    audit.record(Event::Attempt {
                        cluster: cluster.clone(),
                        node: node.to_string(),
                        device: device.clone(),
                        command: words.to_owned(),
                    });
                    found.wanted.notify_waiters();
                    let result = work(found.device.as_ref(), command).await;
                    drills.after(&found, command, &result);
                    let (outcome, why) = outcome_of(&result);
                    audit.record(Event::Answer {
                        cluster,
                        node: node.to_string(),
                        device: device.clone(),
                        command: words.to_owned(),
                        result: outcome.to_owned(),
                        why,
                    });
                    result
                }
                None => DeviceResult::Refused {
                    why: format!("{node} has no device {device:?} in the configuration any more"),
                },
            };
            info!(%node, device, ?command, ?result, "power device");
            member.tell(Tell::Device(token, result)).await;
        });
    }
}

const fn words_of(command: DeviceCommand) -> &'static str {
    match command {
        DeviceCommand::Look => "look",
        DeviceCommand::Off => "off",
        DeviceCommand::On => "on",
    }
}

fn outcome_of(result: &DeviceResult) -> (&'static str, Option<String>) {
    match result {
        DeviceResult::IsOn => ("on", None),
        DeviceResult::IsOff { .. } => ("off", None),
        DeviceResult::Taken => ("taken", None),
        DeviceResult::Refused { why } => ("refused", Some(why.clone())),
        DeviceResult::Unanswered { why } => ("unanswered", Some(why.clone())),
    }
}

async fn work(device: &dyn Device, command: DeviceCommand) -> DeviceResult {
    let deadline = Instant::now() + COMMAND_WITHIN;
    let result = match command {
        DeviceCommand::Look => device.state(deadline).await.map(|state| match state {
            PowerState::On => DeviceResult::IsOn,
            PowerState::Off => DeviceResult::IsOff { sign: sign(device) },
        }),
        DeviceCommand::Off => device.off(deadline).await.map(|()| DeviceResult::Taken),
        DeviceCommand::On => device.on(deadline).await.map(|()| DeviceResult::Taken),
    };
    result.unwrap_or_else(|error| {
        let why = explain(&error);
        match error.fault {
            // Only a clear refusal proves that nothing will come of the command.
            Fault::Credentials | Fault::Privilege | Fault::Refused => DeviceResult::Refused { why },
            Fault::Unreachable | Fault::Busy | Fault::Protocol => DeviceResult::Unanswered { why },
        }
    })
}

/// What stands behind a device's word, in the words of the cluster.
fn sign(device: &dyn Device) -> OffSign {
    match device.sign() {
        tiebreaker_fence::OffSign::Bmc => OffSign::Bmc,
        tiebreaker_fence::OffSign::Meter => OffSign::Meter,
        tiebreaker_fence::OffSign::Led => OffSign::Led,
        tiebreaker_fence::OffSign::Relay => OffSign::Relay,
        tiebreaker_fence::OffSign::Program => OffSign::Program,
    }
}

/// An error with its causes.
pub(crate) fn explain(error: &DeviceError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
