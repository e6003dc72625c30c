//! How much memory is promised, by class, on each node and in all.

use std::collections::BTreeMap;

use serde::Serialize;
use tiebreaker_member::core::Status;
use tiebreaker_pipeline::manager::Outlook;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::resource::{Class, Requested};
use tiebreaker_pipeline::state::Role;

/// What `tiebreaker plan` answers.
#[derive(Serialize, Clone, Debug)]
pub struct Planned {
    /// How many failures are tolerable, and why not more.
    #[serde(flatten)]
    pub outlook: Outlook,
    /// Per node what is promised there.
    pub memory: BTreeMap<MemberName, Promised>,
    /// The same in all nodes together; what is on its way from one to another counts on both.
    pub memory_in_all: Promised,
}

/// Memory in bytes.
#[derive(Serialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Promised {
    /// What there is for resources; absent where that isn't known.
    pub has: Option<u64>,
    /// What the resources of each class that shall run were promised.
    pub by_class: BTreeMap<Class, u64>,
}

impl Promised {
    fn add(&mut self, class: Class, bytes: u64) {
        let sum = self.by_class.entry(class).or_default();
        *sum = sum.saturating_add(bytes);
    }

    /// What nobody was promised; absent where what there is isn't known.
    pub fn free(&self) -> Option<u64> {
        let promised = self.by_class.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        self.has.map(|has| has.saturating_sub(promised))
    }
}

impl Planned {
    /// From a status, and the outlook in it.
    pub fn of(status: &Status, outlook: Outlook) -> Self {
        let nodes = status.members.iter().filter(|member| member.role == Role::Node);
        let mut memory: BTreeMap<MemberName, Promised> = nodes
            .map(|node| (node.name.clone(), Promised { has: node.capacity.memory, by_class: BTreeMap::new() }))
            .collect();
        for resource in status.resources.iter().filter(|resource| resource.requested == Requested::Started) {
            let bound_for = resource.phase.bound_for().filter(|to| Some(*to) != resource.phase.owner());
            for node in resource.phase.owner().into_iter().chain(bound_for) {
                if let Some(there) = memory.get_mut(node) {
                    there.add(resource.spec.class, resource.spec.memory.unwrap_or(0));
                }
            }
        }
        // What one node doesn't tell isn't known of all.
        let has = memory.values().try_fold(0_u64, |sum, there| Some(sum.saturating_add(there.has?)));
        let mut memory_in_all = Promised { has, by_class: BTreeMap::new() };
        for there in memory.values() {
            there.by_class.iter().for_each(|(class, bytes)| memory_in_all.add(*class, *bytes));
        }
        Self { outlook, memory, memory_in_all }
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::resource::{MoveReason, Phase};

    use super::*;
    use crate::render::{example_status, planned};

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_is_summed_by_class_and_what_moves_counts_on_both_ends() {
        let mut status = example_status();
        let node = |text: &str| MemberName::new(text).unwrap();
        for member in &mut status.members {
            member.capacity.memory = Some(16 * GIB);
        }
        let mut other = status.resources[0].clone();
        status.resources[0].spec.memory = Some(4 * GIB);
        other.spec.memory = Some(GIB);
        other.spec.class = Class::BestEffort;
        other.phase = Phase::Migrating { from: node("node1"), to: node("node2"), why: MoveReason::Asked };
        let mut stopped = status.resources[0].clone();
        stopped.requested = Requested::Stopped;
        status.resources.extend([other, stopped]);
        let limit = "n2 is too small".to_owned();
        let outlook = Outlook { tolerable: Some(1), goal: None, exact: true, limit, at_best: 1 };
        let told = Planned::of(&status, outlook);
        let first = &told.memory[&node("node1")];
        assert_eq!(first.by_class, BTreeMap::from([(Class::Protected, 4 * GIB), (Class::BestEffort, GIB)]));
        assert_eq!(first.free(), Some(11 * GIB));
        assert_eq!(told.memory[&node("node2")].by_class, BTreeMap::from([(Class::BestEffort, GIB)]));
        assert_eq!((told.memory_in_all.has, told.memory_in_all.free()), (Some(32 * GIB), Some(26 * GIB)));
        assert!(!told.memory.contains_key(&node("pi")), "the appliance runs nothing");
        let text = planned(&told);
        let row = |first: &str| {
            let line = text.lines().find(|line| line.starts_with(first)).unwrap_or_else(|| panic!("{text}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("node1"), "node1 16 GiB 4 GiB 1 GiB 0 B 11 GiB");
        assert_eq!(row("all"), "all 32 GiB 4 GiB 2 GiB 0 B 26 GiB");
    }
}
