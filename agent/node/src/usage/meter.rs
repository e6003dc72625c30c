//! Looks at the processes of resources, and keeps what it needs to compare.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::report::Usage;
use tiebreaker_pipeline::time::Reading;

use super::kin::{Identity, Kin, Said};
use super::memory::{Resident, together};
use super::window::Window;
use crate::operation::{Kind, Mark};
use crate::processes::{Snapshot, Stat};
use crate::sys;

/// A process that is older than this is what it was started to be, and not still a copy of whoever forked it.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Measures what resources use.
#[derive(Debug)]
pub struct Meter {
    /// The folder of the agent whose resources these are.
    agent: Vec<u8>,
    /// Clock ticks in a second.
    hz: u64,
    kin: Kin,
    last: Option<Last>,
    windows: BTreeMap<ResourceName, Window>,
}

/// What was seen at the last look.
#[derive(Debug)]
struct Last {
    /// In clock ticks since boot, as processes' starts are told.
    at: u64,
    processes: BTreeMap<ResourceName, BTreeMap<Identity, Stat>>,
}

impl Meter {
    /// Measures what the operations of a folder have started, as [`crate::operation::Operations`] was opened with it.
    #[must_use]
    pub fn new(runtime_dir: &Path) -> Self {
        Self {
            agent: runtime_dir.as_os_str().as_bytes().to_vec(),
            hz: sys::clock_ticks_per_second(),
            kin: Kin::default(),
            last: None,
            windows: BTreeMap::new(),
        }
    }

    /// Looks, and says what each resource has used on the average of the last minute. What has no processes here, was
    /// seen for the first time, or can't be read isn't in the answer. Blocks while it reads `/proc`.
    ///
    /// # Errors
    /// The list of processes can't be read.
    pub fn look(&mut self, now: Reading) -> io::Result<BTreeMap<ResourceName, Usage>> {
        let all = Snapshot::take()?;
        let ticks = self.ticks(now.boottime_ns);
        let settled_before = self.ticks(now.boottime_ns.saturating_sub(nanoseconds(SETTLED_AFTER)));
        let agent = &self.agent;
        let sorted = self.kin.sort(&all, |stat| read(stat, agent), |stat| stat.started < settled_before);
        let mut windows = std::mem::take(&mut self.windows);
        let mut processes = BTreeMap::new();
        for (name, stats) in sorted {
            let these: BTreeMap<Identity, Stat> = stats.iter().map(|stat| (stat.identity(), *stat)).collect();
            let spent = match &self.last {
                None => 0,
                Some(last) => last.processes.get(&name).map_or(0, |before| spent(before, &these, last.at)),
            };
            let resident: io::Result<Vec<Resident>> =
                stats.iter().filter(|stat| stat.lives()).map(|stat| Resident::read(stat.pid)).collect();
            // Whoever's memory can't be read is not measured at all: half a truth would draw others to its node.
            if let Ok(resident) = resident {
                let mut window = windows.remove(&name).unwrap_or_default();
                window.add(now, spent, together(resident.into_iter()));
                self.windows.insert(name.clone(), window);
            }
            processes.insert(name, these);
        }
        self.last = Some(Last { at: ticks, processes });
        Ok(self.windows.iter().filter_map(|(name, window)| Some((name.clone(), window.mean(self.hz)?))).collect())
    }

    fn ticks(&self, boottime_ns: u64) -> u64 {
        let ticks = u128::from(boottime_ns) * u128::from(self.hz) / 1_000_000_000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What a process' environment says. One that is gone, is the kernel's or can't be looked at says nothing.
fn read(stat: &Stat, agent: &[u8]) -> Said {
    let Ok(environment) = std::fs::read(format!("/proc/{}/environ", stat.pid)) else { return Said::Nothing };
    match Mark::find(&environment, agent) {
        None => Said::Nothing,
        Some(Mark { kind: Kind::Stop | Kind::Monitor | Kind::Migrate, .. }) => Said::Operation,
        Some(Mark { resource, kind: Kind::Start | Kind::Receive }) => {
            ResourceName::new(&resource).map_or(Said::Nothing, Said::Workload)
        }
    }
}

/// Clock ticks that the processes of a resource spent since the last look, which was at `then`.
///
/// A process that has ended since, and whose parent has waited for it, is in what that parent inherited, with all that
/// it ever spent: what was counted of it before is taken off.
fn spent(before: &BTreeMap<Identity, Stat>, now: &BTreeMap<Identity, Stat>, then: u64) -> u64 {
    let of = |stat: &Stat| stat.spent.saturating_add(stat.inherited);
    let grown = now.iter().map(|(identity, stat)| match before.get(identity) {
        Some(earlier) => of(stat).saturating_sub(of(earlier)),
        // It began since, so all of it is new. What is older was there and not yet known to belong.
        None if stat.started >= then => of(stat),
        None => 0,
    });
    let by_pid: BTreeMap<i32, &Stat> = before.values().map(|stat| (stat.pid, stat)).collect();
    let lives = |stat: &Stat| now.contains_key(&stat.identity());
    let inherited = before.values().filter(|stat| !lives(stat)).filter(|stat| {
        let mut parent = by_pid.get(&stat.parent);
        for _ in 0..by_pid.len() {
            match parent {
                Some(ancestor) if lives(ancestor) => return true,
                Some(ancestor) => parent = by_pid.get(&ancestor.parent),
                None => return false,
            }
        }
        false
    });
    let twice = inherited.map(of).fold(0, u64::saturating_add);
    grown.fold(0, u64::saturating_add).saturating_sub(twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes by id, parent, start, ticks spent and ticks inherited.
    fn processes(of: &[(i32, i32, u64, u64, u64)]) -> BTreeMap<Identity, Stat> {
        let stat = |&(pid, parent, started, spent, inherited): &(i32, i32, u64, u64, u64)| {
            let text = format!("{pid} (x) S {parent} 1 1 0 -1 0 0 0 0 0 {spent} 0 {inherited} 0 20 0 1 0 {started}");
            ((pid, started), Stat::parse(pid, text.as_bytes()).unwrap())
        };
        of.iter().map(stat).collect()
    }

    #[test]
    fn what_a_child_has_spent_counts_once() {
        let before = processes(&[(10, 1, 5, 100, 0), (11, 10, 50, 30, 0)]);
        // The child went on for 10 ticks, ended, and was waited for.
        assert_eq!(spent(&before, &processes(&[(10, 1, 5, 101, 40)]), 60), 11);
        // Another came and went meanwhile.
        assert_eq!(spent(&before, &processes(&[(10, 1, 5, 101, 47)]), 60), 18);
        // Nobody of the resource's has waited for it.
        assert_eq!(spent(&before, &processes(&[(10, 1, 5, 101, 0)]), 60), 0, "never below nothing");
        assert_eq!(
            spent(&processes(&[(10, 1, 5, 100, 0), (11, 1, 50, 30, 0)]), &processes(&[(10, 1, 5, 101, 0)]), 60),
            1
        );
    }

    #[test]
    fn only_who_began_since_the_last_look_counts_whole() {
        let before = processes(&[(10, 1, 5, 100, 0)]);
        let now = processes(&[(10, 1, 5, 100, 0), (11, 10, 61, 7, 0), (12, 10, 59, 1000, 0)]);
        assert_eq!(spent(&before, &now, 60), 7);
        // The same number, another process.
        assert_eq!(spent(&before, &processes(&[(10, 1, 70, 3, 0)]), 60), 3);
    }
}
