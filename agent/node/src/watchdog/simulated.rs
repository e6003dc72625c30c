//! The agent's end of the simulated watchdog that our supervisor serves.
//!
//! It behaves like a device of the kernel: the connection is the open device, it can be kept by the service manager,
//! and neither connecting nor closing changes whether it is armed. Unlike the kernel's, neither pets it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tiebreaker_firmware::{Capabilities, Nature, Watchdog};
use tiebreaker_member::clock;

use super::{Dog, DogError};

/// The supervisor answers from memory, so this long without an answer means that it is gone or stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers to requests of an agent that died before it read them; more than this are not there.
const STALE_ANSWERS_MAX: usize = 64;

/// What the agent says, one message per packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Arm with this timeout, and pet. `nonce` comes back in the answer.
    Arm { nonce: u32, timeout_ms: u32 },
    /// Pet. Counts from `boottime_ns`, the time at which it was sent, however late it is read.
    Pet { boottime_ns: u64 },
    /// Stop.
    Disarm { nonce: u32 },
    /// Tell the timeout. Neither pets nor changes anything.
    Ask { nonce: u32 },
}

/// What the supervisor answers to all but pets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// Armed, with this timeout.
    Armed { nonce: u32, timeout_ms: u32 },
    /// Stopped.
    Disarmed { nonce: u32 },
    /// The timeout that it runs at; 0 if it is not armed.
    Runs { nonce: u32, timeout_ms: u32 },
}

/// A packet: a letter and two numbers, big endian.
pub(crate) const PACKET: usize = 13;

fn packet(letter: u8, nonce: u32, value: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = letter;
    packet[1..5].copy_from_slice(&nonce.to_be_bytes());
    packet[5..].copy_from_slice(&value.to_be_bytes());
    packet
}

fn unpack(bytes: &[u8]) -> Option<(u8, u32, u64)> {
    let packet: &[u8; PACKET] = bytes.try_into().ok()?;
    let nonce = u32::from_be_bytes(packet[1..5].try_into().ok()?);
    let value = u64::from_be_bytes(packet[5..].try_into().ok()?);
    Some((packet[0], nonce, value))
}

impl Request {
    pub fn encode(self) -> [u8; PACKET] {
        match self {
            Self::Arm { nonce, timeout_ms } => packet(b'A', nonce, timeout_ms.into()),
            Self::Pet { boottime_ns } => packet(b'P', 0, boottime_ns),
            Self::Disarm { nonce } => packet(b'V', nonce, 0),
            Self::Ask { nonce } => packet(b'Q', nonce, 0),
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match unpack(bytes)? {
            (b'A', nonce, value) => Some(Self::Arm { nonce, timeout_ms: u32::try_from(value).ok()? }),
            (b'P', 0, boottime_ns) => Some(Self::Pet { boottime_ns }),
            (b'V', nonce, 0) => Some(Self::Disarm { nonce }),
            (b'Q', nonce, 0) => Some(Self::Ask { nonce }),
            _ => None,
        }
    }
}

impl Reply {
    pub fn encode(self) -> [u8; PACKET] {
        match self {
            Self::Armed { nonce, timeout_ms } => packet(b'a', nonce, timeout_ms.into()),
            Self::Disarmed { nonce } => packet(b'v', nonce, 0),
            Self::Runs { nonce, timeout_ms } => packet(b'q', nonce, timeout_ms.into()),
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match unpack(bytes)? {
            (b'a', nonce, value) => Some(Self::Armed { nonce, timeout_ms: u32::try_from(value).ok()? }),
            (b'v', nonce, 0) => Some(Self::Disarmed { nonce }),
            (b'q', nonce, value) => Some(Self::Runs { nonce, timeout_ms: u32::try_from(value).ok()? }),
            _ => None,
        }
    }
}

/// Why the simulated watchdog did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedWatchdogError {
    /// Nobody serves it.
    #[error("no supervisor serves a simulated watchdog at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The supervisor did not answer.
    #[error("the supervisor did not answer to {request}")]
    Request {
        /// What was asked.
        request: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The timeout is not between 1 ms and 49 days.
    #[error("a timeout of {asked:?} is out of range")]
    OutOfRange {
        /// What was asked.
        asked: Duration,
    },
    /// The supervisor took a longer timeout than asked for.
    #[error("the supervisor took a timeout of {taken:?}, slower than the {asked:?} asked for")]
    Slower {
        /// What was asked.
        asked: Duration,
        /// What it took.
        taken: Duration,
    },
}

/// The open simulated watchdog. Dropping it changes nothing about the watchdog.
#[derive(Debug)]
pub struct SimulatedWatchdog {
    fd: OwnedFd,
    nonce: u32,
}

impl SimulatedWatchdog {
    /// Connects to the supervisor's socket. Arms nothing.
    pub fn connect(path: &Path) -> Result<Self, SimulatedWatchdogError> {
        let connect = || -> io::Result<OwnedFd> {
            let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
            Ok(fd)
        };
        let fd = connect().map_err(|source| SimulatedWatchdogError::Connect { path: path.into(), source })?;
        Self::from_fd(fd)
    }

    /// A connection that the service manager kept.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SimulatedWatchdogError> {
        rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(|errno| failed("taking over the connection", errno))?;
        // The low bits of the time differ from those of an agent that used this connection before.
        let nonce = clock::now().boottime_ns as u32;
        Ok(Self { fd, nonce })
    }

    /// The connection, for the service manager to keep.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The timeout that it runs at, if it is armed. Asking pets nothing.
    pub fn timeout(&mut self) -> Result<Option<Duration>, SimulatedWatchdogError> {
        let timeout_ms = self.ask(
            "the question for its timeout",
            |nonce| Request::Ask { nonce },
            |wanted, reply| match reply {
                Reply::Runs { nonce, timeout_ms } if nonce == wanted => Some(timeout_ms),
                Reply::Armed { .. } | Reply::Disarmed { .. } | Reply::Runs { .. } => None,
            },
        )?;
        Ok((timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into())))
    }

    fn send(&self, request: Request) -> Result<(), Errno> {
        rustix::net::send(&self.fd, &request.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
    }

    fn ask<T>(
        &mut self,
        name: &'static str,
        request: impl Fn(u32) -> Request,
        accept: impl Fn(u32, Reply) -> Option<T>,
    ) -> Result<T, SimulatedWatchdogError> {
        self.nonce = self.nonce.wrapping_add(1);
        self.send(request(self.nonce)).map_err(|errno| failed(name, errno))?;
        let mut buffer = [0; PACKET];
        for _ in 0..STALE_ANSWERS_MAX {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())
                .map_err(|errno| failed(name, errno))?;
            if length == 0 {
                return Err(failed(name, Errno::CONNRESET));
            }
            let answer = Reply::decode(&buffer[..length]).and_then(|reply| accept(self.nonce, reply));
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        Err(failed(name, Errno::PROTO))
    }
}

fn failed(request: &'static str, errno: Errno) -> SimulatedWatchdogError {
    SimulatedWatchdogError::Request { request, source: errno.into() }
}

impl Watchdog for SimulatedWatchdog {
    type Error = SimulatedWatchdogError;

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            identity: "simulated",
            nature: Nature::Simulated,
            magic_close: true,
            no_way_out: Some(false),
            settable: true,
        }
    }

    fn arm(&mut self, timeout: Duration) -> Result<Duration, SimulatedWatchdogError> {
        let out_of_range = SimulatedWatchdogError::OutOfRange { asked: timeout };
        let Ok(timeout_ms) = u32::try_from(timeout.as_millis()) else { return Err(out_of_range) };
        if timeout_ms == 0 {
            return Err(out_of_range);
        }
        let taken = self.ask(
            "arm",
            |nonce| Request::Arm { nonce, timeout_ms },
            |wanted, reply| match reply {
                Reply::Armed { nonce, timeout_ms } if nonce == wanted => Some(timeout_ms),
                Reply::Armed { .. } | Reply::Disarmed { .. } | Reply::Runs { .. } => None,
            },
        )?;
        let taken = Duration::from_millis(taken.into());
        if taken > timeout { Err(SimulatedWatchdogError::Slower { asked: timeout, taken }) } else { Ok(taken) }
    }

    fn pet(&mut self) -> Result<(), SimulatedWatchdogError> {
        Dog::pet(self).map_err(|errno| failed("pet", errno))
    }

    fn disarm(&mut self) -> Result<(), SimulatedWatchdogError> {
        self.ask(
            "disarm",
            |nonce| Request::Disarm { nonce },
            |wanted, reply| match reply {
                Reply::Disarmed { nonce } if nonce == wanted => Some(()),
                Reply::Armed { .. } | Reply::Disarmed { .. } | Reply::Runs { .. } => None,
            },
        )
    }
}

impl Dog for SimulatedWatchdog {
    fn arm(&mut self, timeout: Duration) -> Result<Duration, DogError> {
        Ok(Watchdog::arm(self, timeout)?)
    }

    fn pet(&mut self) -> Result<(), Errno> {
        self.send(Request::Pet { boottime_ns: clock::now().boottime_ns })
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
    fn packets_come_back_as_they_went_and_nothing_else_is_one() {
        for request in [
            Request::Arm { nonce: 7, timeout_ms: u32::MAX },
            Request::Pet { boottime_ns: u64::MAX },
            Request::Disarm { nonce: u32::MAX },
            Request::Ask { nonce: 9 },
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
            assert_eq!(Request::decode(&request.encode()[..PACKET - 1]), None);
        }
        for reply in [
            Reply::Armed { nonce: 1, timeout_ms: 2 },
            Reply::Disarmed { nonce: 3 },
            Reply::Runs { nonce: 4, timeout_ms: 5 },
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
            assert_eq!(Request::decode(&reply.encode()), None);
        }
        assert_eq!(Request::decode(&packet(b'A', 0, u64::MAX)), None);
        assert_eq!(Request::decode(b""), None);
    }

    #[test]
    fn an_answer_to_a_dead_agent_is_not_taken_for_ours() {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut dog = SimulatedWatchdog::from_fd(ours).unwrap();
        let next = dog.nonce.wrapping_add(1);
        for reply in [
            Reply::Armed { nonce: dog.nonce, timeout_ms: 1 },
            Reply::Disarmed { nonce: next },
            Reply::Armed { nonce: next, timeout_ms: 900 },
        ] {
            rustix::net::send(&theirs, &reply.encode(), SendFlags::NOSIGNAL).unwrap();
        }
        assert_eq!(Watchdog::arm(&mut dog, Duration::from_secs(1)).unwrap(), Duration::from_millis(900));
        drop(theirs);
        assert!(Watchdog::disarm(&mut dog).is_err());
    }
}
