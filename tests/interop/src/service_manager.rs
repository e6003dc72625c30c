//! As much of a service manager as a daemon notices: the file descriptor store of systemd, by the protocol of
//! `sd_notify(3)` and `sd_listen_fds(3)`.

use std::{
    ffi::{OsStr, OsString},
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
};

use crate::tool;

/// Descriptors of ours are kept above this, so that the child's numbers don't overlap with them.
const ABOVE: i32 = 200;

type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A service manager for one daemon.
#[derive(Debug)]
pub struct ServiceManager {
    address: PathBuf,
    kept: Kept,
    over: Arc<AtomicBool>,
    hears: Option<JoinHandle<()>>,
}

impl ServiceManager {
    /// Listens in a folder.
    ///
    /// # Errors
    /// The socket can't be made, or there is no bash to hand descriptors over with.
    pub fn start(folder: &Path) -> Result<Self> {
        tool("bash", "bash")?;
        let address = folder.join("notify");
        let socket = UnixDatagram::bind(&address).context("listening for the daemon")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (kept, over) = (Kept::default(), Arc::new(AtomicBool::new(false)));
        let hears = std::thread::spawn({
            let (kept, over) = (Arc::clone(&kept), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    hear(&socket, &kept);
                }
            }
        });
        Ok(Self { address, kept, over, hears: Some(hears) })
    }

    /// How many descriptors are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Starts a program under it, with all that is kept. What is kept stays so until the program has it removed.
    ///
    /// # Errors
    /// What `spawn` says.
    pub fn spawn(
        &self,
        place: &[OsString],
        program: &OsStr,
        args: &[&OsStr],
        spawn: impl FnOnce(Command) -> Result<Child>,
    ) -> Result<Child> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = Vec::new();
        let mut moves = String::new();
        for (number, (name, fd)) in (3..).zip(kept.iter()) {
            fcntl_setfd(fd, FdFlags::empty())?;
            moves.push_str(&format!("exec {number}<&{0} {0}<&-\n", fd.as_raw_fd()));
            names.push(name.clone());
        }
        let script = format!(
            "{moves}export NOTIFY_SOCKET={} LISTEN_FDS={} LISTEN_FDNAMES={} LISTEN_PID=$$\nexec \"$@\"",
            self.address.display(),
            names.len(),
            names.join(":")
        );
        let mut words: Vec<OsString> = place.to_vec();
        words.extend(["bash", "-c", &script, "bash"].map(OsString::from));
        words.push(program.into());
        words.extend(args.iter().map(|arg| OsString::from(*arg)));
        let (first, rest) = words.split_first().context("there is a program")?;
        let mut command = Command::new(first);
        command.args(rest);
        let child = spawn(command);
        for (_, fd) in kept.iter() {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        child
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(hears) = self.hears.take() {
            let _over = hears.join();
        }
    }
}

/// One message, or none for a while.
fn hear(socket: &UnixDatagram, kept: &Kept) {
    let mut buffer = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    );
    let Ok(received) = received else { return };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = part {
            fds.extend(came);
        }
    }
    let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
    let name = field("FDNAME").unwrap_or_else(|| "stored".into());
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if field("FDSTORE").is_some() {
        let moved = fds.iter().filter_map(|fd| fcntl_dupfd_cloexec(fd, ABOVE).ok());
        kept.extend(moved.map(|fd| (name.clone(), fd)));
    } else if field("FDSTOREREMOVE").is_some() {
        kept.retain(|(known, _)| *known != name);
    }
    // A barrier is its descriptor's end, which is here.
}
