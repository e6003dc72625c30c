//! Whose turn it is: classes, orders and the time between them; failures and their age.

use std::collections::BTreeMap;

use super::*;
use crate::command::Setting;
use crate::fixture::web;
use crate::name::ResourceName;
use crate::report::Report;
use crate::resource::{Class, Phase};

fn name(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

fn of(class: Class, order: u32) -> crate::resource::ResourceSpec {
    let mut spec = spec();
    (spec.class, spec.order) = (class, order);
    spec
}

/// `web` and another resource that comes after it, on a which has just booted.
fn booted(class: Class, order: u32) -> Lead {
    let mut log = Log::placed(Rules::ALL);
    log.must(Command::AddResource {
        name: name("later"),
        spec: of(class, order),
        requested: Requested::Started,
        node: None,
    });
    let generation = log.state.resources[&name("later")].generation;
    log.must(Command::Assign { resource: name("later"), generation, to: member("a"), incarnation: 1 });
    log.must(Log::admit("a", 2, "boot-a2", 0));
    Lead::new(log)
}

fn says(lead: &Lead, first: Observed, later: Observed) -> Report {
    let mut report = report(lead.log.state.applied, None);
    report.resources = BTreeMap::from([(web(), first), (name("later"), later)]);
    report
}

fn tell_booted(lead: &mut Lead, seq: u64, first: Observed, later: Observed) {
    let says = says(lead, first, later);
    lead.renew("a", renewal(2, "boot-a2", seq, says));
    lead.hear_that("b", Observed::Stopped);
}

fn may_go(lead: &Lead) -> bool {
    lead.proposals().iter().any(|command| matches!(command, Command::Go { resource, .. } if *resource == name("later")))
}

#[test]
fn on_a_new_boot_what_comes_later_waits_for_what_comes_first() {
    for (class, order) in [(Class::Protected, 1), (Class::BestEffort, 0)] {
        let mut lead = booted(class, order);
        assert!(lead.log.state.resources[&name("later")].held && lead.log.web().held);
        tell_booted(&mut lead, 1, Observed::Starting, Observed::Stopped);
        assert!(!may_go(&lead));
        assert_eq!(lead.plan().why[&name("later")], Why::WaitingForTurn { after: web() });
        tell_booted(&mut lead, 2, Observed::Running, Observed::Stopped);
        assert!(may_go(&lead), "{class}, {order}");
    }
}

#[test]
fn what_is_unprotected_waits_for_nothing_and_nothing_waits_for_it() {
    let mut lead = booted(Class::Unprotected, 0);
    tell_booted(&mut lead, 1, Observed::Starting, Observed::Stopped);
    assert!(may_go(&lead));
}

#[test]
fn an_agents_restart_holds_nothing() {
    let mut lead = booted(Class::Protected, 1);
    let generation = lead.log.state.resources[&name("later")].generation;
    lead.log.must(Command::Go { resource: name("later"), generation });
    lead.log.must(Log::admit("a", 3, "boot-a2", 0));
    assert!(!lead.log.state.resources[&name("later")].held);
}

#[test]
fn the_time_between_two_orders_counts_from_when_the_first_runs() {
    let mut lead = booted(Class::Protected, 1);
    lead.log.must(Command::Set(Setting::OrderDelay { class: Class::Protected, seconds: 10 }));
    tell_booted(&mut lead, 1, Observed::Running, Observed::Stopped);
    assert!(!may_go(&lead));
    for seq in 2..11 {
        lead.pass(ms(1_000));
        tell_booted(&mut lead, seq, Observed::Running, Observed::Stopped);
        assert!(!may_go(&lead));
    }
    lead.pass(ms(1_000));
    tell_booted(&mut lead, 11, Observed::Running, Observed::Stopped);
    assert!(may_go(&lead));
}

#[test]
fn what_was_given_up_or_shall_be_stopped_keeps_nobody_waiting() {
    let mut lead = booted(Class::Protected, 1);
    lead.log.must(lead.log.give_up());
    tell_booted(&mut lead, 1, Observed::Stopped, Observed::Stopped);
    assert!(may_go(&lead));
    let mut lead = booted(Class::Protected, 1);
    lead.log.must(Log::set_web(Requested::Stopped));
    tell_booted(&mut lead, 1, Observed::Running, Observed::Stopped);
    assert!(may_go(&lead));
}

#[test]
fn what_runs_already_is_adopted_before_its_turn() {
    let mut lead = booted(Class::Protected, 1);
    tell_booted(&mut lead, 1, Observed::Starting, Observed::Running);
    assert_eq!(lead.plan().why[&name("later")], Why::Runs);
}

#[test]
fn best_effort_is_tried_once() {
    let mut log = Log::cluster(Rules::ALL);
    let spec = of(Class::BestEffort, 0);
    log.must(Command::AddResource { name: web(), spec, requested: Requested::Started, node: None });
    log.must(log.assign("a", 1));
    let mut lead = Lead::new(log);
    tell(&mut lead, failed(), Observed::Stopped);
    assert!(matches!(lead.proposals().as_slice(), [Command::GiveUp { .. }]));
}

#[test]
fn a_retry_in_place_costs_a_relocation() {
    let mut lead = settled();
    lead.log.must(Command::SetMaintenance { node: member("b"), on: true });
    tell(&mut lead, failed(), Observed::Stopped);
    lead.obey();
    assert_eq!(lead.log.web().relocations, 1);
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    lead.obey();
    assert_eq!(lead.log.phase(), &Phase::Placed { node: member("a") });
    tell(&mut lead, failed(), Observed::Stopped);
    assert!(matches!(lead.proposals().as_slice(), [Command::GiveUp { .. }]), "max_relocate is 1");
}

#[test]
fn failures_are_forgotten_an_hour_after_the_last_one_whatever_the_clock_does() {
    let mut lead = settled();
    let applied_at = |lead: &Lead| (lead.log.state.applied + 1) * 1_000;
    let at = applied_at(&lead);
    let why = MoveReason::Failed { why: "it died".into() };
    lead.log.must(lead.log.release(Some("b"), why));
    lead.log.must(lead.log.assign("b", 1));
    tell(&mut lead, Observed::Stopped, Observed::Running);
    let forgets = |lead: &Lead| lead.proposals().iter().any(|command| matches!(command, Command::Forget { .. }));
    lead.wall_ms = 0;
    assert!(!forgets(&lead), "a clock that went back");
    lead.wall_ms = at + 3_599_999;
    assert!(!forgets(&lead));
    lead.wall_ms += 1;
    assert!(forgets(&lead));
    lead.obey();
    assert_eq!((lead.log.web().relocations, lead.log.web().failed_on.len()), (0, 0));
    assert!(!forgets(&lead));
}

#[test]
fn what_is_locked_is_neither_moved_nor_given_up() {
    let mut lead = settled();
    lead.log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
    lead.log.must(Command::SetMaintenance { node: member("a"), on: true });
    for seen in [Observed::Running, failed(), Observed::StopFailed { why: "busy".into() }] {
        tell(&mut lead, seen, Observed::Stopped);
        assert_eq!(lead.proposals(), []);
        assert!(matches!(lead.why(), Why::Locked { .. }));
    }
}

#[test]
fn what_nothing_is_known_of_is_waited_for_two_minutes_and_then_passed_over_with_its_reason() {
    let unknown = || Observed::Unknown { why: "no answer".into() };
    let mut lead = booted(Class::Protected, 1);
    for seq in 1..=120 {
        tell_booted(&mut lead, seq, unknown(), Observed::Stopped);
        assert_eq!(lead.look().why[&name("later")], Why::WaitingForTurn { after: web() }, "after {seq} s");
        assert!(!may_go(&lead));
        lead.pass(ms(1_000));
    }
    tell_booted(&mut lead, 121, unknown(), Observed::Stopped);
    assert!(may_go(&lead));
    let said = lead.look().why[&web()].to_string();
    assert!(said.contains("no answer") && said.contains("waits for it no longer"), "{said}");
}

#[test]
fn what_was_known_again_meanwhile_is_waited_for_anew() {
    let mut lead = booted(Class::Protected, 1);
    for seq in 1..=240 {
        let seen = if seq % 60 == 0 { Observed::Starting } else { Observed::Unknown { why: "no answer".into() } };
        tell_booted(&mut lead, seq, seen, Observed::Stopped);
        lead.look();
        assert!(!may_go(&lead), "after {seq} s");
        lead.pass(ms(1_000));
    }
}

#[test]
fn a_start_is_waited_for_however_long_it_takes() {
    let mut lead = booted(Class::Protected, 1);
    for seq in 1..=240 {
        tell_booted(&mut lead, seq, Observed::Starting, Observed::Stopped);
        lead.look();
        assert!(!may_go(&lead), "after {seq} s");
        lead.pass(ms(1_000));
    }
}

#[test]
fn what_is_best_effort_waits_for_what_is_protected_however_long_that_takes() {
    let unknown = || Observed::Unknown { why: "no answer".into() };
    let waiting = || {
        let mut lead = booted(Class::BestEffort, 0);
        for seq in 1..=200 {
            tell_booted(&mut lead, seq, unknown(), Observed::Stopped);
            assert_eq!(lead.look().why[&name("later")], Why::WaitingForTurn { after: web() }, "after {seq} s");
            lead.pass(ms(1_000));
        }
        tell_booted(&mut lead, 201, unknown(), Observed::Stopped);
        assert!(!may_go(&lead));
        lead
    };
    let mut lead = waiting();
    lead.log.must(lead.log.give_up());
    tell_booted(&mut lead, 202, unknown(), Observed::Stopped);
    assert!(may_go(&lead), "what was given up is waited for no longer");
    let mut lead = waiting();
    lead.log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
    tell_booted(&mut lead, 202, unknown(), Observed::Stopped);
    assert!(may_go(&lead), "nor is what an operator holds");
    let mut lead = waiting();
    lead.log.must(Log::set_web(Requested::Stopped));
    tell_booted(&mut lead, 202, unknown(), Observed::Stopped);
    assert!(may_go(&lead), "nor what shall not run");
}
