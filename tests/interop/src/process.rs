//! What a process takes, as the kernel counts it, and what its memory holds.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

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

/// How often each of these texts stands in the memory of a process: on its stacks, its heap, in its program, and whatever else
/// it has mapped to itself and may read. Needs root where the process keeps its memory private.
///
/// # Errors
/// It has ended, or may not be read.
pub fn found_in_memory(pid: u32, texts: &[&[u8]]) -> Result<Vec<usize>> {
    let mut begins = [false; 256];
    for text in texts {
        begins[usize::from(*text.first().context("an empty text is everywhere")?)] = true;
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("the process has ended")?;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).context("opening the memory of the process")?;
    let mut found = vec![0; texts.len()];
    let mut read = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().context("a range")?, words.next().context("rights")?);
        if !rights.starts_with('r') {
            continue;
        }
        let (from, to) = range.split_once('-').context("a range has two ends")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // Some are the kernel's own, which nobody may read.
        let Ok(()) = std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from) else { continue };
        read += bytes.len();
        // Most bytes begin none of them.
        for (at, byte) in bytes.iter().enumerate() {
            if begins[usize::from(*byte)] {
                for (count, text) in found.iter_mut().zip(texts) {
                    *count += usize::from(bytes[at..].starts_with(text));
                }
            }
        }
    }
    ensure!(read > 1 << 20, "only {read} bytes of the process could be read");
    Ok(found)
}
