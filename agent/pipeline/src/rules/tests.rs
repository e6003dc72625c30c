//! One scenario per rule. Each answers whether the cluster came through it safely: it must with the rule, and it must
//! not without it, which proves that the scenario can fail.

use super::*;
use crate::command::{Command, Setting};
use crate::fence::FenceId;
use crate::fencer;
use crate::fixture::{Lead, Log, Machine, at, is_granted, member, ms, promise, proven, renewal, report};
use crate::node::{Action, Event, Found, OperationKind, Outcome};
use crate::profile::Profile;
use crate::report::{Capacity, Leave, Observed, Trust};
use crate::resource::{MoveReason, Requested};
use crate::state::{DisarmMode, ShutdownPolicy};
use crate::time::Reading;

fn prove(rule: &str, is_safe: fn(Rules) -> bool) {
    assert!(is_safe(Rules::ALL), "{rule} holds, and yet its scenario ends badly");
    #[cfg(feature = "mutations")]
    assert!(!is_safe(Rules::without(rule).unwrap()), "without {rule} its scenario still ends well: it proves nothing");
}

macro_rules! proofs {
    ($($rule:ident,)*) => {
        $(
            #[test]
            fn $rule() {
                prove(stringify!($rule), scenario::$rule);
            }
        )*

        #[test]
        fn every_rule_has_its_proof() {
            let proven = [$(stringify!($rule),)*];
            let rules: Vec<&str> = Rules::TABLE.iter().map(|(name, _)| *name).collect();
            assert_eq!(rules, proven);
        }
    };
}

proofs! {
    only_trusted_watchdogs_prove_silence,
    lease_ends_on_either_clock,
    leader_assumes_grants,
    grants_need_the_quorum_lease,
    old_terms_are_ignored,
    reports_are_ordered,
    longer_times_hold,
    release_then_assign,
    operations_in_flight_count,
    stopped_is_what_a_probe_says,
    late_commands_are_void,
    executor_waits_for_the_commit_index,
    new_resources_are_probed,
    live_moves_wait_for_the_targets_guard,
    moves_begin_while_the_targets_guard_is_fresh,
    what_may_come_is_guarded,
    a_failed_move_ends_on_a_fresh_look,
    moves_end_when_the_source_is_out,
    what_was_sent_is_probed,
    who_leaves_starts_nothing,
    nobody_leaves_while_something_comes,
    absence_proves_what_was_known,
    armed_is_not_disarming,
    one_boot_per_grant,
    closed_before_readmission,
    fences_leave_a_majority,
    no_grant_to_the_condemned,
    new_boots_prove_with_the_fence_applied,
    admission_has_applied_the_closing,
    devices_need_a_fresh_read,
    unbound_lives_prove_nothing,
    power_counts_while_the_others_are_heard,
    others_are_asked_first,
}

mod scenario {
    use super::*;

    fn proposes(lead: &Lead, wanted: fn(&Command) -> bool) -> bool {
        lead.proposals().iter().any(wanted)
    }

    const fn is_assign(command: &Command) -> bool {
        matches!(command, Command::Assign { .. })
    }

    const fn is_admit(command: &Command) -> bool {
        matches!(command, Command::Admit { .. })
    }

    const fn is_fenced(command: &Command) -> bool {
        matches!(command, Command::Fenced { .. })
    }

    /// A virtual machine's watchdog stands still with it: a day of silence proves nothing.
    pub fn only_trusted_watchdogs_prove_silence(rules: Rules) -> bool {
        let mut log = Log::joined(rules, &["a", "b"]);
        let watchdog = Some(promise(Trust::Unproven));
        log.must(Command::Admit {
            node: member("a"),
            incarnation: 1,
            boot: "boot-a1".into(),
            watchdog,
            machine: None,
            closed: 0,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        });
        log.must(Log::admit("b", 1, "boot-b1", 0));
        log.must(Log::fence("a", 1));
        let mut lead = Lead::new(log);
        lead.pass(ms(86_400_000));
        !proposes(&lead, is_fenced)
    }

    /// The agent restarts by itself: what it left running has no watchdog, so silence proves nothing.
    pub fn unbound_lives_prove_nothing(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Command::Leave { node: member("a"), incarnation: 1, how: Leave::AgentRestart });
        log.must(Log::fence("a", 1));
        let mut lead = Lead::new(log);
        lead.pass(ms(86_400_000));
        !proposes(&lead, is_fenced)
    }

    /// A time daemon slows CLOCK_BOOTTIME: the other clock ends the lease.
    pub fn lease_ends_on_either_clock(rules: Rules) -> bool {
        let mut a = Machine::leased(Log::placed(rules));
        let end = a.node.lease_end().unwrap();
        let slewed = Reading { boottime_ns: end.boottime_ns - 1, raw_ns: end.raw_ns };
        a.now = slewed;
        !a.node.has_lease(slewed)
    }

    /// The leader before this one may have renewed the lease a moment ago.
    pub fn leader_assumes_grants(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Log::fence("a", 1));
        let mut lead = Lead::new(log);
        // The watchdog's time, but not the lease before it.
        lead.pass(ms(11_000));
        !proposes(&lead, is_fenced)
    }

    /// A leader that can't prove its majority may have been deposed.
    pub fn grants_need_the_quorum_lease(rules: Rules) -> bool {
        let mut lead = Lead::new(Log::placed(rules));
        let renew = renewal(1, "boot-a1", 1, report(0, None));
        let over = Some(lead.now);
        let state = &lead.log.state;
        !is_granted(&lead.leases.renew(lead.now, state, over, state.applied, &member("a"), renew).verdict)
    }

    /// A deposed leader's grant arrives after the node has seen the next term.
    pub fn old_terms_are_ignored(rules: Rules) -> bool {
        let mut a = Machine::ready(Log::placed(rules));
        a.node.saw_term(4);
        a.grant(3, a.log.state.applied);
        !a.node.has_lease(a.now)
    }

    /// A report from before the start, held up on its way, comes after the one that tells of it.
    pub fn reports_are_ordered(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(log.release(None, MoveReason::Asked));
        let applied = log.state.applied;
        let mut lead = Lead::new(log);
        lead.renew("b", renewal(1, "boot-b1", 1, report(applied, Some(Observed::Stopped))));
        lead.renew("a", renewal(1, "boot-a1", 2, report(applied, Some(Observed::Stopping))));
        lead.renew("a", renewal(1, "boot-a1", 1, report(applied - 1, Some(Observed::Stopped))));
        !proposes(&lead, is_assign)
    }

    /// A lease of 15 s was given just before the profile with leases of 3 s; then the leader changes.
    pub fn longer_times_hold(rules: Rules) -> bool {
        let mut log = Log::joined(rules, &["a", "b"]);
        log.must(Command::SetProfile { profile: Profile::Patient });
        log.must(Log::admit("a", 1, "boot-a1", 0));
        log.must(Log::admit("b", 1, "boot-b1", 0));
        log.must(Command::SettleProfile { profile: Profile::Patient, since: log.state.settings.profile_since });
        log.must(Command::SetProfile { profile: Profile::Fast });
        log.must(Log::fence("a", 1));
        let mut lead = Lead::new(log);
        // 1.5 s of quorum lease, 3 s of lease, 10 s of watchdog and the margin have passed; 15 s of lease instead not.
        lead.pass(ms(16_000));
        !proposes(&lead, is_fenced)
    }

    /// A move in one commit: nobody has said that the owner stopped it.
    pub fn release_then_assign(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.apply(log.assign("b", 1)).is_err()
    }

    /// A start runs, and the last probe before it said stopped.
    pub fn operations_in_flight_count(rules: Rules) -> bool {
        let mut a = Machine::leased(Log::placed(rules));
        a.begun(OperationKind::Start);
        !a.observed().is_stopped()
    }

    /// A stop returns success while the thing runs on.
    pub fn stopped_is_what_a_probe_says(rules: Rules) -> bool {
        let mut a = Machine::running(Log::placed(rules));
        a.log.must(Log::set_web(Requested::Stopped));
        let stop = a.begun(OperationKind::Stop);
        a.end(stop, Outcome::Done);
        !a.observed().is_stopped()
    }

    /// A deposed leader's fence commits after the node has come back as another life.
    pub fn late_commands_are_void(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Log::admit("a", 2, "boot-a2", 0));
        log.apply(Log::fence("a", 1)).is_err()
    }

    /// The grant says that more was decided than the node has applied: perhaps that `web` has to leave.
    pub fn executor_waits_for_the_commit_index(rules: Rules) -> bool {
        let mut a = Machine::probed(Log::placed(rules), Found::Stopped);
        a.grant(3, a.log.state.applied + 1);
        a.answer_arming();
        a.find(OperationKind::Start).is_none()
    }

    /// `web` may run on b already: nobody has looked.
    pub fn new_resources_are_probed(rules: Rules) -> bool {
        let mut log = Log::cluster(rules);
        log.must(Log::add_web());
        let mut lead = Lead::new(log);
        lead.hear_that("a", Observed::Stopped);
        !proposes(&lead, is_assign)
    }

    /// b has not armed its watchdog yet: if it vanished with `web`, its watchdog's time would prove nothing.
    pub fn live_moves_wait_for_the_targets_guard(rules: Rules) -> bool {
        let mut a = Machine::running(Log::live(rules));
        a.log.must(a.log.migrate("b", 1));
        a.look();
        a.find(OperationKind::Migrate).is_none()
    }

    /// a's agent restarts after the word to begin: meanwhile b may have lost its power, and be up again.
    pub fn moves_begin_while_the_targets_guard_is_fresh(rules: Rules) -> bool {
        let mut log = Log::moving(rules, "a", "b");
        log.must(log.go());
        let mut a = Machine::found(log, Found::Running);
        a.answer_arming();
        a.look();
        a.find(OperationKind::Migrate).is_none()
    }

    /// The target's lease ends while `web` is on its way from a source that still has one.
    pub fn what_may_come_is_guarded(rules: Rules) -> bool {
        let mut a = Machine::leased(Log::moving(rules, "b", "a"));
        a.log.must(a.log.go());
        a.keep();
        if let Some(probe) = a.find(OperationKind::Probe) {
            a.probe(probe, Found::Stopped);
        }
        a.pass(ms(5_000));
        a.look();
        !a.took(&Action::Disarm)
    }

    /// `web` has arrived on b, which hasn't looked since; a can't tell what became of it.
    pub fn a_failed_move_ends_on_a_fresh_look(rules: Rules) -> bool {
        let mut log = Log::moving(rules, "a", "b");
        if log.web().held {
            log.must(log.go());
        }
        let mut lead = Lead::new(log);
        lead.hear_that("b", Observed::Stopped);
        lead.hear_that("a", Observed::Unknown { why: "it is paused".into() });
        !proposes(&lead, is_assign)
    }

    /// A move in two parts is under way at its source, and its target could begin with the second one.
    pub fn moves_end_when_the_source_is_out(rules: Rules) -> bool {
        let mut lead = Lead::new(Log::agent_sent(rules, "a", "b"));
        lead.hear_that("b", Observed::Stopped);
        lead.hear_that("a", Observed::Moving);
        !proposes(&lead, is_assign)
    }

    /// The program that sends says that it has, and nobody has looked since.
    pub fn what_was_sent_is_probed(rules: Rules) -> bool {
        let mut a = Machine::running(Log::agent(rules, "a"));
        a.log.must(a.log.migrate("b", 1));
        a.log.must(a.log.go());
        a.look();
        let operation = a.begun(OperationKind::Migrate);
        a.end(operation, Outcome::Done);
        !a.observed().is_stopped()
    }

    /// The machine is about to go, and its watchdog is armed only after it has said that nothing runs.
    pub fn who_leaves_starts_nothing(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Command::Set(Setting::Shutdown(ShutdownPolicy::Migrate)));
        let mut a = Machine::probed(log, Found::Stopped);
        a.grant(3, a.log.state.applied);
        a.event(Event::Leaving(Leave::PowerOff));
        a.log.must(Log::leave("a", Leave::PowerOff));
        let said = a.node.report(&a.log.state).runs_nothing();
        a.answer_arming();
        a.look();
        said && a.find(OperationKind::Start).is_none()
    }

    /// The target of a live move says that it runs nothing, and goes; then `web` arrives.
    pub fn nobody_leaves_while_something_comes(rules: Rules) -> bool {
        let mut log = Log::moving(rules, "a", "b");
        log.must(Log::leave("b", Leave::PowerOff));
        log.apply(log.left("b")).is_err()
    }

    /// b went in good order and may not be off yet; what is added now may run there.
    pub fn absence_proves_what_was_known(rules: Rules) -> bool {
        let mut log = Log::cluster(rules);
        log.must(Log::leave("b", Leave::PowerOff));
        log.must(log.left("b"));
        log.must(Log::add_web());
        let mut lead = Lead::new(log);
        lead.pass(ms(2_000));
        lead.hear_that("a", Observed::Stopped);
        !proposes(&lead, is_assign)
    }

    /// The cluster is armed again while a's watchdog is still being disarmed.
    pub fn armed_is_not_disarming(rules: Rules) -> bool {
        let mut a = Machine::running(Log::placed(rules));
        a.log.disarm(DisarmMode::Freeze);
        a.look();
        assert!(a.took(&Action::Disarm));
        a.log.must(Command::Arm);
        a.look();
        !a.node.report(&a.log.state).armed
    }

    /// A copy of a's disk boots elsewhere while a holds a live lease.
    pub fn one_boot_per_grant(rules: Rules) -> bool {
        let mut lead = Lead::new(Log::placed(rules));
        lead.hear_that("a", Observed::Running);
        lead.renew("a", renewal(2, "boot-of-the-copy", 1, report(lead.log.state.applied, Some(Observed::Stopped))));
        !proposes(&lead, is_admit)
    }

    /// A power-off may still land on a node that is fenced, but whose fence isn't closed.
    pub fn closed_before_readmission(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Log::fence("a", 1));
        log.must(Log::fenced(1));
        log.apply(Log::admit("a", 2, "boot-a2", 0)).is_err()
    }

    /// Both nodes shot by two committed intents.
    pub fn fences_leave_a_majority(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Log::fence("b", 1));
        log.apply(Log::fence("a", 1)).is_err()
    }

    /// The link comes back between the proposal of a fence and its commit.
    pub fn no_grant_to_the_condemned(rules: Rules) -> bool {
        let mut lead = Lead::new(Log::placed(rules));
        lead.leases.condemn(lead.now, &member("a"), 1);
        !is_granted(&lead.hear_that("a", Observed::Running))
    }

    /// A new boot that hasn't applied its fence says that it runs nothing.
    pub fn new_boots_prove_with_the_fence_applied(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        let before = log.state.applied;
        log.must(Log::fence("a", 1));
        let mut lead = Lead::new(log);
        lead.renew("a", renewal(2, "boot-a2", 1, report(before, Some(Observed::Stopped))));
        !proposes(&lead, is_fenced)
    }

    /// A renewal that was sent just before the power-off landed arrives after the closing.
    pub fn admission_has_applied_the_closing(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Log::fence("a", 1));
        log.must(Log::fenced(1));
        let before = log.state.applied;
        log.must(Log::closed(1));
        let mut lead = Lead::new(log);
        lead.pass(ms(60_000));
        lead.renew("a", renewal(2, "boot-a2", 1, report(before, Some(Observed::Stopped))));
        !proposes(&lead, is_admit)
    }

    /// The applied state of a restarted appliance is behind: the fence may be closed long since.
    pub fn devices_need_a_fresh_read(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Command::SetDevices { node: member("a"), devices: vec![proven("bmc")] });
        log.must(Log::fence("a", 1));
        let mut fencer = fencer::Fencer::new(0, rules);
        fencer.advance(at(0), &log.state);
        let Some(fencer::Action::Command { token, command: fencer::DeviceCommand::Look, .. }) = fencer.poll_action()
        else {
            panic!("it looks first");
        };
        fencer.handle(at(1), &log.state, fencer::Event::CommandDone(token, fencer::DeviceResult::IsOn));
        std::iter::from_fn(|| fencer.poll_action())
            .all(|action| !matches!(action, fencer::Action::Command { command: fencer::DeviceCommand::Off, .. }))
    }

    /// The device of a is that of b: b falls silent, "a" reads off, and a runs on.
    pub fn power_counts_while_the_others_are_heard(rules: Rules) -> bool {
        let mut lead = Lead::new(Log::placed(rules));
        lead.hear_that("b", Observed::Stopped);
        lead.leases.condemn(lead.now, &member("a"), 1);
        lead.log.must(Log::fence("a", 1));
        (0..240).all(|_| {
            lead.pass(ms(250));
            lead.leases.power_proves(lead.now, &lead.log.state, FenceId(1)).is_err()
        })
    }

    /// The leader misses a for 2.1 s; b hears it, and its lease holds for 5 s.
    pub fn others_are_asked_first(rules: Rules) -> bool {
        let mut log = Log::placed(rules);
        log.must(Log::set_web(Requested::Started));
        let mut lead = Lead::new(log);
        lead.hear_that("a", Observed::Running);
        lead.pass(ms(2_100));
        let mut from_b = report(lead.log.state.applied, Some(Observed::Stopped));
        from_b.hears = std::collections::BTreeSet::from([member("a")]);
        lead.hear("b", from_b);
        !proposes(&lead, |command| matches!(command, Command::FenceWanted { .. }))
    }
}
