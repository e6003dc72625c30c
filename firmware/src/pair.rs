//! Two watchdogs as one: either resets the machine, so both must be fed.

use core::fmt;
use core::time::Duration;

use crate::{BootReason, Capabilities, Promise, Watchdog};

/// Two watchdogs that must both be fed, so that one that has failed unseen is made good by the other.
pub struct Pair<A, B> {
    first: A,
    second: B,
}

impl<A: Watchdog, B: Watchdog> Pair<A, B> {
    /// The two.
    pub const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Watchdog, B: Watchdog> Watchdog for Pair<A, B> {
    type Error = PairError<A::Error, B::Error>;

    /// Those of the one that promises more.
    fn capabilities(&self) -> Capabilities<'_> {
        let (first, second) = (self.first.capabilities(), self.second.capabilities());
        if worth(self.second.promise()) > worth(self.first.promise()) { second } else { first }
    }

    /// The better of both: whatever the other does, it can only reset the machine sooner.
    fn promise(&self) -> Promise {
        let (first, second) = (self.first.promise(), self.second.promise());
        if worth(second) > worth(first) { second } else { first }
    }

    /// Arms both; the shorter of their timeouts is when both have to be petted by. If the second can't be armed the first
    /// is stopped again, where it can be.
    fn arm(&mut self, timeout: Duration) -> Result<Duration, Self::Error> {
        let first = self.first.arm(timeout).map_err(PairError::First)?;
        match self.second.arm(timeout) {
            Ok(second) => Ok(first.min(second)),
            Err(error) => {
                // The first error is the one to tell; a watchdog that runs on is safe.
                let _stopped = self.first.disarm();
                Err(PairError::Second(error))
            }
        }
    }

    /// Pets both, the second also when the first fails: the machine isn't reset sooner than it must be.
    fn pet(&mut self) -> Result<(), Self::Error> {
        let (first, second) = (self.first.pet(), self.second.pet());
        first.map_err(PairError::First)?;
        second.map_err(PairError::Second)
    }

    /// Stops both. If one can't be stopped the other may be stopped already.
    fn disarm(&mut self) -> Result<(), Self::Error> {
        let (first, second) = (self.first.disarm(), self.second.disarm());
        first.map_err(PairError::First)?;
        second.map_err(PairError::Second)
    }

    fn time_left(&mut self) -> Result<Option<Duration>, Self::Error> {
        let first = self.first.time_left().map_err(PairError::First)?;
        let second = self.second.time_left().map_err(PairError::Second)?;
        // If only one tells, the other may be sooner.
        Ok(first.zip(second).map(|(first, second)| first.min(second)))
    }

    fn boot_reason(&mut self) -> Result<BootReason, Self::Error> {
        let first = self.first.boot_reason().map_err(PairError::First)?;
        let second = self.second.boot_reason().map_err(PairError::Second)?;
        Ok(match (first, second) {
            (BootReason::Watchdog, _) | (_, BootReason::Watchdog) => BootReason::Watchdog,
            (BootReason::NotSaid, other) | (other, _) => other,
        })
    }
}

fn worth(promise: Promise) -> u8 {
    match promise {
        Promise::None(_) => 0,
        Promise::Weak(_) => 1,
        Promise::Evidence => 2,
    }
}

/// Which of the two failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PairError<A, B> {
    /// The first.
    First(A),
    /// The second.
    Second(B),
}

impl<A: fmt::Display, B: fmt::Display> fmt::Display for PairError<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(error) => write!(f, "the first watchdog: {error}"),
            Self::Second(error) => write!(f, "the second watchdog: {error}"),
        }
    }
}

impl<A: fmt::Debug + fmt::Display, B: fmt::Debug + fmt::Display> core::error::Error for PairError<A, B> {}

/// A watchdog for the tests of those that wrap others.
#[cfg(test)]
pub mod bench {
    use super::{BootReason, Capabilities, Duration, Watchdog};
    use crate::Nature;
    use crate::bench::Broken;

    pub struct Dog {
        pub timeout: Duration,
        pub nature: Nature,
        pub pets: u32,
        pub armed: bool,
        pub fails: bool,
        pub left: Option<Duration>,
        pub reason: BootReason,
    }

    impl Dog {
        pub fn new(timeout_s: u64) -> Self {
            Self {
                timeout: Duration::from_secs(timeout_s),
                nature: Nature::Hardware,
                pets: 0,
                armed: false,
                fails: false,
                left: None,
                reason: BootReason::NotSaid,
            }
        }

        fn works(&self) -> Result<(), Broken> {
            if self.fails { Err(Broken) } else { Ok(()) }
        }
    }

    impl Watchdog for Dog {
        type Error = Broken;

        fn capabilities(&self) -> Capabilities<'_> {
            Capabilities {
                identity: "bench",
                nature: self.nature,
                magic_close: true,
                no_way_out: Some(false),
                settable: true,
            }
        }

        fn arm(&mut self, timeout: Duration) -> Result<Duration, Broken> {
            self.works()?;
            self.armed = true;
            self.pets += 1;
            Ok(self.timeout.min(timeout))
        }

        fn pet(&mut self) -> Result<(), Broken> {
            self.works()?;
            self.pets += 1;
            Ok(())
        }

        fn disarm(&mut self) -> Result<(), Broken> {
            self.works()?;
            self.armed = false;
            Ok(())
        }

        fn time_left(&mut self) -> Result<Option<Duration>, Broken> {
            self.works()?;
            Ok(self.left)
        }

        fn boot_reason(&mut self) -> Result<BootReason, Broken> {
            self.works()?;
            Ok(self.reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bench::Dog;
    use super::*;
    use crate::bench::Broken;
    use crate::{Nature, WeakPromise};

    const ASKED: Duration = Duration::from_secs(10);

    fn pair() -> Pair<Dog, Dog> {
        Pair::new(Dog::new(8), Dog::new(5))
    }

    #[test]
    fn both_are_armed_and_petted_and_the_shorter_time_counts() {
        let mut pair = pair();
        assert_eq!(pair.arm(ASKED), Ok(Duration::from_secs(5)));
        pair.pet().unwrap();
        assert_eq!((pair.first.pets, pair.second.pets), (2, 2));
        pair.disarm().unwrap();
        assert!(!pair.first.armed && !pair.second.armed);
    }

    #[test]
    fn one_that_fails_is_named_and_the_other_is_petted_all_the_same() {
        let mut pair = pair();
        pair.arm(ASKED).unwrap();
        pair.first.fails = true;
        assert_eq!(pair.pet(), Err(PairError::First(Broken)));
        assert_eq!(pair.second.pets, 2);
        pair.first.fails = false;
        pair.second.fails = true;
        assert_eq!(pair.pet(), Err(PairError::Second(Broken)));
        assert_eq!(pair.first.pets, 2);
    }

    #[test]
    fn half_a_pair_is_not_left_armed() {
        let mut pair = pair();
        pair.second.fails = true;
        assert_eq!(pair.arm(ASKED), Err(PairError::Second(Broken)));
        assert!(!pair.first.armed);
    }

    #[test]
    fn it_promises_what_the_better_one_promises() {
        let mut pair = pair();
        pair.first.nature = Nature::Software;
        assert_eq!(pair.promise(), Promise::Evidence);
        assert_eq!(pair.capabilities().nature, Nature::Hardware);
        pair.second.nature = Nature::Software;
        assert_eq!(pair.promise(), Promise::Weak(WeakPromise::SoftwareTimer));
    }

    #[test]
    fn the_time_left_is_known_only_if_both_tell_it() {
        let mut pair = pair();
        pair.first.left = Some(Duration::from_secs(7));
        assert_eq!(pair.time_left(), Ok(None));
        pair.second.left = Some(Duration::from_secs(3));
        assert_eq!(pair.time_left(), Ok(Some(Duration::from_secs(3))));
        assert_eq!(pair.boot_reason(), Ok(BootReason::NotSaid));
        pair.second.reason = BootReason::Watchdog;
        assert_eq!(pair.boot_reason(), Ok(BootReason::Watchdog));
    }
}
