//! What can go wrong between us and a BMC that speaks Redfish.

use crate::{Fault, web::error::WebError};

/// A BMC could not be asked, its answer could not be trusted, or it said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedfishError {
    /// HTTP or TLS failed.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Name or password are wrong, or the account is locked.
    #[error("the BMC refuses the name or the password ({0})")]
    Login(&'static str),
    /// The session ended before the operation did.
    #[error("the BMC ended the session in the middle of {0}")]
    SessionEnded(&'static str),
    /// The account may not switch power.
    #[error("the account has no right to switch power ({what}): give it the role Operator")]
    NoRight {
        /// How it showed.
        what: String,
    },
    /// The BMC doesn't say what the account may do, and nobody saw it switch.
    #[error(
        "the BMC doesn't tell whether the account may switch power: fence the node once by hand, see that this very \
         machine goes dark, then set drilled = true"
    )]
    RightUntold,
    /// The BMC doesn't say which resets it knows, and nobody saw it switch.
    #[error(
        "the BMC doesn't tell whether it can switch off by force: fence the node once by hand, see that this very \
         machine goes dark, then set drilled = true"
    )]
    ResetsUntold,
    /// The system doesn't offer what fencing needs.
    #[error("the system offers no reset of the kind {0}")]
    NotOffered(&'static str),
    /// Come back later.
    #[error("the BMC is busy ({status}) with {what}")]
    Busy {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// The BMC understood the question and says no.
    #[error("the BMC refuses {what} with status {status}{}", Named(message.as_deref()))]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// The name of its message (`Base.1.8.ActionNotSupported`), if it gave one.
        message: Option<String>,
    },
    /// A status that no answer to this question has.
    #[error("the BMC answers {what} with status {status}{}", Named(message.as_deref()))]
    Status {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// The name of its message, if it gave one.
        message: Option<String>,
    },
    /// The answer is no JSON of the expected shape.
    #[error("the answer to {what} can't be understood")]
    Json {
        /// What was asked.
        what: &'static str,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The answer misses something, or holds something that makes no sense.
    #[error("the answer to {what} is no use: {why}")]
    Nonsense {
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It is another system than the one that is configured.
    #[error("this is another system: {0}")]
    OtherSystem(String),
}

impl RedfishError {
    /// The class, for whoever must act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            RedfishError::Web(WebError::Connect(_) | WebError::TimedOut(_)) => Fault::Unreachable,
            RedfishError::Web(_)
            | RedfishError::Status { .. }
            | RedfishError::Json { .. }
            | RedfishError::Nonsense { .. }
            | RedfishError::OtherSystem(_) => Fault::Protocol,
            RedfishError::Login(_) => Fault::Credentials,
            RedfishError::NoRight { .. } | RedfishError::RightUntold => Fault::Privilege,
            RedfishError::Busy { .. } | RedfishError::SessionEnded(_) => Fault::Busy,
            RedfishError::Refused { .. } | RedfishError::NotOffered(_) | RedfishError::ResetsUntold => Fault::Refused,
        }
    }
}

struct Named<'a>(Option<&'a str>);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |message| write!(f, " ({message})"))
    }
}
