//! The watchdog, as far as a node decides about it: armed before anything runs, and disarmed as soon as nothing does.

use std::time::Duration;

use super::work::{Seen, Wish};
use super::{Action, Node, OperationKind};
use crate::state::State;
use crate::time::Reading;

/// A watchdog that couldn't be armed or disarmed is tried again after this long.
pub(super) const GUARD_AGAIN: Duration = Duration::from_secs(2);
/// A node whose watchdog couldn't be armed so often in a row says that it can't run what is placed on it.
pub(super) const GUARD_TRIES: u32 = 3;

/// Whether the watchdog is armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guard {
    Off,
    Arming,
    Armed,
    Disarming,
}

/// Why the watchdog can't be armed or disarmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) tries: u32,
    pub(super) again: Reading,
}

impl Node {
    /// Why the watchdog can't be armed or disarmed, if so.
    #[must_use]
    pub fn guard_trouble(&self) -> Option<&str> {
        self.guard_trouble.as_ref().map(|trouble| trouble.why.as_str())
    }

    /// True while a watchdog is promised that couldn't be armed.
    pub(super) fn is_unguarded(&self) -> bool {
        let off = match self.guard {
            Guard::Off | Guard::Arming => true,
            Guard::Armed | Guard::Disarming => false,
        };
        self.config.watchdog.is_some() && off && self.guard_trouble.is_some()
    }

    pub(super) fn trouble(&mut self, now: Reading, why: String) {
        let tries = self.guard_trouble.as_ref().map_or(0, |trouble| trouble.tries) + 1;
        self.guard_trouble = Some(Trouble { why, tries, again: now.after(GUARD_AGAIN) });
    }

    /// Armed before anything protected may run, disarmed as soon as nothing does. What this agent has applied may be less
    /// than what an earlier one of this boot had, so a watchdog that was found armed stays armed until this agent has acted
    /// on a grant once: else what the earlier one had reported could run on unguarded, and unknown.
    pub(super) fn mind_the_guard(&mut self, now: Reading, state: &State) {
        if self.config.watchdog.is_none() || !self.ready {
            return;
        }
        let me = &self.config.name;
        let may_act = self.may_act(now, state);
        self.knows_all |= may_act;
        // What was found running is guarded too, whoever started it: it may be about to be placed here.
        // So is what can't be told, once a probe has come back with nothing; not while one is just looking.
        let runs = || {
            self.work.values().any(|work| match work.seen {
                Seen::Running | Seen::Broken(_) => true,
                Seen::Unknown(_) => work.in_flight.is_none_or(|op| op.kind != OperationKind::Probe),
                Seen::Stopped | Seen::Unprobed(_) => false,
            })
        };
        let placed = || {
            state.resources.values().any(|resource| match Wish::of(resource, me) {
                Wish::Up | Wish::Send(_) | Wish::Receive => true,
                Wish::Down | Wish::Leave | Wish::Hold => false,
            })
        };
        // What comes here live comes whether or not this node may act at the moment.
        let comes = || {
            self.config.rules.what_may_come_is_guarded()
                && state.resources.values().any(|resource| Wish::of(resource, me) == Wish::Receive)
        };
        let bound = self.is_bound(now, state);
        let wanted = bound && may_act && (runs() || placed());
        // What once was in the way is nobody's business while nobody relies on the watchdog: it is tried anew.
        if !bound && self.guard == Guard::Off {
            self.guard_trouble = None;
        }
        let try_now = self.guard_trouble.as_ref().is_none_or(|trouble| now.reached_on_either(trouble.again));
        let busy = || bound && (self.work.values().any(|work| work.seen != Seen::Stopped || work.is_busy()) || comes());
        // Whoever is about to hear more of the log may be about to start something.
        let behind = self.has_lease(now) && state.applied < self.must_apply;
        match self.guard {
            Guard::Off if wanted && try_now => {
                self.guard = Guard::Arming;
                self.actions.push_back(Action::Arm);
            }
            Guard::Armed if !wanted && !behind && !busy() && try_now && self.knows_all => {
                self.guard = Guard::Disarming;
                self.actions.push_back(Action::Disarm);
            }
            Guard::Off | Guard::Armed | Guard::Arming | Guard::Disarming => {}
        }
    }
}
