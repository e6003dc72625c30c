//! What arrives: messages of members, requests of clients, wishes to join.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::timing::MAX_MESSAGE;
use crate::identity::{MemberName, PeerId, TokenSecret};

/// By which way a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Over a connection of its own.
    Direct,
    /// Through a third member.
    Relayed,
}

/// Something arrived.
#[derive(Debug)]
pub enum Incoming {
    /// A member's message. Messages may arrive twice and out of order.
    Message {
        /// Who sent it: its certificate says so.
        from: PeerId,
        /// Its number in consensus, by the same certificate.
        raft_id: Option<u64>,
        /// How it came.
        via: Via,
        /// The message.
        bytes: Payload,
    },
    /// A member is in a newer epoch of this cluster: an operator took it over there.
    NewerEpoch {
        /// Who says so: its certificate is of this cluster.
        from: PeerId,
        /// Its number in consensus, by the same certificate.
        raft_id: Option<u64>,
        /// The newer epoch.
        epoch: u64,
    },
    /// A client's request.
    Request {
        /// Who asks.
        from: Requester,
        /// What.
        bytes: Vec<u8>,
        /// Where the answer goes.
        reply: Reply,
    },
    /// Somebody without a certificate wants to join. Its token is not checked yet.
    Join {
        /// Where it comes from.
        from: SocketAddr,
        /// What it sent.
        request: JoinRequest,
        /// Where the answer goes.
        reply: JoinReply,
    },
}

/// A message's bytes. They count against a bound until it is dropped or taken apart.
pub struct Payload {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Payload {
    pub(crate) fn new(bytes: Vec<u8>, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { bytes, _room: room }
    }

    /// The bytes, to keep.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes.len())
    }
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requester {
    /// The holder of this certificate.
    Certified(PeerId),
    /// A process of this machine, through the local socket.
    Local {
        /// Its user.
        uid: u32,
        /// Its process id, as far as known.
        pid: Option<i32>,
    },
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certified(peer) => write!(f, "{} {}", peer.role, peer.name),
            Self::Local { uid: 0, .. } => f.write_str("root"),
            Self::Local { uid, .. } => write!(f, "user {uid}"),
        }
    }
}

/// What a joiner sends.
#[derive(Debug)]
pub struct JoinRequest {
    /// The name that it wants.
    pub name: MemberName,
    /// The token's secret.
    pub secret: TokenSecret,
    /// The certificate request, DER.
    pub csr: Vec<u8>,
    /// What its wall clock says, seconds since 1970.
    pub clock: u64,
    /// Anything else, in the layer above's own encoding.
    pub info: Vec<u8>,
}

/// A reply that can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The client has gone.
    #[error("the client has gone")]
    Gone,
    /// The part is too large.
    #[error("a part of {0} bytes is larger than the {MAX_MESSAGE} allowed")]
    TooLarge(usize),
}

pub(crate) enum Out {
    Part(Vec<u8>),
    End,
    Fail(String),
}

/// The way back to a client: any number of parts, then an end. Dropping it without an end tells the client that the
/// request failed.
pub struct Reply(mpsc::Sender<Out>);

impl Reply {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Out>) {
        let (tx, rx) = mpsc::channel(4);
        (Self(tx), rx)
    }

    /// Sends one part; waits while the client is slow.
    ///
    /// # Errors
    /// When the client has gone or the part is too large.
    pub async fn part(&self, bytes: Vec<u8>) -> Result<(), ReplyError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(ReplyError::TooLarge(bytes.len()));
        }
        self.0.send(Out::Part(bytes)).await.map_err(|_| ReplyError::Gone)
    }

    /// Ends the reply.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn end(self) -> Result<(), ReplyError> {
        self.0.send(Out::End).await.map_err(|_| ReplyError::Gone)
    }

    /// Sends the only part, and ends.
    ///
    /// # Errors
    /// When the client has gone or the part is too large.
    pub async fn only(self, bytes: Vec<u8>) -> Result<(), ReplyError> {
        self.part(bytes).await?;
        self.end().await
    }

    /// Ends the reply with a failure, in words for the client's user.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn fail(self, text: String) -> Result<(), ReplyError> {
        self.0.send(Out::Fail(text)).await.map_err(|_| ReplyError::Gone)
    }

    /// Resolves when the client has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The way back to a joiner. Dropping it tells the joiner that joining failed.
pub struct JoinReply(oneshot::Sender<Result<Vec<u8>, String>>);

impl JoinReply {
    pub(crate) fn channel() -> (Self, oneshot::Receiver<Result<Vec<u8>, String>>) {
        let (tx, rx) = oneshot::channel();
        (Self(tx), rx)
    }

    /// Lets the joiner in; `bytes` (certificate and whatever else it needs) are for it.
    ///
    /// # Errors
    /// When it has gone, or the answer is too large.
    pub fn accept(self, bytes: Vec<u8>) -> Result<(), ReplyError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(ReplyError::TooLarge(bytes.len()));
        }
        self.0.send(Ok(bytes)).map_err(|_| ReplyError::Gone)
    }

    /// Refuses it, in words for its user.
    ///
    /// # Errors
    /// When it has gone.
    pub fn refuse(self, text: String) -> Result<(), ReplyError> {
        self.0.send(Err(text)).map_err(|_| ReplyError::Gone)
    }
}

impl fmt::Debug for JoinReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinReply")
    }
}
