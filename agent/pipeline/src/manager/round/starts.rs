//! What is about to start where it is placed. Somebody has set it to started, and while it was stopped nobody has looked
//! whether rules and memory allow it there: where they don't, it is placed anew. Once it is seen stopped, and until then, it
//! counts nowhere, like what has no node yet: nothing that runs makes room for it or follows it.

use std::collections::BTreeSet;

use super::{Round, Why};
use crate::command::Command;
use crate::manager::View;
use crate::name::{MemberName, ResourceName};
use crate::placement::choose::{LeftOut, Preference, may_be_on};
use crate::placement::picture::Seat;
use crate::report::Observed;
use crate::resource::{MoveReason, Phase, Requested, Resource};

impl Round<'_> {
    /// What becomes of it before it is let start; `None` where it may start here in its turn.
    pub(super) fn about_to_start(
        &mut self,
        name: &ResourceName,
        resource: &Resource,
        node: &MemberName,
        observed: &Observed,
    ) -> Option<Why> {
        if !resource.fresh {
            return None;
        }
        match observed {
            Observed::Stopped => {}
            // Nothing is to be chosen any more.
            Observed::Running => {
                self.propose(Command::Go { resource: name.clone(), generation: resource.generation });
                return Some(Why::Deciding);
            }
            Observed::Sent
            | Observed::Starting
            | Observed::Stopping
            | Observed::Moving
            | Observed::Unknown { .. }
            | Observed::Failed { .. }
            | Observed::StopFailed { .. }
            | Observed::MoveFailed { .. } => return None,
        }
        // What is on its way may take the room that is seen here.
        if let Err(why) = self.may_choose() {
            return Some(why);
        }
        let emptied = self.view.state.nodes.get(node).is_some_and(|state| state.maintenance);
        let allowed =
            if emptied { Err(LeftOut::TakesNothing) } else { may_be_on(&self.picture, &self.rules, name, node) };
        match allowed {
            Ok(()) => {
                self.seat(name, resource, Seat::On(node.clone()));
                None
            }
            Err(against) => Some(self.place_anew(name, resource, node, &against)),
        }
    }

    /// It goes to a node that may have it, or waits for one.
    fn place_anew(&mut self, name: &ResourceName, resource: &Resource, node: &MemberName, against: &LeftOut) -> Why {
        if let Err(why) = self.turn(resource).and_then(|()| self.may_be_given_a_node()) {
            return why;
        }
        let takes = self.picture.nodes.get_mut(node).map(|seen| std::mem::replace(&mut seen.may_take, false));
        let choice = self.choose(name, resource, Preference::BestScore, None, None);
        if let (Some(takes), Some(seen)) = (takes, self.picture.nodes.get_mut(node)) {
            seen.may_take = takes;
        }
        let Some(to) = choice.node().cloned() else {
            let here = format!("{node}: ");
            let others = self.view.absences(&choice).into_iter().filter(|why| !why.starts_with(&here));
            return Why::NoNode { why: std::iter::once(format!("{node}: {against}")).chain(others).collect() };
        };
        self.given += 1;
        let why = if *against == LeftOut::TakesNothing {
            MoveReason::Maintenance
        } else {
            MoveReason::Better { why: format!("it may not start on {node}: {against}") }
        };
        self.release(name, resource, &to, why);
        Why::Deciding
    }
}

impl View<'_> {
    /// True for what somebody has set to started, and is seen stopped. What only may be stopped keeps its room.
    pub(in crate::manager) fn is_about_to_start(&self, name: &ResourceName, resource: &Resource) -> bool {
        awaits_a_look(resource).is_some_and(|node| self.observed(name, resource, node) == Some(&Observed::Stopped))
    }

    /// What waits for its start, or runs: which of them is about to be known. Until then nothing that runs follows it.
    pub(in crate::manager) fn starts_unseen(&self) -> BTreeSet<&ResourceName> {
        let soon = |node: &MemberName| {
            self.leases.is_heard(self.state, node, self.now)
                && self.state.in_service(node)
                && self.leases.diverged(node).is_none()
        };
        let unseen = |name, resource| {
            awaits_a_look(resource).is_some_and(|node| soon(node) && self.observed(name, resource, node).is_none())
        };
        self.state.resources.iter().filter(|(name, resource)| unseen(name, resource)).map(|(name, _)| name).collect()
    }
}

/// The node where somebody has set it to started without a look since.
fn awaits_a_look(resource: &Resource) -> Option<&MemberName> {
    match &resource.phase {
        Phase::Placed { node } if resource.fresh && resource.requested == Requested::Started => Some(node),
        Phase::Placed { .. }
        | Phase::New
        | Phase::Releasing { .. }
        | Phase::Migrating { .. }
        | Phase::Free { .. }
        | Phase::Error { .. }
        | Phase::Ignored => None,
    }
}
