//! What the standard library and rustix don't offer: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

/// Gives memory that was freed back to the system. The allocator does so by itself only where nothing that is in use lies
/// behind it, and a single small thing that was allocated last can keep the memory of thousands of clients.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks, touches free memory alone, and takes a number by value.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back what only the start of a process needed: freed memory, and pages of programs and libraries. The kernel has
/// those in its cache and maps one again when it is needed, but of those that are mapped it lets go last. It also maps
/// sixteen where one is touched, so that most of a program is in memory by the time it is up.
pub fn give_start_back() {
    give_memory_back();
    // Without this file nothing is given back, and nothing else changes.
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for (start, length) in untouched_file_pages(&smaps) {
        // SAFETY: the pages are those of a file, private and without a right to write, and none of them was ever changed
        // ("Anonymous: 0 kB", so no relocations either): whoever reads one next gets the same bytes from the file.
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED);
        }
    }
}

/// Of mappings as `/proc/self/smaps` tells them, the starts and lengths of those that are a file's, can't be written, and
/// have no page of their own.
fn untouched_file_pages(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut of_file = None;
    for line in smaps.lines() {
        if let Some(range) = head(line) {
            of_file = range;
        } else if let Some(own) = line.strip_prefix("Anonymous:")
            && own.trim() == "0 kB"
        {
            found.extend(of_file.take());
        }
    }
    found
}

/// The first line of a mapping; in it the range if that is an unwritable one of a file.
fn head(line: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    let rights = words.next()?;
    let path = words.nth(3).unwrap_or_default();
    Some((matches!(rights, "r--p" | "r-xp") && path.starts_with('/')).then_some((start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_files_that_nobody_changed_are_given_back() {
        let smaps = "55d0e000-55d10000 r--p 00000000 fe:00 12 /usr/bin/x\nSize: 8 kB\nAnonymous:             0 kB\n\
            55d10000-55d13000 r-xp 00002000 fe:00 12 /usr/bin/x\nAnonymous: 0 kB\n\
            55d13000-55d14000 r--p 00005000 fe:00 12 /usr/bin/x\nAnonymous: 4 kB\n\
            55d14000-55d15000 rw-p 00006000 fe:00 12 /usr/bin/x\nAnonymous: 0 kB\n\
            7f000000-7f001000 r--s 00000000 fe:00 13 /var/shared\nAnonymous: 0 kB\n\
            7f100000-7f101000 r-xp 00000000 00:00 0 [vdso]\nAnonymous: 0 kB\n\
            7f200000-7f201000 r--p 00000000 00:00 0\nAnonymous: 0 kB\n";
        assert_eq!(untouched_file_pages(smaps), [(0x55d0_e000, 0x2000), (0x55d1_0000, 0x3000)]);
    }

    #[test]
    fn a_process_goes_on_with_less_in_memory() {
        let pages = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = pages();
        give_start_back();
        let after = pages();
        assert!(after < before, "{before} kB of files before, {after} kB after");
    }
}
