//! A relay in a node's supply as a fence device.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use embedded_hal::digital::OutputPin;
use tiebreaker_firmware::{
    LineError, Moment, Output, OutputLine, ReleaseError, Supply, SupplyRelay, check_release, output_line,
};
use tokio::time::{Instant, sleep_until};

use super::lines::Wire;
use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof};

/// How a relay is wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// The line that cuts the supply when it is active. The node hangs on the normally closed contact.
    pub line: Wire,
    /// How long the node may run on without its supply.
    pub drain: Duration,
}

/// A relay that cuts a node's supply. It says what it was told, and measures nothing: nothing that it reads is evidence
/// before a drill has shown that this very machine goes dark.
pub struct RelayDevice<P: OutputPin = OutputLine> {
    name: String,
    start: Instant,
    drain: Duration,
    open: Opener<P>,
    /// The relay, once its line could be had.
    relay: Mutex<Option<SupplyRelay<P>>>,
}

type Opener<P> = Box<dyn Fn() -> Result<Output<P>, OpenError> + Send + Sync>;

/// Why a relay's line can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The kernel would keep the supply cut when this process dies.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The line is not to be had.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl<P: OutputPin> fmt::Debug for RelayDevice<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayDevice").field("name", &self.name).field("drain", &self.drain).finish_non_exhaustive()
    }
}

impl RelayDevice {
    /// The device. Its line is requested, at its resting level, when it is used first, and again later if it can't be had.
    #[must_use]
    pub fn new(config: RelayConfig) -> Self {
        let RelayConfig { line: Wire { line, polarity }, drain } = config.clone();
        let open = move || {
            check_release()?;
            Ok(output_line(&line, polarity, "tiebreaker-relay")?)
        };
        Self::with_opener(&config.line.to_string(), drain, Box::new(open))
    }
}

impl<P: OutputPin> RelayDevice<P> {
    pub(super) fn with_opener(line: &str, drain: Duration, open: Opener<P>) -> Self {
        let name = format!("relay {line}");
        Self { name, start: Instant::now(), drain, open, relay: Mutex::new(None) }
    }

    /// Does something with the relay, and has its line first where it isn't there yet.
    fn with<T>(&self, act: impl FnOnce(&mut SupplyRelay<P>, Moment) -> Result<T, P::Error>) -> Result<T, DeviceError> {
        // What a panic leaves is a relay whose last command is noted as unknown.
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        let relay = match &mut *relay {
            Some(relay) => relay,
            none => {
                let output = (self.open)().map_err(|error| {
                    let fault = match error {
                        // Nothing was switched, and nothing will be.
                        OpenError::Release(_) => Fault::Refused,
                        OpenError::Line(_) => Fault::Unreachable,
                    };
                    DeviceError::new(&self.name, fault, error)
                })?;
                none.insert(SupplyRelay::new(output, self.drain))
            }
        };
        let now = Moment::at(self.start.elapsed());
        act(relay, now).map_err(|error| {
            let why = format!("the relay's line could not be driven: {error:?}");
            DeviceError::new(&self.name, Fault::Protocol, why)
        })
    }

    async fn read(&self, deadline: Instant) -> Result<PowerState, DeviceError> {
        loop {
            match self.with(|relay, now| Ok(relay.supply(now)))? {
                Supply::Given => return Ok(PowerState::On),
                Supply::Cut => return Ok(PowerState::Off),
                Supply::Unknown => {
                    let why = "it isn't known what the relay does: its line could not be driven the last time";
                    return Err(DeviceError::new(&self.name, Fault::Protocol, why));
                }
                Supply::Draining { until } => {
                    let drained = self.start + until.since(Moment::at(Duration::ZERO));
                    if drained > deadline {
                        let why = "the supply is cut, and the node may still run from what it has stored";
                        return Err(DeviceError::new(&self.name, Fault::Busy, why));
                    }
                    sleep_until(drained).await;
                }
            }
        }
    }
}

impl<P: OutputPin + Send> Device for RelayDevice<P> {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        OffSign::Relay
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(self.read(deadline))
    }

    fn off(&self, _deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move { self.with(SupplyRelay::cut) })
    }

    fn on(&self, _deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move { self.with(|relay, _| relay.give()) })
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move { Ok(Proof { state: self.read(deadline).await?, guid: None }) })
    }
}
