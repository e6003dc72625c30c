//! One outlet of a smart plug, as a fence device.

use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    config::{Meter, PlugConfig, PlugModel},
    error::PlugError,
    reading::Reading,
    visit::Visit,
};
use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof};

/// One outlet of a smart plug.
#[derive(Debug)]
pub struct PlugDevice {
    config: PlugConfig,
    name: String,
    /// Plugs have a tiny web server: one operation at a time.
    lane: Mutex<()>,
}

impl PlugDevice {
    /// A device for this outlet. Nothing is sent yet.
    #[must_use]
    pub fn new(config: PlugConfig) -> Self {
        let name = format!("{} {} outlet {}", config.model.name(), config.address, config.outlet);
        Self { config, name, lane: Mutex::new(()) }
    }

    async fn operate<T>(
        &self,
        deadline: Instant,
        operation: impl AsyncFnOnce(&mut Visit<'_>) -> Result<T, PlugError>,
    ) -> Result<T, DeviceError> {
        let Ok(_lane) = timeout_at(deadline, self.lane.lock()).await else {
            let why = "another operation on this device took until the deadline";
            return Err(DeviceError::new(&self.name, Fault::Busy, why));
        };
        let result = operation(&mut Visit::new(&self.config, deadline)).await;
        result.map_err(|error| DeviceError::new(&self.name, error.fault(), error))
    }

    fn power(&self, reading: &Reading) -> Result<PowerState, PlugError> {
        let state = reading.power(self.config.meter)?;
        if state == PowerState::On && reading.relay == PowerState::Off {
            let milliwatts = reading.milliwatts.ok();
            warn!(device = self.name, ?milliwatts, "the relay says that it is open, and power flows: it may be welded");
        }
        Ok(state)
    }
}

impl Device for PlugDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        match self.config.meter {
            Meter::Below { .. } => OffSign::Meter,
            Meter::None => OffSign::Relay,
        }
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(self.operate(deadline, async |visit| self.power(&visit.read().await?)))
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.operate(deadline, async |visit| visit.switch(PowerState::Off).await))
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.operate(deadline, async |visit| visit.switch(PowerState::On).await))
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(self.operate(deadline, async |visit| {
            // Tasmota doesn't tell whether it asks for one.
            if self.config.model != PlugModel::Tasmota && self.config.login.is_some() && !visit.identify().await?.asks()
            {
                return Err(PlugError::NoPasswordAsked);
            }
            let reading = visit.read().await?;
            reading.proves_its_meter(self.config.meter)?;
            Ok(Proof { state: self.power(&reading)?, guid: None })
        }))
    }
}
