//! The work at one fence: cut the power by the levels of the node's plan in their order, see it off twice, and give it back where that is
//! wanted. Before each command that cuts, the vote is looked at once more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiebreaker_fence::{BoxFuture, Device, OffSign, Overseer, PowerOffError, PowerState, Progress as Step, power_off};
use tiebreaker_member::errors::chain;
use tiebreaker_pipeline::name::MemberName;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::book::Barred;
use super::clerk::{Note, Progress};
use super::docket::{Job, RESTORE_WITHIN, Stage};
use super::right::Right;
use super::shared::{LOOK_EVERY, Shared};
use crate::audit::Event;
use crate::desk::unix_ms;
use crate::devices::{COMMAND_WITHIN, Managed};
use crate::level::Level;

/// Between two reads.
pub(super) const SPACING: Duration = Duration::from_millis(200);
/// The next level has its turn when one hasn't shown the node off by then.
const DEVICE_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at what was told "off" and is told nothing more, since the switching of power is held.
const HELD_LOOK: Duration = Duration::from_secs(1);
/// Between two rounds of a node's plan.
const AGAIN: Duration = Duration::from_secs(2);

const ANOTHER: &str = "another fence of it has begun";

/// One works at a node's power at a time.
pub(super) struct Turn {
    /// Who did so for the node's fence before. It ends by itself once it is told, but for a command that is under way: what
    /// was sent can't be called back, and its answer is waited for.
    pub(super) before: Option<watch::Sender<bool>>,
    /// True once another fence of the node has begun.
    pub(super) stopped: watch::Receiver<bool>,
}

impl Turn {
    async fn begins(&self) {
        if let Some(before) = &self.before {
            before.closed().await;
        }
    }

    /// Ends when another fence of the node has begun.
    async fn is_over(&self) {
        // Whoever could tell has gone with the daemon, which ends this task too.
        if self.stopped.clone().wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Works at a fence to its end, for as long as there is time left.
pub(super) async fn work(shared: Arc<Shared>, node: MemberName, job: Job, left: Duration, turn: Turn) {
    let until = Instant::now() + left;
    turn.begins().await;
    let told = AtomicBool::new(job.has_told_off());
    let fence = Fence { shared: &shared, node: &node, job: &job, turn: &turn, told };
    match &job.stage {
        Stage::Cutting => match fence.cut(until).await {
            Ok((level, how)) => {
                let (answer, answered) = oneshot::channel();
                shared
                    .note(Note::Off { node: node.clone(), number: job.number, level, how: how.clone(), answer })
                    .await;
                if answered.await == Ok(true) {
                    let on = fence.restore(Instant::now() + RESTORE_WITHIN).await;
                    shared.over(node.clone(), job.number, Progress::Back { off: how, on }).await;
                }
            }
            Err(why) => {
                warn!(cluster = %shared.name, %node, fence = job.number, "the fence has failed: {why}");
                fence.record(|cluster, _| Event::Failed { cluster, fence: job.number, why: why.clone() });
                shared.over(node.clone(), job.number, Progress::Failed(why)).await;
            }
        },
        Stage::Restoring { off: Some(off) } => {
            let (off, on) = (off.how.clone(), fence.restore(until).await);
            shared.over(node.clone(), job.number, Progress::Back { off, on }).await;
        }
        Stage::Restoring { off: None } => {
            let result = fence.restore(until).await.map_or_else(Progress::Failed, Progress::On);
            shared.over(node.clone(), job.number, result).await;
        }
        Stage::Over { .. } => {}
    }
    fence.record(|cluster, node| Event::Closed { cluster, fence: job.number, node, decided_ms: None });
}

struct Fence<'a> {
    shared: &'a Shared,
    node: &'a MemberName,
    job: &'a Job,
    turn: &'a Turn,
    /// A level was told "off", or may have been by a former process.
    told: AtomicBool,
}

impl Fence<'_> {
    /// The levels of the node's plan, in the order in which they are tried.
    fn levels(&self) -> Vec<Level> {
        self.shared.levels_of(self.node)
    }

    /// Cuts the power. Gives by which level and how it is known that it is cut, or why it is not.
    async fn cut(&self, until: Instant) -> Result<(String, String), String> {
        let levels = self.levels();
        let mut last = format!("{} has no power device", self.node);
        while !levels.is_empty() {
            for level in &levels {
                let turn = if levels.len() > 1 { until.min(Instant::now() + DEVICE_WITHIN) } else { until };
                let device = level.device(&self.shared.audit);
                let watch = Watch::new(self, level, device.name());
                level.want();
                let mut result = self.off(device.as_ref(), turn, &watch).await;
                if result.is_ok()
                    && let Some(soon) = self.job.comes_on_within(unix_ms())
                {
                    self.working("it was told \"on\" a moment ago, and may still come on".to_owned()).await;
                    sleep(soon).await;
                    let turn = until.min(Instant::now() + DEVICE_WITHIN);
                    result = self.off(device.as_ref(), turn, &watch).await;
                }
                match result {
                    Ok(()) => match watch.is_evidence(device.sign()).await {
                        Ok(how) => return Ok((level.name().to_owned(), how)),
                        Err(why) => last = why,
                    },
                    // Another level may show it.
                    Err(PowerOffError::Withdrawn { .. }) if watch.only_looks() => last = watch.withdrawn(),
                    Err(PowerOffError::Withdrawn { .. }) => return Err(watch.withdrawn()),
                    Err(error) => {
                        last = format!("{}/{}: {}", self.node, level.name(), chain(&error));
                        warn!(cluster = %self.shared.name, node = %self.node, device = level.name(), "{last}");
                    }
                }
                self.working(last.clone()).await;
            }
            if Instant::now() + AGAIN >= until {
                break;
            }
            sleep(AGAIN).await;
        }
        Err(last)
    }

    /// Cuts the power by one level. While the switching of power is held, what was told "off" before may still carry it out: it is
    /// looked at, and told nothing.
    async fn off(&self, device: &dyn Device, until: Instant, watch: &Watch<'_>) -> Result<(), PowerOffError> {
        loop {
            match power_off(device, SPACING, until, watch).await {
                Ok(_) => return Ok(()),
                Err(PowerOffError::Withdrawn { .. }) if watch.only_looks() && Instant::now() + HELD_LOOK < until => {
                    self.working(watch.withdrawn()).await;
                    sleep(HELD_LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives power by all of the node's devices, in the reverse of the order in which they cut: that of a supply before that of
    /// what it feeds. Of a level that needs several to be off each has to be on again. One that can't be reached keeps no other
    /// from its turn, and has its own again in the next round: a BMC may answer once its supply has power. Gives how it is
    /// known, or why it can't be.
    async fn restore(&self, until: Instant) -> Result<String, String> {
        let levels = self.levels();
        let mut left: Vec<(&Arc<Managed>, bool)> =
            levels.iter().flat_map(Level::parts).map(|managed| (managed, false)).collect();
        left.reverse();
        let mut on = Err(format!("{} has no power device", self.node));
        while !left.is_empty() {
            let mut failures = Vec::new();
            let mut again = Vec::new();
            for (managed, told) in left {
                match self.give(managed, told, until).await {
                    Given::On(how) => on = Ok(how),
                    Given::NotYet { told, why } => {
                        failures.push(format!("{}/{} could not give the power back: {why}", self.node, managed.name()));
                        again.push((managed, told));
                    }
                    Given::Another => return Err(ANOTHER.to_owned()),
                }
            }
            left = again;
            if !left.is_empty() && Instant::now() + SPACING >= until {
                let why = failures.join("; ");
                warn!(cluster = %self.shared.name, "{why}");
                return Err(why);
            }
            sleep(SPACING).await;
        }
        on
    }

    /// One look at a device, and the command where it is needed and wasn't taken yet.
    async fn give(&self, managed: &Managed, told: bool, until: Instant) -> Given {
        let within = until.min(Instant::now() + COMMAND_WITHIN);
        let device = managed.device();
        let read = tokio::select! {
            biased;
            () = self.turn.is_over() => return Given::Another,
            read = device.state(within) => read,
        };
        match read {
            Ok(PowerState::On) => Given::On(format!("{} reads on", device.name())),
            Ok(PowerState::Off) if told => Given::NotYet { told, why: "it still reads off".to_owned() },
            Ok(PowerState::Off) => match self.shared.may_tell_on(self.node, self.job.number).await {
                Ok(()) => self.tell_on(managed, within).await,
                Err(Barred::Another) => Given::Another,
                Err(Barred::Held(hold)) => Given::NotYet { told, why: self.shared.held(&hold, self.node) },
            },
            Err(error) => Given::NotYet { told, why: chain(&error) },
        }
    }

    async fn tell_on(&self, managed: &Managed, within: Instant) -> Given {
        match managed.device().on(within).await {
            Ok(()) => {
                self.told(managed, "on", "taken", None);
                Given::NotYet { told: true, why: "it still reads off".to_owned() }
            }
            Err(error) => {
                self.told(managed, "on", "unanswered", Some(chain(&error)));
                Given::NotYet { told: false, why: chain(&error) }
            }
        }
    }

    async fn working(&self, what: String) {
        self.shared.note(Note::Working { node: self.node.clone(), number: self.job.number, what }).await;
    }

    fn record(&self, event: impl FnOnce(String, String) -> Event) {
        self.shared.audit.record(event(self.shared.name.to_string(), self.node.to_string()));
    }

    fn told(&self, managed: &Managed, command: &str, result: &str, why: Option<String>) {
        self.record(|cluster, node| Event::Answer {
            cluster,
            node,
            device: managed.name().to_owned(),
            command: command.to_owned(),
            result: result.to_owned(),
            why,
        });
    }
}

/// How far a device is that gives power back.
enum Given {
    /// It reads on: so.
    On(String),
    /// It doesn't, or nobody knows.
    NotYet {
        /// Whether it has taken the command.
        told: bool,
        /// Why.
        why: String,
    },
    /// Another fence of the node has begun.
    Another,
}

/// Looks at the vote before each command, and notes how it goes.
struct Watch<'a> {
    fence: &'a Fence<'a>,
    level: &'a Level,
    /// What its devices are called together.
    device: &'a str,
    /// It read on, before any command of this fence by this level.
    was_on: AtomicBool,
    told: AtomicBool,
    withdrawn: Mutex<Option<Withdrawn>>,
}

/// Why a fence is given up.
enum Withdrawn {
    /// The switching of power is held.
    Held(String),
    /// It isn't this fence's to cut the power any more.
    Lapsed(String),
}

impl<'a> Watch<'a> {
    fn new(fence: &'a Fence<'a>, level: &'a Level, device: &'a str) -> Self {
        let (was_on, told) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { fence, level, device, was_on, told, withdrawn: Mutex::default() }
    }

    async fn may(&self) -> bool {
        let Fence { shared, node, job, turn: _, told } = self.fence;
        loop {
            let why = match shared.right_of_any(&job.partition, node).await {
                Right::Granted { .. } => match shared.may_tell_off(node, job.number, self.level.name()).await {
                    Ok(()) => {
                        self.told.store(true, Ordering::Relaxed);
                        told.store(true, Ordering::Relaxed);
                        return true;
                    }
                    Err(Barred::Another) => Withdrawn::Lapsed(ANOTHER.to_owned()),
                    Err(Barred::Held(hold)) => Withdrawn::Held(shared.held(&hold, node)),
                },
                Right::Open { why } => {
                    self.fence.working(why).await;
                    sleep(LOOK_EVERY).await;
                    continue;
                }
                Right::Member { why } | Right::Refused { why } => Withdrawn::Lapsed(why),
            };
            *self.kept() = Some(why);
            return false;
        }
    }

    fn withdrawn(&self) -> String {
        match (&*self.kept(), self.fence.told.load(Ordering::Relaxed)) {
            (Some(Withdrawn::Held(why)), true) => format!("it was told \"off\" and is not seen off, and {why}"),
            (Some(Withdrawn::Held(why) | Withdrawn::Lapsed(why)), _) => {
                format!("it was given up before a command was sent: {why}")
            }
            (None, _) => "it was given up before a command was sent".to_owned(),
        }
    }

    /// Whether the fence tells nothing more for now, and goes on since it has told something.
    fn only_looks(&self) -> bool {
        self.fence.told.load(Ordering::Relaxed) && matches!(*self.kept(), Some(Withdrawn::Held(_)))
    }

    fn kept(&self) -> MutexGuard<'_, Option<Withdrawn>> {
        self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is known that the node is off, when its devices have read off twice; or why that proves nothing.
    ///
    /// A device that always says off, or is another machine's, must not be believed: it read on while its node was up, or it
    /// was seen by a drill to be this node's and read on before the command. Of several that have to confirm, one that reads on
    /// says nothing of the others: each has to be proven.
    async fn is_evidence(&self, sign: OffSign) -> Result<String, String> {
        let Fence { shared, node, job, turn: _, told: _ } = self.fence;
        let device = self.device;
        let book = shared.book().await;
        let proven = book.is_some_and(|book| self.level.parts().all(|managed| book.is_proven(managed.recipe())));
        let seen_by_drill = shared.devices.drills.of(self.level).is_some();
        let is_drilled = |managed: &Arc<Managed>| managed.recipe().drilled || seen_by_drill;
        let seen = !self.level.is_of_several() && self.was_on.load(Ordering::Relaxed);
        let believed = proven || (seen && self.level.parts().all(is_drilled));
        if !believed {
            return Err(format!(
                "{device} reads off, but that proves nothing: it was never seen to read on while {node} was up, or it isn't \
                 known to be this node's (`tiebreaker-server corosync status` says what is missing)"
            ));
        }
        let grade = match sign {
            OffSign::Bmc => "bmc-off",
            OffSign::Meter => "supply-cut",
            OffSign::Led => "led-off",
            OffSign::Relay => "supply-switched",
            OffSign::Program => "program-off",
        };
        let evidence = format!("{device} read off twice");
        info!(cluster = %shared.name, %node, fence = job.number, grade, "fenced: {evidence}");
        let how = format!("{grade}: {evidence}");
        self.fence.record(|cluster, node| Event::Evidence {
            cluster,
            fence: job.number,
            node,
            grade: grade.to_owned(),
            evidence,
            decided_ms: None,
        });
        Ok(how)
    }
}

impl Overseer for Watch<'_> {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.may())
    }

    fn progress(&self, step: Step) {
        // What each device was told and answered is written down where it is told.
        if step == Step::Read(PowerState::On) && !self.told.load(Ordering::Relaxed) {
            self.was_on.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
