//! Names of clusters and members, roles, and the URI that carries them in a certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name: one DNS label, because a cluster's name is sent as the TLS server name.
const MAX_NAME: usize = 63;

/// A name that can't be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a {what} name must not be empty")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// The name is longer than a DNS label.
    #[error("the {what} name '{name}' is longer than {MAX_NAME} characters")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// The name as given, shortened.
        name: String,
    },
    /// The name has a character that is not allowed where it stands.
    #[error(
        "the {what} name '{name}' is not usable: write lower-case letters, digits and '-', with a letter or digit at both ends"
    )]
    Character {
        /// What was to be named.
        what: &'static str,
        /// The name as given, shortened.
        name: String,
    },
    /// The text is none of the roles.
    #[error("'{0}' is no role: use node, appliance, operator, fence-client or observer")]
    Role(String),
    /// The text is no identity of a Tiebreaker certificate.
    #[error("'{0}' is not of the form tiebreaker://CLUSTER/ROLE/NAME")]
    Uri(String),
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME + 1).collect()
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong { what, name: shorten(text) });
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = text.as_bytes();
    let ends = bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-';
    if ends && bytes.iter().all(|b| inner(*b)) {
        Ok(())
    } else {
        Err(NameError::Character { what, name: shorten(text) })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The name of a cluster: one DNS label in lower case, at most 63 characters.
    ClusterName, "cluster"
}

name_type! {
    /// The name of a member, an operator or another client inside one cluster: lower-case letters, digits and `-`.
    MemberName, "member"
}

/// What the holder of a certificate is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The machine that runs `tiebreaker-server`. It sorts before every other role, so nodes dial it.
    Appliance,
    /// A machine that runs `tiebreaker-agent` and workloads.
    Node,
    /// A person at the command line or the dashboard.
    Operator,
    /// May ask for fencing on behalf of one Corosync cluster.
    FenceClient,
    /// May read.
    Observer,
}

impl Role {
    /// The role as it stands in a certificate.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Appliance => "appliance",
            Self::Node => "node",
            Self::Operator => "operator",
            Self::FenceClient => "fence-client",
            Self::Observer => "observer",
        }
    }

    /// Whether the holder takes part in the cluster: only members exchange messages and relay for each other.
    #[must_use]
    pub const fn is_member(self) -> bool {
        match self {
            Self::Appliance | Self::Node => true,
            Self::Operator | Self::FenceClient | Self::Observer => false,
        }
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "appliance" => Ok(Self::Appliance),
            "node" => Ok(Self::Node),
            "operator" => Ok(Self::Operator),
            "fence-client" => Ok(Self::FenceClient),
            "observer" => Ok(Self::Observer),
            _ => Err(NameError::Role(shorten(text))),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who a certificate speaks for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PeerId {
    /// The cluster.
    pub cluster: ClusterName,
    /// The role in it.
    pub role: Role,
    /// The name in it.
    pub name: MemberName,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' of cluster '{}'", self.role, self.name, self.cluster)
    }
}

/// What a certificate states: who, and under which number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Who.
    pub peer: PeerId,
    /// The member's number in consensus. Numbers are never used again, so a removal that names one can't hit the
    /// machine that later joins under the same name.
    pub raft_id: Option<u64>,
}

const SCHEME: &str = "tiebreaker://";

impl Subject {
    /// The URI for the certificate's subject alternative name: `tiebreaker://CLUSTER/ROLE/NAME`, with `?id=N` where
    /// there is a number.
    #[must_use]
    pub fn to_uri(&self) -> String {
        let PeerId { cluster, role, name } = &self.peer;
        match self.raft_id {
            Some(id) => format!("{SCHEME}{cluster}/{role}/{name}?id={id}"),
            None => format!("{SCHEME}{cluster}/{role}/{name}"),
        }
    }

    /// Reads such a URI. Exactly one spelling is accepted for each subject.
    ///
    /// # Errors
    /// When the text has another form, or a name or role in it is not usable.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        let bad = || NameError::Uri(uri.chars().filter(|c| !c.is_control()).take(256).collect());
        let rest = uri.strip_prefix(SCHEME).ok_or_else(bad)?;
        let (path, raft_id) = match rest.split_once("?id=") {
            Some((path, id)) => (path, Some(id.parse::<u64>().map_err(|_| bad())?)),
            None => (rest, None),
        };
        let mut parts = path.split('/');
        let (Some(cluster), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let peer = PeerId { cluster: cluster.parse()?, role: role.parse()?, name: name.parse()? };
        let subject = Self { peer, raft_id };
        if subject.to_uri() == uri { Ok(subject) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_survives_its_uri() {
        for uri in ["tiebreaker://home/node/pve-1", "tiebreaker://h/appliance/pi?id=18446744073709551615"] {
            assert_eq!(Subject::from_uri(uri).unwrap().to_uri(), uri);
        }
    }

    #[test]
    fn a_uri_has_one_spelling() {
        for uri in [
            "tiebreaker://home/node/pve1?id=07",
            "tiebreaker://home/node/pve1?id=+7",
            "tiebreaker://home/node/pve1/",
            "tiebreaker://home//pve1",
            "tiebreaker://home/root/pve1",
            "tiebreaker://Home/node/pve1",
            "https://home/node/pve1",
            "tiebreaker://home/node/pve1?id=",
            "",
        ] {
            assert!(Subject::from_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        assert!("a".parse::<ClusterName>().is_ok());
        for bad in ["", "-a", "a-", "a.b", "A", "ä", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
            assert!(bad.parse::<MemberName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_appliance_sorts_first() {
        assert!(Role::Appliance < Role::Node);
    }
}
