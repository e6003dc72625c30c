//! `tiebreaker-agent supervise`: the service manager and watchdog of a node that has neither systemd nor a device.

mod config;
mod device;
mod keeper;
mod run;

pub use config::{BOOT_ID_VARIABLE, GOING_VARIABLE, SupervisorConfig, SupervisorError, WATCHDOG_VARIABLE};
pub use device::SimulatedDevice;
pub use run::run;
