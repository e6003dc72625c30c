//! Process 1 of the appliance's image.

use std::process::{ExitCode, id};

fn main() -> ExitCode {
    if id() != 1 {
        eprintln!("tiebreaker-init is process 1 of the appliance's image: started by hand it does nothing");
        return ExitCode::from(2);
    }
    let Err(error) = tiebreaker_init::machine::run();
    tiebreaker_init::say(format_args!("THE MACHINE CAN'T COME UP: {error:#}"));
    ExitCode::FAILURE
}
