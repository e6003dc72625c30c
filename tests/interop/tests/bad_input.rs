//! What people and machines get wrong: each is a clear message that names the fault and the way out, with exit code 1;
//! never a panic, never a state half done. The real programs.
//!
//! A full disk needs root, for a small tmpfs of the test's own. A wall clock that jumps is not tried here, because it
//! can't be set for one process; what watches it takes its clocks from outside and is tested with it there.
#![allow(clippy::unwrap_used)]

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{
    Appliance, Cluster, Look, Node, Program, Ran, SOON, command_spec, loopback, require_root, run, until,
};
use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::core::{Reply, Request, Status};

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Runs a daemon that can't start.
fn must_refuse(program: Program, data: &Path) -> Result<String> {
    let mut command = program.command()?;
    command.args(["run", "--data"]).arg(data).env("NO_COLOR", "1");
    run(command)?.refused()
}

/// Writes a file, runs the daemon, and puts the file back.
fn with(file: &Path, bytes: &[u8], program: Program) -> Result<String> {
    let before = fs::read(file)?;
    fs::write(file, bytes)?;
    let refused = must_refuse(program, file.parent().context("a file in the data folder")?);
    fs::write(file, before)?;
    refused
}

/// A status program that finds nothing running.
const STOPPED: [&str; 3] = ["/bin/sh", "-c", "exit 3"];

/// A node that has joined and does not run.
fn joined(cluster: &Cluster, name: &str) -> Result<(Node, SocketAddr)> {
    let node = Node::new(cluster.folder(), name)?;
    let token = cluster.appliance.token("home")?;
    let listen = loopback();
    node.join(&[], cluster.address(), &token, listen, &[])?.done()?;
    Ok((node, listen))
}

#[test]
fn mistakes_in_configuration_files_are_named_with_file_and_place() -> Result<()> {
    let mut cluster = Cluster::appliance()?;
    let (node, _) = joined(&cluster, "node1")?;
    cluster.appliance.stop();
    let server = cluster.appliance.data().join("server.toml");
    let agent = node.data().join("agent.toml");
    for (file, program) in [(&server, Program::Server), (&agent, Program::Agent)] {
        let good = fs::read_to_string(file)?;
        let name = file.display().to_string();
        let line = format!("line {}", good.lines().count() + 1);

        let unknown = with(file, format!("{good}lissten = 3\n").as_bytes(), program)?;
        has(&unknown, &[&name, &line, "lissten", "listen"]);
        let listen = good.lines().find(|line| line.starts_with("listen")).context("it listens")?;
        let wrong_type = with(file, good.replace(listen, "listen = 3").as_bytes(), program)?;
        has(&wrong_type, &[&name, "listen = 3", "expected a sequence"]);
        let no_address = with(file, good.replace(listen, "listen = [\"here\"]").as_bytes(), program)?;
        has(&no_address, &[&name, "\"here\"", "[::]:8405"]);
        let latin1 = with(file, &[good.as_bytes(), b"# caf\xe9\n"].concat(), program)?;
        has(&latin1, &[&name, "not UTF-8", "save it as UTF-8"]);
        let broken = with(file, format!("{good}[[[\n").as_bytes(), program)?;
        has(&broken, &[&name, &line]);
        let renamed = with(file, good.replace("name = ", "name = \"No Name\" #").as_bytes(), program)?;
        has(&renamed, &[&name, "No Name"]);
        fs::remove_file(file)?;
        has(&must_refuse(program, file.parent().unwrap())?, &[&name, "does not exist"]);
        fs::write(file, good)?;
    }

    let good = fs::read_to_string(&server)?;
    let secret = "open-sesame-1";
    fs::write(cluster.appliance.data().join("bmc.password"), secret)?;
    fs::set_permissions(
        cluster.appliance.data().join("bmc.password"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    let device = "[[clusters.home.devices]]\nnode = \"node1\"\nname = \"bmc\"\nkind = \"ipmi\"\n\
                  address = \"127.0.0.1:623\"\nuser = \"oper\"\nsuite = 3\npassword_file = \"bmc.password\"\n";
    let readable = with(&server, format!("{good}{device}").as_bytes(), Program::Server)?;
    has(&readable, &["clusters.home.devices", "bmc.password", "chmod 600"]);
    assert!(!readable.contains(secret), "no secret in a message");
    let kind = with(&server, format!("{good}{}", device.replace("ipmi", "magic")).as_bytes(), Program::Server)?;
    has(&kind, &["server.toml", "line", "magic", "`ipmi`", "`redfish`"]);
    let profile = with(&server, format!("{good}[clusters.home]\nprofile = \"quick\"\n").as_bytes(), Program::Server)?;
    has(&profile, &["clusters.home", "quick", "balanced"]);

    let good = fs::read_to_string(&agent)?;
    let watchdog = with(&agent, good.replace("\"none\"", "\"softdog\"").as_bytes(), Program::Agent)?;
    has(&watchdog, &["agent.toml", "softdog", "/dev/watchdog0"]);
    let absent = with(&agent, good.replace("\"none\"", "\"/dev/watchdog77\"").as_bytes(), Program::Agent)?;
    has(&absent, &["/dev/watchdog77", "modprobe"]);
    let unsupervised = with(&agent, good.replace("\"none\"", "\"simulated\"").as_bytes(), Program::Agent)?;
    has(&unsupervised, &["supervise"]);
    let other_name = with(&agent, good.replace("node1", "node7").as_bytes(), Program::Agent)?;
    has(&other_name, &["node1", "node7", "join again"]);

    // After all that, the files as they were still start.
    cluster.appliance.start()
}

#[test]
fn a_port_that_is_taken_and_a_daemon_that_runs_already_are_named() -> Result<()> {
    let mut cluster = Cluster::appliance()?;
    has(&must_refuse(Program::Server, &cluster.appliance.data())?, &["already", "control.sock"]);
    let (node, _) = joined(&cluster, "node1")?;
    let _running = node.start()?;
    let operator = cluster.operator();
    let online = || operator.until("the node online", SOON, |status| status.online() == 1).map(drop);
    online()?;
    has(&must_refuse(Program::Agent, &node.data())?, &["another agent"]);
    let mut supervise = Program::Agent.command()?;
    supervise.args(["supervise", "--data"]).arg(node.data());
    has(&run(supervise)?.refused()?, &["another supervisor", "run"]);
    online().context("those that ran go on")?;

    cluster.appliance.stop();
    let taken = TcpListener::bind(cluster.address())?;
    let refused = must_refuse(Program::Server, &cluster.appliance.data())?;
    has(&refused, &[&cluster.address().to_string(), "another program uses this port"]);
    drop(taken);
    cluster.appliance.start()?;
    online()?;

    let (other, listens) = joined(&cluster, "node2")?;
    let taken = TcpListener::bind(listens)?;
    let refused = must_refuse(Program::Agent, &other.data())?;
    has(&refused, &[&listens.to_string(), "another program uses this port"]);
    drop(taken);
    let _running = other.start()?;
    operator.until("both nodes online", SOON, |status| status.online() == 2).map(drop)
}

#[test]
fn an_operator_who_reaches_nobody_is_told_whom_it_tried() -> Result<()> {
    let mut cluster = Cluster::appliance()?;
    let dir = cluster.folder().join("ann");
    let token = cluster.appliance.command(&["token", "create", "--kind", "operator", "--cluster", "home"])?.done()?;
    let address = cluster.address().to_string();
    let login: [&dyn AsRef<OsStr>; 8] =
        [&"login", &address, &"--name", &"ann", &"--token", &token.trim(), &"--dir", &dir];
    Program::Operator.run(&login)?.done()?;
    cluster.appliance.stop();
    let unreachable = |how: &[&dyn AsRef<OsStr>], whom: &str| -> Result<Ran> {
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"status", &"--identity", &dir];
        words.extend(how);
        let ran = Program::Operator.run(&words)?;
        assert_eq!(ran.code, Some(3), "nobody was reached: {ran:?}");
        has(&ran.stderr, &[whom]);
        Ok(ran)
    };
    let nobody = loopback().to_string();
    unreachable(&[&"--connect", &nobody], &nobody)?;
    unreachable(&[&"--connect", &"no-such-host.invalid:8405"], "no-such-host.invalid")?;
    // Where it logged in, which is down now, and as a document.
    let ran = unreachable(&[&"--json"], &address)?;
    let document: serde_json::Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(document["exit"], 3);
    has(document["error"].as_str().context("an error")?, &[&address]);
    // The local daemon's socket is there no more, or nobody answers at it.
    let data = cluster.appliance.data();
    let local = Program::Operator.run(&[&"--data", &data, &"status"])?;
    assert_eq!(local.code, Some(3), "{local:?}");
    has(&local.stderr, &["control.sock"]);
    Ok(())
}

#[test]
fn what_can_not_be_joined_is_said_and_nothing_is_left_half_done() -> Result<()> {
    let cluster = Cluster::appliance()?;
    let token = cluster.appliance.token("home")?;
    let node = Node::new(cluster.folder(), "node1")?;
    let nobody = loopback();
    let refused = node.join(&[], nobody, &token, loopback(), &[])?.refused()?;
    has(&refused, &[&nobody.to_string()]);
    let here = loopback().to_string();
    let join = |appliance: &str, name: &str, more: &[&str]| -> Result<Ran> {
        let mut command = Program::Agent.command()?;
        command.args(["join", appliance, "--token", &token, "--name", name, "--data"]).arg(node.data());
        command.args(["--listen", &here, "--address", &here]).args(more);
        run(command)
    };
    let address = cluster.address().to_string();
    has(&join("no-such-host.invalid:8405", "node1", &[])?.refused()?, &["no-such-host.invalid"]);
    has(&join("127.0.0.1:99999", "node1", &[])?.refused()?, &["127.0.0.1:99999"]);
    has(&join(&address, "Node One", &[])?.refused()?, &["Node One"]);
    has(&join(&address, "node1", &["--watchdog", "softdog"])?.refused()?, &["softdog", "/dev/watchdog0"]);
    has(&must_refuse(Program::Agent, &node.data())?, &["agent.toml", "tiebreaker-agent join"]);
    node.join(&[], cluster.address(), &token, loopback(), &[])?.done().context("the token is still good")?;

    for bad in ["", "Home", "../etc", "a b", "-x", &"x".repeat(100)] {
        let refused = cluster.appliance.command(&["token", "create", &format!("--cluster={bad}")])?.refused()?;
        has(&refused, &["name"]);
    }
    let usage = cluster.appliance.command(&["token", "create", "--cluster", "home", "--ttl-minutes", "0"])?;
    assert_eq!(usage.code, Some(2), "wrong usage: {usage:?}");
    let again = cluster.appliance.command(&["init"])?.refused()?;
    has(&again, &["server.toml exists already", "lock every node out"]);
    assert_eq!(fs::read_dir(cluster.appliance.data().join("clusters"))?.count(), 1, "no cluster was made by accident");
    Ok(())
}

#[test]
fn a_damaged_store_is_refused_and_never_guessed() -> Result<()> {
    let mut cluster = Cluster::start(&["node1", "node2"])?;
    cluster.appliance.stop();
    let data = cluster.appliance.data();
    let store = data.join("clusters/home/raft.redb");
    let whole = fs::read(&store)?;
    let way_out = ["raft.redb", "move the file away"];
    for (what, bytes) in [
        // The file has room to spare, so a longer rest may hold all that was ever committed, and may be used.
        ("cut after its first page", whole[..4096].to_vec()),
        ("empty", Vec::new()),
        ("text", b"not a store at all".to_vec()),
        ("zeros", vec![0; whole.len()]),
    ] {
        fs::write(&store, bytes)?;
        let refused = must_refuse(Program::Server, &data)?;
        has(&refused, &way_out[..1]);
        ensure!(refused.contains(way_out[1]) || refused.contains("rejoin"), "{what}: no way out in: {refused}");
    }
    fs::remove_file(&store)?;
    has(&must_refuse(Program::Server, &data)?, &["raft.redb", "missing"]);
    fs::write(&store, &whole)?;

    // The authority's and the member's own files are as strict.
    let identity = data.join("clusters/home/identity.pem");
    let before = fs::read(&identity)?;
    fs::write(&identity, b"-----BEGIN NOTHING-----\n")?;
    has(&must_refuse(Program::Server, &data)?, &["identity.pem"]);
    fs::write(&identity, before)?;
    has(&with(&data.join("tokens.json"), b"{\"version\": 99}", Program::Server)?, &["tokens.json"]);
    has(&with(&data.join("ca.pem"), b"", Program::Server)?, &["ca.pem"]);

    cluster.appliance.start()?;
    cluster.all_online().context("with its files put back it goes on")
}

#[test]
fn a_cluster_of_one_node_works_and_says_that_it_protects_nothing() -> Result<()> {
    let cluster = Cluster::start(&["node1"])?;
    let service = tiebreaker_interop::Workload::new(&cluster.folder().join("shared"))?;
    cluster.operator().add("service", service.spec())?;
    cluster.operator().until("the service running", SOON, |status| status.runs_on("service").is_some())?;
    let mut status = Program::Operator.command()?;
    status.args(["status", "--data"]).arg(cluster.appliance.data());
    has(&run(status)?.done()?, &["nothing is protected", "ALARM"]);
    service.lives(&service.latest()?)
}

/// A tmpfs of a few megabytes, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Result<Self> {
        require_root("mounting a small tmpfs")?;
        fs::create_dir_all(at)?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status()?;
        ensure!(mounted.success(), "a tmpfs can't be mounted on {}", at.display());
        Ok(Self(at.to_owned()))
    }

    /// Takes all space that is left.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        while file.write_all(&[1; 4096]).is_ok() {}
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount(&folder.path().join("pi/data"), 24)?;
    let mut appliance = Appliance::init(&folder.path().join("pi"), loopback(), Vec::new())?;
    appliance.start()?;
    appliance.token("home")?;
    let operator = appliance.operator();
    operator.until("leader", SOON, |status| status.quorum_lease_ms.is_some())?;

    // The appliance alone votes here: what it acknowledges rests on this disk alone. The store gives space back and takes
    // it again, so the disk is filled up each time.
    let argument = "x".repeat(8 << 10);
    let bulky = command_spec(&["/bin/true", &argument], &["/bin/true"], &["/bin/false"]);
    let mut ballast;
    let mut acknowledged = 0;
    let refused = loop {
        ensure!(acknowledged < 500, "the disk never got full");
        ballast = disk.fill()?;
        match operator.add(&format!("service-{acknowledged}"), bulky.clone()) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    operator
        .until("word of the full disk", SOON, |status| {
            status.alarms.iter().any(|alarm| alarm.contains("no space left for") && alarm.contains("raft.redb"))
        })
        .with_context(|| format!("after {acknowledged} changes: {refused:#}"))?;
    has(&appliance.log(), &["the disk is full", "no space left for", "raft.redb", "make room"]);
    let refused = operator.add("none-now", bulky.clone()).expect_err("nothing is taken without room");
    has(&format!("{refused:#}"), &["no space left for", "make room"]);
    fs::remove_file(&ballast)?;
    operator.until("an end of that", SOON, |status| !status.alarms.iter().any(|alarm| alarm.contains("no space")))?;
    operator.add("in-between", bulky.clone()).context("it takes changes again, without a restart")?;

    appliance.kill()?;
    appliance.start()?;
    let status = operator.until("a leader with all that was acknowledged", SOON, |status| {
        status.quorum_lease_ms.is_some() && status.resources.len() >= acknowledged
    })?;
    for number in 0..acknowledged {
        assert!(status.resource(&format!("service-{number}")).is_some(), "service-{number} was acknowledged");
    }
    operator.add("one-more", bulky).context("it takes changes again")
}

#[test]
fn a_nodes_full_disk_costs_no_lease_and_an_agent_that_starts_on_one_says_so() -> Result<()> {
    let mut cluster = Cluster::appliance()?;
    let disk = SmallDisk::mount(&cluster.folder().join("node1/data"), 24)?;
    cluster.add("node1")?;
    cluster.add("node2")?;
    cluster.all_online()?;
    let operator = cluster.operator();
    operator.until("three votes", SOON, |status| status.votes == (3, 3))?;

    // The other two are a majority and take changes until the node has no room for them.
    let says = |alarm: &String| alarm.starts_with("node1: no space left for") && alarm.contains("make room");
    let filled = || operator.status().is_ok_and(|status| status.alarms.iter().any(says));
    let argument = "x".repeat(8 << 10);
    let mut ballast = disk.fill()?;
    for number in 0.. {
        ensure!(number < 500, "the disk never got full");
        if filled() {
            break;
        }
        // Nobody runs what shall be stopped; it only takes room.
        operator.add_stopped(
            &format!("bulk-{number}"),
            command_spec(&["/bin/true", &argument], &["/bin/true"], &STOPPED),
        )?;
        ballast = disk.fill()?;
    }
    let lost = |status: &Status| status.of("node1").and_then(|node| node.leases_lost);
    let before = operator.until("the full node online", SOON, |status| status.online() == 2 && filled())?;
    // Several leases later it has the same one.
    let seen = Instant::now();
    let after = operator.until("time to pass", SOON, |_| seen.elapsed() > Duration::from_secs(12))?;
    assert_eq!((after.online(), lost(&after)), (2, lost(&before)), "{after:#?}");
    assert!(after.fences.is_empty() && after.alarms.iter().any(says), "{after:#?}");

    cluster.running("node1")?.kill_agent()?;
    until("word of the disk that the next agent finds full", SOON, || {
        let log = cluster.node("node1")?.log();
        let said = log.contains("tiebreaker-agent: the disk of") && log.contains("is full: make room there");
        ensure!(said, "{log}");
        Ok(())
    })?;
    fs::remove_file(ballast)?;
    cluster.all_online().context("with room it starts again by itself")?;
    operator.until("an end of the alarm", SOON, |status| !status.alarms.iter().any(says)).map(drop)
}

#[test]
fn a_damaged_cluster_among_others_is_said_and_tried_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut appliance = Appliance::init(folder.path(), loopback(), Vec::new())?;
    appliance.start()?;
    appliance.token("home")?;
    appliance.token("work")?;
    appliance.stop();
    let store = appliance.data().join("clusters/work/raft.redb");
    let whole = fs::read(&store)?;
    fs::write(&store, b"not a store at all")?;
    appliance.start()?;
    let operator = appliance.operator();
    let says =
        |alarm: &String| alarm.contains("cluster work") && alarm.contains("raft.redb") && alarm.contains("again in");
    // With one cluster left, that one is meant.
    operator.until("word of the damaged cluster", SOON, |status| status.alarms.iter().any(says))?;
    let ask = LocalRequest::Cluster { cluster: Some("work".into()), request: Box::new(Request::Status) };
    let answer = format!("{:?}", operator.ask(&ask)?);
    has(&answer, &["Refused", "raft.redb", "again in"]);
    // It never ran in this daemon's life, and is tried again all the same.
    fs::write(&store, &whole)?;
    until("the cluster running", SOON, || match operator.ask(&ask)? {
        LocalReply::Cluster(Reply::Status(_)) => Ok(()),
        other => anyhow::bail!("{other:?}"),
    })
}
