//! Redfish (DMTF DSP0266) over HTTPS with a pinned certificate: what a BMC says, read strictly where it counts, and the
//! client. The rest of Redfish isn't here.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod error;
mod etag;
pub(crate) mod resource;
mod rights;
mod visit;

#[cfg(test)]
pub(crate) mod tests;
