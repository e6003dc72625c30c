//! The simulated watchdog itself, without any I/O.

use std::time::Duration;

/// A countdown that is armed, petted and disarmed, on one clock in nanoseconds (CLOCK_BOOTTIME in the supervisor).
///
/// It knows nothing of connections: whether somebody connects, disconnects or dies changes nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SimulatedDevice {
    armed: Option<Countdown>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Countdown {
    timeout: Duration,
    deadline_ns: u64,
}

impl SimulatedDevice {
    /// Arms, or changes the timeout, and pets. Has no effect on a countdown that has run out.
    pub fn arm(&mut self, now_ns: u64, timeout: Duration) {
        if !self.expired(now_ns) {
            self.armed = Some(Countdown { timeout, deadline_ns: after(now_ns, timeout) });
        }
    }

    /// Pets: the countdown starts again at `sent_ns`, when the pet was sent, or `now_ns` if that was earlier. A pet
    /// that lay in a buffer therefore buys no time, and none brings back a countdown that has run out.
    pub fn pet(&mut self, now_ns: u64, sent_ns: u64) {
        let expired = self.expired(now_ns);
        if let Some(countdown) = &mut self.armed
            && !expired
        {
            let renewed = after(sent_ns.min(now_ns), countdown.timeout);
            countdown.deadline_ns = countdown.deadline_ns.max(renewed);
        }
    }

    /// Stops the countdown.
    pub fn disarm(&mut self) {
        self.armed = None;
    }

    /// The timeout, if it is armed.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.armed.map(|countdown| countdown.timeout)
    }

    /// When it resets unless it is petted, if it is armed.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.armed.map(|countdown| countdown.deadline_ns)
    }

    /// Whether the node is to be reset.
    #[must_use]
    pub fn expired(&self, now_ns: u64) -> bool {
        self.deadline_ns().is_some_and(|deadline_ns| now_ns >= deadline_ns)
    }
}

fn after(start_ns: u64, span: Duration) -> u64 {
    start_ns.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_nanos(100);

    #[test]
    fn it_fires_one_timeout_after_the_last_pet() {
        let mut device = SimulatedDevice::default();
        assert!(!device.expired(u64::MAX));
        device.pet(5, 5);
        assert_eq!(device.deadline_ns(), None);
        device.arm(10, TIMEOUT);
        assert!(!device.expired(109));
        device.pet(50, 50);
        assert!(!device.expired(149));
        assert!(device.expired(150));
        device.disarm();
        assert!(!device.expired(u64::MAX));
    }

    #[test]
    fn a_pet_counts_from_when_it_was_sent_and_never_from_the_future() {
        let mut device = SimulatedDevice::default();
        device.arm(0, TIMEOUT);
        device.pet(90, 20);
        assert_eq!(device.deadline_ns(), Some(120));
        device.pet(91, u64::MAX);
        assert_eq!(device.deadline_ns(), Some(191));
        // Late news of an old pet takes nothing away either.
        device.pet(92, 1);
        assert_eq!(device.deadline_ns(), Some(191));
    }

    #[test]
    fn a_countdown_that_has_run_out_is_not_brought_back() {
        let mut device = SimulatedDevice::default();
        device.arm(0, TIMEOUT);
        device.pet(100, 99);
        assert!(device.expired(100));
        device.arm(101, TIMEOUT);
        assert!(device.expired(101));
    }
}
