//! Asking a member: through the local daemon's socket, or over TLS with an operator's identity.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::{Address, Client, Identity, LinkError, SystemClock, TimeFloor, TrustedTime};

use crate::cli::TargetArgs;
use crate::failure::Failure;
use crate::renewal;

/// Connecting takes at most this long.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An answer comes within this time: a member gives up waiting for its leader after 5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The data folder of the appliance's daemon, and of a node's.
const DATA_DIRS: [&str; 2] = ["/var/lib/tiebreaker-server", "/var/lib/tiebreaker-agent"];
const SOCKET: &str = "control.sock";
/// Beside the identity: where the operator logged in.
const ADDRESSES: &str = "addresses.json";

/// A connection to whoever was named.
pub struct Connection {
    client: Client,
    /// True behind a Unix socket, where the daemon must be told the cluster.
    local: bool,
    cluster: Option<String>,
    /// Who asks, for the records of fences.
    by: String,
}

impl Connection {
    /// Connects to whom the command line names: a socket, an address, the place of the last login, or the daemon of
    /// this machine.
    pub async fn open(target: &TargetArgs) -> Result<Self, Failure> {
        let cluster = target.cluster.as_ref().map(ToString::to_string);
        if let Some(path) = &target.socket {
            return Self::local(path, cluster).await;
        }
        if let Some(data) = &target.data {
            return Self::local(&data.join(SOCKET), cluster).await;
        }
        let dir = match &target.identity {
            Some(dir) => Some(dir.clone()),
            None => default_identity_dir(),
        };
        if let Some(address) = &target.connect {
            let dir = dir.ok_or_else(|| Failure::usage(anyhow!("--connect needs --identity DIR: $HOME is not set")))?;
            return Self::remote(std::slice::from_ref(address), &dir, cluster).await;
        }
        if let Some(dir) = dir.filter(|dir| target.identity.is_some() || Identity::exists(dir)) {
            let addresses = stored_addresses(&dir)?;
            return Self::remote(&addresses, &dir, cluster).await;
        }
        let sockets: Vec<PathBuf> = DATA_DIRS.iter().map(|dir| Path::new(dir).join(SOCKET)).collect();
        match sockets.iter().find(|path| path.exists()) {
            Some(path) => Self::local(path, cluster).await,
            None => Err(Failure::unreachable(anyhow!(
                "no daemon of Tiebreaker runs here ({} and {} are missing): name one with --data DIR, or \
                 another machine's with --connect HOST:PORT",
                sockets[0].display(),
                sockets[1].display()
            ))),
        }
    }

    /// Connects to a daemon of this machine.
    pub async fn local(path: &Path, cluster: Option<String>) -> Result<Self, Failure> {
        let client = Client::local(path, CONNECT_WITHIN).await.map_err(unreachable)?;
        let uid = rustix::process::getuid().as_raw();
        let by = match std::env::var("USER") {
            Ok(user) if !user.is_empty() => format!("{user} (uid {uid})"),
            Ok(_) | Err(_) => format!("uid {uid}"),
        };
        Ok(Self { client, local: true, cluster, by })
    }

    async fn remote(addresses: &[Address], dir: &Path, cluster: Option<String>) -> Result<Self, Failure> {
        if !Identity::exists(dir) {
            return Err(Failure::usage(anyhow!(
                "there is no operator's identity in {}: fetch one with `tiebreaker login HOST:PORT --token …` (`tiebreaker-server \
                 token create --cluster NAME --kind operator` on the appliance prints the token), or name its folder with --identity",
                dir.display()
            )));
        }
        let identity = Identity::load(dir).map_err(Failure::refused)?;
        let own = identity.peer().cluster.to_string();
        if let Some(wanted) = cluster.filter(|wanted| *wanted != own) {
            return Err(Failure::usage(anyhow!(
                "the identity in {} is for cluster {own:?}, not {wanted:?}: give another with --identity",
                dir.display()
            )));
        }
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::default());
        let client = Client::connect(addresses, None, &identity, &time, CONNECT_WITHIN).await.map_err(unreachable)?;
        renewal::renew(dir, addresses, &identity, &time).await;
        Ok(Self { client, local: false, cluster: None, by: format!("operator {}", identity.peer().name) })
    }

    /// Who asks, in words.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        self.ask_within(request, ANSWER_WITHIN).await
    }

    /// Asks, and waits for the answer at most so long.
    pub async fn ask_within(&mut self, request: Request, within: Duration) -> Result<Reply, Failure> {
        if !self.local {
            return self.exchange(&request, within).await;
        }
        let request = LocalRequest::Cluster { cluster: self.cluster.clone(), request: Box::new(request) };
        match self.exchange(&request, within).await? {
            LocalReply::Cluster(reply) => Ok(reply),
            LocalReply::Refused { why } => Err(Failure::refused(anyhow!(why))),
            _ => Err(Failure::refused(anyhow!("the daemon answered something else than was asked"))),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &mut self,
        request: &impl Serialize,
        within: Duration,
    ) -> Result<T, Failure> {
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, request).context("encoding the request").map_err(Failure::usage)?;
        let answer = self.client.ask(&bytes, within).await.map_err(unreachable)?;
        cbor4ii::serde::from_slice(&answer[..])
            .context("the answer can't be decoded: is the daemon of another version?")
            .map_err(Failure::refused)
    }
}

/// Link errors say what to do themselves; those that are refusals are told apart from silence.
fn unreachable(error: LinkError) -> Failure {
    match &error {
        LinkError::Refused { .. }
        | LinkError::PeerCertificate { .. }
        | LinkError::OwnCertificate { .. }
        | LinkError::TokenPinsOtherCa { .. }
        | LinkError::NotServed { .. }
        | LinkError::Failed { .. }
        | LinkError::TooLarge { .. } => Failure::refused(error),
        _ => Failure::unreachable(error),
    }
}

/// A link error of a login: a refusal, or silence.
pub fn login_failure(error: LinkError) -> Failure {
    unreachable(error)
}

/// Where an operator's identity lives if nothing else is said; `None` without a home.
#[must_use]
pub fn default_identity_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(config.join("tiebreaker"))
}

/// Remembers where the operator logged in.
pub fn store_addresses(dir: &Path, addresses: &[Address]) -> Result<(), Failure> {
    let path = dir.join(ADDRESSES);
    let text = serde_json::to_string(addresses).expect("addresses are plain text");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display())).map_err(Failure::refused)
}

/// Where that was.
pub fn stored_addresses(dir: &Path) -> Result<Vec<Address>, Failure> {
    let path = dir.join(ADDRESSES);
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{} can't be read: name a member with --connect HOST:PORT", path.display()))
        .map_err(Failure::usage)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is damaged: log in again, or use --connect HOST:PORT", path.display()))
        .map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_login_is_remembered_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(stored_addresses(dir.path()).unwrap_err().to_string().contains("--connect"));
        let addresses: Vec<Address> = vec!["pi.lan:8405".parse().unwrap(), "[::1]:8405".parse().unwrap()];
        store_addresses(dir.path(), &addresses).unwrap();
        assert_eq!(stored_addresses(dir.path()).unwrap(), addresses);
        std::fs::write(dir.path().join(ADDRESSES), b"\xff").unwrap();
        assert!(stored_addresses(dir.path()).unwrap_err().to_string().contains("damaged"));
    }

    #[tokio::test]
    async fn a_missing_daemon_is_unreachable_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        let Err(failure) = Connection::local(&path, None).await else { panic!("connected to nobody") };
        assert_eq!(failure.exit, crate::failure::Exit::Unreachable);
        assert!(failure.to_string().contains("control.sock"), "{failure}");
    }
}
