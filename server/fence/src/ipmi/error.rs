//! What can go wrong between us and a BMC.

use std::io;

use ipmi_rs_core::connection::CompletionErrorCode;

use super::{config::Suite, rakp::Status};
use crate::Fault;

/// Where in a conversation something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Open Session request.
    OpenSession,
    /// RAKP messages 1 and 2: who we are, and whether the BMC knows the password.
    Rakp1,
    /// RAKP messages 3 and 4: whether we know it, and the session's keys.
    Rakp3,
    /// A command inside the session.
    Command(&'static str),
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::OpenSession => "opening a session",
            Stage::Rakp1 => "naming the user (RAKP 1)",
            Stage::Rakp3 => "proving the password (RAKP 3)",
            Stage::Command(name) => return write!(f, "running {name}"),
        })
    }
}

/// Bytes that are no packet of the kind that was expected. Names what was wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Malformed {
    pub(crate) const OTHER_KIND: Self = Self("reply of another kind than the request");
    pub(crate) const OTHER_TAG: Self = Self("reply to another login (message tag)");
    pub(crate) const OTHER_LOGIN: Self = Self("reply to another login (session id)");
    pub(crate) const OTHER_SESSION: Self = Self("packet of another session");
    pub(crate) const SEEN_BEFORE: Self = Self("session sequence number seen before");
    pub(crate) const EARLIER_REQUEST: Self = Self("answer to an earlier request");

    /// Whether the packet may be in perfect order, but belongs to something else: late and doubled answers are a
    /// network's daily life, and no fault of the BMC.
    pub(crate) fn is_unrelated(self) -> bool {
        [
            Self::OTHER_KIND,
            Self::OTHER_TAG,
            Self::OTHER_LOGIN,
            Self::OTHER_SESSION,
            Self::SEEN_BEFORE,
            Self::EARLIER_REQUEST,
        ]
        .contains(&self)
    }
}

/// A BMC could not be asked, or its answer could not be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpmiError {
    /// The operating system's network said no.
    #[error("unreachable while {stage}")]
    Unreachable {
        /// What was being done.
        stage: Stage,
        /// The socket's error.
        #[source]
        source: io::Error,
    },
    /// Nothing usable came before the deadline.
    #[error("no answer while {stage}, {attempts} attempts")]
    TimedOut {
        /// What was being done.
        stage: Stage,
        /// How often it was sent.
        attempts: u32,
    },
    /// Something came before the deadline, and none of it was a proper answer.
    #[error("malformed reply while {stage}: {what}")]
    Malformed {
        /// What was being done.
        stage: Stage,
        /// The last thing that was wrong.
        #[source]
        what: Malformed,
    },
    /// The BMC knows no such account, or won't let it in through the network.
    #[error("the BMC knows no user of this name")]
    NoSuchUser,
    /// The account exists, but not with this privilege.
    #[error("the BMC refuses this user the requested privilege")]
    RoleRefused,
    /// The password is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// The password is right, the K_G is not.
    #[error("wrong K_G (BMC key)")]
    WrongKg,
    /// The BMC doesn't speak the configured suite.
    #[error("the BMC refuses cipher suite {suite} ({status})")]
    SuiteRefused {
        /// The suite that was asked for.
        suite: Suite,
        /// What it said.
        status: Status,
    },
    /// The reply to Open Session names other algorithms than the request. An attack, or broken firmware.
    #[error("the BMC answered with other algorithms than cipher suite {suite}")]
    Downgrade {
        /// The suite that was asked for.
        suite: Suite,
    },
    /// The BMC has no session left: come back later. Sessions that others leaked end after about a minute.
    #[error("the BMC has no free session")]
    OutOfSessions,
    /// The login was refused for another reason.
    #[error("refused while {stage}: {status}")]
    Refused {
        /// What was being done.
        stage: Stage,
        /// What it said.
        status: Status,
    },
    /// The session lacks the right for this command.
    #[error("insufficient privilege for {command}")]
    InsufficientPrivilege {
        /// The command.
        command: &'static str,
    },
    /// The BMC understood the command and won't do it.
    #[error("{command} failed with completion code {code:?}")]
    Completion {
        /// The command.
        command: &'static str,
        /// Why.
        code: CompletionErrorCode,
    },
    /// The system gives no random numbers, without which no login is safe.
    #[error("no random numbers from the system")]
    Random,
}

impl IpmiError {
    /// The class, for whoever must act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            IpmiError::Unreachable { .. } | IpmiError::TimedOut { .. } => Fault::Unreachable,
            IpmiError::Malformed { .. } | IpmiError::Downgrade { .. } | IpmiError::Random => Fault::Protocol,
            IpmiError::NoSuchUser | IpmiError::WrongPassword | IpmiError::WrongKg | IpmiError::SuiteRefused { .. } => {
                Fault::Credentials
            }
            IpmiError::RoleRefused | IpmiError::InsufficientPrivilege { .. } => Fault::Privilege,
            IpmiError::OutOfSessions => Fault::Busy,
            IpmiError::Completion { code, .. } if is_busy(*code) => Fault::Busy,
            IpmiError::Refused { .. } | IpmiError::Completion { .. } => Fault::Refused,
        }
    }
}

/// Codes by which a BMC asks for patience instead of saying no.
pub(crate) fn is_busy(code: CompletionErrorCode) -> bool {
    matches!(
        code,
        CompletionErrorCode::NodeBusy
            | CompletionErrorCode::ProcessingTimeout
            | CompletionErrorCode::OutOfSpace
            | CompletionErrorCode::ResponseUnavailable { .. }
    )
}
