//! What can go wrong with a fence agent.

use std::io;

use crate::Fault;

/// A fence agent could not be run, or didn't say what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It could not be started.
    #[error("the fence agent can't be started")]
    Start(#[source] io::Error),
    /// Others than root could change it, or put another in its place.
    #[error("the fence agent may be changed by others than root: it isn't run")]
    Untrusted,
    /// Talking to it failed.
    #[error("talking to the fence agent failed")]
    Io(#[source] io::Error),
    /// It ran until the deadline, and was killed with all that it had started.
    #[error("the fence agent didn't end in time and was killed, with all that it had started")]
    TimedOut,
    /// It failed.
    #[error("the fence agent ended with {status}{}", Said(said.as_deref()))]
    Failed {
        /// Its exit code, or the signal that ended it.
        status: String,
        /// The last line of what it complained, unless that could hold a secret.
        said: Option<String>,
    },
    /// Its exit code and its words don't fit, or it said nothing.
    #[error(
        "the fence agent's answer to \"status\" is none: exit code {status}, and it doesn't say \"Status: ON\" or \
         \"Status: OFF\" to match"
    )]
    Unclear {
        /// Its exit code.
        status: i32,
    },
    /// It talks without end.
    #[error("the fence agent says too much")]
    TooMuch,
}

impl ProgramError {
    /// The class, for whoever must act. What an agent did before it failed is never known, so no failure is a refusal.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            ProgramError::TimedOut => Fault::Unreachable,
            // It never ran.
            ProgramError::Start(_) | ProgramError::Untrusted => Fault::Refused,
            ProgramError::Io(_)
            | ProgramError::Failed { .. }
            | ProgramError::Unclear { .. }
            | ProgramError::TooMuch => Fault::Protocol,
        }
    }
}

struct Said<'a>(Option<&'a str>);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |said| write!(f, ": {said}"))
    }
}
