//! The node's watchdog: who pets it, and what it is.

mod dog;
mod feeder;
mod simulated;

pub use dog::{Dog, DogError, KEPT_NAME, WatchdogSource};
pub use feeder::{
    DisarmError, Feeder, FeederConfig, FeederError, FeederHandle, FeederPhase, FeederState, PET_INTERVAL_MAX, Realtime,
};
pub(crate) use simulated::{PACKET, Reply, Request};
pub use simulated::{SimulatedWatchdog, SimulatedWatchdogError};
