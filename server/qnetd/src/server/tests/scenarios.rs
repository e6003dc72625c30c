//! Votes.

use std::time::Duration;

use super::Script;
use crate::{
    config::{Clusters, Config, TlsMode},
    wire::{Algorithm, Heuristics, MessageKind, NodeId, Opt, TieBreaker},
};

/// Two nodes that see each other and have their vote.
fn formed(mut script: Script) -> Script {
    script.joins(1);
    script.sees(1, 5, &[1, 2]);
    script.joins(2);
    script.sees(2, 5, &[1, 2]);
    script.settle();
    script
}

#[test]
fn two_nodes_of_ffsplit_form() {
    insta::assert_snapshot!(formed(Script::new(Algorithm::FfSplit)).take());
}

#[test]
fn ffsplit_gives_no_ack_before_the_other_half_has_confirmed_its_nack() {
    let mut script = formed(Script::new(Algorithm::FfSplit));
    script.cut();
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.confirms(1);
    script.confirms(2);
    insta::assert_snapshot!(script.take());
}

#[test]
fn ffsplit_gives_the_ack_to_who_is_left() {
    let mut script = formed(Script::new(Algorithm::FfSplit));
    script.cut();
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.settle();
    script.leaves(1);
    script.confirms(2);
    insta::assert_snapshot!(script.take());
}

#[test]
fn a_silent_node_that_nobody_sees_is_dropped_at_once() {
    let mut script = formed(Script::new(Algorithm::FfSplit));
    script.passes(Duration::from_millis(6900));
    script.cut();
    // Node 2 lost its power: nothing comes from it any more, not even a FIN.
    script.sees(1, 6, &[1]);
    script.passes(Duration::from_secs(2));
    script.confirms(1);
    insta::assert_snapshot!(script.take());
}

#[test]
fn a_node_that_gives_a_sign_of_life_is_kept() {
    let mut script = formed(Script::new(Algorithm::FfSplit));
    script.cut();
    script.sees(1, 6, &[1]);
    script.confirms(2);
    script.passes(Duration::from_secs(2));
    insta::assert_snapshot!(script.take());
}

#[test]
fn without_signs_of_life_the_dead_peer_time_counts_as_with_the_original() {
    let config = Config::as_original(Clusters::Any(TlsMode::Off));
    let mut script = formed(Script::with(Algorithm::FfSplit, config));
    script.cut();
    script.sees(1, 6, &[1]);
    script.passes(Duration::from_millis(11_900));
    script.say(1, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
    script.passes(Duration::from_millis(200));
    insta::assert_snapshot!(script.take());
}

#[test]
fn lms_votes_at_once_and_tells_the_loser_first() {
    let mut script = formed(Script::new(Algorithm::Lms));
    script.cut();
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.settle();
    insta::assert_snapshot!(script.take());
}

#[test]
fn the_loser_of_an_lms_split_gets_the_vote_when_the_winner_dies() {
    let mut script = formed(Script::new(Algorithm::Lms));
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.settle();
    script.cut();
    script.leaves(1);
    script.settle();
    insta::assert_snapshot!(script.take());
}

#[test]
fn lms_gives_peers_of_the_nominated_node_the_vote_too() {
    let mut script = Script::new(Algorithm::Lms);
    script.configured = 4;
    script.tie_breaker = TieBreaker::Node(NodeId(4));
    for client in 1..=4 {
        script.joins(client);
    }
    for client in 1..=4 {
        script.sees(client, 5, &[1, 2, 3, 4]);
    }
    script.settle();
    script.cut();
    script.sees(1, 6, &[1, 2]);
    script.sees(2, 6, &[1, 2]);
    script.sees(3, 7, &[3, 4]);
    script.sees(4, 7, &[3, 4]);
    script.settle();
    insta::assert_snapshot!(script.take());
}

#[test]
fn lms_leaves_the_vote_with_who_has_it_when_others_only_come() {
    let mut script = Script::new(Algorithm::Lms);
    script.configured = 3;
    script.joins(3);
    script.sees(3, 5, &[3]);
    script.settle();
    script.cut();
    script.joins(1);
    script.sees(1, 9, &[1]);
    script.settle();
    insta::assert_snapshot!(script.take());
}

#[test]
fn lms_weighs_changed_checks_at_once() {
    let mut script = formed(Script::new(Algorithm::Lms));
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.settle();
    script.cut();
    script.say(1, MessageKind::HeuristicsChange, vec![Opt::Seq(9), Opt::Heuristics(Heuristics::Fail)]);
    script.settle();
    insta::assert_snapshot!(script.take());
}

#[test]
fn lms_as_the_original_does_it_waits_for_its_timer() {
    let config = Config::as_original(Clusters::Any(TlsMode::Off));
    let mut script = formed(Script::with(Algorithm::Lms, config));
    script.passes(Duration::from_secs(3));
    script.cut();
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.passes(Duration::from_secs(5));
    script.leaves(1);
    insta::assert_snapshot!(script.take());
}

#[test]
fn two_nodes_of_2nodelms_split() {
    let mut script = formed(Script::new(Algorithm::TwoNodeLms));
    script.cut();
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.say(2, MessageKind::AskForVote, vec![Opt::Seq(5)]);
    insta::assert_snapshot!(script.take());
}

#[test]
fn the_algorithm_test_says_yes_to_both() {
    let mut script = formed(Script::new(Algorithm::Test));
    script.cut();
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    insta::assert_snapshot!(script.take());
}

#[test]
fn one_can_see_who_has_which_vote_and_why() {
    let mut script = formed(Script::new(Algorithm::FfSplit));
    script.passes(Duration::from_secs(1));
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.passes(Duration::from_millis(500));
    let cluster = script.server.clusters().next().unwrap();
    let lines: Vec<String> = cluster
        .members
        .iter()
        .map(|member| {
            let (vote, reason, since) = member.standing.as_ref().unwrap();
            let since = since.duration_since(script.begun).as_millis();
            let waiting = member.waiting.as_ref().map(|why| format!("; waits: {why}")).unwrap_or_default();
            format!("node {} ring {}: {vote} since {since} ms: {reason}{waiting}", member.node, member.ring)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}
