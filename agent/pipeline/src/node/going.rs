//! How a node's life ends: by a fence, in good order, or because the cluster goes on without it.

use super::guard::Guard;
use super::work::{InFlight, Seen, Work};
use super::{Action, Node, OperationId, OperationKind};
use crate::fence::Progress;
use crate::profile::RENEW_EVERY;
use crate::report::Leave;
use crate::state::{Leaving, State};
use crate::time::Reading;

impl Node {
    /// True once the cluster goes on without this node, and nothing that it protected runs here.
    #[must_use]
    pub fn is_parted(&self) -> bool {
        let unguarded = self.guard == Guard::Off || self.guard_trouble.is_some() || !self.knows_all;
        let stopped = self.work.values().all(|work| work.seen == Seen::Stopped && !work.is_busy());
        self.parted && self.ready && unguarded && stopped
    }

    /// The word that counted there said that this machine is off, so what runs here may be running there too: there is no
    /// time to stop it in good order. Where nothing is known to run, it is looked at first.
    pub(super) fn part(&mut self, now: Reading, state: &State) {
        self.lease_end = None;
        self.retry = None;
        self.renew_at = now.after(RENEW_EVERY);
        if self.reset || !self.ready {
            return;
        }
        self.follow(now, state);
        let may_run = self.work.values().any(|work| match &work.seen {
            Seen::Running | Seen::Broken(_) | Seen::Unknown(_) => true,
            Seen::Stopped | Seen::Unprobed(_) => work.is_busy(),
        });
        if may_run {
            self.reset = true;
            self.actions.push_back(Action::ResetParted);
            return;
        }
        for (name, work) in &mut self.work {
            if work.in_flight.is_some() || work.seen == Seen::Stopped {
                continue;
            }
            let id = OperationId(self.next_operation);
            self.next_operation += 1;
            work.in_flight = Some(InFlight { id, kind: OperationKind::Probe, cancelled: false, stale: false });
            let (resource, spec) = (name.clone(), work.spec.clone());
            self.actions.push_back(Action::Begin { id, resource, kind: OperationKind::Probe, spec, target: None });
        }
        let stopped = self.work.values().all(|work| work.seen == Seen::Stopped);
        // What an earlier agent of this boot knew may be more than this one does: then the watchdog is for that.
        if stopped && self.knows_all && self.guard == Guard::Armed && self.guard_trouble.is_none() {
            self.guard = Guard::Disarming;
            self.actions.push_back(Action::Disarm);
        }
    }

    /// A life that learns of its own fence resets itself at once; so does a later agent on the same boot. One that learns
    /// only afterwards that it has ended makes way for a new start of the agent.
    pub(super) fn mind_own_fence(&mut self, state: &State) {
        if self.reset {
            return;
        }
        if let Some((id, fence)) = state.open_fence(&self.config.name)
            && fence.boot == self.config.boot
            && matches!(fence.progress, Progress::Wanted)
        {
            self.reset = true;
            self.actions.push_back(Action::ResetSelf(id));
            return;
        }
        let ended = state.nodes.get(&self.config.name).is_some_and(|node| {
            let mine = node.life.as_ref().is_some_and(|life| life.incarnation == self.config.incarnation);
            node.last_incarnation >= self.config.incarnation && !mine
        });
        if ended && !self.has_left(state) {
            self.reset = true;
            self.actions.push_back(Action::StartAnew);
        }
    }

    /// How this very agent goes, as the cluster has agreed to it.
    pub(super) fn agreed<'a>(&self, state: &'a State) -> Option<&'a Leaving> {
        let leaving = state.nodes.get(&self.config.name)?.leaving.as_ref()?;
        (leaving.incarnation == self.config.incarnation).then_some(leaving)
    }

    /// True once this life is over because its agent goes.
    pub(super) fn has_left(&self, state: &State) -> bool {
        self.agreed(state).is_some() && state.life(&self.config.name).is_none()
    }

    /// True while this node is bound by its lease. It is not where the cluster has disarmed, nor where the agent alone
    /// restarts: nothing of it is started elsewhere then but on better evidence than its watchdog's time.
    pub(super) fn is_bound(&self, now: Reading, state: &State) -> bool {
        let restarts = self.agreed(state).is_some_and(|leaving| leaving.how == Leave::AgentRestart);
        // An earlier agent of this boot went in good order, and this one isn't admitted yet; or this one has neither a
        // lease nor an armed watchdog that it could have told of: nobody believes its promise then.
        let told = match self.guard {
            Guard::Arming | Guard::Armed => true,
            Guard::Off | Guard::Disarming => self.has_lease(now),
        };
        let suspended = state.life(&self.config.name).is_some_and(|life| {
            let earlier = life.incarnation < self.config.incarnation;
            let this = life.incarnation == self.config.incarnation && !told;
            life.boot == self.config.boot && life.unbound.is_some() && (earlier || this)
        });
        state.settings.arming.binds() && !restarts && !suspended
    }

    /// Says once that the agent may go.
    pub(super) fn mind_the_going(&mut self, state: &State) {
        if self.may_go {
            return;
        }
        let unguarded = self.config.watchdog.is_none() || self.guard == Guard::Off;
        let may_go = match self.agreed(state).map(|leaving| leaving.how) {
            Some(Leave::AgentRestart) => unguarded && !self.work.values().any(Work::is_busy),
            // A cluster that is disarmed stops nothing, so its machines go down as any other does. Nothing of this one is
            // started elsewhere: its life goes on in the log, and the cluster can't be armed before it is heard again.
            Some(Leave::Reboot | Leave::PowerOff) if !state.settings.arming.binds() => {
                unguarded && !self.work.values().any(Work::is_busy)
            }
            Some(Leave::Reboot | Leave::PowerOff) => self.has_left(state) && unguarded,
            None => false,
        };
        if may_go {
            self.may_go = true;
            self.actions.push_back(Action::MayGo);
        }
    }
}
