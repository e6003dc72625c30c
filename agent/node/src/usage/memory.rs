//! The memory of processes, as `/proc/PID/status` tells.

use std::io;

/// Resident memory of one process, in bytes, by its kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resident {
    /// Its own.
    pub private: u64,
    /// Of files that it maps: programs and libraries.
    pub files: u64,
    /// Shared memory.
    pub shared: u64,
}

impl Resident {
    /// Of a process; nothing if it is gone.
    ///
    /// # Errors
    /// The kernel doesn't tell.
    pub fn read(pid: i32) -> io::Result<Self> {
        match std::fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(text) => Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(status: &str) -> Option<Self> {
        // One that is ending has let go of its memory, and has no such lines any more.
        if !status.lines().any(|line| line.starts_with("VmRSS:")) {
            return Some(Self::default());
        }
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self { private: bytes("RssAnon")?, files: bytes("RssFile")?, shared: bytes("RssShmem")? })
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// What many processes use together: what they share counts once, by whoever maps most of it.
pub fn together(all: impl Iterator<Item = Resident>) -> u64 {
    let (mut private, mut files, mut shared) = (0_u64, 0, 0);
    for one in all {
        private = private.saturating_add(one.private);
        files = files.max(one.files);
        shared = shared.max(one.shared);
    }
    private.saturating_add(files).saturating_add(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_counts_once() {
        let status = "Name:\tx\nVmRSS:\t 30 kB\nRssAnon:\t  10 kB\nRssFile:\t 15 kB\nRssShmem:\t 5 kB\n";
        let one = Resident::parse(status).unwrap();
        assert_eq!(one, Resident { private: 10 << 10, files: 15 << 10, shared: 5 << 10 });
        assert_eq!(together([one, one].into_iter()), 40 << 10);
        assert_eq!(Resident::parse("Name:\tx\nState:\tZ (zombie)\n"), Some(Resident::default()));
        assert_eq!(Resident::parse("VmRSS:\t 30 kB\nRssAnon:\t many\n"), None, "unknown is not zero");
    }
}
