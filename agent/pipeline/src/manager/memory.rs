//! What one look of a leader hands on to its next one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::balance::Rounds;
use crate::name::ResourceName;
use crate::time::Reading;

/// What one look of a leader hands on to its next one, in one term. A leader begins without any: it only decides how long
/// something is waited for, and nothing that keeps data safe rests on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    waits: BTreeMap<ResourceName, Wait>,
    pub(super) rounds: Rounds,
}

/// Since when something has been waited for that the same decision about a resource rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wait {
    generation: u64,
    since: Reading,
}

impl Memory {
    /// Notes in `next` that a resource is still waited for; for how long it has been, in one go and under one decision.
    pub(super) fn waits(&self, next: &mut Self, now: Reading, name: &ResourceName, generation: u64) -> Duration {
        let known = self.waits.get(name).filter(|wait| wait.generation == generation);
        let wait = known.copied().unwrap_or(Wait { generation, since: now });
        next.waits.insert(name.clone(), wait);
        now.since_at_least(wait.since)
    }
}
