//! What processes before this one have given, for as long as it matters.

use std::time::{Duration, Instant};

use crate::{
    cluster::Unheard,
    holder::{Remembered, believes},
    id::ClusterName,
};

/// What may still be cast of their votes.
#[derive(Clone, Debug, Default)]
pub(super) enum Past {
    /// Nothing.
    #[default]
    Over,
    /// This.
    Recent {
        remembered: Remembered,
        /// When this process began: the others had ended.
        since: Instant,
        /// When nobody casts any of it any more.
        until: Instant,
    },
}

impl Past {
    pub(super) fn new(remembered: Remembered, heartbeat_max: Duration, now: Instant) -> Self {
        let known = remembered.holders.values().map(|holder| holder.believes).max();
        let unknown = (!remembered.whole).then(|| believes(heartbeat_max));
        match known.max(unknown) {
            None => Self::Over,
            Some(longest) => Self::Recent { remembered, since: now, until: now + longest },
        }
    }

    /// Who may still cast a cluster's vote; `held` tells whether it is known of this process or another who has it.
    pub(super) fn former(&mut self, now: Instant, name: &ClusterName, held: bool) -> Option<Unheard> {
        self.forget(now);
        let Self::Recent { remembered, since, .. } = self else { return None };
        match remembered.holders.get(name) {
            Some(holder) => Some(Unheard::known(holder, *since)),
            None if remembered.whole || held => None,
            None => Some(Unheard::unknown(*since)),
        }
    }

    /// This process has given a cluster's vote itself.
    pub(super) fn superseded(&mut self, now: Instant, name: &ClusterName) {
        self.forget(now);
        if let Self::Recent { remembered, .. } = self {
            remembered.holders.remove(name);
        }
    }

    /// When nobody casts any of it any more, if that is still to come.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Over => None,
            Self::Recent { until, .. } => Some(*until),
        }
    }

    /// The same after what is over by now is forgotten.
    pub(super) fn until_after(&mut self, now: Instant) -> Option<Instant> {
        self.forget(now);
        self.until()
    }

    /// When this process began, if that still matters.
    pub(super) fn since(&self) -> Option<Instant> {
        match self {
            Self::Over => None,
            Self::Recent { since, .. } => Some(*since),
        }
    }

    /// Whether it names all who have a vote.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Over => true,
            Self::Recent { remembered, .. } => remembered.whole,
        }
    }

    fn forget(&mut self, now: Instant) {
        if let Self::Recent { until, .. } = self
            && *until <= now
        {
            *self = Self::Over;
        }
    }
}
