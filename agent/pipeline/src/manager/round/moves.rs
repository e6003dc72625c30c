//! Moves that are under way: what each waits for, and where it ends.

use std::time::Duration;

use super::{Round, Why};
use crate::command::Command;
use crate::name::{MemberName, ResourceName};
use crate::placement::choose::Preference;
use crate::placement::picture::Seat;
use crate::report::Observed;
use crate::resource::{MoveReason, Requested, Resource};

/// The target of a live move gets this long to arm its watchdog.
const ARMS_WITHIN: Duration = Duration::from_secs(30);

impl Round<'_> {
    pub(super) fn releasing(
        &mut self,
        name: &ResourceName,
        resource: &Resource,
        node: &MemberName,
        to: Option<&MemberName>,
    ) -> Why {
        let view = self.view;
        if let Some(why) = view.absent(node, self.plan) {
            return why;
        }
        let Some(observed) = view.observed(name, resource, node) else {
            return Why::WaitingForReport { node: node.clone() };
        };
        if let Observed::StopFailed { why } = observed {
            let why = format!("it can't be stopped on {node}: {why}");
            return self.give_up(name, resource, why);
        }
        if !observed.is_stopped() {
            return Why::AtWork { node: node.clone(), observed: observed.clone() };
        }
        if let Err(why) = self.may_choose() {
            return why;
        }
        if resource.fresh {
            // It was stopped for a while on its way: what was settled with it has been given to others since.
            self.picture.change(name, |view| view.seat = Seat::Nowhere);
        }
        let choice = match to.filter(|_| !resource.fresh) {
            // What was settled when the move began holds if it still can.
            Some(to) => {
                let kept = self.choose(name, resource, Preference::None, Some(to), None);
                if self.picture.takes(to) && kept.node() == Some(to) {
                    kept
                } else {
                    self.choose(name, resource, Preference::BestScore, None, None)
                }
            }
            None => self.choose(name, resource, Preference::BestScore, None, None),
        };
        self.settle(name, resource, &choice)
    }

    /// A live move: it ends where it runs, once nothing of it is under way any more.
    pub(super) fn migrating(
        &mut self,
        name: &ResourceName,
        resource: &Resource,
        from: &MemberName,
        to: &MemberName,
        why: &MoveReason,
    ) -> Why {
        let view = self.view;
        let moving = || Why::Moving { from: from.clone(), to: to.clone(), why: why.to_string() };
        for node in [from, to] {
            if let Some(why) = view.absent(node, self.plan) {
                return why;
            }
        }
        let at_source = view.observed(name, resource, from);
        let at_target = view.observed(name, resource, to);
        let (Some(at_source), Some(at_target)) = (at_source, at_target) else {
            let node = if at_source.is_none() { from } else { to };
            return Why::WaitingForReport { node: node.clone() };
        };
        let called_off = matches!(why, MoveReason::Failed { .. });
        if called_off && resource.held {
            // Nothing begins any more; what is under way is waited for, and then the target looks afresh.
            if at_source.is_in_flight() {
                return moving();
            }
            self.propose(Command::Go { resource: name.clone(), generation: resource.generation });
            return Why::Deciding;
        }
        if !called_off && resource.held && resource.requested == Requested::Started && at_source.is_running() {
            if view.state.nodes.get(to).is_some_and(|state| state.leaving.is_some()) {
                return self.call_off(name, resource, format!("{to} is about to go"));
            }
            // A stop that tidies up after an earlier move must not hit what comes.
            if at_target.is_in_flight() {
                return moving();
            }
            // The target guards what is about to come before it comes.
            let promised = view.state.life(to).is_some_and(|life| life.watchdog.is_some());
            let report = view.leases.report(view.state, to);
            if report.is_some_and(|report| report.armed) || !promised {
                self.propose(Command::Go { resource: name.clone(), generation: resource.generation });
                return Why::Deciding;
            }
            if let Some(trouble) = report.and_then(|report| report.trouble.as_ref()) {
                return self.call_off(name, resource, format!("the watchdog of {to} can't be armed: {trouble}"));
            }
            if self.waited(name, resource) >= ARMS_WITHIN {
                let within = ARMS_WITHIN.as_secs();
                return self.call_off(name, resource, format!("{to} has not armed its watchdog within {within} s"));
            }
            return moving();
        }
        let strict = view.state.rules.a_failed_move_ends_on_a_fresh_look();
        let out = at_source.is_stopped() || !view.state.rules.moves_end_when_the_source_is_out();
        let end = if out && (at_target.is_running() || at_target.is_stopped()) {
            Some(to)
        } else if at_target.is_stopped() {
            let over = match at_source {
                Observed::MoveFailed { why } | Observed::Unknown { why } | Observed::StopFailed { why } => {
                    Some(why.as_str())
                }
                Observed::Running if called_off => Some("it was called off"),
                Observed::Running if resource.requested != Requested::Started => Some("it shall not run any more"),
                Observed::Running
                | Observed::Stopped
                | Observed::Sent
                | Observed::Failed { .. }
                | Observed::Starting
                | Observed::Stopping
                | Observed::Moving => None,
            };
            if let Some(why) = over
                && strict
                && !called_off
            {
                return self.call_off(name, resource, why.to_owned());
            }
            over.map(|_| from)
        } else {
            None
        };
        match end {
            Some(end) if end == to && *at_source == Observed::Sent && resource.spec.driver.is_received() => {
                self.arrive(name, resource, to)
            }
            Some(end) => self.assign(name, resource, end),
            None => moving(),
        }
    }

    /// The move has succeeded at its source: its target finishes it.
    fn arrive(&mut self, name: &ResourceName, resource: &Resource, to: &MemberName) -> Why {
        let Some(life) = self.view.state.life(to) else {
            return Why::NoNode { why: vec![format!("{to} is not in service")] };
        };
        let (generation, incarnation) = (resource.generation, life.incarnation);
        self.propose(Command::Arrive { resource: name.clone(), generation, incarnation });
        self.seat(name, resource, Seat::On(to.clone()));
        Why::Deciding
    }

    fn call_off(&mut self, name: &ResourceName, resource: &Resource, why: String) -> Why {
        self.propose(Command::CallOff { resource: name.clone(), generation: resource.generation, why });
        Why::Deciding
    }
}
