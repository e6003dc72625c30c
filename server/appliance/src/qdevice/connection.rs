//! One client's socket: reads when it is told to, writes what it is given, and puts TLS in between.

use std::io;
use std::time::Duration;

use tiebreaker_qnetd::{ClientId, PeerNames};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::tls::{TlsError, TlsServer, TlsStream};

/// Who doesn't take a message in this time is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// A handshake is two round trips.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Read at once; on the stack, so that an idle client holds no buffer.
const PORTION: usize = 4096;

/// What a connection is told to do.
#[derive(Debug)]
pub enum Order {
    /// Read a portion.
    Read,
    /// Write a message.
    Write(Vec<u8>),
    /// Shake hands; so much of it has come already.
    StartTls(Vec<u8>),
}

/// What a connection tells.
#[derive(Debug)]
pub enum Told {
    /// Bytes, decrypted.
    Received(Vec<u8>),
    /// The handshake is done.
    Secured(Option<PeerNames>),
    /// So many messages were handed to the system.
    Sent(usize),
    /// It is over.
    Gone,
}

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("the peer closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the peer does not read")]
    Stuck,
    #[error("no TLS handshake in {HANDSHAKE_WITHIN:?}")]
    NoHandshake,
    #[error("the service lets go of it")]
    LetGo,
}

enum Cipher {
    Plain,
    Tls { stream: TlsStream, until: Option<Instant> },
}

/// A connection.
pub struct Connection {
    client: ClientId,
    socket: TcpStream,
    tls: TlsServer,
    cipher: Cipher,
    orders: mpsc::Receiver<Order>,
    tell: mpsc::Sender<(ClientId, Told)>,
    may_read: bool,
    /// Decrypted and not yet asked for.
    plain: Vec<u8>,
}

impl Connection {
    /// A connection that does nothing until it is told to.
    pub fn new(
        client: ClientId,
        socket: TcpStream,
        tls: TlsServer,
        orders: mpsc::Receiver<Order>,
        tell: mpsc::Sender<(ClientId, Told)>,
    ) -> Self {
        Self { client, socket, tls, cipher: Cipher::Plain, orders, tell, may_read: false, plain: Vec::new() }
    }

    /// Works until the connection is over, and says so.
    pub async fn run(mut self) {
        let over = match self.work().await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        debug!(client = %self.client, "a QDevice connection is over: {over}");
        if !matches!(over, Over::LetGo) {
            // The engine may be ending too.
            let _ = self.tell.send((self.client, Told::Gone)).await;
        }
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, Over> {
        loop {
            if self.may_read && !self.plain.is_empty() {
                self.may_read = false;
                let plain = std::mem::take(&mut self.plain);
                self.say(Told::Received(plain)).await?;
            }
            let until = match &self.cipher {
                Cipher::Plain => None,
                Cipher::Tls { until, .. } => *until,
            };
            let reads = self.may_read || until.is_some();
            tokio::select! {
                order = self.orders.recv() => self.obey(order.ok_or(Over::LetGo)?).await?,
                ready = self.socket.readable(), if reads => {
                    ready?;
                    self.read().await?;
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Err(Over::NoHandshake),
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Over> {
        match order {
            Order::Read => self.may_read = true,
            Order::StartTls(rest) => {
                let stream = self.tls.accept()?;
                self.cipher = Cipher::Tls { stream, until: Some(Instant::now() + HANDSHAKE_WITHIN) };
                self.take(&rest).await?;
            }
            Order::Write(first) => {
                let mut messages = 1;
                let mut bytes = self.encrypted(first)?;
                // What waits goes out with it, but no order is overtaken.
                while let Ok(next) = self.orders.try_recv() {
                    match next {
                        Order::Write(next) => {
                            messages += 1;
                            bytes.extend(self.encrypted(next)?);
                        }
                        Order::Read => self.may_read = true,
                        Order::StartTls(rest) => {
                            self.write(&bytes).await?;
                            self.say(Told::Sent(messages)).await?;
                            return Box::pin(self.obey(Order::StartTls(rest))).await;
                        }
                    }
                }
                self.write(&bytes).await?;
                self.say(Told::Sent(messages)).await?;
            }
        }
        Ok(())
    }

    fn encrypted(&mut self, plain: Vec<u8>) -> Result<Vec<u8>, Over> {
        match &mut self.cipher {
            Cipher::Plain => Ok(plain),
            Cipher::Tls { stream, .. } => {
                let mut out = Vec::new();
                stream.send(&plain, &mut out)?;
                Ok(out)
            }
        }
    }

    async fn read(&mut self) -> Result<(), Over> {
        let Some(bytes) = portion(&self.socket)? else { return Ok(()) };
        self.take(&bytes).await
    }

    /// Bytes as they came from the socket.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let Cipher::Tls { stream, until } = &mut self.cipher else {
            self.plain.extend_from_slice(bytes);
            return Ok(());
        };
        let mut out = Vec::new();
        let taken = stream.receive(bytes, &mut self.plain, &mut out);
        let secured = until.is_some() && taken.is_ok() && !stream.is_handshaking();
        let names = if secured {
            *until = None;
            stream.names()
        } else {
            None
        };
        if !out.is_empty() {
            self.write(&out).await?;
        }
        taken?;
        if secured {
            self.say(Told::Secured(names)).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Over> {
        match timeout(WRITE_WITHIN, self.socket.write_all(bytes)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Over::Stuck),
        }
    }

    async fn say(&self, told: Told) -> Result<(), Over> {
        self.tell.send((self.client, told)).await.map_err(|_| Over::LetGo)
    }
}

/// What can be read now; `None` where there is nothing after all.
fn portion(socket: &TcpStream) -> Result<Option<Vec<u8>>, Over> {
    let mut buffer = [0; PORTION];
    match socket.try_read(&mut buffer) {
        Ok(0) => Err(Over::Closed),
        Ok(count) => Ok(buffer.get(..count).map(<[u8]>::to_vec)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
