//! How long a machine takes from power to its agent. What the kernel counts leaves out the firmware, which on a server takes
//! minutes; but whoever has switched a machine on knows when that was.

use std::collections::BTreeMap;

use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::report::Renew;
use tiebreaker_pipeline::state::BOOT_MAX_MS;
use tiebreaker_pipeline::time::Reading;

/// Machines that this appliance has switched on.
#[derive(Default)]
pub(super) struct PowerOns {
    /// Commands that aren't answered yet.
    asked: BTreeMap<u64, MemberName>,
    /// When a device took the command, where nothing has been heard since.
    on_since: BTreeMap<MemberName, Reading>,
    /// What was learnt, and on which boot: it holds for all renewals of that.
    learnt: BTreeMap<MemberName, (String, u64)>,
}

impl PowerOns {
    /// A power device is told something.
    pub fn told(&mut self, token: u64, node: &MemberName, command: DeviceCommand) {
        match command {
            DeviceCommand::On => {
                self.asked.insert(token, node.clone());
            }
            // Whatever it was switched on for is over.
            DeviceCommand::Off => {
                self.on_since.remove(node);
            }
            DeviceCommand::Look => {}
        }
    }

    /// A power device has answered.
    pub fn done(&mut self, now: Reading, token: u64, result: &DeviceResult) {
        let Some(node) = self.asked.remove(&token) else { return };
        if *result == DeviceResult::Taken {
            // Of two supplies the first one starts the machine.
            self.on_since.entry(node).or_insert(now);
        }
    }

    /// Adds to what a node tells of its boot what its firmware took, where this was seen.
    pub fn complete(&mut self, now: Reading, renew: &mut Renew, node: &MemberName) {
        if let Some((_, ms)) = self.learnt.get(node).filter(|(boot, _)| *boot == renew.boot) {
            renew.booted_in_ms = renew.booted_in_ms.map(|own| own.max(*ms));
            return;
        }
        let Some(since) = self.on_since.remove(node) else { return };
        // Who tells nothing of its boot has started more than once since.
        let Some(own) = renew.booted_in_ms else { return };
        let seen = u64::try_from(now.since_at_least(since).as_millis()).unwrap_or(u64::MAX);
        // A kernel that began before the power was switched on was on already; and what took longer than any boot was
        // something else.
        if (own..=BOOT_MAX_MS).contains(&seen) {
            self.learnt.insert(node.clone(), (renew.boot.clone(), seen));
            renew.booted_in_ms = Some(seen);
        }
    }

    /// What is known of machines that are gone needn't be remembered.
    pub fn forget(&mut self, is_there: impl Fn(&MemberName) -> bool) {
        self.on_since.retain(|name, _| is_there(name));
        self.learnt.retain(|name, _| is_there(name));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use tiebreaker_pipeline::level::Level;
    use tiebreaker_pipeline::report::{Capacity, Report};

    fn n1() -> MemberName {
        MemberName::new("n1").unwrap()
    }

    fn at(seconds: u64) -> Reading {
        Reading::both(seconds * 1_000_000_000)
    }

    fn renewal(boot: &str, booted_in_ms: Option<u64>) -> Renew {
        Renew {
            seq: 1,
            term: 1,
            incarnation: 1,
            boot: boot.into(),
            watchdog: None,
            machine: None,
            capacity: Capacity::default(),
            booted_in_ms,
            level: Level::KNOWN,
            report: Report {
                applied: 0,
                resources: BTreeMap::new(),
                hears: BTreeSet::new(),
                armed: false,
                leases_lost: 0,
                leaving: None,
                trouble: None,
                usage: BTreeMap::new(),
            },
        }
    }

    /// n1 was told "on", which its device took at ten seconds.
    fn switched_on() -> PowerOns {
        let mut power_ons = PowerOns::default();
        power_ons.told(7, &n1(), DeviceCommand::On);
        power_ons.done(at(10), 7, &DeviceResult::Taken);
        power_ons
    }

    fn told(power_ons: &mut PowerOns, seconds: u64, boot: &str, own: Option<u64>) -> Option<u64> {
        let mut renew = renewal(boot, own);
        power_ons.complete(at(seconds), &mut renew, &n1());
        renew.booted_in_ms
    }

    #[test]
    fn the_firmwares_part_counts_where_the_power_on_was_seen() {
        let mut power_ons = switched_on();
        assert_eq!(told(&mut power_ons, 190, "new", Some(40_000)), Some(180_000));
        assert_eq!(told(&mut power_ons, 500, "new", Some(40_000)), Some(180_000), "it isn't booting any more");
        assert_eq!(told(&mut power_ons, 900, "later", Some(40_000)), Some(40_000), "nobody saw that one");
    }

    #[test]
    fn what_was_on_already_or_took_no_command_or_restarted_since_teaches_nothing() {
        assert_eq!(told(&mut switched_on(), 20, "old", Some(3_600_000)), Some(3_600_000), "it ran for an hour");
        assert_eq!(told(&mut switched_on(), 190, "new", None), None);
        assert_eq!(told(&mut switched_on(), 3_600, "new", Some(40_000)), Some(40_000), "somebody came an hour later");
        let mut refused = PowerOns::default();
        refused.told(7, &n1(), DeviceCommand::On);
        refused.done(at(10), 7, &DeviceResult::Refused { why: "no".into() });
        assert_eq!(told(&mut refused, 190, "new", Some(40_000)), Some(40_000));
        let mut off_again = switched_on();
        off_again.told(8, &n1(), DeviceCommand::Off);
        assert_eq!(told(&mut off_again, 190, "new", Some(40_000)), Some(40_000));
    }
}
