//! Carries out what the node's side of the pipeline decides: operations on resources, and the watchdog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_member::clock;
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::node::{Action, Event, Found, OperationId, OperationKind, Outcome};
use tiebreaker_pipeline::resource::{Driver as DriverSpec, ResourceSpec};
use tiebreaker_pipeline::time::Reading;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tracing::{error, info, warn};

use crate::drivers::{CommandSpec, Deadlines, Driver, DriverError, OcfRoot, OcfSpec, Probe, Resource};
use crate::guard::Guard;
use crate::operation::{Operations, Outcome as Ended};
use crate::watchdog::{Dog, SimulatedWatchdog};
use tiebreaker_member::errors::chain;

/// The exit code of an agent that has asked for a reset of its machine (EX_SOFTWARE of sysexits.h).
const RESET: i32 = 70;
/// The exit code of an agent whose life has ended in the log, for its unit to start the next one (EX_TEMPFAIL).
const START_ANEW: i32 = 75;

/// The node's executor.
pub struct Executor {
    member: MemberHandle,
    operations: Arc<Operations>,
    guard: Option<Guard>,
    lease_end: Option<Reading>,
    running: BTreeMap<OperationId, ResourceName>,
    may_go: watch::Sender<bool>,
}

impl Executor {
    /// An executor whose leftovers are killed already.
    #[must_use]
    pub fn new(
        member: MemberHandle,
        operations: Operations,
        guard: Option<Guard>,
        may_go: watch::Sender<bool>,
    ) -> Self {
        Self { member, operations: Arc::new(operations), guard, lease_end: None, running: BTreeMap::new(), may_go }
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
            Action::Begin { id, resource, kind, spec, target } => {
                self.begin(id, resource, kind, target, &spec).await;
            }
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
                std::process::exit(START_ANEW);
            }
            Action::MayGo => {
                info!("the cluster has agreed that this agent goes");
                // Whoever waited for it may have given up.
                let _ = self.may_go.send(true);
            }
            Action::ResetParted => {
                error!("the cluster goes on elsewhere, and something may run here: resetting");
                reset_self();
            }
            Action::ResetSelf(fence) => {
                error!(%fence, "the cluster fences this life of the node: resetting");
                reset_self();
            }
        }
    }

    async fn extend(&mut self, end: Reading) {
        self.lease_end = Some(end);
        let news = self.guard.as_mut().and_then(|guard| block_in_place(|| guard.extend(end)));
        if let Some(event) = news {
            self.member.tell(Tell::Node(event)).await;
        }
    }

    fn arm(&mut self) -> Result<(), String> {
        let guard = self.guard.as_mut().ok_or("this node has no watchdog")?;
        let lease_end = self.lease_end;
        block_in_place(|| guard.arm(lease_end))
    }

    fn disarm(&mut self) -> Result<(), String> {
        let guard = self.guard.as_mut().ok_or("this node has no watchdog")?;
        block_in_place(|| guard.disarm())
    }

    /// Why nothing may be started now, whatever the node believes. Tells the node what it doesn't know of its watchdog.
    async fn refuses_to_start(&mut self) -> Option<String> {
        if self.lease_end.is_none_or(|end| clock::now().reached_on_either(end)) {
            return Some("the lease ended before it began".into());
        }
        let guard = self.guard.as_mut()?;
        let news = guard.news();
        let why = guard.stands().err()?;
        // Whoever wants to start something believes the watchdog armed.
        let unarmed = guard.is_unfed().then(|| Event::Armed(Err(why.clone())));
        if let Some(event) = news.or(unarmed) {
            self.member.tell(Tell::Node(event)).await;
        }
        Some(why)
    }

    async fn begin(
        &mut self,
        id: OperationId,
        resource: ResourceName,
        kind: OperationKind,
        target: Option<MemberName>,
        spec: &ResourceSpec,
    ) {
        if matches!(kind, OperationKind::Start | OperationKind::Migrate | OperationKind::Receive)
            && let Some(why) = self.refuses_to_start().await
        {
            warn!(%resource, why, operation = kind.word(), "an operation was refused");
            self.member.tell(Tell::Node(Event::Ended(id, Outcome::Failed { why }))).await;
            return;
        }
        self.running.retain(|_, other| *other != resource);
        self.running.insert(id, resource.clone());
        // From here on a cancellation finds it, though its task may not have run yet.
        let announced = self.operations.announce(resource.as_str());
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
                OperationKind::Migrate => {
                    let target = target.as_ref().map_or("", MemberName::as_str);
                    info!(%resource, target, "moving live");
                    Event::Ended(id, outcome("move", driven.migrate(&operations, target).await))
                }
                OperationKind::Receive => {
                    let source = target.as_ref().map_or("", MemberName::as_str);
                    info!(%resource, source, "finishing a live move");
                    Event::Ended(id, outcome("end of the move", driven.receive(&operations, source).await))
                }
                OperationKind::Stop => {
                    info!(%resource, "stopping");
                    Event::Ended(id, outcome("stop", driven.stop(&operations).await))
                }
            };
            // Before the node hears of it, and begins the next.
            drop(announced);
            if let Event::Ended(_, Outcome::Failed { why }) = &event {
                warn!(%resource, why, "an operation failed");
            }
            member.tell(Tell::Node(event)).await;
        });
    }
}

fn driven(name: &ResourceName, spec: &ResourceSpec) -> Resource {
    let driver = match &spec.driver {
        DriverSpec::Command { start, stop, status, migrate } => Driver::Command(CommandSpec {
            start: start.clone(),
            stop: stop.clone(),
            status: status.clone(),
            migrate: migrate.clone(),
        }),
        DriverSpec::Ocf { provider, agent, params } => Driver::Ocf(
            OcfSpec { provider: provider.clone(), kind: agent.clone(), params: params.clone() },
            OcfRoot::default(),
        ),
    };
    let deadlines = Deadlines {
        start: Duration::from_millis(spec.start_timeout_ms),
        stop: Duration::from_millis(spec.stop_timeout_ms),
        monitor: Duration::from_millis(spec.monitor_timeout_ms),
        migrate: Duration::from_millis(spec.migrate_timeout_ms),
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
    std::process::exit(RESET)
}
