//! The appliance's disk is lost, and its backup comes back in an empty folder (row 51). The real daemons on loopback, with
//! simulated watchdogs.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{Appliance, Cluster, Look, Program, QdeviceClient, Ran, SOON, Workload, loopback, run, until};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_member::{Identity, Role};
use tiebreaker_pipeline::{command::Command, profile::Profile};
use tiebreaker_qnetd::wire::{Algorithm, MessageKind, NodeId, RingId, Vote};

/// As long as nobody may have heard the former appliance, and some.
const BACK_WITHIN: Duration = Duration::from_secs(90);

fn passphrase(folder: &Path) -> Result<String> {
    let file = folder.join("passphrase");
    fs::write(&file, "correct horse battery\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file.display().to_string())
}

fn restore(backup: &Path, data: &Path, passphrase: &str, more: &[&str]) -> Result<Ran> {
    let mut command = Program::Server.command()?;
    command.arg("restore").arg(backup).arg("--data").arg(data).args(["--passphrase-file", passphrase]).args(more);
    run(command)
}

fn number(appliance: &Appliance) -> Result<u64> {
    let identity = Identity::load(&appliance.data().join("clusters/home"))?;
    identity.cert().subject.raft_id.context("an appliance without a number")
}

/// A cluster of two nodes with a service, whose appliance was saved to a file.
struct Saved {
    cluster: Cluster,
    workload: Workload,
    backup: std::path::PathBuf,
    passphrase: String,
    former: u64,
}

impl Saved {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(&["node1", "node2"])?;
        let workload = Workload::new(&cluster.folder().join("web"))?;
        cluster.operator().add("web", workload.spec())?;
        cluster.operator().until("the service", SOON, |status| status.runs_on("web").is_some())?;
        cluster.operator().until("three votes", SOON, |status| status.votes == (3, 3))?;
        let passphrase = passphrase(cluster.folder())?;
        let backup = cluster.folder().join("pi.age");
        let words = ["backup", backup.to_str().unwrap(), "--passphrase-file", &passphrase, "--json"];
        let told: serde_json::Value = serde_json::from_str(&cluster.appliance.command(&words)?.done()?)?;
        let former = number(&cluster.appliance)?;
        assert_eq!(told["manifest"]["clusters"][0]["number"], former);
        assert_eq!(told["manifest"]["clusters"][0]["nodes"].as_object().unwrap().len(), 2);
        let again = cluster.appliance.command(&words)?.refused()?;
        assert!(again.contains("--force"), "{again}");
        Ok(Self { cluster, workload, backup, passphrase, former })
    }

    /// The card dies; what was on it is kept aside.
    fn lose_the_card(&mut self) -> Result<std::path::PathBuf> {
        self.cluster.appliance.kill()?;
        let aside = self.cluster.folder().join("dead-card");
        fs::rename(self.cluster.appliance.data(), &aside)?;
        Ok(aside)
    }

    fn restore(&self, more: &[&str]) -> Result<Ran> {
        restore(&self.backup, &self.cluster.appliance.data(), &self.passphrase, more)
    }

    fn back(&self) -> Result<Status> {
        self.cluster
            .operator()
            .until("the appliance back", BACK_WITHIN, |status| status.online() == 2 && status.of("pi").is_some())
    }
}

#[test]
fn row_51_a_restored_appliance_is_a_member_under_a_new_number_and_no_node_needs_a_change() -> Result<()> {
    let mut saved = Saved::new()?;
    // A machine that is busy with other tests must not cost a node its lease.
    let patient = Request::Propose(Command::SetProfile { profile: Profile::Patient });
    let reply = saved.cluster.operator().request(patient)?;
    ensure!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    // The cluster goes on: the old machine has voted for, and acknowledged, more than the backup could know.
    let later = Workload::new(&saved.cluster.folder().join("later"))?;
    saved.cluster.operator().add_stopped("later", later.spec())?;
    let node1 = saved.cluster.node("node1")?.operator();
    let before = node1.status()?;
    let run_before = saved.workload.latest()?;
    let dead = saved.lose_the_card()?;
    node1.until("a node leads", SOON, |status| status.leader.as_ref().is_some_and(|leader| leader.as_str() != "pi"))?;

    let nowhere = saved.restore(&["--dry-run"])?.done()?;
    assert!(nowhere.contains("could be restored") && !saved.cluster.appliance.data().exists(), "{nowhere}");
    let told = saved.restore(&[])?.done()?;
    assert!(told.contains("#") && told.contains("Tokens that were open are void"), "{told}");
    assert!(!saved.cluster.appliance.data().join("clusters/home/raft.redb").exists());
    saved.cluster.appliance.start()?;
    let status = saved.back()?;
    let now = number(&saved.cluster.appliance)?;
    assert!(now > saved.former, "{now} after {}", saved.former);
    assert_eq!(status.members.len(), before.members.len());
    let pi = status.of("pi").unwrap();
    assert_eq!(pi.raft_id, now);
    saved.cluster.operator().until("its vote", SOON, |status| status.votes == (3, 3))?;
    saved.workload.lives(&run_before)?;
    assert_eq!(saved.workload.latest()?, run_before, "nothing was disturbed");
    let waiting = saved.cluster.appliance.command(&["rejoin"])?.done()?;
    assert!(waiting.contains("waits for no cluster"), "{waiting}");

    // The dead card comes back to life elsewhere: its old number is refused by everybody, and it leads and grants nothing.
    let mut old = Appliance::of_data(&saved.cluster.folder().join("old"), &dead)?;
    old.start()?;
    until("the refusal of the old number", SOON, || {
        let status = old.operator().status()?;
        ensure!(status.leader.is_none() && status.votes == (1, 3), "{status:#?}");
        Ok(())
    })?;
    let role = Identity::load(&old.data().join("clusters/home"))?.peer().role;
    assert_eq!((role, number(&old)?), (Role::Appliance, saved.former));
    let status = saved.cluster.operator().status()?;
    assert_eq!((status.online(), status.members.len()), (2, 3));

    // The next failure is survived, because its vote counts.
    drop(old);
    let lost = status.runs_on("web").context("the service runs")?;
    let left = if lost == "node1" { "node2" } else { "node1" };
    saved.cluster.end(&lost)?;
    let moved = |status: &Status| status.runs_on("web").as_deref() == Some(left);
    saved.cluster.operator().until("the service on the node that is left", 3 * SOON, moved)?;
    Ok(())
}

#[test]
fn row_51_while_the_old_machine_lives_a_restored_one_serves_nobody() -> Result<()> {
    let saved = Saved::new()?;
    let copy = saved.cluster.folder().join("copy-of-data");
    restore(&saved.backup, &copy, &saved.passphrase, &[])?.done()?;
    let mut twin = Appliance::of_data(&saved.cluster.folder().join("twin"), &copy)?;
    let refused = twin.command(&["run"])?.refused()?;
    assert!(refused.contains("is alive, as member") && refused.contains("switch that one off"), "{refused}");
    assert!(twin.start().is_err());
    assert!(!twin.data().join("clusters/home/raft.redb").exists());
    let status = saved.cluster.operator().status()?;
    assert_eq!((status.votes, status.online(), number(&saved.cluster.appliance)?), ((3, 3), 2, saved.former));
    Ok(())
}

#[test]
fn row_51_of_two_machines_restored_from_one_backup_the_second_needs_an_operators_word() -> Result<()> {
    let mut saved = Saved::new()?;
    saved.lose_the_card()?;
    saved.restore(&[])?.done()?;
    saved.cluster.appliance.start()?;
    saved.back()?;
    let first = number(&saved.cluster.appliance)?;
    let copy = saved.cluster.folder().join("copy-of-data");
    restore(&saved.backup, &copy, &saved.passphrase, &[])?.done()?;
    let mut second = Appliance::of_data(&saved.cluster.folder().join("second"), &copy)?;
    let beside = second.command(&["run"])?.refused()?;
    assert!(beside.contains("is alive, as member"), "{beside}");
    saved.cluster.appliance.kill()?;
    let node1 = saved.cluster.node("node1")?.operator();
    node1.until("a node leads", SOON, |status| status.leader.as_ref().is_some_and(|leader| leader.as_str() != "pi"))?;
    until("the demand for a word", SOON, || {
        let unsworn = second.command(&["run"])?.refused()?;
        ensure!(unsworn.contains("another machine was restored since"), "{unsworn}");
        Ok(())
    })?;
    second.command(&["rejoin", "--others-are-off"])?.done()?;
    second.start()?;
    second.operator().until("the second back", BACK_WITHIN, |status| status.online() == 2)?;
    assert!(number(&second)? > first);
    // The first comes back and is refused: two never vote.
    saved.cluster.appliance.start()?;
    until("the refusal of the first", SOON, || {
        let status = saved.cluster.operator().status()?;
        ensure!(status.leader.is_none(), "{status:#?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_restored_appliance_without_a_majority_beside_it_says_what_to_do_and_joins_what_is_taken_over() -> Result<()> {
    let mut saved = Saved::new()?;
    saved.lose_the_card()?;
    saved.cluster.end("node2")?;
    saved.restore(&[])?.done()?;
    saved.cluster.appliance.start()?;
    let operator = saved.cluster.operator();
    until("the way out", SOON, || {
        let error = format!("{:#}", operator.status().err().context("it is a member")?);
        ensure!(error.contains("tiebreaker-agent takeover"), "{error}");
        Ok(())
    })?;
    assert!(!saved.cluster.appliance.data().join("clusters/home/raft.redb").exists(), "it holds nothing to vote with");
    saved.cluster.end("node1")?;
    let mut takeover = Program::Agent.command()?;
    takeover.args(["takeover", "--data"]).arg(saved.cluster.node("node1")?.data());
    takeover.args(["--confirm", "home", "--others-are-off"]);
    run(takeover)?.done()?;
    saved.cluster.start_again("node1")?;
    operator.until("the appliance in the new epoch", BACK_WITHIN, |status| {
        status.online() == 1 && status.of("pi").is_some()
    })?;
    assert!(number(&saved.cluster.appliance)? > saved.former + 1024);
    Ok(())
}

/// A node without another one in sight gets a vote by twice its heartbeat interval and a second: for so long a former holder may
/// believe in a server that is gone.
const HEARTBEAT: Duration = Duration::from_secs(8);
const BELIEVES: Duration = Duration::from_secs(17);

/// A client of the cluster `prod` that sees nobody but itself; waits for the answer, and tells whether a vote came before that.
fn half(server: SocketAddr, node: u32) -> Result<(QdeviceClient, bool)> {
    let mut client = QdeviceClient::connect(server, Ipv4Addr::LOCALHOST)?;
    client.name("prod")?;
    client.join_with(node, Algorithm::FfSplit, u32::try_from(HEARTBEAT.as_millis())?)?;
    client.configure(&[1, 2])?;
    let asked = client.sees(RingId { node: NodeId(node), seq: 5 }, &[node])?;
    let mut has_vote = false;
    loop {
        let (kind, fields) = client.hear()?;
        has_vote |= fields.vote == Some(Vote::Ack);
        if kind == MessageKind::NodeListReply && fields.seq == Some(asked) {
            return Ok((client, has_vote));
        }
    }
}

fn until_ack(client: &mut QdeviceClient) -> Result<()> {
    while client.hear()?.1.vote != Some(Vote::Ack) {}
    Ok(())
}

#[test]
fn after_a_restore_no_half_gets_a_vote_before_a_former_holder_has_let_go_of_it() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("tiebreaker").tempdir()?;
    let passphrase = passphrase(folder.path())?;
    let server = loopback();
    let mut appliance = Appliance::init(&folder.path().join("pi"), loopback(), Vec::new())?;
    let listens = format!("[qdevice]\nlisten = [\"{server}\"]\n[qdevice.clusters.prod]\nplain_text = true\n");
    appliance.configure(&listens)?;
    let backup = folder.path().join("pi.age");
    let words = ["backup", backup.to_str().unwrap(), "--passphrase-file", &passphrase];
    appliance.command(&words)?.done().context("without a daemon")?;
    appliance.start()?;
    let (mut holder, has_vote) = half(server, 1)?;
    if !has_vote {
        until_ack(&mut holder)?;
    }
    appliance.kill()?;
    fs::rename(appliance.data(), folder.path().join("dead-card"))?;
    let unsworn = restore(&backup, &appliance.data(), &passphrase, &[])?.refused()?;
    assert!(unsworn.contains("--others-are-off"), "{unsworn}");
    restore(&backup, &appliance.data(), &passphrase, &["--others-are-off"])?.done()?;

    let begun = Instant::now();
    appliance.start()?;
    let (mut other, has_vote) = half(server, 2)?;
    assert!(!has_vote, "a former holder may cast its vote still");
    // Its heartbeats; an answer to one shows that nothing else was said meanwhile.
    for pause in [5, 5] {
        thread::sleep(Duration::from_secs(pause));
        other.echo().context("a vote came too early")?;
    }
    until_ack(&mut other)?;
    assert!(begun.elapsed() >= BELIEVES, "the other half had the vote after {:?}", begun.elapsed());
    drop(holder);
    Ok(())
}
