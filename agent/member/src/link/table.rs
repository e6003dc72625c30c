//! Who the members are and where they listen, as the link layer is told from above.

use std::collections::BTreeMap;

use super::address::Address;
use crate::identity::{MemberName, Role, Roster};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberEntry {
    /// Appliance or node.
    pub role: Role,
    /// Where it listens. All are tried, at most the first 16.
    pub addresses: Vec<Address>,
}

/// The members of one cluster. The layer above publishes a new one whenever it changes; connections of whoever is no
/// longer in it, or is in the roster of the removed, are closed at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerTable {
    /// Grows when an operator overrides quorum: members of different epochs don't talk to each other.
    pub epoch: u64,
    /// Every member by name; this one's own entry is ignored.
    pub members: BTreeMap<MemberName, MemberEntry>,
    /// Whose certificates are refused.
    pub roster: Roster,
    /// The lowest number that was given to nobody yet, as far as this member has heard. Whoever bears a certificate with
    /// this number or a higher one has joined since: it is let in as a member before it is in the table. `None` lets
    /// nobody in that way.
    pub newcomers_from: Option<u64>,
}
