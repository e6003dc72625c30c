//! What can go wrong between us and a plug.

use super::config::MacAddress;
use crate::{Fault, web::error::WebError};

/// A plug could not be asked, its answer could not be trusted, or it said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlugError {
    /// HTTP failed.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Name or password are wrong.
    #[error("the plug refuses the name or the password ({0})")]
    Login(&'static str),
    /// It asks for a password, and none is configured.
    #[error("the plug asks for a password: set password_file")]
    PasswordWanted,
    /// A password is configured, and it asks for none: it was reset, or it is another one.
    #[error(
        "the plug asks for no password although one is configured: it was reset, or anybody in its network may switch it. \
         Set the password on the plug again, or remove password_file"
    )]
    NoPasswordAsked,
    /// It wants a login that is weaker than the one that its kind has.
    #[error("the plug wants another login than a SHA-256 digest for its own name: that isn't given to it")]
    WeakLogin,
    /// It is another plug than the one that is configured.
    #[error("this is another plug: its MAC address is {found}, not {wanted}")]
    OtherPlug {
        /// The one that answered.
        found: MacAddress,
        /// The configured one.
        wanted: MacAddress,
    },
    /// It speaks something else than configured.
    #[error("the plug is of another kind: set kind = {0:?}")]
    OtherKind(&'static str),
    /// It has no such outlet.
    #[error("the plug has no outlet {0}")]
    NoOutlet(u8),
    /// The meter is needed and tells nothing.
    #[error(
        "the plug doesn't tell the watts of this outlet alone ({0}): if it has no meter set measured = false, and it is \
         weaker evidence"
    )]
    NotMeasured(&'static str),
    /// The meter shows nothing while the relay is closed.
    #[error(
        "the plug's relay is closed, and it measures no more than {milliwatts} mW: it has no meter (then set measured = \
         false, and it is weaker evidence), or nothing runs behind it"
    )]
    MeasuresNothing {
        /// What it measures.
        milliwatts: u32,
    },
    /// The firmware says zero watts for an open relay without measuring.
    #[error(
        "the plug shows zero watts whenever its relay is open, without measuring: give it the command `SetOption21 1`, or \
         set measured = false, and it is weaker evidence"
    )]
    MeterSleeps,
    /// Come back later.
    #[error("the plug is busy ({status}) with {what}")]
    Busy {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// The plug understood the command and says no.
    #[error("the plug refuses {what} with status {status}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// A status that no answer to this question has.
    #[error("the plug answers {what} with status {status}")]
    Status {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
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
    /// The answer holds something that makes no sense.
    #[error("the answer to {what} is no use: {why}")]
    Nonsense {
        /// What was asked.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

impl PlugError {
    /// The class, for whoever must act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            PlugError::Web(WebError::Connect(_) | WebError::TimedOut(_)) => Fault::Unreachable,
            PlugError::Web(_)
            | PlugError::OtherPlug { .. }
            | PlugError::Status { .. }
            | PlugError::Json { .. }
            | PlugError::Nonsense { .. }
            | PlugError::NotMeasured(_)
            | PlugError::MeasuresNothing { .. }
            | PlugError::MeterSleeps => Fault::Protocol,
            PlugError::Login(_) | PlugError::PasswordWanted | PlugError::NoPasswordAsked | PlugError::WeakLogin => {
                Fault::Credentials
            }
            PlugError::Busy { .. } => Fault::Busy,
            PlugError::OtherKind(_) | PlugError::NoOutlet(_) | PlugError::Refused { .. } => Fault::Refused,
        }
    }
}
