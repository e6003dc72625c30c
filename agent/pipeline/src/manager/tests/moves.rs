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

#[test]
fn a_target_that_cant_arm_its_watchdog_ends_the_move_with_its_reason() {
    let mut lead = moving();
    lead.hear_that("a", Observed::Running);
    let mut stuck = unarmed(&lead, Observed::Stopped);
    stuck.trouble = Some("the device is taken".into());
    lead.hear("b", stuck);
    let why = called_off(&lead.obey());
    assert!(why.contains("the watchdog of b can't be armed: the device is taken"), "{why}");
    end_at_a(&mut lead);
    assert_eq!(lead.log.web().moves_failed.as_ref().map(|failed| failed.why.clone()), Some(why));
}

#[test]
fn a_target_that_never_says_whether_it_arms_is_waited_for_half_a_minute() {
    let mut lead = moving();
    for second in 0..30 {
        assert!(is_moving(&lead) || second == 0, "after {second} s");
        lead.hear_that("a", Observed::Running);
        lead.hear("b", unarmed(&lead.clone(), Observed::Stopped));
        lead.look();
        lead.pass(ms(1_000));
    }
    lead.hear_that("a", Observed::Running);
    lead.hear("b", unarmed(&lead.clone(), Observed::Stopped));
    assert!(called_off(&lead.obey()).contains("b has not armed its watchdog within 30 s"));
}

#[track_caller]
fn called_off(commands: &[Command]) -> String {
    match commands {
        [Command::CallOff { why, .. }] => why.clone(),
        other => panic!("it is not called off: {other:?}"),
    }
}

/// A move that was called off ends where it began.
#[track_caller]
fn end_at_a(lead: &mut Lead) {
    for _ in 0..2 {
        tell(lead, Observed::Running, Observed::Stopped);
        lead.obey();
        lead.wall_ms = lead.log.state.newest_ms;
    }
    assert_eq!(lead.log.phase(), &Phase::Placed { node: member("a") });
}

/// `web` moves live away from a, which is in maintenance or goes, and the move fails.
#[track_caller]
fn fail_once(lead: &mut Lead) {
    tell(lead, Observed::Running, Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::Migrate { .. }]), "{}", lead.why());
    tell(lead, Observed::Running, Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::Go { .. }]));
    tell(lead, broke(), Observed::Stopped);
    called_off(&lead.obey());
    end_at_a(lead);
}

fn emptied() -> Lead {
    let mut lead = Lead::new(Log::live(Rules::ALL));
    lead.log.must(Command::SetMaintenance { node: member("a"), on: true });
    lead
}

#[test]
fn a_live_move_that_fails_is_tried_again_after_pauses_that_grow_and_then_given_up() {
    let mut lead = emptied();
    for (times, pause_s) in [(1, 10), (2, 20), (3, 40), (4, 80)] {
        fail_once(&mut lead);
        let over = lead.wall_ms;
        for wait_ms in [0, pause_s * 1_000 - 1] {
            lead.wall_ms = over + wait_ms;
            tell(&mut lead, Observed::Running, Observed::Stopped);
            assert_eq!(lead.proposals(), [], "{times} failed, {wait_ms} ms ago");
            let Why::MoveFailed { times: said, why, again_in_s, .. } = lead.why() else { panic!("{}", lead.why()) };
            assert_eq!((said, why.as_str(), again_in_s.is_some()), (times, "the link broke", true));
        }
        lead.wall_ms = over + pause_s * 1_000;
    }
    fail_once(&mut lead);
    lead.wall_ms += 3_599_000;
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    let said = lead.why().to_string();
    assert!(said.contains("5 time(s)") && said.contains("the link broke") && said.contains("given up"), "{said}");
    let timeline = lead.log.state.log.iter().rev().nth(1).unwrap().decision.to_string();
    assert!(timeline.contains("has failed, 5 in a row") && timeline.contains("isn't tried again"), "{timeline}");
}

#[test]
fn failed_moves_are_forgotten_by_age_by_success_and_by_whoever_asks_again() {
    let given_up = || {
        let mut lead = emptied();
        for _ in 0..5 {
            fail_once(&mut lead);
            lead.wall_ms += 100_000;
        }
        tell(&mut lead, Observed::Running, Observed::Stopped);
        assert_eq!(lead.proposals(), []);
        lead
    };
    let mut old = given_up();
    old.wall_ms += 3_600_000;
    assert!(matches!(old.obey().as_slice(), [Command::Forget { .. }]));
    assert!(matches!(old.proposals().as_slice(), [Command::Migrate { .. }]));

    let mut again = given_up();
    again.log.must(Command::SetMaintenance { node: member("a"), on: false });
    again.log.must(Command::SetMaintenance { node: member("a"), on: true });
    assert!(matches!(again.proposals().as_slice(), [Command::Migrate { .. }]));

    let mut asked = given_up();
    asked.log.must(asked.log.migrate("b", 1));
    asked.log.must(asked.log.go());
    tell(&mut asked, Observed::Stopped, Observed::Running);
    asked.obey();
    assert_eq!(asked.log.web().moves_failed, None);
}

#[test]
fn what_cant_move_live_before_its_node_goes_is_stopped_here_and_started_there() {
    use crate::command::Setting;
    use crate::state::ShutdownPolicy;
    let mut lead = Lead::new(Log::live(Rules::ALL));
    lead.log.must(Command::Set(Setting::Shutdown(ShutdownPolicy::Migrate)));
    lead.log.must(Log::leave("a", crate::report::Leave::PowerOff));
    for _ in 0..5 {
        fail_once(&mut lead);
        lead.wall_ms += 100_000;
    }
    tell(&mut lead, Observed::Running, Observed::Stopped);
    let commands = lead.proposals();
    assert!(
        matches!(commands.as_slice(), [Command::Release { to: Some(to), .. }] if *to == member("b")),
        "{commands:?}"
    );
}

#[test]
fn a_move_by_an_agent_is_finished_at_its_target_before_it_is_over() {
    let mut lead = Lead::new(Log::agent_sent(Rules::ALL, "a", "b"));
    tell(&mut lead, Observed::Moving, Observed::Stopped);
    assert!(is_moving(&lead));
    tell(&mut lead, Observed::Sent, Observed::Stopped);
    assert_eq!(
        lead.obey(),
        [Command::Arrive { generation: lead.log.web().generation - 1, resource: web(), incarnation: 1 }]
    );
    for unfinished in [Observed::Stopped, Observed::Starting] {
        tell(&mut lead, Observed::Stopped, unfinished.clone());
        assert_eq!(lead.proposals(), [], "{unfinished:?}");
        assert!(matches!(lead.why(), Why::AtWork { .. }));
    }
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.obey(), [Command::Go { generation: lead.log.web().generation - 1, resource: web() }]);
    tell(&mut lead, Observed::Stopping, Observed::Running);
    assert_eq!((lead.proposals(), lead.why()), (vec![], Why::Runs));
}

#[test]
fn what_stopped_at_its_source_without_a_move_that_succeeded_is_started_at_its_target() {
    let mut lead = Lead::new(Log::agent_sent(Rules::ALL, "a", "b"));
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(lead.proposals(), [lead.log.assign("b", 1)]);
    // A plain command has done all of it at the source.
    let mut lead = sent();
    tell(&mut lead, Observed::Sent, Observed::Running);
    assert_eq!(lead.proposals(), [lead.log.assign("b", 1)]);
}

#[test]
fn a_move_that_cant_be_finished_ends_as_any_start_that_fails() {
    let mut lead = Lead::new(Log::agent_sent(Rules::ALL, "a", "b"));
    tell(&mut lead, Observed::Sent, Observed::Stopped);
    lead.obey();
    tell(&mut lead, Observed::Stopped, Observed::Failed { why: "it doesn't start".into() });
    assert!(matches!(lead.proposals().as_slice(), [Command::Release { .. }]), "{:?}", lead.proposals());
}

#[test]
fn nothing_is_sent_to_where_a_stop_still_tidies_up() {
    let mut lead = moving();
    tell(&mut lead, Observed::Running, Observed::Stopping);
    assert!(is_moving(&lead));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert_eq!(lead.proposals(), [lead.log.go()]);
}

#[test]
fn disarming_waits_for_the_end_of_a_move() {
    let mut lead = Lead::new(Log::agent_sent(Rules::ALL, "a", "b"));
    tell(&mut lead, Observed::Sent, Observed::Stopped);
    lead.obey();
    lead.log.must(Command::Disarm { mode: crate::state::DisarmMode::Freeze });
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.obey(), [Command::Go { generation: lead.log.web().generation - 1, resource: web() }]);
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.proposals(), [Command::Disarmed]);
}
