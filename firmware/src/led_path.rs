//! Does this LED follow this machine? A wire that fell off reads dark for ever.

use core::fmt;

use crate::{Led, Moment};

/// Watches an LED while an operator, or a press, turns the machine off and on again. Only an LED that showed all of it
/// is believed when it says off: a wire that fell off, one of another machine, and firmware that keeps the LED dark all
/// fail it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedPathTest {
    step: Step,
    deadline: Moment,
}

/// What the test waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The machine is on: the LED has to be lit.
    On,
    /// The machine is turned off: the LED has to go dark for good.
    Off,
    /// The machine is started: the LED has to be lit again.
    OnAgain,
}

/// How the test stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It waits for this.
    Waiting(Step),
    /// The LED followed the machine.
    Follows,
    /// It didn't do this in time.
    Failed(Step),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "the LED isn't lit although the machine is on: is it connected, and the right way round?",
            Self::Off => "the LED stayed lit, or blinked, when the machine was turned off",
            Self::OnAgain => "the LED stayed dark when the machine was started again",
        })
    }
}

impl LedPathTest {
    /// A test that ends at the deadline.
    #[must_use]
    pub const fn new(deadline: Moment) -> Self {
        Self { step: Step::On, deadline }
    }

    /// It ends at this deadline instead: the machine may stay off for as long as somebody wants.
    pub const fn extend(&mut self, deadline: Moment) {
        self.deadline = deadline;
    }

    /// Takes what the LED says now.
    pub fn watch(&mut self, now: Moment, led: Led) -> Verdict {
        if now > self.deadline {
            return Verdict::Failed(self.step);
        }
        match (self.step, led) {
            (Step::On, Led::On(_)) => self.step = Step::Off,
            (Step::Off, Led::Off(_)) => self.step = Step::OnAgain,
            (Step::OnAgain, Led::On(_)) => return Verdict::Follows,
            (_, Led::On(_) | Led::Off(_) | Led::Blinking | Led::Unsettled) => {}
        }
        Verdict::Waiting(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ms;

    #[test]
    fn an_led_that_showed_on_off_and_on_again_is_believed() {
        let mut test = LedPathTest::new(ms(60_000));
        assert_eq!(test.watch(ms(0), Led::Unsettled), Verdict::Waiting(Step::On));
        assert_eq!(test.watch(ms(100), Led::On(ms(0))), Verdict::Waiting(Step::Off));
        assert_eq!(test.watch(ms(200), Led::Blinking), Verdict::Waiting(Step::Off));
        assert_eq!(test.watch(ms(9_000), Led::Off(ms(6_000))), Verdict::Waiting(Step::OnAgain));
        assert_eq!(test.watch(ms(20_000), Led::On(ms(19_000))), Verdict::Follows);
    }

    #[test]
    fn a_machine_may_stay_off_for_as_long_as_somebody_wants() {
        let mut test = LedPathTest::new(ms(60_000));
        test.watch(ms(0), Led::On(ms(0)));
        test.watch(ms(9_000), Led::Off(ms(6_000)));
        test.extend(Moment::at(core::time::Duration::MAX));
        assert_eq!(test.watch(ms(9_000_000), Led::Off(ms(6_000))), Verdict::Waiting(Step::OnAgain));
        test.extend(ms(9_060_000));
        assert_eq!(test.watch(ms(9_060_001), Led::Off(ms(6_000))), Verdict::Failed(Step::OnAgain));
    }

    #[test]
    fn a_wire_that_fell_off_a_stuck_led_and_one_that_stays_dark_fail_at_their_step() {
        for (seen, step) in [
            (&[Led::Off(ms(0))][..], Step::On),
            (&[Led::On(ms(0))], Step::Off),
            (&[Led::On(ms(0)), Led::Off(ms(1))], Step::OnAgain),
        ] {
            let mut test = LedPathTest::new(ms(60_000));
            for led in seen {
                assert!(matches!(test.watch(ms(10), *led), Verdict::Waiting(_)));
            }
            assert_eq!(test.watch(ms(60_001), Led::Unsettled), Verdict::Failed(step));
        }
    }
}
