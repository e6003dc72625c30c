//! The supervisor's end of the service manager's protocol: what an agent may say on NOTIFY_SOCKET.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use tiebreaker_member::service_manager::{MAX_KEPT, check_name};

/// Longer messages are dropped whole.
const MESSAGE_MAX: usize = 4096;

/// The stored descriptors, with their names.
#[derive(Debug, Default)]
pub struct Keeper {
    kept: Vec<(String, OwnedFd)>,
}

/// What an agent said.
#[derive(Debug)]
pub enum Said {
    /// Keep these descriptors under this name.
    Store { name: String, fds: Vec<OwnedFd> },
    /// Give up what is kept under this name.
    Remove { name: String },
    /// Something else of the protocol that needs no answer, or nonsense.
    Other,
}

impl Keeper {
    /// Does what was said; returns a word about it for the log if anything changed.
    pub fn hear(&mut self, said: Said) -> Option<&'static str> {
        match said {
            Said::Store { name, fds } => {
                let room = MAX_KEPT.saturating_sub(self.kept.len());
                if fds.is_empty() || fds.len() > room {
                    return Some("a descriptor was not kept: there is no room, or none came");
                }
                self.kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
                Some("a descriptor is kept")
            }
            Said::Remove { name } => {
                self.kept.retain(|(kept, _)| *kept != name);
                Some("a descriptor was given up")
            }
            Said::Other => None,
        }
    }

    /// Gives up everything, as a reboot does.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// The numbers to hand over.
    pub fn numbers(&self) -> Vec<RawFd> {
        self.kept.iter().map(|(_, fd)| fd.as_raw_fd()).collect()
    }

    /// The announcement for the agent's environment.
    pub fn announcement(&self) -> String {
        let items: Vec<String> = self.kept.iter().map(|(name, fd)| format!("{}={name}", fd.as_raw_fd())).collect();
        items.join(":")
    }
}

/// Takes one message off the socket; `WouldBlock` if there is none.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Said> {
    let mut buffer = [0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_KEPT))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Said::Other);
    }
    Ok(parse(buffer.get(..message.bytes).unwrap_or(&[]), fds))
}

fn parse(message: &[u8], fds: Vec<OwnedFd>) -> Said {
    let Ok(text) = std::str::from_utf8(message) else { return Said::Other };
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    // Without a name systemd calls it "stored"; so do we.
    let name = field("FDNAME").unwrap_or("stored").to_owned();
    if check_name(&name).is_err() {
        return Said::Other;
    }
    match (field("FDSTORE"), field("FDSTOREREMOVE")) {
        (Some("1"), None) => Said::Store { name, fds },
        (None, Some("1")) => Said::Remove { name },
        _ => Said::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_fd() -> OwnedFd {
        rustix::pipe::pipe().unwrap().0
    }

    #[test]
    fn descriptors_are_kept_and_given_up_by_name() {
        let mut keeper = Keeper::default();
        keeper.hear(parse(b"FDSTORE=1\nFDNAME=watchdog\nFDPOLL=0", vec![some_fd()]));
        keeper.hear(parse(b"FDSTORE=1\nFDNAME=other", vec![some_fd()]));
        assert_eq!(keeper.numbers().len(), 2);
        keeper.hear(parse(b"FDSTOREREMOVE=1\nFDNAME=other", vec![]));
        assert_eq!(keeper.announcement(), format!("{}=watchdog", keeper.numbers()[0]));
    }

    #[test]
    fn the_store_is_bounded_and_nonsense_changes_nothing() {
        let mut keeper = Keeper::default();
        for _ in 0..2 * MAX_KEPT {
            keeper.hear(parse(b"FDSTORE=1\nFDNAME=a", vec![some_fd()]));
        }
        assert_eq!(keeper.numbers().len(), MAX_KEPT);
        for nonsense in [&b"\xff"[..], b"", b"FDSTOREREMOVE=1\nFDNAME=a:b", b"READY=1", b"FDSTORE=1\nFDSTOREREMOVE=1"] {
            assert!(keeper.hear(parse(nonsense, vec![])).is_none());
        }
        assert_eq!(keeper.numbers().len(), MAX_KEPT);
    }
}
