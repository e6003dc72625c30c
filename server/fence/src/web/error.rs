//! What can go wrong between us and a device that speaks HTTP.

use std::{error::Error, io};

use super::pin::Fingerprint;

/// A question could not be put, or had no answer that HTTP allows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// No connection.
    #[error("can't be reached")]
    Connect(#[source] io::Error),
    /// TLS failed for another reason than the certificate.
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    /// The device shows a certificate that isn't pinned. Somebody changed it, or it isn't the device.
    #[error(
        "it shows a certificate that isn't pinned, with the SHA-256 fingerprint {0}: if that is its new certificate, \
         compare it on the device's own console and pin it"
    )]
    Certificate(Fingerprint),
    /// The deadline came first.
    #[error("no answer to {0} in time")]
    TimedOut(&'static str),
    /// The connection broke, or what came is no HTTP.
    #[error("no proper answer to {what}")]
    Broken {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer is longer than any that a device has reason to send.
    #[error("the answer to {0} is too long")]
    TooLong(&'static str),
}
