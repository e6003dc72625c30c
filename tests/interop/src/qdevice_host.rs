//! A machine that nodes use as their QDevice server, as `pvecm` and `pcs` find it: root by ssh on port 22, and Debian's
//! names for the programs, behind which are ours or the original.
//!
//! It is a network namespace, with folders of its own mounted over what those programs use: `/etc/corosync/qnetd`, `/run`,
//! `/root` and `/tmp`. Nothing of the real machine is written to.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Network, Program, Ran, run, tool, until};

/// The original's programs.
const NAMES: [&str; 3] = ["corosync-qnetd", "corosync-qnetd-tool", "corosync-qnetd-certutil"];

/// Mounts and becomes the command. `ip netns exec` has made a mount namespace already. `/tmp` comes last: what is mounted
/// may lie in it.
const MOUNTED: &str = r#"set -e
dir=$1; ours=$2; tmp=$3; shift 3
mount --bind "$dir/qnetd" /etc/corosync/qnetd
mount --bind "$dir/root" /root
mount --bind "$dir/shadow" /etc/shadow
if [ -n "$ours" ]; then
    for name in corosync-qnetd corosync-qnetd-tool corosync-qnetd-certutil; do mount --bind "$ours" /usr/bin/$name; done
fi
mount --bind "$dir/run" /run
[ -z "$tmp" ] || mount --bind "$dir/tmp" /tmp
cd /
exec "$@""#;

/// `crypt` of [`PASSWORD`].
const SHADOW: &str = "root:$6$tiebreaker$PNVUOUxVh3n8fQmA6/9vWD13tr7s1syESvXNH459r03zLPfGnrvOC.JTlVUXXKKACtcHYotPTBwxmooZtEyk61:19000::::::\n";

/// Root's password on the host.
pub const PASSWORD: &str = "once";

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// Whose programs are behind the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// Debian's.
    Original,
    /// Ours.
    Ours,
}

/// The machine. What runs on it ends with it.
#[derive(Debug)]
pub struct QdeviceHost {
    folder: PathBuf,
    place: Vec<OsString>,
    daemons: Vec<(Behind, Child)>,
    sshd: Option<Child>,
}

impl QdeviceHost {
    /// The machine `pi` of a network.
    ///
    /// # Errors
    /// A package is missing.
    pub fn new(folder: &Path, network: &Network) -> Result<Self> {
        for name in NAMES {
            tool(name, "corosync-qnetd")?;
        }
        tool("certutil", "libnss3-tools")?;
        let folder = folder.join("pi-host");
        for name in ["qnetd", "run", "run/sshd", "root", "tmp"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::set_permissions(folder.join("root"), fs::Permissions::from_mode(0o700))?;
        fs::set_permissions(folder.join("run/sshd"), fs::Permissions::from_mode(0o755))?;
        fs::write(folder.join("shadow"), SHADOW)?;
        fs::set_permissions(folder.join("shadow"), fs::Permissions::from_mode(0o600))?;
        Ok(Self { folder, place: network.on("pi"), daemons: Vec::new(), sshd: None })
    }

    /// A file as the test sees it; `path` as the machine's programs do.
    ///
    /// # Errors
    /// The machine shares that path with the real one.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        for (inside, outside) in [
            ("/etc/corosync/qnetd/", "qnetd"),
            ("/var/run/", "run"),
            ("/run/", "run"),
            ("/root/", "root"),
            ("/tmp/", "tmp"),
        ] {
            if let Some(rest) = path.strip_prefix(inside) {
                return Ok(self.folder.join(outside).join(rest));
            }
        }
        bail!("{path} is not the machine's own")
    }

    /// What to put before a command of the machine that needs the real `/tmp`.
    ///
    /// # Errors
    /// Our programs can't be built.
    pub fn place_with_tmp(&self, behind: Behind) -> Result<Vec<OsString>> {
        self.place(behind, "")
    }

    fn place(&self, behind: Behind, tmp: &str) -> Result<Vec<OsString>> {
        let ours = match behind {
            Behind::Original => OsString::new(),
            Behind::Ours => Program::Server.path()?.into(),
        };
        let mut words = self.place.clone();
        words.extend(["sh", "-c", MOUNTED, "sh"].map(OsString::from));
        words.extend([self.folder.clone().into(), ours, tmp.into()]);
        Ok(words)
    }

    fn command(&self, behind: Behind, words: &[&str]) -> Result<Command> {
        let place = self.place(behind, "own")?;
        let (program, args) = place.split_first().context("a place has a program")?;
        let mut command = Command::new(program);
        command.args(args).args(words);
        Ok(command)
    }

    /// Runs one of the machine's programs to its end.
    ///
    /// # Errors
    /// It can't be run; whether it succeeded is in the result.
    pub fn run(&self, behind: Behind, words: &[&str]) -> Result<Ran> {
        run(self.command(behind, words)?)
    }

    fn spawn(&self, behind: Behind, words: &[&str], log: &str) -> Result<Child> {
        let log = fs::File::options().create(true).append(true).open(self.folder.join(log))?;
        let mut command = self.command(behind, words)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting {words:?}"))
    }

    /// Starts `corosync-qnetd` as its unit does, and waits until it answers.
    ///
    /// # Errors
    /// It doesn't; tells what it logged.
    pub fn start_qnetd(&mut self, behind: Behind, options: &[&str]) -> Result<()> {
        fs::create_dir_all(self.folder.join("run/corosync-qnetd"))?;
        let mut child = self.spawn(behind, &[&["/usr/bin/corosync-qnetd", "-f"], options].concat(), "qnetd.log")?;
        let up = until("corosync-qnetd", STARTS_WITHIN, || {
            if let Some(status) = child.try_wait()? {
                return Ok(Err(status));
            }
            Ok(Ok(self.run(behind, &["corosync-qnetd-tool", "-s"])?.done()?))
        });
        self.daemons.push((behind, child));
        match up {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => bail!("corosync-qnetd ended: {status}; its log: {}", self.log()),
            Err(error) => bail!("{error:#}; its log: {}", self.log()),
        }
    }

    /// Shuts `corosync-qnetd` down by its tool, and waits for its end.
    ///
    /// # Errors
    /// It refuses, or doesn't end well.
    pub fn shut_qnetd_down(&mut self) -> Result<()> {
        let (behind, mut child) = self.daemons.pop().context("it runs")?;
        self.run(behind, &["corosync-qnetd-tool", "-H"])?.done()?;
        let status = until("the end of corosync-qnetd", STARTS_WITHIN, || child.try_wait()?.context("it runs"))?;
        ensure!(status.success(), "it ended with {status}: {}", self.log());
        Ok(())
    }

    /// Starts Debian's sshd on port 22, with a key of its own; root may come with a password or a key.
    ///
    /// # Errors
    /// The package is missing, or it can't be started.
    pub fn start_sshd(&mut self, behind: Behind) -> Result<()> {
        let sshd = tool("sshd", "openssh-server")?;
        let key = self.folder.join("run/host_key");
        let mut keygen = Command::new(tool("ssh-keygen", "openssh-client")?);
        run({
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
            keygen
        })?
        .done()?;
        let config = "Port 22\nHostKey /run/host_key\nPidFile none\nUsePAM no\nPermitRootLogin yes\n\
                      PasswordAuthentication yes\nAuthorizedKeysFile .ssh/authorized_keys\nSubsystem sftp internal-sftp\n";
        fs::write(self.folder.join("run/sshd_config"), config)?;
        let sshd = sshd.to_str().context("a program's path is text")?;
        self.sshd = Some(self.spawn(behind, &[sshd, "-D", "-e", "-f", "/run/sshd_config"], "sshd.log")?);
        Ok(())
    }

    /// What its daemons logged.
    #[must_use]
    pub fn log(&self) -> String {
        let text = |name| fs::read(self.folder.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ["qnetd.log", "sshd.log"].map(|name| text(name).unwrap_or_default()).join("\n--- sshd\n")
    }
}

impl Drop for QdeviceHost {
    fn drop(&mut self) {
        let daemons = std::mem::take(&mut self.daemons).into_iter().map(|(_, child)| child);
        for mut child in daemons.chain(self.sshd.take()) {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}
