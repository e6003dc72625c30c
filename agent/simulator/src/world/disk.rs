//! A member's store: batches become durable in order, some time after they were handed over, and a crash loses those
//! that weren't, or only their acknowledgement.

use std::collections::VecDeque;

use tiebreaker_consensus::{Batch, Stored};

use super::dice::{Dice, MS, US};

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) stored: Stored,
    pending: VecDeque<Batch>,
    free_at: u64,
    stalled_until: u64,
    /// Latency of one write: from, to.
    latency: (u64, u64),
}

impl Disk {
    pub(crate) fn new(stored: Stored, dice: &mut Dice) -> Self {
        let latency = dice.pick(&[(500 * US, 2 * MS), (2 * MS, 10 * MS), (10 * MS, 40 * MS)]);
        Self { stored, pending: VecDeque::new(), free_at: 0, stalled_until: 0, latency }
    }

    /// Takes a batch and tells when it will be durable.
    pub(crate) fn write(&mut self, now: u64, dice: &mut Dice, batch: Batch) -> u64 {
        self.pending.push_back(batch);
        self.free_at = self.free_at.max(now).max(self.stalled_until) + dice.between(self.latency.0, self.latency.1);
        self.free_at
    }

    /// The oldest batch is durable now: its number; or a stall came in between: when to look again.
    pub(crate) fn flush(&mut self, now: u64) -> Result<Option<u64>, u64> {
        if now < self.stalled_until {
            return Err(self.stalled_until);
        }
        Ok(self.pending.pop_front().map(|batch| {
            self.stored.write(&batch);
            batch.number
        }))
    }

    /// Everything is wiped, and this is there instead.
    pub(crate) fn replace(&mut self, stored: Stored) {
        self.lose();
        self.stored = stored;
    }

    /// Everything is gone.
    pub(crate) fn lose(&mut self) {
        self.stored = Stored::default();
        self.pending.clear();
    }

    pub(crate) fn stall(&mut self, until: u64) {
        self.stalled_until = self.stalled_until.max(until);
    }

    pub(crate) const fn heal(&mut self) {
        self.stalled_until = 0;
    }

    /// The process or the power is gone: of what was under way, some of the oldest may be durable.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> usize {
        let durable = dice.index(self.pending.len() + 1);
        for batch in self.pending.drain(..durable) {
            self.stored.write(&batch);
        }
        let lost = self.pending.len();
        self.pending.clear();
        self.free_at = 0;
        lost
    }
}
