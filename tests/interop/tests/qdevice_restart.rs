//! A restart of the appliance costs no vote: its connections go from process to process, through the service manager.
//!
//! Needs root, and the Debian packages corosync, corosync-qdevice, libnss3-tools, bash, iproute2, systemd and util-linux;
//! without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tiebreaker_interop::{Certificate, Systemd, VoteCluster, alone_with_the_vote, alone_without, until, whole};

/// Anything that has to come has come by then.
const SOON: Duration = Duration::from_secs(60);

/// Corosync's timers are the measure, and the machine has few cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn joins(cluster: &VoteCluster) -> usize {
    cluster.appliance.log().matches("has joined from").count()
}

#[test]
fn a_restart_of_the_server_costs_no_node_its_vote() {
    let _turn = one_at_a_time();
    let mut cluster = VoteCluster::managed("ffsplit").unwrap();
    let joined = joins(&cluster);
    for round in 1..=2 {
        let begun = Instant::now();
        cluster.appliance.stop();
        let stopped = begun.elapsed();
        // The nodes know of nothing, and neither do they afterwards.
        cluster.look(|quorum| assert!(whole(quorum), "while the server is down: {quorum:?}")).unwrap();
        cluster.appliance.start().unwrap();
        println!("restart {round}: down after {stopped:?}, up again after {:?}", begun.elapsed());
        // Longer than a heartbeat: an echo that isn't answered ends a client's patience.
        let until = Instant::now() + Duration::from_secs(9);
        let mut looks = 0;
        while Instant::now() < until {
            cluster.look(|quorum| assert!(whole(quorum), "after the restart: {quorum:?}")).unwrap();
            looks += 1;
        }
        println!("restart {round}: {looks} looks, both had their vote in each");
    }
    what_was_handed_over_works(&mut cluster, joined);
}

#[test]
fn a_restart_by_systemd_costs_no_node_its_vote() {
    let _turn = one_at_a_time();
    let mut cluster = VoteCluster::new("lms", Certificate::Of("home")).unwrap();
    cluster.appliance.stop();
    let port = SocketAddr::from((cluster.network.ip("pi").unwrap(), 5403));
    let machine = Systemd::boot_server(&cluster.appliance, port, &cluster.network.file("pi")).unwrap();
    cluster.form().unwrap();
    let joined = joins(&cluster);
    let pid = || machine.systemctl(&["show", "--property=MainPID", "--value", "tiebreaker-server"]).unwrap().done();
    for round in 1..=2 {
        let mut watches = [cluster.nodes[0].watch_quorum().unwrap(), cluster.nodes[1].watch_quorum().unwrap()];
        let (begun, before) = (Instant::now(), pid().unwrap());
        machine.systemctl(&["restart", "tiebreaker-server"]).unwrap().done().unwrap();
        println!("restart {round} by systemd took {:?}", begun.elapsed());
        assert_ne!(pid().unwrap(), before, "it is another process");
        // Looks went on all the time, and do for longer than a heartbeat.
        let lost = watches[0].first(Duration::from_secs(9), |quorum| !whole(quorum)).unwrap();
        let other = watches[1].first(Duration::from_millis(500), |quorum| !whole(quorum)).unwrap();
        assert!(lost.is_none() && other.is_none(), "a vote was lost: {}", cluster.appliance.log());
        assert!(watches[1].first(Duration::from_secs(5), whole).unwrap().is_some(), "the looks go on");
    }
    what_was_handed_over_works(&mut cluster, joined);
}

fn what_was_handed_over_works(cluster: &mut VoteCluster, joined: usize) {
    assert_eq!(joins(cluster), joined, "nobody had to come again: {}", cluster.appliance.log());
    let status = cluster.appliance.command(&["qdevice", "status"]).unwrap().done().unwrap();
    assert_eq!(status.matches("ACK for").count(), 2, "{status}");
    cluster.nodes[0].kill().unwrap();
    cluster.until(1, "quorum of the survivor", alone_with_the_vote).unwrap();
}

#[test]
fn who_dies_while_the_server_is_away_is_missed_by_the_next() {
    let _turn = one_at_a_time();
    let mut cluster = VoteCluster::managed("ffsplit").unwrap();
    cluster.appliance.stop();
    cluster.nodes[0].kill().unwrap();
    cluster.appliance.start().unwrap();
    cluster.until(1, "quorum of the survivor", alone_with_the_vote).unwrap();
    cluster.restart(0).unwrap();
    cluster.both("both with their vote again", whole).unwrap();
}

#[test]
fn after_a_crash_nobody_gets_the_vote_while_its_holder_casts_it_cut_off_from_everybody() {
    let _turn = one_at_a_time();
    // Both mostly wait.
    thread::scope(|scope| {
        for algorithm in ["ffsplit", "lms"] {
            scope.spawn(move || the_server_crashes_in_a_split(algorithm));
        }
    });
}

fn the_server_crashes_in_a_split(algorithm: &str) {
    let mut cluster = VoteCluster::formed(algorithm).unwrap();
    cluster.network.cut("node1", "node2").unwrap();
    cluster.until(0, "quorum of the preferred half", alone_with_the_vote).unwrap();
    cluster.until(1, "loss of quorum in the other half", alone_without).unwrap();
    cluster.network.cut("node1", "pi").unwrap();
    cluster.appliance.kill().unwrap();
    let crashed = Instant::now();
    let mut holder = cluster.nodes[0].watch_quorum().unwrap();
    let mut other = cluster.nodes[1].watch_quorum().unwrap();
    cluster.appliance.start().unwrap();
    let quorum = cluster.nodes[0].quorum().unwrap();
    assert!(alone_with_the_vote(&quorum), "it has not missed the server yet: {quorum:?}");
    until("the other waits", SOON, || {
        let status = cluster.appliance.command(&["qdevice", "status"])?.done()?;
        ensure!(status.contains("node 1 had the vote before the server's last start"), "{status}");
        Ok(())
    })
    .unwrap();
    let lost = holder.first(SOON, |quorum| !quorum.quorate).unwrap().expect("an echo is missed in the end");
    let gained = other.first(SOON, |quorum| quorum.quorate).unwrap().expect("the wait ends");
    println!(
        "{algorithm}: after the crash the holder has cast its vote for {:?}, the other got it after {:?}",
        lost - crashed,
        gained - crashed
    );
    assert!(lost < gained, "both had quorum: {}", cluster.appliance.log());
}
