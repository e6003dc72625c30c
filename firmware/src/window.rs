//! Watchdogs that also fire when they are petted too soon.

use core::fmt;
use core::time::Duration;

use crate::{BootReason, Capabilities, Moment, Promise, Watchdog};

/// A windowed watchdog: a pet that comes sooner than `earliest` after the last one resets the machine like one that
/// comes too late, so such pets are left out. Who feeds it pets at least once every (timeout − `earliest`).
pub struct Windowed<W, C> {
    inner: W,
    clock: C,
    earliest: Duration,
    petted: Option<Moment>,
}

impl<W: Watchdog, C: FnMut() -> Moment> Windowed<W, C> {
    /// `inner`, with the time between two pets that it needs at least. `clock` never goes back.
    pub const fn new(inner: W, earliest: Duration, clock: C) -> Self {
        Self { inner, clock, earliest, petted: None }
    }
}

impl<W: Watchdog, C: FnMut() -> Moment> Watchdog for Windowed<W, C> {
    type Error = WindowedError<W::Error>;

    fn capabilities(&self) -> Capabilities<'_> {
        self.inner.capabilities()
    }

    fn promise(&self) -> Promise {
        self.inner.promise()
    }

    /// Arms the watchdog and pets it, unless it was petted too short a time ago.
    fn arm(&mut self, timeout: Duration) -> Result<Duration, Self::Error> {
        let now = (self.clock)();
        if let Some(petted) = self.petted
            && now.since(petted) < self.earliest
        {
            return Err(WindowedError::TooSoon { wait: self.earliest - now.since(petted) });
        }
        let taken = self.inner.arm(timeout).map_err(WindowedError::Device)?;
        self.petted = Some((self.clock)());
        if self.earliest.saturating_mul(2) > taken {
            return Err(WindowedError::Narrow { earliest: self.earliest, latest: taken });
        }
        Ok(taken)
    }

    fn pet(&mut self) -> Result<(), Self::Error> {
        let now = (self.clock)();
        if self.petted.is_some_and(|petted| now.since(petted) < self.earliest) {
            return Ok(());
        }
        self.inner.pet().map_err(WindowedError::Device)?;
        self.petted = Some(now);
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), Self::Error> {
        self.inner.disarm().map_err(WindowedError::Device)
    }

    fn time_left(&mut self) -> Result<Option<Duration>, Self::Error> {
        self.inner.time_left().map_err(WindowedError::Device)
    }

    fn boot_reason(&mut self) -> Result<BootReason, Self::Error> {
        self.inner.boot_reason().map_err(WindowedError::Device)
    }
}

/// Why a windowed watchdog could not do as told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowedError<E> {
    /// It may not be petted again yet.
    TooSoon {
        /// It may be after this.
        wait: Duration,
    },
    /// The window is less than half of the timeout, too narrow to be met by a machine that has other things to do. The
    /// watchdog runs.
    Narrow {
        /// The time between two pets at least.
        earliest: Duration,
        /// And at most.
        latest: Duration,
    },
    /// The watchdog's own error.
    Device(E),
}

impl<E: fmt::Display> fmt::Display for WindowedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSoon { wait } => write!(f, "the watchdog was petted a moment ago: wait for {wait:?}"),
            Self::Narrow { earliest, latest } => {
                write!(f, "the watchdog wants to be petted between {earliest:?} and {latest:?}: too narrow to be met")
            }
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for WindowedError<E> {}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::bench::ms;
    use crate::pair::bench::Dog;

    #[test]
    fn pets_that_come_too_soon_are_left_out() {
        let at = Cell::new(0);
        let mut dog = Windowed::new(Dog::new(10), Duration::from_millis(900), || ms(at.get()));
        assert_eq!(dog.arm(Duration::from_secs(10)), Ok(Duration::from_secs(10)));
        for now in (100..=2_000).step_by(100) {
            at.set(now);
            dog.pet().unwrap();
        }
        // Armed at 0, petted at 900 and 1800.
        assert_eq!(dog.inner.pets, 3);
        at.set(2_100);
        assert_eq!(dog.arm(Duration::from_secs(10)), Err(WindowedError::TooSoon { wait: Duration::from_millis(600) }));
    }

    #[test]
    fn a_pet_that_failed_does_not_count() {
        let at = Cell::new(0);
        let mut dog = Windowed::new(Dog::new(10), Duration::from_secs(1), || ms(at.get()));
        dog.arm(Duration::from_secs(10)).unwrap();
        at.set(1_000);
        dog.inner.fails = true;
        assert!(dog.pet().is_err());
        dog.inner.fails = false;
        assert_eq!(dog.pet(), Ok(()));
        assert_eq!(dog.inner.pets, 2);
    }

    #[test]
    fn a_window_too_narrow_to_be_met_is_refused() {
        let mut dog = Windowed::new(Dog::new(10), Duration::from_secs(6), || ms(0));
        assert!(matches!(dog.arm(Duration::from_secs(10)), Err(WindowedError::Narrow { .. })));
    }
}
