//! Failures that aren't survived, as data and as a sentence.

use std::fmt;

use super::exact::Search;
use super::pack::{Strategy, pack};
use super::problem::{Nodes, Placed, Problem, State, bit, each};
use super::{Budget, Memory, bound};
use crate::name::{MemberName, ResourceName};

/// How many nodes and resources a sentence names before it counts the rest.
const NAMED_MAX: usize = 3;

/// The part of the budget that a better defence is sought with: it makes the sentence more telling, not more true.
const DEFENCE_SHARE: u64 = 16;

/// Failures after which something protected can't run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// The nodes that fail, in this order; none if not everything can run even now.
    pub fails: Vec<MemberName>,
    /// What then has no place, biggest first. Empty if there simply are no nodes left to fail.
    pub stuck: Vec<Stuck>,
}

/// What has no place: one resource, or several that are kept together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// The resources.
    pub resources: Vec<ResourceName>,
    /// The memory that they need on one node.
    pub memory_bytes: u64,
    /// Every node in service, the one with the most memory left first, and what speaks against it.
    pub nodes: Vec<(MemberName, Obstacle)>,
}

/// Why a node can't run something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// Too little memory is left.
    Memory {
        /// So much.
        left_bytes: u64,
    },
    /// It isn't among the nodes that may run it.
    NotAllowed,
    /// It runs something that this is kept apart from.
    Apart {
        /// What it runs.
        from: ResourceName,
    },
    /// What it is kept together with runs on another node.
    Together {
        /// What is kept together with it.
        with: ResourceName,
        /// Where that runs.
        on: MemberName,
    },
}

/// How a game that the search has lost is lost: the failures, in an order that beats the placements that last longest.
pub(super) fn explain(problem: &Problem, failures: usize, budget: Budget) -> Counterexample {
    // The search for fatal nodes repeats one that ended within the budget, once for every failure.
    let mut search = Search::placing(problem, Budget(budget.0.saturating_mul(4)));
    let mut pending = std::mem::take(&mut search.state.pending);
    let mut failed = Vec::new();
    for left in (0..=failures).rev() {
        let Some(placed) = longest_defence(problem, &mut search, &pending, left, budget) else { break };
        for (index, node, _) in placed {
            search.state.put(problem, index, node);
        }
        pending.clear();
        if left == 0 {
            break;
        }
        let fatal = match bound::refutes(problem, &search.state, left) {
            Some(nodes) => each(nodes).max_by_key(|&node| (search.state.used[node], std::cmp::Reverse(node))),
            None => search.fatal(left).ok().flatten().or_else(|| each(search.state.up).next()),
        };
        let Some(node) = fatal else { break };
        pending = search.state.fail(problem, node);
        failed.push(node);
    }
    let stuck = pack(problem, &mut search.state, &pending, Strategy::WorstFit).stuck;
    build(problem, &search.state, &failed, &stuck)
}

/// A placement that survives as many failures as possible, below a number that none does.
fn longest_defence(
    problem: &Problem,
    search: &mut Search<'_>,
    pending: &[usize],
    lost: usize,
    budget: Budget,
) -> Option<Vec<Placed>> {
    if pending.is_empty() {
        return Some(Vec::new());
    }
    let mut defence = Search::placing(problem, Budget(budget.0 / DEFENCE_SHARE));
    defence.state.clone_from(&search.state);
    let longest = (1..lost).rev().find_map(|failures| defence.settle(pending, failures).ok().flatten());
    longest.or_else(|| search.settle(pending, 0).ok().flatten())
}

/// Puts it in names. What could be placed beside the stuck items has been placed.
pub(super) fn build(problem: &Problem, state: &State, failed: &[usize], items: &[usize]) -> Counterexample {
    Counterexample {
        fails: failed.iter().map(|&node| problem.names[node].clone()).collect(),
        stuck: stuck(problem, state, items),
    }
}

/// Why items have no place.
pub(super) fn stuck(problem: &Problem, state: &State, items: &[usize]) -> Vec<Stuck> {
    let left = |node: usize| match problem.memory[node] {
        Memory::Unlimited => u64::MAX,
        Memory::Bytes(bytes) => {
            bytes.saturating_sub(state.on[node].iter().map(|&index| problem.items[index].bytes).sum())
        }
    };
    let mut nodes: Vec<(u64, usize)> = each(state.up).map(|node| (left(node), node)).collect();
    nodes.sort_by_key(|&(left, node)| (std::cmp::Reverse(left), node));
    let why = |&index: &usize| Stuck {
        resources: problem.items[index].names.clone(),
        memory_bytes: problem.items[index].bytes,
        nodes: (nodes.iter())
            .map(|&(left, node)| (problem.names[node].clone(), obstacle(problem, state, index, node, left)))
            .collect(),
    };
    items.iter().map(why).collect()
}

fn obstacle(problem: &Problem, state: &State, index: usize, node: usize, left_bytes: u64) -> Obstacle {
    let item = &problem.items[index];
    if item.allowed & bit(node) == 0 {
        return Obstacle::NotAllowed;
    }
    let first = |index: usize| problem.items[index].names[0].clone();
    let foe = |&&other: &&usize| problem.items[other].apart.iter().any(|group| item.apart.contains(group));
    if let Some(&foe) = state.on[node].iter().find(foe) {
        return Obstacle::Apart { from: first(foe) };
    }
    let elsewhere = |group: usize| -> Nodes { state.mates[group] & !bit(node) };
    if let Some(group) = item.mates
        && let Some(other) = each(elsewhere(group)).next()
        && let Some(&mate) = state.on[other].iter().find(|&&mate| problem.items[mate].mates == Some(group))
    {
        return Obstacle::Together { with: first(mate), on: problem.names[other].clone() };
    }
    Obstacle::Memory { left_bytes }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.fails.iter().enumerate() {
            let word = if at == 0 { "if " } else { " and then " };
            write!(f, "{word}{node}")?;
        }
        match self.fails.len() {
            0 => {}
            1 => write!(f, " fails, ")?,
            _ => write!(f, " fail, ")?,
        }
        let Some(first) = self.stuck.first() else {
            return write!(f, "there are no more nodes to fail");
        };
        write!(f, "{first}")?;
        match self.stuck.len() - 1 {
            0 => Ok(()),
            1 => write!(f, "; nor does one more"),
            more => write!(f, "; nor do {more} more"),
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, resource) in self.resources.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{}{resource}", if at == 0 { "" } else { " with " })?;
        }
        if let more @ 1.. = self.resources.len().saturating_sub(NAMED_MAX) {
            write!(f, " with {more} more")?;
        }
        match self.memory_bytes {
            0 => write!(f, " has no place: ")?,
            bytes => write!(f, " ({}) doesn't fit: ", Size(bytes))?,
        }
        for (at, (node, obstacle)) in self.nodes.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{}{node} {obstacle}", if at == 0 { "" } else { ", " })?;
        }
        match self.nodes.len() {
            0 => write!(f, "no node is left"),
            1..=NAMED_MAX => Ok(()),
            nodes => write!(f, ", and {} more can't run it either", nodes - NAMED_MAX),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { left_bytes } => write!(f, "has {} left", Size(*left_bytes)),
            Self::NotAllowed => write!(f, "may not run it"),
            Self::Apart { from } => write!(f, "runs {from}, which it is kept apart from"),
            Self::Together { with, on } => write!(f, "isn't {on}, where {with} runs that it is kept together with"),
        }
    }
}

/// Bytes for people: in the largest unit that leaves a number of at least one, to a tenth, rounded down.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.into_iter().find(|&(_, unit)| self.0 >= unit) {
            None => write!(f, "{} B", self.0),
            Some((name, unit)) => match self.0 % unit / (unit / 10) {
                0 => write!(f, "{} {name}", self.0 / unit),
                tenths => write!(f, "{}.{} {name}", self.0 / unit, tenths.min(9)),
            },
        }
    }
}
