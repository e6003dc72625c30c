//! The section `[qdevice]` of `server.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_qnetd::{ClusterName, Clusters, Config, TlsMode};

use super::pki::PkiError;
use super::store::Folder;

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawQdevice {
    #[serde(default = "port_5403")]
    listen: Vec<String>,
    /// Where invited nodes come, while there is an invitation.
    #[serde(default = "port_8406")]
    invite_listen: Vec<String>,
    /// Where Prometheus asks for figures; nowhere if it is left out.
    #[serde(default)]
    metrics_listen: Vec<String>,
    /// lms with the original's defects.
    #[serde(default)]
    lms_as_original: bool,
    /// How long a node that others no longer see has for a sign of life; 0 waits for its heartbeats as the original.
    answer_within_ms: Option<u64>,
    /// Where the authority lies, if not in the data folder.
    authority: Option<PathBuf>,
    /// Where `corosync-qnetd-tool` asks.
    control_socket: Option<PathBuf>,
    /// Not only the clusters below are served, but any whose nodes show a certificate of the authority.
    #[serde(default)]
    any_certified: bool,
    #[serde(default)]
    clusters: BTreeMap<String, RawCluster>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    /// Whether nodes may do without TLS.
    #[serde(default)]
    plain_text: bool,
}

fn port_5403() -> Vec<String> {
    vec!["[::]:5403".into()]
}

fn port_8406() -> Vec<String> {
    vec!["[::]:8406".into()]
}

/// What the service is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where invited nodes come, while there is an invitation.
    pub invite_listen: Vec<SocketAddr>,
    /// Where figures are served.
    pub metrics_listen: Vec<SocketAddr>,
    /// Where the authority lies, if not in the data folder.
    pub authority: Option<PathBuf>,
    /// Where `corosync-qnetd-tool` asks, if it may.
    pub control_socket: Option<PathBuf>,
    /// How it votes, and for whom.
    pub votes: Config,
}

impl Settings {
    /// Checks the section.
    ///
    /// # Errors
    /// Names the place and the way out.
    pub fn check(raw: &RawQdevice) -> Result<Self> {
        let listen = addresses("qdevice.listen", &raw.listen)?;
        let invite_listen = addresses("qdevice.invite_listen", &raw.invite_listen)?;
        let metrics_listen = match &raw.metrics_listen[..] {
            [] => Vec::new(),
            texts => addresses("qdevice.metrics_listen", texts)?,
        };
        let mut clusters = BTreeMap::new();
        for (name, cluster) in &raw.clusters {
            if name.is_empty() || name.len() > MAX_NAME {
                bail!("qdevice.clusters: {name:?}: a cluster's name has 1 to {MAX_NAME} bytes");
            }
            let mode = if cluster.plain_text { TlsMode::Optional } else { TlsMode::Required };
            clusters.insert(ClusterName::new(name.as_bytes()), mode);
        }
        let clusters = if raw.any_certified { Clusters::Certified(clusters) } else { Clusters::Named(clusters) };
        let mut votes = Config::new(clusters);
        votes.lms_as_original = raw.lms_as_original;
        match raw.answer_within_ms {
            None => {}
            Some(0) => votes.answer_within = None,
            Some(ms) if ms >= SHORTEST_ANSWER_MS => votes.answer_within = Some(Duration::from_millis(ms)),
            Some(ms) => {
                bail!(
                    "qdevice.answer_within_ms = {ms} drops nodes that are there: use {SHORTEST_ANSWER_MS} or more, or 0"
                )
            }
        }
        let authority = absolute("qdevice.authority", raw.authority.as_ref())?;
        let control_socket = absolute("qdevice.control_socket", raw.control_socket.as_ref())?;
        Ok(Self { listen, invite_listen, metrics_listen, authority, control_socket, votes })
    }

    /// A service beside no appliance.
    #[must_use]
    pub fn alone(listen: Vec<SocketAddr>, authority: PathBuf, control_socket: PathBuf, votes: Config) -> Self {
        Self {
            listen,
            invite_listen: Vec::new(),
            metrics_listen: Vec::new(),
            authority: Some(authority),
            control_socket: Some(control_socket),
            votes,
        }
    }

    /// Where the authority of an appliance with this data folder lies.
    ///
    /// # Errors
    /// When the configuration names a folder, and the authority is still in the data folder.
    pub fn folder(&self, data: &Path) -> Result<Folder, PkiError> {
        let own = Folder::of_appliance(data);
        let Some(path) = &self.authority else { return Ok(own) };
        let folder = Folder::of_corosync(path);
        if own.has_authority() && !folder.has_authority() {
            return Err(PkiError::Elsewhere { folder: path.clone(), elsewhere: own.authority() });
        }
        Ok(folder)
    }

    /// Whether clients use TLS: they must unless some cluster is named for plain text.
    #[must_use]
    pub fn tls(&self) -> TlsMode {
        match &self.votes.clusters {
            Clusters::Any(mode) => *mode,
            Clusters::Named(clusters) | Clusters::Certified(clusters) => {
                clusters.values().copied().find(|mode| *mode != TlsMode::Required).unwrap_or_default()
            }
        }
    }

    /// Whether a cluster is served.
    #[must_use]
    pub fn serves(&self, cluster: &str) -> bool {
        match &self.votes.clusters {
            Clusters::Any(_) | Clusters::Certified(_) => true,
            Clusters::Named(clusters) => clusters.contains_key(&ClusterName::from(cluster)),
        }
    }
}

fn addresses(key: &str, texts: &[String]) -> Result<Vec<SocketAddr>> {
    if texts.is_empty() {
        bail!("{key} is empty: give at least one ADDRESS:PORT, or leave the line out");
    }
    let parse = |text: &String| {
        text.parse().with_context(|| format!("{key}: {text:?} is no ADDRESS:PORT, for instance [::]:5403"))
    };
    texts.iter().map(parse).collect()
}

/// The daemon may be started anywhere.
fn absolute(key: &str, path: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    match path {
        Some(path) if !path.is_absolute() => bail!("{key}: {} must begin with /", path.display()),
        path => Ok(path.cloned()),
    }
}

/// Corosync's own bound for `totem.cluster_name`, which is also that of a certificate's common name.
const MAX_NAME: usize = 64;

/// A lost packet is sent again after 200 ms.
const SHORTEST_ANSWER_MS: u64 = 300;
