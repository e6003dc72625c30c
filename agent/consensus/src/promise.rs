//! What a member has told its peers that it holds durably, and whether it still does (row 52 of docs/safety.md).
//!
//! A disk that loses what it reported as written makes a member forget a vote or an acknowledgement, and nothing on the
//! member itself shows it. Its peers may remember: so every message carries the sender's promise, and a starting member
//! asks them for the greatest one that they heard.
//!
//! A promise is ordered by its term first: whoever knows a later term durably knew everything before it durably, because
//! batches are written in order and each as a whole. Within a term a member's log only grows, since one leader writes it.

use serde::{Deserialize, Serialize};

use crate::{RaftId, Stored};

/// What a member holds durably and has acted upon. A wire type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// The newest term that it knows.
    pub term: u64,
    /// Its vote in that term.
    pub vote: Option<RaftId>,
    /// The last index that it has acknowledged in that term, or that counts for a commit where it leads itself; zero if
    /// there is none.
    pub index: u64,
    /// The term of that entry.
    pub log_term: u64,
}

impl Promise {
    /// Both together: what a peer remembers after it heard one after the other, in any order.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        if self.term != other.term {
            return if self.term > other.term { self } else { other };
        }
        let longer = if self.index >= other.index { self } else { other };
        let vote = if self.vote.is_some() { self.vote } else { other.vote };
        Self { vote, ..longer }
    }
}

/// A member promised more than it knew when it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Forgotten {
    /// The term is unknown to it.
    #[error("it once knew term {told}, but its store ended at term {known}")]
    Term {
        /// The term that it told.
        told: u64,
        /// The newest term in its store.
        known: u64,
    },
    /// The vote is.
    #[error("it voted for member #{} in term {term}, but its store knows nothing of that", told.0)]
    Vote {
        /// The term.
        term: u64,
        /// Who got the vote.
        told: RaftId,
    },
    /// The entry is.
    #[error(
        "it acknowledged entry {told} of term {log_term}, but its store ended at entry {known} or holds another one"
    )]
    Entry {
        /// The index that it acknowledged.
        told: u64,
        /// The term of that entry.
        log_term: u64,
        /// The last index in its store.
        known: u64,
    },
}

/// What the store held when the member started.
#[derive(Clone, Debug)]
pub(crate) struct AtStart {
    term: u64,
    vote: Option<RaftId>,
    snapshot: u64,
    last: u64,
    /// Where each term of the log begins, from the snapshot on.
    terms: Vec<(u64, u64)>,
}

impl AtStart {
    pub(crate) fn of(stored: &Stored) -> Self {
        let mut terms: Vec<(u64, u64)> = Vec::new();
        let snapshot = stored.snapshot.as_ref().map(|snapshot| (snapshot.index, snapshot.term));
        for (index, term) in snapshot.into_iter().chain(stored.entries.iter().map(|entry| (entry.index, entry.term))) {
            if terms.last().is_none_or(|(_, last)| *last != term) {
                terms.push((index, term));
            }
        }
        Self {
            term: stored.hard_state.term,
            vote: stored.hard_state.vote,
            snapshot: stored.snapshot_index(),
            last: stored.last_index(),
            terms,
        }
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        let after = self.terms.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).and_then(|at| self.terms.get(at)).map(|(_, term)| *term)
    }

    /// Whether this member knew what it had promised.
    pub(crate) fn knew(&self, told: Promise) -> Result<(), Forgotten> {
        if told.term > self.term {
            return Err(Forgotten::Term { told: told.term, known: self.term });
        }
        if told.term < self.term {
            return Ok(());
        }
        if let Some(vote) = told.vote
            && self.vote != Some(vote)
        {
            return Err(Forgotten::Vote { term: told.term, told: vote });
        }
        // What the snapshot replaced was committed, and is in it.
        let held = told.index < self.snapshot.max(1)
            || (told.index <= self.last && self.term_at(told.index) == Some(told.log_term));
        if held {
            Ok(())
        } else {
            Err(Forgotten::Entry { told: told.index, log_term: told.log_term, known: self.last })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, EntryPayload, HardState, Membership, bootstrap};

    fn stored() -> Stored {
        let mut stored = bootstrap(Membership::of_voters([RaftId(1), RaftId(2)]), Vec::new());
        stored.hard_state = HardState { term: 5, vote: Some(RaftId(2)), commit: 1 };
        stored.entries =
            [(2, 3), (3, 3), (4, 5)].map(|(index, term)| Entry { index, term, payload: EntryPayload::Empty }).to_vec();
        stored
    }

    #[test]
    fn row_52_what_was_promised_beyond_the_store_was_forgotten() {
        let knew = AtStart::of(&stored());
        let held = Promise { term: 5, vote: Some(RaftId(2)), index: 4, log_term: 5 };
        for index in 0..=4 {
            let log_term = [0, 1, 3, 3, 5][usize::try_from(index).expect("small")];
            assert_eq!(knew.knew(Promise { index, log_term, ..held }), Ok(()), "entry {index}");
        }
        assert_eq!(knew.knew(Promise { vote: None, ..held }), Ok(()));
        let forgot = |told: Promise| knew.knew(told).expect_err("more than it knows");
        assert!(matches!(forgot(Promise { term: 6, ..held }), Forgotten::Term { told: 6, known: 5 }));
        assert!(matches!(forgot(Promise { vote: Some(RaftId(1)), ..held }), Forgotten::Vote { term: 5, .. }));
        assert!(matches!(forgot(Promise { index: 5, ..held }), Forgotten::Entry { told: 5, known: 4, .. }));
        assert!(matches!(forgot(Promise { index: 3, log_term: 4, ..held }), Forgotten::Entry { .. }), "another entry");
    }

    #[test]
    fn row_52_a_later_term_in_the_store_covers_every_promise_of_an_earlier_one() {
        // The entry was cut off by the leader of a later term, which is no loss.
        let told = Promise { term: 4, vote: Some(RaftId(1)), index: 90, log_term: 4 };
        assert_eq!(AtStart::of(&stored()).knew(told), Ok(()));
    }

    #[test]
    fn row_52_a_peer_remembers_the_greatest_of_what_it_heard_in_any_order() {
        let early = Promise { term: 4, vote: Some(RaftId(1)), index: 90, log_term: 4 };
        let voted = Promise { term: 5, vote: Some(RaftId(2)), index: 0, log_term: 0 };
        let acked = Promise { term: 5, vote: None, index: 7, log_term: 5 };
        let all = Promise { term: 5, vote: Some(RaftId(2)), index: 7, log_term: 5 };
        assert_eq!(early.and(voted).and(acked), all);
        assert_eq!(acked.and(voted).and(early), all);
    }
}
