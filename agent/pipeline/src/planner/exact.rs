//! The search: for every node that may fail next, is there a placement from which the rest is survived?

use std::collections::BTreeMap;

use super::pack::{Packed, Strategy, pack, scarce_first, undo};
use super::problem::{Placed, Problem, State, bit, count, each};
use super::{Budget, Counterexample, bound, counterexample};

/// Up to so many items positions are remembered. Above, comparing them costs more than it saves.
const REMEMBERED_ITEMS_MAX: usize = 64;

/// How many positions are remembered at most; a position takes up to a kilobyte.
const REMEMBERED_MAX: usize = 1 << 16;

/// The budget is used up.
pub(super) struct Spent;

/// How a search ended.
pub(super) enum Outcome {
    /// Survived, if what is pending is placed like this.
    Won(Vec<Placed>),
    /// Not survived, however it is placed.
    Lost,
    /// Unknown: the budget is used up.
    Spent,
}

/// One search.
pub(super) struct Search<'a> {
    problem: &'a Problem,
    /// The position; every function leaves it as it found it.
    pub state: State,
    left: u64,
    /// The nodes that failed on the way to this position.
    failed: Vec<usize>,
    /// From how many failures on arithmetic may answer.
    bound_from: usize,
    remembered: BTreeMap<Vec<u64>, bool>,
    suspicion: Option<Counterexample>,
}

impl<'a> Search<'a> {
    /// A search that answers the whole question itself; arithmetic helps it from the first failure on.
    pub fn new(problem: &'a Problem, budget: Budget) -> Self {
        Self {
            problem,
            state: problem.start.clone(),
            left: budget.0,
            failed: Vec::new(),
            bound_from: 1,
            remembered: BTreeMap::new(),
            suspicion: None,
        }
    }

    /// A search for a placement: this is the position after a failure, where arithmetic helped the search before.
    pub fn placing(problem: &'a Problem, budget: Budget) -> Self {
        Self { bound_from: 0, ..Self::new(problem, budget) }
    }

    /// Whether what is pending can be placed so that this many failures are survived.
    pub fn root(&mut self, failures: usize) -> Outcome {
        let pending = std::mem::take(&mut self.state.pending);
        let settled = self.settle(&pending, failures);
        self.state.pending = pending;
        match settled {
            Ok(Some(placed)) => Outcome::Won(placed),
            Ok(None) => Outcome::Lost,
            Err(Spent) => Outcome::Spent,
        }
    }

    /// The first failures that worst fit didn't survive.
    pub fn suspicion(self) -> Option<Counterexample> {
        self.suspicion
    }

    /// A node whose failure isn't survived in this position, if there is one.
    pub fn fatal(&mut self, failures: usize) -> Result<Option<usize>, Spent> {
        for node in self.victims() {
            if !self.survives_failure_of(node, failures)? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    fn spend(&mut self, steps: usize) -> Result<(), Spent> {
        let steps = u64::try_from(steps).map_err(|_| Spent)?;
        self.left = self.left.checked_sub(steps).ok_or(Spent)?;
        Ok(())
    }

    /// Whether this many more failures are survived. Nothing is pending.
    fn survives(&mut self, failures: usize) -> Result<bool, Spent> {
        let nodes = count(self.state.up);
        if failures == 0 {
            return Ok(true);
        }
        self.spend(1)?;
        let idle = each(self.state.up).all(|node| self.state.on[node].is_empty());
        if idle || nodes <= failures {
            return Ok(idle && nodes >= failures);
        }
        if failures == 1 && self.problem.items.len() > REMEMBERED_ITEMS_MAX {
            return self.survives_one();
        }
        if self.failed.len() >= self.bound_from {
            self.spend(self.problem.profiles.len() * nodes / 4)?;
            if bound::holds(self.problem, &self.state, failures) {
                return Ok(true);
            }
        }
        self.spend((self.problem.sizes.len() + 4) * nodes / 4)?;
        if bound::refutes(self.problem, &self.state, failures).is_some() {
            return Ok(false);
        }
        let position = self.position(failures);
        if let Some(known) = position.as_ref().and_then(|position| self.remembered.get(position)) {
            return Ok(*known);
        }
        let survived = if failures == 1 { self.survives_one()? } else { self.fatal(failures)?.is_none() };
        if let Some(position) = position
            && self.remembered.len() < REMEMBERED_MAX
        {
            self.remembered.insert(position, survived);
        }
        Ok(survived)
    }

    /// The last failure. Most nodes pass by arithmetic on sorted memory, the others are packed.
    fn survives_one(&mut self) -> Result<bool, Spent> {
        let problem = self.problem;
        let mut free: Vec<u64> = each(self.state.up).map(|node| self.state.free[node]).collect();
        free.sort_unstable_by(|a, b| b.cmp(a));
        let mut sums = vec![0];
        sums.extend(free.iter().scan(0, |sum, &free| {
            *sum += free;
            Some(*sum)
        }));
        let mut scratch = Vec::with_capacity(free.len());
        for node in each(self.state.up) {
            self.spend(1)?;
            let items = &self.state.on[node];
            let (Some(&first), Some(&last)) = (items.first(), items.last()) else { continue };
            let own = self.state.free[node];
            // See `bound`, for the items of one node: what room is there if each wastes as much as the biggest?
            let (most, least) = (problem.items[first].size, problem.items[last].size);
            let roomy = free.partition_point(|&free| free >= most);
            let nodes = u64::try_from(roomy).expect("there are at most 64 nodes");
            let room = sums[roomy] + nodes - nodes * most - (own + 1).saturating_sub(most);
            let roomy = self.state.used[node] < room + least;
            let bound: Vec<usize> = items.iter().copied().filter(|&index| !problem.items[index].plain).collect();
            let steps = if roomy { bound.len() * 4 } else { items.len() + free.len() / 8 };
            let passes = if roomy {
                bound.iter().all(|&index| self.has_room_elsewhere(index, node, &bound))
            } else {
                bound.is_empty() && worst_fit_takes(problem, items, &free, own, &mut scratch)
            };
            self.spend(steps)?;
            if passes {
                continue;
            }
            if !self.survives_failure_of(node, 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an item that more than memory limits finds a place whatever is placed before it when its node fails.
    fn has_room_elsewhere(&self, index: usize, node: usize, bound: &[usize]) -> bool {
        let problem = self.problem;
        let item = &problem.items[index];
        let foe = |&&other: &&usize| problem.items[other].apart.iter().any(|group| item.apart.contains(group));
        let open = self.state.open_to(item) & !bit(node);
        let room = |at: usize| (self.state.free[at] + 1).saturating_sub(item.size);
        let all: u64 = each(open).map(room).sum();
        let foes = u64::try_from(bound.iter().filter(foe).count() - usize::from(!item.apart.is_empty()));
        let closed = foes.map_or(u64::MAX, |foes| each(open).map(room).max().unwrap_or(0).saturating_mul(foes));
        item.mates.is_none() && self.state.used[node].saturating_add(closed) < all + item.size
    }

    fn survives_failure_of(&mut self, node: usize, failures: usize) -> Result<bool, Spent> {
        let items = self.state.fail(self.problem, node);
        self.failed.push(node);
        let settled = self.settle(&items, failures - 1);
        self.failed.pop();
        self.state.revive(self.problem, node, items);
        Ok(settled?.is_some())
    }

    /// The nodes to take away, one of each kind, the fullest first because they refute soonest.
    fn victims(&self) -> Vec<usize> {
        let mut victims: Vec<usize> = Vec::new();
        for node in each(self.state.up) {
            if !victims.iter().any(|&other| self.state.alike(self.problem, other, node)) {
                victims.push(node);
            }
        }
        victims.sort_by_key(|&node| (std::cmp::Reverse(self.state.used[node]), node));
        victims
    }

    /// A placement of items after which this many failures are survived.
    pub fn settle(&mut self, items: &[usize], failures: usize) -> Result<Option<Vec<Placed>>, Spent> {
        let bound = items.iter().any(|&index| !self.problem.items[index].plain);
        for strategy in [Strategy::WorstFit, Strategy::BestFit, Strategy::ScarceFirst] {
            if strategy == Strategy::ScarceFirst && !bound {
                continue;
            }
            self.spend(items.len() * 4 + count(self.state.up) / 2 + 1)?;
            let Packed { placed, stuck } = pack(self.problem, &mut self.state, items, strategy);
            let survived = if stuck.is_empty() { self.survives(failures) } else { Ok(false) };
            if !stuck.is_empty() && self.suspicion.is_none() {
                self.suspicion = Some(counterexample::build(self.problem, &self.state, &self.failed, &stuck));
            }
            undo(self.problem, &mut self.state, &placed);
            if survived? {
                return Ok(Some(placed));
            }
            if items.is_empty() || bound::overfull(self.problem, &self.state, items) {
                return Ok(None);
            }
        }
        let order = scarce_first(self.problem, items);
        let need = items.iter().map(|&index| self.problem.items[index].size).sum();
        let mut placed = Vec::new();
        let found = self.try_all(&order, need, failures, &mut placed);
        if found.is_err() {
            undo(self.problem, &mut self.state, &placed);
        }
        Ok(found?.then_some(placed))
    }

    /// Every placement of the items from here on, but for those that are others with nodes or items swapped. When it is
    /// found it is undone and stays noted.
    fn try_all(&mut self, order: &[usize], need: u64, failures: usize, noted: &mut Vec<Placed>) -> Result<bool, Spent> {
        self.spend(count(self.state.up) / 2 + 1)?;
        let Some((&index, rest)) = order.split_first() else { return self.survives(failures) };
        let problem = self.problem;
        let item = &problem.items[index];
        if each(self.state.up).map(|node| self.state.free[node]).sum::<u64>() < need {
            return Ok(false);
        }
        // Items of one kind go to nodes in ascending order.
        let from =
            noted.last().filter(|(before, _, _)| problem.items[*before].kind == item.kind).map_or(0, |last| last.1);
        let open = self.state.open_to(item);
        let mut nodes: Vec<usize> = Vec::new();
        for node in each(open & !(bit(from) - 1)) {
            let fits = self.state.free[node] >= item.size;
            if fits && !nodes.iter().any(|&other| self.state.alike(problem, other, node)) {
                nodes.push(node);
            }
        }
        nodes.sort_by_key(|&node| (std::cmp::Reverse(self.state.free[node]), node));
        for node in nodes {
            let one = self.state.put(problem, index, node);
            noted.push(one);
            let found = self.try_all(rest, need - item.size, failures, noted)?;
            self.state.take_back(problem, one);
            if found {
                return Ok(true);
            }
            noted.pop();
        }
        Ok(false)
    }

    /// This position, the same for all that differ in the names of nodes and items of one kind.
    fn position(&self, failures: usize) -> Option<Vec<u64>> {
        if self.problem.items.len() > REMEMBERED_ITEMS_MAX {
            return None;
        }
        let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        let describe = |node: usize| {
            let kinds = self.state.on[node].iter().map(|&index| number(self.problem.items[index].kind));
            let held = number(self.state.on[node].len());
            [number(self.problem.node_kind[node]), self.state.free[node], held].into_iter().chain(kinds).collect()
        };
        let mut nodes: Vec<Vec<u64>> = each(self.state.up).map(describe).collect();
        nodes.sort_unstable();
        Some(std::iter::once(number(failures)).chain(nodes.into_iter().flatten()).collect())
    }
}

/// Whether worst fit places items that only memory limits; `free` is sorted and holds one node too many, that with `own`.
fn worst_fit_takes(problem: &Problem, items: &[usize], free: &[u64], own: u64, scratch: &mut Vec<u64>) -> bool {
    scratch.clear();
    let without = free.partition_point(|&free| free > own);
    scratch.extend_from_slice(&free[..without]);
    scratch.extend_from_slice(&free[without + 1..]);
    items.iter().all(|&index| {
        let size = problem.items[index].size;
        let Some(left) = scratch.first().and_then(|&most| most.checked_sub(size)) else { return false };
        let at = scratch[1..].partition_point(|&other| other > left);
        scratch.copy_within(1..=at, 0);
        scratch[at] = left;
        true
    })
}
