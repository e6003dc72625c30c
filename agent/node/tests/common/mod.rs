//! What the tests of this folder share: waiting for events, and looking at processes.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine; reached only by failures.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether a process is there and not a zombie.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().as_bytes()[0], b'Z' | b'X'))
    })
}

/// Waits for a file that holds a process id and a newline.
pub fn pid_in(path: &Path) -> i32 {
    let mut pid = None;
    wait_until(&format!("a process id in {}", path.display()), || {
        pid =
            fs::read_to_string(path).ok().filter(|text| text.ends_with('\n')).and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.expect("it was waited for")
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a real id"), signal).expect("it is ours");
}

/// The command that runs one ignored test of this very binary as a process of its own.
pub fn reexec(entry: &str) -> Vec<OsString> {
    let exe = std::env::current_exe().expect("the test's own file");
    [exe.into_os_string(), entry.into(), "--exact".into(), "--ignored".into(), "--nocapture".into()].into()
}
