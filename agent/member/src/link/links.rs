//! One member's links to all others of its cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::acceptor::{Acceptor, Admitted, Registration, Served};
use super::connection::{INBOX, Inbox};
use super::dialer::{dials, keep, stand_in};
use super::error::LinkError;
use super::incoming::{Incoming, Via};
use super::paths::Board;
use super::serve::serve;
use super::shared::Shared;
use super::table::PeerTable;
use super::timing::{MAX_JOINS, MAX_MESSAGE, MAX_RELAYS, MAX_REQUESTS, MAX_URGENT, Timing};
use crate::identity::{Identity, MemberName, Role, TrustedTime};

/// Connections that were admitted and wait to be served.
const ADMITTED: usize = 64;

/// In which order messages leave on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Ahead of everything else, up to 64 KiB each. When too many wait, the oldest is dropped.
    Urgent,
    /// After all that is urgent, in fragments, up to 8 MiB each. When too many wait, the newest is dropped.
    Bulk,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Directly if that way answers, else through the relay, and over both when neither is known to work.
    Best,
    /// Through the relay, if there is one; else directly.
    Relay,
    /// Over every connection there is. It arrives more than once.
    All,
}

/// What became of a message. That it was queued doesn't mean that it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It waits on so many connections.
    Queued(usize),
    /// There is no connection to this peer.
    NoPath,
    /// It is larger than its lane allows.
    TooLarge,
}

/// One way to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// There is a connection.
    Up {
        /// For how long.
        since: Duration,
        /// How long ago its last byte came.
        last_heard: Duration,
        /// Whether a ping that was sent lately has been answered.
        fresh: bool,
        /// The relay, where this side chose it.
        via: Option<MemberName>,
    },
    /// There is none.
    Down {
        /// For how long.
        since: Duration,
        /// Why, in words.
        why: String,
    },
}

impl PathState {
    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// The ways to one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPaths {
    /// The direct one.
    pub direct: PathState,
    /// The one through a third member.
    pub relay: PathState,
    /// Messages to it that found no room and were dropped.
    pub dropped: u64,
}

/// What a member's links need.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// This member's identity; a renewed one is used from the next connection on.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// The time by which certificates are judged.
    pub time: TrustedTime,
    /// The address that outgoing connections come from, where it matters.
    pub source: Option<IpAddr>,
    /// How connections are watched.
    pub timing: Timing,
}

/// One member's links. They end when this is dropped.
pub struct Links {
    board: Arc<Board>,
    inbox: Inbox,
    supervisor: AbortHandle,
    _registration: Registration,
}

impl Links {
    /// Starts to serve this member's cluster on `acceptor` and to dial the members in `peers`. Returns what arrives.
    ///
    /// # Errors
    /// When the cluster is already served there.
    pub fn start(
        config: LinkConfig,
        acceptor: &Acceptor,
        peers: watch::Receiver<Arc<PeerTable>>,
    ) -> Result<(Self, mpsc::Receiver<Incoming>), LinkError> {
        let me = config.identity.borrow().peer().clone();
        let (arrived, incoming) = mpsc::channel(INBOX);
        let (admit, admitted) = mpsc::channel(ADMITTED);
        let board = Arc::new(Board::new(config.timing));
        let inbox = Inbox::new(arrived);
        let shared = Arc::new(Shared {
            me,
            board: Arc::clone(&board),
            inbox: inbox.clone(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            relays: Arc::new(Semaphore::new(MAX_RELAYS)),
            joins: Arc::new(Semaphore::new(MAX_JOINS)),
            config,
            peers,
        });
        let served = Served { identity: shared.config.identity.clone(), judge: shared.judge(), admitted: admit };
        let registration = acceptor.register(shared.me.cluster.clone(), served)?;
        let supervisor = tokio::spawn(supervise(shared, admitted)).abort_handle();
        Ok((Self { board, inbox, supervisor, _registration: registration }, incoming))
    }

    /// Queues a message for `to` and returns at once.
    pub fn send(&self, to: &MemberName, lane: Lane, route: Route, bytes: Arc<[u8]>) -> Sent {
        let max = match lane {
            Lane::Urgent => MAX_URGENT,
            Lane::Bulk => MAX_MESSAGE,
        };
        if bytes.len() > max {
            return Sent::TooLarge;
        }
        self.board.send(to, lane, route, &bytes)
    }

    /// The ways to every peer, as they are now.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<MemberName, PeerPaths> {
        self.board.snapshot()
    }

    /// Changes whenever a path comes up or goes down.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.board.changes()
    }

    /// Messages that arrived and were dropped because the layer above was behind.
    #[must_use]
    pub fn dropped_on_arrival(&self) -> u64 {
        self.inbox.dropped()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // The supervisor owns all other tasks, which end with it.
        self.supervisor.abort();
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

async fn supervise(shared: Arc<Shared>, mut admitted: mpsc::Receiver<Admitted>) {
    let mut tasks = JoinSet::new();
    let mut dialing: BTreeMap<(MemberName, Role), Vec<AbortHandle>> = BTreeMap::new();
    let mut peers = shared.peers.clone();
    let mut published = true;
    loop {
        let table = Arc::clone(&peers.borrow_and_update());
        redial(&shared, &table, &mut dialing, &mut tasks);
        loop {
            tokio::select! {
                changed = peers.changed(), if published => {
                    published = changed.is_ok();
                    break;
                }
                Some(admitted) = admitted.recv() => {
                    tasks.spawn(serve(Arc::clone(&shared), admitted));
                }
                Some(_) = tasks.join_next() => {}
                else => return,
            }
        }
    }
}

/// Starts to dial new members and stops to dial those that are none any more.
fn redial(
    shared: &Arc<Shared>,
    table: &PeerTable,
    dialing: &mut BTreeMap<(MemberName, Role), Vec<AbortHandle>>,
    tasks: &mut JoinSet<()>,
) {
    let names: Vec<MemberName> = table.members.keys().filter(|name| **name != shared.me.name).cloned().collect();
    shared.board.retain(&names);
    dialing.retain(|(name, role), handles| {
        let stays = table.members.get(name).is_some_and(|entry| entry.role == *role);
        if !stays {
            handles.iter().for_each(AbortHandle::abort);
        }
        stays
    });
    for (name, entry) in &table.members {
        let key = (name.clone(), entry.role);
        if *name == shared.me.name || dialing.contains_key(&key) {
            continue;
        }
        let handles = if dials(&shared.me, name, entry.role) {
            [Via::Direct, Via::Relayed].map(|via| tasks.spawn(keep(Arc::clone(shared), name.clone(), via))).into()
        } else {
            vec![tasks.spawn(stand_in(Arc::clone(shared), name.clone()))]
        };
        dialing.insert(key, handles);
    }
}
