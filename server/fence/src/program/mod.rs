//! Any fence agent of others (`fence_*`, ClusterLabs' contract), for devices that have no driver here.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod error;
mod run;

#[cfg(test)]
mod tests;
