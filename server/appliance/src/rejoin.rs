//! The way of a restored appliance back into a cluster (ADR 0031): it asks the nodes until the one that leads has made it a new
//! member, and holds neither a certificate nor a store of that cluster before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tiebreaker_consensus::{HardState, Stored};
use tiebreaker_member::join::JoinedMember;
use tiebreaker_member::rejoin::{REJOIN_VERSION, RejoinAnswer, RejoinAsk};
use tiebreaker_member::store::RaftStore;
use tiebreaker_member::{
    Address, Client, FileError, Identity, Keypair, LEAF_VALIDITY, PeerId, Role, Subject, SystemClock, TimeFloor,
    TrustedTime, read_private, replace_private, request_key, trusted_seconds,
};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tokio::sync::watch;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::backup::BackedCluster;
use crate::joins::SharedGate;
use crate::layout::{Layout, appliance_subject, unix_seconds};

/// Between two rounds.
const AGAIN: Duration = Duration::from_secs(2);
/// A node has so long to be reached, and so long to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The certificate with which it asks is good for so long: a round is over in moments.
const ASKS_FOR: Duration = Duration::from_secs(3600);
/// Addresses that are asked at most: those of all nodes that a cluster can have, and some.
const ADDRESSES_MAX: usize = 256;

const FILE: &str = "rejoin.json";
const KEY: &str = "rejoin.key";
const VERSION: u32 = 1;

/// A cluster to which the appliance has yet to come back. It lies where the cluster's store will be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pending {
    version: u32,
    /// What the backup knew of it.
    pub(crate) cluster: BackedCluster,
    /// Where else nodes may be reached.
    pub(crate) asks: Vec<String>,
    /// An operator's word that every other machine with this identity is switched off for good.
    pub(crate) others_are_off: bool,
}

impl Pending {
    /// What is written when a backup is restored.
    pub(crate) fn new(cluster: BackedCluster, asks: Vec<Address>, others_are_off: bool) -> Self {
        let asks = asks.iter().map(ToString::to_string).collect();
        Self { version: VERSION, cluster, asks, others_are_off }
    }

    fn path(layout: &Layout, name: &ClusterName) -> PathBuf {
        layout.cluster(name).join(FILE)
    }

    /// Whether the appliance has yet to come back.
    pub(crate) fn exists(layout: &Layout, name: &ClusterName) -> bool {
        // Where an identity is, the rest is whole: only the tidying up was cut off.
        Self::path(layout, name).exists() && !Identity::exists(&layout.cluster(name))
    }

    /// Reads it; `None` where the appliance is a member.
    ///
    /// # Errors
    /// The file can't be read, is damaged or newer.
    pub(crate) fn read(layout: &Layout, name: &ClusterName) -> Result<Option<Self>> {
        if !Self::exists(layout, name) {
            return Ok(None);
        }
        let path = Self::path(layout, name);
        let text = read_private(&path, "")?;
        let way_out = "restore the backup again, into another folder";
        let pending: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged: {way_out}", path.display()))?;
        anyhow::ensure!(
            pending.version == VERSION,
            "{} has version {}, this program knows {VERSION}: install the newer one",
            path.display(),
            pending.version
        );
        Ok(Some(pending))
    }

    /// Writes it; it is durable when this returns.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn write(&self, layout: &Layout) -> Result<()> {
        Ok(replace_private(&Self::path(layout, &self.cluster.name), &serde_json::to_vec_pretty(self)?)?)
    }

    /// Every address at which a node may be.
    fn addresses(&self) -> Vec<Address> {
        let told = self.asks.iter().chain(self.cluster.nodes.values().flatten());
        let mut addresses: Vec<Address> = Vec::new();
        for address in told.filter_map(|text| text.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// Removes what tells that the appliance has yet to come back, once it has.
///
/// # Errors
/// It can't be removed.
pub(crate) fn tidy_up(layout: &Layout, name: &ClusterName) -> Result<()> {
    for file in [FILE, KEY] {
        let path = layout.cluster(name).join(file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Another machine with this identity is alive, or has taken this one's place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Twin {
    why: String,
}

/// What a round has come to.
#[derive(Debug)]
enum Round {
    Member(u64),
    Waits(String),
    Twin(Twin),
}

/// One cluster's way back.
pub(crate) struct Rejoin {
    layout: Layout,
    cluster: ClusterName,
    appliance: MemberName,
    addresses: Vec<String>,
    gate: SharedGate,
    /// What is in the way, in words for an operator.
    why: watch::Sender<String>,
}

impl Rejoin {
    /// Of a cluster that [`Pending::exists`] says is one.
    pub(crate) fn new(
        layout: &Layout,
        cluster: &ClusterName,
        appliance: &MemberName,
        addresses: &[String],
        gate: &SharedGate,
    ) -> (Self, watch::Receiver<String>) {
        let (why, told) = watch::channel("it has not asked the nodes yet".to_owned());
        let rejoin = Self {
            layout: layout.clone(),
            cluster: cluster.clone(),
            appliance: appliance.clone(),
            addresses: addresses.to_vec(),
            gate: Arc::clone(gate),
            why,
        };
        (rejoin, told)
    }

    /// Asks once.
    ///
    /// # Errors
    /// There is another one.
    pub(crate) async fn look(&self) -> Result<(), Twin> {
        match self.round().await {
            Ok(Round::Twin(twin)) => Err(twin),
            // All else is dealt with by the rounds that follow.
            Ok(Round::Member(_) | Round::Waits(_)) | Err(_) => Ok(()),
        }
    }

    /// Asks until the appliance is a member.
    ///
    /// # Errors
    /// There is another one.
    pub(crate) async fn run(self) -> Result<(), Twin> {
        loop {
            let why = match self.round().await {
                Ok(Round::Member(number)) => {
                    info!(cluster = %self.cluster, number, "the restored appliance is a member again, under a new number");
                    return Ok(());
                }
                Ok(Round::Twin(twin)) => return Err(twin),
                Ok(Round::Waits(why)) => why,
                Err(error) => format!("{error:#}"),
            };
            if self.why.send_if_modified(|before| std::mem::replace(before, why.clone()) != why) {
                warn!(cluster = %self.cluster, why, "the restored appliance is not back in the cluster yet");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn round(&self) -> Result<Round> {
        let (layout, cluster) = (&self.layout, &self.cluster);
        let folder = layout.cluster(cluster);
        let Some(pending) = Pending::read(layout, cluster)? else {
            tidy_up(layout, cluster)?;
            let number = layout.identity(cluster)?.cert().subject.raft_id;
            return Ok(Round::Member(number.unwrap_or_default()));
        };
        let newest = pending.cluster.newest_ms / 1000;
        let now = trusted_seconds(unix_seconds(), newest);
        let peer = PeerId { cluster: cluster.clone(), role: Role::Authority, name: self.appliance.clone() };
        let asks_as = self.gate.ca().issue(&Subject { peer, raft_id: None }, now, ASKS_FOR)?;
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::new(newest));
        let key = new_key(&folder.join(KEY))?;
        let ask = RejoinAsk {
            version: REJOIN_VERSION,
            name: self.appliance.clone(),
            former: pending.cluster.number,
            key: request_key(&key.csr()?)?,
            addresses: self.addresses.clone(),
            others_are_off: pending.others_are_off,
        };
        match ask_all(&pending, &asks_as, &time, &ask).await? {
            Told::Joined(member) => {
                let number = member.raft_id;
                self.begin(key, member, now)?;
                Ok(Round::Member(number))
            }
            Told::Waits(why) => Ok(Round::Waits(why)),
            Told::Twin(why) => Ok(Round::Twin(Twin { why })),
        }
    }

    /// Stores what a new member starts from. The identity comes last but for the tidying up: where it is, the rest is whole.
    fn begin(&self, key: Keypair, member: JoinedMember, now: u64) -> Result<()> {
        let JoinedMember { raft_id, snapshot } = member;
        let ca = self.gate.ca();
        let subject = appliance_subject(&self.cluster, &self.appliance, raft_id);
        let leaf = ca.sign(&key.csr()?, &subject, now, LEAF_VALIDITY).context("signing the new certificate")?;
        let identity = Identity::new(key, &leaf, ca.certificate().clone())?;
        let store = self.layout.store(&self.cluster);
        match std::fs::remove_file(&store) {
            // Of a try that did not get as far as the identity: no member ever ran from it.
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("removing {}", store.display())),
        }
        let hard_state = HardState { term: snapshot.term, vote: None, commit: snapshot.index };
        drop(RaftStore::create(&store, &Stored { hard_state, snapshot: Some(snapshot), entries: Vec::new() })?);
        identity.store(&self.layout.cluster(&self.cluster))?;
        tidy_up(&self.layout, &self.cluster)
    }
}

/// What all nodes together say.
enum Told {
    Joined(JoinedMember),
    Waits(String),
    Twin(String),
}

async fn ask_all(pending: &Pending, identity: &Identity, time: &TrustedTime, ask: &RejoinAsk) -> Result<Told> {
    let mut addresses = pending.addresses();
    let cluster = &pending.cluster.name;
    if addresses.is_empty() {
        return Ok(Told::Waits(format!(
            "the backup knows no node of {cluster}: tell it where one is, `tiebreaker-server rejoin --ask \
             {cluster}=HOST:PORT`; if there never was one, remove the folder of the cluster and create it anew"
        )));
    }
    let (mut at, mut leaderless, mut failure) = (0, None, None);
    while let Some(address) = addresses.get(at).cloned() {
        at += 1;
        let answer = match ask_one(&address, identity, time, ask).await {
            Ok(answer) => answer,
            Err(error) => {
                failure = Some(format!("{error:#}"));
                continue;
            }
        };
        match answer {
            RejoinAnswer::Joined(member) => return Ok(Told::Joined(member)),
            RejoinAnswer::Twin { why } => return Ok(Told::Twin(why)),
            RejoinAnswer::Wait { why } | RejoinAnswer::Refused { why } => return Ok(Told::Waits(why)),
            RejoinAnswer::NotLeader { leader, nodes } => {
                leaderless = leader.is_none().then(|| address.to_string()).or(leaderless);
                // Nodes that joined since, and who leads before all others.
                let (first, rest): (Vec<_>, Vec<_>) =
                    nodes.iter().partition(|(name, _)| Some(*name) == leader.as_ref());
                for text in first.into_iter().chain(rest).flat_map(|(_, addresses)| addresses) {
                    let Ok(new) = text.parse::<Address>() else { continue };
                    if !addresses.contains(&new) && addresses.len() < ADDRESSES_MAX {
                        addresses.push(new);
                    }
                }
            }
        }
    }
    Ok(Told::Waits(match (leaderless, failure) {
        (Some(at), failure) => {
            let failure = failure.map_or_else(String::new, |failure| format!(" ({failure})"));
            format!(
                "the node at {at} has no leader: more than half of the voters must be up and reach each other without the \
                 appliance{failure}. Start the other nodes; if they are lost for good, `tiebreaker-agent takeover` on the node \
                 that is left makes it the whole cluster, and this appliance joins it then"
            )
        }
        (None, Some(failure)) => format!(
            "no node of {cluster} could be asked ({failure}): start them; if they are elsewhere now, `tiebreaker-server rejoin \
             --ask {cluster}=HOST:PORT`"
        ),
        (None, None) => "the lead is changing just now".to_owned(),
    }))
}

async fn ask_one(address: &Address, identity: &Identity, time: &TrustedTime, ask: &RejoinAsk) -> Result<RejoinAnswer> {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, ask)?;
    let mut client = Client::connect(std::slice::from_ref(address), None, identity, time, CONNECT_WITHIN).await?;
    let answer = client.ask(&bytes, ANSWER_WITHIN).await?;
    cbor4ii::serde::from_slice(&answer[..])
        .with_context(|| format!("what {address} answers can't be decoded: its program is older, update it"))
}

/// The key of an earlier round, or a new one.
fn new_key(path: &std::path::Path) -> Result<Keypair> {
    let decode = |text: &str| data_encoding::HEXLOWER.decode(text.trim().as_bytes()).map(Zeroizing::new);
    match read_private(path, "") {
        Ok(text) => {
            let der = decode(&text).ok().with_context(|| format!("{} is damaged: remove it", path.display()))?;
            Ok(Keypair::from_pkcs8(&der)?)
        }
        Err(FileError::Missing { .. }) => {
            let key = Keypair::generate()?;
            let text = Zeroizing::new(data_encoding::HEXLOWER.encode(key.pkcs8()));
            replace_private(path, text.as_bytes())?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pending(asks: &[&str]) -> Pending {
        let nodes = BTreeMap::from([
            ("n1".parse().unwrap(), vec!["10.0.0.1:8405".to_owned(), "not an address:".to_owned()]),
            ("n2".parse().unwrap(), vec!["10.0.0.2:8405".to_owned()]),
        ]);
        let cluster = BackedCluster { name: "home".parse().unwrap(), number: 7, newest_ms: 5, nodes };
        Pending::new(cluster, asks.iter().map(|text| text.parse().unwrap()).collect(), false)
    }

    #[test]
    fn what_is_pending_is_read_as_it_was_written_and_gone_once_there_is_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let home = "home".parse().unwrap();
        assert_eq!(Pending::read(&layout, &home).unwrap(), None);
        let written = pending(&["10.0.0.9:8405"]);
        written.write(&layout).unwrap();
        assert_eq!(Pending::read(&layout, &home).unwrap(), Some(written));
        new_key(&layout.cluster(&home).join(KEY)).unwrap();
        std::fs::write(layout.cluster(&home).join("identity.pem"), "").unwrap();
        assert_eq!(Pending::read(&layout, &home).unwrap(), None, "only the tidying up was cut off");
        tidy_up(&layout, &home).unwrap();
        assert_eq!(std::fs::read_dir(layout.cluster(&home)).unwrap().count(), 1);
    }

    #[test]
    fn the_operators_addresses_are_asked_first_and_each_once() {
        let asked: Vec<String> =
            pending(&["10.0.0.9:8405", "10.0.0.2:8405"]).addresses().iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["10.0.0.9:8405", "10.0.0.2:8405", "10.0.0.1:8405"]);
    }

    #[test]
    fn one_restore_has_one_key_however_often_it_asks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY);
        let of = |key: Keypair| request_key(&key.csr().unwrap()).unwrap();
        let first = of(new_key(&path).unwrap());
        assert_eq!(of(new_key(&path).unwrap()), first);
        std::fs::remove_file(&path).unwrap();
        assert_ne!(of(new_key(&path).unwrap()), first);
        replace_private(&path, b"nonsense").unwrap();
        assert!(new_key(&path).unwrap_err().to_string().contains("remove it"));
    }
}
