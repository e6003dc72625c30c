//! Drivers: the image has the few that its machines need, in the order in which they need each other.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::system::finit_module;

use crate::log::say;

const FOLDER: &str = "/modules";

/// Loads all that a list names, one file a line. One that fails doesn't keep the others away: it may be for a machine that
/// this one isn't.
///
/// # Errors
/// The list can't be read.
pub fn load(list: &str) -> Result<usize> {
    let path = Path::new(FOLDER).join(list);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut loaded = 0;
    for name in names(&text) {
        match load_one(&Path::new(FOLDER).join(name)) {
            Ok(()) => loaded += 1,
            Err(error) => say(format_args!("driver {name}: {error:#}")),
        }
    }
    Ok(loaded)
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn load_one(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", 0) {
        // There already, or its hardware isn't there.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line() {
        assert_eq!(names("# drivers\next4.ko\n\n vfat.ko \n").collect::<Vec<_>>(), ["ext4.ko", "vfat.ko"]);
    }
}
