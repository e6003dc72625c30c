//! `tiebreaker rule`.

use anyhow::anyhow;
use tiebreaker_member::core::RuleStatus;
use tiebreaker_pipeline::command::Command as Change;
use tiebreaker_pipeline::name::RuleName;

use super::Session;
use crate::cli::RuleCommand;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::render;

impl Session<'_> {
    pub(super) async fn rule(&self, command: RuleCommand) -> Result<(), Failure> {
        match command {
            RuleCommand::Add { name, rule, force } => {
                let rule = rule.rule();
                rule.check().map_err(Failure::usage)?;
                let mut connection = self.open().await?;
                if self.rules(&mut connection).await?.iter().any(|known| known.name == name) {
                    let why = "remove it first, with `tiebreaker rule remove`, or choose another name";
                    return Err(Failure::refused(anyhow!("there is a rule {name} already: {why}")));
                }
                let index =
                    self.submit_on(&mut connection, Change::SetRule { name: name.clone(), rule }, force).await?;
                self.show_done(
                    index,
                    &format!("The rule {name} holds; `tiebreaker rule list` says whether it can be met."),
                )
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
