//! An external watchdog that is petted by pulses on one pin (MAX637x, TPL5010, STWD100 and the like).

use core::fmt;
use core::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;

use crate::{Capabilities, Nature, Output, Watchdog};

/// A watchdog whose timeout is fixed by its hardware, which the first pulse starts and nothing stops; or one that a
/// second pin enables, and which counts only while that is active.
pub struct PinWatchdog<P: OutputPin, D> {
    pin: Output<P>,
    enable: Option<Output<P>>,
    delay: D,
    pulse_us: u32,
    timeout: Duration,
}

impl<P: OutputPin, D: DelayNs> PinWatchdog<P, D> {
    /// A watchdog on `pin`. `timeout` is the longest that the hardware may take to fire, tolerances included; `pulse_us` is
    /// the width of a pulse that it surely sees.
    pub const fn new(pin: Output<P>, delay: D, pulse_us: u32, timeout: Duration) -> Self {
        Self { pin, enable: None, delay, pulse_us, timeout }
    }

    /// The watchdog counts only while `enable` is active (STWD100, MAX6369 by its set pins), which makes a machine boot
    /// that takes longer than the timeout. It promises nothing then: a line that its process held rests when that dies,
    /// and the watchdog with it.
    #[must_use]
    pub fn with_enable(mut self, enable: Output<P>) -> Self {
        self.enable = Some(enable);
        self
    }

    fn pulse(&mut self) -> Result<(), P::Error> {
        self.pin.set(true)?;
        self.delay.delay_us(self.pulse_us);
        self.pin.set(false)
    }
}

impl<P: OutputPin, D: DelayNs> Watchdog for PinWatchdog<P, D> {
    type Error = PinWatchdogError<P::Error>;

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            identity: "pin",
            nature: Nature::Hardware,
            magic_close: false,
            no_way_out: Some(self.enable.is_none()),
            settable: false,
        }
    }

    fn arm(&mut self, timeout: Duration) -> Result<Duration, Self::Error> {
        if self.timeout > timeout {
            // Refused before the first pulse, so the hardware stays unarmed.
            return Err(PinWatchdogError::Slower { asked: timeout, fixed: self.timeout });
        }
        if let Some(enable) = &mut self.enable {
            enable.set(true).map_err(PinWatchdogError::Pin)?;
        }
        self.pulse().map_err(PinWatchdogError::Pin)?;
        Ok(self.timeout)
    }

    fn pet(&mut self) -> Result<(), Self::Error> {
        self.pulse().map_err(PinWatchdogError::Pin)
    }

    fn disarm(&mut self) -> Result<(), Self::Error> {
        match &mut self.enable {
            Some(enable) => enable.set(false).map_err(PinWatchdogError::Pin),
            None => Err(PinWatchdogError::NoWayOut),
        }
    }
}

/// Why a pin watchdog could not do as told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinWatchdogError<E> {
    /// The hardware's fixed timeout is longer than asked for; it was not armed.
    Slower {
        /// What was asked for.
        asked: Duration,
        /// What the hardware has.
        fixed: Duration,
    },
    /// The hardware can't be stopped once it runs.
    NoWayOut,
    /// The pin could not be driven.
    Pin(E),
}

impl<E: fmt::Debug> fmt::Display for PinWatchdogError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slower { asked, fixed } => {
                write!(f, "the watchdog's fixed timeout of {fixed:?} is longer than the {asked:?} asked for")
            }
            Self::NoWayOut => f.write_str("the watchdog can't be stopped once it runs"),
            Self::Pin(error) => write!(f, "the watchdog's pin could not be driven: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for PinWatchdogError<E> {}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::Polarity;
    use crate::bench::{Bench, Broken, Line};

    const PULSE: usize = 0;
    const ENABLE: usize = 1;

    /// Notes the level of the pulse's line while it waits.
    struct Waits<'a> {
        bench: &'a Bench,
        seen: &'a Cell<Option<(bool, u32)>>,
    }

    impl DelayNs for Waits<'_> {
        fn delay_ns(&mut self, ns: u32) {
            self.seen.set(Some((self.bench.is_high(PULSE), ns)));
        }
    }

    fn dog<'a>(
        bench: &'a Bench,
        seen: &'a Cell<Option<(bool, u32)>>,
        polarity: Polarity,
    ) -> PinWatchdog<Line<'a>, Waits<'a>> {
        let pin = Output::at_rest(bench.line(PULSE), polarity).unwrap();
        PinWatchdog::new(pin, Waits { bench, seen }, 20, Duration::from_secs(2))
    }

    #[test]
    fn a_pet_is_one_pulse_of_the_given_width_that_ends_at_rest() {
        for (polarity, rest) in [(Polarity::ActiveHigh, false), (Polarity::ActiveLow, true)] {
            let (bench, seen) = (Bench::new(), Cell::new(None));
            let mut dog = dog(&bench, &seen, polarity);
            assert_eq!(dog.pet(), Ok(()));
            assert_eq!(bench.writes(PULSE), [rest, !rest, rest]);
            assert_eq!(seen.get(), Some((!rest, 20_000)));
        }
    }

    #[test]
    fn slower_hardware_than_asked_for_is_refused_before_the_first_pulse() {
        let (bench, seen) = (Bench::new(), Cell::new(None));
        let mut dog = dog(&bench, &seen, Polarity::ActiveHigh);
        let (asked, fixed) = (Duration::from_millis(1_999), Duration::from_secs(2));
        assert_eq!(dog.arm(asked), Err(PinWatchdogError::Slower { asked, fixed }));
        assert_eq!(bench.writes(PULSE), [false]);
        assert_eq!(dog.arm(Duration::from_secs(5)), Ok(fixed));
        assert_eq!(bench.writes(PULSE), [false, true, false]);
    }

    #[test]
    fn it_cannot_be_disarmed_and_therefore_promises() {
        let (bench, seen) = (Bench::new(), Cell::new(None));
        let mut dog = dog(&bench, &seen, Polarity::ActiveHigh);
        assert_eq!(dog.disarm(), Err(PinWatchdogError::NoWayOut));
        assert_eq!(dog.promise(), crate::Promise::Evidence);
        assert_eq!(bench.writes(PULSE), [false]);
    }

    #[test]
    fn an_enable_pin_starts_and_stops_it_and_takes_its_promise_away() {
        let (bench, seen) = (Bench::new(), Cell::new(None));
        let enable = Output::at_rest(bench.line(ENABLE), Polarity::ActiveHigh).unwrap();
        let mut dog = dog(&bench, &seen, Polarity::ActiveHigh).with_enable(enable);
        assert_eq!(dog.promise(), crate::Promise::None(crate::NoPromise::StopsWhenClosed));
        assert!(dog.arm(Duration::from_secs(1)).is_err());
        assert!(!bench.is_high(ENABLE), "a refusal enables nothing");
        assert_eq!(dog.arm(Duration::from_secs(2)), Ok(Duration::from_secs(2)));
        assert!(bench.is_high(ENABLE));
        bench.fail(ENABLE, true);
        assert_eq!(dog.disarm(), Err(PinWatchdogError::Pin(Broken)), "it may still count");
        bench.fail(ENABLE, false);
        assert_eq!(dog.disarm(), Ok(()));
        assert!(!bench.is_high(ENABLE));
    }

    #[test]
    fn a_pin_that_fails_is_no_pet() {
        let (bench, seen) = (Bench::new(), Cell::new(None));
        let mut dog = dog(&bench, &seen, Polarity::ActiveLow);
        bench.fail(PULSE, true);
        assert_eq!(dog.pet(), Err(PinWatchdogError::Pin(Broken)));
        assert_eq!(dog.arm(Duration::from_secs(2)), Err(PinWatchdogError::Pin(Broken)));
        assert_eq!(seen.get(), None, "no pulse began");
    }
}
