//! Watchdogs of a Linux machine.

mod device;
mod gpio;
mod ioctl;
mod sysfs;

pub use device::{LinuxWatchdog, LinuxWatchdogError};
pub use gpio::{GpioError, pin_watchdog};
pub use sysfs::{InspectError, Inspected, inspect, inspect_all};
