//! Agents and machines that go on purpose, and what comes after them.

use super::*;
use crate::command::Setting;
use crate::report::Leave;
use crate::state::{DisarmMode, ShutdownPolicy};

/// a runs `web` and has said how it goes, and the cluster has agreed.
fn going(how: Leave, policy: ShutdownPolicy) -> Machine {
    let mut log = placed();
    log.must(Command::Set(Setting::Shutdown(policy)));
    let mut a = Machine::running(log);
    a.event(Event::Leaving(how));
    a.log.must(Log::leave("a", how));
    a.look();
    a
}

/// Another start of the agent on a, after one that said that it restarts; its watchdog is off.
fn next(boot: &str) -> Machine {
    let mut log = placed();
    log.must(Log::leave("a", Leave::AgentRestart));
    let config = NodeConfig { incarnation: 2, boot: boot.into(), ..Machine::config(&log) };
    let mut a = Machine::start(log, config);
    a.event(Event::LeftoversKilled);
    let probe = a.begun(OperationKind::Probe);
    a.probe(probe, Found::Running);
    a
}

#[test]
fn who_goes_says_so_at_once() {
    let mut a = Machine::running(placed());
    a.event(Event::Leaving(Leave::Reboot));
    assert_eq!(a.renewals.last().map(|(renew, _)| renew.report.leaving), Some(Some(Leave::Reboot)));
}

#[test]
fn nobody_goes_before_the_cluster_has_agreed() {
    let mut a = Machine::running(placed());
    a.event(Event::Leaving(Leave::AgentRestart));
    assert!(!a.took(&Action::Disarm));
    assert!(!a.took(&Action::MayGo));
}

#[test]
fn an_agent_that_restarts_leaves_everything_running_and_goes_when_nothing_is_armed() {
    let mut a = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    assert!(!a.took(&Action::MayGo));
    assert!(a.took(&Action::Disarm));
    a.event(Event::Disarmed(Ok(())));
    assert!(a.took(&Action::MayGo));
    a.pass(ms(9_000));
    assert_eq!(a.find(OperationKind::Stop), None, "not even without a lease");
    assert!(!a.took(&Action::MayGo), "once");
}

#[test]
fn the_next_agent_stops_nothing_before_it_has_a_lease() {
    let mut a = next("boot-a1");
    a.pass(ms(9_000));
    assert_eq!(a.find(OperationKind::Stop), None, "not admitted yet");
    a.log.must(Log::admit("a", 2, "boot-a1", 0));
    a.look();
    assert_eq!(a.find(OperationKind::Stop), None, "admitted, and its first lease is on its way");
    a.grant(3, a.log.state.applied);
    assert!(a.took(&Action::Arm));
    a.event(Event::Armed(Ok(())));
    a.look();
    assert_eq!(a.find(OperationKind::Stop), None);
    assert!(a.node.report(&a.log.state).armed);
}

#[test]
fn the_next_agent_is_bound_from_its_first_lease_on() {
    let mut a = next("boot-a1");
    a.log.must(Log::admit("a", 2, "boot-a1", 0));
    a.look();
    a.grant(3, a.log.state.applied);
    a.pass(ms(5_000));
    a.begun(OperationKind::Stop);
}

#[test]
fn an_agent_on_a_new_boot_is_bound_from_the_beginning() {
    let mut a = next("boot-a2");
    a.begun(OperationKind::Stop);
}

#[test]
fn a_machine_that_goes_stops_what_fails_over_and_goes_when_its_life_is_over() {
    let mut a = going(Leave::PowerOff, ShutdownPolicy::Conditional);
    a.stopped(Found::Stopped);
    assert!(a.node.report(&a.log.state).runs_nothing());
    a.keep();
    assert_eq!(a.find(OperationKind::Start), None);
    assert!(!a.took(&Action::MayGo), "the cluster doesn't know yet");
    a.log.must(a.log.left("a"));
    a.look();
    assert!(!a.took(&Action::MayGo), "its watchdog would reset it on the way down");
    assert!(a.took(&Action::Disarm));
    a.event(Event::Disarmed(Ok(())));
    assert!(a.took(&Action::MayGo));
    assert!(!a.took(&Action::StartAnew), "its life ended because it goes");
}

#[test]
fn a_machine_of_a_disarmed_cluster_goes_at_once_and_its_agent_stops_nothing() {
    for policy in ShutdownPolicy::ALL {
        let mut log = placed();
        log.must(Command::Set(Setting::Shutdown(policy)));
        let mut a = Machine::running(log);
        a.log.disarm(DisarmMode::Freeze);
        a.look();
        assert!(a.took(&Action::Disarm));
        a.event(Event::Leaving(Leave::PowerOff));
        assert!(!a.took(&Action::MayGo), "the cluster doesn't know yet");
        a.log.must(Log::leave("a", Leave::PowerOff));
        a.look();
        assert!(!a.took(&Action::MayGo), "its watchdog would reset it on the way down");
        a.event(Event::Disarmed(Ok(())));
        assert!(a.took(&Action::MayGo), "{policy:?}: else it waits for what nobody stops");
        assert_eq!(a.find(OperationKind::Stop), None);
        assert!(a.log.state.life(&member("a")).is_some(), "what runs there is still its own");
    }
}

#[test]
fn what_moves_away_first_runs_on_until_it_does() {
    let mut a = going(Leave::PowerOff, ShutdownPolicy::Migrate);
    a.keep();
    assert_eq!(a.find(OperationKind::Stop), None);
}

#[test]
fn who_goes_restarts_nothing_that_died_meanwhile() {
    let mut a = going(Leave::PowerOff, ShutdownPolicy::Migrate);
    a.monitor(Found::Stopped);
    a.look();
    assert!(a.node.report(&a.log.state).runs_nothing());
    assert_eq!(a.find(OperationKind::Start), None, "it may have been told to be nowhere already");
}
