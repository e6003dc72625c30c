//! Our QDevice server and Debian's `corosync-qnetd`, one after the other in one run, by the same clients: what each takes
//! of memory and time, and how soon two real nodes have quorum again after a fault.
//!
//! Timings of different machines, or of different hours of a busy one, can't be compared; those of one run can. `tests/bench/qnetd`
//! builds and starts it.

mod faults;
mod figures;
mod servers;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{servers::Whose, table::Table};

/// Measures our QDevice server beside Debian's corosync-qnetd. Needs root and the packages corosync, corosync-qdevice,
/// corosync-qnetd, libnss3-tools, iproute2 and openssl.
///
/// Exit codes: 0 every target that was measured is met, 1 one is missed or something failed, 2 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "qnetd-bench")]
pub struct Args {
    /// Our server's program.
    #[arg(long)]
    server: PathBuf,
    /// Only figures whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// How often each fault is repeated; 0 leaves the faults out.
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// Clients that are held at once.
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(200..=9000))]
    clients: u32,
    /// Soaks our server instead: so many rounds of all clients with random disconnects; fails unless its memory returns.
    #[arg(long)]
    soak: Option<u32>,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether a figure is asked for.
    fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| figure.contains(only.as_str()))
    }

    fn say(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("qnetd-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    ensure!(args.server.is_file(), "{} is missing: build tiebreaker-server in release", args.server.display());
    tiebreaker_interop::require_root("measuring QDevice servers")?;
    more_files(u64::from(args.clients) * 2 + 1000)?;
    if let Some(rounds) = args.soak {
        return figures::soak(args, rounds);
    }
    let mut table = Table::new();
    for whose in [Whose::Original, Whose::Ours] {
        args.say(&format!("{}: memory, time and votes", whose.name()));
        figures::measure(args, whose, &mut table).with_context(|| whose.name())?;
    }
    if args.repeats > 0 {
        for whose in [Whose::Original, Whose::Ours] {
            faults::measure(args, whose, &mut table).with_context(|| whose.name())?;
        }
    }
    if args.json {
        println!("{}", table.json());
    } else {
        print!("{}", table.text());
    }
    Ok(table.all_met())
}

/// Both ends of thousands of connections need a file each; servers inherit the limit.
fn more_files(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        let raised = Rlimit { current: Some(wanted.max(limit.maximum.unwrap_or(wanted))), maximum };
        setrlimit(Resource::Nofile, raised)
            .with_context(|| format!("raising the limit of open files to {wanted}: ulimit -n allows {limit:?}"))?;
    }
    Ok(())
}
