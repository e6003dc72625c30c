//! The port: who comes in is led to the cluster that it asks for, once its certificate is judged and it has said what
//! it wants. Until then it gets little time, little memory and a bounded number of places.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::dial::tune;
use super::error::LinkError;
use super::relay::PREFACE;
use super::timing::{HANDSHAKE, LINGER, MAX_PENDING, MAX_PENDING_PER_IP};
use super::tls::{ALPN, asked_cluster, explain, explain_stream, refusing_config, server_config};
use crate::identity::{ClusterName, Identity, Judge, PeerCert};
use crate::wire::{Frame, Framed, MIN_VERSION, PROTOCOL_VERSION, Purpose, RefuseCode, negotiate};

/// Bytes read and thrown away so that a refusal can arrive.
const MAX_DRAINED: usize = 64 << 10;

/// Pause after the system refused to accept: it has no file descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that has shown its certificate, if any, and said what it wants.
pub(super) struct Admitted {
    pub(super) framed: Framed,
    pub(super) cert: Option<PeerCert>,
    pub(super) purpose: Purpose,
    pub(super) version: u16,
    /// It came through a relay.
    pub(super) relayed: bool,
    pub(super) from: SocketAddr,
}

/// What the port needs to know of a cluster.
pub(super) struct Served {
    pub(super) identity: watch::Receiver<Arc<Identity>>,
    pub(super) judge: Judge,
    pub(super) admitted: mpsc::Sender<Admitted>,
}

#[derive(Default)]
struct Clusters(Mutex<BTreeMap<ClusterName, Arc<Served>>>);

impl Clusters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Arc<Served>>> {
        // Nothing that runs under the lock can panic half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listening {
    addrs: Vec<SocketAddr>,
    clusters: Arc<Clusters>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A member's TLS port, for any number of clusters. Clones share it; it closes with the last of them and the last
/// [`Links`](super::Links) on it.
#[derive(Clone)]
pub struct Acceptor(Arc<Listening>);

impl Acceptor {
    /// Listens on `addrs`. Port 0 takes a free one.
    ///
    /// # Errors
    /// When an address is taken or not this machine's.
    pub async fn bind(addrs: &[SocketAddr]) -> Result<Self, LinkError> {
        Self::bind_or_take(addrs, Vec::new()).await
    }

    /// The same, but takes an open listener for an address where there is one, as a service manager hands them over. The
    /// others are closed.
    ///
    /// # Errors
    /// As [`Acceptor::bind`].
    pub async fn bind_or_take(addrs: &[SocketAddr], mut open: Vec<std::net::TcpListener>) -> Result<Self, LinkError> {
        let mut listeners = Vec::new();
        let mut bound = Vec::new();
        for addr in addrs {
            let failed = |source| LinkError::Bind { addr: *addr, source };
            let taken = open.iter().position(|open| open.local_addr().is_ok_and(|local| local == *addr));
            let listener = match taken {
                Some(at) => {
                    let open = open.swap_remove(at);
                    open.set_nonblocking(true).map_err(failed)?;
                    TcpListener::from_std(open).map_err(failed)?
                }
                None => TcpListener::bind(addr).await.map_err(failed)?,
            };
            bound.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let clusters = Arc::new(Clusters::default());
        let places = Places::new();
        let tasks = listeners
            .into_iter()
            .map(|listener| tokio::spawn(listen(listener, Arc::clone(&clusters), places.clone())).abort_handle())
            .collect();
        Ok(Self(Arc::new(Listening { addrs: bound, clusters, tasks })))
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.addrs
    }

    /// Serves a cluster until the returned guard is dropped.
    pub(super) fn register(&self, cluster: ClusterName, served: Served) -> Result<Registration, LinkError> {
        let mut clusters = self.0.clusters.lock();
        if clusters.contains_key(&cluster) {
            return Err(LinkError::AlreadyServed(cluster));
        }
        clusters.insert(cluster.clone(), Arc::new(served));
        drop(clusters);
        Ok(Registration { acceptor: self.clone(), cluster })
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.0.addrs).finish()
    }
}

/// A cluster's place at the port.
pub(super) struct Registration {
    acceptor: Acceptor,
    cluster: ClusterName,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.acceptor.0.clusters.lock().remove(&self.cluster);
    }
}

/// Places for connections that have not yet said who they are, altogether and per address: one slow attacker can't
/// take them all.
#[derive(Clone)]
struct Places {
    all: Arc<Semaphore>,
    by_ip: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

struct Place {
    _all: OwnedSemaphorePermit,
    by_ip: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Places {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_PENDING)), by_ip: Arc::default() }
    }

    fn take(&self, ip: IpAddr) -> Option<Place> {
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_ip.entry(ip).or_insert(0);
        if *count >= MAX_PENDING_PER_IP {
            return None;
        }
        *count += 1;
        Some(Place { _all: all, by_ip: Arc::clone(&self.by_ip), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

async fn listen(listener: TcpListener, clusters: Arc<Clusters>, places: Places) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match places.take(from.ip()) {
                    Some(place) => {
                        handshakes.spawn(welcome(stream, from, Arc::clone(&clusters), place));
                    }
                    None => tracing::debug!(%from, "too many handshakes at once, connection dropped"),
                },
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn welcome(stream: TcpStream, from: SocketAddr, clusters: Arc<Clusters>, place: Place) {
    match timeout(HANDSHAKE, shake_hands(stream, from, &clusters)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "connection refused"),
        Err(_) => tracing::debug!(%from, "connection dropped: its handshake took too long"),
    }
    drop(place);
}

async fn shake_hands(stream: TcpStream, from: SocketAddr, clusters: &Clusters) -> Result<(), LinkError> {
    let at = from.to_string();
    let io = |source| LinkError::Io { at: at.clone(), source };
    tune(&stream).map_err(io)?;
    let (stream, relayed) = read_preface(stream).await.map_err(io)?;
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream)
        .await
        .map_err(|error| explain(&at, error))?;
    let cluster = start.client_hello().server_name().and_then(asked_cluster);
    let served = cluster.and_then(|cluster| clusters.lock().get(&cluster).cloned());
    let config = match &served {
        Some(served) => {
            let identity = Arc::clone(&served.identity.borrow());
            server_config(&identity, served.judge.clone())
        }
        None => refusing_config(),
    };
    let stream = match start.into_stream(Arc::new(config)).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            linger(stream).await;
            return Err(explain(&at, error));
        }
    };
    let Some(served) = served else { return Ok(()) };
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN) {
        return Err(LinkError::NotTiebreaker { at });
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let cert = leaf
        .map(|leaf| served.judge.ca.read_leaf(leaf))
        .transpose()
        .map_err(|fault| LinkError::PeerCertificate { at: at.clone(), fault })?;
    let mut framed = Framed::new(Box::new(stream));
    let hello = match framed.next().await.map_err(|error| explain_stream(&at, error))? {
        Some(Frame::Hello(hello)) => hello,
        Some(_) | None => return Err(LinkError::NotTiebreaker { at }),
    };
    let Some(version) = negotiate(&hello) else {
        let text = format!(
            "it speaks protocol versions {MIN_VERSION} to {PROTOCOL_VERSION}, this program {} to {}: upgrade the older one (neighbouring versions work together)",
            hello.min, hello.max
        );
        refuse(framed, RefuseCode::Version, text).await;
        return Ok(());
    };
    let admitted = Admitted { framed, cert, purpose: hello.purpose, version, relayed, from };
    if let Err(error) = served.admitted.try_send(admitted) {
        let (mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) = error;
        refuse(back.framed, RefuseCode::Busy, "too many connections arrive at once: try again".to_owned()).await;
    }
    Ok(())
}

/// A relay says so before it passes on the first byte of what it splices; everybody else begins with TLS.
async fn read_preface(mut stream: TcpStream) -> std::io::Result<(TcpStream, bool)> {
    let mut first = [0; 1];
    stream.peek(&mut first).await?;
    if first[0] != PREFACE[0] {
        return Ok((stream, false));
    }
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface == *PREFACE {
        Ok((stream, true))
    } else {
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "neither TLS nor a relay"))
    }
}

/// Says why not, and closes so that the words arrive.
pub(super) async fn refuse(framed: Framed, code: RefuseCode, text: String) {
    refuse_with(framed, Frame::Refuse { code, text, epoch: None }).await;
}

/// The same with a frame that is made already.
pub(super) async fn refuse_with(mut framed: Framed, frame: Frame) {
    let said = timeout(LINGER, framed.write(&frame)).await;
    if matches!(said, Ok(Ok(()))) {
        linger(framed.into_parts().0).await;
    }
}

/// Ends a stream and drains it for a moment: closing with unread bytes resets the connection, and the peer would lose
/// the alert or answer that it was just sent.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let mut drained = 0;
        while drained < MAX_DRAINED {
            match stream.read(&mut scratch).await? {
                0 => break,
                len => drained += len,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Nothing depends on how this ends.
    let _ = timeout(LINGER, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_last_word_arrives_although_the_peer_was_still_talking() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut talker = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut refuser, _) = listener.accept().await.unwrap();
        talker.write_all(&[7; 1000]).await.unwrap();
        // It is there and unread: closing now would reset the connection.
        refuser.peek(&mut [0]).await.unwrap();
        refuser.write_all(b"no").await.unwrap();
        let listen = async {
            let mut heard = Vec::new();
            talker.read_to_end(&mut heard).await.map(|_| heard)
        };
        let both = async { tokio::join!(linger(refuser), listen) };
        // The talker doesn't close, so the refuser gives up on it in its own time; what it said has long arrived.
        let ((), heard) = both.await;
        assert_eq!(heard.unwrap(), b"no");
    }

    #[tokio::test]
    async fn a_place_is_given_back() {
        let places = Places::new();
        let ip = "192.0.2.1".parse().unwrap();
        let taken: Vec<_> = (0..MAX_PENDING_PER_IP).map(|_| places.take(ip).unwrap()).collect();
        assert!(places.take(ip).is_none());
        assert!(places.take("192.0.2.2".parse().unwrap()).is_some());
        drop(taken);
        assert!(places.take(ip).is_some());
        assert_eq!(places.all.available_permits(), MAX_PENDING);
    }
}
