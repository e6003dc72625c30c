//! One client's socket: reads when it is told to, writes what it is given, and puts TLS in between. It never blocks and
//! never waits: the engine calls it when there is something to do.
//!
//! Thousands of them are idle nearly all the time, so an idle one holds no buffer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use tiebreaker_qnetd::{ClientId, Ending, PeerNames};

use super::handover::KeptConnection;
use super::tls::{TlsError, TlsServer, TlsStream};

/// Who doesn't take its messages in this time is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// A handshake is two round trips.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Read at once, into a buffer that all connections share.
pub const PORTION: usize = 4096;

/// What a connection has heard.
#[derive(Debug)]
pub enum Heard {
    /// Nothing that concerns anybody else.
    Nothing,
    /// Bytes, decrypted.
    Bytes(Vec<u8>),
    /// The handshake is done.
    Secured(Option<PeerNames>),
}

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
pub enum Over {
    /// By the peer, in plain text.
    #[error("the peer closed it")]
    Closed,
    /// By the peer's system: under TLS the peer itself says that it is over.
    #[error("the peer's system closed it, without a word of the peer's")]
    Killed,
    /// By the network, as far as the system tells.
    #[error("the network broke it")]
    Broken,
    /// By the system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// By what the peer said under TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nothing was taken off us for too long.
    #[error("the peer does not read")]
    Stuck,
    /// It wanted TLS, and was too slow.
    #[error("no TLS handshake in {HANDSHAKE_WITHIN:?}")]
    NoHandshake,
}

impl Over {
    /// What it tells of the peer.
    pub fn ending(&self) -> Ending {
        match self {
            Self::Closed | Self::Tls(TlsError::Farewell) => Ending::Farewell,
            Self::Killed => Ending::Killed,
            Self::Broken | Self::Io(_) | Self::Tls(_) | Self::Stuck | Self::NoHandshake => Ending::Broken,
        }
    }
}

/// Encryption of a connection that has it.
struct Secure {
    stream: TlsStream,
    /// While the handshake is under way.
    until: Option<Instant>,
    /// Decrypted and not yet asked for.
    plain: Vec<u8>,
}

/// What the system has not taken yet.
struct Outgoing {
    bytes: Vec<u8>,
    /// Messages that end in it.
    messages: usize,
    /// Set once the system has refused to take it all.
    until: Option<Instant>,
}

/// A connection.
pub struct Connection {
    socket: TcpStream,
    secure: Option<Box<Secure>>,
    outgoing: Option<Box<Outgoing>>,
    may_read: bool,
}

impl Connection {
    /// A connection, on a socket that doesn't block, that does nothing until it is told to.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, secure: None, outgoing: None, may_read: false }
    }

    /// One that another process had.
    ///
    /// # Errors
    /// Its keys are unusable.
    pub fn resume(socket: TcpStream, kept: KeptConnection, now: Instant) -> Result<Self, Over> {
        let secure = match kept.tls {
            Some(tls) => {
                let stream = TlsStream::resume(tls)?;
                Some(Box::new(Secure { stream, until: None, plain: kept.plain }))
            }
            None => None,
        };
        let mut connection = Self { socket, secure, outgoing: None, may_read: false };
        connection.put(kept.outgoing, 0);
        connection.flush(now)?;
        Ok(connection)
    }

    /// Gives it away, for the next process; `None` if that can't be.
    pub fn into_kept(self, client: ClientId) -> Option<(TcpStream, KeptConnection)> {
        let (local, peer) = (self.socket.local_addr().ok()?, self.socket.peer_addr().ok()?);
        let (tls, plain) = match self.secure {
            Some(secure) => (Some(secure.stream.into_kept()?), secure.plain),
            None => (None, Vec::new()),
        };
        let outgoing = self.outgoing.map(|outgoing| outgoing.bytes).unwrap_or_default();
        Some((self.socket, KeptConnection { client: client.0, local, peer, tls, plain, outgoing }))
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What the engine is to watch its socket for.
    pub fn wants(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.may_read || self.is_handshaking());
        flags.set(EventFlags::OUT, self.outgoing.is_some());
        flags
    }

    /// Whether the handshake is under way: a step of it takes a thousand times as long as a message.
    pub fn is_handshaking(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.until.is_some())
    }

    /// When the peer's certificate ends, in seconds since 1970.
    pub fn certificate_ends(&self) -> Option<i64> {
        self.secure.as_ref()?.stream.ends()
    }

    /// When it is over, unless the peer does its part before.
    pub fn deadline(&self) -> Option<Instant> {
        let handshake = self.secure.as_ref().and_then(|secure| secure.until);
        let write = self.outgoing.as_ref().and_then(|outgoing| outgoing.until);
        handshake.into_iter().chain(write).min()
    }

    /// What it means that [`Connection::deadline`] has come.
    pub fn too_late(&self) -> Over {
        if self.is_handshaking() { Over::NoHandshake } else { Over::Stuck }
    }

    /// Lets it read a portion. Gives what it has read and decrypted already.
    pub fn allow(&mut self) -> Heard {
        self.may_read = true;
        self.decrypted()
    }

    /// Reads a portion.
    ///
    /// # Errors
    /// It is over.
    pub fn read(&mut self, buffer: &mut [u8; PORTION]) -> Result<Heard, Over> {
        if !self.wants().contains(EventFlags::IN) {
            return Ok(Heard::Nothing);
        }
        let count = match self.socket.read(buffer) {
            Ok(0) if self.secure.is_some() => return Err(Over::Killed),
            Ok(0) => return Err(Over::Closed),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Heard::Nothing);
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if self.secure.is_some() {
            self.decrypt(bytes)
        } else {
            self.may_read = false;
            Ok(Heard::Bytes(bytes.to_vec()))
        }
    }

    /// Begins to shake hands; so much of it has come already. What waits to be written goes out before it.
    ///
    /// # Errors
    /// It is over.
    pub fn start_tls(&mut self, tls: &TlsServer, rest: &[u8], now: Instant) -> Result<Heard, Over> {
        let until = Some(now + HANDSHAKE_WITHIN);
        self.may_read = false;
        self.secure = Some(Box::new(Secure { stream: tls.accept()?, until, plain: Vec::new() }));
        self.decrypt(rest)
    }

    /// Bytes as they came from the socket.
    fn decrypt(&mut self, bytes: &[u8]) -> Result<Heard, Over> {
        let Some(secure) = &mut self.secure else { return Ok(Heard::Nothing) };
        let mut out = Vec::new();
        let taken = secure.stream.receive(bytes, &mut secure.plain, &mut out);
        let secured = secure.until.is_some() && taken.is_ok() && !secure.stream.is_handshaking();
        let names = if secured {
            secure.until = None;
            secure.stream.names()
        } else {
            None
        };
        self.put(out, 0);
        if let Err(error) = taken {
            // The peer shall hear what was wrong, if it listens.
            let _unheard = self.write();
            return Err(error.into());
        }
        if secured { Ok(Heard::Secured(names)) } else { Ok(self.decrypted()) }
    }

    fn decrypted(&mut self) -> Heard {
        match &mut self.secure {
            Some(secure) if self.may_read && secure.until.is_none() && !secure.plain.is_empty() => {
                self.may_read = false;
                Heard::Bytes(std::mem::take(&mut secure.plain))
            }
            Some(_) | None => Heard::Nothing,
        }
    }

    /// Takes a message to be written by the next [`Connection::flush`].
    ///
    /// # Errors
    /// It is over.
    pub fn send(&mut self, message: Vec<u8>) -> Result<(), Over> {
        let bytes = match &mut self.secure {
            None => message,
            Some(secure) => {
                let mut out = Vec::new();
                secure.stream.send(&message, &mut out)?;
                out
            }
        };
        self.put(bytes, 1);
        Ok(())
    }

    fn put(&mut self, bytes: Vec<u8>, messages: usize) {
        match &mut self.outgoing {
            Some(outgoing) => {
                outgoing.bytes.extend(bytes);
                outgoing.messages += messages;
            }
            None if bytes.is_empty() => {}
            None => self.outgoing = Some(Box::new(Outgoing { bytes, messages, until: None })),
        }
    }

    /// Writes what the system takes. Gives the number of messages that it has now taken to the end.
    ///
    /// # Errors
    /// It is over.
    pub fn flush(&mut self, now: Instant) -> Result<usize, Over> {
        self.write()?;
        match &mut self.outgoing {
            Some(outgoing) if outgoing.bytes.is_empty() => {
                let messages = outgoing.messages;
                self.outgoing = None;
                Ok(messages)
            }
            Some(outgoing) => {
                outgoing.until.get_or_insert(now + WRITE_WITHIN);
                Ok(0)
            }
            None => Ok(0),
        }
    }

    fn write(&mut self) -> Result<(), Over> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        let mut written = 0;
        let result = loop {
            let rest = outgoing.bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.socket.write(rest) {
                Ok(0) => break Err(Over::Broken),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error.into()),
            }
        };
        outgoing.bytes.drain(..written);
        result
    }
}
