//! The appliance's daemon and its command line.

fn main() -> std::process::ExitCode {
    tiebreaker_server::cli::main_from(std::env::args_os().collect())
}
