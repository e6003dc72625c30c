//! One epoll for thousands of sockets. A task and a registration with the runtime for each would take several times the
//! memory of all else that is kept of an idle client.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Looked at in one go; then whoever else wants something from the engine has its turn.
const FOUND: usize = 256;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Sockets by key.
pub struct Poll {
    epoll: AsyncFd<OwnedFd>,
}

impl Poll {
    /// Without sockets yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe, for types that don't own their descriptor as this one does"
        )]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self { epoll })
    }

    /// Watches a socket from now on; closing it ends that.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, socket: impl AsFd, key: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key), flags)?)
    }

    /// Watches it for something else.
    ///
    /// # Errors
    /// The system's.
    pub fn modify(&self, socket: impl AsFd, key: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(key), flags)?)
    }

    /// Waits until a socket is ready, and moves what was found to `ready`. What isn't dealt with is found again, after all
    /// others that are ready.
    ///
    /// # Errors
    /// The system's.
    pub async fn ready(&self, ready: &mut Vec<(u64, EventFlags)>) -> io::Result<()> {
        loop {
            let mut guard = self.epoll.readable().await?;
            look(guard.get_inner(), ready)?;
            if ready.is_empty() {
                guard.clear_ready();
            } else {
                guard.retain_ready();
                return Ok(());
            }
        }
    }
}

fn look(epoll: &OwnedFd, ready: &mut Vec<(u64, EventFlags)>) -> io::Result<()> {
    let mut room = [const { MaybeUninit::<Event>::uninit() }; FOUND];
    match epoll::wait(epoll, &mut room[..], Some(&AT_ONCE)) {
        Ok((found, _)) => ready.extend(found.iter().map(|event| (event.data.u64(), event.flags))),
        Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
