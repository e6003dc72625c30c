//! Who takes part.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The number of a voter or learner. Never zero, never used twice in the life of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RaftId(pub u64);

/// Who votes, who only listens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Members whose acknowledgement counts.
    pub voters: BTreeSet<RaftId>,
    /// Members that receive the log and don't count.
    pub learners: BTreeSet<RaftId>,
}

impl Membership {
    /// A membership of these voters and no learner.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = RaftId>) -> Self {
        Self { voters: voters.into_iter().collect(), learners: BTreeSet::new() }
    }

    /// True if `id` votes or listens.
    #[must_use]
    pub fn contains(&self, id: RaftId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// True if somebody votes, nobody has the number zero, and nobody is both a voter and a learner.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.voters.is_empty()
            && self.voters.is_disjoint(&self.learners)
            && !self.voters.contains(&RaftId(0))
            && !self.learners.contains(&RaftId(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_without_voters_or_with_a_double_part_is_unsound() {
        let sound = Membership::of_voters([RaftId(1), RaftId(2)]);
        assert!(sound.is_sound());
        assert!(!Membership::default().is_sound());
        let mut both = sound.clone();
        both.learners.insert(RaftId(2));
        assert!(!both.is_sound());
        let mut zero = sound;
        zero.voters.insert(RaftId(0));
        assert!(!zero.is_sound());
    }
}
