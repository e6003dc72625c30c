//! Keeps a member's journal on its disk: a thread that appends what is new, so that a slow card delays nothing, and a full or
//! broken one costs the journal and nothing else.
//!
//! Two files: what is new goes to the end of one, and when that is long enough it takes the place of the other. Nothing is
//! ever written twice. A record is its length and a part of its SHA-256 before its CBOR: what a reset or a power cut left
//! half-written at the end is found out and cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing::warn;

use crate::core::{JOURNAL_MAX, JournalLine};

/// A file takes no more than this, in bytes: some thousand lines, so that the two always hold what a journal shows.
const FILE_MAX: u64 = 256 * 1024;
/// One line at most, in bytes: names and the words of programs are cut long before.
const RECORD_MAX: usize = 8 * 1024;
/// Lines that come within this time are written at once: each write costs an erased block of a card.
const GATHER: Duration = Duration::from_millis(250);
/// A disk that didn't take them is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Whoever ends waits so long for the last lines.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The length and the checksum before each record.
const HEAD: usize = 8;

/// The way to the thread.
pub(super) struct Keeper {
    lines: Option<SyncSender<JournalLine>>,
    fault: watch::Receiver<Option<String>>,
    ended: Receiver<()>,
}

impl Keeper {
    /// Reads what is kept beside a member's store, and starts to keep what is new. Never fails: what can't be read is not
    /// told, and [`Self::fault`] says why.
    pub fn start(store: &Path) -> (Self, Vec<JournalLine>) {
        let book = Book::beside(store);
        let (tell, fault) = watch::channel(None);
        let kept = match book.read() {
            Ok(kept) => kept,
            Err(error) => {
                tell.send_replace(Some(book.says(&error)));
                Vec::new()
            }
        };
        let (send, lines) = sync_channel(JOURNAL_MAX);
        let (end, ended) = sync_channel(1);
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                Thread { book, tell, waiting: Vec::new(), lost: 0 }.run(&lines);
                // Nobody waits any more if the disk took too long.
                let _ = end.try_send(());
            })
            .expect("a thread can be started while the daemon starts");
        (Self { lines: Some(send), fault, ended }, kept)
    }

    /// Keeps a line, if the disk is not too far behind.
    pub fn keep(&self, line: JournalLine) {
        if let Some(lines) = &self.lines {
            match lines.try_send(line) {
                // The thread says what is wrong with the disk; the line is still in memory.
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Why the journal can't be kept, if it can't.
    pub fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.lines = None;
        // A disk that hangs must not keep the daemon from ending.
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

struct Thread {
    book: Book,
    tell: watch::Sender<Option<String>>,
    /// Not on the disk yet; bounded by [`JOURNAL_MAX`].
    waiting: Vec<JournalLine>,
    /// Lines that had to be given up meanwhile.
    lost: u64,
}

impl Thread {
    fn run(mut self, lines: &Receiver<JournalLine>) {
        while self.gather(lines) {
            self.write();
        }
        self.write();
    }

    /// Waits for something to write; false once nothing comes any more.
    fn gather(&mut self, lines: &Receiver<JournalLine>) -> bool {
        let first = if self.waiting.is_empty() {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            lines.recv_timeout(TRY_AGAIN)
        };
        match first {
            Ok(line) => self.wait(line),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        // A disk that takes nothing is left alone for a while, however much comes.
        let pause = if self.tell.borrow().is_some() { TRY_AGAIN } else { GATHER };
        let end = Instant::now() + pause;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.wait(line),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn wait(&mut self, line: JournalLine) {
        if self.waiting.len() >= JOURNAL_MAX {
            self.waiting.remove(0);
            self.lost += 1;
        }
        self.waiting.push(line);
    }

    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let fault = match self.book.append(&self.waiting) {
            Ok(()) => {
                self.waiting.clear();
                if self.lost > 0 {
                    warn!(lost = self.lost, "the journal can be kept again; lines of the time between are lost");
                    self.lost = 0;
                }
                None
            }
            Err(error) => Some(self.book.says(&error)),
        };
        self.tell.send_if_modified(|told| {
            let news = *told != fault;
            if let Some(fault) = fault.as_ref().filter(|_| news) {
                warn!(fault, "the journal can't be kept: what this member did won't be known after a restart");
            }
            *told = fault;
            news
        });
    }
}

/// The two files.
struct Book {
    now: PathBuf,
    before: PathBuf,
    /// The open file and how much of it is good; absent before the first write and after one that failed.
    open: Option<(File, u64)>,
}

impl Book {
    fn beside(store: &Path) -> Self {
        Self { now: store.with_extension("journal"), before: store.with_extension("journal.before"), open: None }
    }

    fn says(&self, error: &io::Error) -> String {
        format!(
            "its journal can't be kept in {}: {error}; what it did won't be known after a restart, and nothing else is amiss: \
             make room, or let it be written",
            self.now.display()
        )
    }

    /// The last lines that are kept, oldest first.
    fn read(&self) -> io::Result<Vec<JournalLine>> {
        let mut lines = Vec::new();
        for path in [&self.before, &self.now] {
            match contents(path) {
                Ok(bytes) => lines.extend(records(&bytes).0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let more = lines.len().saturating_sub(JOURNAL_MAX);
        lines.drain(..more);
        Ok(lines)
    }

    /// Appends lines and makes them durable.
    fn append(&mut self, lines: &[JournalLine]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            record(&mut bytes, line);
        }
        let (mut file, good) = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        let long = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if good > 0 && good.saturating_add(long) > FILE_MAX {
            fs::rename(&self.now, &self.before)?;
            (file, _) = self.reopen()?;
            self.write(file, 0, &bytes)
        } else {
            file.seek(SeekFrom::Start(good))?;
            self.write(file, good, &bytes)
        }
    }

    /// What fails half-way leaves the file closed: its end is looked at anew before anything follows it.
    fn write(&mut self, mut file: File, good: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        file.sync_data()?;
        self.open = Some((file, good + u64::try_from(bytes.len()).unwrap_or(u64::MAX)));
        Ok(())
    }

    /// Opens the file that is written to, and cuts off what is no record.
    fn reopen(&self) -> io::Result<(File, u64)> {
        let file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(&self.now)?;
        let bytes = contents(&self.now)?;
        let good = records(&bytes).1;
        if file.metadata()?.len() != good {
            file.set_len(good)?;
        }
        if let Some(folder) = self.now.parent().filter(|_| good == 0) {
            // A new name lasts only with its folder.
            File::open(folder)?.sync_all()?;
        }
        Ok((file, good))
    }
}

/// What a file holds, as far as one of ours can be long.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(2 * FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn record(bytes: &mut Vec<u8>, line: &JournalLine) {
    let mut body = Vec::new();
    ciborium::into_writer(line, &mut body).expect("writing to memory can't fail, and every field is encodable");
    let Some(length) = u32::try_from(body.len()).ok().filter(|_| body.len() <= RECORD_MAX) else { return };
    bytes.extend(length.to_be_bytes());
    bytes.extend(checksum(&body));
    bytes.extend(body);
}

fn checksum(body: &[u8]) -> [u8; 4] {
    *Sha256::digest(body).first_chunk().expect("a digest is longer than that")
}

/// The records at the beginning of this, and how long they are together. One that a newer version wrote and this one can't
/// read is passed over.
fn records(bytes: &[u8]) -> (Vec<JournalLine>, u64) {
    let (mut lines, mut good) = (Vec::new(), 0);
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
        let [a, b, c, d, sum @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length == 0 || length > RECORD_MAX {
            break;
        }
        let Some((body, after)) = after.split_at_checked(length).filter(|(body, _)| checksum(body) == sum) else {
            break;
        };
        lines.extend(ciborium::from_reader::<JournalLine, _>(body));
        good += u64::try_from(HEAD + length).unwrap_or(u64::MAX);
        rest = after;
    }
    (lines, good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Deed;

    fn line(term: u64) -> JournalLine {
        JournalLine { at_ms: term, deed: Deed::Leads { term } }
    }

    fn lines(terms: std::ops::Range<u64>) -> Vec<JournalLine> {
        terms.map(line).collect()
    }

    fn store(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("raft.redb")
    }

    fn keep(store: &Path, new: Vec<JournalLine>) -> Vec<JournalLine> {
        let (keeper, kept) = Keeper::start(store);
        new.into_iter().for_each(|line| keeper.keep(line));
        kept
    }

    #[test]
    fn what_was_kept_is_told_after_a_restart_and_what_is_new_follows_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(keep(&store(&folder), lines(0..3)), []);
        assert_eq!(keep(&store(&folder), lines(3..5)), lines(0..3));
        assert_eq!(keep(&store(&folder), Vec::new()), lines(0..5));
    }

    #[test]
    fn a_tail_that_a_reset_has_torn_is_dropped_at_whatever_byte_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = store(&folder);
        keep(&path, lines(0..3));
        let file = path.with_extension("journal");
        let whole = fs::read(&file).unwrap();
        let two = usize::try_from(records(&whole).1).unwrap() / 3 * 2;
        for end in two..whole.len() {
            fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(keep(&path, vec![line(9)]), lines(0..2), "cut at {end}");
            assert_eq!(keep(&path, Vec::new()), [lines(0..2), vec![line(9)]].concat(), "cut at {end}");
        }
        // Blocks that were never written read as zeros, and a card may have lost a bit of one that was.
        for spoiled in
            [[whole.clone(), vec![0; 4096]].concat(), [&whole[..whole.len() - 1], &[!whole[whole.len() - 1]]].concat()]
        {
            fs::write(&file, &spoiled).unwrap();
            let kept = keep(&path, Vec::new());
            assert!(lines(0..3).starts_with(&kept) && kept.len() >= 2, "{kept:?}");
        }
    }

    #[test]
    fn it_takes_no_more_room_than_two_files_and_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Book::beside(&store(&folder));
        let why = "x".repeat(300);
        let long = |term: u64| JournalLine { at_ms: term, deed: Deed::WatchdogFailed { why: why.clone() } };
        for term in 0..5_000 {
            book.append(&[long(term)]).unwrap();
        }
        let taken: u64 = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(taken <= 2 * FILE_MAX, "{taken}");
        let kept = book.read().unwrap();
        assert_eq!(kept.len(), JOURNAL_MAX);
        assert_eq!((kept[0].at_ms, kept[JOURNAL_MAX - 1].at_ms), (4_500, 4_999));
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_of_and_gets_what_waited_when_it_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone").join("raft.redb");
        let mut thread = {
            let (tell, _) = watch::channel(None);
            Thread { book: Book::beside(&path), tell, waiting: Vec::new(), lost: 0 }
        };
        lines(0..3).into_iter().for_each(|line| thread.wait(line));
        thread.write();
        let fault = thread.tell.borrow().clone().unwrap();
        assert!(fault.contains("raft.journal") && fault.contains("make room"), "{fault}");
        fs::create_dir(folder.path().join("gone")).unwrap();
        thread.write();
        assert_eq!(*thread.tell.borrow(), None);
        assert_eq!(Book::beside(&path).read().unwrap(), lines(0..3));
    }

    #[test]
    fn what_waits_for_a_disk_is_bounded() {
        let (tell, _) = watch::channel(None);
        let mut thread = Thread { book: Book::beside(Path::new("/nowhere/x")), tell, waiting: Vec::new(), lost: 0 };
        lines(0..JOURNAL_MAX as u64 + 2).into_iter().for_each(|line| thread.wait(line));
        assert_eq!((thread.waiting.len(), thread.lost, thread.waiting[0].at_ms), (JOURNAL_MAX, 2, 2));
    }

    #[test]
    fn a_line_of_a_newer_version_is_passed_over() {
        let mut bytes = Vec::new();
        record(&mut bytes, &line(1));
        let mut body = Vec::new();
        ciborium::into_writer(&("some", "thing else"), &mut body).unwrap();
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(checksum(&body));
        bytes.extend(body);
        record(&mut bytes, &line(2));
        assert_eq!(records(&bytes), (vec![line(1), line(2)], bytes.len() as u64));
    }
}
