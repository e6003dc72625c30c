//! The service that the demo protects: a web counter that stores each count durably before it tells it.
//!
//! It runs as a plain `command` resource. `start` leaves a daemon behind; `status` and `stop` find it by its pid file in
//! a folder of the node. All nodes share the folder with the counts, as they would share a disk.

mod control;
mod here;
mod ledger;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

pub use here::{Here, MACHINE_VARIABLE};
#[cfg(test)]
pub use ledger::{Event, Happening};
pub use ledger::{Instance, Ledger, Line};

/// The exit code of `status` for "stopped", as LSB has it.
const STOPPED: u8 = 3;

/// What the counter can be told.
#[derive(Subcommand, Debug, Clone)]
pub enum CounterCommand {
    /// Starts the daemon and returns once it serves.
    Start {
        /// The folder with the counts.
        #[arg(long)]
        shared: PathBuf,
    },
    /// Stops it.
    Stop,
    /// Exits with 0 if it runs, with 3 if not.
    Status,
    /// Serves, in the foreground.
    Serve {
        /// The folder with the counts.
        #[arg(long)]
        shared: PathBuf,
    },
}

/// Carries out a command and gives its exit code.
pub fn main(command: &CounterCommand) -> ExitCode {
    let result = Here::find().and_then(|here| match command {
        CounterCommand::Start { shared } => control::start(&here, shared).map(|()| ExitCode::SUCCESS),
        CounterCommand::Stop => control::stop(&here).map(|()| ExitCode::SUCCESS),
        CounterCommand::Status => {
            control::is_running(&here).map(|runs| if runs { ExitCode::SUCCESS } else { ExitCode::from(STOPPED) })
        }
        CounterCommand::Serve { shared } => serve::serve(&here, shared).map(|()| ExitCode::FAILURE),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("counter: {error:#}");
            // Neither 0 nor 3: whether it runs is not known.
            ExitCode::from(1)
        }
    }
}
