//! The account of a run: what happened, who was fenced and why, what was recovered and how long that took.

use std::collections::{BTreeMap, BTreeSet};

use tiebreaker_pipeline::decision::{Decision, LogLine};
use tiebreaker_pipeline::fence::FenceReason;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::node::{OperationKind, Outcome};
use tiebreaker_pipeline::resource::Requested;
use tiebreaker_pipeline::state::State;

use crate::output::{Fenced, Happened, Line, Recovered, What, seconds};
use crate::world::{Entry, MS, Record, SEC};

/// A node was last heard up to this long before what took it away: renewals come twice a second.
const HEARD_BEFORE: u64 = SEC;

#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) timeline: Vec<Line>,
    pub(super) fenced: Vec<Fenced>,
    pub(super) recovered: Vec<Recovered>,
    pub(super) leaders: Vec<String>,
    /// When events took a member away.
    strikes: BTreeMap<MemberName, Vec<u64>>,
    /// When nodes that are being fenced were lost.
    lost: BTreeMap<MemberName, u64>,
    /// Nodes that have gone in good order, and still have what was placed on them.
    left: BTreeSet<MemberName>,
    /// Where each resource was put last.
    pub(super) places: BTreeMap<ResourceName, MemberName>,
    /// Resources that were given to another node and have not begun to start there: from whom, to whom.
    moving: BTreeMap<ResourceName, (MemberName, MemberName)>,
}

impl Account {
    pub(super) fn tell(&mut self, at: u64, what: What) {
        self.timeline.push(Line { at_s: seconds(at), what });
    }

    /// An event takes a member away, or may.
    pub(super) fn strikes(&mut self, at: u64, who: &MemberName) {
        self.strikes.entry(who.clone()).or_default().push(at);
    }

    pub(super) fn add(&mut self, state: &State, entry: Entry) {
        let Entry { at, member, what } = entry;
        let name = || member.as_ref().map_or_else(|| "cluster".to_owned(), ToString::to_string);
        match what {
            Record::Words(happened) => self.tell(at, What::Machine { member: name(), happened }),
            Record::Leads { term } => {
                self.leaders.push(name());
                self.tell(at, What::Leader { member: name(), term });
            }
            Record::Decided(line) => self.decided(at, state, &line),
            Record::Begins { resource, kind } => {
                if let (OperationKind::Start, Some(node)) = (kind, &member) {
                    self.begins_to_start(at, &resource, node);
                }
                let happened = match kind {
                    OperationKind::Start => Happened::Starts,
                    OperationKind::Stop => Happened::Stops,
                    OperationKind::Migrate => Happened::Moves,
                    OperationKind::Receive => Happened::Receives,
                    OperationKind::Probe => return,
                };
                self.of_resource(at, &resource, name(), happened);
            }
            Record::Ended { resource, kind, outcome, .. } => {
                let happened = match (kind, outcome) {
                    (OperationKind::Stop, Outcome::Done) => Happened::Stopped,
                    (
                        OperationKind::Start | OperationKind::Probe | OperationKind::Migrate | OperationKind::Receive,
                        Outcome::Done,
                    ) => return,
                    (kind, Outcome::Failed { why }) => {
                        Happened::Failed { why: format!("did not {}: {why}", kind.word()) }
                    }
                };
                self.of_resource(at, &resource, name(), happened);
            }
            Record::Runs(resource) => self.of_resource(at, &resource, name(), Happened::Runs),
            Record::Dies(resource) => self.of_resource(at, &resource, name(), Happened::Died),
            Record::Violated(violation) => {
                let (invariant, how) = (violation.invariant.to_owned(), violation.what);
                self.tell(at, What::Violation { invariant, how });
            }
            // What operators ask for is in the scenario, and what they are answered is told by who asked; cancelled
            // probes say nothing.
            Record::Asked(_) | Record::Answered { .. } | Record::Cancels(_) => {}
        }
    }

    fn of_resource(&mut self, at: u64, resource: &ResourceName, node: String, happened: Happened) {
        self.tell(at, What::Resource { resource: resource.to_string(), node, happened });
    }

    fn decided(&mut self, at: u64, state: &State, line: &LogLine) {
        if let Decision::FenceWanted { node, reason, .. } = &line.decision {
            self.lost.insert(node.clone(), self.lost_at(at, node, reason));
        }
        if let Decision::Left { node } = &line.decision {
            self.lost.insert(node.clone(), at);
            self.left.insert(node.clone());
        }
        if let Decision::Admitted { node, .. } = &line.decision {
            self.left.remove(node);
        }
        // What it had is taken from it on its own word, and started elsewhere: that is evidence like any other.
        if let Decision::Released { node, .. } = &line.decision
            && self.left.remove(node)
        {
            let evidence = "clean-shutdown".to_owned();
            self.fenced.push(Fenced { node: node.to_string(), at_s: seconds(at), evidence });
        }
        if let Decision::Assigned { resource, node, .. } = &line.decision {
            self.places.insert(resource.clone(), node.clone());
        }
        if let Decision::Fenced { node, evidence, .. } = &line.decision {
            let evidence = evidence.grade().to_owned();
            self.fenced.push(Fenced { node: node.to_string(), at_s: seconds(at), evidence });
        }
        if let Decision::Assigned { resource, node, recovered_from: Some(from) } = &line.decision {
            let moves = (from.clone(), node.clone());
            self.moving.insert(resource.clone(), moves.clone());
            // What is to stay stopped has arrived already.
            if state.resources.get(resource).is_some_and(|resource| resource.requested != Requested::Started) {
                self.moving.remove(resource);
                self.recovered(at, resource, moves);
            }
        }
        self.tell(at, What::Decision { decision: line.decision.to_string() });
    }

    /// When a node was lost: by the event that took it away, or where none did, when it was last heard.
    fn lost_at(&self, at: u64, node: &MemberName, reason: &FenceReason) -> u64 {
        let heard = match reason {
            FenceReason::Lost { silent_ms } => at.saturating_sub(silent_ms * MS),
            FenceReason::Asked { .. } => return at,
        };
        let strikes = self.strikes.get(node).map(Vec::as_slice).unwrap_or_default();
        strikes.iter().copied().find(|strike| strike + HEARD_BEFORE >= heard).unwrap_or(heard)
    }

    fn begins_to_start(&mut self, at: u64, resource: &ResourceName, node: &MemberName) {
        if self.moving.get(resource).is_some_and(|(_, to)| to == node)
            && let Some(moves) = self.moving.remove(resource)
        {
            self.recovered(at, resource, moves);
        }
    }

    fn recovered(&mut self, at: u64, resource: &ResourceName, (from, to): (MemberName, MemberName)) {
        let lost = self.lost.get(&from).copied().unwrap_or(at);
        self.recovered.push(Recovered {
            resource: resource.to_string(),
            from: from.to_string(),
            to: to.to_string(),
            at_s: seconds(at),
            after_s: seconds(at.saturating_sub(lost)),
        });
    }
}
