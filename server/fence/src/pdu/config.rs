//! How to reach one outlet of a PDU.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::table::PduTable;
use crate::{AccountName, Meter, Secret};

/// The port of SNMP.
pub const SNMP_PORT: u16 = 161;

/// The hash of a login (RFC 3414 and RFC 7860).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnmpHash {
    /// HMAC-SHA-256.
    #[default]
    Sha256,
    /// HMAC-SHA-1, for older PDUs.
    Sha1,
    /// HMAC-SHA-512.
    Sha512,
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnmpLogin {
    /// Version 3 with login and encryption by AES-128.
    V3 {
        /// The user.
        user: AccountName,
        /// The hash of its login.
        hash: SnmpHash,
        /// The password of the login; at least eight characters (RFC 3414, section 11.2).
        password: Secret,
        /// The password of the encryption; the same one if there is none.
        privacy: Option<Secret>,
    },
    /// Version 2c: the community is a password that anybody in the network can read.
    V2c {
        /// The community that may write.
        community: Secret,
    },
}

/// One outlet of a PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PduConfig {
    /// Where the PDU listens.
    pub address: SocketAddr,
    /// Its family.
    pub table: PduTable,
    /// Its serial number, looked at in every conversation.
    pub serial: String,
    /// The outlet, from one on.
    pub outlet: u32,
    /// How to log in.
    pub login: SnmpLogin,
    /// What is measured.
    pub meter: Meter,
}
