//! Placing resources: the simple strategies, and the placement that the manager follows.

use super::exact::{Outcome, Search};
use super::problem::{Placed, Problem, State, bit, each};
use super::{Budget, Cluster, ClusterError, Stuck, bound, counterexample};
use crate::name::{MemberName, ResourceName};

/// A simple strategy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The biggest item first, to the node with the most memory left. Of equal nodes the one that was given something
    /// last, then the first by name.
    WorstFit,
    /// The biggest item first, to the node with the least memory left that has enough.
    BestFit,
    /// As [`Strategy::WorstFit`], but the items with the fewest nodes first.
    ScarceFirst,
}

/// What a simple strategy did.
pub(super) struct Packed {
    /// What was placed, in that order.
    pub placed: Vec<Placed>,
    /// What found no place.
    pub stuck: Vec<usize>,
}

/// Items in the order in which the ones that have the fewest nodes come first, then the biggest.
pub(super) fn scarce_first(problem: &Problem, items: &[usize]) -> Vec<usize> {
    let mut order = items.to_vec();
    order.sort_by_key(|&index| {
        let item = &problem.items[index];
        (item.mates.is_none(), super::problem::count(item.allowed), item.apart.is_empty(), index)
    });
    order
}

/// Places items, biggest first by their order, and leaves them there.
pub(super) fn pack(problem: &Problem, state: &mut State, items: &[usize], strategy: Strategy) -> Packed {
    let mut packed = Packed { placed: Vec::with_capacity(items.len()), stuck: Vec::new() };
    let mut by_free: Vec<usize> = each(state.up).collect();
    by_free.sort_by_key(|&node| (std::cmp::Reverse(state.free[node]), node));
    let scarce;
    let order = match strategy {
        Strategy::WorstFit | Strategy::BestFit => items,
        Strategy::ScarceFirst => {
            scarce = scarce_first(problem, items);
            &scarce
        }
    };
    for &index in order {
        let item = &problem.items[index];
        let open = state.open_to(item);
        let fits = |&node: &usize| open & bit(node) != 0 && state.free[node] >= item.size;
        let at = match strategy {
            Strategy::WorstFit | Strategy::ScarceFirst => by_free.iter().position(fits),
            Strategy::BestFit => by_free.iter().rposition(fits),
        };
        let Some(at) = at else {
            packed.stuck.push(index);
            continue;
        };
        let node = by_free.remove(at);
        packed.placed.push(state.put(problem, index, node));
        let left = state.free[node];
        by_free.insert(by_free.partition_point(|&other| state.free[other] > left), node);
    }
    packed
}

/// Takes back placements, the last one first.
pub(super) fn undo(problem: &Problem, state: &mut State, placed: &[Placed]) {
    for &one in placed.iter().rev() {
        state.take_back(problem, one);
    }
}

/// Where to start what doesn't run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// What to start where, in the order in which it was placed.
    pub assignments: Vec<(ResourceName, MemberName)>,
    /// What has no place now. Empty if everything can run.
    pub stuck: Vec<Stuck>,
    /// How many more failures this placement is known to survive, at most as many as were asked for; `None` if not even
    /// everything can run.
    pub survives: Option<usize>,
}

/// Places all resources that run nowhere, so that as many further failures as possible, up to `failures`, are survived.
///
/// The manager asks this after a failure, with the failures that are still to be survived; what [`super::plan`] found
/// is found again. Of nodes that fail at once, take one out of service after the other, each with its own placement: the
/// plan is made of such steps, and what it puts on a node that is gone already is simply placed once more. If not everything has a place, what has one is still placed, biggest first. Every number of failures
/// that is tried has the budget anew.
///
/// # Errors
/// [`ClusterError`] says what is wrong with the cluster.
pub fn place(cluster: &Cluster, failures: usize, budget: Budget) -> Result<Placement, ClusterError> {
    let problem = Problem::new(cluster)?;
    let mut state = problem.start.clone();
    let worst_fit = pack(&problem, &mut state, &problem.start.pending, Strategy::WorstFit);
    for survived in (0..=failures).rev() {
        let placed = match Search::placing(&problem, budget).root(survived) {
            Outcome::Won(placed) => placed,
            Outcome::Spent if worst_fit.stuck.is_empty() && bound::holds(&problem, &state, survived) => {
                worst_fit.placed.clone()
            }
            Outcome::Lost | Outcome::Spent => continue,
        };
        let assignments = assignments(&problem, &placed);
        return Ok(Placement { assignments, stuck: Vec::new(), survives: Some(survived) });
    }
    Ok(Placement {
        assignments: assignments(&problem, &worst_fit.placed),
        stuck: counterexample::stuck(&problem, &state, &worst_fit.stuck),
        survives: worst_fit.stuck.is_empty().then_some(0),
    })
}

/// Placements in names.
pub(super) fn assignments(problem: &Problem, placed: &[Placed]) -> Vec<(ResourceName, MemberName)> {
    let names = |&(index, node, _): &Placed| {
        let node = problem.names[node].clone();
        problem.items[index].names.iter().map(move |name| (name.clone(), node.clone()))
    };
    placed.iter().flat_map(names).collect()
}
