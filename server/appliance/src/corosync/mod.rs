//! The names of Debian's corosync-qnetd: called by one of them, `tiebreaker-server` takes the original's options, prints
//! what it prints and ends as it ends, so that `pvecm`, `pcs`, `crm` and container images need no change.
//!
//! What differs is on the safe side: what can't be signed is an error here, and a daemon whose certificates are missing
//! says how to make them.

mod advanced;
mod certutil;
mod daemon;
mod detach;
mod lock;
mod options;
mod syslog;
mod tool;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Where the original keeps its certificates.
const NSSDB: &str = "/etc/corosync/qnetd/nssdb";

/// Where the original's control socket is.
const SOCKET: &str = "/var/run/corosync-qnetd/corosync-qnetd.sock";

/// One of the original's programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// `corosync-qnetd`: the daemon.
    Daemon,
    /// `corosync-qnetd-tool`: asks the daemon.
    Tool,
    /// `corosync-qnetd-certutil`: makes the authority and signs.
    Certutil,
}

impl Name {
    /// The program that a command line names.
    #[must_use]
    pub fn of(args: &[OsString]) -> Option<Self> {
        match Path::new(args.first()?).file_name()?.to_str()? {
            "corosync-qnetd" => Some(Self::Daemon),
            "corosync-qnetd-tool" => Some(Self::Tool),
            "corosync-qnetd-certutil" => Some(Self::Certutil),
            _ => None,
        }
    }

    /// Runs it.
    #[must_use]
    pub fn main(self, args: &[OsString]) -> ExitCode {
        match self {
            Self::Daemon => daemon::main(args),
            Self::Tool => tool::main(args),
            Self::Certutil => certutil::main(args),
        }
    }
}

/// Writes text whose reader may have gone.
fn print(mut to: impl std::io::Write, text: &[u8]) {
    let _ = to.write_all(text).and_then(|()| to.flush());
}

/// What the system says, without Rust's number behind it.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}
