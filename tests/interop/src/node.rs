//! A node: joined by the real command, run by the real supervisor.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Operator, Program, Ran, run, until, workload::MACHINE_VARIABLE};

/// A supervisor that is told to end has killed everything by then.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A node's files, joined or not.
#[derive(Clone, Debug)]
pub struct Node {
    folder: PathBuf,
    name: String,
    environment: Vec<OsString>,
}

impl Node {
    /// A node that has not joined, in a folder of its own.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        let folder = parent.join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, name: name.to_owned(), environment: Vec::new() })
    }

    /// Has everything on it run with these variables, each as NAME=VALUE.
    #[must_use]
    pub fn with_environment(self, environment: Vec<OsString>) -> Self {
        Self { environment, ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All its files: its data, and what its supervisor says.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// An operator on this node.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::at(&self.data())
    }

    /// Runs `tiebreaker-agent join`. `place` is put before the command, `more` behind it.
    ///
    /// # Errors
    /// It can't be run; whether it succeeded is in the result.
    pub fn join(
        &self,
        place: &[OsString],
        appliance: SocketAddr,
        token: &str,
        listen: SocketAddr,
        more: &[&str],
    ) -> Result<Ran> {
        let mut command = placed(place, Program::Agent.path()?.as_os_str());
        command.arg("join").arg(appliance.to_string()).args(["--token", token, "--name", &self.name]);
        command.arg("--data").arg(self.data());
        let listen = listen.to_string();
        command.args(["--listen", &listen, "--address", &listen]).args(more);
        run(command)
    }

    /// Joins with a simulated watchdog that is accepted by name.
    ///
    /// # Errors
    /// It is refused.
    pub fn must_join(&self, place: &[OsString], appliance: SocketAddr, token: &str, listen: SocketAddr) -> Result<()> {
        self.join(place, appliance, token, listen, &["--watchdog", "simulated", "--accept", "simulated"])?
            .done()
            .map(drop)
    }

    /// The supervisor's command, which marks the machine for all that runs there.
    pub(crate) fn supervisor(&self) -> Result<Vec<OsString>> {
        let mut mark = OsString::from(format!("{MACHINE_VARIABLE}="));
        mark.push(&self.folder);
        let agent = Program::Agent.path()?.into_os_string();
        let mut words = vec!["env".into(), mark];
        words.extend(self.environment.iter().cloned());
        words.extend([agent, "supervise".into(), "--data".into(), self.data().into_os_string()]);
        Ok(words)
    }

    /// What its supervisor reported so far.
    ///
    /// # Errors
    /// It can't be read.
    pub fn reports(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("out")).context("reading the supervisor's reports")?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("the report {line:?}"))).collect()
    }

    /// The reports of one kind.
    ///
    /// # Errors
    /// As [`Node::reports`].
    pub fn reported(&self, event: &str) -> Result<Vec<Value>> {
        Ok(self.reports()?.into_iter().filter(|report| report["event"] == event).collect())
    }

    /// What its simulated watchdog was told to do so far: `armed` and `disarmed`, in this order. A busy machine may lose
    /// the lease, or wait too long for an answer, before anything runs: then there are more than one of each.
    ///
    /// # Errors
    /// As [`Node::reports`].
    pub fn watchdog(&self) -> Result<Vec<String>> {
        let words = self.reports()?.into_iter().filter_map(|report| report["event"].as_str().map(str::to_owned));
        Ok(words.filter(|word| word == "armed" || word == "disarmed").collect())
    }

    /// What the daemons on it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.folder.join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Starts it on this very machine.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn start(&self) -> Result<Supervised> {
        let words = self.supervisor()?;
        let command = placed(&words[..words.len() - 1], &words[words.len() - 1]);
        Ok(Supervised { child: spawn(command, &self.folder)?, node: self.clone() })
    }
}

/// A supervisor on this very machine. It ends, with everything below it, when this is dropped.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    node: Node,
}

impl Supervised {
    /// The supervisor itself, which reboots its node in good order on SIGUSR1.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The agent that runs now.
    ///
    /// # Errors
    /// None was ever started.
    pub fn agent(&self) -> Result<Pid> {
        let pid = self.node.reported("started")?.last().and_then(|report| report["pid"].as_i64());
        pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("no agent was started")
    }

    /// Kills the agent, and nothing else.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_agent(&self) -> Result<()> {
        kill_process(self.agent()?, Signal::KILL).context("killing the agent")
    }

    /// Waits until the supervisor has started one more agent than `before`.
    ///
    /// # Errors
    /// It doesn't.
    pub fn until_restarted(&self, before: usize) -> Result<()> {
        until("restart of the agent", Duration::from_secs(30), || {
            let started = self.node.reported("started")?.len();
            ensure!(started > before, "{started} starts");
            Ok(())
        })
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        end(&mut self.child);
        if !std::thread::panicking() {
            assert!(
                !self.node.log().contains("panicked"),
                "a daemon of {} panicked: {}",
                self.node.name,
                self.node.log()
            );
        }
    }
}

/// A command with something before it.
pub(crate) fn placed(place: &[OsString], program: &OsStr) -> Command {
    match place.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Starts a daemon whose output goes to the files `out` and `log` of a folder.
pub(crate) fn spawn(mut command: Command, folder: &Path) -> Result<Child> {
    let append = |name| -> Result<File> { Ok(OpenOptions::new().create(true).append(true).open(folder.join(name))?) };
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(append("out")?).stderr(append("log")?);
    command.env("NO_COLOR", "1").spawn().with_context(|| format!("starting {name}"))
}

/// Ends a child of ours: politely, and when that is no use, by force.
pub(crate) fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It is not collected yet, so its id is its own.
    if let Some(pid) = pid
        && matches!(child.try_wait(), Ok(None))
        && kill_process(pid, Signal::TERM).is_ok()
    {
        let _late = until("end", ENDS_WITHIN, || {
            ensure!(child.try_wait()?.is_some(), "it runs");
            Ok(())
        });
    }
    let _dead = child.kill();
    let _collected = child.wait();
}
