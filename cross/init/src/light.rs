//! The board's green LED, for who has no screen on the machine. A fault LED of one's own is the server's.

use std::fs;
use std::path::Path;

/// What the LED shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Light {
    /// Half a second on and off: it starts, or the server doesn't work.
    Starting,
    /// Lit: the server works.
    Works,
    /// A tenth of a second on and off: the settings have a mistake.
    Mistake,
}

/// As kernels of different age name it.
const NAMES: [&str; 3] = ["ACT", "led0", "mmc0::"];

/// Has the LED show it. A machine without one shows nothing.
pub fn shine(light: Light) {
    let Some(led) = NAMES.iter().map(|name| Path::new("/sys/class/leds").join(name)).find(|led| led.exists()) else {
        return;
    };
    // An LED that can't be told leaves the machine as it was.
    let tell = |file: &str, value: &str| fs::write(led.join(file), value);
    let _ = match light {
        Light::Starting => {
            tell("trigger", "timer").and_then(|()| tell("delay_on", "500")).and_then(|()| tell("delay_off", "500"))
        }
        Light::Mistake => {
            tell("trigger", "timer").and_then(|()| tell("delay_on", "100")).and_then(|()| tell("delay_off", "100"))
        }
        Light::Works => tell("trigger", "none").and_then(|()| tell("brightness", "1")),
    };
}
