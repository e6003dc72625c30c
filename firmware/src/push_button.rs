//! The one button of an appliance.

use core::time::Duration;

use embedded_hal::digital::InputPin;

use crate::{Moment, Polarity};

/// What a person did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// Pressed it and let go.
    Pressed,
    /// Held it for [`HOLD`]. It is told while the button is still down, once.
    Held,
}

/// Held for so long it means more than a press.
pub const HOLD: Duration = Duration::from_secs(5);
/// How often the button has to be looked at.
pub const BUTTON_EVERY: Duration = Duration::from_millis(20);
/// A level counts once it has held this long.
const DEBOUNCE: Duration = Duration::from_millis(40);
/// If nobody looked for this long, what was held may have been let go meanwhile.
const UNWATCHED: Duration = Duration::from_millis(500);

/// A push button. One that is down when it is first looked at is a stuck one, a short circuit or the wrong polarity:
/// it counts once it has been seen up.
pub struct PushButton<P> {
    pin: P,
    polarity: Polarity,
    looked: Option<(Moment, bool)>,
    changed: Moment,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not seen up yet.
    Unknown,
    Up,
    Down {
        since: Moment,
    },
    /// Told as held; down until it is let go.
    Told,
}

impl<P: InputPin> PushButton<P> {
    /// The button on that line; with [`Polarity::ActiveLow`] a low level means that it is down.
    pub const fn new(pin: P, polarity: Polarity) -> Self {
        Self { pin, polarity, looked: None, changed: Moment::at(Duration::ZERO), state: State::Unknown }
    }

    /// Looks at the button. To be called every [`BUTTON_EVERY`].
    ///
    /// # Errors
    /// The line can't be read; it has to be seen up again before it counts.
    pub fn poll(&mut self, now: Moment) -> Result<Option<Pushed>, P::Error> {
        let high = match self.pin.is_high() {
            Ok(high) => high,
            Err(error) => {
                self.looked = None;
                self.state = State::Unknown;
                return Err(error);
            }
        };
        let down = self.polarity.is_active(high);
        match self.looked {
            Some((at, before)) if before == down && now.since(at) <= UNWATCHED => {}
            Some((at, _)) if now.since(at) > UNWATCHED => {
                self.changed = now;
                self.state = State::Unknown;
            }
            Some(_) | None => self.changed = now,
        }
        self.looked = Some((now, down));
        if now.since(self.changed) < DEBOUNCE {
            return Ok(None);
        }
        let (state, pushed) = match (self.state, down) {
            (State::Unknown, true) => (State::Unknown, None),
            (State::Unknown | State::Up | State::Told, false) => (State::Up, None),
            (State::Up, true) => (State::Down { since: self.changed }, None),
            (State::Down { .. }, false) => (State::Up, Some(Pushed::Pressed)),
            (State::Down { since }, true) if now.since(since) >= HOLD => (State::Told, Some(Pushed::Held)),
            (state @ (State::Down { .. } | State::Told), true) => (state, None),
        };
        self.state = state;
        Ok(pushed)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::bench::{Bench, Line, ms};

    struct Finger<'a> {
        bench: &'a Bench,
        button: PushButton<Line<'a>>,
        at_ms: u64,
    }

    impl<'a> Finger<'a> {
        /// A button to ground with a pull-up: down is low.
        fn new(bench: &'a Bench, high: bool) -> Self {
            bench.set(0, high);
            Self { bench, button: PushButton::new(bench.line(0), Polarity::ActiveLow), at_ms: 0 }
        }

        fn keep(&mut self, down: bool, for_ms: u64) -> Vec<Pushed> {
            self.bench.set(0, !down);
            let until = self.at_ms + for_ms;
            let mut told = Vec::new();
            while self.at_ms < until {
                told.extend(self.button.poll(ms(self.at_ms)).unwrap());
                self.at_ms += 20;
            }
            told
        }
    }

    #[test]
    fn a_press_is_told_when_it_ends_and_a_hold_once_while_it_lasts() {
        let bench = Bench::new();
        let mut finger = Finger::new(&bench, true);
        finger.keep(false, 200);
        assert_eq!(finger.keep(true, 300), []);
        assert_eq!(finger.keep(false, 100), [Pushed::Pressed]);
        assert_eq!(finger.keep(true, 4_900), []);
        assert_eq!(finger.keep(false, 100), [Pushed::Pressed]);
        assert_eq!(finger.keep(true, 60_000), [Pushed::Held]);
        assert_eq!(finger.keep(false, 1_000), [], "letting go of a hold is no press");
        assert_eq!(finger.keep(true, 5_100), [Pushed::Held]);
    }

    #[test]
    fn bounces_are_nothing() {
        let bench = Bench::new();
        let mut finger = Finger::new(&bench, true);
        finger.keep(false, 200);
        for _ in 0..20 {
            assert_eq!(finger.keep(true, 20), []);
            assert_eq!(finger.keep(false, 20), []);
        }
        assert_eq!(finger.keep(false, 1_000), []);
    }

    #[test]
    fn a_button_that_is_down_from_the_start_holds_nothing() {
        let bench = Bench::new();
        let mut finger = Finger::new(&bench, false);
        assert_eq!(finger.keep(true, 60_000), []);
        finger.keep(false, 100);
        assert_eq!(finger.keep(true, 6_000), [Pushed::Held]);
    }

    #[test]
    fn a_hold_that_nobody_watched_is_none() {
        let bench = Bench::new();
        let mut finger = Finger::new(&bench, true);
        finger.keep(false, 200);
        finger.keep(true, 1_000);
        finger.at_ms += 6_000;
        assert_eq!(finger.keep(true, 10_000), []);
        bench.fail(0, true);
        assert!(finger.button.poll(ms(finger.at_ms)).is_err());
        bench.fail(0, false);
        assert_eq!(finger.keep(true, 10_000), []);
        finger.keep(false, 100);
        assert_eq!(finger.keep(true, 100), []);
        assert_eq!(finger.keep(false, 100), [Pushed::Pressed]);
    }
}
