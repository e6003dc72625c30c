//! How a [`super::Bmc`] misbehaves, for tests of those who rely on one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Chassis, ChassisError};
use crate::PowerState;

/// What is wrong with a BMC. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Acknowledges every command and switches nothing.
    pub stuck: bool,
    /// Answers this much later. What it answers is what was true when the question came.
    pub slow: Duration,
    /// Hears nothing and says nothing.
    pub mute: bool,
    /// Keeps the answer to a command until the next command comes, then sends both, the old one first.
    pub stale: bool,
    /// Sends every answer twice.
    pub duplicate: bool,
    /// Says "off" whatever the machine does.
    pub always_off: bool,
}

/// Changes a running BMC's faults.
#[derive(Debug, Clone, Default)]
pub struct FaultSwitch(Arc<Mutex<Faults>>);

impl FaultSwitch {
    /// From the next datagram on these faults hold, and no others.
    pub fn set(&self, faults: Faults) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// The faults that hold now.
    #[must_use]
    pub fn get(&self) -> Faults {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine seen through a BMC's faults.
pub(super) struct Faulty<'a> {
    pub(super) chassis: &'a dyn Chassis,
    pub(super) faults: Faults,
}

impl Chassis for Faulty<'_> {
    fn power(&self) -> PowerState {
        if self.faults.always_off { PowerState::Off } else { self.chassis.power() }
    }

    fn set_power(&self, state: PowerState) -> Result<(), ChassisError> {
        if self.faults.stuck { Ok(()) } else { self.chassis.set_power(state) }
    }
}
