//! Drills: a node is fenced on purpose by one of its power devices, while everybody watches whether it is the right machine
//! that goes dark and comes back. A device that can't tell whose it is gives evidence only after that.
//!
//! It goes through the log, as every fence does. Two things are different: the state says that this device is the node's
//! only proven one, and the "on" that ends the fence waits for longer than the node needs to boot by itself. Both are safe
//! because the node is empty and in maintenance: even a proof that is wrong frees nothing.

mod play;
mod records;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use tiebreaker_fence::{PowerState, SystemGuid};
use tiebreaker_member::ask::{DrillReport, DrillState, DrillTimes};
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{Arming, DeviceStatus, State};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::devices::{COMMAND_WITHIN, Devices, Managed, explain};
use crate::recipe::Recipe;
use play::Play;
use records::Records;

/// What a machine's firmware may take before its kernel starts: no boot time that agents report contains it. Servers with much
/// memory take minutes.
const FIRMWARE: Duration = Duration::from_secs(600);
/// What a kernel and an agent may take where nobody knows.
const BOOTS: Duration = Duration::from_secs(120);
/// The node stays dark for so long at most.
const DARK_MOST: Duration = Duration::from_secs(1800);

/// What a drill is to be.
pub(crate) struct Order {
    /// Whom.
    pub node: String,
    /// By which device.
    pub device: Option<String>,
    /// How long it stays dark: somebody's word that the machine comes back sooner than that, firmware included.
    pub dark: Option<Duration>,
    /// Also if that breaks the plan, or the node runs something.
    pub force: bool,
    /// Who asks.
    pub by: String,
}

/// The drill of a cluster's devices: one at a time.
#[derive(Clone)]
pub(crate) struct Drills {
    records: Records,
    current: Arc<Mutex<Option<Current>>>,
}

#[derive(Clone)]
struct Current {
    report: DrillReport,
    marks: Arc<Marks>,
}

/// What the fencer's commands have come to, and whether the last may be given.
struct Marks {
    seen: watch::Sender<Seen>,
    power: watch::Sender<bool>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    off: Option<Instant>,
    on: Option<Instant>,
}

impl Drills {
    pub(crate) fn below(root: &Path) -> Self {
        Self { records: Records::below(root), current: Arc::default() }
    }

    /// What a drill has shown of a device.
    pub(crate) fn of(&self, recipe: &Recipe) -> Option<DrillTimes> {
        self.records.of(recipe)
    }

    /// The drill that is under way, or was last.
    pub(crate) fn report(&self) -> Option<DrillReport> {
        self.lock().as_ref().map(|current| current.report.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The drill that is under way for this node, with the device that it is about.
    fn under_way(&self, node: &MemberName) -> Option<(String, Arc<Marks>)> {
        let current = self.lock();
        let current = current.as_ref().filter(|current| current.report.state == DrillState::UnderWay)?;
        (current.report.node == node.as_str()).then(|| (current.report.device.clone(), Arc::clone(&current.marks)))
    }

    /// What the cluster is told of a device: during a drill of its node one is proven and the others are not.
    pub(crate) fn shown(&self, managed: &Managed, status: &DeviceStatus) -> DeviceStatus {
        let mut status = status.clone();
        if let Some((device, _)) = self.under_way(managed.node()) {
            status.proven = device == managed.name();
            status.why = (!status.proven).then(|| format!("a drill of {device} is under way"));
        }
        status
    }

    /// Waits, before an "on" of the fencer, until the node has been dark for long enough, and nobody holds it.
    pub(crate) async fn before(&self, member: &MemberHandle, managed: &Managed, command: DeviceCommand) {
        let Some((device, marks)) = self.under_way(managed.node()) else { return };
        if command != DeviceCommand::On || device != managed.name() {
            return;
        }
        // The drill ends the wait, however it ends.
        let _ = marks.power.subscribe().wait_for(|may| *may).await;
        // The fencer asked the log before that wait, so it is asked again.
        let _ = member.state().wait_for(|state| state.settings.hold.is_none()).await;
    }

    /// Notes what came of a command of the fencer.
    pub(crate) fn after(&self, managed: &Managed, command: DeviceCommand, result: &DeviceResult) {
        let Some((_, marks)) = self.under_way(managed.node()).filter(|(device, _)| device == managed.name()) else {
            return;
        };
        let now = (*result == DeviceResult::Taken).then(Instant::now);
        marks.seen.send_modify(|seen| match command {
            DeviceCommand::Off => seen.off = seen.off.or(now),
            DeviceCommand::On => seen.on = seen.on.or(now),
            DeviceCommand::Look => {}
        });
    }
}

impl Devices {
    /// Begins a drill; what comes of it is in its report.
    ///
    /// # Errors
    /// Why it must not begin, and the way out. Nothing was done then.
    pub(crate) async fn drill(&self, member: &MemberHandle, order: Order) -> Result<DrillReport> {
        let found = self.find(Some(&order.node), order.device.as_deref())?;
        let [managed] = &found[..] else {
            bail!("{} has several power devices: name one as {}/DEVICE", order.node, order.node);
        };
        let (node, name) = (managed.node().clone(), managed.name().to_owned());
        let state: Arc<State> = member.state().borrow().clone();
        let busy = may_be_drilled(&state, member.hears(&node), managed, order.force)?;
        self.is_ready(&state, managed).await?;
        let learnt = state.nodes.get(&node).map_or(0, |node| node.boot_ms);
        if let Some(asked) = order.dark.filter(|asked| *asked < boots(learnt)) {
            bail!(
                "{} s without power show nothing of a machine that boots in {} s, besides its firmware: its own reset would look \
                 the same",
                asked.as_secs(),
                boots(learnt).as_secs()
            );
        }
        let report =
            DrillReport { node: node.to_string(), device: name, seen: Vec::new(), state: DrillState::UnderWay };
        let marks = Arc::new(Marks { seen: watch::Sender::new(Seen::default()), power: watch::Sender::new(false) });
        {
            let mut current = self.drills.lock();
            if let Some(other) = current.as_ref().filter(|current| current.report.state == DrillState::UnderWay) {
                bail!("a drill of {} is under way: one at a time", other.report.node);
            }
            *current = Some(Current { report: report.clone(), marks: Arc::clone(&marks) });
        }
        let play = Play {
            devices: self.clone(),
            member: member.clone(),
            managed: Arc::clone(managed),
            marks,
            dark: order.dark.unwrap_or_else(|| dark(learnt)),
            force: order.force,
            busy,
            by: order.by,
        };
        tokio::spawn(play.run());
        Ok(report)
    }

    /// The device reads on, lets us in, and isn't another machine's as far as it tells.
    async fn is_ready(&self, state: &State, managed: &Managed) -> Result<()> {
        let proof = managed.device().prove(Instant::now() + COMMAND_WITHIN).await;
        let proof = proof.map_err(|error| anyhow::anyhow!("the device can't be worked: {}", explain(&error)))?;
        if proof.state != PowerState::On {
            bail!("it reads off while its node is up: it is the device of another machine");
        }
        let machine = state.life(managed.node()).and_then(|life| life.machine.as_deref());
        if let (Some(guid), Some(machine)) = (proof.guid, machine)
            && !SystemGuid::matches_dmi(&guid, machine)
            && !managed.recipe().drilled
        {
            bail!("it is the device of another machine: it names {guid}, and its node is {machine}; mend the address");
        }
        Ok(())
    }
}

/// Longer than the node would need to come back if it still had power.
fn dark(boot_ms: u64) -> Duration {
    let boots = if boot_ms == 0 { BOOTS } else { boots(boot_ms) };
    (boots + FIRMWARE).min(DARK_MOST)
}

/// Longer than it needs from its kernel on. Zero where nobody knows.
fn boots(boot_ms: u64) -> Duration {
    Duration::from_millis(boot_ms) * 3 / 2
}

/// Why a node may not be drilled now; else whether it may run something meanwhile, which only a device that is proven already
/// and somebody who insists allow.
fn may_be_drilled(state: &State, heard: bool, managed: &Managed, force: bool) -> Result<bool> {
    let node = managed.node();
    if let Some(hold) = &state.settings.hold {
        bail!("the switching of power is {hold}: `tiebreaker fence release` ends that");
    }
    if state.settings.arming != Arming::Armed {
        bail!("the cluster is {}: `tiebreaker arm` first", state.settings.arming);
    }
    if let Some((id, fence)) = state.fences.iter().find(|(_, fence)| fence.is_open()) {
        bail!("fence {id} of {} is open: wait until it is closed", fence.node);
    }
    if !state.in_service(node) || !heard {
        bail!("{node} is not up: a drill shows something only of a machine that runs");
    }
    let runs = state.owned_by(node).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let known = state
        .nodes
        .get(node)
        .is_some_and(|node| node.devices.iter().any(|device| device.name == managed.name() && device.proven));
    match (runs.is_empty(), known, force) {
        (true, ..) | (false, true, true) => Ok(known && force),
        (false, true, false) => bail!(
            "{node} is the place of {runs}: empty it first with `tiebreaker maintenance {node} on`; or force it, then they are \
             recovered elsewhere as after a failure"
        ),
        // What frees resources has to be known to be the right machine's.
        (false, false, _) => bail!(
            "{node} is the place of {runs}, and whose device this is, only the drill will show: empty it first with \
             `tiebreaker maintenance {node} on`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_dark_for_longer_than_it_boots() {
        assert_eq!(dark(0), BOOTS + FIRMWARE);
        assert_eq!(dark(60_000), Duration::from_secs(90) + FIRMWARE);
        assert_eq!(dark(u64::from(u32::MAX)), DARK_MOST);
        assert_eq!(boots(60_000), Duration::from_secs(90), "no word of an operator goes below that");
    }
}
