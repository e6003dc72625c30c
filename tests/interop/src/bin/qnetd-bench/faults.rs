//! Two real nodes with Debian's Corosync in network namespaces: how soon the survivor of a fault has quorum.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tiebreaker_interop::{Appliance, CorosyncNode, Network, Program, Quorum, QuorumWatch, mounted, run, until};

use crate::{Args, servers::Whose, table::Table};

/// Whatever has to come has come by then.
const SOON: Duration = Duration::from_secs(90);

/// Who has no quorum by then never gets it: the dead-peer time is 12 s, Corosync's own 6.6 s.
const NEVER_AFTER: Duration = Duration::from_secs(40);

/// An idle ring hands its token on this often, with Corosync's default times. A node that dies just after is missed later than
/// one that dies just before: faults are spread over it.
const TOKEN_HELD: Duration = Duration::from_millis(561);

const KILLED: &str = "kill -9 of corosync to quorate";
const ANSWERED: &str = "of it, Corosync's question to our vote";
const CUT: &str = "all links cut to quorate";
const WINNER: &str = "winner of an lms split dies";

/// Fields fall in this order: daemons before the namespaces in which they run.
struct Site {
    nodes: Vec<CorosyncNode>,
    server: Server,
    network: Network,
    _folder: TempDir,
}

enum Server {
    Original(Child),
    Ours(Box<Appliance>),
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Original(child) = self {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Site {
    /// Both nodes up, with their vote.
    fn form(args: &Args, whose: Whose, algorithm: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-bench").tempdir()?;
        let network = Network::new(&["pi", "node1", "node2"])?;
        let mut nodes = Vec::new();
        for host in ["node1", "node2"] {
            nodes.push(CorosyncNode::new(folder.path(), &network, host, "home", Some(algorithm))?);
        }
        let server = match whose {
            Whose::Original => original(folder.path(), &network, &nodes)?,
            Whose::Ours => ours(args, folder.path(), &network, &nodes)?,
        };
        let mut site = Self { nodes, server, network, _folder: folder };
        for node in &mut site.nodes {
            node.start_corosync()?;
        }
        site.both("a ring of two", |quorum| quorum.nodes == 2)?;
        for node in &mut site.nodes {
            node.start_qdevice()?;
        }
        site.both("the vote on both", whole)?;
        Ok(site)
    }

    fn node(&self, number: usize) -> Result<&CorosyncNode> {
        self.nodes.get(number).context("one of two")
    }

    fn both(&self, what: &str, is: impl Fn(&Quorum) -> bool) -> Result<()> {
        for node in &self.nodes {
            until(what, SOON, || {
                let quorum = node.quorum()?;
                ensure!(is(&quorum), "it is {quorum:?}");
                Ok(())
            })
            .with_context(|| node.log())?;
        }
        Ok(())
    }

    /// A node comes back after its death.
    fn restart(&mut self, number: usize) -> Result<()> {
        let node = self.nodes.get_mut(number).context("one of two")?;
        node.start_corosync()?;
        until("a Corosync that answers", SOON, || node.quorum())?;
        node.start_qdevice()?;
        self.both("the vote on both again", whole)
    }

    /// The part of the last change of the second node's ring that our server takes: from where its Corosync says that it waits for
    /// the vote, to where ours says that it gave it. The rest is Corosync's own: its token's timeout, its consensus, and
    /// up to half a second in which an idle ring holds its token back. `None` for the original, which says nothing.
    fn answered(&self) -> Result<Option<f64>> {
        let Server::Ours(appliance) = &self.server else { return Ok(None) };
        let (asked, voted) = (self.node(1)?.log(), appliance.log());
        let asked = last_with(&asked, "waiting for quorum device").and_then(|line| line.split_whitespace().nth(2));
        let voted =
            last_with(&voted, "the partition of 2 has the vote").and_then(|line| line.split_whitespace().next());
        let asked = second(asked.context("Corosync's question isn't in its log")?)?;
        let voted = second(voted.context("our vote isn't in our log")?)?;
        Ok(Some((voted - asked).rem_euclid(60.0) * 1000.0))
    }

    /// The time until a node is alone and has quorum; infinite where that doesn't come.
    fn alone(watch: &mut QuorumWatch, begun: Instant) -> Result<f64> {
        let seen = watch.until(NEVER_AFTER, |quorum| quorum.quorate && quorum.nodes == 1 && quorum.device == 1)?;
        Ok(seen.map_or(f64::INFINITY, |at| at.duration_since(begun).as_secs_f64()))
    }
}

fn last_with<'a>(log: &'a str, words: &str) -> Option<&'a str> {
    log.lines().rev().find(|line| line.contains(words))
}

/// The second within its minute of a stamp whose zone doesn't matter: `01:27:07.701`, `2026-11-27T01:27:07.709949Z`.
fn second(stamp: &str) -> Result<f64> {
    let last = stamp.rsplit(':').next().unwrap_or(stamp).trim_end_matches('Z');
    last.parse().with_context(|| format!("{stamp:?} is no time"))
}

fn whole(quorum: &Quorum) -> bool {
    quorum.quorate && quorum.nodes == 2 && quorum.device == 1
}

fn original(folder: &Path, network: &Network, nodes: &[CorosyncNode]) -> Result<Server> {
    let folder = folder.join("pi");
    for name in ["etc/qnetd", "lib", "root", "run/corosync-qnetd"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let place = network.on("pi");
    let command = |words: &[&str]| mounted(&place, &folder, words);
    run(command(&["corosync-qnetd-certutil", "-i"])?)?.done()?;
    certify(nodes, &fs::read(folder.join("etc/qnetd/nssdb/qnetd-cacert.crt"))?, |request| {
        fs::copy(request, folder.join("etc/request"))?;
        run(command(&["corosync-qnetd-certutil", "-s", "-c", "/etc/corosync/request", "-n", "home"])?)?.done()?;
        Ok(fs::read(folder.join("etc/qnetd/nssdb/cluster-home.crt"))?)
    })?;
    let log = fs::File::create(folder.join("log"))?;
    let mut command = command(&["corosync-qnetd", "-f", "-s", "on", "-c", "on"])?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Server::Original(command.spawn().context("starting corosync-qnetd")?))
}

fn ours(args: &Args, folder: &Path, network: &Network, nodes: &[CorosyncNode]) -> Result<Server> {
    Program::use_built(args.server.parent().unwrap_or(Path::new(".")))?;
    let mut appliance = Appliance::init(&folder.join("pi"), network.address("pi")?, network.on("pi"))?;
    let listen = network.ip("pi")?;
    appliance.configure(&format!("\n[qdevice]\nlisten = [\"{listen}:5403\"]\n[qdevice.clusters.home]\n"))?;
    appliance.start()?;
    let authority = appliance.command(&["qdevice", "ca"])?.done()?;
    certify(nodes, authority.as_bytes(), |request| {
        let request = request.to_str().context("a temporary folder is text")?;
        Ok(appliance.command(&["qdevice", "sign", "--cluster", "home", request])?.done()?.into_bytes())
    })?;
    Ok(Server::Ours(Box::new(appliance)))
}

/// The stock scripts, as they are run on nodes.
fn certify(nodes: &[CorosyncNode], authority: &[u8], sign: impl Fn(&Path) -> Result<Vec<u8>>) -> Result<()> {
    let [first, second] = nodes else { anyhow::bail!("there are two nodes") };
    for node in nodes {
        fs::write(node.etc("ca.crt"), authority)?;
        node.certutil(&["-i", "-c", "/etc/corosync/ca.crt"])?;
    }
    first.certutil(&["-r", "-n", "home"])?;
    let signed = sign(&first.etc("qdevice/net/nssdb/qdevice-net-node.crq"))?;
    fs::write(first.etc("cluster-home.crt"), signed)?;
    first.certutil(&["-M", "-c", "/etc/corosync/cluster-home.crt"])?;
    fs::copy(first.etc("qdevice/net/nssdb/qdevice-net-node.p12"), second.etc("node.p12"))?;
    second.certutil(&["-m", "-c", "/etc/corosync/node.p12"])
}

/// Measures one server.
pub fn measure(args: &Args, whose: Whose, table: &mut Table) -> Result<()> {
    if args.wants(KILLED) || args.wants(CUT) {
        let mut site = Site::form(args, whose, "ffsplit")?;
        let mut watch = site.node(1)?.watch_quorum()?;
        for turn in 1..=args.repeats {
            if args.wants(KILLED) {
                watch.until(SOON, whole)?.context("a whole cluster")?;
                thread::sleep(TOKEN_HELD.saturating_mul(turn - 1) / args.repeats);
                let begun = Instant::now();
                site.nodes.first_mut().context("one of two")?.kill()?;
                let took = Site::alone(&mut watch, begun)?;
                args.say(&format!("{}: killed, {turn} of {}: {took:.2} s", whose.name(), args.repeats));
                table.note(whose, KILLED, took);
                if let Some(answered) = site.answered()? {
                    table.note(whose, ANSWERED, answered);
                }
                site.restart(0)?;
            }
            if args.wants(CUT) {
                watch.until(SOON, whole)?.context("a whole cluster")?;
                let begun = Instant::now();
                site.network.cut("node1", "node2")?;
                site.network.cut("node1", "pi")?;
                let took = Site::alone(&mut watch, begun)?;
                args.say(&format!("{}: cut off, {turn} of {}: {took:.2} s", whose.name(), args.repeats));
                table.note(whose, CUT, took);
                site.network.heal_all()?;
                site.both("the vote on both again", whole)?;
            }
        }
    }
    if args.wants(WINNER) {
        // Whoever waits for ever does so every time.
        let turns = if whose == Whose::Original { 1 } else { args.repeats };
        for turn in 1..=turns {
            let mut site = Site::form(args, whose, "lms")?;
            site.network.cut("node1", "node2")?;
            let mut winner = site.node(0)?.watch_quorum()?;
            winner.until(SOON, |quorum| quorum.quorate && quorum.nodes == 1)?.context("a winner")?;
            let mut watch = site.node(1)?.watch_quorum()?;
            watch.until(SOON, |quorum| !quorum.quorate && quorum.nodes == 1)?.context("a loser")?;
            let begun = Instant::now();
            site.nodes.first_mut().context("one of two")?.kill()?;
            let took = Site::alone(&mut watch, begun)?;
            args.say(&format!("{}: the winner killed, {turn} of {turns}: {took:.2} s", whose.name()));
            table.note(whose, WINNER, took);
        }
    }
    Ok(())
}
