//! Two machines with Debian's Corosync and its unmodified QDevice client, in network namespaces, and our appliance as
//! their QDevice server: TLS on, certificates by the stock scripts, `corosync-quorumtool` is the judge.
//!
//! Needs root, and the Debian packages corosync, corosync-qdevice, libnss3-tools and iproute2; without them these tests
//! fail.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tiebreaker_interop::{VoteCluster, alone_with_the_vote, alone_without, until, whole};

/// Anything that has to come has come by then.
const SOON: Duration = Duration::from_secs(60);

/// Corosync's timers are the measure, and the machine has few cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_node_keeps_its_quorum_when_the_other_dies_and_both_have_it_when_it_is_back() {
    let _turn = one_at_a_time();
    let mut cluster = VoteCluster::formed("ffsplit").unwrap();
    // The tie-breaker would prefer the one that dies.
    cluster.nodes[0].kill().unwrap();
    let took = cluster.until(1, "quorum of the survivor", alone_with_the_vote).unwrap();
    println!("killed: the survivor is alone and quorate after {took:?}");
    let status = cluster.appliance.command(&["qdevice", "status"]).unwrap().done().unwrap();
    assert!(status.contains("node 2 from") && status.contains("TLS: sees 2 in ring"), "{status}");
    assert!(status.contains("ACK for") && !status.contains("node 1 from"), "{status}");
    cluster.restart(0).unwrap();
    cluster.both("both with their vote again", whole).unwrap();
}

#[test]
fn a_node_that_loses_its_power_is_not_waited_for() {
    let _turn = one_at_a_time();
    for algorithm in ["ffsplit", "lms"] {
        let cluster = VoteCluster::formed(algorithm).unwrap();
        cluster.network.cut("node1", "node2").unwrap();
        cluster.network.cut("node1", "pi").unwrap();
        let took = cluster.until(1, "quorum of the survivor", alone_with_the_vote).unwrap();
        println!("{algorithm}, all links cut: the survivor is alone and quorate after {took:?}");
        cluster.until(0, "loss of quorum", alone_without).unwrap();
        cluster.network.heal_all().unwrap();
        cluster.both("both with their vote again", whole).unwrap();
    }
}

#[test]
fn one_half_of_a_split_gets_the_vote_until_it_heals_and_the_other_when_the_first_dies() {
    let _turn = one_at_a_time();
    for algorithm in ["ffsplit", "lms"] {
        let mut cluster = VoteCluster::formed(algorithm).unwrap();
        cluster.network.cut("node1", "node2").unwrap();
        let took = cluster.until(0, "quorum of the preferred half", alone_with_the_vote).unwrap();
        cluster.until(1, "loss of quorum in the other half", alone_without).unwrap();
        println!("{algorithm}, split: the preferred half is quorate after {took:?}");
        cluster.network.heal_all().unwrap();
        cluster.both("both with their vote again", whole).unwrap();
        cluster.network.cut("node1", "node2").unwrap();
        cluster.until(0, "quorum of the preferred half", alone_with_the_vote).unwrap();
        cluster.until(1, "loss of quorum in the other half", alone_without).unwrap();
        cluster.nodes[0].kill().unwrap();
        let took = cluster.until(1, "quorum of who is left", alone_with_the_vote).unwrap();
        println!("{algorithm}, and then killed: the other is quorate after {took:?}");
    }
}

#[test]
fn a_new_start_of_the_server_gives_the_vote_back() {
    let _turn = one_at_a_time();
    let mut cluster = VoteCluster::formed("ffsplit").unwrap();
    cluster.appliance.kill().unwrap();
    cluster.both("two nodes without the device", |quorum| quorum.quorate && quorum.votes == 2).unwrap();
    cluster.appliance.start().unwrap();
    cluster.both("the vote on both again", whole).unwrap();
}

#[test]
fn nobody_gets_the_vote_while_its_holder_casts_it_cut_off_from_everybody() {
    let _turn = one_at_a_time();
    // All mostly wait.
    thread::scope(|scope| {
        for algorithm in ["ffsplit", "lms"] {
            scope.spawn(move || the_winner_of_a_split_is_cut_off(algorithm));
        }
        scope.spawn(the_winners_client_is_killed_and_started_again);
    });
}

/// Node 1 has the vote, node 2 has not, and neither sees the other.
fn split(algorithm: &str) -> VoteCluster {
    let cluster = VoteCluster::formed(algorithm).unwrap();
    cluster.network.cut("node1", "node2").unwrap();
    cluster.until(0, "quorum of the preferred half", alone_with_the_vote).unwrap();
    cluster.until(1, "loss of quorum in the other half", alone_without).unwrap();
    cluster
}

fn the_winner_of_a_split_is_cut_off(algorithm: &str) {
    let cluster = split(algorithm);
    let mut holder = cluster.nodes[0].watch_quorum().unwrap();
    let mut other = cluster.nodes[1].watch_quorum().unwrap();
    let cut = Instant::now();
    cluster.network.cut("node1", "pi").unwrap();
    until("the other waits", SOON, || {
        let status = cluster.appliance.command(&["qdevice", "status"])?.done()?;
        ensure!(status.contains("node 1 had the vote, was lost without a farewell and may still cast it"), "{status}");
        Ok(())
    })
    .unwrap();
    let lost = holder.first(SOON, |quorum| !quorum.quorate).unwrap().expect("an echo is missed in the end");
    let gained = other.first(SOON, |quorum| quorum.quorate).unwrap().expect("the wait ends");
    println!(
        "{algorithm}: cut off, the holder has cast its vote for {:?}, the other got it after {:?}",
        lost - cut,
        gained - cut
    );
    assert!(lost < gained, "both had quorum: {}", cluster.appliance.log());
}

fn the_winners_client_is_killed_and_started_again() {
    let mut cluster = split("ffsplit");
    let mut other = cluster.nodes[1].watch_quorum().unwrap();
    cluster.nodes[0].kill_qdevice().unwrap();
    let quorum = cluster.nodes[0].quorum().unwrap();
    assert!(alone_with_the_vote(&quorum), "Corosync counts the vote of a dead client: {quorum:?}");
    // As a service manager does.
    cluster.nodes[0].start_qdevice().unwrap();
    until("it is there again", SOON, || {
        let status = cluster.appliance.command(&["qdevice", "status"])?.done()?;
        ensure!(status.contains("node 1 from") && status.matches(" ACK for").count() == 1, "{status}");
        Ok(())
    })
    .unwrap();
    let both = other.first(Duration::from_secs(8), |quorum| quorum.quorate).unwrap();
    assert!(both.is_none(), "both had quorum: {}", cluster.appliance.log());
    cluster.until(0, "the vote where it was", alone_with_the_vote).unwrap();
}
