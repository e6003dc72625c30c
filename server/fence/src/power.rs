//! off → confirmed off. Success is what was read twice, never what a device acknowledged.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use crate::{BoxFuture, Device, DeviceError, Fault, PowerState};

/// Who is asked before a command leaves, and told how it goes.
pub trait Overseer: Send + Sync {
    /// Asked right before each command that switches. `false` ends the power-off without sending it: the caller's right
    /// to fence has lapsed.
    fn may_switch(&self) -> BoxFuture<'_, bool>;

    /// Told of each step, for the timeline.
    fn progress(&self, step: Progress);
}

/// A step of [`power_off`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A fresh read.
    Read(PowerState),
    /// A read failed; the text is the error's.
    ReadFailed(String),
    /// The device acknowledged the command. Proves nothing.
    OffAcknowledged,
    /// The command failed; the text is the error's. It may still have reached the device.
    OffFailed(String),
}

/// The device read `Off` twice in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmedOff {
    /// Whether it was so before any command.
    pub already: bool,
}

/// The node is not known to be off.
#[derive(Debug, thiserror::Error)]
pub enum PowerOffError {
    /// The deadline came first.
    #[error("not confirmed off by the deadline, last read: {}", Last(*last))]
    Deadline {
        /// What the device last read, if it could be read at all.
        last: Option<PowerState>,
        /// The last failure of the device, if any.
        #[source]
        error: Option<DeviceError>,
    },
    /// The device fails in a way that waiting doesn't mend.
    #[error("the device fails for good, last read: {}", Last(*last))]
    Device {
        /// What the device last read, if it could be read at all.
        last: Option<PowerState>,
        /// Why it fails.
        #[source]
        error: DeviceError,
    },
    /// [`Overseer::may_switch`] said no.
    #[error("the right to switch lapsed before the command was sent, last read: {}", Last(*last))]
    Withdrawn {
        /// What the device last read, if it could be read at all.
        last: Option<PowerState>,
    },
}

struct Last(Option<PowerState>);

impl std::fmt::Display for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(state) => state.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Two fresh reads, `spacing` apart. `true` only if both say `Off`.
///
/// # Errors
/// Either read failed.
pub async fn confirm_off(device: &dyn Device, spacing: Duration, deadline: Instant) -> Result<bool, DeviceError> {
    if device.state(deadline).await? == PowerState::On {
        return Ok(false);
    }
    let second = Instant::now() + spacing;
    if second >= deadline {
        let why = "no time for a second read before the deadline";
        return Err(DeviceError::new(device.name(), Fault::Busy, why));
    }
    sleep_until(second).await;
    Ok(device.state(deadline).await? == PowerState::Off)
}

/// Turns a node off and makes certain of it: reads, commands if needed, then reads every `spacing` until two reads in a
/// row say `Off`.
///
/// A command that failed in transit is repeated, since off is off however often it is said. Reads that fail are repeated
/// too, and break the row.
///
/// # Errors
/// [`PowerOffError`]; whatever it says, the node may be on, off, or go off later.
pub async fn power_off(
    device: &dyn Device,
    spacing: Duration,
    deadline: Instant,
    overseer: &dyn Overseer,
) -> Result<ConfirmedOff, PowerOffError> {
    let mut last = None;
    let mut error = None;
    let mut commanded = Command::NotNeededYet;
    let mut offs = 0;
    while Instant::now() < deadline {
        let read = device.state(deadline).await;
        let next = Instant::now() + spacing;
        match read {
            Ok(state) => {
                overseer.progress(Progress::Read(state));
                last = Some(state);
                match state {
                    PowerState::Off => offs += 1,
                    PowerState::On => offs = 0,
                }
            }
            Err(failure) => {
                overseer.progress(Progress::ReadFailed(failure.to_string()));
                offs = 0;
                error = Some(give_up_or_keep(failure, last)?);
            }
        }
        if offs == 2 {
            return Ok(ConfirmedOff { already: commanded == Command::NotNeededYet });
        }
        if offs == 0 && commanded != Command::Acknowledged {
            match timeout_at(deadline, overseer.may_switch()).await {
                Ok(true) => {}
                Ok(false) => return Err(PowerOffError::Withdrawn { last }),
                Err(_) => break,
            }
            match device.off(deadline).await {
                Ok(()) => {
                    overseer.progress(Progress::OffAcknowledged);
                    commanded = Command::Acknowledged;
                }
                Err(failure) => {
                    overseer.progress(Progress::OffFailed(failure.to_string()));
                    commanded = Command::Failed;
                    error = Some(give_up_or_keep(failure, last)?);
                }
            }
        }
        debug!(device = device.name(), ?last, offs, "waiting for two reads of off");
        sleep_until(next.min(deadline)).await;
    }
    Err(PowerOffError::Deadline { last, error })
}

/// How far the command got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    NotNeededYet,
    Failed,
    Acknowledged,
}

fn give_up_or_keep(error: DeviceError, last: Option<PowerState>) -> Result<DeviceError, PowerOffError> {
    if error.fault.is_transient() { Ok(error) } else { Err(PowerOffError::Device { last, error }) }
}

#[cfg(test)]
mod tests;
