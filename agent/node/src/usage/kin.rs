//! Whose a process is.

use std::collections::BTreeMap;

use tiebreaker_pipeline::name::ResourceName;

use crate::processes::{Snapshot, Stat};

/// A process by its id and its start: nobody else ever has both.
pub type Identity = (i32, u64);

/// What a process' own environment says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It belongs to what a resource's start left behind.
    Workload(ResourceName),
    /// It is part of another operation: a probe, a stop.
    Operation,
    /// Nothing. It may be somebody else's, or have had its environment cleared.
    Nothing,
}

/// The processes that are known, from look to look. A process stays whose it is, whatever becomes of its parents.
#[derive(Debug, Default)]
pub struct Kin(BTreeMap<Identity, Said>);

impl Kin {
    /// The processes of each resource. `read` looks at the environment of one, and `settled` tells whether a process is
    /// past its first moments, in which it may still be a copy of whoever started it.
    pub fn sort(
        &mut self,
        all: &Snapshot,
        read: impl Fn(&Stat) -> Said,
        settled: impl Fn(&Stat) -> bool,
    ) -> BTreeMap<ResourceName, Vec<Stat>> {
        let said: BTreeMap<i32, Said> = all
            .0
            .values()
            .map(|stat| {
                let known = self.0.get(&stat.identity());
                (stat.pid, known.cloned().unwrap_or_else(|| read(stat)))
            })
            .collect();
        let mut sessions: BTreeMap<i32, &ResourceName> = BTreeMap::new();
        for stat in all.0.values() {
            if let Some(Said::Workload(name)) = said.get(&stat.pid) {
                sessions.entry(stat.session).or_insert(name);
            }
        }
        let mut sorted: BTreeMap<ResourceName, Vec<Stat>> = BTreeMap::new();
        let mut known = BTreeMap::new();
        for stat in all.0.values() {
            let whose = match nearest(all, &said, stat) {
                Said::Nothing => match sessions.get(&stat.session) {
                    Some(name) => Said::Workload((*name).clone()),
                    None => Said::Nothing,
                },
                told @ (Said::Workload(_) | Said::Operation) => told,
            };
            if let Said::Workload(name) = &whose {
                sorted.entry(name.clone()).or_default().push(*stat);
            }
            if whose != Said::Nothing || settled(stat) {
                known.insert(stat.identity(), whose);
            }
        }
        self.0 = known;
        sorted
    }
}

/// What the process says of itself, or the nearest of its parents that says something.
fn nearest(all: &Snapshot, said: &BTreeMap<i32, Said>, stat: &Stat) -> Said {
    let mut at = *stat;
    // Parents can't go in circles, but a list that was read while processes came and went might.
    for _ in 0..all.0.len() {
        match said.get(&at.pid) {
            Some(told @ (Said::Workload(_) | Said::Operation)) => return told.clone(),
            Some(Said::Nothing) | None => {}
        }
        match all.0.get(&at.parent) {
            Some(parent) => at = *parent,
            None => return Said::Nothing,
        }
    }
    Said::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Said {
        Said::Workload(ResourceName::new("web").unwrap())
    }

    /// Processes by id, parent, session.
    fn processes(of: &[(i32, i32, i32)]) -> Snapshot {
        let stat = |&(pid, parent, session): &(i32, i32, i32)| {
            let text = format!("{pid} (x) S {parent} {pid} {session} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7");
            (pid, Stat::parse(pid, text.as_bytes()).unwrap())
        };
        Snapshot(of.iter().map(stat).collect())
    }

    fn pids(kin: &mut Kin, all: &Snapshot, said: &[(i32, Said)]) -> Vec<i32> {
        let read = |stat: &Stat| said.iter().find(|(pid, _)| *pid == stat.pid).map_or(Said::Nothing, |s| s.1.clone());
        let sorted = kin.sort(all, read, |_| true);
        sorted.into_values().flatten().map(|stat| stat.pid).collect()
    }

    #[test]
    fn children_and_sessions_of_a_marked_process_belong_and_a_probe_does_not() {
        // 10 is marked; 11 is its child in another session, 12 has lost its parent but is in 10's session, 20 is a
        // stranger, 30 is a probe that the marked process would never start, with a child.
        let all =
            processes(&[(1, 0, 1), (10, 1, 10), (11, 10, 11), (12, 1, 10), (20, 1, 20), (30, 1, 30), (31, 30, 30)]);
        let said = [(10, web()), (30, Said::Operation)];
        assert_eq!(pids(&mut Kin::default(), &all, &said), [10, 11, 12]);
    }

    #[test]
    fn who_was_found_once_stays_when_its_parent_is_gone() {
        let mut kin = Kin::default();
        assert_eq!(pids(&mut kin, &processes(&[(10, 1, 10), (11, 10, 11)]), &[(10, web())]), [10, 11]);
        assert_eq!(pids(&mut kin, &processes(&[(11, 1, 11)]), &[]), [11]);
    }

    #[test]
    fn who_has_just_been_forked_is_looked_at_again() {
        let mut kin = Kin::default();
        let all = processes(&[(10, 1, 10)]);
        assert!(kin.sort(&all, |_| Said::Nothing, |_| false).is_empty());
        assert_eq!(kin.sort(&all, |_| web(), |_| false).len(), 1);
    }
}
