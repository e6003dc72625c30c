//! The node's agent and its command line.

fn main() -> std::process::ExitCode {
    tiebreaker_agent::cli::main_from(std::env::args_os().collect())
}
