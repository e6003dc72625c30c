//! Planned work: `maintenance`, `plan`, `disarm`, `arm`.

use anyhow::anyhow;
use serde_json::json;
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::command::Command as Change;
use tiebreaker_pipeline::decision::{Decision, LogLine};
use tiebreaker_pipeline::manager::Drain;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{Arming, DisarmMode};

use super::wait::{Step, emptied, returned};
use super::{Planned, Session, failed};
use crate::cli::{DisarmArgs, MaintenanceArgs, PlanCommand, WaitArgs};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::render;

/// Lines of the timeline in which the reason of a failed arming is looked for.
const LINES: usize = 50;

impl Session<'_> {
    pub(super) async fn maintenance(&self, args: MaintenanceArgs) -> Result<(), Failure> {
        let MaintenanceArgs { node, on, force, wait } = args;
        let mut connection = self.open().await?;
        let change = Change::SetMaintenance { node: node.clone(), on };
        if !on {
            let index = self.submit_on(&mut connection, change, force).await?;
            if wait.wait {
                let what = format!("the return to {node}");
                self.follow(&what, wait.within, |status| returned(status, &node)).await?;
            }
            let text = if wait.wait { " and what returns has returned" } else { "" };
            let document = json!({ "done": { "index": index }, "waited": wait.wait });
            return self.show(&document, |_| format!("{node} may be used again{text}.\n"));
        }
        let drain = self.drain(&mut connection, &node).await?;
        if !self.json {
            self.say(render::drain(&drain).trim_end());
        }
        let index = self.submit_on(&mut connection, change, force).await?;
        if wait.wait {
            self.follow(&format!("{node} is not empty"), wait.within, |status| emptied(status, &node)).await?;
        }
        let text = if wait.wait {
            format!("{node} is in maintenance and empty.")
        } else {
            format!("{node} is in maintenance and is being emptied; `tiebreaker status` shows how far that is.")
        };
        let document = json!({ "done": { "index": index }, "waited": wait.wait, "drain": drain });
        self.show(&document, |_| format!("{text}\n"))
    }

    pub(super) async fn drain(&self, connection: &mut Connection, node: &MemberName) -> Result<Drain, Failure> {
        match connection.ask(Request::Drain { node: node.clone() }).await? {
            Reply::Drain(drain) => Ok(drain),
            other => Err(failed(other)),
        }
    }

    pub(super) async fn plan(&self, command: Option<PlanCommand>) -> Result<(), Failure> {
        let mut connection = self.open().await?;
        match command {
            Some(PlanCommand::Drain { node }) => {
                let drain = self.drain(&mut connection, &node).await?;
                self.show(&drain, render::drain)
            }
            None => {
                let status = self.status(&mut connection).await?;
                match &status.outlook {
                    Some(outlook) => self.show(&Planned::of(&status, outlook.clone()), render::planned),
                    None => Err(Failure::unreachable(anyhow!("only a leader can tell, and nobody leads: ask again"))),
                }
            }
        }
    }

    pub(super) async fn disarm(&self, args: DisarmArgs) -> Result<(), Failure> {
        let mode = args.mode.mode();
        let mut connection = self.open().await?;
        let index = self.submit_on(&mut connection, Change::Disarm { mode }, false).await?;
        if args.wait.wait {
            self.follow("the cluster is not disarmed", args.wait.within, released).await?;
        }
        let resources = match mode {
            DisarmMode::Freeze => "the resources stay as they are",
            DisarmMode::Ignore => "the resources are nobody's business",
        };
        let text = if args.wait.wait {
            format!(
                "The cluster is disarmed and every watchdog is off; {resources}. NOTHING IS PROTECTED until `tiebreaker arm`."
            )
        } else {
            format!("The cluster disarms as soon as nothing is under way; {resources}. `tiebreaker arm` ends that.")
        };
        self.show(&json!({ "done": { "index": index }, "waited": args.wait.wait }), |_| format!("{text}\n"))
    }

    pub(super) async fn arm(&self, wait: WaitArgs) -> Result<(), Failure> {
        let mut connection = self.open().await?;
        let index = self.submit_on(&mut connection, Change::Arm, false).await?;
        if wait.wait {
            let is_armed = self.follow("the cluster is not armed", wait.within, armed).await?;
            if !is_armed {
                let why = self.why_not_armed(&mut connection, index).await?;
                return Err(Failure::refused(anyhow!("the cluster is disarmed again: {why}")));
            }
        }
        let text = if wait.wait {
            "The cluster is armed: every node keeps its promise."
        } else {
            "The cluster arms as soon as every node keeps its promise; `tiebreaker status` shows how far that is."
        };
        self.show(&json!({ "done": { "index": index }, "waited": wait.wait }), |_| format!("{text}\n"))
    }

    async fn why_not_armed(&self, connection: &mut Connection, asked: u64) -> Result<String, Failure> {
        match connection.ask(Request::Log { last: LINES }).await? {
            Reply::Log { lines } => Ok(reason(&lines, asked)),
            other => Err(failed(other)),
        }
    }
}

/// The last reason for which arming failed after it was asked for.
fn reason(lines: &[LogLine], asked: u64) -> String {
    let said = lines.iter().rev().filter(|line| line.index >= asked).find_map(|line| match &line.decision {
        Decision::Arming { why: Some(why), .. } => Some(why.clone()),
        _ => None,
    });
    said.unwrap_or_else(|| "somebody has disarmed it".to_owned())
}

/// Whether the cluster is disarmed and no watchdog counts any more.
fn released(status: &Status) -> Step<()> {
    match status.settings.arming {
        Arming::Disarmed { .. } => {}
        arming @ Arming::Disarming { .. } => return Step::Wait(format!("the cluster is {arming}")),
        arming @ (Arming::Armed | Arming::Arming { .. }) => {
            return Step::Fail(Failure::refused(anyhow!("the cluster is {arming} again: somebody has armed it")));
        }
    }
    let counts: Vec<&str> = status
        .members
        .iter()
        .filter(|member| member.incarnation.is_some() && member.watchdog.is_some() && member.armed != Some(false))
        .map(|member| member.name.as_str())
        .collect();
    if counts.is_empty() {
        Step::Done(())
    } else {
        Step::Wait(format!("disarmed; the watchdog of {} is not off yet", counts.join(", ")))
    }
}

/// True once the cluster is armed, false once it is disarmed again.
fn armed(status: &Status) -> Step<bool> {
    match status.settings.arming {
        Arming::Armed => Step::Done(true),
        Arming::Disarmed { .. } | Arming::Disarming { .. } => Step::Done(false),
        arming @ Arming::Arming { .. } => {
            let unarmed: Vec<&str> = status
                .members
                .iter()
                .filter(|member| member.incarnation.is_some() && member.armed == Some(false))
                .map(|member| member.name.as_str())
                .collect();
            Step::Wait(format!("the cluster is {arming}; watchdogs off: {}", unarmed.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::example_status;

    fn at(arming: Arming) -> Status {
        let mut status = example_status();
        status.settings.arming = arming;
        status
    }

    #[test]
    fn disarming_is_over_when_every_watchdog_is_off() {
        let mode = DisarmMode::Freeze;
        assert!(matches!(released(&at(Arming::Disarming { mode })), Step::Wait(_)));
        let mut status = at(Arming::Disarmed { mode, since: 1 });
        let Step::Wait(why) = released(&status) else { panic!("watchdogs count") };
        assert!(why.contains("node1, node2"), "{why}");
        for member in &mut status.members {
            member.armed = member.armed.map(|_| false);
        }
        assert!(matches!(released(&status), Step::Done(())));
        assert!(matches!(released(&at(Arming::Armed)), Step::Fail(_)));
    }

    #[test]
    fn arming_ends_armed_or_disarmed_with_its_reason() {
        let mode = DisarmMode::Freeze;
        assert!(matches!(armed(&at(Arming::Armed)), Step::Done(true)));
        assert!(matches!(armed(&at(Arming::Arming { mode, since: 1 })), Step::Wait(_)));
        let arming = Arming::Disarmed { mode, since: 9 };
        assert!(matches!(armed(&at(arming)), Step::Done(false)));
        let line = |index, why: &str| LogLine {
            index,
            at_ms: 0,
            decision: Decision::Arming { arming, why: Some(why.into()) },
        };
        assert_eq!(reason(&[line(3, "old"), line(8, "node2 is not heard")], 7), "node2 is not heard");
        assert!(reason(&[line(3, "old")], 7).contains("somebody"));
    }
}
