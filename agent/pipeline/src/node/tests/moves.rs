//! Live moves, at both ends.

use super::*;

/// a runs `web` and is about to send it to b.
fn sending() -> Machine {
    let mut a = Machine::running(Log::live(Rules::ALL));
    a.log.must(a.log.migrate("b", 1));
    a.look();
    a
}

/// The same, under way.
fn sent() -> (Machine, OperationId) {
    let mut a = sending();
    a.log.must(a.log.go());
    let operation = a.begun(OperationKind::Migrate);
    (a, operation)
}

/// a has a lease, and `web` may come to it from b.
fn receiving() -> Machine {
    let mut a = Machine::leased(Log::moving(Rules::ALL, "b", "a"));
    a.look();
    a
}

fn call_off(log: &mut Log) {
    let generation = log.web().generation;
    log.must(Command::CallOff { resource: web(), generation, why: "it failed".into() });
}

#[test]
fn nothing_is_sent_before_the_target_is_known_to_be_guarded() {
    let mut a = sending();
    assert_eq!(a.find(OperationKind::Migrate), None);
    a.log.must(a.log.go());
    a.begun(OperationKind::Migrate);
}

#[test]
fn the_target_arms_for_what_comes() {
    let mut a = Machine::probed(Log::moving(Rules::ALL, "b", "a"), Found::Stopped);
    a.grant(3, a.log.state.applied);
    assert!(a.took(&Action::Arm));
    assert_eq!(a.find(OperationKind::Start), None, "it comes, it isn't started");
}

#[test]
fn what_came_is_left_alone_before_it_is_placed() {
    let mut a = receiving();
    a.log.must(a.log.go());
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    a.look();
    assert!(a.open.is_empty());
    assert_eq!(a.observed(), Observed::Running);
}

#[test]
fn a_move_counts_as_running_until_the_probe_after_it() {
    let (mut a, operation) = sent();
    assert_eq!(a.observed(), Observed::Moving);
    a.end(operation, Outcome::Done);
    assert_eq!(a.observed(), Observed::Moving, "an exit code says nothing of what runs");
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert_eq!(a.observed(), Observed::Sent);
    assert_eq!(a.find(OperationKind::Start), None, "it left, it didn't die");
}

#[test]
fn a_move_that_failed_is_said_and_not_repeated_by_itself() {
    let (mut a, operation) = sent();
    a.end(operation, failed("the link broke"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::MoveFailed { why: "the link broke".into() });
    a.keep();
    assert_eq!(a.find(OperationKind::Migrate), None);
}

#[test]
fn a_move_that_is_called_off_isnt_begun_and_one_under_way_is_awaited() {
    let mut a = sending();
    call_off(&mut a.log);
    a.log.must(a.log.go());
    a.look();
    assert_eq!(a.find(OperationKind::Migrate), None);

    let (mut a, _) = sent();
    call_off(&mut a.log);
    a.look();
    assert_eq!(a.observed(), Observed::Moving);
}

#[test]
fn a_move_whose_target_was_fenced_says_nothing_of_the_decision_after_it() {
    let (mut a, operation) = sent();
    a.log.must(Log::fence("b", 1));
    a.log.must(Log::fenced(1));
    assert_eq!(*a.log.phase(), Phase::Placed { node: member("a") });
    a.look();
    a.end(operation, failed("the other side is gone"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::Running, "what comes after it in the order waits for nothing");
}

#[test]
fn nothing_is_sent_to_a_node_that_is_being_fenced() {
    let mut a = sending();
    a.log.must(a.log.go());
    a.log.must(Log::fence("b", 1));
    a.look();
    assert_eq!(a.find(OperationKind::Migrate), None, "its machine may be up again with a watchdog that isn't armed");
}

#[test]
fn at_the_leases_end_a_move_is_cancelled() {
    let (mut a, operation) = sent();
    a.pass(ms(5_000));
    assert!(a.took(&Action::Cancel(operation)));
}

#[test]
fn every_step_of_a_move_asks_its_target_for_a_fresh_look() {
    let mut a = receiving();
    assert_eq!(a.observed(), Observed::Stopped);
    a.log.must(a.log.go());
    a.look();
    let old = a.begun(OperationKind::Probe);
    assert!(matches!(a.observed(), Observed::Unknown { .. }));
    call_off(&mut a.log);
    a.look();
    a.probe(old, Found::Stopped);
    assert!(matches!(a.observed(), Observed::Unknown { .. }), "that probe began before the move was called off");
    let new = a.begun(OperationKind::Probe);
    a.probe(new, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}

#[test]
fn a_probe_from_before_a_resource_was_managed_again_counts_for_nothing() {
    let mut a = Machine::ready(placed());
    let old = a.begun(OperationKind::Probe);
    a.log.must(Log::set_web(Requested::Ignored));
    a.log.must(Log::set_web(Requested::Started));
    a.look();
    a.probe(old, Found::Stopped);
    assert!(matches!(a.observed(), Observed::Unknown { .. }));
    let new = a.begun(OperationKind::Probe);
    a.probe(new, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}

#[test]
fn who_may_get_something_stays_guarded_behind_the_log_and_without_a_lease() {
    let mut a = receiving();
    a.pass(ms(500));
    a.grant(3, a.log.state.applied + 1);
    assert!(!a.took(&Action::Disarm), "what was decided meanwhile changes nothing of what may come");
    a.pass(ms(6_000));
    assert!(!a.took(&Action::Disarm));
    assert!(a.node.report(&a.log.state).armed);
}
