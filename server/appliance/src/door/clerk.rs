//! The one owner of a Corosync cluster's book: what changes it comes as a note, is written down, and only then is anybody told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tiebreaker_member::PeerTable;
use tiebreaker_member::ask::{FenceShown, FenceStage};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::Hold;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::book::{Barred, Book};
use super::cut::{self, Turn};
use super::docket::{Entry, Job, Stage, Wish};
use super::shared::Shared;
use crate::audit::Event;
use crate::desk::unix_ms;
use crate::recipe::Recipe;

/// Notes that wait.
pub(super) const WAITING: usize = 64;

/// How a fence stands, for those who wait for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// The power is being cut, or given.
    Working(String),
    /// It was seen off.
    Off(String),
    /// It was seen off, and this came of giving the power back.
    Back {
        /// How it was seen off.
        off: String,
        /// How it is known that it has power, or why it has none.
        on: Result<String, String>,
    },
    /// It has power; that was all that was asked for.
    On(String),
    /// It is over, and nothing is certain.
    Failed(String),
}

/// What is told to the clerk.
pub(super) enum Note {
    /// Somebody wants a fence, with the right to it if he names those on whose behalf.
    Enter {
        by: MemberName,
        node: MemberName,
        wish: Wish,
        /// `None`: only to join what there is.
        partition: Option<Vec<MemberName>>,
        /// No answer but its end where there is nothing to join.
        answer: oneshot::Sender<Ticket>,
    },
    /// A level of a node is about to be told "off". The answer says whether it may be.
    TellsOff { node: MemberName, number: u64, level: String, answer: oneshot::Sender<Result<(), Barred>> },
    /// A node was seen off, by this level. The answer says whether its power shall come back.
    Off { node: MemberName, number: u64, level: String, how: String, answer: oneshot::Sender<bool> },
    /// A node is about to be told "on". The answer says whether it may be.
    TellsOn { node: MemberName, number: u64, answer: oneshot::Sender<Result<(), Barred>> },
    /// A fence is over.
    Over { node: MemberName, number: u64, result: Progress },
    /// How far it is.
    Working { node: MemberName, number: u64, what: String },
    /// Who asked was told that the node was off.
    Heard { node: MemberName },
    /// A node has its certificate.
    Enrolled { node: MemberName, key: String, answer: oneshot::Sender<()> },
    /// A node tells its machine's UUID.
    Machine { node: MemberName, uuid: String },
    /// A device was proven, or its proof is lost.
    Proven { recipe: Box<Recipe>, proven: bool },
    /// Nothing is switched from now on. The answer comes once that is written down.
    Hold { hold: Hold, answer: oneshot::Sender<Result<()>> },
    /// That is over.
    Release { answer: oneshot::Sender<Result<()>> },
    /// What is in the book?
    Look { answer: oneshot::Sender<Book> },
}

/// What somebody who wants a fence is told.
pub(super) struct Ticket {
    pub(super) entry: Entry,
    /// The fence's number.
    pub(super) number: u64,
    /// How it goes on; of what is known or refused, nothing more comes.
    pub(super) progress: watch::Receiver<Progress>,
}

/// The owner.
pub(super) struct Clerk {
    pub(super) folder: PathBuf,
    pub(super) book: Book,
    pub(super) shared: Arc<Shared>,
    pub(super) notes: mpsc::Receiver<Note>,
    pub(super) peers: watch::Sender<Arc<PeerTable>>,
    /// Those who work at fences tell how it goes through these.
    pub(super) progress: BTreeMap<MemberName, watch::Sender<Progress>>,
    /// They. They end with the clerk, and the next one goes on.
    pub(super) workers: JoinSet<()>,
    /// How the last of them for each node is told that another fence has begun.
    pub(super) turns: BTreeMap<MemberName, watch::Sender<bool>>,
}

impl Clerk {
    /// Goes on with what a former process has left, and serves for as long as there is somebody to serve.
    pub(super) async fn run(mut self) {
        self.resume();
        self.publish();
        loop {
            tokio::select! {
                note = self.notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                Some(_) = self.workers.join_next(), if !self.workers.is_empty() => {}
            }
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Enter { by, node, wish, partition, answer } => {
                if let Some(ticket) = self.enter(&by, &node, wish, partition) {
                    // Who asked may have gone: the fence goes on.
                    let _ = answer.send(ticket);
                }
            }
            Note::TellsOff { node, number, level, answer } => {
                let told = self.book.tells_off(unix_ms(), &node, number, &level);
                if told == Ok(true) {
                    // Whoever comes after this process has to know of it.
                    self.write();
                }
                let _ = answer.send(told.map(drop));
            }
            Note::Off { node, number, level, how, answer } => {
                self.book.docket.landed(&node, number, &level);
                let then_on = self.book.docket.off(unix_ms(), &node, number, how.clone());
                self.write();
                if then_on.is_some() {
                    self.tell(&node, Progress::Off(how));
                }
                // The worker waits for it.
                let _ = answer.send(then_on == Some(true));
            }
            Note::TellsOn { node, number, answer } => {
                let may = self.book.tells_on(unix_ms(), &node, number);
                // After a restart the fence goes on giving power: only what another fence waits for is lost with this process.
                let _ = answer.send(may);
            }
            Note::Over { node, number, result } => {
                let how = match &result {
                    Progress::Working(how) | Progress::Off(how) | Progress::On(how) | Progress::Failed(how) => {
                        how.clone()
                    }
                    Progress::Back { off, on: Ok(on) | Err(on) } => format!("{off}; {on}"),
                };
                match &result {
                    Progress::Back { on: Ok(_), .. } | Progress::On(_) => self.book.docket.is_back(&node, number),
                    Progress::Working(_)
                    | Progress::Off(_)
                    | Progress::Back { on: Err(_), .. }
                    | Progress::Failed(_) => {}
                }
                self.book.docket.over(unix_ms(), &node, number, how);
                self.write();
                if self.book.docket.get(&node).is_some_and(|job| job.number == number) {
                    self.tell(&node, result);
                }
            }
            Note::Working { node, number, what } => {
                if self.book.docket.get(&node).is_some_and(|job| job.number == number && job.stage == Stage::Cutting) {
                    self.tell(&node, Progress::Working(what));
                }
            }
            Note::Heard { node } => {
                self.book.docket.heard(&node);
                self.write();
            }
            Note::Enrolled { node, key, answer } => {
                self.book.enrolled(node, key);
                self.write();
                self.publish();
                let _ = answer.send(());
            }
            Note::Machine { node, uuid } => {
                if self.book.machines.get(&node) != Some(&uuid) {
                    self.book.machines.insert(node, uuid);
                    self.write();
                }
            }
            Note::Proven { recipe, proven } => {
                if self.book.prove(&recipe, proven) {
                    self.write();
                }
            }
            Note::Hold { hold, answer } => {
                let _ = answer.send(self.change(|book| book.hold(hold)));
            }
            Note::Release { answer } => {
                let _ = answer.send(self.change(Book::release));
            }
            Note::Look { answer } => {
                let _ = answer.send(self.book.clone());
            }
        }
    }

    fn enter(
        &mut self,
        by: &MemberName,
        node: &MemberName,
        wish: Wish,
        partition: Option<Vec<MemberName>>,
    ) -> Option<Ticket> {
        let now_ms = unix_ms();
        // What is under way, or known, is nothing new: a hold refuses what begins.
        let entry = match (self.book.docket.join(now_ms, by, node, wish), &self.book.hold, partition) {
            (Some(entry), ..) => entry,
            (None, Some(hold), _) => Entry::Refused(self.shared.held(hold, node)),
            (None, None, None) => return None,
            (None, None, Some(partition)) => self.book.docket.open(now_ms, by, partition, node, wish),
        };
        let progress = self.progress.entry(node.clone());
        let progress = progress.or_insert_with(|| watch::channel(Progress::Working("it begins".into())).0);
        if entry == Entry::Opened {
            progress.send_replace(Progress::Working("it begins".into()));
        }
        let progress = progress.subscribe();
        let number = self.book.docket.get(node).map_or(0, |job| job.number);
        match &entry {
            Entry::Opened | Entry::Joined => self.write(),
            Entry::Known(_) | Entry::Refused(_) => {}
        }
        if entry == Entry::Opened
            && let Some(job) = self.book.docket.get(node).cloned()
        {
            self.work(node.clone(), job);
        }
        Some(Ticket { entry, number, progress })
    }

    /// A fence doesn't depend on whoever asked for it, and so on no task of theirs.
    fn work(&mut self, node: MemberName, job: Job) {
        let shared = Arc::clone(&self.shared);
        match job.left(unix_ms(), self.shared.is_trusted()) {
            Some(left) => {
                info!(cluster = %shared.name, %node, by = %job.by, fence = job.number, stage = ?job.stage, "a fence is worked at");
                let (stop, stopped) = watch::channel(false);
                let before = self.turns.insert(node.clone(), stop);
                if let Some(before) = &before {
                    before.send_replace(true);
                }
                self.workers.spawn(cut::work(shared, node, job, left, Turn { before, stopped }));
            }
            None => {
                let result = Progress::Failed("its time was over when the appliance came back".into());
                self.workers.spawn(async move { shared.over(node, job.number, result).await });
            }
        }
    }

    fn resume(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.book.retain(|node| shared.settings.has(node));
        self.book.docket.resume(unix_ms());
        let active: Vec<(MemberName, Job)> =
            self.book.docket.active().map(|(node, job)| (node.clone(), job.clone())).collect();
        for (node, job) in active {
            warn!(cluster = %self.shared.name, %node, fence = job.number, "a fence of the former process goes on");
            let first = match &job.stage {
                Stage::Restoring { off: Some(off) } => Progress::Off(off.how.clone()),
                Stage::Cutting | Stage::Restoring { off: None } | Stage::Over { .. } => {
                    Progress::Working("it goes on after a restart of the appliance".into())
                }
            };
            self.progress.insert(node.clone(), watch::channel(first).0);
            self.work(node, job);
        }
    }

    /// What is under way goes on though it can't be written down: it is then only lost with this process.
    fn write(&mut self) {
        if let Err(error) = self.try_write() {
            error!(cluster = %self.shared.name, "the fences of a Corosync cluster can't be written down: {error:#}");
            self.shared.audit.record(Event::Failed {
                cluster: self.shared.name.to_string(),
                fence: 0,
                why: format!("the fences can't be written down: {error:#}"),
            });
        }
    }

    fn try_write(&mut self) -> Result<()> {
        let (book, folder) = (&mut self.book, &self.folder);
        tokio::task::block_in_place(|| book.write(folder))
    }

    /// A change that an operator wants: it is made once it is on the disk, or not at all.
    fn change(&mut self, change: impl FnOnce(&mut Book) -> Result<()>) -> Result<()> {
        let former = self.book.hold.clone();
        change(&mut self.book)?;
        let written = self.try_write();
        if written.is_err() {
            self.book.hold = former;
        }
        written.context("it can't be written down, so nothing has changed")
    }

    fn tell(&self, node: &MemberName, progress: Progress) {
        if let Some(told) = self.progress.get(node) {
            told.send_replace(progress);
        }
    }

    fn publish(&self) {
        let roster = self.book.roster(|node| self.shared.settings.has(node));
        self.peers.send_replace(Arc::new(PeerTable { roster, ..PeerTable::default() }));
    }
}

/// A fence, for people.
pub(super) fn shown(job: &Job) -> FenceShown {
    let (stage, how) = match &job.stage {
        Stage::Cutting => (FenceStage::Cutting, String::new()),
        Stage::Restoring { off: Some(off) } => (FenceStage::Restoring, off.how.clone()),
        Stage::Restoring { off: None } => (FenceStage::Restoring, String::new()),
        Stage::Over { how, .. } => (FenceStage::Over, how.clone()),
    };
    FenceShown { number: job.number, by: job.by.to_string(), begun_ms: job.begun_ms, stage, how }
}
