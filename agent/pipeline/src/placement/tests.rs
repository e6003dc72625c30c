//! What rules, choices and moves promise together: published scenarios of Proxmox VE by their final nodes, and small
//! random clusters.

use std::collections::{BTreeMap, BTreeSet};

use super::choose::{Outcome, Preference, Wish, choose, plainly};
use super::fixture::{Cluster, Dice, GIB, NAMES, apart, node, on, random_rules, res, rules, together};
use super::judge::{EffectiveRules, judge_rules};
use super::moves::check_move;
use super::picture::{NodeView, Picture, ResourceView, Seat, Use};
use super::score::{Load, Scoring, loads};
use crate::name::MemberName;

#[test]
fn scattered_company_gathers() {
    let mut cluster = Cluster::new(3, &[("a", "n3"), ("b", "n1")]).with(&[("t", together(&["a", "b"]))]);
    // As the published scenario begins: b has been sent to a.
    cluster.moving("b", "n1", "n3");
    cluster.rest();
    assert_eq!(cluster.round(), [""; 0]);
    cluster.land();
    assert_eq!(cluster.places(), "a:n3 b:n3");
}

#[test]
fn a_bundle_is_parted_from_what_one_of_it_is_kept_apart_from() {
    let mut cluster = Cluster::new(3, &[("a1", "n3"), ("b1", "n1"), ("b2", "n3"), ("b3", "n1")])
        .with(&[("t", together(&["b1", "b2", "b3"])), ("x", apart(&["b1", "a1"]))]);
    assert_eq!(cluster.round(), ["a1 n3 n2", "b2 n3 n1"]);
    cluster.land();
    assert_eq!(cluster.round(), [""; 0]);
}

#[test]
fn two_bundles_on_the_same_nodes_part() {
    let rules =
        [("a", together(&["a1", "a2", "a3"])), ("b", together(&["b1", "b2", "b3"])), ("x", apart(&["a1", "b1"]))];
    let on = |a2| [("a1", "n1"), ("a2", a2), ("a3", "n1"), ("b1", "n1"), ("b2", "n2"), ("b3", "n1")];
    let ends = [
        (3, "n3", "a1:n3 a2:n3 a3:n3 b1:n2 b2:n2 b3:n2"),
        (3, "n2", "a1:n3 a2:n3 a3:n3 b1:n2 b2:n2 b3:n2"),
        (4, "n2", "a1:n3 a2:n3 a3:n3 b1:n4 b2:n4 b3:n4"),
    ];
    for (nodes, a2, end) in ends {
        let mut cluster = Cluster::new(nodes, &on(a2)).with(&rules);
        cluster.rest();
        assert_eq!(cluster.places(), end, "{nodes} nodes, a2 on {a2}");
    }
}

#[test]
fn recovery_keeps_parted_what_is_parted() {
    let others = [("d", "n1"), ("e", "n1"), ("f", "n1"), ("g", "n2"), ("h", "n2")];
    let mut at: Vec<_> = vec![("a", "n3"), ("b", "n4"), ("c", "n5")];
    at.extend(others);
    let mut cluster = Cluster::new(5, &at).with(&[("x", apart(&["a", "b", "c"]))]);
    cluster.lose("n4");
    cluster.lose("n5");
    assert_eq!(cluster.round(), ["b n4 n2", "c n5 n1"]);
    // With three nodes for three there is none to recover on.
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n2"), ("c", "n3")]).with(&[("x", apart(&["a", "b", "c"]))]);
    cluster.lose("n3");
    assert_eq!(cluster.round(), [""; 0]);
    // Two pairs with one in common leave its partner's node.
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n2"), ("c", "n3")])
        .with(&[("x", apart(&["a", "b"])), ("y", apart(&["a", "c"]))]);
    cluster.lose("n3");
    assert_eq!(cluster.round(), ["c n3 n2"]);
}

#[test]
fn recovery_keeps_together_what_is_together_even_when_one_fails_there() {
    let at = [("a", "n3"), ("b", "n3"), ("c", "n3"), ("d", "n1"), ("e", "n1"), ("f", "n2")];
    let mut cluster = Cluster::new(3, &at).with(&[("t", together(&["a", "b", "c"]))]);
    cluster.lose("n3");
    assert_eq!(cluster.round(), ["a n3 n2", "b n3 n2", "c n3 n2"]);
    assert_eq!(cluster.pick("a", Preference::TryNext, &["n2"]), "n1");
    cluster.moving("a", "n2", "n1");
    cluster.rest();
    assert!(cluster.places().starts_with("a:n1 b:n1 c:n1"), "{}", cluster.places());
}

#[test]
fn a_node_affinity_of_one_draws_its_bundle() {
    for (nodes, end) in [(&[("n2", 0)][..], "n2"), (&[("n1", 0), ("n2", 0)], "n1")] {
        let mut cluster = Cluster::new(3, &[("a", "n3"), ("b", "n3"), ("c", "n3")])
            .with(&[("r", on(&["b"], nodes)), ("t", together(&["a", "b", "c"]))]);
        let expected: Vec<_> = ["a", "b", "c"].iter().map(|name| format!("{name} n3 {end}")).collect();
        assert_eq!(cluster.round(), expected);
    }
}

#[test]
fn who_is_parted_spreads_over_the_nodes_of_its_rule() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::new(5, &names.map(|name| (name, "n1")))
        .with(&[("r", on(&names, &[("n2", 0), ("n3", 0), ("n4", 0)])), ("x", apart(&names))]);
    assert_eq!(cluster.round(), ["a n1 n2", "b n1 n3", "c n1 n4"]);
    let mut cluster = Cluster::new(3, &[("a", "n3"), ("b", "n1"), ("c", "n1")])
        .with(&[("r", on(&["b"], &[("n2", 0), ("n3", 0)])), ("x", apart(&names))]);
    cluster.rest();
    assert_eq!(cluster.places(), "a:n3 b:n2 c:n1");
}

#[test]
fn a_ring_of_preferences_that_needs_two_moves_at_once_waits_for_one_to_step_aside() {
    let mut cluster = Cluster::new(4, &[("a", "n1"), ("b", "n2"), ("c", "n3")]).with(&[
        ("ra", on(&["a"], &[("n2", 0)])),
        ("rb", on(&["b"], &[("n3", 0)])),
        ("rc", on(&["c"], &[("n1", 0)])),
        ("x", apart(&["a", "b", "c"])),
    ]);
    assert_eq!(cluster.round(), [""; 0]);
    cluster.seat("a", Seat::Nowhere);
    assert_eq!(cluster.round(), ["c n3 n1"]);
    cluster.land();
    assert_eq!(cluster.round(), ["b n2 n3"]);
    cluster.land();
    assert_eq!(cluster.pick("a", Preference::BestScore, &[]), "n2");
}

fn evacuated(sizes: [(u32, u64); 3], resources: &[(&str, &str, u32, u64)]) -> Vec<String> {
    let mut cluster = Cluster::new(3, &[]).by(Scoring::Static);
    for (i, (cpus, gb)) in sizes.into_iter().enumerate() {
        cluster.size(&format!("n{}", i + 1), cpus, gb * 1_000_000_000);
    }
    for (name, on, cpu, mb) in resources {
        cluster.add(name, on, *cpu, mb * 1_000_000);
    }
    cluster.takes("n1", false);
    cluster.round()
}

#[test]
fn a_node_is_evacuated_by_shares_of_processors_and_memory() {
    let nine: Vec<String> = (1..=9).map(|i| format!("v{i}")).collect();
    let all: Vec<_> = nine.iter().map(|name| (name.as_str(), "n1", 2000, 4000)).collect();
    // A node twice as big gets twice as many.
    let to: Vec<_> = ["n2", "n2", "n3", "n2", "n2", "n3", "n2", "n2", "n3"].to_vec();
    let expected: Vec<_> = nine.iter().zip(to).map(|(name, to)| format!("{name} n1 {to}")).collect();
    assert_eq!(evacuated([(32, 100), (64, 200), (32, 100)], &all), expected);
    // One without a limit of processors and with much memory leaves the other node to the rest.
    let mut all = all;
    for (i, view) in all.iter_mut().enumerate() {
        (view.2, view.3) = if i == 0 { (0, 40_000) } else { (2000, 2000) };
    }
    let expected: Vec<_> =
        nine.iter().enumerate().map(|(i, name)| format!("{name} n1 {}", if i == 0 { "n2" } else { "n3" })).collect();
    assert_eq!(evacuated([(32, 100), (32, 100), (32, 100)], &all), expected);
    // Memory in use outweighs processors that are free.
    let mut all: Vec<_> = nine[3..].iter().map(|name| (name.as_str(), "n1", 500, 200)).collect();
    all.extend([("v2", "n2", 500, 40_000), ("v3", "n3", 500, 200)]);
    assert!(evacuated([(32, 100), (32, 100), (128, 100)], &all).iter().all(|moved| moved.ends_with(" n3")));
}

#[test]
fn unlike_resources_start_where_proxmox_starts_them() {
    // Scenario static-rebalance-resource-affinity2: processors, GB of memory, and the node that it starts on.
    let expected = [
        ("v100", 8, 16, "n1"),
        ("v101", 4, 8, "n2"),
        ("v102", 2, 8, "n3"),
        ("v103", 2, 4, "n3"),
        ("v200", 4, 24, "n2"),
        ("v201", 2, 8, "n3"),
        ("v202", 4, 4, "n3"),
        ("v203", 2, 8, "n1"),
        ("v300", 6, 32, "n3"),
        ("v301", 2, 4, "n1"),
        ("v302", 2, 8, "n2"),
        ("v303", 4, 8, "n1"),
    ];
    let mut cluster = Cluster::new(3, &[]).by(Scoring::Static).with(&[
        ("x1", apart(&["v100", "v200"])),
        ("x2", apart(&["v200", "v300"])),
        ("x3", apart(&["v100", "v300"])),
    ]);
    for (name, cpus, gb) in [("n1", 8, 112), ("n2", 8, 112), ("n3", 8, 112)] {
        cluster.size(name, cpus, gb * 1_000_000_000);
    }
    for (name, cpus, gb, to) in expected {
        cluster.add(name, "-", cpus * 1000, gb * 1_000_000_000);
        assert_eq!(cluster.pick(name, Preference::BestScore, &[]), to, "{name}");
        cluster.seat(name, Seat::On(node(to)));
    }
}

fn random_picture(dice: &mut Dice, nodes: u64) -> Picture {
    let some = |dice: &mut Dice, sides| (dice.roll(5) > 0).then(|| dice.roll(sides));
    let (mut nodes_of, mut resources) = (BTreeMap::new(), BTreeMap::new());
    for i in 1..=nodes {
        let memory = some(dice, 12).map(|n| n * GIB);
        let view =
            NodeView { may_take: dice.roll(5) > 0, memory, cpus: some(dice, 9).map(|n| u32::try_from(n).unwrap()) };
        nodes_of.insert(node(&format!("n{i}")), view);
    }
    for name in NAMES {
        let mut at = || node(&format!("n{}", 1 + dice.roll(nodes)));
        let (one, two) = (at(), at());
        let seat = match dice.roll(6) {
            0 => Seat::Nowhere,
            1 if one != two => Seat::Moving { from: one, to: two },
            _ => Seat::On(one),
        };
        let view = ResourceView {
            seat,
            memory: some(dice, 4).map(|n| n * GIB),
            cpu_milli: some(dice, 3).map(|n| u32::try_from(n).unwrap() * 1000),
            measured: dice.yes().then_some(Use { cpu_milli: 500, memory: GIB }),
            only_on: BTreeSet::new(),
            may_balance: dice.yes(),
        };
        resources.insert(res(name), view);
    }
    Picture::new(nodes_of, resources)
}

/// What no choice may break, but where nothing changes.
fn assert_hard_rules(picture: &Picture, effective: &EffectiveRules, name: &str, to: &MemberName, case: u64) {
    let name = res(name);
    let before = &picture.resources()[&name].seat;
    assert!(picture.nodes[to].may_take, "case {case}");
    if let Some(belongs) = effective.node_rule(&name) {
        assert!(!belongs.strict || belongs.nodes.contains_key(to), "case {case}: {name} breaks {}", belongs.rule);
    }
    for (peer, rule) in effective.apart_from(&name) {
        let Some(view) = picture.resources().get(peer) else { continue };
        assert!(!view.seat.counts_on(to), "case {case}: {name} joins {peer} in spite of {rule}");
    }
    if let (Some(capacity), false) = (picture.nodes[to].memory, before.counts_on(to)) {
        let there = picture.resources().iter().filter(|(other, view)| **other == name || view.seat.counts_on(to));
        let sum: u64 = there.filter_map(|(_, view)| view.memory).sum();
        let needs = picture.resources()[&name].memory.unwrap_or(0);
        assert!(needs == 0 || sum <= capacity, "case {case}: {name} overcommits {to}");
    }
}

#[test]
fn what_is_kept_for_choices_is_what_counting_anew_gives() {
    for case in 1..=1000_u64 {
        let mut dice = Dice(case.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let nodes = 1 + dice.roll(5);
        let mut picture = random_picture(&mut dice, nodes);
        for _ in 0..6 {
            let name = res(NAMES[usize::try_from(dice.roll(NAMES.len() as u64)).unwrap()]);
            let mut at = || node(&format!("n{}", 1 + dice.roll(nodes)));
            let (from, to) = (at(), at());
            let seat = [Seat::Nowhere, Seat::On(from.clone()), Seat::Moving { from, to }];
            let seat = seat[usize::try_from(dice.roll(3)).unwrap()].clone();
            picture.change(&name, |view| view.seat = seat);
        }
        assert_eq!(picture, Picture::new(picture.nodes.clone(), picture.resources().clone()), "case {case}");
        for (at, view) in &picture.nodes {
            let there: Vec<_> = picture.resources().values().filter(|view| view.seat.counts_on(at)).collect();
            assert_eq!(picture.count_on(at), there.len(), "case {case}");
            let taken: u64 = there.iter().filter_map(|view| view.memory).sum();
            for name in NAMES.map(res) {
                let arriving = &picture.resources()[&name];
                let needs = arriving.memory.filter(|_| !arriving.seat.counts_on(at)).unwrap_or(0);
                let free = view.memory.map(|memory| memory.saturating_sub(taken));
                let fits = needs == 0 || free.is_none_or(|free| needs <= free);
                assert_eq!(picture.fits(at, &BTreeSet::from([&name])).is_ok(), fits, "case {case}");
            }
        }
        for scoring in [Scoring::Static, Scoring::Dynamic] {
            let Ok(kept) = loads(&picture, scoring) else { continue };
            for (at, (size, load)) in kept {
                let anew = picture.resources().values().fold(Load::default(), |load, view| match &view.seat {
                    Seat::On(on) if on == at => load.plus(size.used(view, scoring)),
                    Seat::Moving { from, to: _ } if from == at => load.plus(size.used(view, scoring)),
                    Seat::Moving { from: _, to } if to == at => load.plus(size.promised(view)),
                    Seat::Nowhere | Seat::On(_) | Seat::Moving { .. } => load,
                });
                let apart = (load.cpu - anew.cpu).abs().max((load.memory - anew.memory).abs());
                assert!(apart < 1e-12, "case {case}: {load:?} {anew:?}");
            }
        }
    }
}

#[test]
fn whatever_is_chosen_breaks_no_hard_rule_and_is_chosen_again() {
    let (mut chosen, mut nowhere, mut faulty, mut plain) = (0, 0, 0, 0);
    for case in 1..=4000_u64 {
        let mut dice = Dice(case.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let nodes = 1 + dice.roll(5);
        let list = random_rules(&mut dice, nodes);
        let borrowed: Vec<_> = list.iter().map(|(name, rule)| (name.as_str(), rule.clone())).collect();
        let picture = random_picture(&mut dice, nodes);
        let all: BTreeSet<MemberName> = picture.nodes.keys().cloned().collect();
        let (effective, faults) = judge_rules(&rules(&borrowed), &all);
        faulty += faults.len();
        let scoring = [Scoring::Basic, Scoring::Static, Scoring::Dynamic][usize::try_from(dice.roll(3)).unwrap()];
        for name in NAMES {
            let preference = [Preference::None, Preference::BestScore, Preference::TryNext];
            let failed: BTreeSet<MemberName> = all.iter().filter(|_| dice.roll(4) == 0).cloned().collect();
            let (resource, home) = (res(name), node("n1"));
            let current = picture.resources()[&resource].seat.nodes().next();
            let wish = Wish {
                resource: &resource,
                preference: preference[usize::try_from(dice.roll(3)).unwrap()],
                failed: &failed,
                home: dice.yes().then_some(&home),
                current,
                failback: dice.yes(),
            };
            let choice = choose(&picture, &effective, scoring, &wish);
            assert_eq!(choice, choose(&picture.clone(), &effective.clone(), scoring, &wish), "case {case}");
            if let Some(plainly) = plainly(&picture, &effective, scoring, &wish) {
                plain += 1;
                assert_eq!(choice.node(), Some(plainly), "case {case}: {name}");
                let stays = wish.preference == Preference::None && current.is_some();
                assert!(!stays || matches!(choice.outcome, Outcome::Stays { .. }), "case {case}: {name}");
            }
            let mut answered: BTreeSet<_> = choice.others.keys().cloned().collect();
            answered.extend(choice.node().cloned());
            assert_eq!(answered, all, "case {case}: every node is answered for");
            assert!(choice.node().is_none_or(|to| !choice.others.contains_key(to)), "case {case}");
            match choice.node() {
                Some(to) => {
                    chosen += 1;
                    assert_hard_rules(&picture, &effective, name, to, case);
                    let again = wish.preference == Preference::TryNext && failed.contains(to);
                    assert!(!again, "case {case}: {name} is sent to where it failed");
                }
                None => nowhere += 1,
            }
            for to in &all {
                if let Ok(moves) = check_move(&picture, &effective, &resource, to) {
                    for moved in &moves.resources {
                        assert_hard_rules(&picture, &effective, moved.as_str(), to, case);
                    }
                }
            }
        }
    }
    let reached = chosen > 5000 && nowhere > 1000 && faulty > 500 && plain > 500;
    assert!(reached, "{chosen} {nowhere} {faulty} {plain}");
}

#[test]
fn one_by_one_parted_resources_stay_parted_and_bundles_whole() {
    for case in 1..=1500_u64 {
        let mut dice = Dice(case.wrapping_mul(0xD134_2543_DE82_EF95));
        let nodes = 2 + dice.roll(4);
        let list = random_rules(&mut dice, nodes);
        let borrowed: Vec<_> = list.iter().map(|(name, rule)| (name.as_str(), rule.clone())).collect();
        let mut cluster = Cluster::new(usize::try_from(nodes).unwrap(), &NAMES.map(|name| (name, "-")));
        let all: BTreeSet<MemberName> = cluster.picture.nodes.keys().cloned().collect();
        cluster.rules = judge_rules(&rules(&borrowed), &all).0;
        for name in NAMES {
            let memory = Some((1 + dice.roll(40)) * GIB);
            cluster.change(name, |view| view.memory = memory);
            if let Some(to) = cluster.ask(name, Preference::BestScore, &[]).node().cloned() {
                cluster.seat(name, Seat::On(to));
            }
        }
        let seats: BTreeMap<_, _> = cluster
            .picture
            .resources()
            .iter()
            .filter_map(|(name, view)| Some((name, view.seat.destination()?)))
            .collect();
        for (name, at) in &seats {
            for (peer, rule) in cluster.rules.apart_from(name) {
                assert!(seats.get(peer) != Some(at), "case {case}: {name} and {peer} in spite of {rule}");
            }
            for peer in cluster.rules.bundle(name) {
                assert!(seats.get(peer).is_none_or(|there| there == at), "case {case}: {name} without {peer}");
            }
        }
        // Nothing wants to leave where it was just put.
        let places = cluster.places();
        cluster.round();
        let unplaced = |places: &str| places.replace(":-", "");
        assert_eq!(unplaced(&places), unplaced(&cluster.places()), "case {case}");
    }
}
