//! A node's end of its lease: renewals, their answers, and what it reports with them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::guard::{GUARD_TRIES, Guard};
use super::work::{Seen, Wish};
use super::{Action, Node};
use crate::name::ResourceName;
use crate::profile::{RENEW_EVERY, RENEW_RETRY};
use crate::report::{Answer, LeaseVerdict, Observed, Renew, Report, Usage};
use crate::resource::Phase;
use crate::state::State;
use crate::time::Reading;

/// Renewals whose answers may still count.
pub(super) const SENT_MAX: usize = 32;

impl Node {
    /// True while the lease holds.
    #[must_use]
    pub fn has_lease(&self, now: Reading) -> bool {
        self.lease_end.is_some_and(|end| {
            if self.config.rules.lease_ends_on_either_clock() {
                !now.reached_on_either(end)
            } else {
                now.boottime_ns < end.boottime_ns
            }
        })
    }

    /// A term that consensus has seen: grants of lower ones are void.
    pub fn saw_term(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// A renewal went to somebody who doesn't lead: ask again at once.
    pub fn renew_now(&mut self, now: Reading) {
        self.rest = None;
        self.renew_at = self.renew_at.earlier_of(now);
    }

    /// What the node reports, as of the applied state.
    #[must_use]
    pub fn report(&self, state: &State) -> Report {
        let rules = self.config.rules;
        let unguarded = self.guard_trouble.as_ref().filter(|t| self.is_unguarded() && t.tries >= GUARD_TRIES);
        let resources = state
            .resources
            .iter()
            .filter(|(_, resource)| resource.phase != Phase::Ignored)
            .map(|(name, resource)| {
                let observed = match self.work.get(name) {
                    None => Observed::Unknown { why: "not probed yet".into() },
                    Some(work) => work.observed(rules),
                };
                // It will not be started here for want of a watchdog: whoever can run it should have it.
                let observed = match (observed, unguarded) {
                    (Observed::Stopped, Some(trouble)) if Wish::of(resource, &self.config.name) == Wish::Up => {
                        Observed::Failed { why: format!("the watchdog can't be armed: {}", trouble.why) }
                    }
                    (observed, _) => observed,
                };
                (name.clone(), observed)
            })
            .collect();
        Report {
            applied: state.applied,
            resources,
            hears: self.hears.clone(),
            armed: match self.guard {
                Guard::Armed => true,
                // Nothing ran, or nothing was bound, when that began: it may be off before this is read.
                Guard::Disarming => !self.config.rules.armed_is_not_disarming(),
                Guard::Off | Guard::Arming => false,
            },
            leases_lost: self.leases_lost,
            leaving: self.leaving,
            trouble: self.guard_trouble.as_ref().map(|trouble| trouble.why.clone()),
            usage: self.used(),
        }
    }

    /// What was measured of what runs here. Of anything else, what an operation leaves for a moment says nothing.
    pub(super) fn used(&self) -> BTreeMap<ResourceName, Usage> {
        let runs = |name: &ResourceName| self.work.get(name).is_some_and(|work| work.seen == Seen::Running);
        self.usage.iter().filter(|(name, _)| runs(name)).map(|(name, usage)| (name.clone(), *usage)).collect()
    }

    pub(super) fn renew(&mut self, now: Reading, state: &State) {
        if let Some((renew, at)) = self.retry.take() {
            if now.reached_on_either(at) {
                self.actions.push_back(Action::Renew { renew, everywhere: true });
            } else {
                self.retry = Some((renew, at));
            }
        }
        if !now.reached_on_either(self.renew_at) {
            return;
        }
        self.seq += 1;
        let renew = Renew {
            seq: self.seq,
            term: self.term,
            incarnation: self.config.incarnation,
            boot: self.config.boot.clone(),
            watchdog: self.config.watchdog.clone(),
            machine: self.config.machine.clone(),
            capacity: self.config.capacity,
            booted_in_ms: self.config.booted_in_ms,
            level: self.level,
            report: self.report(state),
        };
        self.sent.insert(self.seq, now);
        while self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        self.renew_at = now.after(RENEW_EVERY);
        self.retry = Some((renew.clone(), now.after(RENEW_RETRY)));
        self.actions.push_back(Action::Renew { renew, everywhere: false });
    }

    pub(super) fn answered(&mut self, now: Reading, answer: Answer) {
        if answer.incarnation != self.config.incarnation || self.parted {
            return;
        }
        if answer.term < self.term && self.config.rules.old_terms_are_ignored() {
            return;
        }
        if let LeaseVerdict::NotLeader { .. } = answer.verdict {
            return;
        }
        self.term = self.term.max(answer.term);
        if self.retry.as_ref().is_some_and(|(renew, _)| renew.seq <= answer.seq) {
            self.retry = None;
        }
        match answer.verdict {
            LeaseVerdict::Granted { ttl_ms, commit } => {
                let Some(sent) = self.sent.get(&answer.seq) else {
                    return;
                };
                let end = sent.after(Duration::from_millis(ttl_ms));
                if !self.has_lease(now) {
                    self.lease_from = commit;
                }
                let end = self.lease_end.map_or(end, |old| old.later_of(end));
                self.refused = None;
                self.lease_end = Some(end);
                self.must_apply = self.must_apply.max(commit);
                if self.has_lease(now) {
                    self.had_lease = true;
                    self.actions.push_back(Action::Extend(end));
                }
            }
            LeaseVerdict::Refused { why } => self.refused = Some(why),
            LeaseVerdict::NotLeader { .. } => {}
        }
    }
}
