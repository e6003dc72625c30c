//! A machine's power button, pressed through an optocoupler, with its power LED as the witness.

use core::fmt;
use core::time::Duration;

use embedded_hal::digital::{InputPin, OutputPin};

use crate::sense::{LOOK_EVERY, UNWATCHED};
use crate::{Led, Moment, Output, Sense};

/// What a press is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Press {
    /// A short press that asks the operating system to shut down. It may not listen.
    ShutDown,
    /// Held until the machine is dark, which no software can prevent.
    PowerOff,
    /// A short press that starts a machine that is off.
    Start,
}

/// Times of presses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtxSettings {
    /// How long a short press lasts.
    pub short: Duration,
    /// How long a press that takes the power lasts at least. ACPI knows four seconds.
    pub least: Duration,
    /// How long it lasts at most; some firmware needs ten seconds.
    pub most: Duration,
    /// Nothing is pressed again for this long.
    pub rest: Duration,
}

impl Default for AtxSettings {
    fn default() -> Self {
        Self {
            short: Duration::from_millis(200),
            least: Duration::from_millis(4_500),
            most: Duration::from_secs(12),
            rest: Duration::from_secs(1),
        }
    }
}

/// The LED must be dark this long before the button is let go: the dark phase of a blink is shorter, and a press that
/// ended in it would only wake the machine.
const DARK_BEFORE_RELEASE: Duration = Duration::from_secs(1);

/// How a press ended. In every case the button was let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Released {
    /// What it was for.
    pub press: Press,
    /// How long it was held.
    pub held: Duration,
    /// Why it ended.
    pub end: End,
}

/// Why a press ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A short press had lasted its time.
    Short,
    /// The LED went dark after this long. Whether the machine is off is what the LED goes on to say.
    WentDark(Duration),
    /// It was held as long as allowed, and the LED is still lit.
    StillLit,
    /// Nobody polled for too long: an unwatched button is let go.
    Unwatched,
    /// The LED could not be read any more.
    Blind,
    /// It was taken back.
    Cancelled,
}

/// The button and the LED of one machine.
///
/// The button is let go by [`AtxButton::poll`] when its time is up, by a late poll whatever the time, and by dropping
/// this. The kernel lets go of it when the process dies, where it is set up to.
pub struct AtxButton<B: OutputPin, S> {
    button: Output<B>,
    sense: Sense<S>,
    settings: AtxSettings,
    state: State,
    polled: Moment,
    learned: Option<Duration>,
}

#[derive(Clone, Copy)]
enum State {
    Ready,
    Pressed {
        press: Press,
        since: Moment,
    },
    /// It could not be let go and is tried at each poll.
    Stuck {
        released: Released,
    },
    Resting {
        until: Moment,
    },
}

impl<B: OutputPin, S: InputPin> AtxButton<B, S> {
    /// A button at rest and its LED.
    pub const fn new(button: Output<B>, sense: Sense<S>, settings: AtxSettings) -> Self {
        let polled = Moment::at(Duration::ZERO);
        Self { button, sense, settings, state: State::Ready, polled, learned: None }
    }

    /// What the LED says as of the last poll.
    pub fn led(&self, now: Moment) -> Led {
        self.sense.led(now)
    }

    /// Whether the button is down, or may be.
    pub const fn is_pressed(&self) -> bool {
        matches!(self.state, State::Pressed { .. } | State::Stuck { .. })
    }

    /// What the button is held for now.
    pub const fn held_for(&self) -> Option<Press> {
        match self.state {
            State::Pressed { press, .. } => Some(press),
            State::Ready | State::Stuck { .. } | State::Resting { .. } => None,
        }
    }

    /// The longest time after which a press took this machine's power, once one did.
    pub const fn learned(&self) -> Option<Duration> {
        self.learned
    }

    /// A press that takes the power is held at most this long: twice what was learned, so that a machine that doesn't
    /// listen is found out sooner.
    pub fn hold_at_most(&self) -> Duration {
        let AtxSettings { least, most, .. } = self.settings;
        self.learned.map_or(most, |learned| learned.saturating_mul(2).max(least + DARK_BEFORE_RELEASE).min(most))
    }

    /// Presses the button, if the LED says that this does what is meant: to a machine that is off, any press gives power.
    ///
    /// # Errors
    /// [`AtxError`]; whatever it says, the button is at rest or is let go by the next poll.
    pub fn press(&mut self, now: Moment, press: Press) -> Result<(), AtxError<B::Error, S::Error>> {
        match self.state {
            State::Ready => {}
            State::Pressed { .. } | State::Stuck { .. } => return Err(AtxError::Busy),
            State::Resting { until } if now < until => return Err(AtxError::Busy),
            State::Resting { .. } => self.state = State::Ready,
        }
        match (self.sense.led(now), press) {
            (Led::Off(_), Press::Start)
            | (Led::On(_), Press::ShutDown | Press::PowerOff)
            | (Led::Blinking, Press::PowerOff) => {}
            (Led::Off(_), Press::ShutDown | Press::PowerOff) => return Err(AtxError::IsOff),
            (Led::On(_), Press::Start) => return Err(AtxError::IsOn),
            (Led::Blinking, Press::ShutDown | Press::Start) => return Err(AtxError::Asleep),
            (Led::Unsettled, _) => return Err(AtxError::Unsettled),
        }
        let pressed = self.button.set(true);
        self.polled = now;
        match pressed {
            Ok(()) => {
                self.state = State::Pressed { press, since: now };
                Ok(())
            }
            Err(error) => {
                // It may be down all the same.
                let _again_at_the_next_poll =
                    self.let_go(now, Released { press, held: Duration::ZERO, end: End::Cancelled });
                Err(AtxError::Button(error))
            }
        }
    }

    /// Lets go of the button now, whatever it was pressed for.
    ///
    /// # Errors
    /// It could not be let go; each poll tries again.
    pub fn cancel(&mut self, now: Moment) -> Result<Option<Released>, AtxError<B::Error, S::Error>> {
        match self.state {
            State::Pressed { press, since } => {
                self.let_go(now, Released { press, held: now.since(since), end: End::Cancelled })
            }
            State::Stuck { released } => self.let_go(now, released),
            State::Ready | State::Resting { .. } => Ok(None),
        }
    }

    /// Looks at the LED, and lets go of the button when it is time.
    ///
    /// # Errors
    /// The button could not be let go, or the LED not be read; a press ends by either as soon as it can.
    pub fn poll(&mut self, now: Moment) -> Result<Option<Released>, AtxError<B::Error, S::Error>> {
        let unwatched = now.since(self.polled) > UNWATCHED;
        self.polled = now;
        let look = self.sense.look(now);
        match self.state {
            State::Pressed { press, since } => {
                let end = if unwatched {
                    Some(End::Unwatched)
                } else if look.is_err() {
                    Some(End::Blind)
                } else {
                    self.end(now, press, since)
                };
                match end {
                    Some(end) => {
                        if let End::WentDark(after) = end {
                            self.learned = Some(self.learned.map_or(after, |before| before.max(after)));
                        }
                        self.let_go(now, Released { press, held: now.since(since), end })
                    }
                    None => Ok(None),
                }
            }
            State::Stuck { released } => self.let_go(now, released),
            State::Ready | State::Resting { .. } => look.map(|_| None).map_err(AtxError::Sense),
        }
    }

    /// When to poll next.
    pub fn poll_at(&self) -> Moment {
        let look = self.polled.after(LOOK_EVERY);
        match self.state {
            State::Pressed { press: Press::ShutDown | Press::Start, since } => {
                look.min(since.after(self.settings.short))
            }
            State::Pressed { press: Press::PowerOff, since } => look.min(since.after(self.hold_at_most())),
            State::Ready | State::Stuck { .. } | State::Resting { .. } => look,
        }
    }

    fn end(&self, now: Moment, press: Press, since: Moment) -> Option<End> {
        let held = now.since(since);
        match press {
            Press::ShutDown | Press::Start => (held >= self.settings.short).then_some(End::Short),
            Press::PowerOff => {
                let dark = self.sense.dark_since(now).filter(|dark| now.since(*dark) >= DARK_BEFORE_RELEASE);
                match dark {
                    Some(dark) if held >= self.settings.least => Some(End::WentDark(dark.since(since))),
                    Some(_) | None => (held >= self.hold_at_most()).then_some(End::StillLit),
                }
            }
        }
    }

    fn let_go(&mut self, now: Moment, released: Released) -> Result<Option<Released>, AtxError<B::Error, S::Error>> {
        match self.button.set(false) {
            Ok(()) => {
                self.state = State::Resting { until: now.after(self.settings.rest) };
                Ok(Some(released))
            }
            Err(error) => {
                self.state = State::Stuck { released };
                Err(AtxError::Stuck(error))
            }
        }
    }
}

/// Why nothing was pressed, or a press failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtxError<B, S> {
    /// A press is under way, or has just ended.
    Busy,
    /// The LED says that the machine is off: a press would start it.
    IsOff,
    /// The LED says that the machine is on: a press would shut it down.
    IsOn,
    /// The LED blinks: a short press would wake a sleeping machine.
    Asleep,
    /// The LED hasn't held still long enough to tell.
    Unsettled,
    /// The button's line could not be driven; it was let go, or will be by the next poll.
    Button(B),
    /// **The button could not be let go.** Each poll tries again.
    Stuck(B),
    /// The LED's line could not be read.
    Sense(S),
}

impl<B: fmt::Debug, S: fmt::Debug> fmt::Display for AtxError<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the power button is pressed, or was a moment ago: try again in a second"),
            Self::IsOff => f.write_str("the power LED is dark: a press would start the machine"),
            Self::IsOn => f.write_str("the power LED is lit: a press would shut the machine down"),
            Self::Asleep => f.write_str("the power LED blinks: the machine sleeps, and a short press would wake it"),
            Self::Unsettled => f.write_str("the power LED hasn't held still long enough to tell on from off"),
            Self::Button(error) => write!(f, "the power button's line could not be driven: {error:?}"),
            Self::Stuck(error) => {
                write!(f, "the power button could NOT be let go and is tried again: take its wire off: {error:?}")
            }
            Self::Sense(error) => write!(f, "the power LED's line could not be read: {error:?}"),
        }
    }
}

impl<B: fmt::Debug, S: fmt::Debug> core::error::Error for AtxError<B, S> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Bench, Broken, Line, ms};
    use crate::{Polarity, SenseSettings};

    const BUTTON: usize = 0;
    const LED: usize = 1;

    /// A machine on a bench: what its power LED does when its button is held.
    struct Machine<'a> {
        bench: &'a Bench,
        atx: AtxButton<Line<'a>, Line<'a>>,
        at_ms: u64,
        /// It goes dark when the button was held this long; `None` for one that doesn't listen.
        off_after_ms: Option<u64>,
        down_since: Option<u64>,
    }

    impl<'a> Machine<'a> {
        fn lit(bench: &'a Bench, off_after_ms: Option<u64>) -> Self {
            let button = Output::at_rest(bench.line(BUTTON), Polarity::ActiveHigh).unwrap();
            let sense = Sense::new(bench.line(LED), Polarity::ActiveHigh, SenseSettings::default());
            let atx = AtxButton::new(button, sense, AtxSettings::default());
            bench.set(LED, true);
            let mut machine = Self { bench, atx, at_ms: 0, off_after_ms, down_since: None };
            assert_eq!(machine.run(500), None);
            machine
        }

        fn now(&self) -> Moment {
            ms(self.at_ms)
        }

        /// Polls for so long, or until a press ends.
        fn run(&mut self, for_ms: u64) -> Option<Released> {
            let until = self.at_ms + for_ms;
            while self.at_ms < until {
                self.at_ms += 50;
                match (self.bench.is_high(BUTTON), self.down_since) {
                    (true, None) => self.down_since = Some(self.at_ms),
                    (true, Some(since)) if self.off_after_ms.is_some_and(|after| self.at_ms - since >= after) => {
                        self.bench.set(LED, false);
                    }
                    (true, Some(_)) => {}
                    (false, _) => self.down_since = None,
                }
                if let Some(released) = self.atx.poll(self.now()).unwrap() {
                    return Some(released);
                }
            }
            None
        }

        fn press(&mut self, press: Press) -> Result<(), AtxError<Broken, Broken>> {
            self.atx.press(self.now(), press)
        }
    }

    #[test]
    fn a_long_press_is_held_until_the_machine_is_dark_and_off_comes_three_seconds_later() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, Some(4_000));
        machine.press(Press::PowerOff).unwrap();
        let released = machine.run(12_000).unwrap();
        assert!(matches!(released.end, End::WentDark(after) if after == Duration::from_millis(4_050)), "{released:?}");
        assert!(released.held < Duration::from_secs(6), "{released:?}");
        assert!(!bench.is_high(BUTTON));
        assert_eq!(machine.atx.led(machine.now()), Led::Unsettled);
        machine.run(3_000);
        assert!(matches!(machine.atx.led(machine.now()), Led::Off(_)));
        assert_eq!(machine.atx.learned(), Some(Duration::from_millis(4_050)));
        assert_eq!(machine.atx.hold_at_most(), Duration::from_millis(8_100));
    }

    #[test]
    fn a_press_on_a_machine_that_is_off_would_start_it_and_is_refused() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        bench.set(LED, false);
        machine.run(1_000);
        assert_eq!(machine.press(Press::PowerOff), Err(AtxError::Unsettled));
        machine.run(3_000);
        for press in [Press::PowerOff, Press::ShutDown] {
            assert_eq!(machine.press(press), Err(AtxError::IsOff));
        }
        assert_eq!(bench.writes(BUTTON), [false], "only the rest at the start");
        machine.press(Press::Start).unwrap();
        assert_eq!(machine.run(1_000).map(|released| released.end), Some(End::Short));
    }

    #[test]
    fn a_machine_that_does_not_listen_is_let_go_at_the_limit() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        machine.press(Press::PowerOff).unwrap();
        let released = machine.run(20_000).unwrap();
        assert_eq!((released.end, released.held), (End::StillLit, Duration::from_secs(12)));
        assert!(!bench.is_high(BUTTON));
        assert!(matches!(machine.atx.led(machine.now()), Led::On(_)));
        assert_eq!(machine.press(Press::PowerOff), Err(AtxError::Busy));
        machine.run(1_000);
        assert_eq!(machine.press(Press::PowerOff), Ok(()));
    }

    #[test]
    fn a_short_press_is_short_and_a_second_one_waits() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        assert_eq!(machine.press(Press::Start), Err(AtxError::IsOn));
        machine.press(Press::ShutDown).unwrap();
        assert_eq!(machine.press(Press::ShutDown), Err(AtxError::Busy));
        assert_eq!(machine.atx.poll_at(), machine.now().after(Duration::from_millis(50)));
        let released = machine.run(1_000).unwrap();
        assert_eq!((released.end, released.held), (End::Short, Duration::from_millis(200)));
    }

    #[test]
    fn a_button_that_nobody_watches_is_let_go_by_the_next_poll_and_by_the_end() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        machine.press(Press::PowerOff).unwrap();
        machine.run(1_000);
        machine.at_ms += 1_000;
        assert_eq!(machine.run(50).map(|released| released.end), Some(End::Unwatched));
        assert!(!bench.is_high(BUTTON));
        machine.run(2_000);
        assert!(!machine.atx.is_pressed());
        machine.press(Press::PowerOff).unwrap();
        assert!(bench.is_high(BUTTON) && machine.atx.is_pressed());
        drop(machine);
        assert!(!bench.is_high(BUTTON));
    }

    #[test]
    fn blind_it_lets_go_at_once_and_knows_nothing() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        machine.press(Press::PowerOff).unwrap();
        machine.run(1_000);
        bench.fail(LED, true);
        assert_eq!(machine.run(50).map(|released| released.end), Some(End::Blind));
        assert!(!bench.is_high(BUTTON));
        assert_eq!(machine.atx.led(machine.now()), Led::Unsettled);
        assert_eq!(machine.atx.poll(machine.now()), Err(AtxError::Sense(Broken)));
    }

    #[test]
    fn a_button_that_can_not_be_let_go_is_tried_again_at_each_poll() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        machine.press(Press::PowerOff).unwrap();
        bench.fail(BUTTON, true);
        let limit = machine.now().after(Duration::from_secs(12));
        let stuck = loop {
            machine.at_ms += 50;
            match machine.atx.poll(machine.now()) {
                Ok(None) => assert!(machine.now() < limit),
                other => break other,
            }
        };
        assert_eq!(stuck, Err(AtxError::Stuck(Broken)));
        assert_eq!(machine.press(Press::PowerOff), Err(AtxError::Busy));
        assert!(machine.atx.is_pressed());
        machine.at_ms += 50;
        assert_eq!(machine.atx.poll(machine.now()), Err(AtxError::Stuck(Broken)));
        bench.fail(BUTTON, false);
        let released = machine.run(50).unwrap();
        assert_eq!(released.end, End::StillLit);
        assert!(!bench.is_high(BUTTON));
    }

    #[test]
    fn a_press_whose_write_failed_is_taken_back() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        bench.fail(BUTTON, true);
        assert_eq!(machine.press(Press::PowerOff), Err(AtxError::Button(Broken)));
        bench.fail(BUTTON, false);
        assert_eq!(machine.run(50).map(|released| released.end), Some(End::Cancelled));
        assert_eq!(bench.writes(BUTTON), [false, false]);
    }

    #[test]
    fn a_sleeping_machine_is_held_through_the_dark_of_its_blinks() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        let mut end = None;
        for half in 0..40 {
            bench.set(LED, half % 2 == 1);
            end = machine.run(700);
            if half == 10 {
                assert_eq!(machine.press(Press::ShutDown), Err(AtxError::Asleep));
                assert_eq!(machine.press(Press::Start), Err(AtxError::Asleep));
                machine.press(Press::PowerOff).unwrap();
            }
            if end.is_some() {
                break;
            }
        }
        assert_eq!(end.map(|released| released.end), Some(End::StillLit));
        assert_eq!(machine.atx.led(machine.now()), Led::Blinking);
    }

    #[test]
    fn a_press_can_be_taken_back() {
        let bench = Bench::new();
        let mut machine = Machine::lit(&bench, None);
        assert_eq!(machine.atx.cancel(machine.now()), Ok(None));
        machine.press(Press::PowerOff).unwrap();
        let released = machine.atx.cancel(machine.now()).unwrap();
        assert_eq!(released.map(|released| released.end), Some(End::Cancelled));
        assert!(!bench.is_high(BUTTON));
    }
}
