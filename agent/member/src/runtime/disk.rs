//! The disk beside the loop: a thread that makes batches durable in order, so that a slow card delays commits but
//! neither heartbeats nor leadership.

use std::collections::VecDeque;
use std::thread;

use tiebreaker_consensus::Batch;
use tokio::sync::mpsc;

use crate::store::{RaftStore, StoreError};

/// Batches under way at most. A disk that is further behind stops the loop, which costs this member its part, not the
/// cluster its data.
const BATCHES_MAX: usize = 256;

/// The way to the thread.
pub(super) struct Disk {
    write: mpsc::Sender<Batch>,
    done: mpsc::Receiver<Result<u64, StoreError>>,
    /// Results that came while a batch waited for room.
    early: VecDeque<Result<u64, StoreError>>,
}

impl Disk {
    pub fn start(mut store: RaftStore) -> Self {
        let (write, mut batches) = mpsc::channel::<Batch>(BATCHES_MAX);
        let (tell, done) = mpsc::channel(BATCHES_MAX);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                while let Some(batch) = batches.blocking_recv() {
                    let result = store.write(&batch).map(|()| batch.number);
                    let failed = result.is_err();
                    if tell.blocking_send(result).is_err() || failed {
                        return;
                    }
                }
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
        // The thread ends only after it has reported its failure.
        if gone { self.done().await.map(|_| ()) } else { Ok(()) }
    }

    /// The number of the next durable batch.
    pub async fn done(&mut self) -> Result<u64, StoreError> {
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
