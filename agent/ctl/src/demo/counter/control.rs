//! Starting, stopping and probing the counter's daemon.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::here::{Here, stat};
use super::serve::pid_file;

const START_WITHIN: Duration = Duration::from_secs(10);
const END_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Starts the daemon, if it doesn't run, and returns once it serves.
pub(super) fn start(here: &Here, shared: &Path) -> Result<()> {
    if is_running(here)? {
        return Ok(());
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(here.dir.join("counter.log"))
        .context("opening the counter's log")?;
    let mut child = Command::new(std::env::current_exe().context("finding the own program")?)
        .args(["demo-counter", "serve", "--shared"])
        .arg(shared)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the counter's log")?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("starting the daemon")?;
    let end = Instant::now() + START_WITHIN;
    loop {
        if running_pid(here)? == Some(child.id()) {
            // It outlives this program; nobody here waits for it.
            return Ok(());
        }
        if let Some(status) = child.try_wait().context("waiting for the daemon")? {
            bail!("the daemon ended at once ({status}): its log is {}", here.dir.join("counter.log").display());
        }
        if Instant::now() >= end {
            child.kill().context("killing a daemon that doesn't serve")?;
            child.wait().context("collecting a daemon that doesn't serve")?;
            bail!("the daemon didn't serve within {START_WITHIN:?}");
        }
        sleep(LOOK_EVERY);
    }
}

/// Stops the daemon and returns once it is gone.
pub(super) fn stop(here: &Here) -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(pid) = running_pid(here)? else { return Ok(()) };
        let raw = Pid::from_raw(pid.cast_signed()).context("the pid file holds no pid")?;
        // It may have gone since.
        let _gone = kill_process(raw, signal);
        let end = Instant::now() + END_WITHIN;
        while Instant::now() < end {
            if running_pid(here)? != Some(pid) {
                return Ok(());
            }
            sleep(LOOK_EVERY);
        }
    }
    bail!("the daemon is still there after it was killed")
}

/// Whether it runs.
pub(super) fn is_running(here: &Here) -> Result<bool> {
    Ok(running_pid(here)?.is_some())
}

fn running_pid(here: &Here) -> Result<Option<u32>> {
    let path = pid_file(here);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [pid, started] = fields[..] else { bail!("{} is damaged", path.display()) };
    let pid = u32::try_from(pid).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(stat(pid).is_some_and(|stat| stat.started == started).then_some(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_process_counts_as_running() {
        let dir = tempfile::tempdir().unwrap();
        let here = Here { dir: dir.path().to_owned(), node: "node1".into(), port: 1 };
        assert!(!is_running(&here).unwrap());
        let own = std::process::id();
        let started = stat(own).unwrap().started;
        fs::write(pid_file(&here), format!("{own} {started}\n")).unwrap();
        assert!(is_running(&here).unwrap());
        fs::write(pid_file(&here), format!("{own} {}\n", started + 1)).unwrap();
        assert!(!is_running(&here).unwrap(), "a reused pid");
        fs::write(pid_file(&here), "nonsense").unwrap();
        assert!(is_running(&here).is_err(), "unknown is not stopped");
    }
}
