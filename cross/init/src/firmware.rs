//! Asking the Pi's firmware to start the other slot once.
//!
//! The firmware does so when it is told a flag before a restart. Raspberry Pi's own kernel tells it where the restart's word
//! says `tryboot`; Debian's kernel knows nothing of it, so the image brings a driver along that does the same.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

const COMPATIBLE: &str = "/proc/device-tree/compatible";
/// The driver, once it is loaded.
const DRIVER: &str = "/sys/module/tiebreaker_tryboot";

/// Makes sure that a restart with the word `0 tryboot` starts the other slot once. Emulators have no such firmware: there
/// whoever starts them goes by the machine's last line.
///
/// # Errors
/// This kernel can't tell the firmware.
pub fn start_other_slot_once() -> Result<()> {
    if is_pi(&fs::read(COMPATIBLE).unwrap_or_default()) && !Path::new(DRIVER).exists() {
        bail!(
            "this kernel can't tell the Pi's firmware to start the other slot once: the driver tiebreaker_tryboot isn't loaded"
        );
    }
    Ok(())
}

/// By the list of names that a machine's device tree begins with.
fn is_pi(compatible: &[u8]) -> bool {
    compatible.split(|byte| *byte == 0).any(|name| name.starts_with(b"raspberrypi,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pi_is_told_from_an_emulator() {
        assert!(is_pi(b"raspberrypi,4-model-b\0brcm,bcm2711\0"));
        assert!(!is_pi(b"linux,dummy-virt\0"));
        assert!(!is_pi(b""));
    }
}
