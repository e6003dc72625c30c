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
}

pub(super) async fn run(command: CorosyncCommand) -> Result<()> {
    let CorosyncCommand::Status { data, json } = command;
    match ask_daemon(&data, &LocalRequest::Fenced).await? {
        LocalReply::Fenced { clusters } if json => println!("{}", serde_json::json!({ "clusters": clusters })),
        LocalReply::Fenced { clusters } => print!("{}", table(&clusters, unix_seconds())),
        LocalReply::Refused { why } => bail!("{why}"),
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
        let text = table(&[FencedCluster { name: "prod".into(), qdevice: Some("prod".into()), nodes }], 11);
        for line in [
            "  pve1 (node 1): can be fenced, may ask\n",
            "    fence 3 for pve2, 10 s ago: over, bmc-off: ipmi 192.0.2.1:623 read off twice\n",
            "  pve2 (node 2): can NOT be fenced, has not enrolled, so it can't ask\n    pve2/bmc: no answer\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
