use super::*;
use crate::placement::fixture::{Cluster, GIB, apart, node, on, only_on, together};

const EAGER: BalanceSettings = BalanceSettings { threshold: 0.3, hold_rounds: 1, margin: 0.1 };

fn look(cluster: &Cluster, settings: &BalanceSettings, hold: &mut BalanceHold) -> Option<String> {
    let found = rebalance(&cluster.picture, &cluster.rules, cluster.scoring, settings, hold)?;
    assert!(found.after < found.before);
    let names: Vec<_> = found.resources.iter().map(ToString::to_string).collect();
    Some(format!("{} {} {}", names.join("+"), found.from, found.to))
}

/// Moves as long as something is found.
fn settle(cluster: &mut Cluster) -> Vec<String> {
    let mut done = Vec::new();
    while let Some(found) =
        rebalance(&cluster.picture, &cluster.rules, cluster.scoring, &EAGER, &mut BalanceHold::default())
    {
        for resource in &found.resources {
            cluster.seat(resource.as_str(), Seat::On(found.to.clone()));
        }
        let names: Vec<_> = found.resources.iter().map(ToString::to_string).collect();
        done.push(format!("{} {} {}", names.join("+"), found.from, found.to));
        assert!(done.len() < 50, "it never ends: {done:?}");
    }
    done
}

/// Three nodes with 24 processors, as in the auto-rebalance scenarios of Proxmox VE.
fn three(memory: u64, resources: &[(&str, &str, u32, u64)]) -> Cluster {
    let mut cluster = Cluster::new(3, &[]).by(Scoring::Dynamic);
    for name in ["n1", "n2", "n3"] {
        cluster.size(name, 24, memory);
    }
    for (name, on, cpu, used) in resources {
        cluster.add(name, on, 8000, GIB);
        cluster.measure(name, *cpu, *used);
    }
    cluster
}

fn four_on_one() -> Cluster {
    let used = (1000, 4 * GIB);
    three(32 * GIB, &["a", "b", "c", "d"].map(|name| (name, "n1", used.0, used.1)))
}

#[test]
fn one_move_at_a_time_after_the_hold_rounds() {
    let mut cluster = four_on_one();
    let (settings, mut hold) = (BalanceSettings::default(), BalanceHold::default());
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    assert_eq!(look(&cluster, &settings, &mut hold).unwrap(), "a n1 n2");
    // While it moves no round counts.
    cluster.moving("a", "n1", "n2");
    for _ in 0..5 {
        assert_eq!(look(&cluster, &settings, &mut hold), None);
    }
    cluster.land();
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    assert_eq!(look(&cluster, &settings, &mut hold).unwrap(), "b n1 n3");
}

#[test]
fn it_ends_where_the_imbalance_is_borne() {
    assert_eq!(settle(&mut four_on_one()), ["a n1 n2", "b n1 n3"]);
    let mut fixed = four_on_one().by(Scoring::Static);
    assert_eq!(settle(&mut fixed), ["a n1 n2", "b n1 n3"]);
    assert_eq!(settle(&mut four_on_one().by(Scoring::Basic)), [""; 0]);
}

#[test]
fn a_round_that_is_balanced_starts_the_count_anew() {
    let mut cluster = four_on_one();
    let (settings, mut hold) = (BalanceSettings::default(), BalanceHold::default());
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    cluster.seat("a", Seat::On(node("n2")));
    cluster.seat("b", Seat::On(node("n3")));
    cluster.measure("d", 0, 0);
    assert_eq!(look(&cluster, &settings, &mut hold), None);
    assert_eq!(hold, BalanceHold::default());
}

#[test]
fn a_lone_resource_isnt_chased_around() {
    let cluster = three(16 * GIB, &[("a", "n1", 1000, 4 * GIB)]);
    assert_eq!(look(&cluster, &EAGER, &mut BalanceHold::default()), None);
}

#[test]
fn a_move_must_be_worth_its_margin() {
    let cluster = three(48 * GIB, &[("big", "n1", 8000, 16 * GIB), ("crumb", "n1", 100, GIB / 8)]);
    assert_eq!(look(&cluster, &EAGER, &mut BalanceHold::default()), None);
    let any = BalanceSettings { margin: 0.0, ..EAGER };
    assert_eq!(look(&cluster, &any, &mut BalanceHold::default()).unwrap(), "big n1 n2");
}

#[test]
fn strict_rules_hold_their_resources_and_the_others_move() {
    let pinned = [("a", 900, 2500), ("b", 7900, 8192), ("c", 4700, 5000), ("d", 4000, 4096)];
    let mut cluster = three(48 * GIB, &pinned.map(|(name, cpu, mib)| (name, "n1", cpu, mib << 20)))
        .with(&[("r", only_on(&["a", "b", "c"], &["n1"]))]);
    assert_eq!(settle(&mut cluster), ["d n1 n2"]);
}

#[test]
fn a_bundle_moves_whole() {
    let used = [("a", 900, 2500), ("b", 7900, 8192), ("c", 4000, 4096)];
    let mut cluster = three(48 * GIB, &used.map(|(name, cpu, mib)| (name, "n1", cpu, mib << 20)))
        .with(&[("t", together(&["a", "b"]))]);
    assert_eq!(settle(&mut cluster), ["a+b n1 n2"]);
}

#[test]
fn who_is_kept_apart_isnt_brought_together() {
    let used = [("a", "n1", 900, 4096), ("b", "n1", 2400, 2500), ("c", "n2", 0, 0), ("d", "n3", 1000, 1024)];
    let mut cluster = three(48 * GIB, &used.map(|(name, on, cpu, mib)| (name, on, cpu, mib << 20)))
        .with(&[("x1", apart(&["a", "c"])), ("x2", apart(&["b", "c"]))]);
    assert_eq!(settle(&mut cluster), ["a n1 n3", "d n3 n2"]);
}

#[test]
fn no_one_of_a_bundle_is_brought_to_what_it_is_kept_apart_from() {
    let used = [
        ("a", "n1", 4000, 4096),
        ("b", "n1", 4000, 4096),
        ("k", "n1", 4000, 4096),
        ("y", "n3", 100, 64),
        ("z", "n2", 100, 64),
    ];
    let rules = [("t", together(&["a", "b"])), ("u", together(&["y", "z"])), ("x", apart(&["b", "y"]))];
    let mut cluster = three(48 * GIB, &used.map(|(name, on, cpu, mib)| (name, on, cpu, mib << 20))).with(&rules);
    cluster.change("k", |view| view.may_balance = false);
    assert_eq!(look(&cluster, &EAGER, &mut BalanceHold::default()), None);
    cluster.seat("z", Seat::On(node("n3")));
    assert_eq!(look(&cluster, &EAGER, &mut BalanceHold::default()).unwrap(), "a+b n1 n2");
}

#[test]
fn a_preferred_node_isnt_left_for_balance() {
    let names = ["a", "b", "c", "d"];
    let mut cluster = four_on_one().with(&[("r", on(&names, &[("n1", 1)]))]);
    assert_eq!(settle(&mut cluster), [""; 0]);
}

#[test]
fn what_may_not_be_balanced_or_isnt_measured_or_doesnt_fit_stays() {
    let mut cluster = four_on_one();
    cluster.change("a", |view| view.may_balance = false);
    cluster.change("b", |view| view.measured = None);
    cluster.change("c", |view| view.memory = Some(33 * GIB));
    assert_eq!(settle(&mut cluster), ["d n1 n2"]);
}

#[test]
fn it_says_why() {
    let cluster = four_on_one();
    let mut hold = BalanceHold::default();
    let found = rebalance(&cluster.picture, &cluster.rules, cluster.scoring, &EAGER, &mut hold).unwrap();
    assert_eq!(
        found.to_string(),
        "a from n1 to n2: the imbalance has been above 0.3 for 1 rounds, and goes from 1.41 to 0.94, the least of 8 \
         possible moves"
    );
}

#[test]
fn the_moves_of_a_changing_load_are_those_that_proxmox_publishes() {
    // Scenario auto-rebalance3, in MiB.
    let start = [
        ("v1", "n1", 900, 5192),
        ("v2", "n1", 1200, 2500),
        ("v3", "n2", 800, 5192),
        ("v4", "n2", 900, 2500),
        ("v5", "n3", 3000, 768),
        ("v6", "n3", 2900, 1538),
        ("v7", "n3", 2100, 1538),
    ];
    let mut cluster = three(48 * GIB, &start.map(|(name, on, cpu, mib)| (name, on, cpu, mib << 20)));
    assert_eq!(settle(&mut cluster), [""; 0]);
    for (name, cpu, mib) in [("v5", 7800, 7912), ("v6", 5700, 8192), ("v7", 6000, 8011)] {
        cluster.measure(name, cpu, mib << 20);
    }
    // The load changes again before a second move is due.
    assert_eq!(look(&cluster, &EAGER, &mut BalanceHold::default()).unwrap(), "v5 n3 n2");
    cluster.seat("v5", Seat::On(node("n2")));
    let later = [
        ("v1", 900, 1011),
        ("v3", 3900, 6517),
        ("v4", 6700, 8001),
        ("v5", 1800, 1201),
        ("v6", 2100, 1211),
        ("v7", 900, 1191),
    ];
    for (name, cpu, mib) in later {
        cluster.measure(name, cpu, mib << 20);
    }
    assert_eq!(settle(&mut cluster), ["v3 n2 n1", "v5 n2 n3"]);
}

#[test]
fn the_moves_of_changing_promises_are_those_that_proxmox_publishes() {
    // Scenario static auto-rebalance3.
    let at = [("v1", "n1"), ("v2", "n1"), ("v3", "n2"), ("v4", "n2"), ("v5", "n3"), ("v6", "n3"), ("v7", "n3")];
    let mut cluster = three(48 * GIB, &[]).by(Scoring::Static);
    for (name, on) in at {
        cluster.add(name, on, 2000, 2 * GIB);
    }
    assert_eq!(settle(&mut cluster), [""; 0]);
    let promise = |cluster: &mut Cluster, names: &[&str], cpu_milli, memory| {
        for name in names {
            cluster.change(name, |view| (view.cpu_milli, view.memory) = (Some(cpu_milli), Some(memory)));
        }
    };
    promise(&mut cluster, &["v5", "v6", "v7"], 8000, 8 * GIB);
    assert_eq!(look(&cluster, &EAGER, &mut BalanceHold::default()).unwrap(), "v5 n3 n1");
    cluster.seat("v5", Seat::On(node("n1")));
    promise(&mut cluster, &["v1", "v2", "v3", "v4", "v5"], 1000, GIB);
    assert_eq!(settle(&mut cluster), ["v6 n3 n2", "v3 n2 n1", "v4 n2 n1"]);
}
