//! A fence agent, as a fence device.

use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{
    config::ProgramConfig,
    error::ProgramError,
    run::{Action, Ended, run},
};
use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof};

/// The exit codes of "status": the node is on, and it is off.
const ON: i32 = 0;
const OFF: i32 = 2;

/// A fence agent of somebody else.
#[derive(Debug)]
pub struct ProgramDevice {
    config: ProgramConfig,
    name: String,
    /// One run at a time.
    lane: Mutex<()>,
}

impl ProgramDevice {
    /// A device behind this agent. Nothing is run yet.
    #[must_use]
    pub fn new(config: ProgramConfig) -> Self {
        let target = config.options.get("ip").or_else(|| config.options.get("ipaddr"));
        let name = format!("program {} {}", config.agent.display(), target.map_or("", String::as_str));
        Self { config, name: name.trim_end().to_owned(), lane: Mutex::new(()) }
    }

    async fn run(&self, action: Action, deadline: Instant) -> Result<Ended, DeviceError> {
        let Ok(_lane) = timeout_at(deadline, self.lane.lock()).await else {
            let why = "another operation on this device took until the deadline";
            return Err(DeviceError::new(&self.name, Fault::Busy, why));
        };
        run(&self.config, action, deadline).await.map_err(|error| self.error(error))
    }

    fn error(&self, error: ProgramError) -> DeviceError {
        DeviceError::new(&self.name, error.fault(), error)
    }

    async fn look(&self, deadline: Instant) -> Result<PowerState, DeviceError> {
        let ended = self.run(Action::Status, deadline).await?;
        let code = ended.status.code();
        // An interpreter that doesn't find its program ends with 2, too, so the code alone says nothing.
        match (code, said(&ended.output)) {
            (Some(ON), Some(PowerState::On)) => Ok(PowerState::On),
            (Some(OFF), Some(PowerState::Off)) => Ok(PowerState::Off),
            (Some(status @ (ON | OFF)), _) => Err(self.error(ProgramError::Unclear { status })),
            _ => Err(self.error(ended.failed(&self.config))),
        }
    }

    async fn switch(&self, action: Action, deadline: Instant) -> Result<(), DeviceError> {
        let ended = self.run(action, deadline).await?;
        // Its word for "done" is no more than that: what counts is its status afterwards.
        if ended.status.success() { Ok(()) } else { Err(self.error(ended.failed(&self.config))) }
    }
}

/// The state that an agent says: one line `Status: ON` or `Status: OFF`, and no other of the kind.
fn said(output: &str) -> Option<PowerState> {
    let mut states = output.lines().filter_map(|line| line.trim().strip_prefix("Status:")).map(str::trim);
    let state = match states.next()? {
        "ON" => PowerState::On,
        "OFF" => PowerState::Off,
        _ => return None,
    };
    states.next().is_none().then_some(state)
}

/// Nothing but the one word is ever off.
pub(crate) fn fuzz(output: &str) {
    if said(output) == Some(PowerState::Off) {
        assert!(output.contains("Status:") && output.contains("OFF"));
        assert_eq!(output.lines().filter(|line| line.trim().starts_with("Status:")).count(), 1);
    }
}

impl Device for ProgramDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        OffSign::Program
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(self.look(deadline))
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.switch(Action::Off, deadline))
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(self.switch(Action::On, deadline))
    }

    /// That the account may switch shows in a drill alone.
    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move { Ok(Proof { state: self.look(deadline).await?, guid: None }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_clear_word_is_a_state() {
        assert_eq!(said("Status: OFF\n"), Some(PowerState::Off));
        assert_eq!(said("2026-11-25 INFO: asking\nStatus: ON\n"), Some(PowerState::On));
        for odd in ["", "OFF", "Status: off", "Status:", "Status: UNKNOWN", "Status: OFF\nStatus: ON", "A Status: OFF"]
        {
            assert_eq!(said(odd), None, "{odd}");
        }
    }
}
