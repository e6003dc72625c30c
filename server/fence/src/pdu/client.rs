//! One outlet of a PDU, as a fence device.

use std::time::Duration;

use async_snmp::{Auth, AuthProtocol, Client, Oid, PrivProtocol, Retry, UdpHandle, UsmConfig, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    config::{PduConfig, SnmpHash, SnmpLogin},
    error::PduError,
    table::{milliwatts, serial},
};
use crate::{BoxFuture, Device, DeviceError, Fault, Meter, OffSign, PowerState, Proof};

/// A question is put again after this long without an answer: datagrams get lost. That off is said twice does no harm.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it is put again. The caller's deadline comes first.
const AGAIN: u32 = 8;

const LOGIN: &str = "the login";
const STATUS: &str = "the question for its state";

/// One outlet of a PDU.
#[derive(Debug)]
pub struct PduDevice {
    config: PduConfig,
    name: String,
    /// One operation at a time.
    lane: Mutex<()>,
}

/// What an outlet showed.
struct Reading {
    outlet: PowerState,
    milliwatts: Option<u32>,
}

impl PduDevice {
    /// A device for this outlet. Nothing is sent yet.
    #[must_use]
    pub fn new(config: PduConfig) -> Self {
        let name = format!("snmp {} {} outlet {}", config.table.name(), config.address, config.outlet);
        Self { config, name, lane: Mutex::new(()) }
    }

    async fn operate<T>(
        &self,
        deadline: Instant,
        operation: impl AsyncFnOnce(&Client<UdpHandle>) -> Result<T, PduError>,
    ) -> Result<T, DeviceError> {
        let Ok(_lane) = timeout_at(deadline, self.lane.lock()).await else {
            let why = "another operation on this device took until the deadline";
            return Err(DeviceError::new(&self.name, Fault::Busy, why));
        };
        let work = async {
            let client = self.connect().await?;
            operation(&client).await
        };
        let result = timeout_at(deadline, work).await.unwrap_or(Err(PduError::Silent));
        result.map_err(|error| DeviceError::new(&self.name, error.fault(), error))
    }

    async fn connect(&self) -> Result<Client<UdpHandle>, PduError> {
        let auth = match &self.config.login {
            SnmpLogin::V2c { community } => Auth::v2c(community.expose().to_vec()),
            SnmpLogin::V3 { user, hash, password, privacy } => {
                let hash = match hash {
                    SnmpHash::Sha256 => AuthProtocol::Sha256,
                    SnmpHash::Sha1 => AuthProtocol::Sha1,
                    SnmpHash::Sha512 => AuthProtocol::Sha512,
                };
                let privacy = privacy.as_ref().unwrap_or(password);
                let usm = UsmConfig::new(user.as_str().to_owned().into_bytes())
                    .auth_priv(hash, password.expose(), PrivProtocol::Aes128, privacy.expose())
                    .map_err(|_| PduError::Nonsense("the passwords make no key"))?;
                Auth::Usm(usm)
            }
        };
        let retry = Retry::fixed(AGAIN, Duration::ZERO).map_err(|_| PduError::Nonsense("so many repetitions"))?;
        Client::builder(self.config.address, auth)
            // An answer from elsewhere is none.
            .strict_source(true)
            .request_timeout(AGAIN_AFTER)
            .retry(retry)
            .connect()
            .await
            .map_err(|error| PduError::of(LOGIN, error))
    }

    /// Serial number, state and watts in one question, so that all of it is said by one PDU at one time.
    async fn read(&self, client: &Client<UdpHandle>) -> Result<Reading, PduError> {
        let PduConfig { table, outlet, meter, .. } = self.config;
        let watts = match meter {
            Meter::None => None,
            Meter::Below { .. } => Some(table.watts(outlet).ok_or(PduError::NotMeasured)?),
        };
        let asked: Vec<Oid> = [table.serial(), table.state(outlet)].into_iter().chain(watts).collect();
        let answer = client.get_many(&asked).await.map_err(|error| PduError::of(STATUS, error))?;
        // Something missing, too many, or about something else.
        if !answer.anomalies.is_empty() {
            return Err(PduError::Nonsense("it answers something else"));
        }
        let mut values: Vec<Value> = answer.varbinds.into_iter().map(|varbind| varbind.value).collect();
        let watts = if watts_were_asked(meter) { values.pop() } else { None };
        let (Some(state), Some(number), true) = (values.pop(), values.pop(), values.is_empty()) else {
            return Err(PduError::Nonsense("it answers something else"));
        };
        if matches!(number, Value::NoSuchObject | Value::NoSuchInstance) {
            return Err(PduError::NoOutlet { outlet, table: table.name() });
        }
        let found = serial(&number)?;
        if found != self.config.serial {
            let found = found.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(PduError::OtherPdu { found, wanted: self.config.serial.clone() });
        }
        let outlet = table.read(outlet, &state)?;
        Ok(Reading { outlet, milliwatts: watts.as_ref().map(milliwatts).transpose()? })
    }

    /// Whether the node has power, by the outlet and by the meter.
    fn power(&self, reading: &Reading) -> PowerState {
        let flows = reading.milliwatts;
        match (reading.outlet, self.config.meter, flows) {
            (PowerState::Off, Meter::Below { milliwatts: below }, Some(flows)) if flows >= below => {
                warn!(device = self.name, milliwatts = flows, "the outlet is said to be off, and power flows");
                PowerState::On
            }
            (outlet, _, _) => outlet,
        }
    }

    async fn switch(&self, client: &Client<UdpHandle>, to: PowerState) -> Result<(), PduError> {
        let what = match to {
            PowerState::Off => "the power-off",
            PowerState::On => "the power-on",
        };
        // Nothing is said to another PDU.
        self.read(client).await?;
        self.write(client, what, to).await
    }

    async fn write(&self, client: &Client<UdpHandle>, what: &'static str, to: PowerState) -> Result<(), PduError> {
        let (oid, value) = self.config.table.command(self.config.outlet, to);
        // Some repeat what they were told and some tell what is; only what is read afterwards counts.
        client.set(&oid, value).await.map(drop).map_err(|error| PduError::of(what, error))
    }
}

fn watts_were_asked(meter: Meter) -> bool {
    match meter {
        Meter::Below { .. } => true,
        Meter::None => false,
    }
}

impl Device for PduDevice {
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
        Box::pin(self.operate(deadline, async |client| Ok(self.power(&self.read(client).await?))))
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.operate(deadline, async |client| self.switch(client, PowerState::Off).await))
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.operate(deadline, async |client| self.switch(client, PowerState::On).await))
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(self.operate(deadline, async |client| {
            let reading = self.read(client).await?;
            if let (PowerState::On, Meter::Below { milliwatts: below }, Some(milliwatts)) =
                (reading.outlet, self.config.meter, reading.milliwatts)
                && milliwatts <= below
            {
                return Err(PduError::MeasuresNothing { milliwatts });
            }
            let state = self.power(&reading);
            // The right to switch shows only in switching: what is on is told to be on.
            if state == PowerState::On && reading.outlet == PowerState::On {
                self.write(client, "the proof of the right to switch", PowerState::On).await?;
            }
            Ok(Proof { state, guid: None })
        }))
    }
}
