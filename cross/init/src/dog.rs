//! The hardware's watchdog, which resets a machine that hangs.

use std::path::Path;
use std::time::Duration;

use tiebreaker_firmware::{BootReason, LinuxWatchdog, Watchdog as _};

use crate::known::{Watchdog, know};
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
            let reason = dog.boot_reason().ok().and_then(word);
            if reason == Some("watchdog") {
                say("the watchdog restarted this machine the last time");
            }
            let taken = dog.arm(TIMEOUT)?;
            Ok((dog, taken, reason))
        });
        match armed {
            Ok((dog, taken, last_boot)) => {
                let identity = dog.capabilities().identity.to_string();
                say(format_args!("watchdog {identity} is armed: {} s", taken.as_secs()));
                let timeout_s = Some(taken.as_secs());
                know(|known| known.watchdog = Watchdog { identity: Some(identity), timeout_s, last_boot });
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

/// What a driver says of the machine's last restart, where it was one of its own.
fn word(reason: BootReason) -> Option<&'static str> {
    match reason {
        BootReason::Watchdog => Some("watchdog"),
        BootReason::Heat => Some("heat"),
        BootReason::Supply => Some("supply"),
        BootReason::NotSaid => None,
    }
}
