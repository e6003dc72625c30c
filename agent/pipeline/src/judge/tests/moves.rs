//! Live moves, as the log knows them.

use super::*;
use crate::fixture::live;
use crate::report::Leave;

fn moving() -> Log {
    Log::moving(Rules::ALL, "a", "b")
}

fn call_off(log: &Log) -> Command {
    Command::CallOff { resource: web(), generation: log.web().generation, why: "it failed".into() }
}

fn placed_on(node: &str) -> Phase {
    Phase::Placed { node: member(node) }
}

#[test]
fn both_ends_own_what_moves_live() {
    let log = moving();
    assert!(["a", "b"].iter().all(|node| log.phase().is_owned_by(&member(node))));
    for node in ["a", "b"] {
        let mut log = log.clone();
        let raft_id = log.state.members[&member(node)].raft_id;
        assert!(matches!(log.void(Command::RemoveMember { name: member(node), raft_id }), Void::StillOwns { .. }));
    }
}

#[test]
fn a_live_move_begins_held() {
    let mut log = moving();
    assert!(log.web().held);
    log.must(log.go());
    assert!(!log.web().held);
    assert_eq!(log.void(log.go()), Void::Outdated, "once");
}

#[test]
fn only_what_runs_and_can_moves_live_and_only_to_a_life_that_stays() {
    let mut log = placed();
    assert!(matches!(log.void(log.migrate("b", 1)), Void::BadSpec { .. }), "it can't");
    let mut log = Log::live(Rules::ALL);
    assert_eq!(log.void(log.migrate("a", 1)), Void::Outdated, "it is there");
    assert_eq!(log.void(log.migrate("b", 2)), Void::Outdated, "another life");
    let mut gone = log.clone();
    gone.must(Log::leave("b", Leave::PowerOff));
    assert_eq!(gone.void(gone.migrate("b", 1)), Void::Outdated, "it is about to go");
    let mut shot = log.clone();
    shot.must(Log::fence("b", 1));
    assert!(matches!(shot.void(shot.migrate("b", 1)), Void::FenceOpen { .. }));
    log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
    assert!(matches!(log.void(log.migrate("b", 1)), Void::Locked { .. }));
    log.must(Command::SetLock { resource: web(), reason: None });
    log.must(Log::set_web(Requested::Stopped));
    assert_eq!(log.void(log.migrate("b", 1)), Void::Outdated, "it shall not run");
}

#[test]
fn a_live_move_ends_at_one_of_its_ends_and_nowhere_else() {
    let mut log = moving();
    log.must(Log::add("c", Role::Node));
    log.must(Log::admit("c", 1, "boot-c1", 0));
    assert_eq!(log.void(log.assign("c", 1)), Void::Outdated);
    assert_eq!(log.void(log.give_up()), Void::Outdated, "two owners don't become one by giving up");
    assert_eq!(log.void(log.release(None, MoveReason::Asked)), Void::Outdated);
    for node in ["a", "b"] {
        let mut log = log.clone();
        log.must(log.assign(node, 1));
        assert_eq!((log.phase(), log.web().held), (&placed_on(node), false));
    }
}

#[test]
fn the_fence_of_one_end_leaves_it_to_the_other_and_the_second_fence_frees_it() {
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut log = moving();
        log.state.apply_voters(log.state.applied + 1, BTreeSet::from([1]));
        log.must(Log::fence(first, 1));
        log.must(Log::fenced(1));
        assert_eq!((log.phase(), log.web().held), (&placed_on(second), false));
        log.must(Log::fence(second, 1));
        log.must(Log::fenced(2));
        assert_eq!(log.phase(), &Phase::Free { from: member(second) });
    }
}

#[test]
fn a_move_is_called_off_once_and_looks_afresh_after_that() {
    let mut log = moving();
    log.must(log.go());
    let late = call_off(&log);
    log.must(call_off(&log));
    assert!(log.web().held);
    assert_eq!(log.void(late), Void::Outdated);
    assert_eq!(log.void(call_off(&log)), Void::Outdated);
    let before = log.web().since;
    log.must(log.go());
    assert!(log.web().since > before, "what was reported before counts no more");
}

#[test]
fn a_new_life_of_the_target_has_to_show_its_guard_anew() {
    let mut log = moving();
    log.must(log.go());
    let go = log.go();
    log.must(Log::admit("b", 2, "boot-b2", 0));
    assert!(log.web().held);
    assert_eq!(log.void(go), Void::Outdated);
    let held = log.web().generation;
    log.must(Log::admit("a", 2, "boot-a1", 0));
    assert_eq!(log.web().generation, held, "its source is another matter");
}

#[test]
fn what_is_ignored_in_mid_move_is_new_afterwards() {
    let mut log = moving();
    log.must(Log::set_web(Requested::Ignored));
    assert_eq!(log.phase(), &Phase::Ignored);
    log.must(Log::set_web(Requested::Started));
    assert_eq!(log.phase(), &Phase::New, "every node is asked");
}

#[test]
fn a_change_in_mid_move_leaves_both_owners() {
    let mut log = moving();
    log.must(Command::SetResource { name: web(), spec: Some(live()), requested: Requested::Stopped });
    assert_eq!(log.phase().second_owner(), Some(&member("b")));
}

/// Its part of the move to b is done at a.
fn arriving() -> Log {
    let mut log = Log::agent_sent(Rules::ALL, "a", "b");
    log.must(log.arrive(1));
    log
}

#[test]
fn what_arrives_belongs_to_its_target_alone_which_has_to_finish_the_move() {
    let mut log = Log::agent(Rules::ALL, "a");
    assert_eq!(log.void(log.arrive(1)), Void::Outdated, "it doesn't move");
    let mut log = Log::agent_sent(Rules::ALL, "a", "b");
    assert_eq!(log.void(log.arrive(2)), Void::Outdated, "another life");
    log.must(log.arrive(1));
    assert_eq!(log.phase(), &placed_on("b"));
    assert!(!log.phase().is_owned_by(&member("a")));
    assert_eq!(log.web().arriving, Some(member("a")));
    assert!(log.state.is_busy(), "nobody disarms meanwhile");
    log.must(log.go());
    assert_eq!((log.phase(), &log.web().arriving), (&placed_on("b"), &None));
    assert!(!log.state.is_busy());
    assert_eq!(log.void(log.go()), Void::Outdated, "once");
}

#[test]
fn what_is_decided_otherwise_meanwhile_arrives_nowhere() {
    let mut set = arriving();
    set.must(Log::set_web(Requested::Stopped));
    let mut released = arriving();
    released.must(released.release(Some("a"), MoveReason::Asked));
    released.must(released.assign("a", 1));
    let mut fenced = arriving();
    fenced.must(Log::fence("b", 1));
    fenced.must(Log::fenced(1));
    for log in [set, released, fenced] {
        assert_eq!(log.web().arriving, None, "{:?}", log.phase());
    }
}
