//! The task that owns a button and an LED, and polls them for as long as the device is there.

use embedded_hal::digital::{InputPin, OutputPin};
use tiebreaker_firmware::{AtxButton, AtxError, Led, Moment, Press};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::{Fault, PowerState};

/// Questions that wait for the LED to settle, at most.
const WAITING: usize = 8;

/// What a device asks of its panel.
pub(super) enum Ask {
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

/// A button and an LED with those who ask about them.
pub(super) struct Panel<B: OutputPin, S> {
    name: String,
    atx: AtxButton<B, S>,
    asks: mpsc::Receiver<Ask>,
    start: Instant,
    waiting: Vec<oneshot::Sender<Result<PowerState, PanelError>>>,
    /// The last poll failed, and it was said.
    failing: bool,
}

impl<B: OutputPin, S: InputPin> Panel<B, S> {
    pub(super) fn new(name: String, atx: AtxButton<B, S>, asks: mpsc::Receiver<Ask>) -> Self {
        Self { name, atx, asks, start: Instant::now(), waiting: Vec::new(), failing: false }
    }

    /// Runs until nobody can ask any more; then the button is let go.
    pub(super) async fn run(mut self) {
        loop {
            self.look();
            let next = self.start + self.atx.poll_at().since(Moment::at(std::time::Duration::ZERO));
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
                    let _ = waiting.send(Err(why.clone()));
                }
                return;
            }
        }
        let state = match self.atx.led(now) {
            // A machine that sleeps has its memory, and may wake with all that it ran.
            Led::On(_) | Led::Blinking => PowerState::On,
            // A button that is still down may start the machine again.
            Led::Off(_) if !self.atx.is_pressed() => PowerState::Off,
            Led::Off(_) | Led::Unsettled => {
                self.waiting.retain(|waiting| !waiting.is_closed());
                return;
            }
        };
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(Ok(state));
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Read(answer) if self.waiting.len() < WAITING => self.waiting.push(answer),
            Ask::Read(answer) => {
                let why = "too many questions wait for the power LED to settle".to_owned();
                let _ = answer.send(Err(PanelError { fault: Fault::Busy, why }));
            }
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
                Ok(())
            }
            Err(failure) => Err(PanelError::from(&failure)),
        }
    }
}
