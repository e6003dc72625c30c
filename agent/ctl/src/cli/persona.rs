//! Which of the programs this binary plays.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::fence;

/// The program that a binary of this name acts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persona {
    /// The operator's command.
    Operator,
    /// `tiebreaker-server`.
    Server,
    /// `tiebreaker-agent`.
    Agent,
    /// `fence_tiebreaker`.
    Fence,
    /// The demo's machine.
    Chassis,
}

/// The name of the demo's machine, by which this binary plays it.
pub const CHASSIS: &str = "tiebreaker-demo-chassis";

impl Persona {
    /// Whom a command line asks for, by the program's name or else by its first word; and the command line for it.
    #[must_use]
    pub fn of(mut args: Vec<OsString>) -> (Self, Vec<OsString>) {
        let name = args.first().map(PathBuf::from).and_then(|path| path.file_name().map(OsString::from));
        match name.as_deref().and_then(|name| name.to_str()) {
            Some("tiebreaker-server") => return (Self::Server, args),
            Some("tiebreaker-agent") => return (Self::Agent, args),
            Some(fence::NAME) => return (Self::Fence, args),
            Some(CHASSIS) => return (Self::Chassis, args),
            Some(_) | None => {}
        }
        let persona = match args.get(1).and_then(|word| word.to_str()) {
            Some("server") => Self::Server,
            // The agent calls itself again through /proc/self/exe, where the name of the file says nothing.
            Some("agent") => Self::Agent,
            Some(_) | None => return (Self::Operator, args),
        };
        args.remove(0);
        args[0] = format!("tiebreaker-{}", args[0].to_string_lossy()).into();
        (persona, args)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_name_of_the_program_says_whom_it_plays() {
        let of = |line: &str| {
            let (persona, args) = Persona::of(line.split_whitespace().map(OsString::from).collect());
            (persona, args.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(of("/usr/bin/tiebreaker-server run").0, Persona::Server);
        assert_eq!(of("tiebreaker-agent").0, Persona::Agent);
        assert_eq!(of("/usr/sbin/fence_tiebreaker -o list").0, Persona::Fence);
        assert_eq!(of(CHASSIS).0, Persona::Chassis);
        assert_eq!(of("/proc/self/exe agent run --data /d"), (Persona::Agent, "tiebreaker-agent run --data /d".into()));
        assert_eq!(of("tiebreaker server init"), (Persona::Server, "tiebreaker-server init".into()));
        assert_eq!(
            of("target/release/tiebreaker status"),
            (Persona::Operator, "target/release/tiebreaker status".into())
        );
        assert_eq!(of("").0, Persona::Operator);
    }
}
