//! The commands that ask a cluster.

mod convoy;
mod log;
mod memory;
mod plan;
mod resource;
mod rule;
mod settings;
mod update;
mod wait;

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::command::{Command as Change, Setting};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::state::{Settings, State};

use crate::cli::{Command, FenceArgs, FenceCommand, MemberCommand, OperatorCommand, SetCommand, TargetArgs};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::render;

#[cfg(test)]
pub use log::Missing;
pub use log::{Line, Timeline, What};
pub use memory::{Planned, Promised};

/// Between two looks of `status --watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// One invocation.
pub struct Session<'a> {
    /// Whom to ask.
    pub target: &'a TargetArgs,
    /// JSON instead of text.
    pub json: bool,
}

impl Session<'_> {
    /// Carries out a command.
    pub async fn run(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Status { watch: false } => {
                let status = self.status(&mut self.open().await?).await?;
                self.show(&status, render::status)
            }
            Command::Status { watch: true } => self.watch().await,
            Command::Resource(command) => self.resource(command).await,
            Command::Fence(args) => self.fence(args).await,
            Command::Why { resource } => self.why(resource).await,
            Command::Log { lines } => self.log(lines.into()).await,
            Command::Member(MemberCommand::Remove { name, force }) => {
                let done = format!("{name} is removed: its certificate is refused from now on.");
                let mut connection = self.open().await?;
                let forced_by = force.then(|| connection.by().to_owned());
                let reply = connection.ask(Request::Remove { name, forced_by }).await?;
                self.done(reply, &done)
            }
            Command::Operator(OperatorCommand::Remove { name }) => {
                let done = format!("Operator {name} is removed: its certificate is refused from now on.");
                self.change(Request::Propose(Change::RemoveOperator { name: name.to_string() }), &done).await
            }
            Command::Profile { profile } => self.set(SetCommand::Profile { profile }).await,
            Command::Rule(command) => self.rule(command).await,
            Command::Maintenance(args) => self.maintenance(args).await,
            Command::Plan { command } => self.plan(command).await,
            Command::Update(args) => self.update(args).await,
            Command::Disarm(args) => self.disarm(args).await,
            Command::Arm { wait } => self.arm(wait).await,
            Command::Set(command) => self.set(command).await,
            Command::Votes(command) => self.votes(command).await,
            Command::Login(args) => {
                let line = crate::login::login(args).await?;
                self.show(&serde_json::json!({ "login": line }), |_| format!("{line}\n"))
            }
            Command::Simulate { doing, .. } => {
                let state = match self.open().await?.ask(Request::State).await? {
                    Reply::State { bytes } => State::decode(&bytes).map_err(Failure::refused)?,
                    other => return Err(failed(other)),
                };
                crate::simulate::simulate_cluster(&state, &doing, self.json)
            }
            Command::Demo(_) | Command::DemoBench | Command::DemoCounter(_) => {
                Err(Failure::usage(anyhow!("this command asks no cluster")))
            }
        }
    }

    async fn open(&self) -> Result<Connection, Failure> {
        Connection::open(self.target).await
    }

    async fn status(&self, connection: &mut Connection) -> Result<Status, Failure> {
        match connection.ask(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(failed(other)),
        }
    }

    async fn watch(&self) -> Result<(), Failure> {
        let clear = std::io::stdout().is_terminal() && !self.json;
        let mut every = tokio::time::interval(WATCH_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut connection: Option<Connection> = None;
        loop {
            every.tick().await;
            let looked = match connection.as_mut() {
                Some(open) => self.status(open).await,
                None => match self.open().await {
                    Ok(mut open) => {
                        let looked = self.status(&mut open).await;
                        connection = Some(open);
                        looked
                    }
                    Err(failure) => Err(failure),
                },
            };
            if clear {
                // Cursor to the corner, and everything after it erased.
                print!("\x1b[H\x1b[2J");
            }
            match looked {
                Ok(status) => self.show(&status, |status| render::status(status) + "\n")?,
                // A daemon that restarts is a reason to go on looking, not to end.
                Err(failure) => {
                    connection = None;
                    eprintln!("tiebreaker: {failure}");
                }
            }
        }
    }

    async fn fence(&self, args: FenceArgs) -> Result<(), Failure> {
        match (args.command, args.node) {
            (Some(FenceCommand::Confirm { node, yes }), _) => {
                let mut connection = self.open().await?;
                let status = self.status(&mut connection).await?;
                let Some(id) = status.fences.iter().find(|open| open.fence.node == node).map(|open| open.id) else {
                    return Err(Failure::refused(anyhow::anyhow!(
                        "no fence of {node} is open: there is nothing to confirm"
                    )));
                };
                let question = format!(
                    "Fence {id} of {node} is open. You give your word that {node} runs nothing: you have seen it without power, or pulled its cord \
                     yourself.\nIf that is wrong, its resources will run twice and their data will be lost."
                );
                confirm(&node, &question, yes)?;
                let by = connection.by().to_owned();
                let reply = connection.ask(Request::Confirm { node: node.clone(), id, by }).await?;
                self.done(reply, &format!("{node} counts as fenced; its resources are recovered."))
            }
            (Some(FenceCommand::Hold { reason }), _) => {
                let done = "No power device is told to switch anything from now on, until `tiebreaker fence release`. A command that \
                            had begun already is carried out.";
                self.hold(|by| Setting::Hold { by, reason }, done).await
            }
            (Some(FenceCommand::Release), _) => {
                self.hold(|by| Setting::Release { by }, "Power devices may be told to switch again.").await
            }
            (None, Some(node)) => {
                let question =
                    format!("{node} will be powered off hard, and its resources will be started on other nodes.");
                confirm(&node, &question, args.yes)?;
                let mut connection = self.open().await?;
                let by = connection.by().to_owned();
                let reply = connection.ask(Request::Fence { node: node.clone(), by }).await?;
                let index = index(reply)?;
                let mut done = format!("{node} is being fenced; `tiebreaker status` shows how far that is.");
                // Whoever can't say so at this moment says it in the status.
                if let Ok(Status { settings: Settings { hold: Some(hold), .. }, .. }) =
                    self.status(&mut connection).await
                {
                    done.push_str(&format!(
                        "\nIts power is not cut, for that is {hold}. `tiebreaker fence release` ends that."
                    ));
                }
                self.show_done(index, &done)
            }
            (None, None) => Err(Failure::usage(anyhow!("name the node to fence"))),
        }
    }

    async fn hold(&self, setting: impl FnOnce(String) -> Setting, done: &str) -> Result<(), Failure> {
        let mut connection = self.open().await?;
        let setting = setting(connection.by().to_owned());
        let index = self.submit_on(&mut connection, Change::Set(setting), false).await?;
        self.show_done(index, done)
    }

    async fn why(&self, resource: ResourceName) -> Result<(), Failure> {
        match self.open().await?.ask(Request::Why { resource: resource.clone() }).await? {
            Reply::Why { why } => self.show(&why, |why| format!("{resource}: {why}\n")),
            other => Err(failed(other)),
        }
    }

    async fn change(&self, request: Request, done: &str) -> Result<(), Failure> {
        let reply = self.open().await?.ask(request).await?;
        self.done(reply, done)
    }

    fn done(&self, reply: Reply, text: &str) -> Result<(), Failure> {
        self.show_done(index(reply)?, text)
    }

    fn show_done(&self, index: u64, text: &str) -> Result<(), Failure> {
        self.show(&serde_json::json!({ "done": { "index": index } }), |_| format!("{text}\n"))
    }

    /// Proposes a change; `force` also where it breaks the plan.
    async fn submit(&self, command: Change, force: bool, done: &str) -> Result<(), Failure> {
        let index = self.submit_on(&mut self.open().await?, command, force).await?;
        self.show_done(index, done)
    }

    async fn submit_on(&self, connection: &mut Connection, command: Change, force: bool) -> Result<u64, Failure> {
        let request =
            if force { Request::Force { command, by: connection.by().to_owned() } } else { Request::Propose(command) };
        index(connection.ask(request).await?)
    }

    /// Prints an answer: JSON if that was asked for, else as text.
    fn show<T: Serialize + ?Sized>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let text = if self.json {
            let mut line = serde_json::to_string(answer).context("writing JSON").map_err(Failure::refused)?;
            line.push('\n');
            line
        } else {
            text(answer)
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .context("writing to standard output")
            .map_err(Failure::refused)
    }
}

/// The log index of what was done.
fn index(reply: Reply) -> Result<u64, Failure> {
    match reply {
        Reply::Done { index } => Ok(index),
        other => Err(failed(other)),
    }
}

/// An answer that isn't what was hoped for.
fn failed(reply: Reply) -> Failure {
    match reply {
        Reply::Void { why } => Failure::refused(why),
        Reply::Refused { why } | Reply::NotYet { why } => Failure::refused(anyhow!(why)),
        Reply::NoLeader { why } | Reply::NotHeard { why } => Failure::unreachable(anyhow!(why)),
        Reply::Done { .. }
        | Reply::Status(_)
        | Reply::Log { .. }
        | Reply::Why { .. }
        | Reply::Journal { .. }
        | Reply::Drain(_)
        | Reply::State { .. }
        | Reply::ReadIndex { .. }
        | Reply::Certificate { .. } => Failure::refused(anyhow!("the cluster answered something else than was asked")),
    }
}

/// Has the node's name typed, so that nobody fences by a slip of the hand.
fn confirm(node: &MemberName, question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(anyhow!("nobody is there to be asked: give --yes if you mean it")));
    }
    eprint!("{question}\nType the node's name to go on: ");
    typed(node, &mut stdin.lock())
}

fn typed(node: &MemberName, input: &mut impl BufRead) -> Result<(), Failure> {
    let mut line = String::new();
    input.read_line(&mut line).context("reading the answer").map_err(Failure::usage)?;
    if line.trim() == node.as_str() {
        Ok(())
    } else {
        Err(Failure::usage(anyhow!("that is not {node}: nothing was done")))
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::command::Void;

    use super::*;
    use crate::failure::Exit;

    #[test]
    fn only_the_nodes_own_name_confirms() {
        let node = MemberName::new("node1").unwrap();
        assert!(typed(&node, &mut &b"node1\n"[..]).is_ok());
        for wrong in [&b"node2\n"[..], b"yes\n", b"\n", b"", b"\xff\n"] {
            assert_eq!(typed(&node, &mut &wrong[..]).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn each_answer_has_its_exit_code() {
        assert_eq!(failed(Reply::Void { why: Void::Outdated }).exit, Exit::Refused);
        assert_eq!(failed(Reply::Refused { why: "no".into() }).exit, Exit::Refused);
        assert_eq!(failed(Reply::NoLeader { why: "none".into() }).exit, Exit::Unreachable);
    }
}
