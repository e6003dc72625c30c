//! The door of a trusted cluster over real TLS, with a small BMC before each node: certificates, grants, fences that outlive who
//! asked and the door itself, and devices that prove nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tiebreaker_fence::{
    Account, Bmc, Chassis, ChassisError, FaultSwitch, Faults, PowerState, Privilege, Secret, UserName,
};
use tiebreaker_member::ask::{FenceAnswer, FenceAsk, FenceRequest, FenceStage};
use tiebreaker_member::join::{JoinGrant, JoinInfo};
use tiebreaker_member::{Address, Ca, Client, JoinAsk, Keypair, Token, TokenBook, join};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::audit::Scribe;
use crate::config::Config;
use crate::desk::Hand;
use crate::joins::Gate;

const SOON: Duration = Duration::from_secs(30);

struct Power(Arc<AtomicBool>);

impl Chassis for Power {
    fn power(&self) -> PowerState {
        if self.0.load(Ordering::SeqCst) { PowerState::On } else { PowerState::Off }
    }

    fn set_power(&self, state: PowerState) -> Result<(), ChassisError> {
        self.0.store(state == PowerState::On, Ordering::SeqCst);
        Ok(())
    }
}

/// A machine with its BMC.
struct Machine {
    on: Arc<AtomicBool>,
    faults: FaultSwitch,
    address: SocketAddr,
    served: JoinHandle<std::io::Result<()>>,
}

impl Machine {
    async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let on = Arc::new(AtomicBool::new(true));
        let account = Account {
            user: UserName::new("oper").unwrap(),
            password: Secret::new("pw").unwrap(),
            limit: Privilege::Operator,
        };
        let bmc = Bmc::new(vec![account], None, [0; 16], Power(Arc::clone(&on)));
        let faults = bmc.faults();
        Self { on, faults, address, served: tokio::spawn(bmc.serve(socket)) }
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// An appliance with one Corosync cluster, `prod`, of the nodes a and b, which is trusted.
struct Rig {
    dir: tempfile::TempDir,
    machines: [Machine; 2],
    gate: SharedGate,
    acceptor: Acceptor,
    audit: Audit,
    scribe: Option<Scribe>,
    config: Config,
    door: Option<Door>,
}

impl Rig {
    async fn new(drilled: bool) -> Self {
        Self::with(drilled, Faults::default()).await
    }

    /// The same with a BMC of b that misbehaves from the beginning.
    async fn with(drilled: bool, faults: Faults) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machines = [Machine::start().await, Machine::start().await];
        machines[1].faults.set(faults);
        tiebreaker_member::replace_private(&dir.path().join("bmc"), b"pw").unwrap();
        let config = config(dir.path(), &machines, drilled);
        let gate = Arc::new(Gate::new(Ca::create(dir.path()).unwrap(), TokenBook::open(dir.path()).unwrap()));
        let acceptor = Acceptor::bind(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).await.unwrap();
        let (audit, scribe) = Audit::start(dir.path());
        let mut rig = Self { dir, machines, gate, acceptor, audit, scribe: Some(scribe), config, door: None };
        rig.open();
        rig
    }

    fn name() -> ClusterName {
        ClusterName::new("prod").unwrap()
    }

    fn open(&mut self) {
        let (layout, name) = (Layout::new(self.dir.path()), Self::name());
        let opening = Opening {
            layout: &layout,
            appliance: &self.config.name,
            name: &name,
            settings: &self.config.corosync[&name],
            gate: &self.gate,
            acceptor: &self.acceptor,
            audit: &self.audit,
            votes: None,
        };
        self.door = Some(opening.open().unwrap());
    }

    fn addresses(&self) -> Vec<Address> {
        vec![self.acceptor.local_addrs()[0].to_string().parse().unwrap()]
    }

    async fn enrol_as(&self, node: &str) -> Result<Identity, String> {
        let now = crate::layout::unix_seconds();
        let (token, _) = self.gate.create_token(&Self::name(), "fence-client", now, 60).await.unwrap();
        let token: Token = token.parse().unwrap();
        let key = Keypair::generate().unwrap();
        let mut info = Vec::new();
        cbor4ii::serde::to_writer(&mut info, &JoinInfo::default()).unwrap();
        let ask = JoinAsk { name: node.parse().unwrap(), csr: key.csr().unwrap(), clock: now, info };
        let joined = join(&self.addresses(), None, &token, ask, SOON).await.map_err(|error| error.to_string())?;
        let grant: JoinGrant = cbor4ii::serde::from_slice(&joined.reply[..]).unwrap();
        Ok(Identity::new(key, &grant.certificate, joined.ca).unwrap())
    }

    async fn ask(&self, identity: &Identity, ask: FenceAsk) -> Result<FenceAnswer, String> {
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::default());
        let client = Client::connect(&self.addresses(), None, identity, &time, SOON).await;
        let mut client = client.map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &FenceRequest { machine: None, ask }).unwrap();
        let answer = client.ask(&bytes, SOON).await.map_err(|error| error.to_string())?;
        Ok(cbor4ii::serde::from_slice(&answer[..]).unwrap())
    }

    async fn proven(&self, identity: &Identity) {
        let proven = async {
            while !matches!(self.ask(identity, FenceAsk::Monitor).await, Ok(FenceAnswer::Done { .. })) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, proven).await.expect("the devices were not proven in time");
    }

    async fn hold(&self) -> Result<FencedCluster> {
        self.door.as_ref().unwrap().hold("root".into(), Some("new cables".into())).await
    }

    async fn held(&self) -> Option<Hold> {
        self.door.as_ref().unwrap().show().await.unwrap().hold
    }

    /// Shuts the door; what the audit log has then.
    fn audit(&mut self) -> String {
        drop(self.door.take());
        self.scribe.take().unwrap().finish();
        let entries = std::fs::read_dir(crate::audit::folder(self.dir.path())).unwrap();
        entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    async fn fence_of(&self, node: &str) -> tiebreaker_member::ask::FenceShown {
        let shown = self.door.as_ref().unwrap().show().await.unwrap();
        shown.nodes.into_iter().find(|shown| shown.name == node).unwrap().fence.unwrap()
    }
}

fn config(dir: &Path, machines: &[Machine; 2], drilled: bool) -> Config {
    let mut text =
        "name = 'pi'\nlisten = ['127.0.0.1:0']\n[corosync.prod]\ntrusted = true\nnodes = { a = 1, b = 2 }\n".to_owned();
    for (node, machine) in ["a", "b"].into_iter().zip(machines) {
        text += &format!(
            "[[corosync.prod.devices]]\nnode = '{node}'\nname = 'bmc'\nkind = 'ipmi'\naddress = '{}'\nuser = 'oper'\nsuite = 17\n\
             password_file = 'bmc'\ndrilled = {drilled}\n",
            machine.address
        );
    }
    Config::parse(&text, dir).unwrap()
}

fn off(node: &str, within_ms: u64) -> FenceAsk {
    FenceAsk::Off { node: node.into(), then_on: false, within_ms }
}

fn refusal(answer: Result<FenceAnswer, String>) -> String {
    match answer {
        Ok(FenceAnswer::Refused { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_who_asks_is_heard_and_the_mirror_request_is_not() {
    let rig = Rig::new(true).await;
    let (a, b) = (rig.enrol_as("a").await.unwrap(), rig.enrol_as("b").await.unwrap());
    assert!(rig.enrol_as("c").await.unwrap_err().contains("no node c"));
    rig.proven(&a).await;
    assert!(refusal(rig.ask(&a, off("a", 1_000)).await).contains("its own power"));
    // The BMC takes the command and does nothing: the fence goes on.
    rig.machines[1].faults.set(Faults { stuck: true, ..Faults::default() });
    let early = rig.ask(&a, off("b", 1_000)).await;
    assert!(matches!(early, Ok(FenceAnswer::Working { .. })), "{early:?}");
    let why = refusal(rig.ask(&b, off("a", 10_000)).await);
    assert!(why.contains("b is itself being fenced, for a"), "{why}");
    assert_eq!(rig.fence_of("b").await.stage, FenceStage::Cutting);
    // The machine goes off after all; who asks again joins, and hears of it.
    rig.machines[1].on.store(false, Ordering::SeqCst);
    let again = rig.ask(&a, off("b", 10_000)).await;
    assert!(matches!(&again, Ok(FenceAnswer::Done { how }) if how.starts_with("bmc-off: ipmi")), "{again:?}");
    let why = refusal(rig.ask(&b, off("a", 10_000)).await);
    assert!(why.contains("was fenced a moment ago"), "{why}");
    assert!(rig.machines[0].is_on());
    assert_eq!(rig.fence_of("b").await.number, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_goes_on_when_the_door_is_opened_anew() {
    let mut rig = Rig::new(true).await;
    let a = rig.enrol_as("a").await.unwrap();
    rig.proven(&a).await;
    rig.machines[1].faults.set(Faults { mute: true, ..Faults::default() });
    let then_on = FenceAsk::Off { node: "b".into(), then_on: true, within_ms: 300 };
    assert!(matches!(rig.ask(&a, then_on).await, Ok(FenceAnswer::Working { .. })));
    // The daemon is gone, and comes back with what was written down.
    drop(rig.door.take());
    let path = rig.dir.path().join("corosync/prod/fences.json");
    assert!(std::fs::read_to_string(&path).unwrap().contains("cutting"));
    rig.machines[1].faults.set(Faults::default());
    rig.open();
    let again = rig.ask(&a, off("b", 20_000)).await;
    assert!(matches!(again, Ok(FenceAnswer::Done { .. })), "{again:?}");
    let back = async {
        while !rig.machines[1].is_on() || rig.fence_of("b").await.stage != FenceStage::Over {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, back).await.expect("the power did not come back");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("pw"), "no secret is kept there: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_always_says_off_is_not_believed() {
    let rig = Rig::with(true, Faults { always_off: true, ..Faults::default() }).await;
    let a = rig.enrol_as("a").await.unwrap();
    let state = rig.ask(&a, FenceAsk::State { node: "b".into() }).await;
    let Ok(FenceAnswer::Failed { why }) = state else { panic!("{state:?}") };
    assert!(why.contains("b/bmc: it reads off, which proves nothing"), "{why}");
    let fresh = rig.ask(&a, off("b", 3_000)).await;
    assert!(!matches!(fresh, Ok(FenceAnswer::Done { .. })), "{fresh:?}");
    assert!(rig.machines[1].is_on(), "nobody switched it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_may_be_another_machines_is_not_believed() {
    // No UUID, no drill, nobody's word.
    let rig = Rig::new(false).await;
    let a = rig.enrol_as("a").await.unwrap();
    let monitor = rig.ask(&a, FenceAsk::Monitor).await;
    let Ok(FenceAnswer::Failed { why }) = monitor else { panic!("{monitor:?}") };
    assert!(why.contains("a/bmc: ") && why.contains("b/bmc: ") && why.contains("drilled"), "{why}");
    let answer = rig.ask(&a, off("b", 3_000)).await;
    assert!(!matches!(answer, Ok(FenceAnswer::Done { .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_enrols_anew_shuts_the_former_certificate_out() {
    let rig = Rig::new(true).await;
    let first = rig.enrol_as("a").await.unwrap();
    let list = || FenceAsk::List;
    assert!(matches!(rig.ask(&first, list()).await, Ok(FenceAnswer::Nodes { nodes }) if nodes.len() == 2));
    // It is renewed for its own key, and for no other.
    let renewed = rig.ask(&first, FenceAsk::Renew { csr: first.csr().unwrap() }).await;
    let Ok(FenceAnswer::Certificate { der }) = renewed else { panic!("{renewed:?}") };
    let renewed = first.renewed(&der).unwrap();
    assert!(rig.ask(&renewed, list()).await.is_ok());
    // However often: nobody counts them.
    for _ in 0..4 {
        let again = rig.ask(&renewed, FenceAsk::Renew { csr: first.csr().unwrap() }).await;
        assert!(matches!(again, Ok(FenceAnswer::Certificate { .. })), "{again:?}");
    }
    let stranger = Keypair::generate().unwrap().csr().unwrap();
    assert!(refusal(rig.ask(&first, FenceAsk::Renew { csr: stranger }).await).contains("another key"));
    let second = rig.enrol_as("a").await.unwrap();
    assert!(rig.ask(&second, list()).await.is_ok());
    rig.ask(&first, list()).await.unwrap_err();
    rig.ask(&renewed, list()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_power_is_held_nobody_is_fenced_and_whoever_asks_is_told_the_way_out() {
    let mut rig = Rig::new(true).await;
    let a = rig.enrol_as("a").await.unwrap();
    rig.proven(&a).await;
    rig.hold().await.unwrap();
    let reboot = || FenceAsk::Off { node: "b".into(), then_on: true, within_ms: 20_000 };
    let on = || FenceAsk::On { node: "b".into(), within_ms: 20_000 };
    let words = "the switching of power is held by root (new cables): `tiebreaker-server corosync release prod` ends that; if b \
                 is off for certain, tell Pacemaker: `stonith_admin --confirm b`";
    for ask in [off("b", 20_000), reboot(), on()] {
        assert_eq!(refusal(rig.ask(&a, ask).await), words);
    }
    let again = rig.hold().await.unwrap_err().to_string();
    assert_eq!(again, "the switching of power is held by root: new cables: nothing to do");
    // What switches nothing goes on.
    assert!(matches!(rig.ask(&a, FenceAsk::Monitor).await, Ok(FenceAnswer::Done { .. })));
    assert!(matches!(rig.ask(&a, FenceAsk::State { node: "b".into() }).await, Ok(FenceAnswer::State { on: true })));
    assert!(matches!(rig.ask(&a, FenceAsk::States).await, Ok(FenceAnswer::Nodes { nodes }) if nodes.len() == 2));
    // Nor by hand.
    let hand = Hand { layout: Layout::new(rig.dir.path()), audit: rig.audit.clone(), by: "root".into() };
    let why = hand.may_switch_alone(&Rig::name(), false).unwrap_err().to_string();
    assert!(why.contains("held by root: new cables") && why.contains("corosync release prod"), "{why}");
    // A restart changes nothing of it.
    drop(rig.door.take());
    rig.open();
    assert_eq!(rig.held().await.map(|hold| hold.by).as_deref(), Some("root"));
    assert_eq!(refusal(rig.ask(&a, off("b", 20_000)).await), words);
    assert!(rig.machines[1].is_on());
    let door = rig.door.as_ref().unwrap();
    assert_eq!(door.release("alice".into()).await.unwrap().hold, None);
    let again = door.release("alice".into()).await.unwrap_err().to_string();
    assert_eq!(again, "the switching of power isn't held: nothing to release");
    hand.may_switch_alone(&Rig::name(), false).unwrap();
    assert!(matches!(rig.ask(&a, off("b", 20_000)).await, Ok(FenceAnswer::Done { .. })));
    let audit = rig.audit();
    for part in [
        r#""what":"hold","node":null,"by":"root","granted":true"#,
        r#""what":"hold","node":null,"by":"root","granted":false"#,
        r#""what":"fence reboot","node":"b","by":"fence-client a","granted":false,"why":"the switching of power is held"#,
        r#""what":"release","node":null,"by":"alice","granted":true"#,
        r#""event":"held","cluster":"prod","by":"root","reason":"new cables""#,
        r#""event":"released","cluster":"prod","by":"alice""#,
    ] {
        assert!(audit.contains(part), "{part} is missing in {audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_already_is_told_though_power_is_held() {
    let rig = Rig::new(true).await;
    let a = rig.enrol_as("a").await.unwrap();
    rig.proven(&a).await;
    let early = rig.ask(&a, off("b", 0)).await;
    assert!(matches!(early, Ok(FenceAnswer::Working { .. })), "{early:?}");
    let over = async {
        while rig.fence_of("b").await.stage != FenceStage::Over {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, over).await.expect("it was not fenced in time");
    rig.hold().await.unwrap();
    let known = rig.ask(&a, off("b", 20_000)).await;
    assert!(matches!(known, Ok(FenceAnswer::Done { .. })), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_can_not_be_written_down_is_none() {
    let rig = Rig::new(true).await;
    let folder = rig.dir.path().join("corosync");
    let aside = rig.dir.path().join("aside");
    rig.enrol_as("a").await.unwrap();
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    let error = format!("{:#}", rig.hold().await.unwrap_err());
    assert!(error.starts_with("it can't be written down, so nothing has changed: "), "{error}");
    assert_eq!(rig.held().await, None);
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    rig.hold().await.unwrap();
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    rig.door.as_ref().unwrap().release("root".into()).await.unwrap_err();
    assert!(rig.held().await.is_some(), "nor is a release");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_in_the_audit_log() {
    let mut rig = Rig::new(true).await;
    let (a, b) = (rig.enrol_as("a").await.unwrap(), rig.enrol_as("b").await.unwrap());
    rig.proven(&a).await;
    let state = || FenceAsk::State { node: "b".into() };
    assert!(matches!(rig.ask(&a, state()).await, Ok(FenceAnswer::State { on: true })));
    assert!(matches!(rig.ask(&a, off("b", 20_000)).await, Ok(FenceAnswer::Done { .. })));
    assert!(matches!(rig.ask(&a, state()).await, Ok(FenceAnswer::State { on: false })), "its device is proven");
    refusal(rig.ask(&b, off("a", 1_000)).await);
    assert!(matches!(
        rig.ask(&a, FenceAsk::On { node: "b".into(), within_ms: 20_000 }).await,
        Ok(FenceAnswer::Done { how }) if how.contains("reads on")
    ));
    assert!(rig.machines[1].is_on());
    let text = rig.audit();
    for part in [
        r#""what":"fence off","node":"b","by":"fence-client a","granted":true"#,
        r#""what":"fence off","node":"a","by":"fence-client b","granted":false"#,
        r#""what":"fence on","node":"b","by":"fence-client a","granted":true"#,
        r#""event":"evidence""#,
        r#""event":"closed""#,
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}
