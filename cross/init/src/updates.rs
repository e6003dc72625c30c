//! Updates of the image: who may bring one, what is tried, and what becomes of it.
//!
//! A worker takes an update from the card's first partition or from the server's user, and writes it into the slot that
//! doesn't start; the machine's loop then restarts into it. After that start the loop judges the trial: what proves that it
//! works becomes the slot that starts, and everything else is left behind by any restart, whoever causes it.

use std::fs;
use std::mem;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tiebreaker_pipeline::level::Level;
use tiebreaker_update::{
    BUILD_FILE, Book, Build, KEY_FILE, Key, Manifest, Record, STATUS_FILE, Sign, Slot, Start, Trial, Verdict, WITHIN,
};

use crate::desk::{Desk, Ways};
use crate::log::say;
use crate::slots::{self, Choice};
use crate::{disk, mbr};

/// Where the book lies, which the server's user can't write.
const BOOK: &str = "/state/update.json";

/// What the machine has to do.
#[derive(Debug)]
pub enum Wish {
    /// Start the other slot once.
    Try,
    /// Start the slot that starts: the trial has failed.
    Restart,
    /// Start the server anew, with all that it knows.
    Fresh,
}

/// An update that is written.
pub struct Written {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it is.
    pub slot: Slot,
}

/// What the machine knows of its card when it comes up.
pub struct Card {
    /// The disk.
    pub disk: String,
    /// The slot that an emulator's harness says it started.
    pub said: Option<Slot>,
    /// Whether the state is there.
    pub state: bool,
    /// The key that the settings name.
    pub key: Option<String>,
}

/// Updates, as the machine's loop sees them.
#[derive(Default)]
pub struct Updates {
    book: Book,
    running: Option<Build>,
    trial: Option<Trial>,
    /// Clusters that the server says don't run.
    stopped: Vec<String>,
    written: Option<Receiver<Written>>,
    pending: Option<Written>,
    /// Whether the machine was asked to try it.
    asked: bool,
    partition: PathBuf,
    card: Option<Card>,
    /// Whether the server has said which clusters don't run.
    told: bool,
}

/// What is told to whoever reads [`STATUS_FILE`].
#[derive(Serialize)]
struct Told<'a> {
    version: Option<String>,
    build: Option<&'a str>,
    on_trial: bool,
    last: Option<&'a Record>,
}

impl Updates {
    /// Finds out what this start is, and begins to take updates unless it is a trial.
    pub fn begin(&mut self, card: Card) {
        self.running = fs::read_to_string(BUILD_FILE).ok().as_deref().and_then(Build::parse);
        let Some(running) = self.running.clone() else {
            say(format_args!("{BUILD_FILE} isn't in order: this image takes no updates"));
            return;
        };
        self.partition = Path::new("/dev").join(mbr::partition(&card.disk, 1));
        let starts = match Choice::read(&self.partition) {
            Ok(choice) => Some(choice.autoboot.start),
            Err(error) => {
                say(format_args!("the slot that starts isn't known: {error:#}"));
                None
            }
        };
        let told = slots::told(card.said);
        if card.state {
            self.book = read_book(Path::new(BOOK));
        }
        match Start::judge(self.book.last.as_ref(), &running.build, told, starts) {
            Start::Usual if !card.state && told.is_some() && starts.is_some() && told != starts => {
                say("started from the slot that isn't chosen, and without the state: a trial that can't succeed");
                self.trial = Some(Trial::new(Vec::new()));
            }
            Start::Usual => {}
            Start::Trial(record) => {
                say(format_args!(
                    "UPDATE: version {} ({}) is on trial in slot {}",
                    record.version, record.build, record.slot
                ));
                self.trial = Some(Trial::new(record.stopped));
            }
            Start::FellBack(record) => {
                let why = format!("version {} did not come back with its word: it hung or restarted", record.version);
                self.failed(record.why.as_deref().unwrap_or(&why));
            }
            Start::Kept(record) => {
                say(format_args!("UPDATE: version {} was kept", record.version));
                self.book.keep();
                self.write();
            }
        }
        self.tell();
        let slot = match (starts, told) {
            _ if self.trial.is_some() => None,
            (Some(starts), Some(told)) if starts != told => {
                say(format_args!(
                    "started from slot {told}, though {starts} is chosen: no update is taken, it would replace what runs"
                ));
                None
            }
            (starts, _) => starts.map(Slot::other),
        };
        self.card = Some(card);
        let Some(slot) = slot else { return };
        if let Some(desk) = self.desk(slot)
            && desk.card_is_empty()
            && !self.book.tried.is_empty()
        {
            // Who wants a file to be tried again takes it away, and puts it back after a start.
            self.book.tried.clear();
            self.write();
        }
        self.open(slot);
    }

    /// What takes updates and writes them to this slot, if the machine is in a state to do so.
    fn desk(&self, slot: Slot) -> Option<Desk> {
        let card = self.card.as_ref().filter(|card| card.state)?;
        let ways = Ways {
            slot,
            device: Path::new("/dev").join(mbr::partition(&card.disk, slot.partition())),
            card: Path::new(disk::SETTINGS).join(tiebreaker_update::ON_THE_CARD),
            running: self.running.clone()?,
            tried: self.book.tried.clone(),
        };
        Some(Desk::new(ways, key(card.key.as_deref())))
    }

    /// Takes updates from now on.
    fn open(&mut self, slot: Slot) {
        let Some(desk) = self.desk(slot) else { return };
        // One at a time: after it the machine restarts.
        let (sender, receiver) = sync_channel(1);
        let spawned = thread::Builder::new().name("update".into()).spawn(move || desk.run(&sender));
        match spawned {
            Ok(_) => self.written = Some(receiver),
            Err(error) => say(format_args!("no update is taken: {error}")),
        }
    }

    /// Takes a sign of the server.
    pub fn handle(&mut self, now: Duration, sign: Sign) {
        if let Sign::Stopped(names) = &sign {
            self.stopped.clone_from(names);
            self.told = true;
        }
        if let Some(trial) = &mut self.trial {
            trial.handle(now, sign);
        }
    }

    /// The highest feature level that the server may let a cluster have: on trial that of the version which may come back.
    #[must_use]
    pub fn most_level(&self) -> Option<u32> {
        self.trial.as_ref().and(self.book.last.as_ref()).map(|record| record.level)
    }

    /// What is due.
    pub fn poll(&mut self, now: Duration) -> Option<Wish> {
        match self.trial.as_mut().and_then(|trial| trial.poll(now)) {
            Some(Verdict::Healthy) => return self.keep(),
            Some(Verdict::Failed(why)) => {
                self.failed(&why);
                return Some(Wish::Restart);
            }
            None => {}
        }
        match self.written.as_ref().map(Receiver::try_recv) {
            Some(Ok(written)) => {
                self.pending = Some(written);
                self.written = None;
            }
            Some(Err(TryRecvError::Disconnected)) => self.written = None,
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        // What doesn't run now isn't asked of the update; a server that doesn't come up isn't waited for.
        let ready = self.told || now >= WITHIN;
        (ready && self.pending.is_some() && !mem::replace(&mut self.asked, true)).then_some(Wish::Try)
    }

    /// The update on trial works: from now on it is what starts.
    fn keep(&mut self) -> Option<Wish> {
        let level = self.most_level();
        // What is mounted would have a say in what is written.
        disk::leave_settings();
        if let Err(error) = Choice::read(&self.partition).and_then(|choice| choice.exchange()) {
            self.failed(&format!("it works, and can't be made what starts: {error:#}"));
            return Some(Wish::Restart);
        }
        self.trial = None;
        self.book.keep();
        self.write();
        self.tell();
        if let Some(record) = &self.book.last {
            say(format_args!(
                "UPDATE: version {} works and is what starts from now on, slot {}",
                record.version, record.slot
            ));
        }
        if let Some(slot) = self.book.last.as_ref().map(|record| record.slot.other()) {
            self.open(slot);
        }
        // It was told to know no more than the version that might have come back.
        level.is_some_and(|level| level < known()).then_some(Wish::Fresh)
    }

    /// The last step before the other slot is started once: after it any start is either the trial, or the word that it
    /// failed.
    ///
    /// # Errors
    /// It can't be written down, or `once` can't have the other slot started: then it isn't tried.
    pub fn try_it(&mut self, once: impl FnOnce() -> Result<()>) -> Result<()> {
        let written = self.pending.take().context("there is nothing to try")?;
        let running = self.running.as_ref().context("this image doesn't know itself")?;
        let Manifest { version, build, sha256, .. } = written.manifest;
        self.book.try_it(Record {
            phase: tiebreaker_update::Phase::Trying,
            slot: written.slot,
            sha256,
            version: version.to_string(),
            build,
            from_version: running.version.to_string(),
            level: known(),
            stopped: self.stopped.clone(),
            why: None,
        });
        disk::replace(Path::new(BOOK), &self.book.text())?;
        // The flag comes last: what starts by it finds the record.
        once().inspect_err(|error| {
            self.book.fail(&format!("{error:#}"));
            self.write();
        })
    }

    /// On trial this only says why: that it failed is told by the version that comes back.
    fn failed(&mut self, why: &str) {
        say(format_args!("UPDATE FAILED: {why}"));
        if self.trial.is_some() {
            self.book.suspect(why);
        } else {
            if let Some(running) = &self.running {
                say(format_args!("version {} goes on; the update isn't tried again by itself", running.version));
            }
            self.book.fail(why);
        }
        self.write();
        self.tell();
    }

    fn write(&self) {
        if let Err(error) = disk::replace(Path::new(BOOK), &self.book.text()) {
            say(format_args!("what became of the update can't be written down: {error:#}"));
        }
    }

    /// Tells whoever wants to show it.
    fn tell(&self) {
        let told = Told {
            version: self.running.as_ref().map(|running| running.version.to_string()),
            build: self.running.as_ref().map(|running| running.build.as_str()),
            on_trial: self.trial.is_some(),
            last: self.book.last.as_ref(),
        };
        let text = serde_json::to_string(&told).expect("strings, numbers and lists can be written");
        let path = Path::new(STATUS_FILE);
        let shown = disk::replace(path, &text)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).context("showing it"));
        if let Err(error) = shown {
            say(format_args!("{error:#}"));
        }
    }
}

/// The highest feature level that this image's server knows: it is built from the same source.
fn known() -> u32 {
    Level::KNOWN.to_string().parse().expect("a level is a number")
}

fn read_book(path: &Path) -> Book {
    match fs::read_to_string(path) {
        Ok(text) => Book::parse(&text).unwrap_or_else(|error| {
            say(format_args!("{} can't be read, and is begun anew: {error}", path.display()));
            Book::default()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Book::default(),
        Err(error) => {
            say(format_args!("{} can't be read: {error}", path.display()));
            Book::default()
        }
    }
}

/// The key of the settings, or else that of the image.
fn key(settings: Option<&str>) -> Option<Key> {
    let text = settings.map(ToOwned::to_owned).or_else(|| fs::read_to_string(KEY_FILE).ok())?;
    match Key::parse(&text) {
        Ok(key) => Some(key),
        Err(error) => {
            say(format_args!("no update is taken: {error}"));
            None
        }
    }
}
