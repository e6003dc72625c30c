use super::*;
use crate::placement::fixture::{Cluster, GIB, apart, node, on, only_on, res, rule_name, together};
use crate::placement::picture::Seat;

use Preference::{BestScore, None as Stay, TryNext};

#[test]
fn the_highest_priority_that_is_there_has_it() {
    let mut cluster = Cluster::new(3, &[("a", "n1")]).with(&[("r", on(&["a"], &[("n2", 2), ("n3", 1)]))]);
    assert_eq!(cluster.pick("a", Stay, &[]), "n2");
    cluster.takes("n2", false);
    assert_eq!(cluster.pick("a", Stay, &[]), "n3");
    cluster.takes("n3", false);
    assert_eq!(cluster.pick("a", Stay, &[]), "n1", "the last resort of a rule that isn't strict");
}

#[test]
fn a_strict_rule_leaves_it_nowhere_rather_than_elsewhere() {
    let mut cluster = Cluster::new(3, &[("a", "n1")]).with(&[("r", only_on(&["a"], &["n2"]))]);
    assert_eq!(cluster.pick("a", Stay, &[]), "n2");
    cluster.takes("n2", false);
    let choice = cluster.ask("a", Stay, &[]);
    assert_eq!(choice.outcome, Outcome::Nowhere);
    assert_eq!(choice.others[&node("n1")], LeftOut::NotAllowed { rule: rule_name("r") });
    assert_eq!(
        choice.to_string(),
        "a: no node can have it; not n1: the rule r allows other nodes only; not n2: it takes no resources now; \
         not n3: the rule r allows other nodes only"
    );
}

#[test]
fn without_failback_it_stays_where_it_is_allowed_and_says_what_is_preferred() {
    let mut cluster = Cluster::new(3, &[("a", "n2")]).with(&[("r", on(&["a"], &[("n1", 2), ("n2", 1)]))]);
    cluster.failback = false;
    let choice = cluster.ask("a", Stay, &[]);
    assert_eq!(choice.node(), Some(&node("n2")));
    assert_eq!(choice.outcome.to_string(), "failback is off: it stays on n2 though n1 is preferred");
    assert_eq!(choice.others[&node("n1")], LeftOut::Staying);
    // Recovery asks for the best node all the same.
    assert_eq!(cluster.pick("a", BestScore, &[]), "n1");
    // Outside of a strict rule it isn't allowed to stay.
    cluster = cluster.with(&[("r", only_on(&["a"], &["n1"]))]);
    assert_eq!(cluster.pick("a", Stay, &[]), "n1");
    cluster = cluster.with(&[]);
    assert_eq!(cluster.ask("a", Stay, &[]).outcome, Outcome::Stays { node: node("n2") });
}

#[test]
fn without_failback_it_still_leaves_what_it_is_kept_apart_from_and_joins_what_it_belongs_with() {
    let mut cluster = Cluster::new(2, &[("a", "n1"), ("b", "n1")]).with(&[("x", apart(&["a", "b"]))]);
    cluster.failback = false;
    assert_eq!(cluster.pick("a", Stay, &[]), "n2");
    let mut cluster = Cluster::new(2, &[("a", "n1"), ("b", "n2")]).with(&[("t", together(&["a", "b"]))]);
    cluster.failback = false;
    cluster.rest();
    assert_eq!(cluster.places(), "a:n2 b:n2");
}

#[test]
fn trying_the_next_leaves_out_where_it_failed_and_takes_the_one_after() {
    let cluster = Cluster::new(3, &[("a", "n1"), ("b", "n2")]);
    // By score: n3 (0), n1 (1), n2 (1).
    assert_eq!(cluster.pick("a", TryNext, &["n1"]), "n3");
    assert_eq!(cluster.pick("a", TryNext, &[]), "n2");
    assert_eq!(cluster.ask("a", TryNext, &[]).outcome, Outcome::Next { node: node("n2"), after: node("n1") });
    // After the last comes the first.
    assert_eq!(cluster.pick("b", TryNext, &[]), "n3");
    let choice = cluster.ask("a", TryNext, &["n1", "n2", "n3"]);
    assert_eq!(choice.outcome, Outcome::Nowhere);
    assert_eq!(choice.others[&node("n3")], LeftOut::Failed);
}

#[test]
fn a_failed_class_of_nodes_is_not_followed_by_the_next_class() {
    let cluster = Cluster::new(3, &[("a", "n1")]).with(&[("r", on(&["a"], &[("n1", 1)]))]);
    assert_eq!(cluster.pick("a", TryNext, &["n1"]), "-", "it is tried again where it is");
}

#[test]
fn both_ends_of_a_move_are_closed_to_who_is_kept_apart() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n1")]).with(&[("x", apart(&["a", "b"]))]);
    cluster.moving("a", "n1", "n2");
    let choice = cluster.ask("b", BestScore, &[]);
    assert_eq!(choice.outcome, Outcome::Only { node: node("n3") });
    assert_eq!(choice.others[&node("n2")].to_string(), "a is there, and the rule x keeps them apart");
    assert!(matches!(choice.others[&node("n1")], LeftOut::Apart { .. }));
}

#[test]
fn company_draws_to_the_node_with_most_of_it_then_by_name() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n3"), ("c", "n2"), ("d", "n3")])
        .with(&[("t", together(&["a", "b", "c", "d"]))]);
    let choice = cluster.ask("a", Stay, &[]);
    assert_eq!(choice.node(), Some(&node("n3")));
    assert_eq!(choice.others[&node("n1")], LeftOut::Together { rule: Some(rule_name("t")), at: node("n3") });
    cluster.seat("d", Seat::Nowhere);
    assert_eq!(cluster.pick("a", Stay, &[]), "n2");
    // What moves draws to where it goes, or the two would pass each other.
    cluster.moving("c", "n2", "n3");
    assert_eq!(cluster.pick("a", Stay, &[]), "n3");
}

#[test]
fn it_goes_home_after_maintenance_unless_its_company_is_elsewhere() {
    let mut cluster = Cluster::new(3, &[("a", "n2"), ("b", "n2")]);
    cluster.homes.insert(res("a"), node("n3"));
    let choice = cluster.ask("a", Stay, &[]);
    assert_eq!(choice.outcome.to_string(), "n3 is the node that it left for maintenance");
    assert_eq!(choice.others[&node("n2")], LeftOut::GoingHome);
    cluster.takes("n3", false);
    assert_eq!(cluster.pick("a", Stay, &[]), "n2");
    cluster.takes("n3", true);
    let cluster = cluster.with(&[("t", together(&["a", "b"]))]);
    assert_eq!(cluster.pick("a", Stay, &[]), "n2");
}

#[test]
fn nothing_moves_without_a_reason() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n1"), ("c", "n1")]);
    assert_eq!(cluster.round(), [""; 0]);
    let choice = cluster.ask("a", Stay, &[]);
    assert_eq!(choice.outcome, Outcome::Stays { node: node("n1") });
    assert_eq!(choice.others.into_values().collect::<Vec<_>>(), [LeftOut::Staying, LeftOut::Staying]);
}

#[test]
fn recovered_resources_spread_because_each_counts_for_the_next() {
    let names = ["a", "b", "c", "d", "e"];
    let mut cluster = Cluster::new(3, &names.map(|name| (name, "n3")));
    cluster.add("x", "n1", 0, 0);
    cluster.lose("n3");
    assert_eq!(cluster.round(), ["a n3 n2", "b n3 n1", "c n3 n2", "d n3 n1", "e n3 n2"]);
}

#[test]
fn a_node_without_the_memory_is_left_out_and_says_by_how_much() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.size("n1", 24, 8 * GIB);
    cluster.add("big", "n1", 0, 5 * GIB);
    cluster.add("new", "-", 0, 4 * GIB);
    let choice = cluster.ask("new", BestScore, &[]);
    assert_eq!(choice.outcome, Outcome::Only { node: node("n2") });
    assert_eq!(choice.others[&node("n1")].to_string(), "4096 MiB of memory are needed and 3072 MiB are free");
    // The node that is too small isn't there: the next class is asked.
    let cluster = cluster.with(&[("r", on(&["new"], &[("n1", 1)]))]);
    assert_eq!(cluster.pick("new", BestScore, &[]), "n2");
}

#[test]
fn unknown_memory_limits_nothing() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.add("new", "-", 0, 999 * GIB);
    assert_eq!(cluster.pick("new", BestScore, &[]), "-");
    cluster.change("new", |view| view.memory = None);
    assert_eq!(cluster.pick("new", BestScore, &[]), "n1");
    cluster.change("new", |view| view.memory = Some(999 * GIB));
    cluster.picture.nodes.get_mut(&node("n1")).unwrap().memory = None;
    assert_eq!(cluster.pick("new", BestScore, &[]), "n1");
}

#[test]
fn an_overcommitted_node_drives_nobody_out() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.size("n1", 24, GIB);
    cluster.add("a", "n1", 0, GIB);
    cluster.add("b", "n1", 0, GIB);
    assert_eq!(cluster.pick("a", Stay, &[]), "n1");
}

#[test]
fn the_first_of_a_bundle_takes_a_node_for_all_of_it_and_none_is_torn_off() {
    let bundle = [("t", together(&["a", "b"]))];
    let mut cluster = Cluster::new(2, &[]).with(&bundle);
    cluster.size("n1", 24, 3 * GIB);
    cluster.add("a", "-", 0, 2 * GIB);
    cluster.add("b", "-", 0, 2 * GIB);
    assert_eq!(cluster.pick("a", BestScore, &[]), "n2");
    // Once a is on n1, b waits for memory there, though n2 has some.
    cluster.seat("a", Seat::On(node("n1")));
    let choice = cluster.ask("b", BestScore, &[]);
    assert_eq!(choice.outcome, Outcome::Nowhere);
    assert!(matches!(choice.others[&node("n1")], LeftOut::TooSmall(_)));
    assert!(matches!(choice.others[&node("n2")], LeftOut::Together { .. }));
}

#[test]
fn the_reason_for_the_best_score_is_told() {
    let cluster = Cluster::new(2, &[("a", "n1"), ("b", "-")]);
    let choice = cluster.ask("b", BestScore, &[]);
    assert_eq!(choice.to_string(), "b: n2 has the fewest resources (0); not n1: its score is no better (1.000)");
    let mut cluster = cluster.by(Scoring::Static);
    cluster.picture.nodes.get_mut(&node("n1")).unwrap().cpus = None;
    let text = cluster.ask("b", BestScore, &[]).outcome.to_string();
    assert!(text.ends_with("resources are counted, because processors or memory of n1 aren't known"), "{text}");
}

#[test]
fn nothing_that_runs_is_moved_to_make_room() {
    let mut cluster = Cluster::new(2, &[]).with(&[("t", together(&["a", "b"]))]);
    cluster.size("n1", 24, 3 * GIB);
    cluster.add("a", "n1", 0, 2 * GIB);
    cluster.add("b", "-", 0, 2 * GIB);
    assert_eq!(cluster.pick("a", Stay, &[]), "n1");
}
