//! Whom this process has heard: whoever was never heard may still be booting.

use std::collections::BTreeSet;
use std::time::Duration;

use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::time::Reading;

/// Without a majority for so long, the others may have lost their power together: no machine boots in less.
const BLACKOUT: Duration = Duration::from_secs(10);

/// Whom this process has heard since it started, or since it heard a majority again after a blackout.
#[derive(Clone, Debug)]
pub(super) struct Met {
    /// Since when.
    pub since: Reading,
    /// Whom.
    pub who: BTreeSet<MemberName>,
    /// Since when no majority is heard, if so.
    alone: Option<Reading>,
}

impl Met {
    pub fn new(now: Reading) -> Self {
        Self { since: now, who: BTreeSet::new(), alone: None }
    }

    /// These are heard now, and are a majority or not. What kept its power while the others lost theirs starts counting
    /// anew when they come back: one of them makes a majority, and the next may just be slower to boot.
    pub fn hear(&mut self, now: Reading, heard: &BTreeSet<MemberName>, majority: bool) {
        if majority {
            if self.alone.take().is_some_and(|alone| now.since_at_least(alone) >= BLACKOUT) {
                (self.since, self.who) = (now, BTreeSet::new());
            }
        } else {
            self.alone.get_or_insert(now);
        }
        self.who.extend(heard.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MemberName {
        text.parse().expect("a good name")
    }

    fn at(seconds: u64) -> Reading {
        Reading::both(seconds * 1_000_000_000)
    }

    #[test]
    fn row_50_who_comes_back_first_after_a_blackout_is_met_and_the_others_may_still_boot() {
        let both = BTreeSet::from([name("a"), name("b")]);
        let one = BTreeSet::from([name("a")]);
        let mut met = Met::new(at(0));
        met.hear(at(1), &both, true);
        met.hear(at(100), &BTreeSet::new(), false);
        met.hear(at(105), &BTreeSet::new(), false);
        met.hear(at(130), &one, true);
        assert_eq!((met.since, met.who), (at(130), one));
    }

    #[test]
    fn a_short_silence_is_no_blackout() {
        let one = BTreeSet::from([name("a")]);
        let mut met = Met::new(at(0));
        met.hear(at(1), &BTreeSet::from([name("a"), name("b")]), true);
        met.hear(at(100), &BTreeSet::new(), false);
        met.hear(at(109), &one, true);
        assert_eq!(met.since, at(0));
        assert!(met.who.contains(&name("b")));
        // Nor is a majority that was heard all the time.
        met.hear(at(300), &one, true);
        assert_eq!(met.since, at(0));
    }
}
