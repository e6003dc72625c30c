//! Which certificates are refused although their dates are good: those of removed members.

use std::collections::{BTreeMap, BTreeSet};

use super::certificate::{PeerCert, Serial};
use super::name::{MemberName, Role};

/// The removed. It comes from the replicated state and is looked at on every handshake and, whenever it changes, for
/// every open connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Highest refused number by role and name. A certificate without a number counts as number zero.
    removed: BTreeMap<(Role, MemberName), u64>,
    serials: BTreeSet<Serial>,
}

impl Roster {
    /// Refuses every certificate of this role and name with a number up to `raft_id`, or without one; a later joiner
    /// of the same name has a higher number and is let in. `None` refuses the name altogether.
    pub fn remove(&mut self, role: Role, name: MemberName, raft_id: Option<u64>) {
        let upto = raft_id.unwrap_or(u64::MAX);
        let entry = self.removed.entry((role, name)).or_insert(upto);
        *entry = upto.max(*entry);
    }

    /// Refuses one certificate.
    pub fn remove_serial(&mut self, serial: Serial) {
        self.serials.insert(serial);
    }

    /// Whether this certificate belongs to somebody who was removed.
    #[must_use]
    pub fn refuses(&self, cert: &PeerCert) -> bool {
        let peer = &cert.subject.peer;
        let number = cert.subject.raft_id.unwrap_or(0);
        self.serials.contains(&cert.serial)
            || self.removed.get(&(peer.role, peer.name.clone())).is_some_and(|upto| number <= *upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Subject;

    fn cert(uri: &str, serial: u8) -> PeerCert {
        PeerCert {
            subject: Subject::from_uri(uri).unwrap(),
            serial: Serial::from_bytes([serial; 16]),
            not_before: 0,
            not_after: 1,
        }
    }

    #[test]
    fn a_successor_of_the_same_name_is_let_in() {
        let mut roster = Roster::default();
        roster.remove(Role::Node, "a".parse().unwrap(), Some(3));
        roster.remove(Role::Node, "a".parse().unwrap(), Some(2));
        assert!(roster.refuses(&cert("tiebreaker://c/node/a?id=3", 1)));
        assert!(roster.refuses(&cert("tiebreaker://c/node/a", 1)));
        assert!(!roster.refuses(&cert("tiebreaker://c/node/a?id=4", 1)));
        assert!(!roster.refuses(&cert("tiebreaker://c/operator/a", 1)));
        roster.remove(Role::Node, "a".parse().unwrap(), None);
        assert!(roster.refuses(&cert("tiebreaker://c/node/a?id=4", 1)));
    }

    #[test]
    fn one_serial_can_be_refused() {
        let mut roster = Roster::default();
        roster.remove_serial(Serial::from_bytes([9; 16]));
        assert!(roster.refuses(&cert("tiebreaker://c/operator/eve", 9)));
        assert!(!roster.refuses(&cert("tiebreaker://c/operator/eve", 8)));
    }
}
