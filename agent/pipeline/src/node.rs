//! A node's side: it renews its lease, arms its watchdog before anything protected runs, and closes the difference
//! between the placements that it has applied and what really runs.
//!
//! It acts only with a valid lease and an applied index not behind the grant's commit index. At the end of its lease,
//! not before, it cancels starts and stops everything; the watchdog is for the rest.

mod going;
mod guard;
mod lease;
mod operation;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::fence::FenceId;
use crate::level::Level;
use crate::name::{MemberName, ResourceName};
use crate::report::{Answer, Capacity, Leave, Refusal, Renew, Usage, WatchdogPromise};
use crate::resource::{Class, Phase, ResourceSpec};
use crate::rules::Rules;
use crate::state::{LeavePolicy, State};
use crate::time::Reading;
use guard::{Guard, Trouble};
pub use operation::{Found, OperationId, OperationKind, Outcome};
use work::{InFlight, Seen, Wish, Work, rank};

/// A probe that told nothing is repeated after this long.
const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// Why a live move didn't begin.
const NOT_BEGUN: &str =
    "its lease is newer than the word to begin, and whether the target still guards it is not known";

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
                (Seen::Running | Seen::Unknown(_), Wish::Down)
                | (Seen::Broken(_), Wish::Down | Wish::Up | Wish::Hold)
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
                        Wish::Send(_) | Wish::Up | Wish::Down | Wish::Leave | Wish::Hold | Wish::Receive => None,
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

#[cfg(test)]
mod tests;
