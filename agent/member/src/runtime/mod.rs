//! The loop of a member: it owns the core, feeds it messages, requests, time and what the disk and the machine report,
//! and carries out what the core asks for. It decides nothing.

mod disk;
#[cfg(test)]
mod full_tests;
mod keeper;
mod rejoining;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_consensus::{Body, Config as RaftConfig, Raft, RaftId, Rank, Snapshot, StartError};
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::node;
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::rules::Rules;
use tiebreaker_pipeline::state::{State, StateError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::clock::{self, LOOK_AT_WALL_EVERY, WallWatch};
use crate::core::{Action, Core, CoreConfig, Message, Moment, Origin, Reply, Request, RequestId, Surroundings};
use crate::identity::{self, Identity, Roster, TrustedTime};
use crate::link::{
    self, Acceptor, Address, Incoming, JoinReply, JoinRequest, Lane, LinkConfig, LinkError, Links, MemberEntry,
    PathState, PeerTable, Requester, Route, Timing,
};
use crate::store::{Aside, RaftStore, StoreError};
use disk::{Disk, Writer};
use keeper::Keeper;
use rejoining::Silence;

/// Who was heard within this time counts as heard.
const HEARD_WITHIN: Duration = Duration::from_millis(1200);
/// The links are asked this often who was heard.
const HEARD_EVERY: Duration = Duration::from_millis(250);
/// Events of the shell under way at most.
const EVENTS_MAX: usize = 1024;
/// Requests under way at most.
const REQUESTS_MAX: usize = 256;

/// Why a member stopped, or couldn't start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Consensus refuses what is stored.
    #[error("the store can't be used: {0}")]
    Start(#[from] StartError),
    /// The state in the store.
    #[error("the state in the store can't be used: {0}")]
    State(#[from] StateError),
    /// The links.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The core gave up.
    #[error("this member must stop: {why}")]
    Stop {
        /// Why, with the way out.
        why: String,
    },
    /// A part of the daemon around the member ended.
    #[error("a task of this member ended by itself: {why}")]
    Task {
        /// What is known.
        why: String,
    },
    /// The store is empty: the member never joined.
    #[error("{path} holds no state: join a cluster first")]
    Empty {
        /// Where.
        path: PathBuf,
    },
}

/// What a member is started with.
pub struct MemberConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// The member's name.
    pub name: MemberName,
    /// Its number in consensus.
    pub raft_id: u64,
    /// Its store's file.
    pub store: PathBuf,
    /// Its identity.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// Time for certificates.
    pub time: TrustedTime,
    /// Local address for outgoing connections.
    pub source: Option<IpAddr>,
    /// On nodes, what the agent brings along.
    pub node: Option<node::NodeConfig>,
    /// True on the appliance.
    pub fences: bool,
}

/// Something that the shell tells the member.
#[derive(Debug)]
pub enum Tell {
    /// The executor or the watchdog.
    Node(node::Event),
    /// A power device.
    Device(u64, DeviceResult),
    /// An operator's request.
    Request(Box<Request>, oneshot::Sender<Reply>),
    /// What the daemon knows beside the cluster.
    Surroundings(Surroundings),
    /// A snapshot for a joiner.
    Snapshot(oneshot::Sender<Option<Snapshot>>),
}

/// Something that the member wants of the shell.
#[derive(Debug)]
pub enum Want {
    /// Of the executor or the watchdog.
    Node(node::Action),
    /// Of a power device.
    Device {
        /// Names the command.
        token: u64,
        /// Whose device.
        node: MemberName,
        /// Which one.
        device: String,
        /// What to do.
        command: DeviceCommand,
    },
    /// Somebody wants to join; the appliance alone can let it.
    Join {
        /// From where.
        from: std::net::SocketAddr,
        /// What it sent.
        request: JoinRequest,
        /// Where the answer goes.
        reply: JoinReply,
    },
    /// A member wants a new certificate; the appliance alone can sign it.
    Renewal {
        /// Who.
        from: identity::PeerId,
        /// The certificate request.
        csr: Vec<u8>,
        /// Where the answer goes.
        reply: oneshot::Sender<Reply>,
    },
}

/// The way to a running member.
#[derive(Clone)]
pub struct MemberHandle {
    tell: mpsc::Sender<Tell>,
    state: watch::Receiver<Arc<State>>,
    links: Arc<Links>,
}

impl MemberHandle {
    /// The applied state.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Health of the paths to the other members.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<MemberName, link::PeerPaths> {
        self.links.paths()
    }

    /// Whether a member was heard just now, by any path.
    #[must_use]
    pub fn hears(&self, name: &MemberName) -> bool {
        self.links.paths().get(name).is_some_and(|paths| recent(&paths.direct) || recent(&paths.relay))
    }

    /// Tells the member something; waits while it is busy. False once it has stopped.
    pub async fn tell(&self, what: Tell) -> bool {
        self.tell.send(what).await.is_ok()
    }

    /// Asks the cluster on behalf of a local operator; `by` says who that is.
    pub async fn ask_for_operator(&self, request: Request, by: String) -> Reply {
        match request.permitted(Origin::Operator) {
            Ok(()) => self.ask(request.signed(by)).await,
            Err(why) => Reply::Refused { why },
        }
    }

    /// Asks the cluster on behalf of this daemon.
    pub async fn ask(&self, request: Request) -> Reply {
        let (answer, answered) = oneshot::channel();
        let gone = || Reply::NoLeader { why: "this daemon is stopping".into() };
        if !self.tell(Tell::Request(Box::new(request), answer)).await {
            return gone();
        }
        answered.await.unwrap_or_else(|_| gone())
    }

    /// A snapshot of everything applied, for a joiner.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        if !self.tell(Tell::Snapshot(answer)).await {
            return None;
        }
        answered.await.ok().flatten()
    }
}

/// A member, ready to run.
pub struct Member {
    core: Core,
    links: Arc<Links>,
    incoming: mpsc::Receiver<Incoming>,
    disk: Writer,
    store: PathBuf,
    keeper: Keeper,
    told: mpsc::Receiver<Tell>,
    wants: mpsc::Sender<Want>,
    state: watch::Sender<Arc<State>>,
    peers: watch::Sender<Arc<PeerTable>>,
    time: TrustedTime,
    wall: WallWatch,
    requests: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    next_request: u64,
    /// How long nobody has heard the appliance.
    silence: Silence,
}

fn moment() -> Moment {
    Moment { now: clock::now(), wall_ms: clock::wall_ms() }
}

impl Member {
    /// The same with a lower highest feature level than this program's: so an update that may be taken back raises no
    /// cluster's above what the former version knows.
    #[must_use]
    pub fn knowing_at_most(mut self, level: Level) -> Self {
        self.core = self.core.knowing(level.min(Level::KNOWN));
        self
    }

    /// Opens the store and starts the links.
    ///
    /// # Errors
    /// [`MemberError`] where the store is damaged or in use, or the links can't start.
    pub fn open(
        config: MemberConfig,
        acceptor: &Acceptor,
    ) -> Result<(Self, MemberHandle, mpsc::Receiver<Want>), MemberError> {
        let (store, stored) = RaftStore::open(&config.store)?;
        let Some(stored) = stored else {
            return Err(MemberError::Empty { path: config.store });
        };
        let state = match &stored.snapshot {
            Some(snapshot) => {
                let mut state = State::decode(&snapshot.state)?;
                state.applied = snapshot.index;
                state
            }
            None => return Err(MemberError::Empty { path: config.store }),
        };
        let last_index = stored.last_index();
        // What this voter promised before it stopped was counted in ticks of a profile that may have changed since.
        let tick = Profile::ALL.into_iter().map(Profile::tick).max().unwrap_or(state.settings.profile.tick());
        let rank = Rank::new(2, 3).expect("two is below three");
        let seed = config.raft_id ^ moment().now.raw_ns;
        let raft_id = RaftId(config.raft_id);
        let raft = Raft::new(RaftConfig::new(raft_id, rank, seed, tick), stored, clock::now())?;
        let node = config.node.map(|node| node::Node::new(clock::now(), node));
        config.time.floor().raise(state.newest_ms / 1000);
        let (keeper, kept) = Keeper::start(&config.store);
        let core = Core::new(
            moment(),
            CoreConfig {
                name: config.name.clone(),
                raft_id,
                raft,
                state,
                last_index,
                node,
                fences: config.fences,
                rules: Rules::ALL,
            },
        )
        .remembering(kept);
        let (peers, peers_rx) = watch::channel(Arc::new(peer_table(core.state())));
        let link_config = LinkConfig {
            identity: config.identity,
            time: config.time.clone(),
            source: config.source,
            timing: Timing::default(),
        };
        let (links, incoming) = Links::start(link_config, acceptor, peers_rx)?;
        let links = Arc::new(links);
        let (state, state_rx) = watch::channel(Arc::new(core.state().clone()));
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let (wants, wants_rx) = mpsc::channel(EVENTS_MAX);
        let handle = MemberHandle { tell, state: state_rx, links: Arc::clone(&links) };
        let member = Self {
            core,
            links,
            incoming,
            disk: Writer::start(store),
            store: config.store,
            keeper,
            told,
            wants,
            state,
            peers,
            time: config.time,
            wall: WallWatch::default(),
            requests: BTreeMap::new(),
            next_request: 1,
            silence: Silence::default(),
        };
        Ok((member, handle, wants_rx))
    }

    /// Runs until the core or the disk gives up, or every shell has gone.
    ///
    /// # Errors
    /// Why it stopped.
    pub async fn run(mut self) -> Result<(), MemberError> {
        let mut heard = tokio::time::interval(HEARD_EVERY);
        heard.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wall = tokio::time::interval(LOOK_AT_WALL_EVERY);
        wall.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.carry_out().await?;
            let now = clock::now();
            let left = self.core.poll_timeout().map_or(HEARD_EVERY, |at| now.left_until(at));
            tokio::select! {
                done = self.disk.done() => match done? {
                    Disk::Written(number) => self.core.persisted(moment(), number),
                    Disk::Full(what) => {
                        error!(what, "the disk is full: this member takes no part in decisions until there is room");
                        self.core.disk_full(moment(), Some(what));
                    }
                    Disk::Room => {
                        info!("the disk has room again");
                        self.core.disk_full(moment(), None);
                    }
                },
                Some(incoming) = self.incoming.recv() => self.take(incoming).await,
                told = self.told.recv() => match told {
                    Some(tell) => self.told(tell),
                    None => return Ok(()),
                },
                _ = heard.tick() => self.hear(),
                _ = wall.tick() => self.look_at_wall(),
                () = tokio::time::sleep(left) => {}
            }
            self.core.advance(moment());
        }
    }

    fn hear(&mut self) {
        let heard: BTreeSet<MemberName> = self
            .links
            .paths()
            .into_iter()
            .filter(|(_, paths)| recent(&paths.direct) || recent(&paths.relay))
            .map(|(name, _)| name)
            .collect();
        self.note_appliance(&heard);
        self.core.hears(moment(), heard);
    }

    fn look_at_wall(&mut self) {
        let moment = moment();
        let news = self.wall.look(moment.wall_ms, moment.now);
        if let Some(fault) = news {
            warn!("this machine's wall clock is wrong: {fault}");
        }
        self.core.clock_seen(moment, news, self.wall.fault(moment.now));
        self.core.journal_kept(moment, self.keeper.fault());
    }

    async fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message { from, raft_id, bytes, .. } => {
                let message: Result<Message, _> = cbor4ii::serde::from_slice(&bytes[..]);
                match message {
                    Ok(message) if message.number().is_some_and(|number| Some(number) != raft_id) => {
                        warn!(member = %from.name, ?raft_id, "a member claims another number than its certificate says");
                    }
                    Ok(message) => self.core.message(moment(), &from.name, message),
                    Err(error) => warn!(member = %from.name, %error, "a member's message can't be decoded"),
                }
            }
            Incoming::NewerEpoch { from, raft_id, epoch } => {
                self.core.newer_epoch(moment(), &from.name, raft_id, epoch);
            }
            // The authority asks for one thing alone, and nobody else may.
            Incoming::Request { from: Requester::Certified(from), bytes, reply }
                if from.role == identity::Role::Authority =>
            {
                self.rejoin(&bytes, reply);
            }
            Incoming::Request { from, bytes, reply } => {
                let request: Result<Request, _> = cbor4ii::serde::from_slice(&bytes[..]);
                match (request, from) {
                    (Ok(Request::RenewCertificate { csr }), Requester::Certified(from)) => {
                        let (answer, answered) = oneshot::channel();
                        self.want(Want::Renewal { from, csr, reply: answer }).await;
                        send_reply(answered, reply);
                    }
                    (Ok(request), Requester::Certified(from)) => match self.permitted(&request, &from) {
                        Ok(()) => {
                            let request = request.signed(Requester::Certified(from.clone()).to_string());
                            let (answer, answered) = oneshot::channel();
                            self.request(request, answer);
                            send_reply(answered, reply);
                        }
                        Err(why) => {
                            let (answer, answered) = oneshot::channel();
                            let _ = answer.send(Reply::Refused { why });
                            send_reply(answered, reply);
                        }
                    },
                    // Local requests come through the daemon's own socket, never through the links.
                    (Ok(_), Requester::Local { .. }) => {}
                    (Err(error), _) => {
                        let text =
                            format!("the request can't be decoded ({error}): is your tiebreaker of another version?");
                        // The client may have gone.
                        tokio::spawn(async move { reply.fail(text).await });
                    }
                }
            }
            Incoming::Join { from, request, reply } => self.want(Want::Join { from, request, reply }).await,
        }
    }

    /// What the holder of a certificate may ask.
    fn permitted(&self, request: &Request, from: &identity::PeerId) -> Result<(), String> {
        let reads =
            matches!(request, Request::Status | Request::Log { .. } | Request::Why { .. } | Request::Journal { .. });
        match from.role {
            // A certificate alone is not enough: an operator that was removed keeps it until it expires.
            identity::Role::Operator if !self.core.state().operators.contains_key(from.name.as_str()) => {
                Err(format!("{} is no operator of this cluster any more", from.name))
            }
            identity::Role::Operator => request.permitted(Origin::Operator),
            identity::Role::Observer | identity::Role::Node | identity::Role::Appliance if reads => Ok(()),
            identity::Role::Observer
            | identity::Role::Node
            | identity::Role::Appliance
            | identity::Role::FenceClient
            | identity::Role::Authority => {
                Err(format!("a certificate of the role {} may not ask for this: use an operator's", from.role))
            }
        }
    }

    fn told(&mut self, tell: Tell) {
        match tell {
            Tell::Node(event) => self.core.node_event(moment(), event),
            Tell::Device(token, result) => self.core.device_done(moment(), token, result),
            Tell::Request(request, answer) => self.request(*request, answer),
            Tell::Surroundings(surroundings) => self.core.surrounded(surroundings),
            Tell::Snapshot(answer) => {
                // A joiner that has gone meanwhile doesn't need it.
                let _ = answer.send(self.core.snapshot());
            }
        }
    }

    fn request(&mut self, request: Request, answer: oneshot::Sender<Reply>) {
        self.requests.retain(|_, waiting| !waiting.is_closed());
        if self.requests.len() >= REQUESTS_MAX {
            let _ = answer.send(Reply::Refused { why: "too many requests are under way: try again".into() });
            return;
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(id, answer);
        self.core.request(moment(), id, request);
    }

    async fn want(&mut self, want: Want) {
        if self.wants.send(want).await.is_err() {
            warn!("the daemon is stopping: an action was dropped");
        }
    }

    async fn carry_out(&mut self) -> Result<(), MemberError> {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { to, message, everywhere } => self.send(&to, &message, everywhere),
                Action::Persist(batch) => self.disk.write(batch).await?,
                Action::Node(action) => self.want(Want::Node(action)).await,
                Action::Device { token, node, device, command } => {
                    self.want(Want::Device { token, node, device, command }).await;
                }
                Action::Reply { request, reply } => {
                    if let Some(answer) = self.requests.remove(&request) {
                        // Who asked may have gone; what was asked is done all the same.
                        let _ = answer.send(reply);
                    }
                }
                Action::Changed => self.changed(),
                Action::SetAside { why } => {
                    error!(%why, "the cluster goes on without this member");
                    if let Err(error) = RaftStore::retire(&self.store, Aside::TakenOver) {
                        // It is told again after a start.
                        error!(%error, "the store can't be set aside");
                    }
                }
                Action::Stop { why, forgot } => {
                    error!(%why, "this member must stop");
                    if forgot && let Err(error) = RaftStore::retire(&self.store, Aside::Forgot) {
                        // Its peers remember for as long as they run: it is found out again.
                        error!(%error, "the store can't be set aside");
                    }
                    return Err(MemberError::Stop { why });
                }
            }
        }
        for line in self.core.fresh_lines() {
            self.keeper.keep(line);
        }
        Ok(())
    }

    fn send(&self, to: &MemberName, message: &Message, everywhere: bool) {
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, message)
            .expect("writing to memory can't fail, and every field is encodable");
        let lane = if bytes.len() <= link::MAX_URGENT && is_urgent(message) { Lane::Urgent } else { Lane::Bulk };
        let route = if everywhere { Route::All } else { Route::Best };
        // Every message may be lost, and every layer above repeats what it needs.
        let _ = self.links.send(to, lane, route, bytes.into());
    }

    fn changed(&mut self) {
        let state = self.core.state();
        self.time.floor().raise(state.newest_ms / 1000);
        let table = peer_table(state);
        self.peers.send_if_modified(|old| {
            let changed = **old != table;
            if changed {
                *old = Arc::new(table);
            }
            changed
        });
        let before = self.state.borrow().applied;
        for line in state.log.iter().filter(|line| line.index > before) {
            info!(index = line.index, "{}", line.decision);
        }
        self.state.send_replace(Arc::new(state.clone()));
    }
}

fn send_reply(answered: oneshot::Receiver<Reply>, reply: link::Reply) {
    tokio::spawn(async move {
        let answer = answered.await.unwrap_or_else(|_| Reply::NoLeader { why: "the daemon is stopping".into() });
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &answer)
            .expect("writing to memory can't fail, and every field is encodable");
        // The client may have gone.
        let _ = reply.only(bytes).await;
    });
}

fn recent(path: &PathState) -> bool {
    match path {
        PathState::Up { last_heard, .. } => *last_heard < HEARD_WITHIN,
        PathState::Down { .. } => false,
    }
}

/// Renewals, answers and what elections hang on go ahead of bulk.
fn is_urgent(message: &Message) -> bool {
    match message {
        Message::Renew(_) | Message::Answer(_) | Message::Recall { .. } | Message::Recalled { .. } => true,
        Message::Consensus { message, .. } => match message.body {
            Body::Append { ref entries, .. } => entries.is_empty(),
            Body::Snapshot(_) => false,
            Body::Heartbeat { .. }
            | Body::HeartbeatResponse { .. }
            | Body::Appended { .. }
            | Body::AppendRefused { .. }
            | Body::RequestVote { .. }
            | Body::Vote { .. }
            | Body::TimeoutNow
            | Body::Ack { .. } => true,
        },
        Message::Ask { .. }
        | Message::Told { .. }
        | Message::Trouble { .. }
        | Message::Clock(_)
        | Message::JournalNotKept { .. }
        | Message::Mark { .. } => false,
    }
}

/// Who the members are, for the links.
fn peer_table(state: &State) -> PeerTable {
    let mut table = PeerTable::default();
    for (name, member) in &state.members {
        let role = identity_role(member.role);
        let addresses = member.addresses.iter().filter_map(|text| text.parse::<Address>().ok()).collect();
        table.members.insert(name.clone(), MemberEntry { role, addresses });
    }
    let mut roster = Roster::default();
    // In which part somebody was a member is not kept, and need not be: no number is used twice, nor a name by two at once.
    for (name, raft_id) in &state.removed {
        for role in [identity::Role::Node, identity::Role::Appliance] {
            roster.remove(role, name.clone(), Some(*raft_id));
        }
    }
    for (name, parted) in &state.parted {
        roster.leave_behind(identity_role(parted.role), name.clone(), parted.raft_id);
    }
    table.epoch = state.epoch;
    table.roster = roster;
    table.newcomers_from = Some(state.next_raft_id);
    table
}

const fn identity_role(role: tiebreaker_pipeline::state::Role) -> identity::Role {
    match role {
        tiebreaker_pipeline::state::Role::Appliance => identity::Role::Appliance,
        tiebreaker_pipeline::state::Role::Node => identity::Role::Node,
    }
}
