//! Live moves that fail again and again: when the next one is tried, and when none is any more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::MemberName;

/// So many live moves may fail in a row; after that the resource is moved by an operator's word alone.
pub const MOVE_TRIES: u32 = 5;
/// The pause after the first failed live move; each further failure doubles it.
pub const MOVE_PAUSE: Duration = Duration::from_secs(10);

/// The live moves of a resource that failed in a row, and the last one of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailedMoves {
    /// How many.
    pub times: u32,
    /// Where the last one should have gone.
    pub to: MemberName,
    /// What went wrong with it.
    pub why: String,
    /// When it was over: the proposer's wall clock, milliseconds since 1970.
    pub at_ms: u64,
}

/// When a live move is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// At once.
    Now,
    /// After this long.
    In(Duration),
    /// Only when an operator asks for it, or the failures have been forgotten.
    Never,
}

impl FailedMoves {
    /// When the next one is tried, at this time of the wall clock. A clock that jumps costs a pause at most.
    #[must_use]
    pub fn again(&self, wall_ms: u64) -> Again {
        if self.times >= MOVE_TRIES {
            return Again::Never;
        }
        let pause = MOVE_PAUSE * 2_u32.pow(self.times.saturating_sub(1));
        match pause.checked_sub(Duration::from_millis(wall_ms.abs_diff(self.at_ms))) {
            Some(left) if !left.is_zero() => Again::In(left),
            Some(_) | None => Again::Now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::member;

    fn after(times: u32) -> FailedMoves {
        FailedMoves { times, to: member("b"), why: "the link broke".into(), at_ms: 1_000_000 }
    }

    #[test]
    fn each_failure_doubles_the_pause_and_the_last_one_ends_it() {
        let pauses: Vec<Again> = (1..=MOVE_TRIES).map(|times| after(times).again(1_000_000)).collect();
        let seconds = |s| Again::In(Duration::from_secs(s));
        assert_eq!(pauses, [seconds(10), seconds(20), seconds(40), seconds(80), Again::Never]);
        assert_eq!(after(1).again(1_009_999), Again::In(Duration::from_millis(1)));
        assert_eq!(after(1).again(1_010_000), Again::Now);
    }

    #[test]
    fn a_clock_that_went_back_makes_no_pause_longer() {
        assert_eq!(after(1).again(0), Again::Now);
        assert_eq!(after(4).again(990_000), Again::In(Duration::from_secs(70)));
    }
}
