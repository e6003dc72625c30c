//! Time as this project needs it: two clocks of one machine, read together.
//!
//! A node's right to act must end as soon as *either* clock says so, and another node's silence is proven only when
//! *both* say so: CLOCK_BOOTTIME counts suspended time but is slewed by time daemons, CLOCK_MONOTONIC_RAW is never
//! slewed but stands still while the machine is suspended. Readings of two machines are never compared.

use std::time::Duration;

/// One reading of CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW, taken together on one machine, in nanoseconds since that
/// machine's boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boottime_ns: u64,
    /// CLOCK_MONOTONIC_RAW, nanoseconds.
    pub raw_ns: u64,
}

impl Reading {
    /// A reading at which both clocks stand at `ns`: for tests and simulators whose clocks agree.
    #[must_use]
    pub const fn both(ns: u64) -> Self {
        Self { boottime_ns: ns, raw_ns: ns }
    }

    /// The reading `span` later on both clocks.
    #[must_use]
    #[inline]
    pub fn after(self, span: Duration) -> Self {
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { boottime_ns: self.boottime_ns.saturating_add(ns), raw_ns: self.raw_ns.saturating_add(ns) }
    }

    /// True as soon as *either* clock has reached `deadline`: the end of a right (a lease, a quorum lease).
    #[must_use]
    #[inline]
    pub fn reached_on_either(self, deadline: Self) -> bool {
        self.boottime_ns >= deadline.boottime_ns || self.raw_ns >= deadline.raw_ns
    }

    /// True once *both* clocks have reached `deadline`: the proof of somebody else's silence.
    #[must_use]
    #[inline]
    pub fn reached_on_both(self, deadline: Self) -> bool {
        self.boottime_ns >= deadline.boottime_ns && self.raw_ns >= deadline.raw_ns
    }

    /// Time since `earlier`, by the clock that counted most.
    #[must_use]
    #[inline]
    pub fn since_at_most(self, earlier: Self) -> Duration {
        Duration::from_nanos(
            self.boottime_ns.saturating_sub(earlier.boottime_ns).max(self.raw_ns.saturating_sub(earlier.raw_ns)),
        )
    }

    /// Time since `earlier`, by the clock that counted least.
    #[must_use]
    #[inline]
    pub fn since_at_least(self, earlier: Self) -> Duration {
        Duration::from_nanos(
            self.boottime_ns.saturating_sub(earlier.boottime_ns).min(self.raw_ns.saturating_sub(earlier.raw_ns)),
        )
    }

    /// What is left until `deadline` by the clock that reaches it first; zero once either has.
    #[must_use]
    #[inline]
    pub fn left_until(self, deadline: Self) -> Duration {
        Duration::from_nanos(
            deadline.boottime_ns.saturating_sub(self.boottime_ns).min(deadline.raw_ns.saturating_sub(self.raw_ns)),
        )
    }

    /// The later of two readings, clock by clock.
    #[must_use]
    #[inline]
    pub fn later_of(self, other: Self) -> Self {
        Self { boottime_ns: self.boottime_ns.max(other.boottime_ns), raw_ns: self.raw_ns.max(other.raw_ns) }
    }

    /// The earlier of two readings, clock by clock.
    #[must_use]
    #[inline]
    pub fn earlier_of(self, other: Self) -> Self {
        Self { boottime_ns: self.boottime_ns.min(other.boottime_ns), raw_ns: self.raw_ns.min(other.raw_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_ends_on_the_first_clock_and_silence_needs_both() {
        let deadline = Reading::both(1_000);
        let slewed = Reading { boottime_ns: 990, raw_ns: 1_001 };
        assert!(slewed.reached_on_either(deadline));
        assert!(!slewed.reached_on_both(deadline));
        assert!(Reading::both(1_000).reached_on_both(deadline));
        assert_eq!(slewed.left_until(deadline), Duration::ZERO);
    }
}
