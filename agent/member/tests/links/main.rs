//! The link layer between real sockets on loopback: identity, messages, relay, hostile peers, joins, requests.

#![allow(clippy::unwrap_used)]

mod hostile;
mod join;
mod local;
mod members;
mod raw;
mod relay;
mod requests;
mod trust;
mod world;
