//! Feature levels: what `apply` means, agreed on by all before anybody counts on it.
//!
//! Two members that run different versions apply the same log. Whatever a version does differently with an entry, it does
//! only once the cluster has committed the level at which that began; and that is committed once every admitted member
//! knows it. So each change of what `apply` does gets a level of its own here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A feature level: that of a cluster is committed and only ever grows; that of a program is the highest that it knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(u32);

impl Level {
    /// That of clusters from before levels were counted, and of members that don't tell theirs.
    pub const FIRST: Self = Self(0);
    /// Live moves that fail are counted; the appliance isn't removed while a fence is open, nor anybody whose vote is needed
    /// or who may run what a disarmed cluster has forgotten; another machine takes nobody's place; members compare digests.
    pub const FAILED_MOVES_COUNT: Self = Self(1);
    /// Devices that aren't BMCs prove fences too: [`Evidence`](crate::fence::Evidence) has words for cut supplies, dark LEDs
    /// and fence agents, which an older program can't read.
    pub const SUPPLIES_PROVE: Self = Self(2);
    /// An operator can hold the switching of power: [`Settings`](crate::state::Settings) knows it, and no fencer that doesn't
    /// could be relied on.
    pub const POWER_CAN_BE_HELD: Self = Self(3);
    /// What is set to started waits until the manager has looked whether it may start where it is placed; how long failures
    /// count is a setting; the timeline tells of locks that a fence takes off.
    pub const STARTS_ARE_LOOKED_AT: Self = Self(4);
    /// The highest that this program knows.
    pub const KNOWN: Self = Self::STARTS_ARE_LOOKED_AT;

    /// A level by its number.
    #[must_use]
    pub const fn new(level: u32) -> Self {
        Self(level)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(crate) fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// This program is too old for its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the cluster has committed the feature level {committed}, and this program knows {known} at most: it would make something \
     else of the same log. Way out: update it to the version that the other members run"
)]
pub struct TooOld {
    /// What the cluster has committed.
    pub committed: Level,
    /// What the program knows.
    pub known: Level,
}
