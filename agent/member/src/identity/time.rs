//! The time by which certificates and tokens are judged: the machine's clock, or where that was never set (it shows a
//! time before 2026) the later of it and the newest time in the cluster's log. A board without a battery boots in 1970 and
//! must still be let in, and must not accept what has expired once it has learnt better.
//!
//! A clock that was set is believed even where the log is ahead of it. The newest time in the log is the highest that any
//! member ever wrote, and never comes down: if it counted everywhere, one member whose clock was once years ahead would
//! have ended everybody's certificate for good (`docs/adr`, on trusted time).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z. No certificate of this project is older, so a clock before it has not been set.
pub const EARLIEST_PLAUSIBLE: u64 = 1_767_225_600;

/// A wall clock, handed in so that whoever judges by it can be tested at any date.
pub trait WallClock: Send + Sync {
    /// Seconds since 1970-01-01T00:00:00Z; zero when the clock stands before that.
    fn unix_seconds(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

impl<F: Fn() -> u64 + Send + Sync> WallClock for F {
    fn unix_seconds(&self) -> u64 {
        self()
    }
}

/// The newest time in the cluster's log, in seconds since 1970. It only ever rises; clones share it.
#[derive(Debug, Clone, Default)]
pub struct TimeFloor(Arc<AtomicU64>);

impl TimeFloor {
    /// A floor that starts at `seconds` since 1970.
    #[must_use]
    pub fn new(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    /// Raises the floor to `seconds`; a lower value changes nothing.
    pub fn raise(&self, seconds: u64) {
        self.0.fetch_max(seconds, Ordering::Relaxed);
    }

    /// The floor, in seconds since 1970.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time to judge certificates and tokens by, in seconds since 1970: `wall`, the clock, or where that was never set
/// the later of it and `newest`, the newest time in the cluster's log.
#[must_use]
pub const fn trusted_seconds(wall: u64, newest: u64) -> u64 {
    if wall >= EARLIEST_PLAUSIBLE || wall > newest { wall } else { newest }
}

/// A wall clock, with a floor for as long as it was never set: see [`trusted_seconds`].
#[derive(Clone)]
pub struct TrustedTime {
    wall: Arc<dyn WallClock>,
    floor: TimeFloor,
}

impl TrustedTime {
    /// Judges by `wall`, or by `floor` where that shows a time before 2026.
    #[must_use]
    pub fn new(wall: Arc<dyn WallClock>, floor: TimeFloor) -> Self {
        Self { wall, floor }
    }

    /// Seconds since 1970, as [`trusted_seconds`].
    #[must_use]
    pub fn now(&self) -> u64 {
        trusted_seconds(self.wall.unix_seconds(), self.floor.get())
    }

    /// The floor, to raise it.
    #[must_use]
    pub fn floor(&self) -> &TimeFloor {
        &self.floor
    }
}

impl fmt::Debug for TrustedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_only_rises_and_wins_over_a_clock_at_1970() {
        let floor = TimeFloor::new(100);
        floor.raise(50);
        assert_eq!(floor.get(), 100);
        let time = TrustedTime::new(Arc::new(|| 7), floor.clone());
        assert_eq!(time.now(), 100);
        floor.raise(200);
        assert_eq!(time.now(), 200);
        assert_eq!(TrustedTime::new(Arc::new(|| 300), floor).now(), 300);
    }

    #[test]
    fn row_63_a_clock_that_was_set_is_believed_though_another_members_was_years_ahead_once() {
        let (now, years_ahead) = (EARLIEST_PLAUSIBLE + 86_400, EARLIEST_PLAUSIBLE + 10 * 365 * 86_400);
        let time = TrustedTime::new(Arc::new(move || now), TimeFloor::new(years_ahead));
        assert_eq!(time.now(), now, "or nobody's certificate would be good for the next ten years");
        let unset = TrustedTime::new(Arc::new(|| EARLIEST_PLAUSIBLE - 1), TimeFloor::new(years_ahead));
        assert_eq!(unset.now(), years_ahead, "who knows nothing better goes by the log");
    }
}
