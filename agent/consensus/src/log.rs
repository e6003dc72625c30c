//! The log in memory, as the library reads it. What is here may not be durable yet: the library knows the difference.

use std::cell::Cell;
use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Snapshot, entries, and the state at start.
pub(crate) struct Log {
    start: RaftState,
    snapshot: Snapshot,
    entries: VecDeque<Entry>,
    /// A peer needs a snapshot newer than `snapshot`.
    wanted: Cell<bool>,
}

impl Log {
    pub(crate) fn new(hard_state: HardState, snapshot: Snapshot, entries: Vec<Entry>) -> Self {
        let conf: ConfState = snapshot.get_metadata().get_conf_state().clone();
        Self { start: RaftState::new(hard_state, conf), snapshot, entries: entries.into(), wanted: Cell::new(false) }
    }

    pub(crate) const fn newest_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Replaces everything by a snapshot from the leader.
    pub(crate) fn replace(&mut self, snapshot: Snapshot) {
        self.entries.clear();
        self.snapshot = snapshot;
        self.wanted.set(false);
    }

    /// Replaces the log up to the snapshot's index by it.
    pub(crate) fn compact(&mut self, snapshot: Snapshot) {
        let index = snapshot.get_metadata().index;
        self.entries.retain(|entry| entry.index > index);
        self.snapshot = snapshot;
        self.wanted.set(false);
    }

    /// Appends entries; the log is cut off before the first of them.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        while self.entries.back().is_some_and(|entry| entry.index >= first) {
            self.entries.pop_back();
        }
        self.entries.extend(entries);
    }

    /// True once after a peer turned out to need a newer snapshot.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let first = self.snapshot_index() + 1;
        if low < first {
            return Err(StorageError::Compacted.into());
        }
        let (from, to) = ((low - first) as usize, (high - first) as usize);
        if to > self.entries.len() || from > to {
            return Err(StorageError::Unavailable.into());
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0_u64;
        // At least one entry is returned whatever its size, or replication would stop at it.
        let within = |entry: &&Entry| {
            let first = size == 0;
            size = size.saturating_add(u64::from(entry.compute_size()).max(1));
            first || size <= limit
        };
        Ok(self.entries.range(from..to).take_while(within).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let base = self.snapshot_index();
        if index == base {
            return Ok(self.snapshot.get_metadata().term);
        }
        if index < base {
            return Err(StorageError::Compacted.into());
        }
        self.entries.get((index - base - 1) as usize).map(|entry| entry.term).ok_or(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot_index() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.entries.back().map_or(self.snapshot_index(), |entry| entry.index))
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let conf = self.snapshot.get_metadata().get_conf_state();
        // The receiver ignores a snapshot whose membership lacks it: a joiner needs one that is newer than its admission.
        let knows_it = conf.get_voters().contains(&to) || conf.get_learners().contains(&to);
        if self.snapshot_index() < request_index.max(1) || !knows_it {
            self.wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}
