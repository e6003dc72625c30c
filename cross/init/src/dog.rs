//! The hardware's watchdog, which resets a machine that hangs.

use std::path::Path;
use std::time::Duration;

use tiebreaker_firmware::{BootReason, LinuxWatchdog, Watchdog};

use crate::log::say;

const DEVICE: &str = "/dev/watchdog0";
/// The Pi's own knows no more than 15.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The watchdog, if the machine has one.
pub struct Dog {
    watchdog: Option<LinuxWatchdog>,
    trouble: bool,
}

impl Dog {
    /// Arms it. A machine without one runs all the same, and says so.
    #[must_use]
    pub fn arm() -> Self {
        let armed = LinuxWatchdog::open(Path::new(DEVICE)).and_then(|mut dog| {
            // Only some drivers know.
            if dog.boot_reason().is_ok_and(|reason| reason == BootReason::Watchdog) {
                say("the watchdog restarted this machine the last time");
            }
            let taken = dog.arm(TIMEOUT)?;
            Ok((dog, taken))
        });
        match armed {
            Ok((dog, taken)) => {
                say(format_args!("watchdog {} is armed: {} s", dog.capabilities().identity, taken.as_secs()));
                Self { watchdog: Some(dog), trouble: false }
            }
            Err(error) => {
                say(format_args!("NO WATCHDOG: {error}; a machine that hangs stays so"));
                Self { watchdog: None, trouble: false }
            }
        }
    }

    /// None, as the kernel's command line asks for.
    #[must_use]
    pub fn none() -> Self {
        say("NO WATCHDOG: the kernel's command line says tiebreaker.watchdog=off");
        Self { watchdog: None, trouble: false }
    }

    /// Puts the reset off.
    pub fn feed(&mut self) {
        let Some(dog) = &mut self.watchdog else { return };
        if let Err(error) = dog.pet()
            && !self.trouble
        {
            self.trouble = true;
            say(format_args!("the watchdog can't be fed: {error}"));
        }
    }

    /// Lets it go, before the power is switched off for good.
    pub fn disarm(&mut self) {
        if let Some(Err(error)) = self.watchdog.take().map(|mut dog| dog.disarm()) {
            say(format_args!("the watchdog goes on: {error}"));
        }
    }
}
