//! `tiebreaker resource`.

use anyhow::anyhow;
use tiebreaker_member::core::Request;
use tiebreaker_pipeline::command::Command as Change;
use tiebreaker_pipeline::name::{MemberName, ResourceName};

use super::Session;
use super::convoy::Way;
use crate::cli::{MoveArgs, Moving, ResourceCommand};
use crate::failure::Failure;
use crate::{render, spec};

impl Session<'_> {
    pub(super) async fn resource(&self, command: ResourceCommand) -> Result<(), Failure> {
        match command {
            ResourceCommand::Add { name, driver, spec: limits, state, node, force } => {
                let spec = spec::new_spec(&driver, &limits).map_err(Failure::usage)?;
                let done = format!("{name} is under protection; `tiebreaker why {name}` tells how it goes on.");
                self.submit(Change::AddResource { name, spec, requested: state, node }, force, &done).await
            }
            ResourceCommand::Set { name, driver, spec: limits, state, force } => {
                let mut connection = self.open().await?;
                let status = self.status(&mut connection).await?;
                let current = status.resources.into_iter().find(|resource| resource.name == name).ok_or_else(|| {
                    Failure::refused(anyhow!("there is no resource {name}: `tiebreaker resource list` lists them"))
                })?;
                let new = spec::changed_spec(current.spec.clone(), &driver, &limits).map_err(Failure::usage)?;
                let change = Change::SetResource {
                    name: name.clone(),
                    spec: (new != current.spec).then_some(new),
                    requested: state.unwrap_or(current.requested),
                };
                let index = self.submit_on(&mut connection, change, force).await?;
                self.show_done(index, &format!("{name} is set."))
            }
            ResourceCommand::Remove { name } => {
                let done = format!("{name} is not protected any more; it was left as it is.");
                self.submit(Change::RemoveResource { name }, false, &done).await
            }
            ResourceCommand::List => {
                let status = self.status(&mut self.open().await?).await?;
                self.show(&status.resources, |resources| render::resources(resources))
            }
            ResourceCommand::Migrate(args) => self.move_resources(args, true).await,
            ResourceCommand::Relocate(args) => self.move_resources(args, false).await,
            ResourceCommand::Lock { name, reason } => {
                let done = format!("{name} is locked: nothing starts, stops or moves it.");
                self.submit(Change::SetLock { resource: name, reason: Some(reason) }, false, &done).await
            }
            ResourceCommand::Unlock { name } => {
                let done = format!("{name} is not locked any more.");
                self.submit(Change::SetLock { resource: name, reason: None }, false, &done).await
            }
        }
    }

    async fn move_resources(&self, args: MoveArgs, live: bool) -> Result<(), Failure> {
        match args.moving().map_err(|why| Failure::usage(anyhow!(why)))? {
            Moving::One { name, to } => self.move_resource(name, to, live, args.force).await,
            Moving::Many { names, from, to } => self.move_many(&args, &names, Way { from, to, live }).await,
        }
    }

    async fn move_resource(
        &self,
        resource: ResourceName,
        to: MemberName,
        live: bool,
        force: bool,
    ) -> Result<(), Failure> {
        let manner = if live { "moves live" } else { "is stopped where it is and started" };
        let done = format!("{resource} {manner} to {to}; `tiebreaker why {resource}` tells how it goes on.");
        let done = if live { done } else { done.replace("started to", "started on") };
        let mut connection = self.open().await?;
        let forced_by = force.then(|| connection.by().to_owned());
        let reply = connection.ask(Request::Move { resource, to, live, forced_by }).await?;
        self.done(reply, &done)
    }
}
