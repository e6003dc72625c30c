//! How to reach one system behind a BMC.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Secret, web::pin::Pins};

/// The port of HTTPS.
pub const HTTPS_PORT: u16 = 443;

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedfishLogin {
    /// Name and password with each question. Takes none of the few sessions that a BMC has.
    #[default]
    Basic,
    /// A session for each operation, ended after it. For BMCs that refuse the other.
    Session,
}

/// The path of something on a BMC.
///
/// ASCII without blanks, from the root, without a query or steps upwards: it can't lead to another host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourcePath(String);

/// A text is no [`ResourcePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no path on the device, for instance /redfish/v1/Systems/1")]
pub struct BadPath;

/// The longest path that is taken.
const MAX_PATH: usize = 512;

impl ResourcePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both name the same thing: a slash at the end says nothing.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0.trim_end_matches('/') == other.0.trim_end_matches('/')
    }

    /// Whether this lies below `other`.
    #[must_use]
    pub fn below(&self, other: &Self) -> bool {
        self.0.strip_prefix(other.0.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    }
}

impl FromStr for ResourcePath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        let proper = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '"' | '<' | '>');
        let steps = |text: &str| text.split('/').any(|step| matches!(step, "." | ".."));
        let fine = text.starts_with('/')
            && !text.starts_with("//")
            && text.len() <= MAX_PATH
            && text.chars().all(proper)
            && !steps(text);
        if fine { Ok(Self(text.to_owned())) } else { Err(BadPath) }
    }
}

impl TryFrom<String> for ResourcePath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        text.parse()
    }
}

impl From<ResourcePath> for String {
    fn from(path: ResourcePath) -> String {
        path.0
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The account to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountName(String);

/// A text is no [`AccountName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user name {0:?} must have 1 to 64 characters, without colons and control characters")]
pub struct BadAccountName(String);

impl AccountName {
    /// Checks the name.
    ///
    /// # Errors
    /// It is empty, longer than 64 characters, or holds a colon or control characters, which HTTP's logins can't carry
    /// (RFC 7617, section 2).
    pub fn new(name: impl Into<String>) -> Result<Self, BadAccountName> {
        let name = name.into();
        let fine = (1..=64).contains(&name.chars().count()) && !name.contains(|c: char| c == ':' || c.is_control());
        if fine { Ok(Self(name)) } else { Err(BadAccountName(name)) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One system behind a BMC, and the account to use there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedfishConfig {
    /// Where the BMC listens.
    pub address: SocketAddr,
    /// The certificates that it may show.
    pub pins: Pins,
    /// The account. It needs the privilege `ConfigureComponents`, which the roles Operator and Administrator have.
    pub user: AccountName,
    /// Its password.
    pub password: Secret,
    /// How to log in.
    pub login: RedfishLogin,
    /// The system, of those that the BMC has.
    pub system: ResourcePath,
    /// The system's UUID, which is looked at before anything else in every operation. Without it [`drilled`] has to be
    /// true for the device to be of use.
    ///
    /// [`drilled`]: RedfishConfig::drilled
    pub uuid: Option<String>,
    /// Somebody saw this account switch this system. Then what the BMC tells nobody, the rights of the account and the
    /// kinds of reset that it knows, is no fault; what it tells still counts.
    pub drilled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ResourcePath {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        for bad in
            ["", "redfish", "//evil/redfish", "http://evil/", "/a b", "/a?b", "/a#b", "/a/../b", "/a\r\nb: c", "/ä"]
        {
            assert_eq!(bad.parse::<ResourcePath>(), Err(BadPath), "{bad}");
        }
        assert!(format!("/{}", "a".repeat(MAX_PATH)).parse::<ResourcePath>().is_err());
        assert_eq!(path("/redfish/v1/Systems/System.Embedded.1").as_str(), "/redfish/v1/Systems/System.Embedded.1");
    }

    #[test]
    fn paths_are_compared_by_their_steps() {
        let system = path("/redfish/v1/Systems/1");
        assert!(system.same(&path("/redfish/v1/Systems/1/")) && !system.same(&path("/redfish/v1/Systems/11")));
        assert!(path("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset").below(&system));
        for other in
            ["/redfish/v1/Systems/11/Actions/ComputerSystem.Reset", "/redfish/v1/Systems/1", "/redfish/v1/Systems/1/"]
        {
            assert!(!path(other).below(&system), "{other}");
        }
    }

    #[test]
    fn a_name_that_http_cant_carry_is_refused() {
        for bad in ["", "a:b", "a\nb", &"a".repeat(65)] {
            assert!(AccountName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(AccountName::new("tiebreaker").unwrap().as_str(), "tiebreaker");
    }
}
