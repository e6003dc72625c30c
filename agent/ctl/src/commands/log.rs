//! `tiebreaker log`: what the cluster decided, and what each member did and saw, in one timeline.

use std::collections::VecDeque;

use serde::Serialize;
use tiebreaker_member::core::{Deed, JournalLine, Reply, Request};
use tiebreaker_pipeline::decision::{Decision, LogLine};
use tiebreaker_pipeline::name::MemberName;

use super::{Session, failed};
use crate::failure::Failure;
use crate::render;

/// The timeline of the whole cluster.
#[derive(Serialize, Debug)]
pub struct Timeline {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// Whose journal is missing.
    pub missing: Vec<Missing>,
}

/// One line of it.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Line {
    /// The wall clock of whoever proposed or did it, milliseconds since 1970.
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

/// A decision of the cluster, or a deed of one member.
#[derive(Serialize, Clone, PartialEq, Debug)]
#[serde(untagged)]
pub enum What {
    /// The log holds it.
    Decided {
        /// The log index of the command that caused it.
        index: u64,
        /// What was decided.
        decision: Decision,
    },
    /// The member's own journal holds it.
    Did {
        /// Who.
        member: MemberName,
        /// What.
        deed: Deed,
    },
}

/// A member whose journal is missing.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Who.
    pub member: MemberName,
    /// Why.
    pub why: String,
}

impl Session<'_> {
    pub(super) async fn log(&self, last: usize) -> Result<(), Failure> {
        let mut connection = self.open().await?;
        let decisions = match connection.ask(Request::Log { last }).await? {
            Reply::Log { lines } => lines,
            other => return Err(failed(other)),
        };
        let members = self.status(&mut connection).await?.members;
        let mut journals = Vec::new();
        let mut missing = Vec::new();
        for member in members.into_iter().map(|member| member.name) {
            match connection.ask(Request::Journal { of: member.clone(), last }).await? {
                Reply::Journal { lines } => journals.push((member, lines)),
                Reply::NotHeard { why } | Reply::NoLeader { why } | Reply::Refused { why } => {
                    missing.push(Missing { member, why });
                }
                // Removed since the status was asked for: it has no part in the cluster any more.
                Reply::Void { .. } => {}
                other => return Err(failed(other)),
            }
        }
        let timeline = Timeline { lines: merge(decisions, journals, last), missing };
        self.show(&timeline, render::log)
    }
}

/// The last lines of all, by time. Clocks differ and are set, so what one source says stays in its own order.
fn merge(decisions: Vec<LogLine>, journals: Vec<(MemberName, Vec<JournalLine>)>, last: usize) -> Vec<Line> {
    let decided = |line: LogLine| {
        let LogLine { index, at_ms, decision } = line;
        Line { at_ms, what: What::Decided { index, decision } }
    };
    let mut sources: Vec<VecDeque<Line>> = vec![decisions.into_iter().map(decided).collect()];
    for (member, lines) in journals {
        let did = |line: JournalLine| {
            let JournalLine { at_ms, deed } = line;
            Line { at_ms, what: What::Did { member: member.clone(), deed } }
        };
        sources.push(lines.into_iter().map(did).collect());
    }
    let mut merged = Vec::new();
    loop {
        let next = sources.iter_mut().filter(|source| !source.is_empty());
        let Some(next) = next.min_by_key(|source| source.front().map(|line| line.at_ms)) else { break };
        merged.extend(next.pop_front());
    }
    merged.split_off(merged.len().saturating_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MemberName {
        MemberName::new(text).unwrap()
    }

    fn decision(index: u64, at_ms: u64) -> LogLine {
        LogLine { index, at_ms, decision: Decision::Joined { name: name("n1") } }
    }

    fn deed(at_ms: u64) -> JournalLine {
        JournalLine { at_ms, deed: Deed::LeaseHeld }
    }

    #[test]
    fn lines_come_by_time_and_each_source_keeps_its_order() {
        // The log's clock went back once.
        let decisions = vec![decision(1, 10), decision(2, 30), decision(3, 20)];
        let journals = vec![(name("n1"), vec![deed(5), deed(25)]), (name("n2"), vec![deed(40)])];
        let times: Vec<u64> = merge(decisions.clone(), journals.clone(), 100).iter().map(|line| line.at_ms).collect();
        assert_eq!(times, [5, 10, 25, 30, 20, 40]);
        let times: Vec<u64> = merge(decisions, journals, 2).iter().map(|line| line.at_ms).collect();
        assert_eq!(times, [20, 40]);
    }

    #[test]
    fn a_line_is_a_decision_or_a_deed_of_somebody() {
        let lines = merge(vec![decision(7, 1)], vec![(name("n1"), vec![deed(2)])], 9);
        let json = serde_json::to_value(Timeline {
            lines,
            missing: vec![Missing { member: name("n2"), why: "not heard".into() }],
        })
        .unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "lines": [
                    { "at_ms": 1, "index": 7, "decision": { "what": "joined", "name": "n1" } },
                    { "at_ms": 2, "member": "n1", "deed": { "what": "lease_held" } },
                ],
                "missing": [{ "member": "n2", "why": "not heard" }],
            })
        );
    }
}
