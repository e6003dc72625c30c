//! What can be wrong with a backup, and the exit code of each.

use std::io;
use std::path::PathBuf;

use tiebreaker_member::FileError;

/// Why a backup was not made or restored. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// There is a file already.
    #[error("{file} exists: choose another name, or give --force to have it replaced")]
    Exists {
        /// Which.
        file: PathBuf,
    },
    /// The passphrase is no protection.
    #[error(
        "the passphrase has {length} characters: give {least} at least, since whoever gets the file can try as often as he likes"
    )]
    TooShort {
        /// How long it is.
        length: usize,
        /// How long it has to be.
        least: usize,
    },
    /// The file does not open with this passphrase.
    #[error("{file} does not open: the passphrase is another one, or the first lines of the file are damaged")]
    Passphrase {
        /// Which.
        file: PathBuf,
    },
    /// It is no backup, or not whole.
    #[error("{file} is damaged or no backup of an appliance ({what}): take another copy of it")]
    Damaged {
        /// Which.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// It comes from a newer version.
    #[error("{file} has format {format}, this program knows {known}: restore it with the newer program")]
    Newer {
        /// Which.
        file: PathBuf,
        /// Its format.
        format: u32,
        /// What is known here.
        known: u32,
    },
    /// The folder is not empty.
    #[error(
        "{folder} holds {found}, and a backup is restored into an empty folder only: choose another --data, or move that away"
    )]
    NotEmpty {
        /// Which.
        folder: PathBuf,
        /// What was found first.
        found: String,
    },
    /// A restore did not get to its end.
    #[error("a restore into {folder} was cut off half way: run `tiebreaker-server restore` again, it begins anew")]
    Interrupted {
        /// Where.
        folder: PathBuf,
    },
    /// Somebody else restores into the folder just now.
    #[error("another restore into {folder} is under way: wait for it")]
    Busy {
        /// Where.
        folder: PathBuf,
    },
    /// What it serves can't find out by itself that there are two of it.
    #[error(
        "this appliance serves Corosync clusters, whose nodes can't find out that there are two of it, and both would vote: \
         switch the machine off that the backup was made on, and every other one that was restored from it, and give \
         --others-are-off"
    )]
    OthersMayBeOn,
    /// The QDevice authority lies outside of the data folder, and another one is there.
    #[error("{file} holds another QDevice authority than the backup: move it away, and restore again")]
    OtherAuthority {
        /// Where.
        file: PathBuf,
    },
    /// A cluster is named that the backup does not hold.
    #[error("the backup holds no cluster {name}: it has {known}")]
    UnknownCluster {
        /// The name.
        name: String,
        /// Those that it holds.
        known: String,
    },
    /// A file of the system's.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A private file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What the backup would hold can't be read, or what it holds can't be written.
    #[error("{what}")]
    Part {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl BackupError {
    /// What the program ends with.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Passphrase { .. } => 3,
            Self::Damaged { .. } => 4,
            Self::Newer { .. } => 5,
            Self::NotEmpty { .. } => 6,
            Self::Exists { .. }
            | Self::TooShort { .. }
            | Self::Interrupted { .. }
            | Self::Busy { .. }
            | Self::OthersMayBeOn
            | Self::OtherAuthority { .. }
            | Self::UnknownCluster { .. }
            | Self::Io { .. }
            | Self::File(_)
            | Self::Part { .. } => 1,
        }
    }

    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn part<E>(what: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let what = what.into();
        move |source| Self::Part { what, source: source.into() }
    }
}
