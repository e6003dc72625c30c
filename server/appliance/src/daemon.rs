//! The daemon: all clusters behind one port, until a signal or a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_member::ask::{FencedCluster, LocalReply, LocalRequest, QDEVICE_EVENTS_WAIT_S};
use tiebreaker_member::core::Reply;
use tiebreaker_member::errors::chain;
use tiebreaker_member::runtime::{MemberError, MemberHandle};
use tiebreaker_member::service_manager::{ServiceManager, take_kept};
use tiebreaker_member::{Acceptor, Ca, LocalAccess, LocalSocket, TokenBook, trusted_seconds};
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::ClusterName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::asked::Asked;
use crate::audit::Audit;
use crate::backup::{self, finish_or_refuse};
use crate::board::{Guard, run_panel};
use crate::cluster::Cluster;
use crate::config::{ClusterConfig, Config};
use crate::desk::Hand;
use crate::devices::Devices;
use crate::door::{Door, Opening};
use crate::figures::Figures;
use crate::hardening::keep_memory_private;
use crate::joins::{Gate, SharedGate};
use crate::layout::{Layout, unix_seconds};
use crate::local::{self, LocalAsk};
use crate::mdns::Announcer;
use crate::qdevice::{
    Arrived, ControlSettings, ControlSocket, Engine, Events, HolderFile, Invitations, InvitedAlgorithm, OnShutdown,
    Questions, serve_metrics,
};
use crate::rejoin::{Pending, Rejoin, Twin};
use crate::secrets;
use crate::status_page;
use crate::stopped::StoppedClusters;
use crate::sys::give_start_back;

/// What a socket unit calls the port of the clusters (`FileDescriptorName=`).
const CLUSTER_PORT: &str = "cluster";

/// Descriptors that the service manager may hand over: QDevice clients, and a few ports.
const MOST_KEPT: usize = 20_000;

/// Between two tries to open the door of a Corosync cluster.
const DOORS_AGAIN: Duration = Duration::from_secs(10);

/// A restored appliance looks for another one for so long before it serves anybody.
const TWIN_WITHIN: Duration = Duration::from_secs(15);

const NO_QDEVICE: &str = "this appliance serves no QDevice clients: add [qdevice] to server.toml";

/// What the daemon asks of a running cluster.
#[derive(Clone)]
struct Served {
    member: MemberHandle,
    devices: Devices,
}

struct Daemon {
    layout: Layout,
    config: Config,
    gate: SharedGate,
    acceptor: Acceptor,
    clusters: BTreeMap<ClusterName, Served>,
    /// Those of Corosync whose nodes are fenced from here.
    doors: BTreeMap<ClusterName, Door>,
    /// When those are tried again that can't be opened.
    doors_again: Option<Instant>,
    audit: Audit,
    stopped: StoppedClusters,
    /// Those into which a restored appliance is not back yet, and what is in the way.
    waiting: BTreeMap<ClusterName, watch::Receiver<String>>,
    rejoins: JoinSet<(ClusterName, Result<(), Twin>)>,
    failures: JoinSet<(ClusterName, MemberError)>,
    /// The QDevice service, if it is wanted.
    votes: JoinSet<Result<()>>,
    questions: Option<Questions>,
    events: Events,
    invitations: Option<Invitations>,
    /// What the port for figures shows of the clusters.
    figures: Figures,
    /// The highest feature level that clusters may get while this version is on trial.
    most_level: Option<Level>,
    manager: Option<ServiceManager>,
}

/// Runs until SIGTERM or SIGINT, or until no cluster is left. No cluster gets a higher feature level than `most_level`, if one
/// is given.
///
/// # Errors
/// What stopped it.
pub async fn run(layout: Layout, most_level: Option<Level>) -> Result<()> {
    keep_memory_private()?;
    finish_or_refuse(&layout)?;
    let config = Config::load(&layout.config())?;
    let gate = Arc::new(Gate::new(Ca::load(layout.root())?, TokenBook::open(layout.root())?));
    let (socket, incoming) = LocalSocket::start(&layout.socket(), LocalAccess::default())?;
    let manager = ServiceManager::from_env();
    let mut kept = take_kept(MOST_KEPT).context("taking over what the service manager kept")?;
    let arrived = Arrived::take(&mut kept, manager.as_ref());
    refuse_twin(&layout, &config, &gate).await?;
    let ports = kept.into_iter().filter(|(name, _)| name == CLUSTER_PORT).map(|(_, fd)| fd.into());
    let acceptor = Acceptor::bind_or_take(&config.listen, ports.collect()).await?;
    let mut votes = JoinSet::new();
    let mut questions = None;
    let events = Events::new();
    let figures = Figures::default();
    if let Some(settings) = &config.qdevice {
        let pki = settings.folder(layout.root())?.open_or_make()?;
        if let Some(ends) = pki.ends() {
            events.certificate(None, None, ends);
        }
        let holders = HolderFile::in_folder(layout.root());
        let (engine, ask) = Engine::bind(settings, &pki, events.clone(), holders, arrived).await?;
        for address in &settings.metrics_listen {
            votes.spawn(serve_metrics(*address, ask.clone(), events.clone(), figures.clone()).await?);
        }
        let clock = events.clone();
        votes.spawn(async move {
            clock.watch_clock().await;
            Ok(())
        });
        info!(listen = ?engine.addresses(), "the QDevice service is up");
        if let Some(path) = &settings.control_socket {
            let control = ControlSettings::at(path.clone());
            let stays = OnShutdown::Refuse("the appliance serves the votes: systemctl stop tiebreaker-server ends it");
            let control = ControlSocket::bind(control, settings, engine.addresses(), ask.clone(), stays)?;
            votes.spawn(control.run());
        }
        questions = Some(ask);
        votes.spawn(engine.run());
    }
    let (audit, scribe) = Audit::start(layout.root());
    let mut daemon = Daemon {
        layout,
        config,
        gate,
        acceptor,
        clusters: BTreeMap::new(),
        doors: BTreeMap::new(),
        doors_again: None,
        audit,
        stopped: StoppedClusters::default(),
        waiting: BTreeMap::new(),
        rejoins: JoinSet::new(),
        failures: JoinSet::new(),
        votes,
        questions,
        events,
        invitations: None,
        figures,
        most_level,
        manager: manager.clone(),
    };
    let names = daemon.layout.clusters()?;
    for name in daemon.config.unknown_clusters(&names) {
        warn!(cluster = %name, "configured, but it does not exist: `tiebreaker-server token create --cluster {name}` creates it");
    }
    let mut broken = 0;
    for name in names {
        if Pending::exists(&daemon.layout, &name) {
            daemon.rejoin(&name);
        } else if let Err(error) = daemon.start(&name) {
            // The other clusters must not suffer for this one.
            error!(cluster = %name, "the cluster can't be started: {error:#}");
            daemon.stopped.stopped(Instant::now(), name, format!("{error:#}"), false);
            broken += 1;
        }
    }
    daemon.open_doors();
    // With a QDevice service there is still something to serve.
    if broken > 0 && daemon.serves_nobody() {
        bail!("none of the {broken} cluster(s) can be started");
    }
    info!(clusters = daemon.clusters.len(), listen = ?daemon.acceptor.local_addrs(), "tiebreaker-server is up");
    let (asks, asked) = mpsc::channel(64);
    // Nothing rests on the name: without it the rest works all the same.
    let announcer = daemon.config.mdns.as_ref().and_then(|name| {
        Announcer::start(name, &daemon.config.status_listen, daemon.acceptor.local_addrs())
            .inspect_err(|error| warn!("no name on the network: {error:#}"))
            .ok()
    });
    let page = status_page::Appliance {
        name: daemon.config.name.to_string(),
        addresses: daemon.config.addresses.clone(),
        layout: daemon.layout.clone(),
        mdns: announcer.as_ref().map(Announcer::name),
    };
    let page = status_page::start(&daemon.config.status_listen, page, asks.clone());
    let serving = tokio::spawn(local::serve(incoming, asks));
    give_start_back();
    daemon.tell_stopped();
    if let Some(manager) = &manager {
        manager.ready().context("telling the service manager that the daemon is up")?;
    }
    let board = daemon.config.board.clone();
    let guard = board.watchdogs.clone().map(|watchdogs| Guard::start(watchdogs, daemon.layout.socket()));
    let prover = match &manager {
        Some(manager) => manager
            .proof_within()
            .context("proving to the service manager that the daemon works")?
            .map(|every| Guard::prove(manager.clone(), every, daemon.layout.socket())),
        None => None,
    };
    let panel = board.has_panel().then(|| tokio::spawn(run_panel(board, daemon.layout.socket())));
    let result = daemon.serve(asked).await;
    for guard in guard.into_iter().chain(prover) {
        guard.end().await;
    }
    if let Some(panel) = panel {
        panel.abort();
    }
    serving.abort();
    drop(page);
    if let Some(announcer) = announcer {
        announcer.end().await;
    }
    if let (Ok(()), Some(questions), Some(manager)) = (&result, &daemon.questions, &manager)
        && let Some(leaving) = questions.hand_over().await
        && let Err(error) = tokio::task::block_in_place(|| leaving.store(manager))
    {
        warn!("QDevice clients will have to come again: {error:#}");
    }
    tokio::task::block_in_place(|| scribe.finish());
    drop(socket);
    result
}

impl Daemon {
    fn start(&mut self, name: &ClusterName) -> Result<()> {
        let config = ClusterConfig { most_level: self.most_level, ..self.config.cluster(name) };
        let mut cluster =
            Cluster::start(&self.layout, name, &self.config.name, config, &self.gate, &self.acceptor, &self.audit)?;
        let served = Served { member: cluster.member.clone(), devices: cluster.devices.clone() };
        self.figures.started(name, &served.member);
        self.clusters.insert(name.clone(), served);
        self.stopped.started(Instant::now(), name);
        let name = name.clone();
        self.failures.spawn(async move { (name, cluster.failed().await) });
        Ok(())
    }

    fn serves_nobody(&self) -> bool {
        self.clusters.is_empty() && self.votes.is_empty() && self.doors.is_empty() && self.waiting.is_empty()
    }

    /// Begins to ask the nodes of a cluster to let the restored appliance in again.
    fn rejoin(&mut self, name: &ClusterName) {
        let (rejoin, why) = rejoin_of(&self.layout, &self.config, &self.gate, name);
        self.waiting.insert(name.clone(), why);
        let name = name.clone();
        self.rejoins.spawn(async move { (name, rejoin.run().await) });
    }

    /// Why a cluster does not run, if it exists.
    fn absence(&self, name: &ClusterName) -> Option<String> {
        if let Some(why) = self.waiting.get(name) {
            let why = why.borrow();
            return Some(format!(
                "this appliance was restored from a backup and is not back in cluster {name} yet: {}",
                *why
            ));
        }
        self.stopped.word(Instant::now(), name)
    }

    /// Tells the service manager which clusters don't run: one that updates this machine goes by it.
    fn tell_stopped(&self) {
        if let Some(manager) = &self.manager
            && let Err(error) = manager.stopped(&self.stopped.names())
        {
            warn!("the service manager isn't told which clusters don't run: {error}");
        }
    }

    /// Opens the doors of Corosync clusters that aren't open. What keeps one shut is told once and tried again: mostly the date
    /// isn't known yet.
    fn open_doors(&mut self) {
        let again = self.doors_again.take().is_some();
        for (name, settings) in &self.config.corosync {
            if self.doors.contains_key(name) {
                continue;
            }
            let opening = Opening {
                layout: &self.layout,
                appliance: &self.config.name,
                name,
                settings,
                gate: &self.gate,
                acceptor: &self.acceptor,
                audit: &self.audit,
                votes: self.questions.as_ref(),
            };
            match opening.open() {
                Ok(door) => {
                    self.doors.insert(name.clone(), door);
                }
                Err(error) => {
                    if !again {
                        error!(cluster = %name, "the nodes of a Corosync cluster can't be fenced from here: {error:#}");
                    }
                    self.doors_again = Some(Instant::now() + DOORS_AGAIN);
                }
            }
        }
    }

    async fn serve(&mut self, mut asked: mpsc::Receiver<LocalAsk>) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        loop {
            let next = self.stopped.next();
            let doors = self.doors_again;
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                Some(ask) = asked.recv() => self.answer(ask).await,
                Some(ended) = self.votes.join_next() => {
                    ended.context("the QDevice service has ended by itself")?.context("the QDevice service has stopped")?;
                }
                Some(back) = self.rejoins.join_next() => {
                    let (name, result) = back.context("the way back into a cluster ended by itself")?;
                    result.with_context(|| is_twin(&name))?;
                    self.waiting.remove(&name);
                    if let Err(error) = self.start(&name) {
                        error!(cluster = %name, "the cluster can't be started: {error:#}");
                        self.stopped.stopped(Instant::now(), name, format!("{error:#}"), false);
                    }
                }
                Some(failed) = self.failures.join_next() => {
                    let (name, why) = failed.context("a cluster's task ended by itself")?;
                    error!(cluster = %name, "the cluster has stopped: {why}");
                    self.clusters.remove(&name);
                    self.figures.stopped(&name);
                    if self.serves_nobody() {
                        bail!("no cluster is left; the last one, {name}, stopped: {why}");
                    }
                    // It said itself that it can't go on under its number.
                    let final_word = matches!(why, MemberError::Stop { .. });
                    self.stopped.stopped(Instant::now(), name, why.to_string(), final_word);
                    self.tell_stopped();
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.start_again(),
                () = sleep_until(doors.unwrap_or_else(Instant::now)), if doors.is_some() => self.open_doors(),
            }
        }
    }

    /// Starts those whose time has come.
    fn start_again(&mut self) {
        for name in self.stopped.due(Instant::now()) {
            match self.start(&name) {
                Ok(()) => info!(cluster = %name, "the cluster runs again"),
                Err(error) => {
                    warn!(cluster = %name, "the cluster can't be started again: {error:#}");
                    self.stopped.stopped(Instant::now(), name, format!("{error:#}"), false);
                }
            }
        }
        self.tell_stopped();
    }

    async fn answer(&mut self, ask: LocalAsk) {
        let LocalAsk { request, by, answer } = ask;
        let refused = |why: String| LocalReply::Refused { why };
        let reply = match request {
            LocalRequest::Clusters => {
                LocalReply::Clusters { names: self.clusters.keys().map(ToString::to_string).collect() }
            }
            LocalRequest::Qdevice => match &self.questions {
                Some(questions) => {
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        let reply = match questions.status().await {
                            Some(clusters) => LocalReply::Qdevice { clusters },
                            None => LocalReply::Refused { why: "the QDevice service is stopping".into() },
                        };
                        let _ = answer.send(reply);
                    });
                    return;
                }
                None => refused(NO_QDEVICE.into()),
            },
            LocalRequest::QdeviceInvite { cluster, algorithm, host, ttl_s } => {
                match self.invite(&cluster, &algorithm, host, ttl_s).await {
                    Ok(reply) => reply,
                    Err(error) => refused(format!("{error:#}")),
                }
            }
            LocalRequest::QdeviceEvents { run, after, wait_s } if self.questions.is_some() => {
                let events = self.events.clone();
                let wait = Duration::from_secs(wait_s.min(QDEVICE_EVENTS_WAIT_S));
                tokio::spawn(async move {
                    let _ = answer.send(events.after(run, after, wait).await);
                });
                return;
            }
            LocalRequest::QdeviceEvents { .. } => refused(NO_QDEVICE.into()),
            LocalRequest::CreateToken { cluster, kind, ttl_s } => match self.token(&cluster, &kind, ttl_s).await {
                Ok(reply) => reply,
                Err(error) => refused(format!("{error:#}")),
            },
            LocalRequest::Fenced => {
                let mut clusters = Vec::new();
                for door in self.doors.values() {
                    clusters.extend(door.show().await);
                }
                LocalReply::Fenced { clusters }
            }
            LocalRequest::FencedHold { cluster, reason } => match self.find_door(&cluster) {
                Ok(door) => {
                    show_fenced(door.hold(by, reason), answer);
                    return;
                }
                Err(error) => refused(format!("{error:#}")),
            },
            LocalRequest::FencedRelease { cluster } => match self.find_door(&cluster) {
                Ok(door) => {
                    show_fenced(door.release(by), answer);
                    return;
                }
                Err(error) => refused(format!("{error:#}")),
            },
            LocalRequest::Devices { cluster, request } => {
                let served = match self.find_devices(cluster) {
                    Ok(served) => served,
                    Err(error) => {
                        let _ = answer.send(refused(format!("{error:#}")));
                        return;
                    }
                };
                let hand = Hand { layout: self.layout.clone(), audit: self.audit.clone(), by };
                // A device may take seconds: other requests don't wait for it.
                tokio::spawn(async move {
                    let (devices, member) = served;
                    let reply = hand.serve(&devices, member.as_ref(), request).await;
                    let _ =
                        answer.send(reply.unwrap_or_else(|error| LocalReply::Refused { why: format!("{error:#}") }));
                });
                return;
            }
            LocalRequest::Backup => {
                let state = |served: &Served| served.member.state().borrow().clone();
                let known = self.clusters.iter().map(|(name, served)| (name.clone(), state(served))).collect();
                match backup::take(&self.layout, &known).map(|contents| serde_json::to_vec(&contents)) {
                    Ok(Ok(plain)) => {
                        info!(%by, "a backup was taken");
                        LocalReply::Backup { plain }
                    }
                    Ok(Err(error)) => refused(format!("writing the backup: {error}")),
                    Err(error) => refused(chain(&error)),
                }
            }
            LocalRequest::Secrets(request) => {
                let root = self.layout.root();
                secrets::answer(root, &request).unwrap_or_else(|error| refused(error.to_string()))
            }
            LocalRequest::Cluster { cluster, request } => match self.find(cluster) {
                Ok(Served { member, .. }) => {
                    let stopped = self.stopped.words(Instant::now());
                    let (audit, asked) = (self.audit.clone(), Asked::of(&member, &request, &by));
                    // The cluster may take seconds: other requests don't wait for it.
                    tokio::spawn(async move {
                        let mut reply: Reply = member.ask_for_operator(*request, by).await;
                        if let Some(asked) = asked {
                            audit.record(asked.answered(&reply));
                        }
                        // Clusters don't see each other, but whoever asks here works on the appliance itself.
                        if let Reply::Status(status) = &mut reply {
                            status.alarms.extend(stopped);
                        }
                        let _ = answer.send(LocalReply::Cluster(reply));
                    });
                    return;
                }
                Err(error) => refused(format!("{error:#}")),
            },
        };
        // Who asked may have gone.
        let _ = answer.send(reply);
    }

    async fn invite(&mut self, cluster: &str, algorithm: &str, host: Option<String>, ttl_s: u64) -> Result<LocalReply> {
        let settings = self.config.qdevice.as_ref().filter(|settings| settings.serves(cluster)).with_context(|| {
            format!("cluster {cluster} is not served: add [qdevice.clusters.{cluster}] to server.toml and restart the daemon")
        })?;
        let algorithm = InvitedAlgorithm::from_name(algorithm)?;
        let configured = || Some(self.config.addresses.first()?.rsplit_once(':')?.0.to_owned());
        let host = host.or_else(configured).context(
            "it is not known where nodes reach this machine: give --address, or put addresses into server.toml",
        )?;
        let invitations = match &mut self.invitations {
            Some(invitations) => invitations,
            none => none.insert(Invitations::new(
                settings.invite_listen.clone(),
                settings.folder(self.layout.root())?,
                self.events.clone(),
            )?),
        };
        let command = invitations.create(cluster, algorithm, &host, Duration::from_secs(ttl_s)).await?;
        Ok(LocalReply::QdeviceInvitation { command: command.to_string(), expires: unix_seconds() + ttl_s })
    }

    /// The power devices of a cluster, and its member where it is one of Tiebreaker's own.
    fn find_devices(&self, cluster: Option<String>) -> Result<(Devices, Option<MemberHandle>)> {
        let named = cluster.as_deref().and_then(|text| ClusterName::new(text).ok());
        let door = match named {
            Some(name) => self.doors.get(&name),
            None if cluster.is_none() && self.clusters.is_empty() && self.doors.len() == 1 => {
                self.doors.values().next()
            }
            None => None,
        };
        match door {
            Some(door) => Ok((door.devices.clone(), None)),
            None => self.find(cluster).map(|served| (served.devices, Some(served.member))),
        }
    }

    fn find_door(&self, cluster: &str) -> Result<&Door> {
        let name = ClusterName::new(cluster)?;
        match self.doors.get(&name) {
            Some(door) => Ok(door),
            None if self.config.corosync.contains_key(&name) => {
                bail!("the nodes of {name} can't be fenced from here now: look at the daemon's log")
            }
            None if self.clusters.contains_key(&name) => {
                bail!("{name} is a cluster of Tiebreaker's own: `tiebreaker fence hold` and `fence release` are for it")
            }
            None => bail!(
                "there is no Corosync cluster {name}: add [corosync.{name}] to server.toml and restart the daemon"
            ),
        }
    }

    fn find(&self, cluster: Option<String>) -> Result<Served> {
        let names = || self.clusters.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match cluster {
            Some(text) => {
                let name = ClusterName::new(&text)?;
                match self.clusters.get(&name) {
                    Some(served) => Ok(served.clone()),
                    None if self.doors.contains_key(&name) => {
                        bail!("{name} is a Corosync cluster: `fence_tiebreaker` on one of its nodes asks for fences")
                    }
                    None => match self.absence(&name) {
                        Some(word) => bail!("{word}"),
                        None => bail!("there is no cluster {name} here: {}", names()),
                    },
                }
            }
            None => match self.clusters.len() {
                0 if !self.waiting.is_empty() => {
                    let whys: Vec<String> = self.waiting.keys().filter_map(|name| self.absence(name)).collect();
                    bail!("{}", whys.join("; "))
                }
                0 => bail!("there is no cluster yet: `tiebreaker-server token create --cluster NAME` creates one"),
                1 => self.clusters.values().next().cloned().context("the only cluster has just stopped"),
                _ => bail!("this appliance serves several clusters ({}): name one with --cluster", names()),
            },
        }
    }

    async fn token(&mut self, cluster: &str, kind: &str, ttl_s: u64) -> Result<LocalReply> {
        let name = ClusterName::new(cluster)?;
        if kind_of_door(&self.config, &name, kind)? {
            let now = trusted_seconds(unix_seconds(), 0);
            let (token, expires) = self.gate.create_token(&name, kind, now, ttl_s).await?;
            return Ok(LocalReply::Token { token: token.to_string(), expires, created: false });
        }
        let created = !self.clusters.contains_key(&name);
        if created {
            if self.layout.cluster(&name).exists() {
                let unknown = || format!("cluster {name} exists, but does not run: look at the daemon's log");
                bail!("{}", self.absence(&name).unwrap_or_else(unknown));
            }
            self.layout.create_cluster(self.gate.ca(), &name, &self.config.name, &self.config.addresses)?;
            self.start(&name)?;
            info!(cluster = %name, "created");
        }
        let member = &self.clusters.get(&name).with_context(|| format!("cluster {name} has just stopped"))?.member;
        let (token, expires) = self.gate.create_token(&name, kind, self.gate.now(member), ttl_s).await?;
        Ok(LocalReply::Token { token: token.to_string(), expires, created })
    }
}

fn rejoin_of(
    layout: &Layout,
    config: &Config,
    gate: &SharedGate,
    name: &ClusterName,
) -> (Rejoin, watch::Receiver<String>) {
    Rejoin::new(layout, name, &config.name, &config.addresses, gate)
}

fn is_twin(name: &ClusterName) -> String {
    format!("cluster {name} has another appliance of this identity, so this one serves nobody")
}

/// Before a restored appliance serves anybody, the nodes that it can reach are asked whether there is another one: those of
/// Corosync clusters can't tell.
async fn refuse_twin(layout: &Layout, config: &Config, gate: &SharedGate) -> Result<()> {
    for name in layout.clusters()? {
        if Pending::exists(layout, &name) {
            let rejoin = rejoin_of(layout, config, gate, &name).0;
            // Who isn't reached by then is asked again while the others are served.
            if let Ok(looked) = timeout(TWIN_WITHIN, rejoin.look()).await {
                looked.with_context(|| is_twin(&name))?;
            }
        }
    }
    Ok(())
}

/// Answers with a Corosync cluster once what is asked of it is done. A disk may take seconds: other requests don't wait for it.
fn show_fenced(
    done: impl Future<Output = Result<FencedCluster>> + Send + 'static,
    answer: oneshot::Sender<LocalReply>,
) {
    tokio::spawn(async move {
        let reply = match done.await {
            Ok(cluster) => LocalReply::Fenced { clusters: vec![cluster] },
            Err(error) => LocalReply::Refused { why: format!("{error:#}") },
        };
        // Who asked may have gone.
        let _ = answer.send(reply);
    });
}

/// Whether a token is for a Corosync cluster's fence agents.
///
/// # Errors
/// The kind doesn't fit the cluster.
pub(crate) fn kind_of_door(config: &Config, name: &ClusterName, kind: &str) -> Result<bool> {
    match (config.corosync.contains_key(name), kind == "fence-client") {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => bail!("{name} is a Corosync cluster: its nodes take tokens of the kind fence-client"),
        (false, true) => {
            bail!("there is no Corosync cluster {name}: add [corosync.{name}] to server.toml and restart the daemon")
        }
    }
}
