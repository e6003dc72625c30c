//! Reaching somebody: all addresses are tried, a little apart, and the first that completes TLS is used.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::error::{Attempts, LinkError};
use super::timing::STAGGER;
use super::tls::{ALPN, explain, explain_stream, server_name};
use crate::identity::{CertFault, ClusterName};
use crate::wire::{BoxStream, Frame, Framed, Hello, MIN_VERSION, PROTOCOL_VERSION, Purpose, RefuseCode};

/// Addresses tried for one peer.
const MAX_ADDRESSES: usize = 16;

/// What a socket buffers for sending. Whatever is urgent waits behind it, so it is small.
const SEND_BUFFER: u32 = 256 << 10;

/// Settings of every member's TCP connection.
pub(super) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)
}

/// The socket addresses behind `addresses`, in their order, without doubles.
async fn resolve(who: &str, addresses: &[Address], deadline: Instant) -> Result<Vec<SocketAddr>, LinkError> {
    let after = deadline.saturating_duration_since(Instant::now());
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut failed = Vec::new();
    for address in addresses.iter().take(MAX_ADDRESSES) {
        if let Some(ip) = address.ip() {
            found.push(SocketAddr::new(ip, address.port()));
            continue;
        }
        let lookup = tokio::net::lookup_host((address.host(), address.port()));
        match timeout_at(deadline, lookup).await {
            Ok(Ok(hits)) => found.extend(hits),
            Ok(Err(source)) => {
                failed.push((address.to_string(), LinkError::Resolve { host: address.host().to_owned(), source }));
            }
            Err(_) => {
                let what = "looking up the host's name";
                failed.push((address.to_string(), LinkError::TimedOut { what, after }));
            }
        }
    }
    let mut unique: Vec<SocketAddr> = Vec::new();
    for addr in found {
        if !unique.contains(&addr) && unique.len() < MAX_ADDRESSES {
            unique.push(addr);
        }
    }
    if !unique.is_empty() {
        return Ok(unique);
    }
    if failed.len() == 1 && addresses.len() == 1 {
        return Err(failed.swap_remove(0).1);
    }
    if failed.is_empty() {
        return Err(LinkError::NoAddress { who: who.to_owned() });
    }
    Err(LinkError::Unreachable { who: who.to_owned(), attempts: Attempts(failed) })
}

/// Opens a TCP connection, from `source` where one is given and of the same family.
async fn connect(addr: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    if let Some(ip) = source.filter(|ip| ip.is_ipv4() == addr.is_ipv4()) {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let stream = socket.connect(addr).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Runs `attempt` on every address, the next one starting a little later or as soon as one has failed. The first
/// success wins and the others are dropped.
async fn race<T, F, Fut>(who: &str, addresses: Vec<SocketAddr>, deadline: Instant, attempt: F) -> Result<T, LinkError>
where
    T: Send + 'static,
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = Result<T, LinkError>> + Send + 'static,
{
    let started = Instant::now();
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut failed: Vec<(String, LinkError)> = Vec::new();
    let mut open: Vec<SocketAddr> = Vec::new();
    let mut next_start = started;
    loop {
        if running.is_empty() || Instant::now() >= next_start {
            if let Some(addr) = waiting.next() {
                let attempt = attempt(addr);
                running.spawn(async move { (addr, attempt.await) });
                open.push(addr);
                next_start = Instant::now() + STAGGER;
            } else if running.is_empty() {
                return Err(all_failed(who, failed));
            }
        }
        tokio::select! {
            done = running.join_next() => match done {
                Some(Ok((_, Ok(won)))) => return Ok(won),
                Some(Ok((addr, Err(error)))) => {
                    open.retain(|other| *other != addr);
                    failed.push((addr.to_string(), error));
                    next_start = Instant::now();
                }
                // Attempts neither panic (that would abort the process) nor are they cancelled while this runs.
                Some(Err(_)) | None => {}
            },
            () = sleep_until(next_start), if waiting.len() > 0 => {}
            () = sleep_until(deadline) => {
                let after = deadline.duration_since(started);
                for addr in open {
                    failed.push((addr.to_string(), LinkError::TimedOut { what: "connecting", after }));
                }
                return Err(all_failed(who, failed));
            }
        }
    }
}

/// One address' failure speaks for itself, and so does a refusal: a machine that was reached and said no tells more
/// than all those that weren't.
fn all_failed(who: &str, mut failed: Vec<(String, LinkError)>) -> LinkError {
    let refusal = failed.iter().position(|(_, error)| {
        matches!(
            error,
            LinkError::PeerCertificate { .. } | LinkError::OwnCertificate { .. } | LinkError::NotServed { .. }
        )
    });
    match refusal {
        Some(index) => failed.swap_remove(index).1,
        None => {
            // In one order, however they finished: the same failure reads the same, and is logged once.
            failed.sort_by(|one, other| one.0.cmp(&other.0));
            LinkError::Unreachable { who: who.to_owned(), attempts: Attempts(failed) }
        }
    }
}

/// Opens a plain TCP connection to one of `addresses`: the relay's side of a splice.
pub(super) async fn dial_tcp(
    who: &str,
    addresses: &[Address],
    source: Option<IpAddr>,
    deadline: Instant,
) -> Result<TcpStream, LinkError> {
    let addresses = resolve(who, addresses, deadline).await?;
    let attempt = move |addr: SocketAddr| async move {
        connect(addr, source).await.map_err(|source| LinkError::Io { at: addr.to_string(), source })
    };
    race(who, addresses, deadline, attempt).await
}

/// How to shake hands.
#[derive(Clone)]
pub(super) struct Greeter {
    pub(super) config: Arc<ClientConfig>,
    pub(super) cluster: ClusterName,
}

/// A TLS connection whose peer was judged.
pub(super) struct Secured {
    pub(super) at: String,
    pub(super) stream: BoxStream,
    /// The peer's certificate.
    pub(super) leaf: CertificateDer<'static>,
}

/// Shakes hands over a stream that is open.
pub(super) async fn tls_over(greeter: Greeter, at: String, stream: BoxStream) -> Result<Secured, LinkError> {
    let name = server_name(&greeter.cluster);
    let stream = match TlsConnector::from(greeter.config).connect(name, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match explain(&at, error) {
                // Our own certificate is judged after the handshake; a refusal before can only be of the cluster.
                LinkError::OwnCertificate { at, fault: CertFault::OtherSubject } => {
                    LinkError::NotServed { at, cluster: greeter.cluster }
                }
                other => other,
            });
        }
    };
    let session = stream.get_ref().1;
    let leaf = session.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned());
    match leaf {
        Some(leaf) if session.alpn_protocol() == Some(ALPN) => Ok(Secured { at, leaf, stream: Box::new(stream) }),
        Some(_) | None => Err(LinkError::NotTiebreaker { at }),
    }
}

/// Opens a TLS connection to one of `addresses`.
pub(super) async fn dial_tls(
    who: &str,
    addresses: &[Address],
    source: Option<IpAddr>,
    greeter: &Greeter,
    deadline: Instant,
) -> Result<Secured, LinkError> {
    let addresses = resolve(who, addresses, deadline).await?;
    let greeter = greeter.clone();
    let attempt = move |addr: SocketAddr| {
        let greeter = greeter.clone();
        async move {
            let at = addr.to_string();
            let stream = connect(addr, source).await.map_err(|source| LinkError::Io { at: at.clone(), source })?;
            tls_over(greeter, at, Box::new(stream)).await
        }
    };
    race(who, addresses, deadline, attempt).await
}

/// Says what the connection is for, and reads the answer.
pub(super) async fn greet(at: &str, stream: BoxStream, purpose: Purpose) -> Result<Framed, LinkError> {
    let mut framed = Framed::new(stream);
    let hello = Frame::Hello(Hello { min: MIN_VERSION, max: PROTOCOL_VERSION, purpose });
    // A peer that refuses the certificate may close before it reads this: its answer tells more than the failed write.
    let written = framed.write(&hello).await;
    let answer = match framed.next().await {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            written.map_err(|error| explain_stream(at, error))?;
            return Err(LinkError::Closed { at: at.to_owned() });
        }
        Err(error) => return Err(explain_stream(at, error)),
    };
    match answer {
        Frame::Welcome { version } if (MIN_VERSION..=PROTOCOL_VERSION).contains(&version) => Ok(framed),
        Frame::Welcome { .. } => Err(LinkError::Refused {
            at: at.to_owned(),
            code: RefuseCode::Version,
            text: "it chose a protocol version that was not offered".to_owned(),
        }),
        Frame::Refuse { code: RefuseCode::Epoch, text, epoch: Some(epoch) } => {
            Err(LinkError::OtherEpoch { at: at.to_owned(), epoch, text })
        }
        Frame::Refuse { code, text, .. } => Err(LinkError::Refused { at: at.to_owned(), code, text }),
        Frame::Hello(_)
        | Frame::Join(_)
        | Frame::Ping { .. }
        | Frame::Pong { .. }
        | Frame::Urgent(_)
        | Frame::Data { .. }
        | Frame::End
        | Frame::Fail { .. } => Err(LinkError::NotTiebreaker { at: at.to_owned() }),
    }
}
