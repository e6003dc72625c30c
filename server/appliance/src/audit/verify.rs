//! Reading the log back, and telling a power cut from tampering.
//!
//! A line is written in one piece and made durable before the next. So a power cut can tear the very last line of the newest
//! file, and nothing else: it then has no end of line. Whatever else doesn't fit was changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::event::{Entry, Event};
use super::file::{AuditError, FIRST, Head, chain, files, io_at};

/// How a file ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tail {
    /// With a whole line, or it is empty.
    Whole,
    /// With so many bytes that are no line.
    Torn {
        /// They.
        bytes: u64,
    },
}

/// Where a file can't be what was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: String,
}

/// One file as it was read.
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    /// The first line's hash and document.
    pub(super) first: Option<(String, String)>,
    pub(super) fault: Option<Fault>,
    pub(super) tail: Tail,
    /// Bytes of whole lines.
    pub(super) whole: u64,
    pub(super) head: Option<Head>,
}

/// Reads one file. Its first line is taken as it is: what it is chained to is in the file before.
pub(super) fn read(path: &Path) -> Result<Read, AuditError> {
    let bytes = fs::read(path).map_err(io_at("read", path))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let torn = (bytes.len() - whole) as u64;
    let tail = if torn == 0 { Tail::Whole } else { Tail::Torn { bytes: torn } };
    let mut read = Read { entries: Vec::new(), first: None, fault: None, tail, whole: whole as u64, head: None };
    for (place, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        match parse(&line[..line.len() - 1]) {
            Ok((entry, hash, document)) => {
                let why = read.head.as_ref().and_then(|head| breaks(head, &entry, &hash, document));
                if let Some(why) = why {
                    read.fault = Some(Fault { file: path.to_owned(), line: place + 1, why });
                    break;
                }
                read.first.get_or_insert_with(|| (hash.clone(), document.to_owned()));
                read.head = Some(Head { number: entry.number, hash });
                read.entries.push(entry);
            }
            Err(why) => {
                read.fault = Some(Fault { file: path.to_owned(), line: place + 1, why });
                break;
            }
        }
    }
    Ok(read)
}

fn parse(line: &[u8]) -> Result<(Entry, String, &str), String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is no text".to_owned())?;
    let (hash, document) = text.split_once(' ').ok_or("it has no hash")?;
    let entry = serde_json::from_str(document).map_err(|error| format!("it is no entry: {error}"))?;
    Ok((entry, hash.to_owned(), document))
}

/// Why a line can't follow another.
fn breaks(before: &Head, entry: &Entry, hash: &str, document: &str) -> Option<String> {
    if entry.number != before.number + 1 {
        return Some(format!("entry {} follows entry {}", entry.number, before.number));
    }
    (chain(&before.hash, document) != hash)
        .then(|| "its hash is not that of the line before and its own text".to_owned())
}

/// The end of the file before `path`.
pub(super) fn head_before(folder: &Path, path: &Path) -> Result<Head, AuditError> {
    let mut last = Head { number: 0, hash: FIRST.to_owned() };
    for file in files(folder)?.into_iter().take_while(|file| file != path) {
        if let Some(head) = read(&file)?.head {
            last = head;
        }
    }
    Ok(last)
}

/// What a whole log is worth.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Verdict {
    /// Every line follows the one before, from `first` to `last`.
    pub whole: bool,
    /// The first entry that is kept.
    pub first: Option<u64>,
    /// The newest entry.
    pub last: Option<u64>,
    /// Its hash: noted elsewhere it shows later that nothing before it was changed or cut off.
    pub head: Option<String>,
    /// Bytes of a line that a power cut tore; the next start of the daemon removes them.
    pub torn_bytes: u64,
    /// The first place that was changed.
    pub fault: Option<Fault>,
}

/// Checks the whole log.
///
/// # Errors
/// The files can't be read.
pub(crate) fn verify(folder: &Path) -> Result<Verdict, AuditError> {
    let (entries, verdict) = all(folder)?;
    drop(entries);
    Ok(verdict)
}

/// Shows each entry, oldest first, one file at a time in memory. What follows a fault in a file is left out.
///
/// # Errors
/// The files can't be read.
pub(crate) fn each(folder: &Path, mut visit: impl FnMut(&Event)) -> Result<(), AuditError> {
    for path in files(folder)? {
        read(&path)?.entries.iter().for_each(|entry| visit(&entry.event));
    }
    Ok(())
}

/// The entries up to the first fault, oldest first.
///
/// # Errors
/// The files can't be read.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>, AuditError> {
    Ok(all(folder)?.0)
}

fn all(folder: &Path) -> Result<(Vec<Entry>, Verdict), AuditError> {
    let mut verdict = Verdict { whole: true, first: None, last: None, head: None, torn_bytes: 0, fault: None };
    let mut kept = Vec::new();
    // What the first kept line is chained to went with the files that were forgotten, but for the very first of all.
    let mut before: Option<Head> = None;
    let files = files(folder)?;
    let newest = files.last().cloned();
    for path in files {
        let read = read(&path)?;
        let fault = |line: usize, why: String| Some(Fault { file: path.clone(), line, why });
        if let (Some(first), Some((hash, document))) = (read.entries.first(), &read.first) {
            let start = Head { number: 0, hash: FIRST.to_owned() };
            let before = before.as_ref().or((first.number == 1).then_some(&start));
            verdict.fault = before.and_then(|before| fault(1, breaks(before, first, hash, document)?));
        }
        if let Tail::Torn { bytes } = read.tail {
            if Some(&path) == newest.as_ref() {
                verdict.torn_bytes = bytes;
            } else if verdict.fault.is_none() {
                verdict.fault =
                    fault(read.entries.len() + 1, "its last line has no end, and it is not the newest file".into());
            }
        }
        if verdict.fault.is_none() {
            before = read.head.or(before);
            kept.extend(read.entries);
            verdict.fault = read.fault;
        }
        if verdict.fault.is_some() {
            break;
        }
    }
    verdict.whole = verdict.fault.is_none();
    verdict.first = kept.first().map(|entry| entry.number);
    verdict.last = before.as_ref().map(|head| head.number);
    verdict.head = before.map(|head| head.hash);
    Ok((kept, verdict))
}
