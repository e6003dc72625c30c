//! Where the resources of a drained node go.
//!
//! Beside the hard rules there are groups that are better spread: replicas of one service, say. Three manners are tried,
//! and the first that places everything wins: spread evenly, then at least so that every group runs on two nodes, then
//! without regard to groups. These are XenServer's phases, with its choices.

use std::collections::BTreeSet;

use super::exact::Search;
use super::pack::{Strategy, assignments, pack};
use super::problem::{Placed, Problem, State, bit, count, each};
use super::{Budget, Cluster, ClusterError, Stuck, counterexample};
use crate::name::{MemberName, ResourceName};

/// Fewest nodes, the drained one included, with which groups are looked at: with fewer there is one node to go to.
const SPREAD_NODES_MIN: usize = 3;

/// A group that runs on so many nodes survives the failure of one.
const UNBROKEN_NODES: usize = 2;

/// How an evacuation treats groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Each member goes to the node with the fewest of its group, the smallest first.
    SpreadEvenly,
    /// Members go to nodes without their group until it runs on two.
    NoBreach,
    /// Groups aren't looked at.
    Packed,
}

/// Where the resources of a drained node go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evacuation {
    /// How groups were treated.
    pub manner: Manner,
    /// What goes where, in the order in which it was placed.
    pub moves: Vec<(ResourceName, MemberName)>,
    /// What has no place elsewhere. Then the node can't be drained.
    pub stuck: Vec<Stuck>,
}

/// Where the resources of a node go when it is drained; `spread` names the groups that are better spread. The node may
/// already be out of service; the other nodes must be in service to be given anything.
///
/// # Errors
/// [`ClusterError`] says what is wrong with the cluster. A node that it doesn't have is drained already.
pub fn evacuate(
    cluster: &Cluster,
    node: &MemberName,
    spread: &[BTreeSet<ResourceName>],
    budget: Budget,
) -> Result<Evacuation, ClusterError> {
    let drain = Drain::new(cluster, node, spread)?;
    for manner in [Manner::SpreadEvenly, Manner::NoBreach, Manner::Packed] {
        let mut search = Search::placing(&drain.problem, budget);
        search.state = drain.state.clone();
        let mut moves = drain.by_group(&mut search.state, manner);
        let gone: BTreeSet<usize> = moves.iter().map(|&(index, _, _)| index).collect();
        let rest: Vec<usize> = drain.items.iter().copied().filter(|index| !gone.contains(index)).collect();
        if let Ok(Some(placed)) = search.settle(&rest, 0) {
            moves.extend(placed);
            let moves = assignments(&drain.problem, &moves);
            return Ok(Evacuation { manner, moves, stuck: Vec::new() });
        }
    }
    let mut state = drain.state.clone();
    let packed = pack(&drain.problem, &mut state, &drain.items, Strategy::WorstFit);
    Ok(Evacuation {
        manner: Manner::Packed,
        moves: assignments(&drain.problem, &packed.placed),
        stuck: counterexample::stuck(&drain.problem, &state, &packed.stuck),
    })
}

/// The moves of an evacuation that groups decide: nothing for [`Manner::Packed`], and nothing for
/// [`Manner::SpreadEvenly`] if a member has no place in it.
///
/// # Errors
/// [`ClusterError`] says what is wrong with the cluster.
pub fn group_moves(
    cluster: &Cluster,
    node: &MemberName,
    spread: &[BTreeSet<ResourceName>],
    manner: Manner,
) -> Result<Vec<(ResourceName, MemberName)>, ClusterError> {
    let drain = Drain::new(cluster, node, spread)?;
    let moves = drain.by_group(&mut drain.state.clone(), manner);
    Ok(assignments(&drain.problem, &moves))
}

struct Drain {
    problem: Problem,
    /// Without the drained node.
    state: State,
    /// What ran there, biggest first.
    items: Vec<usize>,
    /// Per item, the group that it is better spread with.
    group: Vec<Option<usize>>,
}

impl Drain {
    fn new(cluster: &Cluster, node: &MemberName, spread: &[BTreeSet<ResourceName>]) -> Result<Self, ClusterError> {
        let mut cluster = cluster.clone();
        for known in &mut cluster.nodes {
            known.in_service |= known.name == *node;
        }
        let problem = Problem::new(&cluster)?;
        let mut state = problem.start.clone();
        let drained = problem.names.iter().position(|name| name == node);
        let items = drained.map_or_else(Vec::new, |node| state.fail(&problem, node));
        let group_of = |name: &ResourceName| spread.iter().position(|group| group.contains(name));
        let group = problem.items.iter().map(|item| item.names.iter().find_map(group_of)).collect();
        Ok(Self { problem, state, items, group })
    }

    /// Places the members of groups, smallest first.
    fn by_group(&self, state: &mut State, manner: Manner) -> Vec<Placed> {
        let mut placed = Vec::new();
        if count(state.up) + 1 < SPREAD_NODES_MIN {
            return placed;
        }
        for &index in self.items.iter().rev() {
            let Some(group) = self.group[index] else { continue };
            let item = &self.problem.items[index];
            let held = |node: usize| state.on[node].iter().filter(|&&other| self.group[other] == Some(group)).count();
            let open = state.open_to(item);
            let fits = |&node: &usize| open & bit(node) != 0 && state.free[node] >= item.size;
            let choice = match manner {
                Manner::SpreadEvenly => {
                    let Some(node) = each(open).filter(fits).min_by_key(|&node| (held(node), state.free[node], node))
                    else {
                        super::pack::undo(&self.problem, state, &placed);
                        return Vec::new();
                    };
                    Some(node)
                }
                Manner::NoBreach if each(state.up).filter(|&node| held(node) > 0).count() < UNBROKEN_NODES => {
                    let without = each(open).filter(fits).filter(|&node| held(node) == 0);
                    without.min_by_key(|&node| (state.free[node], node))
                }
                Manner::NoBreach | Manner::Packed => None,
            };
            if let Some(node) = choice {
                placed.push(state.put(&self.problem, index, node));
            }
        }
        placed
    }
}
