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
    /// The same of those that a takeover left behind. They pass the TLS handshake, so that they can be told why they are
    /// refused, and nothing more.
    left_behind: BTreeMap<(Role, MemberName), u64>,
    serials: BTreeSet<Serial>,
    /// The roles of which only these are let in, by the keys that they enrolled with.
    keys: BTreeMap<Role, BTreeMap<MemberName, String>>,
}

impl Roster {
    /// Refuses every certificate of this role and name with a number up to `raft_id`, or without one; a later joiner
    /// of the same name has a higher number and is let in. `None` refuses the name altogether.
    pub fn remove(&mut self, role: Role, name: MemberName, raft_id: Option<u64>) {
        let upto = raft_id.unwrap_or(u64::MAX);
        let entry = self.removed.entry((role, name)).or_insert(upto);
        *entry = upto.max(*entry);
    }

    /// Refuses as [`Roster::remove`] does, after the TLS handshake.
    pub fn leave_behind(&mut self, role: Role, name: MemberName, raft_id: u64) {
        let entry = self.left_behind.entry((role, name)).or_insert(raft_id);
        *entry = raft_id.max(*entry);
    }

    /// Refuses one certificate.
    pub fn remove_serial(&mut self, serial: Serial) {
        self.serials.insert(serial);
    }

    /// Lets in of this role only these, each with any certificate for its own key: whoever enrols anew has another key, and so
    /// however many certificates it had before are worth nothing.
    pub fn bind_keys(&mut self, role: Role, keys: BTreeMap<MemberName, String>) {
        self.keys.insert(role, keys);
    }

    /// Whether this certificate belongs to somebody who was removed or left behind.
    #[must_use]
    pub fn refuses(&self, cert: &PeerCert) -> bool {
        self.was_removed(cert) || self.was_left_behind(cert)
    }

    /// Whether it belongs to somebody who was removed: then there is nothing to say to it.
    #[must_use]
    pub fn was_removed(&self, cert: &PeerCert) -> bool {
        self.serials.contains(&cert.serial) || is_in(&self.removed, cert) || self.is_of_another_key(cert)
    }

    /// Whether it belongs to somebody whom a takeover left behind.
    #[must_use]
    pub fn was_left_behind(&self, cert: &PeerCert) -> bool {
        is_in(&self.left_behind, cert)
    }

    fn is_of_another_key(&self, cert: &PeerCert) -> bool {
        let peer = &cert.subject.peer;
        self.keys.get(&peer.role).is_some_and(|keys| keys.get(&peer.name) != Some(&cert.key))
    }
}

fn is_in(refused: &BTreeMap<(Role, MemberName), u64>, cert: &PeerCert) -> bool {
    let peer = &cert.subject.peer;
    let number = cert.subject.raft_id.unwrap_or(0);
    refused.get(&(peer.role, peer.name.clone())).is_some_and(|upto| number <= *upto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Subject;

    fn cert(uri: &str, serial: u8) -> PeerCert {
        PeerCert {
            subject: Subject::from_uri(uri).unwrap(),
            serial: Serial::from_bytes([serial; 16]),
            key: format!("key {serial}"),
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
    fn who_was_left_behind_is_refused_but_may_be_told_why() {
        let mut roster = Roster::default();
        roster.leave_behind(Role::Appliance, "pi".parse().unwrap(), 3);
        let old = cert("tiebreaker://c/appliance/pi?id=3", 1);
        assert!(roster.refuses(&old) && roster.was_left_behind(&old) && !roster.was_removed(&old));
        let new = cert("tiebreaker://c/appliance/pi?id=4", 1);
        assert!(!roster.refuses(&new), "it joined again");
        roster.remove(Role::Appliance, "pi".parse().unwrap(), Some(4));
        assert!(roster.was_removed(&new));
    }

    #[test]
    fn a_role_can_be_bound_to_the_keys_that_its_holders_enrolled_with() {
        let mut roster = Roster::default();
        roster.bind_keys(Role::FenceClient, BTreeMap::from([("a".parse().unwrap(), "key 2".to_owned())]));
        assert!(!roster.refuses(&cert("tiebreaker://c/fence-client/a", 2)));
        assert!(roster.was_removed(&cert("tiebreaker://c/fence-client/a", 1)), "another key");
        assert!(roster.was_removed(&cert("tiebreaker://c/fence-client/b", 2)), "it never enrolled");
        assert!(!roster.refuses(&cert("tiebreaker://c/operator/a", 1)), "of another role");
    }

    #[test]
    fn one_serial_can_be_refused() {
        let mut roster = Roster::default();
        roster.remove_serial(Serial::from_bytes([9; 16]));
        assert!(roster.refuses(&cert("tiebreaker://c/operator/eve", 9)));
        assert!(!roster.refuses(&cert("tiebreaker://c/operator/eve", 8)));
    }
}
