//! Machines with Debian's Corosync and its QDevice client, unmodified: each in a network namespace, with folders of its
//! own mounted over `/etc/corosync`, `/var/lib/corosync`, `/root` and `/run`.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Network, Ran, run, tool};

/// Mounts the folders and becomes the command. `ip netns exec` has made a mount namespace already.
const MOUNTED: &str = r#"set -e
dir=$1; shift
mount --bind "$dir/etc" /etc/corosync
mount --bind "$dir/lib" /var/lib/corosync
mount --bind "$dir/root" /root
mount --bind "$dir/run" /run
exec "$@""#;

/// A command that sees the folders `etc`, `lib` and `run` of another folder as its `/etc/corosync`, `/var/lib/corosync` and
/// `/run`. `place`, which is put before it, makes a mount namespace.
///
/// # Errors
/// The place is none.
pub fn mounted(place: &[OsString], folder: &Path, words: &[&str]) -> Result<Command> {
    let (program, args) = place.split_first().context("a place has a program")?;
    let mut command = Command::new(program);
    command.args(args).args(["sh", "-c", MOUNTED, "sh"]).arg(folder).args(words);
    Ok(command)
}

/// A machine of a Corosync cluster.
#[derive(Debug)]
pub struct CorosyncNode {
    folder: PathBuf,
    place: Vec<OsString>,
    corosync: Option<Child>,
    qdevice: Option<Child>,
}

/// What `corosync-quorumtool` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    /// Whether the node's partition has quorum.
    pub quorate: bool,
    /// Nodes in it.
    pub nodes: u32,
    /// Votes in it, the device's included.
    pub votes: u32,
    /// The device's vote, if it is known.
    pub device: u32,
}

/// What is printed between two looks.
const END_OF_LOOK: &str = "----";

/// Looks at a machine's quorum, some thirty in a second. They end when this is dropped.
#[derive(Debug)]
pub struct QuorumWatch {
    child: Child,
    begun: Instant,
    looks: Receiver<(Instant, Option<Quorum>)>,
}

impl QuorumWatch {
    /// Waits, and says when it was seen; `None` if it wasn't. What was seen before now doesn't count.
    ///
    /// # Errors
    /// The looks have ended.
    pub fn until(&mut self, within: Duration, is: impl Fn(&Quorum) -> bool) -> Result<Option<Instant>> {
        self.seen(Instant::now(), within, is)
    }

    /// The same, but from the first look on that nobody has asked for yet: when did it begin?
    ///
    /// # Errors
    /// The looks have ended.
    pub fn first(&mut self, within: Duration, is: impl Fn(&Quorum) -> bool) -> Result<Option<Instant>> {
        self.seen(self.begun, within, is)
    }

    fn seen(&self, from: Instant, within: Duration, is: impl Fn(&Quorum) -> bool) -> Result<Option<Instant>> {
        let begun = Instant::now();
        loop {
            let left = within.saturating_sub(begun.elapsed());
            match self.looks.recv_timeout(left) {
                Ok((at, Some(quorum))) if at > from && is(&quorum) => return Ok(Some(at)),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => bail!("nobody looks any more"),
            }
        }
    }
}

impl Drop for QuorumWatch {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Quorum {
    /// Reads what `corosync-quorumtool -s` prints.
    fn read(text: &str) -> Result<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).with_context(|| format!("no {name} in {text}"))
        };
        // The device is listed among the nodes, as number 0.
        let device = text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["0", votes, "Qdevice"] => votes.parse().ok(),
            _ => None,
        });
        Ok(Self {
            quorate: match value("Quorate:")? {
                "Yes" => true,
                "No" => false,
                other => bail!("Quorate: {other}"),
            },
            nodes: value("Nodes:")?.parse()?,
            votes: value("Total votes:")?.split_whitespace().next().unwrap_or_default().parse()?,
            device: device.unwrap_or(0),
        })
    }
}

impl CorosyncNode {
    /// A machine of a cluster of two, `node1` and `node2` of the network, whose QDevice server is `pi` if there is an
    /// algorithm; else it has none.
    ///
    /// # Errors
    /// Debian's packages are missing.
    pub fn new(folder: &Path, network: &Network, host: &str, cluster: &str, algorithm: Option<&str>) -> Result<Self> {
        for (program, package) in [
            ("corosync", "corosync"),
            ("corosync-qdevice", "corosync-qdevice"),
            ("corosync-qdevice-net-certutil", "corosync-qdevice"),
            ("certutil", "libnss3-tools"),
        ] {
            tool(program, package)?;
        }
        let folder = folder.join(host);
        for name in ["etc", "lib", "run", "root"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::set_permissions(folder.join("root"), fs::Permissions::from_mode(0o700))?;
        let mut nodes = String::new();
        for (number, node) in ["node1", "node2"].into_iter().enumerate() {
            let (ip, id) = (network.ip(node)?, number + 1);
            nodes.push_str(&format!("  node {{\n    ring0_addr: {ip}\n    nodeid: {id}\n    name: {node}\n  }}\n"));
        }
        let server = network.ip("pi")?;
        let device = algorithm.map(|algorithm| {
            format!(
                "  device {{\n    model: net\n    votes: 1\n    net {{\n      host: {server}\n      algorithm: {algorithm}\n      \
                 tls: on\n    }}\n  }}\n"
            )
        });
        let device = device.unwrap_or_default();
        let config = format!(
            "totem {{\n  version: 2\n  cluster_name: {cluster}\n  transport: udpu\n}}\n\
             nodelist {{\n{nodes}}}\n\
             quorum {{\n  provider: corosync_votequorum\n{device}}}\n\
             logging {{\n  to_stderr: yes\n  to_syslog: no\n}}\n"
        );
        fs::write(folder.join("etc/corosync.conf"), config)?;
        Ok(Self { folder, place: network.on(host), corosync: None, qdevice: None })
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        mounted(&self.place, &self.folder, words)
    }

    /// Runs one of the machine's programs to its end.
    ///
    /// # Errors
    /// It can't be run; whether it succeeded is in the result.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        run(self.command(words)?)
    }

    /// A file of its `/etc/corosync`.
    #[must_use]
    pub fn etc(&self, name: &str) -> PathBuf {
        self.folder.join("etc").join(name)
    }

    /// A file of its `/root`.
    #[must_use]
    pub fn root(&self, name: &str) -> PathBuf {
        self.folder.join("root").join(name)
    }

    /// Runs the stock script that sets the client's certificates up. Files are named as it sees them.
    ///
    /// # Errors
    /// The script fails; tells what it said.
    pub fn certutil(&self, words: &[&str]) -> Result<()> {
        let ran = self.run(&[&["corosync-qdevice-net-certutil"], words].concat())?;
        ensure!(ran.code == Some(0), "corosync-qdevice-net-certutil {words:?}: {}{}", ran.stdout, ran.stderr);
        Ok(())
    }

    fn spawn(&self, words: &[&str], log: &str) -> Result<Child> {
        let log = fs::File::options().create(true).append(true).open(self.folder.join(log))?;
        let mut command = self.command(words)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting {words:?}"))
    }

    /// Starts Corosync.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_corosync(&mut self) -> Result<()> {
        self.corosync = Some(self.spawn(&["corosync", "-f"], "corosync.log")?);
        Ok(())
    }

    /// Starts the QDevice client.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_qdevice(&mut self) -> Result<()> {
        self.qdevice = Some(self.spawn(&["corosync-qdevice", "-f"], "qdevice.log")?);
        Ok(())
    }

    /// Kills both at once, as a crash does.
    ///
    /// # Errors
    /// They don't run.
    pub fn kill(&mut self) -> Result<()> {
        for child in [self.corosync.take(), self.qdevice.take()] {
            let mut child = child.context("it runs")?;
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Kills the QDevice client alone.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn kill_qdevice(&mut self) -> Result<()> {
        let mut child = self.qdevice.take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What Corosync thinks of its quorum.
    ///
    /// # Errors
    /// It doesn't run, or says nothing yet.
    pub fn quorum(&self) -> Result<Quorum> {
        // Its exit code tells whether there is quorum.
        let ran = self.run(&["corosync-quorumtool", "-s"])?;
        Quorum::read(&ran.stdout).with_context(|| ran.stderr)
    }

    /// Looks at it again and again, for who wants to know when it changes.
    ///
    /// # Errors
    /// The looks can't begin.
    pub fn watch_quorum(&self) -> Result<QuorumWatch> {
        let looks = format!("while :; do corosync-quorumtool -s 2>&1; echo {END_OF_LOOK}; sleep 0.02; done");
        let mut command = self.command(&["sh", "-c", &looks])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the looks")?;
        let output = child.stdout.take().context("it is piped")?;
        let begun = Instant::now();
        let (tell, looks) = channel();
        thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line != END_OF_LOOK {
                    text.push_str(&line);
                    text.push('\n');
                } else if tell.send((Instant::now(), Quorum::read(&std::mem::take(&mut text)).ok())).is_err() {
                    return;
                }
            }
        });
        Ok(QuorumWatch { child, begun, looks })
    }

    /// What its daemons logged.
    #[must_use]
    pub fn log(&self) -> String {
        let text = |name| fs::read(self.folder.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ["corosync.log", "qdevice.log"].map(|name| text(name).unwrap_or_default()).join("\n--- qdevice\n")
    }
}

impl Drop for CorosyncNode {
    fn drop(&mut self) {
        for mut child in [self.qdevice.take(), self.corosync.take()].into_iter().flatten() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}
