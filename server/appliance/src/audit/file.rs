//! The files: appended line by line, each made durable before the next, and begun anew at a bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::event::{Entry, Event};
use super::verify::{self, Tail};
use crate::desk::unix_ms;

/// A file that has grown to this is the last but one: some 20,000 entries.
pub(super) const FILE_MAX: u64 = 4 << 20;
/// So many files are kept: 32 MiB in all, years of fences and hours of a flood.
pub(super) const FILES_MAX: usize = 8;

/// What the first line of all is chained to.
pub(super) const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why the log can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// The system refuses.
    #[error("can't {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A line can't be what was written there.
    #[error("{path} was changed at line {line}: {why}")]
    Tampered {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// An entry can't be written as JSON.
    #[error("an entry can't be encoded")]
    Encode(#[from] serde_json::Error),
}

pub(super) fn io_at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuditError + 'a {
    move |source| AuditError::Io { what, path: path.to_owned(), source }
}

/// The newest line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Its number; 0 before the first.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// Appends.
#[derive(Debug)]
pub(crate) struct Writer {
    folder: PathBuf,
    file: File,
    path: PathBuf,
    size: u64,
    head: Head,
}

/// The hash of a line: over that of the line before, and its own document.
pub(super) fn chain(before: &str, document: &str) -> String {
    let mut bytes = Vec::with_capacity(before.len() + 1 + document.len());
    bytes.extend_from_slice(before.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(document.as_bytes());
    data_encoding::HEXLOWER.encode(digest(&SHA256, &bytes).as_ref())
}

fn name_of(first: u64) -> String {
    format!("audit-{first:012}.log")
}

/// The files, oldest first: each is named by the number of its first entry.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_at("list", folder)(error)),
    };
    let mut files = Vec::new();
    for entry in listed {
        let path = entry.map_err(io_at("list", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("audit-") && name.ends_with(".log") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Writer {
    /// Opens the log where it ends. A line that a power cut tore is removed, and that is recorded.
    ///
    /// # Errors
    /// The system refuses, or the newest file was tampered with.
    pub(crate) fn open(folder: &Path) -> Result<Self, AuditError> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_at("create", folder))?;
        let Some(path) = files(folder)?.pop() else {
            return Self::begin(folder, Head { number: 0, hash: FIRST.to_owned() });
        };
        let read = verify::read(&path)?;
        if let Some(fault) = read.fault {
            return Err(AuditError::Tampered { path, line: fault.line, why: fault.why });
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(io_at("open", &path))?;
        let torn = match read.tail {
            Tail::Whole => 0,
            Tail::Torn { bytes } => bytes,
        };
        if torn > 0 {
            file.set_len(read.whole).and_then(|()| file.sync_all()).map_err(io_at("mend", &path))?;
        }
        // A file whose very first line was torn: it goes on where the one before ended.
        let head = match read.head {
            Some(head) => head,
            None => verify::head_before(folder, &path)?,
        };
        let mut writer = Self { folder: folder.to_owned(), file, path, size: read.whole, head };
        if torn > 0 {
            writer.append(Event::Torn { bytes: torn })?;
        }
        Ok(writer)
    }

    fn begin(folder: &Path, head: Head) -> Result<Self, AuditError> {
        let path = folder.join(name_of(head.number + 1));
        let file =
            OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path).map_err(io_at("create", &path))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_at("sync", folder))?;
        Ok(Self { folder: folder.to_owned(), file, path, size: 0, head })
    }

    /// Appends one entry, and returns when it is durable.
    ///
    /// # Errors
    /// The system refuses; then the entry is not part of the chain.
    pub(crate) fn append(&mut self, event: Event) -> Result<Head, AuditError> {
        if self.size >= FILE_MAX {
            *self = Self::begin(&self.folder, self.head.clone())?;
            self.forget_old()?;
        }
        let entry = Entry { number: self.head.number + 1, at_ms: unix_ms(), event };
        let document = serde_json::to_string(&entry)?;
        let hash = chain(&self.head.hash, &document);
        let line = format!("{hash} {document}\n");
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a line must not stay in the way of the next.
            let _as_torn_at_the_next_start = self.file.set_len(self.size);
            return Err(AuditError::Io { what: "append to", path: self.path.clone(), source });
        }
        self.size += line.len() as u64;
        self.head = Head { number: entry.number, hash };
        Ok(self.head.clone())
    }

    fn forget_old(&self) -> Result<(), AuditError> {
        let files = files(&self.folder)?;
        for old in files.iter().take(files.len().saturating_sub(FILES_MAX)) {
            fs::remove_file(old).map_err(io_at("remove", old))?;
        }
        Ok(())
    }
}
