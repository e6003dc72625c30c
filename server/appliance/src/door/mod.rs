//! The door for Corosync clusters: where the fence agent of one of their nodes asks for another one's power.
//!
//! It is the port of the clusters, with the same authority and one-time tokens; a cluster behind it is of one kind or the other.
//! Who asks is the node that its certificate names. Whether it may is the word of our QDevice service (`right`); what goes on
//! belongs to the appliance alone and outlives the agent and the daemon (`docket`, `book`, `clerk`, `cut`).

mod book;
mod clerk;
mod cut;
mod docket;
mod prove;
mod requests;
mod right;
mod settings;
mod shared;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_member::ask::{FencedCluster, FencedNode};
use tiebreaker_member::{
    Acceptor, Identity, Incoming, LinkConfig, Links, PeerId, PeerTable, Role, Subject, SystemClock, TimeFloor, Timing,
    TrustedTime,
};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state::Hold;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use self::book::Book;
use self::clerk::Clerk;
use self::requests::Reception;
pub(crate) use self::settings::{DoorSettings, RawDoor};
use self::shared::Shared;
use crate::audit::{Audit, Event};
use crate::desk::unix_ms;
use crate::devices::Devices;
use crate::joins::SharedGate;
use crate::layout::Layout;
use crate::qdevice::Questions;

/// Between two looks at the own certificate; a third of its life, a month, is left for the renewal.
const RENEWAL_LOOK: Duration = Duration::from_secs(3600);

const STOPPING: &str = "the appliance's daemon is stopping";

/// What a door is made of.
pub(crate) struct Opening<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) appliance: &'a MemberName,
    pub(crate) name: &'a ClusterName,
    pub(crate) settings: &'a DoorSettings,
    pub(crate) gate: &'a SharedGate,
    pub(crate) acceptor: &'a Acceptor,
    pub(crate) audit: &'a Audit,
    pub(crate) votes: Option<&'a Questions>,
}

/// The open door of one Corosync cluster. It shuts when this is dropped, and whoever opens it next goes on with its fences.
pub(crate) struct Door {
    /// Its nodes' power devices.
    pub(crate) devices: Devices,
    shared: Arc<Shared>,
    _links: Links,
    _tasks: JoinSet<()>,
}

impl Opening<'_> {
    /// Opens the door.
    ///
    /// # Errors
    /// Its files are damaged, there is a cluster of Tiebreaker's own of this name, or the date is unknown.
    pub(crate) fn open(self) -> Result<Door> {
        let Self { layout, appliance, name, settings, gate, acceptor, audit, votes } = self;
        if layout.cluster(name).exists() {
            bail!(
                "there is a cluster {name} of Tiebreaker's own on this appliance: give the Corosync cluster another name in server.toml"
            );
        }
        let folder = layout.corosync(name);
        let book = Book::read(&folder)?;
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::new(book.newest_s()));
        let peer = PeerId { cluster: name.clone(), role: Role::Appliance, name: appliance.clone() };
        let subject = Subject { peer, raft_id: None };
        let first = gate.issue_own(&subject, &time).context("making the appliance's certificate for the cluster")?;
        let (identity, shows) = watch::channel(Arc::new(first));
        let roster = book.roster(|node| settings.has(node));
        let (peers, table) = watch::channel(Arc::new(PeerTable { roster, ..PeerTable::default() }));
        let link = LinkConfig { identity: shows, time: time.clone(), source: None, timing: Timing::default() };
        let (links, incoming) = Links::start(link, acceptor, table)?;
        let devices = Devices::new(name, &settings.devices, audit.clone(), layout.root())?;
        let (notes, noted) = mpsc::channel(clerk::WAITING);
        let shared = Arc::new(Shared {
            name: name.clone(),
            settings: settings.clone(),
            devices: devices.clone(),
            audit: audit.clone(),
            votes: votes.cloned(),
            notes,
            health: Mutex::default(),
        });
        let clerk = Clerk {
            folder,
            book,
            shared: Arc::clone(&shared),
            notes: noted,
            peers,
            progress: BTreeMap::new(),
            workers: JoinSet::new(),
            turns: BTreeMap::new(),
        };
        let reception = Reception { shared: Arc::clone(&shared), gate: Arc::clone(gate), time: time.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(clerk.run());
        tasks.spawn(serve(reception, incoming));
        tasks.spawn(prove::prove(Arc::clone(&shared)));
        tasks.spawn(renew(Arc::clone(gate), subject, time, identity));
        info!(cluster = %name, "the nodes of a Corosync cluster are fenced from here");
        Ok(Door { devices, shared, _links: links, _tasks: tasks })
    }
}

impl Door {
    /// What an operator sees of it; `None` if the daemon is ending.
    pub(crate) async fn show(&self) -> Option<FencedCluster> {
        shown(&self.shared).await
    }

    /// Holds the switching of power for an operator. Gives what he sees of the cluster then.
    pub(crate) fn hold(
        &self,
        by: String,
        reason: Option<String>,
    ) -> impl Future<Output = Result<FencedCluster>> + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let hold = Hold { by: by.clone(), reason: reason.clone(), at_ms: unix_ms() };
            let done = shared.hold(hold).await;
            shared.operator_asked("hold", &by, &done);
            done?;
            warn!(cluster = %shared.name, %by, reason, "the switching of power is held");
            shared.audit.record(Event::Held { cluster: shared.name.to_string(), by, reason });
            shown(&shared).await.context(STOPPING)
        }
    }

    /// Ends a hold for an operator. Gives what he sees of the cluster then.
    pub(crate) fn release(&self, by: String) -> impl Future<Output = Result<FencedCluster>> + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let done = shared.release().await;
            shared.operator_asked("release", &by, &done);
            done?;
            info!(cluster = %shared.name, %by, "the switching of power is released");
            shared.audit.record(Event::Released { cluster: shared.name.to_string(), by: Some(by) });
            shown(&shared).await.context(STOPPING)
        }
    }
}

/// The hold of a Corosync cluster as it was written down; `None` also where there is no such cluster.
///
/// # Errors
/// Its book can't be read.
pub(crate) fn stored_hold(layout: &Layout, name: &ClusterName) -> Result<Option<Hold>> {
    Ok(Book::read(&layout.corosync(name))?.hold)
}

/// What a backup keeps of a Corosync cluster: who may ask, and a hold; `None` where there is nothing. Not the fences, which are
/// over by the time that it is restored, nor what power devices have shown, since they may have been wired anew.
///
/// # Errors
/// Its book can't be read.
pub(crate) fn for_backup(layout: &Layout, name: &ClusterName) -> Result<Option<serde_json::Value>> {
    let folder = layout.corosync(name);
    if !Book::path(&folder).exists() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_value(Book::read(&folder)?.for_backup())?))
}

/// Puts that into another data folder.
///
/// # Errors
/// It is something else, or can't be written.
pub(crate) fn restore(layout: &Layout, name: &ClusterName, kept: serde_json::Value) -> Result<()> {
    let book: Book = serde_json::from_value(kept).context("the book of its fences")?;
    // Whatever a backup says of fences and proofs is not this machine's.
    book.for_backup().write(&layout.corosync(name))
}

async fn shown(shared: &Shared) -> Option<FencedCluster> {
    let book = shared.book().await?;
    let nodes = shared.settings.names.0.iter().map(|(name, id)| {
        let levels = shared.levels_of(name);
        let proven = levels.iter().any(|level| shared.is_fine(level, &book));
        FencedNode {
            name: name.to_string(),
            id: id.0,
            enrolled: book.key(name).is_some(),
            proven,
            faults: requests::faults(shared, name),
            fence: book.docket.get(name).map(clerk::shown),
        }
    });
    Some(FencedCluster {
        name: shared.name.to_string(),
        qdevice: shared.settings.qdevice.clone(),
        nodes: nodes.collect(),
        hold: book.hold.clone(),
    })
}

async fn serve(reception: Reception, mut incoming: mpsc::Receiver<Incoming>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            arrived = incoming.recv() => match arrived {
                Some(Incoming::Request { from, bytes, reply }) => {
                    under_way.spawn(reception.clone().request(from, bytes, reply));
                }
                Some(Incoming::Join { from, request, reply }) => {
                    under_way.spawn(reception.clone().join(from, request, reply));
                }
                // There are no members here who could send any.
                Some(Incoming::Message { .. } | Incoming::NewerEpoch { .. }) => {}
                None => return,
            },
            Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
        }
    }
}

/// Renews the appliance's own certificate.
async fn renew(gate: SharedGate, subject: Subject, time: TrustedTime, identity: watch::Sender<Arc<Identity>>) {
    loop {
        sleep(RENEWAL_LOOK).await;
        if !identity.borrow().renewal_due(time.now()) {
            continue;
        }
        match gate.issue_own(&subject, &time) {
            Ok(next) => {
                identity.send_replace(Arc::new(next));
            }
            Err(error) => {
                warn!(cluster = %subject.peer.cluster, "the appliance's certificate can't be renewed now: {error:#}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
