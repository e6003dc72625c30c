//! How a command ends: the exit codes, and the failures that lead to them.

use std::process::ExitCode;

/// The documented exit codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The cluster refused, or the change was void.
    Refused = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Nobody could be reached, or nobody leads.
    Unreachable = 3,
    /// A check of the demo failed, or it could not be played.
    DemoFailed = 4,
    /// What was waited for did not come, or an update stopped at a doubt.
    Unfinished = 5,
}

/// What `--help` says about exit codes.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused, or void: the cluster was asked and says why not; or a file, a certificate or an answer can't be used
  2  wrong usage, a scenario with a mistake, or no identity to ask with: nothing was asked
  3  nobody could be reached, or no member leads; a change may still be carried out
  4  a check of the demo failed, or the demo could not be played to its end
  5  begun, but not finished: what was waited for did not come in time, or an update stopped at a doubt";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The JSON document about a command line that makes no sense, of what is said about it in lines.
#[must_use]
pub fn mistake(said: &str) -> serde_json::Value {
    let first = said.split("\n\n").next().unwrap_or_default();
    let error: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    serde_json::json!({ "error": error.join(" "), "exit": Exit::Usage as u8 })
}

/// A failure with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{why:#}")]
pub struct Failure {
    /// How to end.
    pub exit: Exit,
    /// A JSON document that tells it is printed already: there is to be one alone.
    pub documented: bool,
    why: anyhow::Error,
}

impl Failure {
    /// The cluster, or a file that it rests on, says no.
    pub fn refused(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Refused, documented: false, why: why.into() }
    }

    /// The person at the keyboard has to write something else.
    pub fn usage(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, documented: false, why: why.into() }
    }

    /// Nobody answers, or nobody leads.
    pub fn unreachable(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Unreachable, documented: false, why: why.into() }
    }

    /// It was begun, and has not come to its end.
    pub fn unfinished(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Unfinished, documented: false, why: why.into() }
    }

    /// The same, and a document that tells it is printed.
    pub fn documented(self) -> Self {
        Self { documented: true, ..self }
    }

    /// The demo was played, and its document says what went wrong.
    pub fn documented_demo(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::DemoFailed, documented: true, why: why.into() }
    }

    /// The demo could not be played.
    pub fn demo(why: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::DemoFailed, documented: false, why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn a_command_line_that_makes_no_sense_is_a_document_too() {
        let said = |line: &[&str]| mistake(&Cli::try_parse_from(line).unwrap_err().to_string()).to_string();
        assert_eq!(
            said(&["tiebreaker", "why", "--json"]),
            r#"{"error":"the following required arguments were not provided: <RESOURCE>","exit":2}"#
        );
        assert!(said(&["tiebreaker", "--nonsense"]).contains("unexpected argument '--nonsense' found"));
    }
}
