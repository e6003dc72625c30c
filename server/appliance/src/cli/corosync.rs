//! `tiebreaker-server corosync`: the Corosync clusters whose nodes this appliance fences.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use tiebreaker_member::ask::{FencedCluster, LocalReply, LocalRequest};

use super::ask_daemon;
use crate::layout::unix_seconds;

#[derive(Subcommand, Debug)]
pub(super) enum CorosyncCommand {
    /// Shows the clusters, whether each node could be fenced, and the fences that are under way or were last.
    Status {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Holds the switching of power in a cluster: no power device is told to switch anything until `corosync release`, not even to
    /// fence a lost node or to give it power again. A command that had begun already is carried out.
    Hold {
        /// The cluster, as server.toml names it.
        cluster: String,
        /// Why, for whoever looks at the status.
        #[arg(long)]
        reason: Option<String>,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Ends a hold. Fences that were refused meanwhile have to be asked for again, as Pacemaker does.
    Release {
        /// The cluster, as server.toml names it.
        cluster: String,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: CorosyncCommand) -> Result<()> {
    let (request, data, json, done) = match command {
        CorosyncCommand::Status { data, json } => (LocalRequest::Fenced, data, json, None),
        CorosyncCommand::Hold { cluster, reason, data, json } => {
            let done = "No power device is told to switch anything from now on, until `tiebreaker-server corosync release`. A \
                        command that had begun already is carried out.";
            (LocalRequest::FencedHold { cluster, reason }, data, json, Some(done))
        }
        CorosyncCommand::Release { cluster, data, json } => {
            let done = "Power devices may be told to switch again.";
            (LocalRequest::FencedRelease { cluster }, data, json, Some(done))
        }
    };
    match (ask_daemon(&data, &request).await?, done) {
        (LocalReply::Fenced { clusters }, _) if json => println!("{}", serde_json::json!({ "clusters": clusters })),
        (LocalReply::Fenced { .. }, Some(done)) => println!("{done}"),
        (LocalReply::Fenced { clusters }, None) => print!("{}", table(&clusters, unix_seconds())),
        (LocalReply::Refused { why }, _) => bail!("{why}"),
        _ => bail!("the daemon answered something else than was asked"),
    }
    Ok(())
}

/// The clusters for a person; `now` in seconds since 1970.
fn table(clusters: &[FencedCluster], now: u64) -> String {
    let mut out = String::new();
    if clusters.is_empty() {
        out.push_str("No Corosync cluster's nodes are fenced from here: add [corosync.NAME] to server.toml.\n");
    }
    for cluster in clusters {
        let decides = match &cluster.qdevice {
            Some(name) => format!("the vote of QDevice cluster {name:?} decides"),
            None => "trusted: whoever asks first is believed".to_owned(),
        };
        let _ = writeln!(out, "cluster {}: {decides}", cluster.name);
        if let Some(hold) = &cluster.hold {
            let ago = now.saturating_sub(hold.at_ms / 1000);
            let _ = writeln!(out, "  the switching of power is {hold} (since {ago} s): nobody is fenced");
        }
        for node in &cluster.nodes {
            let enrolled = if node.enrolled { "may ask" } else { "has not enrolled, so it can't ask" };
            let proven = if node.proven { "can be fenced" } else { "can NOT be fenced" };
            let _ = writeln!(out, "  {} (node {}): {proven}, {enrolled}", node.name, node.id);
            for fault in &node.faults {
                let _ = writeln!(out, "    {fault}");
            }
            if let Some(fence) = &node.fence {
                let ago = now.saturating_sub(fence.begun_ms / 1000);
                let how = if fence.how.is_empty() { String::new() } else { format!(", {}", fence.how) };
                let _ = writeln!(out, "    fence {} for {}, {ago} s ago: {}{how}", fence.number, fence.by, fence.stage);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tiebreaker_member::ask::{FenceShown, FenceStage, FencedNode};
    use tiebreaker_pipeline::state::Hold;

    use super::*;

    #[test]
    fn a_person_sees_who_can_be_fenced_and_why_not() {
        assert!(table(&[], 0).contains("[corosync.NAME]"));
        let fence = FenceShown {
            number: 3,
            by: "pve2".into(),
            begun_ms: 1_000,
            stage: FenceStage::Over,
            how: "bmc-off: ipmi 192.0.2.1:623 read off twice".into(),
        };
        let node = |name: &str, id, proven, faults: &[&str], fence| FencedNode {
            name: name.into(),
            id,
            enrolled: proven,
            proven,
            faults: faults.iter().map(ToString::to_string).collect(),
            fence,
        };
        let nodes =
            vec![node("pve1", 1, true, &[], Some(fence)), node("pve2", 2, false, &["pve2/bmc: no answer"], None)];
        let hold = Hold { by: "root".into(), reason: Some("cables".into()), at_ms: 4_000 };
        let text =
            table(&[FencedCluster { name: "prod".into(), qdevice: Some("prod".into()), nodes, hold: Some(hold) }], 11);
        for line in [
            "  the switching of power is held by root: cables (since 7 s): nobody is fenced\n",
            "  pve1 (node 1): can be fenced, may ask\n",
            "    fence 3 for pve2, 10 s ago: over, bmc-off: ipmi 192.0.2.1:623 read off twice\n",
            "  pve2 (node 2): can NOT be fenced, has not enrolled, so it can't ask\n    pve2/bmc: no answer\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
