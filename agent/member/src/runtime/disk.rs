//! The disk beside the loop: a thread that makes batches durable in order, so that a slow card delays commits but
//! neither heartbeats nor leadership, and a full one delays them until there is room.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tiebreaker_consensus::Batch;
use tokio::sync::mpsc;

use crate::store::{RaftStore, StoreError};

/// Batches under way at most. A disk that is further behind stops the loop, which costs this member its part, not the
/// cluster its data. While the disk is full the core makes none but for changes of term.
const BATCHES_MAX: usize = 256;
/// A disk that was full is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the thread reports.
#[derive(Debug)]
pub(super) enum Disk {
    /// Everything up to the batch of this number is durable.
    Written(u64),
    /// There is no room: the batch is tried again until there is. The text says where.
    Full(String),
    /// There is room again.
    Room,
}

/// The way to the thread.
pub(super) struct Writer {
    write: mpsc::Sender<Batch>,
    done: mpsc::Receiver<Result<Disk, StoreError>>,
    /// Results that came while a batch waited for room.
    early: VecDeque<Result<Disk, StoreError>>,
}

impl Writer {
    pub fn start(store: RaftStore) -> Self {
        let (write, batches) = mpsc::channel::<Batch>(BATCHES_MAX);
        let (tell, done) = mpsc::channel(BATCHES_MAX);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let error = match (Thread { path: store.path().to_owned(), store: Some(store), tell: tell.clone() })
                    .run(batches)
                {
                    Ok(()) => return,
                    Err(error) => error,
                };
                // Nobody listens when the member is gone.
                let _ = tell.blocking_send(Err(error));
            })
            .expect("a thread can be started while the daemon starts");
        Self { write, done, early: VecDeque::new() }
    }

    /// Hands a batch over. While there is no room, results are taken in: the thread must never wait for the loop that
    /// waits for it.
    pub async fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let gone = loop {
            tokio::select! {
                room = self.write.reserve() => match room {
                    Ok(room) => {
                        room.send(batch);
                        break false;
                    }
                    Err(_) => break true,
                },
                Some(result) = self.done.recv() => self.early.push_back(result),
            }
        };
        if !gone {
            return Ok(());
        }
        // The thread ends only after it has reported its failure.
        loop {
            self.done().await?;
        }
    }

    /// What happens next.
    pub async fn done(&mut self) -> Result<Disk, StoreError> {
        if let Some(result) = self.early.pop_front() {
            return result;
        }
        match self.done.recv().await {
            Some(result) => result,
            // Only after a failure was reported and handled; the loop has ended by then.
            None => std::future::pending().await,
        }
    }
}

struct Thread {
    path: PathBuf,
    /// Absent between a write that found no room and the next try.
    store: Option<RaftStore>,
    tell: mpsc::Sender<Result<Disk, StoreError>>,
}

impl Thread {
    fn run(mut self, mut batches: mpsc::Receiver<Batch>) -> Result<(), StoreError> {
        while let Some(batch) = batches.blocking_recv() {
            let mut full = false;
            let before = self.open()?.writes();
            loop {
                match self.write(&batch, before) {
                    Ok(()) => break,
                    Err(error @ StoreError::Full { .. }) => {
                        if !full && !self.say(Disk::Full(error.to_string())) {
                            return Ok(());
                        }
                        full = true;
                        // What of the batch is on the disk is known only after opening the file again.
                        self.store = None;
                        thread::sleep(TRY_AGAIN);
                        if self.tell.is_closed() {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if (full && !self.say(Disk::Room)) || !self.say(Disk::Written(batch.number)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False once the member is gone.
    fn say(&self, what: Disk) -> bool {
        self.tell.blocking_send(Ok(what)).is_ok()
    }

    fn open(&mut self) -> Result<&mut RaftStore, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => RaftStore::open(&self.path)?.0,
        };
        Ok(self.store.insert(store))
    }

    /// Writes a batch onto a store that held so many, unless it is there already.
    fn write(&mut self, batch: &Batch, before: u64) -> Result<(), StoreError> {
        let store = self.open()?;
        if store.writes() == before { store.write(batch) } else { store.expect_writes(before + 1) }
    }
}
