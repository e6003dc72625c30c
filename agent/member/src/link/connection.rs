//! One connection between two members, from the greeting to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use super::incoming::{Incoming, Payload, Via};
use super::paths::{Health, Live};
use super::timing::{MAX_MESSAGE, MAX_URGENT, Timing};
use crate::identity::Subject;
use crate::wire::{Frame, FrameError, FrameReader, Framed, MAX_FRAME, StreamError, write_frame};

/// Messages that arrived and wait for the layer above: their number, and their bytes in KiB.
pub(super) const INBOX: usize = 1024;
const INBOX_KIB: usize = 64 << 10;

/// A peer that is heard but answers no ping for so many times the silence bound doesn't read what we send.
const DEAF_FACTOR: u32 = 5;

/// Where messages go that arrived. It never blocks a connection: what finds no room is dropped and counted.
#[derive(Clone)]
pub(super) struct Inbox {
    tx: mpsc::Sender<Incoming>,
    room: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

impl Inbox {
    pub(super) fn new(tx: mpsc::Sender<Incoming>) -> Self {
        Self { tx, room: Arc::new(Semaphore::new(INBOX_KIB)), dropped: Arc::default() }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Hands on something other than a message; false when there is no room.
    pub(super) fn offer(&self, incoming: Incoming) -> bool {
        self.tx.try_send(incoming).is_ok()
    }

    fn deliver(&self, from: &Subject, via: Via, bytes: Vec<u8>) {
        let kib = u32::try_from(bytes.len() / 1024 + 1).unwrap_or(u32::MAX);
        let sent = Arc::clone(&self.room).try_acquire_many_owned(kib).is_ok_and(|room| {
            let bytes = Payload::new(bytes, Some(room));
            let Subject { peer, raft_id } = from.clone();
            self.tx.try_send(Incoming::Message { from: peer, raft_id, via, bytes }).is_ok()
        });
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    Closed,
    Silent,
    Deaf,
    Replaced,
    Broken(StreamError),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::Silent => f.write_str("the peer fell silent"),
            Self::Deaf => f.write_str("the peer reads nothing"),
            Self::Replaced => f.write_str("the peer connected anew"),
            Self::Broken(error) => write!(f, "{error}"),
        }
    }
}

/// Runs a connection until it ends.
pub(super) async fn run(framed: Framed, from: &Subject, via: Via, live: &Live, timing: Timing, inbox: &Inbox) -> Ended {
    let (stream, mut decoder) = framed.into_parts();
    decoder.allow(MAX_FRAME);
    let (read, write) = tokio::io::split(stream);
    let reader = FrameReader::new(read, decoder);
    // One task, three futures: a write that blocks holds up neither reading nor the watch over silence.
    tokio::select! {
        ended = receive(reader, from, via, live, inbox) => ended,
        ended = transmit(write, live, timing) => ended,
        ended = watch_over(&live.health, timing) => ended,
        () = live.replaced.notified() => Ended::Replaced,
    }
}

async fn receive<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    from: &Subject,
    via: Via,
    live: &Live,
    inbox: &Inbox,
) -> Ended {
    let mut message = Vec::new();
    loop {
        let frame = match reader.next(|| live.health.heard()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ended::Closed,
            Err(error) => return Ended::Broken(error),
        };
        match frame {
            Frame::Ping { n } => live.lanes.pong(n),
            Frame::Pong { n } => live.health.answered(n),
            Frame::Urgent(bytes) if bytes.len() <= MAX_URGENT => inbox.deliver(from, via, bytes),
            Frame::Data { more, bytes } => {
                if message.len() + bytes.len() > MAX_MESSAGE {
                    return Ended::Broken(FrameError::MessageTooLong { max: MAX_MESSAGE }.into());
                }
                message.extend_from_slice(&bytes);
                if !more {
                    inbox.deliver(from, via, std::mem::take(&mut message));
                }
            }
            Frame::Urgent(_)
            | Frame::Hello(_)
            | Frame::Welcome { .. }
            | Frame::Refuse { .. }
            | Frame::Join(_)
            | Frame::End
            | Frame::Fail { .. } => return Ended::Broken(FrameError::Unexpected.into()),
        }
    }
}

async fn transmit<W: AsyncWrite + Unpin>(mut write: W, live: &Live, timing: Timing) -> Ended {
    let mut ping = interval(timing.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            // Pings first: a queue that never empties must not make the path look dead.
            biased;
            _ = ping.tick() => Frame::Ping { n: live.health.now() },
            frame = live.lanes.next() => frame,
        };
        if let Err(error) = write_frame(&mut write, &frame).await {
            return Ended::Broken(error);
        }
    }
}

async fn watch_over(health: &Health, timing: Timing) -> Ended {
    let mut look = interval(timing.ping);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if health.silent_for() >= timing.dead {
            return Ended::Silent;
        }
        if health.unanswered_for() >= timing.dead * DEAF_FACTOR {
            return Ended::Deaf;
        }
    }
}
