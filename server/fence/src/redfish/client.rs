//! The client: one system behind a BMC, a login for each operation.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderValue;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    config::RedfishConfig,
    error::RedfishError,
    etag::forms,
    resource::{FORCE_OFF, FORCE_ON, ON, Reset, message_id, reset_kinds},
    rights,
    visit::{Visit, refusal},
};
use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof, SystemGuid};

/// A system behind a BMC that speaks Redfish, as a fence device.
#[derive(Debug)]
pub struct RedfishDevice {
    config: Arc<RedfishConfig>,
    name: String,
    /// BMCs hang when they are asked two things at once, so one operation at a time.
    lane: Mutex<()>,
}

impl RedfishDevice {
    /// A device for this system. Nothing is sent yet.
    #[must_use]
    pub fn new(config: RedfishConfig) -> Self {
        let name = format!("redfish {} {}", config.address, config.system);
        Self { config: Arc::new(config), name, lane: Mutex::new(()) }
    }

    async fn operate(&self, operation: Operation, deadline: Instant) -> Result<Outcome, DeviceError> {
        let Ok(_lane) = timeout_at(deadline, self.lane.lock()).await else {
            let why = "another operation on this device took until the deadline";
            return Err(DeviceError::new(&self.name, Fault::Busy, why));
        };
        let outcome = match run(&self.config, operation, deadline).await {
            // Some BMCs drop sessions that are minutes from their end, and a 401 says that nothing was carried out.
            Err(RedfishError::SessionEnded(what)) => {
                debug!(device = self.name, what, "the BMC ended the session, logging in again");
                run(&self.config, operation, deadline).await
            }
            other => other,
        };
        outcome.map_err(|error| DeviceError::new(&self.name, error.fault(), error))
    }
}

impl Device for RedfishDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        OffSign::Bmc
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(async move { self.operate(Operation::State, deadline).await.map(|outcome| outcome.state) })
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move { self.operate(Operation::Switch(PowerState::Off), deadline).await.map(drop) })
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move { self.operate(Operation::Switch(PowerState::On), deadline).await.map(drop) })
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move {
            let Outcome { state, guid } = self.operate(Operation::Prove, deadline).await?;
            Ok(Proof { state, guid })
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    State,
    Switch(PowerState),
    Prove,
}

struct Outcome {
    state: PowerState,
    guid: Option<SystemGuid>,
}

async fn run(config: &Arc<RedfishConfig>, operation: Operation, deadline: Instant) -> Result<Outcome, RedfishError> {
    let mut visit = Visit::begin(Arc::clone(config), deadline).await?;
    let result = operate(&mut visit, operation).await;
    visit.end().await;
    result
}

async fn operate(visit: &mut Visit, operation: Operation) -> Result<Outcome, RedfishError> {
    // First, in every operation: nothing is done to a system that isn't the configured one.
    let (system, _) = visit.system().await?;
    match operation {
        Operation::State => Ok(Outcome { state: system.power("the system")?, guid: system.guid() }),
        Operation::Switch(wanted) => {
            let reset = system.reset.as_ref().ok_or(RedfishError::NotOffered("ComputerSystem.Reset"))?;
            switch(visit, reset, wanted).await?;
            Ok(Outcome { state: wanted, guid: system.guid() })
        }
        Operation::Prove => {
            let state = system.power("the system")?;
            let reset = system.reset.as_ref().ok_or(RedfishError::NotOffered("ComputerSystem.Reset"))?;
            match kinds(visit, reset).await? {
                Some(kinds) if !kinds.iter().any(|kind| kind == FORCE_OFF) => {
                    return Err(RedfishError::NotOffered(FORCE_OFF));
                }
                Some(kinds) if !kinds.iter().any(|kind| kind == ON || kind == FORCE_ON) => {
                    return Err(RedfishError::NotOffered(ON));
                }
                Some(_) => {}
                None if visit.config().drilled => {}
                None => return Err(RedfishError::ResetsUntold),
            }
            rights::check(visit).await?;
            Ok(Outcome { state, guid: system.guid() })
        }
    }
}

/// The kinds of reset that the system takes, from wherever it tells them.
async fn kinds(visit: &mut Visit, reset: &Reset) -> Result<Option<Vec<String>>, RedfishError> {
    if let Some(kinds) = &reset.kinds {
        return Ok(Some(kinds.clone()));
    }
    let Some(info) = &reset.info else { return Ok(None) };
    const WHAT: &str = "the kinds of reset";
    let answer = visit.read(WHAT, info.as_str()).await?;
    reset_kinds(WHAT, &answer.body)
}

async fn switch(visit: &mut Visit, reset: &Reset, wanted: PowerState) -> Result<(), RedfishError> {
    let (what, kind) = match wanted {
        PowerState::Off => ("the power-off", FORCE_OFF),
        PowerState::On => ("the power-on", on_kind(visit, reset).await),
    };
    let body = Bytes::from(serde_json::json!({ "ResetType": kind }).to_string());
    let mut answer = visit.act(what, &reset.target, &body, None).await?;
    if matches!(answer.status.as_u16(), 412 | 428) {
        // It wants to be told which version of the system is meant.
        let (_, etag) = visit.system().await?;
        for form in etag.iter().flat_map(|etag| forms(etag)) {
            let Ok(form) = HeaderValue::from_str(&form) else { continue };
            answer = visit.act(what, &reset.target, &body, Some(form)).await?;
            if !matches!(answer.status.as_u16(), 412 | 428) {
                break;
            }
        }
    }
    match answer.status.as_u16() {
        // A task or not: only what is read afterwards counts.
        200..=202 | 204 => Ok(()),
        // Many say so when there is nothing to do.
        status @ (400 | 409) => {
            let (system, _) = visit.system().await?;
            match system.power("the system")? {
                state if state == wanted => Ok(()),
                _ => Err(RedfishError::Refused { what, status, message: message_id(&answer.body) }),
            }
        }
        status @ 403 => {
            let message = message_id(&answer.body).map(|id| format!(", {id}")).unwrap_or_default();
            Err(RedfishError::NoRight { what: format!("{what} gets status {status}{message}") })
        }
        status => Err(refusal(what, status, message_id(&answer.body))),
    }
}

/// The kind that switches on: some systems know the forced one alone. Where that can't be found out, the usual one.
async fn on_kind(visit: &mut Visit, reset: &Reset) -> &'static str {
    match kinds(visit, reset).await {
        Ok(Some(kinds)) if kinds.iter().all(|kind| kind != ON) && kinds.iter().any(|kind| kind == FORCE_ON) => FORCE_ON,
        Ok(_) => ON,
        Err(error) => {
            debug!(%error, "the BMC doesn't tell its kinds of reset");
            ON
        }
    }
}
