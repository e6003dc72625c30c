//! Names of clusters and members, roles, and the URI that carries them in a certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
pub use tiebreaker_pipeline::name::{ClusterName, MemberName};

/// As much of a refused text as is shown.
const SHOWN: usize = 64;

/// A name, role or URI that can't be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name.
    #[error(transparent)]
    Name(#[from] tiebreaker_pipeline::name::NameError),
    /// The text is none of the roles.
    #[error("'{0}' is no role: use node, appliance, operator, fence-client or observer")]
    Role(String),
    /// The text is no identity of a Tiebreaker certificate.
    #[error("'{0}' is not of the form tiebreaker://CLUSTER/ROLE/NAME")]
    Uri(String),
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
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
    /// The appliance's authority itself, which asks the members to let its restored appliance in again. Nobody joins with it:
    /// only who holds the authority's key can make such a certificate.
    Authority,
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
            Self::Authority => "authority",
        }
    }

    /// Whether the holder takes part in the cluster: only members exchange messages and relay for each other.
    #[must_use]
    pub const fn is_member(self) -> bool {
        match self {
            Self::Appliance | Self::Node => true,
            Self::Operator | Self::FenceClient | Self::Observer | Self::Authority => false,
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
            "authority" => Ok(Self::Authority),
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
    fn the_appliance_sorts_first() {
        assert!(Role::Appliance < Role::Node);
    }
}
