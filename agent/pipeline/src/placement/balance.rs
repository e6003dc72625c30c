//! Rebalancing: one move at a time, where loads have differed for a while and the move brings them closer.
//!
//! The imbalance is the coefficient of variation of the nodes' loads, their standard deviation in units of their mean: 0
//! where all are equal, and where one of n nodes has everything the root of n - 1. A node's load is the mean of its shares
//! of processors and memory in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::choose::{Preference, Wish, candidates};
use super::judge::{EffectiveRules, list};
use super::picture::{Picture, ResourceView, Seat};
use super::score::{Load, Loads, Scoring, float, loads};
use crate::name::{MemberName, ResourceName};

/// When to rebalance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BalanceSettings {
    /// The imbalance that is borne.
    pub threshold: f64,
    /// The rounds in a row that it must have been exceeded.
    pub hold_rounds: u32,
    /// The share of the imbalance that a move must take away, 0 to 1.
    pub margin: f64,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self { threshold: 0.3, hold_rounds: 3, margin: 0.1 }
    }
}

/// For how many rounds the imbalance has been too high. The caller keeps it from round to round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BalanceHold {
    rounds: u32,
}

/// A move that nobody asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Rebalance {
    /// What moves: one resource, or all that belong together.
    pub resources: BTreeSet<ResourceName>,
    /// Where from.
    pub from: MemberName,
    /// Where to.
    pub to: MemberName,
    /// The imbalance now.
    pub before: f64,
    /// The imbalance that is expected after it.
    pub after: f64,
    /// The imbalance that is borne.
    pub threshold: f64,
    /// For how many rounds it was exceeded.
    pub rounds: u32,
    /// How many moves the rules and the memory allow, this one among them. None of them is better.
    pub considered: usize,
}

impl fmt::Display for Rebalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.resources)?;
        write!(
            f,
            " from {} to {}: the imbalance has been above {} for {} rounds, and goes from {:.2} to {:.2}, the least of \
             {} possible moves",
            self.from, self.to, self.threshold, self.rounds, self.before, self.after, self.considered
        )
    }
}

/// A move under consideration, in the order that breaks ties.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<'a> {
    lead: &'a ResourceName,
    from: &'a MemberName,
    to: MemberName,
}

/// Looks for the move that brings the loads closest together. Call it once a round, while no fence or recovery is open.
///
/// Nothing is moved by [`Scoring::Basic`], while anything moves, and where a node's processors or memory aren't known.
pub fn rebalance(
    picture: &Picture,
    rules: &EffectiveRules,
    scoring: Scoring,
    settings: &BalanceSettings,
    hold: &mut BalanceHold,
) -> Option<Rebalance> {
    let unsettled = picture.resources().values().any(|view| matches!(view.seat, Seat::Moving { .. }));
    let loads = match scoring {
        Scoring::Basic => None,
        Scoring::Static | Scoring::Dynamic => loads(picture, scoring).ok(),
    };
    let before = loads.as_ref().map(|loads| imbalance(loads.values().map(|(_, load)| *load)));
    let (Some(loads), Some(before), false) = (loads, before, unsettled) else {
        hold.rounds = 0;
        return None;
    };
    if before <= settings.threshold {
        hold.rounds = 0;
        return None;
    }
    hold.rounds = hold.rounds.saturating_add(1);
    if hold.rounds < settings.hold_rounds {
        return None;
    }
    let mut scored: Vec<(f64, Candidate<'_>)> = possible(picture, rules, scoring)
        .into_iter()
        .map(|candidate| (after(picture, rules, scoring, &loads, &candidate), candidate))
        .collect();
    scored.sort_by(|(one, first), (two, second)| one.total_cmp(two).then_with(|| first.cmp(second)));
    let considered = scored.len();
    let (after, best) = scored.into_iter().next()?;
    if before - after < settings.margin * before {
        return None;
    }
    Some(Rebalance {
        resources: rules
            .bundle(best.lead)
            .into_iter()
            .filter(|r| picture.resources().contains_key(*r))
            .cloned()
            .collect(),
        from: best.from.clone(),
        to: best.to,
        before,
        after,
        threshold: settings.threshold,
        rounds: std::mem::take(&mut hold.rounds),
        considered,
    })
}

/// Every move that rules and memory allow.
fn possible<'a>(picture: &'a Picture, rules: &'a EffectiveRules, scoring: Scoring) -> Vec<Candidate<'a>> {
    let bundles: BTreeSet<&ResourceName> = picture.resources().keys().map(|name| rules.bundle_of(name)).collect();
    let mut moves = Vec::new();
    for lead in bundles {
        let views: Vec<&ResourceView> =
            rules.bundle(lead).into_iter().filter_map(|name| picture.resources().get(name)).collect();
        let ready = |view: &&ResourceView| view.may_balance && (scoring != Scoring::Dynamic || view.measured.is_some());
        let Some(Seat::On(from)) = views.first().map(|view| &view.seat) else { continue };
        let whole = views.iter().all(|view| ready(view) && view.seat == Seat::On(from.clone()));
        if !whole || !picture.takes(from) {
            continue;
        }
        let (failed, preference) = (BTreeSet::new(), Preference::BestScore);
        let wish =
            Wish { resource: lead, preference, failed: &failed, home: None, current: Some(from), failback: true };
        let targets = candidates(picture, rules, &wish).into_iter().filter(|to| to != from);
        moves.extend(targets.map(|to| Candidate { lead, from, to }));
    }
    moves
}

/// The imbalance after a move, without the digits that only rounding makes: equal moves shall be equal.
fn after(
    picture: &Picture,
    rules: &EffectiveRules,
    scoring: Scoring,
    loads: &Loads<'_>,
    candidate: &Candidate<'_>,
) -> f64 {
    let moved = |node: &MemberName| {
        let views = rules.bundle(candidate.lead).into_iter().filter_map(|name| picture.resources().get(name));
        let size = loads.get(node).map(|(size, _)| *size);
        views.filter_map(|view| size.map(|size| size.used(view, scoring))).fold(Load::default(), Load::plus)
    };
    let then: BTreeMap<&MemberName, Load> = loads
        .iter()
        .map(|(node, (_, load))| {
            let load = if *node == candidate.from {
                load.minus(moved(node))
            } else if **node == candidate.to {
                load.plus(moved(node))
            } else {
                *load
            };
            (*node, load)
        })
        .collect();
    (imbalance(then.into_values()) * 1e12).round() / 1e12
}

/// 0 where all loads are equal, the root of n - 1 where one of n nodes has everything.
fn imbalance(loads: impl Iterator<Item = Load>) -> f64 {
    let mut loads: Vec<f64> = loads.map(Load::mean).collect();
    // Summed from the lowest up, so that the order of the nodes doesn't show in the last digits.
    loads.sort_by(f64::total_cmp);
    let count = float(u64::try_from(loads.len()).unwrap_or(u64::MAX));
    let sum: f64 = loads.iter().sum();
    if count < 2.0 || sum <= 0.0 {
        return 0.0;
    }
    let mean = sum / count;
    let squares: f64 = loads.iter().map(|load| (load - mean) * (load - mean)).sum();
    (squares / count).sqrt() / mean
}

#[cfg(test)]
mod tests;
