use std::collections::BTreeSet;

use super::*;
use crate::command::Command;
use crate::fixture::{Lead, Log, at, is_granted, member, ms, promise, renewal, report};
use crate::profile::Profile;
use crate::report::{Observed, Trust};
use crate::rules::Rules;
use crate::state::Role;

fn lead() -> Lead {
    Lead::new(Log::placed(Rules::ALL))
}

fn refusal(verdict: LeaseVerdict) -> Option<Refusal> {
    match verdict {
        LeaseVerdict::Refused { why } => Some(why),
        LeaseVerdict::Granted { .. } | LeaseVerdict::NotLeader { .. } => None,
    }
}

fn until(lead: &Lead, node: &str) -> Reading {
    lead.leases.node(&member(node)).unwrap().granted_until
}

#[test]
fn a_grant_is_the_profiles_lease_and_what_was_committed_and_counts_from_the_answer() {
    let mut lead = lead();
    lead.pass(ms(60_000));
    let commit = lead.log.state.applied;
    assert_eq!(lead.hear_that("a", Observed::Running), LeaseVerdict::Granted { ttl_ms: 5_000, commit });
    assert_eq!(until(&lead, "a"), lead.now.after(ms(5_000)));
}

#[test]
fn the_answer_names_the_renewal_and_the_leaders_term() {
    let mut lead = lead();
    let (now, until) = (lead.now, Some(lead.now.after(ms(1))));
    let renew = renewal(1, "boot-a1", 77, report(0, None));
    let answer = lead.leases.renew(now, &lead.log.state, until, 0, &member("a"), renew);
    assert_eq!((answer.seq, answer.incarnation, answer.term), (77, 1, 3));
}

#[test]
fn the_quorum_lease_ends_on_the_first_clock() {
    let mut lead = lead();
    let quorum = lead.now.after(ms(100));
    let slewed = Reading { boottime_ns: quorum.boottime_ns - 1, raw_ns: quorum.raw_ns };
    for (lease_until, now) in [(None, lead.now), (Some(quorum), quorum), (Some(quorum), slewed)] {
        let renew = renewal(1, "boot-a1", 1, report(0, None));
        let verdict = lead.leases.renew(now, &lead.log.state, lease_until, 0, &member("a"), renew).verdict;
        assert_eq!(refusal(verdict), Some(Refusal::NoQuorumLease));
    }
}

#[test]
fn a_node_that_has_seen_a_newer_term_gets_nothing_from_this_leader() {
    let mut lead = lead();
    let mut renew = renewal(1, "boot-a1", 1, report(0, None));
    renew.term = 4;
    assert_eq!(refusal(lead.renew("a", renew)), Some(Refusal::NoQuorumLease));
}

#[test]
fn only_the_admitted_life_is_granted() {
    let mut log = Log::joined(Rules::ALL, &["a", "b"]);
    log.must(Log::admit("a", 5, "boot-a1", 0));
    let mut lead = Lead::new(log);
    let mut ask = |node: &str, incarnation| {
        refusal(lead.renew(node, renewal(incarnation, &format!("boot-{node}1"), 1, report(0, None))))
    };
    assert_eq!(ask("a", 5), None);
    assert_eq!(ask("a", 4), Some(Refusal::Outdated));
    assert_eq!(ask("a", 6), Some(Refusal::NotAdmitted));
    assert_eq!(ask("b", 1), Some(Refusal::NotAdmitted));
    assert_eq!(ask("pi", 1), Some(Refusal::NotAMember));
    assert_eq!(ask("x", 1), Some(Refusal::NotAMember));
}

#[test]
fn an_open_fence_refuses_every_life_of_its_node_and_never_extends_the_grant() {
    let mut lead = lead();
    lead.hear_that("a", Observed::Running);
    let granted = until(&lead, "a");
    lead.log.must(Log::fence("a", 1));
    lead.pass(ms(1_000));
    assert_eq!(refusal(lead.hear_that("a", Observed::Running)), Some(Refusal::Condemned));
    let later = renewal(2, "boot-a2", 1, report(0, None));
    assert_eq!(refusal(lead.renew("a", later)), Some(Refusal::Condemned));
    assert_eq!(until(&lead, "a"), granted, "else the arithmetic would never end");
    lead.log.must(Log::fenced(1));
    assert_eq!(refusal(lead.hear_that("a", Observed::Running)), Some(Refusal::Condemned));
}

#[test]
fn a_condemned_life_is_refused_until_the_log_voids_its_fence() {
    let mut lead = lead();
    lead.leases.condemn(lead.now, &member("a"), 1);
    assert_eq!(refusal(lead.hear_that("a", Observed::Running)), Some(Refusal::Condemned));
    lead.leases.pardon(&member("a"), 2);
    assert_eq!(refusal(lead.hear_that("a", Observed::Running)), Some(Refusal::Condemned), "another life's pardon");
    lead.leases.pardon(&member("a"), 1);
    assert!(is_granted(&lead.hear_that("a", Observed::Running)));
}

#[test]
fn another_boot_in_a_live_grant_is_a_twin_and_later_an_unadmitted_life() {
    let mut lead = lead();
    lead.hear_that("a", Observed::Running);
    let other = |seq| renewal(2, "boot-a2", seq, report(0, None));
    assert_eq!(refusal(lead.renew("a", other(1))), Some(Refusal::Twin));
    assert_eq!(lead.leases.node(&member("a")).and_then(|view| view.refused.clone()), Some(Refusal::Twin));
    lead.now = until(&lead, "a");
    assert_eq!(refusal(lead.renew("a", other(2))), Some(Refusal::NotAdmitted));
}

#[test]
fn a_copied_disk_with_the_same_count_of_starts_gets_no_grant_and_hides_nothing() {
    let mut lead = lead();
    lead.hear_that("a", Observed::Running);
    let heard = lead.now;
    lead.pass(ms(60_000));
    let copy = renewal(1, "boot-of-the-copy", 9, report(lead.log.state.applied, Some(Observed::Stopped)));
    assert_eq!(refusal(lead.renew("a", copy)), Some(Refusal::Twin), "the life is admitted with its boot");
    let view = lead.leases.node(&member("a")).unwrap();
    assert_eq!(view.heard, heard, "the admitted machine is silent");
    let says = lead.leases.report(&lead.log.state, &member("a")).and_then(|r| r.resources.values().next());
    assert_eq!(says, Some(&Observed::Running), "and its last report stands");
}

#[test]
fn reports_go_by_incarnation_and_then_by_number() {
    let mut lead = lead();
    let send = |lead: &mut Lead, incarnation, seq| {
        lead.renew("a", renewal(incarnation, "boot-a1", seq, report(seq, None)));
        let newest = lead.leases.node(&member("a")).unwrap().newest.clone().unwrap();
        (newest.incarnation, newest.report.applied)
    };
    assert_eq!(send(&mut lead, 1, 7), (1, 7));
    assert_eq!(send(&mut lead, 1, 6), (1, 7), "late");
    assert_eq!(send(&mut lead, 1, 7), (1, 7), "a duplicate");
    assert_eq!(send(&mut lead, 2, 1), (2, 1), "a later start counts anew");
    assert_eq!(send(&mut lead, 1, 8), (2, 1), "what the older start said last");
    assert_eq!(lead.leases.report(&lead.log.state, &member("a")), None, "a report of a life that isn't admitted");
}

#[test]
fn a_late_renewal_doesnt_make_a_silent_node_heard() {
    let mut lead = lead();
    lead.renew("a", renewal(1, "boot-a1", 7, report(0, None)));
    lead.pass(ms(1_999));
    assert!(lead.leases.is_heard(&lead.log.state, &member("a"), lead.now));
    lead.renew("a", renewal(1, "boot-a1", 6, report(0, None)));
    lead.pass(ms(1));
    assert!(!lead.leases.is_heard(&lead.log.state, &member("a"), lead.now));
}

#[test]
fn nobody_is_heard_before_his_first_word() {
    let lead = lead();
    assert!(!lead.leases.is_heard(&lead.log.state, &member("a"), lead.now));
}

#[test]
fn whoever_starts_leading_assumes_a_grant_to_everyone() {
    let lead = lead();
    for node in ["a", "b"] {
        assert_eq!(until(&lead, node), lead.now.after(ms(750 + 5_000)));
    }
}

#[test]
fn a_shorter_grant_never_pulls_an_end_forward() {
    let mut lead = lead();
    let assumed = until(&lead, "a");
    lead.hear_that("a", Observed::Running);
    assert_eq!(until(&lead, "a"), assumed);
}

#[test]
fn silence_needs_the_lease_the_watchdog_and_the_margin() {
    let mut lead = lead();
    lead.pass(ms(60_000));
    lead.hear_that("a", Observed::Running);
    let from = lead.leases.silent_from(&lead.log.state, &member("a"), &promise(Trust::Drilled));
    // 5 s of lease, 10 s of watchdog, 1 % of both, half a second.
    assert_eq!(from, Some(lead.now.after(ms(5_000 + 10_000 + 150 + 500))));
}

#[test]
fn longer_grants_are_remembered_until_they_end_on_both_clocks() {
    let mut log = Log::placed(Rules::ALL);
    log.must(Command::SetProfile { profile: Profile::Patient });
    log.must(Command::SettleProfile { profile: Profile::Patient, since: log.state.settings.profile_since });
    let mut lead = Lead::new(log);
    lead.pass(ms(60_000));
    lead.hear_that("a", Observed::Running);
    lead.log.must(Command::SetProfile { profile: Profile::Fast });
    let end = until(&lead, "a");
    lead.pass(ms(1_000));
    lead.hear_that("a", Observed::Running);
    let fast = Profile::Fast.lease();
    assert!(!lead.leases.longer_grants_ended(fast, lead.now));
    assert!(!lead.leases.longer_grants_ended(fast, Reading { boottime_ns: end.boottime_ns, raw_ns: end.raw_ns - 1 }));
    assert!(lead.leases.longer_grants_ended(fast, end));
    assert!(lead.leases.longer_grants_ended(Profile::Patient.lease(), at(0)), "none was longer than the longest");
}

#[test]
fn who_comes_back_under_an_old_name_is_another_machine() {
    let mut lead = lead();
    lead.renew("b", renewal(7, "boot-b7", 900, report(0, None)));
    lead.leases.condemn(lead.now, &member("b"), 1);
    lead.log.must(Command::RemoveMember { name: member("b"), raft_id: 3 });
    lead.log.must(Log::add("b", Role::Node));
    let granted = until(&lead, "b");
    assert_eq!(lead.proposals(), [], "what the old machine said lately admits nobody");
    // A wiped disk counts its starts from one again.
    assert_eq!(refusal(lead.hear("b", report(0, None))), Some(Refusal::NotAdmitted));
    let view = lead.leases.node(&member("b")).unwrap();
    assert_eq!(view.newest.as_ref().map(|newest| newest.incarnation), Some(1));
    assert_eq!(view.granted_until, granted, "what the old machine was granted still holds");
    assert_eq!(lead.obey().len(), 1, "it is admitted");
    assert!(is_granted(&lead.hear("b", report(0, None))), "nor is it condemned for the old one");
}

#[test]
fn a_node_that_joins_later_is_known_from_its_first_word() {
    let mut lead = lead();
    lead.log.must(Log::add("c", Role::Node));
    assert!(lead.leases.node(&member("c")).is_none());
    assert_eq!(refusal(lead.hear("c", report(0, None))), Some(Refusal::NotAdmitted));
    let known: BTreeSet<&str> = lead.leases.nodes().keys().map(MemberName::as_str).collect();
    assert_eq!(known, BTreeSet::from(["a", "b", "c"]));
}
