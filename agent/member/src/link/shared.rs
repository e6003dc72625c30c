//! What all tasks of one cluster's links share, and who may stay connected.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::connection::{Inbox, run};
use super::incoming::{Incoming, Via};
use super::links::LinkConfig;
use super::paths::Board;
use super::table::PeerTable;
use crate::identity::{Identity, Judge, MemberName, PeerCert, PeerId, Subject};
use crate::wire::Framed;

pub(super) struct Shared {
    pub(super) config: LinkConfig,
    pub(super) me: PeerId,
    pub(super) peers: watch::Receiver<Arc<PeerTable>>,
    pub(super) board: Arc<Board>,
    pub(super) inbox: Inbox,
    pub(super) requests: Arc<Semaphore>,
    pub(super) relays: Arc<Semaphore>,
    pub(super) joins: Arc<Semaphore>,
}

/// What a connection's right to be open rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its holder is a member, in this epoch.
    Member {
        /// The epoch in which it was opened.
        epoch: u64,
    },
    /// Its holder has a certificate.
    Certified,
}

impl Shared {
    /// The identity as it is now: it is renewed from time to time.
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.config.identity.borrow())
    }

    pub(super) fn judge(&self) -> Judge {
        Judge {
            cluster: self.me.cluster.clone(),
            ca: self.identity().ca().clone(),
            time: self.config.time.clone(),
            peers: self.peers.clone(),
        }
    }

    pub(super) fn table(&self) -> Arc<PeerTable> {
        Arc::clone(&self.peers.borrow())
    }

    /// A member's certificate came with a newer epoch. It is said again at the next try, if there is no room now.
    pub(super) fn tell_newer(&self, cert: &PeerCert, epoch: u64) {
        let Subject { peer, raft_id } = cert.subject.clone();
        self.inbox.offer(Incoming::NewerEpoch { from: peer, raft_id, epoch });
    }

    /// Waits until the holder of `cert` loses its standing, and says why.
    pub(super) async fn revoked(&self, cert: &PeerCert, standing: Standing) -> String {
        let mut peers = self.peers.clone();
        loop {
            let why = objection(&peers.borrow_and_update(), cert, standing);
            if let Some(why) = why {
                return why.to_owned();
            }
            if peers.changed().await.is_err() {
                // Whoever publishes the table has gone; the owner of the links is about to drop them.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs a connection between members until it ends or the peer is removed.
    pub(super) async fn run_member(
        &self,
        framed: Framed,
        cert: &PeerCert,
        epoch: u64,
        via: Via,
        relay: Option<MemberName>,
    ) {
        let peer = &cert.subject;
        let mut attached = self.board.attach(&peer.peer.name, via, relay);
        let live = attached.live.clone();
        attached.why = tokio::select! {
            ended = run(framed, peer, via, &live, self.config.timing, &self.inbox) => ended.to_string(),
            why = self.revoked(cert, Standing::Member { epoch }) => why,
        };
    }
}

/// Whether the holder of `cert` joined after what this table knows.
fn is_newcomer(table: &PeerTable, cert: &PeerCert) -> bool {
    let number = cert.subject.raft_id;
    cert.subject.peer.role.is_member()
        && table.newcomers_from.is_some_and(|from| number.is_some_and(|number| number >= from))
}

/// Why the holder of `cert` may not be connected, if so.
pub(super) fn objection(table: &PeerTable, cert: &PeerCert, standing: Standing) -> Option<&'static str> {
    let peer = &cert.subject.peer;
    if table.roster.was_left_behind(cert) {
        return Some("an operator took the cluster over without it: it must be wiped and join again");
    }
    if table.roster.refuses(cert) {
        return Some("it was removed from the cluster");
    }
    match standing {
        Standing::Certified => None,
        Standing::Member { epoch } if epoch != table.epoch => Some("the cluster's epoch has changed"),
        Standing::Member { .. } => match table.members.get(&peer.name) {
            Some(entry) if entry.role == peer.role => None,
            _ if is_newcomer(table, cert) => None,
            Some(_) => Some("it is a member in another role"),
            None => Some("it is no member of the cluster"),
        },
    }
}
