//! A whole cluster on loopback.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{Appliance, Look, Node, Operator, Program, Ran, Supervised, loopback, run};

/// Anything that has to come has come by then, also in a debug build on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// An appliance and nodes as processes on loopback, with simulated watchdogs. They end when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes' supervisors, which end first.
    running: Vec<Option<Supervised>>,
    nodes: Vec<Node>,
    /// The appliance.
    pub appliance: Appliance,
    folder: TempDir,
}

impl Cluster {
    /// An appliance that serves the cluster `home`, without nodes so far.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn appliance() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker").tempdir()?;
        let mut appliance = Appliance::init(&folder.path().join("pi"), loopback(), Vec::new())?;
        appliance.start()?;
        Ok(Self { running: Vec::new(), nodes: Vec::new(), appliance, folder })
    }

    /// An appliance with nodes, all online.
    ///
    /// # Errors
    /// They don't get so far.
    pub fn start(names: &[&str]) -> Result<Self> {
        let mut cluster = Self::appliance()?;
        for name in names {
            cluster.add(name)?;
        }
        cluster.all_online()?;
        Ok(cluster)
    }

    /// Joins a node and starts it.
    ///
    /// # Errors
    /// It is refused or doesn't start.
    pub fn add(&mut self, name: &str) -> Result<()> {
        self.add_with(name, &["--watchdog", "simulated", "--accept", "simulated"])
    }

    /// Joins a node with these options and starts it.
    ///
    /// # Errors
    /// It is refused or doesn't start.
    pub fn add_with(&mut self, name: &str, options: &[&str]) -> Result<()> {
        self.add_node(Node::new(self.folder.path(), name)?, options)
    }

    /// Joins this node with these options and starts it.
    ///
    /// # Errors
    /// It is refused or doesn't start.
    pub fn add_node(&mut self, node: Node, options: &[&str]) -> Result<()> {
        let token = self.appliance.token("home")?;
        node.join(&[], self.appliance.address(), &token, loopback(), options)?.done()?;
        self.running.push(Some(node.start()?));
        self.nodes.push(node);
        Ok(())
    }

    /// Waits until all its nodes are online.
    ///
    /// # Errors
    /// They aren't in time.
    pub fn all_online(&self) -> Result<()> {
        let nodes = self.nodes.len();
        self.operator().until("all nodes online", SOON, |status| status.online() == nodes).map(drop)
    }

    /// An operator on the appliance.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.appliance.operator()
    }

    /// Runs the operator's command on the appliance.
    ///
    /// # Errors
    /// It can't be run; whether it succeeded is in the result.
    pub fn operate(&self, words: &[&str]) -> Result<Ran> {
        let mut command = Program::Operator.command()?;
        command.arg("--data").arg(self.appliance.data()).args(words);
        run(command)
    }

    /// Where the appliance listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.appliance.address()
    }

    /// A folder for whatever else the test needs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }

    /// A node's supervisor.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn running(&self, name: &str) -> Result<&Supervised> {
        let at = self.place(name)?;
        self.running.get(at).and_then(Option::as_ref).with_context(|| format!("{name} does not run"))
    }

    /// Ends everything on a node.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn end(&mut self, name: &str) -> Result<()> {
        let at = self.place(name)?;
        self.running[at] = None;
        Ok(())
    }

    /// Starts a node that was ended.
    ///
    /// # Errors
    /// There is none of this name, or it doesn't start.
    pub fn start_again(&mut self, name: &str) -> Result<()> {
        let at = self.place(name)?;
        self.running[at] = Some(self.nodes[at].start()?);
        Ok(())
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.nodes.iter().position(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }
}
