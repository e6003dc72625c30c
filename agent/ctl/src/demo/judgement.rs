//! What a demo proves: the figures of its outcome, and whether each is as it must be.

use std::collections::BTreeMap;
use std::time::Instant;

use tiebreaker_member::core::{MemberStatus, Status};
use tiebreaker_pipeline::decision::Decision;

use super::args::{DemoArgs, Fail};
use super::clients::Ack;
use super::counter::{Instance, Ledger, Line};
use super::outcome::{Outcome, rounded};
use super::stage::{APPLIANCE, COUNTER, NODES};
use super::witness::Seen;

/// How things stood before the break.
pub struct Before {
    /// The status.
    pub status: Status,
    /// The instance that served.
    pub instance: Instance,
    /// Counts acknowledged so far.
    pub counts: usize,
}

impl Before {
    /// Decisions after this log index came after the break.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.status.commit
    }
}

/// What came of the break.
pub struct Played {
    /// When it was broken.
    pub broken: Instant,
    /// The first count by a new instance.
    pub recovered: Option<Ack>,
    /// For `appliance`: when a node led.
    pub led: Option<Instant>,
    /// For `agent-crash` and `appliance`: when all was as before.
    pub restored: Option<Instant>,
    /// The status in the end.
    pub after: Option<Status>,
}

/// All that the judgement rests on.
pub struct Judgement<'a> {
    /// What was asked for.
    pub args: &'a DemoArgs,
    /// How things stood before.
    pub before: &'a Before,
    /// What came of it.
    pub played: &'a Played,
    /// What was seen.
    pub seen: &'a Seen,
    /// When the first instance was dead at the latest, by CLOCK_MONOTONIC; `None` if it lives.
    pub died_ns: Option<u64>,
}

impl Judgement<'_> {
    /// The outcome, with all that went otherwise than it must.
    #[must_use]
    pub fn outcome(&self, ledger: &Ledger, acknowledged: &[Line]) -> Outcome {
        let Self { args, before, played, seen, .. } = self;
        let from = before.instance.node.clone();
        let verdict = ledger.judge(acknowledged);
        let newest = ledger.newest().unwrap_or(&before.instance);
        let since = |at: Instant| rounded(at.saturating_duration_since(played.broken).as_secs_f64());
        let decided = |wanted: fn(&Decision) -> bool| {
            seen.lines_after(before.index()).find(|(_, line)| wanted(&line.decision)).map(|(at, _)| since(*at))
        };
        let evidence = seen.lines_after(before.index()).find_map(|(_, line)| match &line.decision {
            Decision::Fenced { evidence, .. } => Some(evidence.grade().to_owned()),
            _ => None,
        });
        let recovered = played.recovered.as_ref().map(|ack| ack.at).or(played.restored);
        let leader = |status: &Status| status.leader.as_ref().map(ToString::to_string);
        let mut outcome = Outcome {
            fail: args.fail,
            profile: args.profile,
            no_bmc: args.no_bmc,
            resource: COUNTER.to_owned(),
            from,
            to: newest.node.clone(),
            detected_s: decided(|d| matches!(d, Decision::FenceWanted { .. })).or(played.led.map(since)),
            fenced_s: decided(|d| matches!(d, Decision::Fenced { .. })),
            evidence,
            recovered_s: recovered.map(since),
            leader_before: leader(&before.status),
            leader_after: played.after.as_ref().and_then(leader),
            lost_counts: verdict.lost_counts,
            double_runs: verdict.double_runs,
            leases_lost: self.leases_lost(),
            counts: acknowledged.len() as u64,
            failures: verdict.faults.clone(),
        };
        let failures = self.failures(&outcome, newest);
        outcome.failures.extend(failures);
        outcome
    }

    /// Leases that ran out after the break, on nodes that weren't broken themselves.
    fn leases_lost(&self) -> u64 {
        let counts = |status: &Status| -> BTreeMap<String, u64> {
            let lost = |member: &MemberStatus| member.leases_lost.map(|lost| (member.name.to_string(), lost));
            status.members.iter().filter_map(lost).collect()
        };
        let (before, after) = (counts(&self.before.status), self.played.after.as_ref().map(counts).unwrap_or_default());
        let well = |node: &str| !(self.args.fail.breaks_the_node() && node == self.before.instance.node);
        after
            .iter()
            .filter(|(node, _)| well(node))
            // A count that went back belongs to an agent that was started again, which is another fault and is told so.
            .map(|(node, after)| after.saturating_sub(before.get(node).copied().unwrap_or(0)))
            .sum()
    }

    fn failures(&self, outcome: &Outcome, newest: &Instance) -> Vec<String> {
        let mut failures = Vec::new();
        let mut must = |holds: bool, what: &dyn Fn() -> String| {
            if !holds {
                failures.push(what());
            }
        };
        let fail = self.args.fail;
        must(outcome.lost_counts == 0, &|| format!("{} acknowledged counts were lost", outcome.lost_counts));
        must(outcome.double_runs == 0, &|| format!("the counter ran twice at once ({} signs)", outcome.double_runs));
        must(outcome.leases_lost == 0, &|| format!("{} leases of nodes that were well ran out", outcome.leases_lost));
        must(outcome.leader_after.is_some(), &|| "nobody led in the end".to_owned());
        must(outcome.leader_after.as_deref() == Some(APPLIANCE), &|| {
            "the appliance did not lead in the end".to_owned()
        });
        must(self.all_reported(), &|| "a node that was well did not report in the end".to_owned());
        let fenced: Vec<String> = self.fenced().collect();
        if fail.fences() {
            must(fenced == [outcome.from.clone()], &|| {
                format!("fenced were [{}], not {}", fenced.join(", "), outcome.from)
            });
            must(outcome.to != outcome.from, &|| format!("the counter is still on {}", outcome.from));
            let grade = if self.args.no_bmc { "watchdog-time" } else { "bmc-off" };
            must(outcome.evidence.as_deref() == Some(grade), &|| {
                format!("the evidence was {}, not {grade}", outcome.evidence.as_deref().unwrap_or("none"))
            });
            let limit = Fail::recovered_within(self.args.profile, self.args.no_bmc).as_secs_f64();
            must(outcome.recovered_s.is_some_and(|s| s <= limit || self.args.no_time_limit), &|| {
                format!("the recovery took {:.2} s, more than {limit} s", outcome.recovered_s.unwrap_or(f64::INFINITY))
            });
            must(self.died_ns.is_some_and(|died| died <= newest.started_ns), &|| {
                "the first instance was not dead when the second started".to_owned()
            });
        } else {
            must(fenced.is_empty(), &|| format!("{} was fenced needlessly", fenced.join(", ")));
            must(*newest == self.before.instance, &|| {
                format!("the counter was started again: {} instead of {}", newest, self.before.instance)
            });
            must(self.died_ns.is_none(), &|| "the counter's process died".to_owned());
            must(!self.moved(), &|| "the counter was moved".to_owned());
        }
        failures
    }

    fn fenced(&self) -> impl Iterator<Item = String> {
        self.seen.lines_after(self.before.index()).filter_map(|(_, line)| match &line.decision {
            Decision::FenceWanted { node, .. } => Some(node.to_string()),
            _ => None,
        })
    }

    fn moved(&self) -> bool {
        self.seen.lines_after(self.before.index()).any(|(_, line)| {
            matches!(line.decision, Decision::Released { .. } | Decision::Assigned { .. } | Decision::GivenUp { .. })
        })
    }

    /// Every node that wasn't broken is online in the end, under the life that it had: else its lost leases are unknown.
    fn all_reported(&self) -> bool {
        let Some(after) = &self.played.after else { return false };
        let life = |status: &Status, node: &str| {
            status
                .members
                .iter()
                .find(|member| member.name.as_str() == node)
                .and_then(|member| member.leases_lost.and(member.incarnation))
        };
        NODES
            .iter()
            .filter(|node| !(self.args.fail.breaks_the_node() && **node == self.before.instance.node))
            .all(|node| life(after, node).is_some() && life(after, node) == life(&self.before.status, node))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tiebreaker_pipeline::decision::LogLine;
    use tiebreaker_pipeline::fence::{Evidence, FenceId, FenceReason};
    use tiebreaker_pipeline::name::MemberName;
    use tiebreaker_pipeline::profile::Profile;

    use super::super::counter::{Event, Happening};
    use super::*;

    /// A demo that went well, for its tests to spoil.
    struct Demo {
        args: DemoArgs,
        before: Before,
        played: Played,
        seen: Seen,
        died_ns: Option<u64>,
        ledger: Ledger,
    }

    fn node(number: u8) -> MemberName {
        MemberName::new(&format!("node{number}")).unwrap()
    }

    fn instance(number: u8) -> Instance {
        Instance { node: format!("node{number}"), pid: number.into(), started_ns: u64::from(number) * 1_000 }
    }

    impl Demo {
        fn new(fail: Fail) -> Self {
            let args = DemoArgs { fail, profile: Profile::Balanced, no_bmc: false, keep: false, no_time_limit: false };
            let status = crate::render::example_status();
            let index = status.commit;
            let broken = Instant::now();
            let mut demo = Self {
                args,
                before: Before { status: status.clone(), instance: instance(1), counts: 1 },
                played: Played { broken, recovered: None, led: None, restored: None, after: Some(status) },
                seen: Seen::default(),
                died_ns: None,
                ledger: Ledger::default(),
            };
            demo.serves(1);
            if fail.fences() {
                let id = FenceId(1);
                let reason = FenceReason::Lost { silent_ms: 2_000 };
                demo.decided(index + 1, Decision::FenceWanted { id, node: node(1), reason });
                let evidence = Evidence::BmcOff { device: "bmc".into() };
                demo.decided(index + 2, Decision::Fenced { id, node: node(1), evidence });
                demo.serves(2);
                demo.died_ns = Some(1_500);
                let line = Line { count: 2, instance: instance(2) };
                demo.played.recovered = Some(Ack { line, at: broken + Duration::from_secs(3) });
            }
            demo
        }

        fn decided(&mut self, index: u64, decision: Decision) {
            self.seen.lines.push((self.played.broken, LogLine { index, at_ms: 0, decision }));
        }

        fn serves(&mut self, number: u8) {
            let (instance, count) = (instance(number), self.ledger.counts.len() as u64 + 1);
            self.ledger.events.push(Event {
                at_ns: instance.started_ns,
                instance: instance.clone(),
                what: Happening::Start,
            });
            self.ledger.counts.push(Line { count, instance });
        }

        fn failures(&self) -> String {
            self.outcome().failures.join("; ")
        }

        fn outcome(&self) -> Outcome {
            let Self { args, before, played, seen, died_ns, ledger } = self;
            Judgement { args, before, played, seen, died_ns: *died_ns }.outcome(ledger, &ledger.counts)
        }
    }

    #[test]
    fn a_good_demo_passes() {
        let recovered = Demo::new(Fail::NodePower).outcome();
        assert_eq!(recovered.failures, Vec::<String>::new());
        assert_eq!((recovered.from.as_str(), recovered.to.as_str()), ("node1", "node2"));
        assert_eq!((recovered.evidence.as_deref(), recovered.recovered_s), (Some("bmc-off"), Some(3.0)));
        for fail in [Fail::AgentCrash, Fail::NodeLink, Fail::Appliance, Fail::None] {
            assert_eq!(Demo::new(fail).failures(), "", "{fail}");
        }
    }

    #[test]
    fn a_recovery_must_be_proven_quick_and_after_the_death() {
        let mut slow = Demo::new(Fail::NodePower);
        slow.played.recovered.as_mut().unwrap().at += Duration::from_secs(3);
        assert!(slow.failures().contains("more than 5 s"), "{}", slow.failures());
        let mut other = Demo::new(Fail::NodePower);
        other.args.no_bmc = true;
        assert!(other.failures().contains("not watchdog-time"), "{}", other.failures());
        for died in [None, Some(2_001)] {
            let mut alive = Demo::new(Fail::AgentFreeze);
            alive.died_ns = died;
            assert!(alive.failures().contains("not dead"), "{}", alive.failures());
        }
        let mut both = Demo::new(Fail::NodeIsolate);
        let reason = FenceReason::Lost { silent_ms: 2_000 };
        both.decided(99, Decision::FenceWanted { id: FenceId(2), node: node(2), reason });
        assert!(both.failures().contains("fenced were [node1, node2]"), "{}", both.failures());
    }

    #[test]
    fn what_was_well_must_stay_as_it_was() {
        let mut fenced = Demo::new(Fail::NodeLink);
        let reason = FenceReason::Lost { silent_ms: 2_000 };
        fenced.decided(99, Decision::FenceWanted { id: FenceId(1), node: node(1), reason });
        assert!(fenced.failures().contains("needlessly"), "{}", fenced.failures());
        let mut died = Demo::new(Fail::AgentCrash);
        died.died_ns = Some(1);
        assert!(died.failures().contains("process died"), "{}", died.failures());
        let mut again = Demo::new(Fail::Appliance);
        again.serves(2);
        assert!(again.failures().contains("started again"), "{}", again.failures());
        let mut moved = Demo::new(Fail::Appliance);
        let resource = tiebreaker_pipeline::name::ResourceName::new(COUNTER).unwrap();
        moved.decided(99, Decision::Assigned { resource, node: node(2), recovered_from: None });
        assert!(moved.failures().contains("moved"), "{}", moved.failures());
        let mut leaderless = Demo::new(Fail::None);
        leaderless.played.after.as_mut().unwrap().leader = None;
        assert!(leaderless.failures().contains("nobody led"), "{}", leaderless.failures());
    }

    #[test]
    fn leases_count_on_nodes_that_were_well() {
        let lose = |fail, number: u8| {
            let mut demo = Demo::new(fail);
            let after = demo.played.after.as_mut().unwrap();
            let member = after.members.iter_mut().find(|member| member.name == node(number)).unwrap();
            member.leases_lost = member.leases_lost.map(|lost| lost + 1);
            demo.outcome().leases_lost
        };
        assert_eq!(lose(Fail::NodeIsolate, 1), 0, "the broken one");
        assert_eq!(lose(Fail::NodeIsolate, 2), 1);
        assert_eq!(lose(Fail::NodeLink, 1), 1);
        let mut silent = Demo::new(Fail::NodeLink);
        let after = silent.played.after.as_mut().unwrap();
        after.members.iter_mut().for_each(|member| member.leases_lost = None);
        assert!(silent.failures().contains("did not report"), "{}", silent.failures());
    }
}
