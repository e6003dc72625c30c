//! The driver against net-snmp's `snmpd`, behind which a script stands for the PDU's outlets. Needs the Debian package
//! snmpd; without it these tests fail.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    client::PduDevice,
    config::{PduConfig, SnmpHash, SnmpLogin},
    error::PduError,
    table::PduTable,
};
use crate::{
    AccountName, AllOf, BoxFuture, Device, DeviceError, Fault, Meter, OffSign, Overseer, PowerState, Progress, Secret,
    matrix::Trouble, power_off,
};

const SERIAL: &str = "5A1234E00874";
const COMMUNITY: &str = "may-write-here";
const LOGIN: &str = "correct-horse-login";
const PRIVACY: &str = "correct-horse-privacy";

/// What `snmpd` calls for each question (`-g`) and command (`-s`). `values` holds "OID type value", `rules` "OID value
/// state-OID state watts-OID": what a command makes of the outlet. Files `stuck`, `welded`, `slow`, `stale` and
/// `refusing` say what is wrong.
const SCRIPT: &str = r#"#!/bin/sh
dir=$1; shift
case "$1" in
-g)
    [ -e "$dir/slow" ] && sleep 5
    from=$dir/values; [ -e "$dir/stale" ] && from=$dir/values.old
    while read -r oid kind value; do
        [ "$oid" = "$2" ] && { echo "$oid"; echo "$kind"; echo "$value"; exit 0; }
    done < "$from" ;;
-s)
    echo "$2 $4" >> "$dir/told"
    [ -e "$dir/stuck" ] && exit 0
    [ -e "$dir/refusing" ] && { echo not-writable; exit 0; }
    while read -r oid value state becomes watts; do
        [ "$oid $value" = "$2 $4" ] || continue
        sed -i "s/^$state integer .*/$state integer $becomes/" "$dir/values"
        [ -e "$dir/welded" ] && continue
        flows=0
        grep -q "^$state on $becomes\$" "$dir/ons" && flows=42
        sed -i "s/^$watts gauge .*/$watts gauge $flows/" "$dir/values"
    done < "$dir/rules" ;;
esac
exit 0
"#;

/// What the vendors' MIBs say, written down a second time: serial number, state, watts, commands, and the numbers of on and
/// off, each as state and as command.
struct Vendor {
    table: PduTable,
    root: &'static str,
    serial: &'static str,
    state: &'static str,
    watts: Option<&'static str>,
    command_on: (&'static str, i32),
    command_off: (&'static str, i32),
    on: i32,
    off: i32,
}

const VENDORS: [Vendor; 6] = [
    Vendor {
        table: PduTable::ApcRpdu,
        root: ".1.3.6.1.4.1.318",
        serial: ".1.3.6.1.4.1.318.1.1.12.1.6.0",
        state: ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.4",
        watts: None,
        command_on: (".1.3.6.1.4.1.318.1.1.12.3.3.1.1.4", 1),
        command_off: (".1.3.6.1.4.1.318.1.1.12.3.3.1.1.4", 2),
        on: 1,
        off: 2,
    },
    Vendor {
        table: PduTable::ApcRpdu2,
        root: ".1.3.6.1.4.1.318",
        serial: ".1.3.6.1.4.1.318.1.1.26.2.1.9.1",
        state: ".1.3.6.1.4.1.318.1.1.26.9.2.3.1.5",
        watts: Some(".1.3.6.1.4.1.318.1.1.26.9.4.3.1.7"),
        command_on: (".1.3.6.1.4.1.318.1.1.26.9.2.4.1.5", 1),
        command_off: (".1.3.6.1.4.1.318.1.1.26.9.2.4.1.5", 2),
        on: 2,
        off: 1,
    },
    Vendor {
        table: PduTable::ApcMasterSwitch,
        root: ".1.3.6.1.4.1.318",
        serial: ".1.3.6.1.4.1.318.1.1.4.1.5.0",
        state: ".1.3.6.1.4.1.318.1.1.4.4.2.1.3",
        watts: None,
        command_on: (".1.3.6.1.4.1.318.1.1.4.4.2.1.3", 1),
        command_off: (".1.3.6.1.4.1.318.1.1.4.4.2.1.3", 2),
        on: 1,
        off: 2,
    },
    Vendor {
        table: PduTable::Eaton,
        root: ".1.3.6.1.4.1.534",
        serial: ".1.3.6.1.4.1.534.6.6.7.1.2.1.4.0",
        state: ".1.3.6.1.4.1.534.6.6.7.6.6.1.2.0",
        watts: Some(".1.3.6.1.4.1.534.6.6.7.6.5.1.3.0"),
        command_on: (".1.3.6.1.4.1.534.6.6.7.6.6.1.4.0", 0),
        command_off: (".1.3.6.1.4.1.534.6.6.7.6.6.1.3.0", 0),
        on: 1,
        off: 0,
    },
    Vendor {
        table: PduTable::CyberPower,
        root: ".1.3.6.1.4.1.3808",
        serial: ".1.3.6.1.4.1.3808.1.1.3.1.6.0",
        state: ".1.3.6.1.4.1.3808.1.1.3.3.5.1.1.4",
        watts: None,
        command_on: (".1.3.6.1.4.1.3808.1.1.3.3.3.1.1.4", 1),
        command_off: (".1.3.6.1.4.1.3808.1.1.3.3.3.1.1.4", 2),
        on: 1,
        off: 2,
    },
    Vendor {
        table: PduTable::TrippLite,
        root: ".1.3.6.1.4.1.850",
        serial: ".1.3.6.1.4.1.850.100.1.1.4.0",
        state: ".1.3.6.1.4.1.850.10.2.3.5.1.2.1",
        watts: None,
        command_on: (".1.3.6.1.4.1.850.10.2.3.5.1.4.1", 2),
        command_off: (".1.3.6.1.4.1.850.10.2.3.5.1.4.1", 1),
        on: 2,
        off: 1,
    },
];

/// Two outlets of each.
const OUTLETS: [u32; 2] = [1, 2];

/// A running `snmpd`. Ends when dropped.
pub(crate) struct Snmpd {
    dir: TempDir,
    daemon: Child,
    address: SocketAddr,
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        // The child is ours and not reaped yet, so its id can't be another's.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Snmpd {
    /// Starts it on a free port of loopback, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let script = dir.path().join("pdu");
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        let (mut values, mut rules, mut ons) = (String::new(), String::new(), String::new());
        for vendor in &VENDORS {
            values += &format!("{} string {SERIAL}\n", vendor.serial);
            for outlet in OUTLETS {
                let (state, on, off) = (format!("{}.{outlet}", vendor.state), vendor.on, vendor.off);
                let watts = vendor.watts.map_or_else(|| "none".to_owned(), |watts| format!("{watts}.{outlet}"));
                // What a command's own place reads is nobody's business where the state is told elsewhere.
                values += &format!("{state} integer {on}\n{watts} gauge 42\n");
                ons += &format!("{state} on {on}\n");
                for (at, value, becomes) in
                    [(vendor.command_on.0, vendor.command_on.1, on), (vendor.command_off.0, vendor.command_off.1, off)]
                {
                    rules += &format!("{at}.{outlet} {value} {state} {becomes} {watts}\n");
                    if at != vendor.state {
                        values += &format!("{at}.{outlet} integer 0\n");
                    }
                }
            }
        }
        for (name, text) in [("values", values), ("rules", rules), ("ons", ons), ("told", String::new())] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut roots: Vec<&str> = VENDORS.iter().map(|vendor| vendor.root).collect();
        roots.dedup();
        let folder = dir.path().display();
        let pass: String = roots.iter().map(|root| format!("pass {root} {} {folder}\n", script.display())).collect();
        let config = format!(
            "agentaddress udp:{address}\nrwcommunity {COMMUNITY} 127.0.0.1\nrocommunity may-read 127.0.0.1\n\
             createUser operator SHA-256 \"{LOGIN}\" AES \"{PRIVACY}\"\nrwuser operator priv\n\
             createUser older SHA \"{LOGIN}\" AES\nrwuser older priv\n\
             createUser looker SHA-256 \"{LOGIN}\" AES \"{PRIVACY}\"\nrouser looker priv\n{pass}"
        );
        fs::write(dir.path().join("snmpd.conf"), config).unwrap();
        let daemon = spawn(dir.path());
        let snmpd = Self { dir, daemon, address };
        let device = snmpd.device(PduTable::ApcRpdu);
        // A daemon that is coming up hears nothing at first; one of a busy machine takes seconds for its answer.
        let until = Instant::now() + Duration::from_secs(120);
        let mut patience = Duration::from_millis(500);
        while let Err(error) = device.state(Instant::now() + patience).await {
            assert!(error.fault == Fault::Unreachable && Instant::now() < until, "{error:?}\n{}", snmpd.log());
            patience = (patience * 2).min(Duration::from_secs(16));
            sleep(Duration::from_millis(20)).await;
        }
        snmpd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn flag(&self, name: &str) {
        fs::write(self.dir.path().join(name), "").unwrap();
    }

    /// What is wrong with the PDU from now on.
    pub(crate) fn set(&self, trouble: Option<Trouble>) {
        let file = |name: &str| self.dir.path().join(name);
        for flag in ["stuck", "slow", "stale", "refusing"] {
            let _ = fs::remove_file(file(flag));
        }
        let pid = Pid::from_child(&self.daemon);
        let signal = match trouble {
            Some(Trouble::Unreachable | Trouble::Restarting) => Signal::STOP,
            _ => Signal::CONT,
        };
        kill_process(pid, signal).unwrap();
        match trouble {
            Some(Trouble::Stuck) => self.flag("stuck"),
            Some(Trouble::Slow) => self.flag("slow"),
            Some(Trouble::Refusing) => self.flag("refusing"),
            Some(Trouble::Stale) => {
                fs::copy(file("values"), file("values.old")).unwrap();
                self.flag("stale");
            }
            Some(Trouble::OtherMachine) => {
                let values = fs::read_to_string(file("values")).unwrap();
                fs::write(file("values"), values.replace(SERIAL, "5A1234E00999")).unwrap();
            }
            Some(Trouble::Unreachable | Trouble::Restarting) | None => {}
        }
    }

    /// Whether the first outlet of an rPDU2 is on, whatever it says.
    pub(crate) fn has_power(&self) -> bool {
        let values = fs::read_to_string(self.dir.path().join("values")).unwrap();
        values.lines().any(|line| line == ".1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.1 integer 2")
    }

    /// The commands that reached an outlet.
    fn told(&self) -> String {
        fs::read_to_string(self.dir.path().join("told")).unwrap()
    }

    /// The first outlet of a family, with version 2c and the meter where the family has one.
    fn config(&self, table: PduTable) -> PduConfig {
        PduConfig {
            address: self.address,
            table,
            serial: SERIAL.to_owned(),
            outlet: 1,
            login: SnmpLogin::V2c { community: Secret::for_web(COMMUNITY).unwrap() },
            meter: if table.measures() { Meter::USUAL } else { Meter::None },
        }
    }

    pub(crate) fn device(&self, table: PduTable) -> PduDevice {
        PduDevice::new(self.config(table))
    }

    fn with(&self, login: SnmpLogin) -> PduDevice {
        PduDevice::new(PduConfig { login, ..self.config(PduTable::ApcRpdu2) })
    }
}

fn spawn(dir: &Path) -> Child {
    let program = Path::new("/usr/sbin/snmpd");
    assert!(program.is_file(), "snmpd is missing: install the Debian package snmpd");
    Command::new(program)
        .args(["-f", "-C", "-Lf"])
        .arg(dir.join("log"))
        .arg("-c")
        .arg(dir.join("snmpd.conf"))
        // No tables of this machine: they take time to load and are nobody's business here.
        .args(["-I", "snmp_mib,vacm_conf,usmConf,usmUser,snmpEngine,snmpMPDStats,usmStats,pass,pass_persist,override"])
        .env("SNMP_PERSISTENT_DIR", dir.join("persistent"))
        .env("MIBS", "")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn v3(user: &str, hash: SnmpHash, password: &str, privacy: Option<&str>) -> SnmpLogin {
    let secret = |text| Secret::for_web(text).unwrap();
    SnmpLogin::V3 {
        user: AccountName::new(user).unwrap(),
        hash,
        password: secret(password),
        privacy: privacy.map(secret),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// For what makes keys of passwords, which takes seconds on a slow processor.
fn late() -> Instant {
    Instant::now() + Duration::from_secs(240)
}

fn pdu(error: &DeviceError) -> &PduError {
    error.source.downcast_ref().unwrap()
}

/// Lets everything be switched.
struct Yes;

impl Overseer for Yes {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, _: Progress) {}
}

const SPACING: Duration = Duration::from_millis(5);

#[tokio::test]
async fn an_outlet_of_each_family_is_proven_switched_off_confirmed_and_switched_on() {
    let snmpd = Snmpd::start().await;
    assert!(PduTable::all().eq(VENDORS.iter().map(|vendor| vendor.table)), "a family without a PDU here");
    for table in PduTable::all() {
        let device = snmpd.device(table);
        assert_eq!(device.sign(), if table.measures() { OffSign::Meter } else { OffSign::Relay });
        let proof = device.prove(soon()).await.unwrap_or_else(|error| panic!("{error:?}\n{}", snmpd.log()));
        assert_eq!((proof.state, proof.guid), (PowerState::On, None), "{}", table.name());
        let confirmed = power_off(&device, SPACING, soon(), &Yes).await.unwrap();
        assert!(!confirmed.already, "{}", table.name());
        let other = PduDevice::new(PduConfig { outlet: 2, ..snmpd.config(table) });
        assert_eq!(other.state(soon()).await.unwrap(), PowerState::On, "{}: the other outlet", table.name());
        device.on(soon()).await.unwrap();
        assert_eq!(device.state(soon()).await.unwrap(), PowerState::On);
    }
}

#[tokio::test]
async fn version_3_logs_in_encrypts_and_tells_what_is_wrong() {
    let snmpd = Snmpd::start().await;
    for login in [
        v3("operator", SnmpHash::Sha256, LOGIN, Some(PRIVACY)),
        // Without a second password the first one is both.
        v3("older", SnmpHash::Sha1, LOGIN, None),
    ] {
        let device = snmpd.with(login);
        device.prove(late()).await.unwrap();
        power_off(&device, SPACING, late(), &Yes).await.unwrap();
        device.on(late()).await.unwrap();
    }
    let told = snmpd.told();
    let reader = snmpd.with(v3("looker", SnmpHash::Sha256, LOGIN, Some(PRIVACY)));
    assert_eq!(reader.state(soon()).await.unwrap(), PowerState::On);
    for error in [reader.prove(soon()).await.unwrap_err(), reader.off(soon()).await.unwrap_err()] {
        assert!(matches!(pdu(&error), PduError::NoRight) && error.fault == Fault::Privilege, "{error:?}");
    }
    for login in [
        v3("operator", SnmpHash::Sha256, "another-password", Some(PRIVACY)),
        v3("nobody-here", SnmpHash::Sha256, LOGIN, Some(PRIVACY)),
        v3("operator", SnmpHash::Sha1, LOGIN, Some(PRIVACY)),
    ] {
        // Who can't log in gets an answer that nobody has signed, or none: that isn't told from silence for certain.
        let error = snmpd.with(login).off(Instant::now() + Duration::from_millis(700)).await.unwrap_err();
        assert!(matches!(error.fault, Fault::Credentials | Fault::Unreachable), "{error:?}");
        assert!(error.source.to_string().contains("password"), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("correct-horse"), "{error:?}");
    }
    // The wrong key of the encryption can't be told from a datagram that was lost.
    let garbled = snmpd.with(v3("operator", SnmpHash::Sha256, LOGIN, Some("another-password")));
    garbled.off(Instant::now() + Duration::from_millis(700)).await.unwrap_err();
    assert_eq!(snmpd.told(), told, "nothing of all that switched anything");
}

#[tokio::test]
async fn a_community_that_may_only_read_is_found_by_the_proof_and_a_wrong_one_is_silence() {
    let snmpd = Snmpd::start().await;
    let community = |text| SnmpLogin::V2c { community: Secret::for_web(text).unwrap() };
    let reader = snmpd.with(community("may-read"));
    let error = reader.prove(soon()).await.unwrap_err();
    assert!(matches!(pdu(&error), PduError::NoRight) && error.fault == Fault::Privilege, "{error:?}");
    let error = snmpd.with(community("wrong")).state(Instant::now() + Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Unreachable);
    assert!(!format!("{error:?}").contains(COMMUNITY));
}

#[tokio::test]
async fn another_pdu_a_missing_outlet_and_another_family_are_told_nothing() {
    let snmpd = Snmpd::start().await;
    let told = snmpd.told();
    let other = PduDevice::new(PduConfig { serial: "5A1234E00875".into(), ..snmpd.config(PduTable::ApcRpdu2) });
    for error in [other.state(soon()).await.unwrap_err(), other.off(soon()).await.unwrap_err()] {
        assert!(matches!(pdu(&error), PduError::OtherPdu { .. }), "{error:?}");
    }
    for table in PduTable::all() {
        let missing = PduDevice::new(PduConfig { outlet: 7, ..snmpd.config(table) });
        for error in [missing.state(soon()).await.unwrap_err(), missing.off(soon()).await.unwrap_err()] {
            // Without its outlet it has no watts of it either.
            assert!(matches!(pdu(&error), PduError::NoOutlet { .. }), "{}: {error:?}", table.name());
        }
    }
    assert_eq!(snmpd.told(), told);
}

#[tokio::test]
async fn row_45_an_outlet_that_says_off_while_power_flows_is_on() {
    let snmpd = Snmpd::start().await;
    snmpd.flag("welded");
    for table in [PduTable::ApcRpdu2, PduTable::Eaton] {
        let device = snmpd.device(table);
        device.off(soon()).await.unwrap();
        assert_eq!(device.state(soon()).await.unwrap(), PowerState::On, "{}", table.name());
        let unmeasured = PduDevice::new(PduConfig { meter: Meter::None, ..snmpd.config(table) });
        assert_eq!((unmeasured.state(soon()).await.unwrap(), unmeasured.sign()), (PowerState::Off, OffSign::Relay));
    }
    // A family without a meter can't be asked for it.
    let device = PduDevice::new(PduConfig { meter: Meter::USUAL, ..snmpd.config(PduTable::CyberPower) });
    assert!(matches!(pdu(&device.state(soon()).await.unwrap_err()), PduError::NotMeasured));
}

#[tokio::test]
async fn a_pdu_that_acknowledges_and_does_nothing_is_never_confirmed() {
    let snmpd = Snmpd::start().await;
    snmpd.flag("stuck");
    let device = snmpd.device(PduTable::ApcRpdu2);
    let deadline = Instant::now() + Duration::from_millis(600);
    power_off(&device, SPACING, deadline, &Yes).await.unwrap_err();
    assert!(!snmpd.told().is_empty());
}

#[tokio::test]
async fn row_45_two_outlets_are_one_device_and_both_go_and_come() {
    let snmpd = Snmpd::start().await;
    let feed = |outlet| {
        std::sync::Arc::new(PduDevice::new(PduConfig { outlet, ..snmpd.config(PduTable::Eaton) }))
            as std::sync::Arc<dyn Device>
    };
    let both = AllOf::new(OUTLETS.map(feed).into()).unwrap();
    both.prove(soon()).await.unwrap();
    feed(1).off(soon()).await.unwrap();
    assert_eq!(both.state(soon()).await.unwrap(), PowerState::On, "one feed is enough to run on");
    power_off(&both, SPACING, soon(), &Yes).await.unwrap();
    for outlet in OUTLETS {
        assert_eq!(feed(outlet).state(soon()).await.unwrap(), PowerState::Off);
    }
    both.on(soon()).await.unwrap();
    for outlet in OUTLETS {
        assert_eq!(feed(outlet).state(soon()).await.unwrap(), PowerState::On);
    }
}
