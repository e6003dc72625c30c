//! The watchdogs that a node can have, behind one face.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use tiebreaker_firmware::{Capabilities, LinuxWatchdog, LinuxWatchdogError, Watchdog};

use super::{SimulatedWatchdog, SimulatedWatchdogError};
use tiebreaker_member::service_manager::{FdStoreError, ServiceManager};

/// The name under which the service manager keeps the watchdog's descriptor.
pub const KEPT_NAME: &str = "watchdog";

/// A watchdog as the feeder wants it: one type for all kinds, and petting that can't allocate.
pub trait Dog: Send {
    /// Arms and pets; returns the timeout that was really taken, never longer than `timeout`.
    fn arm(&mut self, timeout: Duration) -> Result<Duration, DogError>;

    /// Restarts the countdown. Neither allocates nor blocks.
    fn pet(&mut self) -> Result<(), Errno>;

    /// Stops the watchdog for good. On an error it runs on.
    fn disarm(&mut self) -> Result<(), DogError>;

    /// What it can do, and from that what it promises.
    fn capabilities(&self) -> Capabilities<'_>;
}

/// Why a watchdog could not be had or did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum DogError {
    /// The kernel's watchdog.
    #[error("the kernel's watchdog failed")]
    Linux(#[from] LinuxWatchdogError),
    /// The simulated one.
    #[error("the simulated watchdog failed")]
    Simulated(#[from] SimulatedWatchdogError),
    /// Nobody would keep the descriptor across this agent's death, and closing a watchdog pets it.
    #[error(
        "no service manager keeps the watchdog across the agent's death ({why}): run the agent under systemd with \
         FileDescriptorStoreMax=1 and FileDescriptorStorePreserve=yes, or under `tiebreaker-agent supervise`"
    )]
    NoKeeper {
        /// What speaks against it.
        why: String,
    },
    /// What the service manager kept could not be used.
    #[error("the descriptor that the service manager kept could not be copied")]
    Kept(#[source] io::Error),
    /// The service manager could not be asked to keep it.
    #[error("the service manager was not told to keep the watchdog")]
    Keep(#[from] FdStoreError),
}

/// Where the node's watchdog is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchdogSource {
    /// A device of the kernel, `/dev/watchdogN`.
    Linux(PathBuf),
    /// The supervisor's simulated watchdog, behind this socket. For demonstrations and tests.
    Simulated(PathBuf),
}

impl WatchdogSource {
    /// Takes back the watchdog that the service manager kept (`kept`), which neither arms nor pets it; or opens it
    /// and has the service manager keep it. **Opening may arm it**, so the caller holds a valid lease: the place to
    /// call this is the closure that [`super::Feeder::start`] runs.
    pub fn open(&self, kept: Option<OwnedFd>, manager: Option<&ServiceManager>) -> Result<Box<dyn Dog>, DogError> {
        // Asked first: without a keeper the device must not even be opened.
        let manager = manager.ok_or_else(|| DogError::NoKeeper { why: "NOTIFY_SOCKET is not set".into() })?;
        if kept.is_none() {
            // What was kept proves by itself that there is room.
            manager.has_room().map_err(|why| DogError::NoKeeper { why })?;
        }
        match self {
            Self::Linux(path) => {
                let fresh = kept.is_none();
                let mut dog = match kept {
                    Some(fd) => LinuxWatchdog::from_fd(fd)?,
                    None => LinuxWatchdog::open(path)?,
                };
                if fresh && let Err(error) = dog.fd().map_err(DogError::from).and_then(|fd| keep(manager, fd)) {
                    // If it can't be stopped either, it runs on unfed: the machine resets, which is safe.
                    let _stopped = Watchdog::disarm(&mut dog);
                    return Err(error);
                }
                Ok(Box::new(dog))
            }
            Self::Simulated(path) => {
                let dog = match kept {
                    Some(fd) => SimulatedWatchdog::from_fd(fd)?,
                    None => {
                        let dog = SimulatedWatchdog::connect(path)?;
                        keep(manager, dog.fd())?;
                        dog
                    }
                };
                Ok(Box::new(dog))
            }
        }
    }

    /// The timeout that the watchdog behind `kept` runs at; `None` if it is known not to run. Pets nothing.
    pub fn running_timeout(&self, kept: &OwnedFd) -> Result<Option<Duration>, DogError> {
        // Closing a copy is no closing of the device.
        let copy = kept.try_clone().map_err(DogError::Kept)?;
        match self {
            Self::Linux(_) => Ok(Some(LinuxWatchdog::from_fd(copy)?.timeout()?)),
            Self::Simulated(_) => Ok(SimulatedWatchdog::from_fd(copy)?.timeout()?),
        }
    }
}

fn keep(manager: &ServiceManager, fd: BorrowedFd<'_>) -> Result<(), DogError> {
    Ok(manager.store(KEPT_NAME, fd)?)
}

impl Dog for LinuxWatchdog {
    fn arm(&mut self, timeout: Duration) -> Result<Duration, DogError> {
        Ok(Watchdog::arm(self, timeout)?)
    }

    fn pet(&mut self) -> Result<(), Errno> {
        self.keep_alive()
    }

    fn disarm(&mut self) -> Result<(), DogError> {
        Ok(Watchdog::disarm(self)?)
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Watchdog::capabilities(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_keeper_the_watchdog_is_not_even_opened() {
        // Opening would fail in another way: the path doesn't exist.
        let source = WatchdogSource::Linux("/dev/no-such-watchdog".into());
        assert!(matches!(source.open(None, None), Err(DogError::NoKeeper { .. })));
    }
}
