//! QDevice set up by the commands that `pvecm`, `crm` and `pcs` send, over a real sshd and over the image's own ssh, and an existing corosync-qnetd replaced
//! by ours: with stock nodes, whose `corosync-quorumtool` is the judge.
//!
//! Needs root, and the Debian packages corosync, corosync-qdevice, corosync-qnetd, libnss3-tools, openssh-server and
//! iproute2; without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tiebreaker_interop::{
    Appliance, Behind, CorosyncNode, Listens, Network, PASSWORD, Pairing, QdeviceHost, Quorum, Ran, until,
};

const SOON: Duration = Duration::from_secs(60);
/// Corosync's timers are the measure, and the machine has few cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const NSSDB: &str = "/etc/corosync/qnetd/nssdb";

/// Fields fall in this order: daemons before the namespaces in which they run.
struct Site {
    nodes: [CorosyncNode; 2],
    host: QdeviceHost,
    network: Network,
    folder: TempDir,
}

impl Site {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-setup").tempdir()?;
        let network = Network::new(&["pi", "node1", "node2"])?;
        let host = QdeviceHost::new(folder.path(), &network)?;
        let node = |name| CorosyncNode::new(folder.path(), &network, name, "home", Some("ffsplit"));
        let nodes = [node("node1")?, node("node2")?];
        Ok(Self { nodes, host, network, folder })
    }

    /// What the stock scripts do on the nodes, once the authority's and the cluster's certificate are there.
    fn give(&self, authority: &str, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<()> {
        let [first, second] = &self.nodes;
        for node in &self.nodes {
            fs::write(node.etc("ca.crt"), authority)?;
            node.certutil(&["-i", "-c", "/etc/corosync/ca.crt"])?;
        }
        first.certutil(&["-r", "-n", "home"])?;
        let request = fs::read(first.etc("qdevice/net/nssdb/qdevice-net-node.crq"))?;
        fs::write(first.etc("cluster-home.crt"), sign(&request)?)?;
        first.certutil(&["-M", "-c", "/etc/corosync/cluster-home.crt"])?;
        fs::copy(first.etc("qdevice/net/nssdb/qdevice-net-node.p12"), second.etc("node.p12"))?;
        second.certutil(&["-m", "-c", "/etc/corosync/node.p12"])
    }

    /// Prepares the root of the first node for going to the appliance by ssh, with this password: whoever types it and "yes" in
    /// real life.
    fn prepare_ssh(&self, password: &str) -> Result<()> {
        let node = &self.nodes[0];
        fs::create_dir(node.root(".ssh"))?;
        fs::set_permissions(node.root(".ssh"), fs::Permissions::from_mode(0o700))?;
        fs::write(node.root(".ssh/config"), "Host *\n  StrictHostKeyChecking accept-new\n")?;
        fs::write(node.root("askpass"), format!("#!/bin/sh\necho {password}\n"))?;
        fs::set_permissions(node.root("askpass"), fs::Permissions::from_mode(0o755))?;
        node.run(&["ssh-keygen", "-q", "-t", "rsa", "-b", "4096", "-N", "", "-f", "/root/.ssh/id_rsa"])?
            .done()
            .map(drop)
    }

    /// With the password, once.
    fn ssh_copy_id(&self) -> Result<()> {
        let with_password = ["env", "HOME=/root", "SSH_ASKPASS=/root/askpass", "SSH_ASKPASS_REQUIRE=force"];
        let root = format!("root@{}", self.network.ip("pi")?);
        let command = [&with_password[..], &["ssh-copy-id", "-i", "/root/.ssh/id_rsa", &root]].concat();
        self.nodes[0].run(&command)?.done().map(drop)
    }

    /// From there on without one.
    fn ssh(&self, words: &[&str]) -> Result<Ran> {
        let pi = self.network.ip("pi")?.to_string();
        self.nodes[0].run(&[&["env", "HOME=/root", "ssh", "-o", "BatchMode=yes", "-lroot", &pi], words].concat())
    }

    fn scp(&self, from: &str, to: &str) -> Result<()> {
        self.nodes[0].run(&["env", "HOME=/root", "scp", "-o", "BatchMode=yes", from, to])?.done().map(drop)
    }

    /// A path of the appliance's.
    fn far(&self, path: &str) -> Result<String> {
        Ok(format!("root@[{}]:{path}", self.network.ip("pi")?))
    }

    /// `pvecm qdevice setup`, command by command, from the one behind ssh-copy-id on.
    fn pvecm(&self) -> Result<()> {
        let node = &self.nodes[0];
        // The appliance has made its authority when it started: pvecm expects that it may be there already.
        let again = self.ssh(&["corosync-qnetd-certutil", "-i"])?;
        ensure!(again.code == Some(1) && again.stderr.contains("already exists"), "{again:?}");
        self.scp(&self.far(&format!("{NSSDB}/qnetd-cacert.crt"))?, "/etc/corosync/qnetd-cacert.crt")?;
        let authority = fs::read_to_string(node.etc("qnetd-cacert.crt"))?;
        self.give(&authority, |_| {
            self.scp("/etc/corosync/qdevice/net/nssdb/qdevice-net-node.crq", &self.far("/tmp")?)?;
            let sign = ["corosync-qnetd-certutil", "-s", "-c", "/tmp/qdevice-net-node.crq", "-n", "home"];
            let said = self.ssh(&sign)?.done()?;
            ensure!(said.contains(&format!("Certificate stored in {NSSDB}/cluster-home.crt")), "{said}");
            self.scp(&self.far(&format!("{NSSDB}/cluster-home.crt"))?, "/etc/corosync/fetched.crt")?;
            Ok(fs::read(node.etc("fetched.crt"))?)
        })
    }

    fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start_corosync()?;
        }
        self.both("a ring of two", |quorum| quorum.nodes == 2)?;
        for node in &mut self.nodes {
            node.start_qdevice()?;
        }
        self.both("the vote on both", whole)
    }

    fn both(&self, what: &str, is: impl Fn(&Quorum) -> bool) -> Result<()> {
        self.nodes.iter().try_for_each(|node| {
            until(what, SOON, || {
                let quorum = node.quorum()?;
                ensure!(is(&quorum), "it has {quorum:?}");
                Ok(())
            })
            .with_context(|| format!("the server:\n{}\nthe node:\n{}", self.host.log(), node.log()))
        })
    }
}

fn whole(quorum: &Quorum) -> bool {
    *quorum == Quorum { quorate: true, nodes: 2, votes: 3, device: 1 }
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `pvecm qdevice setup` over the image's own ssh, which has no shell: with the code on the screen, once.
#[test]
fn pvecm_sets_the_vote_up_over_the_ssh_of_the_image() -> Result<()> {
    let _turn = one_at_a_time();
    let mut site = Site::new()?;
    let listen = site.network.address("pi")?;
    let mut appliance = Appliance::init(&site.folder.path().join("pi"), listen, site.network.on("pi"))?;
    appliance.configure("\n[qdevice]\nany_certified = true\n")?;
    appliance.start()?;
    let port_22 = Listens::At((site.network.ip("pi")?, 22).into());
    let mut pairing = Pairing::start(&site.network.on("pi"), site.folder.path(), &appliance.data(), port_22)?;
    site.prepare_ssh(pairing.code())?;
    site.ssh_copy_id().and_then(|()| site.pvecm()).with_context(|| pairing.log())?;
    let status = pairing.until_ended(SOON)?;
    assert_eq!(status.code(), Some(0), "{}", pairing.log());
    let gone = site.ssh(&["exit"])?;
    assert!(gone.code == Some(255) && gone.stderr.contains("refused"), "{gone:?}");
    site.start().with_context(|| appliance.log())?;
    let status = appliance.command(&["qdevice", "status"])?.done()?;
    assert!(status.contains("home"), "{status}");
    Ok(())
}

/// `pvecm qdevice setup` and then, for the same cluster, `crm cluster init qdevice`, command by command, with an appliance on
/// the other side.
#[test]
fn pvecm_and_crm_set_the_vote_up_over_ssh() -> Result<()> {
    let _turn = one_at_a_time();
    let mut site = Site::new()?;
    let listen = site.network.address("pi")?;
    let mut appliance = Appliance::init(&site.folder.path().join("pi"), listen, site.network.on("pi"))?;
    appliance.configure(&format!(
        "\n[qdevice]\nany_certified = true\nauthority = \"{NSSDB}\"\ncontrol_socket = \"/var/run/corosync-qnetd/corosync-qnetd.sock\"\n"
    ))?;
    // It runs where sshd does, but its own folder may be in /tmp.
    appliance.move_to(site.host.place_with_tmp(Behind::Ours)?);
    appliance.start()?;
    site.host.start_sshd(Behind::Ours)?;
    site.prepare_ssh(PASSWORD)?;
    until("sshd", SOON, || site.ssh_copy_id()).with_context(|| site.host.log())?;
    // crm takes a name that is printed here for another cluster's.
    let taken = site.ssh(&["corosync-qnetd-tool", "-l", "-c", "home"])?;
    assert_eq!((taken.code, taken.stdout.as_str(), taken.stderr.as_str()), (Some(0), "", ""));
    site.pvecm().with_context(|| site.host.log())?;
    site.start().with_context(|| appliance.log())?;
    // What one looks with, on the appliance: the original's tool and ours.
    for behind in [Behind::Original, Behind::Ours] {
        let list = site.host.run(behind, &["corosync-qnetd-tool", "-l", "-v"])?.done()?;
        for needed in ["Cluster \"home\":", "Node ID 1:", "Node ID 2:", "Yes (client certificate verified)"] {
            assert!(list.contains(needed), "{behind:?}: {needed} is not in {list}");
        }
    }
    let node = &site.nodes[0];
    // crm: the authority is there, so nothing is made; the request goes to a place of its own beside it.
    site.ssh(&["test", "-f", &format!("{NSSDB}/qnetd-cacert.crt")])?.done()?;
    let request = format!("{NSSDB}/qdevice-net-node.crq.home");
    site.scp("/etc/corosync/qdevice/net/nssdb/qdevice-net-node.crq", &site.far(&request)?)?;
    site.ssh(&["corosync-qnetd-certutil", "-s", "-c", &request, "-n", "home"])?.done()?;
    let fetched = "/etc/corosync/crm.crt";
    site.scp(&site.far(&format!("{NSSDB}/cluster-home.crt"))?, fetched)?;
    assert_ne!(fs::read(node.etc("crm.crt"))?, fs::read(node.etc("fetched.crt"))?, "it is another one");
    node.certutil(&["-M", "-c", fetched])?;
    site.nodes[0].kill_qdevice()?;
    site.nodes[0].start_qdevice()?;
    until("node 1 with its new certificate", SOON, || {
        let events = appliance.command(&["qdevice", "events"])?.done()?;
        ensure!(events.matches("node 1 has joined").count() == 2, "{events}");
        Ok(())
    })?;
    site.both("the vote on both with it", whole)?;
    // It is the appliance's service: the tool doesn't end it.
    let refused = site.host.run(Behind::Original, &["corosync-qnetd-tool", "-H"])?;
    assert!(refused.code == Some(4) && refused.stderr.contains("systemctl stop"), "{refused:?}");
    site.both("the vote on both", whole)
}

/// What `pcs qdevice setup model net` and `pcs quorum device add` do on the QDevice host, with our `corosync-qnetd` alone.
#[test]
fn pcs_sets_the_vote_up_and_reads_the_status() -> Result<()> {
    let _turn = one_at_a_time();
    let mut site = Site::new()?;
    let initialised = |site: &Site| -> Result<bool> {
        let there = |name: &str| Ok::<_, anyhow::Error>(site.host.file(&format!("{NSSDB}/{name}"))?.exists());
        Ok(there("cert9.db")? || there("key4.db")? || there("pkcs11.txt")?)
    };
    assert!(!initialised(&site)?);
    site.host.run(Behind::Ours, &["corosync-qnetd-certutil", "-i"])?.done()?;
    assert!(initialised(&site)?);
    site.host.start_qnetd(Behind::Ours, &[])?;
    let authority = fs::read_to_string(site.host.file(&format!("{NSSDB}/qnetd-cacert.crt"))?)?;
    site.give(&authority, |request| {
        fs::write(site.host.file("/tmp/request.crq")?, request)?;
        let sign = ["corosync-qnetd-certutil", "-s", "-c", "/tmp/request.crq", "-n", "home"];
        let said = site.host.run(Behind::Ours, &sign)?.done()?;
        // pcs reads the path from here.
        let path = said.lines().find_map(|line| line.strip_prefix("Certificate stored in "));
        Ok(fs::read(site.host.file(path.context("no path is told")?)?)?)
    })?;
    site.start()?;
    let status = site.host.run(Behind::Ours, &["corosync-qnetd-tool", "-s", "-v"])?.done()?;
    assert!(
        status.contains("Connected clusters:\t\t1\n") && status.contains("QNetd address:\t\t\t*:5403\n"),
        "{status}"
    );
    let list = site.host.run(Behind::Ours, &["corosync-qnetd-tool", "-l", "-v", "-c", "home"])?.done()?;
    let named: Vec<&str> =
        list.lines().filter_map(|line| line.strip_prefix("Cluster \"")?.strip_suffix("\":")).collect();
    assert_eq!(named, ["home"], "{list}");
    site.host.shut_qnetd_down()?;
    let gone = site.host.run(Behind::Ours, &["corosync-qnetd-tool", "-s"])?;
    assert!(gone.code == Some(3) && gone.stderr.contains("is QNetd running?"), "{gone:?}");
    site.both("two nodes without the device", |quorum| quorum.quorate && quorum.votes == 2)
}

/// Nodes that were set up with Debian's corosync-qnetd, and ours in its place with what its database holds: nothing is done
/// on the nodes.
#[test]
fn nodes_of_an_existing_qnetd_get_their_vote_from_ours_untouched() -> Result<()> {
    let _turn = one_at_a_time();
    let mut site = Site::new()?;
    site.host.run(Behind::Original, &["corosync-qnetd-certutil", "-i", "-G"])?.done()?;
    site.host.start_qnetd(Behind::Original, &[])?;
    let authority = fs::read_to_string(site.host.file(&format!("{NSSDB}/qnetd-cacert.crt"))?)?;
    site.give(&authority, |request| {
        fs::write(site.host.file("/tmp/request.crq")?, request)?;
        let sign = ["corosync-qnetd-certutil", "-s", "-c", "/tmp/request.crq", "-n", "home"];
        site.host.run(Behind::Original, &sign)?.done()?;
        Ok(fs::read(site.host.file(&format!("{NSSDB}/cluster-home.crt"))?)?)
    })?;
    site.start()?;
    site.host.shut_qnetd_down()?;
    site.both("two nodes without the device", |quorum| quorum.quorate && quorum.votes == 2)?;
    // A path of its own: /usr/bin/corosync-qnetd is ours in there.
    let server = "/run/tiebreaker-server";
    fs::copy(tiebreaker_interop::Program::Server.path()?, site.host.file(server)?)?;
    let early = site.host.run(Behind::Ours, &["/usr/bin/corosync-qnetd", "-f"])?;
    assert!(early.code == Some(1) && early.stderr.contains("qdevice adopt"), "{early:?}");
    let before = fs::read(site.host.file(&format!("{NSSDB}/key4.db"))?)?;
    let adopt = [server, "qdevice", "adopt", NSSDB, "--into", NSSDB];
    let said = site.host.run(Behind::Ours, &adopt)?.done()?;
    assert!(said.contains("Its fingerprint is"), "{said}");
    assert_eq!(fs::read(site.host.file(&format!("{NSSDB}/key4.db"))?)?, before, "the database is read, no more");
    let twice = site.host.run(Behind::Ours, &adopt)?;
    assert!(twice.code == Some(1) && twice.stderr.contains("already"), "{twice:?}");
    site.host.start_qnetd(Behind::Ours, &["-s", "req"])?;
    site.both("the vote on both from ours", whole)?;
    // And without NSS's tool the package is named.
    let without =
        format!("mount -t tmpfs none /usr/bin; PATH=/nowhere; exec {server} qdevice adopt {NSSDB} --into /run/other");
    let missing = site.host.run(Behind::Original, &["/bin/sh", "-c", &without])?;
    assert!(missing.code == Some(1) && missing.stderr.contains("libnss3-tools"), "{missing:?}");
    Ok(())
}
