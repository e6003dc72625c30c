//! `tiebreaker rule`.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args, Subcommand};
use tiebreaker_pipeline::name::{MemberName, ResourceName, RuleName};
use tiebreaker_pipeline::placement::rule::{PlacementRule, RuleKind};

/// What to do with placement rules.
#[derive(Subcommand, Debug)]
pub enum RuleCommand {
    /// Adds a placement rule.
    Add {
        /// Its name.
        name: RuleName,
        #[command(flatten)]
        rule: RuleArgs,
        /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
        #[arg(long)]
        force: bool,
    },
    /// Removes a placement rule.
    Remove {
        /// Which.
        name: RuleName,
    },
    /// Lists the placement rules, and says why one has no effect.
    List,
    /// Gives a disabled rule its effect again.
    Enable {
        /// Which.
        name: RuleName,
        /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
        #[arg(long)]
        force: bool,
    },
    /// Keeps a rule, but without effect.
    Disable {
        /// Which.
        name: RuleName,
    },
}

/// What a rule says.
#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("kind").required(true).args(["node_affinity", "together", "apart"]))]
pub struct RuleArgs {
    /// The resources belong on these nodes, those of the highest priority first; a node without one has 0.
    #[arg(long, value_name = "NODE=PRIORITY,…", value_parser = parse_priorities, requires = "resources")]
    pub node_affinity: Option<Priorities>,
    /// Never on any other node. Otherwise the others are the last resort.
    #[arg(long, requires = "node_affinity")]
    pub strict: bool,
    /// The resources of a node affinity, separated by commas.
    #[arg(long, value_name = "RESOURCE,…", value_delimiter = ',', requires = "node_affinity")]
    pub resources: Vec<ResourceName>,
    /// These resources run on the same node.
    #[arg(long, value_name = "RESOURCE,…", value_delimiter = ',')]
    pub together: Vec<ResourceName>,
    /// No two of these resources run on the same node.
    #[arg(long, value_name = "RESOURCE,…", value_delimiter = ',')]
    pub apart: Vec<ResourceName>,
}

/// Nodes with their priorities.
pub type Priorities = BTreeMap<MemberName, u32>;

impl RuleArgs {
    /// The rule.
    #[must_use]
    pub fn rule(self) -> PlacementRule {
        let (kind, resources) = match self.node_affinity {
            Some(nodes) => (RuleKind::NodeAffinity { nodes, strict: self.strict }, self.resources),
            None if self.together.is_empty() => (RuleKind::Apart, self.apart),
            None => (RuleKind::Together, self.together),
        };
        PlacementRule { resources: resources.into_iter().collect(), kind, disabled_by_operator: false }
    }
}

fn parse_priorities(text: &str) -> Result<Priorities, String> {
    let mut nodes = Priorities::new();
    for part in text.split(',') {
        let (name, priority) = part.split_once('=').unwrap_or((part, "0"));
        let name = MemberName::new(name.trim()).map_err(|error| error.to_string())?;
        let priority = priority.trim().parse().map_err(|_| format!("the priority of {name} must be a number"))?;
        if nodes.insert(name.clone(), priority).is_some() {
            return Err(format!("{name} is named twice"));
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::super::{Cli, Command};
    use super::*;

    fn rule(line: &str) -> PlacementRule {
        let parsed = parse(line);
        let Ok(Cli { command: Command::Rule(RuleCommand::Add { rule, .. }), .. }) = parsed else {
            panic!("{line} is not taken: {parsed:?}")
        };
        rule.rule()
    }

    #[test]
    fn a_rule_is_of_one_kind() {
        let affinity = rule("tiebreaker rule add r --node-affinity n1=2,n2 --strict --resources a,b");
        let RuleKind::NodeAffinity { nodes, strict: true } = &affinity.kind else { panic!("{affinity:?}") };
        let nodes: Vec<(&str, u32)> = nodes.iter().map(|(name, priority)| (name.as_str(), *priority)).collect();
        assert_eq!((nodes, affinity.resources.len()), (vec![("n1", 2), ("n2", 0)], 2));
        assert_eq!(rule("tiebreaker rule add r --together a,b").kind, RuleKind::Together);
        assert_eq!(rule("tiebreaker rule add r --apart a,b").kind, RuleKind::Apart);
        for wrong in [
            "",
            "--together a --apart b",
            "--node-affinity n1",
            "--resources a",
            "--apart a --strict",
            "--node-affinity n1=2,n1=3 --resources a",
            "--node-affinity n1=high --resources a",
            "--together A",
        ] {
            assert!(parse(&format!("tiebreaker rule add r {wrong}")).is_err(), "{wrong}");
        }
    }
}
