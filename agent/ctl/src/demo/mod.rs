//! `tiebreaker demo`: an appliance and two nodes as processes of their own on loopback, each node with a BMC, a
//! protected counter with clients, something that breaks, and a judgement on what came of it.

mod args;
mod bench;
mod chassis;
mod clients;
mod counter;
mod judgement;
mod machine;
mod network;
mod outcome;
mod stage;
mod story;
mod timeline;
mod witness;

use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;
use tokio::signal::unix::{SignalKind, signal};

pub use args::DemoArgs;
pub use bench::main as bench_main;
pub use chassis::chassis_main;
pub use counter::CounterCommand;

use crate::failure::Failure;
use outcome::Outcome;
use stage::Stage;
use timeline::Timeline;

/// The counter's own main function.
pub fn counter_main(command: &CounterCommand) -> ExitCode {
    counter::main(command)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock that all processes of a demo share.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // It starts at zero with the machine, so neither part is ever negative.
    now.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}

/// Plays the demo; with `json`, one document on standard output at the end, and the timeline on standard error.
///
/// # Errors
/// When the demo can't be played, or a check fails.
pub async fn demo_main(args: DemoArgs, json: bool) -> Result<(), Failure> {
    let timeline = Timeline::new(json);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::demo)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::demo)?;
    let mut stage = Stage::new(timeline.clone()).map_err(Failure::demo)?;
    let played = tokio::select! {
        played = story::play(&args, &mut stage) => Some(played),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    let Some(played) = played else {
        stage.end(false).await.map_err(Failure::demo)?;
        return Err(Failure::demo(anyhow!("interrupted")));
    };
    if let Ok(outcome) = &played {
        show(outcome, &timeline, json)?;
    }
    if args.keep && played.is_ok() {
        timeline.say(&stage.how_to_look());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    let failed = !matches!(&played, Ok(outcome) if outcome.failures.is_empty());
    // What was written is worth looking at when something went wrong.
    let ended = stage.end(failed).await;
    let outcome = played.map_err(Failure::demo)?;
    ended.map_err(Failure::demo)?;
    if outcome.failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::documented_demo(anyhow!("the demo failed: {}", outcome.failures.join("; "))))
    }
}

fn show(outcome: &Outcome, timeline: &Timeline, json: bool) -> Result<(), Failure> {
    timeline.say(&outcome.to_string());
    if json {
        let document = serde_json::to_string(outcome).map_err(Failure::demo)?;
        // Nobody may be reading any more; the stage is still to be tidied up.
        let _unread = writeln!(std::io::stdout(), "{document}");
    }
    Ok(())
}
