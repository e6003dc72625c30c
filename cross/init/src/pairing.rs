//! The ssh for one `pvecm qdevice setup`: a program of its own (`cross/pairing`), started once where `[setup] pvecm` asks for it.
//!
//! It is never started again before the machine is: a fault that ends it could be somebody's doing.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::{ChildStdout, Stdio};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitStatus};
use serde::Serialize;

use crate::known::know;
use crate::log::{say, show};
use crate::server;
use crate::settings::Setup;

const PROGRAM: &str = "/bin/tiebreaker-pairing";
const PORT: u16 = 22;
/// What it shows, at most: a code, a fingerprint and how it ended. More would push other things off the screen.
const SHOWN_BYTES: u64 = 4096;

/// How the ssh is, as the status page has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ssh {
    /// It waits for a node; the code is on the screen.
    Open,
    /// One cluster was set up.
    Used,
    /// Nobody came in time.
    Late,
    /// Too many codes were wrong.
    Guessed,
    /// It could not be started, or ended by a fault.
    Failed,
}

impl Ssh {
    /// What the end of the program means.
    fn of(status: WaitStatus) -> Self {
        match status.exit_status() {
            Some(0) => Self::Used,
            Some(3) => Self::Late,
            Some(4) => Self::Guessed,
            _ => Self::Failed,
        }
    }
}

/// The program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// It is to be started when the server is up.
    Wanted,
    /// It runs.
    Running(Pid),
    /// It isn't wanted, or has ended.
    Over,
}

impl Pairing {
    /// What the settings ask for.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        if setup.pvecm { Self::Wanted } else { Self::Over }
    }

    /// Starts it if it is to be started.
    pub fn start(&mut self) {
        if *self != Self::Wanted {
            return;
        }
        let ssh = match begin() {
            Ok(pid) => {
                *self = Self::Running(pid);
                say("ssh is open for one `pvecm qdevice setup`: the code is on the screen");
                Ssh::Open
            }
            Err(error) => {
                *self = Self::Over;
                say(format_args!("there is no ssh for pvecm: {error:#}"));
                Ssh::Failed
            }
        };
        know(|known| known.ssh = Some(ssh));
    }

    /// Whether this process was the program, which has ended.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) -> bool {
        if *self != Self::Running(pid) {
            return false;
        }
        *self = Self::Over;
        let ssh = Ssh::of(status);
        say(format_args!("ssh is closed until the next start: {}", words(ssh)));
        know(|known| known.ssh = Some(ssh));
        true
    }

    /// Ends it with the machine.
    pub fn end(&self) {
        if let Self::Running(pid) = self {
            server::tell(*pid, Signal::KILL);
        }
    }
}

fn words(ssh: Ssh) -> &'static str {
    match ssh {
        Ssh::Open => "it has not ended",
        Ssh::Used => "one cluster was set up",
        Ssh::Late => "nobody has finished in time",
        Ssh::Guessed => "too many codes were wrong",
        Ssh::Failed => "it has failed",
    }
}

/// Listens, since the program may not at this port, and starts it.
fn begin() -> Result<Pid> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .with_context(|| format!("listening at port {PORT}"))?;
    let mut child = server::beside_it(PROGRAM)
        .args(["--server", server::PROGRAM])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {PROGRAM}"))?;
    let pid = Pid::from_child(&child);
    if let Some(shown) = child.stdout.take() {
        thread::spawn(move || copy_to_screen(shown));
    }
    Ok(pid)
}

/// What it says is for who stands before the machine, and for no log.
fn copy_to_screen(shown: ChildStdout) {
    for line in BufReader::new(shown.take(SHOWN_BYTES)).lines().map_while(Result::ok) {
        show(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{WaitOptions, waitpid};

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn it_is_wanted_where_the_settings_say_so_and_only_there() {
        let setup = |text: &str| Settings::parse(text).unwrap().setup;
        assert_eq!(Pairing::new(&setup("")), Pairing::Over);
        assert_eq!(Pairing::new(&setup("[setup]\npvecm = false\n")), Pairing::Over);
        let wanted = setup("[setup]\npvecm = true\n[qdevice]\nany_certified = true\n");
        assert_eq!(Pairing::new(&wanted), Pairing::Wanted);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped by its number, as process 1 does")]
    fn it_runs_once_whatever_ends_it() {
        for (script, ssh) in [
            ("exit 0", Ssh::Used),
            ("exit 3", Ssh::Late),
            ("exit 4", Ssh::Guessed),
            ("exit 1", Ssh::Failed),
            ("kill -9 $$", Ssh::Failed),
        ] {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Pid::from_child(&child);
            let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
            let mut pairing = Pairing::Running(pid);
            assert_eq!(Ssh::of(status), ssh, "{script}");
            assert!(!Pairing::Wanted.reaped(pid, status) && !Pairing::Over.reaped(pid, status), "another one's");
            assert!(pairing.reaped(pid, status));
            assert_eq!(pairing, Pairing::Over);
            pairing.start();
            assert_eq!(pairing, Pairing::Over, "it is not started again");
        }
    }
}
