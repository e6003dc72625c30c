//! `tiebreaker set` and `tiebreaker votes`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tiebreaker_member::core::Request;
use tiebreaker_pipeline::command::{Command as Change, Setting};
use tiebreaker_pipeline::manager::Outlook;
use tiebreaker_pipeline::state::FewerVotes;

use super::Session;
use crate::cli::{OrNone, SetCommand, VotesCommand, show_duration};
use crate::failure::Failure;
use crate::render;

impl Session<'_> {
    pub(super) async fn set(&self, command: SetCommand) -> Result<(), Failure> {
        let setting = match command {
            SetCommand::Show => {
                let status = self.status(&mut self.open().await?).await?;
                return self.show(&status.settings, render::settings);
            }
            SetCommand::Profile { profile } => {
                let done = format!("The profile is {profile}; longer times hold until every node has applied it.");
                return self.change(Request::Propose(Change::SetProfile { profile }), &done).await;
            }
            SetCommand::Takeback { seconds } => {
                let done = format!("The appliance takes the lead back after {seconds} s of good health.");
                return self.change(Request::Propose(Change::SetTakeback { seconds }), &done).await;
            }
            SetCommand::ShutdownPolicy { policy } => Setting::Shutdown(policy),
            SetCommand::Placement { mode } => Setting::Placement(mode),
            SetCommand::Rebalance { on } => Setting::Rebalance(on),
            SetCommand::Tolerate { failures: OrNone(failures) } => return self.tolerate(failures).await,
            SetCommand::Moves { most: OrNone(most), force } => Setting::Moves { most, force },
            SetCommand::FailuresAge { age: OrNone(age) } => {
                let seconds = age.map(|age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
                Setting::FailuresAge(seconds)
            }
            SetCommand::OrderDelay { class, seconds } => Setting::OrderDelay { class, seconds },
        };
        let done = format!("Set: {setting}.");
        self.submit(Change::Set(setting), false, &done).await
    }

    /// Sets the goal, and says so if it isn't met as the cluster stands.
    async fn tolerate(&self, failures: Option<u32>) -> Result<(), Failure> {
        let setting = Setting::Tolerate(failures);
        let done = format!("Set: {setting}.");
        let mut connection = self.open().await?;
        let index = self.submit_on(&mut connection, Change::Set(setting), false).await?;
        // What can be tolerated doesn't depend on what shall be: the leader's last answer holds.
        let outlook = self.status(&mut connection).await?.outlook;
        let short = failures.zip(outlook).and_then(|(goal, outlook)| Outlook { goal: Some(goal), ..outlook }.alarm());
        let document = serde_json::json!({ "done": { "index": index }, "not_met": short });
        self.show(&document, |_| match short {
            None => format!("{done}\n"),
            Some(short) => format!("{done}\nNOT MET NOW: {short}. `tiebreaker status` alarms until it is met.\n"),
        })
    }

    pub(super) async fn votes(&self, command: VotesCommand) -> Result<(), Failure> {
        match command {
            VotesCommand::ExpectWithout { members, span } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970");
                let until = now.map_err(Failure::refused)?.saturating_add(span);
                let until_ms = u64::try_from(until.as_millis()).context("that is too long").map_err(Failure::usage)?;
                let names: Vec<String> = members.iter().map(ToString::to_string).collect();
                let done = format!(
                    "For {} the votes of {} are not expected: a majority of the others is enough, so the cluster \
                     survives fewer failures of them. `tiebreaker votes expect-all` ends that earlier.",
                    show_duration(span),
                    names.join(", ")
                );
                let fewer = FewerVotes { without: members.into_iter().collect(), until_ms };
                self.submit(Change::Set(Setting::FewerVotes(Some(fewer))), false, &done).await
            }
            VotesCommand::ExpectAll => {
                let done = "All votes are expected again.";
                self.submit(Change::Set(Setting::FewerVotes(None)), false, done).await
            }
        }
    }
}
