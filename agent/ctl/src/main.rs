//! The operator's command.

fn main() -> std::process::ExitCode {
    tiebreaker::main_from(std::env::args_os().collect())
}
