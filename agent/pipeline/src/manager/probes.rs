//! What the nodes have said about resources that are new: each of them has to be known not to run anywhere before it is
//! started somewhere.

use std::collections::BTreeMap;

use super::View;
use crate::fence::{Evidence, Progress};
use crate::name::{MemberName, ResourceName};
use crate::report::Observed;
use crate::resource::Phase;
use crate::state::NodeState;

/// What is known of a new resource on all nodes together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probed<'a> {
    /// It runs on no node.
    Nowhere,
    /// It runs on this node alone.
    On(&'a MemberName),
    /// It runs on two at least.
    Twice { first: &'a MemberName, second: &'a MemberName },
    /// A node can't tell.
    Unknown { node: &'a MemberName, why: &'a str },
    /// A node hasn't said anything yet.
    Waiting { node: &'a MemberName },
}

/// What is known of one new resource, as far as the nodes have been gone through.
#[derive(Clone, Copy, Default)]
struct Words<'a> {
    running: Option<&'a MemberName>,
    twice: Option<&'a MemberName>,
    unknown: Option<(&'a MemberName, &'a str)>,
    waiting: Option<&'a MemberName>,
}

impl<'a> Words<'a> {
    fn hear(&mut self, node: &'a MemberName, observed: Option<&'a Observed>, absent: Option<&Absent>, since: u64) {
        match observed {
            Some(Observed::Running) if self.running.is_none() => self.running = Some(node),
            Some(Observed::Running) => self.twice = self.twice.or(Some(node)),
            Some(observed) if observed.is_stopped() => {}
            None if absent.is_some_and(|absent| absent.runs_nothing(since)) => {}
            Some(Observed::Unknown { why }) => self.unknown = Some((node, why)),
            Some(_) | None => self.waiting = Some(node),
        }
    }

    fn sum(self) -> Probed<'a> {
        match self {
            Self { running: Some(first), twice: Some(second), .. } => Probed::Twice { first, second },
            Self { unknown: Some((node, why)), .. } => Probed::Unknown { node, why },
            Self { waiting: Some(node), .. } => Probed::Waiting { node },
            Self { running: Some(node), .. } => Probed::On(node),
            Self { .. } => Probed::Nowhere,
        }
    }
}

/// A node without a life, of which nothing is heard.
struct Absent {
    /// Its last fence proved that nothing at all runs there.
    fenced: bool,
    /// It went by itself, and said that nothing ran of what it knew of: of all that was decided up to here.
    left: Option<u64>,
}

impl Absent {
    fn of(view: &View<'_>, node: &MemberName, state: &NodeState) -> Option<Self> {
        if state.life.is_some() || view.leases.is_heard(view.state, node, view.now) {
            return None;
        }
        let strict = view.state.rules.absence_proves_what_was_known();
        let last_was_a_fence = state.leaving.is_none() || !strict;
        Some(Self {
            fenced: state.closed_at > 0 && last_was_a_fence && view.is_proven_dead(node),
            left: state.leaving.as_ref().map(|leaving| if strict { leaving.since } else { u64::MAX }),
        })
    }

    fn runs_nothing(&self, since: u64) -> bool {
        self.fenced || self.left.is_some_and(|left| since <= left)
    }
}

impl<'a> View<'a> {
    /// What the nodes have said about all resources that are new.
    ///
    /// Reports are gone through beside the resources, both by name: with many nodes and many new resources nearly all of a
    /// look would be spent on looking up each resource in each report.
    pub(super) fn probed(&self) -> BTreeMap<&'a ResourceName, Probed<'a>> {
        let new = self.state.resources.iter().filter(|(_, resource)| resource.phase == Phase::New);
        let mut new: Vec<(&ResourceName, u64, Words<'a>)> =
            new.map(|(name, resource)| (name, resource.since, Words::default())).collect();
        if new.is_empty() {
            return BTreeMap::new();
        }
        for (node, state) in &self.state.nodes {
            let absent = Absent::of(self, node, state);
            let report = self.leases.report(self.state, node);
            let mut seen = report.into_iter().flat_map(|report| &report.resources).peekable();
            let applied = report.map_or(0, |report| report.applied);
            for (name, since, words) in &mut new {
                while seen.next_if(|(other, _)| other < name).is_some() {}
                let observed = seen.next_if(|(other, _)| other == name).map(|(_, observed)| observed);
                words.hear(node, observed.filter(|_| applied >= *since), absent.as_ref(), *since);
            }
        }
        new.into_iter().map(|(name, _, words)| (name, words.sum())).collect()
    }

    /// The node's last fence is closed and proves that nothing at all was left running. The watchdog's time proves that of
    /// what the cluster had put there alone: for anything else it need not have been armed.
    fn is_proven_dead(&self, node: &MemberName) -> bool {
        let last = self.state.fences.values().rev().find(|fence| fence.node == *node).map(|fence| &fence.progress);
        match last {
            Some(Progress::Closed { evidence }) => match evidence {
                Evidence::BmcOff { .. }
                | Evidence::SupplyCut { .. }
                | Evidence::LedOff { .. }
                | Evidence::NewBoot { .. }
                | Evidence::SupplySwitched { .. }
                | Evidence::ProgramOff { .. }
                | Evidence::Operator { .. } => true,
                Evidence::WatchdogTime { .. } => false,
            },
            Some(Progress::Wanted | Progress::Fenced { .. }) | None => false,
        }
    }
}
