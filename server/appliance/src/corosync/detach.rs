//! Into the background: the daemon is started once more as a process of its own, and the first one ends when it serves, or
//! with it.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use super::print;

/// Tells the second process that it is the one.
const VARIABLE: &str = "TIEBREAKER_QNETD_DETACHED";

/// What it says when it serves.
const READY: &str = "ready";

/// Whether this process is the one in the background.
pub fn is_detached() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Starts the daemon in the background, and waits until it serves or has failed.
pub fn detach(args: &[OsString]) -> ExitCode {
    let started = env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        if let Some((name, rest)) = args.split_first() {
            command.arg0(name).args(rest);
        }
        command.env(VARIABLE, "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    });
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("corosync-qnetd: can't create child process: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut line = String::new();
    if let Some(said) = child.stdout.take() {
        // Its end without a word is an answer, too.
        let _ = BufReader::new(said).read_line(&mut line);
    }
    if line.trim_end() == READY {
        return ExitCode::SUCCESS;
    }
    // It has said on standard error why.
    let _ = child.wait();
    ExitCode::FAILURE
}

/// Leaves the terminal, once: a session of its own, before there are threads.
pub fn leave_session() {
    // Fails for who leads one already, which is what is wanted.
    let _ = rustix::process::setsid();
    let _ = env::set_current_dir("/");
}

/// Lets the first process end, and lets go of its terminal.
pub fn ready() {
    print(stdout(), format!("{READY}\n").as_bytes());
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
