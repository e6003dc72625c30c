//! How to reach one outlet of a smart plug.

use std::{fmt, net::SocketAddr, str::FromStr};

use crate::{AccountName, Secret};

/// What a plug speaks. Nothing is guessed: a stranger could choose the one that gives the password away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlugModel {
    /// Shelly of the first generation: its own HTTP interface, the password in the clear.
    ShellyGen1,
    /// Shelly from the second generation on (Plus, Pro, Gen3, Gen4): RPC over HTTP, login by a SHA-256 digest.
    Shelly,
    /// Any relay with the firmware Tasmota: the password goes into the URL.
    Tasmota,
}

impl PlugModel {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PlugModel::ShellyGen1 => "shelly-gen1",
            PlugModel::Shelly => "shelly",
            PlugModel::Tasmota => "tasmota",
        }
    }

    /// How its first outlet is numbered.
    #[must_use]
    pub fn first_outlet(self) -> u8 {
        match self {
            PlugModel::ShellyGen1 | PlugModel::Shelly => 0,
            PlugModel::Tasmota => 1,
        }
    }
}

/// Outlets that one plug can have; the largest power strips have eight.
pub const MAX_PLUG_OUTLETS: u8 = 8;

/// The MAC address of a plug, by which it is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

/// A text is no [`MacAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no MAC address, for instance a8:03:2a:be:54:dc")]
pub struct BadMacAddress;

impl MacAddress {
    /// The address as bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = BadMacAddress;

    /// Twelve hexadecimal digits, with colons or hyphens between the bytes or without.
    fn from_str(text: &str) -> Result<Self, BadMacAddress> {
        let digits: Vec<u8> = match text.len() {
            12 => text.bytes().collect(),
            17 => {
                let mark = text.as_bytes()[2];
                let marks = matches!(mark, b':' | b'-') && text.bytes().skip(2).step_by(3).all(|byte| byte == mark);
                if !marks {
                    return Err(BadMacAddress);
                }
                text.bytes().enumerate().filter(|(place, _)| place % 3 != 2).map(|(_, byte)| byte).collect()
            }
            _ => return Err(BadMacAddress),
        };
        let mut bytes = [0; 6];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            for digit in pair {
                let nibble = char::from(*digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
                *byte = *byte << 4 | nibble.ok_or(BadMacAddress)?;
            }
        }
        // No card has the first one, and the other one is everybody's.
        if bytes == [0; 6] || bytes == [0xFF; 6] { Err(BadMacAddress) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if place > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether the outlet's power is measured, and what that says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// The outlet reads off only when its relay is open *and* less than this flows, in milliwatts. A plug that doesn't tell
    /// what flows can't be read then.
    Below {
        /// Milliwatts. Less than the node takes when it idles, more than a meter shows for nothing.
        milliwatts: u32,
    },
    /// Nothing is measured: the relay's word is all there is, and weaker evidence.
    None,
}

impl Meter {
    /// What a meter shows where nothing flows is below this; no node idles on so little.
    pub const USUAL: Meter = Meter::Below { milliwatts: 1_000 };
}

/// The account to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlugLogin {
    /// Its name. Only the first generation of Shelly lets it be chosen, elsewhere it is `admin`.
    pub user: AccountName,
    /// Its password.
    pub password: Secret,
}

/// One outlet of a plug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlugConfig {
    /// Where the plug listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub model: PlugModel,
    /// Which plug it is.
    pub mac: MacAddress,
    /// The outlet, numbered as the plug numbers it: see [`PlugModel::first_outlet`].
    pub outlet: u8,
    /// The account, if the plug asks for one.
    pub login: Option<PlugLogin>,
    /// What is measured.
    pub meter: Meter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_read_as_devices_write_it() {
        for text in ["A8032ABE54DC", "a8:03:2a:be:54:dc", "A8-03-2A-BE-54-DC"] {
            assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), "a8:03:2a:be:54:dc");
        }
        for bad in [
            "",
            "a8032abe54d",
            "a8032abe54dcc",
            "g8032abe54dc",
            "a8:03:2a:be:54-dc",
            "a8:03:2a:be:54:d:",
            "000000000000",
        ] {
            assert_eq!(bad.parse::<MacAddress>(), Err(BadMacAddress), "{bad}");
        }
        assert!("ff:ff:ff:ff:ff:ff".parse::<MacAddress>().is_err() && "äöüäöü".parse::<MacAddress>().is_err());
    }
}
