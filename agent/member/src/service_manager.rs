//! Descriptors that outlive a daemon: the service manager's file descriptor store.
//!
//! An agent's death must neither stop a watchdog nor count as petting it, and the appliance's clients shall not notice its
//! restart, so somebody else keeps the descriptors open. Under systemd that is systemd (`FileDescriptorStoreMax=` in the
//! unit), spoken to as in sd_notify(3) and sd_listen_fds(3); on a machine without it our own supervisor speaks the same
//! protocol.

mod room;

use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

pub use room::STORE_VARIABLE;

/// The variable in which our own supervisor names what it hands over: `NUMBER=NAME`, separated by colons.
pub const KEPT_VARIABLE: &str = "TIEBREAKER_KEPT_FDS";
/// The variable in which our own supervisor tells its process id.
pub const SUPERVISOR_VARIABLE: &str = "TIEBREAKER_SUPERVISOR";

/// The variables of sd_watchdog_enabled(3).
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Descriptors in one message; the kernel takes 253.
const AT_ONCE: usize = 250;

/// How long the service manager may take for what it was sent.
const DEALT_WITH_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The first number that systemd hands over (SD_LISTEN_FDS_START).
const LISTEN_FDS_START: RawFd = 3;

/// More descriptors than this are never handed over to an agent, which stores one.
pub const MAX_KEPT: usize = 8;

/// What went wrong between the agent and its service manager.
#[derive(Debug, thiserror::Error)]
pub enum FdStoreError {
    /// The service manager's socket took no message.
    #[error("the service manager took no message at {address:?}")]
    Send {
        /// NOTIFY_SOCKET.
        address: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The descriptor's name can't be sent.
    #[error("{name:?} can't name a stored descriptor: letters, digits, '-', '.' and '_' can")]
    Name {
        /// The name.
        name: String,
    },
    /// A variable of the service manager makes no sense.
    #[error("the service manager set {variable}={value:?}, which makes no sense")]
    Variable {
        /// Which.
        variable: &'static str,
        /// What it holds.
        value: OsString,
    },
    /// A descriptor that was announced is not there.
    #[error("descriptor {fd} ({name}) that the service manager announced could not be taken over")]
    Missing {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The service manager that started this process, as far as it listens.
#[derive(Clone, Debug)]
pub struct ServiceManager {
    address: OsString,
    /// What it says of its room.
    store: Option<OsString>,
}

impl ServiceManager {
    /// The service manager behind NOTIFY_SOCKET; `None` if this process has none.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        Some(Self { address, store: env::var_os(STORE_VARIABLE) })
    }

    /// One that listens here and has room, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn at(address: &std::path::Path) -> Self {
        Self { address: address.into(), store: Some("1".into()) }
    }

    /// Has the service manager keep a copy of `fd` under `name`, across deaths of this process.
    ///
    /// The message survives this process, too: once this returns, the copy is on its way.
    ///
    /// # Errors
    /// When the name is bad, or the message isn't taken.
    pub fn store(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), FdStoreError> {
        check_name(name)?;
        // FDPOLL=0: a watchdog has no hang-up to wait for, and nobody but us decides when it is given up.
        self.send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[fd])
    }

    /// Has the service manager keep copies of sockets under one name. It gives up those whose peers hang up.
    ///
    /// # Errors
    /// When the name is bad, or a message isn't taken.
    pub fn store_all(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), FdStoreError> {
        check_name(name)?;
        let message = format!("FDSTORE=1\nFDNAME={name}");
        fds.chunks(AT_ONCE).try_for_each(|fds| self.send(&message, fds))
    }

    /// Waits until the service manager has dealt with all that was sent before, for at most 5 s.
    ///
    /// # Errors
    /// It has not by then.
    pub fn wait_for_it(&self) -> Result<(), FdStoreError> {
        let failed = |source: io::Error| FdStoreError::Send { address: self.address.clone(), source };
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        self.send("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        // It closes its copy when it comes to it, and then the pipe has no writer any more.
        let mut polled = [PollFd::new(&ours, PollFlags::IN)];
        match poll(&mut polled, Some(&DEALT_WITH_WITHIN)) {
            Ok(0) => Err(failed(io::ErrorKind::TimedOut.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Has the service manager give up its copies stored under `name`.
    ///
    /// # Errors
    /// When the name is bad, or the message isn't taken.
    pub fn remove(&self, name: &str) -> Result<(), FdStoreError> {
        check_name(name)?;
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Proves that the service manager has room for a descriptor, or says why that is not proven: one that has none
    /// drops what it is given without a word. May ask systemd, for at most 5 s.
    ///
    /// # Errors
    /// Why it is not proven.
    pub fn has_room(&self) -> Result<(), String> {
        room::prove(self.store.as_deref())
    }

    /// Tells the service manager that this process is up.
    ///
    /// # Errors
    /// When the message isn't taken.
    pub fn ready(&self) -> Result<(), FdStoreError> {
        self.send("READY=1", &[])
    }

    /// Tells the service manager which clusters don't run. Process 1 of the image judges an update by it; systemd passes over
    /// what begins with `X_`.
    ///
    /// # Errors
    /// When the message isn't taken.
    pub fn stopped(&self, names: &[String]) -> Result<(), FdStoreError> {
        self.send(&format!("X_TIEBREAKER_STOPPED={}", names.join(",")), &[])
    }

    /// Tells the service manager that this process works. It is told so within [`ServiceManager::proof_within`], each time.
    ///
    /// # Errors
    /// When the message isn't taken.
    pub fn works(&self) -> Result<(), FdStoreError> {
        self.send("WATCHDOG=1", &[])
    }

    /// The time between two proofs that the service manager allows (WATCHDOG_USEC), if it asks this process for any.
    ///
    /// # Errors
    /// Its variable makes no sense.
    pub fn proof_within(&self) -> Result<Option<Duration>, FdStoreError> {
        proof_within(|name| env::var_os(name))
    }

    fn send(&self, message: &str, fds: &[BorrowedFd<'_>]) -> Result<(), FdStoreError> {
        self.try_send(message, fds).map_err(|source| FdStoreError::Send { address: self.address.clone(), source })
    }

    fn try_send(&self, message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let address = match self.address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(self.address.as_bytes())?,
        };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let sent = rustix::net::sendmsg_addr(
            &socket,
            &address,
            &[IoSlice::new(message.as_bytes())],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The descriptors that the service manager kept for this process, with their names; more than `most` are refused. Only
/// the first call in a process finds any: the descriptors then belong to the caller.
///
/// # Errors
/// When the environment makes no sense, or a descriptor isn't there.
pub fn take_kept(most: usize) -> Result<Vec<(String, OwnedFd)>, FdStoreError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let announced = announced(|name| env::var_os(name), std::process::id(), std::os::unix::process::parent_id(), most)?;
    let mut kept = Vec::new();
    for (fd, name) in announced {
        let owned = adopt(fd).map_err(|source| FdStoreError::Missing { fd, name: name.clone(), source })?;
        kept.push((name, owned));
    }
    Ok(kept)
}

/// What the environment announces to the process `pid`, a child of `parent`. Variables that are meant for another
/// process were inherited by accident and announce nothing.
fn announced(
    variable: impl Fn(&str) -> Option<OsString>,
    pid: u32,
    parent: u32,
    most: usize,
) -> Result<Vec<(RawFd, String)>, FdStoreError> {
    if number(&variable, "LISTEN_PID")? == Some(pid) {
        let count = number(&variable, "LISTEN_FDS")?.unwrap_or(0) as usize;
        if count > most {
            return Err(senseless("LISTEN_FDS", count.to_string().into()));
        }
        let names = text(&variable, "LISTEN_FDNAMES")?.unwrap_or_default();
        let mut names = names.split(':');
        return Ok((LISTEN_FDS_START..)
            .take(count)
            .map(|fd| (fd, names.next().unwrap_or("unknown").to_owned()))
            .collect());
    }
    if number(&variable, SUPERVISOR_VARIABLE)? == Some(parent) {
        let list = text(&variable, KEPT_VARIABLE)?.unwrap_or_default();
        let parsed: Option<Vec<(RawFd, String)>> = list
            .split(':')
            .filter(|item| !item.is_empty())
            .map(|item| item.split_once('=').and_then(|(fd, name)| Some((fd.parse().ok()?, name.to_owned()))))
            .collect();
        return parsed.filter(|list| list.len() <= most).ok_or_else(|| senseless(KEPT_VARIABLE, list.into()));
    }
    Ok(Vec::new())
}

/// Owns a descriptor that this process was started with.
///
/// Nobody else owns the number: descriptors of the service manager are taken once.
#[allow(unsafe_code, reason = "a number has to become a descriptor somewhere")]
fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: the borrow ends with this statement, and asking for the flags of a number that is not open fails harmlessly.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) })?;
    // SAFETY: the descriptor is open, and by this function's contract nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// `WATCHDOG_USEC` holds only for the process that `WATCHDOG_PID` names, where that is set.
fn proof_within(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Duration>, FdStoreError> {
    if number(&variable, WATCHDOG_PID)?.is_some_and(|pid| pid != std::process::id()) {
        return Ok(None);
    }
    match text(&variable, WATCHDOG_USEC)? {
        None => Ok(None),
        Some(us) => match us.parse::<u64>() {
            Ok(us) if us > 0 => Ok(Some(Duration::from_micros(us))),
            Ok(_) | Err(_) => Err(senseless(WATCHDOG_USEC, us.into())),
        },
    }
}

fn text(variable: &impl Fn(&str) -> Option<OsString>, name: &'static str) -> Result<Option<String>, FdStoreError> {
    match variable(name).map(|value| String::from_utf8(value.into_vec())) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(error)) => Err(senseless(name, OsString::from_vec(error.into_bytes()))),
    }
}

fn number(variable: &impl Fn(&str) -> Option<OsString>, name: &'static str) -> Result<Option<u32>, FdStoreError> {
    match text(variable, name)? {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_not_a_number| senseless(name, text.into())),
    }
}

const fn senseless(variable: &'static str, value: OsString) -> FdStoreError {
    FdStoreError::Variable { variable, value }
}

/// Names travel in lines and in lists separated by colons, so they hold nothing that could end either.
///
/// # Errors
/// It holds something else.
pub fn check_name(name: &str) -> Result<(), FdStoreError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(fine) {
        Ok(())
    } else {
        Err(FdStoreError::Name { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(variables: &[(&str, &str)]) -> Result<Vec<(RawFd, String)>, FdStoreError> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        announced(find, 100, 7, MAX_KEPT)
    }

    #[test]
    fn systemd_announces_by_listen_fds() {
        let found = look(&[("LISTEN_PID", "100"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "watchdog:x")]).unwrap();
        assert_eq!(found, [(3, "watchdog".to_owned()), (4, "x".to_owned())]);
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        assert!(look(&[("LISTEN_PID", "99"), ("LISTEN_FDS", "2")]).unwrap().is_empty());
        assert!(look(&[(SUPERVISOR_VARIABLE, "8"), (KEPT_VARIABLE, "5=watchdog")]).unwrap().is_empty());
        assert!(look(&[]).unwrap().is_empty());
    }

    #[test]
    fn our_supervisor_announces_by_number() {
        let found = look(&[(SUPERVISOR_VARIABLE, "7"), (KEPT_VARIABLE, "12=watchdog:9=b")]).unwrap();
        assert_eq!(found, [(12, "watchdog".to_owned()), (9, "b".to_owned())]);
    }

    #[test]
    fn senseless_announcements_are_errors() {
        assert!(look(&[("LISTEN_PID", "x")]).is_err());
        assert!(look(&[("LISTEN_PID", "100"), ("LISTEN_FDS", "-1")]).is_err());
        assert!(look(&[("LISTEN_PID", "100"), ("LISTEN_FDS", "1000000")]).is_err());
        assert!(look(&[(SUPERVISOR_VARIABLE, "7"), (KEPT_VARIABLE, "watchdog")]).is_err());
    }

    #[test]
    fn proofs_are_asked_for_as_systemd_does() {
        let within = |variables: &[(&str, &str)]| {
            proof_within(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        let own = std::process::id().to_string();
        assert_eq!(within(&[]).unwrap(), None);
        assert_eq!(within(&[(WATCHDOG_USEC, "20000000")]).unwrap(), Some(Duration::from_secs(20)));
        assert!(within(&[(WATCHDOG_USEC, "5"), (WATCHDOG_PID, &own)]).unwrap().is_some());
        assert_eq!(within(&[(WATCHDOG_USEC, "5"), (WATCHDOG_PID, "0")]).unwrap(), None, "it is another process's");
        for senseless in ["0", "-1", "soon"] {
            assert!(within(&[(WATCHDOG_USEC, senseless)]).is_err(), "{senseless}");
        }
    }

    #[test]
    fn clusters_that_do_not_run_are_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let told = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            ServiceManager::at(&path).stopped(&names).unwrap();
            let mut datagram = [0; 100];
            let length = manager.recv(&mut datagram).unwrap();
            String::from_utf8_lossy(&datagram[..length]).into_owned()
        };
        assert_eq!(told(&[]), "X_TIEBREAKER_STOPPED=");
        assert_eq!(told(&["home", "work"]), "X_TIEBREAKER_STOPPED=home,work");
    }

    #[test]
    fn names_that_would_break_the_protocol_are_refused() {
        assert!(check_name("watchdog").is_ok());
        for name in ["", "a:b", "a\nREADY=1", "a b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
