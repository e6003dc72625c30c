//! `tiebreaker rule`.

use anyhow::anyhow;
use tiebreaker_member::core::{RuleStatus, Status};
use tiebreaker_pipeline::command::Command as Change;
use tiebreaker_pipeline::name::RuleName;
use tiebreaker_pipeline::placement::rule::{PlacementRule, RuleKind};

use super::Session;
use crate::cli::RuleCommand;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::render;

/// What a rule names that the cluster doesn't have: it may be set before what it is about is added, but it may as well be
/// a slip of the hand.
fn not_there(status: &Status, rule: &PlacementRule) -> Vec<String> {
    let resources = rule.resources.iter().filter(|name| !status.resources.iter().any(|known| known.name == **name));
    let mut missing: Vec<String> = resources.map(|name| format!("resource {name}")).collect();
    if let RuleKind::NodeAffinity { nodes, .. } = &rule.kind {
        let strangers = nodes.keys().filter(|name| !status.members.iter().any(|known| known.name == **name));
        missing.extend(strangers.map(|name| format!("node {name}")));
    }
    missing
}

impl Session<'_> {
    pub(super) async fn rule(&self, command: RuleCommand) -> Result<(), Failure> {
        match command {
            RuleCommand::Add { name, rule, force } => {
                let rule = rule.rule();
                rule.check().map_err(Failure::usage)?;
                let mut connection = self.open().await?;
                let status = self.status(&mut connection).await?;
                if status.rules.iter().any(|known| known.name == name) {
                    let why = "remove it first, with `tiebreaker rule remove`, or choose another name";
                    return Err(Failure::refused(anyhow!("there is a rule {name} already: {why}")));
                }
                let missing = not_there(&status, &rule);
                let index =
                    self.submit_on(&mut connection, Change::SetRule { name: name.clone(), rule }, force).await?;
                let document = serde_json::json!({ "done": { "index": index }, "not_there_yet": missing });
                self.show(&document, |_| {
                    let yet = if missing.is_empty() {
                        String::new()
                    } else {
                        format!(
                            "\nNOT THERE YET: {}. The rule counts for them as soon as they are.",
                            missing.join(", ")
                        )
                    };
                    format!("The rule {name} holds; `tiebreaker rule list` says whether it can be met.{yet}\n")
                })
            }
            RuleCommand::Remove { name } => {
                let done = format!("The rule {name} is removed.");
                self.submit(Change::RemoveRule { name }, false, &done).await
            }
            RuleCommand::List => {
                let rules = self.rules(&mut self.open().await?).await?;
                self.show(&rules, |rules| render::rules(rules))
            }
            RuleCommand::Enable { name, force } => self.switch_rule(name, true, force).await,
            RuleCommand::Disable { name } => self.switch_rule(name, false, false).await,
        }
    }

    async fn rules(&self, connection: &mut Connection) -> Result<Vec<RuleStatus>, Failure> {
        Ok(self.status(connection).await?.rules)
    }

    async fn switch_rule(&self, name: RuleName, on: bool, force: bool) -> Result<(), Failure> {
        let mut connection = self.open().await?;
        let known = self.rules(&mut connection).await?.into_iter().find(|known| known.name == name);
        let Some(mut rule) = known.map(|known| known.rule) else {
            return Err(Failure::refused(anyhow!("there is no rule {name}: `tiebreaker rule list` lists them")));
        };
        rule.disabled_by_operator = !on;
        let index = self.submit_on(&mut connection, Change::SetRule { name: name.clone(), rule }, force).await?;
        let effect = if on { "has its effect again" } else { "is kept, without effect" };
        self.show_done(index, &format!("The rule {name} {effect}."))
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::name::{MemberName, ResourceName};

    use super::*;
    use crate::render::example_status;

    #[test]
    fn a_rule_about_what_is_not_there_is_told_apart() {
        let resources = ["web", "wbe"].map(|name| ResourceName::new(name).unwrap()).into();
        let nodes = ["node1", "node9"].map(|name| (MemberName::new(name).unwrap(), 1)).into();
        let kind = RuleKind::NodeAffinity { nodes, strict: false };
        let rule = PlacementRule { resources, kind, disabled_by_operator: false };
        assert_eq!(not_there(&example_status(), &rule), ["resource wbe", "node node9"]);
    }
}
