//! What a node knows and does about one resource.

use std::time::Duration;

use super::OperationId;
use super::OperationKind;
use crate::name::MemberName;
use crate::report::Observed;
use crate::resource::{Class, MoveReason, Phase, Requested, Resource, ResourceSpec};
use crate::rules::Rules;
use crate::time::Reading;

/// A stop that failed is tried again after this long.
const STOP_AGAIN: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Running,
    Stopped,
    Broken(String),
    /// A probe told nothing.
    Unknown(String),
    /// Something has ended since the last probe, or none has ended yet.
    Unprobed(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InFlight {
    pub id: OperationId,
    pub kind: OperationKind,
    pub cancelled: bool,
    /// A probe that began before something that it may have missed, or a move that was called off by a later decision.
    pub stale: bool,
}

/// What the node knows and does about one resource.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub generation: u64,
    /// How it is operated: by the driver that it may be running under.
    pub spec: ResourceSpec,
    /// How it is to be operated once it is stopped, where its driver was changed meanwhile.
    pub next_spec: Option<ResourceSpec>,
    pub seen: Seen,
    pub in_flight: Option<InFlight>,
    pub probe_at: Reading,
    pub failures: u32,
    pub failed_at: Reading,
    pub failed: Option<String>,
    pub stop_failed: Option<String>,
    pub stop_at: Reading,
    /// A live move of this decision is over: what it said.
    pub moved: Option<String>,
    /// That move said that it succeeded.
    pub sent: bool,
    /// It may come here live at any moment.
    pub receiving: bool,
    /// It has come live from there, and the part of the move that is this node's is still to be done.
    pub receives: Option<MemberName>,
    /// It went live to another node, and its stop is still to tidy up here once it has settled there.
    pub tidies: bool,
    /// What the operation before the pending probe complained about.
    pub complaint: Option<String>,
    /// The start or stop that the pending probe looks after.
    pub after: Option<OperationKind>,
}

/// What the applied state wants of a resource on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// It shall run here.
    Up,
    /// It must not run here.
    Down,
    /// It is left as it is.
    Leave,
    /// It may not start here yet: what runs stays, and what is broken goes down, or nobody would ever see it stopped.
    Hold,
    /// It shall move live to that node.
    Send(MemberName),
    /// It comes here live, or may come: it is left as it is, but guarded.
    Receive,
}

impl Wish {
    pub fn of(resource: &Resource, me: &MemberName) -> Self {
        match &resource.phase {
            Phase::New | Phase::Ignored => Self::Leave,
            Phase::Placed { node } if node == me && resource.locked.is_some() => Self::Leave,
            Phase::Placed { node } if node == me => match resource.requested {
                Requested::Started if resource.held => Self::Hold,
                Requested::Started => Self::Up,
                Requested::Stopped | Requested::Disabled => Self::Down,
                Requested::Ignored => Self::Leave,
            },
            Phase::Migrating { from, why: MoveReason::Failed { .. }, .. } if from == me => Self::Leave,
            Phase::Migrating { from, to, .. } if from == me => {
                let go = resource.requested == Requested::Started && !resource.held;
                if go { Self::Send(to.clone()) } else { Self::Leave }
            }
            Phase::Migrating { to, .. } if to == me => Self::Receive,
            Phase::Error { node: Some(node), .. } if node == me => Self::Leave,
            Phase::Placed { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }
            | Phase::Error { .. } => Self::Down,
        }
    }
}

/// The place of a resource among all: who starts later has the higher rank, and is stopped earlier.
pub(super) const fn rank(spec: &ResourceSpec) -> (Class, u32) {
    (spec.class, spec.order)
}

impl Work {
    pub fn new(now: Reading, resource: &Resource) -> Self {
        Self {
            generation: resource.generation,
            spec: resource.spec.clone(),
            next_spec: None,
            seen: Seen::Unprobed("not probed yet"),
            in_flight: None,
            probe_at: now,
            failures: 0,
            failed_at: now,
            failed: None,
            stop_failed: None,
            stop_at: now,
            moved: None,
            sent: false,
            receiving: matches!(resource.phase, Phase::Migrating { .. }),
            receives: None,
            tidies: false,
            complaint: None,
            after: None,
        }
    }

    /// Takes a new configuration. Its driver waits until the resource is proven stopped by the old one: the new one's
    /// probe may look at something else, and call stopped what still runs.
    pub fn take_spec(&mut self, spec: &ResourceSpec, anew: bool) {
        let at_rest = self.in_flight.is_none() && self.seen == Seen::Stopped;
        if anew || at_rest || self.spec.driver == spec.driver {
            self.spec = spec.clone();
            self.next_spec = None;
        } else {
            self.spec = ResourceSpec { driver: self.spec.driver.clone(), ..spec.clone() };
            self.next_spec = Some(spec.clone());
        }
    }

    /// What was seen up to now counts no more, nor does a probe that is under way.
    pub fn look_afresh(&mut self, now: Reading, why: &'static str) {
        self.seen = Seen::Unprobed(why);
        self.probe_at = now;
        if let Some(probe) = self.in_flight.as_mut().filter(|op| op.kind == OperationKind::Probe) {
            probe.stale = true;
        }
    }

    /// Takes over from a new decision what is left to do of a live move. That its source stops what has gone is part of
    /// the contract of OCF agents; nothing rests on it, so an agent that restarts meanwhile forgets it.
    pub fn follow_a_move(&mut self, resource: &Resource, me: &MemberName) {
        let owner = match &resource.phase {
            Phase::Placed { node } => Some(node),
            Phase::New
            | Phase::Releasing { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }
            | Phase::Error { .. }
            | Phase::Ignored => None,
        };
        let sent = std::mem::take(&mut self.sent) && resource.arriving.as_ref() == Some(me);
        self.tidies = (sent || self.tidies) && owner.is_some_and(|owner| owner != me);
        self.receives = resource.arriving.clone().filter(|_| owner == Some(me));
        // A move that goes on although it was called off has nothing to say about the decision that came after it.
        let goes_on = matches!(&resource.phase, Phase::Migrating { from, .. } if from == me);
        if let Some(op) = self.in_flight.as_mut().filter(|op| op.kind == OperationKind::Migrate) {
            op.stale |= !goes_on;
        }
    }

    /// True while an operation is under way that changes what runs.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some_and(|op| op.kind != OperationKind::Probe)
    }

    /// It has died, or was found broken.
    pub fn fails(&mut self, now: Reading, why: String) {
        self.failures += 1;
        self.failed_at = now;
        let restarts = match self.spec.class {
            Class::Protected | Class::Unprotected => self.spec.max_restart,
            Class::BestEffort => self.spec.max_restart.min(1),
        };
        if self.failures > restarts {
            self.failed = Some(why);
        }
    }

    /// A start of it has failed. What is best-effort has one attempt, whatever its restarts.
    pub fn start_fails(&mut self, now: Reading, why: String) {
        match self.spec.class {
            Class::Protected | Class::Unprotected => self.fails(now, why),
            Class::BestEffort => {
                self.failures += 1;
                self.failed_at = now;
                self.failed = Some(why);
            }
        }
    }

    pub fn stop_fails(&mut self, now: Reading, why: String) {
        self.stop_failed = Some(why);
        self.stop_at = now.after(STOP_AGAIN);
    }

    pub fn observed(&self, rules: Rules) -> Observed {
        if rules.operations_in_flight_count() {
            match self.in_flight.map(|op| op.kind) {
                Some(OperationKind::Start | OperationKind::Receive) => return Observed::Starting,
                Some(OperationKind::Stop) => return Observed::Stopping,
                Some(OperationKind::Migrate) => return Observed::Moving,
                Some(OperationKind::Probe) | None => {}
            }
        }
        match (&self.seen, &self.stop_failed, &self.failed) {
            (Seen::Stopped, _, Some(why)) => Observed::Failed { why: why.clone() },
            (Seen::Stopped, _, None) if self.sent => Observed::Sent,
            (Seen::Stopped, _, None) => Observed::Stopped,
            // It is here, and its move isn't finished.
            (Seen::Running, None, _) if self.receives.is_some() => Observed::Starting,
            (_, Some(why), _) => Observed::StopFailed { why: why.clone() },
            (Seen::Running, None, _) => match &self.moved {
                Some(why) => Observed::MoveFailed { why: why.clone() },
                None => Observed::Running,
            },
            // Broken or not, after the end of its move it is here.
            (Seen::Broken(why), None, _) if self.moved.is_some() => Observed::MoveFailed { why: why.clone() },
            (Seen::Broken(why) | Seen::Unknown(why), None, _) => Observed::Unknown { why: why.clone() },
            // How the move ended isn't known before the probe after it.
            (Seen::Unprobed(_), None, _) if self.moved.is_some() => Observed::Moving,
            (Seen::Unprobed(why), None, _) => Observed::Unknown { why: (*why).to_owned() },
        }
    }
}
