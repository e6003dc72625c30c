//! Two machines with Debian's Corosync and QDevice client, our appliance as QDevice server and as who holds their power, `ipmi_sim`
//! before each, and `fence_tiebreaker` on both: who gets whose power, and when.
//!
//! Needs root, and the Debian packages corosync, corosync-qdevice, libnss3-tools, openipmi, fence-agents, libxml2-utils, iproute2 and
//! util-linux; without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use tiebreaker_interop::{Fenced, Program, run, tool, until};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_metadata_is_valid_by_the_schema_of_the_fence_agents() {
    let schema = Path::new("/usr/share/cluster/relaxng/metadata.rng");
    assert!(schema.is_file(), "{} is missing: install the Debian package fence-agents", schema.display());
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("fence_tiebreaker");
    std::os::unix::fs::symlink(Program::Operator.path().unwrap(), &agent).unwrap();
    let mut command = Command::new(&agent);
    let metadata = run({
        command.args(["-o", "metadata"]);
        command
    });
    let file = folder.path().join("metadata.xml");
    std::fs::write(&file, metadata.unwrap().done().unwrap()).unwrap();
    let mut xmllint = Command::new(tool("xmllint", "libxml2-utils").unwrap());
    xmllint.args(["--noout", "--relaxng"]).arg(schema).arg(&file);
    let said = run(xmllint).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn the_half_with_the_vote_fences_and_the_other_is_refused() {
    let cluster = Fenced::new(false).unwrap();
    cluster.form().unwrap();
    // What a node asks of itself and of others while all is well.
    let proven = until("both nodes' devices proven", SOON, || cluster.nodes[0].agent("action=monitor\\n")?.done());
    proven.unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    let [one, two] = &cluster.nodes[..] else { unreachable!("two were made") };
    assert_eq!(one.agent("action=list\\n").unwrap().done().unwrap(), "node1,\nnode2,\n");
    assert_eq!(two.agent("action=list-status\\n").unwrap().done().unwrap(), "node1,,ON\nnode2,,ON\n");
    assert_eq!(one.agent("action=status\\nplug=node2\\n").unwrap().done().unwrap(), "Status: ON\n");
    assert_eq!(one.agent("action=validate-all\\nnodename=x\\nplug=x\\n").unwrap().code, Some(0));
    let own = one.agent("action=off\\nplug=node1\\n").unwrap().refused().unwrap();
    assert!(own.contains("asks for its own power"), "{own}");
    let stranger = one.agent("action=off\\nplug=node3\\n").unwrap().refused().unwrap();
    assert!(stranger.contains("no node \"node3\"") && stranger.contains("node1, node2"), "{stranger}");
    let member = one.agent("action=off\\nplug=node2\\nanswer_timeout=3\\n").unwrap().refused().unwrap();
    assert!(member.contains("node2 is a member of the partition of node1"), "{member}");

    // While an operator holds the switching of power nobody gets anybody's.
    let corosync = |words: &[&str]| cluster.appliance.command(&[&["corosync"], words].concat()).unwrap();
    corosync(&["hold", "prod", "--reason", "new cables"]).done().unwrap();
    corosync(&["hold", "prod"]).done().unwrap_err();
    let held = one.agent("action=off\\nplug=node2\\n").unwrap().refused().unwrap();
    for part in [
        "the switching of power is held by ",
        " (new cables): `tiebreaker-server corosync release prod` ends that",
        "`stonith_admin --confirm node2`",
    ] {
        assert!(held.contains(part), "{held}");
    }
    assert_eq!(two.agent("action=list-status\\n").unwrap().done().unwrap(), "node1,,ON\nnode2,,ON\n");
    assert!(corosync(&["status"]).done().unwrap().contains("the switching of power is held by "));
    assert!(corosync(&["status", "--json"]).done().unwrap().contains("\"reason\":\"new cables\""));
    corosync(&["release", "prod"]).done().unwrap();
    corosync(&["release", "prod"]).done().unwrap_err();

    // Both halves ask at the same time, as two Pacemakers do.
    cluster.split().unwrap();
    let nodes = &cluster.nodes;
    let (first, second) = thread::scope(|scope| {
        let ask = |node: usize, plug: &str| nodes[node].agent(&format!("action=reboot\\nplug={plug}\\n"));
        let second = scope.spawn(move || ask(1, "node1"));
        (ask(0, "node2"), second.join().unwrap())
    });
    let said = first.unwrap().done().unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    assert!(said.contains("Success: Rebooted (bmc-off: ipmi"), "{said}");
    // The loser was told why, or lost its power while it waited for its vote.
    let second = second.unwrap();
    assert_ne!(second.code, Some(0), "{}", second.stdout);
    if second.code == Some(1) {
        assert!(second.stderr.contains("node2 has no vote") || second.stderr.contains("node2"), "{}", second.stderr);
    }
    assert_eq!(one.machine.switched(false).unwrap(), 0, "node1 kept its power");
    // A slow answer is asked for again: off is off however often it is said.
    assert!(two.machine.switched(false).unwrap() > 0);
    until("node2 with power again", SOON, || {
        ensure!(two.machine.is_on()?, "it is off");
        Ok(())
    })
    .unwrap();

    // All of it is written down.
    let audit = cluster.audit().unwrap();
    for part in [
        r#""what":"fence enrol","node":"node1""#,
        r#""what":"fence reboot","node":"node2","by":"fence-client node1","granted":true"#,
        r#""what":"fence off","node":"node2","by":"fence-client node1","granted":false"#,
        r#""what":"hold","node":null"#,
        r#""event":"attempt""#,
        r#""event":"evidence""#,
        r#""grade":"bmc-off""#,
    ] {
        assert!(audit.contains(part), "{part} is missing in {audit}");
    }
    cluster.appliance.command(&["audit", "verify"]).unwrap().done().unwrap();
}

#[test]
fn a_wrong_password_is_seen_by_the_first_proof_and_its_mending_by_a_later_one() {
    let mut cluster = Fenced::new(false).unwrap();
    cluster.form().unwrap();
    let one = &cluster.nodes[0];
    until("proven devices", SOON, || one.agent("action=monitor\\n")?.done()).unwrap();
    let secret = cluster.appliance.data().join("bmc");
    std::fs::write(&secret, "another").unwrap();
    cluster.appliance.stop();
    cluster.appliance.start().unwrap();
    let one = &cluster.nodes[0];
    let why = one.agent("action=monitor\\n").unwrap().refused().unwrap();
    assert!(why.contains("node1/bmc: ") && why.contains("node2/bmc: "), "{why}");
    let status = cluster.appliance.command(&["corosync", "status"]).unwrap().done().unwrap();
    println!("{status}");
    assert!(!why.contains("another") && !status.contains("another"), "the password is shown: {why}{status}");
    std::fs::write(&secret, tiebreaker_interop::ipmi_sim::PASSWORD).unwrap();
    until("proven devices again", SOON, || one.agent("action=monitor\\n")?.done()).unwrap();
}
