//! The core's watchdogs on lines and buses of a Linux machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux_embedded_hal::i2cdev::linux::LinuxI2CError;
use linux_embedded_hal::{Delay, I2cdev};

use super::line::{LineAddress, LineError, OutputLine, output_line};
use crate::{I2cWatchdog, PinWatchdog, Polarity, RegisterMap};

/// The watchdog on a line. The line rests at its inactive level from the first moment: requesting it is no pulse.
///
/// # Errors
/// The line can't be had.
pub fn pin_watchdog(
    line: &LineAddress,
    polarity: Polarity,
    pulse_us: u32,
    timeout: Duration,
) -> Result<PinWatchdog<OutputLine, Delay>, LineError> {
    let output = output_line(line, polarity, "tiebreaker-watchdog")?;
    Ok(PinWatchdog::new(output, Delay, pulse_us, timeout))
}

/// The watchdog behind the I2C bus at `bus` (`/dev/i2c-N`). Nothing is sent yet.
///
/// # Errors
/// The bus can't be opened.
pub fn i2c_watchdog(bus: &Path, map: RegisterMap) -> Result<I2cWatchdog<I2cdev>, I2cBusError> {
    let opened = I2cdev::new(bus).map_err(|source| I2cBusError { bus: bus.into(), source })?;
    Ok(I2cWatchdog::new(opened, map))
}

/// A bus could not be opened.
#[derive(Debug)]
pub struct I2cBusError {
    bus: PathBuf,
    source: LinuxI2CError,
}

impl fmt::Display for I2cBusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the I2C bus {} could not be opened: is dtparam=i2c_arm=on in config.txt?", self.bus.display())
    }
}

impl std::error::Error for I2cBusError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::SEQUENT_SUPER_WATCHDOG;

    #[test]
    fn what_is_not_there_is_named() {
        let line = "gpiochip4711:3".parse().unwrap();
        let error = pin_watchdog(&line, Polarity::ActiveHigh, 20, Duration::from_secs(2)).err().unwrap();
        assert!(error.to_string().contains("gpiochip4711:3"), "{error}");
        let error = i2c_watchdog(Path::new("/dev/i2c-4711"), SEQUENT_SUPER_WATCHDOG).err().unwrap();
        assert!(error.to_string().contains("/dev/i2c-4711"), "{error}");
    }
}
