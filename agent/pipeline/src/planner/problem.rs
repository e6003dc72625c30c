//! A cluster in numbers: nodes are bits of a word, resources are items in order of size.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cluster, ClusterError, Memory, NODES_MAX, RESOURCE_MEMORY_MAX, RESOURCES_MAX};
use crate::name::{MemberName, ResourceName};

/// What an unlimited node has, and the most that any is taken to have: all resources together need no more, and the sum
/// over all nodes is a 64-bit number. In bytes or, as much as ever, in units.
const ENDLESS: u64 = RESOURCE_MEMORY_MAX * 4096;
const _: () = assert!(RESOURCES_MAX <= 4096 && ENDLESS < u64::MAX / 2 / 64 && NODES_MAX <= 64);

/// A set of nodes.
pub(super) type Nodes = u64;

/// The set of one node.
pub(super) const fn bit(node: usize) -> Nodes {
    1 << node
}

/// The nodes of a set, lowest first.
pub(super) fn each(mut nodes: Nodes) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let node = (nodes != 0).then(|| nodes.trailing_zeros() as usize)?;
        nodes &= nodes - 1;
        Some(node)
    })
}

/// How many nodes a set has.
pub(super) const fn count(nodes: Nodes) -> usize {
    nodes.count_ones() as usize
}

/// Resources that are always placed as one: those of one group kept together that run on the same node, or nowhere.
pub(super) struct Item {
    /// Memory, in units of which every item takes a whole number, so that no remainder hides room.
    pub size: u64,
    /// Items of one kind may be swapped for one another.
    pub kind: usize,
    /// Nodes that may be given it.
    pub allowed: Nodes,
    /// The groups kept apart that it is in.
    pub apart: Vec<usize>,
    /// How many other items those groups hold: at most so many nodes are closed to it.
    pub foes: usize,
    /// The group kept together, if parts of that run on several nodes.
    pub mates: Option<usize>,
    /// Where it runs.
    pub home: Option<usize>,
    /// Whether only memory limits it.
    pub plain: bool,
    /// Its resources.
    pub names: Vec<ResourceName>,
    /// Their memory in bytes.
    pub bytes: u64,
}

/// Items that share nodes and foes: what one calculation of the bound is for.
pub(super) struct Profile {
    pub allowed: Nodes,
    pub foes: usize,
    /// Their distinct sizes, biggest first.
    pub sizes: Vec<u64>,
}

/// A cluster in numbers.
pub(super) struct Problem {
    /// Nodes by name.
    pub names: Vec<MemberName>,
    /// Memory of the nodes in bytes, as it was given.
    pub memory: Vec<Memory>,
    /// Nodes of one kind may be swapped for one another if they hold the same.
    pub node_kind: Vec<usize>,
    /// Items, biggest first; those of one kind are neighbours.
    pub items: Vec<Item>,
    /// What kinds of items there are for the bound.
    pub profiles: Vec<Profile>,
    /// The distinct sizes but none, biggest first.
    pub sizes: Vec<u64>,
    /// The biggest item.
    pub biggest: u64,
    /// Whether some item must go where another one is.
    pub mated: bool,
    /// Where everything is at the start.
    pub start: State,
}

/// Where everything is.
#[derive(Clone)]
pub(super) struct State {
    /// Nodes that are left.
    pub up: Nodes,
    /// Memory that is left, in units.
    pub free: Vec<u64>,
    /// Memory of the items there.
    pub used: Vec<u64>,
    /// Items there, in ascending order.
    pub on: Vec<Vec<usize>>,
    /// Per group kept apart, the nodes that hold one of it.
    pub apart: Vec<Nodes>,
    /// Per group kept together, the nodes that hold a part of it.
    pub mates: Vec<Nodes>,
    /// Items that run nowhere.
    pub pending: Vec<usize>,
}

/// What undoes a placement.
pub(super) type Placed = (usize, usize, Nodes);

impl State {
    /// The nodes on which nothing but memory forbids an item.
    pub fn open_to(&self, item: &Item) -> Nodes {
        if item.plain {
            return self.up;
        }
        let mut open = item.allowed & self.up;
        for &group in &item.apart {
            open &= !self.apart[group];
        }
        if let Some(group) = item.mates
            && self.mates[group] != 0
        {
            open &= if count(self.mates[group]) == 1 { self.mates[group] } else { 0 };
        }
        open
    }

    /// Puts an item on a node. The caller has checked that it may.
    pub fn put(&mut self, problem: &Problem, index: usize, node: usize) -> Placed {
        let item = &problem.items[index];
        self.free[node] = self.free[node].saturating_sub(item.size);
        self.used[node] += item.size;
        let at = self.on[node].partition_point(|&other| other < index);
        self.on[node].insert(at, index);
        for &group in &item.apart {
            self.apart[group] |= bit(node);
        }
        let mates = item.mates.map_or(0, |group| self.mates[group]);
        if let Some(group) = item.mates {
            self.mates[group] |= bit(node);
        }
        (index, node, mates)
    }

    /// Takes back what [`State::put`] did; last in, first out. Nothing of a group kept apart was on the node before,
    /// because the placement was a valid one.
    pub fn take_back(&mut self, problem: &Problem, (index, node, mates): Placed) {
        let item = &problem.items[index];
        self.free[node] += item.size;
        self.used[node] -= item.size;
        let at = self.on[node].partition_point(|&other| other < index);
        self.on[node].remove(at);
        for &group in &item.apart {
            self.apart[group] &= !bit(node);
        }
        if let Some(group) = item.mates {
            self.mates[group] = mates;
        }
    }

    /// A node fails: its items are returned. Its memory stays noted, for [`State::revive`].
    pub fn fail(&mut self, problem: &Problem, node: usize) -> Vec<usize> {
        self.up &= !bit(node);
        let items = std::mem::take(&mut self.on[node]);
        for &index in &items {
            let item = &problem.items[index];
            for &group in &item.apart {
                self.apart[group] &= !bit(node);
            }
            if let Some(group) = item.mates {
                self.mates[group] &= !bit(node);
            }
        }
        items
    }

    /// Takes back what [`State::fail`] did.
    pub fn revive(&mut self, problem: &Problem, node: usize, items: Vec<usize>) {
        self.up |= bit(node);
        for &index in &items {
            let item = &problem.items[index];
            for &group in &item.apart {
                self.apart[group] |= bit(node);
            }
            if let Some(group) = item.mates {
                self.mates[group] |= bit(node);
            }
        }
        self.on[node] = items;
    }

    /// Whether two nodes may be swapped for one another.
    pub fn alike(&self, problem: &Problem, a: usize, b: usize) -> bool {
        let kinds = |node: usize| self.on[node].iter().map(|&item| problem.items[item].kind);
        problem.node_kind[a] == problem.node_kind[b]
            && self.free[a] == self.free[b]
            && self.used[a] == self.used[b]
            && self.on[a].len() == self.on[b].len()
            && kinds(a).eq(kinds(b))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Problem {
    pub fn new(cluster: &Cluster) -> Result<Self, ClusterError> {
        let nodes = checked_nodes(cluster)?;
        let node_index = |name: &MemberName| nodes.binary_search_by(|node| node.name.cmp(name)).ok();
        let in_service =
            nodes.iter().enumerate().filter(|(_, node)| node.in_service).fold(0, |set, (n, _)| set | bit(n));
        let index = checked_resources(cluster)?;

        let components = components(cluster, &index);
        let apart = apart_groups(cluster, &index);
        let mut items = items(cluster, &components, &apart, in_service, node_index);
        let unit = items.iter().fold(0, |unit, item| gcd(unit, item.bytes)).max(1);
        for item in &mut items {
            item.size = item.bytes / unit;
        }
        count_foes(&mut items, apart.len());
        mark_kinds(&mut items, in_service);

        let mut sizes: Vec<u64> = items.iter().map(|item| item.size).filter(|&size| size > 0).collect();
        sizes.dedup();
        let node_kind = node_kinds(nodes.len(), &items);
        let mut start = State {
            up: in_service,
            free: (nodes.iter())
                .map(|node| match node.memory {
                    Memory::Bytes(bytes) => (bytes / unit).min(ENDLESS),
                    Memory::Unlimited => ENDLESS,
                })
                .collect(),
            used: vec![0; nodes.len()],
            on: vec![Vec::new(); nodes.len()],
            apart: vec![0; apart.len()],
            mates: vec![0; components.len()],
            pending: Vec::new(),
        };
        let mut problem = Self {
            names: nodes.iter().map(|node| node.name.clone()).collect(),
            memory: nodes.iter().map(|node| node.memory).collect(),
            node_kind,
            profiles: profiles(&items),
            sizes,
            biggest: items.first().map_or(0, |item| item.size),
            mated: items.iter().any(|item| item.mates.is_some()),
            items,
            start: start.clone(),
        };
        for (index, item) in problem.items.iter().enumerate() {
            match item.home {
                Some(node) => drop(start.put(&problem, index, node)),
                None => start.pending.push(index),
            }
        }
        problem.start = start;
        Ok(problem)
    }
}

fn checked_nodes(cluster: &Cluster) -> Result<Vec<&super::Node>, ClusterError> {
    if cluster.nodes.len() > NODES_MAX {
        return Err(ClusterError::TooManyNodes { count: cluster.nodes.len() });
    }
    let mut nodes: Vec<&super::Node> = cluster.nodes.iter().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    match nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(ClusterError::NodeTwice { node: pair[0].name.clone() }),
        None => Ok(nodes),
    }
}

fn checked_resources(cluster: &Cluster) -> Result<BTreeMap<&ResourceName, usize>, ClusterError> {
    if cluster.resources.len() > RESOURCES_MAX {
        return Err(ClusterError::TooManyResources { count: cluster.resources.len() });
    }
    let mut index = BTreeMap::new();
    for (at, resource) in cluster.resources.iter().enumerate() {
        if resource.memory_bytes > RESOURCE_MEMORY_MAX {
            let (resource, memory_bytes) = (resource.name.clone(), resource.memory_bytes);
            return Err(ClusterError::TooMuchMemory { resource, memory_bytes });
        }
        if index.insert(&resource.name, at).is_some() {
            return Err(ClusterError::ResourceTwice { resource: resource.name.clone() });
        }
    }
    Ok(index)
}

/// The resources that are kept together, directly or by others; one set for each that isn't.
fn components(cluster: &Cluster, index: &BTreeMap<&ResourceName, usize>) -> Vec<BTreeSet<usize>> {
    let mut of: Vec<usize> = (0..cluster.resources.len()).collect();
    let mut sets: Vec<BTreeSet<usize>> = of.iter().map(|&at| BTreeSet::from([at])).collect();
    for group in &cluster.together {
        let mut known = group.iter().filter_map(|name| index.get(name).copied());
        let Some(first) = known.next() else { continue };
        for other in known {
            let (into, from) = (of[first], of[other]);
            if into != from {
                let moved = std::mem::take(&mut sets[from]);
                for &at in &moved {
                    of[at] = into;
                }
                sets[into].extend(moved);
            }
        }
    }
    sets.retain(|set| !set.is_empty());
    sets
}

/// Groups kept apart, as resources; what has no two members binds nothing.
fn apart_groups(cluster: &Cluster, index: &BTreeMap<&ResourceName, usize>) -> Vec<BTreeSet<usize>> {
    let mut groups: Vec<BTreeSet<usize>> = (cluster.apart.iter())
        .map(|group| group.iter().filter_map(|name| index.get(name).copied()).collect())
        .filter(|group: &BTreeSet<usize>| group.len() > 1)
        .collect();
    groups.sort();
    groups.dedup();
    groups
}

fn items(
    cluster: &Cluster,
    components: &[BTreeSet<usize>],
    apart: &[BTreeSet<usize>],
    in_service: Nodes,
    node_index: impl Fn(&MemberName) -> Option<usize>,
) -> Vec<Item> {
    let mut of_resource = vec![Vec::new(); cluster.resources.len()];
    for (group, members) in apart.iter().enumerate() {
        members.iter().for_each(|&at| of_resource[at].push(group));
    }
    let mut items = Vec::new();
    for (component, members) in components.iter().enumerate() {
        let mut parts: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for &at in members {
            let home = cluster.resources[at].node.as_ref().and_then(&node_index);
            parts.entry(home.filter(|&node| in_service & bit(node) != 0)).or_default().push(at);
        }
        let split = parts.len() > 1;
        for (home, mut part) in parts {
            part.sort_by(|&a, &b| cluster.resources[a].name.cmp(&cluster.resources[b].name));
            let mut allowed = in_service;
            for nodes in part.iter().filter_map(|&at| cluster.resources[at].may_run_on.as_ref()) {
                allowed &= nodes.iter().filter_map(&node_index).fold(0, |set, node| set | bit(node));
            }
            let mut groups: Vec<usize> = part.iter().flat_map(|&at| of_resource[at].iter().copied()).collect();
            groups.sort_unstable();
            if groups.windows(2).any(|pair| pair[0] == pair[1]) {
                // Kept together and apart: it may stay, but no node may be given it.
                allowed = 0;
                groups.dedup();
            }
            items.push(Item {
                size: 0,
                kind: 0,
                allowed,
                apart: groups,
                foes: 0,
                mates: split.then_some(component),
                home,
                plain: false,
                names: part.iter().map(|&at| cluster.resources[at].name.clone()).collect(),
                bytes: part.iter().map(|&at| cluster.resources[at].memory_bytes).sum(),
            });
        }
    }
    items
}

fn count_foes(items: &mut [Item], groups: usize) {
    let mut members = vec![Vec::new(); groups];
    for (index, item) in items.iter().enumerate() {
        item.apart.iter().for_each(|&group| members[group].push(index));
    }
    for (index, item) in items.iter_mut().enumerate() {
        let foes: BTreeSet<usize> = item.apart.iter().flat_map(|&group| members[group].iter().copied()).collect();
        item.foes = foes.iter().filter(|&&other| other != index).count();
    }
}

/// Sorts the items and says which of them may be swapped: those of equal size, nodes and groups. One that must go where
/// others are is alone in its kind.
fn mark_kinds(items: &mut [Item], in_service: Nodes) {
    items.sort_by(|a, b| {
        let key = |item: &Item| (std::cmp::Reverse(item.size), item.allowed, item.mates.is_some());
        key(a).cmp(&key(b)).then_with(|| a.apart.cmp(&b.apart)).then_with(|| a.names.cmp(&b.names))
    });
    for index in 0..items.len() {
        let item = &items[index];
        let plain = item.allowed == in_service && item.apart.is_empty() && item.mates.is_none();
        let kind = index.checked_sub(1).map_or(0, |before| {
            let other = &items[before];
            let same = (other.size, other.allowed) == (item.size, item.allowed) && other.apart == item.apart;
            if same && other.mates.is_none() && item.mates.is_none() { other.kind } else { index }
        });
        items[index].kind = kind;
        items[index].plain = plain;
    }
}

/// Nodes are of one kind if the same items may run on them.
fn node_kinds(nodes: usize, items: &[Item]) -> Vec<usize> {
    let sets: BTreeSet<Nodes> = items.iter().map(|item| item.allowed).collect();
    let row = |node: usize| sets.iter().map(|set| set & bit(node) != 0).collect::<Vec<bool>>();
    let rows: Vec<Vec<bool>> = (0..nodes).map(row).collect();
    rows.iter().map(|row| rows.iter().position(|other| other == row).expect("every row is its own match")).collect()
}

fn profiles(items: &[Item]) -> Vec<Profile> {
    let mut profiles: BTreeMap<(Nodes, usize), BTreeSet<u64>> = BTreeMap::new();
    for item in items {
        profiles.entry((item.allowed, item.foes)).or_default().insert(item.size);
    }
    let profile = |((allowed, foes), sizes): ((Nodes, usize), BTreeSet<u64>)| {
        let sizes = sizes.into_iter().rev().collect();
        Profile { allowed, foes, sizes }
    };
    profiles.into_iter().map(profile).collect()
}
