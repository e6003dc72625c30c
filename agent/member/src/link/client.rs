//! The other end of requests and joins: the operator's command, agents that renew their certificate, machines that
//! join.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::dial::{Greeter, dial_tls, greet};
use super::error::LinkError;
use super::request::write_message;
use super::table::PeerTable;
use super::timing::{MAX_MESSAGE, MAX_REQUEST, REQUEST_DEAD};
use super::tls::{client_config, explain_stream, joiner_config};
use crate::identity::{
    CaCertificate, CertFault, Expected, Identity, Judge, MemberName, PinnedCaVerifier, Token, TrustedTime,
};
use crate::wire::{Frame, FrameError, Framed, JoinFrame, MAX_FRAME, MAX_GREETING, Purpose, encode};

/// A connection for requests, to a member or to the daemon of this machine.
pub struct Client {
    framed: Framed,
    at: String,
    /// A reply was begun and not read to its end, so what comes next belongs to it.
    busy: bool,
    partial: Vec<u8>,
}

impl Client {
    /// Connects to the first member of `identity`'s cluster that answers at one of `addresses`.
    ///
    /// # Errors
    /// When none does, or this side and the member don't trust each other.
    pub async fn connect(
        addresses: &[Address],
        source: Option<IpAddr>,
        identity: &Identity,
        time: &TrustedTime,
        deadline: Duration,
    ) -> Result<Self, LinkError> {
        let cluster = identity.peer().cluster.clone();
        let judge = Judge {
            cluster: cluster.clone(),
            ca: identity.ca().clone(),
            time: time.clone(),
            // A client isn't told who was removed; members refuse those, and whoever was removed holds no cluster.
            peers: watch::channel(Arc::new(PeerTable::default())).1,
        };
        let greeter = Greeter { config: client_config(identity, judge, Expected::AnyMember), cluster };
        let until = Instant::now() + deadline;
        let who = format!("a member of cluster '{}'", greeter.cluster);
        let secured = dial_tls(&who, addresses, source, &greeter, until).await?;
        let at = secured.at.clone();
        match timeout_at(until, greet(&at, secured.stream, Purpose::Request)).await {
            Ok(framed) => Ok(Self::new(framed?, secured.at)),
            Err(_) => Err(LinkError::TimedOut { what: "the greeting", after: deadline }),
        }
    }

    /// Connects to the daemon of this machine.
    ///
    /// # Errors
    /// When none runs, or this user may not.
    pub async fn local(path: &Path, deadline: Duration) -> Result<Self, LinkError> {
        let at = path.display().to_string();
        let open = async {
            let stream = UnixStream::connect(path).await.map_err(|source| LinkError::Local {
                action: "connect to",
                path: path.to_owned(),
                source,
            })?;
            greet(&at, Box::new(stream), Purpose::Request).await
        };
        match timeout(deadline, open).await {
            Ok(framed) => Ok(Self::new(framed?, at)),
            Err(_) => Err(LinkError::TimedOut { what: "the greeting", after: deadline }),
        }
    }

    fn new(mut framed: Framed, at: String) -> Self {
        framed.allow(MAX_FRAME);
        Self { framed, at, busy: false, partial: Vec::new() }
    }

    /// Where it is connected.
    #[must_use]
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Sends a request and returns its reply, which comes in parts.
    ///
    /// # Errors
    /// When it is too large, the connection fails, or the reply before was not read to its end.
    pub async fn request(&mut self, bytes: &[u8]) -> Result<Parts<'_>, LinkError> {
        if bytes.len() > MAX_REQUEST {
            return Err(LinkError::TooLarge { len: bytes.len(), max: MAX_REQUEST });
        }
        if self.busy {
            return Err(LinkError::Unfinished);
        }
        self.busy = true;
        self.partial.clear();
        write_message(&mut self.framed, bytes).await.map_err(|error| explain_stream(&self.at, error))?;
        Ok(Parts(self))
    }

    /// Sends a request and returns all of its reply in one piece.
    ///
    /// # Errors
    /// As [`Client::request`] and [`Parts::next`], and when it isn't complete in time.
    pub async fn ask(&mut self, bytes: &[u8], deadline: Duration) -> Result<Vec<u8>, LinkError> {
        let all = async {
            let mut parts = self.request(bytes).await?;
            let mut all = Vec::new();
            while let Some(part) = parts.next().await? {
                if all.len() + part.len() > MAX_MESSAGE {
                    return Err(LinkError::TooLarge { len: all.len() + part.len(), max: MAX_MESSAGE });
                }
                all.extend_from_slice(&part);
            }
            Ok(all)
        };
        match timeout(deadline, all).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::TimedOut { what: "the answer", after: deadline }),
        }
    }

    /// The next whole message, or `None` at the reply's end.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            let frame = match timeout(REQUEST_DEAD, self.framed.next()).await {
                Ok(Ok(Some(frame))) => frame,
                Ok(Ok(None)) => return Err(LinkError::Closed { at: self.at.clone() }),
                Ok(Err(error)) => return Err(explain_stream(&self.at, error)),
                Err(_) => return Err(LinkError::TimedOut { what: "the answer", after: REQUEST_DEAD }),
            };
            let broken = |source| Err(LinkError::Frame { at: self.at.clone(), source });
            match frame {
                Frame::Data { more, bytes } => {
                    if self.partial.len() + bytes.len() > MAX_MESSAGE {
                        return broken(FrameError::MessageTooLong { max: MAX_MESSAGE });
                    }
                    self.partial.extend_from_slice(&bytes);
                    if !more {
                        return Ok(Some(std::mem::take(&mut self.partial)));
                    }
                }
                Frame::Ping { n } => {
                    self.framed.write(&Frame::Pong { n }).await.map_err(|error| explain_stream(&self.at, error))?;
                }
                Frame::End => {
                    self.busy = false;
                    return Ok(None);
                }
                Frame::Fail { text } => {
                    self.busy = false;
                    return Err(LinkError::Failed { text });
                }
                Frame::Hello(_)
                | Frame::Welcome { .. }
                | Frame::Refuse { .. }
                | Frame::Join(_)
                | Frame::Pong { .. }
                | Frame::Urgent(_) => return broken(FrameError::Unexpected),
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.at)
    }
}

/// A reply that is being read.
#[derive(Debug)]
pub struct Parts<'a>(&'a mut Client);

impl Parts<'_> {
    /// The next part; `None` at the end. While it waits the connection is watched: a member that falls silent is an
    /// error, one that has nothing to say isn't.
    ///
    /// # Errors
    /// When the request failed over there, or the connection did.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        if !self.0.busy {
            return Ok(None);
        }
        self.0.read().await
    }
}

/// What a joiner sends.
#[derive(Debug, Clone)]
pub struct JoinAsk {
    /// The name that it wants.
    pub name: MemberName,
    /// Its certificate request, DER: see [`Keypair::csr`](crate::Keypair::csr).
    pub csr: Vec<u8>,
    /// What its wall clock says, seconds since 1970.
    pub clock: u64,
    /// Anything else, in the layer above's own encoding.
    pub info: Vec<u8>,
}

/// The appliance let us in.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its answer.
    pub reply: Vec<u8>,
    /// Its authority, which the token pinned.
    pub ca: CaCertificate,
}

/// Joins the cluster of `token` at the appliance that answers at one of `addresses`. Nothing is sent to an appliance
/// whose authority isn't the one that the token pins.
///
/// # Errors
/// When no appliance is reached, it is another one, or it refuses.
pub async fn join(
    addresses: &[Address],
    source: Option<IpAddr>,
    token: &Token,
    ask: JoinAsk,
    deadline: Duration,
) -> Result<Joined, LinkError> {
    let verifier =
        Arc::new(PinnedCaVerifier { pin: token.ca, cluster: token.cluster.clone(), found: Mutex::new(None) });
    let greeter = Greeter { config: joiner_config(Arc::clone(&verifier)), cluster: token.cluster.clone() };
    let frame = Frame::Join(JoinFrame {
        name: ask.name,
        secret: token.secret.as_bytes().to_vec(),
        csr: ask.csr,
        clock: ask.clock,
        info: ask.info,
    });
    let len = encode(&frame).map_err(|source| LinkError::Frame { at: "this machine".to_owned(), source })?.len();
    if len > MAX_GREETING {
        return Err(LinkError::TooLarge { len, max: MAX_GREETING });
    }
    let talk = async {
        let until = Instant::now() + deadline;
        let secured =
            dial_tls("the appliance", addresses, source, &greeter, until).await.map_err(|error| match error {
                LinkError::PeerCertificate { at, fault: CertFault::OtherCa } => {
                    LinkError::TokenPinsOtherCa { at, pin: token.ca }
                }
                other => other,
            })?;
        let at = secured.at;
        let mut framed = greet(&at, secured.stream, Purpose::Join).await?;
        framed.write(&frame).await.map_err(|error| explain_stream(&at, error))?;
        let mut client = Client::new(framed, at);
        client.busy = true;
        let reply = client.read().await?.ok_or_else(|| LinkError::Closed { at: client.at.clone() })?;
        let ca = verifier.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ca = ca.ok_or_else(|| LinkError::TokenPinsOtherCa { at: client.at.clone(), pin: token.ca })?;
        Ok(Joined { reply, ca })
    };
    match timeout(deadline, talk).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::TimedOut { what: "joining", after: deadline }),
    }
}
