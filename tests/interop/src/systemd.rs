//! A daemon under the real systemd: process 1 of a namespace of processes, with the unit of the package.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Appliance, Node, Program, Ran,
    network::{require_children, require_root},
    node::spawn,
    run, tool, until,
};

/// systemd is up, or down, by then.
const WITHIN: Duration = Duration::from_secs(60);

/// What systemd brings along and is used as it is: the targets that a machine's end consists of.
const TARGETS: [&str; 6] = ["reboot", "poweroff", "halt", "shutdown", "final", "umount"];

/// The ends of a machine. Their services would end the namespace; here each leaves a mark.
const ENDS: [&str; 3] = ["reboot", "poweroff", "halt"];

/// Readies a namespace for systemd. What it would do to the machine around it is left out: it has no units but ours, no
/// generators, and cgroups, `/run` and mounts of its own.
const BOOT: &str = r#"#!/bin/sh
set -e
folder=$1 systemd=$2
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH="$PATH" container=tiebreaker-test SYSTEMD_UNIT_PATH="$folder/units" SYSTEMD_GENERATOR_PATH=/nonexistent \
    "$systemd" --system --unit=test.target --log-target=null
"#;

/// Enters a cgroup of its own, so that systemd owns nothing beside that, and makes the namespaces.
const ENTER: &str = r#"#!/bin/sh
set -e
folder=$1 systemd=$2
root=$(awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "cgroup2") { print $5; exit } }' /proc/self/mountinfo)
[ -n "$root" ] || { echo "the kernel has no cgroup2 mounted" >&2; exit 1; }
own=$root$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "${own%/}/tiebreaker-test-$$"
echo "${own%/}/tiebreaker-test-$$" >"$folder/cgroup"
echo $$ >"${own%/}/tiebreaker-test-$$/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --cgroup --uts --ipc "$folder/boot" "$folder" "$systemd"
"#;

/// A running systemd. Everything in its namespace dies when this is dropped.
#[derive(Debug)]
pub struct Systemd {
    child: Child,
    folder: PathBuf,
}

impl Systemd {
    /// Boots a machine whose one service is the agent of a node that has joined.
    ///
    /// # Errors
    /// Not root, systemd or util-linux is missing, or the kernel has no namespaces or cgroup2.
    pub fn boot(node: &Node) -> Result<Self> {
        let unit = agent_unit(&Program::Agent.path()?, &node.data())?;
        Self::start(node.folder(), &[("tiebreaker-agent.service", unit)], None)
    }

    /// Boots a machine whose services are an appliance's daemon and its QDevice port, at this address, in this network
    /// namespace. The daemon doesn't run elsewhere meanwhile.
    ///
    /// # Errors
    /// Not root, systemd or util-linux is missing, or the kernel has no namespaces or cgroup2.
    pub fn boot_server(appliance: &Appliance, port: SocketAddr, network: &Path) -> Result<Self> {
        let units = [
            ("tiebreaker-server.service", server_unit(&Program::Server.path()?, appliance)?),
            ("tiebreaker-qdevice.socket", server_socket(port)?),
        ];
        Self::start(appliance.folder(), &units, Some(network))
    }

    fn start(folder: &Path, services: &[(&str, String)], network: Option<&Path>) -> Result<Self> {
        require_root("running systemd in a namespace")?;
        require_children()?;
        tool("unshare", "util-linux")?;
        tool("nsenter", "util-linux")?;
        tool("systemctl", "systemd")?;
        let systemd = Path::new("/lib/systemd/systemd");
        ensure!(systemd.is_file(), "{} is missing: install the Debian package systemd", systemd.display());
        let folder = folder.join("systemd");
        let units = folder.join("units");
        fs::create_dir_all(&units)?;
        for target in TARGETS {
            let file = format!("{target}.target");
            let from = Path::new("/lib/systemd/system").join(&file);
            fs::copy(&from, units.join(&file)).with_context(|| format!("copying {}", from.display()))?;
        }
        for end in ENDS {
            let text = format!(
                "[Unit]\nDefaultDependencies=no\nRequires=shutdown.target umount.target final.target\n\
                 After=shutdown.target umount.target final.target\n\
                 [Service]\nType=oneshot\nExecStart=/bin/touch {}/went-{end}\n",
                folder.display()
            );
            fs::write(units.join(format!("systemd-{end}.service")), text)?;
        }
        for nothing in ["basic", "sysinit", "network-online"] {
            fs::write(units.join(format!("{nothing}.target")), "[Unit]\nDefaultDependencies=no\n")?;
        }
        let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
        let target = format!("[Unit]\nWants={}\nAllowIsolate=yes\n", names.join(" "));
        fs::write(units.join("test.target"), target)?;
        for (name, text) in services {
            fs::write(units.join(name), text)?;
        }
        for (name, text) in [("boot", BOOT), ("enter", ENTER)] {
            fs::write(folder.join(name), text)?;
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
        }
        let mut command = match network {
            None => Command::new(folder.join("enter")),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", network.display())).arg(folder.join("enter"));
                command
            }
        };
        command.arg(&folder).arg(systemd);
        let machine = Self { child: spawn(command, &folder)?, folder };
        until("systemd that answers", WITHIN, || machine.systemctl(&["is-active", "test.target"])?.done())?;
        Ok(machine)
    }

    /// Runs systemctl there.
    ///
    /// # Errors
    /// There is no systemd, or it can't be run; whether it succeeded is in the result.
    pub fn systemctl(&self, words: &[&str]) -> Result<Ran> {
        let unshare = self.child.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        let first = children.split_whitespace().next().context("systemd has not started")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", first, "--all", "systemctl"]).args(words);
        run(command)
    }

    /// Waits until the machine has gone this way, everything on it stopped.
    ///
    /// # Errors
    /// It hasn't in time.
    pub fn until_it_went(&self, end: &str) -> Result<()> {
        until(&format!("end of the machine by {end}"), WITHIN, || {
            ensure!(self.folder.join(format!("went-{end}")).exists(), "it is still there");
            Ok(())
        })
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // The namespace dies with its first process, which dies with unshare.
        let _dead = self.child.kill();
        let _collected = self.child.wait();
        let Ok(cgroup) = fs::read_to_string(self.folder.join("cgroup")) else { return };
        let emptied = until("empty cgroup", WITHIN, || remove_cgroup(Path::new(cgroup.trim())));
        if let Err(error) = emptied
            && !std::thread::panicking()
        {
            panic!("a cgroup is left over: {error:#}");
        }
    }
}

/// Removes a cgroup and those below it, which are folders that can't be emptied in any other way.
fn remove_cgroup(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("removing {}", path.display()))
}

/// A file of the server's package.
fn of_server(name: &str) -> Result<String> {
    let packaged = format!("{}/../../server/appliance/debian/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&packaged).with_context(|| format!("reading {packaged}"))
}

/// What the server's packaged unit says of starts, restarts and descriptors. Its user and the walls around it are those of a
/// machine that has the package (`cross/test-packages`).
fn server_unit(server: &Path, appliance: &Appliance) -> Result<String> {
    const KEPT: [&str; 6] = ["Type", "UMask", "Restart", "RestartSec", "FileDescriptorStoreMax", "LimitNOFILE"];
    let packaged = of_server("tiebreaker-server.service")?;
    let kept: Vec<&str> =
        packaged.lines().filter(|line| line.split_once('=').is_some_and(|(key, _)| KEPT.contains(&key))).collect();
    ensure!(kept.len() == KEPT.len(), "the packaged unit has other settings: {packaged}");
    let (data, log) = (appliance.data(), appliance.folder().join("log"));
    Ok(format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\n{}\nExecStart={} run --data {}\nStandardError=append:{}\n\
         Environment=NO_COLOR=1\n",
        kept.join("\n"),
        server.display(),
        data.display(),
        log.display()
    ))
}

/// The packaged unit of the QDevice port, at another address.
fn server_socket(port: SocketAddr) -> Result<String> {
    let packaged = of_server("tiebreaker-qdevice.socket")?;
    let unit = packaged.replace("ListenStream=[::]:5403\n", &format!("ListenStream={port}\n"));
    ensure!(unit != packaged, "the packaged unit listens elsewhere: {packaged}");
    let lines = unit.lines().filter(|line| !line.starts_with("ConditionPathExists="));
    Ok(lines.fold(String::new(), |unit, line| unit + line + "\n"))
}

/// The unit of the package, for this program and data folder.
fn agent_unit(agent: &Path, data: &Path) -> Result<String> {
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/../../agent/node/debian/tiebreaker-agent.service");
    let unit = fs::read_to_string(packaged).with_context(|| format!("reading {packaged}"))?;
    let starts = "ExecStart=/usr/bin/tiebreaker-agent run\n";
    ensure!(unit.contains(starts), "the packaged unit starts something else: {unit}");
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path of the test is no text");
    let (agent, data) = (text(agent)?, text(data)?);
    let unit = unit.replace(starts, &format!("ExecStart={agent} run --data {data}\n"));
    Ok(unit.replace("/var/lib/tiebreaker-agent", &data))
}
