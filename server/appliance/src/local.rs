//! The control socket: requests of programs on the appliance itself.

use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::{Incoming, Reply};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// A request with the way back.
pub struct LocalAsk {
    /// What is asked.
    pub request: LocalRequest,
    /// Who asks: the user of the process at the other end.
    pub by: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<LocalReply>,
}

/// Reads requests from the socket and passes them to the daemon, for as long as both live.
pub async fn serve(mut incoming: mpsc::Receiver<Incoming>, asks: mpsc::Sender<LocalAsk>) {
    while let Some(incoming) = incoming.recv().await {
        match incoming {
            Incoming::Request { from, bytes, reply } => {
                tokio::spawn(one(from.to_string(), bytes, reply, asks.clone()));
            }
            Incoming::Message { .. } | Incoming::Join { .. } | Incoming::NewerEpoch { .. } => {
                warn!("something other than a request came through the control socket");
            }
        }
    }
}

async fn one(by: String, bytes: Vec<u8>, reply: Reply, asks: mpsc::Sender<LocalAsk>) {
    let request = match cbor4ii::serde::from_slice(&bytes[..]) {
        Ok(request) => request,
        Err(error) => {
            let text = format!("the request can't be decoded ({error}): is your tiebreaker of another version?");
            // The client may have gone.
            let _ = reply.fail(text).await;
            return;
        }
    };
    let (answer, answered) = oneshot::channel();
    let stopping = || LocalReply::Refused { why: "the daemon is stopping".into() };
    let answer = if asks.send(LocalAsk { request, by, answer }).await.is_ok() {
        answered.await.unwrap_or_else(|_| stopping())
    } else {
        stopping()
    };
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &answer).expect("writing to memory can't fail, and every field is encodable");
    let _ = reply.only(bytes).await;
}
