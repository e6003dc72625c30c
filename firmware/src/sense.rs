//! A machine's power LED, looked at often and believed slowly.

use core::time::Duration;

use embedded_hal::digital::InputPin;

use crate::{Moment, Polarity};

/// What the LED says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Led {
    /// It changed just now, or nobody looked for a while.
    Unsettled,
    /// Lit, since then.
    On(Moment),
    /// Dark for long enough to mean that the machine is off, since then.
    Off(Moment),
    /// It blinks: the machine sleeps, and may wake with everything that it ran.
    Blinking,
}

/// How an LED is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenseSettings {
    /// A level counts once it has held this long.
    pub debounce: Duration,
    /// An LED that is dark this long is off. Longer than the dark phase of the machine's sleep code.
    pub dark_is_off: Duration,
}

impl Default for SenseSettings {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(100), dark_is_off: Duration::from_secs(3) }
    }
}

/// How often the LED has to be looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What nobody looked at for this long may have changed meanwhile: whatever was steady begins anew.
pub const UNWATCHED: Duration = Duration::from_millis(500);
/// So many changes in [`BLINK_WINDOW`] are blinking; a machine that is switched off and on makes two.
const BLINKS: usize = 3;
/// Sleeping machines blink once in one to four seconds.
const BLINK_WINDOW: Duration = Duration::from_secs(12);

/// An LED's line, and what it has shown.
pub struct Sense<S> {
    pin: S,
    polarity: Polarity,
    settings: SenseSettings,
    /// The last look, and the level that it found.
    looked: Option<(Moment, bool)>,
    /// Since when that level holds.
    changed: Moment,
    /// The last level that held for the debounce time, and since when.
    settled: Option<(Moment, bool)>,
    /// When it settled on another level, the latest first.
    edges: [Option<Moment>; BLINKS],
}

impl<S: InputPin> Sense<S> {
    /// The LED on `pin`; with [`Polarity::ActiveLow`] a low level means that it is lit.
    pub const fn new(pin: S, polarity: Polarity, settings: SenseSettings) -> Self {
        let start = Moment::at(Duration::ZERO);
        Self { pin, polarity, settings, looked: None, changed: start, settled: None, edges: [None; BLINKS] }
    }

    /// Looks at the LED. To be called every [`LOOK_EVERY`].
    ///
    /// # Errors
    /// The line can't be read; what was seen before is forgotten, because it may change now.
    pub fn look(&mut self, now: Moment) -> Result<Led, S::Error> {
        let high = match self.pin.is_high() {
            Ok(high) => high,
            Err(error) => {
                self.forget();
                return Err(error);
            }
        };
        let lit = self.polarity.is_active(high);
        match self.looked {
            Some((at, _)) if now.since(at) > UNWATCHED => {
                self.forget();
                self.changed = now;
            }
            Some((_, before)) if before == lit => {}
            Some(_) | None => self.changed = now,
        }
        self.looked = Some((now, lit));
        if now.since(self.changed) >= self.settings.debounce && self.settled.is_none_or(|(_, before)| before != lit) {
            if self.settled.is_some() {
                self.edges.rotate_right(1);
                self.edges[0] = Some(self.changed);
            }
            self.settled = Some((self.changed, lit));
        }
        Ok(self.led(now))
    }

    /// What the LED says as of the last look.
    pub fn led(&self, now: Moment) -> Led {
        let (Some((looked, lit)), Some((since, settled))) = (self.looked, self.settled) else {
            return Led::Unsettled;
        };
        if now.since(looked) > UNWATCHED {
            return Led::Unsettled;
        }
        if self.edges[BLINKS - 1].is_some_and(|oldest| now.since(oldest) <= BLINK_WINDOW) {
            return Led::Blinking;
        }
        if lit != settled {
            return Led::Unsettled;
        }
        // A flicker that was too short to settle still breaks the dark.
        let since = since.max(self.changed);
        match settled {
            true => Led::On(since),
            false if now.since(since) >= self.settings.dark_is_off => Led::Off(since),
            false => Led::Unsettled,
        }
    }

    /// Since when the LED is dark, debounced, however short that is. Not yet off.
    pub fn dark_since(&self, now: Moment) -> Option<Moment> {
        let (looked, lit) = self.looked?;
        let (since, settled) = self.settled?;
        (now.since(looked) <= UNWATCHED && !lit && !settled).then_some(since.max(self.changed))
    }

    fn forget(&mut self) {
        self.looked = None;
        self.settled = None;
        self.edges = [None; BLINKS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Bench, Line, ms};

    fn sense(bench: &Bench) -> Sense<Line<'_>> {
        Sense::new(bench.line(0), Polarity::ActiveHigh, SenseSettings::default())
    }

    fn watch(sense: &mut Sense<Line<'_>>, from_ms: u64, to_ms: u64) -> Led {
        let mut led = Led::Unsettled;
        for at in (from_ms..=to_ms).step_by(50) {
            led = sense.look(ms(at)).unwrap();
        }
        led
    }

    #[test]
    fn lit_counts_after_the_debounce_and_dark_after_three_seconds() {
        let bench = Bench::new();
        let mut sense = sense(&bench);
        bench.set(0, true);
        assert_eq!(watch(&mut sense, 0, 50), Led::Unsettled);
        assert_eq!(watch(&mut sense, 100, 1_000), Led::On(ms(0)));
        bench.set(0, false);
        assert_eq!(watch(&mut sense, 1_050, 4_000), Led::Unsettled);
        assert_eq!(sense.dark_since(ms(4_000)), Some(ms(1_050)));
        assert_eq!(watch(&mut sense, 4_050, 4_050), Led::Off(ms(1_050)));
    }

    #[test]
    fn an_active_low_line_is_lit_when_it_is_low() {
        let bench = Bench::new();
        let mut sense = Sense::new(bench.line(0), Polarity::ActiveLow, SenseSettings::default());
        assert_eq!(watch(&mut sense, 0, 100), Led::On(ms(0)));
    }

    #[test]
    fn dark_that_nobody_watched_is_not_off() {
        let bench = Bench::new();
        let mut sense = sense(&bench);
        watch(&mut sense, 0, 2_900);
        assert_eq!(sense.look(ms(3_500)), Ok(Led::Unsettled));
        assert_eq!(watch(&mut sense, 3_550, 6_450), Led::Unsettled);
        assert_eq!(watch(&mut sense, 6_500, 6_500), Led::Off(ms(3_500)));
        assert_eq!(sense.led(ms(7_100)), Led::Unsettled, "an old look says nothing about now");
        bench.set(0, true);
        assert_eq!(watch(&mut sense, 6_550, 7_000), Led::On(ms(6_550)));
        assert_eq!(sense.look(ms(8_000)), Ok(Led::Unsettled), "it may have been dark meanwhile");
    }

    #[test]
    fn a_sleeping_machine_that_blinks_is_never_off() {
        let bench = Bench::new();
        let mut sense = sense(&bench);
        for second in 0..20 {
            bench.set(0, second % 2 == 0);
            let led = watch(&mut sense, second * 1_000, second * 1_000 + 950);
            assert!(!matches!(led, Led::Off(_)), "{second}: {led:?}");
            assert!(second < 3 || led == Led::Blinking, "{second}: {led:?}");
        }
        // Three dark seconds of a slow code are not enough right after it.
        bench.set(0, false);
        assert_eq!(watch(&mut sense, 20_000, 23_500), Led::Blinking);
        assert!(matches!(watch(&mut sense, 23_550, 40_000), Led::Off(_)));
    }

    #[test]
    fn one_short_flicker_starts_the_dark_anew() {
        let bench = Bench::new();
        let mut sense = sense(&bench);
        watch(&mut sense, 0, 2_900);
        bench.set(0, true);
        sense.look(ms(2_950)).unwrap();
        bench.set(0, false);
        assert_eq!(watch(&mut sense, 3_000, 5_900), Led::Unsettled);
        assert_eq!(watch(&mut sense, 5_950, 6_000), Led::Off(ms(3_000)));
    }

    #[test]
    fn a_line_that_can_not_be_read_makes_everything_unknown() {
        let bench = Bench::new();
        let mut sense = sense(&bench);
        assert!(matches!(watch(&mut sense, 0, 5_000), Led::Off(_)));
        bench.fail(0, true);
        assert!(sense.look(ms(5_050)).is_err());
        assert_eq!(sense.led(ms(5_050)), Led::Unsettled);
        bench.fail(0, false);
        assert_eq!(watch(&mut sense, 5_100, 8_050), Led::Unsettled);
        assert!(matches!(watch(&mut sense, 8_100, 8_150), Led::Off(_)));
    }
}
