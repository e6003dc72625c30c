//! The fences of one Corosync cluster: which are under way, who may begin one, who joins one. Pure; it is stored as it is, so
//! that a fence goes on after a restart of the appliance.
//!
//! One node has one fence at a time, and two halves never shoot each other: who is being fenced, or has just been, has nobody
//! fenced, and nobody on whose behalf a fence goes on is fenced meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::name::MemberName;

/// A fence that hasn't seen its node off by then has failed: who still wants it asks again.
pub(super) const CUT_WITHIN: Duration = Duration::from_secs(300);
/// The same where no vote is looked at before each command: after a restart nobody knows any more whether it is still wanted.
pub(super) const TRUSTED_WITHIN: Duration = Duration::from_secs(60);
/// Power that isn't back by then is left as it is.
pub(super) const RESTORE_WITHIN: Duration = Duration::from_secs(120);
/// Whoever it was that gave a node its power back, no machine boots its cluster in less. For so long it is still off for its
/// cluster, and a result that nobody has heard is that of the failure for which it is asked for; later it may be another one.
/// For so long, too, what it asked before its power went may lie in a socket: who was fenced has nobody fenced.
const BOOTS_IN: Duration = Duration::from_secs(20);

/// An "off" that a device has, or may have, taken is carried out by then, or never.
const OFF_LANDS_WITHIN: Duration = crate::times::MOST;
/// A device that took "on" reads so by then, if it ever does. What reads off before may run a moment later.
const ON_LANDS_WITHIN: Duration = Duration::from_secs(20);

/// Fences of a Corosync cluster are rare: more than that did not follow a backup.
const NUMBERS_SKIPPED: u64 = 1 << 20;

/// All of a cluster's fences.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Docket {
    /// The number of the last one.
    last: u64,
    /// The one that is under way for a node, or was last.
    jobs: BTreeMap<MemberName, Job>,
}

/// One fence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    /// Counted from 1 in each cluster.
    pub(super) number: u64,
    /// Who asked first.
    pub(super) by: MemberName,
    /// When, milliseconds since 1970.
    pub(super) begun_ms: u64,
    /// On whose behalf: the partition that had the vote, or who asked.
    pub(super) partition: Vec<MemberName>,
    /// Whether the power shall come back.
    pub(super) then_on: bool,
    /// How far it is.
    pub(super) stage: Stage,
    /// The levels that were told "off" and may still carry it out, since they were not the ones that showed it, by this fence or
    /// an earlier one; and when they were last told, milliseconds since 1970.
    #[serde(default)]
    told_off_ms: BTreeMap<String, u64>,
    /// When the node was last seen off, by this fence or an earlier one, milliseconds since 1970.
    #[serde(default)]
    fenced_ms: Option<u64>,
    /// When the node was last told "on", by this fence or the one before, and was not seen on since; milliseconds since 1970.
    #[serde(default)]
    told_on_ms: Option<u64>,
}

/// How far a fence is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The power is being cut.
    Cutting,
    /// The power is being given (back).
    Restoring {
        /// That it was cut before; not if power is all that was asked for.
        off: Option<Off>,
    },
    /// Over.
    Over {
        /// That the power was cut; not if it is not known to have been, or if power is all that was asked for.
        off: Option<Off>,
        /// How it ended, in words.
        how: String,
        /// When, milliseconds since 1970.
        at_ms: u64,
    },
}

/// A node was seen off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Off {
    /// When, milliseconds since 1970.
    pub(super) at_ms: u64,
    /// How, in words.
    pub(super) how: String,
    /// Whether somebody who asked was told.
    pub(super) heard: bool,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Power off.
    Off {
        /// And on afterwards.
        then_on: bool,
    },
    /// Power on.
    On,
}

/// Whether a level may be told "off".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// It may be, and wasn't told yet.
    First,
    /// It may be, once more.
    Again,
    /// It may not.
    No,
}

/// What becomes of who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A fence begins.
    Opened,
    /// It waits for the one that is under way.
    Joined,
    /// The result is there: it was off, so.
    Known(String),
    /// Not now.
    Refused(String),
}

impl Docket {
    /// Without its fences. Their numbers are not used again, nor those of the fences that may have followed.
    pub(super) fn emptied(self) -> Self {
        Self { last: self.last.saturating_add(NUMBERS_SKIPPED), jobs: BTreeMap::new() }
    }

    /// The fence that is under way for a node, or was last.
    pub(super) fn get(&self, node: &MemberName) -> Option<&Job> {
        self.jobs.get(node)
    }

    /// Those under way.
    pub(super) fn active(&self) -> impl Iterator<Item = (&MemberName, &Job)> {
        self.jobs.iter().filter(|(_, job)| job.is_active())
    }

    /// What is there already for who asks: no vote is asked for again, since the one who asks is of those on whose behalf it
    /// was begun.
    pub(super) fn join(&mut self, now_ms: u64, by: &MemberName, node: &MemberName, wish: Wish) -> Option<Entry> {
        let job = self.jobs.get_mut(node)?;
        if !job.partition.contains(by) {
            return None;
        }
        match (wish, &mut job.stage) {
            (Wish::Off { then_on }, Stage::Cutting) => {
                job.then_on |= then_on;
                Some(Entry::Joined)
            }
            (Wish::Off { .. }, Stage::Restoring { off: Some(off) } | Stage::Over { off: Some(off), .. })
                if !off.heard && is_within(off.at_ms, now_ms, BOOTS_IN) =>
            {
                Some(Entry::Known(off.how.clone()))
            }
            (Wish::On, Stage::Restoring { .. }) => Some(Entry::Joined),
            (Wish::On, Stage::Cutting) => {
                Some(Entry::Refused(format!("{node} is being fenced: it can be given power afterwards")))
            }
            (Wish::Off { .. }, Stage::Restoring { .. } | Stage::Over { .. }) | (Wish::On, Stage::Over { .. }) => None,
        }
    }

    /// Begins a fence for who has the right to it, unless another stands against that.
    pub(super) fn open(
        &mut self,
        now_ms: u64,
        by: &MemberName,
        partition: Vec<MemberName>,
        node: &MemberName,
        wish: Wish,
    ) -> Entry {
        if let Some(entry) = self.join(now_ms, by, node, wish) {
            return entry;
        }
        if let Some(why) = self.against(now_ms, by, node) {
            return Entry::Refused(why);
        }
        match self.jobs.get(node).map(|job| &job.stage) {
            Some(Stage::Cutting) => return Entry::Refused(format!("{node} is being fenced for others already")),
            Some(Stage::Restoring { .. }) if wish == Wish::On => return Entry::Joined,
            // Whoever is asked off again while its power comes back is cut anew: it may run already.
            Some(Stage::Restoring { .. } | Stage::Over { .. }) | None => {}
        }
        self.last += 1;
        let (then_on, stage) = match wish {
            Wish::Off { then_on } => (then_on, Stage::Cutting),
            Wish::On => (true, Stage::Restoring { off: None }),
        };
        let mut partition = partition;
        if !partition.contains(by) {
            partition.push(by.clone());
        }
        // What an earlier fence did isn't over because another begins.
        let former = self.jobs.remove(node);
        let (told_on_ms, fenced_ms) = former.as_ref().map_or((None, None), |job| (job.told_on_ms, job.fenced_ms));
        let told_off_ms = former.map_or_else(BTreeMap::new, |job| job.told_off_ms);
        let job = Job {
            number: self.last,
            by: by.clone(),
            begun_ms: now_ms,
            partition,
            then_on,
            stage,
            told_off_ms,
            fenced_ms,
            told_on_ms,
        };
        self.jobs.insert(node.clone(), job);
        Entry::Opened
    }

    /// The fence that keeps `by` from having `node` fenced.
    fn against(&self, now_ms: u64, by: &MemberName, node: &MemberName) -> Option<String> {
        if let Some(own) = self.jobs.get(by) {
            match own.stage {
                Stage::Cutting => return Some(format!("{by} is itself being fenced, for {}", own.by)),
                Stage::Restoring { .. } | Stage::Over { .. } => {}
            }
            if own.fenced_ms.is_some_and(|at_ms| is_within(at_ms, now_ms, BOOTS_IN)) {
                return Some(format!("{by} was fenced a moment ago, for {}", own.by));
            }
            // Both would be off.
            if let Some((level, _)) =
                own.told_off_ms.iter().find(|(_, at_ms)| is_within(**at_ms, now_ms, OFF_LANDS_WITHIN))
            {
                return Some(format!(
                    "{by}/{level} was told \"off\", and may do so up to {} s later: ask again then",
                    OFF_LANDS_WITHIN.as_secs()
                ));
            }
        }
        let behalf = self
            .active()
            .find(|(other, job)| *other != node && matches!(job.stage, Stage::Cutting) && job.partition.contains(node));
        behalf.map(|(other, job)| {
            format!("{node} is of the half on whose behalf {other} is being fenced (asked for by {})", job.by)
        })
    }

    /// A node was seen off. Gives the job's number, and whether its power shall come back; `None` if that fence is over.
    pub(super) fn off(&mut self, now_ms: u64, node: &MemberName, number: u64, how: String) -> Option<bool> {
        let job = self.current(node, number)?;
        job.fenced_ms = Some(now_ms);
        let off = Off { at_ms: now_ms, how: how.clone(), heard: false };
        job.stage = if job.then_on {
            Stage::Restoring { off: Some(off) }
        } else {
            Stage::Over { off: Some(off), how, at_ms: now_ms }
        };
        Some(job.then_on)
    }

    /// A level of the node is about to be told "off". Gives whether it may be; not once the fence is over.
    pub(super) fn tells_off(&mut self, now_ms: u64, node: &MemberName, number: u64, level: &str) -> Told {
        let cutting = |job: &&mut Job| matches!(job.stage, Stage::Cutting);
        let Some(job) = self.current(node, number).filter(cutting) else { return Told::No };
        match job.told_off_ms.insert(level.to_owned(), now_ms) {
            Some(_) => Told::Again,
            None => Told::First,
        }
    }

    /// A level has carried out what it was told.
    pub(super) fn landed(&mut self, node: &MemberName, number: u64, level: &str) {
        if let Some(job) = self.current(node, number) {
            job.told_off_ms.remove(level);
        }
    }

    /// What a former process has written down is taken up. When it told a level "off" for the last time, only the first time
    /// of which is written down, is not known: up to now.
    pub(super) fn resume(&mut self, now_ms: u64) {
        for job in self.jobs.values_mut().filter(|job| matches!(job.stage, Stage::Cutting)) {
            job.told_off_ms.values_mut().for_each(|at_ms| *at_ms = now_ms);
        }
    }

    /// The node is about to be told "on". Gives whether it may be: not once another fence of it has begun.
    pub(super) fn tells_on(&mut self, now_ms: u64, node: &MemberName, number: u64) -> bool {
        let restoring = |job: &&mut Job| matches!(job.stage, Stage::Restoring { .. });
        let Some(job) = self.current(node, number).filter(restoring) else { return false };
        job.told_on_ms = Some(now_ms);
        true
    }

    /// It has its power: nothing that it was told waits to be carried out.
    pub(super) fn is_back(&mut self, node: &MemberName, number: u64) {
        if let Some(job) = self.current(node, number) {
            job.told_on_ms = None;
        }
    }

    /// A fence is over, well or not.
    pub(super) fn over(&mut self, now_ms: u64, node: &MemberName, number: u64, how: String) {
        let Some(job) = self.current(node, number) else { return };
        let off = match &mut job.stage {
            Stage::Cutting => None,
            Stage::Restoring { off } | Stage::Over { off, .. } => off.take(),
        };
        job.stage = Stage::Over { off, how, at_ms: now_ms };
    }

    /// Somebody who asked has heard that the node was off.
    pub(super) fn heard(&mut self, node: &MemberName) {
        if let Some(Stage::Restoring { off: Some(off) } | Stage::Over { off: Some(off), .. }) =
            self.jobs.get_mut(node).map(|job| &mut job.stage)
        {
            off.heard = true;
        }
    }

    /// The fences of nodes that aren't configured any more are forgotten.
    pub(super) fn retain(&mut self, is_node: impl Fn(&MemberName) -> bool) {
        self.jobs.retain(|node, _| is_node(node));
    }

    fn current(&mut self, node: &MemberName, number: u64) -> Option<&mut Job> {
        self.jobs.get_mut(node).filter(|job| job.number == number)
    }
}

impl Job {
    /// Whether it is under way.
    pub(super) fn is_active(&self) -> bool {
        match self.stage {
            Stage::Cutting | Stage::Restoring { .. } => true,
            Stage::Over { .. } => false,
        }
    }

    /// Whether a level was told "off" by this fence, and hasn't shown it.
    pub(super) fn has_told_off(&self) -> bool {
        self.told_off_ms.values().any(|at_ms| *at_ms >= self.begun_ms)
    }

    /// For how long the node may still come on by an earlier word of ours; `None`: it won't.
    pub(super) fn comes_on_within(&self, now_ms: u64) -> Option<Duration> {
        let gone = Duration::from_millis(now_ms.checked_sub(self.told_on_ms?)?);
        ON_LANDS_WITHIN.checked_sub(gone).filter(|left| !left.is_zero())
    }

    /// How much of its time is left; `None`: nothing, or nobody knows, since the clock was set back.
    pub(super) fn left(&self, now_ms: u64, trusted: bool) -> Option<Duration> {
        let (from, within) = match &self.stage {
            Stage::Cutting if trusted => (self.begun_ms, TRUSTED_WITHIN),
            Stage::Cutting => (self.begun_ms, CUT_WITHIN),
            Stage::Restoring { off: Some(off) } => (off.at_ms, RESTORE_WITHIN),
            Stage::Restoring { off: None } => (self.begun_ms, RESTORE_WITHIN),
            Stage::Over { .. } => return None,
        };
        let gone = Duration::from_millis(now_ms.checked_sub(from)?);
        within.checked_sub(gone).filter(|left| !left.is_zero())
    }
}

/// Whether what happened at `at_ms` is younger than `age`. What comes from the future isn't: the clock was set.
fn is_within(at_ms: u64, now_ms: u64, age: Duration) -> bool {
    now_ms.checked_sub(at_ms).is_some_and(|gone| Duration::from_millis(gone) < age)
}

#[cfg(test)]
mod tests;
