//! A machine's watchdog, which the kernel runs, and the agent's thread that pets it.

use tiebreaker_pipeline::time::Reading;

use super::dice::{Dice, MS, SEC};

/// The device. It counts by itself: what happens to the processes doesn't reach it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    armed: bool,
    timeout: u64,
    /// Its own clock is that much off.
    ppm: i64,
    pub(crate) fires_at: Option<u64>,
}

impl Watchdog {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let ppm = i64::try_from(dice.below(10_000)).expect("small") - 5_000;
        Self { armed: false, timeout: 0, ppm, fires_at: None }
    }

    pub(crate) const fn is_armed(&self) -> bool {
        self.armed
    }

    pub(crate) const fn timeout(&self) -> u64 {
        self.timeout
    }

    pub(crate) fn arm(&mut self, now: u64, timeout: u64) {
        self.armed = true;
        self.timeout = timeout;
        self.pet(now);
    }

    pub(crate) const fn disarm(&mut self) {
        self.armed = false;
        self.fires_at = None;
    }

    pub(crate) fn pet(&mut self, now: u64) {
        if self.armed {
            let timeout = i128::from(self.timeout);
            let off = timeout * i128::from(self.ppm) / 1_000_000;
            self.fires_at = Some(now + u64::try_from(timeout + off).expect("half a percent of it stays positive"));
        }
    }

    /// The device stood still for `span`, as one does in a paused virtual machine.
    pub(crate) fn stood_still(&mut self, span: u64) {
        if let Some(at) = &mut self.fires_at {
            *at += span;
        }
    }
}

/// The thread that pets: it looks at the end of the lease, then pets. In between it may be stopped.
#[derive(Debug, Default)]
pub(crate) struct Petter {
    pub(crate) runs: bool,
    pub(crate) lease_end: Option<Reading>,
}

impl Petter {
    /// Time between two pets of a device with this timeout.
    pub(crate) fn interval(timeout: u64) -> u64 {
        (timeout / 4).clamp(50 * MS, SEC / 2)
    }
}
