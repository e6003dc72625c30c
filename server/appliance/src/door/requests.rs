//! What the fence agents of a Corosync cluster's nodes ask, and how they get their certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{PowerState, confirm_off};
use tiebreaker_member::ask::{FenceAnswer, FenceAsk, FenceNode, FenceRequest};
use tiebreaker_member::{JoinReply, JoinRequest, PeerId, Reply, Requester, Role, TrustedTime, request_key};
use tiebreaker_pipeline::name::MemberName;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::clerk::{Note, Progress, Ticket};
use super::cut::SPACING;
use super::docket::{Entry, Wish};
use super::right::Right;
use super::shared::{LOOK_EVERY, Shared};
use crate::audit::Event;
use crate::joins::SharedGate;
use tiebreaker_member::errors::chain;

/// A vote that isn't decided by then is a refusal: Corosync itself settles within half a minute.
const RIGHT_WITHIN: Duration = Duration::from_secs(30);
/// Nobody waits for a result longer, whatever he asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// A device that is only read has this long.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// Right after the start of the daemon the first proofs are waited for.
const PROVEN_WITHIN: Duration = Duration::from_secs(20);
/// A UUID has 36 characters.
const MACHINE_MAX: usize = 64;

/// Who serves those who come.
#[derive(Clone)]
pub(super) struct Reception {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: SharedGate,
    pub(super) time: TrustedTime,
}

impl Reception {
    /// Serves one request.
    pub(super) async fn request(self, from: Requester, bytes: Vec<u8>, reply: Reply) {
        let answer = tokio::select! {
            answer = self.answer(&from, &bytes) => answer,
            // Whoever asks for a fence and goes has begun it, or hasn't; either way nobody is left to be told.
            () = reply.closed() => return,
        };
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &answer.answer)
            .expect("writing to memory can't fail, and every field is encodable");
        let told = reply.only(bytes).await.is_ok();
        if let Some(node) = answer.hears.filter(|_| told) {
            self.shared.note(Note::Heard { node }).await;
        }
    }

    async fn answer(&self, from: &Requester, bytes: &[u8]) -> Answer {
        let peer = match from {
            Requester::Certified(peer) if peer.role == Role::FenceClient => peer,
            Requester::Certified(_) | Requester::Local { .. } => {
                return refused(
                    "this cluster is served for fence agents alone: enrol with a token of the kind fence-client".into(),
                );
            }
        };
        let by = &peer.name;
        if !self.shared.settings.has(by) {
            return refused(format!("{by} is no node of cluster {} in the appliance's server.toml", self.shared.name));
        }
        let request: FenceRequest = match cbor4ii::serde::from_slice(bytes) {
            Ok(request) => request,
            Err(error) => {
                return refused(format!("the request can't be decoded ({error}): are both of the same version?"));
            }
        };
        if let Some(uuid) = request.machine.filter(|uuid| uuid.len() <= MACHINE_MAX) {
            self.shared.note(Note::Machine { node: by.clone(), uuid }).await;
        }
        match request.ask {
            FenceAsk::List => Answer::from(FenceAnswer::Nodes { nodes: self.nodes() }),
            FenceAsk::States => Answer::from(FenceAnswer::Nodes { nodes: self.states().await }),
            FenceAsk::State { node } => match self.node(&node) {
                Ok(node) => Answer::from(match state(&self.shared, &node).await {
                    Ok(state) => FenceAnswer::State { on: state == PowerState::On },
                    Err(why) => FenceAnswer::Failed { why },
                }),
                Err(error) => refused(format!("{error:#}")),
            },
            FenceAsk::Monitor => Answer::from(self.monitor().await),
            FenceAsk::Off { node, then_on, within_ms } => {
                self.switch(by, &node, Wish::Off { then_on }, Duration::from_millis(within_ms)).await
            }
            FenceAsk::On { node, within_ms } => {
                self.switch(by, &node, Wish::On, Duration::from_millis(within_ms)).await
            }
            FenceAsk::Renew { csr } => match self.renew(peer, &csr).await {
                Ok(der) => Answer::from(FenceAnswer::Certificate { der }),
                Err(error) => refused(format!("{error:#}")),
            },
        }
    }

    /// A node by the name that an agent gives.
    fn node(&self, text: &str) -> Result<MemberName> {
        let names = || self.shared.settings.names.0.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let found = MemberName::new(text).ok().filter(|node| self.shared.settings.has(node));
        found.with_context(|| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
            format!("there is no node {shown:?} in cluster {}: it has {}", self.shared.name, names())
        })
    }

    fn nodes(&self) -> Vec<FenceNode> {
        let nodes = self.shared.settings.names.0.iter();
        nodes.map(|(name, id)| FenceNode { name: name.to_string(), id: id.0, on: None, fault: None }).collect()
    }

    async fn states(&self) -> Vec<FenceNode> {
        let mut asked = JoinSet::new();
        for (name, id) in self.shared.settings.names.0.clone() {
            let shared = Arc::clone(&self.shared);
            asked.spawn(async move {
                let state = state(&shared, &name).await;
                let on = state.as_ref().ok().map(|state| *state == PowerState::On);
                FenceNode { name: name.to_string(), id: id.0, on, fault: state.err() }
            });
        }
        let mut nodes = asked.join_all().await;
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        nodes
    }

    /// Whether each node could be fenced, by the last proofs.
    async fn monitor(&self) -> FenceAnswer {
        let until = Instant::now() + PROVEN_WITHIN;
        let untried = |shared: &Shared| {
            let keys = shared.devices.all().into_iter().map(|one| (one.node().clone(), one.name().to_owned()));
            keys.filter(|key| shared.health(key).is_none()).count()
        };
        while untried(&self.shared) > 0 && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        let Some(book) = self.shared.book().await else {
            return FenceAnswer::Failed { why: "the appliance's daemon is stopping".into() };
        };
        let mut faults = Vec::new();
        for node in self.shared.settings.names.0.keys() {
            let levels = self.shared.levels_of(node);
            let fine = levels.iter().any(|level| self.shared.is_fine(level, &book));
            if levels.is_empty() {
                faults.push(format!("{node} has no power device"));
            } else if !fine {
                faults.extend(self::faults(&self.shared, node));
            }
        }
        if faults.is_empty() {
            FenceAnswer::Done { how: "each node has a power device that is proven".into() }
        } else {
            FenceAnswer::Failed { why: faults.join("; ") }
        }
    }

    /// A fence, or power: asked for, granted or refused, joined or begun, and waited for.
    async fn switch(&self, by: &MemberName, node: &str, wish: Wish, within: Duration) -> Answer {
        let until = Instant::now() + within.min(LONGEST_WAIT);
        let node = match self.node(node) {
            Ok(node) => node,
            Err(error) => return self.refuse(by, None, wish, format!("{error:#}")),
        };
        if node == *by {
            return self.refuse(
                by,
                Some(&node),
                wish,
                format!("{by} asks for its own power: only others can be fenced"),
            );
        }
        let found = self.shared.devices.find(Some(node.as_str()), None).unwrap_or_default();
        if found.is_empty() {
            let name = &self.shared.name;
            let why =
                format!("{node} has no power device: add [[corosync.{name}.devices]] to the appliance's server.toml");
            return self.refuse(by, Some(&node), wish, why);
        }
        let ticket = match self.shared.enter(by, &node, wish, None).await {
            Some(ticket) => ticket,
            None => {
                let partition = match self.right(by, &node, until).await {
                    Ok(partition) => partition,
                    Err(why) => return self.refuse(by, Some(&node), wish, why),
                };
                match self.shared.enter(by, &node, wish, Some(partition)).await {
                    Some(ticket) => ticket,
                    None => return refused("the appliance's daemon is stopping".into()),
                }
            }
        };
        let Ticket { entry, number, progress } = ticket;
        match entry {
            Entry::Opened => self.asked(by, Some(&node), wish, true, None),
            Entry::Joined => self.asked(by, Some(&node), wish, true, Some(format!("joined fence {number}"))),
            Entry::Known(how) => {
                self.asked(by, Some(&node), wish, true, Some(format!("got the result of fence {number}")));
                return Answer { answer: FenceAnswer::Done { how }, hears: Some(node) };
            }
            Entry::Refused(why) => return self.refuse(by, Some(&node), wish, why),
        }
        self.result(&node, wish, progress, until).await
    }

    /// Waits for the vote.
    async fn right(&self, by: &MemberName, node: &MemberName, until: Instant) -> Result<Vec<MemberName>, String> {
        let until = until.min(Instant::now() + RIGHT_WITHIN);
        loop {
            let why = match self.shared.right(by, node).await {
                Right::Granted { partition } => return Ok(self.shared.settings.names.names(&partition)),
                Right::Refused { why } => return Err(why),
                Right::Member { why } | Right::Open { why } => why,
            };
            if Instant::now() + LOOK_EVERY >= until {
                return Err(format!("{why}; that was waited for"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for the result.
    async fn result(
        &self,
        node: &MemberName,
        wish: Wish,
        mut progress: tokio::sync::watch::Receiver<Progress>,
        until: Instant,
    ) -> Answer {
        loop {
            let now = progress.borrow_and_update().clone();
            match (wish, now) {
                (Wish::Off { .. }, Progress::Off(how) | Progress::Back { off: how, .. }) => {
                    return Answer { answer: FenceAnswer::Done { how }, hears: Some(node.clone()) };
                }
                (Wish::On, Progress::On(how) | Progress::Back { on: Ok(how), .. }) => {
                    return Answer::from(FenceAnswer::Done { how });
                }
                (_, Progress::Failed(why)) | (Wish::On, Progress::Back { on: Err(why), .. }) => {
                    return Answer::from(FenceAnswer::Failed { why });
                }
                // Power was asked for, and it is not back yet; or a fence was, where power alone was given.
                (Wish::Off { .. }, Progress::On(_)) | (Wish::On, Progress::Off(_)) | (_, Progress::Working(_)) => {}
            }
            match timeout_at(until, progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    let what = "the appliance's daemon is stopping; the fence goes on when it is back".into();
                    return Answer::from(FenceAnswer::Working { what });
                }
                Err(_) => {
                    let what = match &*progress.borrow() {
                        Progress::Working(what) => what.clone(),
                        Progress::Off(_) | Progress::Back { .. } | Progress::On(_) | Progress::Failed(_) => {
                            "its power is being given back".into()
                        }
                    };
                    return Answer::from(FenceAnswer::Working { what });
                }
            }
        }
    }

    fn refuse(&self, by: &MemberName, node: Option<&MemberName>, wish: Wish, why: String) -> Answer {
        info!(cluster = %self.shared.name, %by, node = node.map(tracing::field::display), "refused: {why}");
        self.asked(by, node, wish, false, Some(why.clone()));
        refused(why)
    }

    fn asked(&self, by: &MemberName, node: Option<&MemberName>, wish: Wish, granted: bool, why: Option<String>) {
        let what = match wish {
            Wish::Off { then_on: false } => "fence off",
            Wish::Off { then_on: true } => "fence reboot",
            Wish::On => "fence on",
        };
        self.shared.audit.record(Event::Asked {
            cluster: self.shared.name.to_string(),
            what: what.into(),
            node: node.map(ToString::to_string),
            by: format!("{} {by}", Role::FenceClient),
            granted,
            why,
        });
    }

    /// Signs the next certificate for the key that a node enrolled with.
    async fn renew(&self, peer: &PeerId, csr: &[u8]) -> Result<Vec<u8>> {
        let key = request_key(csr).context("the certificate request is not valid")?;
        let book = self.shared.book().await.context("the appliance's daemon is stopping")?;
        if book.key(&peer.name) != Some(key.as_str()) {
            bail!("the request is for another key than the one that {} enrolled with: enrol it anew", peer.name);
        }
        self.gate.certify_fence_client(&self.shared.name, &peer.name, csr, self.time.now())
    }

    /// Lets the fence agent of a node in.
    pub(super) async fn join(self, from: SocketAddr, request: JoinRequest, reply: JoinReply) {
        let (cluster, node) = (self.shared.name.clone(), request.name.clone());
        let let_in = async {
            if !self.shared.settings.has(&node) {
                bail!(
                    "cluster {cluster} has no node {node}: add it to [corosync.{cluster}] nodes in the appliance's server.toml"
                );
            }
            let (bytes, key) = self.gate.admit_fence_client(&cluster, self.time.now(), request).await?;
            // Its former certificates count no more once this is written down.
            let (answer, answered) = oneshot::channel();
            self.shared.note(Note::Enrolled { node: node.clone(), key, answer }).await;
            answered.await.context("the appliance's daemon is stopping")?;
            Ok::<_, anyhow::Error>(bytes)
        };
        let (result, why) = match let_in.await {
            Ok(bytes) => {
                info!(%cluster, %node, %from, "a fence agent has enrolled");
                (Ok(bytes), None)
            }
            Err(error) => {
                let why = format!("{error:#}");
                warn!(%cluster, %node, %from, "a fence agent is not let in: {why}");
                (Err(why.clone()), Some(why))
            }
        };
        self.shared.audit.record(Event::Asked {
            cluster: cluster.to_string(),
            what: "fence enrol".into(),
            node: Some(node.to_string()),
            by: from.ip().to_string(),
            granted: result.is_ok(),
            why,
        });
        let told = match result {
            Ok(bytes) => reply.accept(bytes),
            Err(why) => reply.refuse(why),
        };
        if told.is_err() {
            warn!(%cluster, %node, %from, "who wanted to enrol went away before it had its answer");
        }
    }
}

/// An answer, and whose off it tells.
struct Answer {
    answer: FenceAnswer,
    hears: Option<MemberName>,
}

impl From<FenceAnswer> for Answer {
    fn from(answer: FenceAnswer) -> Self {
        Self { answer, hears: None }
    }
}

fn refused(why: String) -> Answer {
    Answer::from(FenceAnswer::Refused { why })
}

/// What is wrong with the devices of a node, one by one.
pub(super) fn faults(shared: &Shared, node: &MemberName) -> Vec<String> {
    let found = shared.devices.find(Some(node.as_str()), None).unwrap_or_default();
    if found.is_empty() {
        return vec![format!("{node} has no power device")];
    }
    let fault = |managed: &Arc<crate::devices::Managed>| {
        let key = (managed.node().clone(), managed.name().to_owned());
        let why = match shared.health(&key) {
            Some(health) => health.fault?,
            None => "it was not tried yet".into(),
        };
        Some(format!("{node}/{}: {why}", managed.name()))
    };
    found.iter().filter_map(fault).collect()
}

/// Reads whether a node has power. Whoever hears "off" may act on it: it is said only on the word of a level that is proven, read
/// twice as in a fence. What others read counts for nothing but that the node may be on.
async fn state(shared: &Shared, node: &MemberName) -> Result<PowerState, String> {
    let levels = shared.levels_of(node);
    let book = shared.book().await.ok_or("the appliance's daemon is stopping")?;
    let share = READ_WITHIN / u32::try_from(levels.len().max(1)).unwrap_or(u32::MAX);
    let (mut may_be_on, mut whys) = (false, Vec::new());
    for level in levels {
        let proven = level.parts().all(|managed| book.is_proven(managed.recipe()));
        let device = level.device(&shared.audit);
        let why = match confirm_off(device.as_ref(), SPACING, Instant::now() + share).await {
            Ok(true) if proven => return Ok(PowerState::Off),
            Ok(false) if proven => return Ok(PowerState::On),
            Ok(true) => "it reads off, which proves nothing: it was never seen to be this node's and on \
                         (`tiebreaker-server corosync status` says what is missing)"
                .to_owned(),
            Ok(false) => {
                may_be_on = true;
                continue;
            }
            Err(error) => chain(&error),
        };
        whys.push(format!("{node}/{}: {why}", level.name()));
    }
    if may_be_on {
        return Ok(PowerState::On);
    }
    Err(if whys.is_empty() { format!("{node} has no power device") } else { whys.join("; ") })
}
