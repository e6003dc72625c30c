//! Smart plugs and relays: Shelly of both kinds, and Tasmota. All of it crosses the network in the clear, so it belongs on
//! one that nobody else is on; each conversation begins by making sure that the plug is the configured one.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod reading;
mod visit;

#[cfg(test)]
pub(crate) mod tests;
