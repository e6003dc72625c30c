//! Waiting until the cluster has got somewhere, and telling how it goes on meanwhile.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use tiebreaker_member::core::{ResourceStatus, Status};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::report::Observed;
use tiebreaker_pipeline::resource::{Phase, Requested};

use super::Session;
use crate::cli::show_duration;
use crate::connection::Connection;
use crate::failure::Failure;

/// Between two looks at the status.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How far it is.
pub enum Step<T> {
    /// Not yet, and why.
    Wait(String),
    /// There.
    Done(T),
    /// It won't come.
    Fail(Failure),
}

impl Session<'_> {
    /// Looks at the status until it is as wanted, and tells each time that something has changed.
    pub(super) async fn follow<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Status) -> Step<T>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + within;
        let mut connection: Option<Connection> = None;
        let mut told = String::new();
        loop {
            let step = match self.look(&mut connection).await {
                // What only a leader knows is missing, so nothing can be judged.
                Ok(status) if status.quorum_lease_ms.is_none() => Step::Wait("no member leads".to_owned()),
                Ok(status) => look(&status),
                // A daemon that restarts, or a cut, is a reason to go on looking.
                Err(failure) => {
                    connection = None;
                    Step::Wait(failure.to_string())
                }
            };
            match step {
                Step::Done(found) => return Ok(found),
                Step::Fail(failure) => return Err(failure),
                Step::Wait(why) => {
                    if why != told {
                        self.say(&why);
                        told = why;
                    }
                    if Instant::now() >= end {
                        return Err(Failure::unfinished(anyhow!(
                            "{what}: not after {}; {told}",
                            show_duration(within)
                        )));
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self, connection: &mut Option<Connection>) -> Result<Status, Failure> {
        let open = match connection {
            Some(open) => open,
            None => connection.insert(self.open().await?),
        };
        self.status(open).await
    }

    /// Tells how it goes on: beside the answer, so that the answer stays one document.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "progress is for people")]
    pub(super) fn say(&self, line: &str) {
        if self.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }
}

/// What a node still has, or may have, that has to leave it before somebody works on it.
pub fn held<'a>(status: &'a Status, node: &MemberName) -> Vec<&'a ResourceStatus> {
    let is_held = |resource: &&ResourceStatus| {
        let stopped = resource.observed.as_ref().is_some_and(Observed::is_stopped);
        resource.phase.is_owned_by(node)
            && match (&resource.phase, resource.requested) {
                (Phase::Error { .. }, _) | (_, Requested::Stopped | Requested::Disabled) => !stopped,
                (_, Requested::Started) => true,
                (_, Requested::Ignored) => false,
            }
    };
    status.resources.iter().filter(is_held).collect()
}

/// Whether a node is empty.
pub fn emptied(status: &Status, node: &MemberName) -> Step<()> {
    if !status.members.iter().any(|member| member.name == *node) {
        return Step::Fail(Failure::refused(anyhow!("{node} is no member any more")));
    }
    let held = held(status, node);
    if held.is_empty() { Step::Done(()) } else { Step::Wait(format!("{node} still has {}", named(&held))) }
}

/// Whether everything that returns to a node has returned.
pub fn returned(status: &Status, node: &MemberName) -> Step<()> {
    let away: Vec<&ResourceStatus> = status
        .resources
        .iter()
        .filter(|resource| resource.requested == Requested::Started && returns_to(resource, node))
        .collect();
    if away.is_empty() { Step::Done(()) } else { Step::Wait(format!("{node} waits for {}", named(&away))) }
}

/// Whether a resource is on its way to a node that it left.
fn returns_to(resource: &ResourceStatus, node: &MemberName) -> bool {
    let home = resource.spec.failback && resource.home.as_ref() == Some(node);
    match &resource.phase {
        Phase::Placed { .. } | Phase::Free { .. } | Phase::New => home,
        Phase::Releasing { .. } | Phase::Migrating { .. } => home || resource.phase.bound_for() == Some(node),
        Phase::Error { .. } | Phase::Ignored => false,
    }
}

fn named(resources: &[&ResourceStatus]) -> String {
    let all: Vec<String> =
        resources.iter().map(|resource| format!("{} ({}: {})", resource.name, resource.state, resource.why)).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::resource::MoveReason;

    use super::*;
    use crate::render::example_status;

    fn example(change: impl FnOnce(&mut ResourceStatus)) -> Status {
        let mut status = example_status();
        change(&mut status.resources[0]);
        status
    }

    fn name(text: &str) -> MemberName {
        MemberName::new(text).unwrap()
    }

    #[test]
    fn a_node_is_empty_only_when_nothing_runs_or_may_run_there() {
        let holds = |status: &Status| !held(status, &name("node1")).is_empty();
        assert!(holds(&example(|_| ())), "placed, and not heard of");
        assert!(holds(&example(|web| {
            let (node, to, why) = (name("node1"), Some(name("node2")), MoveReason::Maintenance);
            web.phase = Phase::Releasing { node, to, why };
        })));
        assert!(holds(&example(|web| {
            let (from, to, why) = (name("node2"), name("node1"), MoveReason::Asked);
            web.phase = Phase::Migrating { from, to, why };
        })));
        assert!(!holds(&example(|web| web.phase = Phase::Placed { node: name("node2") })));
        let stopped =
            |observed: Option<Observed>| example(|web| (web.requested, web.observed) = (Requested::Stopped, observed));
        assert!(holds(&stopped(None)), "nobody knows");
        assert!(!holds(&stopped(Some(Observed::Stopped))), "what is stopped is in nobody's way");
        let failed = |observed| {
            example(|web| {
                web.phase = Phase::Error { node: Some(name("node1")), why: "x".into() };
                web.observed = Some(observed);
            })
        };
        assert!(holds(&failed(Observed::Running)) && !holds(&failed(Observed::Stopped)));
    }

    #[test]
    fn what_returns_is_waited_for_and_what_stays_away_is_not() {
        let waits = |failback: bool, phase: Phase| {
            let status = example(|web| {
                (web.spec.failback, web.home, web.phase) = (failback, Some(name("node1")), phase);
            });
            matches!(returned(&status, &name("node1")), Step::Wait(_))
        };
        let away = || Phase::Placed { node: name("node2") };
        assert!(waits(true, away()));
        assert!(!waits(false, away()));
        let back = Phase::Migrating { from: name("node2"), to: name("node1"), why: MoveReason::Asked };
        assert!(waits(false, back));
        assert!(matches!(returned(&example(|_| ()), &name("node1")), Step::Done(())));
    }
}
