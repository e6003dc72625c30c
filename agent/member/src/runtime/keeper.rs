//! Keeps a member's journal on its disk: a thread that appends what is new, so that a slow card delays nothing, and a full or
//! broken one costs the journal and nothing else.
//!
//! Two files: what is new goes to the end of one, and when that is long enough it takes the place of the other. Nothing is
//! ever written twice. A record is its length and a part of its SHA-256 before its CBOR: what a reset or a power cut left
//! half-written at the end is found out and cut off. What a write that failed left there is cut off as well, whole or not: it
//! is written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
/// A write that takes longer than this hangs: a card that tidies itself up takes a second or two.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// Whoever ends waits so long for the last lines.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The length and the checksum before each record.
const HEAD: usize = 8;

/// Writes to the end of a file and makes it durable: [`write_durably`], or a disk of a test.
type Put = Box<dyn FnMut(&mut File, &[u8]) -> io::Result<()> + Send>;

/// How the disk does, as the thread tells.
#[derive(Default)]
struct Disk {
    /// Why it takes nothing.
    fault: Option<String>,
    /// A write has not come back since.
    busy_since: Option<Instant>,
}

/// The way to the thread.
pub(super) struct Keeper {
    lines: Option<SyncSender<JournalLine>>,
    disk: watch::Receiver<Disk>,
    /// Lines that were given up since the disk took the last ones.
    lost: Arc<AtomicU64>,
    /// What is said of a disk that hangs. The thread can't say it then.
    hangs: String,
    ended: Receiver<()>,
}

impl Keeper {
    /// Reads what is kept beside a member's store, and starts to keep what is new. Never fails: what can't be read is not
    /// told, and [`Self::fault`] says why.
    pub fn start(store: &Path) -> (Self, Vec<JournalLine>) {
        Self::on(Book::beside(store, Box::new(write_durably)))
    }

    fn on(book: Book) -> (Self, Vec<JournalLine>) {
        let (kept, fault) = match book.read() {
            Ok(kept) => (kept, None),
            Err(error) => (Vec::new(), Some(book.says(&error))),
        };
        let (tell, disk) = watch::channel(Disk { fault, busy_since: None });
        let (send, lines) = sync_channel(JOURNAL_MAX);
        let (end, ended) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let hangs = book.hangs();
        let thread = Thread { book, tell, waiting: Vec::new(), lost: lost.clone() };
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                thread.run(&lines);
                // Nobody waits any more if the disk took too long.
                let _ = end.try_send(());
            })
            .expect("a thread can be started while the daemon starts");
        (Self { lines: Some(send), disk, lost, hangs, ended }, kept)
    }

    /// Keeps a line, if the disk is not too far behind.
    pub fn keep(&self, line: JournalLine) {
        if let Some(lines) = &self.lines {
            match lines.try_send(line) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                // It is still in memory, for as long as this member runs.
                Err(TrySendError::Full(_)) => {
                    if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                        warn!(fault = self.hangs, "the disk is too far behind: lines of the journal are lost");
                    }
                }
            }
        }
    }

    /// Why the journal can't be kept, if it can't.
    pub fn fault(&self) -> Option<String> {
        self.fault_at(Instant::now())
    }

    fn fault_at(&self, now: Instant) -> Option<String> {
        let disk = self.disk.borrow();
        let hangs = disk.busy_since.is_some_and(|since| now.saturating_duration_since(since) >= HANGS_AFTER);
        let behind = self.lost.load(Ordering::Relaxed) > 0;
        disk.fault.clone().or_else(|| (hangs || behind).then(|| self.hangs.clone()))
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
    tell: watch::Sender<Disk>,
    /// Not on the disk yet; bounded by [`JOURNAL_MAX`].
    waiting: Vec<JournalLine>,
    /// Lines that had to be given up meanwhile, here or on the way.
    lost: Arc<AtomicU64>,
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
        let pause = if self.tell.borrow().fault.is_some() { TRY_AGAIN } else { GATHER };
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
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.waiting.push(line);
    }

    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.tell.send_modify(|disk| disk.busy_since = Some(Instant::now()));
        let fault = match self.book.append(&self.waiting) {
            Ok(()) => {
                self.waiting.clear();
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    warn!(lost, "the journal can be kept again; lines of the time between are lost");
                }
                None
            }
            Err(error) => Some(self.book.says(&error)),
        };
        self.tell.send_modify(|disk| {
            if let Some(fault) = fault.as_ref().filter(|_| disk.fault != fault) {
                warn!(fault, "the journal can't be kept: what this member did won't be known after a restart");
            }
            *disk = Disk { fault, busy_since: None };
        });
    }
}

/// The two files.
struct Book {
    now: PathBuf,
    before: PathBuf,
    put: Put,
    /// The file that is written to; absent before the first write and after one that failed.
    open: Option<File>,
    /// No more of it than this is good. Nothing is known before it is opened first; after that what stands behind is what a
    /// write left that failed.
    good: u64,
}

impl Book {
    fn beside(store: &Path, put: Put) -> Self {
        let (now, before) = (store.with_extension("journal"), store.with_extension("journal.before"));
        Self { now, before, put, open: None, good: u64::MAX }
    }

    fn says(&self, error: &io::Error) -> String {
        format!(
            "its journal can't be kept in {}: {error}; what it did won't be known after a restart, and nothing else is amiss: \
             make room, or let it be written",
            self.now.display()
        )
    }

    fn hangs(&self) -> String {
        format!(
            "its journal can't be kept in {}: the disk doesn't answer; what it did won't be known after a restart: look at \
             the disk",
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

    /// Appends lines and makes them durable: all of them, or none counts.
    fn append(&mut self, lines: &[JournalLine]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            record(&mut bytes, line);
        }
        let long = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // What fails leaves the file closed: its end is looked at anew before anything follows it.
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.reopen()?,
        };
        if self.good > 0 && self.good.saturating_add(long) > FILE_MAX {
            fs::rename(&self.now, &self.before)?;
            file = self.reopen()?;
        }
        file.seek(SeekFrom::Start(self.good))?;
        (self.put)(&mut file, &bytes)?;
        self.good += long;
        self.open = Some(file);
        Ok(())
    }

    /// Opens the file that is written to, and cuts off what is no record or doesn't count.
    fn reopen(&mut self) -> io::Result<File> {
        let file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(&self.now)?;
        let mut bytes = contents(&self.now)?;
        // Somebody may have made room meanwhile by taking the file away: then there is less than was good.
        bytes.truncate(usize::try_from(self.good).unwrap_or(usize::MAX));
        self.good = records(&bytes).1;
        if file.metadata()?.len() != self.good {
            file.set_len(self.good)?;
        }
        if let Some(folder) = self.now.parent().filter(|_| self.good == 0) {
            // A new name lasts only with its folder.
            File::open(folder)?.sync_all()?;
        }
        Ok(file)
    }
}

fn write_durably(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()
}

/// What a file holds, as far as one of ours can be long.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(2 * FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn record(bytes: &mut Vec<u8>, line: &JournalLine) {
    let mut body = Vec::new();
    cbor4ii::serde::to_writer(&mut body, line).expect("writing to memory can't fail, and every field is encodable");
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
        lines.extend(cbor4ii::serde::from_slice::<JournalLine>(body));
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

    fn long(at_ms: u64) -> JournalLine {
        JournalLine { at_ms, deed: Deed::WatchdogFailed { why: "x".repeat(300) } }
    }

    fn store(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("raft.redb")
    }

    /// The files beside a store, on a disk that works.
    fn book(store: &Path) -> Book {
        Book::beside(store, Box::new(write_durably))
    }

    fn thread(book: Book) -> Thread {
        Thread { book, tell: watch::channel(Disk::default()).0, waiting: Vec::new(), lost: Arc::default() }
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
        let mut book = book(&store(&folder));
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
        let mut thread = thread(book(&path));
        lines(0..3).into_iter().for_each(|line| thread.wait(line));
        thread.write();
        let fault = thread.tell.borrow().fault.clone().unwrap();
        assert!(fault.contains("raft.journal") && fault.contains("make room"), "{fault}");
        fs::create_dir(folder.path().join("gone")).unwrap();
        thread.write();
        assert_eq!(thread.tell.borrow().fault, None);
        assert_eq!(book(&path).read().unwrap(), lines(0..3));
    }

    #[test]
    fn what_waits_for_a_disk_is_bounded() {
        let mut thread = thread(book(Path::new("/nowhere/x")));
        lines(0..JOURNAL_MAX as u64 + 2).into_iter().for_each(|line| thread.wait(line));
        assert_eq!(
            (thread.waiting.len(), thread.lost.load(Ordering::Relaxed), thread.waiting[0].at_ms),
            (JOURNAL_MAX, 2, 2)
        );
    }

    /// What comes of one attempt to write.
    #[derive(Clone, Copy, Debug)]
    enum Attempt {
        Lasts,
        /// A disk that is full: so many bytes stand there.
        Fits(usize),
        /// All of it stands in the file, and the disk says that it didn't take it.
        NotDurable,
    }

    /// A book on a disk with such attempts, one after the other; those that follow last.
    fn book_on(store: &Path, attempts: impl IntoIterator<Item = Attempt, IntoIter: Send + 'static>) -> Book {
        let mut attempts = attempts.into_iter();
        Book::beside(
            store,
            Box::new(move |file, bytes| match attempts.next().unwrap_or(Attempt::Lasts) {
                Attempt::Lasts => write_durably(file, bytes),
                Attempt::Fits(room) => {
                    file.write_all(&bytes[..room.min(bytes.len())])?;
                    Err(io::ErrorKind::StorageFull.into())
                }
                Attempt::NotDurable => {
                    file.write_all(bytes)?;
                    Err(io::Error::other("input/output error"))
                }
            }),
        )
    }

    #[test]
    fn what_a_failed_write_left_behind_is_not_kept_twice() {
        let mut two = Vec::new();
        record(&mut two, &line(3));
        record(&mut two, &line(4));
        for attempt in (0..=two.len()).map(Attempt::Fits).chain([Attempt::NotDurable]) {
            let folder = tempfile::tempdir().unwrap();
            let mut book = book_on(&store(&folder), [Attempt::Lasts, attempt, attempt]);
            book.append(&lines(0..3)).unwrap();
            book.append(&lines(3..5)).unwrap_err();
            book.append(&lines(3..5)).unwrap_err();
            book.append(&lines(3..6)).unwrap();
            book.append(&lines(6..7)).unwrap();
            assert_eq!(book.read().unwrap(), lines(0..7), "{attempt:?}");
        }
    }

    #[test]
    fn a_disk_that_fails_for_hours_costs_nothing_that_was_kept_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = store(&folder);
        let mut before = book(&path);
        (0..1_000).for_each(|term| before.append(&[long(term)]).unwrap());
        let files = || [before.before.clone(), before.now.clone()].map(|path| fs::read(path).unwrap());
        let old = files();
        let waiting: Vec<_> = (1_000..1_010).map(long).collect();
        let mut book = book_on(&path, [Attempt::NotDurable; 200]);
        for _ in 0..200 {
            book.append(&waiting).unwrap_err();
        }
        let [kept, now] = files();
        assert!(kept == old[0] && now.starts_with(&old[1]), "the newer file has taken the place of the older one");
        assert!(now.len() < old[1].len() + 10 * 400, "{} bytes of {} lines", now.len(), waiting.len());
        book.append(&waiting).unwrap();
        let kept = book.read().unwrap();
        assert_eq!(kept.iter().map(|line| line.at_ms).collect::<Vec<_>>(), (510..1_010).collect::<Vec<_>>());
    }

    #[test]
    fn a_disk_that_fails_now_and_then_keeps_each_line_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = store(&folder);
        let attempts = [Attempt::Fits(0), Attempt::Lasts, Attempt::NotDurable, Attempt::Fits(500), Attempt::Lasts];
        let mut thread = thread(book_on(&path, attempts.into_iter().cycle()));
        for term in 0..3_000 {
            thread.wait(long(term));
            thread.write();
        }
        let kept: Vec<_> = book(&path).read().unwrap().iter().map(|line| line.at_ms).collect();
        assert_eq!(kept, (2_500..3_000).collect::<Vec<_>>());
    }

    #[test]
    fn who_takes_the_file_away_to_make_room_gets_a_new_one_without_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        let path = store(&folder);
        let mut book = book_on(&path, [Attempt::Lasts, Attempt::Fits(10)]);
        book.append(&lines(0..3)).unwrap();
        book.append(&lines(3..5)).unwrap_err();
        fs::remove_file(path.with_extension("journal")).unwrap();
        book.append(&lines(3..5)).unwrap();
        assert_eq!(book.read().unwrap(), lines(3..5));
    }

    #[test]
    fn a_disk_that_hangs_is_told_of_and_what_is_lost_is_counted_until_it_works_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = store(&folder);
        let (begin, begun) = sync_channel(0);
        let (answer, answers) = sync_channel::<()>(1);
        let (keeper, _) = Keeper::on(Book::beside(
            &path,
            Box::new(move |file, bytes| {
                // Once the test has gone it neither wants to know nor answers.
                let _ = begin.send(());
                let _ = answers.recv();
                write_durably(file, bytes)
            }),
        ));
        let soon = Duration::from_secs(60);
        keeper.keep(line(0));
        begun.recv_timeout(soon).unwrap();
        assert_eq!(keeper.fault(), None, "it may still answer");
        let fault = keeper.fault_at(Instant::now() + HANGS_AFTER).unwrap();
        assert!(fault.contains("raft.journal") && fault.contains("doesn't answer"), "{fault}");

        let all = u64::try_from(JOURNAL_MAX).unwrap();
        lines(1..all + 1).into_iter().for_each(|line| keeper.keep(line));
        assert_eq!((keeper.fault(), keeper.lost.load(Ordering::Relaxed)), (None, 0), "all of it fits");
        lines(all + 1..all + 4).into_iter().for_each(|line| keeper.keep(line));
        assert_eq!((keeper.fault(), keeper.lost.load(Ordering::Relaxed)), (Some(fault), 3));

        answer.send(()).unwrap();
        // The next write begins when the one before is over.
        begun.recv_timeout(soon).unwrap();
        assert_eq!((keeper.fault(), keeper.lost.load(Ordering::Relaxed)), (None, 0));
        drop((answer, begun));
        drop(keeper);
        assert_eq!(book(&path).read().unwrap(), lines(1..all + 1), "and the first line is one of 501");
    }

    #[test]
    fn a_line_of_a_newer_version_is_passed_over() {
        let mut bytes = Vec::new();
        record(&mut bytes, &line(1));
        let mut body = Vec::new();
        cbor4ii::serde::to_writer(&mut body, &("some", "thing else")).unwrap();
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(checksum(&body));
        bytes.extend(body);
        record(&mut bytes, &line(2));
        assert_eq!(records(&bytes), (vec![line(1), line(2)], bytes.len() as u64));
    }
}
