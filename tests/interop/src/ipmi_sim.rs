//! OpenIPMI's `ipmi_sim` as a BMC, behind which a real process stands for the node.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Machine, VirtualMachine, node::placed, tool};

/// The account with operator rights alone.
pub const OPERATOR: &str = "oper";
/// The account with all rights.
pub const ADMINISTRATOR: &str = "root";
/// The password of both.
pub const PASSWORD: &str = "secret";

/// The program that `ipmi_sim` calls for each power query and command: `get power`, or `set power 0|1`. Its first argument
/// is the folder of the rig. A file `stuck` there makes it acknowledge commands and do nothing.
const HOOK: &str = r#"#!/bin/sh
dir=$1; verb=$2; what=$3; value=$4
alive() {
    [ -s "$dir/node.pid" ] || return 1
    read -r pid < "$dir/node.pid"
    # A zombie is dead: whoever should reap it is not our concern.
    grep -q '^State:[[:space:]]*[^Z]' "/proc/$pid/status" 2>/dev/null
}
case "$verb $what" in
'get power')
    if alive; then echo power:1; else echo power:0; fi ;;
'set power')
    [ -e "$dir/stuck" ] && exit 0
    if [ "$value" = 1 ]; then
        alive || { setsid sleep 3600 </dev/null >/dev/null 2>&1 & echo $! > "$dir/node.pid"; }
    elif alive; then
        kill -KILL "$pid"
    fi ;;
*)
    exit 1 ;;
esac
"#;

/// A running simulator. Ends with its node when dropped.
pub struct IpmiSim {
    dir: TempDir,
    simulator: Child,
    address: SocketAddr,
}

impl IpmiSim {
    /// Starts a simulator on a free port of loopback, with its node running.
    ///
    /// # Errors
    /// The Debian package openipmi is missing, or the simulator doesn't start.
    pub fn start() -> Result<Self> {
        Self::start_with(PASSWORD)
    }

    /// As [`IpmiSim::start`], with a password of the test's for both accounts: 16 letters at most.
    ///
    /// # Errors
    /// As [`IpmiSim::start`].
    pub fn start_with(password: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ipmi-sim").tempdir()?;
        let hook = dir.path().join("hook");
        fs::write(&hook, HOOK)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o700))?;
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let started = Command::new(&hook).arg(dir.path()).args(["set", "power", "1"]).status()?;
        ensure!(started.success(), "the chassis hook could not start the node");
        let power = button(&format!("{} {}", hook.display(), dir.path().display()));
        let simulator = simulate(dir.path(), address, &power, password, &[])?;
        Ok(Self { dir, simulator, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the simulator acknowledges commands and does nothing.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_stuck(&self, stuck: bool) -> Result<()> {
        let flag = self.dir.path().join("stuck");
        if stuck {
            fs::write(flag, "")?
        } else {
            fs::remove_file(flag)?
        }
        Ok(())
    }

    /// The simulator's own process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.simulator.id()
    }

    /// Whether the simulator stands still: whoever asks it waits.
    ///
    /// # Errors
    /// It has ended.
    pub fn set_still(&self, still: bool) -> Result<()> {
        let pid = Pid::from_child(&self.simulator);
        Ok(kill_process(pid, if still { Signal::STOP } else { Signal::CONT })?)
    }

    /// The process that stands for the node, if it runs.
    #[must_use]
    pub fn node(&self) -> Option<Pid> {
        running(&self.dir.path().join("node.pid"))
    }
}

impl Drop for IpmiSim {
    fn drop(&mut self) {
        // The child is ours and not reaped yet, so its id can't be another's.
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
        if let Some(pid) = self.node() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A simulator in front of a whole machine. Ends when dropped; the machine stays as it is.
#[derive(Debug)]
pub struct MachineBmc {
    simulator: Child,
    _dir: TempDir,
}

impl MachineBmc {
    /// Starts a simulator that works a machine's power button. `place` is put before its command.
    ///
    /// # Errors
    /// The Debian package openipmi is missing, or the simulator doesn't start.
    pub fn start(machine: &Machine, address: SocketAddr, place: &[OsString]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ipmi-sim").tempdir()?;
        let simulator = simulate(dir.path(), address, &button(&machine.button()), PASSWORD, place)?;
        Ok(Self { simulator, _dir: dir })
    }

    /// Starts a simulator that switches a virtual machine on at once, and whose hardware it then is: it tells QEMU to power off,
    /// through the port of its loopback that [`VirtualMachine::with_bmc`] was given. It says that the machine is on for as long as
    /// its process is there. One that doesn't obey within 5 s is told by SIGTERM, and killed after 3 s more.
    ///
    /// # Errors
    /// As [`MachineBmc::start`].
    pub fn of(machine: &VirtualMachine, port: u16, address: SocketAddr, place: &[OsString]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ipmi-sim").tempdir()?;
        let script = machine.script()?;
        let power = format!(
            "  serial 15 127.0.0.1 {port} codec VM\n  startcmd \"{}\"\n  startnow true\n  poweroff_wait 5\n  kill_wait 3",
            script.display()
        );
        let simulator = simulate(dir.path(), address, &power, PASSWORD, place)?;
        Ok(Self { simulator, _dir: dir })
    }
}

impl Drop for MachineBmc {
    fn drop(&mut self) {
        // The child is ours and not reaped yet, so its id can't be another's.
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
    }
}

/// The simulator's line for a program that is the power button.
fn button(command: &str) -> String {
    format!("  chassis_control \"{command}\"")
}

/// Starts the simulator with its files in `dir`. `power` are its lines for what is switched.
fn simulate(dir: &Path, address: SocketAddr, power: &str, password: &str, place: &[OsString]) -> Result<Child> {
    let program = tool("ipmi_sim", "openipmi")?;
    let state = dir.join("state");
    fs::create_dir(&state)?;
    let config = dir.join("lan.conf");
    fs::write(&config, lan_config(address, power, password))?;
    let emulation = dir.join("bmc.emu");
    fs::write(&emulation, "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nmc_enable 0x20\n")?;
    placed(place, program.as_os_str())
        .arg("-c")
        .arg(&config)
        .arg("-f")
        .arg(&emulation)
        .arg("-s")
        .arg(&state)
        .arg("-n")
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("log"))?)
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

fn lan_config(address: SocketAddr, power: &str, password: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    let auths = "md2 md5";
    format!(
        r#"name "node"
set_working_mc 0x20
  startlan 1
    addr {ip} {port}
    priv_limit admin
    allowed_auths_user {auths}
    allowed_auths_operator {auths}
    allowed_auths_admin {auths}
    guid 00112233445566778899aabbccddeeff
  endlan
{power}
  user 2 true "{ADMINISTRATOR}" "{password}" admin 10 {auths}
  user 3 true "{OPERATOR}" "{password}" operator 10 {auths}
"#
    )
}

/// The process in a pid file, unless it is gone or a zombie.
fn running(file: &PathBuf) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"))?;
    if state.trim_start().starts_with('Z') { None } else { Pid::from_raw(pid) }
}
