//! The section `[qdevice]` of `server.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_qnetd::{ClusterName, Clusters, Config, TlsMode};

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
        let mut votes = Config::new(Clusters::Named(clusters));
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
        Ok(Self { listen, invite_listen, metrics_listen, votes })
    }

    /// Whether a cluster is served.
    #[must_use]
    pub fn serves(&self, cluster: &str) -> bool {
        match &self.votes.clusters {
            Clusters::Any(_) => true,
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

/// Corosync's own bound for `totem.cluster_name`, which is also that of a certificate's common name.
const MAX_NAME: usize = 64;

/// A lost packet is sent again after 200 ms.
const SHORTEST_ANSWER_MS: u64 = 300;
