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
}

impl CommandSpec {
    pub(super) fn program(&self, kind: Kind) -> Result<(Vec<String>, BTreeMap<String, String>), DriverError> {
        let argv = match kind {
            Kind::Start => &self.start,
            Kind::Stop => &self.stop,
            Kind::Monitor => &self.status,
        };
        if argv.first().is_none_or(String::is_empty) {
            return Err(DriverError::Spec { what: "the command to", value: kind.as_str().into(), why: "it is empty" });
        }
        Ok((argv.clone(), BTreeMap::new()))
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
        let spec = CommandSpec { start: vec![], stop: vec![String::new()], status: vec!["true".into()] };
        assert!(spec.program(Kind::Start).is_err());
        assert!(spec.program(Kind::Stop).is_err());
        assert!(spec.program(Kind::Monitor).is_ok());
    }
}
