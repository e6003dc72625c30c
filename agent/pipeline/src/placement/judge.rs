//! Which of the operator's rules can hold at once, and what follows from those that can.
//!
//! Rules that contradict each other, or that no choice could meet, are left out, each with the reason and the name of
//! the other: a rule that is left out is an alarm, never a silent compromise. The checks are those of Proxmox VE, and all
//! look at the same rules, so that the order of names decides nothing; what it doesn't look for comes after them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::rule::{PlacementRule, PlacementRules, RuleKind};
use crate::name::{MemberName, ResourceName, RuleName};

/// Where one bundle belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRule {
    /// The rule that says so.
    pub rule: RuleName,
    /// Its nodes with their priority.
    pub nodes: BTreeMap<MemberName, u32>,
    /// Never on any other node.
    pub strict: bool,
}

/// The rules that hold, made ready for choices.
///
/// Resources that belong together form a bundle, named by the first of them; a resource without such a rule is a bundle
/// of its own. Whatever holds for one resource of a bundle holds for all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EffectiveRules {
    /// The bundle of each resource that has company.
    lead: BTreeMap<ResourceName, ResourceName>,
    /// The resources of each such bundle.
    members: BTreeMap<ResourceName, BTreeSet<ResourceName>>,
    /// The rule that ties each resource to its bundle; the first, if several do.
    tie: BTreeMap<ResourceName, RuleName>,
    /// For each resource those that it is kept apart from, and by which rule.
    apart: BTreeMap<ResourceName, BTreeMap<ResourceName, RuleName>>,
    /// Where bundles belong.
    node: BTreeMap<ResourceName, NodeRule>,
}

impl EffectiveRules {
    /// The bundle that a resource is in.
    #[must_use]
    pub fn bundle_of<'a>(&'a self, resource: &'a ResourceName) -> &'a ResourceName {
        self.lead.get(resource).unwrap_or(resource)
    }

    /// The resources of the bundle that `resource` is in, itself among them.
    #[must_use]
    pub fn bundle<'a>(&'a self, resource: &'a ResourceName) -> BTreeSet<&'a ResourceName> {
        match self.members.get(self.bundle_of(resource)) {
            Some(members) => members.iter().collect(),
            None => BTreeSet::from([resource]),
        }
    }

    /// The resources that this one is kept apart from, each with the rule: those that a rule names with it or with any
    /// other of its bundle, and the whole bundles of those that a rule names with itself.
    pub fn apart_from(&self, resource: &ResourceName) -> impl Iterator<Item = (&ResourceName, &RuleName)> {
        self.apart.get(resource).into_iter().flatten()
    }

    /// Whether any rule speaks of a resource.
    #[must_use]
    pub fn speak_of(&self, resource: &ResourceName) -> bool {
        self.lead.contains_key(resource) || self.apart.contains_key(resource) || self.node.contains_key(resource)
    }

    /// The rule that ties a resource to its bundle.
    #[must_use]
    pub fn tie(&self, resource: &ResourceName) -> Option<&RuleName> {
        self.tie.get(resource)
    }

    /// Where a resource belongs.
    #[must_use]
    pub fn node_rule(&self, resource: &ResourceName) -> Option<&NodeRule> {
        self.node.get(self.bundle_of(resource))
    }

    fn new(rules: &BTreeMap<&RuleName, &PlacementRule>) -> Self {
        let mut effective = Self::default();
        for (rules, resources) in bundles(rules) {
            let Some(lead) = resources.first().cloned() else { continue };
            for resource in &resources {
                effective.lead.insert(resource.clone(), lead.clone());
                if let Some((rule, _)) = rules.iter().find(|(_, rule)| rule.resources.contains(resource)) {
                    effective.tie.insert(resource.clone(), (*rule).clone());
                }
            }
            effective.members.insert(lead, resources);
        }
        for (&name, &rule) in rules {
            let leads: BTreeSet<_> = rule.resources.iter().map(|r| effective.bundle_of(r).clone()).collect();
            match &rule.kind {
                RuleKind::Together => {}
                RuleKind::NodeAffinity { nodes, strict } => {
                    for lead in leads {
                        let belongs = NodeRule { rule: name.clone(), nodes: nodes.clone(), strict: *strict };
                        effective.node.entry(lead).or_insert(belongs);
                    }
                }
                RuleKind::Apart => {
                    for one in &rule.resources {
                        for other in rule.resources.iter().filter(|other| *other != one) {
                            effective.part(one, other, name);
                        }
                    }
                }
            }
        }
        effective
    }

    /// Keeps the whole bundle of `one` apart from `other`. Two that no rule names needn't be apart: each is drawn to those
    /// of its bundle that are, and while they gather, fewer nodes are closed to them.
    fn part(&mut self, one: &ResourceName, other: &ResourceName, rule: &RuleName) {
        let bundle: Vec<ResourceName> = self.bundle(one).into_iter().cloned().collect();
        for member in bundle {
            for (from, to) in [(&member, other), (other, &member)] {
                self.apart.entry(from.clone()).or_default().entry(to.clone()).or_insert_with(|| rule.clone());
            }
        }
    }
}

/// Why a rule has no effect. Each text reads on from "the rule has no effect: ".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleFault {
    /// Another node affinity names the same resource.
    TwoNodeAffinities {
        /// The other.
        other: RuleName,
        /// The resource.
        resource: ResourceName,
    },
    /// Together or apart, of fewer than two.
    TooFewResources,
    /// More resources to keep apart than there are nodes.
    MoreThanNodes {
        /// How many resources.
        resources: usize,
        /// How many nodes.
        nodes: usize,
    },
    /// Two resources are to be together and apart.
    TogetherAndApart {
        /// The other rule.
        other: RuleName,
        /// One resource.
        one: ResourceName,
        /// The other one.
        two: ResourceName,
    },
    /// A node affinity with several priorities and a rule that ties or parts its resources.
    Priorities {
        /// The other rule.
        other: RuleName,
        /// A resource in both.
        resource: ResourceName,
    },
    /// Resources that are to be together are in several node affinities.
    TogetherOnDifferentNodes {
        /// Another rule of them.
        other: RuleName,
        /// Whether no node is in all the strict ones, so that they could never run.
        impossible: bool,
    },
    /// Resources that are to be apart have too few nodes by their node affinities.
    TooFewNodesToPart {
        /// Another rule of them.
        other: RuleName,
        /// How many resources.
        resources: usize,
        /// How many nodes they have in all.
        nodes: usize,
    },
    /// However the resources that are to be apart are spread over the nodes that strict rules leave them, this one
    /// finds none.
    NoNodeLeft {
        /// The strict rule of that resource, if it has one.
        other: Option<RuleName>,
        /// The resource.
        resource: ResourceName,
    },
    /// A strict node affinity to nodes that the cluster doesn't have.
    UnknownNodes {
        /// The nodes.
        nodes: BTreeSet<MemberName>,
    },
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoNodeAffinities { other, resource } => {
                write!(f, "{resource} is in the node affinity {other} too: keep it in one of them")
            }
            Self::TooFewResources => f.write_str("it takes two resources or more: name another, or remove the rule"),
            Self::MoreThanNodes { resources, nodes } => {
                write!(f, "it keeps {resources} resources apart, and the cluster has {nodes} nodes: name fewer")
            }
            Self::TogetherAndApart { other, one, two } => {
                write!(f, "{one} and {two} can't be together and apart: change it or the rule {other}")
            }
            Self::Priorities { other, resource } => write!(
                f,
                "{resource} is in a node affinity with several priorities and in a rule with other resources, and the \
                 two can't both be kept: give all nodes the same priority, or take it out of this rule or of {other}"
            ),
            Self::TogetherOnDifferentNodes { other, impossible: true } => {
                write!(f, "no node is allowed to all resources that are to be together: change it or the rule {other}")
            }
            Self::TogetherOnDifferentNodes { other, impossible: false } => {
                write!(f, "resources that are to be together are in several node affinities: keep one, this or {other}")
            }
            Self::TooFewNodesToPart { other, resources, nodes } => write!(
                f,
                "{resources} resources that are to be apart have {nodes} nodes in all: add nodes, or change it or the \
                 rule {other}"
            ),
            Self::NoNodeLeft { other: Some(other), resource } => {
                write!(f, "the others leave {resource} none of its nodes: add nodes to {other}, or change either rule")
            }
            Self::NoNodeLeft { other: None, resource } => {
                write!(f, "the others leave {resource} no node: keep fewer resources apart")
            }
            Self::UnknownNodes { nodes } => {
                f.write_str("the cluster has none of its nodes (")?;
                list(f, nodes)?;
                f.write_str("): correct them, or remove the rule")
            }
        }
    }
}

/// Writes names with commas.
pub(super) fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, names: &BTreeSet<T>) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{name}")?;
    }
    Ok(())
}

/// Which rules hold in a cluster of these nodes, and why the others don't.
#[must_use]
pub fn judge_rules(
    rules: &PlacementRules,
    nodes: &BTreeSet<MemberName>,
) -> (EffectiveRules, BTreeMap<RuleName, RuleFault>) {
    if rules.is_empty() {
        return (EffectiveRules::default(), BTreeMap::new());
    }
    let mut enabled: Rules<'_> = rules.iter().filter(|(_, rule)| !rule.disabled_by_operator).collect();
    let mut faults = Faults::default();
    two_node_affinities(&enabled, &mut faults);
    counts(&enabled, nodes, &mut faults);
    together_and_apart(&enabled, &mut faults);
    priorities(&enabled, &mut faults);
    together_on_different_nodes(&enabled, &mut faults);
    too_few_nodes_to_part(&enabled, &mut faults);
    unknown_nodes(&enabled, nodes, &mut faults);
    enabled.retain(|name, _| !faults.0.contains_key(*name));
    no_node_left(&enabled, nodes, &mut faults);
    enabled.retain(|name, _| !faults.0.contains_key(*name));
    (EffectiveRules::new(&enabled), faults.0)
}

type Rules<'a> = BTreeMap<&'a RuleName, &'a PlacementRule>;

/// Faults so far. The first of a rule is the one that is shown.
#[derive(Default)]
struct Faults(BTreeMap<RuleName, RuleFault>);

impl Faults {
    fn add(&mut self, rule: &RuleName, fault: RuleFault) {
        self.0.entry(rule.clone()).or_insert(fault);
    }

    /// Both, each naming the other.
    fn pair(&mut self, one: &RuleName, two: &RuleName, fault: impl Fn(RuleName) -> RuleFault) {
        self.add(one, fault(two.clone()));
        self.add(two, fault(one.clone()));
    }
}

fn node_affinities<'a>(
    rules: &Rules<'a>,
) -> Vec<(&'a RuleName, &'a PlacementRule, &'a BTreeMap<MemberName, u32>, bool)> {
    let affinities = rules.iter().filter_map(|(&name, &rule)| match &rule.kind {
        RuleKind::NodeAffinity { nodes, strict } => Some((name, rule, nodes, *strict)),
        RuleKind::Together | RuleKind::Apart => None,
    });
    affinities.collect()
}

fn of_kind<'a>(rules: &Rules<'a>, kind: &RuleKind) -> Vec<(&'a RuleName, &'a PlacementRule)> {
    rules.iter().filter(|(_, rule)| rule.kind == *kind).map(|(&name, &rule)| (name, rule)).collect()
}

/// The bundles: rules of together that share a resource, directly or through others, and all their resources.
fn bundles<'a>(rules: &Rules<'a>) -> Vec<(Rules<'a>, BTreeSet<ResourceName>)> {
    let mut found: Vec<(Rules<'a>, BTreeSet<ResourceName>)> = Vec::new();
    for (name, rule) in of_kind(rules, &RuleKind::Together) {
        let mut merged = (Rules::from([(name, rule)]), rule.resources.clone());
        let (touching, separate) = found.into_iter().partition(|(_, set)| !set.is_disjoint(&rule.resources));
        found = separate;
        let touching: Vec<(Rules<'a>, BTreeSet<ResourceName>)> = touching;
        for (rules, resources) in touching {
            merged.0.extend(rules);
            merged.1.extend(resources);
        }
        found.push(merged);
    }
    found
}

fn two_node_affinities(rules: &Rules<'_>, faults: &mut Faults) {
    let affinities = node_affinities(rules);
    for (i, (one, first, ..)) in affinities.iter().enumerate() {
        for (two, second, ..) in affinities.iter().skip(i + 1) {
            if let Some(resource) = first.resources.intersection(&second.resources).next() {
                faults.pair(one, two, |other| RuleFault::TwoNodeAffinities { other, resource: resource.clone() });
            }
        }
    }
}

fn counts(rules: &Rules<'_>, nodes: &BTreeSet<MemberName>, faults: &mut Faults) {
    for (name, rule) in rules {
        let resources = rule.resources.len();
        match rule.kind {
            RuleKind::NodeAffinity { .. } => {}
            RuleKind::Together | RuleKind::Apart if resources < 2 => faults.add(name, RuleFault::TooFewResources),
            RuleKind::Apart if resources > nodes.len() => {
                faults.add(name, RuleFault::MoreThanNodes { resources, nodes: nodes.len() });
            }
            RuleKind::Together | RuleKind::Apart => {}
        }
    }
}

fn together_and_apart(rules: &Rules<'_>, faults: &mut Faults) {
    for (tying, bundle) in bundles(rules) {
        for (name, parting) in of_kind(rules, &RuleKind::Apart) {
            let mut common = bundle.intersection(&parting.resources);
            if let (Some(one), Some(two)) = (common.next(), common.next()) {
                for together in tying.keys() {
                    faults.pair(together, name, |other| RuleFault::TogetherAndApart {
                        other,
                        one: one.clone(),
                        two: two.clone(),
                    });
                }
            }
        }
    }
}

/// Which class of nodes is the candidate depends on who is online, so whether such a rule can be kept would too.
fn priorities(rules: &Rules<'_>, faults: &mut Faults) {
    let affinities = node_affinities(rules);
    for kind in [RuleKind::Together, RuleKind::Apart] {
        for (name, rule) in of_kind(rules, &kind) {
            let touching = || affinities.iter().filter(|(_, other, ..)| !rule.resources.is_disjoint(&other.resources));
            let several = |nodes: &BTreeMap<MemberName, u32>| nodes.values().collect::<BTreeSet<_>>().len() > 1;
            let Some((worst, ..)) = touching().find(|(_, _, nodes, _)| several(nodes)) else { continue };
            for (other, affinity, ..) in touching() {
                let Some(resource) = rule.resources.intersection(&affinity.resources).next() else { continue };
                let fault =
                    |other: &RuleName| RuleFault::Priorities { other: other.clone(), resource: resource.clone() };
                faults.add(other, fault(name));
                if other == worst {
                    faults.add(name, fault(other));
                }
            }
        }
    }
}

fn together_on_different_nodes(rules: &Rules<'_>, faults: &mut Faults) {
    let affinities = node_affinities(rules);
    for (tying, bundle) in bundles(rules) {
        let touching: Vec<_> =
            affinities.iter().filter(|(_, other, ..)| !bundle.is_disjoint(&other.resources)).collect();
        let (Some(first), Some(second)) = (touching.first(), touching.get(1)) else { continue };
        let strict: Vec<BTreeSet<_>> =
            touching.iter().filter(|(.., strict)| *strict).map(|(_, _, nodes, _)| nodes.keys().collect()).collect();
        let shared = strict.iter().cloned().reduce(|all, nodes| all.intersection(&nodes).copied().collect());
        let impossible = shared.is_some_and(|nodes| nodes.is_empty());
        let fault = |other: &RuleName| RuleFault::TogetherOnDifferentNodes { other: other.clone(), impossible };
        for together in tying.keys() {
            faults.add(together, fault(first.0));
        }
        for (name, ..) in &touching {
            faults.add(name, fault(if *name == first.0 { second.0 } else { first.0 }));
        }
    }
}

fn too_few_nodes_to_part(rules: &Rules<'_>, faults: &mut Faults) {
    let affinities = node_affinities(rules);
    for (name, rule) in of_kind(rules, &RuleKind::Apart) {
        let touching: Vec<_> =
            affinities.iter().filter(|(_, other, ..)| !rule.resources.is_disjoint(&other.resources)).collect();
        let located: BTreeSet<_> =
            touching.iter().flat_map(|(_, other, ..)| rule.resources.intersection(&other.resources)).collect();
        let nodes: BTreeSet<_> = touching.iter().flat_map(|(_, _, nodes, _)| nodes.keys()).collect();
        if nodes.len() < located.len() {
            for (other, ..) in touching {
                faults.pair(name, other, |other| RuleFault::TooFewNodesToPart {
                    other,
                    resources: located.len(),
                    nodes: nodes.len(),
                });
            }
        }
    }
}

fn unknown_nodes(rules: &Rules<'_>, nodes: &BTreeSet<MemberName>, faults: &mut Faults) {
    for (name, _, wanted, strict) in node_affinities(rules) {
        if strict && wanted.keys().all(|node| !nodes.contains(node)) {
            faults.add(name, RuleFault::UnknownNodes { nodes: wanted.keys().cloned().collect() });
        }
    }
}

/// Parts the resources over the nodes that strict rules leave them, each to one of its own. Where one is left over, there
/// is no way to part them all: the rule that parts them is left out, never the strict one, on which their data may rest.
fn no_node_left(rules: &Rules<'_>, nodes: &BTreeSet<MemberName>, faults: &mut Faults) {
    let effective = EffectiveRules::new(rules);
    for (name, rule) in of_kind(rules, &RuleKind::Apart) {
        let allowed: BTreeMap<&ResourceName, BTreeSet<&MemberName>> = rule
            .resources
            .iter()
            .map(|resource| {
                let strict = effective.node_rule(resource).filter(|belongs| belongs.strict);
                let may = |node: &&MemberName| strict.is_none_or(|belongs| belongs.nodes.contains_key(*node));
                (resource, nodes.iter().filter(may).collect())
            })
            .collect();
        let mut taken: BTreeMap<&MemberName, &ResourceName> = BTreeMap::new();
        for &resource in allowed.keys() {
            if !seat(resource, &allowed, &mut taken, &mut BTreeSet::new()) {
                let other = effective.node_rule(resource).map(|belongs| belongs.rule.clone());
                faults.add(name, RuleFault::NoNodeLeft { other, resource: resource.clone() });
                break;
            }
        }
    }
}

/// Finds a node for a resource, moving those seated before where that helps. As deep as there are nodes.
fn seat<'a>(
    resource: &'a ResourceName,
    allowed: &BTreeMap<&'a ResourceName, BTreeSet<&'a MemberName>>,
    taken: &mut BTreeMap<&'a MemberName, &'a ResourceName>,
    asked: &mut BTreeSet<&'a MemberName>,
) -> bool {
    for &node in allowed.get(resource).into_iter().flatten() {
        if !asked.insert(node) {
            continue;
        }
        let free = match taken.get(node).copied() {
            None => true,
            Some(holder) => seat(holder, allowed, taken, asked),
        };
        if free {
            taken.insert(node, resource);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
