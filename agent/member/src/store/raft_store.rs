//! The file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, StorageError, TableDefinition};
use tiebreaker_consensus::{Batch, Entry, Snapshot, SnapshotWrite, Stored};

use super::StoreError;
use super::record::{FORMAT, Head, Place, RecordError, checksum_of, decode, encode};
use super::sectors::Sectors;

const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
const HEAD: &str = "head";
const SNAPSHOT: &str = "snapshot";

/// The whole file is some hundred kilobytes; the library's default cache is made for gigabytes.
const CACHE_BYTES: usize = 1024 * 1024;

/// Stores of earlier takeovers that are kept at most.
const KEPT_MAX: u32 = 100;

/// Why a store is never to be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aside {
    /// It has lost what it reported as written.
    Forgot,
    /// The cluster goes on without this member.
    TakenOver,
}

impl Aside {
    fn path(self, path: &Path) -> PathBuf {
        with_ending(
            path,
            match self {
                Self::Forgot => ".forgetful",
                Self::TakenOver => ".taken-over",
            },
        )
    }
}

/// The durable half of consensus. One process holds the file at a time.
#[derive(Debug)]
pub struct RaftStore {
    path: PathBuf,
    database: Database,
    head: Head,
    /// After a failed write nobody knows what is on the disk.
    stopped: bool,
}

impl RaftStore {
    /// Creates the file with what a member starts from.
    ///
    /// It is written under another name first, so that a crash never leaves half a store under the real one.
    ///
    /// # Errors
    /// The file exists, or it couldn't be written.
    pub fn create(path: impl AsRef<Path>, stored: &Stored) -> Result<Self, StoreError> {
        let path = path.as_ref();
        stored.check().map_err(|source| StoreError::Inconsistent { path: path.into(), source })?;
        if path.try_exists().map_err(|source| fault(path, "looking for", source))? {
            return Err(StoreError::Exists { path: path.into() });
        }
        let new = unfinished(path);
        match fs::remove_file(&new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(&new, "removing", error)),
        }
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(Sectors::create(&new).map_err(|source| fault(&new, "creating", source))?)
            .map_err(|error| database_fault(&new, "creating", error))?;
        let mut store = Self { path: new.clone(), database, head: Head::default(), stopped: false };
        store.write(&Batch {
            number: 0,
            hard_state: Some(stored.hard_state),
            snapshot: stored.snapshot.clone().map(SnapshotWrite::Replace),
            entries: stored.entries.clone(),
            two_phase: true,
        })?;
        drop(store);
        fs::rename(&new, path).map_err(|source| fault(path, "renaming", source))?;
        sync_directory_of(path)?;
        Ok(Self::open(path)?.0)
    }

    /// Opens the file and reads all of it. `None` is a database that holds nothing at all: it was never given a state, and
    /// a member that ran here before must not start as if it hadn't.
    ///
    /// # Errors
    /// The file is missing, in use, damaged, newer, or can't be read. Nothing is repaired by guessing.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Option<Stored>), StoreError> {
        let path = path.as_ref();
        if !path.try_exists().map_err(|source| fault(path, "looking for", source))? {
            for why in [Aside::Forgot, Aside::TakenOver] {
                let aside = why.path(path);
                if aside.try_exists().map_err(|source| fault(&aside, "looking for", source))? {
                    return Err(match why {
                        Aside::Forgot => StoreError::Forgetful { path: aside },
                        Aside::TakenOver => StoreError::TakenOver { path: aside },
                    });
                }
            }
            return Err(StoreError::Missing { path: path.into() });
        }
        let sectors = Sectors::open(path).map_err(|source| fault(path, "opening", source))?;
        if sectors.len().map_err(|source| fault(path, "opening", source))? == 0 {
            return Err(damaged(path, "it is empty"));
        }
        let mut database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(sectors)
            .map_err(|error| database_fault(path, "opening", error))?;
        // Every page's checksum, before anything in a page is believed.
        let whole = database.check_integrity().map_err(|error| database_fault(path, "checking", error))?;
        if !whole {
            return Err(damaged(path, "the database's own check failed"));
        }
        let (head, stored) = match read(path, &database)? {
            Some((head, stored)) => {
                stored.check().map_err(|source| StoreError::Inconsistent { path: path.into(), source })?;
                (head, Some(stored))
            }
            None => (Head::default(), None),
        };
        Ok((Self { path: path.into(), database, head, stopped: false }, stored))
    }

    /// Gives the file another name, under which no member starts. It may be open meanwhile.
    ///
    /// # Errors
    /// It couldn't be renamed.
    pub fn retire(path: impl AsRef<Path>, why: Aside) -> Result<(), StoreError> {
        let path = path.as_ref();
        fs::rename(path, why.path(path)).map_err(|source| fault(path, "setting aside", source))?;
        sync_directory_of(path)
    }

    /// Puts another state into this file's place, at once and whole, and keeps the file beside it under a name that it
    /// returns. It is held until then, so nobody else can have changed it meanwhile.
    ///
    /// # Errors
    /// One of the files couldn't be written; then the old one is still in its place.
    pub fn supersede(self, stored: &Stored) -> Result<PathBuf, StoreError> {
        let path = self.path.clone();
        let new = with_ending(&path, ".takeover");
        match fs::remove_file(&new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(&new, "removing", error)),
        }
        drop(Self::create(&new, stored)?);
        let kept = keep_beside(&path)?;
        fs::rename(&new, &path).map_err(|source| fault(&path, "replacing", source))?;
        sync_directory_of(&path)?;
        Ok(kept)
    }

    /// Makes a batch durable, all of it or nothing.
    ///
    /// # Errors
    /// After any error the store takes nothing more: what the disk holds is known only after opening it again.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped { path: self.path.clone() });
        }
        self.stopped = true;
        self.head = self.commit(batch)?;
        self.stopped = false;
        Ok(())
    }

    /// How many batches the file holds; those of earlier processes count, too.
    #[must_use]
    pub const fn writes(&self) -> u64 {
        self.head.writes
    }

    /// Makes sure that the file holds so many batches.
    ///
    /// # Errors
    /// It doesn't: it was changed by somebody else, or went back to what it was before.
    pub fn expect_writes(&self, count: u64) -> Result<(), StoreError> {
        if self.head.writes == count {
            Ok(())
        } else {
            Err(damaged(&self.path, "it holds other writes than were made"))
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn commit(&self, batch: &Batch) -> Result<Head, StoreError> {
        let failed = |error: redb::Error| redb_fault(&self.path, "writing", error);
        let mut head = self.head.clone();
        head.writes += 1;
        let mut transaction = self.database.begin_write().map_err(|error| failed(error.into()))?;
        // One phase survives a crash; two phases survive a torn commit record as well.
        transaction.set_two_phase_commit(batch.two_phase);
        {
            let mut meta = transaction.open_table(META).map_err(|error| failed(error.into()))?;
            let mut log = transaction.open_table(LOG).map_err(|error| failed(error.into()))?;
            if let Some(write) = &batch.snapshot {
                let (snapshot, dropped) = match write {
                    SnapshotWrite::Compact(snapshot) => (snapshot, snapshot.index),
                    SnapshotWrite::Replace(snapshot) => (snapshot, u64::MAX),
                };
                log.retain_in(..=dropped, |_, _| false).map_err(|error| failed(error.into()))?;
                let bytes = encode(Place::Snapshot, snapshot);
                head.snapshot = checksum_of(&bytes).map(|sum| (snapshot.index, sum));
                head.last_index =
                    if dropped == u64::MAX { snapshot.index } else { head.last_index.max(snapshot.index) };
                meta.insert(SNAPSHOT, bytes.as_slice()).map_err(|error| failed(error.into()))?;
            }
            if let Some(first) = batch.entries.first().map(|entry| entry.index) {
                let base = head.snapshot.map_or(0, |(index, _)| index);
                if first <= base || first > head.last_index + 1 {
                    return Err(StoreError::Gap { path: self.path.clone(), first, last: head.last_index });
                }
                log.retain_in(first.., |_, _| false).map_err(|error| failed(error.into()))?;
                for entry in &batch.entries {
                    let bytes = encode(Place::Entry(entry.index), entry);
                    log.insert(entry.index, bytes.as_slice()).map_err(|error| failed(error.into()))?;
                    head.last_index = entry.index;
                }
            }
            if let Some(hard_state) = batch.hard_state {
                head.hard_state = hard_state;
            }
            let bytes = encode(Place::Head, &head);
            meta.insert(HEAD, bytes.as_slice()).map_err(|error| failed(error.into()))?;
        }
        transaction.commit().map_err(|error| failed(error.into()))?;
        Ok(head)
    }
}

/// Reads everything, believing nothing that isn't proven.
fn read(path: &Path, database: &Database) -> Result<Option<(Head, Stored)>, StoreError> {
    let failed = |error: redb::Error| redb_fault(path, "reading", error);
    let refused = |error: RecordError| match error {
        RecordError::Newer(found) => StoreError::Newer { path: path.into(), found, known: FORMAT },
        RecordError::Damaged(what) => damaged(path, what),
    };
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    if transaction.list_tables().map_err(|error| failed(error.into()))?.next().is_none() {
        return Ok(None);
    }
    let meta = transaction.open_table(META).map_err(|error| failed(error.into()))?;
    let log = transaction.open_table(LOG).map_err(|error| failed(error.into()))?;
    let head_bytes =
        meta.get(HEAD).map_err(|error| failed(error.into()))?.ok_or_else(|| damaged(path, "it has no head record"))?;
    let head: Head = decode(Place::Head, head_bytes.value()).map_err(refused)?;

    let snapshot_bytes = meta.get(SNAPSHOT).map_err(|error| failed(error.into()))?;
    let snapshot = match (&snapshot_bytes, head.snapshot) {
        (None, None) => None,
        (Some(bytes), Some((index, sum))) if checksum_of(bytes.value()) == Some(sum) => {
            let snapshot: Snapshot = decode(Place::Snapshot, bytes.value()).map_err(refused)?;
            if snapshot.index != index {
                return Err(damaged(path, "its snapshot isn't the one that the head names"));
            }
            Some(snapshot)
        }
        (_, _) => return Err(damaged(path, "its snapshot isn't the one that the head names")),
    };

    let mut entries = Vec::new();
    for row in log.iter().map_err(|error| failed(error.into()))? {
        let (index, bytes) = row.map_err(|error| failed(error.into()))?;
        let entry: Entry = decode(Place::Entry(index.value()), bytes.value()).map_err(refused)?;
        if entry.index != index.value() {
            return Err(damaged(path, "an entry of the log lies in the wrong place"));
        }
        entries.push(entry);
    }
    let stored = Stored { hard_state: head.hard_state, snapshot, entries };
    if stored.last_index() != head.last_index {
        return Err(damaged(path, "the log doesn't end where the head says"));
    }
    Ok(Some((head, stored)))
}

/// The name under which a store is created before it gets its own.
fn unfinished(path: &Path) -> PathBuf {
    with_ending(path, ".new")
}

/// Gives the file a second name, `.before-takeover`, with a number where that is taken.
fn keep_beside(path: &Path) -> Result<PathBuf, StoreError> {
    let numbered = (2..KEPT_MAX).map(|number| with_ending(path, &format!(".before-takeover-{number}")));
    for kept in std::iter::once(with_ending(path, ".before-takeover")).chain(numbered) {
        match fs::hard_link(path, &kept) {
            Ok(()) => {
                sync_directory_of(path)?;
                return Ok(kept);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault(&kept, "linking", error)),
        }
    }
    let full = io::Error::new(io::ErrorKind::AlreadyExists, "too many stores of earlier takeovers: move some away");
    Err(fault(path, "keeping a copy of", full))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| fault(directory, "flushing", source))
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged { path: path.into(), what: what.to_owned() }
}

fn fault(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::ResourceBusy => StoreError::InUse { path: path.into() },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { path: path.into(), source }
        }
        // Of a file that is too short the library reads past the end; of one that is no store, the header.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            StoreError::Damaged { path: path.into(), what: source.to_string() }
        }
        _ => StoreError::Io { doing, path: path.into(), source },
    }
}

fn database_fault(path: &Path, doing: &'static str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        DatabaseError::UpgradeRequired(format) => {
            StoreError::Damaged { path: path.into(), what: format!("its database format {format} is not ours") }
        }
        DatabaseError::Storage(error) => storage_fault(path, doing, error),
        other => StoreError::Damaged { path: path.into(), what: other.to_string() },
    }
}

fn storage_fault(path: &Path, doing: &'static str, error: StorageError) -> StoreError {
    match error {
        StorageError::Io(source) => fault(path, doing, source),
        StorageError::PreviousIo => StoreError::Stopped { path: path.into() },
        other => StoreError::Damaged { path: path.into(), what: other.to_string() },
    }
}

fn redb_fault(path: &Path, doing: &'static str, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(source) => fault(path, doing, source),
        redb::Error::PreviousIo => StoreError::Stopped { path: path.into() },
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        other => StoreError::Damaged { path: path.into(), what: other.to_string() },
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
