//! Why a store can't be used, and the way out.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tiebreaker_consensus::StoredError;

/// Why a store can't be used. Each names the file; none is ever answered by guessing.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error("{path} is in use by another process: only one member may run on it; stop the other one")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is no file.
    #[error(
        "{path} is missing: this member's votes and log are gone, if it ever ran here. Way out: let it rejoin the cluster \
         under a new id"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file was set aside, because it lost what was reported as written.
    #[error(
        "{path} was set aside: its disk lost votes or entries that it had reported as written, so this member may not \
         vote under its number again. Way out: remove this member, wipe its data folder and join again; and mistrust the \
         disk"
    )]
    Forgetful {
        /// Where the file is now.
        path: PathBuf,
    },
    /// The file was set aside, because the cluster goes on without this member.
    #[error(
        "{path} was set aside: an operator took this cluster over with another member and gave this one up, so it must do \
         nothing in it any more. Way out: wipe what this machine holds of the cluster and join again; what only this \
         machine knows is in that file"
    )]
    TakenOver {
        /// Where the file is now.
        path: PathBuf,
    },
    /// There is a file where a new one should be created.
    #[error(
        "{path} exists already: it belongs to a member that ran here; to start this member afresh, let it rejoin under a \
         new id with an empty directory"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or no store at all.
    #[error(
        "{path} is not usable: {what}. Its votes and entries can't be trusted any more, so nothing of it is used. Way out: \
         move the file away and let this member rejoin the cluster under a new id"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file was written by a newer version.
    #[error("{path} has format {found}, this version reads up to {known}: install the version that wrote it")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
        /// What this version knows.
        known: u8,
    },
    /// What it says doesn't fit together.
    #[error(
        "{path} holds a state in which no member can have stopped. Way out: move the file away and let this member rejoin \
         the cluster under a new id"
    )]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What doesn't fit.
        #[source]
        source: StoredError,
    },
    /// A batch that doesn't follow on what is stored.
    #[error("a batch that starts at entry {first} doesn't follow on the log in {path}, which ends at {last}")]
    Gap {
        /// The file.
        path: PathBuf,
        /// The batch's first entry.
        first: u64,
        /// The last entry stored.
        last: u64,
    },
    /// No space left. What was durable stays durable; this store takes nothing more until it is opened again.
    #[error("no space left for {path}: make room")]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Reading or writing failed. This store takes nothing more until it is opened again.
    #[error("{doing} {path} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// An earlier write failed: nobody knows what of it is on the disk, so nothing more is written.
    #[error("{path} takes nothing more after a failed write: start this member again")]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}
