//! The operator's command and the demo.
//!
//! `tiebreaker` asks a member of a cluster, over TLS with an operator's certificate or through the Unix socket of the
//! daemon on this machine, and prints what it says. It decides nothing.
//!
//! `tiebreaker demo` plays a failure on one machine: an appliance and two nodes as processes of their own. So that one
//! binary is enough for that, it also acts as `tiebreaker-server` or `tiebreaker-agent` when it is called by that name; and as
//! `fence_tiebreaker`, the fence agent of Corosync clusters.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod commands;
mod connection;
mod demo;
mod failure;
pub mod fence;
mod login;
mod render;
mod renewal;
mod simulate;
mod spec;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use cli::{Cli, Command, Persona};
use commands::Session;
use failure::Failure;

/// Runs the command line and gives its exit code.
#[must_use]
pub fn main_from(args: Vec<OsString>) -> ExitCode {
    match Persona::of(args) {
        (Persona::Server, args) => tiebreaker_server::cli::main_from(args),
        (Persona::Agent, args) => tiebreaker_agent::cli::main_from(args),
        (Persona::Fence, args) => fence::main(args),
        (Persona::Chassis, args) => demo::chassis_main(args),
        (Persona::Operator, args) => operator(args),
    }
}

/// The definition of the command line, for its manual and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn operator(args: Vec<OsString>) -> ExitCode {
    let wants_json = args.iter().any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if wants_json && error.use_stderr() {
                println!("{}", failure::mistake(&error.to_string()));
            }
            error.exit()
        }
    };
    let json = cli.json;
    if let Command::DemoCounter(command) = &cli.command {
        return demo::counter_main(command);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json && !failure.documented {
                println!("{}", serde_json::json!({ "error": failure.to_string(), "exit": failure.exit as u8 }));
            }
            eprintln!("tiebreaker: {failure}");
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::DemoBench = cli.command {
        return demo::bench_main();
    }
    if let Command::Simulate { file: Some(file), .. } = &cli.command {
        return simulate::simulate(file, cli.json);
    }
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::refused)?;
    match cli.command {
        Command::Demo(args) => runtime.block_on(demo::demo_main(args, cli.json)),
        command => runtime.block_on(Session { target: &cli.target, json: cli.json }.run(command)),
    }
}
