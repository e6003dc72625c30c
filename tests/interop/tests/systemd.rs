//! The agent under the real systemd, by the unit of its package: it tells a restart of itself from the end of its
//! machine, and the cluster is told before it goes.
//!
//! Needs root, and the Debian packages systemd and util-linux; without them these tests fail.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{Cluster, Look, Node, SOON, Systemd, loopback, until};
use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::report::Leave;

/// How the node has gone so far, oldest first.
fn went(cluster: &Cluster) -> Result<Vec<Leave>> {
    let lines = cluster.operator().log()?;
    Ok(lines
        .iter()
        .filter_map(|line| if let Decision::Leaving { how, .. } = line.decision { Some(how) } else { None })
        .collect())
}

#[test]
fn the_agent_tells_a_restart_of_itself_from_a_reboot_and_from_a_power_off() -> Result<()> {
    let cluster = Cluster::appliance()?;
    let operator = cluster.operator();
    let node = Node::new(cluster.folder(), "node1")?;
    let token = cluster.appliance.token("home")?;
    node.join(&[], cluster.address(), &token, loopback(), &["--watchdog", "none"])?.done()?;
    let machine = Systemd::boot(&node)?;
    let online = |after: Option<u64>| {
        let status = operator.until("the node online", SOON, |status| {
            let node = status.of("node1");
            node.is_some_and(|node| node.state == "online" && node.incarnation > after)
        })?;
        status.of("node1").and_then(|node| node.incarnation).context("an incarnation")
    };
    let first = online(None)?;

    machine.systemctl(&["restart", "tiebreaker-agent"])?.done()?;
    assert_eq!(went(&cluster)?, [Leave::AgentRestart], "it was agreed to before systemctl returned");
    online(Some(first))?;

    machine.systemctl(&["reboot"])?.done()?;
    machine.until_it_went("reboot")?;
    assert_eq!(went(&cluster)?[1..], [Leave::Reboot], "systemd has waited for it");
    until("a node that has gone in good order", SOON, || {
        let status = operator.status()?;
        ensure!(status.of("node1").is_some_and(|node| node.state == "gone"), "{status:#?}");
        Ok(())
    })?;
    drop(machine);

    let machine = Systemd::boot(&node)?;
    online(Some(first))?;
    machine.systemctl(&["poweroff"])?.done()?;
    machine.until_it_went("poweroff")?;
    assert_eq!(went(&cluster)?[2..], [Leave::PowerOff]);
    let fences = operator.log()?.iter().filter(|line| matches!(line.decision, Decision::FenceWanted { .. })).count();
    assert_eq!(fences, 0, "nobody was shot for going");
    Ok(())
}
