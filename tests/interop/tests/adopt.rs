//! What the agent does with what it finds: it adopts what a killed agent left running, restarts and relocates what dies,
//! drives a real OCF agent, and refuses what it can't protect. The real daemons on loopback, with simulated watchdogs.
//!
//! Needs the Debian packages util-linux and resource-agents; without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tiebreaker_interop::{Cluster, Look, Node, Run, SOON, Workload, loopback, until};
use tiebreaker_member::core::Status;
use tiebreaker_pipeline::{
    decision::{Decision, LogLine},
    report::Observed,
    resource::{Phase, ResourceSpec},
};

fn placed(status: &Status) -> Option<String> {
    status.runs_on("service")
}

fn fences(lines: &[LogLine]) -> usize {
    lines.iter().filter(|line| matches!(line.decision, Decision::FenceWanted { .. })).count()
}

fn kill(run: &Run) -> Result<()> {
    kill_process(Pid::from_raw(run.pid).context("a process id")?, Signal::KILL).context("killing the service")
}

#[test]
fn a_killed_agent_is_restarted_adopts_what_runs_and_keeps_its_watchdog() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    let operator = cluster.operator();
    operator.add("service", service.spec())?;
    let status = operator.until("the service running", SOON, |status| placed(status).is_some())?;
    let home = placed(&status).unwrap();
    let (node, running) = (cluster.node(&home)?, cluster.running(&home)?);
    let life = |status: &Status| status.of(&home).and_then(|node| Some((node.incarnation?, node.boot.clone()?)));
    let (mut incarnation, boot) = life(&status).context("it is admitted")?;
    let first = service.latest()?;
    assert_eq!(first.machine, node.folder());
    let before = node.watchdog()?;
    assert_eq!(before.last().map(String::as_str), Some("armed"), "armed before the start: {:?}", node.reports()?);

    for kills in 1..=3 {
        let agent = running.agent()?;
        running.kill_agent()?;
        running.until_restarted(kills)?;
        assert_ne!(running.agent()?, agent);
        let status = operator.until("the new agent's life admitted, its service adopted", SOON, |status| {
            life(status).is_some_and(|(newer, _)| newer > incarnation) && placed(status).as_ref() == Some(&home)
        })?;
        assert_eq!(life(&status).unwrap().1, boot, "the same boot");
        incarnation = life(&status).unwrap().0;
        assert_eq!(service.latest()?, first, "the service keeps its process");
        service.lives(&first)?;
        let exits = node.reported("agent_exited")?;
        assert_eq!(exits.len(), kills);
        assert!(exits.iter().all(|exit| exit["watchdog_armed"] == true && exit["status"] == "signal 9"), "{exits:?}");
    }
    // The watchdog was handed on: three times its time later nothing was reset.
    operator.until("the watchdog armed, and nothing to look at", SOON, |status| {
        status.of(&home).is_some_and(|node| node.armed == Some(true)) && status.alarms.is_empty()
    })?;
    let since = node.watchdog()?.split_off(before.len());
    assert!(!since.contains(&"disarmed".to_owned()) && node.reported("reset")?.is_empty(), "{:?}", node.reports()?);
    assert_eq!(fences(&operator.log()?), 0, "nothing is fenced");
    Ok(())
}

#[test]
fn a_service_that_dies_is_restarted_then_relocated_then_given_up_until_it_is_set_again() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    let operator = cluster.operator();
    operator.add("service", ResourceSpec { max_restart: 1, max_relocate: 1, ..service.spec() })?;
    operator.until("the service running", SOON, |status| placed(status).is_some())?;

    let first = service.latest()?;
    kill(&first)?;
    let second = until("restart", SOON, || {
        let run = service.latest()?;
        ensure!(run != first, "no new run");
        Ok(run)
    })?;
    assert_eq!(second.machine, first.machine, "restarted on the same node");
    operator.until("the service running", SOON, |status| placed(status).is_some())?;

    service.lives(&second)?;
    kill(&second)?;
    let third = until("relocation", SOON, || {
        let run = service.latest()?;
        ensure!(run != second, "no new run");
        Ok(run)
    })?;
    assert_ne!(third.machine, first.machine, "relocated after max_restart");
    operator.until("the service running", SOON, |status| placed(status).is_some())?;
    let lines = operator.log()?;
    assert!(lines.iter().any(|line| matches!(line.decision, Decision::Released { .. })), "a move is two commits");

    // The other node has a restart of its own, and no further move.
    service.lives(&third)?;
    kill(&third)?;
    let fourth = until("restart on the other node", SOON, || {
        let run = service.latest()?;
        ensure!(run != third, "no new run");
        Ok(run)
    })?;
    assert_eq!(fourth.machine, third.machine);
    operator.until("the service running", SOON, |status| placed(status).is_some())?;
    service.lives(&fourth)?;
    kill(&fourth)?;
    let gave_up = |status: &Status| {
        status.resource("service").is_some_and(|service| matches!(service.phase, Phase::Error { .. }))
    };
    operator.until("the service given up", SOON, gave_up)?;
    let why = cluster.operate(&["why", "service"])?.done()?;
    assert!(why.contains("set"), "`why` names the way out: {why}");
    assert_eq!(service.latest()?, fourth, "given up, it is not started again");

    let too_early = cluster.operate(&["resource", "set", "service", "--state", "started"])?.refused()?;
    assert!(too_early.contains("--state disabled"), "{too_early}");
    cluster.operate(&["resource", "set", "service", "--state", "disabled"])?.done()?;
    cluster.operate(&["resource", "set", "service", "--state", "started"])?.done()?;
    let fifth = until("start after the error was cleared", SOON, || {
        let run = service.latest()?;
        ensure!(run != fourth, "no new run");
        Ok(run)
    })?;
    operator.until("the service running", SOON, |status| placed(status).is_some())?;
    service.lives(&fifth)?;
    assert_eq!(fences(&operator.log()?), 0);
    Ok(())
}

#[test]
fn a_service_that_can_not_start_anywhere_is_given_up_and_says_why() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    for name in ["node1", "node2"] {
        fs::write(cluster.node(name)?.folder().join("refuse"), "")?;
    }
    let operator = cluster.operator();
    operator.add("service", service.spec())?;
    operator.until("the service given up", SOON, |status| {
        status.resource("service").is_some_and(|service| matches!(service.phase, Phase::Error { .. }))
    })?;
    let why = cluster.operate(&["why", "service"])?.done()?;
    assert!(why.contains("told to fail"), "`why` repeats what the program said: {why}");
    assert!(service.runs()?.is_empty());

    for name in ["node1", "node2"] {
        fs::remove_file(cluster.node(name)?.folder().join("refuse"))?;
    }
    let too_early = cluster.operate(&["resource", "set", "service", "--state", "started"])?.refused()?;
    assert!(too_early.contains("--state disabled"), "{too_early}");
    cluster.operate(&["resource", "set", "service", "--state", "disabled"])?.done()?;
    cluster.operate(&["resource", "set", "service", "--state", "started"])?.done()?;
    operator.until("the service running", SOON, |status| placed(status).is_some())?;
    service.lives(&service.latest()?)
}

#[test]
fn an_ocf_agent_is_started_monitored_and_stopped() -> Result<()> {
    let cluster = Cluster::start(&["node1"])?;
    let operator = cluster.operator();
    ensure!(
        fs::exists("/usr/lib/ocf/resource.d/heartbeat/Dummy")?,
        "ocf:heartbeat:Dummy is missing: install the Debian package resource-agents"
    );
    let state = cluster.folder().join("dummy.state");
    let param = format!("state={}", state.display());
    let add = ["resource", "add", "dummy", "--ocf", "ocf:heartbeat:Dummy", "--param", &param, "--monitor-s", "0.5"];
    cluster.operate(&add)?.done()?;
    operator.until("Dummy running", SOON, |status| status.runs_on("dummy").is_some())?;
    assert!(state.exists(), "started");

    // Dummy's state goes: its monitor says stopped, and it is started again on the same node.
    fs::remove_file(&state)?;
    until("restart of Dummy", SOON, || fs::metadata(&state).map(drop).context("no state"))?;
    operator.until("Dummy running", SOON, |status| status.runs_on("dummy").as_deref() == Some("node1"))?;

    cluster.operate(&["resource", "set", "dummy", "--state", "stopped"])?.done()?;
    until("stop of Dummy", SOON, || {
        ensure!(!state.exists(), "its state is there");
        Ok(())
    })?;
    operator.until("Dummy seen stopped, and the watchdog off", SOON, |status| {
        let stopped = status.resource("dummy").and_then(|dummy| dummy.observed.clone());
        stopped == Some(Observed::Stopped) && status.of("node1").is_some_and(|node| node.armed == Some(false))
    })?;
    Ok(())
}

#[test]
fn a_node_without_watchdog_and_power_device_takes_nothing_protected_and_says_why() -> Result<()> {
    let cluster = Cluster::appliance()?;
    let mut running = Vec::new();
    for (name, watchdog) in [("bare", "none"), ("unproven", "simulated")] {
        let node = Node::new(cluster.folder(), name)?;
        let token = cluster.appliance.token("home")?;
        node.join(&[], cluster.address(), &token, loopback(), &["--watchdog", watchdog])?.done()?;
        running.push(node.start()?);
    }
    let operator = cluster.operator();
    operator.until("two nodes", SOON, |status| status.online() == 2)?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    operator.add("service", service.spec())?;
    until("reason", SOON, || {
        let why = cluster.operate(&["why", "service"])?.done()?;
        for words in ["bare", "no power-fencing device and no watchdog", "unproven", "is not proven"] {
            ensure!(why.contains(words), "{words:?} is not in: {why}");
        }
        Ok(())
    })?;
    let status = cluster.operate(&["status"])?.done()?;
    assert!(status.contains("takes no protected resources"), "{status}");
    assert!(service.runs()?.is_empty(), "nothing was started");
    Ok(())
}

#[test]
fn a_frozen_agent_loses_its_lease_and_its_watchdog_resets_the_node() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    let operator = cluster.operator();
    operator.add("service", service.spec())?;
    let status = operator.until("the service running", SOON, |status| placed(status).is_some())?;
    operator.until("three votes", SOON, |status| status.votes == (3, 3))?;
    let home = placed(&status).unwrap();
    let first = service.latest()?;
    kill_process(cluster.running(&home)?.agent()?, Signal::STOP)?;
    // Without a power device there is the arithmetic of lease and watchdog, which lets a real reset come first.
    let fenced = operator.until_decided(
        "fence that is carried out",
        SOON,
        |line| matches!(&line.decision, Decision::Fenced { node, .. } if node.as_str() == home),
    )?;
    assert_eq!(cluster.node(&home)?.reported("reset")?.len(), 1, "{fenced:?} comes after the reset");
    let second = until("recovery", SOON, || {
        let run = service.latest()?;
        ensure!(run.machine != first.machine, "no new run");
        Ok(run)
    })?;
    service.lives(&second)?;
    cluster.all_online()?;
    operator.until("no open fence", SOON, |status| status.fences.is_empty())?;
    service.lives(&second)
}
