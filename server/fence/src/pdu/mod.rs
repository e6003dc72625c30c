//! Rack PDUs that speak SNMP: version 3 with login and encryption, or 2c, whose community crosses the network in the clear.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod table;

#[cfg(test)]
pub(crate) mod tests;
