//! What waits to be sent on one connection: answers to pings, urgent messages, bulk messages in fragments, in this
//! order. A bulk message never holds an urgent one up for longer than one fragment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::links::Lane;
use crate::wire::Frame;

/// Bytes of one fragment. At 100 Mbit/s it takes 5 ms.
pub(super) const FRAGMENT: usize = 64 << 10;

/// Urgent messages that wait. They are small and soon stale, so the oldest gives way.
const MAX_URGENT_QUEUED: usize = 64;

/// Bulk messages that wait, and their bytes. The newest gives way: the oldest may be half sent.
const MAX_BULK_QUEUED: usize = 256;
const MAX_BULK_BYTES: usize = 16 << 20;

#[derive(Default)]
struct Queues {
    pong: Option<u64>,
    urgent: VecDeque<Arc<[u8]>>,
    bulk: VecDeque<Arc<[u8]>>,
    bulk_bytes: usize,
    /// How much of the first bulk message has been sent.
    sent: usize,
}

/// The queues of one connection.
#[derive(Default)]
pub(super) struct Lanes {
    queues: Mutex<Queues>,
    wake: Notify,
    dropped: AtomicU64,
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing that runs under the lock can panic half way through a change.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message. When its queue is full a message is dropped and counted.
    pub(super) fn push(&self, lane: Lane, bytes: Arc<[u8]>) {
        let mut queues = self.lock();
        match lane {
            Lane::Urgent => {
                if queues.urgent.len() >= MAX_URGENT_QUEUED {
                    queues.urgent.pop_front();
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                queues.urgent.push_back(bytes);
            }
            Lane::Bulk => {
                let full = queues.bulk.len() >= MAX_BULK_QUEUED || queues.bulk_bytes + bytes.len() > MAX_BULK_BYTES;
                if full {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                queues.bulk_bytes += bytes.len();
                queues.bulk.push_back(bytes);
            }
        }
        drop(queues);
        self.wake.notify_one();
    }

    /// Queues the answer to a ping; an older one that still waits is pointless then.
    pub(super) fn pong(&self, n: u64) {
        self.lock().pong = Some(n);
        self.wake.notify_one();
    }

    /// Messages dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Frame> {
        let mut queues = self.lock();
        if let Some(n) = queues.pong.take() {
            return Some(Frame::Pong { n });
        }
        if let Some(bytes) = queues.urgent.pop_front() {
            return Some(Frame::Urgent(bytes.to_vec()));
        }
        let message = Arc::clone(queues.bulk.front()?);
        let end = message.len().min(queues.sent + FRAGMENT);
        let bytes = message[queues.sent..end].to_vec();
        let more = end < message.len();
        if more {
            queues.sent = end;
        } else {
            queues.sent = 0;
            queues.bulk_bytes -= message.len();
            queues.bulk.pop_front();
        }
        Some(Frame::Data { more, bytes })
    }

    /// The next frame to send; waits while there is none.
    pub(super) async fn next(&self) -> Frame {
        loop {
            if let Some(frame) = self.take() {
                return frame;
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, fill: u8) -> Arc<[u8]> {
        vec![fill; len].into()
    }

    #[test]
    fn urgent_overtakes_a_bulk_message_between_its_fragments() {
        let lanes = Lanes::default();
        lanes.push(Lane::Bulk, bytes(FRAGMENT + 1, 1));
        assert!(matches!(lanes.take(), Some(Frame::Data { more: true, bytes }) if bytes.len() == FRAGMENT));
        lanes.push(Lane::Urgent, bytes(3, 2));
        lanes.pong(5);
        assert_eq!(lanes.take(), Some(Frame::Pong { n: 5 }));
        assert_eq!(lanes.take(), Some(Frame::Urgent(vec![2; 3])));
        assert_eq!(lanes.take(), Some(Frame::Data { more: false, bytes: vec![1] }));
        assert_eq!(lanes.take(), None);
    }

    #[test]
    fn a_full_urgent_lane_keeps_the_newest_and_a_full_bulk_lane_the_oldest() {
        let lanes = Lanes::default();
        for index in 0..=MAX_URGENT_QUEUED {
            lanes.push(Lane::Urgent, bytes(1, u8::try_from(index).unwrap()));
        }
        assert_eq!(lanes.dropped(), 1);
        assert_eq!(lanes.take(), Some(Frame::Urgent(vec![1])));
        for index in 0..=MAX_BULK_QUEUED {
            lanes.push(Lane::Bulk, bytes(1, u8::try_from(index % 256).unwrap()));
        }
        assert_eq!(lanes.dropped(), 2);
        lanes.lock().urgent.clear();
        assert_eq!(lanes.take(), Some(Frame::Data { more: false, bytes: vec![0] }));
        let lanes = Lanes::default();
        lanes.push(Lane::Bulk, bytes(MAX_BULK_BYTES, 0));
        lanes.push(Lane::Bulk, bytes(1, 0));
        assert_eq!(lanes.dropped(), 1);
    }

    #[test]
    fn an_empty_message_is_a_message() {
        let lanes = Lanes::default();
        lanes.push(Lane::Bulk, bytes(0, 0));
        assert_eq!(lanes.take(), Some(Frame::Data { more: false, bytes: vec![] }));
        assert_eq!(lanes.take(), None);
    }
}
