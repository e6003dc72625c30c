//! The client against a BMC of our own: as it should be, with every quirk that is known, and hostile.

pub(crate) mod bmc;
mod hostile;
mod quirks;

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::{BoxFuture, DeviceError, Fault, Overseer, Progress, RedfishError};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn redfish(error: &DeviceError) -> &RedfishError {
    error.source.downcast_ref().unwrap()
}

fn has_fault<T: std::fmt::Debug>(result: Result<T, DeviceError>, fault: Fault) -> DeviceError {
    let error = result.unwrap_err();
    assert_eq!(error.fault, fault, "{error}");
    error
}

/// Lets everything be switched, and keeps the steps.
#[derive(Default)]
struct Watcher(Mutex<Vec<Progress>>);

impl Overseer for Watcher {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, step: Progress) {
        self.0.lock().unwrap().push(step);
    }
}
