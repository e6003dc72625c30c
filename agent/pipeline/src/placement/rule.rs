//! Placement rules as operators write them and the replicated state keeps them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{MemberName, ResourceName, RuleName};

/// Rules at most: every member holds them all, and each is compared with each.
pub const RULES_MAX: usize = 256;

/// Resources in one rule at most.
pub const RESOURCES_MAX: usize = 256;

/// Nodes in one rule at most: as many as a cluster has.
pub const NODES_MAX: usize = 64;

/// The highest priority of a node: Proxmox VE's, so that its rules can be taken over as they are.
pub const PRIORITY_MAX: u32 = 1000;

/// Rules by name.
pub type PlacementRules = BTreeMap<RuleName, PlacementRule>;

/// One rule about where resources belong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementRule {
    /// The resources that it speaks of. They needn't exist yet.
    pub resources: BTreeSet<ResourceName>,
    /// What it says about them.
    pub kind: RuleKind,
    /// Kept, but without effect.
    #[serde(default)]
    pub disabled_by_operator: bool,
}

/// What a rule says about its resources.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RuleKind {
    /// They belong on these nodes.
    NodeAffinity {
        /// The nodes with their priority: those of the highest priority that are there are the candidates.
        nodes: BTreeMap<MemberName, u32>,
        /// Never on any other node. Otherwise the others are the last resort.
        strict: bool,
    },
    /// They run on the same node.
    Together,
    /// No two of them run on the same node.
    Apart,
}

impl PlacementRule {
    /// Checks the bounds that every member relies on. Whether the rule can be met is for [`super::judge`] to say.
    ///
    /// # Errors
    /// Says what is wrong and what is allowed.
    pub fn check(&self) -> Result<(), RuleError> {
        let count = self.resources.len();
        if count == 0 {
            return Err(RuleError::NoResources);
        }
        if count > RESOURCES_MAX {
            return Err(RuleError::TooManyResources { count });
        }
        match &self.kind {
            RuleKind::NodeAffinity { nodes, strict: _ } => {
                if nodes.is_empty() {
                    return Err(RuleError::NoNodes);
                }
                if nodes.len() > NODES_MAX {
                    return Err(RuleError::TooManyNodes { count: nodes.len() });
                }
                match nodes.iter().find(|(_, priority)| **priority > PRIORITY_MAX) {
                    Some((node, &priority)) => Err(RuleError::PriorityTooHigh { node: node.clone(), priority }),
                    None => Ok(()),
                }
            }
            RuleKind::Together | RuleKind::Apart => Ok(()),
        }
    }
}

/// Checks every rule, and how many there are.
///
/// # Errors
/// Names the rule that is wrong, if it is one.
pub fn check_rules(rules: &PlacementRules) -> Result<(), RulesError> {
    if rules.len() > RULES_MAX {
        return Err(RulesError::TooMany { count: rules.len() });
    }
    rules.iter().try_for_each(|(name, rule)| rule.check().map_err(|why| RulesError::Rule { name: name.clone(), why }))
}

/// What is wrong with a rule by itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleError {
    /// It speaks of nothing.
    #[error("it names no resource: name at least one, or remove the rule")]
    NoResources,
    /// It speaks of too much.
    #[error("it names {count} resources, more than {RESOURCES_MAX}: split it")]
    TooManyResources {
        /// How many.
        count: usize,
    },
    /// A node affinity without a node.
    #[error("it names no node: name at least one, or remove the rule")]
    NoNodes,
    /// A node affinity with more nodes than a cluster has.
    #[error("it names {count} nodes, more than {NODES_MAX}, which is the most that a cluster has")]
    TooManyNodes {
        /// How many.
        count: usize,
    },
    /// A priority out of bounds.
    #[error("the priority {priority} of {node} is out of range: use 0 to {PRIORITY_MAX}")]
    PriorityTooHigh {
        /// The node.
        node: MemberName,
        /// Its priority.
        priority: u32,
    },
}

/// What is wrong with a set of rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    /// Too many.
    #[error("there are {count} placement rules, more than {RULES_MAX}: join some of them")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// One of them is wrong by itself.
    #[error("the placement rule {name} is refused: {why}")]
    Rule {
        /// Which.
        name: RuleName,
        /// What is wrong with it.
        #[source]
        why: RuleError,
    },
}

#[cfg(test)]
mod tests;
