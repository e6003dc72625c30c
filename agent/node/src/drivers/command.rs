//! The driver for plain programs.

use std::collections::BTreeMap;

use super::resource::unknown_code;
use super::{DriverError, Probe};
use crate::operation::Kind;

/// Three programs with their arguments, run without a shell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandSpec {
    /// Starts the resource and returns; what it leaves behind is the workload.
    pub start: Vec<String>,
    /// Stops it and returns.
    pub stop: Vec<String>,
    /// Tells whether it runs, as a status command of the LSB does: 0 it runs, 3 it is stopped, all else is unknown.
    pub status: Vec<String>,
    /// Moves it live to the node in `TIEBREAKER_TARGET`; `None` where it can't.
    pub migrate: Option<Vec<String>>,
}

/// The variable that names the node to move to.
pub const TARGET_VARIABLE: &str = "TIEBREAKER_TARGET";

impl CommandSpec {
    pub(super) fn program(
        &self,
        kind: Kind,
        other: Option<&str>,
    ) -> Result<(Vec<String>, BTreeMap<String, String>), DriverError> {
        let none = Vec::new();
        let argv = match kind {
            Kind::Start => &self.start,
            Kind::Stop => &self.stop,
            Kind::Monitor => &self.status,
            Kind::Migrate => self.migrate.as_ref().unwrap_or(&none),
            // The source's program has done all of it.
            Kind::Receive => &none,
        };
        if argv.first().is_none_or(String::is_empty) {
            return Err(DriverError::Spec { what: "the command to", value: kind.as_str().into(), why: "it is empty" });
        }
        let env = other.map(|target| (TARGET_VARIABLE.to_owned(), target.to_owned()));
        Ok((argv.clone(), env.into_iter().collect()))
    }

    pub(super) fn judge(code: i32, output: &str) -> Probe {
        match code {
            0 => Probe::Running,
            3 => Probe::Stopped,
            1 => unknown_code(code, "dead, and its pid file is there", output),
            2 => unknown_code(code, "dead, and its lock file is there", output),
            127 => unknown_code(code, "the status program could not be run", output),
            _ => unknown_code(code, "neither 0, running, nor 3, stopped", output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_is_the_only_code_that_means_stopped() {
        assert_eq!(CommandSpec::judge(0, ""), Probe::Running);
        for code in (1..=255).filter(|code| *code != 3) {
            assert!(CommandSpec::judge(code, "").counts_as_running(), "{code}");
            assert!(matches!(CommandSpec::judge(code, "x"), Probe::Unknown { .. }), "{code}");
        }
        assert!(!CommandSpec::judge(3, "").counts_as_running());
    }

    #[test]
    fn an_empty_command_is_refused() {
        let spec = CommandSpec { start: vec![], stop: vec![String::new()], status: vec!["true".into()], migrate: None };
        assert!(spec.program(Kind::Start, None).is_err());
        assert!(spec.program(Kind::Stop, None).is_err());
        assert!(spec.program(Kind::Monitor, None).is_ok());
        assert!(spec.program(Kind::Migrate, Some("b")).is_err(), "it has no program for that");
        assert!(spec.program(Kind::Receive, Some("b")).is_err(), "nobody has");
        let spec = CommandSpec { migrate: Some(vec!["/opt/move".into()]), ..spec };
        let (argv, env) = spec.program(Kind::Migrate, Some("b")).unwrap();
        assert_eq!((argv, env[TARGET_VARIABLE].as_str()), (vec!["/opt/move".to_owned()], "b"));
    }
}
