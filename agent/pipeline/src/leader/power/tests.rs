use super::*;
use crate::fixture::{Lead, Log, member, ms};
use crate::report::Observed;
use crate::rules::Rules;

const FENCE: FenceId = FenceId(1);

/// `a` has been silent for so long that its fence is wanted; `others` were heard a moment ago.
fn fencing(log: Log, others: &[&str]) -> Lead {
    let mut lead = Lead::new(log);
    lead.hear_that("a", Observed::Running);
    lead.pass(ms(2_000));
    for other in others {
        lead.hear_that(other, Observed::Stopped);
    }
    lead.leases.condemn(lead.now, &member("a"), 1);
    lead.log.must(Log::fence("a", 1));
    lead.pass(ms(400));
    lead
}

fn claim(lead: &mut Lead) -> Result<(), Doubt> {
    lead.leases.power_proves(lead.now, &lead.log.state, FENCE)
}

fn doubts(lead: &Lead) -> Vec<Doubt> {
    lead.leases.doubts(lead.now, &lead.log.state)
}

/// The appliance, and four nodes.
fn four() -> Log {
    let mut log = Log::joined(Rules::ALL, &["a", "b", "c", "d"]);
    for node in ["a", "b", "c", "d"] {
        log.must(Log::admit(node, 1, &format!("boot-{node}1"), 0));
    }
    log
}

#[test]
fn a_device_counts_as_soon_as_every_other_node_was_heard_after_it_read_off() {
    let mut lead = fencing(Log::placed(Rules::ALL), &["b"]);
    let unheard = Doubt::Unheard { node: member("a"), other: member("b") };
    assert_eq!(claim(&mut lead), Err(unheard), "what b sent before says nothing");
    lead.pass(ms(250));
    lead.hear_that("b", Observed::Stopped);
    lead.pass(ms(250));
    assert_eq!(claim(&mut lead), Ok(()));
    lead.pass(ms(250));
    assert_eq!(claim(&mut lead), Err(Doubt::UnderWay { node: member("a") }));
    assert_eq!(doubts(&lead), []);
}

#[test]
fn a_node_that_vanished_with_the_power_holds_the_evidence_and_alarms() {
    let mut lead = fencing(Log::placed(Rules::ALL), &["b"]);
    for _ in 0..400 {
        assert!(claim(&mut lead).is_err());
        lead.pass(ms(250));
    }
    let doubts = doubts(&lead);
    assert_eq!(doubts, [Doubt::Unheard { node: member("a"), other: member("b") }]);
    assert!(doubts[0].to_string().contains("may have taken the power of b instead"));
}

#[test]
fn the_fenced_boot_that_still_reports_holds_the_evidence_and_alarms() {
    let mut lead = fencing(Log::placed(Rules::ALL), &["b"]);
    assert!(claim(&mut lead).is_err());
    lead.pass(ms(250));
    lead.hear_that("b", Observed::Stopped);
    lead.hear_that("a", Observed::Running);
    for _ in 0..20 {
        lead.pass(ms(250));
        assert_eq!(claim(&mut lead), Err(Doubt::StillReports { node: member("a") }));
    }
    assert_eq!(doubts(&lead), [Doubt::StillReports { node: member("a") }]);
}

#[test]
fn a_pause_begins_anew() {
    let mut lead = fencing(Log::placed(Rules::ALL), &["b"]);
    assert!(claim(&mut lead).is_err());
    lead.hear_that("b", Observed::Stopped);
    lead.pass(STALE + ms(1));
    assert!(claim(&mut lead).is_err(), "the device may have read on meanwhile, because b is up");
}

#[test]
fn who_was_silent_before_the_fence_is_not_waited_for() {
    // a and b went together, with the rack's power: b is no reason to doubt what the device of a says.
    let mut lead = Lead::new(four());
    for node in ["a", "b"] {
        lead.hear_that(node, Observed::Running);
    }
    lead.pass(ms(2_000));
    for node in ["c", "d"] {
        lead.hear_that(node, Observed::Stopped);
    }
    lead.leases.condemn(lead.now, &member("a"), 1);
    lead.log.must(Log::fence("a", 1));
    assert!(claim(&mut lead).is_err());
    lead.pass(ms(250));
    for node in ["c", "d"] {
        lead.hear_that(node, Observed::Stopped);
    }
    assert_eq!(claim(&mut lead), Ok(()));
    // A leader that came later can't know since when b is silent.
    let mut next = lead.clone();
    next.leases = Leases::start(lead.now, 4, &lead.log.state);
    assert!(claim(&mut next).is_err());
    next.pass(ms(250));
    for node in ["c", "d"] {
        next.hear_that(node, Observed::Stopped);
    }
    assert_eq!(claim(&mut next), Err(Doubt::Unheard { node: member("a"), other: member("b") }));
}

#[test]
fn a_later_fence_of_a_node_that_vanished_frees_nothing() {
    let mut lead = fencing(four(), &["b", "c", "d"]);
    assert!(claim(&mut lead).is_err());
    lead.pass(ms(2_000));
    lead.log.must(Log::fence("b", 1));
    lead.log.must(Log::fenced(2));
    for node in ["c", "d"] {
        lead.hear_that(node, Observed::Stopped);
    }
    assert_eq!(claim(&mut lead), Err(Doubt::Unheard { node: member("a"), other: member("b") }));
    // Nor does a new leader forget.
    let mut next = lead.clone();
    next.leases = Leases::start(lead.now, 4, &lead.log.state);
    assert!(claim(&mut next).is_err());
    next.pass(ms(500));
    for node in ["c", "d"] {
        next.hear_that(node, Observed::Stopped);
    }
    assert_eq!(claim(&mut next), Err(Doubt::Unheard { node: member("a"), other: member("b") }));
}

#[test]
fn an_earlier_fence_of_another_node_is_no_doubt() {
    let mut log = four();
    log.must(Log::fence("b", 1));
    let mut lead = Lead::new(log);
    lead.leases.condemn(lead.now, &member("a"), 1);
    lead.log.must(Log::fence("a", 1));
    let id = FenceId(2);
    let state = lead.log.state.clone();
    assert!(lead.leases.power_proves(lead.now, &state, id).is_err());
    lead.pass(ms(500));
    for node in ["c", "d"] {
        lead.hear_that(node, Observed::Stopped);
    }
    assert_eq!(lead.leases.power_proves(lead.now, &state, id), Ok(()));
}
