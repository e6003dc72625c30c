//! Planned work on a running cluster, by the operator's command: maintenance, moves, locks, disarming, an agent that is
//! told to end, a rolling update. Nothing is ever fenced for it, and nothing runs twice. The real daemons on loopback, with
//! simulated watchdogs.
//!
//! Needs the Debian package util-linux; without it these tests fail.
#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tiebreaker_interop::{Cluster, Look, Operator, Run, SOON, Workload, until};
use tiebreaker_member::core::Status;
use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::report::Leave;
use tiebreaker_pipeline::resource::{ResourceSpec, Shown};

/// Two nodes, and a service that runs on the first of the result.
fn started(spec: impl FnOnce(&Workload) -> ResourceSpec) -> Result<(Cluster, Workload, String, String)> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    let operator = cluster.operator();
    operator.until("three votes", SOON, |status| status.votes == (3, 3))?;
    operator.add("service", spec(&service))?;
    let status = operator.until("the service running", SOON, |status| status.runs_on("service").is_some())?;
    let home = status.runs_on("service").unwrap();
    let away = if home == "node1" { "node2" } else { "node1" }.to_owned();
    Ok((cluster, service, home, away))
}

fn runs_on(operator: &Operator, node: &str) -> Result<Status> {
    operator.until(&format!("the service on {node}"), SOON, |status| status.runs_on("service").as_deref() == Some(node))
}

/// Nothing was fenced, and no watchdog has reset anything.
fn nothing_was_fenced(cluster: &Cluster) -> Result<()> {
    let lines = cluster.operator().log()?;
    let fences = lines.iter().filter(|line| matches!(line.decision, Decision::FenceWanted { .. })).count();
    ensure!(fences == 0, "{fences} fences: {lines:#?}");
    for name in ["node1", "node2"] {
        let resets = cluster.node(name)?.reported("reset")?;
        ensure!(resets.is_empty(), "{name}: {resets:?}");
    }
    Ok(())
}

fn armed(status: &Status, node: &str) -> Option<bool> {
    status.of(node).and_then(|node| node.armed)
}

fn kill(run: &Run) -> Result<()> {
    kill_process(Pid::from_raw(run.pid).context("a process id")?, Signal::KILL).context("killing the service")
}

#[test]
fn maintenance_empties_a_node_and_what_fails_back_returns() -> Result<()> {
    let (cluster, service, home, away) = started(Workload::spec)?;
    let operator = cluster.operator();
    cluster.operate(&["resource", "set", "service", "--failback"])?.done()?;
    let drain = cluster.operate(&["plan", "drain", &home])?.done()?;
    assert!(drain.contains("service") && drain.contains(&away) && drain.contains("stop and start"), "{drain}");
    assert_eq!(operator.status()?.runs_on("service").as_deref(), Some(home.as_str()), "a plan does nothing");

    let on = cluster.operate(&["maintenance", &home, "on", "--wait"])?.done()?;
    assert!(on.contains("in maintenance and empty"), "{on}");
    let status = runs_on(&operator, &away)?;
    assert_eq!(status.of(&home).map(|node| (node.state.as_str(), node.maintenance)), Some(("maintenance", true)));
    let moved = service.latest()?;
    assert_eq!(moved.machine, cluster.node(&away)?.folder());

    cluster.operate(&["maintenance", &home, "off", "--wait"])?.done()?;
    runs_on(&operator, &home)?;
    let back = service.latest()?;
    assert_eq!(back.machine, cluster.node(&home)?.folder());
    service.lives(&back)?;
    a_goal_is_kept_unless_somebody_insists(&cluster, &away)?;
    nothing_was_fenced(&cluster)
}

fn a_goal_is_kept_unless_somebody_insists(cluster: &Cluster, spare: &str) -> Result<()> {
    let operator = cluster.operator();
    let met = cluster.operate(&["set", "tolerate", "1"])?.done()?;
    ensure!(!met.contains("NOT MET"), "{met}");
    let refused = cluster.operate(&["maintenance", spare, "on"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    let why = &refused.stderr;
    ensure!(why.contains("service") && why.contains("--force"), "the counterexample and the way: {why}");
    ensure!(operator.status()?.of(spare).is_some_and(|node| !node.maintenance), "it was refused");
    cluster.operate(&["maintenance", spare, "on", "--force"])?.done()?;
    let forced = operator.log()?.into_iter().find(|line| matches!(line.decision, Decision::Forced { .. }));
    ensure!(forced.is_some_and(|line| line.decision.to_string().contains(spare)), "the timeline keeps it");
    operator.until("no failure is tolerable", SOON, |status| {
        status.outlook.as_ref().is_some_and(|outlook| outlook.tolerable == Some(0))
    })?;
    let short = cluster.operate(&["set", "tolerate", "1"])?.done()?;
    ensure!(short.contains("NOT MET NOW: 1 node failure(s) shall be tolerable, 0 now"), "{short}");
    Ok(())
}

#[test]
fn a_live_move_goes_by_the_program_for_it_and_a_relocation_by_stop_and_start() -> Result<()> {
    let (cluster, service, home, away) = started(Workload::live_spec)?;
    let operator = cluster.operator();
    cluster.operate(&["resource", "migrate", "service", &away])?.done()?;
    runs_on(&operator, &away)?;
    let lines = operator.log()?;
    assert!(lines.iter().any(|line| matches!(line.decision, Decision::Migrating { .. })), "{lines:#?}");
    assert!(!lines.iter().any(|line| matches!(line.decision, Decision::Released { .. })), "{lines:#?}");
    assert_eq!(service.runs()?.len(), 2, "the first run and the one that moved: nobody started it there");
    service.lives(&service.latest()?)?;

    let nowhere = cluster.operate(&["resource", "migrate", "service", "node9"])?.refused()?;
    assert!(nowhere.contains("node9"), "{nowhere}");
    cluster.operate(&["resource", "relocate", "service", &home])?.done()?;
    runs_on(&operator, &home)?;
    assert_eq!(service.runs()?.len(), 3);
    service.lives(&service.latest()?)?;
    cluster.operate(&["resource", "set", "service", "--no-live"])?.done()?;
    let dead = cluster.operate(&["resource", "migrate", "service", &away])?.refused()?;
    assert!(dead.contains("relocate"), "the way out: {dead}");
    nothing_was_fenced(&cluster)
}

#[test]
fn what_is_locked_is_left_alone_until_it_is_unlocked() -> Result<()> {
    let (cluster, service, home, _) = started(Workload::spec)?;
    let operator = cluster.operator();
    cluster.operate(&["resource", "lock", "service", "--reason", "a backup runs"])?.done()?;
    let first = service.latest()?;
    kill(&first)?;
    operator.until("the service seen stopped", SOON, |status| {
        status.resource("service").and_then(|service| service.observed.as_ref()).is_some_and(|seen| seen.is_stopped())
    })?;
    let why = cluster.operate(&["why", "service"])?.done()?;
    assert!(why.contains("a backup runs"), "{why}");
    let refused = cluster.operate(&["resource", "relocate", "service", &home])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(service.latest()?, first, "nobody has started it");
    cluster.operate(&["resource", "unlock", "service"])?.done()?;
    runs_on(&operator, &home)?;
    assert_ne!(service.latest()?, first);
    service.lives(&service.latest()?)?;
    nothing_was_fenced(&cluster)
}

#[test]
fn disarming_releases_the_watchdogs_and_arming_brings_them_back_while_the_service_runs_on() -> Result<()> {
    let (cluster, service, home, _) = started(Workload::spec)?;
    let operator = cluster.operator();
    operator.until("the watchdog armed", SOON, |status| armed(status, &home) == Some(true))?;
    let first = service.latest()?;
    let watchdog = || -> Result<Option<String>> { Ok(cluster.node(&home)?.watchdog()?.pop()) };
    assert_eq!(watchdog()?.as_deref(), Some("armed"));
    let disarmed = cluster.operate(&["disarm", "--freeze", "--wait", "--within", "60s"])?.done()?;
    assert!(disarmed.contains("NOTHING IS PROTECTED"), "{disarmed}");
    let status = operator.status()?;
    assert!(["node1", "node2"].iter().all(|node| armed(&status, node) == Some(false)), "{status:#?}");
    assert_eq!(status.resource("service").map(|service| service.state), Some(Shown::Freeze));
    assert_eq!(watchdog()?.as_deref(), Some("disarmed"));
    let shown = cluster.operate(&["status"])?.done()?;
    assert!(shown.contains("THE CLUSTER IS DISARMED"), "{shown}");
    service.lives(&first)?;

    cluster.operate(&["arm", "--wait", "--within", "60s"])?.done()?;
    operator.until("the watchdog armed again", SOON, |status| armed(status, &home) == Some(true))?;
    runs_on(&operator, &home)?;
    assert_eq!(watchdog()?.as_deref(), Some("armed"));
    assert_eq!(service.latest()?, first, "it was never touched");
    service.lives(&first)?;
    nothing_was_fenced(&cluster)
}

#[test]
fn an_agent_that_is_told_to_end_goes_in_good_order_and_the_next_takes_over() -> Result<()> {
    let (cluster, service, home, _) = started(Workload::spec)?;
    let operator = cluster.operator();
    operator.until("the watchdog armed", SOON, |status| armed(status, &home) == Some(true))?;
    let first = service.latest()?;
    let incarnation = operator.status()?.of(&home).and_then(|node| node.incarnation);
    let running = cluster.running(&home)?;
    kill_process(running.agent()?, Signal::TERM)?;
    running.until_restarted(1)?;
    let exits = cluster.node(&home)?.reported("agent_exited")?;
    assert_eq!(exits.len(), 1);
    assert_eq!((&exits[0]["status"], &exits[0]["watchdog_armed"]), (&Value::from("exit code 0"), &Value::from(false)));
    operator.until("the next agent admitted, its watchdog armed", SOON, |status| {
        let newer = status.of(&home).and_then(|node| node.incarnation) > incarnation;
        newer && armed(status, &home) == Some(true) && status.runs_on("service").as_deref() == Some(home.as_str())
    })?;
    assert_eq!(service.latest()?, first, "it keeps its process");
    service.lives(&first)?;
    let lines = operator.log()?;
    assert!(lines.iter().any(|line| matches!(&line.decision, Decision::Leaving { node, .. } if node.as_str() == home)));
    nothing_was_fenced(&cluster)
}

#[test]
fn an_update_goes_from_node_to_node_and_stops_at_the_first_doubt() -> Result<()> {
    let (cluster, service, home, away) = started(Workload::spec)?;
    let operator = cluster.operator();
    cluster.operate(&["resource", "set", "service", "--failback"])?.done()?;
    let mark = format!("touch {}/{{node}}.updated", cluster.folder().display());
    let words = ["update", "--settle", "1s", "--within", "60s", "--run"];
    let done = cluster.operate(&[&words[..], &[&mark, "--json"]].concat())?.done()?;
    let document: Value = serde_json::from_str(&done).context("one document")?;
    assert_eq!(document["complete"], true, "{document}");
    let nodes: Vec<&str> = document["nodes"].as_array().unwrap().iter().filter_map(|n| n["node"].as_str()).collect();
    assert_eq!(nodes, ["node1", "node2"]);
    for node in nodes {
        assert!(fs::exists(cluster.folder().join(format!("{node}.updated")))?, "{node}");
    }
    runs_on(&operator, &home)?;
    service.lives(&service.latest()?)?;

    let stopped = cluster.operate(&[&words[..], &["false {node}", "--nodes", &format!("{away},{home}")]].concat())?;
    assert_eq!(stopped.code, Some(5), "{stopped:?}");
    assert!(stopped.stderr.contains(&format!("tiebreaker maintenance {away} off")), "{}", stopped.stderr);
    let status = operator.status()?;
    assert_eq!(status.of(&away).map(|node| node.maintenance), Some(true), "it is left as it was when it stopped");
    assert_eq!(status.of(&home).map(|node| node.maintenance), Some(false), "the next one is not touched");
    nothing_was_fenced(&cluster)
}

#[test]
fn an_update_that_reboots_waits_for_the_new_boot_and_nobody_fences_meanwhile() -> Result<()> {
    let (cluster, service, home, away) = started(Workload::spec)?;
    let operator = cluster.operator();
    cluster.operate(&["resource", "set", "service", "--failback"])?.done()?;
    let boot = |status: &Status| status.of(&home).and_then(|node| node.boot.clone());
    let before = boot(&operator.status()?).context("a boot")?;
    fs::write(cluster.folder().join(format!("{home}.supervisor")), cluster.running(&home)?.pid().to_string())?;
    // As `ssh {node} reboot` does: it returns at once, and the machine goes down after that.
    let reboot = format!("sh -c 'kill -USR1 $(cat {}/{{node}}.supervisor)'", cluster.folder().display());
    let words =
        ["update", "--settle", "1s", "--within", "60s", "--reboots", "--nodes", &home, "--run", &reboot, "--json"];
    let done = cluster.operate(&words)?.done()?;
    let document: Value = serde_json::from_str(&done).context("one document")?;
    assert_eq!(document["complete"], true, "{document}");

    let after = boot(&runs_on(&operator, &home)?).context("a boot")?;
    assert_ne!(after, before, "it is another boot");
    assert_eq!(cluster.node(&home)?.reported("rebooted")?.len(), 1);
    assert!(cluster.node(&away)?.reported("rebooted")?.is_empty());
    let exits = cluster.node(&home)?.reported("agent_exited")?;
    assert_eq!((&exits[0]["status"], &exits[0]["watchdog_armed"]), (&Value::from("exit code 0"), &Value::from(false)));
    let lines = operator.log()?;
    let said = |how| {
        lines.iter().any(
            |l| matches!(&l.decision, Decision::Leaving { node, how: h, .. } if node.as_str() == home && *h == how),
        )
    };
    assert!(said(Leave::Reboot), "{lines:#?}");
    service.lives(&service.latest()?)?;
    nothing_was_fenced(&cluster)
}

#[test]
fn a_likeness_of_the_running_cluster_is_simulated_and_the_cluster_is_not_touched() -> Result<()> {
    let (cluster, service, home, away) = started(Workload::spec)?;
    let operator = cluster.operator();
    let (first, applied) = (service.latest()?, operator.status()?.applied);
    let event = format!("power-off {home}");
    let told = cluster.operate(&["simulate", "--from-cluster", "--do", &event, "--json"])?.done()?;
    let document: Value = serde_json::from_str(&told).context("one document")?;
    assert_eq!(document["violations"], Value::Array(Vec::new()), "{document:#}");
    assert_eq!(document["fenced"][0]["node"], home.as_str(), "{document:#}");
    let recovered = &document["recovered"][0];
    assert_eq!(
        (&recovered["resource"], &recovered["from"], &recovered["to"]),
        (&Value::from("service:service"), &Value::from(home.as_str()), &Value::from(away.as_str())),
        "{document:#}"
    );
    let text = cluster.operate(&["simulate", "--from-cluster", "--do", &event])?.done()?;
    assert!(text.contains("service:service") && text.contains(&away), "{text}");
    let wrong = cluster.operate(&["simulate", "--from-cluster", "--do", "power-off node9"])?;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("node9"), "{}", wrong.stderr);

    assert_eq!(service.latest()?, first);
    service.lives(&first)?;
    assert_eq!(operator.status()?.applied, applied, "nothing was decided");
    nothing_was_fenced(&cluster)
}

#[test]
fn a_live_move_by_an_ocf_agent_goes_by_both_ends_and_the_source_stops_after_it() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let operator = cluster.operator();
    operator.until("three votes", SOON, |status| status.votes == (3, 3))?;
    let add =
        ["resource", "add", "dummy", "--ocf", "ocf:heartbeat:Dummy", "--live", "--monitor-s", "1", "--node", "node1"];
    cluster.operate(&add)?.done()?;
    let on = |node: &str| {
        let settled = |status: &Status| {
            let dummy = status.resource("dummy");
            status.runs_on("dummy").as_deref() == Some(node) && dummy.is_some_and(|dummy| dummy.state == Shown::Started)
        };
        operator.until(&format!("the agent's resource on {node}"), SOON, settled)
    };
    on("node1")?;
    cluster.operate(&["resource", "migrate", "dummy", "node2"])?.done()?;
    on("node2")?;

    // Each node's part, in the order of the contract: sent, received, and stopped where it was.
    let deeds = || -> Result<Vec<(String, String)>> {
        let log = cluster.operate(&["log", "--json", "-n", "500"])?.done()?;
        let log: Value = serde_json::from_str(&log).context("one document")?;
        let lines = log["lines"].as_array().context("lines")?.clone();
        let ended = lines.iter().filter(|line| line["deed"]["what"] == "ended" && line["deed"]["failed"].is_null());
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let deeds = ended.map(|line| (word(&line["member"]), word(&line["deed"]["operation"])));
        // What the nodes did while they were still finding out where it runs is another matter.
        Ok(deeds.skip_while(|(_, what)| what != "migrate").collect())
    };
    until("the source's stop", SOON, || {
        let deeds = deeds()?;
        let expected = [("node1", "migrate"), ("node2", "receive"), ("node1", "stop")]
            .map(|(member, what)| (member.to_owned(), what.to_owned()));
        ensure!(deeds == expected, "{deeds:?}");
        Ok(())
    })?;
    on("node2")?;
    until("a word that all is well", SOON, || {
        let why = cluster.operate(&["why", "dummy"])?.done()?;
        ensure!(why.contains("runs where it belongs"), "{why}");
        Ok(())
    })?;
    nothing_was_fenced(&cluster)
}

#[test]
fn the_timeline_tells_what_every_member_did_and_who_is_missing() -> Result<()> {
    let (cluster, _service, home, away) = started(Workload::spec)?;
    let told = |log: &str| -> Result<Value> { serde_json::from_str(log).context("one document") };
    let log = told(&cluster.operate(&["log", "--json", "-n", "500"])?.done()?)?;
    let lines = log["lines"].as_array().context("lines")?.clone();
    let did = |what: &str, member: &str| lines.iter().any(|l| l["member"] == member && l["deed"]["what"] == what);
    assert!(did("watchdog_armed", &home) && did("began", &home) && did("lease_held", &away), "{log:#}");
    assert!(did("leads", "pi"), "{log:#}");
    assert!(lines.iter().any(|line| line["decision"]["what"] == "assigned"), "{log:#}");
    assert_eq!(log["missing"], Value::Array(Vec::new()));

    kill_process(cluster.running(&away)?.agent()?, Signal::STOP)?;
    until("a missing journal", SOON, || {
        let log = told(&cluster.operate(&["log", "--json"])?.done()?)?;
        ensure!(log["missing"][0]["member"] == away.as_str(), "{:#}", log["missing"]);
        Ok(())
    })?;
    kill_process(cluster.running(&away)?.agent()?, Signal::CONT)?;
    Ok(())
}
