//! Names that aren't on the wire, or only as bytes.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// One connection, numbered by the shell; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// A cluster's name as its nodes send it: bytes, compared exactly, possibly none. Copies share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterName(Arc<[u8]>);

impl ClusterName {
    /// A name.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for ClusterName {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

/// The name as text; what is not printable ASCII is escaped, so that a name can't forge a line of a log.
impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
