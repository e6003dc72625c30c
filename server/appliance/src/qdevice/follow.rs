//! `qdevice events`: what happened, and what happens.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tiebreaker_member::Client;
use tiebreaker_member::ask::{LocalReply, LocalRequest, QDEVICE_EVENTS_WAIT_S, QdeviceEvent};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The daemon is given this much longer than it may wait itself.
const ANSWER_LATE: Duration = Duration::from_secs(10);

/// Between two tries to reach a daemon that is being restarted.
const AGAIN: Duration = Duration::from_millis(500);

/// Prints what happened, and with `on` whatever happens from now on, for ever.
///
/// # Errors
/// When the daemon can't be reached, or refuses; while it is only followed, it is waited for.
pub async fn follow(socket: &Path, on: bool, json: bool) -> Result<()> {
    let (mut run, mut after) = (None, 0);
    loop {
        let wait_s = if on && run.is_some() { QDEVICE_EVENTS_WAIT_S } else { 0 };
        let reply = match ask(socket, &LocalRequest::QdeviceEvents { run, after, wait_s }).await {
            Ok(reply) => reply,
            // It was there before: it will come back.
            Err(_) if on && run.is_some() => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let (now, events, missed) = match reply {
            LocalReply::QdeviceEvents { run, events, missed } => (run, events, missed),
            LocalReply::Refused { why } => bail!("{why}"),
            _ => bail!("the daemon answered something else than was asked"),
        };
        if run.is_some_and(|run| run != now) {
            after = 0;
        }
        if missed > 0 {
            eprintln!("{missed} older events are forgotten already.");
        }
        run = Some(now);
        for event in &events {
            print(event, json)?;
            after = event.number;
        }
        if !on {
            return Ok(());
        }
    }
}

async fn ask(socket: &Path, request: &LocalRequest) -> Result<LocalReply> {
    let mut client = Client::local(socket, CONNECT_WITHIN).await?;
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, request)?;
    let answer = client.ask(&bytes, Duration::from_secs(QDEVICE_EVENTS_WAIT_S) + ANSWER_LATE).await?;
    cbor4ii::serde::from_slice(&answer[..]).context("the daemon's answer can't be decoded: is it of another version?")
}

fn print(event: &QdeviceEvent, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(event)?)?;
    } else {
        let at = i64::try_from(event.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let at = at.map(|at| format!("{at:.0}")).unwrap_or_default();
        let mark = if event.warning { "!" } else { " " };
        writeln!(out, "{at} {mark} {}", event.text)?;
    }
    // Whoever reads through a pipe shall have it now.
    Ok(out.flush()?)
}
