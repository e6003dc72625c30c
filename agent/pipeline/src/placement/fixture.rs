//! Short ways to say rules in tests.

use super::rule::{PlacementRule, PlacementRules, RuleKind};
use crate::name::{MemberName, ResourceName, RuleName};

pub fn node(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

pub fn res(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

pub fn rule_name(name: &str) -> RuleName {
    RuleName::new(name).unwrap()
}

fn rule(resources: &[&str], kind: RuleKind) -> PlacementRule {
    PlacementRule { resources: resources.iter().map(|r| res(r)).collect(), kind, disabled_by_operator: false }
}

pub fn on(resources: &[&str], nodes: &[(&str, u32)]) -> PlacementRule {
    let nodes = nodes.iter().map(|(name, priority)| (node(name), *priority)).collect();
    rule(resources, RuleKind::NodeAffinity { nodes, strict: false })
}

pub fn only_on(resources: &[&str], nodes: &[&str]) -> PlacementRule {
    rule(resources, RuleKind::NodeAffinity { nodes: nodes.iter().map(|name| (node(name), 0)).collect(), strict: true })
}

pub fn together(resources: &[&str]) -> PlacementRule {
    rule(resources, RuleKind::Together)
}

pub fn apart(resources: &[&str]) -> PlacementRule {
    rule(resources, RuleKind::Apart)
}

pub fn rules(rules: &[(&str, PlacementRule)]) -> PlacementRules {
    rules.iter().map(|(name, rule)| (rule_name(name), rule.clone())).collect()
}
