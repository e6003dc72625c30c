//! Nodes that go and say so.

use super::*;
use crate::command::Setting;
use crate::manager::nodes::RESTART_GRACE;
use crate::report::{Leave, Report};
use crate::resource::Phase;
use crate::state::ShutdownPolicy;

fn says(lead: &Lead, how: Leave, web_is: Observed) -> Report {
    let mut report = report(lead.log.state.applied, Some(web_is));
    report.leaving = Some(how);
    report
}

/// a runs `web` and the cluster has agreed to its going.
fn going(how: Leave, policy: ShutdownPolicy) -> Lead {
    let mut lead = settled();
    lead.log.must(Command::Set(Setting::Shutdown(policy)));
    lead.hear("a", says(&lead.clone(), how, Observed::Running));
    assert_eq!(lead.obey(), [Log::leave("a", how)]);
    lead
}

/// a has gone in good order; b is there.
fn gone(how: Leave, policy: ShutdownPolicy) -> Lead {
    let mut lead = going(how, policy);
    lead.log.must(lead.log.left("a"));
    lead.hear_that("b", Observed::Stopped);
    lead
}

#[test]
fn a_node_has_left_when_it_has_agreed_and_runs_nothing() {
    let mut lead = going(Leave::PowerOff, ShutdownPolicy::Conditional);
    let agreed = lead.log.state.applied;
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Stopping));
    assert_eq!(lead.proposals(), []);
    let mut before = says(&lead, Leave::PowerOff, Observed::Stopped);
    before.applied = agreed - 1;
    lead.hear("a", before);
    assert_eq!(lead.proposals(), [], "it could start something yet");
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Stopped));
    assert_eq!(lead.proposals(), [lead.log.left("a")]);
}

#[test]
fn a_node_hasnt_left_while_something_may_come_to_it() {
    let mut log = Log::moving(Rules::ALL, "b", "a");
    log.must(log.go());
    log.must(Log::leave("a", Leave::PowerOff));
    let mut lead = Lead::new(log);
    lead.hear_that("b", Observed::Moving);
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Stopped));
    assert_eq!(lead.proposals(), []);
}

#[test]
fn what_a_node_said_before_something_came_to_it_live_is_no_word_that_it_left() {
    let mut log = Log::moving(Rules::ALL, "b", "a");
    log.must(log.go());
    log.must(Log::leave("a", Leave::PowerOff));
    let mut lead = Lead::new(log);
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Stopped));
    lead.log.must(lead.log.assign("a", 1));
    assert!(!lead.proposals().contains(&lead.log.left("a")));
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Running));
    assert!(!lead.proposals().contains(&lead.log.left("a")));
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Stopped));
    assert!(lead.proposals().contains(&lead.log.left("a")));
}

#[test]
fn what_fails_over_goes_elsewhere_once_its_node_has_left() {
    let mut lead = gone(Leave::PowerOff, ShutdownPolicy::Conditional);
    assert!(matches!(lead.obey()[..], [Command::Release { .. }]));
    assert_eq!(lead.log.web().home, None, "it has not left for a while, and returns to nobody");
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
}

#[test]
fn what_would_fail_over_is_given_the_time_of_an_announced_reboot() {
    let mut lead = gone(Leave::Reboot, ShutdownPolicy::Failover);
    assert!(matches!(lead.why(), Why::Frozen { .. }));
    lead.pass(ms(60_000));
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.obey()[..], [Command::Release { .. }]));
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
}

#[test]
fn what_is_frozen_waits_for_its_node_and_its_node_is_not_fenced() {
    let mut lead = gone(Leave::Reboot, ShutdownPolicy::Conditional);
    lead.pass(ms(3_600_000));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    assert!(matches!(lead.why(), Why::Frozen { .. }));
    // It is back.
    lead.renew("a", renewal(2, "boot-a2", 1, report(lead.log.state.applied, Some(Observed::Stopped))));
    lead.obey();
    assert_eq!(lead.log.phase(), &Phase::Placed { node: member("a") });
}

#[test]
fn an_operator_may_take_what_is_frozen_elsewhere() {
    let mut lead = gone(Leave::Reboot, ShutdownPolicy::Conditional);
    let moves = lead.view().moving(&crate::fixture::web(), &member("b"), false).unwrap();
    for command in moves {
        lead.log.must(command);
    }
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
}

#[test]
fn what_migrates_leaves_before_its_node_does() {
    let lead = going(Leave::PowerOff, ShutdownPolicy::Migrate);
    let mut lead = lead;
    lead.hear("a", says(&lead.clone(), Leave::PowerOff, Observed::Running));
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.proposals().as_slice(), [Command::Release { why: MoveReason::Shutdown, .. }]));
}

#[test]
fn an_agent_that_restarts_has_time_for_it_and_its_silence_proves_nothing() {
    let mut lead = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    lead.pass(ms(60_000));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    lead.pass(RESTART_GRACE);
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::FenceWanted { .. }]));
    lead.pass(ms(86_400_000));
    assert_eq!(lead.proposals(), [], "what it left running has no watchdog");
}

#[test]
fn a_suspended_promise_is_kept_again_when_the_watchdog_is_armed_or_nothing_runs() {
    for (armed, seen, kept) in [
        (true, Observed::Running, true),
        (false, Observed::Stopped, true),
        (false, Observed::Running, false),
        (false, Observed::Unknown { why: "no answer".into() }, false),
    ] {
        let mut log = Log::placed(Rules::ALL);
        log.must(Log::leave("a", Leave::AgentRestart));
        log.must(Log::admit("a", 2, "boot-a1", 0));
        let since = log.unbound("a").unwrap();
        let mut lead = Lead::new(log);
        let mut says = report(since, Some(seen.clone()));
        says.armed = armed;
        let mut before = says.clone();
        before.applied = since - 1;
        lead.renew("a", renewal(2, "boot-a1", 1, before));
        assert_eq!(lead.proposals(), [], "said before it knew");
        lead.renew("a", renewal(2, "boot-a1", 2, says));
        let bind = Command::Bind { node: member("a"), incarnation: 2, since };
        assert_eq!(lead.proposals().contains(&bind), kept, "{armed}, {seen:?}");
    }
}

#[test]
fn a_machine_that_reboots_while_its_agent_restarts_is_bound_from_its_boot_on() {
    let mut lead = going(Leave::AgentRestart, ShutdownPolicy::Conditional);
    lead.pass(ms(30_000));
    lead.renew("a", renewal(2, "boot-a2", 1, report(lead.log.state.applied, Some(Observed::Stopped))));
    lead.obey();
    assert_eq!(lead.log.unbound("a"), None);
    assert!(lead.log.state.nodes[&member("a")].leaving.is_none());
}

#[test]
fn a_node_that_left_or_was_fenced_long_ago_proves_nothing_about_what_is_added_later() {
    // The fence of last winter, then another life, which has gone in good order and may not be off yet.
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::fence("b", 1));
    log.must(Log::fenced(1));
    log.must(Log::closed(1));
    log.must(Log::admit("b", 2, "boot-b2", log.state.applied));
    log.must(Command::Leave { node: member("b"), incarnation: 2, how: Leave::PowerOff });
    let since = log.state.applied;
    log.must(Command::Left { node: member("b"), incarnation: 2, since });
    log.must(Log::add_web());
    let mut lead = Lead::new(log);
    lead.pass(ms(60_000));
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    assert_eq!(lead.why(), Why::WaitingForProbe { node: member("b") });
}

#[test]
fn who_left_has_spoken_for_what_was_there_already() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    log.must(Log::leave("b", Leave::PowerOff));
    log.must(log.left("b"));
    let mut lead = Lead::new(log);
    lead.pass(ms(60_000));
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(assigned_to(&lead.proposals()), Some("a"));
}
