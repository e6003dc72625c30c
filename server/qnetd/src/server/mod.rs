//! The door: all connections and all clusters, one event at a time.

mod dispatch;
mod handover;
mod past;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub use self::handover::{Saved, Unfit};
use self::past::Past;
use crate::{
    cluster::{Cluster, Output, Unheard},
    config::Config,
    holder::{Holder, Remembered, believes},
    id::{ClientId, ClusterName},
    notice::{CloseReason, Ending, Notice},
    session::{SIGN_OF_LIFE, Session, Stage, Tls},
    timers::{Timer, Timers},
    view::ClusterView,
    wire::{MAX_MESSAGE, Message, MessageKind, Opt, RingId, Taken, Vote},
};

/// The names that a peer's certificate has proven.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerNames {
    /// The subject's common name; counts only without DNS names.
    pub common: Option<String>,
    /// DNS names.
    pub dns: Vec<String>,
}

impl PeerNames {
    /// Whether they name a cluster, whatever the case. There are no wildcards.
    fn name(&self, cluster: &ClusterName) -> bool {
        let same = |name: &String| name.as_bytes().eq_ignore_ascii_case(cluster.as_bytes());
        if self.dns.is_empty() { self.common.as_ref().is_some_and(same) } else { self.dns.iter().any(same) }
    }
}

/// What happened outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A connection was accepted. The shell reads from it on [`Action::Read`] alone.
    Connected {
        /// Its number, never used before.
        client: ClientId,
        /// Where it comes from.
        address: SocketAddr,
    },
    /// Bytes have come, under TLS the plain ones: at most one portion for each [`Action::Read`].
    Received {
        /// From whom.
        client: ClientId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The handshake that [`Action::StartTls`] asked for is done.
    Secured {
        /// With whom.
        client: ClientId,
        /// What its certificate says, if it showed a valid one.
        names: Option<PeerNames>,
    },
    /// Messages were handed to the system.
    Sent {
        /// To whom.
        client: ClientId,
        /// How many.
        messages: usize,
    },
    /// A connection has ended or failed. Not to be told of those that [`Action::Close`] ended.
    Gone {
        /// Whose.
        client: ClientId,
        /// What that tells of the peer.
        how: Ending,
    },
    /// What [`Action::Remember`] asked for is done, up to this number.
    Remembered {
        /// The action's number.
        number: u64,
    },
    /// [`Server::poll_timeout`] has come.
    Tick,
}

/// What is to be done outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read a portion.
    Read {
        /// From whom.
        client: ClientId,
    },
    /// Write one message, after those before it; then [`Event::Sent`].
    Send {
        /// To whom.
        client: ClientId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Write what is queued, then shake hands as the server, then [`Event::Secured`].
    StartTls {
        /// With whom.
        client: ClientId,
        /// What has come already and belongs to the handshake.
        rest: Vec<u8>,
    },
    /// Close the connection and forget it.
    Close {
        /// Whose.
        client: ClientId,
        /// Why, for the log.
        why: CloseReason,
    },
    /// Put [`Server::remembered`] where the next process finds it, even after a crash or a power cut; then
    /// [`Event::Remembered`].
    Remember {
        /// Its number; who has done one has done those before it.
        number: u64,
        /// Whether nothing is said to the cluster that it is about until then. If not, it may be done with others a moment later.
        urgent: bool,
    },
    /// Tell whoever wants to know.
    Tell(Notice),
}

/// The connections from one address.
#[derive(Clone, Copy, Debug, Default)]
struct FromAddress {
    clients: usize,
    /// Those among them that have not joined a cluster.
    strangers: usize,
}

/// What a cluster is not told before it is remembered who has its vote.
#[derive(Clone, Debug, Default)]
struct Held {
    /// The action that is waited for.
    number: u64,
    messages: Vec<(ClientId, Vec<u8>)>,
}

/// The vote service.
#[derive(Clone, Debug)]
pub struct Server {
    config: Config,
    /// Boxed: as numbers only rise, the map is half empty.
    sessions: BTreeMap<ClientId, Box<Session>>,
    addresses: BTreeMap<IpAddr, FromAddress>,
    strangers: usize,
    clusters: BTreeMap<ClusterName, Cluster>,
    /// Who has the vote, of clusters without clients too.
    holders: BTreeMap<ClusterName, Holder>,
    past: Past,
    /// Who may cast the vote of a cluster without clients.
    unheard: BTreeMap<ClusterName, Box<Unheard>>,
    /// When to look for clusters without clients of which nothing has to be known any more.
    forget_at: Option<Instant>,
    /// The number of the last [`Action::Remember`], and what waits for it.
    remembers: u64,
    held: BTreeMap<ClusterName, Held>,
    /// The last one for which nothing waits, by cluster: what is kept of these may be one or the other.
    unkept: BTreeMap<ClusterName, u64>,
    timers: Timers,
    actions: VecDeque<Action>,
    /// To be closed before the event is done with.
    doomed: VecDeque<(ClientId, CloseReason)>,
}

impl Server {
    /// A service without clients, the first ever.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            sessions: BTreeMap::new(),
            addresses: BTreeMap::new(),
            strangers: 0,
            clusters: BTreeMap::new(),
            holders: BTreeMap::new(),
            past: Past::default(),
            unheard: BTreeMap::new(),
            forget_at: None,
            remembers: 0,
            held: BTreeMap::new(),
            unkept: BTreeMap::new(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            doomed: VecDeque::new(),
        }
    }

    /// A service without clients that begins now, after others which may have ended in any way.
    #[must_use]
    pub fn after(config: Config, remembered: Remembered, now: Instant) -> Self {
        let holders = remembered.holders.clone();
        let past = Past::new(remembered, config.heartbeat_max, now);
        let forget_at = past.until();
        Self { holders, past, forget_at, ..Self::new(config) }
    }

    /// What [`Action::Remember`] is about: all of it is to be kept, in place of what was kept before.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        Remembered { holders: self.holders.clone(), whole: self.past.is_whole() }
    }

    /// Of how many clusters it is known who has the vote. That is kept of one without clients, too, until nobody can cast it any more.
    #[must_use]
    pub fn known_holders(&self) -> usize {
        self.holders.len()
    }

    /// Takes an event in. `now` never goes back.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected { client, address } => self.connected(now, client, address),
            Event::Received { client, bytes } => {
                if let Some(session) = self.sessions.get_mut(&client)
                    && session.tls != Tls::Starting
                {
                    session.inbox.push(&bytes);
                    self.work(now, client);
                }
            }
            Event::Secured { client, names } => self.secured(client, names.as_ref()),
            Event::Sent { client, messages } => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.queued = session.queued.saturating_sub(messages);
                    if session.paused && session.queued < PAUSE_AT {
                        session.paused = false;
                        self.work(now, client);
                    }
                }
            }
            Event::Gone { client, how } => self.doom(client, CloseReason::Gone(how)),
            Event::Remembered { number } => self.release(number),
            Event::Tick => {}
        }
        while let Some((at, client, timer)) = self.timers.take_due(now) {
            if now.duration_since(at) > LATE {
                self.timers.set(client, timer, now + GRACE);
            } else {
                self.expired(now, client, timer);
            }
        }
        while let Some((client, why)) = self.doomed.pop_front() {
            self.close(now, client, why);
        }
        if self.forget_at.is_some_and(|at| at <= now) {
            self.forget(now);
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is wanted, if no other event comes before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.forget_at].into_iter().flatten().min()
    }

    /// What one can see of the clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = ClusterView> {
        self.clusters.iter().map(|(name, cluster)| {
            ClusterView::new(name, cluster, |member| match self.sessions.get(&member.client).map(|s| s.tls) {
                Some(Tls::Up { verified }) => (true, verified),
                Some(Tls::Plain | Tls::Starting) | None => (false, false),
            })
        })
    }

    /// How many connections there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.sessions.len()
    }

    fn connected(&mut self, now: Instant, client: ClientId, address: SocketAddr) {
        let limits = self.config.limits;
        let from_there = self.addresses.get(&address.ip()).copied().unwrap_or_default();
        let refused = if self.sessions.len() >= limits.clients {
            Some(CloseReason::TooManyClients)
        } else if from_there.clients >= limits.clients_per_address {
            Some(CloseReason::TooManyFromAddress)
        } else if self.strangers >= limits.strangers || from_there.strangers >= limits.strangers_per_address {
            Some(CloseReason::TooManyStrangers)
        } else {
            None
        };
        if let Some(why) = refused {
            self.actions.push_back(Action::Close { client, why: why.clone() });
            self.actions.push_back(Action::Tell(Notice::TurnedAway { address, why }));
            return;
        }
        let from_there = FromAddress { clients: from_there.clients + 1, strangers: from_there.strangers + 1 };
        self.addresses.insert(address.ip(), from_there);
        self.strangers += 1;
        self.sessions.insert(client, Box::new(Session::new(address, &self.config, now)));
        self.restart_dead(now, client);
        if let Some(within) = self.config.join_within {
            self.timers.set(client, Timer::Join, now + within);
        }
        self.actions.push_back(Action::Read { client });
    }

    /// Takes messages in while there is room for the answers.
    fn work(&mut self, now: Instant, client: ClientId) {
        loop {
            if self.doomed.iter().any(|(doomed, _)| *doomed == client) {
                return;
            }
            let Some(session) = self.sessions.get_mut(&client) else { return };
            if session.queued >= PAUSE_AT.min(self.config.limits.queued) {
                session.paused = true;
                return;
            }
            let longest = match session.stage {
                Stage::New | Stage::Named { .. } => self.config.limits.stranger_message,
                Stage::Joined { .. } => MAX_MESSAGE,
            };
            match session.inbox.take_up_to(longest) {
                None => {
                    self.actions.push_back(Action::Read { client });
                    return;
                }
                Some(Taken::Skipped(skipped)) => self.skipped(client, skipped),
                Some(Taken::Frame(frame)) => {
                    self.restart_dead(now, client);
                    self.timers.cancel(client, Timer::Answer);
                    self.frame(now, client, &frame);
                    if self.sessions.get(&client).is_some_and(|session| session.tls == Tls::Starting) {
                        return;
                    }
                }
            }
        }
    }

    fn secured(&mut self, client: ClientId, names: Option<&PeerNames>) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let (Tls::Starting, Stage::Named { cluster, .. }) = (session.tls, &session.stage) else { return };
        let verified = names.is_some_and(|names| names.name(cluster));
        if self.config.certificate_needed() && !verified {
            let why = CloseReason::WrongCertificate(cluster.clone());
            self.doom(client, why);
            return;
        }
        session.tls = Tls::Up { verified };
        self.actions.push_back(Action::Read { client });
    }

    fn expired(&mut self, now: Instant, client: ClientId, timer: Timer) {
        match timer {
            Timer::Dead => self.doom(client, CloseReason::Dead),
            Timer::Answer => self.doom(client, CloseReason::Silent),
            Timer::Join => self.doom(client, CloseReason::NeverJoined),
            Timer::Algorithm => {
                let Some((name, node)) = self.sessions.get(&client).and_then(|session| session.member()) else {
                    return;
                };
                if let Some(cluster) = self.clusters.get_mut(&name) {
                    cluster.timer(now, node);
                }
                self.carry_out(now, &name);
            }
        }
    }

    fn restart_dead(&mut self, now: Instant, client: ClientId) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        session.heard = now;
        if let Some(after) = self.config.dead_after(session.heartbeat) {
            self.timers.set(client, Timer::Dead, now + after);
        }
    }

    fn send(&mut self, client: ClientId, bytes: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if session.queued >= self.config.limits.queued {
            self.doom(client, CloseReason::SlowReader);
            return;
        }
        session.queued += 1;
        if let Stage::Joined { cluster, .. } = &session.stage
            && let Some(held) = self.held.get_mut(cluster)
        {
            held.messages.push((client, bytes));
        } else {
            self.actions.push_back(Action::Send { client, bytes });
        }
    }

    fn doom(&mut self, client: ClientId, why: CloseReason) {
        self.doomed.push_back((client, why));
    }

    fn close(&mut self, now: Instant, client: ClientId, why: CloseReason) {
        let Some(session) = self.sessions.remove(&client) else { return };
        self.timers.cancel_all(client);
        let ip = session.address.ip();
        match self.addresses.get_mut(&ip) {
            Some(from_there) if from_there.clients > 1 => from_there.clients -= 1,
            Some(_) | None => {
                self.addresses.remove(&ip);
            }
        }
        let ours = !matches!(why, CloseReason::Gone(_));
        if ours {
            self.actions.push_back(Action::Close { client, why: why.clone() });
        }
        let Some((name, node)) = session.member() else {
            self.no_stranger(ip);
            if ours {
                self.actions.push_back(Action::Tell(Notice::TurnedAway { address: session.address, why }));
            }
            return;
        };
        let casts_until = match why {
            CloseReason::Gone(Ending::Farewell) => None,
            CloseReason::Gone(Ending::Killed) => Some(now + KILLED_COMES_BACK),
            // Who is cut off hears of nothing that is done here.
            CloseReason::Gone(Ending::Broken)
            | CloseReason::Dead
            | CloseReason::Silent
            | CloseReason::SlowReader
            | CloseReason::TooManyClients
            | CloseReason::TooManyFromAddress
            | CloseReason::TooManyStrangers
            | CloseReason::NeverJoined
            | CloseReason::UnknownCluster(_)
            | CloseReason::WrongCertificate(_)
            | CloseReason::NoTlsHere
            | CloseReason::PlainText(_)
            | CloseReason::SecondIntroduction => Some(session.heard + believes(session.heartbeat)),
        };
        self.actions.push_back(Action::Tell(Notice::Left { cluster: name.clone(), node, why }));
        let Some(cluster) = self.clusters.get_mut(&name) else { return };
        cluster.leave(now, node, casts_until);
        self.carry_out(now, &name);
        if self.clusters.get(&name).is_some_and(Cluster::is_empty)
            && let Some(Cluster { unheard, .. }) = self.clusters.remove(&name)
        {
            if let Some(unheard) = unheard {
                self.keep_unheard(name, unheard);
            }
            let soon = now + FORGETS_EVERY;
            self.forget_at = Some(self.forget_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Of a cluster without clients, this and who had its vote is kept, for as long as it matters.
    fn keep_unheard(&mut self, name: ClusterName, unheard: Box<Unheard>) {
        if self.unheard.len() >= self.config.limits.clients {
            // Each was a cluster with a vote, some minutes ago at most: there are fewer.
            self.unheard.pop_first();
        }
        self.unheard.insert(name, unheard);
    }

    /// Of a cluster without clients whose vote nobody can cast any more nothing has to be known, by this process or by the next.
    fn forget(&mut self, now: Instant) {
        self.unheard.retain(|_, unheard| unheard.until().is_some_and(|until| until > now));
        let past = self.past.until_after(now);
        if past.is_none() {
            let (clusters, held, unheard) = (&self.clusters, &self.held, &self.unheard);
            let matters = |name: &ClusterName| {
                clusters.contains_key(name) || held.contains_key(name) || unheard.contains_key(name)
            };
            self.holders.retain(|name, _| matters(name));
        }
        let next = self.unheard.values().filter_map(|unheard| unheard.until()).chain(past).min();
        self.forget_at = next.map(|at| at.max(now + FORGETS_EVERY));
    }

    /// One fewer that has not joined a cluster.
    fn no_stranger(&mut self, ip: IpAddr) {
        self.strangers = self.strangers.saturating_sub(1);
        if let Some(from_there) = self.addresses.get_mut(&ip) {
            from_there.strangers = from_there.strangers.saturating_sub(1);
        }
    }

    /// Does what a cluster wants done.
    fn carry_out(&mut self, now: Instant, name: &ClusterName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        for output in cluster.outputs() {
            match output {
                Output::Vote { client, seq, ring, vote } => self.vote_info(client, seq, ring, vote),
                Output::Timer { client, after: Some(after) } => self.timers.set(client, Timer::Algorithm, now + after),
                Output::Timer { client, after: None } => self.timers.cancel(client, Timer::Algorithm),
                Output::Doubt { client, ring } => self.ask_for_life(now, client, ring),
                Output::Moved { node, from, to, reason } => {
                    self.actions.push_back(Action::Tell(Notice::Moved {
                        cluster: name.clone(),
                        node,
                        from,
                        to,
                        reason,
                    }));
                }
                Output::Hold(holder) => {
                    self.past.superseded(now, name);
                    self.remember(name, holder);
                }
                Output::Expect(holder) => self.remember(name, holder),
                Output::Chosen { partition, by } => {
                    self.actions.push_back(Action::Tell(Notice::Chosen { cluster: name.clone(), partition, by }));
                }
            }
        }
    }

    /// Who has a cluster's vote from now on, or may have it next.
    fn remember(&mut self, name: &ClusterName, holder: Holder) {
        if self.holders.len() >= self.config.limits.clients && !self.holders.contains_key(name) {
            // There are fewer clusters with clients than there may be clients.
            let (clusters, held) = (&self.clusters, &self.held);
            self.holders.retain(|name, _| clusters.contains_key(name) || held.contains_key(name));
        }
        // Only what surely is kept spares a wait.
        let known = !self.held.contains_key(name) && !self.unkept.contains_key(name);
        let covered = known && self.holders.get(name).is_some_and(|kept| kept.covers(&holder));
        self.holders.insert(name.clone(), holder);
        self.remembers += 1;
        if covered {
            self.unkept.insert(name.clone(), self.remembers);
        } else {
            self.unkept.remove(name);
            self.held.entry(name.clone()).or_default().number = self.remembers;
        }
        self.actions.push_back(Action::Remember { number: self.remembers, urgent: !covered });
    }

    /// It is kept: what waited for that goes out.
    fn release(&mut self, number: u64) {
        self.unkept.retain(|_, unkept| *unkept > number);
        let (kept, held) = std::mem::take(&mut self.held).into_iter().partition(|(_, held)| held.number <= number);
        self.held = held;
        let kept: BTreeMap<ClusterName, Held> = kept;
        for (client, bytes) in kept.into_values().flat_map(|held| held.messages) {
            if self.sessions.contains_key(&client) {
                self.actions.push_back(Action::Send { client, bytes });
            }
        }
    }

    fn vote_info(&mut self, client: ClientId, seq: u32, ring: RingId, vote: Vote) {
        let options = vec![Opt::Seq(seq), Opt::Vote(vote), Opt::RingId(ring)];
        self.send(client, Message::new(MessageKind::VoteInfo, options).encode());
    }

    /// A VOTE_INFO that changes nothing is answered at once by whoever is there.
    fn ask_for_life(&mut self, now: Instant, client: ClientId, ring: RingId) {
        let Some(within) = self.config.answer_within else { return };
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if self.timers.is_set(client, Timer::Answer) {
            return;
        }
        session.asked = session.asked.wrapping_add(1) | SIGN_OF_LIFE;
        let seq = session.asked;
        self.timers.set(client, Timer::Answer, now + within);
        self.vote_info(client, seq, ring, Vote::NoChange);
    }
}

/// A timer that is found run out so long ago says that this machine stood still, not that a peer was silent: its answer may
/// lie in the socket.
const LATE: Duration = Duration::from_millis(250);

/// How long such a peer has once more.
const GRACE: Duration = Duration::from_millis(500);

/// A client that was killed is started again by its service manager within a tenth of a second, and joins at once. Until
/// it does, the node's Corosync counts its last vote, up to ten seconds long; a node that died whole isn't waited for as
/// long as that.
const KILLED_COMES_BACK: Duration = Duration::from_secs(5);

/// Thousands of clusters that lose their clients at once are looked at together.
const FORGETS_EVERY: Duration = Duration::from_secs(1);

/// With so many answers under way a client's further messages wait: half of what may be queued, so that votes which
/// nobody asked for find room.
const PAUSE_AT: usize = 16;
