//! A node's side: it renews its lease, arms its watchdog before anything protected runs, and closes the difference
//! between the placements that it has applied and what really runs.
//!
//! It acts only with a valid lease and an applied index not behind the grant's commit index. At the end of its lease,
//! not before, it cancels starts and stops everything; the watchdog is for the rest.

mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fence::{FenceId, Progress};
use crate::level::Level;
use crate::name::{MemberName, ResourceName};
use crate::profile::{RENEW_EVERY, RENEW_RETRY};
use crate::report::{Answer, Capacity, LeaseVerdict, Leave, Observed, Refusal, Renew, Report, Usage, WatchdogPromise};
use crate::resource::{Class, Phase, ResourceSpec};
use crate::rules::Rules;
use crate::state::{LeavePolicy, Leaving, State};
use crate::time::Reading;
use work::{InFlight, Seen, Wish, Work, rank};

/// Renewals whose answers may still count.
const SENT_MAX: usize = 32;
/// A probe that told nothing is repeated after this long.
const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// A watchdog that couldn't be armed or disarmed is tried again after this long.
const GUARD_AGAIN: Duration = Duration::from_secs(2);
/// A node whose watchdog couldn't be armed so often in a row says that it can't run what is placed on it.
const GUARD_TRIES: u32 = 3;
/// Why a live move didn't begin.
const NOT_BEGUN: &str =
    "its lease is newer than the word to begin, and whether the target still guards it is not known";

/// Names one operation of one agent start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OperationId(pub u64);

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Starts a resource.
    Start,
    /// Stops it.
    Stop,
    /// Asks whether it runs.
    Probe,
    /// Moves it live to another node.
    Migrate,
    /// Finishes a live move at its target, once the resource is gone from its source.
    Receive,
}

/// How a start or stop ended. None of these says what runs: only a probe does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its program said that it succeeded.
    Done,
    /// Its program failed, was killed at its deadline, or was cancelled.
    Failed {
        /// What happened.
        why: String,
    },
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It runs.
    Running,
    /// It doesn't run.
    Stopped,
    /// It runs, or half runs, and is broken: it must be stopped before it can be started.
    Broken {
        /// What is wrong.
        why: String,
    },
    /// No answer that can be trusted. Counts as running.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Something that happened on the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Operations of an earlier agent are dead; probing may begin.
    LeftoversKilled,
    /// A member answered a renewal.
    Answered(Answer),
    /// A start or stop ended.
    Ended(OperationId, Outcome),
    /// A probe ended.
    Probed(OperationId, Found),
    /// The watchdog is armed; or it can't be, for this reason.
    Armed(Result<(), String>),
    /// The watchdog is disarmed; or it can't be, for this reason.
    Disarmed(Result<(), String>),
    /// The members heard lately, by any path.
    Hears(BTreeSet<MemberName>),
    /// The agent or its machine is about to go: wait for [`Action::MayGo`], with a deadline.
    Leaving(Leave),
    /// The cluster goes on without this node, in a new epoch: an operator gave his word there that it is off.
    TakenOver,
    /// What the resources were measured to use lately.
    Used(BTreeMap<ResourceName, Usage>),
}

/// Something for the shell to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this to the leader, ahead of everything else; over every path if `everywhere`.
    Renew {
        /// The renewal.
        renew: Renew,
        /// The first copy was not answered in time.
        everywhere: bool,
    },
    /// The lease now ends here: tell the watchdog's feeder.
    Extend(Reading),
    /// Arm the watchdog.
    Arm,
    /// Disarm the watchdog: nothing protected runs.
    Disarm,
    /// Begin an operation.
    Begin {
        /// Its name.
        id: OperationId,
        /// On which resource.
        resource: ResourceName,
        /// What to do.
        kind: OperationKind,
        /// How.
        spec: ResourceSpec,
        /// The other end, if it moves live.
        target: Option<MemberName>,
    },
    /// Kill an operation; its end is still reported.
    Cancel(OperationId),
    /// This life is to be fenced: reset the machine now.
    ResetSelf(FenceId),
    /// The cluster was taken over elsewhere, and something may run here: reset the machine now.
    ResetParted,
    /// This life has ended in the log and never comes back: end this agent, so that a new start of it asks anew.
    StartAnew,
    /// The cluster has agreed that this agent goes, and nothing is in its way any more.
    MayGo,
}

/// Whether the watchdog is armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guard {
    Off,
    Arming,
    Armed,
    Disarming,
}

/// Why the watchdog can't be armed or disarmed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Trouble {
    why: String,
    tries: u32,
    again: Reading,
}

/// Nothing is left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rest {
    /// As long as the state stands at this index.
    applied: u64,
    /// Until then.
    until: Reading,
}

/// What is to be done about a resource at once.
enum Due<'a> {
    /// What is under way is in the way.
    Cancel(OperationId),
    /// Something begins.
    Begin { kind: OperationKind, wish: Wish, work: &'a mut Work },
}

/// What a new agent brings along.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: MemberName,
    /// Which start of the agent this is.
    pub incarnation: u64,
    /// The kernel's boot id.
    pub boot: String,
    /// The promise; `None` without a watchdog.
    pub watchdog: Option<WatchdogPromise>,
    /// The machine's UUID, if it has one.
    pub machine: Option<String>,
    /// An earlier agent of this boot left the watchdog armed.
    pub armed: bool,
    /// What the machine has to give.
    pub capacity: Capacity,
    /// Milliseconds from power-on to this agent, if it is the first of its boot.
    pub booted_in_ms: Option<u64>,
    /// Which rules hold.
    pub rules: Rules,
}

/// The node's state machine.
#[derive(Clone, Debug)]
pub struct Node {
    config: NodeConfig,
    /// What it tells of the feature levels that it knows.
    level: Level,
    seq: u64,
    sent: BTreeMap<u64, Reading>,
    renew_at: Reading,
    retry: Option<(Renew, Reading)>,
    term: u64,
    lease_end: Option<Reading>,
    must_apply: u64,
    /// What was in the log when this lease began: anything after that was decided while it held.
    lease_from: u64,
    refused: Option<Refusal>,
    leases_lost: u64,
    had_lease: bool,
    ready: bool,
    guard: Guard,
    guard_trouble: Option<Trouble>,
    /// It knows everything that an earlier agent of this boot may have reported as running behind the armed watchdog.
    knows_all: bool,
    hears: BTreeSet<MemberName>,
    leaving: Option<Leave>,
    may_go: bool,
    usage: BTreeMap<ResourceName, Usage>,
    work: BTreeMap<ResourceName, Work>,
    next_operation: u64,
    reset: bool,
    /// The cluster goes on without this node.
    parted: bool,
    started: Reading,
    /// Until then a starting agent without a lease leaves alone what runs.
    adopt_until: Reading,
    /// When it last looked: what was due by then needs no further wake-up.
    looked: Reading,
    /// Nothing was left to do at the last look: at the state of which index, and until when that holds.
    rest: Option<Rest>,
    actions: VecDeque<Action>,
}

impl Node {
    /// A starting agent.
    #[must_use]
    pub fn new(now: Reading, config: NodeConfig) -> Self {
        let guard = if config.armed { Guard::Armed } else { Guard::Off };
        Self {
            knows_all: !config.armed,
            config,
            level: Level::KNOWN,
            seq: 0,
            sent: BTreeMap::new(),
            renew_at: now,
            retry: None,
            term: 0,
            lease_end: None,
            must_apply: 0,
            lease_from: 0,
            refused: None,
            leases_lost: 0,
            had_lease: false,
            ready: false,
            guard,
            guard_trouble: None,
            hears: BTreeSet::new(),
            leaving: None,
            may_go: false,
            usage: BTreeMap::new(),
            work: BTreeMap::new(),
            next_operation: 1,
            reset: false,
            parted: false,
            looked: now,
            rest: None,
            started: now,
            adopt_until: now,
            actions: VecDeque::new(),
        }
    }

    /// The same with another highest feature level: that of an older or newer version.
    #[must_use]
    pub fn knowing(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// The end of the lease, if there ever was one.
    #[must_use]
    pub const fn lease_end(&self) -> Option<Reading> {
        self.lease_end
    }

    /// True while the lease holds.
    #[must_use]
    pub fn has_lease(&self, now: Reading) -> bool {
        self.lease_end.is_some_and(|end| {
            if self.config.rules.lease_ends_on_either_clock() {
                !now.reached_on_either(end)
            } else {
                now.boottime_ns < end.boottime_ns
            }
        })
    }

    /// Why the last renewal was refused.
    #[must_use]
    pub const fn refused(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    /// How often a lease has run out since the agent started.
    #[must_use]
    pub const fn leases_lost(&self) -> u64 {
        self.leases_lost
    }

    /// Why the watchdog can't be armed or disarmed, if so.
    #[must_use]
    pub fn guard_trouble(&self) -> Option<&str> {
        self.guard_trouble.as_ref().map(|trouble| trouble.why.as_str())
    }

    /// True while the watchdog is armed, or may be.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        match self.guard {
            Guard::Armed | Guard::Disarming => true,
            Guard::Off | Guard::Arming => false,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Reading, state: &State, event: Event) {
        match event {
            Event::LeftoversKilled => self.ready = true,
            Event::Answered(answer) => self.answered(now, answer),
            Event::Ended(id, outcome) => self.ended(now, id, outcome),
            Event::Probed(id, found) => self.probed(now, state, id, found),
            Event::Armed(Ok(())) => {
                self.guard = Guard::Armed;
                self.guard_trouble = None;
            }
            Event::Armed(Err(why)) => {
                self.guard = Guard::Off;
                self.trouble(now, why);
            }
            Event::Disarmed(Ok(())) => {
                self.guard = Guard::Off;
                self.guard_trouble = None;
            }
            Event::Disarmed(Err(why)) => {
                self.guard = Guard::Armed;
                self.trouble(now, why);
            }
            Event::Hears(hears) => self.hears = hears,
            Event::Leaving(how) => {
                self.leaving = Some(how);
                self.renew_now(now);
            }
            Event::TakenOver => self.parted = true,
            Event::Used(usage) => self.usage = usage,
        }
        self.advance(now, state);
    }

    /// Looks at the time, as [`Node::advance`] does, where the state is known to be the same as at the last look if its
    /// index is: it is called far more often than anything is to be done.
    pub fn look(&mut self, now: Reading, state: &State) {
        let rests = self.rest.is_some_and(|rest| rest.applied == state.applied && !now.reached_on_either(rest.until));
        if rests {
            debug_assert!(self.would_rest(now, state), "a node that rests has something to do");
        } else {
            self.advance(now, state);
        }
    }

    /// What [`Node::look`] relies on: a full look would change nothing.
    fn would_rest(&self, now: Reading, state: &State) -> bool {
        let mut twin = self.clone();
        twin.advance(now, state);
        twin.rest == self.rest && twin.leases_lost == self.leases_lost
    }

    /// Looks at the time and at the applied state; call it after every change of either.
    pub fn advance(&mut self, now: Reading, state: &State) {
        self.looked = now;
        self.rest = None;
        if self.parted {
            self.part(now, state);
            return;
        }
        self.adopt_until = self.started.after(state.settings.profile.lost_after());
        self.mind_own_fence(state);
        self.follow(now, state);
        self.close_the_difference(now, state);
        self.mind_the_guard(now, state);
        self.mind_the_going(state);
        self.renew(now, state);
        // Without that rule the end of the lease is no deadline of either clock.
        if self.actions.is_empty() && self.config.rules.lease_ends_on_either_clock() {
            self.rest = self.poll_timeout().map(|until| Rest { applied: state.applied, until });
        }
    }

    /// True once the cluster goes on without this node, and nothing that it protected runs here.
    #[must_use]
    pub fn is_parted(&self) -> bool {
        let unguarded = self.guard == Guard::Off || self.guard_trouble.is_some() || !self.knows_all;
        let stopped = self.work.values().all(|work| work.seen == Seen::Stopped && !work.is_busy());
        self.parted && self.ready && unguarded && stopped
    }

    /// A term that consensus has seen: grants of lower ones are void.
    pub fn saw_term(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// A renewal went to somebody who doesn't lead: ask again at once.
    pub fn renew_now(&mut self, now: Reading) {
        self.rest = None;
        self.renew_at = self.renew_at.earlier_of(now);
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Node::advance`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Reading> {
        if let Some(rest) = self.rest {
            return Some(rest.until);
        }
        let mut next = self.renew_at;
        let mut at = |other: Reading| next = next.earlier_of(other);
        if let Some((_, retry_at)) = &self.retry {
            at(*retry_at);
        }
        // What was due at the last look was dealt with, or waits for something other than time.
        let mut ahead = |other: Reading| {
            if !self.looked.reached_on_either(other) {
                at(other);
            }
        };
        if let Some(end) = self.lease_end.filter(|_| self.had_lease) {
            ahead(end);
        }
        if self.lease_end.is_none() {
            ahead(self.adopt_until);
        }
        if let Some(trouble) = &self.guard_trouble {
            ahead(trouble.again);
        }
        for work in self.work.values().filter(|work| work.in_flight.is_none()) {
            ahead(work.probe_at);
            ahead(work.stop_at);
        }
        Some(next)
    }

    /// What the node reports, as of the applied state.
    #[must_use]
    pub fn report(&self, state: &State) -> Report {
        let rules = self.config.rules;
        let unguarded = self.guard_trouble.as_ref().filter(|t| self.is_unguarded() && t.tries >= GUARD_TRIES);
        let resources = state
            .resources
            .iter()
            .filter(|(_, resource)| resource.phase != Phase::Ignored)
            .map(|(name, resource)| {
                let observed = match self.work.get(name) {
                    None => Observed::Unknown { why: "not probed yet".into() },
                    Some(work) => work.observed(rules),
                };
                // It will not be started here for want of a watchdog: whoever can run it should have it.
                let observed = match (observed, unguarded) {
                    (Observed::Stopped, Some(trouble)) if Wish::of(resource, &self.config.name) == Wish::Up => {
                        Observed::Failed { why: format!("the watchdog can't be armed: {}", trouble.why) }
                    }
                    (observed, _) => observed,
                };
                (name.clone(), observed)
            })
            .collect();
        Report {
            applied: state.applied,
            resources,
            hears: self.hears.clone(),
            armed: match self.guard {
                Guard::Armed => true,
                // Nothing ran, or nothing was bound, when that began: it may be off before this is read.
                Guard::Disarming => !self.config.rules.armed_is_not_disarming(),
                Guard::Off | Guard::Arming => false,
            },
            leases_lost: self.leases_lost,
            leaving: self.leaving,
            trouble: self.guard_trouble.as_ref().map(|trouble| trouble.why.clone()),
            usage: self.used(),
        }
    }

    /// What was measured of what runs here. Of anything else, what an operation leaves for a moment says nothing.
    fn used(&self) -> BTreeMap<ResourceName, Usage> {
        let runs = |name: &ResourceName| self.work.get(name).is_some_and(|work| work.seen == Seen::Running);
        self.usage.iter().filter(|(name, _)| runs(name)).map(|(name, usage)| (name.clone(), *usage)).collect()
    }

    fn renew(&mut self, now: Reading, state: &State) {
        if let Some((renew, at)) = self.retry.take() {
            if now.reached_on_either(at) {
                self.actions.push_back(Action::Renew { renew, everywhere: true });
            } else {
                self.retry = Some((renew, at));
            }
        }
        if !now.reached_on_either(self.renew_at) {
            return;
        }
        self.seq += 1;
        let renew = Renew {
            seq: self.seq,
            term: self.term,
            incarnation: self.config.incarnation,
            boot: self.config.boot.clone(),
            watchdog: self.config.watchdog.clone(),
            machine: self.config.machine.clone(),
            capacity: self.config.capacity,
            booted_in_ms: self.config.booted_in_ms,
            level: self.level,
            report: self.report(state),
        };
        self.sent.insert(self.seq, now);
        while self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        self.renew_at = now.after(RENEW_EVERY);
        self.retry = Some((renew.clone(), now.after(RENEW_RETRY)));
        self.actions.push_back(Action::Renew { renew, everywhere: false });
    }

    fn answered(&mut self, now: Reading, answer: Answer) {
        if answer.incarnation != self.config.incarnation || self.parted {
            return;
        }
        if answer.term < self.term && self.config.rules.old_terms_are_ignored() {
            return;
        }
        if let LeaseVerdict::NotLeader { .. } = answer.verdict {
            return;
        }
        self.term = self.term.max(answer.term);
        if self.retry.as_ref().is_some_and(|(renew, _)| renew.seq <= answer.seq) {
            self.retry = None;
        }
        match answer.verdict {
            LeaseVerdict::Granted { ttl_ms, commit } => {
                let Some(sent) = self.sent.get(&answer.seq) else {
                    return;
                };
                let end = sent.after(Duration::from_millis(ttl_ms));
                if !self.has_lease(now) {
                    self.lease_from = commit;
                }
                let end = self.lease_end.map_or(end, |old| old.later_of(end));
                self.refused = None;
                self.lease_end = Some(end);
                self.must_apply = self.must_apply.max(commit);
                if self.has_lease(now) {
                    self.had_lease = true;
                    self.actions.push_back(Action::Extend(end));
                }
            }
            LeaseVerdict::Refused { why } => self.refused = Some(why),
            LeaseVerdict::NotLeader { .. } => {}
        }
    }

    /// The word that counted there said that this machine is off, so what runs here may be running there too: there is no
    /// time to stop it in good order. Where nothing is known to run, it is looked at first.
    fn part(&mut self, now: Reading, state: &State) {
        self.lease_end = None;
        self.retry = None;
        self.renew_at = now.after(RENEW_EVERY);
        if self.reset || !self.ready {
            return;
        }
        self.follow(now, state);
        let may_run = self.work.values().any(|work| match &work.seen {
            Seen::Running | Seen::Broken(_) | Seen::Unknown(_) => true,
            Seen::Stopped | Seen::Unprobed(_) => work.is_busy(),
        });
        if may_run {
            self.reset = true;
            self.actions.push_back(Action::ResetParted);
            return;
        }
        for (name, work) in &mut self.work {
            if work.in_flight.is_some() || work.seen == Seen::Stopped {
                continue;
            }
            let id = OperationId(self.next_operation);
            self.next_operation += 1;
            work.in_flight = Some(InFlight { id, kind: OperationKind::Probe, cancelled: false, stale: false });
            let (resource, spec) = (name.clone(), work.spec.clone());
            self.actions.push_back(Action::Begin { id, resource, kind: OperationKind::Probe, spec, target: None });
        }
        let stopped = self.work.values().all(|work| work.seen == Seen::Stopped);
        // What an earlier agent of this boot knew may be more than this one does: then the watchdog is for that.
        if stopped && self.knows_all && self.guard == Guard::Armed && self.guard_trouble.is_none() {
            self.guard = Guard::Disarming;
            self.actions.push_back(Action::Disarm);
        }
    }

    /// A life that learns of its own fence resets itself at once; so does a later agent on the same boot. One that learns
    /// only afterwards that it has ended makes way for a new start of the agent.
    fn mind_own_fence(&mut self, state: &State) {
        if self.reset {
            return;
        }
        if let Some((id, fence)) = state.open_fence(&self.config.name)
            && fence.boot == self.config.boot
            && matches!(fence.progress, Progress::Wanted)
        {
            self.reset = true;
            self.actions.push_back(Action::ResetSelf(id));
            return;
        }
        let ended = state.nodes.get(&self.config.name).is_some_and(|node| {
            let mine = node.life.as_ref().is_some_and(|life| life.incarnation == self.config.incarnation);
            node.last_incarnation >= self.config.incarnation && !mine
        });
        if ended && !self.has_left(state) {
            self.reset = true;
            self.actions.push_back(Action::StartAnew);
        }
    }

    /// How this very agent goes, as the cluster has agreed to it.
    fn agreed<'a>(&self, state: &'a State) -> Option<&'a Leaving> {
        let leaving = state.nodes.get(&self.config.name)?.leaving.as_ref()?;
        (leaving.incarnation == self.config.incarnation).then_some(leaving)
    }

    /// True once this life is over because its agent goes.
    fn has_left(&self, state: &State) -> bool {
        self.agreed(state).is_some() && state.life(&self.config.name).is_none()
    }

    /// True while this node is bound by its lease. It is not where the cluster has disarmed, nor where the agent alone
    /// restarts: nothing of it is started elsewhere then but on better evidence than its watchdog's time.
    fn is_bound(&self, now: Reading, state: &State) -> bool {
        let restarts = self.agreed(state).is_some_and(|leaving| leaving.how == Leave::AgentRestart);
        // An earlier agent of this boot went in good order, and this one isn't admitted yet; or this one has neither a
        // lease nor an armed watchdog that it could have told of: nobody believes its promise then.
        let told = match self.guard {
            Guard::Arming | Guard::Armed => true,
            Guard::Off | Guard::Disarming => self.has_lease(now),
        };
        let suspended = state.life(&self.config.name).is_some_and(|life| {
            let earlier = life.incarnation < self.config.incarnation;
            let this = life.incarnation == self.config.incarnation && !told;
            life.boot == self.config.boot && life.unbound.is_some() && (earlier || this)
        });
        state.settings.arming.binds() && !restarts && !suspended
    }

    /// Says once that the agent may go.
    fn mind_the_going(&mut self, state: &State) {
        if self.may_go {
            return;
        }
        let unguarded = self.config.watchdog.is_none() || self.guard == Guard::Off;
        let may_go = match self.agreed(state).map(|leaving| leaving.how) {
            Some(Leave::AgentRestart) => unguarded && !self.work.values().any(Work::is_busy),
            // A cluster that is disarmed stops nothing, so its machines go down as any other does. Nothing of this one is
            // started elsewhere: its life goes on in the log, and the cluster can't be armed before it is heard again.
            Some(Leave::Reboot | Leave::PowerOff) if !state.settings.arming.binds() => {
                unguarded && !self.work.values().any(Work::is_busy)
            }
            Some(Leave::Reboot | Leave::PowerOff) => self.has_left(state) && unguarded,
            None => false,
        };
        if may_go {
            self.may_go = true;
            self.actions.push_back(Action::MayGo);
        }
    }

    /// True where every resource of the state is known under its last decision, and no other: both go by name.
    fn follows(&self, state: &State) -> bool {
        let managed = state.resources.iter().filter(|(_, resource)| resource.phase != Phase::Ignored);
        let known = self.work.iter().map(|(name, work)| (name, work.generation));
        managed.map(|(name, resource)| (name, resource.generation)).eq(known)
    }

    /// Takes over what the applied state says about each resource.
    fn follow(&mut self, now: Reading, state: &State) {
        if self.follows(state) {
            return;
        }
        let managed =
            |name: &ResourceName| state.resources.get(name).is_some_and(|resource| resource.phase != Phase::Ignored);
        self.work.retain(|name, work| managed(name) || work.in_flight.is_some());
        for (name, resource) in state.resources.iter().filter(|(_, resource)| resource.phase != Phase::Ignored) {
            match self.work.get_mut(name) {
                None => {
                    let mut work = Work::new(now, resource);
                    work.follow_a_move(resource, &self.config.name);
                    self.work.insert(name.clone(), work);
                }
                Some(work) if work.generation != resource.generation => {
                    work.generation = resource.generation;
                    work.take_spec(&resource.spec, matches!(resource.phase, Phase::New));
                    work.failures = 0;
                    work.failed = None;
                    work.stop_failed = None;
                    work.moved = None;
                    work.follow_a_move(resource, &self.config.name);
                    // What was last seen here may be older than its arrival.
                    if work.receiving && self.config.rules.a_failed_move_ends_on_a_fresh_look() {
                        work.look_afresh(now, "not probed since it may have come here live");
                    }
                    work.receiving = Wish::of(resource, &self.config.name) == Wish::Receive;
                    // Who asks anew wants a fresh look: what was seen before the decision proves nothing about it.
                    if matches!(resource.phase, Phase::New) {
                        work.look_afresh(now, "not probed since it was added");
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// True while this node may act on what it has applied.
    fn may_act(&self, now: Reading, state: &State) -> bool {
        let caught_up = state.applied >= self.must_apply || !self.config.rules.executor_waits_for_the_commit_index();
        self.ready
            && !self.reset
            && self.has_lease(now)
            && caught_up
            && state.life(&self.config.name).is_some_and(|life| life.incarnation == self.config.incarnation)
    }

    /// True while a starting agent waits for its first lease and leaves alone what an earlier one started: an agent's
    /// restart must not touch workloads. That is safe because nothing is petted meanwhile: the watchdog that the earlier
    /// agent armed counts on from a pet within that agent's lease. Whoever promised a watchdog that isn't armed, or has
    /// waited for so long that the leader takes the node for lost, stops what runs.
    fn is_adopting(&self, now: Reading) -> bool {
        let guarded = self.config.watchdog.is_none() || matches!(self.guard, Guard::Armed);
        self.lease_end.is_none() && guarded && !now.reached_on_either(self.adopt_until)
    }

    /// True while a watchdog is promised that couldn't be armed.
    fn is_unguarded(&self) -> bool {
        let off = match self.guard {
            Guard::Off | Guard::Arming => true,
            Guard::Armed | Guard::Disarming => false,
        };
        self.config.watchdog.is_some() && off && self.guard_trouble.is_some()
    }

    fn trouble(&mut self, now: Reading, why: String) {
        let tries = self.guard_trouble.as_ref().map_or(0, |trouble| trouble.tries) + 1;
        self.guard_trouble = Some(Trouble { why, tries, again: now.after(GUARD_AGAIN) });
    }

    fn close_the_difference(&mut self, now: Reading, state: &State) {
        if !self.ready {
            return;
        }
        let may_act = self.may_act(now, state);
        let lease = self.has_lease(now);
        if !lease && self.had_lease {
            self.had_lease = false;
            self.leases_lost += 1;
        }
        let guarded = self.config.watchdog.is_none() || matches!(self.guard, Guard::Armed);
        let adopting = self.is_adopting(now);
        let unguarded = self.is_unguarded();
        let bound = self.is_bound(now, state);
        let going = self.going_down(state);
        // It may have said already that nothing runs here any more.
        let leaves = self.agreed(state).is_some_and(|leaving| leaving.how != Leave::AgentRestart)
            && self.config.rules.who_leaves_starts_nothing();
        let me = &self.config.name;
        let mut due = Vec::new();
        for (name, work) in &mut self.work {
            let wish = match (bound, lease, &going) {
                (false, _, _) => Wish::Leave,
                (true, false, _) if adopting => Wish::Leave,
                (true, false, _) => Wish::Down,
                // Planned: one order after the other.
                (true, true, Some(last)) if rank(&work.spec) == *last => Wish::Down,
                (true, true, Some(_)) => Wish::Leave,
                (true, true, None) => state.resources.get(name).map_or(Wish::Leave, |resource| Wish::of(resource, me)),
            };
            // What runs against the promise, or by a driver that is not the configured one any more, goes down first.
            let wish = if wish == Wish::Up && (unguarded || work.next_spec.is_some()) { Wish::Down } else { wish };
            // Where it went it has settled.
            let tidy = work.tidies && state.resources.get(name).is_some_and(|resource| resource.arriving.is_none());
            if let Some(in_flight) = &mut work.in_flight {
                // A start whose lease or placement is gone is cancelled; its end is awaited all the same. So is a probe
                // that may hang for longer than the watchdog waits, while what it looks after has to be stopped; but not
                // the one that tells whether the stop did it, or a slow probe would make a stop that failed of each.
                let in_the_way = match in_flight.kind {
                    OperationKind::Start | OperationKind::Migrate | OperationKind::Receive => true,
                    OperationKind::Probe => {
                        let tells = work.after == Some(OperationKind::Stop);
                        !lease && !adopting && !tells && work.seen != Seen::Stopped
                    }
                    OperationKind::Stop => false,
                };
                if in_the_way && wish == Wish::Down && !in_flight.cancelled {
                    in_flight.cancelled = true;
                    due.push((rank(&work.spec), name, Due::Cancel(in_flight.id)));
                }
                continue;
            }
            let kind = match (&work.seen, &wish) {
                // Whoever is being fenced may be up again, unguarded and not admitted, and would take it.
                (Seen::Running, Wish::Send(to))
                    if work.moved.is_none() && may_act && guarded && state.open_fence(to).is_none() =>
                {
                    let stale = state.resources.get(name).is_none_or(|resource| resource.since <= self.lease_from);
                    if stale && self.config.rules.moves_begin_while_the_targets_guard_is_fresh() {
                        work.moved = Some(NOT_BEGUN.to_owned());
                        None
                    } else {
                        Some(OperationKind::Migrate)
                    }
                }
                (Seen::Running, Wish::Up) if work.receives.is_some() && may_act && guarded => {
                    Some(OperationKind::Receive)
                }
                (Seen::Stopped, Wish::Up) if work.failed.is_none() && may_act && guarded && !leaves => {
                    Some(if work.receives.is_some() { OperationKind::Receive } else { OperationKind::Start })
                }
                (Seen::Stopped, Wish::Down) if tidy && may_act => {
                    work.tidies = false;
                    Some(OperationKind::Stop)
                }
                (Seen::Stopped, _) => None,
                (Seen::Running | Seen::Unknown(_), Wish::Down) | (Seen::Broken(_), Wish::Down | Wish::Up)
                    if now.reached_on_either(work.stop_at) && (may_act || !lease) =>
                {
                    Some(OperationKind::Stop)
                }
                (Seen::Running | Seen::Broken(_) | Seen::Unknown(_) | Seen::Unprobed(_), _) => None,
            };
            let kind = kind.or_else(|| now.reached_on_either(work.probe_at).then_some(OperationKind::Probe));
            if let Some(kind) = kind {
                due.push((rank(&work.spec), name, Due::Begin { kind, wish, work }));
            }
        }
        // Reverse order, so that what came up last goes down first.
        due.sort_by(|(rank, name, _), (other, another, _)| (other, another).cmp(&(rank, name)));
        for (_, name, due) in due {
            let action = match due {
                Due::Cancel(id) => Action::Cancel(id),
                Due::Begin { kind, wish, work } => {
                    let id = OperationId(self.next_operation);
                    self.next_operation += 1;
                    work.in_flight = Some(InFlight { id, kind, cancelled: false, stale: false });
                    if kind != OperationKind::Probe {
                        work.after = Some(kind);
                    }
                    if kind == OperationKind::Stop {
                        // What had come is gone: nothing of its move can be finished any more.
                        work.receives = None;
                    }
                    let target = match wish {
                        Wish::Send(to) if kind == OperationKind::Migrate => Some(to),
                        Wish::Up if kind == OperationKind::Receive => work.receives.take(),
                        Wish::Send(_) | Wish::Up | Wish::Down | Wish::Leave | Wish::Receive => None,
                    };
                    Action::Begin { id, resource: name.clone(), kind, spec: work.spec.clone(), target }
                }
            };
            self.actions.push_back(action);
        }
    }

    /// While the machine goes and its resources are to stop here: the rank that stops next.
    fn going_down(&self, state: &State) -> Option<(Class, u32)> {
        let leaving = self.agreed(state)?;
        let stops = match (leaving.how, leaving.policy) {
            (Leave::AgentRestart, _) | (_, LeavePolicy::Migrate) => false,
            (Leave::Reboot | Leave::PowerOff, LeavePolicy::Freeze | LeavePolicy::Failover) => true,
        };
        if !stops {
            return None;
        }
        let up = self.work.values().filter(|work| work.seen != Seen::Stopped || work.is_busy());
        // With everything down nothing comes up again.
        Some(up.map(|work| rank(&work.spec)).max().unwrap_or((Class::Unprotected, u32::MAX)))
    }

    /// Armed before anything protected may run, disarmed as soon as nothing does. What this agent has applied may be less
    /// than what an earlier one of this boot had, so a watchdog that was found armed stays armed until this agent has acted
    /// on a grant once: else what the earlier one had reported could run on unguarded, and unknown.
    fn mind_the_guard(&mut self, now: Reading, state: &State) {
        if self.config.watchdog.is_none() || !self.ready {
            return;
        }
        let me = &self.config.name;
        let may_act = self.may_act(now, state);
        self.knows_all |= may_act;
        // What was found running is guarded too, whoever started it: it may be about to be placed here.
        // So is what can't be told, once a probe has come back with nothing; not while one is just looking.
        let runs = || {
            self.work.values().any(|work| match work.seen {
                Seen::Running | Seen::Broken(_) => true,
                Seen::Unknown(_) => work.in_flight.is_none_or(|op| op.kind != OperationKind::Probe),
                Seen::Stopped | Seen::Unprobed(_) => false,
            })
        };
        let placed = || {
            state.resources.values().any(|resource| match Wish::of(resource, me) {
                Wish::Up | Wish::Send(_) | Wish::Receive => true,
                Wish::Down | Wish::Leave => false,
            })
        };
        // What comes here live comes whether or not this node may act at the moment.
        let comes = || {
            self.config.rules.what_may_come_is_guarded()
                && state.resources.values().any(|resource| Wish::of(resource, me) == Wish::Receive)
        };
        let bound = self.is_bound(now, state);
        let wanted = bound && may_act && (runs() || placed());
        // What once was in the way is nobody's business while nobody relies on the watchdog: it is tried anew.
        if !bound && self.guard == Guard::Off {
            self.guard_trouble = None;
        }
        let try_now = self.guard_trouble.as_ref().is_none_or(|trouble| now.reached_on_either(trouble.again));
        let busy = || bound && (self.work.values().any(|work| work.seen != Seen::Stopped || work.is_busy()) || comes());
        // Whoever is about to hear more of the log may be about to start something.
        let behind = self.has_lease(now) && state.applied < self.must_apply;
        match self.guard {
            Guard::Off if wanted && try_now => {
                self.guard = Guard::Arming;
                self.actions.push_back(Action::Arm);
            }
            Guard::Armed if !wanted && !behind && !busy() && try_now && self.knows_all => {
                self.guard = Guard::Disarming;
                self.actions.push_back(Action::Disarm);
            }
            Guard::Off | Guard::Armed | Guard::Arming | Guard::Disarming => {}
        }
    }

    fn ended(&mut self, now: Reading, id: OperationId, outcome: Outcome) {
        let probes_count = self.config.rules.stopped_is_what_a_probe_says();
        let sent_is_probed = self.config.rules.what_was_sent_is_probed();
        for work in self.work.values_mut() {
            let Some(in_flight) = work.in_flight.filter(|op| op.id == id) else { continue };
            work.in_flight = None;
            work.probe_at = now;
            if in_flight.cancelled {
                // Whoever cancelled it wants it down: no failure of the resource.
                work.after = None;
            }
            work.complaint = match &outcome {
                Outcome::Done => None,
                Outcome::Failed { why } => Some(why.clone()),
            };
            work.seen = match in_flight.kind {
                OperationKind::Stop if !probes_count && outcome == Outcome::Done => Seen::Stopped,
                OperationKind::Migrate => {
                    let said = work.complaint.take();
                    work.sent = said.is_none() && !in_flight.cancelled && !in_flight.stale;
                    work.after = None;
                    let success = || "the move reported success, but it still runs here".into();
                    work.moved = (!in_flight.stale).then(|| said.unwrap_or_else(success));
                    if work.sent && !sent_is_probed {
                        Seen::Stopped
                    } else {
                        Seen::Unprobed("a move has ended, its probe is due")
                    }
                }
                OperationKind::Start | OperationKind::Stop | OperationKind::Receive => {
                    Seen::Unprobed("an operation has ended, its probe is due")
                }
                OperationKind::Probe => Seen::Unknown("the probe was cut off".into()),
            };
        }
    }

    fn probed(&mut self, now: Reading, state: &State, id: OperationId, found: Found) {
        let lease = self.has_lease(now);
        let me = &self.config.name;
        let probed = self.work.iter_mut().find(|(_, work)| work.in_flight.is_some_and(|op| op.id == id));
        if let Some((name, work)) = probed {
            if work.in_flight.take().is_some_and(|op| op.stale) {
                work.probe_at = now;
                return;
            }
            let wish = state.resources.get(name).map_or(Wish::Leave, |resource| Wish::of(resource, me));
            let up = wish == Wish::Up;
            let after = work.after.take();
            let tried_to_stop = after == Some(OperationKind::Stop);
            let tried_to_start = matches!(after, Some(OperationKind::Start | OperationKind::Receive));
            let complaint = work.complaint.take();
            work.probe_at = now.after(Duration::from_millis(work.spec.monitor_every_ms));
            if now.since_at_least(work.failed_at) > state.settings.failures_age() {
                work.failures = 0;
            }
            match found {
                Found::Running => {
                    if tried_to_stop {
                        let why = complaint.unwrap_or_else(|| "the stop reported success, but it still runs".into());
                        work.stop_fails(now, why);
                    } else if lease && wish != Wish::Down {
                        // The lease whose end asked for that stop has come back: nobody wants it stopped any more.
                        work.stop_failed = None;
                        work.stop_at = now;
                    }
                    work.seen = Seen::Running;
                }
                Found::Stopped => {
                    work.stop_failed = None;
                    let died = matches!(work.seen, Seen::Running);
                    work.seen = Seen::Stopped;
                    if let Some(spec) = work.next_spec.take() {
                        work.spec = spec;
                        work.seen = Seen::Unprobed("not probed by its new driver yet");
                        work.probe_at = now;
                    } else if up && tried_to_start {
                        let why = complaint.unwrap_or_else(|| "the start reported success, but it doesn't run".into());
                        work.start_fails(now, why);
                    } else if up && died {
                        work.fails(now, "it died".into());
                    }
                }
                Found::Broken { why } => {
                    if tried_to_stop {
                        work.stop_fails(now, why.clone());
                    } else if up && tried_to_start {
                        work.start_fails(now, why.clone());
                    } else if up {
                        work.fails(now, why.clone());
                    }
                    work.seen = Seen::Broken(why);
                }
                Found::Unknown { why } => {
                    if tried_to_stop {
                        work.stop_fails(now, why.clone());
                    } else {
                        // The next probe that tells something still judges the start.
                        (work.after, work.complaint) = (after, complaint);
                    }
                    work.seen = Seen::Unknown(why);
                    work.probe_at = now.after(PROBE_AGAIN);
                }
            }
        }
    }
}

impl OperationKind {
    /// The operation as a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Probe => "probe",
            Self::Migrate => "migrate",
            Self::Receive => "receive",
        }
    }
}

#[cfg(test)]
mod tests;
