//! Three LEDs that tell at a glance how it stands.
//!
//! | LED | dark | lit | slow | fast | counted |
//! |---|---|---|---|---|---|
//! | quorum | the appliance doesn't run | every cluster has all of its members | a majority is there, and a member is missing | no majority | |
//! | fence | nothing | fencing is held | | a fence is under way | 2: a fence failed and waits for a person |
//! | fault | nothing | | | | 1: a power device isn't proven, 2: something else asks for a person, 3: the appliance doesn't answer itself |
//!
//! Slow is half a second on and off, fast an eighth. Counted is so many short flashes and a pause.

use core::time::Duration;

use embedded_hal::digital::OutputPin;

use crate::{Moment, Output};

/// How an LED shows something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Dark.
    Dark,
    /// Lit.
    Lit,
    /// Half a second on, half a second off.
    Slow,
    /// An eighth of a second on, an eighth off.
    Fast,
    /// So many flashes, then a pause.
    Counted(u8),
}

const SLOW_MS: u64 = 500;
const FAST_MS: u64 = 125;
/// One flash of a count, and the dark after it.
const FLASH_MS: u64 = 200;
/// The dark between two counts, beside the one after the last flash.
const PAUSE_MS: u64 = 1_200;

impl Pattern {
    /// Whether the LED is lit that long after the pattern began, and for how long that stays so; `None` for ever.
    #[must_use]
    pub fn at(self, shown: Duration) -> (bool, Option<Duration>) {
        let ms = u64::try_from(shown.as_millis()).unwrap_or(u64::MAX);
        let (lit, left_ms) = match self {
            Self::Dark | Self::Counted(0) => return (false, None),
            Self::Lit => return (true, None),
            Self::Slow => half(ms, SLOW_MS),
            Self::Fast => half(ms, FAST_MS),
            Self::Counted(count) => {
                let flashes = u64::from(count) * 2 * FLASH_MS;
                let place = ms % (flashes + PAUSE_MS);
                if place < flashes { half(place, FLASH_MS) } else { (false, flashes + PAUSE_MS - place) }
            }
        };
        (lit, Some(Duration::from_millis(left_ms)))
    }
}

fn half(ms: u64, half_ms: u64) -> (bool, u64) {
    ((ms / half_ms).is_multiple_of(2), half_ms - ms % half_ms)
}

/// What the quorum LED tells, of the worst cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Quorum {
    /// All members are there.
    Whole,
    /// A majority is.
    Majority,
    /// None is.
    Lost,
}

/// What the fence LED tells; the last one that holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fencing {
    /// Nothing is being fenced.
    Idle,
    /// A fence is under way.
    UnderWay,
    /// A fence failed and waits for a person.
    Failed,
    /// All fencing is held.
    Held,
}

/// What the fault LED tells; the last one that holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// All is well.
    None,
    /// A power device isn't proven.
    Device,
    /// Something else asks for a person.
    Alarm,
    /// The appliance doesn't answer itself.
    Silent,
}

impl From<Quorum> for Pattern {
    fn from(quorum: Quorum) -> Self {
        match quorum {
            Quorum::Whole => Self::Lit,
            Quorum::Majority => Self::Slow,
            Quorum::Lost => Self::Fast,
        }
    }
}

impl From<Fencing> for Pattern {
    fn from(fencing: Fencing) -> Self {
        match fencing {
            Fencing::Idle => Self::Dark,
            Fencing::UnderWay => Self::Fast,
            Fencing::Failed => Self::Counted(2),
            Fencing::Held => Self::Lit,
        }
    }
}

impl From<Fault> for Pattern {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::None => Self::Dark,
            Fault::Device => Self::Counted(1),
            Fault::Alarm => Self::Counted(2),
            Fault::Silent => Self::Counted(3),
        }
    }
}

/// One LED.
pub struct Indicator<P: OutputPin> {
    output: Output<P>,
    pattern: Pattern,
    since: Moment,
    lit: Option<bool>,
}

impl<P: OutputPin> Indicator<P> {
    /// A dark LED on that line.
    pub const fn new(output: Output<P>) -> Self {
        Self { output, pattern: Pattern::Dark, since: Moment::at(Duration::ZERO), lit: None }
    }

    /// Shows something from now on. Said again, a pattern goes on where it is.
    pub fn show(&mut self, now: Moment, pattern: Pattern) {
        if pattern != self.pattern {
            self.pattern = pattern;
            self.since = now;
        }
    }

    /// Drives the line as the pattern says.
    ///
    /// # Errors
    /// The line could not be driven; the next poll tries again.
    pub fn poll(&mut self, now: Moment) -> Result<(), P::Error> {
        let (lit, _) = self.pattern.at(now.since(self.since));
        if self.lit != Some(lit) {
            self.lit = None;
            self.output.set(lit)?;
            self.lit = Some(lit);
        }
        Ok(())
    }

    /// When to poll next; `None` if the LED doesn't change by itself.
    pub fn poll_at(&self, now: Moment) -> Option<Moment> {
        self.pattern.at(now.since(self.since)).1.map(|left| now.after(left))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::String;

    use super::*;
    use crate::Polarity;
    use crate::bench::{Bench, ms};

    /// What a pattern looks like, by eighths of a second at 125 ms or by another step.
    fn seen(pattern: Pattern, step_ms: u64, steps: u64) -> String {
        (0..steps).map(|step| if pattern.at(Duration::from_millis(step * step_ms)).0 { '#' } else { '.' }).collect()
    }

    #[test]
    fn each_pattern_looks_as_documented() {
        assert_eq!(seen(Pattern::Dark, 125, 8), "........");
        assert_eq!(seen(Pattern::Lit, 125, 8), "########");
        assert_eq!(seen(Pattern::Slow, 125, 16), "####....####....");
        assert_eq!(seen(Pattern::Fast, 125, 8), "#.#.#.#.");
        assert_eq!(seen(Pattern::Counted(1), 200, 16), "#.......#.......");
        assert_eq!(seen(Pattern::Counted(3), 200, 24), "#.#.#.......#.#.#.......");
        assert_eq!(seen(Pattern::Counted(0), 200, 4), "....");
    }

    #[test]
    fn polling_when_told_misses_no_change() {
        for pattern in [Pattern::Slow, Pattern::Fast, Pattern::Counted(2), Pattern::Counted(7)] {
            let mut at = Duration::ZERO;
            while at < Duration::from_secs(10) {
                let (lit, left) = pattern.at(at);
                let left = left.unwrap();
                assert_eq!(pattern.at(at + left - Duration::from_millis(1)).0, lit, "{pattern:?} at {at:?}");
                at += left;
            }
        }
    }

    #[test]
    fn different_states_look_different() {
        let fencing = [Fencing::Idle, Fencing::UnderWay, Fencing::Failed, Fencing::Held].map(Pattern::from);
        let quorum = [Quorum::Whole, Quorum::Majority, Quorum::Lost].map(Pattern::from);
        let fault = [Fault::None, Fault::Device, Fault::Alarm, Fault::Silent].map(Pattern::from);
        for patterns in [&fencing[..], &quorum, &fault] {
            for (place, one) in patterns.iter().enumerate() {
                assert!(!patterns[..place].contains(one), "{one:?}");
            }
        }
        assert!(!quorum.contains(&Pattern::Dark), "dark means that the appliance doesn't run");
    }

    #[test]
    fn the_line_is_driven_at_changes_alone_and_again_after_a_failure() {
        let bench = Bench::new();
        let output = Output::at_rest(bench.line(0), Polarity::ActiveLow).unwrap();
        let mut led = Indicator::new(output);
        led.show(ms(0), Pattern::Slow);
        for at in (0..2_000).step_by(50) {
            led.show(ms(at), Pattern::Slow);
            led.poll(ms(at)).unwrap();
        }
        // Rest, then on and off twice; the line is active low.
        assert_eq!(bench.writes(0), [true, false, true, false, true]);
        bench.fail(0, true);
        led.poll(ms(2_000)).unwrap_err();
        bench.fail(0, false);
        led.poll(ms(2_050)).unwrap();
        assert!(!bench.is_high(0));
        drop(led);
        assert!(bench.is_high(0), "dark means that the appliance doesn't run");
    }
}
