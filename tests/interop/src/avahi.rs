//! Debian's Avahi on a machine of a network: a responder and a querier of multicast DNS that aren't ours.
//!
//! It has a bus of its own and a `/run` of its own, so the real machine's knows nothing of it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Network, Ran, run, tool, until};

/// Everybody on the bus may do everything: there are two.
const BUS: &str = "<busconfig><type>custom</type><auth>EXTERNAL</auth><listen>unix:path=BUS</listen><policy \
                   context=\"default\"><allow send_destination=\"*\"/><allow own=\"*\"/><allow \
                   receive_sender=\"*\"/></policy></busconfig>";

/// `ip netns exec` has made a mount namespace already; the daemon keeps its number in `/run`.
const OWN_RUN: &str = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && exec \"$@\"";

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Avahi on one machine. It ends when this is dropped.
#[derive(Debug)]
pub struct Avahi {
    place: Vec<OsString>,
    bus: PathBuf,
    folder: PathBuf,
    children: Vec<Child>,
}

impl Avahi {
    /// Starts it on a machine, which gets this name on the network, and waits until it answers.
    ///
    /// # Errors
    /// A package is missing, or it doesn't start.
    pub fn start(folder: &Path, network: &Network, host: &str, name: &str) -> Result<Self> {
        let (daemon, dbus) = (tool("avahi-daemon", "avahi-daemon")?, tool("dbus-daemon", "dbus")?);
        tool("avahi-resolve", "avahi-utils")?;
        let folder = folder.join(format!("avahi-{host}"));
        fs::create_dir_all(&folder)?;
        let (bus, bus_conf, conf) = (folder.join("bus"), folder.join("bus.conf"), folder.join("avahi.conf"));
        fs::write(&bus_conf, BUS.replace("BUS", bus.to_str().context("a path is text")?))?;
        fs::write(
            &conf,
            format!(
                "[server]\nhost-name={name}\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces=eth0\n[publish]\npublish-hinfo=no\n"
            ),
        )?;
        let mut avahi = Self { place: network.on(host), bus, folder, children: Vec::new() };
        let dbus = [dbus.into(), "--nofork".into(), "--nopidfile".into(), "--config-file".into(), bus_conf.into()];
        avahi.spawn(&dbus)?;
        until("a bus for Avahi", STARTS_WITHIN, || {
            ensure!(avahi.bus.exists(), "{}", avahi.log());
            Ok(())
        })?;
        let mut words: Vec<OsString> = vec![daemon.into(), "-f".into(), conf.into()];
        words.extend(["--no-drop-root", "--no-chroot", "--no-rlimits"].map(OsString::from));
        avahi.spawn(&words)?;
        let own = format!("{name}.local");
        until("Avahi", STARTS_WITHIN, || avahi.resolve("-4", &own)).with_context(|| avahi.log())?;
        Ok(avahi)
    }

    fn command(&self, words: &[OsString]) -> Result<Command> {
        let (program, args) = self.place.split_first().context("a place has a program")?;
        let mut command = Command::new(program);
        command.args(args).args(["sh", "-c", OWN_RUN, "sh"]).args(words);
        let mut address = OsString::from("unix:path=");
        address.push(&self.bus);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", address).stdin(Stdio::null());
        Ok(command)
    }

    fn spawn(&mut self, words: &[OsString]) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = self.command(words)?;
        command.stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("starting {words:?}"))?);
        Ok(())
    }

    /// Runs one of Avahi's commands there to its end.
    ///
    /// # Errors
    /// It can't be run; whether it succeeded is in the result.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        run(self.command(&words.iter().map(OsString::from).collect::<Vec<_>>())?)
    }

    /// The address of a name, of IPv4 or of IPv6.
    ///
    /// # Errors
    /// Nobody answers for it.
    pub fn resolve(&self, family: &str, name: &str) -> Result<String> {
        let said = self.run(&["avahi-resolve", family, "-n", name])?.done()?;
        // The command ends well also where nobody answers.
        let address = said.split_whitespace().nth(1).with_context(|| format!("nobody answers for {name}"))?;
        Ok(address.to_owned())
    }

    /// What its daemons logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        for mut child in self.children.drain(..).rev() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}
