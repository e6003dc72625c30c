//! Settings, placement rules, and whether the cluster acts at all.

use crate::command::{Setting, Void};
use crate::decision::Decision;
use crate::fence::Fence;
use crate::level::Level;
use crate::name::RuleName;
use crate::placement::rule::{PlacementRule, RULES_MAX};
use crate::resource::{MoveReason, Phase, Requested};
use crate::state::{Arming, DisarmMode, FAILURES_AGE_MAX_S, FAILURES_AGE_MIN_S, Hold, MOVES_MAX, REASON_MAX, State};

/// Votes can be left out for so long at most, in milliseconds: a day.
const FEWER_VOTES_MAX_MS: u64 = 24 * 3_600_000;

impl State {
    pub(super) fn set(&mut self, at: u64, setting: Setting) -> Result<(), Void> {
        let settings = &mut self.settings;
        match setting.clone() {
            Setting::Shutdown(policy) => settings.shutdown = policy,
            Setting::Placement(mode) => settings.placement = mode,
            Setting::Rebalance(on) => settings.rebalance = on,
            Setting::Tolerate(failures) => settings.tolerate = failures,
            Setting::Moves { most, force } => {
                let asked = most.unwrap_or(1);
                if asked == 0 || (asked > MOVES_MAX && !force) {
                    let why =
                        format!("{asked} planned moves at once are not allowed: use 1 to {MOVES_MAX}, or force it");
                    return Err(Void::BadSpec { why });
                }
                settings.moves = most;
            }
            Setting::OrderDelay { class, seconds } => {
                if seconds > 3_600 {
                    let why = format!("{seconds} s between two orders are too long: use 0 to 3600");
                    return Err(Void::BadSpec { why });
                }
                settings.order_delay_s.insert(class, seconds);
            }
            Setting::FewerVotes(fewer) => {
                if let Some(fewer) = &fewer {
                    if let Some(name) = fewer.without.iter().find(|name| !self.members.contains_key(*name)) {
                        return Err(Void::Unknown { name: name.to_string() });
                    }
                    if fewer.until_ms <= at || fewer.until_ms > at.saturating_add(FEWER_VOTES_MAX_MS) {
                        let why = "votes can be left out until a moment within the next 24 h".to_owned();
                        return Err(Void::BadSpec { why });
                    }
                    if fewer.without.len() >= self.members.len() {
                        return Err(Void::BadSpec { why: "somebody has to vote".into() });
                    }
                }
                self.settings.fewer_votes = fewer;
            }
            Setting::FailuresAge(age) => {
                if self.level < Level::STARTS_ARE_LOOKED_AT {
                    let why =
                        "a member runs an older version, which counts failures for an hour: update all of them first";
                    return Err(Void::BadSpec { why: why.into() });
                }
                if age.is_some_and(|age| !(FAILURES_AGE_MIN_S..=FAILURES_AGE_MAX_S).contains(&age)) {
                    let why =
                        "failures can be forgotten after a minute at the earliest, and after 30 days at the latest";
                    return Err(Void::BadSpec { why: why.into() });
                }
                self.settings.failures_age_s = age;
            }
            Setting::Hold { by, reason } => self.hold(at, by, reason)?,
            Setting::Release { .. } => {
                if self.settings.hold.take().is_none() {
                    return Err(Void::BadSpec { why: "the switching of power isn't held: nothing to release".into() });
                }
            }
        }
        self.say(at, Decision::Set { setting });
        Ok(())
    }

    fn hold(&mut self, at_ms: u64, by: String, reason: Option<String>) -> Result<(), Void> {
        // The appliance might be the one that doesn't know what this means.
        if self.level < Level::POWER_CAN_BE_HELD {
            let why = "a member runs an older version, which may not know what holding means: update all of them first";
            return Err(Void::BadSpec { why: why.into() });
        }
        if [Some(&by), reason.as_ref()].into_iter().flatten().any(|text| text.chars().count() > REASON_MAX) {
            return Err(Void::BadSpec { why: format!("a reason has {REASON_MAX} characters at most") });
        }
        if let Some(hold) = &self.settings.hold {
            return Err(Void::BadSpec { why: format!("the switching of power is {hold}: nothing to do") });
        }
        self.settings.hold = Some(Hold { by, reason, at_ms });
        Ok(())
    }

    pub(super) fn set_rule(&mut self, at: u64, name: RuleName, rule: PlacementRule) -> Result<(), Void> {
        rule.check().map_err(|error| Void::BadSpec { why: error.to_string() })?;
        if self.placement_rules.len() >= RULES_MAX && !self.placement_rules.contains_key(&name) {
            return Err(Void::Full { what: "placement rules".into(), most: RULES_MAX });
        }
        self.placement_rules.insert(name.clone(), rule);
        self.say(at, Decision::Rule { name, set: true });
        Ok(())
    }

    pub(super) fn remove_rule(&mut self, at: u64, name: RuleName) -> Result<(), Void> {
        if self.placement_rules.remove(&name).is_none() {
            return Err(Void::Unknown { name: name.to_string() });
        }
        self.say(at, Decision::Rule { name, set: false });
        Ok(())
    }

    fn turn(&mut self, at: u64, arming: Arming, why: Option<String>) {
        self.settings.arming = arming;
        self.say(at, Decision::Arming { arming, why });
    }

    pub(super) fn disarm(&mut self, at: u64, mode: DisarmMode) -> Result<(), Void> {
        match self.settings.arming {
            Arming::Armed => {
                self.drop_moves();
                self.turn(at, Arming::Disarming { mode }, None);
                Ok(())
            }
            arming @ (Arming::Disarming { .. } | Arming::Disarmed { .. } | Arming::Arming { .. }) => {
                Err(Void::Arming { state: arming.to_string() })
            }
        }
    }

    /// Planned moves that haven't begun elsewhere stay where they are: their owner may start what it has stopped already,
    /// unless it is held: then it is looked at there once more.
    fn drop_moves(&mut self) {
        let planned = |phase: &Phase| match phase {
            Phase::Releasing { node, why, .. } => match why {
                MoveReason::Asked | MoveReason::Maintenance | MoveReason::Better { .. } => Some(node.clone()),
                MoveReason::Failed { .. } | MoveReason::Shutdown => None,
            },
            Phase::New
            | Phase::Placed { .. }
            | Phase::Migrating { .. }
            | Phase::Free { .. }
            | Phase::Error { .. }
            | Phase::Ignored => None,
        };
        let moves: Vec<_> = self
            .resources
            .iter()
            .filter_map(|(name, resource)| planned(&resource.phase).map(|node| (name.clone(), node)))
            .collect();
        for (name, node) in moves {
            self.decide(&name, Phase::Placed { node });
        }
    }

    /// True while a move or a recovery is under way, or a node is being fenced.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let moving = self.resources.values().any(|resource| match resource.phase {
            Phase::Releasing { .. } | Phase::Migrating { .. } => true,
            Phase::Free { .. } => resource.requested == Requested::Started,
            Phase::Placed { .. } => resource.arriving.is_some(),
            Phase::New | Phase::Error { .. } | Phase::Ignored => false,
        });
        moving || self.fences.values().any(Fence::is_open)
    }

    pub(super) fn disarmed(&mut self, at: u64) -> Result<(), Void> {
        let Arming::Disarming { mode } = self.settings.arming else {
            return Err(Void::Outdated);
        };
        if self.is_busy() {
            return Err(Void::Outdated);
        }
        self.unbind_all();
        self.forget_places(mode);
        self.turn(at, Arming::Disarmed { mode, since: self.applied }, None);
        Ok(())
    }

    pub(super) fn arm(&mut self, at: u64) -> Result<(), Void> {
        match self.settings.arming {
            Arming::Disarmed { mode, .. } => {
                self.unbind_all();
                self.turn(at, Arming::Arming { mode, since: self.applied }, None);
                let ignored: Vec<_> = self
                    .resources
                    .iter()
                    .filter(|(_, r)| r.phase == Phase::Ignored)
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in ignored {
                    if self.resources.get(&name).is_some_and(|resource| resource.requested != Requested::Ignored) {
                        self.decide(&name, Phase::New);
                    }
                }
                Ok(())
            }
            // Nothing was given up yet: it goes on as before.
            Arming::Disarming { .. } => {
                self.turn(at, Arming::Armed, None);
                Ok(())
            }
            arming @ (Arming::Armed | Arming::Arming { .. }) => Err(Void::Arming { state: arming.to_string() }),
        }
    }

    pub(super) fn armed(&mut self, at: u64, asked: u64) -> Result<(), Void> {
        match self.settings.arming {
            Arming::Arming { since, .. } if since == asked => {
                self.turn(at, Arming::Armed, None);
                Ok(())
            }
            Arming::Arming { .. } | Arming::Armed | Arming::Disarming { .. } | Arming::Disarmed { .. } => {
                Err(Void::Outdated)
            }
        }
    }

    pub(super) fn arming_failed(&mut self, at: u64, asked: u64, why: String) -> Result<(), Void> {
        match self.settings.arming {
            Arming::Arming { since, mode } if since == asked => {
                self.unbind_all();
                self.forget_places(mode);
                self.turn(at, Arming::Disarmed { mode, since: self.applied }, Some(why));
                Ok(())
            }
            Arming::Arming { .. } | Arming::Armed | Arming::Disarming { .. } | Arming::Disarmed { .. } => {
                Err(Void::Outdated)
            }
        }
    }

    /// From here on nobody's watchdog proves anything, until its node has shown that it is armed again.
    fn unbind_all(&mut self) {
        for state in self.nodes.values_mut() {
            if let Some(life) = &mut state.life {
                life.unbound = Some(self.applied);
            }
        }
    }

    fn forget_places(&mut self, mode: DisarmMode) {
        match mode {
            DisarmMode::Freeze => {}
            DisarmMode::Ignore => {
                let all: Vec<_> = self.resources.keys().cloned().collect();
                for name in all {
                    if let Some(resource) = self.resources.get_mut(&name)
                        && let Some(owner) = resource.phase.owner().cloned()
                    {
                        resource.first = Some(owner);
                    }
                    self.decide(&name, Phase::Ignored);
                }
            }
        }
    }
}
