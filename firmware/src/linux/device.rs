//! `/dev/watchdog*`, by ioctl.

use std::fmt;
use std::path::{Path, PathBuf};
use std::string::String;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{ioctl, sysfs};
use crate::{BootReason, Capabilities, Watchdog};

/// An open watchdog of the kernel. **Open is armed**: the countdown runs from [`LinuxWatchdog::open`] on.
///
/// Dropping it does not stop the watchdog; only [`Watchdog::disarm`] does. A copy of the descriptor that the service
/// manager keeps must be given up too before the kernel acts on that.
#[derive(Debug)]
pub struct LinuxWatchdog {
    fd: Option<OwnedFd>,
    identity: String,
    options: u32,
    no_way_out: Option<bool>,
}

/// Why a kernel watchdog could not do as told.
#[derive(Debug)]
pub enum LinuxWatchdogError {
    /// Somebody else has it open, most likely the service manager itself (RuntimeWatchdogSec).
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// It could not be opened.
    Open {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// A request failed.
    Request {
        /// Which.
        request: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The kernel counts in whole seconds, from 1 on.
    TooShort {
        /// What was asked for.
        asked: Duration,
    },
    /// The device would take longer to fire than asked for.
    Slower {
        /// What was asked for.
        asked: Duration,
        /// What the device took.
        taken: Duration,
    },
    /// The driver can't stop it once it runs (nowayout).
    NoWayOut,
    /// It was disarmed and closed.
    Closed,
}

impl fmt::Display for LinuxWatchdogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { path } => write!(
                f,
                "{} is in use by another process; if systemd holds it, unset RuntimeWatchdogSec",
                path.display()
            ),
            Self::Open { path, errno } => write!(f, "{} could not be opened: {errno}", path.display()),
            Self::Request { request, errno } => write!(f, "the watchdog refused {request}: {errno}"),
            Self::TooShort { asked } => write!(f, "a watchdog timeout of {asked:?} is below one second"),
            Self::Slower { asked, taken } => {
                write!(f, "the watchdog took a timeout of {taken:?}, slower than the {asked:?} asked for")
            }
            Self::NoWayOut => f.write_str("the driver can't stop this watchdog once it runs (nowayout)"),
            Self::Closed => f.write_str("the watchdog was disarmed and closed"),
        }
    }
}

impl std::error::Error for LinuxWatchdogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { errno, .. } | Self::Request { errno, .. } => Some(errno),
            Self::Busy { .. } | Self::TooShort { .. } | Self::Slower { .. } | Self::NoWayOut | Self::Closed => None,
        }
    }
}

impl LinuxWatchdog {
    /// Opens the device, **which arms it** with the timeout it happens to have, and pets it if it runs already. The
    /// caller holds a valid lease, calls [`Watchdog::arm`] at once and pets from then on.
    pub fn open(path: &Path) -> Result<Self, LinuxWatchdogError> {
        let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
            if errno == Errno::BUSY {
                LinuxWatchdogError::Busy { path: path.into() }
            } else {
                LinuxWatchdogError::Open { path: path.into(), errno }
            }
        })?;
        Self::from_fd(fd)
    }

    /// A descriptor that the service manager kept: taking it back neither arms nor pets anything. On an error the
    /// descriptor is closed, which leaves a running watchdog running.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, LinuxWatchdogError> {
        let info = ioctl::support(fd.as_fd()).map_err(request("WDIOC_GETSUPPORT"))?;
        let no_way_out = rustix::fs::fstat(&fd)
            .ok()
            .and_then(|stat| sysfs::no_way_out(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)));
        let end = info.identity.iter().position(|byte| *byte == 0).unwrap_or(info.identity.len());
        let identity = String::from_utf8_lossy(&info.identity[..end]).into_owned();
        Ok(Self { fd: Some(fd), identity, options: info.options, no_way_out })
    }

    /// The descriptor, for the service manager to keep across a restart of this process.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, LinuxWatchdogError> {
        self.fd.as_ref().map(AsFd::as_fd).ok_or(LinuxWatchdogError::Closed)
    }

    /// Has the kernel panic, and so leave a trace, `before` the watchdog fires; it takes whole seconds, rounded down. `None`
    /// where the device has no such thing: the machine is then reset without a word, as before.
    pub fn set_pretimeout(&mut self, before: Duration) -> Result<Option<Duration>, LinuxWatchdogError> {
        if self.options & ioctl::PRETIMEOUT == 0 {
            return Ok(None);
        }
        let seconds = i32::try_from(before.as_secs()).unwrap_or(i32::MAX);
        let taken = ioctl::set_pretimeout(self.fd()?, seconds).map_err(request("WDIOC_SETPRETIMEOUT"))?;
        Ok(u64::try_from(taken).ok().filter(|taken| *taken > 0).map(Duration::from_secs))
    }

    /// The timeout that the device runs at now. Reading it pets nothing.
    pub fn timeout(&self) -> Result<Duration, LinuxWatchdogError> {
        let seconds = ioctl::timeout(self.fd()?).map_err(request("WDIOC_GETTIMEOUT"))?;
        match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            // A timeout of zero or below is no timeout at all.
            _ => Err(LinuxWatchdogError::Request { request: "a timeout that can be read", errno: Errno::INVAL }),
        }
    }

    /// Restarts the countdown; the kernel's answer as it came, so that nothing is allocated.
    pub fn keep_alive(&mut self) -> Result<(), Errno> {
        let Some(fd) = &self.fd else { return Err(Errno::BADF) };
        if self.options & ioctl::KEEPALIVE_PING != 0 {
            return ioctl::keep_alive(fd.as_fd());
        }
        // Any byte but 'V' is a keepalive, and drivers without the ioctl have only this.
        match rustix::io::write(fd, &[0])? {
            1 => Ok(()),
            _ => Err(Errno::IO),
        }
    }

    fn set_and_read_back(&self, asked: Duration) -> Result<Duration, LinuxWatchdogError> {
        let seconds = i32::try_from(asked.as_secs()).unwrap_or(i32::MAX);
        let fd = self.fd()?;
        let answered = if self.options & ioctl::SET_TIMEOUT == 0 {
            0
        } else {
            ioctl::set_timeout(fd, seconds).map_err(request("WDIOC_SETTIMEOUT"))?
        };
        let read = ioctl::timeout(fd).map_err(request("WDIOC_GETTIMEOUT"))?;
        taken_timeout(asked, answered, read)
    }
}

/// The timeout that counts, out of what SETTIMEOUT answered (0 where it can't be set) and GETTIMEOUT read: the longer.
fn taken_timeout(asked: Duration, answered: i32, read: i32) -> Result<Duration, LinuxWatchdogError> {
    let seconds = u64::try_from(answered.max(read)).unwrap_or(0);
    if seconds == 0 {
        // A timeout of zero or below is no timeout at all.
        return Err(LinuxWatchdogError::Request { request: "a timeout that can be read back", errno: Errno::INVAL });
    }
    let taken = Duration::from_secs(seconds);
    if taken > asked { Err(LinuxWatchdogError::Slower { asked, taken }) } else { Ok(taken) }
}

/// What the bits of the boot status mean; the watchdog first, since it may have fired because of the rest.
fn reason(bits: u32) -> BootReason {
    if bits & ioctl::CARD_RESET != 0 {
        BootReason::Watchdog
    } else if bits & (ioctl::OVERHEAT | ioctl::FAN_FAULT) != 0 {
        BootReason::Heat
    } else if bits & (ioctl::POWER_UNDER | ioctl::POWER_OVER) != 0 {
        BootReason::Supply
    } else {
        BootReason::NotSaid
    }
}

fn request(request: &'static str) -> impl Fn(Errno) -> LinuxWatchdogError {
    move |errno| LinuxWatchdogError::Request { request, errno }
}

impl Watchdog for LinuxWatchdog {
    type Error = LinuxWatchdogError;

    fn capabilities(&self) -> Capabilities<'_> {
        sysfs::capabilities(&self.identity, self.options, self.no_way_out)
    }

    /// Takes whole seconds, rounded down. Where the device refuses or is slower, it is stopped again if its driver
    /// can; otherwise the error leaves a machine that resets unless it is petted.
    fn arm(&mut self, timeout: Duration) -> Result<Duration, LinuxWatchdogError> {
        let armed = if timeout.as_secs() == 0 {
            Err(LinuxWatchdogError::TooShort { asked: timeout })
        } else {
            self.set_and_read_back(timeout)
        };
        match armed {
            Ok(taken) => {
                self.pet()?;
                Ok(taken)
            }
            Err(error) => {
                // The first error is the one to tell. If stopping fails too, the watchdog runs on, which is safe.
                let _stopped = self.disarm();
                Err(error)
            }
        }
    }

    fn pet(&mut self) -> Result<(), LinuxWatchdogError> {
        self.keep_alive().map_err(request("WDIOC_KEEPALIVE"))
    }

    fn time_left(&mut self) -> Result<Option<Duration>, LinuxWatchdogError> {
        match ioctl::time_left(self.fd()?) {
            Ok(seconds) => Ok(u64::try_from(seconds).ok().map(Duration::from_secs)),
            // What a kernel and a driver without it say.
            Err(Errno::OPNOTSUPP | Errno::NOTTY) => Ok(None),
            Err(errno) => Err(LinuxWatchdogError::Request { request: "WDIOC_GETTIMELEFT", errno }),
        }
    }

    fn boot_reason(&mut self) -> Result<BootReason, LinuxWatchdogError> {
        let bits = ioctl::boot_status(self.fd()?).map_err(request("WDIOC_GETBOOTSTATUS"))?;
        Ok(reason(bits.cast_unsigned()))
    }

    /// Writes the magic 'V' and closes the descriptor. Nothing else in this crate ever writes it.
    fn disarm(&mut self) -> Result<(), LinuxWatchdogError> {
        if self.no_way_out == Some(true) {
            return Err(LinuxWatchdogError::NoWayOut);
        }
        match rustix::io::write(self.fd()?, b"V") {
            Ok(1) => {
                self.fd = None;
                Ok(())
            }
            Ok(_) => Err(LinuxWatchdogError::Request { request: "the magic 'V'", errno: Errno::IO }),
            Err(errno) => Err(LinuxWatchdogError::Request { request: "the magic 'V'", errno }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const ASKED: Duration = Duration::from_secs(5);

    #[test]
    fn the_longer_of_both_answers_counts_and_slower_is_an_error() {
        assert_eq!(taken_timeout(ASKED, 5, 5).unwrap(), ASKED);
        assert_eq!(taken_timeout(ASKED, 4, 4).unwrap(), Duration::from_secs(4));
        // A driver that says yes and keeps its minute.
        assert!(matches!(
            taken_timeout(ASKED, 5, 60),
            Err(LinuxWatchdogError::Slower { taken, .. }) if taken == Duration::from_secs(60)
        ));
        assert!(matches!(taken_timeout(ASKED, 6, 5), Err(LinuxWatchdogError::Slower { .. })));
        assert!(taken_timeout(ASKED, 0, 0).is_err());
        assert!(taken_timeout(ASKED, 0, -1).is_err());
    }

    #[test]
    fn the_bits_of_the_boot_status_are_told_apart() {
        for (bits, told) in [
            (0x20, BootReason::Watchdog),
            (0x21, BootReason::Watchdog),
            (0x01, BootReason::Heat),
            (0x02, BootReason::Heat),
            (0x10, BootReason::Supply),
            (0x40, BootReason::Supply),
            (0x00, BootReason::NotSaid),
            (0x8180, BootReason::NotSaid),
        ] {
            assert_eq!(reason(bits), told, "{bits:#x}");
        }
    }

    #[test]
    fn a_pretimeout_is_asked_only_of_a_driver_that_has_one() {
        let (mut dog, _reader) = on_a_pipe(None);
        assert_eq!(dog.set_pretimeout(Duration::from_secs(2)).unwrap(), None);
        dog.options = ioctl::PRETIMEOUT;
        assert!(matches!(
            dog.set_pretimeout(Duration::from_secs(2)),
            Err(LinuxWatchdogError::Request { request: "WDIOC_SETPRETIMEOUT", .. })
        ));
        // A pipe knows no such request, as a driver without it.
        assert_eq!(dog.time_left().unwrap(), None);
    }

    #[test]
    fn what_is_no_watchdog_is_refused_by_name() {
        let error = LinuxWatchdog::open(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, LinuxWatchdogError::Request { request: "WDIOC_GETSUPPORT", .. }), "{error}");
        let error = LinuxWatchdog::open(Path::new("/dev/no-such-watchdog")).unwrap_err().to_string();
        assert!(error.contains("/dev/no-such-watchdog"), "{error}");
    }

    fn on_a_pipe(no_way_out: Option<bool>) -> (LinuxWatchdog, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let dog = LinuxWatchdog { fd: Some(writer), identity: "pipe".into(), options: 0, no_way_out };
        (dog, reader)
    }

    #[test]
    fn only_disarming_writes_the_magic_byte_and_dropping_does_not() {
        let (mut dog, reader) = on_a_pipe(None);
        dog.pet().unwrap();
        drop(dog);
        let mut seen = [1; 8];
        assert_eq!(rustix::io::read(&reader, &mut seen).unwrap(), 1);
        assert_eq!(seen[0], 0);

        let (mut dog, reader) = on_a_pipe(Some(false));
        dog.disarm().unwrap();
        assert!(matches!(dog.pet(), Err(LinuxWatchdogError::Request { errno: Errno::BADF, .. })));
        assert_eq!(rustix::io::read(&reader, &mut seen).unwrap(), 1);
        assert_eq!(seen[0], b'V');
    }

    #[test]
    fn a_device_without_a_way_out_says_so_instead_of_pretending() {
        let (mut dog, _reader) = on_a_pipe(Some(true));
        assert!(matches!(dog.disarm(), Err(LinuxWatchdogError::NoWayOut)));
        assert!(dog.fd().is_ok());
    }

    #[test]
    fn a_timeout_that_can_not_be_read_is_an_error_and_nothing_is_petted() {
        let (dog, reader) = on_a_pipe(None);
        assert!(matches!(dog.timeout(), Err(LinuxWatchdogError::Request { request: "WDIOC_GETTIMEOUT", .. })));
        drop(dog);
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]).unwrap(), 0);
    }
}
