//! A machine's clocks: CLOCK_BOOTTIME, which time daemons slew, and CLOCK_MONOTONIC_RAW, which stands still in a suspend.

use tiebreaker_pipeline::time::Reading;

/// How time passes on a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Runs,
    /// Suspended: only BOOTTIME counts on.
    Suspended,
    /// A virtual machine that its host has paused: nothing counts.
    Paused,
}

/// Both clocks, as straight lines since the last change of their rates.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    since: u64,
    base: Reading,
    flow: Flow,
    boot_ppm: i64,
    raw_ppm: i64,
}

/// Parts in a million.
const MILLION: u64 = 1_000_000;

fn rate(ppm: i64) -> u64 {
    MILLION.checked_add_signed(ppm).expect("clocks never run backwards")
}

// Both are called for every event, so the common case does without 128 bits.

fn scaled(span: u64, ppm: i64) -> u64 {
    let rate = rate(ppm);
    span.checked_mul(rate).map_or_else(
        || {
            let wide = u128::from(span) * u128::from(rate) / u128::from(MILLION);
            u64::try_from(wide).expect("a run is far shorter than 2^64 ns")
        },
        |product| product / MILLION,
    )
}

/// The shortest span of true time in which a clock of this rate counts `span`.
fn unscaled(span: u64, ppm: i64) -> u64 {
    let rate = rate(ppm);
    span.checked_mul(MILLION).map_or_else(
        || {
            let wide = (u128::from(span) * u128::from(MILLION)).div_ceil(u128::from(rate));
            u64::try_from(wide).unwrap_or(u64::MAX)
        },
        |product| product.div_ceil(rate),
    )
}

impl Clock {
    /// The clocks of a machine that boots at `now` with `up_ns` on them.
    pub(crate) const fn new(now: u64, up_ns: u64, boot_ppm: i64, raw_ppm: i64) -> Self {
        Self { since: now, base: Reading::both(up_ns), flow: Flow::Runs, boot_ppm, raw_ppm }
    }

    pub(crate) fn reading(&self, now: u64) -> Reading {
        let span = now - self.since;
        let boot = scaled(span, self.boot_ppm);
        let raw = scaled(span, self.raw_ppm);
        let (boot, raw) = match self.flow {
            Flow::Runs => (boot, raw),
            Flow::Suspended => (boot, 0),
            Flow::Paused => (0, 0),
        };
        Reading { boottime_ns: self.base.boottime_ns + boot, raw_ns: self.base.raw_ns + raw }
    }

    fn turn(&mut self, now: u64) {
        self.base = self.reading(now);
        self.since = now;
    }

    /// A time daemon changes the rate of BOOTTIME.
    pub(crate) fn slew(&mut self, now: u64, ppm: i64) {
        self.turn(now);
        self.boot_ppm = ppm;
    }

    pub(crate) fn suspend(&mut self, now: u64) {
        self.turn(now);
        self.flow = Flow::Suspended;
    }

    pub(crate) fn pause(&mut self, now: u64) {
        self.turn(now);
        self.flow = Flow::Paused;
    }

    pub(crate) fn resume(&mut self, now: u64) {
        self.turn(now);
        self.flow = Flow::Runs;
    }

    /// The true time at which either clock reaches `deadline`, if the rates stay as they are.
    pub(crate) fn when_either(&self, now: u64, deadline: Reading) -> u64 {
        self.when_either_from(now, self.reading(now), deadline)
    }

    /// The same, for who knows what the clocks say now.
    pub(crate) fn when_either_from(&self, now: u64, reading: Reading, deadline: Reading) -> u64 {
        let boot = unscaled(deadline.boottime_ns.saturating_sub(reading.boottime_ns), self.boot_ppm);
        let raw = unscaled(deadline.raw_ns.saturating_sub(reading.raw_ns), self.raw_ppm);
        let mut at = now.saturating_add(boot.min(raw));
        // Rounding of the two directions may differ by a nanosecond.
        while at < u64::MAX && self.flow == Flow::Runs && !self.reading(at).reached_on_either(deadline) {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspend_stops_one_clock_and_a_pause_both() {
        let mut clock = Clock::new(100, 1_000, 0, 0);
        clock.suspend(200);
        assert_eq!(clock.reading(300), Reading { boottime_ns: 1_200, raw_ns: 1_100 });
        clock.resume(300);
        clock.pause(400);
        assert_eq!(clock.reading(900), Reading { boottime_ns: 1_300, raw_ns: 1_200 });
    }

    #[test]
    fn long_spans_are_counted_like_short_ones() {
        for ppm in [-80_000, -1, 0, 99, 100_000] {
            let rate = u64::try_from(1_000_000 + ppm).unwrap();
            // The first one fits into 64 bits times a million, the second one doesn't.
            for span in [1_000_000_000_000, 1_000_000_000_000_000] {
                assert_eq!(scaled(span, ppm), span / 1_000_000 * rate, "{ppm}");
                assert_eq!(unscaled(scaled(span, ppm), ppm), span, "{ppm}");
            }
        }
    }

    #[test]
    fn a_deadline_is_reached_when_the_clocks_say_so() {
        let clock = Clock::new(0, 5, -80_000, 99);
        let deadline = Reading::both(1_000_000_007);
        let at = clock.when_either(0, deadline);
        assert!(clock.reading(at).reached_on_either(deadline));
        assert!(!clock.reading(at - 1).reached_on_either(deadline));
    }
}
