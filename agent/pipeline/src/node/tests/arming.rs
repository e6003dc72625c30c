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
