//! `tiebreaker update`: all nodes, one at a time, stopping at the first doubt.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::Serialize;
use tiebreaker_member::core::{MemberStatus, ResourceStatus, Status};
use tiebreaker_pipeline::command::Command as Change;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::resource::Shown;
use tiebreaker_pipeline::state::{Arming, Role};

use super::Session;
use super::wait::{Step, emptied, returned};
use crate::cli::{UpdateArgs, show_duration};
use crate::failure::Failure;

/// What stands for the node's name in the command.
const NODE: &str = "{node}";

/// What became of an update.
#[derive(Serialize, Debug)]
struct Report {
    /// Every node was updated.
    complete: bool,
    nodes: Vec<NodeReport>,
}

#[derive(Serialize, Debug)]
struct NodeReport {
    node: MemberName,
    outcome: Outcome,
    /// How long it took, in seconds.
    took_s: u64,
    /// Why it stopped there.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Updated,
    Stopped,
    NotBegun,
}

/// How far one node's update is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing has happened.
    Before,
    /// It is in maintenance, and the command has not succeeded.
    Maintenance,
    /// It is in maintenance, and the command has succeeded.
    Ran,
    /// It may be used again.
    After,
}

/// What was wrong already, and isn't taken for a consequence of the update.
#[derive(Debug)]
struct Baseline {
    errors: BTreeSet<ResourceName>,
    alarms: BTreeSet<String>,
}

impl Session<'_> {
    pub(super) async fn update(&self, args: UpdateArgs) -> Result<(), Failure> {
        let template = template(&args.run)?;
        let status = self.status(&mut self.open().await?).await?;
        let nodes = chosen(&status, &args.nodes)?;
        let baseline = Baseline::of(&status)?;
        let mut report = Report { complete: true, nodes: Vec::new() };
        let mut stopped: Option<Failure> = None;
        for (done, node) in nodes.iter().enumerate() {
            if stopped.is_some() {
                report.nodes.push(NodeReport { node: node.clone(), outcome: Outcome::NotBegun, took_s: 0, why: None });
                continue;
            }
            self.say(&format!("{node}: {} of {}", done + 1, nodes.len()));
            let began = Instant::now();
            let mut stage = Stage::Before;
            let updated = self.update_node(&args, &template, node, &baseline, &mut stage).await;
            let (outcome, why) = match updated {
                Ok(()) => (Outcome::Updated, None),
                Err(failure) => {
                    let why = failure.to_string();
                    let rest = nodes.get(done + 1..).unwrap_or_default();
                    stopped = Some(Failure::unfinished(anyhow!("{}", advice(node, &why, stage, rest))));
                    (Outcome::Stopped, Some(why))
                }
            };
            report.nodes.push(NodeReport { node: node.clone(), outcome, took_s: began.elapsed().as_secs(), why });
        }
        report.complete = stopped.is_none();
        let count = nodes.len();
        match stopped {
            None => self.show(&report, |_| format!("All {count} nodes are updated.\n")),
            Some(failure) => {
                self.show(&report, |_| String::new())?;
                Err(failure.documented())
            }
        }
    }

    async fn update_node(
        &self,
        args: &UpdateArgs,
        template: &[String],
        node: &MemberName,
        baseline: &Baseline,
        stage: &mut Stage,
    ) -> Result<(), Failure> {
        let within = args.within;
        let mut connection = self.open().await?;
        let drain = self.drain(&mut connection, node).await?;
        if !drain.conflicts.is_empty() && !args.force {
            return Err(Failure::unfinished(anyhow!("it can't be emptied: {}", drain.conflicts.join("; "))));
        }
        let before = self.status(&mut connection).await?;
        let boot = member(&before, node).and_then(|member| member.boot.clone());
        self.submit_on(&mut connection, Change::SetMaintenance { node: node.clone(), on: true }, args.force).await?;
        *stage = Stage::Maintenance;
        self.say(&format!("{node}: in maintenance"));
        let empty = |status: &Status| baseline.or_doubt(status, |status| emptied(status, node));
        self.follow(&format!("{node} is not empty"), within, empty).await?;
        let argv: Vec<String> = template.iter().map(|word| word.replace(NODE, node.as_str())).collect();
        self.say(&format!("{node}: empty; running {}", argv.join(" ")));
        self.run_command(&argv, within).await?;
        *stage = Stage::Ran;
        self.say(&format!("{node}: the command has ended well"));
        let mut well = Well { boot: boot.filter(|_| args.reboots), since: None, settle: args.settle };
        let settled = |status: &Status| baseline.or_doubt(status, |status| well.look(status, node, Instant::now()));
        self.follow(&format!("{node} is not well"), within, settled).await?;
        let mut connection = self.open().await?;
        self.submit_on(&mut connection, Change::SetMaintenance { node: node.clone(), on: false }, false).await?;
        *stage = Stage::After;
        self.say(&format!("{node}: well, and used again"));
        let all = |status: &Status| {
            baseline.or_doubt(status, |status| match returned(status, node) {
                Step::Done(()) => baseline.in_place(status),
                other @ (Step::Wait(_) | Step::Fail(_)) => other,
            })
        };
        self.follow("not everything is where it should be", within, all).await?;
        self.say(&format!("{node}: updated"));
        Ok(())
    }

    /// Runs the command here. With a JSON document to come its output goes beside that.
    async fn run_command(&self, argv: &[String], within: Duration) -> Result<(), Failure> {
        let doubt = |why: String| Failure::unfinished(anyhow!("{why}"));
        let (program, rest) = argv.split_first().ok_or_else(|| doubt("the command is empty".into()))?;
        let mut command = tokio::process::Command::new(program);
        command.args(rest).stdin(Stdio::null()).kill_on_drop(true);
        if self.json {
            let beside = std::io::stderr().as_fd().try_clone_to_owned().context("sharing standard error");
            command.stdout(beside.map_err(Failure::refused)?);
        }
        match tokio::time::timeout(within, command.status()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(doubt(format!("the command failed, {status}"))),
            Ok(Err(error)) => Err(doubt(format!("{program} can't be run: {error}"))),
            Err(_) => Err(doubt(format!("the command did not end within {} and was killed", show_duration(within)))),
        }
    }
}

impl Baseline {
    /// What is wrong already. An update begins only in a cluster that stands well.
    fn of(status: &Status) -> Result<Self, Failure> {
        let errors = status.resources.iter().filter(|resource| resource.state == Shown::Error);
        let baseline = Self {
            errors: errors.map(|resource| resource.name.clone()).collect(),
            alarms: status.alarms.iter().cloned().collect(),
        };
        match baseline.or_doubt(status, |status| baseline.in_place(status)) {
            Step::Done(()) => Ok(baseline),
            Step::Wait(why) => Err(Failure::refused(anyhow!("nothing was begun: {why}"))),
            Step::Fail(failure) => Err(Failure::refused(anyhow!("nothing was begun: {failure}"))),
        }
    }

    /// Stops at what nobody should go on with; otherwise looks further.
    fn or_doubt<T>(&self, status: &Status, look: impl FnOnce(&Status) -> Step<T>) -> Step<T> {
        let doubt = |why: String| Step::Fail(Failure::unfinished(anyhow!("{why}")));
        if let Some(open) = status.fences.first() {
            return doubt(format!("fence {} of {} is open", open.id, open.fence.node));
        }
        if status.settings.arming != Arming::Armed {
            return doubt(format!("the cluster is {}", status.settings.arming));
        }
        let is_new =
            |resource: &&ResourceStatus| resource.state == Shown::Error && !self.errors.contains(&resource.name);
        match status.resources.iter().find(is_new) {
            Some(resource) => doubt(format!("{} was given up: {}", resource.name, resource.why)),
            None => look(status),
        }
    }

    /// Whether every node is online, every resource is where it should be, and no alarm is new.
    fn in_place(&self, status: &Status) -> Step<()> {
        let nodes = || status.members.iter().filter(|member| member.role == Role::Node);
        if let Some(node) = nodes().find(|node| node.state != "online") {
            return Step::Wait(format!("{} is {}", node.name, node.state));
        }
        let unsettled = status.resources.iter().find(|resource| !is_settled(resource));
        if let Some(resource) = unsettled {
            return Step::Wait(format!("{} is not as wanted: {}, {}", resource.name, resource.state, resource.why));
        }
        match status.alarms.iter().find(|alarm| !self.alarms.contains(*alarm)) {
            Some(alarm) => Step::Wait(format!("a new alarm: {alarm}")),
            None => Step::Done(()),
        }
    }
}

/// A node that has to be well for a while.
struct Well {
    /// The boot that has to be over.
    boot: Option<String>,
    /// Since when it is well, and by which start of its agent.
    since: Option<(Instant, u64)>,
    settle: Duration,
}

impl Well {
    fn look(&mut self, status: &Status, node: &MemberName, now: Instant) -> Step<()> {
        let Some(member) = member(status, node) else {
            return Step::Fail(Failure::unfinished(anyhow!("{node} is no member any more")));
        };
        let incarnation = match self.is_well(member) {
            Ok(incarnation) => incarnation,
            Err(why) => {
                self.since = None;
                return Step::Wait(format!("{node} is not back: {why}"));
            }
        };
        match self.since {
            Some((since, same)) if same == incarnation => {
                if now.saturating_duration_since(since) >= self.settle {
                    return Step::Done(());
                }
            }
            Some(_) | None => self.since = Some((now, incarnation)),
        }
        Step::Wait(format!("{node} is back; waiting whether it stays well for {}", show_duration(self.settle)))
    }

    fn is_well(&self, member: &MemberStatus) -> Result<u64, String> {
        if member.state != "maintenance" {
            return Err(format!("it is {}", member.state));
        }
        if let Some(how) = &member.leaving {
            return Err(format!("it said that it is about to {}", how.how));
        }
        if let Some(why) = member.refused.as_ref().or(member.unprotectable.as_ref()) {
            return Err(why.clone());
        }
        if self.boot.is_some() && self.boot == member.boot {
            return Err("it has not rebooted yet".to_owned());
        }
        match (member.incarnation, member.lease_ms) {
            (Some(incarnation), Some(lease)) if lease > 0 => Ok(incarnation),
            _ => Err("it has no lease".to_owned()),
        }
    }
}

fn member<'a>(status: &'a Status, node: &MemberName) -> Option<&'a MemberStatus> {
    status.members.iter().find(|member| member.name == *node)
}

fn is_settled(resource: &ResourceStatus) -> bool {
    match resource.state {
        Shown::Started | Shown::Stopped | Shown::Disabled | Shown::Ignored | Shown::Error => true,
        Shown::RequestStart
        | Shown::RequestStop
        | Shown::Migrate
        | Shown::Relocate
        | Shown::Fence
        | Shown::Recovery
        | Shown::Freeze => false,
    }
}

/// The command as words.
fn template(text: &str) -> Result<Vec<String>, Failure> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| {
        Failure::usage(anyhow!("--run is empty, or has an open quote or a trailing backslash: {text}"))
    })?;
    if !words.iter().any(|word| word.contains(NODE)) {
        return Err(Failure::usage(anyhow!("--run names no node: write {NODE} where its name belongs in {text:?}")));
    }
    Ok(words)
}

/// The nodes to update, in their order.
fn chosen(status: &Status, named: &[MemberName]) -> Result<Vec<MemberName>, Failure> {
    let all: Vec<&MemberName> =
        status.members.iter().filter(|member| member.role == Role::Node).map(|member| &member.name).collect();
    if let Some(stranger) = named.iter().find(|name| !all.contains(name)) {
        return Err(Failure::usage(anyhow!("{stranger} is no node of this cluster: `tiebreaker status` lists them")));
    }
    let distinct: BTreeSet<&MemberName> = named.iter().collect();
    if distinct.len() < named.len() {
        return Err(Failure::usage(anyhow!("a node is named twice")));
    }
    if all.is_empty() {
        return Err(Failure::refused(anyhow!("the cluster has no nodes")));
    }
    Ok(if named.is_empty() { all.into_iter().cloned().collect() } else { named.to_vec() })
}

/// What stopped the update, and how to go on.
fn advice(node: &MemberName, why: &str, stage: Stage, rest: &[MemberName]) -> String {
    let stands = match stage {
        Stage::Before => format!("{node} was left as it is"),
        Stage::Maintenance => format!("{node} is in maintenance; `tiebreaker maintenance {node} off` ends that"),
        Stage::Ran => {
            format!(
                "the command has run on {node}, which is in maintenance; `tiebreaker maintenance {node} off` ends that"
            )
        }
        Stage::After => format!("the command has run on {node}, which may be used again"),
    };
    let open: Vec<&str> = match stage {
        Stage::Before | Stage::Maintenance => std::iter::once(node).chain(rest).map(MemberName::as_str).collect(),
        Stage::Ran | Stage::After => rest.iter().map(MemberName::as_str).collect(),
    };
    let next = if open.is_empty() {
        "it was the last one".to_owned()
    } else {
        format!("once that is settled, go on with --nodes {}", open.join(","))
    };
    format!("stopped at {node}: {why}\n{stands}. Look at `tiebreaker status`; {next}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use crate::render::example_status;

    fn name(text: &str) -> MemberName {
        MemberName::new(text).unwrap()
    }

    /// Two nodes online, a resource that runs, nothing open.
    fn well() -> Status {
        let mut status = example_status();
        status.fences.clear();
        status.alarms.clear();
        status.members[0] = MemberStatus { name: name("node1"), ..status.members[1].clone() };
        status.resources[0].state = Shown::Started;
        status
    }

    #[test]
    fn the_command_names_its_node() {
        assert_eq!(template("ssh {node} 'apt upgrade'").unwrap(), ["ssh", "{node}", "apt upgrade"]);
        for wrong in ["", "ssh node1", "ssh '{node}"] {
            assert_eq!(template(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn nodes_are_updated_as_named_and_never_twice() {
        let names = |named: &[&str]| {
            let named: Vec<MemberName> = named.iter().map(|text| name(text)).collect();
            chosen(&well(), &named)
                .map(|nodes| nodes.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|failure| failure.exit)
        };
        assert_eq!(names(&[]), Ok(vec!["node1".to_owned(), "node2".to_owned()]));
        assert_eq!(names(&["node2", "node1"]), Ok(vec!["node2".to_owned(), "node1".to_owned()]));
        for wrong in [&["node3"][..], &["pi"], &["node1", "node1"]] {
            assert_eq!(names(wrong), Err(Exit::Usage), "{wrong:?}");
        }
    }

    #[test]
    fn an_update_begins_only_in_a_cluster_that_stands_well() {
        assert!(Baseline::of(&well()).is_ok());
        let refused = |change: fn(&mut Status)| {
            let mut status = well();
            change(&mut status);
            Baseline::of(&status).map_err(|failure| failure.exit).err()
        };
        assert_eq!(refused(|status| status.members[1].state = "unknown".into()), Some(Exit::Refused));
        assert_eq!(refused(|status| status.members[1].state = "maintenance".into()), Some(Exit::Refused));
        assert_eq!(refused(|status| status.resources[0].state = Shown::Relocate), Some(Exit::Refused));
        assert_eq!(refused(|status| status.fences = example_status().fences), Some(Exit::Refused));
        // What was wrong before is nothing that an update has done.
        assert_eq!(refused(|status| status.resources[0].state = Shown::Error), None);
        assert_eq!(refused(|status| status.alarms.push("old".into())), None);
    }

    #[test]
    fn what_goes_wrong_meanwhile_is_a_doubt() {
        let baseline = Baseline::of(&well()).unwrap();
        let look = |status: &Status| baseline.or_doubt(status, |status| baseline.in_place(status));
        assert!(matches!(look(&well()), Step::Done(())));
        let mut status = well();
        status.resources[0].state = Shown::Error;
        assert!(matches!(look(&status), Step::Fail(_)));
        let mut status = well();
        status.fences = example_status().fences;
        assert!(matches!(look(&status), Step::Fail(_)));
        let mut status = well();
        status.alarms.push("new".into());
        assert!(matches!(look(&status), Step::Wait(_)), "it may pass");
    }

    #[test]
    fn a_node_is_well_when_it_stays_so_and_has_rebooted_if_it_had_to() {
        let node = name("node1");
        let mut status = well();
        status.members[0].state = "maintenance".into();
        let settle = Duration::from_secs(10);
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let done = |well: &mut Well, status: &Status, at| matches!(well.look(status, &node, at), Step::Done(()));
        let mut well = Well { boot: None, since: None, settle };
        assert!(!done(&mut well, &status, later(0)) && !done(&mut well, &status, later(9)));
        // Its agent was restarted: the time begins anew.
        status.members[0].incarnation = Some(2);
        assert!(!done(&mut well, &status, later(10)) && done(&mut well, &status, later(20)));
        let mut well = Well { boot: status.members[0].boot.clone(), since: None, settle: Duration::ZERO };
        assert!(!done(&mut well, &status, later(0)) && !done(&mut well, &status, later(1)));
        status.members[0].boot = Some("another".into());
        assert!(!done(&mut well, &status, later(2)) && done(&mut well, &status, later(3)));
        status.members[0].lease_ms = Some(0);
        assert!(!done(&mut well, &status, later(4)) && well.since.is_none());
    }

    #[test]
    fn who_stops_says_how_to_go_on() {
        let rest = [name("node2")];
        let told = advice(&name("node1"), "it burns", Stage::Maintenance, &rest);
        assert!(told.contains("maintenance node1 off") && told.contains("--nodes node1,node2"), "{told}");
        let told = advice(&name("node1"), "it burns", Stage::Ran, &rest);
        assert!(told.contains("maintenance node1 off") && told.ends_with("--nodes node2"), "{told}");
        assert!(advice(&name("node1"), "x", Stage::After, &[]).contains("last one"));
    }
}
