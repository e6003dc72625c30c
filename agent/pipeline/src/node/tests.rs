mod arming;
mod leaving;
mod moves;
mod receiving;
mod usage;

use super::guard::GUARD_TRIES;
use super::lease::SENT_MAX;
use super::*;
use crate::command::Command;
use crate::fixture::{Log, Machine, driver, member, ms, promise, spec, web};
use crate::profile::Profile;
use crate::report::{LeaseVerdict, Observed, Trust};
use crate::resource::{MoveReason, Requested};
use crate::state::DisarmMode;

fn placed() -> Log {
    Log::placed(Rules::ALL)
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed { why: why.into() }
}

fn unknown() -> Found {
    Found::Unknown { why: "no answer".into() }
}

/// A log in which `web` belongs to b.
fn elsewhere() -> Log {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    log.must(log.assign("b", 1));
    log
}

// Renewals.

#[test]
fn a_node_renews_every_half_second_and_counts() {
    let mut a = Machine::ready(placed());
    for _ in 0..8 {
        a.pass(ms(250));
    }
    let first: Vec<u64> = a.renewals.iter().filter(|(_, everywhere)| !everywhere).map(|(renew, _)| renew.seq).collect();
    assert_eq!(first, [1, 2, 3, 4, 5]);
    let (renew, _) = &a.renewals[0];
    assert_eq!(
        (renew.incarnation, renew.boot.as_str(), &renew.watchdog),
        (1, "boot-a1", &Some(promise(Trust::Drilled)))
    );
}

#[test]
fn an_unanswered_renewal_goes_everywhere_after_a_quarter_second() {
    let mut a = Machine::ready(placed());
    a.pass(ms(249));
    assert_eq!(a.renewals.len(), 1);
    a.pass(ms(1));
    let (again, everywhere) = a.renewals[1].clone();
    assert!(everywhere);
    assert_eq!(again, a.renewals[0].0, "the same renewal, so that its answer counts from its first sending");
    a.pass(ms(249));
    assert_eq!(a.renewals.len(), 2, "once");
}

#[test]
fn an_answered_renewal_isnt_sent_again() {
    let mut a = Machine::ready(placed());
    a.grant(3, 0);
    a.pass(ms(250));
    assert_eq!(a.renewals.len(), 1);
}

#[test]
fn an_answer_of_who_doesnt_lead_ends_no_search() {
    let mut a = Machine::ready(placed());
    a.answer(1, 9, LeaseVerdict::NotLeader { leader: None });
    a.pass(ms(250));
    assert_eq!(a.renewals.len(), 2);
    a.grant(3, 0);
    assert!(a.node.has_lease(a.now), "nor does it raise the term");
}

#[test]
fn a_renewal_tells_the_highest_term_seen() {
    let mut a = Machine::ready(placed());
    a.node.saw_term(4);
    a.node.saw_term(2);
    a.pass(ms(500));
    assert_eq!(a.renewals.last().map(|(renew, _)| renew.term), Some(4));
}

// The lease.

#[test]
fn a_lease_counts_from_the_sending_of_its_renewal() {
    let mut a = Machine::ready(placed());
    let sent = a.now;
    a.pass(ms(400));
    a.grant(3, 0);
    let end = sent.after(ms(5_000));
    assert_eq!(a.node.lease_end(), Some(end));
    assert!(a.took(&Action::Extend(end)));
}

#[test]
fn an_answer_that_comes_after_its_lease_extends_nothing() {
    let mut a = Machine::ready(placed());
    a.now = a.now.after(ms(5_000));
    a.grant(3, 0);
    assert!(!a.node.has_lease(a.now));
    assert!(!a.actions.iter().any(|action| matches!(action, Action::Extend(_))), "the watchdog must not be petted");
}

#[test]
fn a_late_or_repeated_answer_never_shortens_a_lease() {
    let mut a = Machine::ready(placed());
    a.pass(ms(500));
    a.grant(3, 0);
    let end = a.node.lease_end();
    a.answer(1, 3, a.granted(0));
    a.answer(2, 3, a.granted(0));
    assert_eq!(a.node.lease_end(), end);
}

#[test]
fn answers_to_other_starts_and_unknown_renewals_are_ignored() {
    let mut a = Machine::ready(placed());
    let verdict = a.granted(0);
    a.event(Event::Answered(Answer { seq: 1, incarnation: 2, term: 3, verdict: verdict.clone() }));
    a.answer(7, 3, verdict);
    assert!(!a.node.has_lease(a.now));
}

#[test]
fn an_answer_of_a_lower_term_is_ignored_even_if_it_refuses() {
    let mut a = Machine::ready(placed());
    a.grant(4, 0);
    a.answer(1, 3, LeaseVerdict::Refused { why: Refusal::Outdated });
    assert_eq!(a.node.refused(), None);
}

#[test]
fn an_answer_to_a_forgotten_renewal_is_ignored() {
    let mut a = Machine::ready(placed());
    for _ in 0..SENT_MAX {
        a.pass(ms(500));
    }
    a.answer(1, 3, LeaseVerdict::Granted { ttl_ms: 3_600_000, commit: 0 });
    assert!(!a.node.has_lease(a.now));
    a.answer(2, 3, LeaseVerdict::Granted { ttl_ms: 3_600_000, commit: 0 });
    assert!(a.node.has_lease(a.now));
}

#[test]
fn a_lease_ends_on_either_clock() {
    let a = Machine::leased(placed());
    let end = a.node.lease_end().unwrap();
    for now in [
        Reading { boottime_ns: end.boottime_ns, raw_ns: end.raw_ns - 1 },
        Reading { boottime_ns: end.boottime_ns - 1, raw_ns: end.raw_ns },
    ] {
        assert!(!a.node.has_lease(now));
    }
    assert!(a.node.has_lease(Reading { boottime_ns: end.boottime_ns - 1, raw_ns: end.raw_ns - 1 }));
}

#[test]
fn a_refusal_is_kept_for_people_until_the_next_grant() {
    let mut a = Machine::ready(placed());
    a.answer(1, 3, LeaseVerdict::Refused { why: Refusal::NotAdmitted });
    assert_eq!(a.node.refused(), Some(&Refusal::NotAdmitted));
    a.grant(3, 0);
    assert_eq!(a.node.refused(), None);
}

// Starting.

#[test]
fn nothing_is_done_before_the_leftovers_are_dead() {
    let log = placed();
    let config = Machine::config(&log);
    let mut a = Machine::start(log, config);
    a.grant(3, a.log.state.applied);
    assert!(a.open.is_empty() && !a.took(&Action::Arm));
    assert!(!a.observed().is_stopped());
}

#[test]
fn what_wasnt_probed_is_neither_started_nor_called_stopped() {
    let mut a = Machine::ready(placed());
    a.grant(3, a.log.state.applied);
    a.answer_arming();
    assert!(!a.observed().is_stopped());
    assert_eq!((a.find(OperationKind::Start), a.find(OperationKind::Stop)), (None, None));
}

#[test]
fn the_watchdog_is_armed_before_anything_starts() {
    let mut a = Machine::probed(placed(), Found::Stopped);
    assert!(!a.took(&Action::Arm), "not without a lease");
    a.grant(3, a.log.state.applied);
    assert!(a.actions.contains(&Action::Arm));
    a.pass(ms(500));
    assert_eq!(a.find(OperationKind::Start), None);
    assert!(!a.node.is_armed());
    a.answer_arming();
    a.begun(OperationKind::Start);
    assert!(a.node.is_armed());
}

#[test]
fn a_node_without_a_watchdog_starts_without_one() {
    let log = placed();
    let config = NodeConfig { watchdog: None, ..Machine::config(&log) };
    let mut a = Machine::start(log, config);
    a.event(Event::LeftoversKilled);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    a.grant(3, a.log.state.applied);
    a.begun(OperationKind::Start);
    assert!(!a.actions.contains(&Action::Arm));
}

#[test]
fn only_the_admitted_life_acts() {
    let log = placed();
    let config = NodeConfig { incarnation: 2, ..Machine::config(&log) };
    let mut a = Machine::start(log, config);
    a.event(Event::LeftoversKilled);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    a.grant(3, a.log.state.applied);
    assert!(!a.actions.contains(&Action::Arm));
    assert_eq!(a.find(OperationKind::Start), None);
    a.log.must(Log::admit("a", 2, "boot-a1", 0));
    a.look();
    a.answer_arming();
    a.begun(OperationKind::Start);
}

#[test]
fn a_node_that_is_behind_the_grant_neither_starts_nor_stops() {
    for (log, found) in [(placed(), Found::Stopped), (elsewhere(), Found::Running)] {
        let mut a = Machine::ready(log);
        let applied = a.log.state.applied;
        a.grant(3, applied + 2);
        let probe = a.begun(OperationKind::Probe);
        a.probe(probe, found);
        a.answer_arming();
        assert!(a.open.is_empty(), "{:?}", a.open);
        // A later grant with a lower index doesn't lower the bar.
        a.pass(ms(500));
        a.grant(3, applied);
        a.answer_arming();
        assert!(a.open.is_empty());
        a.log.state.apply_nothing(applied + 1);
        a.look();
        assert!(a.open.is_empty());
        a.log.state.apply_nothing(applied + 2);
        a.look();
        a.answer_arming();
        assert_eq!(a.open.len(), 1);
    }
}

#[test]
fn a_start_in_flight_counts_as_running_until_a_probe_has_said_otherwise() {
    let mut a = Machine::leased(placed());
    let start = a.begun(OperationKind::Start);
    assert_eq!(a.observed(), Observed::Starting);
    a.end(start, failed("exit 1"));
    assert!(matches!(a.observed(), Observed::Unknown { .. }), "its exit code says nothing");
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::Running, "a start that failed and runs all the same");
}

#[test]
fn what_runs_is_probed_at_its_interval() {
    let mut a = Machine::running(placed());
    for _ in 0..19 {
        a.keep();
        assert!(a.open.is_empty());
    }
    a.keep();
    a.begun(OperationKind::Probe);
    assert_eq!(a.observed(), Observed::Running, "a probe in flight changes nothing");
}

// Failures.

#[test]
fn what_died_is_restarted_as_often_as_allowed_and_then_failed() {
    let mut a = Machine::running(placed());
    a.monitor(Found::Stopped);
    a.keep();
    a.started(Found::Running);
    a.monitor(Found::Stopped);
    a.keep();
    assert_eq!(a.observed(), Observed::Failed { why: "it died".into() });
    assert_eq!(a.find(OperationKind::Start), None, "max_restart is one");
}

#[test]
fn a_start_that_fails_counts_and_so_does_one_that_lies() {
    for (outcome, why) in
        [(failed("exit 1"), "exit 1"), (Outcome::Done, "the start reported success, but it doesn't run")]
    {
        let mut a = Machine::leased(placed());
        for _ in 0..2 {
            a.keep();
            let start = a.begun(OperationKind::Start);
            a.end(start, outcome.clone());
            let probe = a.begun(OperationKind::Probe);
            a.probe(probe, Found::Stopped);
        }
        a.keep();
        assert_eq!(a.observed(), Observed::Failed { why: why.into() });
        assert_eq!(a.find(OperationKind::Start), None);
    }
}

/// `web` is best-effort here, and could be restarted thrice.
fn best_effort() -> Log {
    let mut log = Log::cluster(Rules::ALL);
    let mut spec = spec();
    (spec.class, spec.max_restart) = (crate::resource::Class::BestEffort, 3);
    log.must(Command::AddResource { name: web(), spec, requested: Requested::Started, node: None });
    log.must(log.assign("a", 1));
    log
}

#[test]
fn what_is_best_effort_has_one_attempt_to_start() {
    let mut a = Machine::leased(best_effort());
    a.keep();
    a.started(Found::Stopped);
    a.keep();
    assert!(matches!(a.observed(), Observed::Failed { .. }));
    assert_eq!(a.find(OperationKind::Start), None);
}

#[test]
fn what_is_best_effort_and_died_has_one_attempt_too() {
    let mut a = Machine::running(best_effort());
    a.monitor(Found::Stopped);
    a.keep();
    a.started(Found::Running);
    a.monitor(Found::Stopped);
    a.keep();
    assert_eq!(a.observed(), Observed::Failed { why: "it died".into() });
    assert_eq!(a.find(OperationKind::Start), None);
}

#[test]
fn a_probe_that_tells_nothing_doesnt_hide_that_the_start_failed() {
    let mut a = Machine::leased(placed());
    for _ in 0..2 {
        a.keep();
        a.started(unknown());
        a.pass(ms(1_000));
        a.keep();
        let probe = a.begun(OperationKind::Probe);
        a.probe(probe, Found::Stopped);
    }
    assert!(matches!(a.observed(), Observed::Failed { .. }), "else it would be started for ever");
}

#[test]
fn old_failures_are_forgotten() {
    let mut a = Machine::running(placed());
    a.monitor(Found::Stopped);
    a.keep();
    a.started(Found::Running);
    for _ in 0..361 {
        a.monitor(Found::Running);
    }
    a.monitor(Found::Stopped);
    a.keep();
    a.begun(OperationKind::Start);
}

#[test]
fn what_is_broken_is_stopped_before_it_is_started() {
    let mut a = Machine::running(placed());
    a.monitor(Found::Broken { why: "half dead".into() });
    a.keep();
    assert_eq!(a.find(OperationKind::Start), None);
    a.stopped(Found::Stopped);
    a.begun(OperationKind::Start);
}

#[test]
fn what_may_not_start_yet_and_is_broken_goes_down_and_what_runs_stays() {
    for (found, stops) in [(Found::Broken { why: "half dead".into() }, true), (Found::Running, false)] {
        let mut log = placed();
        log.must(Log::set_web(Requested::Stopped));
        log.must(Log::set_web(Requested::Started));
        assert!(log.web().held);
        let mut a = Machine::found(log, found);
        if stops {
            a.stopped(Found::Stopped);
            a.keep();
        }
        assert_eq!((a.find(OperationKind::Stop), a.find(OperationKind::Start)), (None, None));
        assert_eq!(a.observed() == Observed::Stopped, stops);
    }
}

#[test]
fn a_new_decision_forgets_old_failures() {
    let mut a = Machine::running(placed());
    for _ in 0..2 {
        a.monitor(Found::Stopped);
        a.keep();
        if a.find(OperationKind::Start).is_some() {
            a.started(Found::Running);
        }
    }
    assert!(matches!(a.observed(), Observed::Failed { .. }));
    a.log.must(Log::set_web(Requested::Started));
    a.keep();
    a.begun(OperationKind::Start);
}

// Stopping.

#[test]
fn a_released_resource_is_stopped_and_stopped_is_what_the_probe_says() {
    let mut a = Machine::running(placed());
    a.log.must(a.log.release(Some("b"), MoveReason::Asked));
    a.keep();
    let stop = a.begun(OperationKind::Stop);
    assert_eq!(a.observed(), Observed::Stopping);
    a.end(stop, Outcome::Done);
    assert!(!a.observed().is_stopped());
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}

#[test]
fn a_stop_that_lies_has_failed_and_is_tried_again_later() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    a.stopped(Found::Running);
    let why = "the stop reported success, but it still runs".to_owned();
    assert_eq!(a.observed(), Observed::StopFailed { why });
    assert!(a.open.is_empty());
    for _ in 0..19 {
        a.keep();
        assert_eq!(a.find(OperationKind::Stop), None);
    }
    a.keep();
    a.stopped(Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}

#[test]
fn after_a_stop_an_unknown_probe_is_a_stop_that_failed() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    a.stopped(unknown());
    assert_eq!(a.observed(), Observed::StopFailed { why: "no answer".into() });
    a.pass(ms(1_000));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped, "the next probe knows better");
}

#[test]
fn an_unknown_probe_is_never_stopped() {
    let mut a = Machine::found(placed(), unknown());
    assert_eq!(a.observed(), Observed::Unknown { why: "no answer".into() });
    a.answer_arming();
    assert_eq!(a.find(OperationKind::Start), None, "it may run");
    a.pass(ms(999));
    assert!(a.open.is_empty());
    a.pass(ms(1));
    a.begun(OperationKind::Probe);
}

#[test]
fn what_belongs_elsewhere_and_runs_here_is_stopped() {
    let mut a = Machine::probed(elsewhere(), Found::Running);
    a.grant(3, a.log.state.applied);
    a.stopped(Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}

#[test]
fn what_belongs_elsewhere_is_never_started() {
    let mut a = Machine::probed(elsewhere(), Found::Stopped);
    for _ in 0..100 {
        a.keep();
        assert_eq!(a.find(OperationKind::Start), None);
        if let Some(probe) = a.find(OperationKind::Probe) {
            a.probe(probe, Found::Stopped);
        }
    }
    assert!(!a.actions.contains(&Action::Arm), "and nothing is armed for it");
}

#[test]
fn a_start_whose_placement_is_gone_is_cancelled_and_its_end_awaited() {
    let mut a = Machine::leased(placed());
    let start = a.begun(OperationKind::Start);
    a.log.must(a.log.release(Some("b"), MoveReason::Asked));
    a.look();
    assert!(a.took(&Action::Cancel(start)));
    assert_eq!(a.observed(), Observed::Starting);
    a.pass(ms(500));
    assert!(!a.took(&Action::Cancel(start)), "once");
    a.end(start, failed("cancelled"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::Stopping, "it was too late to cancel it");
}

#[test]
fn a_cancelled_start_is_no_failure_of_the_resource() {
    let mut log = placed();
    let mut strict = spec();
    strict.max_restart = 0;
    log.must(Command::SetResource { name: web(), spec: Some(strict), requested: Requested::Started });
    let mut a = Machine::leased(log);
    let start = a.begun(OperationKind::Start);
    a.pass(ms(5_000));
    assert!(a.took(&Action::Cancel(start)));
    a.end(start, failed("cancelled"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}

// The end of the lease.

#[test]
fn at_its_leases_end_and_not_before_a_node_stops_in_reverse_order() {
    let name = |n: &str| ResourceName::new(n).unwrap();
    let mut log = Log::cluster(Rules::ALL);
    for n in ["r1", "r2", "r3"] {
        log.must(Command::AddResource { name: name(n), spec: spec(), requested: Requested::Started, node: None });
        let generation = log.state.resources[&name(n)].generation;
        log.must(Command::Assign { resource: name(n), generation, to: member("a"), incarnation: 1 });
    }
    let mut a = Machine::ready(log);
    a.grant(3, a.log.state.applied);
    a.answer_arming();
    for id in a.open.keys().copied().collect::<Vec<_>>() {
        a.probe(id, Found::Running);
    }
    a.pass(ms(4_999));
    assert!(a.open.is_empty(), "the lease still runs");
    a.pass(ms(1));
    let stops: Vec<String> = a
        .open
        .values()
        .filter(|(_, kind, _)| *kind == OperationKind::Stop)
        .map(|(name, _, _)| name.to_string())
        .collect();
    assert_eq!(stops, ["r3", "r2", "r1"]);
    assert_eq!(a.node.leases_lost(), 1);
    a.pass(ms(1));
    assert_eq!(a.node.leases_lost(), 1);
}

#[test]
fn at_the_leases_end_starts_are_cancelled_and_what_they_left_is_stopped() {
    let mut a = Machine::leased(placed());
    let start = a.begun(OperationKind::Start);
    a.pass(ms(5_000));
    assert!(a.took(&Action::Cancel(start)));
    a.end(start, failed("cancelled"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    a.stopped(Found::Stopped);
    assert!(a.took(&Action::Disarm), "nothing runs: no reset for nothing");
}

#[test]
fn at_the_leases_end_a_probe_that_hangs_delays_no_stop() {
    for end in [Event::Probed as fn(OperationId, Found) -> Event, |id, _| Event::Ended(id, failed("cancelled"))] {
        let mut a = Machine::running(placed());
        for _ in 0..20 {
            a.keep();
        }
        let probe = a.begun(OperationKind::Probe);
        a.pass(ms(4_999));
        assert!(!a.actions.contains(&Action::Cancel(probe)));
        a.pass(ms(1));
        assert!(a.took(&Action::Cancel(probe)));
        a.open.remove(&probe);
        a.event(end(probe, unknown()));
        a.begun(OperationKind::Stop);
    }
}

#[test]
fn without_a_lease_what_cant_be_seen_is_stopped_all_the_same_and_the_watchdog_stays_armed() {
    let mut a = Machine::running(placed());
    a.pass(ms(5_000));
    let stop = a.begun(OperationKind::Stop);
    a.end(stop, Outcome::Done);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, unknown());
    a.pass(ms(60_000));
    assert!(!a.actions.contains(&Action::Disarm), "unknown counts as running: the watchdog is for the rest");
    assert!(a.open.values().any(|(_, kind, _)| *kind == OperationKind::Stop), "and stopping goes on");
}

#[test]
fn without_a_lease_even_what_was_given_up_here_is_stopped() {
    let mut log = placed();
    log.must(log.give_up());
    let mut a = Machine::found(log, Found::Running);
    a.answer_arming();
    a.pass(ms(4_000));
    assert!(a.open.is_empty(), "with a lease it is left as it is");
    a.pass(ms(1_000));
    a.begun(OperationKind::Stop);
}

#[test]
fn a_lease_that_comes_back_in_time_starts_again() {
    let mut a = Machine::running(placed());
    a.pass(ms(5_000));
    a.stopped(Found::Stopped);
    assert!(a.took(&Action::Disarm));
    a.event(Event::Disarmed(Ok(())));
    a.grant(3, a.log.state.applied);
    a.answer_arming();
    a.begun(OperationKind::Start);
}

#[test]
fn a_stop_that_failed_is_forgotten_when_the_lease_is_back_and_nobody_wants_it_any_more() {
    let mut new = Log::cluster(Rules::ALL);
    new.must(Log::add_web());
    for log in [new, placed()] {
        let mut a = Machine::found(log, Found::Running);
        a.answer_arming();
        a.pass(ms(5_000));
        a.stopped(Found::Running);
        let why = "the stop reported success, but it still runs".to_owned();
        a.pass(ms(500));
        assert_eq!(a.observed(), Observed::StopFailed { why: why.clone() });
        a.grant(3, a.log.state.applied);
        assert_eq!(a.observed(), Observed::StopFailed { why }, "only a probe says what runs");
        a.monitor(Found::Running);
        assert_eq!(a.observed(), Observed::Running);
        assert_eq!(a.find(OperationKind::Stop), None);
    }
}

#[test]
fn a_stop_that_failed_is_remembered_while_it_is_wanted() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    a.stopped(Found::Running);
    for _ in 0..4 {
        a.keep();
        assert!(matches!(a.observed(), Observed::StopFailed { .. }));
    }
}

#[test]
fn the_next_try_of_a_stop_wakes_the_node_also_after_a_new_decision() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    a.pass(ms(130));
    a.stopped(Found::Running);
    let again = a.now.after(ms(10_000));
    a.log.must(Log::set_web(Requested::Disabled));
    a.look();
    while a.find(OperationKind::Stop).is_none() {
        a.now = a.node.poll_timeout().unwrap();
        assert!(!a.now.reached_on_both(again.after(ms(1))), "it slept through the time of the next try");
        a.look();
        a.grant(3, a.log.state.applied);
        if let Some(probe) = a.find(OperationKind::Probe) {
            a.probe(probe, Found::Running);
        }
    }
    assert_eq!(a.now, again);
}

// The watchdog.

#[test]
fn the_watchdog_is_disarmed_when_nothing_runs_any_more() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    let stop = a.begun(OperationKind::Stop);
    a.end(stop, Outcome::Done);
    assert!(!a.actions.contains(&Action::Disarm), "the stop's word is not enough");
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert!(a.took(&Action::Disarm));
    assert!(a.node.is_armed(), "until it is done");
    a.event(Event::Disarmed(Ok(())));
    assert!(!a.node.is_armed());
}

#[test]
fn nothing_starts_while_the_watchdog_is_being_disarmed() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    a.stopped(Found::Stopped);
    assert!(a.took(&Action::Disarm));
    a.log.must(Log::set_web(Requested::Started));
    a.log.must(a.log.go());
    a.keep();
    assert_eq!(a.find(OperationKind::Start), None);
    a.event(Event::Disarmed(Ok(())));
    assert_eq!(a.find(OperationKind::Start), None);
    a.answer_arming();
    a.begun(OperationKind::Start);
}

#[test]
fn a_watchdog_that_cant_be_armed_is_tried_again_and_then_its_node_says_so() {
    let mut a = Machine::probed(placed(), Found::Stopped);
    for tries in 1..=GUARD_TRIES {
        a.grant(3, a.log.state.applied);
        assert!(a.took(&Action::Arm), "try {tries}");
        a.event(Event::Armed(Err("busy".into())));
        assert_eq!(a.node.guard_trouble(), Some("busy"));
        assert_eq!(a.find(OperationKind::Start), None, "nothing protected runs without it");
        assert_eq!(matches!(a.observed(), Observed::Failed { .. }), tries == GUARD_TRIES);
        a.pass(ms(1_999));
        assert!(!a.actions.contains(&Action::Arm));
        a.pass(ms(1));
    }
    a.answer_arming();
    assert_eq!((a.observed(), a.node.guard_trouble()), (Observed::Starting, None));
}

#[test]
fn what_runs_without_the_watchdog_that_was_promised_is_stopped() {
    let mut a = Machine::found(placed(), Found::Running);
    assert!(a.took(&Action::Arm));
    assert_eq!(a.find(OperationKind::Stop), None);
    a.event(Event::Armed(Err("busy".into())));
    a.begun(OperationKind::Stop);
}

#[test]
fn a_watchdog_that_cant_be_disarmed_stays_armed_and_is_tried_again() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.keep();
    a.stopped(Found::Stopped);
    assert!(a.took(&Action::Disarm));
    a.event(Event::Disarmed(Err("no magic close".into())));
    assert!(a.node.is_armed());
    assert!(!a.actions.contains(&Action::Disarm));
    a.pass(ms(2_000));
    assert!(a.took(&Action::Disarm));
}

#[test]
fn a_resource_that_was_found_running_is_guarded_before_it_belongs_here() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    let mut a = Machine::found(log, Found::Running);
    a.answer_arming();
    assert!(a.node.is_armed());
    assert!(a.open.is_empty(), "a new resource is left as it is");
}

// Restarts of the agent.

fn restarted(found: Found, armed: bool) -> Machine {
    let mut log = placed();
    log.must(Log::admit("a", 2, "boot-a1", 0));
    let config = NodeConfig { incarnation: 2, armed, ..Machine::config(&log) };
    let mut a = Machine::start(log, config);
    a.event(Event::LeftoversKilled);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, found);
    a
}

#[test]
fn a_restarted_agent_adopts_what_runs_behind_an_armed_watchdog() {
    let mut a = restarted(Found::Running, true);
    a.pass(ms(1_999));
    assert!(a.open.is_empty(), "it is left alone while the first lease may come");
    a.grant(3, a.log.state.applied);
    assert_eq!((a.observed(), a.open.len()), (Observed::Running, 0));
    assert!(!a.actions.contains(&Action::Arm), "it is armed already");
}

#[test]
fn a_restarted_agent_without_a_lease_in_time_stops_what_runs() {
    let mut a = restarted(Found::Running, true);
    a.pass(ms(2_000));
    a.begun(OperationKind::Stop);
}

#[test]
fn a_restarted_agent_whose_watchdog_isnt_armed_stops_what_runs_at_once() {
    let mut a = restarted(Found::Running, false);
    a.begun(OperationKind::Stop);
}

#[test]
fn an_agent_that_follows_one_which_went_in_good_order_leaves_what_runs() {
    let mut log = placed();
    log.must(Command::Leave { node: member("a"), incarnation: 1, how: Leave::AgentRestart });
    let unadmitted = NodeConfig { incarnation: 2, ..Machine::config(&log) };
    let mut a = Machine::start(log, unadmitted);
    a.event(Event::LeftoversKilled);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert!(a.find(OperationKind::Stop).is_none(), "nobody has admitted it yet");
    a.log.must(Log::admit("a", 2, "boot-a1", 0));
    a.look();
    assert!(a.find(OperationKind::Stop).is_none(), "its first lease is on its way");
    a.grant(3, a.log.state.applied);
    assert!(a.find(OperationKind::Stop).is_none());
    assert!(a.took(&Action::Arm), "from here on it keeps its promise again");
}

/// An agent that starts again while everything it knows of belongs elsewhere, and its watchdog is armed.
fn restarted_for_nothing() -> Machine {
    let mut log = elsewhere();
    log.must(Log::admit("a", 2, "boot-a1", 0));
    let config = NodeConfig { incarnation: 2, armed: true, ..Machine::config(&log) };
    let mut a = Machine::start(log, config);
    a.event(Event::LeftoversKilled);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    a
}

#[test]
fn a_restarted_agent_disarms_what_an_earlier_one_left_armed_for_nothing() {
    let mut a = restarted_for_nothing();
    a.grant(3, a.log.state.applied);
    assert!(a.took(&Action::Disarm));
}

#[test]
fn a_restarted_agent_without_a_lease_disarms_nothing() {
    // The earlier one may have reported what this one has not applied: it would go on running, unguarded.
    let mut a = restarted_for_nothing();
    a.pass(ms(60_000));
    assert!(!a.actions.contains(&Action::Disarm));
    a.grant(3, a.log.state.applied + 1);
    assert!(!a.actions.contains(&Action::Disarm), "it is behind");
}

#[test]
fn a_restarted_agent_that_has_caught_up_once_needs_no_lease_to_disarm() {
    let mut a = restarted(Found::Running, true);
    a.grant(3, a.log.state.applied);
    a.pass(ms(5_000));
    let stop = a.begun(OperationKind::Stop);
    a.end(stop, Outcome::Done);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert!(a.took(&Action::Disarm));
}

// Its own fence.

#[test]
fn a_life_that_learns_of_its_fence_resets_itself_once_and_does_nothing_more() {
    let mut a = Machine::leased(placed());
    let start = a.begun(OperationKind::Start);
    a.log.must(Log::fence("a", 1));
    a.look();
    assert!(a.took(&Action::ResetSelf(FenceId(1))));
    a.end(start, failed("exit 1"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    a.pass(ms(500));
    assert!(!a.took(&Action::ResetSelf(FenceId(1))));
    assert_eq!(a.find(OperationKind::Start), None);
}

#[test]
fn a_later_agent_on_the_fenced_boot_resets_too_and_one_on_a_later_boot_doesnt() {
    for (boot, resets) in [("boot-a1", true), ("boot-a2", false)] {
        let mut log = placed();
        log.must(Log::fence("a", 1));
        let config = NodeConfig { incarnation: 2, boot: boot.into(), ..Machine::config(&log) };
        let mut a = Machine::start(log, config);
        assert_eq!(a.took(&Action::ResetSelf(FenceId(1))), resets, "{boot}");
    }
}

#[test]
fn without_a_lease_the_probe_after_a_stop_is_awaited_however_slow() {
    // A machine that boots, in a cluster that has no leader yet.
    let mut a = Machine::ready(placed());
    let first = a.begun(OperationKind::Probe);
    a.pass(ms(250));
    assert!(a.took(&Action::Cancel(first)));
    a.probe(first, unknown());
    let stop = a.begun(OperationKind::Stop);
    a.end(stop, Outcome::Done);
    let after = a.begun(OperationKind::Probe);
    a.pass(ms(250));
    a.pass(ms(250));
    assert!(!a.took(&Action::Cancel(after)));
    a.probe(after, Found::Stopped);
    assert_eq!(a.node.report(&a.log.state).resources[&web()], Observed::Stopped);
}

// The cluster goes on without it (row 66).

#[test]
fn row_66_a_node_whose_cluster_was_taken_over_resets_itself_if_it_runs_something() {
    for found in [Found::Running, unknown()] {
        let mut a = Machine::leased(placed());
        a.started(found);
        a.event(Event::TakenOver);
        assert!(a.took(&Action::ResetParted));
        assert!(!a.node.has_lease(a.now), "its lease is over");
        a.grant(3, a.log.state.applied);
        assert!(!a.node.has_lease(a.now), "and no late grant revives it");
        a.pass(ms(500));
        assert!(!a.took(&Action::ResetParted), "once");
        assert!(!a.node.is_parted());
    }
}

#[test]
fn row_66_a_start_under_way_counts_as_running() {
    let mut a = Machine::leased(placed());
    a.begun(OperationKind::Start);
    a.event(Event::TakenOver);
    assert!(a.took(&Action::ResetParted));
}

#[test]
fn row_66_a_node_that_runs_nothing_looks_and_ends_without_a_reset() {
    let mut a = Machine::ready(placed());
    let early = a.begun(OperationKind::Probe);
    a.event(Event::TakenOver);
    assert!(!a.node.is_parted(), "nothing is known yet");
    let renewals = a.renewals.len();
    a.probe(early, Found::Stopped);
    a.pass(ms(1_000));
    assert!(a.node.is_parted());
    assert!(!a.took(&Action::ResetParted));
    assert_eq!((a.renewals.len(), a.find(OperationKind::Start)), (renewals, None), "nor does it ask or start any more");
}

#[test]
fn row_66_an_idle_watchdog_is_disarmed_before_the_end() {
    let mut a = Machine::running(placed());
    a.log.must(Log::set_web(Requested::Stopped));
    a.look();
    let stop = a.begun(OperationKind::Stop);
    a.end(stop, Outcome::Done);
    // It is told before it has disarmed by itself.
    let probe = a.begun(OperationKind::Probe);
    a.node.handle(a.now, &a.log.state, Event::TakenOver);
    a.probe(probe, Found::Stopped);
    assert!(a.took(&Action::Disarm));
    assert!(!a.node.is_parted());
    a.event(Event::Disarmed(Ok(())));
    assert!(a.node.is_parted());
}

#[test]
fn anothers_fence_resets_nobody() {
    let mut a = Machine::running(placed());
    a.log.must(Log::fence("b", 1));
    a.look();
    assert!(!a.actions.iter().any(|action| matches!(action, Action::ResetSelf(_) | Action::StartAnew)));
}

#[test]
fn a_life_that_learns_too_late_that_it_has_ended_makes_way_for_a_new_start() {
    // It was cut off, and comes back by a snapshot in which its fence is over.
    let mut a = Machine::running(placed());
    a.pass(ms(5_000));
    a.log.must(Log::fence("a", 1));
    a.log.must(Log::fenced(1));
    a.log.must(Log::closed(1));
    a.look();
    assert!(a.took(&Action::StartAnew));
    a.pass(ms(500));
    assert!(!a.took(&Action::StartAnew), "once");
}

// Changes.

#[test]
fn a_new_resource_gets_a_fresh_look_whatever_was_seen_before() {
    let mut log = placed();
    log.must(log.give_up());
    log.must(Log::fence("b", 1));
    let mut a = Machine::probed(log, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
    a.log.must(Command::RemoveResource { name: web() });
    a.log.must(Log::add_web());
    a.look();
    assert!(matches!(a.observed(), Observed::Unknown { .. }));
    a.grant(3, a.log.state.applied);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::Running);
}

#[test]
fn a_removed_resource_is_left_as_it_is() {
    let mut a = Machine::running(placed());
    a.log.must(Command::RemoveResource { name: web() });
    a.keep();
    assert!(a.open.is_empty());
    assert!(a.took(&Action::Disarm), "nothing protected is left");
}

#[test]
fn a_change_of_driver_stops_by_the_old_one_and_starts_by_the_new_one() {
    let mut a = Machine::running(placed());
    let mut other = spec();
    (other.driver, other.stop_timeout_ms) = (driver("web2"), 7_000);
    a.log.must(Command::SetResource { name: web(), spec: Some(other.clone()), requested: Requested::Started });
    a.keep();
    let stop = a.begun(OperationKind::Stop);
    let by = a.open[&stop].2.clone();
    assert_eq!((by.driver, by.stop_timeout_ms), (driver("web"), 7_000), "limits hold at once");
    a.end(stop, Outcome::Done);
    let probe = a.begun(OperationKind::Probe);
    assert_eq!(a.open[&probe].2.driver, driver("web"));
    a.probe(probe, Found::Stopped);
    assert!(!a.observed().is_stopped(), "the new driver has not looked yet");
    let probe = a.begun(OperationKind::Probe);
    assert_eq!(a.open[&probe].2, other);
    a.probe(probe, Found::Stopped);
    a.keep();
    let start = a.begun(OperationKind::Start);
    assert_eq!(a.open[&start].2, other);
}

#[test]
fn a_change_of_limits_alone_restarts_nothing() {
    let mut a = Machine::running(placed());
    let mut other = spec();
    other.max_restart = 9;
    a.log.must(Command::SetResource { name: web(), spec: Some(other), requested: Requested::Started });
    a.keep();
    assert_eq!((a.observed(), a.open.len()), (Observed::Running, 0));
}

#[test]
fn a_change_of_driver_at_rest_holds_at_once() {
    let mut a = Machine::probed(elsewhere(), Found::Stopped);
    let mut other = spec();
    other.driver = driver("web2");
    a.log.must(Command::SetResource { name: web(), spec: Some(other.clone()), requested: Requested::Started });
    a.monitor(Found::Stopped);
    a.pass(ms(10_000));
    let probe = a.begun(OperationKind::Probe);
    assert_eq!(a.open[&probe].2, other);
}

#[test]
fn a_lease_of_the_new_profile_is_taken_as_it_is_given() {
    let mut a = Machine::running(placed());
    a.log.must(Command::SetProfile { profile: Profile::Patient });
    a.pass(ms(500));
    a.grant(3, a.log.state.applied);
    assert_eq!(a.node.lease_end(), Some(a.now.after(ms(15_000))));
}

// The report and the clock.

#[test]
fn a_report_tells_everything_as_of_the_applied_state() {
    let mut a = Machine::running(placed());
    a.event(Event::Hears(BTreeSet::from([member("b")])));
    let report = a.node.report(&a.log.state);
    assert_eq!(report.applied, a.log.state.applied);
    assert_eq!(report.hears, BTreeSet::from([member("b")]));
    assert!(report.armed && !report.runs_nothing());
    // A resource that was added a moment ago is unknown, not absent.
    let db = ResourceName::new("db").unwrap();
    a.log.must(Command::AddResource { name: db.clone(), spec: spec(), requested: Requested::Started, node: None });
    assert!(!a.node.report(&a.log.state).resources[&db].is_stopped());
}

#[test]
fn the_node_wakes_for_what_is_due_and_for_nothing_else() {
    let mut a = Machine::running(placed());
    let mut turns = 0;
    let until = a.now.after(ms(20_000));
    while !a.now.reached_on_either(until) {
        let next = a.node.poll_timeout().unwrap();
        assert!(!a.now.reached_on_either(next), "a wake-up in the past would spin");
        a.now = next;
        a.look();
        a.answer_arming();
        for id in a.open.keys().copied().collect::<Vec<_>>() {
            match a.open[&id].1 {
                OperationKind::Probe => a.probe(id, Found::Stopped),
                OperationKind::Start | OperationKind::Stop | OperationKind::Migrate | OperationKind::Receive => {
                    a.end(id, Outcome::Done)
                }
            }
        }
        turns += 1;
    }
    assert!(turns < 120, "{turns} turns in 20 s");
}

#[test]
fn what_kept_a_watchdog_from_being_armed_is_forgotten_while_the_cluster_is_disarmed() {
    let mut a = Machine::running(Log::placed(Rules::ALL));
    a.log.disarm(DisarmMode::Freeze);
    a.look();
    assert!(a.took(&Action::Disarm));
    a.event(Event::Disarmed(Ok(())));
    a.log.must(Command::Arm);
    a.grant(3, a.log.state.applied);
    assert!(a.took(&Action::Arm));
    a.event(Event::Armed(Err("there is no lease any more".into())));
    assert!(a.node.guard_trouble().is_some());
    let since = a.log.unbound("a").unwrap();
    a.log.must(Command::ArmingFailed { since, why: "its watchdog".into() });
    a.look();
    assert_eq!(a.node.guard_trouble(), None, "it would keep the cluster from being armed for good");
}
