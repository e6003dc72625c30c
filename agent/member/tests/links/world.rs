//! Members of a cluster in one process, and a proxy that breaks links.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebreaker_member::{
    Acceptor, Address, Ca, Identity, Incoming, LEAF_VALIDITY, Lane, LinkConfig, Links, MemberEntry, MemberName,
    PeerPaths, PeerTable, Role, Route, Sent, Subject, TimeFloor, Timing, TrustedTime, Via,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// The date in these tests, where nothing else is said.
pub const NOW: u64 = 1_800_000_000;

/// An event that hasn't come after so long won't, on a slow and busy machine either.
pub const PATIENCE: Duration = Duration::from_secs(240);

pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

pub fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

pub fn subject(cluster: &str, role: Role, who: &str) -> Subject {
    Subject::from_uri(&format!("tiebreaker://{cluster}/{role}/{who}")).unwrap()
}

pub fn issue(ca: &Ca, cluster: &str, role: Role, who: &str) -> Identity {
    ca.issue(&subject(cluster, role, who), NOW, LEAF_VALIDITY).unwrap()
}

/// A clock that a test sets.
#[derive(Clone)]
pub struct Clock(pub Arc<AtomicU64>);

impl Clock {
    pub fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    pub fn time(&self, floor: &TimeFloor) -> TrustedTime {
        let clock = Arc::clone(&self.0);
        TrustedTime::new(Arc::new(move || clock.load(Ordering::Relaxed)), floor.clone())
    }
}

/// A member that runs.
pub struct Member {
    pub name: MemberName,
    pub addr: SocketAddr,
    pub links: Links,
    pub rx: mpsc::Receiver<Incoming>,
    pub table: watch::Sender<Arc<PeerTable>>,
    pub clock: Clock,
    pub floor: TimeFloor,
    _identity: watch::Sender<Arc<Identity>>,
}

impl Member {
    pub fn start(acceptor: &Acceptor, identity: Identity, timing: Timing, clock: u64) -> Self {
        let who = identity.peer().name.clone();
        let (identity_tx, identity) = watch::channel(Arc::new(identity));
        let (table, peers) = watch::channel(Arc::new(PeerTable::default()));
        let (clock, floor) = (Clock::at(clock), TimeFloor::default());
        let config = LinkConfig { identity, time: clock.time(&floor), source: None, timing };
        let (links, rx) = Links::start(config, acceptor, peers).unwrap();
        let addr = acceptor.local_addrs()[0];
        Self { name: who, addr, links, rx, table, clock, floor, _identity: identity_tx }
    }

    pub fn change(&self, change: impl FnOnce(&mut PeerTable)) {
        self.table.send_modify(|table| change(Arc::make_mut(table)));
    }

    pub fn knows(&self, who: &str, role: Role, addrs: &[SocketAddr]) {
        let addresses: Vec<Address> = addrs.iter().map(|addr| Address::from(*addr)).collect();
        self.change(|table| {
            table.members.insert(name(who), MemberEntry { role, addresses });
        });
    }

    /// Waits until the paths to `who` are as wanted.
    pub async fn until(&self, what: &str, who: &str, wanted: impl Fn(&PeerPaths) -> bool) -> PeerPaths {
        let mut changes = self.links.changes();
        let wait = async {
            loop {
                if let Some(paths) = self.links.paths().get(who)
                    && wanted(paths)
                {
                    return paths.clone();
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(paths) => paths,
            Err(_) => panic!("{}: waited in vain for {what}: {:?}", self.name, self.links.paths()),
        }
    }

    pub async fn direct_up(&self, who: &str) {
        self.until("a direct path", who, |paths| paths.direct.is_up()).await;
    }

    pub async fn relay_up(&self, who: &str) {
        self.until("a relayed path", who, |paths| paths.relay.is_up()).await;
    }

    pub fn send(&self, to: &str, lane: Lane, route: Route, bytes: &[u8]) -> Sent {
        self.links.send(&name(to), lane, route, Arc::from(bytes))
    }

    /// The next message.
    pub async fn message(&mut self) -> (String, Via, Vec<u8>) {
        loop {
            match soon("a message", self.rx.recv()).await.unwrap() {
                Incoming::Message { from, via, bytes, .. } => return (from.to_string(), via, bytes.into_vec()),
                Incoming::Request { .. } | Incoming::Join { .. } | Incoming::NewerEpoch { .. } => {}
            }
        }
    }
}

pub async fn port() -> Acceptor {
    Acceptor::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap()
}

/// An appliance `pi` and nodes `n1` and `n2` of cluster `home`, who know each other.
pub struct World {
    pub ca: Ca,
    pub pi: Member,
    pub n1: Member,
    pub n2: Member,
}

impl World {
    pub async fn new(timing: Timing) -> Self {
        Self::with(timing, NOW).await
    }

    /// The first node's clock stands at `n1_clock`.
    pub async fn with(timing: Timing, n1_clock: u64) -> Self {
        let world = Self::strangers(timing, n1_clock).await;
        world.introduce();
        world
    }

    /// Nobody knows anybody yet.
    pub async fn strangers(timing: Timing, n1_clock: u64) -> Self {
        let ca = Ca::new_in_memory().unwrap();
        let pi = Member::start(&port().await, issue(&ca, "home", Role::Appliance, "pi"), timing, NOW);
        let n1 = Member::start(&port().await, issue(&ca, "home", Role::Node, "n1"), timing, n1_clock);
        let n2 = Member::start(&port().await, issue(&ca, "home", Role::Node, "n2"), timing, NOW);
        Self { ca, pi, n1, n2 }
    }

    /// Everybody learns where everybody is. Where a test has put another address before, that stays.
    pub fn introduce(&self) {
        let all = [(&self.pi, Role::Appliance), (&self.n1, Role::Node), (&self.n2, Role::Node)];
        for (one, _) in all {
            one.change(|table| {
                for (other, role) in all {
                    table
                        .members
                        .entry(other.name.clone())
                        .or_insert_with(|| MemberEntry { role, addresses: vec![other.addr.into()] });
                }
            });
        }
    }

    pub async fn all_up(&self) {
        for (one, other) in
            [(&self.n1, "pi"), (&self.n2, "pi"), (&self.n2, "n1"), (&self.pi, "n1"), (&self.pi, "n2"), (&self.n1, "n2")]
        {
            one.direct_up(other).await;
            one.relay_up(other).await;
        }
    }
}

/// What a proxy does with what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Nothing gets through, and nobody is told.
    Hole,
    /// Only what comes back from the target gets through.
    DeafForth,
}

/// A TCP proxy that can go silent, and remembers what it carried.
pub struct Proxy {
    pub addr: SocketAddr,
    pub mode: watch::Sender<Mode>,
    pub seen: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::AbortHandle,
}

impl Proxy {
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, _) = watch::channel(Mode::Pass);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (modes, log) = (mode.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (modes, log) = (modes.subscribe(), Arc::clone(&log));
                carried.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    let forth = carry(near_read, far_write, modes.clone(), Mode::Pass, Arc::clone(&log));
                    let back = carry(far_read, near_write, modes, Mode::DeafForth, log);
                    tokio::join!(forth, back);
                });
            }
        })
        .abort_handle();
        Self { addr, mode, seen, task }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one direction. `also` is the mode, beside `Pass`, in which this direction still works.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    also: Mode,
    log: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(len) = from.read(&mut buffer).await else { return };
        // What was read in a hole stays there until it closes: TCP would deliver it later, too.
        if modes.wait_for(|mode| *mode == Mode::Pass || *mode == also).await.is_err() {
            return;
        }
        if len == 0 {
            let _ = to.shutdown().await;
            return;
        }
        log.lock().unwrap().extend_from_slice(&buffer[..len]);
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
