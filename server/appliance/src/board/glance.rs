//! What the LEDs tell, out of what the clusters say of themselves.

use std::collections::BTreeSet;

use tiebreaker_firmware::{Fault, Fencing, Quorum};
use tiebreaker_member::ask::FencedCluster;
use tiebreaker_member::core::{Status, unproven};

/// All that is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Glance {
    pub(super) quorum: Quorum,
    pub(super) fencing: Fencing,
    pub(super) fault: Fault,
    /// The switching of power is held in every cluster that answers.
    pub(super) held: bool,
    /// What asks for a person, in words: whoever acknowledged all of it isn't asked again.
    pub(super) reasons: BTreeSet<String>,
}

impl Glance {
    /// The daemon doesn't answer itself.
    pub(super) fn silent() -> Self {
        let reasons = BTreeSet::from(["the appliance doesn't answer itself".to_owned()]);
        Self { quorum: Quorum::Lost, fencing: Fencing::Idle, fault: Fault::Silent, held: false, reasons }
    }

    /// The worst of all clusters. `None` stands for one that doesn't answer. Of Corosync clusters the holds count alone.
    pub(super) fn of(clusters: &[Option<Status>], fenced: &[FencedCluster]) -> Self {
        let own = clusters.iter().flatten().map(|status| status.settings.hold.is_some());
        let holds: Vec<bool> = own.chain(fenced.iter().map(|cluster| cluster.hold.is_some())).collect();
        let held = !holds.is_empty() && holds.iter().all(|held| *held);
        let (fencing, reasons) = (Fencing::Idle, BTreeSet::new());
        let mut glance = Self { quorum: Quorum::Whole, fencing, fault: Fault::None, held, reasons };
        for cluster in clusters {
            match cluster {
                Some(status) => glance.add(status),
                None => {
                    glance.quorum = Quorum::Lost;
                    glance.fault = glance.fault.max(Fault::Alarm);
                    glance.reasons.insert("a cluster doesn't answer".to_owned());
                }
            }
        }
        if holds.contains(&true) {
            glance.fencing = glance.fencing.max(Fencing::Held);
        }
        glance
    }

    fn add(&mut self, status: &Status) {
        let (in_service, expected) = status.votes;
        let quorum = match &status.leader {
            None => Quorum::Lost,
            Some(_) if in_service < expected => Quorum::Majority,
            Some(_) => Quorum::Whole,
        };
        self.quorum = self.quorum.max(quorum);
        for open in status.fences.iter().filter(|open| open.fence.is_open()) {
            let fencing = if open.fence.last_failure.is_some() { Fencing::Failed } else { Fencing::UnderWay };
            self.fencing = self.fencing.max(fencing);
        }
        let devices = status.members.iter().flat_map(|member| {
            let lacks = member.unprotectable.is_some();
            let unproven_ones = member.devices.iter().filter(|device| !device.proven);
            unproven_ones.map(move |device| unproven(&member.name, device, lacks))
        });
        let devices: BTreeSet<String> = devices.collect();
        for device in &devices {
            self.fault = self.fault.max(Fault::Device);
            self.reasons.insert(format!("{} {device}", status.cluster));
        }
        // They are among the alarms too, and have a sign of their own.
        for alarm in status.alarms.iter().filter(|alarm| !devices.contains(*alarm)) {
            self.fault = self.fault.max(Fault::Alarm);
            self.reasons.insert(format!("{} {alarm}", status.cluster));
        }
    }

    /// What is left to show once a person has seen `acknowledged`.
    pub(super) fn unless_seen(&self, acknowledged: &BTreeSet<String>) -> Fault {
        if self.reasons.is_subset(acknowledged) { Fault::None } else { self.fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_stays_dark_until_something_new_comes() {
        let mut glance = Glance::of(&[], &[]);
        assert_eq!((glance.quorum, glance.fault), (Quorum::Whole, Fault::None));
        glance.fault = Fault::Device;
        glance.reasons.insert("bmc".into());
        assert_eq!(glance.unless_seen(&BTreeSet::new()), Fault::Device);
        let seen = glance.reasons.clone();
        assert_eq!(glance.unless_seen(&seen), Fault::None);
        glance.reasons.insert("another".into());
        assert_eq!(glance.unless_seen(&seen), Fault::Device);
    }

    #[test]
    fn a_hold_is_shown_and_only_if_all_are_held_the_button_releases() {
        use super::super::tests::{fenced, status};
        let of = |held: [bool; 2]| Glance::of(&[Some(status("home", held[0])), Some(status("work", held[1]))], &[]);
        for (held, fencing, all) in [
            ([false, false], Fencing::Idle, false),
            ([true, false], Fencing::Held, false),
            ([true, true], Fencing::Held, true),
        ] {
            let glance = of(held);
            assert_eq!((glance.fencing, glance.held), (fencing, all), "{held:?}");
        }
        for (own, door, fencing, all) in [
            (false, true, Fencing::Held, false),
            (true, false, Fencing::Held, false),
            (true, true, Fencing::Held, true),
        ] {
            let glance = Glance::of(&[Some(status("home", own))], &[fenced("prod", door)]);
            assert_eq!((glance.fencing, glance.held), (fencing, all), "{own} {door}");
        }
        assert!(Glance::of(&[], &[fenced("prod", true)]).held, "there is no other cluster");
        // One that doesn't answer is not known to be held.
        assert!(Glance::of(&[Some(status("home", true)), None], &[]).held, "of those that answer all are");
        assert!(!Glance::of(&[None], &[]).held && !Glance::of(&[], &[]).held);
    }

    #[test]
    fn a_cluster_that_does_not_answer_has_no_majority_that_one_could_rely_on() {
        let glance = Glance::of(&[None], &[]);
        assert_eq!((glance.quorum, glance.fault), (Quorum::Lost, Fault::Alarm));
        assert_eq!(Glance::silent().fault, Fault::Silent);
    }
}
