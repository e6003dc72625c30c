//! A wall clock of one process and its children, which a test sets: libfaketime stands between them and the kernel's. The clocks
//! that nobody sets, and the times of files, stay what they are.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Where Debian's libfaketime puts it, below the folder of the machine's libraries.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock that is right until it is set.
#[derive(Debug)]
pub struct WallClock {
    file: PathBuf,
    library: PathBuf,
}

impl WallClock {
    /// A clock that keeps its file in this folder.
    ///
    /// # Errors
    /// The package libfaketime isn't installed, or the file can't be written.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let clock = Self { file: folder.join("wall-clock"), library: library()? };
        clock.set_off_by(0)?;
        Ok(clock)
    }

    /// Lets it be off by so many seconds from now on.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_off_by(&self, seconds: i64) -> Result<()> {
        // At once, not byte by byte: a reader never sees half a number.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, &self.file)?)
    }

    /// The variables that give a process this clock, each as NAME=VALUE.
    #[must_use]
    pub fn environment(&self) -> Vec<OsString> {
        let with = |name: &str, value: &OsStr| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        };
        vec![
            with("LD_PRELOAD", self.library.as_os_str()),
            with("FAKETIME_TIMESTAMP_FILE", self.file.as_os_str()),
            "FAKETIME_CACHE_DURATION=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            "NO_FAKE_STAT=1".into(),
        ]
    }
}

fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("/usr/lib")?;
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join(LIBRARY)))
        .find(|library| library.exists())
        .context("libfaketime is missing: as root, run: apt-get install libfaketime")
}
