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
    /// All resources that the manager keeps.
    pub resources: BTreeMap<ResourceName, ResourceView>,
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

    /// Where it will be once it has settled.
    #[must_use]
    pub fn destination(&self) -> Option<&MemberName> {
        match self {
            Self::Nowhere => None,
            Self::On(node) | Self::Moving { from: _, to: node } => Some(node),
        }
    }
}

impl Picture {
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

    /// Whether `arriving`, as far as they don't count there already, fit beside what this node promised.
    ///
    /// # Errors
    /// How much memory they need and how much is free. What isn't known limits nothing.
    pub fn fits(&self, node: &MemberName, arriving: &BTreeSet<&ResourceName>) -> Result<(), TooSmall> {
        let Some(capacity) = self.nodes.get(node).and_then(|view| view.memory) else { return Ok(()) };
        let there = |view: &ResourceView| view.seat.counts_on(node);
        let sum = |memory: &mut dyn Iterator<Item = &ResourceView>| {
            memory.filter_map(|view| view.memory).fold(0_u64, u64::saturating_add)
        };
        let new = arriving.iter().filter_map(|name| self.resources.get(*name)).filter(|view| !there(view));
        let needs = sum(&mut new.into_iter());
        let free = capacity.saturating_sub(sum(&mut self.resources.values().filter(|view| there(view))));
        // Who brings nothing may stay on a node that is overcommitted already.
        if needs == 0 || needs <= free { Ok(()) } else { Err(TooSmall { needs, free }) }
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
