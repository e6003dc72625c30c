//! What is set to started is held where it is placed until the manager has looked.

use super::*;

/// Stopped and started again by an operator.
fn start_anew(log: &mut Log) {
    log.must(Log::set_web(Requested::Stopped));
    log.must(Log::set_web(Requested::Started));
}

#[test]
fn what_is_set_to_started_is_held_until_somebody_has_looked() {
    let mut log = placed();
    log.must(Log::set_web(Requested::Started));
    assert!(!log.web().held, "it was to run already");
    log.must(Log::set_web(Requested::Stopped));
    assert!(!log.web().held);
    log.must(Log::set_web(Requested::Started));
    assert!(log.web().held && log.web().fresh);
    log.must(Log::admit("a", 2, "boot-a1", 0));
    log.must(Log::set_web(Requested::Started));
    assert!(log.web().held && log.web().fresh, "nobody has looked yet, whatever its agent does");
    log.must(log.go());
    assert!(!log.web().held && !log.web().fresh);
    for end in [Requested::Stopped, Requested::Disabled] {
        log.must(Log::set_web(Requested::Stopped));
        log.must(Log::set_web(Requested::Started));
        log.must(Log::set_web(end));
        assert!(!log.web().fresh, "it isn't to start any more");
    }
}

#[test]
fn row_34_a_start_is_held_and_a_dropped_lock_told_only_from_their_level_on() {
    let told = |log: &Log| log.state.log.iter().any(|line| matches!(line.decision, Decision::LockDropped { .. }));
    for (level, known) in [(Level::POWER_CAN_BE_HELD, false), (Level::STARTS_ARE_LOOKED_AT, true)] {
        let mut log = placed();
        log.state.level = level;
        log.must(Log::set_web(Requested::Stopped));
        log.must(Log::set_web(Requested::Started));
        assert_eq!(log.web().held, known);
        log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
        log.must(Log::fence("a", 1));
        log.must(Log::fenced(1));
        assert_eq!((log.web().locked.as_deref(), told(&log)), (None, known));
    }
}

/// It is held, and looked at before it starts.
#[track_caller]
fn is_looked_at(log: &Log, on: &str) {
    assert_eq!(log.phase(), &Phase::Placed { node: member(on) });
    assert!(log.web().held && log.web().fresh, "{:?}", log.web());
}

#[test]
fn what_was_sent_away_from_where_it_may_not_start_is_looked_at_again_where_its_move_is_dropped() {
    let mut log = placed();
    start_anew(&mut log);
    let why = MoveReason::Better { why: "it may not start on a".into() };
    log.must(log.release(Some("b"), why));
    log.must(Command::Disarm { mode: DisarmMode::Freeze });
    is_looked_at(&log, "a");
}

#[test]
fn what_is_stopped_for_a_while_on_its_way_is_looked_at_where_its_move_is_dropped() {
    let mut log = placed();
    log.must(log.release(Some("b"), MoveReason::Asked));
    start_anew(&mut log);
    log.must(Command::Disarm { mode: DisarmMode::Freeze });
    is_looked_at(&log, "a");

    let mut other = placed();
    other.must(other.release(Some("b"), MoveReason::Asked));
    other.must(Command::Disarm { mode: DisarmMode::Freeze });
    assert!(!other.web().held, "what was not stopped goes on where it was");

    let mut there = placed();
    there.must(there.release(Some("b"), MoveReason::Asked));
    start_anew(&mut there);
    there.must(there.assign("b", 1));
    assert!(!there.web().held && !there.web().fresh, "its new node was chosen after that");
}

#[test]
fn what_is_stopped_for_a_while_in_a_live_move_is_looked_at_where_that_ends() {
    for end in ["a", "b"] {
        let mut log = Log::live(Rules::ALL);
        log.must(log.migrate("b", 1));
        log.must(log.go());
        start_anew(&mut log);
        assert!(!log.web().held, "the move goes on");
        log.must(log.assign(end, 1));
        is_looked_at(&log, end);
    }
    for (dies, end) in [("a", "b"), ("b", "a")] {
        let mut log = Log::live(Rules::ALL);
        log.must(log.migrate("b", 1));
        log.must(log.go());
        start_anew(&mut log);
        log.must(Log::fence(dies, 1));
        log.must(Log::fenced(1));
        is_looked_at(&log, end);
    }
}

#[test]
fn what_has_come_live_with_a_part_left_to_do_is_not_held_up_there() {
    let mut log = Log::agent_sent(Rules::ALL, "a", "b");
    start_anew(&mut log);
    log.must(log.arrive(1));
    assert!(!log.web().held && log.web().arriving.is_some());
}
