//! HTTP/1.1 to a device: over TCP, or over TLS with a pinned certificate; bounded in size and time, and no redirect is
//! ever followed.

pub(crate) mod basic;
pub(crate) mod conversation;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod pin;
mod verifier;

#[cfg(test)]
pub(crate) mod mock;
#[cfg(test)]
mod tests;
