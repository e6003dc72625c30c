//! The audit log: every request, grant, refusal, attempt and piece of evidence of fencing, in lines that are chained by hash.
//!
//! Each line is the hash of the line before it and its own document, then that document. Who changes, removes or inserts
//! a line breaks the chain from there on. What was cut off behind the last line can't be seen in the files alone: the daemon
//! says its newest hash in its own log at each start, and `audit verify` prints it.

mod event;
mod file;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::desk::unix_ms;

pub(crate) use event::{Act, Event};
pub(crate) use file::{AuditError, Writer};
pub(crate) use verify::{entries, verify};

/// Entries that wait for the card. A fence makes some ten; more than this many at once are a flood.
const WAITING: usize = 1024;

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
    /// Opens the log below a data folder, mends a torn tail, and starts the thread that writes.
    ///
    /// # Errors
    /// The folder can't be read or written.
    pub(crate) fn start(root: &Path) -> Result<(Self, Scribe), AuditError> {
        let mut writer = match Writer::open(&folder(root)) {
            // The votes of whole clusters must not wait for somebody to look at it, and nobody shall write over it.
            Err(problem @ AuditError::Tampered { .. }) => {
                let aside = root.join(format!("audit.tampered-{}", unix_ms()));
                let at = folder(root);
                std::fs::rename(&at, &aside).map_err(|source| AuditError::Io {
                    what: "set aside",
                    path: at,
                    source,
                })?;
                error!(aside = %aside.display(), "the audit log was set aside and a new one begun: {problem}");
                let mut writer = Writer::open(&folder(root))?;
                writer.append(Event::SetAside { folder: aside.display().to_string(), why: problem.to_string() })?;
                writer
            }
            other => other?,
        };
        let head = writer.append(Event::Started { version: env!("CARGO_PKG_VERSION").to_owned() })?;
        info!(number = head.number, hash = head.hash, "the audit log goes on");
        let (queue, events) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let missed = Arc::clone(&lost);
        let (end, ended) = channel();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                write(&mut writer, &events, &missed);
                // Who would be told may have stopped waiting.
                let _ = end.send(());
            })
            .map_err(|source| AuditError::Io { what: "start the thread of", path: folder(root), source })?;
        Ok((Self { queue: queue.clone(), lost }, Scribe { queue, ended }))
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

fn write(writer: &mut Writer, events: &Receiver<Line>, missed: &AtomicU64) {
    let mut failing = false;
    while let Ok(Line::Event(event)) = events.recv() {
        let lost = missed.swap(0, Ordering::Relaxed);
        let gap = (lost > 0).then_some(Event::Lost { events: lost });
        for event in gap.into_iter().chain([event]) {
            match writer.append(event.clone()) {
                Ok(_) if failing => {
                    info!("the audit log is written again");
                    failing = false;
                }
                Ok(_) => {}
                Err(problem) => {
                    missed.fetch_add(1, Ordering::Relaxed);
                    // Once, and with what was to be written.
                    if !failing {
                        error!(?event, "the audit log can't be written: {problem}");
                    } else {
                        warn!(?event, "not in the audit log");
                    }
                    failing = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
