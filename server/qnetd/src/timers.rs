//! All timers of all clients, in one table.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::id::ClientId;

/// What runs out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// The time without a message after which a client counts as dead.
    Dead,
    /// The time for a sign of life.
    Answer,
    /// The algorithm's own.
    Algorithm,
    /// The time in which a client must have joined a cluster.
    Join,
}

impl Timer {
    const ALL: [Self; 4] = [Self::Dead, Self::Answer, Self::Algorithm, Self::Join];
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    set: BTreeMap<(ClientId, Timer), Instant>,
    queue: BTreeSet<(Instant, ClientId, Timer)>,
}

impl Timers {
    /// Sets a timer, in place of the same one set before.
    pub(crate) fn set(&mut self, client: ClientId, timer: Timer, at: Instant) {
        if let Some(before) = self.set.insert((client, timer), at) {
            self.queue.remove(&(before, client, timer));
        }
        self.queue.insert((at, client, timer));
    }

    /// When a timer runs out, if it is set.
    pub(crate) fn at(&self, client: ClientId, timer: Timer) -> Option<Instant> {
        self.set.get(&(client, timer)).copied()
    }

    pub(crate) fn is_set(&self, client: ClientId, timer: Timer) -> bool {
        self.set.contains_key(&(client, timer))
    }

    pub(crate) fn cancel(&mut self, client: ClientId, timer: Timer) {
        if let Some(at) = self.set.remove(&(client, timer)) {
            self.queue.remove(&(at, client, timer));
        }
    }

    pub(crate) fn cancel_all(&mut self, client: ClientId) {
        for timer in Timer::ALL {
            self.cancel(client, timer);
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _, _)| *at)
    }

    /// Takes one that has run out, with when that was.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, ClientId, Timer)> {
        let (at, client, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.set.remove(&(client, timer));
        Some((at, client, timer))
    }
}
