//! How resources of each kind are started, stopped and probed.

mod command;
mod ocf;
mod resource;

pub use command::CommandSpec;
pub use ocf::{OcfRoot, OcfSpec};
pub use resource::{Deadlines, Driver, DriverError, Probe, Resource};
