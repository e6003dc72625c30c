//! Which feature level the cluster agrees on.

use super::*;
use crate::level::Level;
use crate::report::Refusal;

const OLD: Level = Level::FIRST;
const NEW: Level = Level::KNOWN;

/// A cluster of the first level whose nodes know these; nobody has spoken to this leader yet.
fn cluster() -> Lead {
    let mut lead = lead();
    lead.log.state.level = OLD;
    lead
}

fn tells(lead: &mut Lead, node: &str, seq: u64, level: Level) -> crate::report::LeaseVerdict {
    let mut renew = renewal(1, &format!("boot-{node}1"), seq, report(lead.log.state.applied, Some(Observed::Stopped)));
    renew.level = level;
    lead.renew(node, renew)
}

fn raised(lead: &Lead, leader: &str) -> Option<(Level, Level)> {
    match lead.view().raised_level(&member(leader), NEW) {
        Some(Command::RaiseLevel { from, to }) => Some((from, to)),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

#[test]
fn row_34_the_level_is_the_lowest_that_every_admitted_member_knows() {
    let mut lead = cluster();
    assert_eq!(raised(&lead, "pi"), None, "nobody has told yet");
    tells(&mut lead, "a", 1, NEW);
    assert_eq!(raised(&lead, "pi"), None, "b has not told yet");
    tells(&mut lead, "b", 1, OLD);
    assert_eq!(raised(&lead, "pi"), None, "b is older");
    tells(&mut lead, "b", 2, Level::new(9));
    assert_eq!(raised(&lead, "pi"), Some((OLD, NEW)), "nor higher than the leader knows");
    lead.log.must(Command::RaiseLevel { from: OLD, to: NEW });
    assert_eq!(raised(&lead, "pi"), None, "once");
}

#[test]
fn row_34_a_node_that_leads_cant_speak_for_the_appliance() {
    let mut lead = cluster();
    tells(&mut lead, "a", 1, NEW);
    tells(&mut lead, "b", 1, NEW);
    assert_eq!(raised(&lead, "a"), None);
    lead.log.must(Command::RemoveMember { name: member("pi"), raft_id: 1 });
    assert_eq!(raised(&lead, "a"), Some((OLD, NEW)));
}

#[test]
fn row_34_what_an_earlier_start_of_an_agent_told_counts_for_nothing() {
    let mut lead = cluster();
    tells(&mut lead, "a", 1, NEW);
    tells(&mut lead, "b", 1, NEW);
    lead.log.must(Log::admit("b", 2, "boot-b1", 0));
    assert_eq!(raised(&lead, "pi"), None, "it may have been downgraded");
}

#[test]
fn row_34_a_node_without_a_life_is_not_waited_for_and_not_admitted_while_it_knows_less() {
    let mut lead = Lead::new(Log::joined(Rules::ALL, &["a", "b"]));
    lead.log.must(Log::admit("a", 1, "boot-a1", 0));
    lead.log.state.level = OLD;
    tells(&mut lead, "a", 1, NEW);
    assert_eq!(raised(&lead, "pi"), Some((OLD, NEW)));
    lead.log.must(Command::RaiseLevel { from: OLD, to: NEW });
    let refused = tells(&mut lead, "b", 1, OLD);
    assert_eq!(refused, crate::report::LeaseVerdict::Refused { why: Refusal::TooOld { committed: NEW, known: OLD } });
    assert_eq!(lead.proposals(), []);
    tells(&mut lead, "b", 2, NEW);
    assert!(matches!(lead.proposals().as_slice(), [Command::Admit { .. }]));
}

#[test]
fn row_34_nothing_is_decided_by_the_word_of_a_node_whose_state_differs() {
    let mut lead = settled();
    lead.leases.distrust(&[(member("a"), 640)].into());
    assert_eq!(lead.hear_that("a", failed()), refusal());
    assert_eq!(lead.proposals(), [], "it may not even know what it should look at");
    assert_eq!(lead.why(), Why::WaitingForReport { node: member("a") });
    // It may have rebooted and say that it runs nothing: that is no evidence either, and it isn't admitted.
    lead.log.must(Log::fence("a", 1));
    let applied = lead.log.state.applied;
    let verdict = lead.renew("a", renewal(2, "boot-a2", 1, report(applied, Some(Observed::Stopped))));
    assert!(!is_granted(&verdict));
    assert_eq!(lead.proposals(), []);
    // An operator's word, or a device's, is.
    lead.log.must(Log::fenced(1));
    lead.log.must(Log::closed(1));
    lead.hear_that("b", Observed::Stopped);
    assert_eq!(assigned_to(&lead.proposals()), Some("b"));
    let applied = lead.log.state.applied;
    lead.renew("a", renewal(2, "boot-a2", 2, report(applied, Some(Observed::Stopped))));
    assert!(!lead.proposals().iter().any(|command| matches!(command, Command::Admit { .. })));
}

fn refusal() -> crate::report::LeaseVerdict {
    crate::report::LeaseVerdict::Refused { why: Refusal::Diverged { index: 640 } }
}
