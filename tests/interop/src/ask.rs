//! An operator at a daemon's control socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tiebreaker_member::{
    Client,
    ask::{LocalReply, LocalRequest},
    core::{MemberStatus, Reply, Request, ResourceStatus, Status},
};
use tiebreaker_pipeline::{
    command::Command,
    decision::LogLine,
    name::{MemberName, ResourceName},
    resource::{Requested, ResourceSpec},
};

use crate::until;

/// Longer than a member waits for its leader.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Lines of the timeline that are asked for: all that a test makes.
const LINES: usize = 500;

/// An operator on the machine of one daemon.
#[derive(Clone, Debug)]
pub struct Operator {
    socket: PathBuf,
}

impl Operator {
    /// At the daemon of a data folder.
    #[must_use]
    pub fn at(data: &Path) -> Self {
        Self { socket: data.join("control.sock") }
    }

    /// Asks the daemon.
    ///
    /// # Errors
    /// It doesn't run or doesn't answer.
    pub fn ask(&self, request: &LocalRequest) -> Result<LocalReply> {
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, request)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let mut client = Client::local(&self.socket, ANSWER_WITHIN).await?;
            client.ask(&bytes, ANSWER_WITHIN).await
        })?;
        cbor4ii::serde::from_slice(&answer[..]).context("decoding the answer")
    }

    /// Asks the cluster.
    ///
    /// # Errors
    /// As [`Operator::ask`], and when the daemon refuses.
    pub fn request(&self, request: Request) -> Result<Reply> {
        match self.ask(&LocalRequest::Cluster { cluster: None, request: Box::new(request) })? {
            LocalReply::Cluster(reply) => Ok(reply),
            other => bail!("refused: {other:?}"),
        }
    }

    /// Everything at a glance.
    ///
    /// # Errors
    /// As [`Operator::request`], and when there is no status.
    pub fn status(&self) -> Result<Status> {
        match self.request(Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => bail!("no status but {other:?}"),
        }
    }

    /// The timeline.
    ///
    /// # Errors
    /// As [`Operator::request`], and when there is no timeline.
    pub fn log(&self) -> Result<Vec<LogLine>> {
        match self.request(Request::Log { last: LINES })? {
            Reply::Log { lines } => Ok(lines),
            other => bail!("no timeline but {other:?}"),
        }
    }

    /// Waits until the status, as a leader sees it, is as wanted.
    ///
    /// # Errors
    /// Shows the last status.
    pub fn until(&self, what: &str, within: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        until(what, within, || {
            let status = self.status()?;
            ensure!(wanted(&status), "{status:#?}");
            Ok(status)
        })
    }

    /// Waits until a decision is in the timeline.
    ///
    /// # Errors
    /// Shows the timeline.
    pub fn until_decided(&self, what: &str, within: Duration, wanted: impl Fn(&LogLine) -> bool) -> Result<LogLine> {
        until(what, within, || {
            let lines = self.log()?;
            lines.iter().find(|line| wanted(line)).cloned().with_context(|| told(&lines))
        })
    }

    /// Puts a resource under protection.
    ///
    /// # Errors
    /// It isn't taken.
    pub fn add(&self, name: &str, spec: ResourceSpec) -> Result<()> {
        self.add_as(name, spec, Requested::Started, None)
    }

    /// Puts a resource under protection that shall be on this node first.
    ///
    /// # Errors
    /// It isn't taken.
    pub fn add_on(&self, name: &str, spec: ResourceSpec, node: &str) -> Result<()> {
        self.add_as(name, spec, Requested::Started, Some(MemberName::new(node)?))
    }

    /// Adds a resource that shall not run.
    ///
    /// # Errors
    /// It isn't taken.
    pub fn add_stopped(&self, name: &str, spec: ResourceSpec) -> Result<()> {
        self.add_as(name, spec, Requested::Stopped, None)
    }

    fn add_as(&self, name: &str, spec: ResourceSpec, requested: Requested, node: Option<MemberName>) -> Result<()> {
        let name = ResourceName::new(name)?;
        let command = Command::AddResource { name, spec, requested, node };
        match self.request(Request::Propose(command))? {
            Reply::Done { .. } => Ok(()),
            other => bail!("the resource was not taken: {other:?}"),
        }
    }
}

/// A timeline as text.
fn told(lines: &[LogLine]) -> String {
    lines.iter().map(|line| format!("{} {}\n", line.index, line.decision)).collect()
}

/// What tests look for in a status.
pub trait Look {
    /// A member's line.
    fn of(&self, name: &str) -> Option<&MemberStatus>;
    /// A resource's line.
    fn resource(&self, name: &str) -> Option<&ResourceStatus>;
    /// Where a resource is placed and seen to run.
    fn runs_on(&self, name: &str) -> Option<String>;
    /// So many nodes are admitted and renew.
    fn online(&self) -> usize;
}

impl Look for Status {
    fn of(&self, name: &str) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.name.as_str() == name)
    }

    fn resource(&self, name: &str) -> Option<&ResourceStatus> {
        self.resources.iter().find(|resource| resource.name.as_str() == name)
    }

    fn runs_on(&self, name: &str) -> Option<String> {
        let resource = self.resource(name)?;
        let running = resource.observed == Some(tiebreaker_pipeline::report::Observed::Running);
        resource.node.as_ref().filter(|_| running).map(ToString::to_string)
    }

    fn online(&self) -> usize {
        let nodes = self.members.iter().filter(|member| member.incarnation.is_some());
        nodes.filter(|member| member.state == "online").count()
    }
}
