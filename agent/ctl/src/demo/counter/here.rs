//! Which machine a process of the counter runs on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The variable with which a machine of the demo marks all that runs on it: the folder of [`Here`].
pub const MACHINE_VARIABLE: &str = "TIEBREAKER_DEMO_MACHINE";

const FILE: &str = "machine.json";

/// A machine, as the counter sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Here {
    /// A folder of this machine alone.
    pub dir: PathBuf,
    /// Its name.
    pub node: String,
    /// Where the counter listens.
    pub port: u16,
}

impl Here {
    /// Writes the machine's file into its folder.
    ///
    /// # Errors
    /// When that fails.
    pub fn store(&self) -> Result<()> {
        let path = self.dir.join(FILE);
        fs::write(&path, serde_json::to_vec(self)?).with_context(|| format!("writing {}", path.display()))
    }

    /// Finds the machine that this process runs on. An executor clears the environment of the programs that it runs,
    /// so the mark is looked for in the ancestors too, up to the machine itself.
    ///
    /// # Errors
    /// When there is no mark: the program was not started on a machine of the demo.
    pub fn find() -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut pid = std::process::id();
        while pid > 1 && seen.insert(pid) {
            if let Some(dir) = mark(pid) {
                let path = dir.join(FILE);
                let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                return serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()));
            }
            pid = stat(pid).map_or(0, |stat| stat.parent);
        }
        bail!("this runs on no machine of the demo: {MACHINE_VARIABLE} is not set")
    }
}

fn mark(pid: u32) -> Option<PathBuf> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environ
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(MACHINE_VARIABLE.as_bytes())?.strip_prefix(b"="))?;
    Some(Path::new(OsStr::from_bytes(value)).to_owned())
}

/// What `/proc/PID/stat` says of a process that lives.
pub(super) struct Stat {
    /// Its parent.
    pub parent: u32,
    /// When it was started, in clock ticks since boot: with the pid it names one process for all time.
    pub started: u64,
}

/// Looks at a process; `None` if it is gone, or dead and not collected yet.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything, so counting starts after the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    let stat = Stat { parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? };
    (!matches!(state, "Z" | "X" | "x")).then_some(stat)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_bears_its_mark_and_the_dead_are_gone() {
        let mut child = Command::new("/bin/sleep").arg("1000").env(MACHINE_VARIABLE, "/run/machine").spawn().unwrap();
        let alive = stat(child.id()).unwrap();
        assert_eq!(alive.parent, std::process::id());
        // The environment shows once the child has executed its program.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while mark(child.id()).is_none() {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
        assert_eq!(mark(child.id()), Some(PathBuf::from("/run/machine")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stat(child.id()).is_none_or(|stat| stat.started != alive.started));
    }
}
