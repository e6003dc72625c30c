use super::*;
use crate::placement::fixture::{Cluster, Dice, GIB, node, res};

#[test]
fn basic_counts_resources_at_both_ends_of_a_move() {
    let mut cluster = Cluster::new(3, &[("a", "n1"), ("b", "n1"), ("c", "n1")]);
    cluster.moving("c", "n1", "n2");
    let scores = score(&cluster.picture, &res("a"), Scoring::Basic);
    assert_eq!(scores.nodes.into_values().collect::<Vec<_>>(), [3.0, 1.0, 0.0]);
}

#[test]
fn equal_nodes_have_equal_scores_whatever_their_place() {
    let mut cluster = Cluster::new(5, &[]);
    for (i, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        cluster.add(name, &format!("n{}", i + 1), 700, 3 * GIB + 12345);
    }
    cluster.add("new", "-", 300, GIB + 777);
    let scores = score(&cluster.picture, &res("new"), Scoring::Static);
    assert_eq!(scores.unknown, None);
    let first = scores.nodes[&node("n1")];
    assert!(scores.nodes.values().all(|score| score.to_bits() == first.to_bits()), "{:?}", scores.nodes);
}

#[test]
fn a_node_that_doesnt_say_what_it_has_makes_resources_count() {
    let mut cluster = Cluster::new(2, &[("a", "n1")]);
    cluster.picture.nodes.get_mut(&node("n2")).unwrap().memory = None;
    let scores = score(&cluster.picture, &res("a"), Scoring::Static);
    assert_eq!((scores.scoring, scores.unknown), (Scoring::Basic, Some(node("n2"))));
    // One that takes nothing is asked nothing.
    cluster.takes("n2", false);
    assert_eq!(score(&cluster.picture, &res("a"), Scoring::Static).unknown, None);
}

#[test]
fn memory_weighs_more_than_processors() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.add("cpu", "n1", 12_000, 0);
    cluster.add("memory", "n2", 0, 64 * GIB);
    cluster.add("new", "-", 1000, 8 * GIB);
    let scores = score(&cluster.picture, &res("new"), Scoring::Static).nodes;
    assert!(scores[&node("n1")] < scores[&node("n2")], "{scores:?}");
}

#[test]
fn no_limit_on_processors_counts_as_all_of_the_nodes() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.add("all", "n1", 0, 0);
    cluster.add("most", "n2", 23_000, 0);
    let loads = loads(&cluster.picture, Scoring::Static).unwrap();
    assert!((loads[&node("n1")].1.cpu - 1.0).abs() < 1e-12);
    assert!((loads[&node("n2")].1.cpu - 23.0 / 24.0).abs() < 1e-12);
}

#[test]
fn dynamic_takes_what_is_measured_and_the_promise_where_nothing_is() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.add("a", "n1", 24_000, 64 * GIB);
    cluster.measure("a", 2400, 0);
    cluster.add("b", "n2", 6000, 0);
    cluster.moving("a", "n1", "n2");
    let at = |scoring| loads(&cluster.picture, scoring).unwrap().into_values().map(|(_, load)| load.cpu).collect();
    let (fixed, dynamic): (Vec<f64>, Vec<f64>) = (at(Scoring::Static), at(Scoring::Dynamic));
    assert_eq!(fixed, [1.0, 1.25]);
    assert!((dynamic[0] - 0.1).abs() < 1e-12 && (dynamic[1] - 1.25).abs() < 1e-12, "{dynamic:?}");
}

#[test]
fn memory_becomes_a_float_exactly() {
    for value in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 53) - 1] {
        assert_eq!(format!("{}", float(value)), value.to_string());
    }
}

#[test]
fn scores_are_those_of_another_implementation() {
    // Processors and GiB of three nodes, in use on them, and of the new resource; scores by a script of a few lines that
    // shares nothing with this crate.
    let cases = [
        ([(8, 128, 3, 54), (32, 32, 1, 16), (16, 128, 7, 97)], (8, 16), [0.423_302, 0.576_698, 0.493_561]),
        ([(8, 64, 2, 43), (16, 32, 1, 11), (8, 64, 1, 5)], (2, 10), [0.924_979, 0.229_412, 0.163_489]),
    ];
    for (nodes, (cpus, gib), expected) in cases {
        let mut cluster = Cluster::new(3, &[]);
        for (i, (has_cpus, has_gib, cpus, gib)) in (1..).zip(nodes) {
            cluster.size(&format!("n{i}"), has_cpus, has_gib * GIB);
            cluster.add(&format!("used{i}"), &format!("n{i}"), cpus * 1000, gib * GIB);
        }
        cluster.add("new", "-", cpus * 1000, gib * GIB);
        let scores: Vec<f64> = score(&cluster.picture, &res("new"), Scoring::Static).nodes.into_values().collect();
        assert!(scores.iter().zip(expected).all(|(score, known)| (score - known).abs() < 1e-6), "{scores:?}");
    }
}

#[test]
fn a_share_that_is_raised_changes_the_spread_as_counting_anew_does() {
    let anew = |mut shares: Vec<f64>| {
        shares.sort_by(f64::total_cmp);
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        let count = float(u64::try_from(shares.len()).unwrap());
        [1.0 + (squares / count).sqrt(), 1.0 + shares.last().unwrap()]
    };
    let mut seed = 7_u64;
    let mut roll = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        float((seed >> 33) % sides)
    };
    for _ in 0..2_000 {
        let count = 1 + roll(9) as usize;
        let mut shares: Vec<f64> = (0..count).map(|_| roll(6) / 7.0).collect();
        let (at, more) = (roll(count as u64) as usize, roll(5) / 11.0);
        let kept = Shares::new(shares.iter().copied()).spread_with(shares[at], shares[at] + more);
        shares[at] += more;
        let close = kept.iter().zip(anew(shares.clone())).all(|(kept, anew)| (kept - anew).abs() < 1e-12);
        assert!(close, "{shares:?}: {kept:?}");
    }
}

#[test]
fn where_nothing_is_raised_all_shares_spread_alike() {
    let shares = [0.1, 0.7, 0.3, 1e-9, 0.2 + 0.1];
    let spread = Shares::new(shares.into_iter());
    let first = spread.spread_with(shares[0], shares[0]).map(f64::to_bits);
    assert!(shares.iter().all(|share| spread.spread_with(*share, *share).map(f64::to_bits) == first));
}

#[test]
fn the_least_is_the_best_of_the_scores_of_those_that_have_room() {
    for case in 1..=500_u64 {
        let mut dice = Dice(case.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let nodes = 2 + dice.roll(5);
        let mut cluster = Cluster::new(usize::try_from(nodes).unwrap(), &[]);
        for i in 0..dice.roll(12) {
            let (name, on) = (format!("r{i}"), format!("n{}", 1 + dice.roll(nodes)));
            cluster.add(&name, &on, u32::try_from(dice.roll(4) * 1000).unwrap(), dice.roll(30) * GIB);
        }
        cluster.add("new", "-", 1500, (1 + dice.roll(60)) * GIB);
        let new = &cluster.picture.resources()[&res("new")];
        for scoring in Scoring::ALL {
            let shut = node(&format!("n{}", 1 + dice.roll(nodes)));
            let scores = score(&cluster.picture, &res("new"), scoring).nodes;
            let able = scores.iter().filter(|(at, _)| **at != shut && cluster.picture.has_room(at, new));
            // Of several the first by name.
            let best = able.reduce(|best, other| if other.1 < best.1 { other } else { best }).map(|(at, _)| at);
            assert_eq!(least(&cluster.picture, new, scoring, |at| *at != shut), best, "case {case}");
        }
    }
}
