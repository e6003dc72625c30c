//! How a drill goes, from the empty node to the one that is back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tiebreaker_fence::PowerState;
use tiebreaker_member::ask::{DrillState, DrillTimes};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::errors::chain;
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::fence::{Evidence, Fence, FenceId, Progress};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::State;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Marks, Seen};
use crate::audit::Event;
use crate::desk::unix_ms;
use crate::devices::{COMMAND_WITHIN, Devices};
use crate::level::Level;

/// What the cluster is asked to record stands in its state by then.
const RECORDED_WITHIN: Duration = Duration::from_secs(20);
/// The device has switched off, and said so, by then: whatever it needs, two minutes at most, and the reads.
const OFF_WITHIN: Duration = Duration::from_secs(150);
/// The fencer gives the power back within this once it may: a command that was unanswered has to be over first.
const ON_WITHIN: Duration = Duration::from_secs(180);
/// A machine that isn't back by then doesn't come back by itself.
const BACK_WITHIN: Duration = Duration::from_secs(1800);
/// Between two looks at who is heard.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Another node that isn't heard for so long went with the power.
const OTHERS_SILENT: Duration = Duration::from_secs(5);

/// One drill.
pub(super) struct Play {
    pub(super) devices: Devices,
    pub(super) member: MemberHandle,
    pub(super) level: Level,
    pub(super) marks: Arc<Marks>,
    pub(super) dark: Duration,
    pub(super) force: bool,
    /// The node may run something.
    pub(super) busy: bool,
    pub(super) by: String,
}

/// However the drill ends, the fencer may give the power back.
struct GivesPower<'a>(&'a Marks);

impl Drop for GivesPower<'_> {
    fn drop(&mut self) {
        self.0.power.send_replace(true);
    }
}

impl Play {
    pub(super) async fn run(self) {
        let (node, device) = (self.level.node().to_string(), self.level.name().to_owned());
        let played = self.play().await;
        let outcome = played.and_then(|times| {
            let put = self.devices.drills.records.put(&self.level, times.clone());
            put.context("keeping what the drill has shown").map(|()| times)
        });
        let (state, why) = match outcome {
            Ok(times) => {
                info!(node, device, ?times, "a drill has shown that this device is this node's");
                (DrillState::Passed(times), None)
            }
            Err(error) => {
                let why = format!("{error:#}");
                warn!(node, device, why, "a drill has failed");
                (DrillState::Failed { why: why.clone() }, Some(why))
            }
        };
        self.devices.audit.record(Event::Drill {
            cluster: self.level.cluster().to_string(),
            node,
            device,
            by: self.by.clone(),
            passed: why.is_none(),
            why,
        });
        if let Some(current) = self.devices.drills.lock().as_mut() {
            current.report.state = state;
        }
        // From here on what the schedule finds counts again.
        for managed in self.devices.all() {
            managed.renew();
        }
    }

    fn say(&self, words: String) {
        info!(node = %self.level.node(), "drill: {words}");
        if let Some(current) = self.devices.drills.lock().as_mut() {
            current.report.seen.push(words);
        }
    }

    async fn play(&self) -> Result<DrillTimes> {
        let _gives_power = GivesPower(&self.marks);
        let node = self.level.node();
        let ours = self.keep_empty().await?;
        let fence = match self.begin().await {
            Ok(fence) => fence,
            Err(error) => {
                // Nothing was switched: it is as it was.
                self.let_be_used(ours).await;
                return Err(error);
            }
        };
        let left = || {
            if ours {
                format!("{node} stays in maintenance: look at it, then `tiebreaker maintenance {node} off`")
            } else {
                format!("look at {node}")
            }
        };
        let times = self.watch(fence).await.with_context(left)?;
        self.let_be_used(ours).await;
        Ok(times)
    }

    /// Nothing is placed on the node from here on. Whether that is our doing.
    async fn keep_empty(&self) -> Result<bool> {
        let node = self.level.node();
        let state: Arc<State> = self.member.state().borrow().clone();
        let ours = state.nodes.get(node).is_some_and(|node| !node.maintenance);
        if ours {
            let command = Command::SetMaintenance { node: node.clone(), on: true };
            let request =
                if self.force { Request::Force { command, by: self.by.clone() } } else { Request::Propose(command) };
            done(self.member.ask(request).await).context("emptying the node")?;
            self.until(RECORDED_WITHIN, |state| {
                state.nodes.get(node).is_some_and(|node| node.maintenance).then_some(())
            })
            .await
            .context("the node is not in maintenance")?;
        }
        // It was empty, but something may have come to it meanwhile.
        if !self.busy && self.member.state().borrow().owned_by(node).next().is_some() {
            self.let_be_used(ours).await;
            bail!("something was placed on {node} meanwhile: `tiebreaker maintenance {node} on` empties it");
        }
        self.say(format!("{node} is in maintenance, and nothing is placed on it"));
        Ok(ours)
    }

    async fn let_be_used(&self, ours: bool) {
        if !ours {
            return;
        }
        let node = self.level.node();
        let command = Command::SetMaintenance { node: node.clone(), on: false };
        match done(self.member.ask(Request::Propose(command)).await) {
            Ok(()) => self.say(format!("{node} may be used again")),
            Err(error) => {
                self.say(format!("{node} is still in maintenance ({error:#}): `tiebreaker maintenance {node} off`"))
            }
        }
    }

    /// The cluster knows that this device is to be used, and has decided the fence.
    async fn begin(&self) -> Result<(FenceId, String)> {
        let (node, name) = (self.level.node(), self.level.name());
        let first = |state: &State| {
            let first = state.nodes.get(node)?.devices.first()?;
            (first.proven && first.name == name).then_some(())
        };
        self.until(RECORDED_WITHIN, first).await.context("the cluster has not taken the device for the drill")?;
        let boot = self.member.state().borrow().life(node).map(|life| life.boot.clone());
        let boot = boot.with_context(|| format!("{node} is not admitted any more"))?;
        // Without a lease in this life its silence would be proven at once, before its device has shown anything.
        let until = Instant::now() + RECORDED_WITHIN;
        while self.lease_ms().await.unwrap_or(0) == 0 {
            ensure!(Instant::now() < until, "{node} gets no lease");
            sleep(LOOK_EVERY).await;
        }
        // That took a while, and what the device says may be wrong.
        if !self.busy && self.member.state().borrow().owned_by(node).next().is_some() {
            bail!("something was placed on {node} meanwhile: `tiebreaker maintenance {node} on` empties it");
        }
        let by = format!("{}, for a drill of {name}", self.by);
        let first = self.member.state().borrow().next_fence;
        done(self.member.ask(Request::Fence { node: node.clone(), by }).await).context("fencing the node")?;
        let begun = |state: &State| {
            let mut mine = state.fences.iter().filter(|(id, fence)| id.0 >= first && fence.node == *node);
            mine.next().map(|(id, _)| *id)
        };
        let id = self.until(RECORDED_WITHIN, begun).await.context("the fence is not in the state")?;
        self.say(format!("the cluster has decided fence {id}: {node} gets no lease any more"));
        Ok((id, boot))
    }

    /// What is left of the node's lease.
    async fn lease_ms(&self) -> Option<u64> {
        let Reply::Status(status) = self.member.ask(Request::Status).await else { return None };
        status.members.iter().find(|member| member.name == *self.level.node()).and_then(|member| member.lease_ms)
    }

    async fn watch(&self, (id, boot): (FenceId, String)) -> Result<DrillTimes> {
        let (node, name) = (self.level.node(), self.level.name());
        let proof = |state: &State| match &state.fences.get(&id)?.progress {
            Progress::Wanted => None,
            Progress::Fenced { evidence } | Progress::Closed { evidence } => Some(evidence.clone()),
        };
        let evidence = self.until(OFF_WITHIN, proof).await.with_context(|| {
            let failure = |fence: &Fence| fence.last_failure.clone();
            let failure = self.member.state().borrow().fences.get(&id).and_then(failure);
            format!("{name} does not read off: {}", failure.unwrap_or_else(|| "no word of it".to_owned()))
        })?;
        ensure!(device_of(&evidence) == Some(name), "the fence was proven by something else than {name}: {evidence}");
        let off = self.marks.seen.borrow().off;
        let off = off.with_context(|| format!("{name} read off before it was told to switch"))?;
        let off_ms = ms(off.elapsed());
        self.say(format!("{evidence}, {off_ms} ms after it was told"));
        self.stay_dark(off).await?;
        self.marks.power.send_replace(true);
        let mut seen = self.marks.seen.subscribe();
        let told = timeout(ON_WITHIN, seen.wait_for(|seen: &Seen| seen.on.is_some())).await;
        let told = told.ok().and_then(|seen| seen.ok().and_then(|seen| seen.on));
        let told = told.with_context(|| format!("{name} was not told to give the power back: `tiebreaker status`"))?;
        let dark_ms = ms(told.duration_since(off));
        self.say(format!("{name} was told to give the power back"));
        let back = |state: &State| state.life(node).filter(|life| life.boot != boot).map(|_| ());
        self.until(BACK_WITHIN, back).await.with_context(|| format!("{node} did not come back"))?;
        let boot_ms = ms(told.elapsed());
        self.say(format!("{node} is back with a new boot, {boot_ms} ms after that"));
        ensure!(
            boot_ms <= dark_ms,
            "{node} needed {boot_ms} ms to come back and was dark for {dark_ms} ms only: its own reset would look the same. Drill \
             it again with --dark {}",
            boot_ms / 500 + 1
        );
        Ok(DrillTimes { at_ms: unix_ms(), off_ms, dark_ms, boot_ms, grade: evidence.grade().to_owned() })
    }

    /// Nothing of the node is heard while its device reads off, and all of the others are.
    async fn stay_dark(&self, off: Instant) -> Result<()> {
        let (node, name) = (self.level.node(), self.level.name());
        self.say(format!("it stays without power for {} s", self.dark.as_secs()));
        let others: Vec<MemberName> = {
            let state = self.member.state();
            let state = state.borrow();
            let others = state.nodes.keys().filter(|other| *other != node && state.in_service(other));
            others.cloned().collect()
        };
        let mut heard: Vec<(MemberName, Instant)> = others.into_iter().map(|other| (other, Instant::now())).collect();
        let mut silent = false;
        while off.elapsed() < self.dark {
            match (self.member.hears(node), silent) {
                (true, true) => bail!(
                    "{node} came back while {name} reads off: it has its power from elsewhere, so {name} is not its device"
                ),
                (false, false) => {
                    silent = true;
                    self.say(format!("{node} is not heard any more, {} ms after {name} was told", ms(off.elapsed())));
                }
                (true, false) | (false, true) => {}
            }
            for (other, last) in &mut heard {
                if self.member.hears(other) {
                    *last = Instant::now();
                } else if last.elapsed() >= OTHERS_SILENT {
                    bail!("{other} is not heard any more: {name} may have taken its power instead of that of {node}");
                }
            }
            sleep(LOOK_EVERY).await;
        }
        ensure!(silent, "{node} is still heard {} s after {name} was told: it is not its device", self.dark.as_secs());
        let state = self.level.device(&self.devices.audit).state(Instant::now() + COMMAND_WITHIN).await;
        let state = state.map_err(|error| anyhow::anyhow!("{name} can't be read any more: {}", chain(&error)))?;
        ensure!(state == PowerState::Off, "{name} reads on again, and nobody told it to");
        let Reply::Status(status) = self.member.ask(Request::Status).await else {
            bail!("nobody could be asked whether the lease of {node} has ended");
        };
        ensure!(status.leader.is_some(), "nobody leads, so nobody knows whether the lease of {node} has ended");
        let left = status.members.iter().find(|member| member.name == *node).and_then(|member| member.lease_ms);
        ensure!(left.unwrap_or(0) == 0, "the lease of {node} still runs: stay dark for longer, with --dark");
        self.say(format!("its lease has ended, and {name} still reads off"));
        Ok(())
    }

    /// Waits until the state shows something.
    async fn until<T>(&self, within: Duration, look: impl Fn(&State) -> Option<T>) -> Result<T> {
        timeout(within, self.found(look)).await.with_context(|| format!("not within {} s", within.as_secs()))?
    }

    async fn found<T>(&self, look: impl Fn(&State) -> Option<T>) -> Result<T> {
        let mut states = self.member.state();
        loop {
            let found = look(&states.borrow_and_update());
            if let Some(found) = found {
                return Ok(found);
            }
            states.changed().await.context("the cluster has stopped")?;
        }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done { .. } => Ok(()),
        Reply::Void { why } => bail!("{why}"),
        Reply::Refused { why } | Reply::NoLeader { why } => bail!("{why}"),
        other => bail!("the cluster answered something else: {other:?}"),
    }
}

/// The device whose word it is.
fn device_of(evidence: &Evidence) -> Option<&str> {
    match evidence {
        Evidence::BmcOff { device }
        | Evidence::SupplyCut { device }
        | Evidence::LedOff { device }
        | Evidence::SupplySwitched { device }
        | Evidence::ProgramOff { device } => Some(device),
        Evidence::NewBoot { .. } | Evidence::WatchdogTime { .. } | Evidence::Operator { .. } => None,
    }
}
