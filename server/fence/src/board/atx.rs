//! A power button and a power LED as a fence device.

use std::time::Duration;

use tiebreaker_firmware::{
    AtxButton, AtxSettings, Bias, LineError, Output, OutputLine, ReleaseError, Sense, SenseSettings, check_release,
    input_line, output_line,
};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::lines::Wire;
use super::panel::{Ask, Panel, PanelError};
use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof};

/// How a node's front panel is wired to the appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardConfig {
    /// The line that presses the power button.
    pub button: Wire,
    /// The line that the power LED drives.
    pub led: Wire,
    /// What pulls the LED's line.
    pub bias: Bias,
    /// How long the LED must be dark to mean that the machine is off.
    pub dark_is_off: Duration,
}

/// A node's power button, with its power LED as the witness.
///
/// The LED tells no machine from another, and a wire that fell off reads dark: so nothing that this reads is evidence
/// before a drill has shown that this very machine goes dark, and it is proven again and again that the LED is lit while
/// the node runs.
#[derive(Debug)]
pub struct BoardDevice {
    name: String,
    wiring: Wiring,
    /// The panel, once its lines could be had. Held while they are asked for.
    panel: Mutex<Option<mpsc::Sender<Ask>>>,
}

#[derive(Debug)]
enum Wiring {
    Lines(BoardConfig),
    #[cfg(test)]
    Bench,
}

impl BoardDevice {
    /// The device. Its lines are requested when it is used first, and again later if they can't be had.
    #[must_use]
    pub fn new(config: BoardConfig) -> Self {
        let name = format!("board button {} led {}", config.button, config.led);
        Self { name, wiring: Wiring::Lines(config), panel: Mutex::new(None) }
    }

    /// A device over a panel that runs already.
    #[cfg(test)]
    pub(super) fn over(panel: mpsc::Sender<Ask>) -> Self {
        Self { name: "board bench".into(), wiring: Wiring::Bench, panel: Mutex::new(Some(panel)) }
    }

    async fn ask<T>(
        &self,
        deadline: Instant,
        ask: impl FnOnce(oneshot::Sender<Result<T, PanelError>>) -> Ask,
    ) -> Result<T, DeviceError> {
        let late = || DeviceError::new(&self.name, Fault::Busy, "the power LED didn't hold still until the deadline");
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let panel = self.panel().await?;
            // Whoever asks after the panel has gone asks for its lines again, the next time.
            let gone = || DeviceError::new(&self.name, Fault::Unreachable, "the panel's thread has ended");
            panel.send(ask(answer)).await.map_err(|_| gone())?;
            match answered.await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(DeviceError::new(&self.name, error.fault, error)),
                Err(_) => Err(gone()),
            }
        };
        timeout_at(deadline, asked).await.map_err(|_| late())?
    }

    async fn panel(&self) -> Result<mpsc::Sender<Ask>, DeviceError> {
        let mut panel = self.panel.lock().await;
        if let Some(running) = panel.as_ref().filter(|running| !running.is_closed()) {
            return Ok(running.clone());
        }
        let started = match &self.wiring {
            Wiring::Lines(config) => start(&self.name, config),
            #[cfg(test)]
            Wiring::Bench => Err(StartError::Thread(std::io::ErrorKind::Other.into())),
        };
        match started {
            Ok(started) => Ok(panel.insert(started).clone()),
            Err(error) => {
                let fault = match error {
                    // Nothing was pressed, and nothing will be.
                    StartError::Release(_) => Fault::Refused,
                    StartError::Line(_) | StartError::Thread(_) => Fault::Unreachable,
                };
                Err(DeviceError::new(&self.name, fault, error))
            }
        }
    }
}

/// Why a panel can't be had.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("no thread can be started for the power button")]
    Thread(#[from] std::io::Error),
}

fn start(name: &str, config: &BoardConfig) -> Result<mpsc::Sender<Ask>, StartError> {
    check_release()?;
    let button: Output<OutputLine> = output_line(&config.button.line, config.button.polarity, "tiebreaker-power")?;
    let led = input_line(&config.led.line, config.bias, "tiebreaker-led")?;
    let settings = SenseSettings { dark_is_off: config.dark_is_off, ..SenseSettings::default() };
    let sense = Sense::new(led, config.led.polarity, settings);
    let (asks, asked) = mpsc::channel(8);
    // A thread of its own, so that a button is let go whatever else the daemon is busy with.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let name = name.to_owned();
    std::thread::Builder::new().name("power-button".into()).spawn(move || {
        let atx = AtxButton::new(button, sense, AtxSettings::default());
        runtime.block_on(async { Panel::new(name, atx, asked).run().await });
    })?;
    Ok(asks)
}

impl Device for BoardDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        OffSign::Led
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(self.ask(deadline, Ask::Read))
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.ask(deadline, |answer| Ask::Press(PowerState::Off, answer)))
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.ask(deadline, |answer| Ask::Press(PowerState::On, answer)))
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move { Ok(Proof { state: self.ask(deadline, Ask::Prove).await?, guid: None }) })
    }
}
