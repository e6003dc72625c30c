//! The counter's clients: they post without end, wherever it is served, and remember what was acknowledged.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::counter::Line;

/// Clients at once.
const CLIENTS: usize = 4;
/// Between an answer and the next post of one client.
const PAUSE: Duration = Duration::from_millis(40);
/// A post that takes longer counts as failed; it may have been stored all the same.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read.
const ANSWER_MAX: u64 = 4 << 10;

/// An acknowledged count.
#[derive(Clone, Debug)]
pub struct Ack {
    /// What was said.
    pub line: Line,
    /// When that was heard.
    pub at: Instant,
}

/// The clients.
pub struct Clients {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    acks: Arc<Mutex<Vec<Ack>>>,
}

impl Clients {
    /// Starts them. They try each port in turn and stay where they are served.
    #[must_use]
    pub fn start(ports: Vec<u16>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let acks = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            tasks.spawn(client(ports.clone(), stopped.clone(), Arc::clone(&acks)));
        }
        Self { stop, tasks, acks }
    }

    /// How many counts were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The last acknowledgement.
    #[must_use]
    pub fn last(&self) -> Option<Ack> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// The first acknowledgement by another instance, from the given number on.
    #[must_use]
    pub fn first_by_another(&self, from: usize, than: &super::counter::Instance) -> Option<Ack> {
        let acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        acks.iter().skip(from).find(|ack| ack.line.instance != *than).cloned()
    }

    /// Stops them, and gives all that was acknowledged.
    pub async fn stop(mut self) -> Vec<Line> {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        acks.iter().map(|ack| ack.line.clone()).collect()
    }
}

async fn client(ports: Vec<u16>, mut stopped: watch::Receiver<bool>, acks: Arc<Mutex<Vec<Ack>>>) {
    for port in ports.iter().cycle() {
        // As long as it is served here, it stays; a post under way is always finished, so that no answer is missed.
        while !*stopped.borrow() {
            let answer = timeout(PATIENCE, post(*port)).await;
            let served = match answer {
                Ok(Ok(line)) => {
                    let ack = Ack { line, at: Instant::now() };
                    acks.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
                    true
                }
                Ok(Err(_)) | Err(_) => false,
            };
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            if !served {
                break;
            }
        }
        if *stopped.borrow() {
            return;
        }
    }
}

async fn post(port: u16) -> Result<Line> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.write_all(b"POST /count HTTP/1.1\r\nHost: counter\r\nContent-Length: 0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
    parse(&answer)
}

/// The count in an answer. Only a whole answer that says 200 acknowledges anything.
fn parse(answer: &str) -> Result<Line> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer was cut short")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "the counter refused");
    let line = body.strip_suffix('\n').context("the answer was cut short")?;
    Ok(line.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_acknowledges() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n12 node1:10:1000\n";
        assert_eq!(parse(whole).unwrap().count, 12);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(parse(&whole.replace("200", "500")).is_err());
    }
}
