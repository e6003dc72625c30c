//! `fence_tiebreaker`: the fence agent with which a node of a Corosync cluster asks the appliance for another one's power, to the
//! contract of ClusterLabs' fence agents. It decides nothing and keeps no password: the appliance does both.

mod ask;
mod metadata;
mod options;

use std::ffi::OsString;
use std::io::Read as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tiebreaker_member::ask::{FenceAnswer, FenceAsk, FenceNode};

use self::ask::Asking;
use self::options::{Action, Args, Mistake, Options};

/// By this name the binary is the agent.
pub const NAME: &str = "fence_tiebreaker";

/// A status that says that the node has no power.
const OFF: u8 = 2;

/// The options on standard input are no more than this.
const MAX_INPUT: u64 = 64 * 1024;

/// The definition of the command line, for its manual.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the agent and gives its exit code: 0 done, or on; 1 not done, or not known; 2 off, of a status alone.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{NAME}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<OsString>) -> Result<ExitCode, String> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output and end well; 2 would read as a node that is off.
            let _ = error.print();
            return Ok(if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    };
    let args = if args.is_empty() {
        let mut text = Vec::new();
        std::io::stdin()
            .take(MAX_INPUT)
            .read_to_end(&mut text)
            .map_err(|error| format!("reading the options: {error}"))?;
        Args::from_input(&String::from_utf8_lossy(&text))
    } else {
        args
    };
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| format!("starting the runtime: {error}"))
    };
    if let Some(join) = args.join().map_err(words)? {
        println!("{}", runtime()?.block_on(ask::join(join))?);
        return Ok(ExitCode::SUCCESS);
    }
    let options = args.check().map_err(words)?;
    match options.action {
        Action::Metadata => {
            print!("{}", metadata::xml());
            return Ok(ExitCode::SUCCESS);
        }
        Action::Manpage => {
            print!("{}", command().render_long_help());
            return Ok(ExitCode::SUCCESS);
        }
        Action::ValidateAll => {
            Asking::check(&options)?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::On
        | Action::Off
        | Action::Reboot
        | Action::Status
        | Action::Monitor
        | Action::List
        | Action::ListStatus => {}
    }
    runtime()?.block_on(asked(&options))
}

async fn asked(options: &Options) -> Result<ExitCode, String> {
    let plug = || options.plug.clone().ok_or_else(|| words(Mistake::NoPlug(options.action)));
    let within_ms = u64::try_from(options.answer_within.as_millis()).unwrap_or(u64::MAX);
    let ask = match options.action {
        Action::Off => FenceAsk::Off { node: plug()?, then_on: false, within_ms },
        Action::Reboot => FenceAsk::Off { node: plug()?, then_on: true, within_ms },
        Action::On => FenceAsk::On { node: plug()?, within_ms },
        Action::Status => FenceAsk::State { node: plug()? },
        Action::Monitor => FenceAsk::Monitor,
        Action::List => FenceAsk::List,
        Action::ListStatus => FenceAsk::States,
        Action::Metadata | Action::Manpage | Action::ValidateAll => return Ok(ExitCode::SUCCESS),
    };
    let answer = Asking::check(options)?.ask(ask).await?;
    tell(options, answer)
}

/// Prints an answer as fence agents do, and gives the exit code.
fn tell(options: &Options, answer: FenceAnswer) -> Result<ExitCode, String> {
    let why = match (options.action, answer) {
        (Action::List, FenceAnswer::Nodes { nodes }) => {
            nodes.iter().for_each(|node| println!("{},", node.name));
            return Ok(ExitCode::SUCCESS);
        }
        (Action::ListStatus, FenceAnswer::Nodes { nodes }) => {
            nodes.iter().for_each(|node| println!("{}", line_of(node)));
            return Ok(ExitCode::SUCCESS);
        }
        (Action::Status, FenceAnswer::State { on }) => {
            println!("Status: {}", if on { "ON" } else { "OFF" });
            return Ok(if on { ExitCode::SUCCESS } else { ExitCode::from(OFF) });
        }
        (action @ (Action::Off | Action::Reboot | Action::On | Action::Monitor), FenceAnswer::Done { how }) => {
            let what = match action {
                Action::Off => "Success: Powered OFF",
                Action::Reboot => "Success: Rebooted",
                Action::On => "Success: Powered ON",
                _ => "Status: OK",
            };
            println!("{what} ({how})");
            return Ok(ExitCode::SUCCESS);
        }
        (_, FenceAnswer::Refused { why }) => format!("the appliance refuses: {why}"),
        (_, FenceAnswer::Failed { why }) => why,
        (_, FenceAnswer::Working { what }) => {
            format!(
                "not certain after {} s ({what}); it goes on: ask again to get its result",
                options.answer_within.as_secs()
            )
        }
        (
            _,
            FenceAnswer::Nodes { .. }
            | FenceAnswer::State { .. }
            | FenceAnswer::Done { .. }
            | FenceAnswer::Certificate { .. },
        ) => "the appliance answers something else than was asked: are both of the same version?".to_owned(),
    };
    Err(match &options.plug {
        Some(plug) => format!("{} of {plug}: {why}", options.action),
        None => format!("{}: {why}", options.action),
    })
}

/// A node of a `list-status`: its name, no other name, its state.
fn line_of(node: &FenceNode) -> String {
    let state = match node.on {
        Some(true) => "ON",
        Some(false) => "OFF",
        None => "UNKNOWN",
    };
    format!("{},,{state}", node.name)
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
