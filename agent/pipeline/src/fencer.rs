//! The appliance's side of fencing: it works the power devices for the fences that it has *applied*, reads linearizably
//! before each command that switches, and says when no command can still land.
//!
//! Off, confirmed off by two fresh reads, on later. Never a cycle, never success by an exit code. While an operator holds the
//! switching of power it goes on looking, and gives no command that switches; one that was given already is not called back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::fence::{Evidence, FenceId, OffSign, Progress};
use crate::name::MemberName;
use crate::rules::Rules;
use crate::state::State;
use crate::time::Reading;

/// Time between two reads of the power state.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node that isn't off this long after the command counts as a failure of the device.
pub const OFF_WITHIN: Duration = Duration::from_secs(30);
/// A failed device is tried again after this long.
pub const AGAIN: Duration = Duration::from_secs(3);
/// A command without an answer may still land for this long.
pub const LANDS_WITHIN: Duration = Duration::from_secs(60);
/// While the switching of power is held, a device that was to be switched is looked at this often.
pub const HELD_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A proposal or read without a result is repeated after this long.
const REPEAT: Duration = Duration::from_secs(1);
/// A proof is proposed this often: the leader takes it as soon as every other node has been heard again.
const PROVE_EVERY: Duration = Duration::from_millis(250);
/// A proof that didn't count within this time is old: the device is read again.
const FRESH: Duration = Duration::from_secs(1);

/// What a device is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceCommand {
    /// Read the power state, freshly.
    Look,
    /// Switch off.
    Off,
    /// Switch on.
    On,
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceResult {
    /// The state was read.
    IsOn,
    /// The state was read.
    IsOff {
        /// What stands behind that.
        sign: OffSign,
    },
    /// The device took the command.
    Taken,
    /// It refused, or the command certainly never reached it.
    Refused {
        /// Why.
        why: String,
    },
    /// No answer: it may have been carried out, or be carried out later.
    Unanswered {
        /// What was tried.
        why: String,
    },
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The read of this token is done, and everything up to it is applied; or it failed.
    ReadDone(u64, bool),
    /// The command of this token is done.
    CommandDone(u64, DeviceResult),
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read linearizably, apply up to there, then say [`Event::ReadDone`].
    Read(u64),
    /// Work a device.
    Command {
        /// Names the command.
        token: u64,
        /// For which fence.
        fence: FenceId,
        /// Whose device.
        node: MemberName,
        /// Which one.
        device: String,
        /// What to do.
        command: DeviceCommand,
    },
    /// Propose this.
    Propose(Command),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Waits, then looks or, after a confirmed fence, goes on.
    Wait { until: Reading, then: DeviceCommand },
    /// Reads linearizably before a command that switches.
    Reading { token: u64, until: Reading, then: DeviceCommand },
    /// A device works.
    Working { token: u64, command: DeviceCommand },
    /// `Fenced` is proposed.
    Proving { until: Reading, fresh_until: Reading, evidence: Evidence },
    /// What read off reads on: the node came back, or the device is another machine's. Nothing more is touched.
    /// Reading goes on no more either: a switch that somebody works by hand could otherwise still prove the fence. That an
    /// operator has to look is said again at `tell`, until it stands in the state.
    Doubting { tell: Option<Reading> },
    /// Only the closing is left.
    Closing { from: Reading },
}

#[derive(Clone, Debug)]
struct Job {
    node: MemberName,
    devices: Vec<String>,
    device: usize,
    step: Step,
    offs_seen: u32,
    /// A device has read off twice.
    was_off: bool,
    off_by: Option<Reading>,
    /// Until then an unanswered command may land.
    lands_until: Option<Reading>,
    /// Until then an "off" that a device took may still be carried out. That the device reads off is no proof that it was:
    /// the power may be gone for another reason, and the command lands when it returns.
    taken: BTreeMap<usize, Reading>,
    /// The devices that were told "off" and have to be told "on".
    switched: BTreeSet<usize>,
}

/// The appliance's fencing state machine.
#[derive(Clone, Debug)]
pub struct Fencer {
    jobs: BTreeMap<FenceId, Job>,
    /// Fences up to this log index may have had commands of an earlier process.
    inherited: u64,
    next_token: u64,
    /// When it last looked.
    looked: Reading,
    actions: VecDeque<Action>,
    rules: Rules,
}

impl Fencer {
    /// A fencer without jobs. Open fences are taken up from the state on the first [`Fencer::advance`]. `inherited` is
    /// the last index of the log when the process started: commands that an earlier process gave for fences up to there
    /// count as unanswered, because nobody knows.
    #[must_use]
    pub fn new(inherited: u64, rules: Rules) -> Self {
        Self {
            jobs: BTreeMap::new(),
            inherited,
            next_token: 1,
            looked: Reading::default(),
            actions: VecDeque::new(),
            rules,
        }
    }

    /// True while a device of this node is being worked: proofs must wait.
    #[must_use]
    pub fn works_on(&self, node: &MemberName) -> bool {
        self.jobs.values().any(|job| job.node == *node)
    }

    /// Nothing may be decided by the state at the moment: every fence is begun afresh later, and commands that were given
    /// up to the entry at `applied` count as unanswered.
    pub fn stand_down(&mut self, applied: u64) {
        self.jobs.clear();
        self.actions.clear();
        self.inherited = self.inherited.max(applied);
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Reading, state: &State, event: Event) {
        match event {
            Event::ReadDone(token, ok) => self.read_done(now, state, token, ok),
            Event::CommandDone(token, result) => self.command_done(now, state, token, result),
        }
        self.advance(now, state);
    }

    /// Looks at the applied state and the time.
    pub fn advance(&mut self, now: Reading, state: &State) {
        self.looked = now;
        for (id, fence) in state.fences.iter().filter(|(_, fence)| fence.is_open()) {
            if !self.jobs.contains_key(id) {
                let known = state.nodes.get(&fence.node).map_or(&[][..], |node| &node.devices);
                let devices: Vec<String> = known.iter().filter(|d| d.proven).map(|d| d.name.clone()).collect();
                // A device that isn't proven any more may have been when the earlier process used it.
                let inherited = fence.wanted_at <= self.inherited && !known.is_empty();
                let lands_until = inherited.then(|| now.after(LANDS_WITHIN));
                // Nor does anybody know what the earlier process switched off, and "on" hurts nobody.
                let switched = if inherited { (0..devices.len()).collect() } else { BTreeSet::new() };
                let job = Job {
                    node: fence.node.clone(),
                    devices,
                    device: 0,
                    step: Step::Wait { until: now, then: DeviceCommand::Look },
                    offs_seen: 0,
                    was_off: false,
                    off_by: None,
                    lands_until,
                    taken: BTreeMap::new(),
                    switched,
                };
                self.jobs.insert(*id, job);
            }
        }
        self.jobs.retain(|id, _| state.fences.get(id).is_some_and(crate::fence::Fence::is_open));
        let ids: Vec<FenceId> = self.jobs.keys().copied().collect();
        for id in ids {
            self.step(now, state, id);
        }
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Fencer::advance`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Reading> {
        self.jobs
            .values()
            .filter_map(|job| match &job.step {
                Step::Wait { .. } if job.devices.is_empty() => None,
                // What waits for both clocks looks again now and then, once one has come.
                Step::Wait { until, .. } if self.looked.reached_on_either(*until) => {
                    Some(self.looked.after(LOOK_EVERY))
                }
                Step::Wait { until, .. } => Some(*until),
                Step::Reading { until, .. } => Some(*until),
                Step::Proving { until, fresh_until, .. } => Some(until.earlier_of(*fresh_until)),
                Step::Doubting { tell } => *tell,
                Step::Working { .. } => None,
                Step::Closing { from } if self.looked.reached_on_either(*from) => Some(self.looked.after(LOOK_EVERY)),
                Step::Closing { from } => Some(*from),
            })
            .reduce(Reading::earlier_of)
    }

    fn token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        token
    }

    fn step(&mut self, now: Reading, state: &State, id: FenceId) {
        let proven = matches!(state.fences.get(&id).map(|f| &f.progress), Some(Progress::Fenced { .. }));
        let token = self.token();
        let rules = self.rules;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut out = Vec::new();
        match &job.step {
            // Whatever proved the fence: what is under way is waited for, then the node is given its power back.
            Step::Wait { .. } | Step::Proving { .. } | Step::Doubting { .. } | Step::Reading { .. }
                if proven && !matches!(&job.step, Step::Reading { then: DeviceCommand::On, .. }) =>
            {
                job.after_proof(now, id, token, state, &mut out);
            }
            Step::Wait { until, then } => {
                if now.reached_on_either(*until) && !job.devices.is_empty() {
                    let then = *then;
                    if switches(then) && state.settings.hold.is_some() {
                        // It may be switched off by somebody else meanwhile.
                        job.step = Step::Wait { until: now.after(HELD_LOOK_EVERY), then: DeviceCommand::Look };
                    } else if then == DeviceCommand::Look || !rules.devices_need_a_fresh_read() {
                        job.begin(id, token, then, &mut out);
                    } else {
                        job.step = Step::Reading { token, until: now.after(REPEAT), then };
                        out.push(Action::Read(token));
                    }
                }
            }
            Step::Reading { until, then, .. } => {
                if now.reached_on_either(*until) {
                    job.step = Step::Reading { token, until: now.after(REPEAT), then: *then };
                    out.push(Action::Read(token));
                }
            }
            Step::Working { .. } => {}
            Step::Doubting { tell } => {
                let said = state.fences.get(&id).and_then(|fence| fence.last_failure.as_deref());
                let tell = match *tell {
                    _ if said == Some(CAME_BACK) => None,
                    Some(at) if !now.reached_on_either(at) => Some(at),
                    Some(_) | None => {
                        out.push(Action::Propose(Command::FenceFailed { id, why: CAME_BACK.to_owned() }));
                        Some(now.after(REPEAT))
                    }
                };
                job.step = Step::Doubting { tell };
            }
            Step::Proving { fresh_until, .. } if now.reached_on_either(*fresh_until) => {
                job.offs_seen = 0;
                job.begin(id, token, DeviceCommand::Look, &mut out);
            }
            Step::Proving { until, fresh_until, evidence } => {
                if now.reached_on_either(*until) {
                    let (fresh_until, evidence) = (*fresh_until, evidence.clone());
                    out.push(Action::Propose(Command::Fenced { id, evidence: evidence.clone() }));
                    job.step = Step::Proving { until: now.after(PROVE_EVERY), fresh_until, evidence };
                }
            }
            Step::Closing { from } => {
                let from = *from;
                job.close(now, id, from, &mut out);
            }
        }
        self.actions.extend(out);
    }

    fn read_done(&mut self, now: Reading, state: &State, token: u64, ok: bool) {
        let next = self.token();
        let Some((id, job)) =
            self.jobs.iter_mut().find(|(_, job)| matches!(&job.step, Step::Reading { token: t, .. } if *t == token))
        else {
            return;
        };
        let Step::Reading { then, .. } = job.step else { return };
        if !ok {
            return;
        }
        // The read showed everything that was decided until now: is this command still wanted?
        let progress = state.fences.get(id).map(|fence| &fence.progress);
        let wanted = match then {
            DeviceCommand::Off => matches!(progress, Some(Progress::Wanted)),
            DeviceCommand::On => matches!(progress, Some(Progress::Fenced { .. })),
            DeviceCommand::Look => true,
        };
        let wanted = wanted && !(switches(then) && state.settings.hold.is_some());
        let mut out = Vec::new();
        if wanted {
            job.begin(*id, next, then, &mut out);
        } else {
            job.step = Step::Wait { until: now, then: DeviceCommand::Look };
        }
        self.actions.extend(out);
    }

    fn command_done(&mut self, now: Reading, state: &State, token: u64, result: DeviceResult) {
        let Some((id, job)) =
            self.jobs.iter_mut().find(|(_, job)| matches!(&job.step, Step::Working { token: t, .. } if *t == token))
        else {
            return;
        };
        let Step::Working { command, .. } = job.step else { return };
        let mut out = Vec::new();
        let result = if is_readable(state, &result) { result } else { DeviceResult::Refused { why: OLD.to_owned() } };
        job.result(now, *id, command, result, &mut out);
        self.actions.extend(out);
    }
}

/// Why a device that read off is worked no more: only an operator, or the node itself, can say what became of it.
pub const CAME_BACK: &str = "it read off and reads on again: nothing more is touched; look at the machine, then \
     `tiebreaker fence confirm NODE` if it is off";

/// Why a device proves nothing in a cluster that hasn't raised its level yet.
const OLD: &str =
    "it reads off, and not every member knows what that proves: a member runs an older version, update it";

/// Whether a command changes anything at the device.
const fn switches(command: DeviceCommand) -> bool {
    match command {
        DeviceCommand::Look => false,
        DeviceCommand::Off | DeviceCommand::On => true,
    }
}

/// Whether every member could read the evidence that this result gives.
fn is_readable(state: &State, result: &DeviceResult) -> bool {
    match result {
        DeviceResult::IsOff { sign } => Evidence::read_off(*sign, String::new()).known_from() <= state.level,
        DeviceResult::IsOn | DeviceResult::Taken | DeviceResult::Refused { .. } | DeviceResult::Unanswered { .. } => {
            true
        }
    }
}

impl Job {
    fn begin(&mut self, fence: FenceId, token: u64, command: DeviceCommand, out: &mut Vec<Action>) {
        let Some(device) = self.devices.get(self.device).cloned() else { return };
        self.step = Step::Working { token, command };
        out.push(Action::Command { token, fence, node: self.node.clone(), device, command });
    }

    fn result(
        &mut self,
        now: Reading,
        id: FenceId,
        command: DeviceCommand,
        result: DeviceResult,
        out: &mut Vec<Action>,
    ) {
        if command == DeviceCommand::Off && !matches!(result, DeviceResult::Refused { .. }) {
            self.switched.insert(self.device);
        }
        match (command, result) {
            (DeviceCommand::Look, DeviceResult::IsOff { sign }) => {
                self.offs_seen += 1;
                if self.offs_seen >= 2 {
                    let device = self.devices.get(self.device).cloned().unwrap_or_default();
                    let evidence = Evidence::read_off(sign, device);
                    self.was_off = true;
                    self.step = Step::Proving { until: now, fresh_until: now.after(FRESH), evidence };
                } else {
                    self.step = Step::Wait { until: now.after(LOOK_EVERY), then: DeviceCommand::Look };
                }
            }
            (DeviceCommand::Look, DeviceResult::IsOn) => {
                self.offs_seen = 0;
                match self.off_by {
                    _ if self.was_off => {
                        // Another off would hit a node that came back by itself, or another machine once more.
                        out.push(Action::Propose(Command::FenceFailed { id, why: CAME_BACK.to_owned() }));
                        self.step = Step::Doubting { tell: Some(now.after(REPEAT)) };
                    }
                    None => self.step = Step::Wait { until: now, then: DeviceCommand::Off },
                    Some(by) if now.reached_on_either(by) => {
                        let why = "it took the command and still reads on".to_owned();
                        self.fails(now, id, why, out);
                    }
                    Some(_) => self.step = Step::Wait { until: now.after(LOOK_EVERY), then: DeviceCommand::Look },
                }
            }
            (DeviceCommand::Off, DeviceResult::Taken) => {
                let by = now.after(OFF_WITHIN);
                self.off_by = Some(by);
                self.taken.insert(self.device, by);
                self.step = Step::Wait { until: now.after(LOOK_EVERY / 2), then: DeviceCommand::Look };
            }
            (DeviceCommand::On, result) => {
                // A late "on" hurts nobody, but a device that didn't take it is not in order.
                let why = match result {
                    DeviceResult::Taken => None,
                    DeviceResult::Refused { why } | DeviceResult::Unanswered { why } => Some(why),
                    DeviceResult::IsOn | DeviceResult::IsOff { .. } => Some("it answered something else".to_owned()),
                };
                if let Some(why) = why {
                    out.push(Action::Propose(Command::FenceFailed { id, why: format!("power on: {why}") }));
                }
                self.switched.remove(&self.device);
                self.step = Step::Wait { until: now, then: DeviceCommand::On };
            }
            (DeviceCommand::Off, result) => {
                // What it did with the command is anybody's guess, but where it refused.
                let why = match result {
                    DeviceResult::Refused { why } => why,
                    DeviceResult::Unanswered { why } => {
                        self.lands_until = Some(now.after(LANDS_WITHIN));
                        why
                    }
                    DeviceResult::Taken | DeviceResult::IsOn | DeviceResult::IsOff { .. } => {
                        self.lands_until = Some(now.after(LANDS_WITHIN));
                        "it answered something else".to_owned()
                    }
                };
                self.fails(now, id, why, out);
            }
            (DeviceCommand::Look, DeviceResult::Refused { why } | DeviceResult::Unanswered { why }) => {
                self.fails(now, id, why, out);
            }
            (DeviceCommand::Look, DeviceResult::Taken) => {
                self.fails(now, id, "it answered something else".to_owned(), out);
            }
        }
    }

    /// From when on no command of this fence can still be carried out.
    fn nothing_lands_from(&self, now: Reading) -> Reading {
        self.taken.values().copied().chain(self.lands_until).fold(now, Reading::later_of)
    }

    fn fails(&mut self, now: Reading, id: FenceId, why: String, out: &mut Vec<Action>) {
        out.push(Action::Propose(Command::FenceFailed { id, why }));
        self.offs_seen = 0;
        self.off_by = None;
        // Where a device has read off already, the next one is no way on: what is wrong may be whose device it is.
        let last = self.was_off || self.device + 1 >= self.devices.len();
        if !self.was_off {
            self.device = if last { 0 } else { self.device + 1 };
        }
        let until = if last { now.after(AGAIN) } else { now };
        self.step = Step::Wait { until, then: DeviceCommand::Look };
    }

    /// The fence is proven: power on again what this job switched off, then close.
    fn after_proof(&mut self, now: Reading, id: FenceId, token: u64, state: &State, out: &mut Vec<Action>) {
        let from = self.nothing_lands_from(now);
        let Some(device) = self.switched.first().copied() else {
            self.close(now, id, from, out);
            return;
        };
        if state.settings.hold.is_some() {
            // The node stays off, and its fence open, until that is over.
            self.step = Step::Wait { until: now.after(HELD_LOOK_EVERY), then: DeviceCommand::On };
        } else if now.reached_on_both(from) {
            self.device = device;
            self.step = Step::Reading { token, until: now.after(REPEAT), then: DeviceCommand::On };
            out.push(Action::Read(token));
        } else {
            // An "off" that lands after the "on" would leave the node off for good.
            self.step = Step::Wait { until: from, then: DeviceCommand::On };
        }
    }

    /// Proposes the closing once `from` has come on both clocks.
    fn close(&mut self, now: Reading, id: FenceId, from: Reading, out: &mut Vec<Action>) {
        let reached = now.reached_on_both(from);
        if reached {
            out.push(Action::Propose(Command::Closed { id }));
        }
        self.step = Step::Closing { from: if reached { now.after(REPEAT) } else { from } };
    }
}

#[cfg(test)]
mod tests;
