//! Carries out what the node's side of the pipeline decides: operations on resources, and the watchdog.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_member::clock;
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::node::{Action, Event, Found, OperationId, OperationKind, Outcome};
use tiebreaker_pipeline::resource::{Driver as DriverSpec, ResourceSpec};
use tiebreaker_pipeline::time::Reading;
use tracing::{error, info, warn};

use crate::drivers::{CommandSpec, Deadlines, Driver, DriverError, OcfRoot, OcfSpec, Probe, Resource};
use crate::fdstore::ServiceManager;
use crate::operation::{Operations, Outcome as Ended};
use crate::watchdog::{
    Dog, Feeder, FeederConfig, FeederHandle, FeederPhase, KEPT_NAME, Realtime, SimulatedWatchdog, WatchdogSource,
};

/// The watchdog of this node, if it has one.
pub struct Guard {
    /// Where it is.
    pub source: WatchdogSource,
    /// Whatever ran is gone this long after the lease.
    pub promised: Duration,
    /// What an earlier agent left armed.
    pub kept: Option<OwnedFd>,
    /// Who keeps the descriptor.
    pub manager: Option<ServiceManager>,
}

/// The node's executor.
pub struct Executor {
    member: MemberHandle,
    operations: Arc<Operations>,
    guard: Option<Guard>,
    feeder: Option<FeederHandle>,
    lease_end: Option<Reading>,
    running: BTreeMap<OperationId, ResourceName>,
}

impl Executor {
    /// An executor whose leftovers are killed already.
    #[must_use]
    pub fn new(member: MemberHandle, operations: Operations, guard: Option<Guard>) -> Self {
        Self {
            member,
            operations: Arc::new(operations),
            guard,
            feeder: None,
            lease_end: None,
            running: BTreeMap::new(),
        }
    }

    /// Carries out one action.
    pub async fn carry_out(&mut self, action: Action) {
        match action {
            // Renewals are the member's own; they never come here.
            Action::Renew { .. } => {}
            Action::Extend(end) => self.extend(end).await,
            Action::Arm => {
                let armed = self.arm();
                self.member.tell(Tell::Node(Event::Armed(armed))).await;
            }
            Action::Disarm => {
                let disarmed = self.disarm();
                self.member.tell(Tell::Node(Event::Disarmed(disarmed))).await;
            }
            Action::Begin { id, resource, kind, spec } => self.begin(id, resource, kind, &spec),
            Action::Cancel(id) => {
                if let Some(resource) = self.running.get(&id) {
                    self.operations.cancel(resource.as_str());
                }
            }
            Action::StartAnew => {
                warn!(
                    "the life of this agent has ended in the log: ending, so that the service manager starts a new one"
                );
                // Workloads stay as they are; the next agent probes them before it is admitted.
                std::process::exit(75);
            }
            Action::ResetSelf(fence) => {
                error!(%fence, "the cluster fences this life of the node: resetting");
                reset_self();
            }
        }
    }

    async fn extend(&mut self, end: Reading) {
        self.lease_end = Some(end);
        match &self.feeder {
            Some(feeder) => {
                feeder.extend(end);
                if let FeederPhase::Refused(errno) = feeder.state().phase {
                    warn!(errno, "the watchdog refuses to be petted");
                }
            }
            // An earlier agent of this boot left it armed: this one goes on petting it as soon as it may.
            None if self.guard.as_ref().is_some_and(|guard| guard.kept.is_some()) => {
                if let Err(why) = self.arm() {
                    error!(
                        why,
                        "the watchdog that an earlier agent left armed can't be petted: this machine will be reset"
                    );
                }
            }
            None => {}
        }
    }

    fn arm(&mut self) -> Result<(), String> {
        let Some(guard) = &mut self.guard else { return Err("this node has no watchdog".into()) };
        let Some(lease_end) = self.lease_end else { return Err("the watchdog is armed only under a lease".into()) };
        let config = FeederConfig { promised: guard.promised, lease_end, clock: clock::now, realtime: Realtime::Try };
        let kept = guard.kept.take();
        let feeder =
            Feeder::start(config, || guard.source.open(kept, guard.manager.as_ref())).map_err(|e| chain(&e))?;
        info!(timeout = ?feeder.state().device_timeout, "the watchdog is armed");
        self.feeder = Some(feeder);
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), String> {
        let Some(feeder) = &mut self.feeder else {
            return Err("the watchdog was armed by an earlier agent and can't be reached without a lease".into());
        };
        feeder.disarm().map_err(|error| chain(&error))?;
        self.feeder = None;
        if let Some(manager) = self.guard.as_ref().and_then(|guard| guard.manager.as_ref())
            && let Err(error) = manager.remove(KEPT_NAME)
        {
            warn!("the service manager keeps a disarmed watchdog: {}", chain(&error));
        }
        info!("the watchdog is disarmed: nothing protected runs here");
        Ok(())
    }

    fn begin(&mut self, id: OperationId, resource: ResourceName, kind: OperationKind, spec: &ResourceSpec) {
        self.running.retain(|_, other| *other != resource);
        self.running.insert(id, resource.clone());
        let driven = driven(&resource, spec);
        let operations = Arc::clone(&self.operations);
        let member = self.member.clone();
        tokio::spawn(async move {
            let event = match kind {
                OperationKind::Probe => Event::Probed(id, found(driven.probe(&operations).await)),
                OperationKind::Start => {
                    info!(%resource, "starting");
                    Event::Ended(id, outcome("start", driven.start(&operations).await))
                }
                OperationKind::Stop => {
                    info!(%resource, "stopping");
                    Event::Ended(id, outcome("stop", driven.stop(&operations).await))
                }
            };
            if let Event::Ended(_, Outcome::Failed { why }) = &event {
                warn!(%resource, why, "an operation failed");
            }
            member.tell(Tell::Node(event)).await;
        });
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn driven(name: &ResourceName, spec: &ResourceSpec) -> Resource {
    let driver = match &spec.driver {
        DriverSpec::Command { start, stop, status } => {
            Driver::Command(CommandSpec { start: start.clone(), stop: stop.clone(), status: status.clone() })
        }
        DriverSpec::Ocf { provider, agent, params } => Driver::Ocf(
            OcfSpec { provider: provider.clone(), kind: agent.clone(), params: params.clone() },
            OcfRoot::default(),
        ),
    };
    let deadlines = Deadlines {
        start: Duration::from_millis(spec.start_timeout_ms),
        stop: Duration::from_millis(spec.stop_timeout_ms),
        monitor: Duration::from_millis(spec.monitor_timeout_ms),
    };
    Resource { name: name.to_string(), driver, deadlines }
}

fn found(probe: Probe) -> Found {
    match probe {
        Probe::Running => Found::Running,
        Probe::Stopped => Found::Stopped,
        Probe::Failed => Found::Broken { why: "the probe found it broken".into() },
        Probe::Unknown { why } => Found::Unknown { why },
    }
}

fn outcome(what: &str, ended: Result<Ended, DriverError>) -> Outcome {
    let why = match ended {
        Ok(Ended::Done) => return Outcome::Done,
        Ok(Ended::Failed { code, output }) => {
            let said = output.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
            format!("the {what} ended with code {code}{said}")
        }
        Ok(Ended::TimedOut) => format!("the {what} was not done in time and was killed"),
        Ok(Ended::Cancelled) => format!("the {what} was cancelled"),
        Ok(Ended::KilledLeftover) => format!("the {what} was killed from outside"),
        Err(error) => format!("the {what} failed: {}", chain(&error)),
    };
    Outcome::Failed { why }
}

/// Resets the machine at once. Under the supervisor, whose watchdog is simulated, that is asked of it; otherwise of the
/// kernel. Where neither can, the process ends: nothing pets the watchdog any more.
fn reset_self() -> ! {
    if let Some(path) = std::env::var_os(crate::supervisor::WATCHDOG_VARIABLE) {
        // A countdown of a millisecond: the supervisor kills everything at once.
        let reset = SimulatedWatchdog::connect(path.as_ref()).map_err(crate::watchdog::DogError::from);
        if let Err(error) = reset.and_then(|mut dog| dog.arm(Duration::from_millis(1))) {
            error!("the supervisor could not be asked for a reset: {}", chain(&error));
        }
    } else if let Err(error) = std::fs::write("/proc/sysrq-trigger", "b") {
        error!(%error, "the kernel could not be asked for a reset");
    }
    std::process::exit(70)
}
