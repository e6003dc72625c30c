//! Who gets in, who doesn't, and what each is told: the real commands against the real appliance. What needs another
//! clock (a machine that stands at 1970, certificates that have run out) is tested in `tiebreaker-member`, where the
//! clock comes in.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{Appliance, Cluster, Look, Node, Program, Ran, SOON, loopback, until};
use tiebreaker_member::{
    Address, Ca, Client, Identity, LEAF_VALIDITY, SystemClock, TimeFloor, TrustedTime,
    ask::{LocalReply, LocalRequest},
    core::{Reply, Request},
};
use tiebreaker_pipeline::decision::Decision;

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn join(node: &Node, appliance: SocketAddr, token: &str) -> Result<Ran> {
    node.join(&[], appliance, token, loopback(), &[])
}

/// Asks the appliance with the identity in `data`, as a member or an operator does.
fn ask(data: &Path, appliance: SocketAddr, request: &dyn Fn(&Identity) -> Result<Request>) -> Result<Reply> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let identity = Identity::load(data)?;
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &request(&identity)?)?;
    let address: Address = appliance.to_string().parse()?;
    let time = TrustedTime::new(std::sync::Arc::new(SystemClock), TimeFloor::default());
    let answer = runtime.block_on(async {
        let within = Duration::from_secs(20);
        let mut client = Client::connect(&[address], None, &identity, &time, within).await?;
        client.ask(&bytes, within).await
    })?;
    Ok(cbor4ii::serde::from_slice(&answer[..])?)
}

/// The operator `ann` logs in.
fn login(appliance: &Appliance, cluster: &str, dir: &Path) -> Result<Ran> {
    let token = appliance.command(&["token", "create", "--kind", "operator", "--cluster", cluster])?.done()?;
    let mut login = Program::Operator.command()?;
    login.args(["login", &appliance.address().to_string(), "--name", "ann", "--token", token.trim(), "--dir"]);
    login.arg(dir);
    tiebreaker_interop::run(login)
}

/// Asks for the status by an operator's identity.
fn look(identity: &Path, member: SocketAddr, more: &[&str]) -> Result<Ran> {
    let mut status = Program::Operator.command()?;
    status.args(["--connect", &member.to_string(), "status"]).args(more).arg("--identity").arg(identity);
    tiebreaker_interop::run(status)
}

#[test]
fn each_bad_token_gets_its_own_refusal_and_leaves_nothing_behind() -> Result<()> {
    let mut cluster = Cluster::appliance()?;
    let folder = cluster.folder().to_owned();
    let first = Node::new(&folder, "node1")?;
    let node = Node::new(&folder, "node2")?;
    let address = cluster.address();

    let nonsense = join(&node, address, "not-a-token")?.refused()?;
    has(&nonsense, &["token"]);

    let good = cluster.appliance.token("home")?;
    let mut mistyped: Vec<char> = good.chars().collect();
    let last = mistyped.len() - 3;
    mistyped[last] = if mistyped[last] == 'q' { 'p' } else { 'q' };
    let mistyped: String = mistyped.into_iter().collect();
    has(&join(&node, address, &mistyped)?.refused()?, &["token", "typ"]);

    join(&first, address, &good)?.done()?;
    has(&join(&node, address, &good)?.refused()?, &["already used by 'node1'", "token create"]);

    let request = LocalRequest::CreateToken { cluster: "home".into(), kind: "node".into(), ttl_s: 1 };
    let LocalReply::Token { token, expires, .. } = cluster.operator().ask(&request)? else { panic!("no token") };
    until("end of the token", SOON, || {
        ensure!(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() > expires, "it is still good");
        Ok(())
    })?;
    has(&join(&node, address, &token)?.refused()?, &["expired", "token create"]);

    // An appliance that has forgotten its tokens honours none of them.
    let forgotten = cluster.appliance.token("home")?;
    cluster.appliance.stop();
    fs::remove_file(cluster.appliance.data().join("tokens.json"))?;
    cluster.appliance.start()?;
    has(&join(&node, address, &forgotten)?.refused()?, &["doesn't know the token", "token create"]);

    // Nothing was sent to an appliance that the token doesn't pin.
    let mut other = Appliance::init(&folder.join("other"), loopback(), Vec::new())?;
    other.start()?;
    let elsewhere = other.token("home")?;
    let refused = join(&node, address, &elsewhere)?.refused()?;
    has(&refused, &["token"]);
    join(&Node::new(&folder, "node3")?, other.address(), &elsewhere)?.done().context("the token was not used up")?;

    assert!(!Identity::exists(&node.data()), "no half-done member");
    let members = cluster.operator().status()?.members;
    assert_eq!(members.len(), 2, "the appliance and the first node: {members:?}");
    join(&node, address, &cluster.appliance.token("home")?)?.done().context("a good token still works")?;
    Ok(())
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_token_stays_good() -> Result<()> {
    let cluster = Cluster::start(&["node1"])?;
    let elsewhere = cluster.folder().join("elsewhere");
    let twin = Node::new(&elsewhere, "node1")?;
    let token = cluster.appliance.token("home")?;
    has(&join(&twin, cluster.address(), &token)?.refused()?, &["node1 is a member already", "member remove"]);
    let appliance_twin = Node::new(&elsewhere, "pi")?;
    has(&join(&appliance_twin, cluster.address(), &token)?.refused()?, &["pi is a member already"]);
    join(&Node::new(&elsewhere, "node2")?, cluster.address(), &token)?.done()?;

    // Who is joined already doesn't join again by accident.
    let again = cluster.appliance.token("home")?;
    has(&join(cluster.node("node1")?, cluster.address(), &again)?.refused()?, &["already holds the identity"]);
    Ok(())
}

#[test]
fn a_removed_member_is_refused_at_once() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let node = cluster.node("node2")?;
    let status = |_: &Identity| Ok(Request::Status);
    assert!(matches!(ask(&node.data(), cluster.address(), &status)?, Reply::Status(_)), "members may look");
    let mut remove = Program::Operator.command()?;
    remove.arg("--data").arg(cluster.appliance.data()).args(["member", "remove", "node2"]);
    has(&tiebreaker_interop::run(remove)?.done()?, &["node2 is removed"]);

    let refused = ask(&node.data(), cluster.address(), &status).expect_err("its certificate is refused");
    has(&format!("{refused:#}"), &["removed"]);
    let renewal = |identity: &Identity| Ok(Request::RenewCertificate { csr: identity.csr()? });
    ask(&node.data(), cluster.address(), &renewal).expect_err("nor is it renewed");
    let status = cluster.operator().until("the rest at work", SOON, |status| status.online() == 1)?;
    assert!(status.of("node2").is_none() && status.fences.is_empty(), "{status:#?}");
    // Its open connections are closed too, and it is told why.
    until("word of the removal on the removed node", SOON, || {
        let log = node.log();
        ensure!(log.contains("removed"), "its log: {log}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn an_identity_opens_its_own_cluster_on_its_own_appliance_alone() -> Result<()> {
    let cluster = Cluster::start(&["node1"])?;
    let folder = cluster.folder();
    let mut other = Appliance::init(&folder.join("other"), loopback(), Vec::new())?;
    other.start()?;
    let [home, garden, foreign] = ["at-home", "in-the-garden", "elsewhere"].map(|dir| folder.join(dir));
    login(&cluster.appliance, "home", &home)?.done()?;
    login(&cluster.appliance, "garden", &garden)?.done()?;
    login(&other, "home", &foreign)?.done()?;

    has(&look(&home, cluster.address(), &[])?.done()?, &["Cluster home", "node1"]);
    let seen = look(&garden, cluster.address(), &[])?.done()?;
    assert!(seen.contains("Cluster garden") && !seen.contains("node1"), "{seen}");
    let crossed = look(&garden, cluster.address(), &["--cluster", "home"])?;
    assert_ne!(crossed.code, Some(0), "{crossed:?}");
    has(&crossed.stderr, &["garden"]);
    let strange = look(&foreign, cluster.address(), &[])?;
    assert_ne!(strange.code, Some(0), "{strange:?}");
    has(&strange.stderr, &["authority"]);
    Ok(())
}

#[test]
fn a_certificate_is_renewed_for_its_own_key_alone() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let (first, second) = (cluster.node("node1")?.data(), cluster.node("node2")?.data());
    let renewal = |identity: &Identity| Ok(Request::RenewCertificate { csr: identity.csr()? });
    let Reply::Certificate { der } = ask(&first, cluster.address(), &renewal)? else { panic!("not renewed") };
    let old = Identity::load(&first)?;
    let renewed = old.renewed(&der)?;
    assert_eq!((renewed.peer(), renewed.cert().subject.raft_id), (old.peer(), old.cert().subject.raft_id));
    let copy = cluster.folder().join("renewed");
    fs::create_dir_all(&copy)?;
    renewed.store(&copy)?;
    let status = |_: &Identity| Ok(Request::Status);
    assert!(matches!(ask(&copy, cluster.address(), &status)?, Reply::Status(_)), "the new certificate is good");

    let strange = Identity::load(&second)?.csr()?;
    let reply = ask(&first, cluster.address(), &|_| Ok(Request::RenewCertificate { csr: strange.clone() }))?;
    let Reply::Refused { why } = reply else { panic!("a certificate for another key: {reply:?}") };
    has(&why, &["another key"]);
    Ok(())
}

#[test]
fn an_operators_certificate_is_renewed_by_whatever_command_comes_when_it_is_due() -> Result<()> {
    let cluster = Cluster::start(&["node1"])?;
    let dir = cluster.folder().join("ann");
    login(&cluster.appliance, "home", &dir)?.done()?;
    // It is made again as it would have been two months ago.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let issued = now - LEAF_VALIDITY.as_secs() * 2 / 3 - 60;
    let fresh = Identity::load(&dir)?;
    let ca = Ca::load(&cluster.appliance.data())?;
    let aged = fresh.renewed(&ca.sign(&fresh.csr()?, &fresh.cert().subject, issued, LEAF_VALIDITY)?)?;
    aged.store(&dir)?;

    // A node can't sign. That is no reason to fail, and standard output is as ever.
    let status = cluster.operator().status()?;
    let node: SocketAddr = status.of("node1").context("no node1")?.addresses[0].parse()?;
    let ran = look(&dir, node, &[])?;
    has(&ran.stderr, &["warning", "certificate ends in 29 days", "the appliance alone can sign it"]);
    let shown = ran.done()?;
    assert!(shown.contains("Cluster home") && !shown.contains("certificate"), "{shown}");
    assert_eq!(Identity::load(&dir)?.cert(), aged.cert());

    let ran = look(&dir, cluster.address(), &[])?;
    assert_eq!(ran.stderr, "");
    has(&ran.done()?, &["Cluster home"]);
    let renewed = Identity::load(&dir)?;
    assert!(renewed.cert().not_before >= now && renewed.cert().not_after >= now + LEAF_VALIDITY.as_secs());
    assert_eq!(renewed.peer(), fresh.peer());
    let file = dir.join("identity.pem");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);

    // It is good, and not renewed once more.
    let stored = fs::read(&file)?;
    has(&look(&dir, cluster.address(), &[])?.done()?, &["Cluster home"]);
    assert_eq!(fs::read(&file)?, stored);

    // Who lost the identity is told the way back.
    let refused = login(&cluster.appliance, "home", &cluster.folder().join("again"))?.refused()?;
    has(&refused, &["there is an operator ann already", "tiebreaker operator remove ann"]);
    Ok(())
}

#[test]
fn more_nodes_may_join_and_the_number_of_votes_stays_odd() -> Result<()> {
    let mut cluster = Cluster::start(&["node1", "node2"])?;
    let operator = cluster.operator();
    operator.until("three votes", SOON, |status| status.votes == (3, 3))?;
    cluster.add("node3")?;
    cluster.add("node4")?;
    cluster.all_online()?;
    let status = operator.status()?;
    let voters = status.members.iter().filter(|member| member.voter).count();
    assert_eq!((status.votes, voters), ((3, 3), 3), "the appliance and two nodes vote, the others learn");
    assert!(status.of("pi").unwrap().voter);
    cluster.add("node5")?;
    cluster.all_online()?;
    let status = operator.until("five votes", SOON, |status| status.votes == (5, 5))?;
    assert!(status.of("pi").unwrap().voter);
    let changes = operator.log()?.iter().filter(|line| matches!(line.decision, Decision::VotersChanged { .. })).count();
    assert!(changes >= 2, "the timeline tells who votes");
    Ok(())
}
