//! What a choice rests on: the nodes and the resources as the manager sees them in this round.
//!
//! The manager changes a resource's [`Seat`] after each decision of a round and goes through the resources by name: this
//! is what spreads them.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{MemberName, ResourceName};

/// The nodes and resources of one round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Picture {
    /// All nodes of the cluster, those that take nothing too.
    pub nodes: BTreeMap<MemberName, NodeView>,
    resources: BTreeMap<ResourceName, ResourceView>,
    /// What counts on each node: kept, so that no choice has to go through all resources for it.
    counted: BTreeMap<MemberName, Counted>,
}

/// What counts on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    pub resources: usize,
    /// What they were promised.
    pub promised: Total,
    /// What they use: those that are on their way here, and those of which nobody has measured it, what they were promised.
    pub used: Total,
}

/// What resources take together. Whole numbers, so that it is the same in whatever order they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Total {
    /// How many may have as many processors as their node has.
    pub unlimited: u64,
    /// The processors of the others, in thousandths.
    pub cpu_milli: u64,
    /// Bytes: the sum over all of 64 bits fits.
    pub memory: u128,
}

impl Total {
    /// What a resource was promised.
    pub fn promised(resource: &ResourceView) -> Self {
        let cpu_milli = resource.cpu_milli;
        Self {
            unlimited: u64::from(cpu_milli == Some(0)),
            cpu_milli: cpu_milli.unwrap_or(0).into(),
            memory: resource.memory.unwrap_or(0).into(),
        }
    }

    /// What a resource uses where it runs.
    pub fn used(resource: &ResourceView) -> Self {
        match resource.measured {
            Some(used) => Self { unlimited: 0, cpu_milli: used.cpu_milli.into(), memory: used.memory.into() },
            None => Self::promised(resource),
        }
    }

    fn add(&mut self, other: Self) {
        self.unlimited += other.unlimited;
        self.cpu_milli += other.cpu_milli;
        self.memory += other.memory;
    }

    fn take_away(&mut self, other: Self) {
        self.unlimited -= other.unlimited;
        self.cpu_milli -= other.cpu_milli;
        self.memory -= other.memory;
    }
}

/// A node as the manager sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// It is online, and neither leaving, in maintenance nor lost.
    pub may_take: bool,
    /// The memory that resources may have there, in bytes, where it is known.
    pub memory: Option<u64>,
    /// Its processors, where they are known.
    pub cpus: Option<u32>,
}

/// A resource as the manager sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceView {
    /// Where it counts.
    pub seat: Seat,
    /// The memory that it was promised, in bytes, where that is declared.
    pub memory: Option<u64>,
    /// The processors that it was promised, in thousandths, where they are declared; 0 is as many as the node has.
    pub cpu_milli: Option<u32>,
    /// What it really uses, while it runs.
    pub measured: Option<Use>,
    /// The only nodes where its storage or hardware is; empty means all.
    pub only_on: BTreeSet<MemberName>,
    /// Rebalancing may move it.
    pub may_balance: bool,
}

/// What a resource uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// Processors, in thousandths.
    pub cpu_milli: u32,
    /// Memory, in bytes.
    pub memory: u64,
}

/// Where a resource counts. One that is stopped, or wants to start and hasn't been given a node, counts nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seat {
    /// On no node.
    Nowhere,
    /// On its owner, or on the node that it is about to start on.
    On(MemberName),
    /// On both, because it may run on either until the move is over.
    Moving {
        /// The owner.
        from: MemberName,
        /// The node that it moves to.
        to: MemberName,
    },
}

impl Seat {
    /// Every node where it counts.
    pub fn nodes(&self) -> impl Iterator<Item = &MemberName> {
        let (first, second) = match self {
            Self::Nowhere => (None, None),
            Self::On(node) => (Some(node), None),
            Self::Moving { from, to } => (Some(from), Some(to)),
        };
        first.into_iter().chain(second)
    }

    /// Whether it counts on this node.
    #[must_use]
    pub fn counts_on(&self, node: &MemberName) -> bool {
        self.nodes().any(|n| n == node)
    }

    /// Every node where it counts, once, and whether it is its owner: a start that failed may end in a move to where it is.
    fn counted_nodes(&self) -> impl Iterator<Item = (&MemberName, bool)> {
        let mut nodes = self.nodes();
        let first = nodes.next();
        let second = nodes.find(|second| Some(*second) != first);
        first.map(|node| (node, true)).into_iter().chain(second.map(|node| (node, false)))
    }

    /// Where it will be once it has settled.
    #[must_use]
    pub fn destination(&self) -> Option<&MemberName> {
        match self {
            Self::Nowhere => None,
            Self::On(node) | Self::Moving { from: _, to: node } => Some(node),
        }
    }
}

impl Counted {
    /// Whether a resource fits beside all this on its node, if it isn't a part of it. What isn't known limits nothing, and
    /// who brings nothing may stay on a node that is overcommitted already.
    pub fn has_room(&self, node: &MemberName, view: &NodeView, resource: &ResourceView) -> bool {
        match (view.memory, resource.memory.unwrap_or(0)) {
            (None, _) | (_, 0) => true,
            (Some(memory), needs) => {
                u128::from(needs) + self.promised.memory <= u128::from(memory) || resource.seat.counts_on(node)
            }
        }
    }
}

impl Picture {
    /// These nodes and resources.
    #[must_use]
    pub fn new(nodes: BTreeMap<MemberName, NodeView>, resources: BTreeMap<ResourceName, ResourceView>) -> Self {
        let mut counted = BTreeMap::new();
        for view in resources.values() {
            count(&mut counted, view);
        }
        Self { nodes, resources, counted }
    }

    /// All resources that the manager keeps.
    #[must_use]
    pub const fn resources(&self) -> &BTreeMap<ResourceName, ResourceView> {
        &self.resources
    }

    /// Changes what is known of a resource, if it is known.
    pub fn change(&mut self, name: &ResourceName, change: impl FnOnce(&mut ResourceView)) {
        let Some(view) = self.resources.get_mut(name) else { return };
        for (node, used) in view.seat.counted_nodes() {
            if let Some(counted) = self.counted.get_mut(node) {
                counted.resources -= 1;
                counted.promised.take_away(Total::promised(view));
                counted.used.take_away(if used { Total::used(view) } else { Total::promised(view) });
                if counted.resources == 0 {
                    self.counted.remove(node);
                }
            }
        }
        change(view);
        count(&mut self.counted, view);
    }

    /// The nodes that may take a resource now, each with what counts there.
    pub(super) fn counted_takers(&self) -> impl Iterator<Item = (&MemberName, &NodeView, Counted)> {
        let mut all = self.counted.iter().peekable();
        let takers = self.nodes.iter().filter(|(_, view)| view.may_take);
        takers.map(move |(node, view)| {
            // Both go by name.
            while all.next_if(|(name, _)| *name < node).is_some() {}
            let counted = all.next_if(|(name, _)| *name == node).map(|(_, counted)| *counted);
            (node, view, counted.unwrap_or_default())
        })
    }

    /// How many resources count on a node.
    #[must_use]
    pub fn count_on(&self, node: &MemberName) -> usize {
        self.counted.get(node).map_or(0, |counted| counted.resources)
    }

    /// The nodes that may take a resource now.
    pub fn takers(&self) -> impl Iterator<Item = &MemberName> {
        self.nodes.iter().filter(|(_, view)| view.may_take).map(|(name, _)| name)
    }

    /// Whether this node may take a resource now.
    #[must_use]
    pub fn takes(&self, node: &MemberName) -> bool {
        self.nodes.get(node).is_some_and(|view| view.may_take)
    }

    /// Whether a resource's storage and hardware are on a node.
    #[must_use]
    pub fn has_what_it_needs(&self, node: &MemberName, resource: &ResourceName) -> bool {
        self.resources.get(resource).is_none_or(|view| view.only_on.is_empty() || view.only_on.contains(node))
    }

    /// Whether a resource fits beside what a node promised, if it doesn't count there already.
    #[must_use]
    pub fn has_room(&self, node: &MemberName, resource: &ResourceView) -> bool {
        let counted = self.counted.get(node).copied().unwrap_or_default();
        self.nodes.get(node).is_none_or(|view| counted.has_room(node, view, resource))
    }

    /// Of the nodes that may take a resource, have room for it and are among these, the one with the fewest; the first by
    /// name, if several have as few.
    pub fn fewest(&self, resource: &ResourceView, among: impl Fn(&MemberName) -> bool) -> Option<&MemberName> {
        let mut best: Option<(usize, &MemberName)> = None;
        for (node, view, counted) in self.counted_takers() {
            if best.is_none_or(|(fewest, _)| counted.resources < fewest)
                && among(node)
                && counted.has_room(node, view, resource)
            {
                best = Some((counted.resources, node));
            }
        }
        best.map(|(_, node)| node)
    }

    /// Whether `arriving`, as far as they don't count there already, fit beside what this node promised.
    ///
    /// # Errors
    /// How much memory they need and how much is free. What isn't known limits nothing.
    pub fn fits(&self, node: &MemberName, arriving: &BTreeSet<&ResourceName>) -> Result<(), TooSmall> {
        let Some(capacity) = self.nodes.get(node).and_then(|view| view.memory) else { return Ok(()) };
        let new = arriving.iter().filter_map(|name| self.resources.get(*name));
        let new = new.filter(|view| !view.seat.counts_on(node)).filter_map(|view| view.memory);
        let needs = new.fold(0_u64, u64::saturating_add);
        let taken = self.counted.get(node).map_or(0, |counted| counted.promised.memory);
        let free = capacity.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        // Who brings nothing may stay on a node that is overcommitted already.
        if needs == 0 || needs <= free { Ok(()) } else { Err(TooSmall { needs, free }) }
    }
}

fn count(counted: &mut BTreeMap<MemberName, Counted>, view: &ResourceView) {
    for (node, used) in view.seat.counted_nodes() {
        if !counted.contains_key(node) {
            counted.insert(node.clone(), Counted::default());
        }
        if let Some(counted) = counted.get_mut(node) {
            counted.resources += 1;
            counted.promised.add(Total::promised(view));
            counted.used.add(if used { Total::used(view) } else { Total::promised(view) });
        }
    }
}

/// Too little memory is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSmall {
    /// Bytes that are needed.
    pub needs: u64,
    /// Bytes that are free.
    pub free: u64,
}

impl std::fmt::Display for TooSmall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        write!(
            f,
            "{} MiB of memory are needed and {} MiB are free",
            mib(self.needs.saturating_add((1 << 20) - 1)),
            mib(self.free)
        )
    }
}
