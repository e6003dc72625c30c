//! Devices that cut a supply, and fence agents of others: what their tables say beyond those of a BMC.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{
    AccountName, MAX_PLUG_OUTLETS, Meter, OWN_OPTIONS, PduConfig, PduTable, PlugConfig, PlugLogin, PlugModel,
    ProgramConfig, RunAs, SNMP_PORT, Secret, SnmpLogin, WAKE_PORT, Wake, is_option,
};
use toml::Spanned;

use super::{RawDevice, place};
use crate::recipe::Keeper;

/// The most outlets that one device has: more feeds than any machine.
const MAX_FEEDS: usize = 8;
/// Who would measure more than this for nothing has no meter, and who idles on less isn't a node.
const MOST_WATTS: u32 = 20;

impl RawDevice {
    /// The outlets of a smart plug.
    pub(super) fn plugs(&self, model: PlugModel, text: &str, secrets: &Keeper<'_>) -> Result<Vec<PlugConfig>> {
        self.has_no_battery(text)?;
        let address = self.address(text, 80)?;
        let example = "the plug's MAC address, which its web page and a sticker show, for instance a8:03:2a:be:54:dc";
        let mac = self.mac.as_ref().ok_or_else(|| self.lacks(text, "mac", example))?;
        let mac = mac.get_ref().parse().with_context(|| format!("{}: mac", place(text, mac.span())))?;
        let meter = self.meter(text, true)?;
        let login = match (&self.no_password, &self.user) {
            (Some(no), Some(user)) if *no.get_ref() => {
                bail!("{}: user: with no_password there is no account", place(text, user.span()));
            }
            (Some(no), None) if *no.get_ref() => None,
            (_, user) => {
                let user = match (model, user) {
                    (PlugModel::ShellyGen1, Some(user)) => user.get_ref().as_str(),
                    (PlugModel::ShellyGen1, None) => return Err(self.lacks(text, "user", "the name of its login")),
                    (PlugModel::Shelly | PlugModel::Tasmota, Some(user)) if user.get_ref() != "admin" => {
                        bail!("{}: user: it is always admin there: leave it out", place(text, user.span()));
                    }
                    (PlugModel::Shelly | PlugModel::Tasmota, _) => "admin",
                };
                let password = self.secret(secrets, Secret::for_web)?;
                Some(PlugLogin { user: AccountName::new(user).context("user")?, password })
            }
        };
        let first = u32::from(model.first_outlet());
        let outlets = self.outlets(text, Some(first), first..first + u32::from(MAX_PLUG_OUTLETS))?;
        let outlets = outlets.into_iter().filter_map(|outlet| u8::try_from(outlet).ok());
        Ok(outlets.map(|outlet| PlugConfig { address, model, mac, outlet, login: login.clone(), meter }).collect())
    }

    /// The outlets of a PDU.
    pub(super) fn pdus(&self, text: &str, secrets: &Keeper<'_>) -> Result<Vec<PduConfig>> {
        self.has_no_battery(text)?;
        let address = self.address(text, SNMP_PORT)?;
        let example = "where its outlets are: apc-rpdu, apc-rpdu2, apc-masterswitch, eaton, cyberpower or tripplite";
        let table = self.table.as_ref().ok_or_else(|| self.lacks(text, "table", example))?;
        let at = |key: &str, span| format!("{}: {key}", place(text, span));
        let pdu: PduTable = table.get_ref().parse().with_context(|| at("table", table.span()))?;
        let example = "the PDU's serial number as it tells it by SNMP, for instance \"5A1234E00874\"";
        let serial = self.serial.as_ref().ok_or_else(|| self.lacks(text, "serial", example))?;
        if serial.get_ref().trim().is_empty() {
            bail!("{}: {example}", at("serial", serial.span()));
        }
        let meter = self.meter(text, pdu.measures())?;
        if meter != Meter::None && !pdu.measures() {
            let span = self.measured.as_ref().map_or(table.span(), Spanned::span);
            bail!("{}: this table tells no watts of an outlet: leave it out", at("measured", span));
        }
        let login = match self.version.as_ref().map(|version| (version.get_ref().as_str(), version.span())) {
            None | Some(("3", _)) => {
                let user = self.user.as_ref().ok_or_else(|| self.lacks(text, "user", "a user that may write"))?;
                let user = AccountName::new(user.get_ref().as_str()).with_context(|| at("user", user.span()))?;
                let password = self.secret(secrets, Secret::for_web)?;
                let read = |file: &Spanned<String>| secrets.read(Some(file.get_ref()), None, Secret::for_web);
                let privacy = self.privacy_file.as_ref().map(read).transpose()?;
                let hash = self.hash.as_ref().map(|hash| *hash.get_ref()).unwrap_or_default();
                SnmpLogin::V3 { user, hash, password, privacy }
            }
            Some(("2c", _)) => {
                if let Some(user) = &self.user {
                    bail!("{}: version 2c has none: its password is the community", at("user", user.span()));
                }
                SnmpLogin::V2c { community: self.secret(secrets, Secret::for_web)? }
            }
            Some((_, span)) => bail!("{}: \"3\" or \"2c\"", at("version", span)),
        };
        let outlets = self.outlets(text, None, 1..1_000)?.into_iter();
        let serial = serial.get_ref().trim();
        let config =
            |outlet| PduConfig { address, table: pdu, serial: serial.to_owned(), outlet, login: login.clone(), meter };
        Ok(outlets.map(config).collect())
    }

    /// A fence agent of others. `passwd` is the text of `/etc/passwd`.
    pub(super) fn program(&self, text: &str, secrets: &Keeper<'_>, passwd: &str) -> Result<ProgramConfig> {
        let example = "the fence agent's path, for instance \"/usr/sbin/fence_raritan\"";
        let agent = self.agent.as_ref().ok_or_else(|| self.lacks(text, "agent", example))?;
        let at = |key: &str, span| format!("{}: {key}", place(text, span));
        let path = Path::new(agent.get_ref());
        if !path.is_absolute() {
            bail!("{}: {example}", at("agent", agent.span()));
        }
        let example = "the user of this machine that it runs as, for instance \"nobody\"";
        let user = self.run_as.as_ref().ok_or_else(|| self.lacks(text, "run_as", example))?;
        let run_as = RunAs::of(passwd, user.get_ref()).with_context(|| {
            format!("{}: {:?} is root, or not in /etc/passwd", at("run_as", user.span()), user.get_ref())
        })?;
        let mut options = BTreeMap::new();
        for (name, value) in self.options.iter().flat_map(|options| options.get_ref()) {
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => u8::from(*truth).to_string(),
                toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                    bail!("options.{name}: a text, a whole number, or true or false");
                }
            };
            if OWN_OPTIONS.contains(&name.as_str()) {
                bail!("options.{name}: what is asked and the password don't belong here (password_file is for that)");
            }
            if !is_option(name, &value) {
                bail!("options.{name}: its name or value can't be a line that the agent reads");
            }
            options.insert(name.clone(), value);
        }
        if let Some(user) = &self.user {
            options.insert("username".to_owned(), user.get_ref().clone());
        }
        let without = self.no_password.as_ref().is_some_and(|no| *no.get_ref());
        let password = if without { None } else { Some(self.secret(secrets, Secret::for_web)?) };
        Ok(ProgramConfig { agent: path.to_owned(), options, password, run_as: Some(run_as) })
    }

    /// What wakes the node once its power is on again, if that is wanted.
    pub(super) fn wake(&self, text: &str) -> Result<Option<Wake>> {
        let at = |key: &str, span| format!("{}: {key}", place(text, span));
        let Some(mac) = &self.wake else {
            for (key, value) in [("wake_to", &self.wake_to), ("wake_secure_on", &self.wake_secure_on)] {
                if let Some(value) = value {
                    bail!("{}: without wake, the MAC address of the node, it is no use", at(key, value.span()));
                }
            }
            return Ok(None);
        };
        let to = match &self.wake_to {
            Some(to) => to.get_ref().parse().with_context(|| {
                format!("{}: is no ADDRESS:PORT, for instance 192.0.2.255:{WAKE_PORT}", at("wake_to", to.span()))
            })?,
            None => ([255; 4], WAKE_PORT).into(),
        };
        let parse = |key, value: &Spanned<String>| value.get_ref().parse().with_context(|| at(key, value.span()));
        let secure_on = self.wake_secure_on.as_ref().map(|value| parse("wake_secure_on", value)).transpose()?;
        Ok(Some(Wake { mac: parse("wake", mac)?, to, secure_on }))
    }

    /// A machine with a battery runs on when its supply is cut, and zero watts prove nothing.
    pub(super) fn has_no_battery(&self, text: &str) -> Result<()> {
        match &self.battery {
            Some(battery) if *battery.get_ref() => bail!(
                "{}: battery: a node with a battery runs on when its supply is cut, so this device would prove nothing. \
                 Way out: a BMC, or a watchdog; or take the battery out and the key away",
                place(text, battery.span())
            ),
            Some(_) | None => Ok(()),
        }
    }

    fn meter(&self, text: &str, usual: bool) -> Result<Meter> {
        let measured = self.measured.as_ref().map_or(usual, |measured| *measured.get_ref());
        match &self.off_below_watts {
            Some(watts) if !measured => {
                bail!("{}: off_below_watts: nothing is measured here", place(text, watts.span()))
            }
            Some(watts) if !(1..=MOST_WATTS).contains(watts.get_ref()) => bail!(
                "{}: off_below_watts: 1 to {MOST_WATTS}: more than the meter shows for nothing, less than the node takes \
                 when it idles",
                place(text, watts.span())
            ),
            Some(watts) => Ok(Meter::Below { milliwatts: watts.get_ref() * 1_000 }),
            None if measured => Ok(Meter::USUAL),
            None => Ok(Meter::None),
        }
    }

    /// The outlets, each once; `usual` where none is named.
    fn outlets(&self, text: &str, usual: Option<u32>, allowed: std::ops::Range<u32>) -> Result<Vec<u32>> {
        let Some(outlets) = &self.outlets else {
            let what = "the numbers of all outlets that feed the node, for instance [3]";
            return usual.map(|outlet| vec![outlet]).ok_or_else(|| self.lacks(text, "outlets", what));
        };
        let all = outlets.get_ref();
        let twice = all.iter().enumerate().any(|(place, outlet)| all[..place].contains(outlet));
        let strange = all.iter().any(|outlet| !allowed.contains(outlet));
        if all.is_empty() || all.len() > MAX_FEEDS || twice || strange {
            bail!(
                "{}: outlets: one to {MAX_FEEDS} different numbers from {} to {}",
                place(text, outlets.span()),
                allowed.start,
                allowed.end - 1
            );
        }
        Ok(all.clone())
    }
}
