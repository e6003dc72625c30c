//! The local socket: the same requests as over TLS, for processes of this machine that the system vouches for.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::acceptor::refuse;
use super::connection::{INBOX, Inbox};
use super::error::LinkError;
use super::incoming::{Incoming, Requester};
use super::request::serve_client;
use super::timing::{HANDSHAKE, MAX_REQUESTS};
use crate::wire::{Frame, Framed, Purpose, RefuseCode, negotiate};

/// Connections that the system holds while the daemon is busy.
const BACKLOG: i32 = 64;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may use the local socket, beside root and the daemon's own user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalAccess {
    /// Members of this group. The socket belongs to it, and the system lets nobody else in.
    pub group: Option<u32>,
}

/// A daemon's local socket. It is removed when this is dropped.
pub struct LocalSocket {
    path: PathBuf,
    task: AbortHandle,
    /// Held as long as the socket is served: two daemons can't both think that the other's socket is stale.
    _lock: File,
}

impl LocalSocket {
    /// Serves the socket at `path`; what a daemon that crashed left there is replaced. Only
    /// [`Incoming::Request`] arrives.
    ///
    /// # Errors
    /// When another daemon serves it, something else is in the way, or the system refuses.
    pub fn start(path: &Path, access: LocalAccess) -> Result<(Self, mpsc::Receiver<Incoming>), LinkError> {
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = listen(path, access)?;
        let (arrived, incoming) = mpsc::channel(INBOX);
        let task = tokio::spawn(accept(listener, access, Inbox::new(arrived))).abort_handle();
        Ok((Self { path: path.to_owned(), task, _lock: lock }, incoming))
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        self.task.abort();
        // What is left behind is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl fmt::Debug for LocalSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalSocket({})", self.path.display())
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> LinkError {
    let path = path.to_owned();
    move |source| LinkError::Local { action, path: path.clone(), source }
}

fn lock(path: &Path) -> Result<File, LinkError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .map_err(failed("lock", path))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LinkError::AlreadyRunning { path: path.to_owned() }),
        Err(error) => Err(failed("lock", path)(error.into())),
    }
}

fn remove_stale(path: &Path) -> Result<(), LinkError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path).map_err(failed("replace", path)),
        Ok(_) => Err(LinkError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("examine", path)(error)),
    }
}

/// Nobody can connect before the socket listens, and it listens only once its owner and mode are right.
fn listen(path: &Path, access: LocalAccess) -> Result<UnixListener, LinkError> {
    let make = failed("make", path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| make(error.into()))?;
    let addr = SocketAddrUnix::new(path).map_err(|error| make(error.into()))?;
    rustix::net::bind(&socket, &addr).map_err(|error| make(error.into()))?;
    if access.group.is_some() {
        std::os::unix::fs::chown(path, None, access.group).map_err(failed("give to its group", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed("protect", path))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|error| make(error.into()))?;
    UnixListener::from_std(socket.into()).map_err(make)
}

async fn accept(listener: UnixListener, access: LocalAccess, inbox: Inbox) {
    let places = Arc::new(Semaphore::new(MAX_REQUESTS));
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                        let inbox = inbox.clone();
                        clients.spawn(async move {
                            serve(stream, access, &inbox).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection on the local socket");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve(stream: UnixStream, access: LocalAccess, inbox: &Inbox) {
    let Ok(cred) = stream.peer_cred() else { return };
    let mut framed = Framed::new(Box::new(stream));
    let Ok(Ok(Some(Frame::Hello(hello)))) = timeout(HANDSHAKE, framed.next()).await else { return };
    if !allowed(cred.uid(), access) {
        let text = "this user may not use the daemon's socket: run as root or as a member of its group".to_owned();
        return refuse(framed, RefuseCode::Role, text).await;
    }
    let Some(version) = negotiate(&hello) else {
        let text = "daemon and command are of different versions: upgrade the older one".to_owned();
        return refuse(framed, RefuseCode::Version, text).await;
    };
    if hello.purpose != Purpose::Request {
        let text = "the local socket takes requests alone".to_owned();
        return refuse(framed, RefuseCode::Role, text).await;
    }
    if let Ok(Ok(())) = timeout(HANDSHAKE, framed.write(&Frame::Welcome { version })).await {
        serve_client(framed, Requester::Local { uid: cred.uid(), pid: cred.pid() }, inbox).await;
    }
}

/// Root and the daemon's user; with a group also whoever got through the socket's mode, which the system checks
/// against all of a process' groups, where its credentials here name the first alone.
fn allowed(uid: u32, access: LocalAccess) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || access.group.is_some()
}
