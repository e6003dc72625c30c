//! The service's one task: owns the vote service, hands events in and carries its actions out.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::set_tcp_user_timeout;
use tiebreaker_member::ask::QdeviceCluster;
use tiebreaker_qnetd::{Action, ClientId, CloseReason, Event, Notice, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::connection::{Connection, Order, Told};
use super::pki::Pki;
use super::settings::Settings;
use super::status;
use super::tls::TlsServer;

/// Events that wait for the engine; who brings more waits too.
const EVENTS: usize = 1024;

/// Orders that wait for a connection: the vote service never has more messages under way, and one order each to read and to
/// shake hands.
const ORDERS: usize = 64;

/// Questions that wait for the engine.
const QUESTIONS: usize = 8;

/// Unacknowledged bytes end a connection after this time, so that a dead peer's socket doesn't linger for minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// After an error of accept, which mostly is a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The running service.
pub struct Engine {
    server: Server,
    tls: TlsServer,
    connections: BTreeMap<ClientId, Handle>,
    last: u64,
    events: mpsc::Receiver<(ClientId, Told)>,
    tell: mpsc::Sender<(ClientId, Told)>,
    accepted: mpsc::Receiver<(TcpStream, SocketAddr)>,
    addresses: Vec<SocketAddr>,
    listeners: JoinSet<()>,
    asked: mpsc::Receiver<oneshot::Sender<Vec<QdeviceCluster>>>,
}

/// The way to ask the running service what one can see.
#[derive(Clone)]
pub struct Questions {
    ask: mpsc::Sender<oneshot::Sender<Vec<QdeviceCluster>>>,
}

impl Questions {
    /// The clusters and their votes; `None` if the service has ended.
    pub async fn status(&self) -> Option<Vec<QdeviceCluster>> {
        let (answer, answered) = oneshot::channel();
        self.ask.send(answer).await.ok()?;
        answered.await.ok()
    }
}

/// The engine's end of a connection. The task ends with it.
struct Handle {
    orders: mpsc::Sender<Order>,
    task: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engine {
    /// Opens the ports.
    ///
    /// # Errors
    /// When a port is taken, or the authority unusable.
    pub async fn bind(settings: &Settings, pki: &Pki) -> Result<(Self, Questions)> {
        let tls = TlsServer::new(pki)?;
        let (tell, events) = mpsc::channel(EVENTS);
        let (arrive, accepted) = mpsc::channel(EVENTS);
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        for address in &settings.listen {
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!("listening for QDevice clients on {address}: does a corosync-qnetd run here?")
            })?;
            addresses.push(listener.local_addr().context("asking for the own address")?);
            listeners.spawn(accept(listener, arrive.clone()));
        }
        let server = Server::new(settings.votes.clone());
        let (ask, asked) = mpsc::channel(QUESTIONS);
        let connections = BTreeMap::new();
        let engine = Self { server, tls, connections, last: 0, events, tell, accepted, addresses, listeners, asked };
        Ok((engine, Questions { ask }))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until it fails.
    ///
    /// # Errors
    /// When a listener ends.
    pub async fn run(mut self) -> Result<()> {
        loop {
            let timeout = self.server.poll_timeout().map(Instant::from_std);
            tokio::select! {
                Some((socket, address)) = self.accepted.recv() => self.arrived(socket, address),
                Some((client, told)) = self.events.recv() => self.told(client, told),
                () = sleep_until(timeout.unwrap_or_else(Instant::now)), if timeout.is_some() => self.event(Event::Tick),
                Some(answer) = self.asked.recv() => {
                    let now = Instant::now().into_std();
                    // Who asked may have gone.
                    let _ = answer.send(self.server.clusters().map(|view| status::cluster(&view, now)).collect());
                }
                Some(_) = self.listeners.join_next() => bail!("a QDevice listener has ended"),
            }
        }
    }

    fn arrived(&mut self, socket: TcpStream, address: SocketAddr) {
        // An option that can't be set makes a connection slower, not wrong.
        if let Err(error) = socket.set_nodelay(true) {
            warn!(%address, "TCP_NODELAY can't be set: {error}");
        }
        let timeout_ms = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = set_tcp_user_timeout(&socket, timeout_ms) {
            warn!(%address, "TCP_USER_TIMEOUT can't be set: {error}");
        }
        self.last += 1;
        let client = ClientId(self.last);
        let (orders, received) = mpsc::channel(ORDERS);
        let connection = Connection::new(client, socket, self.tls.clone(), received, self.tell.clone());
        let task = tokio::spawn(connection.run()).abort_handle();
        self.connections.insert(client, Handle { orders, task });
        self.event(Event::Connected { client, address });
    }

    fn told(&mut self, client: ClientId, told: Told) {
        // What a connection said before it was closed is of no interest any more.
        if !self.connections.contains_key(&client) {
            return;
        }
        let event = match told {
            Told::Received(bytes) => Event::Received { client, bytes },
            Told::Secured(names) => Event::Secured { client, names },
            Told::Sent(messages) => Event::Sent { client, messages },
            Told::Gone => {
                self.connections.remove(&client);
                Event::Gone { client }
            }
        };
        self.event(event);
    }

    fn event(&mut self, event: Event) {
        self.server.handle(Instant::now().into_std(), event);
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Read { client } => self.order(client, Order::Read),
                Action::Send { client, bytes } => self.order(client, Order::Write(bytes)),
                Action::StartTls { client, rest } => self.order(client, Order::StartTls(rest)),
                Action::Close { client, .. } => {
                    self.connections.remove(&client);
                }
                Action::Tell(notice) => log(&notice),
            }
        }
    }

    fn order(&mut self, client: ClientId, order: Order) {
        let Some(handle) = self.connections.get(&client) else { return };
        // Full it can't be, see ORDERS; if its task has ended, its last word is on the way here.
        if handle.orders.try_send(order).is_err() {
            debug!(%client, "a QDevice connection takes no orders any more");
        }
    }
}

async fn accept(listener: TcpListener, arrive: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                if arrive.send(accepted).await.is_err() {
                    return;
                }
            }
            // The peer went away before it was looked at.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!("no QDevice client can be accepted: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Joined { cluster, node, address } => info!(%cluster, %node, %address, "QDevice client joined"),
        Notice::Left { cluster, node, why: CloseReason::Gone } => info!(%cluster, %node, "QDevice client left"),
        Notice::Left { cluster, node, why } => warn!(%cluster, %node, "QDevice client dropped: {why}"),
        Notice::TurnedAway { address, why } => warn!(%address, "QDevice client turned away: {why}"),
        Notice::Refused { address, code } => warn!(%address, "QDevice client refused: {code}"),
        Notice::Moved { cluster, node, to, reason, .. } => info!(%cluster, %node, vote = %to, "vote: {reason}"),
        Notice::Chosen { cluster, partition, by } => {
            let partition: Vec<String> = partition.iter().map(ToString::to_string).collect();
            info!(%cluster, partition = partition.join(","), "another partition has the vote: {by}");
        }
    }
}
