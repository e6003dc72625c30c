//! Our IPMI client against OpenIPMI's simulator, and `ipmitool` against our BMC. Needs the Debian packages
//! openipmi, ipmitool and fence-agents; without them these tests fail.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tiebreaker_fence::{
    Account, Bmc, BoxFuture, Chassis, ChassisError, ConfirmedOff, Device, DeviceError, Fault, FaultSwitch, Faults,
    IpmiConfig, IpmiDevice, IpmiError, Overseer, PowerOffError, PowerState, Privilege, Progress, Secret, Suite,
    UserName, confirm_off, power_off, probe_suite,
};
use tiebreaker_interop::{
    fence_agent::fence_agent,
    ipmi_sim::{ADMINISTRATOR, IpmiSim, OPERATOR, PASSWORD},
    tool,
};
use tokio::{net::UdpSocket, process::Command, task::JoinHandle, time::Instant};

/// 12345678-9abc-4def-8123-456789abcdef in the byte order of SMBIOS.
const GUID: [u8; 16] = *b"\x78\x56\x34\x12\xbc\x9a\xef\x4d\x81\x23\x45\x67\x89\xab\xcd\xef";
const SPACING: Duration = Duration::from_millis(50);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn config(address: SocketAddr, user: &str, suite: Suite) -> Result<IpmiConfig> {
    Ok(IpmiConfig {
        address,
        user: UserName::new(user)?,
        password: Secret::new(PASSWORD)?,
        suite,
        kg: None,
        privilege: Privilege::Operator,
    })
}

fn ipmi(error: &DeviceError) -> &IpmiError {
    error.source.downcast_ref().expect("an IPMI device fails with IPMI errors")
}

/// Always has the right to switch.
struct Entitled;

impl Overseer for Entitled {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }
    fn progress(&self, _: Progress) {}
}

/// A simulator that answers, with an operator's device for it.
async fn simulator() -> Result<(IpmiSim, IpmiDevice)> {
    let sim = IpmiSim::start()?;
    let device = IpmiDevice::new(config(sim.address(), OPERATOR, Suite::Sha1)?);
    let until = soon();
    // While the simulator starts, the port refuses; the client gives up on that after three tries.
    while let Err(error) = device.state(until).await {
        ensure!(error.fault == Fault::Unreachable && Instant::now() < until, "ipmi_sim does not start: {error}");
    }
    Ok((sim, device))
}

/// `ipmitool -I lanplus` with its output, whatever its exit code.
async fn ipmitool(
    address: SocketAddr,
    user: &str,
    password: &str,
    suite: &str,
    args: &[&str],
) -> Result<(bool, String)> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let output = Command::new(tool("ipmitool", "ipmitool")?)
        .args(["-I", "lanplus", "-H", &ip, "-p", &port, "-U", user, "-P", password, "-C", suite])
        .args(["-L", "OPERATOR", "-R", "2", "-N", "3"])
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout_at(soon(), output).await.context("ipmitool hangs")??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn the_simulators_node_is_killed_confirmed_off_and_started_again() -> Result<()> {
    let (sim, device) = simulator().await?;
    let first = sim.node().context("the node runs")?;
    assert!(!confirm_off(&device, SPACING, soon()).await?);

    assert_eq!(power_off(&device, SPACING, soon(), &Entitled).await?, ConfirmedOff { already: false });
    assert_eq!(sim.node(), None, "the process is dead");
    assert!(confirm_off(&device, SPACING, soon()).await?);
    assert_eq!(power_off(&device, SPACING, soon(), &Entitled).await?, ConfirmedOff { already: true });

    device.on(soon()).await?;
    assert_eq!(device.state(soon()).await?, PowerState::On);
    assert_ne!(sim.node().context("the node runs again")?, first);
    Ok(())
}

/// For agents that ask again and again until the node is off.
fn much_later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn a_fence_agent_of_others_works_the_simulator_and_is_believed_by_its_status_alone() -> Result<()> {
    let (sim, _) = simulator().await?;
    let (ip, port) = (sim.address().ip().to_string(), sim.address().port().to_string());
    let options = [
        ("ip", &*ip),
        ("ipport", &*port),
        ("lanplus", "1"),
        ("cipher", "3"),
        ("privlvl", "operator"),
        ("username", OPERATOR),
    ];
    let agent = fence_agent("fence_ipmilan", &options, PASSWORD)?;
    assert_eq!(agent.prove(much_later()).await?.state, PowerState::On);
    assert_eq!(power_off(&agent, SPACING, much_later(), &Entitled).await?, ConfirmedOff { already: false });
    assert_eq!(sim.node(), None, "the process is dead");
    agent.on(much_later()).await?;
    assert!(sim.node().is_some());

    let wrong = fence_agent("fence_ipmilan", &options, "not it")?;
    let error = wrong.state(much_later()).await.expect_err("a wrong password");
    assert!(!format!("{error} {error:?}").contains("not it"), "{error:?}");
    // It doesn't do what it was told: then its own "off" gives up, or succeeds, and its status says on.
    sim.set_stuck(true)?;
    let stuck = fence_agent("fence_ipmilan", &[&options[..], &[("power_timeout", "2")]].concat(), PASSWORD)?;
    let result = power_off(&stuck, SPACING, Instant::now() + Duration::from_secs(5), &Entitled).await;
    ensure!(result.is_err() && sim.node().is_some(), "called off: {result:?}");
    Ok(())
}

#[tokio::test]
async fn an_operator_proves_the_simulator_and_nothing_is_switched() -> Result<()> {
    let (sim, device) = simulator().await?;
    let before = sim.node();
    let proof = device.prove(soon()).await?;
    assert_eq!(proof.state, PowerState::On);
    let guid = proof.guid.context("ipmi_sim tells its GUID")?;
    assert!(guid.matches_dmi("00112233-4455-6677-8899-aabbccddeeff"), "{guid:?}");
    assert_eq!(sim.node(), before);
    Ok(())
}

#[tokio::test]
async fn the_simulator_refuses_wrong_credentials_each_in_its_way() -> Result<()> {
    let (sim, _) = simulator().await?;
    let right = config(sim.address(), OPERATOR, Suite::Sha1)?;

    let wrong = IpmiConfig { password: Secret::new("not it")?, ..right.clone() };
    let error = IpmiDevice::new(wrong).prove(soon()).await.expect_err("wrong password");
    assert!(matches!(ipmi(&error), IpmiError::WrongPassword), "{error}");

    let nobody = IpmiConfig { user: UserName::new("nobody")?, ..right.clone() };
    let error = IpmiDevice::new(nobody).prove(soon()).await.expect_err("no such user");
    assert!(matches!(ipmi(&error), IpmiError::NoSuchUser), "{error}");

    let reader = IpmiConfig { privilege: Privilege::User, ..right };
    let error = IpmiDevice::new(reader).off(soon()).await.expect_err("a reading session can't switch");
    assert!(matches!(ipmi(&error), IpmiError::InsufficientPrivilege { .. }), "{error}");
    assert!(sim.node().is_some());
    Ok(())
}

#[tokio::test]
async fn the_simulator_knows_suite_3_alone_and_probing_finds_that_out() -> Result<()> {
    let (sim, _) = simulator().await?;
    let config = config(sim.address(), OPERATOR, Suite::Sha256)?;
    let error = IpmiDevice::new(config.clone()).state(soon()).await.expect_err("no suite 17 there");
    assert!(matches!(ipmi(&error), IpmiError::SuiteRefused { .. }), "{error}");
    assert_eq!(probe_suite(&config, soon()).await?, Suite::Sha1);
    Ok(())
}

#[tokio::test]
async fn a_stuck_simulator_never_yields_a_confirmed_off() -> Result<()> {
    let (sim, device) = simulator().await?;
    sim.set_stuck(true)?;
    device.off(soon()).await.context("it acknowledges")?;
    let deadline = Instant::now() + Duration::from_millis(500);
    let error = power_off(&device, SPACING, deadline, &Entitled).await.expect_err("the node runs");
    assert!(matches!(error, PowerOffError::Deadline { last: Some(PowerState::On), .. }), "{error}");
    assert!(sim.node().is_some());
    sim.set_stuck(false)?;
    power_off(&device, SPACING, soon(), &Entitled).await?;
    assert_eq!(sim.node(), None);
    Ok(())
}

#[tokio::test]
async fn a_hundred_and_twenty_logins_leave_room_for_ipmitool() -> Result<()> {
    let (sim, device) = simulator().await?;
    for n in 0..120 {
        device.state(soon()).await.with_context(|| format!("login {n}"))?;
    }
    for user in [OPERATOR, ADMINISTRATOR] {
        let (ok, text) = ipmitool(sim.address(), user, PASSWORD, "3", &["chassis", "power", "status"]).await?;
        assert!(ok && text.contains("Chassis Power is on"), "{user}: {text}");
    }
    Ok(())
}

/// A real process as the machine behind our BMC.
#[derive(Default)]
struct Sleeper {
    child: Mutex<Option<std::process::Child>>,
    switched: AtomicU32,
}

impl Sleeper {
    fn runs(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn switch(&self, state: PowerState) -> std::io::Result<()> {
        let runs = self.runs();
        let mut slot = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (state, runs) {
            (PowerState::On, false) => *slot = Some(std::process::Command::new("sleep").arg("3600").spawn()?),
            (PowerState::Off, true) => {
                if let Some(mut child) = slot.take() {
                    child.kill()?;
                    child.wait()?;
                }
            }
            (PowerState::On, true) | (PowerState::Off, false) => {}
        }
        Ok(())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.switch(PowerState::Off);
    }
}

struct Machine(Arc<Sleeper>);

impl Chassis for Machine {
    fn power(&self) -> PowerState {
        if self.0.runs() { PowerState::On } else { PowerState::Off }
    }

    fn set_power(&self, state: PowerState) -> Result<(), ChassisError> {
        self.0.switched.fetch_add(1, Ordering::SeqCst);
        self.0.switch(state).map_err(|error| ChassisError { state, source: error.into() })
    }
}

struct OurBmc {
    address: SocketAddr,
    machine: Arc<Sleeper>,
    faults: FaultSwitch,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for OurBmc {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn our_bmc(kg: Option<&str>) -> Result<OurBmc> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    let account =
        Account { user: UserName::new(OPERATOR)?, password: Secret::new(PASSWORD)?, limit: Privilege::Operator };
    let machine = Arc::new(Sleeper::default());
    let kg = kg.map(Secret::new).transpose()?;
    let bmc = Bmc::new(vec![account], kg, GUID, Machine(machine.clone()));
    let faults = bmc.faults();
    Ok(OurBmc { address, machine, faults, server: tokio::spawn(bmc.serve(socket)) })
}

#[tokio::test]
async fn ipmitool_reads_and_switches_our_bmc_with_both_suites() -> Result<()> {
    for suite in ["17", "3"] {
        let bmc = our_bmc(None).await?;
        let ask = async |args: &[&str]| ipmitool(bmc.address, OPERATOR, PASSWORD, suite, args).await;
        let expect = async |args: &[&str], wanted: &str| -> Result<()> {
            let (ok, text) = ask(args).await?;
            if !ok || !text.contains(wanted) {
                bail!("suite {suite}: {args:?} gave {text:?}, not {wanted:?}");
            }
            Ok(())
        };
        expect(&["chassis", "power", "status"], "Chassis Power is off").await?;
        expect(&["chassis", "power", "on"], "Up/On").await?;
        assert!(bmc.machine.runs());
        expect(&["chassis", "power", "status"], "Chassis Power is on").await?;
        expect(&["mc", "info"], "IPMI Version              : 2.0").await?;
        expect(&["mc", "guid", "smbios"], "12345678-9abc-4def-8123-456789abcdef").await?;
        expect(&["chassis", "power", "off"], "Down/Off").await?;
        assert!(!bmc.machine.runs());
        assert_eq!(bmc.machine.switched.load(Ordering::SeqCst), 2, "each command arrived once");
        // Sessions are closed: our BMC has eight.
        for _ in 0..12 {
            expect(&["chassis", "power", "status"], "Chassis Power is off").await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn our_bmc_refuses_ipmitool_wrong_passwords_weak_suites_and_cycles() -> Result<()> {
    let bmc = our_bmc(None).await?;
    let status = &["chassis", "power", "status"];
    let (ok, text) = ipmitool(bmc.address, OPERATOR, "not it", "17", status).await?;
    assert!(!ok && text.contains("HMAC is invalid") || text.contains("Unable to establish"), "{text}");
    for weak in ["0", "1", "2", "15"] {
        let (ok, text) = ipmitool(bmc.address, OPERATOR, PASSWORD, weak, status).await?;
        assert!(!ok, "suite {weak}: {text}");
    }
    let (ok, text) = ipmitool(bmc.address, OPERATOR, PASSWORD, "17", &["chassis", "power", "reset"]).await?;
    assert!(!ok, "{text}");
    assert_eq!(bmc.machine.switched.load(Ordering::SeqCst), 0);
    Ok(())
}

#[tokio::test]
async fn ipmitool_needs_our_bmcs_key() -> Result<()> {
    let bmc = our_bmc(Some("bmc key")).await?;
    let status = &["chassis", "power", "status"];
    for suite in ["17", "3"] {
        let (ok, text) =
            ipmitool(bmc.address, OPERATOR, PASSWORD, suite, &[&["-k", "bmc key"], &status[..]].concat()).await?;
        assert!(ok && text.contains("Chassis Power is off"), "{text}");
        let (ok, text) = ipmitool(bmc.address, OPERATOR, PASSWORD, suite, status).await?;
        assert!(!ok, "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn ipmitool_sees_a_stuck_bmc_as_we_do() -> Result<()> {
    let bmc = our_bmc(None).await?;
    bmc.machine.switch(PowerState::On)?;
    bmc.faults.set(Faults { stuck: true, ..Faults::default() });
    let (ok, text) = ipmitool(bmc.address, OPERATOR, PASSWORD, "17", &["chassis", "power", "off"]).await?;
    assert!(ok, "{text}");
    let (ok, text) = ipmitool(bmc.address, OPERATOR, PASSWORD, "17", &["chassis", "power", "status"]).await?;
    assert!(ok && text.contains("Chassis Power is on"), "{text}");
    Ok(())
}
