//! Nodes that go and say so.

use super::*;
use crate::command::Setting;
use crate::fence::Evidence;
use crate::report::Leave;
use crate::state::ShutdownPolicy;

const POWER: Leave = Leave::PowerOff;

/// `web` is on a, which is about to go.
fn going(how: Leave, policy: ShutdownPolicy) -> Log {
    let mut log = placed();
    log.must(Command::Set(Setting::Shutdown(policy)));
    log.must(Log::leave("a", how));
    log
}

fn gone(how: Leave, policy: ShutdownPolicy) -> Log {
    let mut log = going(how, policy);
    log.must(log.left("a"));
    log
}

fn bind(node: &str, incarnation: u64, since: u64) -> Command {
    Command::Bind { node: member(node), incarnation, since }
}

#[test]
fn who_has_left_has_no_life_and_what_is_placed_there_waits() {
    for (how, policy) in [
        (POWER, ShutdownPolicy::Conditional),
        (Leave::Reboot, ShutdownPolicy::Conditional),
        (POWER, ShutdownPolicy::Freeze),
        (Leave::Reboot, ShutdownPolicy::Failover),
        (POWER, ShutdownPolicy::Migrate),
    ] {
        let mut log = gone(how, policy);
        assert!(log.state.life(&member("a")).is_none());
        assert_eq!(log.phase(), &Phase::Placed { node: member("a") }, "{how:?}, {policy:?}");
        log.must(log.release(None, MoveReason::Shutdown));
        assert_eq!(log.phase(), &Phase::Free { from: member("a") }, "there is nobody to wait for");
    }
}

#[test]
fn left_rests_on_this_very_going_of_this_very_life() {
    let mut log = going(POWER, ShutdownPolicy::Conditional);
    let late = log.left("a");
    log.must(Log::leave("a", Leave::Reboot));
    assert_eq!(log.void(late), Void::Outdated, "it changed its mind");
    let late = log.left("a");
    log.must(Log::admit("a", 2, "boot-a2", 0));
    assert_eq!(log.void(late), Void::Outdated, "it is back");
    assert!(log.state.nodes[&member("a")].leaving.is_none());
}

#[test]
fn an_agent_that_restarts_never_leaves() {
    let mut log = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    assert_eq!(log.void(log.left("a")), Void::Outdated, "what runs goes on running");
}

#[test]
fn nobody_goes_from_an_open_fence_nor_leaves_into_one() {
    let mut log = going(POWER, ShutdownPolicy::Conditional);
    log.must(Log::fence("a", 1));
    assert!(matches!(log.void(log.left("a")), Void::FenceOpen { .. }));
    assert!(matches!(log.void(Log::leave("a", Leave::AgentRestart)), Void::FenceOpen { .. }));
}

#[test]
fn a_leaving_that_commits_after_the_next_life_is_void() {
    let mut log = placed();
    log.must(Log::admit("a", 2, "boot-a1", 0));
    assert_eq!(log.void(Log::leave("a", Leave::AgentRestart)), Void::Outdated);
    assert_eq!(log.unbound("a"), None);
}

#[test]
fn nothing_new_is_put_on_a_node_that_goes() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    log.must(Log::leave("a", POWER));
    assert_eq!(log.void(log.assign("a", 1)), Void::Outdated);
    log.must(log.assign("b", 1));
}

#[test]
fn what_arrives_on_a_node_that_goes_is_there() {
    let mut log = Log::moving(Rules::ALL, "a", "b");
    log.must(log.go());
    log.must(Log::leave("b", POWER));
    assert_eq!(log.void(log.left("b")), Void::Outdated, "its word may be from before the arrival");
    log.must(log.assign("b", 1));
    log.must(log.left("b"));
    assert_eq!(log.phase(), &Phase::Placed { node: member("b") });
}

#[test]
fn an_agents_restart_suspends_the_promise_until_it_is_kept_again() {
    let mut log = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    let since = log.unbound("a").unwrap();
    assert_eq!(log.void(bind("a", 1, since)), Void::Outdated, "it is still about to go");
    log.must(Log::admit("a", 2, "boot-a1", 0));
    let again = log.unbound("a").expect("the next life on this boot has shown nothing yet");
    assert_eq!(log.void(bind("a", 2, since)), Void::Outdated, "that was another suspension");
    assert_eq!(log.void(bind("a", 1, again)), Void::Outdated, "that was another life");
    log.must(bind("a", 2, again));
    assert_eq!(log.unbound("a"), None);
}

#[test]
fn on_a_new_boot_the_promise_holds_again() {
    let mut log = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    log.must(Log::admit("a", 2, "boot-a2", 0));
    assert_eq!(log.unbound("a"), None);
}

#[test]
fn another_way_of_going_doesnt_restore_the_promise() {
    let mut log = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    log.must(Log::leave("a", POWER));
    assert!(log.unbound("a").is_some());
}

#[test]
fn the_watchdogs_time_of_a_suspended_life_is_no_evidence_whoever_says_so() {
    let mut log = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    log.must(Log::fence("a", 1));
    let by = |evidence| Command::Fenced { id: FenceId(1), evidence };
    assert_eq!(log.void(by(Evidence::WatchdogTime { waited_ms: 1 })), Void::Outdated);
    log.must(by(Evidence::BmcOff { device: "bmc".into() }));
}
