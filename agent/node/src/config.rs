//! `agent.toml`: read strictly, so that a typo is an error with its line, never a setting that silently isn't there.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_member::program::{listen_addresses, read_config};
use tiebreaker_pipeline::name::MemberName;

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    name: String,
    listen: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    source: Option<String>,
    watchdog: String,
    #[serde(default)]
    accept: Vec<String>,
}

/// Where the node's watchdog is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchdogChoice {
    /// There is none.
    None,
    /// The supervisor's; for the demo and tests.
    Simulated,
    /// A device of the kernel.
    Device(PathBuf),
}

/// The configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub name: MemberName,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it.
    pub addresses: Vec<String>,
    /// Local address of outgoing connections.
    pub source: Option<IpAddr>,
    /// The watchdog.
    pub watchdog: WatchdogChoice,
    /// Watchdogs that an operator accepts by name though they are weaker.
    pub accept: Vec<String>,
}

impl std::str::FromStr for WatchdogChoice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "simulated" => Ok(Self::Simulated),
            path if path.starts_with("/dev/watchdog") => Ok(Self::Device(path.into())),
            other => {
                bail!("watchdog: {other:?} is not known: use \"none\", \"/dev/watchdog0\", or \"simulated\" in tests")
            }
        }
    }
}

impl std::fmt::Display for WatchdogChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Simulated => f.write_str("simulated"),
            Self::Device(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// Names the file, the place in it and the way out.
    pub fn load(path: &Path) -> Result<Self> {
        let raw: RawConfig = read_config(path, "join a cluster first (`tiebreaker-agent join`)")?;
        Self::check(raw).with_context(|| format!("in {}", path.display()))
    }

    fn check(raw: RawConfig) -> Result<Self> {
        let listen = listen_addresses(&raw.listen)?;
        let source = raw
            .source
            .map(|text| text.parse().with_context(|| format!("source: {text:?} is no IP address")))
            .transpose()?;
        Ok(Self {
            name: MemberName::new(&raw.name).context("name")?,
            listen,
            addresses: raw.addresses,
            source,
            watchdog: raw.watchdog.parse()?,
            accept: raw.accept,
        })
    }

    /// The configuration as text.
    ///
    /// # Errors
    /// When it can't be written as TOML.
    pub fn to_text(&self) -> Result<String> {
        let raw = RawConfig {
            name: self.name.to_string(),
            listen: self.listen.iter().map(ToString::to_string).collect(),
            addresses: self.addresses.clone(),
            source: self.source.map(|source| source.to_string()),
            watchdog: self.watchdog.to_string(),
            accept: self.accept.clone(),
        };
        Ok(toml::to_string(&raw)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives_writing_and_mistakes_are_named() {
        let text = "name = 'n1'\nlisten = ['127.0.0.1:1']\nwatchdog = 'simulated'\naccept = ['simulated']\n";
        let config = Config::check(toml::from_str(text).unwrap()).unwrap();
        let again = Config::check(toml::from_str(&config.to_text().unwrap()).unwrap()).unwrap();
        assert_eq!(again.watchdog, WatchdogChoice::Simulated);
        let error = toml::from_str::<RawConfig>(&format!("{text}wachdog = 1\n")).unwrap_err().to_string();
        assert!(error.contains("line 5") && error.contains("wachdog"), "{error}");
        assert!("softdog".parse::<WatchdogChoice>().unwrap_err().to_string().contains("/dev/watchdog0"));
    }
}
