//! The views that a split makes, one after the other, and who may fence in each.

use std::time::{Duration, Instant};

use tiebreaker_qnetd::ChosenBy;
use tiebreaker_qnetd::wire::{Heuristics, RingId, TieBreaker};

use super::*;

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn member(id: u32, sees: &[u32], standing: Option<(Vote, Reason)>, waiting: Option<Reason>) -> MemberView {
    MemberView {
        node: NodeId(id),
        address: "192.0.2.1:1".parse().unwrap(),
        heartbeat: Duration::from_secs(8),
        tls: true,
        verified: true,
        config_version: None,
        configured: nodes(&[1, 2]),
        membership: nodes(sees),
        ring: RingId { node: NodeId(id), seq: 5 },
        quorate: None,
        heuristics: Heuristics::Undefined,
        membership_heuristics: Heuristics::Undefined,
        regular_heuristics: Heuristics::Undefined,
        last_vote: None,
        standing: standing.map(|(vote, reason)| (vote, reason, Instant::now())),
        waiting,
    }
}

fn view(algorithm: Algorithm, members: Vec<MemberView>) -> ClusterView {
    let tie_breaker = TieBreaker::Lowest;
    ClusterView { name: "home".into(), algorithm, tie_breaker, keep_active: false, members }
}

fn chosen(ids: &[u32]) -> Reason {
    Reason::Chosen { partition: nodes(ids), by: ChosenBy::TieBreaker }
}

fn ask(view: &ClusterView, asker: u32, target: u32) -> Right {
    let name = |text: &str| MemberName::new(text).unwrap();
    let names = Names([(name("pve1"), NodeId(1)), (name("pve2"), NodeId(2))].into());
    right(Some(view), NodeId(asker), NodeId(target), &names)
}

fn words(right: Right) -> String {
    match right {
        Right::Granted { partition } => format!("granted to {partition:?}"),
        Right::Member { why } => format!("member: {why}"),
        Right::Open { why } => format!("open: {why}"),
        Right::Refused { why } => format!("refused: {why}"),
    }
}

#[test]
fn the_half_with_the_vote_may_and_the_mirror_request_is_refused_with_the_reason() {
    let lost = Reason::OtherChosen { partition: nodes(&[1]), by: ChosenBy::TieBreaker };
    let one = member(1, &[1], Some((Vote::Ack, chosen(&[1]))), None);
    let two = member(2, &[2], Some((Vote::Nack, lost)), None);
    let split = view(Algorithm::FfSplit, vec![one, two]);
    assert_eq!(ask(&split, 1, 2), Right::Granted { partition: nodes(&[1]) });
    let why = words(ask(&split, 2, 1));
    assert!(why.starts_with("refused: pve2 has no vote") && why.contains("the half of pve1 has it"), "{why}");
    assert!(why.contains("tie-breaker"), "{why}");
}

#[test]
fn a_vote_that_was_given_before_the_split_says_nothing() {
    let both = || Some((Vote::Ack, chosen(&[1, 2])));
    // Node 1 has told its new membership, node 2 not yet: both still stand at ACK.
    let unsettled = Some(Reason::Unsettled(tiebreaker_qnetd::Unsettled::Ring { one: NodeId(2), other: NodeId(1) }));
    let early = view(Algorithm::FfSplit, vec![member(1, &[1], both(), unsettled), member(2, &[1, 2], both(), None)]);
    assert!(words(ask(&early, 1, 2)).starts_with("open: pve1 waits for its vote"));
    assert!(words(ask(&early, 2, 1)).starts_with("member: pve1 is a member"), "{:?}", ask(&early, 2, 1));
    // The loser has been told, and has not confirmed.
    let waits = Some(Reason::AwaitingNack { from: nodes(&[2]) });
    let nack = Some((Vote::Nack, Reason::OtherChosen { partition: nodes(&[1]), by: ChosenBy::TieBreaker }));
    let told = view(Algorithm::FfSplit, vec![member(1, &[1], both(), waits), member(2, &[2], nack, None)]);
    assert!(words(ask(&told, 1, 2)).starts_with("open: "));
    // A view that can't be, in which the vote is of the old partition.
    let stale = view(Algorithm::FfSplit, vec![member(1, &[1], both(), None)]);
    assert!(words(ask(&stale, 1, 2)).contains("of an earlier partition"));
}

#[test]
fn nobody_is_fenced_while_it_may_still_cast_a_vote() {
    let alone = || Some((Vote::Ack, Reason::OnePartition));
    let split = view(Algorithm::Lms, vec![member(1, &[1], alone(), None), member(2, &[2], alone(), None)]);
    for (asker, target) in [(1, 2), (2, 1)] {
        assert!(words(ask(&split, asker, target)).contains("has not let go of its vote"));
    }
    let left = view(Algorithm::Lms, vec![member(1, &[1], alone(), None)]);
    assert_eq!(ask(&left, 1, 2), Right::Granted { partition: nodes(&[1]) });
}

#[test]
fn a_member_of_the_own_partition_is_not_fenced() {
    let both = || Some((Vote::Ack, chosen(&[1, 2])));
    let whole = view(Algorithm::FfSplit, vec![member(1, &[1, 2], both(), None), member(2, &[1, 2], both(), None)]);
    let why = words(ask(&whole, 1, 2));
    assert!(why.starts_with("member: pve2 is a member of the partition of pve1"), "{why}");
}

#[test]
fn who_is_not_connected_has_no_vote() {
    let one = member(1, &[1], Some((Vote::Ack, chosen(&[1]))), None);
    let split = view(Algorithm::FfSplit, vec![one]);
    let why = words(ask(&split, 2, 1));
    assert!(why.starts_with("refused: pve2 is not connected") && why.contains("the half of pve1 has it"), "{why}");
    let nobody = view(Algorithm::FfSplit, vec![member(1, &[1], None, None)]);
    assert!(words(ask(&nobody, 2, 1)).starts_with("open: pve2 is not connected"));
    assert!(words(ask(&nobody, 1, 2)).starts_with("open: pve1 was given no vote yet"));
    let names = Names::default();
    assert!(words(right(None, NodeId(1), NodeId(2), &names)).starts_with("open: no node of the cluster"));
}

#[test]
fn an_algorithm_that_says_yes_to_both_halves_decides_nothing() {
    let yes = Some((Vote::Ack, Reason::AlwaysYes));
    let split = view(Algorithm::Test, vec![member(1, &[1], yes, None)]);
    assert!(words(ask(&split, 1, 2)).contains("says yes to every half"));
    let odd = Some((Vote::Ack, Reason::AlwaysYes));
    let split = view(Algorithm::FfSplit, vec![member(1, &[1], odd, None)]);
    assert!(words(ask(&split, 1, 2)).starts_with("open: "));
}
