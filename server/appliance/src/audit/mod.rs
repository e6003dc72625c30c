//! The audit log: every request, grant, refusal, attempt and piece of evidence of fencing, in lines that are chained by hash.
//!
//! Each line is the hash of the line before it and its own document, then that document. Who changes, removes or inserts
//! a line breaks the chain from there on. What was cut off behind the last line can't be seen in the files alone: the daemon
//! says its newest hash in its own log at each start, and `audit verify` prints it.

mod event;
mod file;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tiebreaker_member::errors::chain;
use tracing::{error, info, warn};

use crate::desk::unix_ms;

pub(crate) use event::{Act, Event};
pub(crate) use file::{AuditError, Writer};
pub(crate) use verify::{each, entries, verify};

/// Entries that wait for the card. A fence makes some ten; more than this many at once are a flood.
const WAITING: usize = 1024;

/// A log that can't be written is tried again after this long.
const AGAIN: Duration = Duration::from_secs(10);

/// A daemon that ends waits so long for the card.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// The folder of the audit log below the data folder.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("audit")
}

/// The way into the audit log. It never keeps a fence waiting for the card: a thread writes.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    queue: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    /// Why it can't be written, while that is so.
    trouble: Arc<Mutex<Option<String>>>,
}

/// What the thread that writes is told.
#[derive(Debug)]
enum Line {
    Event(Event),
    /// Nothing that comes later is waited for.
    End,
}

/// The thread that writes.
pub(crate) struct Scribe {
    queue: SyncSender<Line>,
    ended: Receiver<()>,
}

impl Scribe {
    /// Waits until everything that was recorded so far is written, but not for ever.
    pub(crate) fn finish(self) {
        // A full queue has as much to write as there is time for.
        let told = self.queue.try_send(Line::End).is_ok();
        if !told || self.ended.recv_timeout(WRITTEN_WITHIN).is_err() {
            warn!("the audit log is not written to its end: the card is slow");
        }
    }
}

impl Audit {
    /// Opens the log below a data folder, mends a torn tail, and starts the thread that writes. Where it can't be opened, on a
    /// full card mostly, nothing waits for it: it is tried again and again, [`Audit::alarm`] says so meanwhile, and what it
    /// missed is counted in it.
    pub(crate) fn start(root: &Path) -> (Self, Scribe) {
        let mut book = Book { root: root.to_owned(), writer: None, trouble: Arc::default(), failing: false };
        book.is_open();
        let (queue, lines) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let (trouble, missed) = (Arc::clone(&book.trouble), Arc::clone(&lost));
        let (end, ended) = channel();
        let writing = std::thread::Builder::new().name("audit".into()).spawn(move || {
            book.write(&lines, &missed);
            // Who would be told may have stopped waiting.
            let _ = end.send(());
        });
        if let Err(error) = writing {
            error!("the audit log is not written: its thread can't be started: {error}");
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("its thread can't be started: {error}"));
        }
        (Self { queue: queue.clone(), lost, trouble }, Scribe { queue, ended })
    }

    /// What to tell somebody while it can't be written.
    pub(crate) fn alarm(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|why| {
            format!("the appliance's audit log is not written ({why}): what happens meanwhile is only counted in it; make room, or look at its folder")
        })
    }

    /// Records an event, in the order of the calls.
    pub(crate) fn record(&self, event: Event) {
        match self.queue.try_send(Line::Event(event)) {
            Ok(()) => {}
            // The log says so itself, as soon as the card takes anything again.
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(line)) => warn!(?line, "the audit log has ended"),
        }
    }
}

/// The log as its thread holds it.
struct Book {
    root: PathBuf,
    /// None where it could not be opened so far.
    writer: Option<Writer>,
    trouble: Arc<Mutex<Option<String>>>,
    /// It was said that it can't be written.
    failing: bool,
}

impl Book {
    fn write(&mut self, lines: &Receiver<Line>, missed: &AtomicU64) {
        loop {
            match lines.recv_timeout(AGAIN) {
                Ok(Line::Event(event)) => self.take(event, missed),
                // What it misses is written as soon as that is possible, whether or not there is news.
                Err(RecvTimeoutError::Timeout) => self.catch_up(missed),
                Ok(Line::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, event: Event, missed: &AtomicU64) {
        self.catch_up(missed);
        if missed.load(Ordering::Relaxed) > 0 || !self.append(event.clone()) {
            missed.fetch_add(1, Ordering::Relaxed);
            warn!(?event, "not in the audit log");
        }
    }

    fn catch_up(&mut self, missed: &AtomicU64) {
        let lost = missed.swap(0, Ordering::Relaxed);
        let written = if lost > 0 { self.append(Event::Lost { events: lost }) } else { self.is_open() };
        if !written {
            missed.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Opens the log if it isn't yet.
    fn is_open(&mut self) -> bool {
        if self.writer.is_some() {
            return true;
        }
        match open(&self.root) {
            Ok(writer) => self.writer = Some(writer),
            Err(problem) => self.fails(&problem),
        }
        self.writer.is_some() && self.works()
    }

    fn append(&mut self, event: Event) -> bool {
        if !self.is_open() {
            return false;
        }
        match self.writer.as_mut().map(|writer| writer.append(event)) {
            Some(Ok(_)) => self.works(),
            Some(Err(problem)) => {
                self.fails(&problem);
                false
            }
            None => false,
        }
    }

    fn works(&mut self) -> bool {
        if std::mem::replace(&mut self.failing, false) {
            info!("the audit log is written again");
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        true
    }

    fn fails(&mut self, problem: &AuditError) {
        let why = chain(problem);
        if !std::mem::replace(&mut self.failing, true) {
            error!("the audit log can't be written: {why}");
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// Opens the log for a daemon that begins.
fn open(root: &Path) -> Result<Writer, AuditError> {
    let mut writer = match Writer::open(&folder(root)) {
        // The votes of whole clusters must not wait for somebody to look at it, and nobody shall write over it.
        Err(problem @ AuditError::Tampered { .. }) => {
            let aside = root.join(format!("audit.tampered-{}", unix_ms()));
            let at = folder(root);
            std::fs::rename(&at, &aside).map_err(|source| AuditError::Io { what: "set aside", path: at, source })?;
            error!(aside = %aside.display(), "the audit log was set aside and a new one begun: {problem}");
            let mut writer = Writer::open(&folder(root))?;
            writer.append(Event::SetAside { folder: aside.display().to_string(), why: problem.to_string() })?;
            writer
        }
        other => other?,
    };
    let head = writer.append(Event::Started { version: env!("CARGO_PKG_VERSION").to_owned() })?;
    info!(number = head.number, hash = head.hash, "the audit log goes on");
    Ok(writer)
}

#[cfg(test)]
mod tests;
