mod arming;
mod balance;
mod batch;
mod leaving;
mod level;
mod moves;
mod order;
mod outlook;
mod starts;

use std::collections::BTreeSet;

use super::*;
use crate::command::Void;
use crate::fence::{Evidence, FenceReason};
use crate::fixture::{Lead, Log, is_granted, member, ms, promise, proven, renewal, report, spec, web};
use crate::profile::Profile;
use crate::report::{Capacity, Trust};
use crate::resource::{MoveReason, Requested};
use crate::rules::Rules;

fn lead() -> Lead {
    Lead::new(Log::placed(Rules::ALL))
}

/// A leader that both nodes have just told that a runs `web` and b doesn't.
fn settled() -> Lead {
    let mut lead = lead();
    tell(&mut lead, Observed::Running, Observed::Stopped);
    lead
}

fn tell(lead: &mut Lead, a: Observed, b: Observed) {
    lead.hear_that("a", a);
    lead.hear_that("b", b);
}

/// What a node says that has applied everything and hears these.
fn hears(lead: &Lead, seen: Observed, others: &[&str]) -> crate::report::Report {
    let mut report = report(lead.log.state.applied, Some(seen));
    report.hears = others.iter().map(|name| member(name)).collect();
    report
}

fn failed() -> Observed {
    Observed::Failed { why: "it died".into() }
}

fn assigned_to(commands: &[Command]) -> Option<&str> {
    commands.iter().find_map(|command| match command {
        Command::Assign { to, .. } => Some(to.as_str()),
        _ => None,
    })
}

/// a is lost, and its fence is committed and proven by an operator.
fn fenced() -> Lead {
    let mut lead = settled();
    lead.log.must(Log::fence("a", 1));
    lead.log.must(Log::fenced(1));
    lead
}

// Admission.

#[test]
fn a_node_that_asks_is_admitted_with_what_it_promises() {
    let mut lead = Lead::new(Log::joined(Rules::ALL, &["a"]));
    assert_eq!(lead.proposals(), []);
    lead.hear("a", report(0, None));
    assert_eq!(lead.obey(), [Log::admit("a", 1, "boot-a1", 0)]);
    assert_eq!(lead.proposals(), [], "a life is admitted once");
    assert!(is_granted(&lead.hear("a", report(0, None))));
}

#[test]
fn a_node_that_fell_silent_again_isnt_admitted() {
    let mut lead = Lead::new(Log::joined(Rules::ALL, &["a"]));
    lead.hear("a", report(0, None));
    lead.pass(ms(2_000));
    assert_eq!(lead.proposals(), []);
}

#[test]
fn a_restarted_agent_is_admitted_at_once_and_keeps_its_resources() {
    let mut lead = settled();
    let applied = lead.log.state.applied;
    lead.renew("a", renewal(2, "boot-a1", 1, report(applied, Some(Observed::Running))));
    assert_eq!(lead.obey(), [Log::admit("a", 2, "boot-a1", 0)]);
    assert_eq!(lead.log.phase().owner(), Some(&member("a")));
}

#[test]
fn a_rebooted_node_waits_for_the_end_of_its_old_lease() {
    let mut lead = settled();
    let boot = |seq| renewal(2, "boot-a2", seq, report(0, Some(Observed::Stopped)));
    lead.renew("a", boot(1));
    assert_eq!(lead.proposals(), []);
    lead.pass(ms(5_750));
    lead.renew("a", boot(2));
    assert_eq!(lead.obey(), [Log::admit("a", 2, "boot-a2", 0)]);
}

#[test]
fn a_fenced_node_is_admitted_on_a_report_that_has_applied_the_closing() {
    let mut lead = fenced();
    let again = |lead: &mut Lead, seq, applied| {
        lead.renew("a", renewal(2, "boot-a2", seq, report(applied, Some(Observed::Stopped))));
        lead.proposals().into_iter().any(|command| matches!(command, Command::Admit { .. }))
    };
    let applied = lead.log.state.applied;
    assert!(!again(&mut lead, 1, applied), "the fence is open");
    lead.log.must(Log::closed(1));
    assert!(!again(&mut lead, 2, applied), "sent before the closing");
    assert!(again(&mut lead, 3, applied + 1));
}

#[test]
fn the_same_life_isnt_admitted_again_after_its_fence() {
    let mut lead = fenced();
    lead.log.must(Log::closed(1));
    lead.hear_that("a", Observed::Stopped);
    assert!(lead.proposals().iter().all(|command| !matches!(command, Command::Admit { .. })));
}

// Loss.

#[test]
fn a_silent_owner_is_fenced_after_the_profiles_time() {
    let mut lead = settled();
    lead.pass(ms(1_999));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(lead.proposals(), []);
    lead.pass(ms(1));
    lead.hear_that("b", Observed::Stopped);
    let lost = FenceReason::Lost { silent_ms: 2_000 };
    assert_eq!(lead.obey(), [Command::FenceWanted { node: member("a"), incarnation: 1, reason: lost }]);
    let why = |last_failure: Option<&str>, suffices_in_s| Why::WaitingForFence {
        node: member("a"),
        id: FenceId(1),
        last_failure: last_failure.map(str::to_owned),
        suffices_in_s,
    };
    // What is left of the lease that it may have, and what its watchdog takes after that.
    assert_eq!(lead.why(), why(None, Some(15)));
    lead.log.must(Command::FenceFailed { id: FenceId(1), why: "bmc refuses the password".into() });
    lead.pass(ms(4_000));
    assert_eq!(lead.why(), why(Some("bmc refuses the password"), Some(11)));
    let said = lead.why().to_string();
    assert_eq!(
        said,
        "waiting for proof that a is off (fence 1): bmc refuses the password; in 11 s the lease arithmetic suffices"
    );
}

#[test]
fn a_fence_that_only_a_device_or_a_word_ends_says_so() {
    let mut lead = settled();
    lead.log.must(Command::Admit {
        node: member("a"),
        incarnation: 2,
        boot: "boot-a1".into(),
        watchdog: None,
        machine: None,
        closed: 0,
        capacity: Capacity::default(),
        booted_in_ms: 0,
    });
    lead.log.must(Log::fence("a", 2));
    let said = lead.why().to_string();
    assert!(said.contains("only a device or your word") && said.contains("`tiebreaker fence confirm a`"), "{said}");
}

#[test]
fn a_fence_ends_though_everything_that_it_was_for_was_removed_meanwhile() {
    let mut lead = settled();
    lead.pass(ms(2_000));
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::FenceWanted { .. }]));
    lead.log.must(Command::RemoveResource { name: web() });
    let silent = lead.leases.silent_from(&lead.log.state, &member("a"), &promise(Trust::Drilled)).unwrap();
    lead.now = silent;
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.obey().as_slice(), [Command::Fenced { evidence: Evidence::WatchdogTime { .. }, .. }]));
    lead.log.must(Log::closed(1));
    assert!(lead.log.state.open_fence(&member("a")).is_none());
    let applied = lead.log.state.applied;
    lead.renew("a", renewal(2, "boot-a2", 1, report(applied, None)));
    assert!(lead.obey().iter().any(|command| matches!(command, Command::Admit { node, .. } if *node == member("a"))));
}

#[test]
fn loss_needs_both_clocks() {
    let mut lead = settled();
    lead.now.raw_ns += 60_000_000_000;
    assert_eq!(lead.proposals(), [], "the leader was suspended, or its clock slewed");
}

#[test]
fn a_silent_node_that_owns_nothing_is_left_alone() {
    let mut lead = settled();
    lead.pass(ms(3_600_000));
    lead.hear_that("a", Observed::Running);
    assert_eq!(lead.proposals(), []);
}

#[test]
fn nobody_is_fenced_for_what_is_not_wanted_elsewhere() {
    let idle: [fn(&mut Lead); 3] = [
        |lead| lead.log.must(lead.log.give_up()),
        |lead| lead.log.must(Log::set_web(Requested::Disabled)),
        |lead| lead.log.must(Log::set_web(Requested::Ignored)),
    ];
    for make_idle in idle {
        let mut lead = settled();
        make_idle(&mut lead);
        lead.pass(ms(10_000));
        lead.hear_that("b", Observed::Stopped);
        assert_eq!(lead.proposals(), []);
    }
    let mut lead = settled();
    lead.log.must(Log::set_web(Requested::Stopped));
    lead.pass(ms(10_000));
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.proposals()[..], [Command::FenceWanted { .. }]), "what is stopped is recovered, stopped");
}

#[test]
fn nodes_get_time_to_boot_after_a_cold_start() {
    let mut lead = lead();
    lead.started = lead.now;
    lead.pass(ms(59_999));
    lead.hear_that("b", Observed::Stopped);
    let plan = lead.plan();
    assert_eq!(plan.proposals, []);
    assert!(plan.unfenced[&member("a")].contains("grace"));
    assert!(matches!(lead.why(), Why::CannotFence { .. }));
    lead.pass(ms(1));
    assert!(matches!(lead.proposals()[..], [Command::FenceWanted { .. }]));
}

#[test]
fn a_node_that_was_heard_in_an_earlier_term_has_no_boot_grace() {
    let mut lead = lead();
    lead.started = lead.now;
    lead.met.insert(member("a"));
    lead.pass(ms(6_000));
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.proposals()[..], [Command::FenceWanted { .. }]));
}

#[test]
fn a_node_that_was_heard_once_has_no_boot_grace() {
    let mut lead = settled();
    lead.started = lead.now;
    lead.pass(ms(6_000));
    assert!(matches!(lead.proposals()[..], [Command::FenceWanted { .. }]));
}

#[test]
fn while_a_lease_may_run_another_members_word_keeps_its_node_up() {
    let mut lead = settled();
    lead.pass(ms(2_100));
    lead.hear("b", hears(&lead, Observed::Stopped, &["a", "pi"]));
    let plan = lead.plan();
    assert_eq!(plan.proposals, []);
    assert_eq!(
        plan.unfenced[&member("a")],
        "b still hears it, and its lease may still run: it is fenced as soon as one of the two is over"
    );
    // Its lease is over: whatever b hears, a node without a lease serves nobody.
    lead.pass(ms(3_650));
    lead.hear("b", hears(&lead, Observed::Stopped, &["a", "pi"]));
    assert!(matches!(lead.proposals()[..], [Command::FenceWanted { .. }]));
}

#[test]
fn a_stale_word_of_another_member_keeps_nobody_up() {
    let mut lead = settled();
    lead.hear("b", hears(&lead, Observed::Stopped, &["a"]));
    lead.pass(ms(2_000));
    assert!(matches!(lead.proposals()[..], [Command::FenceWanted { .. }]));
}

#[test]
fn the_word_of_a_rebooted_member_counts_before_it_is_admitted_again() {
    let mut lead = settled();
    lead.pass(ms(2_100));
    let word = hears(&lead, Observed::Stopped, &["a", "pi"]);
    assert!(!is_granted(&lead.renew("b", renewal(2, "boot-b2", 1, word))));
    let plan = lead.plan();
    assert_eq!(plan.proposals, []);
    assert_eq!(
        plan.unfenced[&member("a")],
        "b still hears it, and its lease may still run: it is fenced as soon as one of the two is over"
    );
}

#[test]
fn nobody_is_fenced_where_no_majority_would_be_left() {
    let mut lead = settled();
    lead.log.must(Log::fence("b", 1));
    lead.pass(ms(60_000));
    let plan = lead.plan();
    assert!(plan.proposals.iter().all(|command| !matches!(command, Command::FenceWanted { .. })));
    assert_eq!(
        plan.unfenced[&member("a")],
        "only 1 of 3 voters would be left in service, which is no majority: bring another voter back, `tiebreaker status` shows \
         who is away"
    );
}

// Evidence.

#[test]
fn the_watchdogs_time_is_evidence_once_it_passed_on_both_clocks() {
    let mut lead = settled();
    lead.log.must(Log::fence("a", 1));
    let from = lead.leases.silent_from(&lead.log.state, &member("a"), &promise(Trust::Drilled)).unwrap();
    lead.now = Reading { boottime_ns: from.boottime_ns, raw_ns: from.raw_ns - 1 };
    assert_eq!(lead.proposals(), []);
    lead.now = Reading { boottime_ns: from.boottime_ns - 1, raw_ns: from.raw_ns };
    assert_eq!(lead.proposals(), []);
    lead.now = from;
    let evidence = Evidence::WatchdogTime { waited_ms: 10_650 };
    assert_eq!(lead.proposals(), [Command::Fenced { id: FenceId(1), evidence }]);
}

#[test]
fn an_accepted_watchdog_counts_and_none_at_all_never_does() {
    for (watchdog, counts) in
        [(Some(promise(Trust::Accepted)), true), (Some(promise(Trust::Unproven)), false), (None, false)]
    {
        let mut log = Log::cluster(Rules::ALL);
        log.must(Command::Admit {
            node: member("a"),
            incarnation: 2,
            boot: "boot-a1".into(),
            watchdog,
            machine: None,
            closed: 0,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        });
        log.must(Log::fence("a", 2));
        let mut lead = Lead::new(log);
        lead.pass(ms(86_400_000));
        assert_eq!(!lead.proposals().is_empty(), counts);
    }
}

#[test]
fn an_agents_restart_is_no_evidence() {
    let mut lead = settled();
    lead.log.must(Log::fence("a", 1));
    let applied = lead.log.state.applied;
    lead.renew("a", renewal(2, "boot-a1", 1, report(applied, Some(Observed::Stopped))));
    assert_eq!(lead.proposals(), []);
}

#[test]
fn a_later_boot_proves_with_the_fence_applied_and_everything_stopped() {
    let mut lead = settled();
    lead.log.must(Log::fence("a", 1));
    let applied = lead.log.state.applied;
    let says = |lead: &mut Lead, seq, applied, seen| {
        lead.renew("a", renewal(2, "boot-a2", seq, report(applied, Some(seen))));
        lead.proposals()
    };
    assert_eq!(says(&mut lead, 1, applied - 1, Observed::Stopped), [], "it doesn't know of its fence yet");
    for seen in [Observed::Running, Observed::Stopping, Observed::Unknown { why: "not probed yet".into() }] {
        assert_eq!(says(&mut lead, 2, applied, seen), []);
    }
    let evidence = Evidence::NewBoot { boot: "boot-a2".into() };
    assert_eq!(says(&mut lead, 3, applied, Observed::Stopped), [Command::Fenced { id: FenceId(1), evidence }]);
}

#[test]
fn an_earlier_start_of_the_agent_is_no_new_boot() {
    let mut log = Log::joined(Rules::ALL, &["a", "b"]);
    log.must(Log::admit("a", 5, "boot-a5", 0));
    log.must(Log::admit("b", 1, "boot-b1", 0));
    log.must(Log::fence("a", 5));
    let applied = log.state.applied;
    let mut lead = Lead::new(log);
    lead.renew("a", renewal(4, "boot-a4", 9, report(applied, None)));
    assert_eq!(lead.proposals(), [], "a packet that was held up since the boot before");
}

#[test]
fn a_proven_fence_isnt_proven_again() {
    let mut lead = fenced();
    lead.pass(ms(60_000));
    assert!(lead.proposals().iter().all(|command| !matches!(command, Command::Fenced { .. })));
}

// Placement.

#[test]
fn a_freed_resource_goes_to_the_survivor() {
    let mut lead = fenced();
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("b"));
    lead.hear_that("b", Observed::Running);
    assert_eq!(lead.why(), Why::Runs);
}

#[test]
fn a_node_that_comes_back_gets_nothing_back() {
    let mut lead = fenced();
    lead.hear_that("b", Observed::Stopped);
    lead.obey();
    lead.log.must(Log::closed(1));
    let applied = lead.log.state.applied;
    lead.renew("a", renewal(2, "boot-a2", 1, report(applied, Some(Observed::Stopped))));
    lead.pass(ms(6_000));
    lead.renew("a", renewal(2, "boot-a2", 2, report(applied, Some(Observed::Stopped))));
    lead.hear_that("b", Observed::Running);
    assert!(matches!(lead.obey()[..], [Command::Admit { .. }]));
    lead.hear_that("b", Observed::Running);
    assert_eq!(lead.proposals(), []);
    assert_eq!(lead.why(), Why::Runs);
}

#[test]
fn a_resource_goes_to_the_least_loaded_node() {
    let mut log = Log::joined(Rules::ALL, &["a", "b", "c"]);
    for node in ["a", "b", "c"] {
        log.must(Log::admit(node, 1, &format!("boot-{node}1"), 0));
    }
    let name = |n: usize| ResourceName::new(&format!("r{n}")).unwrap();
    for n in 0..6 {
        log.must(Command::AddResource { name: name(n), spec: spec(), requested: Requested::Started, node: None });
    }
    let applied = log.state.applied;
    let mut lead = Lead::new(log);
    for node in ["a", "b", "c"] {
        let mut report = report(applied, None);
        report.resources = (0..6).map(|n| (name(n), Observed::Stopped)).collect();
        lead.hear(node, report);
    }
    assert_eq!(lead.obey().len(), 6);
    for node in ["a", "b", "c"] {
        assert_eq!(lead.log.state.owned_by(&member(node)).count(), 2, "{node}");
    }
}

#[test]
fn a_node_that_cant_be_fenced_gets_nothing_and_the_reason_is_said() {
    let mut log = Log::joined(Rules::ALL, &["a"]);
    log.must(Command::Admit {
        node: member("a"),
        incarnation: 1,
        boot: "boot-a1".into(),
        watchdog: None,
        machine: None,
        closed: 0,
        capacity: Capacity::default(),
        booted_in_ms: 0,
    });
    log.must(Log::add_web());
    let mut lead = Lead::new(log);
    lead.hear_that("a", Observed::Stopped);
    let why = "a: it has no power-fencing device and no watchdog: add one of the two".to_owned();
    assert_eq!(lead.why(), Why::NoNode { why: vec![why] });
    lead.log.must(Command::SetDevices { node: member("a"), devices: vec![proven("bmc")] });
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(assigned_to(&lead.proposals()), Some("a"));
}

// Moves.

#[test]
fn a_move_waits_for_the_owners_report_that_has_applied_the_release() {
    let mut lead = settled();
    lead.log.must(lead.log.release(Some("b"), MoveReason::Asked));
    let applied = lead.log.state.applied;
    lead.hear("b", report(applied, Some(Observed::Stopped)));
    lead.hear("a", report(applied - 1, Some(Observed::Stopped)));
    assert_eq!(lead.why(), Why::WaitingForReport { node: member("a") });
    let unknown = Observed::Unknown { why: "no answer".into() };
    for seen in [Observed::Running, Observed::Starting, Observed::Stopping, unknown] {
        lead.hear("a", report(applied, Some(seen.clone())));
        assert_eq!(lead.why(), Why::AtWork { node: member("a"), observed: seen });
        assert_eq!(lead.proposals(), []);
    }
    lead.hear("a", report(applied, None));
    assert_eq!(lead.why(), Why::WaitingForReport { node: member("a") }, "it says nothing of it");
    lead.hear("a", report(applied, Some(Observed::Stopped)));
    assert_eq!(assigned_to(&lead.obey()), Some("b"));
}

#[test]
fn a_move_whose_target_vanished_goes_back() {
    let mut lead = settled();
    lead.log.must(lead.log.release(Some("b"), MoveReason::Asked));
    lead.pass(ms(2_000));
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("a"));
}

#[test]
fn a_move_whose_target_was_removed_goes_back() {
    let mut lead = settled();
    lead.log.must(lead.log.release(Some("b"), MoveReason::Asked));
    lead.log.must(Command::RemoveMember { name: member("b"), raft_id: 3 });
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("a"));
}

#[test]
fn a_move_whose_owner_is_lost_waits_for_its_fence() {
    let mut lead = settled();
    lead.log.must(lead.log.release(Some("b"), MoveReason::Asked));
    lead.pass(ms(6_000));
    lead.hear_that("b", Observed::Stopped);
    assert!(matches!(lead.obey()[..], [Command::FenceWanted { .. }]));
    assert_eq!(lead.proposals(), []);
    lead.log.must(Log::fenced(1));
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
}

// New resources.

fn new_resource() -> Lead {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    Lead::new(log)
}

#[test]
fn a_new_resource_waits_for_every_nodes_probe() {
    let mut lead = new_resource();
    let applied = lead.log.state.applied;
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(lead.why(), Why::WaitingForProbe { node: member("b") });
    lead.hear("b", report(applied - 1, Some(Observed::Stopped)));
    assert_eq!(lead.why(), Why::WaitingForProbe { node: member("b") }, "before it was added");
    lead.hear("b", report(applied, Some(Observed::Unknown { why: "no answer".into() })));
    assert_eq!(lead.why(), Why::ProbeUnknown { node: member("b"), why: "no answer".into() });
    lead.hear("b", report(applied, Some(Observed::Stopped)));
    assert_eq!(assigned_to(&lead.proposals()), Some("a"));
}

#[test]
fn a_new_resource_that_runs_somewhere_is_adopted_there() {
    let mut lead = new_resource();
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(assigned_to(&lead.obey()), Some("b"));
}

#[test]
fn a_new_resource_that_runs_where_it_cant_be_protected_is_started_nowhere_else() {
    let mut lead = new_resource();
    lead.log.must(Command::Admit {
        node: member("b"),
        incarnation: 2,
        boot: "boot-b1".into(),
        watchdog: None,
        machine: None,
        closed: 0,
        capacity: Capacity::default(),
        booted_in_ms: 0,
    });
    lead.hear_that("a", Observed::Stopped);
    let applied = lead.log.state.applied;
    lead.renew("b", renewal(2, "boot-b1", 1, report(applied, Some(Observed::Running))));
    assert_eq!(lead.proposals(), []);
    assert!(lead.why().to_string().contains("it runs on b already"), "{}", lead.why());
}

#[test]
fn a_new_resource_that_runs_is_adopted_only_behind_an_armed_watchdog() {
    let mut lead = new_resource();
    lead.hear_that("a", Observed::Stopped);
    let mut unarmed = report(lead.log.state.applied, Some(Observed::Running));
    unarmed.armed = false;
    lead.hear("b", unarmed);
    assert_eq!(lead.proposals(), []);
    assert!(lead.why().to_string().contains("has not armed its watchdog"), "{}", lead.why());
    lead.hear_that("b", Observed::Running);
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
}

#[test]
fn a_new_resource_that_runs_twice_is_touched_nowhere() {
    let mut lead = new_resource();
    tell(&mut lead, Observed::Running, Observed::Running);
    assert_eq!(lead.why(), Why::RunsTwice { first: member("a"), second: member("b") });
    assert_eq!(lead.proposals(), []);
}

#[test]
fn a_node_that_joined_and_never_came_up_holds_a_new_resource_until_it_is_removed() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add("c", Role::Node));
    log.must(Log::add_web());
    let mut lead = Lead::new(log);
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(lead.why(), Why::WaitingForProbe { node: member("c") });
    lead.log.must(Command::RemoveMember { name: member("c"), raft_id: 4 });
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(assigned_to(&lead.proposals()), Some("a"));
}

#[test]
fn a_fenced_node_needs_no_probe_until_it_speaks_again() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::fence("b", 1));
    log.must(Log::add_web());
    let mut lead = Lead::new(log);
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(lead.why(), Why::WaitingForProbe { node: member("b") });
    lead.log.must(Log::fenced(1));
    lead.log.must(Log::closed(1));
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(assigned_to(&lead.proposals()), Some("a"));
    lead.renew("b", renewal(2, "boot-b2", 1, report(0, None)));
    assert_eq!(lead.why(), Why::WaitingForProbe { node: member("b") });
}

// Failures.

#[test]
fn a_failed_resource_moves_then_fails_for_good() {
    let mut lead = settled();
    tell(&mut lead, failed(), Observed::Stopped);
    assert!(matches!(lead.obey()[..], [Command::Release { why: MoveReason::Failed { .. }, to: Some(_), .. }]));
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("b"), "not where it failed");
    tell(&mut lead, Observed::Stopped, failed());
    assert!(matches!(lead.obey()[..], [Command::GiveUp { .. }]), "max_relocate is one");
    assert!(matches!(lead.why(), Why::Error { .. }));
    assert!(matches!(lead.log.void(Log::set_web(Requested::Started)), Void::InError { .. }));
    lead.log.must(Log::set_web(Requested::Disabled));
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(lead.why(), Why::StoppedAsAsked, "disabled clears the error");
    lead.log.must(Log::set_web(Requested::Started));
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert!(matches!(lead.obey()[..], [Command::Go { .. }]), "and an operator's word tries again");
    tell(&mut lead, Observed::Stopped, Observed::Running);
    assert_eq!(lead.why(), Why::Runs);
}

#[test]
fn a_failed_resource_without_another_node_is_tried_again_where_it_is() {
    let mut lead = settled();
    lead.pass(ms(2_000));
    lead.hear_that("a", failed());
    let again = lead.obey();
    assert!(matches!(&again[..], [Command::Release { to: Some(to), .. }] if *to == member("a")), "{again:?}");
    lead.hear_that("a", Observed::Stopped);
    assert_eq!(assigned_to(&lead.obey()), Some("a"));
    lead.hear_that("a", failed());
    assert!(matches!(lead.proposals()[..], [Command::GiveUp { .. }]), "that was its one relocation");
}

#[test]
fn a_failure_of_what_shall_be_stopped_is_no_failure() {
    let mut lead = settled();
    lead.log.must(Log::set_web(Requested::Stopped));
    for seen in [failed(), Observed::Stopped] {
        tell(&mut lead, seen, Observed::Stopped);
        assert_eq!((lead.why(), lead.proposals()), (Why::StoppedAsAsked, vec![]));
    }
}

#[test]
fn what_cant_be_stopped_is_given_up_where_it_is() {
    let hung = Observed::StopFailed { why: "it hangs".into() };
    let mut lead = settled();
    lead.log.must(Log::set_web(Requested::Stopped));
    lead.hear_that("a", hung.clone());
    assert!(matches!(lead.proposals()[..], [Command::GiveUp { .. }]));
    let mut lead = settled();
    lead.log.must(lead.log.release(Some("b"), MoveReason::Asked));
    tell(&mut lead, hung, Observed::Stopped);
    assert!(matches!(lead.obey()[..], [Command::GiveUp { .. }]));
    assert_eq!(lead.log.phase().owner(), Some(&member("a")));
    tell(&mut lead, Observed::Stopped, Observed::Stopped);
    assert_eq!(lead.proposals(), [], "an error waits for an operator");
}

#[test]
fn nothing_is_decided_on_a_report_from_before_the_decision() {
    let mut lead = settled();
    let before = lead.log.state.applied;
    lead.log.must(Log::set_web(Requested::Started));
    lead.hear("a", report(before, Some(failed())));
    assert_eq!((lead.why(), lead.proposals()), (Why::WaitingForReport { node: member("a") }, vec![]));
}

// Profiles.

#[test]
fn a_profile_is_settled_once_every_life_has_applied_it() {
    let mut lead = settled();
    lead.log.must(Command::SetProfile { profile: Profile::Patient });
    let since = lead.log.state.applied;
    lead.hear_that("a", Observed::Running);
    assert_eq!(lead.proposals(), [], "b has not");
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(lead.obey(), [Command::SettleProfile { profile: Profile::Patient, since }]);
    assert_eq!(lead.proposals(), []);
}

#[test]
fn a_shorter_profile_is_settled_only_when_the_longer_leases_are_over() {
    let mut lead = settled();
    lead.pass(ms(60_000));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    lead.log.must(Command::SetProfile { profile: Profile::Fast });
    for _ in 0..9 {
        lead.pass(ms(500));
        tell(&mut lead, Observed::Running, Observed::Stopped);
        assert_eq!(lead.proposals(), [], "a holds a lease of 5 s, whatever it has applied");
    }
    lead.pass(ms(500));
    tell(&mut lead, Observed::Running, Observed::Stopped);
    assert!(matches!(lead.proposals()[..], [Command::SettleProfile { .. }]));
}

// Voters.

#[test]
fn the_appliance_votes_with_two_nodes_or_four_but_never_with_one() {
    for (nodes, wanted) in [(0, 1), (1, 1), (2, 3), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5)] {
        let mut log = Log::new(Rules::ALL);
        for n in 0..nodes {
            log.must(Log::add(&format!("n{n}"), Role::Node));
        }
        let voters = wanted_voters(&log.state);
        assert_eq!(voters.len(), wanted, "{nodes} nodes");
        assert!(voters.contains(&1));
    }
}

#[test]
fn who_votes_keeps_voting_and_new_voters_are_nodes_in_service() {
    let mut log = Log::new(Rules::ALL);
    for node in ["a", "b", "c", "d"] {
        log.must(Log::add(node, Role::Node));
    }
    log.must(Log::admit("c", 1, "c", 0));
    log.must(Log::admit("d", 1, "d", 0));
    assert_eq!(wanted_voters(&log.state), BTreeSet::from([1, 4, 5]), "c and d are in service");
    let index = log.state.applied + 1;
    log.state.apply_voters(index, BTreeSet::from([1, 2, 3]));
    assert_eq!(wanted_voters(&log.state), BTreeSet::from([1, 2, 3]), "votes don't wander");
}

#[test]
fn row_32_a_live_move_whose_outcome_nobody_knows_is_decided_by_nobody() {
    let mut log = Log::cluster(Rules::ALL);
    let argv = |verb: &str| vec!["/opt/web".to_owned(), verb.to_owned()];
    let mut live = spec();
    live.driver = crate::resource::Driver::Command {
        start: argv("start"),
        stop: argv("stop"),
        status: argv("status"),
        migrate: Some(argv("migrate")),
    };
    live.live = true;
    let name = crate::fixture::web();
    log.must(Command::AddResource { name: name.clone(), spec: live, requested: Requested::Started, node: None });
    log.must(log.assign("a", 1));
    let generation = log.web().generation;
    let to = member("b");
    log.must(Command::Migrate { resource: name, generation, to, incarnation: 1, why: MoveReason::Asked });
    let unknown = || Observed::Unknown { why: "the probe hangs".into() };
    let assigned = |a: Observed, b: Observed| {
        let mut lead = Lead::new(log.clone());
        tell(&mut lead, a, b);
        lead.proposals().into_iter().find_map(|command| match command {
            Command::Assign { to, .. } => Some(to),
            _ => None,
        })
    };
    // It may run at both ends, or it can't be seen where it is not.
    assert_eq!(assigned(Observed::Moving, Observed::Running), None);
    assert_eq!(assigned(unknown(), Observed::Running), None);
    assert_eq!(assigned(unknown(), unknown()), None);
    assert_eq!(assigned(Observed::Stopped, unknown()), None);
    assert_eq!(assigned(Observed::MoveFailed { why: "the link".into() }, unknown()), None);
    // One end says that it is out.
    assert_eq!(assigned(Observed::Stopped, Observed::Running), Some(member("b")));
}
