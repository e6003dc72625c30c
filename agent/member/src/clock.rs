//! The two clocks of this machine that leases are judged by.

use rustix::time::{ClockId, Timespec, clock_gettime};
use tiebreaker_pipeline::time::Reading;

/// CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW, read one after the other. Neither allocates nor blocks, so the watchdog's
/// feeder may call it.
#[must_use]
pub fn now() -> Reading {
    Reading {
        boottime_ns: nanoseconds(clock_gettime(ClockId::Boottime)),
        raw_ns: nanoseconds(clock_gettime(ClockId::MonotonicRaw)),
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    // Both clocks start at zero with the machine, so neither part is ever negative.
    time.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run_and_never_step_back() {
        let first = now();
        assert!(first.boottime_ns > 0 && first.raw_ns > 0);
        for _ in 0..1_000 {
            let next = now();
            assert!(next.boottime_ns >= first.boottime_ns && next.raw_ns >= first.raw_ns);
        }
    }
}
