//! Disarming, arming, and what the log holds of it.

use super::*;
use crate::command::Setting;
use crate::state::{Arming, DisarmMode, FewerVotes};

fn disarmed(mode: DisarmMode) -> Log {
    let mut log = placed();
    log.disarm(mode);
    log
}

fn since(log: &Log) -> u64 {
    match log.state.settings.arming {
        Arming::Arming { since, .. } => since,
        Arming::Armed | Arming::Disarming { .. } | Arming::Disarmed { .. } => panic!("it is not being armed"),
    }
}

#[test]
fn disarming_waits_for_moves_recoveries_and_fences() {
    let disarming = |mut log: Log| {
        log.must(Command::Disarm { mode: DisarmMode::Freeze });
        log
    };
    let mut moving = placed();
    moving.must(moving.release(Some("b"), MoveReason::Failed { why: "it died".into() }));
    let mut fencing = placed();
    fencing.must(Log::fence("a", 1));
    let mut recovering = placed();
    recovering.must(Log::fence("a", 1));
    recovering.must(Log::fenced(1));
    recovering.must(Log::closed(1));
    for log in [moving, fencing, recovering, Log::moving(Rules::ALL, "a", "b")] {
        assert_eq!(disarming(log).void(Command::Disarmed), Void::Outdated);
    }
    disarming(placed()).must(Command::Disarmed);
}

#[test]
fn a_planned_move_that_has_not_ended_is_dropped() {
    let mut log = placed();
    log.must(log.release(Some("b"), MoveReason::Asked));
    log.must(Command::Disarm { mode: DisarmMode::Freeze });
    assert_eq!(log.phase(), &Phase::Placed { node: member("a") });
    log.must(Command::Disarmed);
}

#[test]
fn nobodys_promise_holds_while_the_cluster_is_disarmed() {
    let mut log = disarmed(DisarmMode::Freeze);
    assert!(log.unbound("a").is_some() && log.unbound("b").is_some());
    log.must(Log::admit("a", 2, "boot-a2", 0));
    let since = log.unbound("a").expect("not even a new boot's");
    let bind = Command::Bind { node: member("a"), incarnation: 2, since };
    assert_eq!(log.void(bind), Void::Outdated);
}

#[test]
fn a_promise_is_kept_again_only_after_the_last_arming() {
    let mut log = disarmed(DisarmMode::Freeze);
    let before = log.unbound("a").unwrap();
    log.must(Command::Arm);
    let bind = |since| Command::Bind { node: member("a"), incarnation: 1, since };
    assert_eq!(log.void(bind(before)), Void::Outdated);
    log.must(bind(since(&log)));
    log.must(Command::ArmingFailed { since: since(&log), why: "b can't".into() });
    assert!(log.unbound("a").is_some(), "all disarm again");
}

#[test]
fn only_the_last_arming_succeeds_or_fails() {
    let mut log = disarmed(DisarmMode::Freeze);
    log.must(Command::Arm);
    let first = since(&log);
    log.must(Command::ArmingFailed { since: first, why: "b can't".into() });
    log.must(Command::Arm);
    assert_eq!(log.void(Command::Armed { since: first }), Void::Outdated);
    assert_eq!(log.void(Command::ArmingFailed { since: first, why: "late".into() }), Void::Outdated);
    log.must(Command::Armed { since: since(&log) });
    assert_eq!(log.state.settings.arming, Arming::Armed);
}

#[test]
fn a_frozen_cluster_keeps_its_places_and_one_that_ignores_looks_everywhere_again() {
    let mut log = disarmed(DisarmMode::Freeze);
    log.must(Command::Arm);
    assert_eq!(log.phase(), &Phase::Placed { node: member("a") });
    let mut log = disarmed(DisarmMode::Ignore);
    assert_eq!(log.phase(), &Phase::Ignored);
    log.must(Command::Arm);
    assert_eq!(log.phase(), &Phase::New);
    log.must(Command::ArmingFailed { since: since(&log), why: "b can't".into() });
    assert_eq!(log.phase(), &Phase::Ignored);
}

#[test]
fn arming_brings_nothing_back_that_an_operator_ignores() {
    let mut log = placed();
    log.must(Log::set_web(Requested::Ignored));
    log.disarm(DisarmMode::Ignore);
    log.must(Command::Arm);
    assert_eq!(log.phase(), &Phase::Ignored);
}

#[test]
fn arming_in_mid_disarming_changes_nothing() {
    let mut log = placed();
    log.must(Command::Disarm { mode: DisarmMode::Ignore });
    log.must(Command::Arm);
    assert_eq!((log.state.settings.arming, log.unbound("a")), (Arming::Armed, None));
    assert!(matches!(log.void(Command::Arm), Void::Arming { .. }));
}

#[test]
fn no_clock_however_wrong_breaks_the_bound_of_fewer_votes() {
    let mut log = placed();
    let fewer = FewerVotes { without: BTreeSet::from([member("a")]), until_ms: u64::MAX };
    let command = Command::Set(Setting::FewerVotes(Some(fewer)));
    let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: u64::MAX - 1, command };
    let index = log.state.applied + 1;
    assert_eq!(log.state.apply(index, entry), Ok(()), "it ends a millisecond later");
}

#[test]
fn an_error_ends_only_when_it_is_disabled() {
    let mut log = placed();
    log.must(log.give_up());
    for requested in [Requested::Started, Requested::Stopped] {
        assert!(matches!(log.void(Log::set_web(requested)), Void::InError { .. }));
    }
    log.must(Log::set_web(Requested::Disabled));
    assert_eq!(log.phase(), &Phase::Placed { node: member("a") });
}

#[test]
fn what_is_disabled_stays_with_its_fenced_node_until_it_is_wanted_again() {
    let mut log = placed();
    log.must(Log::set_web(Requested::Disabled));
    log.must(Log::fence("a", 1));
    log.must(Log::fenced(1));
    assert_eq!(log.phase(), &Phase::Placed { node: member("a") });
    log.must(Log::set_web(Requested::Started));
    assert_eq!(log.phase(), &Phase::Free { from: member("a") });
}

#[test]
fn a_fence_takes_locks_off_and_ends_what_is_unprotected() {
    let mut log = placed();
    let mut spec = spec();
    spec.class = crate::resource::Class::Unprotected;
    log.must(Command::SetResource { name: web(), spec: Some(spec), requested: Requested::Started });
    log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
    log.must(Log::fence("a", 1));
    log.must(Log::fenced(1));
    assert_eq!((log.web().locked.as_ref(), log.web().requested), (None, Requested::Stopped));
}
