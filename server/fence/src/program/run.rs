//! One run of a fence agent: its own user, its own process group, a deadline, and secrets over its standard input alone.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::{Instant, timeout_at},
};
use zeroize::Zeroizing;

use super::{config::ProgramConfig, error::ProgramError};

/// The most that is read of what an agent says, each of output and complaints.
const MAX_SAID: u64 = 64 * 1024;
/// The longest complaint that is repeated.
const MAX_REPEATED: usize = 200;

/// What an agent is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Status,
    Off,
    On,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Status => "status",
            Action::Off => "off",
            Action::On => "on",
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: String,
    complaints: String,
}

impl Ended {
    /// It failed. A complaint that holds the password isn't repeated.
    pub(super) fn failed(&self, config: &ProgramConfig) -> ProgramError {
        let line = self.complaints.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        let secret = config.password.as_ref().map(|password| String::from_utf8_lossy(password.expose()).into_owned());
        let secret = secret.map(Zeroizing::new);
        let told = |line: &String| secret.as_ref().is_some_and(|secret| line.contains(secret.as_str()));
        let said = line.filter(|line| !told(line));
        let said = said.map(|line| line.chars().filter(|c| !c.is_control()).take(MAX_REPEATED).collect());
        ProgramError::Failed { status: self.status.to_string(), said }
    }
}

/// A process group that doesn't outlive whoever waits for it: what an agent starts is killed with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // Nobody may be left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

pub(super) async fn run(config: &ProgramConfig, action: Action, deadline: Instant) -> Result<Ended, ProgramError> {
    is_trusted(&config.agent)?;
    let mut command = Command::new(&config.agent);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(user) = config.run_as {
        command.gid(user.gid).uid(user.uid);
    }
    let mut child = command.spawn().map_err(ProgramError::Start)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let _group = Group(group);
    match timeout_at(deadline, talk(&mut child, config, action)).await {
        Ok(ended) => ended,
        Err(_) => Err(ProgramError::TimedOut),
    }
}

async fn talk(child: &mut Child, config: &ProgramConfig, action: Action) -> Result<Ended, ProgramError> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(ProgramError::Io(std::io::ErrorKind::BrokenPipe.into()));
    };
    let words = input(config, action);
    let tell = async move {
        // Who ends without reading says so by its exit code.
        let _ = stdin.write_all(&words).await;
    };
    let ((), output, complaints) = tokio::join!(tell, all_of(stdout), all_of(stderr));
    let (output, complaints) = (output?, complaints?);
    let status = child.wait().await.map_err(ProgramError::Io)?;
    Ok(Ended { status, output, complaints })
}

/// `name=value` lines, and what is asked last: no option can change it.
fn input(config: &ProgramConfig, action: Action) -> Zeroizing<Vec<u8>> {
    let secret = config.password.as_ref().map_or(&b""[..], |password| password.expose());
    let options: usize = config.options.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    // Room for all of it, so that no half of a password stays behind where the buffer grew.
    let mut text = Zeroizing::new(Vec::with_capacity(options + secret.len() + 64));
    for (name, value) in &config.options {
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\n"] {
            text.extend_from_slice(part);
        }
    }
    if !secret.is_empty() {
        for part in [&b"password="[..], secret, b"\n"] {
            text.extend_from_slice(part);
        }
    }
    for part in [&b"action="[..], action.word().as_bytes(), b"\n"] {
        text.extend_from_slice(part);
    }
    text
}

async fn all_of(from: impl AsyncRead + Unpin) -> Result<String, ProgramError> {
    let mut said = Vec::new();
    from.take(MAX_SAID + 1).read_to_end(&mut said).await.map_err(ProgramError::Io)?;
    if u64::try_from(said.len()).unwrap_or(u64::MAX) > MAX_SAID {
        return Err(ProgramError::TooMuch);
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Whether nobody but root, or who runs this, can have written the agent.
fn is_trusted(agent: &Path) -> Result<(), ProgramError> {
    let about = std::fs::metadata(agent).map_err(ProgramError::Start)?;
    let own = rustix::process::geteuid().as_raw();
    let fine = (about.uid() == 0 || about.uid() == own) && about.permissions().mode() & 0o022 == 0;
    if fine { Ok(()) } else { Err(ProgramError::Untrusted) }
}
