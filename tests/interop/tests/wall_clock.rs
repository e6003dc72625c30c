//! A wall clock that jumps, under the real daemons: people are told, and nothing else comes of it. Leases, links and the vote go
//! by clocks that nobody sets.
//!
//! Needs Debian's package libfaketime; without it this test fails.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{Appliance, Cluster, Look, Node, SOON, WallClock, Workload, until};
use tiebreaker_pipeline::decision::Decision;

const HOUR: i64 = 3_600;

#[test]
fn a_clock_that_jumps_is_told_and_costs_no_lease_no_link_and_no_move() -> Result<()> {
    let mut cluster = Cluster::appliance()?;
    let pis = WallClock::new(&cluster.folder().join("clock-of-pi"))?;
    let nodes = WallClock::new(&cluster.folder().join("clock-of-node1"))?;
    restart_with(&mut cluster.appliance, &pis)?;
    let simulated = ["--watchdog", "simulated", "--accept", "simulated"];
    let node1 = Node::new(cluster.folder(), "node1")?.with_environment(nodes.environment());
    cluster.add_node(node1, &simulated)?;
    cluster.add("node2")?;
    cluster.all_online()?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    let operator = cluster.operator();
    operator.add("service", service.spec())?;
    let home = operator
        .until("the service running", SOON, |status| status.runs_on("service").is_some())?
        .runs_on("service")
        .unwrap();
    let run = service.until_on(cluster.node(&home)?.folder(), SOON)?;
    let before = operator.status()?;
    let lives = |name: &str| before.of(name).and_then(|node| node.incarnation).context("an incarnation");
    let (first, second) = (lives("node1")?, lives("node2")?);

    // Two hours ahead, and a day back: to a time before any certificate here was valid.
    pis.set_off_by(2 * HOUR)?;
    nodes.set_off_by(-24 * HOUR)?;
    let told = |whose: &str, sign: char| {
        let beginning = format!("{whose}: its clock jumped by {sign}");
        until("an alarm about the clock", SOON, || {
            let alarms = operator.status()?.alarms;
            ensure!(alarms.iter().any(|alarm| alarm.starts_with(&beginning)), "{beginning}: {alarms:#?}");
            Ok(())
        })
    };
    told("pi", '+')?;
    told("node1", '-')?;
    ensure!(cluster.node("node1")?.log().contains("its clock jumped by -"), "its own log says so as well");

    // Whoever starts meanwhile makes all its links anew, between clocks that are a day apart, and is admitted.
    let starts = cluster.node("node1")?.reported("started")?.len();
    cluster.running("node1")?.kill_agent()?;
    cluster.running("node1")?.until_restarted(starts)?;
    let back = operator.until("the restarted agent online", SOON, |status| {
        status.of("node1").is_some_and(|node| node.state == "online" && node.incarnation > Some(first))
    })?;
    ensure!(back.of("node2").and_then(|node| node.incarnation) == Some(second), "node2 kept its life: {back:#?}");

    pis.set_off_by(0)?;
    nodes.set_off_by(0)?;
    told("pi", '-')?;
    told("node1", '+')?;

    let after = operator.status()?;
    ensure!(after.leader == before.leader, "the same leader: {after:#?}");
    ensure!(after.online() == 2, "{after:#?}");
    let fences =
        operator.log()?.into_iter().filter(|line| matches!(line.decision, Decision::FenceWanted { .. })).count();
    assert_eq!(fences, 0, "nobody was fenced");
    service.lives(&run)?;
    assert_eq!(service.runs()?.len(), 1, "it was never started again");
    for node in ["node1", "node2"] {
        assert_eq!(cluster.node(node)?.reported("reset")?.len(), 0, "{node} was never reset");
    }
    Ok(())
}

/// The appliance's daemon, under this clock from now on.
fn restart_with(appliance: &mut Appliance, clock: &WallClock) -> Result<()> {
    appliance.stop();
    let mut place = vec!["env".into()];
    place.extend(clock.environment());
    appliance.move_to(place);
    appliance.start()
}
