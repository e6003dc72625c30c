//! A small BMC: an IPMI v2.0 LAN server for the demo and for tests, behind which a process tree can stand for a node.

mod engine;
mod faults;
mod server;

pub use engine::Account;
pub(crate) use engine::{Dice, Engine};
pub use faults::{FaultSwitch, Faults};
pub use server::Bmc;

use crate::PowerState;

/// The machine behind a [`Bmc`]. Both calls are made from the server's task, one at a time, so they must not block for
/// longer than it takes to signal and reap a few processes.
pub trait Chassis: Send + Sync {
    /// Whether the machine runs now.
    fn power(&self) -> PowerState;

    /// Starts or kills the machine. Setting the state that it is in already is no error.
    ///
    /// # Errors
    /// It could not be done; the console is told "unspecified error".
    fn set_power(&self, state: PowerState) -> Result<(), ChassisError>;
}

/// A [`Chassis`] could not be switched.
#[derive(Debug, thiserror::Error)]
#[error("the machine could not be switched {state}")]
pub struct ChassisError {
    /// What was asked.
    pub state: PowerState,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
