//! Requests and their replies, on the side that answers: over TLS and over the local socket alike.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::connection::Inbox;
use super::incoming::{Incoming, Out, Reply, Requester};
use super::lanes::FRAGMENT;
use super::timing::{CLIENT_IDLE, MAX_REQUEST, REQUEST_DEAD, REQUEST_PING};
use crate::wire::{Frame, FrameError, Framed, MAX_FRAME, StreamError};

/// Answers a client's requests, one after the other, until it goes.
pub(super) async fn serve_client(mut framed: Framed, from: Requester, inbox: &Inbox) {
    framed.allow(MAX_FRAME);
    // However it ends, the client knows more about it than we do.
    while let Ok(Ok(Some(bytes))) = timeout(CLIENT_IDLE, read_request(&mut framed)).await {
        let (reply, out) = Reply::channel();
        let result = if inbox.offer(Incoming::Request { from: from.clone(), bytes, reply }) {
            answer(&mut framed, out).await
        } else {
            let text = "the daemon is overloaded: try again".to_owned();
            write(&mut framed, &Frame::Fail { text }).await
        };
        if result.is_err() {
            return;
        }
    }
}

async fn read_request(framed: &mut Framed) -> Result<Option<Vec<u8>>, StreamError> {
    let mut request = Vec::new();
    loop {
        match framed.next().await? {
            Some(Frame::Data { more, bytes }) => {
                if request.len() + bytes.len() > MAX_REQUEST {
                    return Err(FrameError::MessageTooLong { max: MAX_REQUEST }.into());
                }
                request.extend_from_slice(&bytes);
                if !more {
                    return Ok(Some(request));
                }
            }
            // Answers to pings of the reply before.
            Some(Frame::Pong { .. }) => {}
            Some(_) => return Err(FrameError::Unexpected.into()),
            None => return Ok(None),
        }
    }
}

async fn answer(framed: &mut Framed, mut out: mpsc::Receiver<Out>) -> Result<(), StreamError> {
    let mut ping = interval(REQUEST_PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut n = 0;
    loop {
        tokio::select! {
            part = out.recv() => match part {
                Some(Out::Part(bytes)) => write_message(framed, &bytes).await?,
                Some(Out::End) => return write(framed, &Frame::End).await,
                Some(Out::Fail(text)) => return write(framed, &Frame::Fail { text }).await,
                None => {
                    let text = "the daemon gave no answer: look at its log".to_owned();
                    return write(framed, &Frame::Fail { text }).await;
                }
            },
            frame = framed.next() => match frame? {
                Some(Frame::Pong { .. }) => heard = Instant::now(),
                Some(_) => return Err(FrameError::Unexpected.into()),
                None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            },
            _ = ping.tick() => {
                if heard.elapsed() > REQUEST_DEAD {
                    return Err(timed_out());
                }
                n += 1;
                write(framed, &Frame::Ping { n }).await?;
            }
        }
    }
}

/// Sends a joiner its answer.
pub(super) async fn answer_join(framed: &mut Framed, answer: Result<Vec<u8>, String>) -> Result<(), StreamError> {
    match answer {
        Ok(bytes) => {
            write_message(framed, &bytes).await?;
            write(framed, &Frame::End).await
        }
        Err(text) => write(framed, &Frame::Fail { text }).await,
    }
}

/// Sends a message in fragments.
pub(super) async fn write_message(framed: &mut Framed, bytes: &[u8]) -> Result<(), StreamError> {
    let mut rest = bytes;
    loop {
        let (head, tail) = rest.split_at(rest.len().min(FRAGMENT));
        let more = !tail.is_empty();
        write(framed, &Frame::Data { more, bytes: head.to_vec() }).await?;
        if !more {
            return Ok(());
        }
        rest = tail;
    }
}

/// Writes a frame; a peer that doesn't read is given up on.
async fn write(framed: &mut Framed, frame: &Frame) -> Result<(), StreamError> {
    const PATIENCE: Duration = REQUEST_DEAD;
    match timeout(PATIENCE, framed.write(frame)).await {
        Ok(written) => written,
        Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> StreamError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
