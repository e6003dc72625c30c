//! What is wired to the appliance itself: LEDs and a button for people, and its own watchdog.
//!
//! All of it hangs on what the daemon says through its own control socket, the way that everybody else takes: LEDs that are
//! driven, or a watchdog that is fed, from inside would go on while nobody gets an answer any more.

mod glance;
mod guard;
mod panel;
mod settings;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_member::Client;
use tiebreaker_member::ask::{FencedCluster, LocalReply, LocalRequest};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::command::{Command, Setting};

pub(crate) use guard::Guard;
pub(crate) use panel::run as run_panel;
pub(crate) use settings::{Board, RawBoard};

/// Why power is held, as everybody reads it.
const BUTTON: &str = "the appliance's button";

/// Asks the daemon, as any program on this machine does.
async fn ask(socket: &Path, request: &LocalRequest, within: Duration) -> Result<LocalReply> {
    let mut client = Client::local(socket, within).await?;
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, request).context("encoding a request")?;
    let answer = client.ask(&bytes, within).await?;
    cbor4ii::serde::from_slice(&answer[..]).context("the daemon's own answer can't be decoded")
}

/// The names of the clusters that run.
async fn clusters(socket: &Path, within: Duration) -> Result<Vec<String>> {
    match ask(socket, &LocalRequest::Clusters, within).await? {
        LocalReply::Clusters { names } => Ok(names),
        _ => bail!("the daemon answered something else than was asked"),
    }
}

/// Holds the switching of power in every cluster, or releases it in every one.
///
/// # Errors
/// Some didn't do it; what they say. The others have done it all the same.
async fn set_hold(socket: &Path, hold: bool, within: Duration) -> Result<()> {
    let mut refused = Vec::new();
    let (statuses, fenced) = (statuses(socket, within).await?, fenced(socket, within).await?);
    if statuses.is_empty() && fenced.is_empty() {
        bail!(
            "there is no cluster here whose switching of power could be held: `tiebreaker-server token create` creates one"
        );
    }
    for FencedCluster { name, hold: former, .. } in fenced {
        if former.is_some() == hold {
            continue;
        }
        let request = if hold {
            LocalRequest::FencedHold { cluster: name.clone(), reason: Some(BUTTON.to_owned()) }
        } else {
            LocalRequest::FencedRelease { cluster: name.clone() }
        };
        match ask(socket, &request, within).await {
            Ok(LocalReply::Fenced { .. }) => {}
            Ok(LocalReply::Refused { why }) => refused.push(format!("{name}: {why}")),
            Ok(_) => refused.push(format!("{name}: it answered something else")),
            Err(error) => refused.push(format!("{name}: {error:#}")),
        }
    }
    for status in statuses {
        // One that doesn't answer is not asked either.
        let Some(status) = status else {
            refused.push("a cluster doesn't answer".to_owned());
            continue;
        };
        if status.settings.hold.is_some() == hold {
            continue;
        }
        let by = String::new();
        let setting =
            if hold { Setting::Hold { by, reason: Some(BUTTON.to_owned()) } } else { Setting::Release { by } };
        let request = Box::new(Request::Propose(Command::Set(setting)));
        let request = LocalRequest::Cluster { cluster: Some(status.cluster.to_string()), request };
        match ask(socket, &request, within).await {
            Ok(LocalReply::Cluster(Reply::Done { .. })) => {}
            Ok(LocalReply::Cluster(Reply::Void { why })) => refused.push(format!("{}: {why}", status.cluster)),
            Ok(LocalReply::Cluster(Reply::Refused { why } | Reply::NoLeader { why }) | LocalReply::Refused { why }) => {
                refused.push(format!("{}: {why}", status.cluster));
            }
            Ok(_) => refused.push(format!("{}: it answered something else", status.cluster)),
            Err(error) => refused.push(format!("{}: {error:#}", status.cluster)),
        }
    }
    if refused.is_empty() { Ok(()) } else { bail!("{}", refused.join("; ")) }
}

/// The Corosync clusters whose nodes are fenced from here.
async fn fenced(socket: &Path, within: Duration) -> Result<Vec<FencedCluster>> {
    match ask(socket, &LocalRequest::Fenced, within).await? {
        LocalReply::Fenced { clusters } => Ok(clusters),
        _ => bail!("the daemon answered something else than was asked"),
    }
}

/// What each cluster says of itself; `None` of one that doesn't answer.
async fn statuses(socket: &Path, within: Duration) -> Result<Vec<Option<Status>>> {
    let mut all = Vec::new();
    for name in clusters(socket, within).await? {
        let request = LocalRequest::Cluster { cluster: Some(name), request: Box::new(Request::Status) };
        all.push(match ask(socket, &request, within).await {
            Ok(LocalReply::Cluster(Reply::Status(status))) => Some(*status),
            // It may have stopped since it was listed.
            Ok(_) | Err(_) => None,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use tiebreaker_member::{LocalAccess, LocalSocket};
    use tiebreaker_pipeline::profile::Profile;
    use tiebreaker_pipeline::state::{Hold, Settings};
    use tokio::sync::mpsc;

    use super::*;
    use crate::local::{self, LocalAsk};

    /// What a cluster says that is well, and held or not.
    pub(super) fn status(cluster: &str, held: bool) -> Status {
        let hold = held.then(|| Hold { by: "root".into(), reason: None, at_ms: 1 });
        Status {
            cluster: cluster.parse().unwrap(),
            answered_by: "pi".parse().unwrap(),
            leader: Some("pi".parse().unwrap()),
            term: 1,
            quorum_lease_ms: None,
            applied: 1,
            commit: 1,
            profile: Profile::Balanced,
            votes: (3, 3),
            members: Vec::new(),
            resources: Vec::new(),
            fences: Vec::new(),
            settings: Settings { hold, ..Settings::default() },
            rules: Vec::new(),
            outlook: None,
            alarms: Vec::new(),
        }
    }

    /// A Corosync cluster, held or not.
    pub(super) fn fenced(name: &str, held: bool) -> FencedCluster {
        let hold = held.then(|| Hold { by: "root".into(), reason: None, at_ms: 1 });
        FencedCluster { name: name.into(), qdevice: None, nodes: Vec::new(), hold }
    }

    /// A daemon of these clusters, each held or not; what `refuses` refuses. Those whose names begin with `corosync` are of
    /// Corosync.
    struct Daemon {
        socket: PathBuf,
        held: Arc<Mutex<BTreeMap<String, bool>>>,
        _folder: tempfile::TempDir,
        _lock: LocalSocket,
    }

    impl Daemon {
        fn start(clusters: &[(&str, bool)], refuses: Option<&'static str>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("control.sock");
            let (lock, incoming) = LocalSocket::start(&socket, LocalAccess::default()).unwrap();
            let held = clusters.iter().map(|(name, held)| ((*name).to_owned(), *held)).collect();
            let held: Arc<Mutex<BTreeMap<String, bool>>> = Arc::new(Mutex::new(held));
            let (asks, mut asked) = mpsc::channel(8);
            tokio::spawn(local::serve(incoming, asks));
            let clusters = Arc::clone(&held);
            tokio::spawn(async move {
                while let Some(LocalAsk { request, answer, .. }) = asked.recv().await {
                    let _ = answer.send(reply(&mut clusters.lock().unwrap(), refuses, request));
                }
            });
            Self { socket, held, _folder: folder, _lock: lock }
        }

        fn held(&self) -> Vec<bool> {
            self.held.lock().unwrap().values().copied().collect()
        }
    }

    fn is_door(name: &str) -> bool {
        name.starts_with("corosync")
    }

    fn reply(held: &mut BTreeMap<String, bool>, refuses: Option<&str>, request: LocalRequest) -> LocalReply {
        let (name, request) = match request {
            LocalRequest::Clusters => {
                return LocalReply::Clusters { names: held.keys().filter(|name| !is_door(name)).cloned().collect() };
            }
            LocalRequest::Fenced => {
                let doors = held.iter().filter(|(name, _)| is_door(name));
                return LocalReply::Fenced { clusters: doors.map(|(name, held)| fenced(name, *held)).collect() };
            }
            LocalRequest::FencedHold { cluster, .. } | LocalRequest::FencedRelease { cluster }
                if refuses == Some(&cluster[..]) =>
            {
                return LocalReply::Refused { why: "the disk is full".into() };
            }
            LocalRequest::FencedHold { cluster, reason } => {
                assert_eq!((reason.as_deref(), held[&cluster]), (Some(BUTTON), false));
                held.insert(cluster.clone(), true);
                return LocalReply::Fenced { clusters: vec![fenced(&cluster, true)] };
            }
            LocalRequest::FencedRelease { cluster } => {
                assert!(held[&cluster], "it isn't held");
                held.insert(cluster.clone(), false);
                return LocalReply::Fenced { clusters: vec![fenced(&cluster, false)] };
            }
            LocalRequest::Cluster { cluster: Some(name), request } => (name, *request),
            other => panic!("{other:?}"),
        };
        LocalReply::Cluster(match request {
            Request::Status => Reply::Status(Box::new(status(&name, held[&name]))),
            Request::Propose(_) if refuses == Some(&name[..]) => Reply::NoLeader { why: "nobody leads".into() },
            Request::Propose(Command::Set(Setting::Hold { .. })) => {
                held.insert(name, true);
                Reply::Done { index: 2 }
            }
            Request::Propose(Command::Set(Setting::Release { .. })) => {
                held.insert(name, false);
                Reply::Done { index: 2 }
            }
            other => panic!("{other:?}"),
        })
    }

    const WITHIN: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_button_holds_every_cluster_and_releases_every_one() {
        let daemon = Daemon::start(&[("home", true), ("work", false)], None);
        set_hold(&daemon.socket, true, WITHIN).await.unwrap();
        assert_eq!(daemon.held(), [true, true]);
        set_hold(&daemon.socket, false, WITHIN).await.unwrap();
        assert_eq!(daemon.held(), [false, false]);
    }

    #[tokio::test]
    async fn the_button_holds_corosync_clusters_too() {
        let daemon = Daemon::start(&[("corosync1", true), ("corosync2", false), ("home", false)], None);
        set_hold(&daemon.socket, true, WITHIN).await.unwrap();
        assert_eq!(daemon.held(), [true, true, true]);
        assert!(panel::glance(&daemon.socket).await.held);
        set_hold(&daemon.socket, false, WITHIN).await.unwrap();
        assert_eq!(daemon.held(), [false, false, false]);
        assert!(!panel::glance(&daemon.socket).await.held);
        let alone = Daemon::start(&[("corosync1", false), ("corosync2", false)], Some("corosync1"));
        let error = set_hold(&alone.socket, true, WITHIN).await.unwrap_err().to_string();
        assert_eq!((error.as_str(), alone.held()), ("corosync1: the disk is full", vec![false, true]));
        let glance = panel::glance(&alone.socket).await;
        assert_eq!((glance.fencing, glance.held), (tiebreaker_firmware::Fencing::Held, false));
    }

    #[tokio::test]
    async fn what_one_cluster_refuses_the_others_do_all_the_same_and_it_is_said() {
        let daemon = Daemon::start(&[("home", false), ("work", false)], Some("home"));
        let error = set_hold(&daemon.socket, true, WITHIN).await.unwrap_err().to_string();
        assert_eq!((error.as_str(), daemon.held()), ("home: nobody leads", vec![false, true]));
    }

    #[tokio::test]
    async fn without_a_cluster_the_button_does_not_claim_to_hold_anything() {
        let daemon = Daemon::start(&[], None);
        let error = set_hold(&daemon.socket, true, WITHIN).await.unwrap_err().to_string();
        assert!(error.contains("there is no cluster here"), "{error}");
    }
}
