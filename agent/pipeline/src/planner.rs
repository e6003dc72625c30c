//! The failure planner: if nodes fail one after another, could every protected resource still run?
//!
//! # The question
//! A [`Cluster`] is nodes with memory, protected resources with their memory and place, and what binds them: the nodes
//! that may run a resource, groups kept apart, groups kept together. All of it is hard. A plan for `r` failures exists
//! when the manager can win this game of `r` rounds, whatever its opponent does: the opponent takes one node in service
//! away; the manager finds a place on the survivors for everything that ran there; what runs elsewhere stays where it
//! is. Whether the opponent may take a node is no question of chance: every node, in every order. Resources that run
//! nowhere, or on a node out of service, are placed before the first round.
//!
//! # What is promised
//! A plan is a strategy, so the answer holds for the manager that follows it: after a failure it calls [`place`] with
//! the failures that are still to be survived, and gets the placement that the planner found, by the same code in the
//! same order. Placing otherwise is allowed, but then the answer must be asked for anew.
//!
//! - [`Verdict::Plan`] is never wrong, whichever [`Method`] found it.
//! - [`Method::Exact`] searches the whole game: its `NoPlan` is as certain as its `Plan`.
//! - [`Method::Bound`] answers when the search has used up its [`Budget`]: a few lines of arithmetic that hold for every
//!   placement that refuses nothing that fits (see the `bound` module). Where they prove nothing, the verdict is
//!   [`Verdict::Unproven`], which is to be treated as no plan.
//!
//! Placing is worst fit first, that is the biggest resource on the node with the most memory left, as in XenServer's
//! planner; where that strategy loses, best fit, and the resources with the fewest nodes first, and then every other
//! placement is tried. So whatever the simplest strategy survives is found first, and nothing is refused for its sake.
//!
//! Everything is counted, nothing is timed: the same cluster and the same budget give the same answer everywhere.
//!
//! # Details
//! - A resource fits a node when its memory is at most what the node's protected resources leave free. A node that holds
//!   more than it has leaves nothing.
//! - What already breaks a rule may stay; only new places must keep it. A resource kept together with others goes where
//!   all of those run; if they run on several nodes it has no place.
//! - Names in groups and in [`Resource::may_run_on`] that aren't in the cluster bind nothing. A resource on a node that
//!   isn't in the cluster counts as running nowhere.

mod bound;
mod counterexample;
mod evacuate;
mod exact;
mod pack;
mod problem;
#[cfg(test)]
mod tests;
mod what_if;

use std::collections::BTreeSet;

pub use counterexample::{Counterexample, Obstacle, Stuck};
pub use evacuate::{Evacuation, Manner, evacuate, group_moves};
pub use pack::{Placement, place};
pub use what_if::{Effect, what_if};

use crate::name::{MemberName, ResourceName};
use exact::{Outcome, Search};
use problem::Problem;

/// Most nodes of a cluster: a set of nodes is one machine word.
pub const NODES_MAX: usize = 64;

/// Most protected resources. Twice what a cluster of [`NODES_MAX`] nodes is planned for.
pub const RESOURCES_MAX: usize = 4096;

/// Most memory of one resource, 16 TiB: with it no sum over a cluster leaves 64 bits.
pub const RESOURCE_MEMORY_MAX: u64 = 1 << 44;

/// What a node has for protected resources, those that already run there included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// So many bytes.
    Bytes(u64),
    /// It is never the limit.
    Unlimited,
}

/// A node, as the planner sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: MemberName,
    /// Its memory for protected resources.
    pub memory: Memory,
    /// Whether it may be given resources. A node that is lost, fenced, drained or in maintenance isn't in service, and
    /// what is placed there is to be placed elsewhere.
    pub in_service: bool,
}

/// A protected resource, as the planner sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// The memory that it takes on a node.
    pub memory_bytes: u64,
    /// Where it runs; `None` if it is to be started.
    pub node: Option<MemberName>,
    /// The nodes that may run it, by rules and by storage; `None` means all.
    pub may_run_on: Option<BTreeSet<MemberName>>,
}

/// What is planned for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cluster {
    /// The nodes, in any order.
    pub nodes: Vec<Node>,
    /// The protected resources, in any order.
    pub resources: Vec<Resource>,
    /// No two resources of such a group may run on one node.
    pub apart: Vec<BTreeSet<ResourceName>>,
    /// All resources of such a group run on one node.
    pub together: Vec<BTreeSet<ResourceName>>,
}

impl Cluster {
    /// The same cluster with one more resource; one of the same name is replaced.
    #[must_use]
    pub fn with(&self, resource: Resource) -> Self {
        let mut after = self.clone();
        after.resources.retain(|known| known.name != resource.name);
        after.resources.push(resource);
        after
    }

    /// The same cluster with a node taken out of service: drained, in maintenance, or lost.
    #[must_use]
    pub fn without_node(&self, name: &MemberName) -> Self {
        let mut after = self.clone();
        for node in &mut after.nodes {
            if node.name == *name {
                node.in_service = false;
            }
        }
        after
    }
}

/// How many steps a search may take. A step is about one look at one node, some 25 ns on a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Budget(pub u64);

impl Default for Budget {
    /// Enough to follow three failures among 64 nodes with 2,000 resources through every order; about a quarter of a
    /// second on a server when it is used up.
    fn default() -> Self {
        Self(8_000_000)
    }
}

/// Why a cluster can't be planned for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClusterError {
    /// Too many nodes.
    #[error("{count} nodes are more than the {NODES_MAX} that a cluster may have; remove the ones that are gone")]
    TooManyNodes {
        /// How many there are.
        count: usize,
    },
    /// Too many resources.
    #[error("{count} protected resources are more than the planner's {RESOURCES_MAX}; protect fewer")]
    TooManyResources {
        /// How many there are.
        count: usize,
    },
    /// Two nodes of one name.
    #[error("node {node} is named twice; every node must be named once")]
    NodeTwice {
        /// The name.
        node: MemberName,
    },
    /// Two resources of one name.
    #[error("resource {resource} is named twice; every resource must be named once")]
    ResourceTwice {
        /// The name.
        resource: ResourceName,
    },
    /// A resource that no machine could hold.
    #[error("resource {resource} asks for {memory_bytes} bytes, more than 16 TiB; correct its memory")]
    TooMuchMemory {
        /// The resource.
        resource: ResourceName,
        /// What it asks for.
        memory_bytes: u64,
    },
}

/// How an answer was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// By a search through every order of failures, and through the placements that are needed: yes and no are certain.
    Exact,
    /// By arithmetic, because the search used up its budget: yes is certain, no only means that it wasn't proven.
    Bound,
}

/// Whether a plan exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does: whichever nodes fail, everything protected can run.
    Plan,
    /// It doesn't, and these failures show it.
    NoPlan(Counterexample),
    /// It wasn't found, nor refuted. To be treated as no plan. With it the failures that the simplest strategy doesn't
    /// survive, if the search got so far.
    Unproven(Option<Counterexample>),
}

/// The answer for one number of failures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// How many failures were asked for.
    pub failures: usize,
    /// How the verdict was found.
    pub method: Method,
    /// The verdict.
    pub verdict: Verdict,
}

impl Answer {
    /// Whether a plan is known to exist.
    #[must_use]
    pub fn is_plan(&self) -> bool {
        self.verdict == Verdict::Plan
    }
}

/// How many failures a cluster survives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tolerance {
    /// So many nodes may fail, in any order; `None` if not even all resources can run now.
    pub failures: Option<usize>,
    /// The answer for one failure more: why it isn't more.
    pub limit: Answer,
}

/// Whether a plan for this many failures exists.
///
/// # Errors
/// [`ClusterError`] says what is wrong with the cluster.
pub fn plan(cluster: &Cluster, failures: usize, budget: Budget) -> Result<Answer, ClusterError> {
    let problem = Problem::new(cluster)?;
    Ok(answer(&problem, failures, budget))
}

/// The largest number of failures for which, and for every smaller one, a plan exists. Every number has the budget anew.
///
/// # Errors
/// [`ClusterError`] says what is wrong with the cluster.
pub fn tolerance(cluster: &Cluster, budget: Budget) -> Result<Tolerance, ClusterError> {
    let problem = Problem::new(cluster)?;
    let mut survived = None;
    let mut failures = 0;
    loop {
        let next = answer(&problem, failures, budget);
        if !next.is_plan() {
            return Ok(Tolerance { failures: survived, limit: next });
        }
        // A plan for more failures than there are nodes never exists, so this ends.
        survived = Some(failures);
        failures += 1;
    }
}

/// How many nodes a majority leaves room to lose: of `members` voting members, `out` of them already out of service
/// and not counted. Planning for more is idle where the survivors would lose their quorum.
#[must_use]
pub fn majority_limit(members: usize, out: usize) -> usize {
    let out = out.min(members);
    (members - out).saturating_sub(1) / 2 + out
}

fn answer(problem: &Problem, failures: usize, budget: Budget) -> Answer {
    let mut search = Search::new(problem, budget);
    let (method, verdict) = match search.root(failures) {
        Outcome::Won(_) => (Method::Exact, Verdict::Plan),
        Outcome::Lost => {
            let counterexample = counterexample::explain(problem, failures, budget);
            (Method::Exact, Verdict::NoPlan(counterexample))
        }
        Outcome::Spent if bound::proves(problem, failures) => (Method::Bound, Verdict::Plan),
        Outcome::Spent => (Method::Bound, Verdict::Unproven(search.suspicion())),
    };
    Answer { failures, method, verdict }
}
