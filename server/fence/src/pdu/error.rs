//! What can go wrong between us and a PDU.

use async_snmp::{ErrorKind, ErrorStatus};

use crate::Fault;

/// A PDU could not be asked, its answer could not be trusted, or it said no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PduError {
    /// No answer until the deadline.
    #[error(
        "no answer in time: it can't be reached, or it ignores us because the user, the password or the community is wrong"
    )]
    Silent,
    /// SNMP failed.
    #[error("{what} failed")]
    Snmp {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<async_snmp::Error>,
    },
    /// It refuses the user or the password.
    #[error("the PDU refuses the user or the password")]
    Login(#[source] Box<async_snmp::Error>),
    /// The user or community may read and not switch.
    #[error("the PDU lets us read and not switch: give the user or the community the right to write")]
    NoRight,
    /// It is another PDU than the one that is configured.
    #[error("this is another PDU: its serial number is {found:?}, not {wanted:?}")]
    OtherPdu {
        /// The one that answered.
        found: String,
        /// The configured one.
        wanted: String,
    },
    /// It has no such outlet, or is of another family.
    #[error("the PDU has no outlet {outlet} in the table {table}: is it of another family?")]
    NoOutlet {
        /// The outlet.
        outlet: u32,
        /// The family's name.
        table: &'static str,
    },
    /// The meter is needed and tells nothing.
    #[error(
        "the PDU doesn't tell the watts of this outlet: if it has no meter for each outlet set measured = false, and it is \
         weaker evidence"
    )]
    NotMeasured,
    /// The meter shows nothing while the outlet is on.
    #[error(
        "the outlet is on, and the PDU measures no more than {milliwatts} mW: it has no meter (then set measured = false, \
         and it is weaker evidence), or nothing runs behind it"
    )]
    MeasuresNothing {
        /// What it measures.
        milliwatts: u32,
    },
    /// The answer holds something that makes no sense.
    #[error("the PDU's answer is no use: {0}")]
    Nonsense(&'static str),
}

impl PduError {
    /// The class, for whoever must act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            PduError::Silent => Fault::Unreachable,
            PduError::Login(_) => Fault::Credentials,
            PduError::Snmp { source, .. } => match source.kind() {
                ErrorKind::Network | ErrorKind::ConstructionTimeout | ErrorKind::Closed => Fault::Unreachable,
                _ => Fault::Protocol,
            },
            PduError::NoRight => Fault::Privilege,
            PduError::NoOutlet { .. } => Fault::Refused,
            PduError::OtherPdu { .. }
            | PduError::NotMeasured
            | PduError::MeasuresNothing { .. }
            | PduError::Nonsense(_) => Fault::Protocol,
        }
    }

    /// An error of the library, when this was asked.
    pub(crate) fn of(what: &'static str, error: Box<async_snmp::Error>) -> Self {
        let denied = |status: &ErrorStatus| {
            matches!(
                status,
                ErrorStatus::NoAccess
                    | ErrorStatus::NotWritable
                    | ErrorStatus::AuthorizationError
                    | ErrorStatus::ReadOnly
                    | ErrorStatus::NoSuchName
            )
        };
        match (error.kind(), &*error) {
            (_, async_snmp::Error::Snmp { status, .. }) if denied(status) => PduError::NoRight,
            (ErrorKind::Timeout, _) => PduError::Silent,
            (ErrorKind::Auth | ErrorKind::Report, _) => PduError::Login(error),
            _ => PduError::Snmp { what, source: error },
        }
    }
}
