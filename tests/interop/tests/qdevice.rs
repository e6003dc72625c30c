//! Two machines with Debian's Corosync and its unmodified QDevice client, in network namespaces, and our appliance as
//! their QDevice server: TLS on, certificates by the stock scripts, `corosync-quorumtool` is the judge.
//!
//! Needs root, and the Debian packages corosync, corosync-qdevice, libnss3-tools and iproute2; without them these tests
//! fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tiebreaker_interop::{Appliance, CorosyncNode, Network, Quorum, until};

/// Anything that has to come has come by then. Corosync's own time for a lost node is 6.6 s, the stock client connects
/// again within 8 s, and the test's machine may be busy.
const SOON: Duration = Duration::from_secs(60);
/// Corosync's timers are the measure, and the machine has few cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Fields fall in this order: daemons before the namespaces in which they run.
struct Cluster {
    nodes: Vec<CorosyncNode>,
    appliance: Appliance,
    network: Network,
    folder: TempDir,
}

impl Cluster {
    /// Appliance and two machines, nothing of Corosync's running yet. Certificates are for `certified`.
    fn new(algorithm: &str, certified: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-qdevice").tempdir()?;
        let network = Network::new(&["pi", "node1", "node2"])?;
        let mut appliance = Appliance::init(&folder.path().join("pi"), network.address("pi")?, network.on("pi"))?;
        let listen = network.ip("pi")?;
        appliance.configure(&format!(
            "\n[qdevice]\nlisten = [\"{listen}:5403\"]\n[qdevice.clusters.home]\n[qdevice.clusters.other]\n"
        ))?;
        appliance.start()?;
        let authority = appliance.command(&["qdevice", "ca"])?.done()?;
        let mut nodes = Vec::new();
        for host in ["node1", "node2"] {
            let node = CorosyncNode::new(folder.path(), &network, host, "home", algorithm)?;
            fs::write(node.etc("ca.crt"), &authority)?;
            node.certutil(&["-i", "-c", "/etc/corosync/ca.crt"])?;
            nodes.push(node);
        }
        let [first, second] = &nodes[..] else { unreachable!("two were made") };
        first.certutil(&["-r", "-n", certified])?;
        let request = first.etc("qdevice/net/nssdb/qdevice-net-node.crq");
        let request = request.to_str().context("a test's folder is text")?;
        let signed = appliance.command(&["qdevice", "sign", "--cluster", certified, request])?.done()?;
        fs::write(first.etc(&format!("cluster-{certified}.crt")), signed)?;
        first.certutil(&["-M", "-c", &format!("/etc/corosync/cluster-{certified}.crt")])?;
        fs::copy(first.etc("qdevice/net/nssdb/qdevice-net-node.p12"), second.etc("node.p12"))?;
        second.certutil(&["-m", "-c", "/etc/corosync/node.p12"])?;
        Ok(Self { nodes, appliance, network, folder })
    }

    /// Both machines up, with their vote.
    fn formed(algorithm: &str) -> Result<Self> {
        let mut cluster = Self::new(algorithm, "home")?;
        for node in &mut cluster.nodes {
            node.start_corosync()?;
        }
        cluster.both("a ring of two", |quorum| quorum.nodes == 2)?;
        for node in &mut cluster.nodes {
            node.start_qdevice()?;
        }
        cluster.both("the vote on both", whole)?;
        Ok(cluster)
    }

    fn both(&self, what: &str, is: impl Fn(&Quorum) -> bool) -> Result<()> {
        (0..2).try_for_each(|node| self.until(node, what, &is).map(drop))
    }

    /// Waits for a machine, and says how long that took.
    fn until(&self, node: usize, what: &str, is: impl Fn(&Quorum) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        until(what, SOON, || {
            let quorum = self.nodes[node].quorum()?;
            ensure!(is(&quorum), "node{} has {quorum:?}", node + 1);
            Ok(())
        })
        .with_context(|| {
            let logs: Vec<String> = self.nodes.iter().map(CorosyncNode::log).collect();
            format!("the appliance:\n{}\nthe nodes:\n{}", self.appliance.log(), logs.join("\n---\n"))
        })?;
        Ok(begun.elapsed())
    }

    /// A node comes back after [`CorosyncNode::kill`].
    fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].start_corosync()?;
        self.until(node, "a Corosync that answers", |_| true)?;
        self.nodes[node].start_qdevice()
    }
}

fn whole(quorum: &Quorum) -> bool {
    *quorum == Quorum { quorate: true, nodes: 2, votes: 3, device: 1 }
}

fn alone_with_the_vote(quorum: &Quorum) -> bool {
    *quorum == Quorum { quorate: true, nodes: 1, votes: 2, device: 1 }
}

fn alone_without(quorum: &Quorum) -> bool {
    !quorum.quorate && quorum.nodes == 1 && quorum.votes == 1
}

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_node_keeps_its_quorum_when_the_other_dies_and_both_have_it_when_it_is_back() {
    let _turn = one_at_a_time();
    let mut cluster = Cluster::formed("ffsplit").unwrap();
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
    let cluster = Cluster::formed("ffsplit").unwrap();
    cluster.network.cut("node1", "node2").unwrap();
    cluster.network.cut("node1", "pi").unwrap();
    let took = cluster.until(1, "quorum of the survivor", alone_with_the_vote).unwrap();
    println!("all links cut: the survivor is alone and quorate after {took:?}");
    cluster.until(0, "loss of quorum", alone_without).unwrap();
    cluster.network.heal_all().unwrap();
    cluster.both("both with their vote again", whole).unwrap();
}

#[test]
fn one_half_of_a_split_gets_the_vote_and_the_other_when_the_first_dies() {
    let _turn = one_at_a_time();
    for algorithm in ["ffsplit", "lms"] {
        let mut cluster = Cluster::formed(algorithm).unwrap();
        cluster.network.cut("node1", "node2").unwrap();
        let took = cluster.until(0, "quorum of the preferred half", alone_with_the_vote).unwrap();
        cluster.until(1, "loss of quorum in the other half", alone_without).unwrap();
        println!("{algorithm}, split: the preferred half is quorate after {took:?}");
        cluster.nodes[0].kill().unwrap();
        let took = cluster.until(1, "quorum of who is left", alone_with_the_vote).unwrap();
        println!("{algorithm}, and then killed: the other is quorate after {took:?}");
    }
}

#[test]
fn a_new_start_of_the_server_gives_the_vote_back() {
    let _turn = one_at_a_time();
    let mut cluster = Cluster::formed("ffsplit").unwrap();
    cluster.appliance.kill().unwrap();
    cluster.both("two nodes without the device", |quorum| quorum.quorate && quorum.votes == 2).unwrap();
    cluster.appliance.start().unwrap();
    cluster.both("the vote on both again", whole).unwrap();
}

#[test]
fn a_certificate_of_another_cluster_gets_no_vote() {
    let _turn = one_at_a_time();
    let mut cluster = Cluster::new("ffsplit", "other").unwrap();
    for node in &mut cluster.nodes {
        node.start_corosync().unwrap();
    }
    cluster.both("a ring of two", |quorum| quorum.nodes == 2).unwrap();
    cluster.nodes[0].start_qdevice().unwrap();
    until("the server's refusal", SOON, || {
        let log = cluster.appliance.log();
        ensure!(log.contains("its certificate does not name cluster home"), "the log says {log}");
        Ok(())
    })
    .unwrap();
    let quorum = cluster.nodes[0].quorum().unwrap();
    assert_eq!((quorum.votes, quorum.device), (2, 0), "in {}", cluster.folder.path().display());
}
