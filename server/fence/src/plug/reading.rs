//! What plugs say, read from JSON. Pure.
//!
//! What isn't needed is skipped, what is needed is read strictly: a state that is missing or null is no state.

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    config::{MacAddress, Meter},
    error::PlugError,
};
use crate::{PowerState, web::json::object};

/// More watts than any plug carries, in milliwatts: what a meter says above that is nonsense.
const MAX_MILLIWATTS: f64 = 100_000_000.0;

/// What an outlet showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What the relay is said to be.
    pub(crate) relay: PowerState,
    /// What flows in milliwatts, or why nobody knows.
    pub(crate) milliwatts: Result<u32, &'static str>,
    /// It says zero for an open relay without measuring.
    pub(crate) sleeps: bool,
}

impl Reading {
    /// Whether the node has power, by the relay and by the meter.
    ///
    /// # Errors
    /// The meter is needed and tells nothing.
    pub(crate) fn power(&self, meter: Meter) -> Result<PowerState, PlugError> {
        match (self.relay, meter) {
            (PowerState::On, _) => Ok(PowerState::On),
            (PowerState::Off, Meter::None) => Ok(PowerState::Off),
            (PowerState::Off, Meter::Below { milliwatts: below }) => {
                let flows = self.measured()?;
                // A relay that is welded together says that it is open.
                Ok(if flows < below { PowerState::Off } else { PowerState::On })
            }
        }
    }

    /// That the meter, if it is needed, measures: while the relay is closed the node must show on it.
    ///
    /// # Errors
    /// It doesn't.
    pub(crate) fn proves_its_meter(&self, meter: Meter) -> Result<(), PlugError> {
        let Meter::Below { milliwatts: below } = meter else { return Ok(()) };
        let milliwatts = self.measured()?;
        if self.relay == PowerState::On && milliwatts <= below {
            return Err(PlugError::MeasuresNothing { milliwatts });
        }
        Ok(())
    }

    fn measured(&self) -> Result<u32, PlugError> {
        let milliwatts = self.milliwatts.map_err(PlugError::NotMeasured)?;
        if self.sleeps { Err(PlugError::MeterSleeps) } else { Ok(milliwatts) }
    }
}

/// What `/shelly` tells anybody, in all generations.
#[derive(Debug, Deserialize)]
pub(crate) struct Shelly {
    mac: String,
    /// From the second generation on.
    #[serde(rename = "gen")]
    generation: Option<u8>,
    auth_en: Option<bool>,
    auth_domain: Option<String>,
    /// The first generation's.
    auth: Option<bool>,
}

impl Shelly {
    pub(crate) fn read(body: &[u8]) -> Result<Self, PlugError> {
        json(IDENTITY, body)
    }

    pub(crate) fn mac(&self) -> Result<MacAddress, PlugError> {
        mac(IDENTITY, &self.mac)
    }

    pub(crate) fn is_first_generation(&self) -> bool {
        self.generation.is_none_or(|generation| generation < 2)
    }

    /// Whether it asks for a password.
    pub(crate) fn asks(&self) -> bool {
        if self.is_first_generation() { self.auth == Some(true) } else { self.auth_en == Some(true) }
    }

    /// The realm of its digests.
    pub(crate) fn realm(&self) -> Option<&str> {
        self.auth_domain.as_deref()
    }
}

pub(crate) const IDENTITY: &str = "the question who it is";
pub(crate) const STATUS: &str = "the question for its state";

/// `/status` of the first generation.
pub(crate) fn shelly_gen1(body: &[u8], wanted: MacAddress, outlet: u8) -> Result<Reading, PlugError> {
    #[derive(Deserialize)]
    struct Status {
        mac: String,
        relays: Vec<Relay>,
        meters: Option<Vec<Reads>>,
    }
    #[derive(Deserialize)]
    struct Relay {
        ison: bool,
    }
    #[derive(Deserialize)]
    struct Reads {
        power: Option<f64>,
        is_valid: Option<Truth>,
    }
    /// Some firmware writes a truth as text.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Truth {
        Plain(bool),
        Text(String),
    }
    let status: Status = json(STATUS, body)?;
    is_the_plug(mac(STATUS, &status.mac)?, wanted)?;
    let place = usize::from(outlet);
    let relay = status.relays.get(place).ok_or(PlugError::NoOutlet(outlet))?;
    let meters = status.meters.unwrap_or_default();
    let milliwatts = match meters.get(place) {
        // One meter for all relays doesn't tell whose watts it shows.
        _ if !meters.is_empty() && meters.len() != status.relays.len() => Err("it hasn't one meter for each relay"),
        None => Err("no meter"),
        Some(Reads { is_valid: Some(Truth::Plain(false)), .. }) => Err("the meter says invalid"),
        Some(Reads { is_valid: Some(Truth::Text(text)), .. }) if text != "true" => Err("the meter says invalid"),
        Some(Reads { power, .. }) => in_milliwatts(*power)?,
    };
    Ok(Reading { relay: on(relay.ison), milliwatts, sleeps: false })
}

/// `Switch.GetStatus` from the second generation on.
pub(crate) fn shelly(body: &[u8], outlet: u8) -> Result<Reading, PlugError> {
    #[derive(Deserialize)]
    struct Status {
        id: u8,
        output: bool,
        apower: Option<f64>,
        errors: Option<Vec<String>>,
    }
    let status: Status = json(STATUS, body)?;
    if status.id != outlet {
        return Err(PlugError::Nonsense { what: STATUS, why: "it is about another outlet" });
    }
    let milliwatts = if status.errors.unwrap_or_default().iter().any(|error| error.starts_with("power_meter_failure")) {
        Err("the plug says that its meter fails")
    } else {
        in_milliwatts(status.apower)?
    };
    Ok(Reading { relay: on(status.output), milliwatts, sleeps: false })
}

/// `Status 0` of Tasmota: identity, relay and meter in one answer.
pub(crate) fn tasmota(body: &[u8], wanted: MacAddress, outlet: u8) -> Result<Reading, PlugError> {
    #[derive(Deserialize)]
    struct Status {
        #[serde(rename = "StatusNET")]
        net: Net,
        #[serde(rename = "StatusSTS")]
        relays: Relays,
        #[serde(rename = "StatusSNS")]
        sensors: Option<Sensors>,
        #[serde(rename = "StatusLOG")]
        log: Option<Log>,
    }
    #[derive(Deserialize)]
    struct Net {
        #[serde(rename = "Mac")]
        mac: String,
    }
    #[derive(Deserialize)]
    struct Sensors {
        #[serde(rename = "ENERGY")]
        energy: Option<Energy>,
    }
    #[derive(Deserialize)]
    struct Energy {
        #[serde(rename = "Power")]
        power: Option<OneOrMany>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(f64),
        Many(Vec<f64>),
    }
    #[derive(Deserialize)]
    struct Log {
        #[serde(rename = "SetOption")]
        options: Option<Words>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    let status: Status = json(STATUS, body)?;
    is_the_plug(mac(STATUS, &status.net.mac)?, wanted)?;
    let (relay, relays) = status.relays.outlet(outlet)?;
    // The first word of options holds `SetOption0` in its lowest bit. Number 21: measure while the relay is open.
    let first = match status.log.and_then(|log| log.options) {
        Some(Words::One(word)) => Some(word),
        Some(Words::Many(words)) => words.into_iter().next(),
        None => None,
    };
    let awake = first.and_then(|word| u32::from_str_radix(&word, 16).ok()).is_some_and(|word| word & 1 << 21 != 0);
    let power = match status.sensors.and_then(|sensors| sensors.energy).and_then(|energy| energy.power) {
        None => Err("no meter"),
        Some(OneOrMany::One(power)) if relays == 1 => Ok(power),
        Some(OneOrMany::Many(all)) if all.len() == relays => {
            all.get(usize::from(outlet).saturating_sub(1)).copied().ok_or("no meter")
        }
        Some(OneOrMany::One(_) | OneOrMany::Many(_)) => Err("it hasn't one meter for each relay"),
    };
    let milliwatts = match power {
        Ok(power) => in_milliwatts(Some(power))?,
        Err(why) => Err(why),
    };
    Ok(Reading { relay, milliwatts, sleeps: !awake })
}

/// The states of up to eight relays. With one alone the number is left out.
#[derive(Deserialize)]
struct Relays {
    #[serde(rename = "POWER")]
    only: Option<String>,
    #[serde(rename = "POWER1")]
    one: Option<String>,
    #[serde(rename = "POWER2")]
    two: Option<String>,
    #[serde(rename = "POWER3")]
    three: Option<String>,
    #[serde(rename = "POWER4")]
    four: Option<String>,
    #[serde(rename = "POWER5")]
    five: Option<String>,
    #[serde(rename = "POWER6")]
    six: Option<String>,
    #[serde(rename = "POWER7")]
    seven: Option<String>,
    #[serde(rename = "POWER8")]
    eight: Option<String>,
}

impl Relays {
    /// The state of one, and how many there are.
    fn outlet(&self, outlet: u8) -> Result<(PowerState, usize), PlugError> {
        let first = self.only.as_ref().or(self.one.as_ref());
        if self.only.is_some() && self.one.is_some() {
            return Err(PlugError::Nonsense { what: STATUS, why: "its first relay has two states" });
        }
        let all = [
            first,
            self.two.as_ref(),
            self.three.as_ref(),
            self.four.as_ref(),
            self.five.as_ref(),
            self.six.as_ref(),
            self.seven.as_ref(),
            self.eight.as_ref(),
        ];
        let count = all.iter().flatten().count();
        let text = usize::from(outlet).checked_sub(1).and_then(|place| all.get(place).copied().flatten());
        let state = match text.ok_or(PlugError::NoOutlet(outlet))?.as_str() {
            "ON" => PowerState::On,
            "OFF" => PowerState::Off,
            _ => return Err(PlugError::Nonsense { what: STATUS, why: "the relay is neither ON nor OFF" }),
        };
        Ok((state, count))
    }
}

pub(crate) fn is_the_plug(found: MacAddress, wanted: MacAddress) -> Result<(), PlugError> {
    if found == wanted { Ok(()) } else { Err(PlugError::OtherPlug { found, wanted }) }
}

fn mac(what: &'static str, text: &str) -> Result<MacAddress, PlugError> {
    text.parse().map_err(|_| PlugError::Nonsense { what, why: "what it calls its MAC address is none" })
}

fn on(closed: bool) -> PowerState {
    if closed { PowerState::On } else { PowerState::Off }
}

/// Watts in milliwatts, without the sign: that tells which way round the plug is wired.
fn in_milliwatts(watts: Option<f64>) -> Result<Result<u32, &'static str>, PlugError> {
    let Some(watts) = watts else { return Ok(Err("no meter")) };
    let milliwatts = (watts.abs() * 1_000.0).ceil();
    if !(0.0..=MAX_MILLIWATTS).contains(&milliwatts) {
        return Err(PlugError::Nonsense { what: STATUS, why: "no plug carries so many watts" });
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and a hundred million")]
    Ok(Ok(milliwatts as u32))
}

fn json<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, PlugError> {
    object(body).map_err(|source| PlugError::Json { what, source })
}

/// Any bytes as an answer of each model: what reads off says so itself, of the right plug, and little flows.
pub(crate) fn fuzz(model: u8, bytes: &[u8]) {
    let Ok(wanted) = "a8:03:2a:be:54:dc".parse::<MacAddress>() else { return };
    let reading = match model {
        0 => shelly_gen1(bytes, wanted, 0),
        1 => shelly(bytes, 0),
        _ => tasmota(bytes, wanted, 1),
    };
    drop(Shelly::read(bytes).map(|shelly| (shelly.mac(), shelly.asks(), shelly.is_first_generation())));
    let Ok(reading) = reading else { return };
    // What is skipped isn't looked at: a number too large, or a thousand brackets.
    let Ok(plain) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let open = match model {
        0 => plain["relays"][0]["ison"] == false,
        1 => plain["output"] == false && plain["id"] == 0,
        _ => plain["StatusSTS"]["POWER"] == "OFF" || plain["StatusSTS"]["POWER1"] == "OFF",
    };
    assert_eq!(reading.relay == PowerState::Off, open);
    if reading.power(Meter::USUAL).is_ok_and(|state| state == PowerState::Off) {
        assert!(open && reading.milliwatts.is_ok_and(|flows| flows < 1_000) && !reading.sleeps);
    }
}
