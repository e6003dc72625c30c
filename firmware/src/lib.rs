//! Board drivers: what an appliance, or a node, has wired to it.
//!
//! The core is `no_std`, generic over `embedded-hal`, and knows no I/O. Watchdogs: the [`Watchdog`] trait, what a
//! watchdog's word is worth ([`Promise`]), the arithmetic between a promised time and a device's timeout
//! ([`device_timeout`]), watchdogs that are petted by pulses ([`PinWatchdog`], [`Windowed`]) or over I2C
//! ([`I2cWatchdog`]), and two as one ([`Pair`]). Power: the front panel's button with the power LED as its witness
//! ([`AtxButton`], [`Sense`], [`LedPathTest`]) and a relay in the supply ([`SupplyRelay`]). For people: LEDs
//! ([`Indicator`]) and a button ([`PushButton`]). Whatever takes time is a state machine that is polled with the time.
//!
//! With the feature `linux` it also drives `/dev/watchdog*` by ioctl ([`LinuxWatchdog`]), reads
//! `/sys/class/watchdog` without opening a device ([`inspect`]) and wires GPIO lines and I2C buses to the core.
//!
//! It isn't a feeder: when to pet, and the lease that this hangs on, are the node agent's business. It doesn't know
//! whether a watchdog ever reset this machine either; without one observed reset even a [`Promise::Evidence`] is a
//! candidate only. Nor does it know whether to fence.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "linux")]
extern crate std;

mod atx;
#[cfg(test)]
mod bench;
mod i2c;
mod indicator;
mod led_path;
#[cfg(feature = "linux")]
mod linux;
mod moment;
mod output;
mod pair;
mod pin;
mod push_button;
mod relay;
mod sense;
mod watchdog;
mod window;

pub use atx::{AtxButton, AtxError, AtxSettings, End, Press, Released};
pub use i2c::{I2cWatchdog, I2cWatchdogError, RegisterMap, SEQUENT_SUPER_WATCHDOG};
pub use indicator::{Fault, Fencing, Indicator, Pattern, Quorum};
pub use led_path::{LedPathTest, Step, Verdict};
#[cfg(feature = "linux")]
pub use linux::{
    BadLineAddress, Bias, I2CError, I2cBusError, I2cdev, InputLine, InspectError, Inspected, LineAddress, LineError,
    LinesReleased, LinuxWatchdog, LinuxWatchdogError, OutputLine, ReleaseError, check_release, i2c_watchdog,
    input_line, inspect, inspect_all, output_line, pin_watchdog,
};
pub use moment::Moment;
pub use output::{Driven, Output, Polarity};
pub use pair::{Pair, PairError};
pub use pin::{PinWatchdog, PinWatchdogError};
pub use push_button::{BUTTON_EVERY, HOLD, PushButton, Pushed};
pub use relay::{Supply, SupplyRelay};
pub use sense::{LOOK_EVERY, Led, Sense, SenseSettings, UNWATCHED};
pub use watchdog::{BootReason, Capabilities, Nature, NoPromise, Promise, Watchdog, WeakPromise, device_timeout};
pub use window::{Windowed, WindowedError};
