//! How to reach one BMC.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::Secret;

/// The UDP port of RMCP (IANA `asf-rmcp`).
pub const RMCP_PORT: u16 = 623;

/// The cipher suites that this client speaks, by their numbers in the IPMI v2.0 specification (table 22-20). All others
/// lack authentication, integrity or encryption, or rest on MD5, and are not implemented at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Suite {
    /// 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128. For BMCs that know no better.
    Sha1,
    /// 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Sha256,
}

/// A cipher suite that isn't spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cipher suite {0} is not supported, only 17 and 3 are")]
pub struct UnknownSuite(pub u8);

impl Suite {
    /// The number in the specification.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Suite::Sha1 => 3,
            Suite::Sha256 => 17,
        }
    }
}

impl TryFrom<u8> for Suite {
    type Error = UnknownSuite;
    fn try_from(number: u8) -> Result<Self, UnknownSuite> {
        match number {
            3 => Ok(Suite::Sha1),
            17 => Ok(Suite::Sha256),
            other => Err(UnknownSuite(other)),
        }
    }
}

impl From<Suite> for u8 {
    fn from(suite: Suite) -> u8 {
        suite.number()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// The privilege levels of a session (table 22-19). Operator is the least that may switch power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// May read.
    User,
    /// May read and switch.
    #[default]
    Operator,
    /// May also change the BMC's own settings. Never needed for fencing.
    Administrator,
}

impl Privilege {
    pub(crate) const fn level(self) -> u8 {
        match self {
            Privilege::User => 2,
            Privilege::Operator => 3,
            Privilege::Administrator => 4,
        }
    }

    pub(crate) fn from_level(level: u8) -> Option<Self> {
        match level {
            2 => Some(Privilege::User),
            3 => Some(Privilege::Operator),
            4 => Some(Privilege::Administrator),
            _ => None,
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Privilege::User => "user",
            Privilege::Operator => "operator",
            Privilege::Administrator => "administrator",
        })
    }
}

/// The name of an account: 1 to 16 bytes without zero bytes (RAKP message 1 has room for 16).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a text can't be a [`UserName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user name {0:?} must have 1 to {max} bytes and no zero byte", max = UserName::MAX_BYTES)]
pub struct BadUserName(String);

impl UserName {
    /// The longest name (section 13.20).
    pub const MAX_BYTES: usize = 16;

    /// Checks the length.
    ///
    /// # Errors
    /// The name is empty, too long or holds a zero byte. The empty name means "any account" to a BMC, so it is refused.
    pub fn new(name: impl Into<String>) -> Result<Self, BadUserName> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::MAX_BYTES || name.contains('\0') {
            return Err(BadUserName(name));
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for UserName {
    type Error = BadUserName;
    fn try_from(name: String) -> Result<Self, BadUserName> {
        Self::new(name)
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> String {
        name.0
    }
}

/// One BMC and the account to use there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpmiConfig {
    /// Where the BMC listens. In text the port may be left out and is then 623. No host names: a name server that needs
    /// the cluster would make fencing wait for the very thing that fencing is to repair.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// The account, best one of its own with operator rights only.
    pub user: UserName,
    /// Its password. Anyone who can name a valid user gets a hash of it from the BMC, so let it be long and random.
    pub password: Secret,
    /// The suite that [`crate::probe_suite`] found at enrolment. Nothing else is ever accepted.
    pub suite: Suite,
    /// The BMC's own key, where it demands one.
    #[serde(default)]
    pub kg: Option<Secret>,
    /// What to ask for.
    #[serde(default)]
    pub privilege: Privilege,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, RMCP_PORT));
    }
    text.parse().map_err(|_| {
        de::Error::custom(format!("{text:?} is not an address such as 192.0.2.7, 192.0.2.7:623 or [2001:db8::7]:623"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str, rest: &str) -> Result<IpmiConfig, toml::de::Error> {
        toml::from_str(&format!("address = '{address}'\nuser = 'tb'\npassword = 'pw'\n{rest}"))
    }

    #[test]
    fn a_config_parses_with_its_defaults() {
        let config = parse("192.0.2.7", "suite = 17").unwrap();
        assert_eq!(config.address, "192.0.2.7:623".parse().unwrap());
        assert_eq!((config.suite, config.privilege, config.kg), (Suite::Sha256, Privilege::Operator, None));
        for text in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:623"] {
            assert_eq!(parse(text, "suite = 3").unwrap().address, "[2001:db8::7]:623".parse().unwrap());
        }
    }

    #[test]
    fn weak_suites_names_and_unknown_keys_are_refused() {
        assert!(parse("192.0.2.7", "suite = 2").unwrap_err().message().contains("suite 2"));
        assert!(parse("192.0.2.7", "").unwrap_err().message().contains("suite"));
        assert!(parse("bmc.lan", "suite = 3").unwrap_err().message().contains("bmc.lan"));
        assert!(parse("192.0.2.7", "suite = 3\nsuit = 3").is_err());
        assert!(UserName::new("").is_err() && UserName::new("12345678901234567").is_err());
    }

    #[test]
    fn a_config_never_prints_its_password() {
        let text = format!("{:?}", parse("192.0.2.7", "suite = 3\nkg = 'topsecret'").unwrap());
        assert!(!text.contains("pw") && !text.contains("topsecret"), "{text}");
    }
}
