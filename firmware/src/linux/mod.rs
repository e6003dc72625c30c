//! What the core is wired to on a Linux machine.

mod device;
mod ioctl;
mod line;
mod release;
mod sysfs;
mod wired;

pub use linux_embedded_hal::{I2CError, I2cdev};

pub use device::{LinuxWatchdog, LinuxWatchdogError};
pub use line::{BadLineAddress, Bias, InputLine, LineAddress, LineError, OutputLine, input_line, output_line};
pub use release::{ReleaseError, Released as LinesReleased, check_release};
pub use sysfs::{InspectError, Inspected, inspect, inspect_all};
pub use wired::{I2cBusError, i2c_watchdog, pin_watchdog};
