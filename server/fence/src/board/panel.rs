//! The task that owns a button and an LED, and polls them for as long as the device is there.

use std::time::Duration;

use embedded_hal::digital::{InputPin, OutputPin};
use tiebreaker_firmware::{AtxButton, AtxError, Led, LedPathTest, Moment, Press, Step as LedStep, Verdict};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::{Fault, PowerState};

/// Questions that wait for the LED to settle, at most.
const WAITING: usize = 8;

/// What is wrong with an LED that blinks while its node is up.
const BLINKS: &str =
    "the LED blinks, so it isn't the power LED of a machine that runs: is it that of a disk or a network card?";

/// What the LED shows of a press it shows within this: a button is held for 12 s at most, and a dark LED has to stay dark.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

/// What a device asks of its panel.
pub(super) enum Ask {
    /// The same as [`Ask::Read`], of an LED that has shown that it follows its machine as far as it was seen.
    Prove(oneshot::Sender<Result<PowerState, PanelError>>),
    /// What the LED says, by looks that come after this.
    Read(oneshot::Sender<Result<PowerState, PanelError>>),
    /// That the machine be taken there by a press. Answered when the button is down, or need not be.
    Press(PowerState, oneshot::Sender<Result<(), PanelError>>),
}

/// Why a panel could not do as told.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(super) struct PanelError {
    pub(super) fault: Fault,
    why: String,
}

impl<B: std::fmt::Debug, S: std::fmt::Debug> From<&AtxError<B, S>> for PanelError {
    fn from(error: &AtxError<B, S>) -> Self {
        let fault = match error {
            AtxError::Busy | AtxError::Unsettled => Fault::Busy,
            AtxError::IsOff | AtxError::IsOn | AtxError::Asleep => Fault::Refused,
            // It may have been pressed for a moment: nobody can say what comes of that.
            AtxError::Button(_) | AtxError::Stuck(_) | AtxError::Sense(_) => Fault::Protocol,
        };
        Self { fault, why: error.to_string() }
    }
}

/// Who waits for the LED to settle.
struct Waiting {
    /// It is a proof, and not a read.
    proves: bool,
    answer: oneshot::Sender<Result<PowerState, PanelError>>,
}

/// Whether the LED follows the machine, as each press of the button shows it.
#[derive(Default)]
struct LedPath {
    test: Option<LedPathTest>,
    /// What it didn't do at the last press.
    broken: Option<LedStep>,
}

impl LedPath {
    fn pressed(&mut self, now: Moment, press: Press) {
        let shown = now.after(SHOWN_WITHIN);
        match (press, &mut self.test) {
            (Press::PowerOff, test) => *test = Some(LedPathTest::new(shown)),
            (Press::Start, Some(test)) => test.extend(shown),
            (Press::Start, None) | (Press::ShutDown, _) => {}
        }
    }

    fn watch(&mut self, now: Moment, name: &str, led: Led) {
        match (self.broken, led) {
            // It was late, and does it after all.
            (Some(LedStep::Off), Led::Off(_)) | (Some(LedStep::On | LedStep::OnAgain), Led::On(_)) => {
                self.broken = None
            }
            (Some(_) | None, _) => {}
        }
        let Some(test) = &mut self.test else { return };
        let before = *test;
        match test.watch(now, led) {
            // It stays off until somebody starts it.
            Verdict::Waiting(LedStep::OnAgain) if before != *test => test.extend(Moment::at(Duration::MAX)),
            Verdict::Waiting(_) => {}
            Verdict::Follows => *self = Self::default(),
            Verdict::Failed(step) => {
                warn!(device = name, "{step}");
                *self = Self { test: None, broken: Some(step) };
            }
        }
    }
}

/// A button and an LED with those who ask about them.
pub(super) struct Panel<B: OutputPin, S> {
    name: String,
    atx: AtxButton<B, S>,
    asks: mpsc::Receiver<Ask>,
    start: Instant,
    waiting: Vec<Waiting>,
    path: LedPath,
    /// The last poll failed, and it was said.
    failing: bool,
}

impl<B: OutputPin, S: InputPin> Panel<B, S> {
    pub(super) fn new(name: String, atx: AtxButton<B, S>, asks: mpsc::Receiver<Ask>) -> Self {
        Self { name, atx, asks, start: Instant::now(), waiting: Vec::new(), path: LedPath::default(), failing: false }
    }

    /// Runs until nobody can ask any more; then the button is let go.
    pub(super) async fn run(mut self) {
        loop {
            self.look();
            let next = self.start + self.atx.poll_at().since(Moment::at(Duration::ZERO));
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
            }
        }
    }

    fn now(&self) -> Moment {
        Moment::at(self.start.elapsed())
    }

    fn look(&mut self) {
        let now = self.now();
        match self.atx.poll(now) {
            Ok(Some(released)) => info!(device = self.name, ?released, "power button let go"),
            Ok(None) => self.failing = false,
            Err(failure) => {
                let why = PanelError::from(&failure);
                if !std::mem::replace(&mut self.failing, true) {
                    if self.atx.is_pressed() {
                        error!(device = self.name, "{why}");
                    } else {
                        warn!(device = self.name, "{why}");
                    }
                }
                for waiting in self.waiting.drain(..) {
                    // Who asked may have gone.
                    let _ = waiting.answer.send(Err(why.clone()));
                }
                return;
            }
        }
        let led = self.atx.led(now);
        self.path.watch(now, &self.name, led);
        let state = match led {
            // A machine that sleeps has its memory, and may wake with all that it ran.
            Led::On(_) | Led::Blinking => PowerState::On,
            // A button that is still down may start the machine again.
            Led::Off(_) if !self.atx.is_pressed() => PowerState::Off,
            Led::Off(_) | Led::Unsettled => {
                self.waiting.retain(|waiting| !waiting.answer.is_closed());
                return;
            }
        };
        let doubt = match (self.path.broken, led) {
            (Some(step), _) => Some(step.to_string()),
            (None, Led::Blinking) => Some(BLINKS.to_owned()),
            (None, Led::On(_) | Led::Off(_) | Led::Unsettled) => None,
        };
        for waiting in self.waiting.drain(..) {
            let answer = match &doubt {
                Some(why) if waiting.proves => Err(PanelError { fault: Fault::Protocol, why: why.clone() }),
                Some(_) | None => Ok(state),
            };
            let _ = waiting.answer.send(answer);
        }
    }

    fn wait(&mut self, proves: bool, answer: oneshot::Sender<Result<PowerState, PanelError>>) {
        if self.waiting.len() < WAITING {
            self.waiting.push(Waiting { proves, answer });
        } else {
            let why = "too many questions wait for the power LED to settle".to_owned();
            let _ = answer.send(Err(PanelError { fault: Fault::Busy, why }));
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Read(answer) => self.wait(false, answer),
            Ask::Prove(answer) => self.wait(true, answer),
            Ask::Press(to, answer) => {
                if answer.is_closed() {
                    // Whoever wanted it has given up: nothing is switched for nobody.
                    return;
                }
                let pressed = self.press(to);
                let _ = answer.send(pressed);
            }
        }
    }

    fn press(&mut self, to: PowerState) -> Result<(), PanelError> {
        let now = self.now();
        let press = match to {
            PowerState::Off => Press::PowerOff,
            PowerState::On => Press::Start,
        };
        let is_there = match (to, self.atx.led(now)) {
            (PowerState::Off, Led::Off(_)) | (PowerState::On, Led::On(_)) => !self.atx.is_pressed(),
            (PowerState::Off, Led::On(_) | Led::Blinking | Led::Unsettled)
            | (PowerState::On, Led::Off(_) | Led::Blinking | Led::Unsettled) => false,
        };
        // Said again while the button is down for it, it needs no second press.
        if is_there || self.atx.held_for() == Some(press) {
            return Ok(());
        }
        match self.atx.press(now, press) {
            Ok(()) => {
                info!(device = self.name, ?press, "power button pressed");
                self.path.pressed(now, press);
                Ok(())
            }
            Err(failure) => Err(PanelError::from(&failure)),
        }
    }
}
