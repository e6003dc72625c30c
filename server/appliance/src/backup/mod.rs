//! Backups of the appliance: one file, sealed by a passphrase, that holds who it is and what it keeps secret, and nothing that it
//! decided or promised (ADR 0031).
//!
//! What is restored comes back into its clusters as a new member: see `rejoin`.

mod contents;
mod error;
mod put;
mod seal;
mod take;

#[cfg(test)]
mod tests;

pub(crate) use contents::{BackedCluster, Contents, Manifest};
pub(crate) use error::BackupError;
#[cfg(test)]
pub(crate) use put::Restored;
pub(crate) use put::{Restoring, finish_or_refuse};
pub(crate) use seal::{open, seal};
pub(crate) use take::{take, take_stopped};
