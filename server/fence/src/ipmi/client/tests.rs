//! The client against our BMC over loopback, honest and faulty.

use std::{
    net::Ipv6Addr,
    sync::{Arc, atomic},
};

use tokio::sync::watch;

use super::*;
use crate::{Account, Bmc, Chassis, ChassisError, FaultSwitch, Faults, Privilege, Secret, UserName};

const GUID: [u8; 16] = *b"0123456789abcdef";

/// A machine that counts how often it was looked at.
struct Machine {
    on: atomic::AtomicBool,
    reads: watch::Sender<u32>,
}

struct Rig {
    machine: Arc<Machine>,
    faults: FaultSwitch,
    config: IpmiConfig,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Shared(Arc<Machine>);

impl Chassis for Shared {
    fn power(&self) -> PowerState {
        self.0.reads.send_modify(|reads| *reads += 1);
        if self.0.on.load(atomic::Ordering::SeqCst) { PowerState::On } else { PowerState::Off }
    }

    fn set_power(&self, state: PowerState) -> Result<(), ChassisError> {
        self.0.on.store(state == PowerState::On, atomic::Ordering::SeqCst);
        Ok(())
    }
}

fn account(user: &str, limit: Privilege) -> Account {
    Account { user: UserName::new(user).unwrap(), password: Secret::new("pw").unwrap(), limit }
}

async fn rig_at(address: SocketAddr, suite: Suite, kg: Option<&str>) -> Rig {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    let machine = Arc::new(Machine { on: true.into(), reads: watch::Sender::new(0) });
    let accounts = vec![account("oper", Privilege::Operator), account("reader", Privilege::User)];
    let bmc = Bmc::new(accounts, kg.map(|kg| Secret::new(kg).unwrap()), GUID, Shared(machine.clone()));
    let faults = bmc.faults();
    let config = IpmiConfig {
        address,
        user: UserName::new("oper").unwrap(),
        password: Secret::new("pw").unwrap(),
        suite,
        kg: None,
        privilege: Privilege::Operator,
    };
    Rig { machine, faults, config, server: tokio::spawn(bmc.serve(socket)) }
}

async fn rig(suite: Suite) -> Rig {
    rig_at((Ipv4Addr::LOCALHOST, 0).into(), suite, None).await
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn shortly() -> Instant {
    Instant::now() + Duration::from_millis(300)
}

/// The error under a device's error.
fn ipmi(error: &DeviceError) -> &IpmiError {
    error.source.downcast_ref().unwrap()
}

impl Rig {
    fn device(&self) -> IpmiDevice {
        IpmiDevice::new(self.config.clone())
    }

    fn device_with(&self, change: impl FnOnce(&mut IpmiConfig)) -> IpmiDevice {
        let mut config = self.config.clone();
        change(&mut config);
        IpmiDevice::new(config)
    }
}

#[tokio::test]
async fn state_off_on_and_proof_work_with_both_suites() {
    for suite in [Suite::Sha1, Suite::Sha256] {
        let rig = rig(suite).await;
        let device = rig.device();
        assert_eq!(device.state(soon()).await.unwrap(), PowerState::On);
        device.off(soon()).await.unwrap();
        assert_eq!(device.state(soon()).await.unwrap(), PowerState::Off);
        device.on(soon()).await.unwrap();
        let proof = device.prove(soon()).await.unwrap();
        assert_eq!(proof, Proof { state: PowerState::On, guid: SystemGuid::new(GUID) });
    }
}

#[tokio::test]
async fn an_ipv6_bmc_works() {
    let rig = rig_at((Ipv6Addr::LOCALHOST, 0).into(), Suite::Sha256, None).await;
    assert_eq!(rig.device().state(soon()).await.unwrap(), PowerState::On);
}

#[tokio::test]
async fn each_wrong_credential_is_told_apart() {
    let rig = rig_at((Ipv4Addr::LOCALHOST, 0).into(), Suite::Sha256, Some("bmc key")).await;
    let right = |config: &mut IpmiConfig| config.kg = Some(Secret::new("bmc key").unwrap());
    rig.device_with(right).state(soon()).await.unwrap();

    let error = rig.device().state(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::WrongKg), "{error}");
    let error = rig.device_with(|c| c.password = Secret::new("no").unwrap()).state(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::WrongPassword), "{error}");
    let error = rig.device_with(|c| c.user = UserName::new("nobody").unwrap()).state(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::NoSuchUser), "{error}");
    let error = rig.device_with(|c| c.user = UserName::new("reader").unwrap()).state(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::RoleRefused), "{error}");
    assert_eq!(error.fault, Fault::Privilege);
}

#[tokio::test]
async fn a_session_without_the_right_to_switch_switches_nothing() {
    let rig = rig(Suite::Sha256).await;
    let reader = rig.device_with(|c| {
        c.user = UserName::new("reader").unwrap();
        c.privilege = Privilege::User;
    });
    assert_eq!(reader.state(soon()).await.unwrap(), PowerState::On);
    let error = reader.off(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::InsufficientPrivilege { .. }), "{error}");
    let error = reader.prove(soon()).await.unwrap_err();
    assert_eq!(error.fault, Fault::Privilege, "reading alone proves nothing");
    assert_eq!(rig.device().state(soon()).await.unwrap(), PowerState::On);
}

#[tokio::test]
async fn many_logins_leak_no_session() {
    let rig = rig(Suite::Sha256).await;
    let device = rig.device();
    let wrong = rig.device_with(|c| c.password = Secret::new("no").unwrap());
    for _ in 0..40 {
        device.state(soon()).await.unwrap();
        assert!(matches!(ipmi(&wrong.state(soon()).await.unwrap_err()), IpmiError::WrongPassword));
    }
}

#[tokio::test]
async fn a_dropped_operation_frees_its_session() {
    let rig = rig(Suite::Sha256).await;
    let device = rig.device();
    let mut reads = rig.machine.reads.subscribe();
    // The BMC has eight sessions; it withholds the answer, so each of these is in the middle of a command.
    rig.faults.set(Faults { stale: true, ..Faults::default() });
    for _ in 0..12 {
        reads.mark_unchanged();
        tokio::select! {
            answer = device.state(soon()) => panic!("answered: {answer:?}"),
            seen = reads.changed() => seen.unwrap(),
        }
    }
    rig.faults.set(Faults::default());
    assert_eq!(device.state(soon()).await.unwrap(), PowerState::On);
}

#[tokio::test]
async fn a_stale_off_is_not_taken_for_the_present() {
    let rig = rig(Suite::Sha256).await;
    rig.machine.on.store(false, atomic::Ordering::SeqCst);
    rig.faults.set(Faults { stale: true, ..Faults::default() });
    let device = rig.device();
    let mut reads = rig.machine.reads.subscribe();
    reads.mark_unchanged();
    let flip = async {
        reads.changed().await.unwrap();
        rig.machine.on.store(true, atomic::Ordering::SeqCst);
    };
    let (state, ()) = tokio::join!(device.state(soon()), flip);
    assert_eq!(state.unwrap(), PowerState::On);
    assert!(*reads.borrow() >= 2, "the first answer was withheld");
}

#[tokio::test]
async fn duplicated_answers_do_no_harm() {
    let rig = rig(Suite::Sha1).await;
    rig.faults.set(Faults { duplicate: true, ..Faults::default() });
    let device = rig.device();
    device.off(soon()).await.unwrap();
    assert_eq!(device.prove(soon()).await.unwrap().state, PowerState::Off);
}

#[tokio::test]
async fn a_slow_bmc_is_waited_for() {
    let rig = rig(Suite::Sha256).await;
    // Slower than the first attempt's patience, so each message is sent more than once.
    rig.faults.set(Faults { slow: FIRST_WAIT + Duration::from_millis(200), ..Faults::default() });
    assert_eq!(rig.device().state(soon()).await.unwrap(), PowerState::On);
}

#[tokio::test]
async fn a_stuck_bmc_acknowledges_and_reads_on() {
    let rig = rig(Suite::Sha256).await;
    rig.faults.set(Faults { stuck: true, ..Faults::default() });
    let device = rig.device();
    device.off(soon()).await.unwrap();
    assert_eq!(device.state(soon()).await.unwrap(), PowerState::On);
    rig.faults.set(Faults { always_off: true, ..Faults::default() });
    assert_eq!(device.state(soon()).await.unwrap(), PowerState::Off);
}

#[tokio::test]
async fn a_mute_bmc_is_a_time_out_and_never_off() {
    let rig = rig(Suite::Sha256).await;
    rig.faults.set(Faults { mute: true, ..Faults::default() });
    let error = rig.device().state(shortly()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::TimedOut { stage: Stage::OpenSession, attempts: 1 }), "{error}");
    assert_eq!(error.fault, Fault::Unreachable);
}

/// A question to which no datagram is the answer, always for the same reason.
struct Unanswerable(Malformed);

impl Question for Unanswerable {
    type Answer = ();
    fn put(&mut self) -> Result<Vec<u8>, IpmiError> {
        Ok(vec![0])
    }
    fn take(&mut self, _: &[u8]) -> Result<(), Malformed> {
        Err(self.0)
    }
}

#[tokio::test]
async fn late_answers_alone_are_a_time_out_and_garbage_is_not() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut link = Link::open(socket.local_addr().unwrap()).await.unwrap();
    socket.connect(link.socket.local_addr().unwrap()).await.unwrap();
    let stage = Stage::Command("Test");
    for what in [Malformed::EARLIER_REQUEST, Malformed::SEEN_BEFORE, Malformed("wrong integrity code")] {
        socket.send(&[1]).await.unwrap();
        let error = link.ask(&mut Attempts::new(stage), shortly(), &mut Unanswerable(what)).await.unwrap_err();
        match error {
            IpmiError::TimedOut { attempts: 1, .. } => assert!(what.is_unrelated(), "{what}"),
            IpmiError::Malformed { what: reported, .. } => assert!(!what.is_unrelated() && reported == what, "{what}"),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let rig = rig(Suite::Sha256).await;
    let device = rig.device();
    rig.server.abort();
    while !rig.server.is_finished() {
        tokio::task::yield_now().await;
    }
    let error = device.state(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn garbage_is_reported_as_malformed() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = IpmiConfig { address: socket.local_addr().unwrap(), ..rig(Suite::Sha256).await.config.clone() };
    let parrot = tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let (_, peer) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&[6, 0, 0xFF, 7, 6, 0x11], peer).await.unwrap();
        }
    });
    let error = IpmiDevice::new(config).state(shortly()).await.unwrap_err();
    parrot.abort();
    let IpmiError::Malformed { stage: Stage::OpenSession, what } = ipmi(&error) else { panic!("{error}") };
    assert_eq!(*what, Malformed("short RMCP+ session header"));
}

#[tokio::test]
async fn a_full_bmc_asks_for_patience() {
    let rig = rig(Suite::Sha256).await;
    let link = Link::open(rig.config.address).await.unwrap();
    let mut buffer = [0; MAX_DATAGRAM];
    for console_id in 1..=8 {
        let (_, open) = Login::start(&rig.config, Seed { tag: 0, console_id, random: [0; 16] });
        link.socket.send(&open).await.unwrap();
        link.socket.recv(&mut buffer).await.unwrap();
    }
    let error = rig.device().state(soon()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::OutOfSessions), "{error}");
    assert_eq!(error.fault, Fault::Busy);
}

#[tokio::test]
async fn the_best_suite_is_probed_and_silence_is_no_refusal() {
    let rig = rig(Suite::Sha1).await;
    assert_eq!(probe_suite(&rig.config, soon()).await.unwrap(), Suite::Sha256);
    rig.faults.set(Faults { mute: true, ..Faults::default() });
    let error = probe_suite(&rig.config, shortly()).await.unwrap_err();
    assert!(matches!(ipmi(&error), IpmiError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn operations_on_one_device_take_turns_and_share_a_deadline() {
    let rig = rig(Suite::Sha256).await;
    let device = rig.device();
    let (one, two) = tokio::join!(device.state(soon()), device.prove(soon()));
    assert_eq!((one.unwrap(), two.unwrap().state), (PowerState::On, PowerState::On));
    rig.faults.set(Faults { mute: true, ..Faults::default() });
    let (long, short) = tokio::join!(device.state(Instant::now() + Duration::from_secs(1)), device.state(shortly()));
    assert!(matches!(ipmi(&long.unwrap_err()), IpmiError::TimedOut { .. }));
    assert_eq!(short.unwrap_err().fault, Fault::Busy);
}
