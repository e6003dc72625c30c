//! The service's one task: owns the vote service and all sockets, hands events in and carries its actions out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt::{set_tcp_nodelay, set_tcp_user_timeout};
use tiebreaker_member::ask::QdeviceHappening;
use tiebreaker_member::errors::chain;
use tiebreaker_qnetd::{Action, ClientId, Event, PeerNames, Remembered, Saved, Server};
use tokio::sync::{mpsc, oneshot};
use tokio::task::consume_budget;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::connection::{Connection, Heard, Over, PORTION};
use super::events::Events;
use super::handover::{Arrived, KeptConnection, Leaving};
use super::holders::HolderFile;
use super::pki::Pki;
use super::poll::Poll;
use super::questions::{Question, Questions};
use super::settings::Settings;
use super::tls::TlsServer;
use crate::sys::give_memory_back;

/// Unacknowledged bytes end a connection after this time, so that a dead peer's socket doesn't linger for minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// After an error of accept, which mostly is a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What nobody waits for is written with all that comes in this time: whole rooms may lose their power at once.
const HAS_TIME: Duration = Duration::from_millis(100);

/// After who has the votes could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Accepted from one port before others have their turn.
const ACCEPTED: usize = 64;

/// So long handshakes are worked on before votes have their turn again: when all clients of a cluster farm come back at
/// once, those that are there already must not wait for them.
const HANDSHAKES: Duration = Duration::from_millis(2);

/// After so many fewer clients, and clusters of which anything is kept, than there were, memory is given back to the system.
const MANY_FEWER: usize = 256;

/// Those who left all at once mostly come back at once: only then is their memory given back.
const GIVES_BACK_AFTER: Duration = Duration::from_millis(500);

/// Keys of listeners are from here on; clients count from one.
const LISTENERS: u64 = 1 << 63;

/// The running service.
pub struct Engine {
    server: Server,
    tls: TlsServer,
    poll: Poll,
    connections: BTreeMap<ClientId, Watched>,
    deadlines: BTreeSet<(Instant, ClientId)>,
    last: u64,
    /// Connections that have something to write, or to tell.
    busy: VecDeque<ClientId>,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// When to accept again after an error.
    accept_again: Option<Instant>,
    history: Events,
    holders: HolderFile,
    to_keep: Option<ToKeep>,
    /// The most clients and known holders of votes since memory was given back, and when to do that next.
    most: usize,
    give_back: Option<Instant>,
    asked: mpsc::Receiver<Question>,
    ending: mpsc::Receiver<oneshot::Sender<Leaving>>,
}

/// Who has the votes is to be written.
struct ToKeep {
    /// The last of what asks for it.
    number: u64,
    /// When.
    at: Instant,
    /// It was tried already.
    failed: bool,
}

/// A connection, and what the poll and the table of deadlines know of it.
struct Watched {
    connection: Connection,
    flags: EventFlags,
    deadline: Option<Instant>,
}

impl Engine {
    /// Opens the ports, or goes on with those of the former process, and with its connections.
    ///
    /// # Errors
    /// When a port is taken, or the authority unusable.
    pub async fn bind(
        settings: &Settings,
        pki: &Pki,
        history: Events,
        holders: HolderFile,
        mut arrived: Arrived,
    ) -> Result<(Self, Questions)> {
        let tls = TlsServer::new(pki, settings.votes.client_cert_required)?;
        let poll = Poll::new().context("making an epoll for QDevice clients")?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for (address, number) in settings.listen.iter().zip(LISTENERS..) {
            let listener = match arrived.port(*address) {
                Some(listener) => listener,
                None => {
                    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
                        format!("listening for QDevice clients on {address}: does another tiebreaker-server or a corosync-qnetd run here?")
                    })?;
                    listener.into_std().context("taking a listener")?
                }
            };
            listener.set_nonblocking(true).context("taking a listener")?;
            addresses.push(listener.local_addr().context("asking for the own address")?);
            poll.add(&listener, number, EventFlags::IN).context("watching a listener")?;
            listeners.push(listener);
        }
        let remembered = holders.read().unwrap_or_else(|error| {
            history.happened(QdeviceHappening::HoldersUnknown { why: chain(&error) });
            Remembered { holders: BTreeMap::new(), whole: false }
        });
        let server = Server::after(settings.votes.clone(), remembered.clone(), Instant::now());
        let (questions, asked, ending) = Questions::new();
        let mut engine = Self {
            server,
            tls,
            poll,
            connections: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            last: 0,
            busy: VecDeque::new(),
            listeners,
            addresses,
            accept_again: None,
            history,
            holders,
            to_keep: None,
            most: 0,
            give_back: None,
            asked,
            ending,
        };
        if let Some((server, connections)) = arrived.service {
            engine.resume(settings, remembered, server, connections);
        }
        engine.history.happened(QdeviceHappening::Started { kept: engine.connections.len() });
        Ok((engine, questions))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until it fails, or is to hand over.
    ///
    /// # Errors
    /// The system's, when it can't wait for sockets any more.
    pub async fn run(mut self) -> Result<()> {
        let mut ready = Vec::new();
        let mut buffer = [0; PORTION];
        loop {
            let wake = self.wake();
            tokio::select! {
                found = self.poll.ready(&mut ready) => found.context("waiting for QDevice clients")?,
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
                Some(answer) = self.ending.recv() => {
                    // Who asked may have gone; then all connections end here.
                    let _ = answer.send(self.hand_over());
                    return Ok(());
                }
                Some(question) = self.asked.recv() => question.answer(&self.server),
            }
            self.turn(&ready, &mut buffer);
            ready.clear();
            self.expire();
            consume_budget().await;
        }
    }

    /// Between two turns nothing is half done: what has come is dealt with or in the connection, and so is what is to go.
    fn hand_over(mut self) -> Leaving {
        if let Some(to_keep) = &mut self.to_keep {
            to_keep.at = Instant::now();
        }
        self.keep();
        let server = self.server.save(Instant::now());
        let kept = self.connections.into_iter().filter(|(client, _)| self.server.can_hand_over(*client));
        let connections = kept.filter_map(|(client, watched)| watched.connection.into_kept(client)).collect();
        Leaving { server, connections, listeners: self.listeners }
    }

    /// Goes on with the former process's clients.
    fn resume(
        &mut self,
        settings: &Settings,
        remembered: Remembered,
        server: Saved,
        connections: Vec<(TcpStream, KeptConnection)>,
    ) {
        let now = Instant::now();
        self.last = server.clients().map(|client| client.0).max().unwrap_or_default();
        for (socket, kept) in connections {
            let client = ClientId(kept.client);
            let flags = EventFlags::IN;
            let connection = Connection::resume(socket, kept, now).and_then(|connection| {
                self.poll.add(connection.socket(), client.0, flags)?;
                Ok(connection)
            });
            match connection {
                Ok(connection) => {
                    self.connections.insert(client, Watched { connection, flags, deadline: None });
                    self.busy.push_back(client);
                }
                Err(over) => debug!(%client, "a QDevice connection ended with the restart: {over}"),
            }
        }
        let came = self.connections.keys().copied().collect();
        match Server::restore(settings.votes.clone(), remembered, server, &came, now) {
            Ok(server) => self.server = server,
            Err(unfit) => {
                warn!("QDevice clients of the former process are let go, and come again: {unfit}");
                self.connections.clear();
            }
        }
        self.settle();
        self.keep();
    }

    fn wake(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let keep = self.to_keep.as_ref().map(|to_keep| to_keep.at);
        [self.server.poll_timeout(), deadline, self.accept_again, keep, self.give_back].into_iter().flatten().min()
    }

    /// Whatever was found ready, votes before newcomers.
    fn turn(&mut self, ready: &[(u64, EventFlags)], buffer: &mut [u8; PORTION]) {
        let mut handshakes = Vec::new();
        for (key, flags) in ready.iter().filter(|(key, _)| *key < LISTENERS) {
            let client = ClientId(*key);
            match self.connections.get(&client) {
                Some(watched) if watched.connection.is_handshaking() => handshakes.push((client, *flags)),
                Some(_) => self.ready(client, *flags, buffer),
                // It ended in this turn.
                None => {}
            }
        }
        let begun = Instant::now();
        for (client, flags) in handshakes {
            self.ready(client, flags, buffer);
            if begun.elapsed() > HANDSHAKES {
                break;
            }
        }
        for (key, _) in ready.iter().filter(|(key, _)| *key >= LISTENERS) {
            self.accept(*key);
        }
    }

    fn ready(&mut self, client: ClientId, flags: EventFlags, buffer: &mut [u8; PORTION]) {
        let Some(watched) = self.connections.get_mut(&client) else { return };
        let wants = watched.connection.wants();
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if flags.contains(EventFlags::OUT) {
            self.busy.push_back(client);
        }
        if wants.contains(EventFlags::IN) && (broken || flags.contains(EventFlags::IN)) {
            let heard = watched.connection.read(buffer);
            self.heard(client, heard);
        } else if broken {
            self.over(client, &Over::Broken);
        }
        self.settle();
    }

    /// What has run out of time.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((at, client)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(watched) = self.connections.get(&client) {
                let over = watched.connection.too_late();
                self.over(client, &over);
            }
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.watch_listeners(EventFlags::IN);
        }
        self.server.handle(now, Event::Tick);
        self.settle();
        self.keep();
        self.give_back(now);
    }

    /// Writes down who has the votes, once for all of a turn. Votes wait for it, so it is written here and at once.
    fn keep(&mut self) {
        let now = Instant::now();
        let Some(ToKeep { number, failed, .. }) = self.to_keep.take_if(|to_keep| to_keep.at <= now) else { return };
        match self.holders.write(&self.server.remembered()) {
            Ok(()) => {
                self.server.handle(now, Event::Remembered { number });
                self.settle();
            }
            Err(error) => {
                if !failed {
                    self.history.happened(QdeviceHappening::HoldersNotKept { why: chain(&error) });
                }
                self.to_keep = Some(ToKeep { number, at: now + WRITE_AGAIN, failed: true });
            }
        }
    }

    /// Who has the votes is to be written by then, with whatever else comes until then.
    fn keep_by(&mut self, at: Instant, number: u64) {
        let to_keep = self.to_keep.get_or_insert(ToKeep { number, at, failed: false });
        to_keep.number = number;
        if !to_keep.failed {
            to_keep.at = to_keep.at.min(at);
        }
    }

    fn give_back(&mut self, now: Instant) {
        let kept = self.connections.len() + self.server.known_holders();
        self.most = self.most.max(kept);
        if self.most - kept < MANY_FEWER {
            self.give_back = None;
        } else if now >= *self.give_back.get_or_insert(now + GIVES_BACK_AFTER) {
            (self.most, self.give_back) = (kept, None);
            self.history.while_packed(give_memory_back);
        }
    }

    fn accept(&mut self, key: u64) {
        for _ in 0..ACCEPTED {
            let Some(listener) = usize::try_from(key - LISTENERS).ok().and_then(|at| self.listeners.get(at)) else {
                return;
            };
            match listener.accept() {
                Ok((socket, address)) => self.arrived(socket, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The peer went away before it was looked at.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    warn!("no QDevice client can be accepted: {error}");
                    self.accept_again = Some(Instant::now() + ACCEPT_AGAIN);
                    self.watch_listeners(EventFlags::empty());
                    return;
                }
            }
        }
    }

    fn watch_listeners(&self, flags: EventFlags) {
        for (listener, key) in self.listeners.iter().zip(LISTENERS..) {
            if let Err(error) = self.poll.modify(listener, key, flags) {
                warn!("a QDevice port can't be watched: {error}");
            }
        }
    }

    fn arrived(&mut self, socket: TcpStream, address: SocketAddr) {
        // An option that can't be set makes a connection slower, not wrong.
        if let Err(error) = set_tcp_nodelay(&socket, true) {
            warn!(%address, "TCP_NODELAY can't be set: {error}");
        }
        let timeout_ms = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = set_tcp_user_timeout(&socket, timeout_ms) {
            warn!(%address, "TCP_USER_TIMEOUT can't be set: {error}");
        }
        self.last += 1;
        let client = ClientId(self.last);
        let flags = EventFlags::IN;
        let watched = socket.set_nonblocking(true).and_then(|()| self.poll.add(&socket, client.0, flags));
        if let Err(error) = watched {
            warn!(%address, "a QDevice client can't be watched: {error}");
            return;
        }
        self.connections.insert(client, Watched { connection: Connection::new(socket), flags, deadline: None });
        self.server.handle(Instant::now(), Event::Connected { client, address });
        self.settle();
    }

    fn heard(&mut self, client: ClientId, heard: Result<Heard, Over>) {
        let event = match heard {
            Ok(Heard::Nothing) => {
                self.busy.push_back(client);
                return;
            }
            Ok(Heard::Bytes(bytes)) => Event::Received { client, bytes },
            Ok(Heard::Secured(names)) => {
                self.judge_end(client, names.as_ref());
                Event::Secured { client, names }
            }
            Err(over) => return self.over(client, &over),
        };
        self.busy.push_back(client);
        self.server.handle(Instant::now(), event);
    }

    /// A certificate near its end is told each time it is shown.
    fn judge_end(&self, client: ClientId, names: Option<&PeerNames>) {
        let Some(connection) = self.connections.get(&client).map(|watched| &watched.connection) else { return };
        if let Some(ends) = connection.certificate_ends() {
            let address = connection.socket().peer_addr().ok().map(|address| address.to_string());
            self.history.certificate(names.and_then(|names| names.common.clone()), address, ends);
        }
    }

    fn over(&mut self, client: ClientId, over: &Over) {
        // Who fails here wanted to be one of ours, and somebody should hear why it is none.
        if let Some(watched) = self.connections.get(&client)
            && watched.connection.is_handshaking()
            && let Ok(address) = watched.connection.socket().peer_addr()
        {
            let address = address.to_string();
            self.history.happened(QdeviceHappening::TurnedAway { address, why: chain(over) });
        }
        if self.forget(client) {
            debug!(%client, "a QDevice connection is over: {over}");
            self.server.handle(Instant::now(), Event::Gone { client, how: over.ending() });
        }
    }

    fn forget(&mut self, client: ClientId) -> bool {
        let Some(watched) = self.connections.remove(&client) else { return false };
        if let Some(deadline) = watched.deadline {
            self.deadlines.remove(&(deadline, client));
        }
        true
    }

    /// Does what the vote service wants done, and what follows from that, until nothing is left.
    fn settle(&mut self) {
        loop {
            while let Some(action) = self.server.poll_action() {
                self.act(action);
            }
            // What goes to one client is written in one go.
            let Some(client) = self.busy.pop_front() else { return };
            self.flush(client);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Read { client } => {
                if let Some(watched) = self.connections.get_mut(&client) {
                    let heard = watched.connection.allow();
                    self.heard(client, Ok(heard));
                }
            }
            Action::Send { client, bytes } => {
                if let Some(watched) = self.connections.get_mut(&client) {
                    let sent = watched.connection.send(bytes);
                    self.busy.push_back(client);
                    if let Err(over) = sent {
                        self.over(client, &over);
                    }
                }
            }
            Action::StartTls { client, rest } => {
                if let Some(watched) = self.connections.get_mut(&client) {
                    let heard = watched.connection.start_tls(&self.tls, &rest, Instant::now());
                    self.heard(client, heard);
                }
            }
            Action::Close { client, .. } => {
                if let Some(watched) = self.connections.get_mut(&client) {
                    // The last word may say why.
                    let _unheard = watched.connection.flush(Instant::now());
                }
                self.forget(client);
            }
            Action::Remember { number, urgent } => {
                let spare = if urgent { Duration::ZERO } else { HAS_TIME };
                self.keep_by(Instant::now() + spare, number);
            }
            Action::Tell(notice) => self.history.noticed(&notice),
        }
    }

    /// Writes what a connection has to write, and sees to it that it is watched for what it wants next.
    fn flush(&mut self, client: ClientId) {
        let now = Instant::now();
        let Some(watched) = self.connections.get_mut(&client) else { return };
        let messages = match watched.connection.flush(now) {
            Ok(messages) => messages,
            Err(over) => return self.over(client, &over),
        };
        let wants = watched.connection.wants();
        if wants != watched.flags {
            if let Err(error) = self.poll.modify(watched.connection.socket(), client.0, wants) {
                return self.over(client, &error.into());
            }
            watched.flags = wants;
        }
        let deadline = watched.connection.deadline();
        if deadline != watched.deadline {
            if let Some(before) = watched.deadline {
                self.deadlines.remove(&(before, client));
            }
            self.deadlines.extend(deadline.map(|at| (at, client)));
            watched.deadline = deadline;
        }
        if messages > 0 {
            self.server.handle(now, Event::Sent { client, messages });
        }
    }
}
