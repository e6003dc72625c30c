//! GPIO lines of a Linux machine as pins for [`PinWatchdog`].

use std::fmt;
use std::path::Path;
use std::time::Duration;

use linux_embedded_hal::gpio_cdev::{Chip, LineRequestFlags};
use linux_embedded_hal::{CdevPin, Delay};

use crate::{PinWatchdog, Polarity};

/// A line could not be had.
#[derive(Debug)]
pub struct GpioError {
    chip: std::path::PathBuf,
    line: u32,
    source: linux_embedded_hal::gpio_cdev::Error,
}

impl fmt::Display for GpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPIO line {} of {} could not be requested as an output", self.line, self.chip.display())
    }
}

impl std::error::Error for GpioError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The watchdog on line `line` of the GPIO chip at `chip` (`/dev/gpiochipN`). The line rests at its inactive level
/// from the first moment: requesting it is no pulse.
pub fn pin_watchdog(
    chip: &Path,
    line: u32,
    polarity: Polarity,
    pulse_us: u32,
    timeout: Duration,
) -> Result<PinWatchdog<CdevPin, Delay>, GpioError> {
    let rest = match polarity {
        Polarity::ActiveHigh => 0,
        Polarity::ActiveLow => 1,
    };
    // The kernel's ACTIVE_LOW flag is not used: CdevPin would drive the physical level in spite of it.
    let pin = Chip::new(chip)
        .and_then(|mut chip| chip.get_line(line))
        .and_then(|line| line.request(LineRequestFlags::OUTPUT, rest, "tiebreaker-watchdog"))
        .and_then(CdevPin::new)
        .map_err(|source| GpioError { chip: chip.into(), line, source })?;
    Ok(PinWatchdog::new(pin, Delay, polarity, pulse_us, timeout))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_missing_chip_is_named() {
        let error = pin_watchdog(Path::new("/dev/no-such-chip"), 3, Polarity::ActiveHigh, 20, Duration::from_secs(2))
            .err()
            .map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("GPIO line 3 of /dev/no-such-chip could not be requested as an output"));
    }
}
