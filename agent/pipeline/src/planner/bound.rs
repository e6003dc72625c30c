//! Arithmetic that decides without a search. All of it holds for every order of failures at once.
//!
//! # Why nothing gets stuck
//! Say at most `r` nodes, the set F, have failed, and an item of size `s` finds no place although the manager places
//! whatever fits. Then every survivor `v` that may run it and holds no foe of it has less than `s` left. It had `free(v)`,
//! so items from F that together take at least `free(v) - s + 1` lie on it, and each of them, like the stuck one, ran in
//! F at the start, wherever it has been since. So
//!
//! ```text
//! sum over F of used(x)  >=  s + sum over survivors v of max(0, free(v) - s + 1)
//! ```
//!
//! Adding F's own part of the right hand side to both sides makes the left one a sum of weights, one for each node, and
//! the worst F is the `r` heaviest nodes: exact, in one pass, for nodes that all differ. If the sum stays below, nothing
//! of size `s` gets stuck. In the same way with numbers of items instead of their memory: `v` holds at least
//! `(free(v) - s + 1) / biggest` of them, rounded up. The latter contains XenServer's bound, where every machine is as
//! big as the biggest and the `r` fullest and the `r` largest hosts fail at once; here they are the same `r`.
//!
//! At most as many nodes as an item has foes are closed to it; the sum leaves out that many, the best ones.
//!
//! # Why something gets stuck
//! In the end what ran in F lies in what the survivors had free. If it takes more than that, by memory or, for every
//! size, by the number of places of that size, no strategy survives F. Nor does one if F is all that may run an item, or
//! leaves fewer nodes than hold one of a group kept apart.

use super::pack::{Strategy, pack};
use super::problem::{Nodes, Problem, Profile, State, bit, count, each};

/// Whether any placements that refuse nothing that fits survive this many failures, from the start.
pub(super) fn proves(problem: &Problem, failures: usize) -> bool {
    let mut state = problem.start.clone();
    pack(problem, &mut state, &problem.start.pending, Strategy::WorstFit).stuck.is_empty()
        && holds(problem, &state, failures)
}

/// Whether any placements that refuse nothing that fits survive this many failures, from here. Nothing is pending.
pub(super) fn holds(problem: &Problem, state: &State, failures: usize) -> bool {
    if failures == 0 {
        return true;
    }
    // What must go where others are may find no place for another reason than memory.
    !problem.mated
        && failures < count(state.up)
        && problem.profiles.iter().all(|profile| profile_holds(problem, state, profile, failures))
}

fn profile_holds(problem: &Problem, state: &State, profile: &Profile, failures: usize) -> bool {
    let (Some(&most), Some(&least)) = (profile.sizes.first(), profile.sizes.last()) else { return true };
    by_memory(state, profile, most, least, failures)
        || by_number(problem, state, profile, most, failures)
        || (most != least && profile.sizes.iter().all(|&size| by_memory(state, profile, size, size, failures)))
}

/// No item between two sizes gets stuck for its memory. What the bigger one leaves unused is lost, and only the smaller
/// one is known to be the stuck one.
fn by_memory(state: &State, profile: &Profile, most: u64, least: u64, failures: usize) -> bool {
    let room = |node: usize| (state.free[node] + 1).saturating_sub(most);
    let (heaviest, all, closed) = sums(state.up, profile, failures, |node| state.used[node], room);
    heaviest + closed < all + least
}

/// No item up to a size gets stuck for the number of places.
fn by_number(problem: &Problem, state: &State, profile: &Profile, most: u64, failures: usize) -> bool {
    if problem.biggest == 0 {
        return false;
    }
    let items = |node: usize| u64::try_from(state.on[node].len()).unwrap_or(u64::MAX / 128);
    let places = |node: usize| (state.free[node] + 1).saturating_sub(most).div_ceil(problem.biggest);
    let (heaviest, all, closed) = sums(state.up, profile, failures, items, places);
    heaviest + closed < all + 1
}

/// The load and room of the heaviest nodes, the room of all, and the room of those that foes may close.
fn sums(
    up: Nodes,
    profile: &Profile,
    failures: usize,
    load: impl Fn(usize) -> u64,
    room: impl Fn(usize) -> u64,
) -> (u64, u64, u64) {
    let mut weights = [0; super::NODES_MAX];
    let mut rooms = [0; super::NODES_MAX];
    let mut nodes = 0;
    for node in each(up) {
        rooms[nodes] = if profile.allowed & bit(node) == 0 { 0 } else { room(node) };
        weights[nodes] = load(node) + rooms[nodes];
        nodes += 1;
    }
    let all = rooms[..nodes].iter().sum();
    (top(&mut weights[..nodes], failures), all, top(&mut rooms[..nodes], profile.foes))
}

/// The sum of the biggest values.
fn top(values: &mut [u64], many: usize) -> u64 {
    if many == 0 {
        return 0;
    }
    if many < values.len() {
        values.select_nth_unstable_by(many - 1, |a, b| b.cmp(a));
    }
    values.iter().take(many).sum()
}

/// Nodes whose failure no strategy survives, if arithmetic finds some: at most as many as may fail. Nothing is pending.
pub(super) fn refutes(problem: &Problem, state: &State, failures: usize) -> Option<Nodes> {
    // Everything that may run an item, and where it runs.
    for node in each(state.up) {
        for &index in &state.on[node] {
            let all = (problem.items[index].allowed & state.up) | bit(node);
            if count(all) <= failures {
                return Some(all);
            }
        }
    }
    // One of each node that holds some of a group kept apart: in the end they would need as many nodes again.
    for &nodes in &state.apart {
        if count(nodes) + failures > count(state.up) {
            let first = each(nodes).chain(each(state.up & !nodes)).take(failures);
            return Some(first.fold(0, |set, node| set | bit(node)));
        }
    }
    let by_memory = |node: usize| (state.used[node], state.free[node]);
    if let Some(found) = heavier(state, failures, by_memory) {
        return Some(found);
    }
    problem.sizes.iter().find_map(|&size| {
        let bigger = |node: usize| state.on[node].partition_point(|&index| problem.items[index].size >= size);
        let number = |node: usize| (u64::try_from(bigger(node)).unwrap_or(0), state.free[node] / size);
        heavier(state, failures, number)
    })
}

/// The nodes that lose more than the others have room for.
fn heavier(state: &State, failures: usize, load_and_room: impl Fn(usize) -> (u64, u64)) -> Option<Nodes> {
    let mut all = 0;
    let mut weights: Vec<(u64, usize)> = Vec::with_capacity(super::NODES_MAX);
    for node in each(state.up) {
        let (load, room) = load_and_room(node);
        all += room;
        weights.push((load + room, node));
    }
    weights.sort_unstable_by_key(|&(weight, node)| (std::cmp::Reverse(weight), node));
    let worst = weights.iter().take(failures);
    let lost: u64 = worst.clone().map(|&(weight, _)| weight).sum();
    (lost > all).then(|| worst.fold(0, |set, &(_, node)| set | bit(node)))
}

/// Whether items certainly don't fit, all together, into what is free.
pub(super) fn overfull(problem: &Problem, state: &State, items: &[usize]) -> bool {
    let free: u64 = each(state.up).map(|node| state.free[node]).sum();
    let need: u64 = items.iter().map(|&index| problem.items[index].size).sum();
    let mut places = items.iter().enumerate().filter(|&(at, _)| {
        // Only the last one of a size: then all that are as big have been counted.
        items.get(at + 1).is_none_or(|&next| problem.items[next].size != problem.items[items[at]].size)
    });
    need > free
        || places.any(|(at, &index)| {
            let size = problem.items[index].size;
            let places: u64 =
                each(state.up).map(|node| state.free[node].checked_div(size).unwrap_or(u64::MAX >> 7)).sum();
            u64::try_from(at).is_ok_and(|before| places < before + 1)
        })
}
