//! The clocks of this machine: the two that leases are judged by, and a watch over the wall clock, by which nothing is
//! decided but certificates and tokens, and which people read.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::time::Reading;

use crate::identity::EARLIEST_PLAUSIBLE;

/// How often a [`WallWatch`] wants to look.
pub const LOOK_AT_WALL_EVERY: Duration = Duration::from_secs(10);
/// What counts as a jump between two looks. Slewing is far slower.
const JUMP: Duration = Duration::from_secs(60);
/// A jump is an alarm for so long: for whoever looks because something is odd. The journal keeps it.
const JUMP_ALARMS_FOR: Duration = Duration::from_secs(300);

/// CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW, read one after the other. Neither allocates nor blocks, so the watchdog's
/// feeder may call it.
#[must_use]
pub fn now() -> Reading {
    Reading {
        boottime_ns: nanoseconds(clock_gettime(ClockId::Boottime)),
        raw_ns: nanoseconds(clock_gettime(ClockId::MonotonicRaw)),
    }
}

/// The wall clock, in milliseconds since 1970; zero before that.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Timespec) -> u64 {
    // Both clocks start at zero with the machine, so neither part is ever negative.
    time.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.unsigned_abs())
}

/// What can be wrong with a wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum ClockFault {
    /// It stands before 2026, so it was never set.
    NeverSet,
    /// It went otherwise than time did.
    Jumped {
        /// By so many seconds; negative: back.
        by_s: i64,
    },
}

impl fmt::Display for ClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSet => f.write_str("its clock stands before 2026, so it was never set")?,
            Self::Jumped { by_s } => write!(f, "its clock jumped by {by_s:+} s")?,
        }
        f.write_str(
            "; certificates and tokens go by it: let NTP set it and keep it right (`timedatectl set-ntp true`, or chrony)",
        )
    }
}

/// Compares the wall clock with CLOCK_BOOTTIME, which nobody sets and which goes on while a machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallWatch {
    /// The last look.
    last: Option<(u64, Reading)>,
    /// The last jump, and when it was seen.
    jump: Option<(i64, Reading)>,
}

impl WallWatch {
    /// Looks at the wall clock (milliseconds since 1970) at `now`; what is new about it comes back.
    pub fn look(&mut self, wall_ms: u64, now: Reading) -> Option<ClockFault> {
        let Some((last_wall_ms, last)) = self.last.replace((wall_ms, now)) else {
            return (!is_set(wall_ms)).then_some(ClockFault::NeverSet);
        };
        let passed_ms = now.boottime_ns.saturating_sub(last.boottime_ns) / 1_000_000;
        let by_s = by_s(last_wall_ms.saturating_add(passed_ms), wall_ms)?;
        if !is_set(last_wall_ms) && by_s > 0 {
            // That a clock which was never set is set at last is what one waits for.
            return None;
        }
        self.jump = Some((by_s, now));
        Some(ClockFault::Jumped { by_s })
    }

    /// What is wrong as of the last look, as far as that matters at `now`.
    #[must_use]
    pub fn fault(&self, now: Reading) -> Option<ClockFault> {
        if self.last.is_some_and(|(wall_ms, _)| !is_set(wall_ms)) {
            return Some(ClockFault::NeverSet);
        }
        let (by_s, _) = self.jump.filter(|(_, seen)| now.since_at_least(*seen) < JUMP_ALARMS_FOR)?;
        Some(ClockFault::Jumped { by_s })
    }
}

const fn is_set(wall_ms: u64) -> bool {
    wall_ms / 1000 >= EARLIEST_PLAUSIBLE
}

/// By how many whole seconds a clock differs from what it should show, if that is a jump.
fn by_s(should_ms: u64, is_ms: u64) -> Option<i64> {
    let off = Duration::from_millis(should_ms.abs_diff(is_ms));
    let seconds = i64::try_from(off.as_secs()).unwrap_or(i64::MAX);
    (off >= JUMP).then_some(if is_ms < should_ms { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set clock, and two minutes after 1970.
    const SET: u64 = 1_800_000_000_000;
    const UNSET: u64 = 120_000;

    fn at(seconds: u64) -> Reading {
        Reading::both(seconds * 1_000_000_000)
    }

    #[test]
    fn both_clocks_run_and_never_step_back() {
        let first = now();
        assert!(first.boottime_ns > 0 && first.raw_ns > 0);
        for _ in 0..1_000 {
            let next = now();
            assert!(next.boottime_ns >= first.boottime_ns && next.raw_ns >= first.raw_ns);
        }
    }

    #[test]
    fn a_clock_that_goes_as_time_does_has_not_jumped() {
        let mut watch = WallWatch::default();
        // The second look comes late, the third after a slew, the fourth after a small step, the fifth after two days of
        // being suspended.
        for (wall_ms, seconds) in [(0, 0), (95_000, 95), (106_000, 105), (165_500, 115), (172_965_500, 172_915)] {
            assert_eq!(watch.look(SET + wall_ms, at(seconds)), None, "at {seconds} s");
            assert_eq!(watch.fault(at(seconds)), None);
        }
    }

    #[test]
    fn a_jump_either_way_is_told_once_and_is_a_fault_for_a_while() {
        for (wall_ms, by_s) in [(SET + 3_610_000, 3_600), (SET - 3_590_000, -3_600), (SET + 70_000, 60)] {
            let mut watch = WallWatch::default();
            assert_eq!(watch.look(SET, at(100)), None);
            let jumped = Some(ClockFault::Jumped { by_s });
            assert_eq!(watch.look(wall_ms, at(110)), jumped);
            assert_eq!(watch.look(wall_ms + 10_000, at(120)), None, "told once");
            assert_eq!(watch.fault(at(409)), jumped);
            assert_eq!(watch.fault(at(410)), None, "over");
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_a_fault_until_it_is_set() {
        let mut watch = WallWatch::default();
        assert_eq!(watch.look(UNSET, at(100)), Some(ClockFault::NeverSet));
        assert_eq!(watch.look(UNSET + 10_000, at(110)), None, "told once");
        assert_eq!(watch.fault(at(110)), Some(ClockFault::NeverSet));
        assert_eq!(watch.look(SET, at(120)), None, "that is what one waited for");
        assert_eq!(watch.fault(at(120)), None);
        // Back to where it came from is a jump, and then it isn't set again.
        assert!(matches!(watch.look(UNSET, at(130)), Some(ClockFault::Jumped { by_s: ..0 })));
        assert_eq!(watch.fault(at(1_000)), Some(ClockFault::NeverSet));
    }

    #[test]
    fn a_fault_names_the_way_out() {
        for fault in [ClockFault::NeverSet, ClockFault::Jumped { by_s: 90 }] {
            assert!(fault.to_string().contains("timedatectl set-ntp true"), "{fault}");
        }
        assert!(ClockFault::Jumped { by_s: -90 }.to_string().starts_with("its clock jumped by -90 s;"));
    }
}
