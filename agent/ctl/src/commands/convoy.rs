//! Many moves from one node to another: as many at once as may be, each with its turn, and each guarded as a single one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use anyhow::anyhow;
use serde::Serialize;
use tiebreaker_member::core::{Reply, Request, ResourceStatus, Status};
use tiebreaker_pipeline::command::Void;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::resource::{Phase, Requested, Shown};

use super::wait::{LOOK_EVERY, Step};
use super::{Session, failed};
use crate::cli::{MoveArgs, show_duration};
use crate::failure::Failure;

/// Where many go, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    pub from: MemberName,
    pub to: MemberName,
    /// Live, or stopped there and started here.
    pub live: bool,
}

/// What became of all.
#[derive(Serialize, Debug)]
struct Report {
    from: MemberName,
    to: MemberName,
    /// Everything has moved.
    complete: bool,
    moves: Vec<MoveReport>,
}

/// What became of one.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct MoveReport {
    resource: ResourceName,
    outcome: Outcome,
    /// Why it isn't there.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It is where it should be, and runs if it shall.
    Moved,
    /// The cluster did not begin it.
    Refused,
    /// It was begun, and ended elsewhere.
    Failed,
    /// Nobody has asked for it.
    NotBegun,
    /// It was begun, and isn't over.
    UnderWay,
}

/// What is to be done next.
#[derive(PartialEq, Eq, Debug)]
enum Next {
    /// Their turn has come.
    Ask(Vec<ResourceName>),
    Over,
}

/// How far many moves are.
struct Convoy {
    way: Way,
    at_once: usize,
    waiting: VecDeque<ResourceName>,
    /// What was begun, at which log index.
    under_way: BTreeMap<ResourceName, u64>,
    ended: Vec<MoveReport>,
}

impl Session<'_> {
    pub(super) async fn move_many(
        &self,
        args: &MoveArgs,
        names: &BTreeSet<ResourceName>,
        way: Way,
    ) -> Result<(), Failure> {
        let end = Instant::now() + args.within;
        let status = self.status(&mut self.open().await?).await?;
        let at_once = args.at_once.map_or(usize::MAX, usize::from);
        let mut convoy = Convoy::begin(&status, names, way, at_once).map_err(|why| Failure::refused(anyhow!(why)))?;
        let what = format!("not everything is on {}", convoy.way.to);
        let stopped = loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.follow(&what, left, |status| convoy.look(status)).await {
                Ok(Next::Over) => break None,
                Ok(Next::Ask(asked)) if left.is_zero() => {
                    asked.iter().for_each(|name| convoy.waits_again(name));
                    break Some(Failure::unfinished(anyhow!("{what}: not after {}", show_duration(args.within))));
                }
                Ok(Next::Ask(asked)) => {
                    for name in asked {
                        if let Err(failure) = self.begin(args.force, &mut convoy, &name).await {
                            self.say(&format!("{name}: {failure}"));
                        }
                    }
                    // What was just begun shows in the status of whoever answers only after a moment.
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(failure) => break Some(failure),
            }
        };
        let report = convoy.report();
        let text = report.text();
        let failure = match stopped {
            None if report.complete => return self.show(&report, |_| format!("{text}\n")),
            Some(failure) => Failure::unfinished(anyhow!("{text}; {failure}")),
            None => Failure::unfinished(anyhow!("{text}")),
        };
        self.show(&report, |_| String::new())?;
        Err(if self.json { failure.documented() } else { failure })
    }

    /// Asks for one move. A failure is one of reaching the cluster: whether the move has begun, the next look shows.
    async fn begin(&self, force: bool, convoy: &mut Convoy, name: &ResourceName) -> Result<(), Failure> {
        let asked = async {
            let mut connection = self.open().await?;
            let forced_by = force.then(|| connection.by().to_owned());
            let Way { to, live, .. } = convoy.way.clone();
            let request = Request::Move { resource: name.clone(), to, live, forced_by };
            connection.ask(request).await
        };
        match asked.await {
            Ok(Reply::Done { index }) => convoy.has_begun(name, index),
            // Others were faster, or something has just been decided: its turn comes again.
            Ok(Reply::NotYet { .. } | Reply::Void { why: Void::Outdated }) => convoy.waits_again(name),
            Ok(reply @ (Reply::Refused { .. } | Reply::Void { .. })) => {
                let why = failed(reply).to_string();
                self.say(&format!("{name}: {why}"));
                convoy.ends(name, Outcome::Refused, Some(why));
            }
            Ok(reply) => {
                convoy.waits_again(name);
                return Err(failed(reply));
            }
            Err(failure) => {
                convoy.waits_again(name);
                return Err(failure);
            }
        }
        Ok(())
    }
}

fn under_way(status: &Status) -> usize {
    status.resources.iter().filter(|resource| resource.phase.is_planned_move()).count()
}

fn find<'a>(status: &'a Status, name: &ResourceName) -> Option<&'a ResourceStatus> {
    status.resources.iter().find(|resource| resource.name == *name)
}

impl Convoy {
    /// What is to go, what starts first first.
    fn begin(status: &Status, names: &BTreeSet<ResourceName>, way: Way, at_once: usize) -> Result<Self, String> {
        for node in [&way.from, &way.to] {
            if !status.members.iter().any(|member| member.name == *node) {
                return Err(format!("the cluster has no node {node}: `tiebreaker status` lists its members"));
            }
        }
        let is_there = |resource: &&ResourceStatus| {
            matches!(&resource.phase, Phase::Placed { node } if *node == way.from)
                && matches!(resource.requested, Requested::Started | Requested::Stopped)
        };
        let mut there: Vec<&ResourceStatus> = status.resources.iter().filter(is_there).collect();
        let strangers: Vec<&str> = names
            .iter()
            .filter(|name| !there.iter().any(|resource| resource.name == **name))
            .map(ResourceName::as_str)
            .collect();
        if !strangers.is_empty() {
            let strangers = strangers.join(", ");
            let from = &way.from;
            return Err(format!("nothing was begun: not on {from}, started or stopped: {strangers}"));
        }
        there.retain(|resource| names.is_empty() || names.contains(&resource.name));
        there.sort_by_key(|resource| (resource.spec.class, resource.spec.order, &resource.name));
        let mut convoy = Self { way, at_once, waiting: VecDeque::new(), under_way: BTreeMap::new(), ended: Vec::new() };
        for resource in there {
            let stays = match (&resource.locked, resource.requested) {
                (Some(reason), _) => Some(format!("it is locked: {reason}")),
                (None, Requested::Started) if convoy.way.live && !resource.spec.live => Some(
                    "it can't move live: `tiebreaker resource relocate` stops it here and starts it there".to_owned(),
                ),
                (None, Requested::Started | Requested::Stopped | Requested::Disabled | Requested::Ignored) => None,
            };
            match stays {
                Some(why) => convoy.ends(&resource.name, Outcome::NotBegun, Some(why)),
                None => convoy.waiting.push_back(resource.name.clone()),
            }
        }
        Ok(convoy)
    }

    fn has_begun(&mut self, name: &ResourceName, index: u64) {
        self.under_way.insert(name.clone(), index);
    }

    fn waits_again(&mut self, name: &ResourceName) {
        self.waiting.push_back(name.clone());
    }

    fn ends(&mut self, name: &ResourceName, outcome: Outcome, why: Option<String>) {
        self.ended.push(MoveReport { resource: name.clone(), outcome, why });
    }

    /// Where everything stands, and whose turn has come.
    fn look(&mut self, status: &Status) -> Step<Next> {
        for (name, index) in std::mem::take(&mut self.under_way) {
            // Whoever answers may not have got that far.
            let over = if status.applied < index { None } else { self.is_over(find(status, &name)) };
            match over {
                None => self.has_begun(&name, index),
                Some(Ok(())) => self.ends(&name, Outcome::Moved, None),
                Some(Err(why)) => self.ends(&name, Outcome::Failed, Some(why)),
            }
        }
        let in_cluster = status.settings.moves_at_once().saturating_sub(under_way(status));
        let room = in_cluster.min(self.at_once.saturating_sub(self.under_way.len()));
        let mut asked = Vec::new();
        for name in std::mem::take(&mut self.waiting) {
            let resource = find(status, &name);
            match resource.map(|resource| (&resource.phase, resource.phase.bound_for())) {
                None => self.ends(&name, Outcome::Failed, Some("it is not protected any more".to_owned())),
                // It went along with what it belongs with.
                Some((_, Some(to))) if *to == self.way.to => self.has_begun(&name, 0),
                Some((Phase::Placed { node }, _)) if *node == self.way.to => self.has_begun(&name, 0),
                Some((Phase::Placed { node }, _)) if *node != self.way.from => {
                    let why = format!("it is on {node} by now");
                    self.ends(&name, Outcome::Refused, Some(why));
                }
                Some((Phase::Error { why, .. }, _)) => {
                    let why = why.clone();
                    self.ends(&name, Outcome::Refused, Some(format!("it is in error: {why}")));
                }
                Some((Phase::Ignored, _)) => {
                    self.ends(
                        &name,
                        Outcome::Refused,
                        Some("the cluster has nothing to do with it any more".to_owned()),
                    );
                }
                Some((Phase::Placed { .. }, _)) if asked.len() < room => asked.push(name),
                Some(_) => self.waiting.push_back(name),
            }
        }
        if !asked.is_empty() {
            return Step::Done(Next::Ask(asked));
        }
        if self.under_way.is_empty() && self.waiting.is_empty() {
            return Step::Done(Next::Over);
        }
        Step::Wait(self.progress())
    }

    /// Whether what was begun has ended, and how.
    fn is_over(&self, resource: Option<&ResourceStatus>) -> Option<Result<(), String>> {
        let Some(resource) = resource else { return Some(Err("it is not protected any more".to_owned())) };
        match &resource.phase {
            Phase::Placed { node } if *node == self.way.to => match resource.state {
                Shown::RequestStart | Shown::RequestStop | Shown::Freeze | Shown::Fence => None,
                _ => Some(Ok(())),
            },
            Phase::Placed { node } => Some(Err(format!("it is on {node}: {}", resource.why))),
            Phase::Error { why, .. } => Some(Err(why.clone())),
            Phase::Ignored => Some(Err(resource.why.clone())),
            Phase::New | Phase::Releasing { .. } | Phase::Migrating { .. } | Phase::Free { .. } => None,
        }
    }

    fn progress(&self) -> String {
        let moved = self.ended.iter().filter(|one| one.outcome == Outcome::Moved).count();
        let all = self.ended.len() + self.under_way.len() + self.waiting.len();
        let names: Vec<&str> = self.under_way.keys().map(ResourceName::as_str).collect();
        let under_way = if names.is_empty() { "nothing of it".to_owned() } else { names.join(", ") };
        let waiting = self.waiting.len();
        format!("{moved} of {all} moved to {}; under way: {under_way}; {waiting} wait for their turn", self.way.to)
    }

    fn report(mut self) -> Report {
        for name in std::mem::take(&mut self.under_way).into_keys() {
            self.ends(&name, Outcome::UnderWay, Some("it has not come to its end yet".to_owned()));
        }
        for name in std::mem::take(&mut self.waiting) {
            self.ends(&name, Outcome::NotBegun, Some("its turn has not come".to_owned()));
        }
        let complete = self.ended.iter().all(|one| one.outcome == Outcome::Moved);
        Report { from: self.way.from, to: self.way.to, complete, moves: self.ended }
    }
}

impl Report {
    fn text(&self) -> String {
        let moved = self.moves.iter().filter(|one| one.outcome == Outcome::Moved).count();
        let mut text = format!("{moved} of {} moved from {} to {}", self.moves.len(), self.from, self.to);
        for one in self.moves.iter().filter(|one| one.outcome != Outcome::Moved) {
            let why = one.why.as_deref().unwrap_or_default();
            text.push_str(&format!("; {}: {why}", one.resource));
        }
        if self.complete && self.moves.is_empty() {
            return format!("nothing is on {} that could move", self.from);
        }
        if self.complete {
            text.push('.');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::resource::MoveReason;

    use super::*;
    use crate::render::example_status;

    fn node(name: &str) -> MemberName {
        MemberName::new(name).unwrap()
    }

    fn name(text: &str) -> ResourceName {
        ResourceName::new(text).unwrap()
    }

    fn way() -> Way {
        Way { from: node("node1"), to: node("node2"), live: true }
    }

    /// `names` run on node1.
    fn status(names: &[&str]) -> Status {
        let mut status = example_status();
        let mut one = status.resources[0].clone();
        one.phase = Phase::Placed { node: node("node1") };
        (one.requested, one.state, one.locked, one.spec.live) = (Requested::Started, Shown::Started, None, true);
        status.resources = names.iter().map(|text| ResourceStatus { name: name(text), ..one.clone() }).collect();
        status.settings.moves = None;
        status
    }

    fn set(status: &mut Status, text: &str, phase: Phase) {
        status.resources.iter_mut().find(|resource| resource.name == name(text)).unwrap().phase = phase;
    }

    fn migrating() -> Phase {
        Phase::Migrating { from: node("node1"), to: node("node2"), why: MoveReason::Asked }
    }

    fn there() -> Phase {
        Phase::Placed { node: node("node2") }
    }

    fn begin(status: &Status, names: &[&str], at_once: usize) -> Result<Convoy, String> {
        Convoy::begin(status, &names.iter().map(|text| name(text)).collect(), way(), at_once)
    }

    fn asked(convoy: &mut Convoy, status: &Status) -> Vec<String> {
        match convoy.look(status) {
            Step::Done(Next::Ask(names)) => names.iter().map(ToString::to_string).collect(),
            Step::Done(Next::Over) => panic!("over"),
            Step::Wait(_) => Vec::new(),
            Step::Fail(failure) => panic!("{failure}"),
        }
    }

    #[test]
    fn no_more_are_asked_for_than_may_be_under_way_in_the_cluster() {
        let mut status = status(&["a", "b", "c", "d", "e", "f"]);
        // Somebody else moves f.
        set(&mut status, "f", migrating());
        let mut convoy = begin(&status, &[], usize::MAX).unwrap();
        assert_eq!(asked(&mut convoy, &status), ["a", "b", "c"]);
        for text in ["a", "b", "c"] {
            convoy.has_begun(&name(text), 0);
            set(&mut status, text, migrating());
        }
        assert!(asked(&mut convoy, &status).is_empty(), "four are under way");
        set(&mut status, "a", there());
        assert_eq!(asked(&mut convoy, &status), ["d"]);
    }

    #[test]
    fn fewer_at_once_may_be_asked_for() {
        let status = status(&["a", "b", "c"]);
        let mut convoy = begin(&status, &[], 1).unwrap();
        assert_eq!(asked(&mut convoy, &status), ["a"]);
    }

    #[test]
    fn what_was_named_has_to_be_there_or_nothing_begins() {
        let mut status = status(&["a", "b"]);
        set(&mut status, "b", there());
        assert!(begin(&status, &["a"], 9).is_ok());
        let why = begin(&status, &["a", "b"], 9).err().unwrap();
        assert!(why.contains("nothing was begun") && why.ends_with(": b"), "{why}");
    }

    #[test]
    fn each_one_ends_moved_or_says_why_not() {
        let mut status = status(&["a", "b", "c", "d"]);
        status.resources[3].locked = Some("backup".into());
        let mut convoy = begin(&status, &[], 9).unwrap();
        assert_eq!(asked(&mut convoy, &status), ["a", "b", "c"]);
        convoy.has_begun(&name("a"), 0);
        convoy.has_begun(&name("b"), 0);
        convoy.ends(&name("c"), Outcome::Refused, Some("a rule".into()));
        status.applied = 9;
        set(&mut status, "a", migrating());
        assert!(matches!(convoy.look(&status), Step::Wait(why) if why.starts_with("0 of 4 moved")));
        set(&mut status, "a", there());
        assert!(matches!(convoy.look(&status), Step::Done(Next::Over)), "b is back where it was");
        let report = convoy.report();
        let outcomes: Vec<(&str, Outcome)> =
            report.moves.iter().map(|one| (one.resource.as_str(), one.outcome)).collect();
        assert_eq!(
            outcomes,
            [("d", Outcome::NotBegun), ("c", Outcome::Refused), ("b", Outcome::Failed), ("a", Outcome::Moved)]
        );
        assert!(!report.complete && report.text().starts_with("1 of 4 moved"), "{}", report.text());
    }

    #[test]
    fn what_can_not_move_any_more_is_not_waited_for() {
        for (phase, says) in [
            (Phase::Error { node: Some(node("node1")), why: "it can't be stopped".into() }, "it can't be stopped"),
            (Phase::Ignored, "nothing to do with it"),
        ] {
            let mut status = status(&["a", "b"]);
            let mut convoy = begin(&status, &[], 1).unwrap();
            assert_eq!(asked(&mut convoy, &status), ["a"]);
            convoy.has_begun(&name("a"), 0);
            set(&mut status, "a", there());
            set(&mut status, "b", phase);
            assert!(matches!(convoy.look(&status), Step::Done(Next::Over)));
            let text = convoy.report().text();
            assert!(text.contains("b: ") && text.contains(says), "{text}");
        }
    }

    #[test]
    fn a_move_that_the_answering_member_has_not_applied_yet_is_not_over() {
        let mut status = status(&["a"]);
        status.applied = 6;
        let mut convoy = begin(&status, &[], 9).unwrap();
        assert_eq!(asked(&mut convoy, &status), ["a"]);
        convoy.has_begun(&name("a"), 7);
        assert!(matches!(convoy.look(&status), Step::Wait(_)));
        status.applied = 7;
        assert!(matches!(convoy.look(&status), Step::Done(Next::Over)));
    }

    #[test]
    fn what_belongs_with_another_goes_along_and_is_not_asked_for_again() {
        let mut status = status(&["a", "b"]);
        let mut convoy = begin(&status, &[], 1).unwrap();
        assert_eq!(asked(&mut convoy, &status), ["a"]);
        convoy.has_begun(&name("a"), 0);
        for text in ["a", "b"] {
            set(&mut status, text, migrating());
        }
        assert!(asked(&mut convoy, &status).is_empty());
        set(&mut status, "a", there());
        assert!(asked(&mut convoy, &status).is_empty());
        set(&mut status, "b", there());
        assert!(matches!(convoy.look(&status), Step::Done(Next::Over)));
        assert!(convoy.report().complete);
    }

    #[test]
    fn what_does_not_move_live_is_left_and_says_what_moves_it() {
        let mut status = status(&["a"]);
        status.resources[0].spec.live = false;
        let report = begin(&status, &[], 9).unwrap().report();
        assert!(report.text().contains("resource relocate"), "{}", report.text());
    }
}
