//! The power devices of one cluster, and commands of the fencer for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{Device, PowerState};
use tiebreaker_member::clock;
use tiebreaker_member::errors::chain;
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::fence::OffSign;
use tiebreaker_pipeline::fencer::{self, DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::time::Reading;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use crate::audit::Audit;
use crate::brake::{self, BRAKE_WINDOW};
use crate::config::ClusterConfig;
use crate::desk::unix_ms;
use crate::drill::Drills;
use crate::layout::Layout;
use crate::level::Level;
use crate::proofs::PROVE_EVERY;
use crate::recipe::Recipe;
use crate::times::{Times, UNKNOWN};
use crate::witnesses::Witnesses;

/// A command that isn't done by then counts as unanswered.
pub(crate) const COMMAND_WITHIN: Duration = Duration::from_secs(10);
pub(crate) type Key = (MemberName, String);

/// The devices of one cluster.
#[derive(Clone)]
pub struct Devices {
    cluster: ClusterName,
    devices: Arc<RwLock<BTreeMap<Key, Arc<Managed>>>>,
    pub(crate) prove_every: Duration,
    brake_window: Duration,
    pub(crate) audit: Audit,
    pub(crate) drills: Drills,
    pub(crate) times: Times,
    witnesses: Witnesses,
}

/// A device, and what the configuration says of it.
pub(crate) struct Managed {
    recipe: Recipe,
    device: Box<dyn Device>,
    /// What its last proof said, in this run of the daemon: whether it is proven, and what is wrong.
    verdict: Mutex<Option<(bool, Option<String>)>>,
    /// How long its last proof took, in milliseconds; 0: none yet.
    answers_ms: AtomicU64,
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
        Ok(Self::of(recipe, device))
    }

    /// A device that is open.
    pub(crate) fn of(recipe: Recipe, device: Box<dyn Device>) -> Self {
        Self {
            recipe,
            device,
            verdict: Mutex::new(None),
            answers_ms: AtomicU64::new(0),
            wanted: Notify::new(),
            proven_at_ms: AtomicU64::new(0),
            proven_at: Mutex::new(None),
            anew: AtomicBool::new(true),
        }
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

    /// How long its last proof in this run of the daemon took.
    pub(crate) fn answers(&self) -> Option<Duration> {
        Some(self.answers_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    pub(crate) fn answered_within(&self, took: Duration) {
        self.answers_ms.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// What its last proof in this run of the daemon said: whether it is proven, and what is wrong.
    pub(crate) fn verdict(&self) -> Option<(bool, Option<String>)> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn judged(&self, proven: bool, why: Option<String>) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some((proven, why));
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
        let brake_window = config.brake_window.unwrap_or(BRAKE_WINDOW);
        let (devices, drills) = (Arc::new(RwLock::new(devices)), Drills::below(root));
        let times = Times::below(&Layout::new(root).cluster(cluster));
        Ok(Self {
            cluster: cluster.clone(),
            devices,
            prove_every,
            brake_window,
            audit,
            drills,
            times,
            witnesses: Witnesses::default(),
        })
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

    /// The plans of all nodes, each in the order in which its levels are tried.
    pub(crate) fn levels(&self) -> Vec<Level> {
        Level::all(&self.all())
    }

    fn level(&self, node: &MemberName, name: &str) -> Option<Level> {
        self.levels().into_iter().find(|level| level.node() == node && level.name() == name)
    }

    /// The level of a node, by its name or by that of its only device; a node that has one needs no name for it.
    ///
    /// # Errors
    /// There is none, or several.
    pub(crate) fn find_level(&self, node: &str, name: Option<&str>) -> Result<Level> {
        let mut mine: Vec<Level> = self.levels().into_iter().filter(|level| level.node().as_str() == node).collect();
        if mine.is_empty() {
            bail!("{node} has no power device here: `tiebreaker-server device list` shows which there are");
        }
        let names = mine.iter().map(|level| level.name().to_owned()).collect::<Vec<_>>().join(", ");
        let Some(name) = name else {
            return match mine.pop() {
                Some(only) if mine.is_empty() => Ok(only),
                _ => bail!("{node} has several power devices ({names}): name one as {node}/DEVICE"),
            };
        };
        if let Some(level) = mine.iter().find(|level| level.parts().any(|part| part.name() == name))
            && level.name() != name
        {
            bail!(
                "{name} proves nothing by itself: it is one of {} on its level; name {node}/{}",
                level.name(),
                level.name()
            );
        }
        let found = mine.into_iter().find(|level| level.name() == name);
        found.with_context(|| format!("{node} has no power device {name:?}: it has {names}"))
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
        let (found, devices) = (self.level(&node, &device), self.clone());
        tokio::spawn(async move {
            let result = match found {
                Some(found) => {
                    devices.drills.before(&member, &found, command).await;
                    match devices.may_not(&member, &found, command).await {
                        Some(why) => DeviceResult::Refused { why },
                        None => {
                            found.want();
                            devices.carry_out(&found, command).await
                        }
                    }
                }
                None => DeviceResult::Refused {
                    why: format!("{node} has no device {device:?} in the configuration any more"),
                },
            };
            info!(%node, device, ?command, ?result, "power device");
            member.tell(Tell::Device(token, result)).await;
            devices.times.keep().await;
        });
    }

    /// Why this level must not be told "off", if something is wrong that its power doesn't mend.
    async fn may_not(&self, member: &MemberHandle, level: &Level, command: DeviceCommand) -> Option<String> {
        if command != DeviceCommand::Off {
            return None;
        }
        let node = level.node();
        if !self.brake_window.is_zero()
            && let Some(why) = brake::hold_if_too_many(member, node, self.brake_window).await
        {
            return Some(why);
        }
        self.witnesses.doubt(member, node, level.name())
    }

    async fn carry_out(&self, level: &Level, command: DeviceCommand) -> DeviceResult {
        let device = level.device(&self.audit);
        let begun = Instant::now();
        match command {
            DeviceCommand::Look => {
                let result = work(device.as_ref(), command).await;
                self.seen(level, result)
            }
            DeviceCommand::Off => {
                let result = work(device.as_ref(), command).await;
                self.drills.after(level, command, &result);
                if matches!(result, DeviceResult::Refused { .. }) {
                    return result;
                }
                let within = self.times.told_off(begun, level, self.drills.is_about(level));
                // The fencer begins to wait when it hears of this, and no longer than it waits for devices that it knows nothing of.
                let until = begun + within.saturating_sub(UNKNOWN);
                while result == DeviceResult::Taken && Instant::now() < until {
                    match work(device.as_ref(), DeviceCommand::Look).await {
                        DeviceResult::IsOn => sleep(fencer::LOOK_EVERY).await,
                        seen => {
                            self.seen(level, seen);
                            break;
                        }
                    }
                }
                result
            }
            DeviceCommand::On => {
                if let Some(until) = self.times.lands_until(level) {
                    sleep_until(until).await;
                }
                let result = work(device.as_ref(), command).await;
                self.drills.after(level, command, &result);
                if result == DeviceResult::Taken {
                    self.times.is_over(level);
                }
                result
            }
        }
    }

    /// What a look at a level has shown: times are learned from it, and one that takes too long has failed.
    fn seen(&self, level: &Level, result: DeviceResult) -> DeviceResult {
        match &result {
            DeviceResult::IsOff { .. } => self.times.reads_off(Instant::now(), level),
            DeviceResult::IsOn => {
                if let Some(why) = self.times.reads_on(Instant::now(), level) {
                    return DeviceResult::Refused { why };
                }
            }
            DeviceResult::Taken | DeviceResult::Refused { .. } | DeviceResult::Unanswered { .. } => {}
        }
        result
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
        let why = chain(&error);
        if error.fault.is_refusal() { DeviceResult::Refused { why } } else { DeviceResult::Unanswered { why } }
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

#[cfg(test)]
impl Devices {
    /// Puts the device of a test into the place of a configured one.
    pub(crate) fn put(&self, managed: Managed) {
        let key = (managed.node().clone(), managed.name().to_owned());
        self.devices.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::new(managed));
    }

    /// Carries out a command of a test's fencer.
    pub(crate) async fn carry_out_for(&self, node: &MemberName, device: &str, command: DeviceCommand) -> DeviceResult {
        let level = self.level(node, device).expect("a test asks for levels that there are");
        self.carry_out(&level, command).await
    }
}
