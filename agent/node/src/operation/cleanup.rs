//! Killing operations from outside of their unit.

use std::collections::BTreeSet;
use std::fs;

use super::mark::MARK;
use super::record::Record;
use crate::processes::{KillError, Snapshot, Stat, descendants, kill_selected};

/// Kills every process of an operation, whatever has become of its unit; returns how many there were.
pub fn kill_operation(record: &Record) -> Result<usize, KillError> {
    let mark = format!("{MARK}={}", record.name);
    kill_selected(|all| members(all, record, mark.as_bytes()))
}

fn members(all: &Snapshot, record: &Record, mark: &[u8]) -> BTreeSet<i32> {
    let holder = all.0.get(&record.pid);
    let unit = holder.filter(|stat| stat.started == record.started);
    let mut members = BTreeSet::new();
    if let Some(unit) = unit {
        members.insert(unit.pid);
        members.extend(descendants(all, unit.pid));
    }
    // A session's id is not given to another process while the session has members. So if somebody else has it, none
    // of this operation's are left in its session.
    let session_is_ours = unit.is_some() || holder.is_none();
    members.extend(all.0.values().filter(|stat| stat.started >= record.started).filter_map(|stat| {
        let in_session = session_is_ours && stat.session == record.pid;
        (in_session || is_marked(stat, mark)).then_some(stat.pid)
    }));
    members
}

/// Whether the process was started with the mark in its environment. A kernel thread, a process that is gone and one
/// that belongs to somebody else show none.
fn is_marked(stat: &Stat, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{}/environ", stat.pid))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
}
