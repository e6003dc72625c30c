//! What a process takes, as the kernel counts it.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All that is in memory.
    pub resident: f64,
    /// Of it, what is the process's own.
    pub own: f64,
    /// Of it, pages of its program and libraries, which others may share.
    pub files: f64,
}

/// A process's memory.
///
/// # Errors
/// It has ended.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server has ended")?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kilobytes: f64 = line.split_whitespace().next().context("a number")?.parse()?;
        Ok(kilobytes * 1024.0)
    };
    Ok(Memory { resident: field("VmRSS:")?, own: field("RssAnon:")?, files: field("RssFile:")? })
}

/// The processor's time that all of its threads have had.
///
/// # Errors
/// It has ended.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the server has ended")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        total += stat.split_whitespace().next().context("a number")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}
