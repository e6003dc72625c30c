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
use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::command::{Command, Setting};

pub(crate) use guard::Guard;
pub(crate) use panel::run as run_panel;
pub(crate) use settings::{Board, RawBoard};

/// Asks the daemon, as any program on this machine does.
async fn ask(socket: &Path, request: &LocalRequest, within: Duration) -> Result<LocalReply> {
    let mut client = Client::local(socket, within).await?;
    let mut bytes = Vec::new();
    ciborium::into_writer(request, &mut bytes).context("encoding a request")?;
    let answer = client.ask(&bytes, within).await?;
    ciborium::from_reader(&answer[..]).context("the daemon's own answer can't be decoded")
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
    for status in statuses(socket, within).await? {
        // One that doesn't answer is not asked either.
        let Some(status) = status else {
            refused.push("a cluster doesn't answer".to_owned());
            continue;
        };
        if status.settings.hold.is_some() == hold {
            continue;
        }
        let by = String::new();
        let setting = if hold {
            Setting::Hold { by, reason: Some("the appliance's button".to_owned()) }
        } else {
            Setting::Release { by }
        };
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
