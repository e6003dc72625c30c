//! Lets `pvecm qdevice setup` in over ssh, once.

use std::io::stderr;
use std::process::ExitCode;

use tiebreaker_pairing::{HELP, Options, Outcome, run};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.iter().any(|word| word == "--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("tiebreaker-pairing: {wrong}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt().with_writer(stderr).with_ansi(false).with_target(false).without_time().init();
    match run(options) {
        Ok(Outcome::Signed { .. }) => ExitCode::SUCCESS,
        Ok(Outcome::Late) => ExitCode::from(3),
        Ok(Outcome::Guessed) => ExitCode::from(4),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
