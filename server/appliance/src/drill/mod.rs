//! Drills: a node is fenced on purpose by one of its power devices, while everybody watches whether it is the right machine
//! that goes dark and comes back. A device that can't tell whose it is gives evidence only after that.
//!
//! It goes through the log, as every fence does. Two things are different: the state says that this device is proven and
//! the node's first one, and the "on" that ends the fence waits for longer than the node needs to boot by itself. Both are
//! safe because the node is empty and in maintenance: even a proof that is wrong frees nothing. Where the device fails, the
//! node's others follow as in every fence.
//!
//! What is drilled is a level of the node's plan: of two supplies one alone shows nothing.

mod play;
mod records;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use tiebreaker_fence::{PowerState, SystemGuid};
use tiebreaker_member::ask::{DrillReport, DrillState, DrillTimes};
use tiebreaker_member::errors::chain;
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{Arming, DeviceStatus, State};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::devices::{COMMAND_WITHIN, Devices, Managed};
use crate::level::Level;
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
    pub(crate) fn of(&self, level: &Level) -> Option<DrillTimes> {
        self.records.of(level)
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

    /// Whether the drill that is under way is about this level.
    pub(crate) fn is_about(&self, level: &Level) -> bool {
        self.under_way(level.node()).is_some_and(|(drilled, _)| drilled == level.name())
    }

    /// What the cluster is told of a node's plan: during a drill its level comes first, and is proven.
    pub(crate) fn shown(&self, node: &MemberName, mut plan: Vec<DeviceStatus>) -> Vec<DeviceStatus> {
        let Some((drilled, _)) = self.under_way(node) else { return plan };
        plan.sort_by_key(|level| level.name != drilled);
        if let Some(first) = plan.first_mut().filter(|first| first.name == drilled) {
            (first.proven, first.why) = (true, None);
        }
        plan
    }

    /// Waits, before an "on" of the fencer, until the node has been dark for long enough, and nobody holds it.
    pub(crate) async fn before(&self, member: &MemberHandle, level: &Level, command: DeviceCommand) {
        let Some((device, marks)) = self.under_way(level.node()) else { return };
        if command != DeviceCommand::On || device != level.name() {
            return;
        }
        // The drill ends the wait, however it ends.
        let _ = marks.power.subscribe().wait_for(|may| *may).await;
        // The fencer asked the log before that wait, so it is asked again.
        let _ = member.state().wait_for(|state| state.settings.hold.is_none()).await;
    }

    /// Notes what came of a command of the fencer.
    pub(crate) fn after(&self, level: &Level, command: DeviceCommand, result: &DeviceResult) {
        let Some((_, marks)) = self.under_way(level.node()).filter(|(device, _)| device == level.name()) else {
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
        let level = self.find_level(&order.node, order.device.as_deref())?;
        let (node, name) = (level.node().clone(), level.name().to_owned());
        let state: Arc<State> = member.state().borrow().clone();
        let busy = may_be_drilled(&state, member.hears(&node), &node, &name, order.force)?;
        for part in level.parts() {
            is_ready(&state, part).await?;
        }
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
            level,
            marks,
            dark: order.dark.unwrap_or_else(|| dark(learnt)),
            force: order.force,
            busy,
            by: order.by,
        };
        tokio::spawn(play.run());
        Ok(report)
    }
}

/// The device reads on, lets us in, and isn't another machine's as far as it tells.
async fn is_ready(state: &State, managed: &Managed) -> Result<()> {
    let name = managed.name();
    let proof = managed.device().prove(Instant::now() + COMMAND_WITHIN).await;
    let proof = proof.map_err(|error| anyhow::anyhow!("{name} can't be worked: {}", chain(&error)))?;
    if proof.state != PowerState::On {
        bail!("{name} reads off while its node is up: it is the device of another machine");
    }
    let machine = state.life(managed.node()).and_then(|life| life.machine.as_deref());
    if let (Some(guid), Some(machine)) = (proof.guid, machine)
        && !SystemGuid::matches_dmi(&guid, machine)
        && !managed.recipe().drilled
    {
        bail!("{name} is the device of another machine: it names {guid}, and its node is {machine}; mend the address");
    }
    Ok(())
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
fn may_be_drilled(state: &State, heard: bool, node: &MemberName, level: &str, force: bool) -> Result<bool> {
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
        .is_some_and(|node| node.devices.iter().any(|device| device.name == level && device.proven));
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
    use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry, Setting};
    use tiebreaker_pipeline::fence::FenceReason;
    use tiebreaker_pipeline::level::Level as FeatureLevel;
    use tiebreaker_pipeline::report::Capacity;
    use tiebreaker_pipeline::resource::{Driver, Phase, Requested, ResourceSpec};
    use tiebreaker_pipeline::state::{DisarmMode, Role};

    use super::*;

    fn node() -> MemberName {
        "node1".parse().unwrap()
    }

    fn tell(state: &mut State, command: Command) {
        let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1, command };
        state.apply(state.applied + 1, entry).unwrap();
    }

    /// A cluster whose node1 is up, with one device.
    fn up(proven: bool) -> State {
        let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        state.level = FeatureLevel::KNOWN;
        let device = DeviceStatus { name: "plug".into(), kind: "shelly".into(), proven, why: None };
        for command in [
            Command::AddMember { name: node(), role: Role::Node, addresses: Vec::new(), key: "aa".into() },
            Command::SetDevices { node: node(), devices: vec![device] },
            Command::Admit {
                node: node(),
                incarnation: 1,
                boot: "one".into(),
                watchdog: None,
                machine: None,
                closed: 0,
                capacity: Capacity::default(),
                booted_in_ms: 0,
            },
        ] {
            tell(&mut state, command);
        }
        state
    }

    /// The same, with something placed there.
    fn busy(proven: bool) -> State {
        let mut state = up(proven);
        let argv = || vec!["/bin/true".to_owned()];
        let driver = Driver::Command { start: argv(), stop: argv(), status: argv(), migrate: None };
        let spec = ResourceSpec::with_defaults(driver);
        let add =
            Command::AddResource { name: "web".parse().unwrap(), spec, requested: Requested::Started, node: None };
        tell(&mut state, add);
        let web = state.resources.values_mut().next().unwrap();
        web.phase = Phase::Placed { node: node() };
        assert_eq!(state.owned_by(&node()).count(), 1);
        state
    }

    #[test]
    fn a_drill_is_refused_where_it_would_harm_or_show_nothing_and_says_the_way_out() {
        let refused = |state: &State, heard: bool, force: bool, words: &[&str]| {
            let why = may_be_drilled(state, heard, &node(), "plug", force).unwrap_err().to_string();
            assert!(words.iter().all(|word| why.contains(word)), "{words:?}: {why}");
        };
        let mut held = up(true);
        tell(&mut held, Command::Set(Setting::Hold { by: "root".into(), reason: None }));
        refused(&held, true, true, &["held by root", "tiebreaker fence release"]);
        let mut disarmed = up(true);
        disarmed.settings.arming = Arming::Disarmed { mode: DisarmMode::Freeze, since: 1 };
        refused(&disarmed, true, true, &["the cluster is disarmed", "tiebreaker arm"]);
        refused(&up(true), false, true, &["node1 is not up"]);
        let mut fencing = up(true);
        // Who votes decides whether a fence may be wanted at all: here the appliance alone.
        let reason = FenceReason::Asked { by: "root".into() };
        tell(&mut fencing, Command::FenceWanted { node: node(), incarnation: 1, reason });
        refused(&fencing, true, true, &["fence 1 of node1 is open", "until it is closed"]);
        refused(&busy(true), true, false, &["is the place of web", "maintenance node1 on", "force it"]);
        // Nobody's insistence makes an unknown device free what runs.
        for force in [false, true] {
            refused(
                &busy(false),
                true,
                force,
                &["is the place of web", "only the drill will show", "maintenance node1 on"],
            );
        }
        assert!(may_be_drilled(&busy(true), true, &node(), "plug", true).unwrap(), "it may run something then");
        for (proven, force) in [(true, false), (false, false), (false, true)] {
            assert!(!may_be_drilled(&up(proven), true, &node(), "plug", force).unwrap(), "{proven} {force}");
        }
    }

    #[test]
    fn in_a_drill_its_level_comes_first_and_the_others_stay_what_they_are() {
        let status = |name: &str, proven| DeviceStatus {
            name: name.into(),
            kind: "ipmi".into(),
            proven,
            why: (!proven).then(|| "no answer".into()),
        };
        let root = tempfile::tempdir().unwrap();
        let drills = Drills::below(root.path());
        let plan = || vec![status("bmc", true), status("other", false), status("psu-a+psu-b", false)];
        assert_eq!(drills.shown(&node(), plan()), plan());
        let report = DrillReport {
            node: "node1".into(),
            device: "psu-a+psu-b".into(),
            seen: Vec::new(),
            state: DrillState::UnderWay,
        };
        let marks = Arc::new(Marks { seen: watch::Sender::new(Seen::default()), power: watch::Sender::new(false) });
        *drills.lock() = Some(Current { report, marks });
        let shown = vec![status("psu-a+psu-b", true), status("bmc", true), status("other", false)];
        assert_eq!(drills.shown(&node(), plan()), shown);
        assert_eq!(drills.shown(&"node2".parse().unwrap(), plan()), plan(), "another node's is as it was");
    }

    #[test]
    fn a_node_is_dark_for_longer_than_it_boots() {
        assert_eq!(dark(0), BOOTS + FIRMWARE);
        assert_eq!(dark(60_000), Duration::from_secs(90) + FIRMWARE);
        assert_eq!(dark(u64::from(u32::MAX)), DARK_MOST);
        assert_eq!(boots(60_000), Duration::from_secs(90), "no word of an operator goes below that");
    }
}
