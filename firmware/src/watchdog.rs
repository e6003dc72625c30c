//! What a watchdog is to this project, and what its word is worth.

use core::fmt;
use core::time::Duration;

/// A device that resets the machine unless it is petted in time.
///
/// Whoever arms one needs a valid lease: arming counts as petting, and an armed watchdog without a feeder resets the
/// machine.
pub trait Watchdog {
    /// Why the device could not do as told.
    type Error;

    /// What the device and its driver can do.
    fn capabilities(&self) -> Capabilities<'_>;

    /// What an armed device of this kind promises to the rest of the cluster.
    fn promise(&self) -> Promise {
        self.capabilities().promise()
    }

    /// Arms the device, and pets it. Returns the timeout that the device really took, read back from it, never
    /// longer than `timeout`: a slower device is an error and is left disarmed where that is possible.
    fn arm(&mut self, timeout: Duration) -> Result<Duration, Self::Error>;

    /// Restarts the countdown. Does not allocate.
    fn pet(&mut self) -> Result<(), Self::Error>;

    /// Stops the device for good. Fails where the hardware or its driver cannot be stopped.
    fn disarm(&mut self) -> Result<(), Self::Error>;

    /// How long until it fires unless it is petted; `None` where the device doesn't say. Asking pets nothing.
    fn time_left(&mut self) -> Result<Option<Duration>, Self::Error> {
        Ok(None)
    }

    /// What the device knows of why the machine started last.
    fn boot_reason(&mut self) -> Result<BootReason, Self::Error> {
        Ok(BootReason::NotSaid)
    }
}

/// Why the machine started last, as a watchdog tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootReason {
    /// This watchdog fired.
    Watchdog,
    /// It was too hot, or a fan stood still.
    Heat,
    /// The supply was too low or too high.
    Supply,
    /// The device doesn't say. That proves nothing: many don't know that they fired.
    NotSaid,
}

/// The timeout that the device runs at, so that the machine is gone `promised` after the last moment at which petting
/// was allowed.
///
/// Half: checking the lease and petting are two steps. A feeder that is stopped between them for nearly a whole device
/// timeout and then pets starts one more of them, so the machine may live two device timeouts past its lease.
#[must_use]
pub const fn device_timeout(promised: Duration) -> Duration {
    Duration::from_nanos((promised.as_nanos() / 2) as u64)
}

/// What makes the device count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nature {
    /// Circuitry of its own, beside the processor that it resets.
    Hardware,
    /// A timer of the very kernel that it guards (`softdog`): a hung kernel never fires it.
    Software,
    /// A process that kills the node's processes. For demonstrations and tests.
    Simulated,
}

/// What a device and its driver can do, as they say themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities<'a> {
    /// The driver's name for the device.
    pub identity: &'a str,
    /// What makes it count.
    pub nature: Nature,
    /// Closing the device leaves it running unless it was told to stop.
    pub magic_close: bool,
    /// Once started it can't be stopped; `None` where that can't be found out.
    pub no_way_out: Option<bool>,
    /// The timeout can be set; otherwise it is what the hardware has.
    pub settable: bool,
}

impl Capabilities<'_> {
    /// What an armed device with these capabilities promises.
    #[must_use]
    pub fn promise(&self) -> Promise {
        if !self.magic_close && self.no_way_out != Some(true) {
            return Promise::None(NoPromise::StopsWhenClosed);
        }
        match self.nature {
            Nature::Hardware => Promise::Evidence,
            Nature::Software => Promise::Weak(WeakPromise::SoftwareTimer),
            Nature::Simulated => Promise::Weak(WeakPromise::Simulated),
        }
    }
}

/// What an armed watchdog promises to the rest of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// Nothing: it may stop without anybody's decision.
    None(NoPromise),
    /// It resets in the usual case. Never evidence, unless an operator accepts this kind by name.
    Weak(WeakPromise),
    /// Its time may count as evidence, once it was seen to reset this machine.
    Evidence,
}

/// Why a watchdog promises nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPromise {
    /// The driver has no magic close and can be stopped: the death of the process that holds it disarms it.
    StopsWhenClosed,
}

/// Why a watchdog's promise is no evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeakPromise {
    /// A timer of the kernel that it guards.
    SoftwareTimer,
    /// A process beside the node's processes.
    Simulated,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None(NoPromise::StopsWhenClosed) => {
                "no promise: the driver has no magic close, so the agent's death would stop the watchdog"
            }
            Self::Weak(WeakPromise::SoftwareTimer) => "not evidence: a software timer of the kernel that it guards",
            Self::Weak(WeakPromise::Simulated) => "not evidence: simulated by a process",
            Self::Evidence => "evidence, once it was seen to reset this machine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(nature: Nature, magic_close: bool, no_way_out: Option<bool>) -> Promise {
        Capabilities { identity: "test", nature, magic_close, no_way_out, settable: true }.promise()
    }

    #[test]
    fn the_device_runs_at_half_of_the_promised_time() {
        assert_eq!(device_timeout(Duration::from_secs(10)), Duration::from_secs(5));
        assert_eq!(device_timeout(Duration::from_secs(4)), Duration::from_secs(2));
        assert_eq!(device_timeout(Duration::from_secs(60)), Duration::from_secs(30));
        assert_eq!(device_timeout(Duration::from_millis(1_001)), Duration::from_micros(500_500));
    }

    #[test]
    fn a_driver_that_stops_when_closed_promises_nothing_but_no_way_out_does() {
        let none = Promise::None(NoPromise::StopsWhenClosed);
        assert_eq!(capabilities(Nature::Hardware, false, Some(false)), none);
        assert_eq!(capabilities(Nature::Hardware, false, None), none);
        assert_eq!(capabilities(Nature::Hardware, false, Some(true)), Promise::Evidence);
        assert_eq!(capabilities(Nature::Hardware, true, None), Promise::Evidence);
    }

    #[test]
    fn software_is_never_evidence() {
        assert_eq!(capabilities(Nature::Software, true, Some(true)), Promise::Weak(WeakPromise::SoftwareTimer));
        assert_eq!(capabilities(Nature::Simulated, true, None), Promise::Weak(WeakPromise::Simulated));
    }
}
