//! Every kind of device with every trouble that begins at every step of a fence: in no case is a node called off that runs,
//! and in every case somebody is told.

use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::UdpSocket,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::{
    Account, AllOf, Bmc, BoxFuture, Chassis, ChassisError, Device, DeviceError, FaultSwitch, Faults, IpmiConfig,
    IpmiDevice, OffSign, Overseer, PduTable, PlugModel, PowerState, Privilege, ProgramConfig, ProgramDevice, Progress,
    Proof, Secret, Suite, SystemGuid, UserName, pdu::tests::Snmpd, plug::tests::fake::FakePlug, power_off,
    redfish::tests::bmc::FakeBmc, web::mock::Reply,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It acknowledges commands and does nothing.
    Stuck,
    /// It answers later than anybody waits.
    Slow,
    /// It goes on telling what was so when the trouble began.
    Stale,
    /// It hears nothing.
    Unreachable,
    /// It hears nothing, until the next step.
    Restarting,
    /// It says no to commands.
    Refusing,
    /// What answers is another machine's.
    OtherMachine,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Stuck,
    Trouble::Slow,
    Trouble::Stale,
    Trouble::Unreachable,
    Trouble::Restarting,
    Trouble::Refusing,
    Trouble::OtherMachine,
];

/// The steps at which it begins: the proof, the first look, the command, and both looks that confirm.
const STEPS: usize = 5;

/// So many cases at a time: each has its device and its peer.
const AT_ONCE: usize = 32;

/// A device, the node behind it, and what can go wrong between them.
trait Rig: Send + Sync {
    fn device(&self) -> Box<dyn Device>;
    fn node_runs(&self) -> bool;
    fn set(&self, trouble: Option<Trouble>);
    /// Whether another machine was switched.
    fn misdirected(&self) -> bool {
        false
    }
    /// The identity that its proof has to name; `None` where a drill stands in for it.
    fn guid(&self) -> Option<SystemGuid> {
        None
    }
}

const KINDS: [&str; 10] = [
    "ipmi 17",
    "ipmi 3",
    "redfish",
    "shelly-gen1",
    "shelly",
    "tasmota",
    "snmp",
    "program",
    "two feeds",
    "a plug and a PDU",
];

async fn rig(kind: &str) -> Arc<dyn Rig> {
    match kind {
        "ipmi 17" => Arc::new(Ipmi::start(Suite::Sha256).await),
        "ipmi 3" => Arc::new(Ipmi::start(Suite::Sha1).await),
        "redfish" => Arc::new(FakeBmc::start().await),
        "shelly-gen1" => Arc::new(FakePlug::of(PlugModel::ShellyGen1).await),
        "shelly" => Arc::new(FakePlug::of(PlugModel::Shelly).await),
        "tasmota" => Arc::new(FakePlug::of(PlugModel::Tasmota).await),
        "snmp" => Arc::new(Snmpd::start().await),
        "program" => Arc::new(Program::new()),
        "two feeds" => Arc::new(Feeds(
            Box::new(FakePlug::of(PlugModel::Shelly).await),
            Box::new(FakePlug::of(PlugModel::Tasmota).await),
        )),
        "a plug and a PDU" => {
            Arc::new(Feeds(Box::new(FakePlug::of(PlugModel::ShellyGen1).await), Box::new(Snmpd::start().await)))
        }
        other => panic!("{other} is no kind"),
    }
}

/// A device whose trouble begins with one of its operations.
struct Stepped {
    device: Box<dyn Device>,
    rig: Arc<dyn Rig>,
    trouble: Option<Trouble>,
    begins: usize,
    step: AtomicUsize,
}

impl Stepped {
    fn step(&self) {
        let step = self.step.fetch_add(1, Ordering::SeqCst);
        if step == self.begins {
            self.rig.set(self.trouble);
        } else if self.begins.checked_add(1) == Some(step) && self.trouble == Some(Trouble::Restarting) {
            self.rig.set(None);
        }
    }
}

impl Device for Stepped {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn sign(&self) -> OffSign {
        self.device.sign()
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        self.step();
        self.device.state(deadline)
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.step();
        self.device.off(deadline)
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.step();
        self.device.on(deadline)
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        self.step();
        self.device.prove(deadline)
    }
}

/// Lets everything be switched, and hears whether anything went wrong.
#[derive(Default)]
struct Watcher(Mutex<bool>);

impl Overseer for Watcher {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, step: Progress) {
        if let Progress::ReadFailed(_) | Progress::OffFailed(_) = step {
            *self.0.lock().unwrap() = true;
        }
    }
}

/// What came of one fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// The device wasn't proven, so nobody asks it in a fence.
    Unproven,
    /// The node is called off.
    Fenced,
    /// It isn't.
    Failed,
}

async fn fence(places: Arc<Semaphore>, kind: &str, trouble: Option<Trouble>, begins: usize) -> Came {
    let _place = places.acquire().await.unwrap();
    let rig = rig(kind).await;
    let device = Stepped { device: rig.device(), rig: Arc::clone(&rig), trouble, begins, step: AtomicUsize::new(0) };
    // Only what is in order has to be in time. What isn't fails by its own error or by the clock: both are no fence.
    let within = |trouble: Option<Trouble>| Duration::from_millis(if trouble.is_some() { 700 } else { 60_000 });
    let at_first = if begins == 0 { trouble } else { None };
    let name = format!("{kind}, {trouble:?} at step {begins}");
    let until = Instant::now() + within(at_first);
    let mut proof = device.prove(until).await;
    // What is in order may be too slow for one try on a busy machine, but not for all.
    while proof.is_err() && at_first.is_none() && Instant::now() < until {
        device.step.store(0, Ordering::SeqCst);
        proof = device.prove(until).await;
    }
    match proof {
        Ok(proof) if proof.state == PowerState::On && proof.guid == rig.guid() => {}
        other => {
            assert!(begins == 0 && trouble.is_some(), "{name}: {other:?}");
            return Came::Unproven;
        }
    }
    let watcher = Watcher::default();
    let result = power_off(&device, Duration::from_millis(20), Instant::now() + within(trouble), &watcher).await;
    assert!(!rig.misdirected(), "{name}: another machine was switched");
    match result {
        Ok(_) => {
            assert!(!rig.node_runs(), "{name}: called off, and it runs");
            Came::Fenced
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Came::Failed
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_43_to_45_no_trouble_of_any_device_at_any_step_calls_a_running_node_off() {
    let mut cases = JoinSet::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    for kind in KINDS {
        let place = Arc::clone(&places);
        cases.spawn(async move { (kind, None, 0, fence(place, kind, None, usize::MAX).await) });
        for trouble in TROUBLES {
            for step in 0..STEPS {
                // An IPMI device tells whose it is by its proof alone: later the leader's rule holds, of row 44.
                if kind.starts_with("ipmi") && trouble == Trouble::OtherMachine && step > 0 {
                    continue;
                }
                // A fence agent of others doesn't tell whose device it works at all: that is the drill's.
                if kind == "program" && trouble == Trouble::OtherMachine {
                    continue;
                }
                let place = Arc::clone(&places);
                cases.spawn(async move { (kind, Some(trouble), step, fence(place, kind, Some(trouble), step).await) });
            }
        }
    }
    let (mut fenced, mut failed, mut unproven) = (0, 0, 0);
    while let Some(case) = cases.join_next().await {
        let (kind, trouble, step, came) = case.unwrap();
        match came {
            Came::Fenced => fenced += 1,
            Came::Failed => failed += 1,
            Came::Unproven => unproven += 1,
        }
        let name = format!("{kind}, {trouble:?} at step {step}: {came:?}");
        match trouble {
            None => assert_eq!(came, Came::Fenced, "{name}"),
            // From before the command on it can't succeed.
            Some(Trouble::Stuck | Trouble::Unreachable | Trouble::Slow | Trouble::OtherMachine) if step <= 2 => {
                assert_ne!(came, Came::Fenced, "{name}");
            }
            Some(_) => {}
        }
    }
    // Not everything fails, and not everything goes well: else the table would show nothing. How many of those in trouble
    // succeed all the same is up to how busy this machine is.
    assert!(fenced >= KINDS.len() && failed > 50 && unproven > 20, "{fenced} {failed} {unproven}");
}

// --- the rigs

impl Rig for FakePlug {
    fn device(&self) -> Box<dyn Device> {
        Box::new(FakePlug::device(self))
    }

    fn node_runs(&self) -> bool {
        self.state().has_power()
    }

    fn set(&self, trouble: Option<Trouble>) {
        self.state().set(trouble);
    }

    fn misdirected(&self) -> bool {
        self.state().misdirected
    }
}

/// Two devices that feed one node, as those of a level do. The trouble is the second one's.
struct Feeds(Box<dyn Rig>, Box<dyn Rig>);

impl Rig for Feeds {
    fn device(&self) -> Box<dyn Device> {
        Box::new(AllOf::new(vec![Arc::from(self.0.device()), Arc::from(self.1.device())]).unwrap())
    }

    fn node_runs(&self) -> bool {
        self.0.node_runs() || self.1.node_runs()
    }

    fn set(&self, trouble: Option<Trouble>) {
        self.1.set(trouble);
    }

    fn misdirected(&self) -> bool {
        self.1.misdirected()
    }
}

impl Rig for FakeBmc {
    fn device(&self) -> Box<dyn Device> {
        Box::new(FakeBmc::device(self))
    }

    fn node_runs(&self) -> bool {
        self.state().power == json!("On")
    }

    fn set(&self, trouble: Option<Trouble>) {
        let mut state = self.state();
        state.always = None;
        match trouble {
            None => {}
            Some(Trouble::Stuck) => state.becomes = Some(state.power.clone()),
            Some(Trouble::Slow | Trouble::Unreachable) => state.always = Some(|_| Some(Reply::Hang(Vec::new()))),
            Some(Trouble::Restarting) => state.always = Some(|_| Some(Reply::SendAndClose(Vec::new()))),
            Some(Trouble::Stale) => state.says = Some(state.system()),
            Some(Trouble::Refusing) => state.reset.0 = 403,
            Some(Trouble::OtherMachine) => state.uuid = json!("4c4c4544-0042-3510-8054-b4c04f4d3199"),
        }
    }

    fn guid(&self) -> Option<SystemGuid> {
        SystemGuid::from_uuid(crate::redfish::tests::bmc::UUID)
    }
}

impl Rig for Snmpd {
    fn device(&self) -> Box<dyn Device> {
        Box::new(Snmpd::device(self, PduTable::ApcRpdu2))
    }

    fn node_runs(&self) -> bool {
        self.has_power()
    }

    fn set(&self, trouble: Option<Trouble>) {
        Snmpd::set(self, trouble);
    }
}

/// Our BMC for IPMI, and the machine behind it.
struct Ipmi {
    on: Arc<Machine>,
    faults: FaultSwitch,
    config: IpmiConfig,
    server: JoinHandle<std::io::Result<()>>,
}

/// The GUID of the machine that the BMC should be of, and of another.
const GUIDS: [[u8; 16]; 2] = [*b"0123456789abcdef", *b"fedcba9876543210"];

#[derive(Default)]
struct Machine {
    off: AtomicBool,
    refuses: AtomicBool,
}

struct Shared(Arc<Machine>);

impl Chassis for Shared {
    fn power(&self) -> PowerState {
        if self.0.off.load(Ordering::SeqCst) { PowerState::Off } else { PowerState::On }
    }

    fn set_power(&self, state: PowerState) -> Result<(), ChassisError> {
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(ChassisError { state, source: "as the test wants".into() });
        }
        self.0.off.store(state == PowerState::Off, Ordering::SeqCst);
        Ok(())
    }
}

impl Ipmi {
    async fn start(suite: Suite) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let on = Arc::new(Machine::default());
        let user = || UserName::new("oper").unwrap();
        let password = || Secret::new("pw").unwrap();
        let account = Account { user: user(), password: password(), limit: Privilege::Operator };
        let bmc = Bmc::new(vec![account], None, GUIDS[0], Shared(Arc::clone(&on)));
        let faults = bmc.faults();
        let privilege = Privilege::Operator;
        let config = IpmiConfig { address, user: user(), password: password(), suite, kg: None, privilege };
        Self { on, faults, config, server: tokio::spawn(bmc.serve(socket)) }
    }
}

impl Drop for Ipmi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Rig for Ipmi {
    fn device(&self) -> Box<dyn Device> {
        Box::new(IpmiDevice::new(self.config.clone()))
    }

    fn node_runs(&self) -> bool {
        !self.on.off.load(Ordering::SeqCst)
    }

    fn set(&self, trouble: Option<Trouble>) {
        let fine = Faults::default();
        self.faults.set(match trouble {
            None | Some(Trouble::Refusing) => fine,
            Some(Trouble::Stuck) => Faults { stuck: true, ..fine },
            Some(Trouble::Slow) => Faults { slow: Duration::from_secs(5), ..fine },
            Some(Trouble::Stale) => Faults { stale: true, ..fine },
            Some(Trouble::Unreachable | Trouble::Restarting) => Faults { mute: true, ..fine },
            // A BMC of a machine that is off: what it tells is that machine's.
            Some(Trouble::OtherMachine) => Faults { always_off: true, ..fine },
        });
        self.on.refuses.store(trouble == Some(Trouble::Refusing), Ordering::SeqCst);
    }

    fn guid(&self) -> Option<SystemGuid> {
        SystemGuid::new(GUIDS[0])
    }
}

/// Puts an executable there. Another program writes it: what this process has open for writing, its children have for a
/// moment, too, and the kernel runs nothing that somebody writes.
pub(crate) fn executable(path: &std::path::Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    let copied = std::process::Command::new("cp").arg(&draft).arg(path).status().unwrap();
    assert!(copied.success());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A fence agent whose node is a file.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().display();
        let script = format!(
            "#!/bin/sh\ncd {folder}\naction=$(sed -n 's/^action=//p')\n\
             [ -e silent ] && sleep 600\n[ -e restarting ] && exit 1\n\
             case $action in\n\
             status) from=power; [ -e stale ] && from=power.old\n  if grep -q on $from; then echo 'Status: ON'; exit 0; fi\n  \
             echo 'Status: OFF'; exit 2 ;;\n\
             off|on) [ -e refusing ] && exit 1\n  [ -e stuck ] || echo $action > power\n  exit 0 ;;\n\
             esac\nexit 1\n"
        );
        executable(&dir.path().join("fence_test"), &script);
        std::fs::write(dir.path().join("power"), "on\n").unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

impl Rig for Program {
    fn device(&self) -> Box<dyn Device> {
        let agent = self.file("fence_test");
        Box::new(ProgramDevice::new(ProgramConfig { agent, options: [].into(), password: None, run_as: None }))
    }

    fn node_runs(&self) -> bool {
        std::fs::read_to_string(self.file("power")).unwrap().trim() == "on"
    }

    fn set(&self, trouble: Option<Trouble>) {
        for flag in ["silent", "restarting", "stale", "refusing", "stuck"] {
            let _ = std::fs::remove_file(self.file(flag));
        }
        let flag = match trouble {
            None | Some(Trouble::OtherMachine) => return,
            Some(Trouble::Stuck) => "stuck",
            Some(Trouble::Slow | Trouble::Unreachable) => "silent",
            Some(Trouble::Restarting) => "restarting",
            Some(Trouble::Refusing) => "refusing",
            Some(Trouble::Stale) => {
                std::fs::copy(self.file("power"), self.file("power.old")).unwrap();
                "stale"
            }
        };
        std::fs::write(self.file(flag), "").unwrap();
    }
}
