//! Live moves of which the target has a part to do.

use super::*;

/// `web` has moved from b to a, as far as b's part goes.
fn arriving() -> Log {
    let mut log = Log::agent_sent(Rules::ALL, "b", "a");
    log.must(log.arrive(1));
    log
}

/// a runs `web`, and its part of the move to b is under way.
fn sending() -> (Machine, OperationId) {
    let mut a = Machine::running(Log::agent(Rules::ALL, "a"));
    a.log.must(a.log.migrate("b", 1));
    a.look();
    a.log.must(a.log.go());
    let operation = a.begun(OperationKind::Migrate);
    (a, operation)
}

/// a has sent it.
fn sent() -> Machine {
    let (mut a, operation) = sending();
    a.end(operation, Outcome::Done);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    a
}

/// The watchdog was released while nothing was to run here, and is armed for what comes.
fn rearm(a: &mut Machine) {
    if a.took(&Action::Disarm) {
        a.event(Event::Disarmed(Ok(())));
    }
    a.look();
    a.answer_arming();
}

#[test]
fn what_a_move_has_brought_is_received_and_not_started() {
    let mut a = Machine::leased(arriving());
    assert_eq!(a.find(OperationKind::Start), None);
    let operation = a.begun(OperationKind::Receive);
    assert_eq!(a.observed(), Observed::Starting, "the probe comes after it");
    a.end(operation, Outcome::Done);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::Running);
    a.keep();
    assert_eq!(a.find(OperationKind::Receive), None, "once");
}

#[test]
fn what_runs_here_already_is_received_before_it_counts_as_running() {
    let mut a = Machine::found(arriving(), Found::Running);
    assert_eq!(a.observed(), Observed::Starting);
    assert_eq!(a.find(OperationKind::Receive), None, "the watchdog isn't armed yet");
    a.answer_arming();
    let operation = a.begun(OperationKind::Receive);
    a.end(operation, failed("it complains"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    assert_eq!(a.observed(), Observed::Running, "an exit code says nothing of what runs");
}

#[test]
fn what_cant_be_received_is_started_anew() {
    let mut a = Machine::leased(arriving());
    let operation = a.begun(OperationKind::Receive);
    a.end(operation, failed("nothing came"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    a.begun(OperationKind::Start);
}

#[test]
fn nothing_is_received_without_a_lease_and_what_is_under_way_is_cancelled_at_its_end() {
    let a = Machine::probed(arriving(), Found::Stopped);
    assert_eq!(a.find(OperationKind::Receive), None);
    let mut a = Machine::leased(arriving());
    let operation = a.begun(OperationKind::Receive);
    a.pass(ms(5_000));
    assert!(a.took(&Action::Cancel(operation)));
}

#[test]
fn what_shall_stop_before_it_was_received_isnt_received_later() {
    let mut a = Machine::found(arriving(), Found::Running);
    a.log.must(Log::set_web(Requested::Stopped));
    a.answer_arming();
    a.begun(OperationKind::Stop);
    a.stopped(Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
    a.log.must(Log::set_web(Requested::Started));
    a.log.must(a.log.go());
    rearm(&mut a);
    a.begun(OperationKind::Start);
}

#[test]
fn a_source_says_that_it_has_sent_and_stops_once_the_target_has_settled() {
    let mut a = sent();
    assert_eq!(a.observed(), Observed::Sent);
    a.log.must(a.log.arrive(1));
    a.look();
    a.keep();
    assert_eq!(a.find(OperationKind::Stop), None, "the target isn't done");
    a.log.must(a.log.go());
    let stop = a.begun(OperationKind::Stop);
    assert_eq!(a.observed(), Observed::Stopping);
    a.end(stop, Outcome::Done);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
    a.keep();
    assert_eq!(a.find(OperationKind::Stop), None, "once");
}

#[test]
fn a_source_that_gets_it_back_tidies_nothing() {
    let mut a = sent();
    a.log.must(a.log.arrive(1));
    a.look();
    a.log.must(a.log.go());
    a.log.must(a.log.release(Some("a"), MoveReason::Asked));
    a.log.must(a.log.assign("a", 1));
    a.look();
    a.keep();
    assert_eq!(a.find(OperationKind::Stop), None);
    rearm(&mut a);
    a.begun(OperationKind::Start);
}

#[test]
fn a_move_that_failed_and_left_it_stopped_has_sent_nothing() {
    let (mut a, operation) = sending();
    a.end(operation, failed("it broke"));
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Stopped);
    assert_eq!(a.observed(), Observed::Stopped);
}
