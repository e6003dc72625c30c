//! Killing whole process trees, so that nothing slips away.
//!
//! A tree is killed in two phases. First every member is stopped, round after round, until a round finds nobody new:
//! who is stopped can't fork any more. Then all are killed, and again until a look at `/proc` finds none left. Each
//! signal goes through a descriptor of the process that was looked at, so a reused process id is never hit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys;

/// How long a tree may take to die. Processes in an uninterruptible wait may outlast it.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait for stopped processes to really stand still before they are killed anyway: one that waits for its
/// vfork'ed child stands still without ever saying so.
const FREEZE_LIMIT: Duration = Duration::from_millis(200);

/// Some processes could not be killed in time.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// `/proc` could not be read, so nothing is known.
    #[error("the list of processes could not be read")]
    Unreadable(#[source] io::Error),
    /// These were still there when the time was up.
    #[error("processes {pids:?} are still there after they were killed")]
    Survivors {
        /// Their ids.
        pids: Vec<i32>,
    },
}

/// Kills everything below process `root`, but not `root`; returns how many processes that were.
///
/// Complete only if orphans below `root` become its children: `root` is a child subreaper or process 1. Unless it is
/// the caller, `root` is stopped meanwhile and continued afterwards. A process that doesn't exist has no descendants.
/// Blocks for at most 5 s.
pub fn kill_descendants(root: u32) -> Result<usize, KillError> {
    kill_below(root, RootFate::Spared)
}

/// Kills process `root` and everything below it, `root` last; returns how many processes that were. Otherwise as
/// [`kill_descendants`].
pub fn kill_tree(root: u32) -> Result<usize, KillError> {
    kill_below(root, RootFate::Killed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RootFate {
    Spared,
    Killed,
}

fn kill_below(root: u32, fate: RootFate) -> Result<usize, KillError> {
    let Ok(root) = i32::try_from(root) else { return Ok(0) };
    let Some(before) = Stat::read(root) else { return Ok(0) };
    let is_self = root == own_pid();
    let result = kill_all(
        |all| {
            let mut members = descendants(all, root);
            if !is_self {
                members.insert(root);
            }
            members
        },
        (!is_self).then_some((root, fate)),
    );
    if fate == RootFate::Spared && !is_self {
        before.signal(Signal::CONT);
    }
    result
}

/// Kills whatever `select` finds, until it finds nothing. `root` is stopped with the others, and then either spared or
/// killed as the last.
fn kill_all(
    mut select: impl FnMut(&Snapshot) -> BTreeSet<i32>,
    root: Option<(i32, RootFate)>,
) -> Result<usize, KillError> {
    let began = Instant::now();
    let mut stopped = BTreeSet::new();
    let mut killed = BTreeSet::new();
    loop {
        let all = Snapshot::take().map_err(KillError::Unreadable)?;
        let selected = select(&all);
        let alive: Vec<Stat> = selected
            .iter()
            .filter_map(|pid| all.0.get(pid))
            .filter(|stat| stat.lives() && stat.pid != own_pid())
            .copied()
            .collect();
        let (roots, others): (Vec<Stat>, Vec<Stat>) =
            alive.iter().partition(|stat| root.is_some_and(|(pid, _)| pid == stat.pid));
        let mut found_new = false;
        for stat in &alive {
            if stopped.insert(stat.identity()) {
                stat.signal(Signal::STOP);
                found_new = true;
            }
        }
        if found_new {
            continue;
        }
        let victims = match root {
            Some((_, RootFate::Killed)) if others.is_empty() => roots,
            _ => others,
        };
        // All seen are stopped. One that was caught within fork still finishes it, so all must stand still first.
        let standing = alive.iter().all(Stat::stands_still);
        if victims.is_empty() && (standing || began.elapsed() > FREEZE_LIMIT) {
            return Ok(killed.len());
        }
        if began.elapsed() > KILL_LIMIT {
            return Err(KillError::Survivors { pids: victims.iter().map(|stat| stat.pid).collect() });
        }
        if standing || began.elapsed() > FREEZE_LIMIT {
            for stat in &victims {
                stat.signal(Signal::KILL);
                killed.insert(stat.identity());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills whatever `select` finds in the processes of this machine, again and again until it finds nothing alive.
pub(crate) fn kill_selected(select: impl FnMut(&Snapshot) -> BTreeSet<i32>) -> Result<usize, KillError> {
    kill_all(select, None)
}

/// Everything below `root` in `all`.
pub(crate) fn descendants(all: &Snapshot, root: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for stat in all.0.values() {
        children.entry(stat.parent).or_default().push(stat.pid);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if *child != root && found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// The processes of this machine at one moment, more or less: a process that is born while the list is read may miss.
pub(crate) struct Snapshot(pub BTreeMap<i32, Stat>);

impl Snapshot {
    pub fn take() -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(stat) = Stat::read(pid) {
                all.insert(pid, stat);
            }
        }
        Ok(Self(all))
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    pub pid: i32,
    pub parent: i32,
    pub session: i32,
    /// Start time in clock ticks since boot: with the pid, it names one process for all time.
    pub started: u64,
    state: u8,
    threads: u64,
    /// Clock ticks that it has spent itself, in all its threads.
    pub spent: u64,
    /// Clock ticks of its children that have ended and that it has waited for, theirs included.
    pub inherited: u64,
}

impl Stat {
    /// `None` if there is no such process.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads the line of `/proc/PID/stat`.
    pub fn parse(pid: i32, text: &[u8]) -> Option<Self> {
        // The second field is a name in parentheses that may hold anything, so counting starts after the last one.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
        Some(Self {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: ticks(19)?,
            spent: ticks(11)?.saturating_add(ticks(12)?),
            // Signed in the kernel's table, and never below zero.
            inherited: ticks(13)?.saturating_add(ticks(14)?),
        })
    }

    /// False for a zombie, unless only its first thread has ended.
    pub fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }

    fn stands_still(&self) -> bool {
        matches!(self.state, b'T' | b't' | b'Z' | b'X' | b'x')
    }

    pub fn identity(&self) -> (i32, u64) {
        (self.pid, self.started)
    }

    /// Signals this very process; nothing happens if it is gone.
    fn signal(&self, signal: Signal) {
        let Some(pid) = sys::pid(self.pid) else { return };
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The descriptor holds on to whoever has the id now; if that is still the one meant, it can't change any more.
        if Self::read(self.pid).is_some_and(|now| now.started == self.started) {
            // It can fail only because the process is gone, or because it isn't ours: then it survives and is told.
            let _gone = pidfd_send_signal(fd, signal);
        }
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_is_parsed() {
        let text = b"42 (a) b (c) S 7 42 41 0 -1 4194560 1 0 0 0 2 3 5 8 20 0 3 0 98765 1 2";
        let stat = Stat::parse(42, text).unwrap();
        assert_eq!((stat.spent, stat.inherited), (5, 13));
        assert_eq!((stat.parent, stat.session, stat.threads, stat.started), (7, 41, 3, 98765));
        assert!(Stat::parse(42, b"42 (x) S").is_none());
    }

    fn shell(script: &str) -> Child {
        Command::new("/bin/sh").arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn wait_for_descendants(root: u32, count: usize) -> BTreeSet<i32> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let found = descendants(&Snapshot::take().unwrap(), root.cast_signed());
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < end, "only {found:?} below {root}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn descendants_die_and_the_root_goes_on() {
        let mut root = shell("setsid sleep 1000 & sh -c 'sleep 1000; true' & wait; exit 7");
        let below = wait_for_descendants(root.id(), 3);
        let killed = kill_descendants(root.id()).unwrap();
        assert!(killed >= below.len(), "{killed} of {below:?}");
        // It was continued, or it could not have gone on to its end.
        assert_eq!(root.wait().unwrap().code(), Some(7));
    }

    #[test]
    fn a_tree_that_keeps_forking_dies_whole() {
        let mut root = shell("while :; do sh -c 'sleep 0.01; sleep 1000' & sleep 0.002; done");
        let below = wait_for_descendants(root.id(), 20);
        kill_tree(root.id()).unwrap();
        assert!(!root.wait().unwrap().success());
        let all = Snapshot::take().unwrap();
        // Whoever was seen is dead or a zombie that process 1 has yet to collect.
        assert!(below.iter().all(|pid| all.0.get(pid).is_none_or(|stat| !stat.lives())));
    }

    #[test]
    fn nobody_has_no_descendants() {
        assert_eq!(kill_descendants(u32::MAX).unwrap(), 0);
        assert_eq!(kill_tree(i32::MAX.cast_unsigned()).unwrap(), 0);
    }
}
