//! Machines in network namespaces on one switch, whose links are cut silently and one way at a time.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::tool;

/// A hardware address that no machine has.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// Machines behind one switch. The namespaces, and all that runs in them, end when this is dropped.
#[derive(Debug)]
pub struct Network {
    /// The names of the namespaces begin with this.
    tag: String,
    /// Numbers of the machines.
    hosts: BTreeMap<String, u8>,
}

/// Fails with a clear message where the test isn't root.
///
/// # Errors
/// It isn't.
pub fn require_root(what: &str) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "{what} needs root: run this test as root (in a container will do)");
    Ok(())
}

impl Network {
    /// Makes a switch with these machines on it, all links whole.
    ///
    /// # Errors
    /// Not root, or iproute2 is missing, or the kernel has no namespaces.
    pub fn new(hosts: &[&str]) -> Result<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        require_root("making network namespaces")?;
        tool("ip", "iproute2")?;
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let tag = format!("tb{}-{number}", std::process::id());
        let hosts = hosts.iter().zip(1..).map(|(host, number)| ((*host).to_owned(), number)).collect();
        let network = Self { tag, hosts };
        let switch = network.namespace("switch");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for (host, number) in &network.hosts {
            let (namespace, port) = (network.namespace(host), format!("port{number}"));
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            let mac = network.mac(host)?;
            let wire =
                ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", &namespace];
            ip(&[&["-n", &switch][..], &wire].concat())?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            let address = format!("{}/24", network.ip(host)?);
            ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        }
        for from in network.hosts.keys() {
            for to in network.hosts.keys().filter(|to| *to != from) {
                network.heal(from, to)?;
            }
        }
        Ok(network)
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.tag)
    }

    fn number(&self, host: &str) -> Result<u8> {
        self.hosts.get(host).copied().with_context(|| format!("there is no machine {host}"))
    }

    pub(crate) fn mac(&self, host: &str) -> Result<String> {
        Ok(format!("02:00:00:00:00:{:02x}", self.number(host)?))
    }

    /// A machine's address.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn ip(&self, host: &str) -> Result<Ipv4Addr> {
        Ok(Ipv4Addr::new(10, 77, 0, self.number(host)?))
    }

    /// Where a machine's daemon listens.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn address(&self, host: &str) -> Result<SocketAddr> {
        Ok(SocketAddr::from((self.ip(host)?, 8405)))
    }

    /// The file by which a machine's namespace can be entered.
    #[must_use]
    pub fn file(&self, host: &str) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(host))
    }

    /// What to put before a command so that it runs on a machine.
    #[must_use]
    pub fn on(&self, host: &str) -> Vec<OsString> {
        ["ip", "netns", "exec", &self.namespace(host)].map(OsString::from).to_vec()
    }

    /// What to put before a command so that it runs beside the switch: a virtual machine whose wire is there, or a BMC.
    #[must_use]
    pub fn on_switch(&self) -> Vec<OsString> {
        self.on("switch")
    }

    /// Takes a machine's namespace off the switch and puts a virtual machine's wire in its place, of which this is the name.
    /// It has to have the machine's address, of hardware too.
    ///
    /// # Errors
    /// There is no such machine, or the kernel has no such wires (`/dev/net/tun`).
    pub fn give_place(&self, host: &str) -> Result<String> {
        let (switch, number) = (self.namespace("switch"), self.number(host)?);
        ip(&["-n", &switch, "link", "set", &format!("port{number}"), "nomaster", "down"])?;
        let tap = format!("tap{number}");
        ip(&["netns", "exec", &switch, "ip", "tuntap", "add", &tap, "mode", "tap"])?;
        ip(&["-n", &switch, "link", "set", &tap, "up"])?;
        self.plug(host)?;
        Ok(tap)
    }

    /// Takes a virtual machine's wire off the switch. It isn't told.
    ///
    /// # Errors
    /// It was given no place there.
    pub fn unplug(&self, host: &str) -> Result<()> {
        let tap = format!("tap{}", self.number(host)?);
        ip(&["-n", &self.namespace("switch"), "link", "set", &tap, "nomaster"])
    }

    /// Puts it back.
    ///
    /// # Errors
    /// As [`Network::unplug`].
    pub fn plug(&self, host: &str) -> Result<()> {
        let tap = format!("tap{}", self.number(host)?);
        ip(&["-n", &self.namespace("switch"), "link", "set", &tap, "master", "br0"])
    }

    /// Gives what runs beside the switch an address that all machines reach, and loopback.
    ///
    /// # Errors
    /// It has one already.
    pub fn address_switch(&self) -> Result<Ipv4Addr> {
        let (switch, address) = (self.namespace("switch"), Ipv4Addr::new(10, 77, 0, 254));
        // Else it would change with the wires that are plugged, and who had asked for it would send to nobody.
        ip(&["-n", &switch, "link", "set", "br0", "address", "02:00:00:00:00:fe"])?;
        ip(&["-n", &switch, "address", "add", &format!("{address}/24"), "dev", "br0"])?;
        ip(&["-n", &switch, "link", "set", "lo", "up"])?;
        Ok(address)
    }

    /// Loses all packets from one machine to another, and tells neither: they go to a hardware address that nobody has.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        self.neighbour(from, to, NOBODY)
    }

    /// Cuts a link in both directions.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Makes a direction whole again.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn heal(&self, from: &str, to: &str) -> Result<()> {
        self.neighbour(from, to, &self.mac(to)?)
    }

    /// Makes all links whole again.
    ///
    /// # Errors
    /// The namespaces have gone.
    pub fn heal_all(&self) -> Result<()> {
        for from in self.hosts.keys() {
            for to in self.hosts.keys().filter(|to| *to != from) {
                self.heal(from, to)?;
            }
        }
        Ok(())
    }

    /// Whether a machine gets a connection to another one's daemon, for which both directions must be whole.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn connects(&self, from: &str, to: &str) -> Result<bool> {
        let mut command = self.on(from);
        let dial = format!("exec 3<>/dev/tcp/{}/8405", self.ip(to)?);
        command.extend(["timeout", "0.8", "bash", "-c", &dial].map(OsString::from));
        let (program, args) = command.split_first().context("the command has a program")?;
        Ok(Command::new(program).args(args).stderr(Stdio::null()).status()?.success())
    }

    fn neighbour(&self, from: &str, to: &str, mac: &str) -> Result<()> {
        let (namespace, address) = (self.namespace(from), self.ip(to)?.to_string());
        ip(&["-n", &namespace, "neigh", "replace", &address, "lladdr", mac, "nud", "permanent", "dev", "eth0"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts.keys().map(String::as_str).chain(["switch"]) {
            let namespace = self.namespace(host);
            // Whoever runs in a namespace of ours was started by us.
            let pids = Command::new("ip").args(["netns", "pids", &namespace]).output();
            let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
                let _gone = kill_process(pid, Signal::KILL);
            }
            let _left = Command::new("ip").args(["netns", "delete", &namespace]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("starting ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), said.trim());
    Ok(())
}

/// Fails where the kernel doesn't list a process's children, by which a machine's first process is found.
pub(crate) fn require_children() -> Result<()> {
    let own = format!("/proc/{0}/task/{0}/children", std::process::id());
    fs::metadata(&own).map(drop).with_context(|| format!("this kernel has no {own}: it needs CONFIG_PROC_CHILDREN"))
}
