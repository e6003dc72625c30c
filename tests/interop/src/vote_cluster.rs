//! A Corosync cluster of two with our appliance as its QDevice server, in network namespaces: TLS on, certificates by the
//! stock scripts.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Appliance, CorosyncNode, Network, Quorum, run, until};

/// Anything that has to come has come by then. Corosync's own time for a lost node is 6.6 s, the stock client connects
/// again within 8 s, and the test's machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// Which certificate the machines have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certificate<'n> {
    /// One that the appliance signed for a cluster.
    Of(&'n str),
    /// One for their cluster, of the appliance's authority, that ended years ago.
    Expired,
}

/// The appliance and two machines. Fields fall in this order: daemons before the namespaces in which they run.
#[derive(Debug)]
pub struct VoteCluster {
    /// The machines, `node1` and `node2`.
    pub nodes: Vec<CorosyncNode>,
    /// The QDevice server, `pi`.
    pub appliance: Appliance,
    /// What connects them.
    pub network: Network,
    /// Where all their files are.
    pub folder: TempDir,
}

impl VoteCluster {
    /// Appliance and two machines, nothing of Corosync's running yet.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn new(algorithm: &str, certificate: Certificate<'_>) -> Result<Self> {
        let cluster = Self::bare(Some(algorithm))?;
        let authority = cluster.appliance.command(&["qdevice", "ca"])?.done()?;
        for node in &cluster.nodes {
            fs::write(node.etc("ca.crt"), &authority)?;
            node.certutil(&["-i", "-c", "/etc/corosync/ca.crt"])?;
        }
        let [first, second] = &cluster.nodes[..] else { unreachable!("two were made") };
        let name = match certificate {
            Certificate::Of(name) => name,
            Certificate::Expired => "home",
        };
        first.certutil(&["-r", "-n", name])?;
        let request = first.etc("qdevice/net/nssdb/qdevice-net-node.crq");
        let path = request.to_str().context("a test's folder is text")?;
        let signed = match certificate {
            Certificate::Of(name) => {
                cluster.appliance.command(&["qdevice", "sign", "--cluster", name, path])?.done()?
            }
            Certificate::Expired => expired(&cluster.appliance.data().join("qdevice-ca.pem"), &request)?,
        };
        fs::write(first.etc("cluster.crt"), signed)?;
        first.certutil(&["-M", "-c", "/etc/corosync/cluster.crt"])?;
        fs::copy(first.etc("qdevice/net/nssdb/qdevice-net-node.p12"), second.etc("node.p12"))?;
        second.certutil(&["-m", "-c", "/etc/corosync/node.p12"])?;
        Ok(cluster)
    }

    /// The same without certificates, and with no device in the machines' configuration unless there is an algorithm.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn bare(algorithm: Option<&str>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-qdevice").tempdir()?;
        let network = Network::new(&["pi", "node1", "node2"])?;
        let mut appliance = Appliance::init(&folder.path().join("pi"), network.address("pi")?, network.on("pi"))?;
        let listen = network.ip("pi")?;
        appliance.configure(&format!(
            "\n[qdevice]\nlisten = [\"{listen}:5403\"]\n[qdevice.clusters.home]\n[qdevice.clusters.other]\n"
        ))?;
        appliance.start()?;
        let mut nodes = Vec::new();
        for host in ["node1", "node2"] {
            nodes.push(CorosyncNode::new(folder.path(), &network, host, "home", algorithm)?);
        }
        Ok(Self { nodes, appliance, network, folder })
    }

    /// Both machines up, with their vote.
    ///
    /// # Errors
    /// They don't come up, or don't get it.
    pub fn formed(algorithm: &str) -> Result<Self> {
        let mut cluster = Self::new(algorithm, Certificate::Of("home"))?;
        cluster.form()?;
        Ok(cluster)
    }

    /// The same, with a service manager for the appliance that keeps its descriptors over restarts.
    ///
    /// # Errors
    /// They don't come up, or don't get it.
    pub fn managed(algorithm: &str) -> Result<Self> {
        let mut cluster = Self::new(algorithm, Certificate::Of("home"))?;
        cluster.appliance.stop();
        cluster.appliance.manage()?;
        cluster.appliance.start()?;
        cluster.form()?;
        Ok(cluster)
    }

    /// Looks at both machines once.
    ///
    /// # Errors
    /// A Corosync doesn't answer.
    pub fn look(&self, at: impl Fn(&Quorum)) -> Result<()> {
        for node in &self.nodes {
            at(&node.quorum()?);
        }
        Ok(())
    }

    /// Starts both machines' daemons and waits until they have their vote.
    ///
    /// # Errors
    /// They don't come up, or don't get it.
    pub fn form(&mut self) -> Result<()> {
        self.ring()?;
        for node in &mut self.nodes {
            node.start_qdevice()?;
        }
        self.both("the vote on both", whole)
    }

    /// Starts both machines' Corosync, without the QDevice client.
    ///
    /// # Errors
    /// They don't find each other.
    pub fn ring(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start_corosync()?;
        }
        self.both("a ring of two", |quorum| quorum.nodes == 2)
    }

    /// Waits for both machines.
    ///
    /// # Errors
    /// It doesn't come; tells everybody's logs.
    pub fn both(&self, what: &str, is: impl Fn(&Quorum) -> bool) -> Result<()> {
        (0..2).try_for_each(|node| self.until(node, what, &is).map(drop))
    }

    /// Waits for a machine, and says how long that took.
    ///
    /// # Errors
    /// It doesn't come; tells everybody's logs.
    pub fn until(&self, node: usize, what: &str, is: impl Fn(&Quorum) -> bool) -> Result<Duration> {
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
    ///
    /// # Errors
    /// It doesn't come up.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].start_corosync()?;
        self.until(node, "a Corosync that answers", |_| true)?;
        self.nodes[node].start_qdevice()
    }
}

/// Both nodes and the device's vote.
#[must_use]
pub fn whole(quorum: &Quorum) -> bool {
    *quorum == Quorum { quorate: true, nodes: 2, votes: 3, device: 1 }
}

/// One node and the device's vote.
#[must_use]
pub fn alone_with_the_vote(quorum: &Quorum) -> bool {
    *quorum == Quorum { quorate: true, nodes: 1, votes: 2, device: 1 }
}

/// One node without quorum.
#[must_use]
pub fn alone_without(quorum: &Quorum) -> bool {
    !quorum.quorate && quorum.nodes == 1 && quorum.votes == 1
}

/// Signs a request with the appliance's own authority, for a time that is over.
fn expired(authority: &Path, request: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let dir = folder.path().display();
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={dir}/index\nserial={dir}/serial\nnew_certs_dir={dir}\ndefault_md=sha256\n\
         policy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nbasicConstraints=CA:FALSE\n"
    );
    fs::write(file("config"), config)?;
    fs::write(file("index"), "")?;
    fs::write(file("serial"), "65\n")?;
    let mut openssl = Command::new("openssl");
    openssl.args(["ca", "-batch", "-notext", "-inform", "DER", "-startdate", "20200101000000Z"]);
    openssl.args(["-enddate", "20210101000000Z", "-config"]).arg(file("config")).arg("-in").arg(request);
    openssl.arg("-cert").arg(authority).arg("-keyfile").arg(authority);
    run(openssl)?.done()
}
