//! Live moves, as the manager takes them from step to step.

use super::*;
use crate::resource::Phase;

/// `web` runs on a and is about to move to b.
fn moving() -> Lead {
    Lead::new(Log::moving(Rules::ALL, "a", "b"))
}

/// The same, and its turn has come.
fn sent() -> Lead {
    let mut lead = moving();
    lead.log.must(lead.log.go());
    lead
}

fn unarmed(lead: &Lead, seen: Observed) -> crate::report::Report {
    let mut report = report(lead.log.state.applied, Some(seen));
    report.armed = false;
    report
}

fn broke() -> Observed {
    Observed::MoveFailed { why: "the link broke".into() }
}

fn is_moving(lead: &Lead) -> bool {
    lead.proposals().is_empty() && matches!(lead.why(), Why::Moving { .. })
}

#[test]
fn a_live_move_waits_for_the_targets_guard() {
    let mut lead = moving();
    lead.hear_that("a", Observed::Running);
    lead.hear("b", unarmed(&lead.clone(), Observed::Stopped));
    assert!(is_moving(&lead));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(lead.proposals(), [lead.log.go()]);
}

#[test]
fn a_guard_from_before_the_move_is_none() {
    let mut lead = moving();
    let before = lead.log.state.applied - 1;
    lead.hear_that("a", Observed::Running);
    lead.hear("b", report(before, Some(Observed::Stopped)));
    assert_eq!(lead.proposals(), []);
    assert!(matches!(lead.why(), Why::WaitingForReport { .. }));
}

#[test]
fn a_target_that_promised_no_watchdog_needs_none() {
    let mut log = Log::live(Rules::ALL);
    let Command::Admit { node, machine, closed, capacity, booted_in_ms, .. } = Log::admit("b", 2, "boot-b1", 0) else {
        panic!("an admission")
    };
    let (incarnation, boot, watchdog) = (2, "boot-b1".into(), None);
    log.must(Command::Admit { node, incarnation, boot, watchdog, machine, closed, capacity, booted_in_ms });
    log.must(log.migrate("b", 2));
    let mut lead = Lead::new(log);
    lead.hear_that("a", Observed::Running);
    let mut renew = renewal(2, "boot-b1", 1, unarmed(&lead, Observed::Stopped));
    renew.watchdog = None;
    lead.renew("b", renew);
    assert_eq!(lead.proposals(), [lead.log.go()]);
}

#[test]
fn a_move_under_way_is_waited_for() {
    let mut lead = sent();
    tell(&mut lead, Observed::Moving, Observed::Stopped);
    assert!(is_moving(&lead));
    tell(&mut lead, Observed::Moving, Observed::Running);
    assert!(is_moving(&lead), "both may have it: neither is told to do anything");
}

#[test]
fn a_move_ends_at_its_target_once_its_source_has_let_go() {
    let mut lead = sent();
    tell(&mut lead, Observed::Stopped, Observed::Unknown { why: "not probed since".into() });
    assert!(is_moving(&lead));
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.proposals(), [lead.log.assign("b", 1)]);
}

#[test]
fn a_failed_move_is_called_off_and_ends_at_its_source_on_a_fresh_look() {
    let mut lead = sent();
    tell(&mut lead, broke(), Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::CallOff { .. }]));
    assert_eq!(lead.proposals(), [], "the source may not know yet");
    lead.hear_that("a", Observed::Moving);
    lead.hear_that("b", Observed::Stopped);
    assert!(is_moving(&lead), "it had begun another one");
    lead.hear_that("a", Observed::Running);
    assert_eq!(
        lead.obey(),
        [Command::Go { resource: crate::fixture::web(), generation: lead.log.web().generation - 1 }]
    );
    lead.hear_that("a", Observed::Running);
    assert_eq!(lead.proposals(), [], "what b saw before that proves nothing");
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(
        lead.obey(),
        [Command::Assign {
            resource: crate::fixture::web(),
            generation: lead.log.web().generation - 1,
            to: member("a"),
            incarnation: 1,
        }]
    );
    assert_eq!(lead.log.phase(), &Phase::Placed { node: member("a") });
    assert!(!lead.log.web().held);
}

#[test]
fn a_move_that_was_called_off_too_late_ends_at_its_target() {
    let mut lead = sent();
    tell(&mut lead, Observed::Unknown { why: "it is paused".into() }, Observed::Stopped);
    lead.obey();
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    lead.obey();
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.proposals(), [lead.log.assign("b", 1)]);
}

#[test]
fn a_move_of_what_shall_not_run_any_more_is_called_off() {
    let mut lead = sent();
    lead.log.must(Log::set_web(Requested::Stopped));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert!(matches!(lead.proposals().as_slice(), [Command::CallOff { .. }]));
}

#[test]
fn a_move_to_a_node_that_is_about_to_go_is_called_off() {
    let mut lead = moving();
    lead.log.must(Log::leave("b", crate::report::Leave::PowerOff));
    let applied = lead.log.state.applied;
    let leaves = |seen| {
        let mut report = report(applied, Some(seen));
        report.leaving = Some(crate::report::Leave::PowerOff);
        report
    };
    lead.hear_that("a", Observed::Running);
    lead.hear("b", leaves(Observed::Stopped));
    assert!(matches!(lead.proposals().as_slice(), [Command::CallOff { .. }]), "and b hasn't left before that");
}

#[test]
fn either_end_that_is_lost_is_fenced_and_waited_for() {
    for (lost, other) in [("a", "b"), ("b", "a")] {
        let mut lead = sent();
        tell(&mut lead, Observed::Moving, Observed::Stopped);
        lead.pass(ms(6_000));
        lead.hear_that(other, if other == "a" { broke() } else { Observed::Running });
        let fenced = lead.proposals();
        assert!(
            matches!(fenced.first(), Some(Command::FenceWanted { node, .. }) if *node == member(lost)),
            "{lost}: {fenced:?}"
        );
        assert_eq!(assigned_to(&fenced), None, "{lost} may have it");
        lead.log.must(Log::fence(lost, 1));
        assert_eq!(lead.proposals(), [], "without evidence nothing is decided");
        assert!(matches!(lead.why(), Why::WaitingForFence { .. }));
    }
}
