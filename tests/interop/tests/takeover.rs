//! The emergency takeover (row 66): two of three members are lost for good, the third goes on alone by an operator's word,
//! and the lost ones come back. The real daemons on loopback, with simulated watchdogs.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use anyhow::{Result, ensure};
use tiebreaker_interop::{Cluster, Look, Program, Ran, SOON, Workload, run, until};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::resource::Requested;

const WORD: [&str; 3] = ["--confirm", "home", "--others-are-off"];

/// Runs `takeover` on a node.
fn take_over(data: &Path, words: &[&str]) -> Result<Ran> {
    let mut command = Program::Agent.command()?;
    command.arg("takeover").arg("--data").arg(data).args(words);
    run(command)
}

#[test]
fn row_66_a_lone_node_takes_over_and_members_of_the_old_epoch_end() -> Result<()> {
    let mut cluster = Cluster::start(&["node1", "node2"])?;
    let data = cluster.node("node1")?.data();
    let (mine, theirs) =
        (Workload::new(&cluster.folder().join("mine"))?, Workload::new(&cluster.folder().join("theirs"))?);
    for (name, workload, node) in [("mine", &mine, "node1"), ("theirs", &theirs, "node2")] {
        let command = Command::AddResource {
            name: name.parse()?,
            spec: workload.spec(),
            requested: Requested::Started,
            node: Some(node.parse()?),
        };
        let reply = cluster.operator().request(Request::Propose(command))?;
        ensure!(matches!(reply, Reply::Done { .. }), "{name} was not taken: {reply:?}");
        let runs = |status: &tiebreaker_member::core::Status| status.runs_on(name).as_deref() == Some(node);
        cluster.operator().until("the service running", SOON, runs)?;
    }
    cluster.operator().until("three votes", SOON, |status| status.votes == (3, 3))?;
    let running = take_over(&data, &WORD)?.refused()?;
    assert!(running.contains("stop it first"), "{running}");

    cluster.appliance.kill()?;
    cluster.end("node2")?;
    cluster.end("node1")?;
    let unasked = take_over(&data, &[])?.refused()?;
    assert!(unasked.contains("--confirm home --others-are-off"), "{unasked}");
    let other = take_over(&data, &["--confirm", "hone", "--others-are-off"])?.refused()?;
    assert!(other.contains("nothing was changed"), "{other}");
    for half in [&["--confirm", "home"][..], &["--others-are-off"]] {
        assert_eq!(take_over(&data, half)?.code, Some(2), "{half:?}");
    }
    assert!(!data.join("raft.redb.before-takeover").exists());
    let told = take_over(&data, &WORD)?.done()?;
    for words in ["WHAT MAY BE LOST", "node2 (a node), pi (the appliance)", "will run: mine, theirs", "authority"] {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }
    assert!(data.join("raft.redb.before-takeover").exists());

    cluster.start_again("node1")?;
    let operator = cluster.node("node1")?.operator();
    let status = operator.until("both services on node1", SOON, |status| {
        ["mine", "theirs"].iter().all(|name| status.runs_on(name).as_deref() == Some("node1"))
    })?;
    assert_eq!((status.votes, status.members.len()), ((1, 1), 1));
    let log = operator.log()?;
    let taken = log.iter().find(|line| matches!(line.decision, Decision::TakenOver { epoch: 1, .. }));
    assert!(taken.is_some(), "{log:#?}");
    let mut write = Program::Operator.command()?;
    write.arg("--data").arg(&data).args(["resource", "set", "mine", "--state", "started"]);
    run(write)?.done()?;
    let before = (mine.latest()?, theirs.latest()?);
    assert_eq!([&before.0.machine, &before.1.machine], [cluster.node("node1")?.folder(); 2]);

    // They are two of three voters of the old epoch, so they could elect, grant and fence among themselves.
    let _may_have_ended_already = cluster.appliance.start();
    cluster.start_again("node2")?;
    let node2 = cluster.node("node2")?.clone();
    let why = "took the cluster home over with node1, in epoch 1";
    // Nobody but this test starts the appliance's daemon again; a service manager does that with node2's agent.
    for (who, words) in [("pi", why), ("node2", why), ("node2", "was set aside")] {
        until("end of a member of the old epoch", SOON, || {
            let log = if who == "pi" { cluster.appliance.log() } else { node2.log() };
            ensure!(log.contains(words), "{who} says: {log}");
            Ok(())
        })?;
    }
    cluster.appliance.stop();
    assert!(cluster.appliance.start().is_err(), "it does nothing in this cluster any more");
    assert!(cluster.appliance.log().contains("was set aside"), "{}", cluster.appliance.log());
    assert!(node2.data().join("raft.redb.taken-over").exists());

    for (workload, run) in [(&mine, &before.0), (&theirs, &before.1)] {
        workload.lives(run)?;
        assert_eq!(workload.latest()?, *run, "it kept its process");
    }
    let status = operator.status()?;
    assert_eq!((status.votes, status.members.len(), status.fences.len()), ((1, 1), 1, 0));
    Ok(())
}
