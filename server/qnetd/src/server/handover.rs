//! From one process to the next: the whole state of all members, so that a restart costs no client its connection, and
//! no cluster its vote.
//!
//! Nothing is decided anew: the next process goes on where this one stopped, as if the machine had stood still for a
//! moment. Who has not joined a cluster is not handed over.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{FromAddress, GRACE, Server};
use crate::{
    cluster::{Cluster, SavedUnheard, Unheard},
    config::{Config, TlsMode},
    holder::Remembered,
    id::{ClientId, ClusterName},
    notice::{CloseReason, Ending},
    reason::Reason,
    session::{Session, Stage, Tls},
    timers::Timer,
    wire::{NodeId, Vote},
};

/// Raised with every change of what the fields mean; what another version wrote is not taken.
const FORMAT: u32 = 4;

/// The state, to be written and read by any serde format that knows field names.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    format: u32,
    clusters: Vec<SavedCluster>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedCluster {
    name: Vec<u8>,
    cluster: Cluster,
    /// Who may cast a vote without being connected, and for how long.
    unheard: Option<SavedUnheard>,
    members: Vec<SavedMember>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedMember {
    node: NodeId,
    client: u64,
    address: SocketAddr,
    /// Whether TLS is up, and whether the certificate was checked.
    tls: Option<bool>,
    heartbeat: Duration,
    asked: u32,
    /// What has come and is no whole message yet.
    inbox: Vec<u8>,
    /// The ACK or NACK, why, and for how long already.
    standing: Option<(Vote, Reason, Duration)>,
    /// What is left of timers.
    dead: Option<Duration>,
    answer: Option<Duration>,
    algorithm: Option<Duration>,
}

/// Why a state can't be gone on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Another version wrote it.
    #[error("it was written by another version")]
    Format,
    /// lms is set to another way of working.
    #[error("lms_as_original has another value")]
    LmsAsOriginal,
    /// It says two things of one client or node.
    #[error("it contradicts itself")]
    Contradiction,
}

impl Saved {
    /// Its clients.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.clusters.iter().flat_map(|cluster| &cluster.members).map(|member| ClientId(member.client))
    }
}

impl Server {
    /// The state of all members. The shell takes care that nothing more is read, that what was to be sent is sent, and
    /// that the server is used no more.
    #[must_use]
    pub fn save(&self, now: Instant) -> Saved {
        let clusters = self.clusters.iter().map(|(name, cluster)| {
            let members = cluster.members.iter().filter_map(|(node, member)| {
                let client = member.client;
                let session = self.sessions.get(&client)?;
                let left = |timer| Some(self.timers.at(client, timer)?.saturating_duration_since(now));
                Some(SavedMember {
                    node: *node,
                    client: client.0,
                    address: session.address,
                    tls: match session.tls {
                        Tls::Up { verified } => Some(verified),
                        Tls::Plain | Tls::Starting => None,
                    },
                    heartbeat: session.heartbeat,
                    asked: session.asked,
                    inbox: session.inbox.clone().rest(),
                    standing: member
                        .standing
                        .clone()
                        .map(|(vote, reason, since)| (vote, reason, now.saturating_duration_since(since))),
                    dead: left(Timer::Dead),
                    answer: left(Timer::Answer),
                    algorithm: left(Timer::Algorithm),
                })
            });
            SavedCluster {
                name: name.as_bytes().to_vec(),
                cluster: cluster.clone(),
                unheard: cluster.unheard.as_ref().map(|unheard| unheard.save(now)),
                members: members.collect(),
            }
        });
        Saved { format: FORMAT, clusters: clusters.collect() }
    }

    /// Whether a client's connection can be handed over: of who is in the middle of a message that is thrown away too
    /// little is kept, and what waits for [`Event::Remembered`](super::Event::Remembered) isn't handed over.
    #[must_use]
    pub fn can_hand_over(&self, client: ClientId) -> bool {
        let Some(session) = self.sessions.get(&client) else { return false };
        match &session.stage {
            Stage::New | Stage::Named { .. } => false,
            Stage::Joined { cluster, .. } => !session.inbox.is_skipping() && !self.held.contains_key(cluster),
        }
    }

    /// Goes on with a state, and with what was remembered. Of its clients those whose connections `came` along stay, if the settings still serve them;
    /// the others have gone. Actions follow at once.
    ///
    /// # Errors
    /// When the state can't be used; then all its connections are to be closed.
    pub fn restore(
        config: Config,
        remembered: Remembered,
        saved: Saved,
        came: &BTreeSet<ClientId>,
        now: Instant,
    ) -> Result<Self, Unfit> {
        if saved.format != FORMAT {
            return Err(Unfit::Format);
        }
        let mut server = Self::after(config, remembered, now);
        for SavedCluster { name, mut cluster, unheard, members } in saved.clusters {
            let name = ClusterName::new(&name);
            if cluster.lms_as_original() != server.config.lms_as_original {
                return Err(Unfit::LmsAsOriginal);
            }
            if members.len() != cluster.members.len() || server.clusters.contains_key(&name) {
                return Err(Unfit::Contradiction);
            }
            cluster.unheard = unheard.map(|unheard| Box::new(Unheard::restore(unheard, now)));
            for saved in members {
                server.take_over(now, &name, &mut cluster, saved, came)?;
            }
            server.clusters.insert(name, cluster);
        }
        // First who has gone or may not stay: others' votes may follow from it.
        while let Some((client, why)) = server.doomed.pop_front() {
            server.close(now, client, why);
        }
        let clients: Vec<ClientId> = server.sessions.keys().copied().collect();
        for client in clients {
            server.work(now, client);
        }
        while let Some((client, why)) = server.doomed.pop_front() {
            server.close(now, client, why);
        }
        Ok(server)
    }

    fn take_over(
        &mut self,
        now: Instant,
        name: &ClusterName,
        cluster: &mut Cluster,
        saved: SavedMember,
        came: &BTreeSet<ClientId>,
    ) -> Result<(), Unfit> {
        let client = ClientId(saved.client);
        let member = cluster.members.get_mut(&saved.node).ok_or(Unfit::Contradiction)?;
        if member.client != client || self.sessions.contains_key(&client) {
            return Err(Unfit::Contradiction);
        }
        member.standing = saved.standing.map(|(vote, reason, age)| (vote, reason, now.checked_sub(age).unwrap_or(now)));
        let served = self.config.clusters.mode(name);
        let mode = served.unwrap_or_default();
        let tls = saved.tls.map_or(Tls::Plain, |verified| Tls::Up { verified });
        let doom = match (served, tls) {
            _ if !came.contains(&client) => Some(CloseReason::Gone(Ending::Broken)),
            (None, _) => Some(CloseReason::UnknownCluster(name.clone())),
            (Some(TlsMode::Off), Tls::Up { .. }) => Some(CloseReason::NoTlsHere),
            (Some(TlsMode::Required), Tls::Plain | Tls::Starting) => Some(CloseReason::PlainText(name.clone())),
            (Some(_), Tls::Up { verified: false }) if self.config.certificate_needed() => {
                Some(CloseReason::WrongCertificate(name.clone()))
            }
            (Some(_), _) => None,
        };
        let mut session = Session::new(saved.address, &self.config, now);
        session.stage = Stage::Joined { cluster: name.clone(), mode, node: saved.node };
        session.tls = tls;
        session.heartbeat = saved.heartbeat;
        session.asked = saved.asked;
        session.inbox.push(&saved.inbox);
        self.sessions.insert(client, Box::new(session));
        let from_there: &mut FromAddress = self.addresses.entry(saved.address.ip()).or_default();
        from_there.clients += 1;
        for (timer, left) in
            [(Timer::Dead, saved.dead), (Timer::Answer, saved.answer), (Timer::Algorithm, saved.algorithm)]
        {
            if let Some(left) = left {
                // An answer may lie in the socket.
                self.timers.set(client, timer, now + left.max(GRACE));
            }
        }
        if let Some(why) = doom {
            self.doom(client, why);
        }
        Ok(())
    }
}
