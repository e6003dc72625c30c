//! What this program knows of the machine, for the server's status page: a file in memory that is replaced whole whenever
//! something in it changes. Nothing in it lets anybody in.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::log::say;
use crate::pairing::Ssh;
use crate::settings::Mistake;

/// Where the server looks for it.
pub const FILE: &str = "/run/machine.json";

/// All of it. The server's `status_page::machine` reads the same, and `golden.json` is between them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Known {
    /// Why the settings that somebody wrote don't hold.
    pub mistake: Option<Wrong>,
    /// The board's watchdog.
    pub watchdog: Watchdog,
    /// The clock.
    pub clock: Clock,
    /// The ssh for `pvecm`; `None` where the settings don't ask for it.
    pub ssh: Option<Ssh>,
}

/// A mistake in the settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Wrong {
    file: &'static str,
    line: Option<usize>,
    column: Option<usize>,
    what: String,
}

impl Wrong {
    /// A mistake in this file.
    pub fn new(file: &'static str, mistake: &Mistake) -> Self {
        let (line, column) = mistake.place.unzip();
        Self { file, line, column, what: mistake.what.clone() }
    }
}

/// The board's watchdog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Watchdog {
    /// What its driver calls itself; `None` without one.
    pub identity: Option<String>,
    /// After so many seconds without food it resets the machine.
    pub timeout_s: Option<u64>,
    /// Why the machine was started, where the driver says that it had to do with it.
    pub last_boot: Option<&'static str>,
}

/// The clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Clock {
    /// Whether there are servers to ask.
    pub asks: bool,
    /// When one answered last, in seconds since the machine's start.
    pub answered_at_s: Option<u64>,
    /// Whether the last question had an answer.
    pub answers: bool,
}

static KNOWN: Mutex<Known> = Mutex::new(Known {
    mistake: None,
    watchdog: Watchdog { identity: None, timeout_s: None, last_boot: None },
    clock: Clock { asks: false, answered_at_s: None, answers: false },
    ssh: None,
});

/// Notes what has become known.
pub fn know(change: impl FnOnce(&mut Known)) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = known.clone();
    change(&mut known);
    if *known != before
        && let Err(error) = write(&known, Path::new(FILE))
    {
        say(format_args!("{FILE} can't be written, so the status page doesn't have what it says: {error}"));
    }
}

/// Seconds since the machine's start.
pub fn boot_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// The server reads at any moment: it finds the old one or the new one.
fn write(known: &Known, path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(known)?)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_reads_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        let mistake = Mistake { place: Some((4, 1)), what: "unknown field `server`".into() };
        let known = Known {
            mistake: Some(Wrong::new("tiebreaker.toml", &mistake)),
            watchdog: Watchdog { identity: Some("bcm2835".into()), timeout_s: Some(15), last_boot: Some("watchdog") },
            clock: Clock { asks: true, answered_at_s: Some(12), answers: true },
            ssh: Some(Ssh::Open),
        };
        write(&known, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), include_str!("golden.json"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "the server is another user");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
