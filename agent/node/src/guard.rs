//! The node's watchdog as the executor sees it: armed, fed or given up, and never believed armed when it isn't.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tiebreaker_pipeline::node::Event;
use tiebreaker_pipeline::time::Reading;
use tracing::{error, info, warn};

use crate::watchdog::{
    DogError, Feeder, FeederConfig, FeederError, FeederHandle, FeederPhase, KEPT_NAME, Realtime, WatchdogSource,
};
use tiebreaker_member::errors::chain;
use tiebreaker_member::service_manager::ServiceManager;

/// What a guard needs to know.
pub struct GuardConfig {
    /// Where the watchdog is.
    pub source: WatchdogSource,
    /// Whatever ran is gone this long after the lease.
    pub promised: Duration,
    /// What an earlier agent left armed.
    pub kept: Option<OwnedFd>,
    /// Who keeps the descriptor.
    pub manager: Option<ServiceManager>,
    /// Reads both clocks.
    pub clock: fn() -> Reading,
    /// Whether the feeder's thread asks for locked memory and real-time scheduling.
    pub realtime: Realtime,
}

/// The watchdog of this node. Its calls may block, for as long as a device takes.
pub struct Guard {
    config: GuardConfig,
    feeder: Option<FeederHandle>,
}

impl Guard {
    /// A guard that has touched nothing yet.
    #[must_use]
    pub const fn new(config: GuardConfig) -> Self {
        Self { config, feeder: None }
    }

    /// The lease ends here from now on. Returns what the node has to know.
    pub fn extend(&mut self, end: Reading) -> Option<Event> {
        if let Some(feeder) = &self.feeder {
            feeder.extend(end);
            return self.news();
        }
        // An earlier agent of this boot left it armed: this one goes on petting it as soon as it may.
        self.config.kept.as_ref()?;
        match self.start(end) {
            // Told even if the node never heard of trouble: it may have, in an earlier try.
            Ok(()) => Some(Event::Armed(Ok(()))),
            // Nothing was touched; the next extension tries again.
            Err(FeederError::NoLease) => None,
            Err(error) => {
                let why = chain(&error);
                error!(
                    why,
                    "the watchdog that an earlier agent left armed can't be petted: unless that changes, this machine will be reset"
                );
                Some(Event::Armed(Err(why)))
            }
        }
    }

    /// Arms it under a lease that ends here.
    pub fn arm(&mut self, lease_end: Option<Reading>) -> Result<(), String> {
        // What is told here is told by the answer.
        let _told = self.news();
        if let Some(feeder) = &self.feeder {
            return if feeder.guards() { Ok(()) } else { Err(not_fed(feeder)) };
        }
        let lease_end = lease_end.ok_or("the watchdog is armed only under a lease")?;
        self.start(lease_end).map_err(|error| chain(&error))
    }

    /// Disarms it. Nothing protected runs.
    pub fn disarm(&mut self) -> Result<(), String> {
        let Some(feeder) = &mut self.feeder else {
            return match self.config.kept {
                Some(_) => {
                    Err("the watchdog was armed by an earlier agent and can't be reached without a lease".into())
                }
                // It was never armed, or an earlier disarm ended late.
                None => Ok(()),
            };
        };
        feeder.disarm().map_err(|error| chain(&error))?;
        self.was_disarmed();
        Ok(())
    }

    /// What has changed without having been asked for, for the node to know.
    pub fn news(&mut self) -> Option<Event> {
        match self.feeder.as_ref()?.state().phase {
            FeederPhase::Feeding | FeederPhase::LeaseEnded => None,
            FeederPhase::Refused(errno) => {
                warn!(errno, "the watchdog refuses to be petted");
                None
            }
            // A disarm that was given up as hung has ended after all.
            FeederPhase::Disarmed => {
                self.was_disarmed();
                Some(Event::Disarmed(Ok(())))
            }
            FeederPhase::Abandoned => {
                self.feeder = None;
                Some(Event::Armed(Err("the watchdog's thread has ended".into())))
            }
        }
    }

    /// Whether something may be started that relies on it; or why not.
    pub fn stands(&self) -> Result<(), String> {
        match &self.feeder {
            Some(feeder) if feeder.guards() => Ok(()),
            Some(feeder) => Err(not_fed(feeder)),
            None => Err("the watchdog is not armed".into()),
        }
    }

    /// Whether there is nothing that is fed.
    #[must_use]
    pub const fn is_unfed(&self) -> bool {
        self.feeder.is_none()
    }

    fn start(&mut self, lease_end: Reading) -> Result<(), FeederError> {
        let GuardConfig { source, promised, kept, manager, clock, realtime } = &self.config;
        let (manager, fresh) = (manager.as_ref(), kept.is_none());
        let config = FeederConfig { promised: *promised, lease_end, clock: *clock, realtime: *realtime, fresh };
        let started = Feeder::start(config, || {
            // A copy: if this fails, the next try has the descriptor still.
            let kept = kept.as_ref().map(OwnedFd::try_clone).transpose().map_err(DogError::Kept)?;
            source.open(kept, manager)
        });
        match started {
            Ok(feeder) => {
                info!(timeout = ?feeder.state().device_timeout, "the watchdog is armed");
                self.config.kept = None;
                self.feeder = Some(feeder);
                Ok(())
            }
            Err(error) => {
                // What was opened just now may be with the service manager already, whose copy would keep it running.
                if fresh && !matches!(error, FeederError::NoLease | FeederError::Dog(DogError::NoKeeper { .. })) {
                    self.take_back();
                }
                Err(error)
            }
        }
    }

    fn was_disarmed(&mut self) {
        self.feeder = None;
        self.take_back();
        info!("the watchdog is disarmed: nothing protected runs here");
    }

    /// Has the service manager give up its copy.
    fn take_back(&self) {
        if let Some(manager) = &self.config.manager
            && let Err(error) = manager.remove(KEPT_NAME)
        {
            warn!("the service manager keeps a watchdog that is not armed: {}", chain(&error));
        }
    }
}

fn not_fed(feeder: &FeederHandle) -> String {
    match feeder.state().phase {
        FeederPhase::Refused(errno) => format!("the watchdog refuses to be petted (error {errno})"),
        FeederPhase::Disarmed => "the watchdog is disarmed".into(),
        FeederPhase::Abandoned => "the watchdog's thread has ended".into(),
        FeederPhase::Feeding | FeederPhase::LeaseEnded => "the watchdog is just being disarmed".into(),
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
