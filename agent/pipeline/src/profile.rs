//! The three profiles: every time that the pipeline waits for, in one table.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Ticks between two heartbeats of the leader.
pub const HEARTBEAT_TICKS: u32 = 4;
/// Ticks of the shortest election timeout.
pub const ELECTION_TICKS_MIN: u32 = 16;
/// A node asks for its lease this often, whatever the profile.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);
/// An unanswered renewal is sent again, over every path, after this time.
pub const RENEW_RETRY: Duration = Duration::from_millis(250);
/// Added to every bound that proves silence: scheduling on the other machine.
pub const SILENCE_MARGIN: Duration = Duration::from_millis(500);

/// A set of times. A profile changes the length of a tick, never the counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For a quiet network and hardware watchdogs.
    Fast,
    /// The default.
    #[default]
    Balanced,
    /// For loaded or slow networks.
    Patient,
}

impl Profile {
    /// All profiles, quickest first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Patient];

    /// The length of a consensus tick.
    #[must_use]
    pub const fn tick(self) -> Duration {
        match self {
            Self::Fast => Duration::from_millis(25),
            Self::Balanced => Duration::from_micros(62_500),
            Self::Patient => Duration::from_millis(125),
        }
    }

    /// How long a grant lets a node run resources, counted from the node's own send time.
    #[must_use]
    pub const fn lease(self) -> Duration {
        match self {
            Self::Fast => Duration::from_secs(3),
            Self::Balanced => Duration::from_secs(5),
            Self::Patient => Duration::from_secs(15),
        }
    }

    /// A node that renewed nothing for this long is taken for lost.
    #[must_use]
    pub const fn lost_after(self) -> Duration {
        match self {
            Self::Fast => Duration::from_millis(1500),
            Self::Balanced => Duration::from_secs(2),
            Self::Patient => Duration::from_secs(6),
        }
    }

    /// The promised watchdog time: whatever a node ran is gone this long after its lease. The device runs at half of it.
    #[must_use]
    pub const fn watchdog(self) -> Duration {
        match self {
            Self::Fast => Duration::from_secs(4),
            Self::Balanced => Duration::from_secs(10),
            Self::Patient => Duration::from_secs(60),
        }
    }

    /// The longest a leader may believe in its majority after the last acknowledged send: 3/4 of the shortest election
    /// timeout.
    #[must_use]
    pub const fn quorum_lease(self) -> Duration {
        Duration::from_micros(self.tick().as_micros() as u64 * ELECTION_TICKS_MIN as u64 * 3 / 4)
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Patient => "patient",
        })
    }
}

impl std::str::FromStr for Profile {
    type Err = ProfileError;
    fn from_str(text: &str) -> Result<Self, ProfileError> {
        Self::ALL.into_iter().find(|p| p.to_string() == text).ok_or_else(|| ProfileError(text.to_owned()))
    }
}

/// A text that names no profile.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no profile {0:?}; the profiles are fast, balanced and patient")]
pub struct ProfileError(pub String);

/// How long after the end of its last possible lease a node that keeps its watchdog promise is certainly silent: the
/// promise, 1 % of the whole for clocks that disagree, and [`SILENCE_MARGIN`].
#[must_use]
pub fn silence_after_lease(lease: Duration, watchdog: Duration) -> Duration {
    watchdog + (lease + watchdog) / 100 + SILENCE_MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_fit_the_leases() {
        for profile in Profile::ALL {
            let election_max = profile.tick() * 24;
            // The worst measured gap without a leader is below two and a half of the longest election timeouts.
            assert!(profile.lease() > election_max * 2 + RENEW_EVERY, "{profile}");
            assert!(profile.quorum_lease() < profile.tick() * ELECTION_TICKS_MIN, "{profile}");
            assert!(profile.lost_after() > RENEW_EVERY * 2 + RENEW_RETRY, "{profile}");
        }
    }

    #[test]
    fn recovery_by_time_keeps_its_promise() {
        let within = [10, 17, 80];
        for (profile, seconds) in Profile::ALL.into_iter().zip(within) {
            let bound = profile.lease() + silence_after_lease(profile.lease(), profile.watchdog());
            assert!(bound <= Duration::from_secs(seconds), "{profile}: {bound:?}");
        }
    }
}
