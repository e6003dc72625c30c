//! What must outlive the process. These are wire types too: entries and snapshots cross between members.

use serde::{Deserialize, Serialize};

use crate::{Membership, RaftId, StoredError};

/// The term, the vote in it, and a lower bound of what is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// Who got this member's vote in that term.
    pub vote: Option<RaftId>,
    /// Everything up to here is committed.
    pub commit: u64,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What it carries.
    pub payload: EntryPayload,
}

/// What an entry carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum EntryPayload {
    /// Nothing: a leader's first entry.
    Empty,
    /// A command.
    Command(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Change to this membership.
    Change(Membership),
    /// End the transition that a change of several members began.
    Settle,
}

/// The whole state as of one index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The last index that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The membership as of then.
    pub membership: Membership,
    /// The state machine as of then.
    #[serde(with = "serde_bytes")]
    pub state: Vec<u8>,
}

/// How a snapshot enters the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotWrite {
    /// It replaces the log up to its index; later entries stay.
    Compact(Snapshot),
    /// It came from the leader and replaces the whole log.
    Replace(Snapshot),
}

/// What must become durable together, or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Its number: batches are written in this order.
    pub number: u64,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// A snapshot, written before the entries.
    pub snapshot: Option<SnapshotWrite>,
    /// Entries without a gap; the stored log is cut off before the first of them.
    pub entries: Vec<Entry>,
    /// True if the write must survive even a torn commit record: votes, terms, memberships, snapshots. The core above may
    /// set it for what else it holds dear.
    pub two_phase: bool,
}

/// All that a member finds after a start. The default is a joiner: it knows nothing and waits for a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// The newest snapshot.
    pub snapshot: Option<Snapshot>,
    /// The log after it, without a gap.
    pub entries: Vec<Entry>,
}

/// The state in which every first voter of a cluster starts: a snapshot at index 1 of term 1.
///
/// Term 0 doesn't exist outside a joiner, because the library below asserts that every answer to a vote has a term; and
/// a log that begins with a snapshot gives every later joiner the membership along with the state.
#[must_use]
pub fn bootstrap(members: Membership, state: Vec<u8>) -> Stored {
    Stored {
        hard_state: HardState { term: 1, vote: None, commit: 1 },
        snapshot: Some(Snapshot { index: 1, term: 1, membership: members, state }),
        entries: Vec::new(),
    }
}

/// Indexes and terms beyond this are refused: no cluster gets there, and no sum with one of them overflows.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

impl Snapshot {
    /// True if it names an index, a term and a sound membership.
    pub(crate) fn is_sound(&self) -> bool {
        (1..MAX_NUMBER).contains(&self.index) && (1..MAX_NUMBER).contains(&self.term) && self.membership.is_sound()
    }
}

impl Entry {
    /// True if it carries nothing unsound.
    pub(crate) fn is_sound(&self) -> bool {
        match &self.payload {
            EntryPayload::Change(membership) => membership.is_sound(),
            EntryPayload::Command(bytes) => !bytes.is_empty(),
            EntryPayload::Empty | EntryPayload::Settle => true,
        }
    }
}

/// True if `entries` follow `index` of `term` without a gap, in terms that never fall and never pass `max_term`.
pub(crate) fn follow_on(entries: &[Entry], index: u64, term: u64, max_term: u64) -> bool {
    let mut previous = (index, term);
    entries.iter().all(|entry| {
        let fits = entry.index == previous.0 + 1
            && entry.index < MAX_NUMBER
            && entry.term >= previous.1.max(1)
            && entry.term <= max_term
            && entry.is_sound();
        previous = (entry.index, entry.term);
        fits
    })
}

impl Stored {
    /// The last index of the log, the snapshot's if there is no entry, 0 for a joiner.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.snapshot_index(), |entry| entry.index)
    }

    /// The snapshot's index, 0 for a joiner.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index)
    }

    /// Checks that this is a state in which a member can have stopped.
    ///
    /// # Errors
    /// What doesn't fit.
    pub fn check(&self) -> Result<(), StoredError> {
        let term = self.hard_state.term;
        if term >= MAX_NUMBER {
            return Err(StoredError::TermOutOfRange { term });
        }
        let (index, snapshot_term) = match &self.snapshot {
            Some(snapshot) if !snapshot.is_sound() || snapshot.term > term => {
                return Err(StoredError::UnsoundSnapshot { index: snapshot.index, term: snapshot.term });
            }
            Some(snapshot) => (snapshot.index, snapshot.term),
            None => (0, 0),
        };
        if !follow_on(&self.entries, index, snapshot_term, term) {
            return Err(StoredError::BrokenLog { after: index });
        }
        let commit = self.hard_state.commit;
        if commit < index || commit > self.last_index() {
            return Err(StoredError::CommitOutOfRange { commit, first: index, last: self.last_index() });
        }
        if self.hard_state.vote == Some(RaftId(0)) {
            return Err(StoredError::VoteForNobody);
        }
        Ok(())
    }

    /// What is stored once `batch` is durable. A store does the same on disk.
    pub fn write(&mut self, batch: &Batch) {
        match &batch.snapshot {
            Some(SnapshotWrite::Compact(snapshot)) => {
                self.entries.retain(|entry| entry.index > snapshot.index);
                self.snapshot = Some(snapshot.clone());
            }
            Some(SnapshotWrite::Replace(snapshot)) => {
                self.entries.clear();
                self.snapshot = Some(snapshot.clone());
            }
            None => {}
        }
        if let Some(first) = batch.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&batch.entries);
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
    }
}
