//! Where the appliance keeps its files, and how they come to be.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tiebreaker_consensus::{Membership, RaftId, bootstrap};
use tiebreaker_member::store::RaftStore;
use tiebreaker_member::{Ca, Identity, LEAF_VALIDITY, PeerId, Role, Subject};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state::State;

/// The data folder.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// Seconds since 1970 by the wall clock.
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Layout {
    /// A data folder.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("server.toml")
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// A cluster's folder.
    #[must_use]
    pub fn cluster(&self, cluster: &ClusterName) -> PathBuf {
        self.root.join("clusters").join(cluster.as_str())
    }

    /// The folder of a Corosync cluster whose nodes are fenced from here.
    #[must_use]
    pub fn corosync(&self, cluster: &ClusterName) -> PathBuf {
        self.root.join("corosync").join(cluster.as_str())
    }

    /// A cluster's store.
    #[must_use]
    pub fn store(&self, cluster: &ClusterName) -> PathBuf {
        self.cluster(cluster).join("raft.redb")
    }

    /// The clusters that have a folder.
    ///
    /// # Errors
    /// When the folder can't be read or holds something else.
    pub fn clusters(&self) -> Result<Vec<ClusterName>> {
        let dir = self.root.join("clusters");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", dir.display()))?;
            let Ok(text) = entry.file_name().into_string() else {
                bail!("{} holds a folder whose name is not text: move it away", dir.display());
            };
            // A folder of this ending was being made when the power failed; it never was a cluster.
            if text.ends_with(HALF_MADE) {
                continue;
            }
            names.push(ClusterName::new(&text).with_context(|| format!("in {}", dir.display()))?);
        }
        names.sort();
        Ok(names)
    }

    /// Creates a cluster: the appliance's certificate in it, and a store in which the appliance alone votes.
    ///
    /// # Errors
    /// When the files can't be written; then there is no cluster.
    pub fn create_cluster(
        &self,
        ca: &Ca,
        cluster: &ClusterName,
        appliance: &MemberName,
        addresses: &[String],
    ) -> Result<()> {
        let done = self.cluster(cluster);
        let half = self.root.join("clusters").join(format!("{cluster}{HALF_MADE}"));
        if half.exists() {
            std::fs::remove_dir_all(&half).with_context(|| format!("removing the leftover {}", half.display()))?;
        }
        let raft_id = first_raft_id()?;
        let subject = appliance_subject(cluster, appliance, raft_id);
        let identity =
            ca.issue(&subject, unix_seconds(), LEAF_VALIDITY).context("making the appliance's certificate")?;
        std::fs::create_dir_all(&half).with_context(|| format!("creating {}", half.display()))?;
        identity.store(&half)?;
        let state = State::new(cluster.clone(), appliance.clone(), addresses.to_vec(), String::new());
        let state = state.founded_as(raft_id);
        let voters = Membership { voters: [RaftId(raft_id)].into(), learners: [].into() };
        drop(RaftStore::create(half.join("raft.redb"), &bootstrap(voters, state.encode()))?);
        std::fs::rename(&half, &done).with_context(|| format!("finishing {}", done.display()))?;
        let clusters = self.root.join("clusters");
        std::fs::File::open(&clusters)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("making {} durable", clusters.display()))?;
        Ok(())
    }

    /// Loads the appliance's identity in a cluster.
    ///
    /// # Errors
    /// When its file is missing or damaged.
    pub fn identity(&self, cluster: &ClusterName) -> Result<Identity> {
        Ok(Identity::load(&self.cluster(cluster))?)
    }
}

const HALF_MADE: &str = ".new";

/// The appliance's number in a cluster that it founds: drawn at random, with room above it for all who join, because no
/// number may ever be used again, and an appliance that lost its disk remembers none.
fn first_raft_id() -> Result<u64> {
    let random = u64::from(getrandom::u32().context("drawing a number for the appliance")?);
    Ok((random << 20) | 1)
}

/// What the appliance's certificate in a cluster says.
#[must_use]
pub fn appliance_subject(cluster: &ClusterName, appliance: &MemberName, raft_id: u64) -> Subject {
    let peer = PeerId { cluster: cluster.clone(), role: Role::Appliance, name: appliance.clone() };
    Subject { peer, raft_id: Some(raft_id) }
}
