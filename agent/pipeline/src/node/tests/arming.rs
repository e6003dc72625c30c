//! A cluster that doesn't act, and what it takes to act again.

use super::*;
use crate::state::DisarmMode;

fn disarmed(mode: DisarmMode) -> Machine {
    let mut a = Machine::running(placed());
    a.log.disarm(mode);
    a.look();
    a
}

#[test]
fn a_disarmed_node_releases_its_watchdog_though_it_runs_something() {
    for mode in [DisarmMode::Freeze, DisarmMode::Ignore] {
        assert!(disarmed(mode).took(&Action::Disarm));
    }
}

#[test]
fn a_disarmed_node_stops_and_starts_nothing() {
    let mut a = disarmed(DisarmMode::Freeze);
    a.event(Event::Disarmed(Ok(())));
    a.pass(ms(9_000));
    assert!(a.open.is_empty(), "its lease is over: {:?}", a.open);
    a.monitor(Found::Stopped);
    a.keep();
    assert!(a.open.values().all(|(_, kind, _)| *kind == OperationKind::Probe), "{:?}", a.open);
}

#[test]
fn who_never_learnt_of_the_disarming_keeps_its_promise() {
    let mut a = Machine::running(placed());
    a.pass(ms(5_000));
    a.begun(OperationKind::Stop);
    assert!(!a.took(&Action::Disarm));
}

#[test]
fn a_node_arms_what_runs_when_the_cluster_is_armed_again() {
    let mut a = disarmed(DisarmMode::Freeze);
    a.event(Event::Disarmed(Ok(())));
    a.keep();
    a.log.must(Command::Arm);
    a.look();
    assert!(a.took(&Action::Arm));
    assert!(!a.node.report(&a.log.state).armed);
    a.event(Event::Armed(Ok(())));
    assert!(a.node.report(&a.log.state).armed);
    assert_eq!(a.find(OperationKind::Stop), None);
}

#[test]
fn an_arming_that_was_called_off_before_a_node_heard_of_it_stops_nothing_there() {
    let mut a = disarmed(DisarmMode::Freeze);
    a.event(Event::Disarmed(Ok(())));
    a.pass(ms(9_000));
    // The link is back: it goes through everything that it has missed, before its first lease.
    a.log.must(Command::Arm);
    a.look();
    let since = a.log.state.applied;
    a.log.must(Command::ArmingFailed { since, why: "a is not heard".into() });
    a.look();
    assert!(a.open.is_empty(), "{:?}", a.open);
}

#[test]
fn a_node_that_may_have_told_of_its_armed_watchdog_is_bound_by_it() {
    let mut a = disarmed(DisarmMode::Freeze);
    a.event(Event::Disarmed(Ok(())));
    a.keep();
    a.log.must(Command::Arm);
    a.look();
    a.answer_arming();
    // Its promise may count again, and it doesn't know yet.
    a.pass(ms(5_000));
    a.begun(OperationKind::Stop);
}

#[test]
fn after_forgetting_everything_is_looked_at_anew_and_guarded_where_it_runs() {
    let mut a = disarmed(DisarmMode::Ignore);
    a.event(Event::Disarmed(Ok(())));
    a.keep();
    a.log.must(Command::Arm);
    let probe = a.begun(OperationKind::Probe);
    assert!(!a.took(&Action::Arm), "nobody knows yet that it runs here");
    a.probe(probe, Found::Running);
    assert!(a.took(&Action::Arm));
}

#[test]
fn what_cant_be_told_is_guarded_like_what_runs() {
    let mut a = Machine::found(elsewhere(), unknown());
    a.look();
    assert!(a.took(&Action::Arm));
}

#[test]
fn a_watchdog_that_is_being_disarmed_is_reported_as_off() {
    let a = disarmed(DisarmMode::Freeze);
    assert!(!a.node.report(&a.log.state).armed);
}
