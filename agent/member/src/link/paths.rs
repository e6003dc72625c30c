//! The ways to each peer: one direct connection and one through a relay, and how healthy they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::incoming::Via;
use super::lanes::Lanes;
use super::links::{Lane, PathState, PeerPaths, Route, Sent};
use super::timing::Timing;
use crate::identity::MemberName;

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// When a connection was last heard. Its times are milliseconds since it began; a ping's number is its sending time.
pub(super) struct Health {
    began: Instant,
    heard: AtomicU64,
    /// Sending time of the newest ping that was answered: both directions worked since.
    answered: AtomicU64,
}

impl Health {
    fn new() -> Self {
        Self { began: Instant::now(), heard: AtomicU64::new(0), answered: AtomicU64::new(0) }
    }

    /// Milliseconds since the connection began.
    pub(super) fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    pub(super) fn heard(&self) {
        self.heard.fetch_max(self.now(), Ordering::Relaxed);
    }

    /// Takes a ping's answer. A number from the future was never sent.
    pub(super) fn answered(&self, n: u64) {
        if n <= self.now() {
            self.answered.fetch_max(n, Ordering::Relaxed);
        }
    }

    pub(super) fn silent_for(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.heard.load(Ordering::Relaxed)))
    }

    pub(super) fn unanswered_for(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.answered.load(Ordering::Relaxed)))
    }
}

/// A connection that is up.
#[derive(Clone)]
pub(super) struct Live {
    id: u64,
    pub(super) lanes: Arc<Lanes>,
    pub(super) health: Arc<Health>,
    /// Notified when another connection takes this one's place.
    pub(super) replaced: Arc<Notify>,
    relay: Option<MemberName>,
}

enum Path {
    Down { since: Instant, why: String },
    Up(Live),
}

struct Peer {
    /// It is in the table; a newcomer isn't yet.
    known: bool,
    /// It has connected to this member by itself, so it knows this member.
    called: bool,
    direct: Path,
    relayed: Path,
    /// Messages dropped on connections that are gone.
    dropped: u64,
}

impl Peer {
    fn new() -> Self {
        let down = || Path::Down { since: Instant::now(), why: "not tried yet".to_owned() };
        Self { known: false, called: false, direct: down(), relayed: down(), dropped: 0 }
    }

    /// A newcomer is kept for as long as it is connected.
    fn is_kept(&self) -> bool {
        self.known || live(&self.direct).is_some() || live(&self.relayed).is_some()
    }

    fn path(&mut self, via: Via) -> &mut Path {
        match via {
            Via::Direct => &mut self.direct,
            Via::Relayed => &mut self.relayed,
        }
    }
}

fn live(path: &Path) -> Option<&Live> {
    match path {
        Path::Up(live) => Some(live),
        Path::Down { .. } => None,
    }
}

/// All paths of one member.
pub(super) struct Board {
    peers: Mutex<BTreeMap<MemberName, Peer>>,
    next_id: AtomicU64,
    changes: watch::Sender<u64>,
    timing: Timing,
}

impl Board {
    pub(super) fn new(timing: Timing) -> Self {
        let (changes, _) = watch::channel(0);
        Self { peers: Mutex::default(), next_id: AtomicU64::new(0), changes, timing }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberName, Peer>> {
        // Nothing that runs under the lock can panic half way through a change.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Forgets peers that are no members any more, and lists those that are.
    pub(super) fn retain(&self, names: &[MemberName]) {
        let mut peers = self.lock();
        let same = peers.iter().all(|(name, peer)| peer.known == names.contains(name))
            && names.iter().all(|name| peers.contains_key(name));
        if same {
            return;
        }
        for (name, peer) in peers.iter_mut() {
            peer.known = names.contains(name);
        }
        peers.retain(|_, peer| peer.is_kept());
        for name in names {
            peers.entry(name.clone()).or_insert_with(Peer::new).known = true;
        }
        drop(peers);
        self.changed();
    }

    /// Enters a new connection in place of the one that was there. It is up until the returned guard is dropped.
    pub(super) fn attach(self: &Arc<Self>, name: &MemberName, via: Via, relay: Option<MemberName>) -> Attached {
        let fresh = Live {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            lanes: Arc::new(Lanes::default()),
            health: Arc::new(Health::new()),
            replaced: Arc::new(Notify::new()),
            relay,
        };
        let mut peers = self.lock();
        let peer = peers.entry(name.clone()).or_insert_with(Peer::new);
        let before = std::mem::replace(peer.path(via), Path::Up(fresh.clone()));
        if let Some(old) = live(&before) {
            peer.dropped += old.lanes.dropped();
            old.replaced.notify_one();
        } else {
            tracing::info!(peer = %name, ?via, "path up");
        }
        drop(peers);
        self.changed();
        Attached { board: Arc::clone(self), name: name.clone(), via, live: fresh, why: String::new() }
    }

    /// Notes why a path that is down could not be made.
    pub(super) fn failed(&self, name: &MemberName, via: Via, reason: String) {
        let mut peers = self.lock();
        let Some(peer) = peers.get_mut(name) else { return };
        if let Path::Down { why, .. } = peer.path(via)
            && *why != reason
        {
            tracing::info!(peer = %name, ?via, why = reason, "path stays down");
            *why = reason;
            drop(peers);
            self.changed();
        }
    }

    /// Notes that `name` has connected by itself.
    pub(super) fn called(&self, name: &MemberName) {
        if let Some(peer) = self.lock().get_mut(name) {
            peer.called = true;
        }
    }

    /// Whether `name` is not connected directly and never called, so that it may not know that it should.
    pub(super) fn needs_a_call(&self, name: &MemberName) -> bool {
        self.lock().get(name).is_some_and(|peer| !peer.called && live(&peer.direct).is_none())
    }

    /// Whether a direct connection to `name` is up and answers.
    pub(super) fn is_fresh(&self, name: &MemberName) -> bool {
        self.lock().get(name).and_then(|peer| live(&peer.direct)).is_some_and(|live| self.fresh(live))
    }

    fn fresh(&self, live: &Live) -> bool {
        live.health.unanswered_for() <= self.timing.fresh
    }

    /// Queues a message on the connections that `route` means.
    pub(super) fn send(&self, to: &MemberName, lane: Lane, route: Route, bytes: &Arc<[u8]>) -> Sent {
        let peers = self.lock();
        let Some(peer) = peers.get(to) else { return Sent::NoPath };
        let (direct, relayed) = (live(&peer.direct), live(&peer.relayed));
        let healthy = |path: Option<&Live>| path.is_some_and(|live| self.fresh(live));
        let (direct, relayed) = match route {
            Route::Best if healthy(direct) => (direct, None),
            Route::Best if healthy(relayed) => (None, relayed),
            Route::Relay if relayed.is_some() => (None, relayed),
            // Neither is known to work, or every one is asked for: the layer above bears doubles, not losses.
            Route::Best | Route::Relay | Route::All => (direct, relayed),
        };
        let mut queued = 0;
        for live in [direct, relayed].into_iter().flatten() {
            live.lanes.push(lane, Arc::clone(bytes));
            queued += 1;
        }
        if queued == 0 { Sent::NoPath } else { Sent::Queued(queued) }
    }

    pub(super) fn snapshot(&self) -> BTreeMap<MemberName, PeerPaths> {
        let peers = self.lock();
        let state = |path: &Path| match path {
            Path::Down { since, why } => PathState::Down { since: since.elapsed(), why: why.clone() },
            Path::Up(live) => PathState::Up {
                since: live.health.began.elapsed(),
                last_heard: live.health.silent_for(),
                fresh: self.fresh(live),
                via: live.relay.clone(),
            },
        };
        let dropped = |path: &Path| live(path).map_or(0, |live| live.lanes.dropped());
        peers
            .iter()
            .map(|(name, peer)| {
                let paths = PeerPaths {
                    direct: state(&peer.direct),
                    relay: state(&peer.relayed),
                    dropped: peer.dropped + dropped(&peer.direct) + dropped(&peer.relayed),
                };
                (name.clone(), paths)
            })
            .collect()
    }
}

/// A connection's place on the board.
pub(super) struct Attached {
    board: Arc<Board>,
    name: MemberName,
    via: Via,
    pub(super) live: Live,
    /// Why the connection ended, for whoever looks at the path afterwards.
    pub(super) why: String,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut peers = self.board.lock();
        let Some(peer) = peers.get_mut(&self.name) else { return };
        let path = peer.path(self.via);
        // A successor may be there already.
        if live(path).is_some_and(|live| live.id == self.live.id) {
            let why = if self.why.is_empty() { "stopped".to_owned() } else { std::mem::take(&mut self.why) };
            tracing::info!(peer = %self.name, via = ?self.via, why, "path down");
            *path = Path::Down { since: Instant::now(), why };
            peer.dropped += self.live.lanes.dropped();
            if !peer.is_kept() {
                peers.remove(&self.name);
            }
            drop(peers);
            self.board.changed();
        }
    }
}
