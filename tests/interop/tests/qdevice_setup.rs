//! How stock nodes come to their vote: by an invitation, without ssh; and with which certificates they don't.
//!
//! Needs root, and the Debian packages corosync, corosync-qdevice, libnss3-tools, curl, openssl and iproute2; without them
//! these tests fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::ensure;
use tiebreaker_interop::{Certificate, VoteCluster, tool, until, whole};

const SOON: Duration = Duration::from_secs(60);

/// Corosync's timers are the measure, and the machine has few cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn an_invited_node_has_its_vote_by_one_command() {
    let _turn = one_at_a_time();
    tool("curl", "curl").unwrap();
    let mut cluster = VoteCluster::bare(None).unwrap();
    let invite = || cluster.appliance.command(&["qdevice", "invite", "home"]).unwrap().done().unwrap();
    let node = |node: usize, line: &str| cluster.nodes[node].run(&["sh", "-c", line]).unwrap();
    let line = invite();
    // Another key than the invitation's is not talked to.
    let (before, after) = line.split_once("sha256//").unwrap();
    let flipped = if after.starts_with('A') { "B" } else { "A" };
    let wrong = format!("{before}sha256//{flipped}{}", &after[1..]);
    let refused = node(0, &wrong);
    assert!(refused.stderr.contains("public key does not match"), "{refused:?}");
    let conf = cluster.nodes[0].etc("corosync.conf");
    let was = fs::read_to_string(&conf).unwrap();
    assert!(!was.contains("device"), "{was}");
    let said = node(0, &line).done().unwrap();
    assert!(said.contains("+  device {") && said.contains("corosync-cfgtool -R"), "{said}");
    let is = fs::read_to_string(&conf).unwrap();
    assert!(is.contains("tls: required"), "{is}");
    let backups: Vec<String> = fs::read_dir(conf.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("corosync.conf.before-"))
        .collect();
    assert_eq!(backups.len(), 1, "{backups:?}");
    assert_eq!(fs::read_to_string(cluster.nodes[0].etc(&backups[0])).unwrap(), was);
    // It is good for one node.
    let again = node(1, &line);
    assert!(again.code == Some(1) && again.stderr.contains("was used already"), "{again:?}");
    assert!(!fs::read_to_string(cluster.nodes[1].etc("corosync.conf")).unwrap().contains("device"));
    node(1, &invite()).done().unwrap();
    // A second time for the first node: its certificate is new, its configuration stays.
    let said = node(0, &invite()).done().unwrap();
    assert!(said.contains("has this device already") && said.contains("former certificates"), "{said}");
    assert_eq!(fs::read_to_string(&conf).unwrap(), is);
    // All of it is told, and nothing else is.
    let events = cluster.appliance.command(&["qdevice", "events", "--json"]).unwrap().done().unwrap();
    assert_eq!(events.matches("\"event\":\"invited\"").count(), 6, "{events}");
    cluster.form().unwrap();
}

#[test]
fn who_follows_the_events_hears_each_once_and_goes_on_after_a_crash_of_the_server() {
    let _turn = one_at_a_time();
    let mut cluster = VoteCluster::bare(None).unwrap();
    let mut command = cluster.appliance.to_run(&["qdevice", "events", "--follow", "--json"]).unwrap();
    let mut following = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (tell, lines) = mpsc::channel();
    let output = BufReader::new(following.stdout.take().unwrap());
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    // What has no number that goes on isn't an event of this test's.
    let next = |number: u64, event: &str| {
        let line = lines.recv_timeout(SOON).unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((json["number"].as_u64(), json["event"].as_str()), (Some(number), Some(event)), "{line}");
    };
    next(1, "started");
    for number in 2..4 {
        cluster.appliance.command(&["qdevice", "invite", "home"]).unwrap().done().unwrap();
        next(number, "invited");
    }
    cluster.appliance.kill().unwrap();
    cluster.appliance.start().unwrap();
    next(1, "started");
    cluster.appliance.command(&["qdevice", "invite", "home"]).unwrap().done().unwrap();
    next(2, "invited");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn a_certificate_of_another_cluster_or_of_another_time_gets_no_vote() {
    let _turn = one_at_a_time();
    for (certificate, refusal) in [
        (Certificate::Of("other"), "its certificate does not name cluster home"),
        (Certificate::Expired, "certificate expired"),
    ] {
        let mut cluster = VoteCluster::new("ffsplit", certificate).unwrap();
        cluster.ring().unwrap();
        cluster.nodes[0].start_qdevice().unwrap();
        until("the server's refusal", SOON, || {
            let log = cluster.appliance.log();
            ensure!(log.contains(refusal), "the log says {log}");
            Ok(())
        })
        .unwrap();
        let quorum = cluster.nodes[0].quorum().unwrap();
        assert_eq!((quorum.votes, quorum.device), (2, 0), "{certificate:?}");
        assert!(!whole(&quorum));
    }
}
