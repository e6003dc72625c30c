//! Board drivers: hardware watchdogs.
//!
//! The core is `no_std` and knows no I/O: the [`Watchdog`] trait, what a watchdog's word is worth ([`Promise`]), the
//! arithmetic between a promised time and a device's timeout ([`device_timeout`]), and a watchdog that is petted by
//! pulses on one pin ([`PinWatchdog`], over `embedded-hal`).
//!
//! With the feature `linux` it also drives `/dev/watchdog*` by ioctl ([`LinuxWatchdog`]), reads
//! `/sys/class/watchdog` without opening a device ([`inspect`]) and wires GPIO lines to [`PinWatchdog`].
//!
//! It isn't a feeder: when to pet, and the lease that this hangs on, are the node agent's business. It doesn't know
//! whether a watchdog ever reset this machine either; without one observed reset even a [`Promise::Evidence`] is a
//! candidate only.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "linux")]
extern crate std;

#[cfg(feature = "linux")]
mod linux;
mod pin;
mod watchdog;

#[cfg(feature = "linux")]
pub use linux::{
    BootStatus, GpioError, InspectError, Inspected, LinuxWatchdog, LinuxWatchdogError, inspect, inspect_all,
    pin_watchdog,
};
pub use pin::{PinWatchdog, PinWatchdogError, Polarity};
pub use watchdog::{Capabilities, Nature, NoPromise, Promise, Watchdog, WeakPromise, device_timeout};
