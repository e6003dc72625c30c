mod oracle;
mod property;

use super::*;

const GIB: u64 = 1 << 30;

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn named(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

fn names(of: &[&str]) -> BTreeSet<ResourceName> {
    of.iter().map(|name| named(name)).collect()
}

/// Nodes with their memory in GiB, resources with theirs and their place, if any.
fn cluster(nodes: &[(&str, u64)], resources: &[(&str, u64, &str)]) -> Cluster {
    Cluster {
        nodes: (nodes.iter())
            .map(|&(name, gib)| Node { name: member(name), memory: Memory::Bytes(gib * GIB), in_service: true })
            .collect(),
        resources: (resources.iter()).map(|&(name, gib, node)| resource(name, gib, node)).collect(),
        ..Cluster::default()
    }
}

fn resource(name: &str, gib: u64, node: &str) -> Resource {
    let node = (!node.is_empty()).then(|| member(node));
    Resource { name: named(name), memory_bytes: gib * GIB, node, may_run_on: None }
}

fn ask(cluster: &Cluster, failures: usize) -> Answer {
    plan(cluster, failures, Budget::default()).unwrap()
}

fn refusal(cluster: &Cluster, failures: usize) -> String {
    match ask(cluster, failures).verdict {
        Verdict::NoPlan(counterexample) => counterexample.to_string(),
        other => panic!("{other:?}"),
    }
}

fn tolerated(cluster: &Cluster) -> Option<usize> {
    tolerance(cluster, Budget::default()).unwrap().failures
}

#[test]
fn a_counterexample_names_the_order_and_what_is_left() {
    let three = cluster(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("db", 8, "n1"), ("web", 4, "n2")]);
    assert!(ask(&three, 1).is_plan());
    assert_eq!(refusal(&three, 2), "if n1 and then n2 fail, web (4 GiB) doesn't fit: n3 has 0 B left");
    let two = cluster(&[("n1", 8), ("n2", 8)], &[("db", 8, "n1"), ("web", 4, "n2")]);
    assert_eq!(refusal(&two, 1), "if n1 fails, db (8 GiB) doesn't fit: n2 has 4 GiB left");
}

#[test]
fn a_placement_that_neither_strategy_tries_is_found_by_looking_ahead() {
    // Two failures are survived, but at some step neither worst nor best fit leaves room for the second one.
    let nodes = [("n1", 9), ("n2", 11), ("n3", 11), ("n4", 12)];
    let cluster = cluster(&nodes, &[("a", 5, "n4"), ("b", 3, "n1"), ("c", 7, "n2"), ("d", 3, "n2")]);
    let answer = ask(&cluster, 2);
    assert_eq!((answer.method, answer.is_plan()), (Method::Exact, true));
    assert!(oracle::survives(&cluster, 2));
}

#[test]
fn a_packing_that_neither_strategy_tries_is_found() {
    // 5 + 5 fill n3 and 4 + 2 + 2 fill n2; biggest first puts one 5 on each.
    let items = [("a", 5, "n1"), ("b", 5, "n1"), ("c", 4, "n1"), ("d", 2, "n1"), ("e", 2, "n1")];
    let tight = cluster(&[("n1", 60), ("n2", 8), ("n3", 10)], &items);
    let answer = ask(&tight, 1);
    assert_eq!((answer.method, answer.is_plan()), (Method::Exact, true));
    let answer = plan(&tight, 1, Budget(45)).unwrap();
    assert_eq!(answer.method, Method::Bound);
    let Verdict::Unproven(Some(by)) = answer.verdict else { panic!("{answer:?}") };
    assert_eq!(by.to_string(), "if n1 fails, e (2 GiB) doesn't fit: n2 has 1 GiB left, n3 has 1 GiB left");
}

#[test]
fn no_plan_outlives_the_last_node_but_without_resources() {
    let busy = cluster(&[("n1", 8), ("n2", 8)], &[("db", 1, "n1")]);
    assert_eq!(tolerated(&busy), Some(1));
    assert_eq!(refusal(&busy, 2), "if n1 and then n2 fail, db (1 GiB) doesn't fit: no node is left");
    let idle = cluster(&[("n1", 8), ("n2", 8)], &[]);
    assert_eq!(tolerated(&idle), Some(2));
    assert_eq!(refusal(&idle, 3), "if n1 and then n2 fail, there are no more nodes to fail");
    assert_eq!(tolerated(&Cluster::default()), Some(0));
}

#[test]
fn what_does_not_run_is_placed_first() {
    let full = cluster(&[("n1", 8), ("n2", 8)], &[("a", 8, ""), ("b", 8, "n1"), ("c", 1, "")]);
    assert_eq!(tolerated(&full), None);
    assert_eq!(refusal(&full, 0), "c (1 GiB) doesn't fit: n1 has 0 B left, n2 has 0 B left");
    let mut drained = cluster(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("a", 4, "n1"), ("b", 4, "n2")]);
    drained.nodes[0].in_service = false;
    assert_eq!(tolerated(&drained), Some(1));
}

#[test]
fn a_resource_pinned_to_nodes_is_lost_with_them() {
    let mut pinned = cluster(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("db", 1, "n1")]);
    pinned.resources[0].may_run_on = Some(BTreeSet::from([member("n1"), member("n2"), member("nowhere")]));
    assert_eq!(tolerated(&pinned), Some(1));
    assert_eq!(refusal(&pinned, 2), "if n1 and then n2 fail, db (1 GiB) doesn't fit: n3 may not run it");
}

#[test]
fn what_is_kept_apart_needs_a_node_each() {
    let mut pair = cluster(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("fw1", 1, "n1"), ("fw2", 1, "n2")]);
    pair.apart.push(names(&["fw1", "fw2", "unprotected"]));
    assert_eq!(tolerated(&pair), Some(1));
    let why = refusal(&pair, 2);
    assert!(why.contains("n3 runs fw1, which it is kept apart from"), "{why}");
}

#[test]
fn what_is_kept_together_needs_one_node_for_all() {
    let mut stack = cluster(&[("n1", 8), ("n2", 5), ("n3", 5)], &[("db", 3, "n1"), ("vip", 3, "n1")]);
    assert_eq!(tolerated(&stack), Some(1));
    stack.together.push(names(&["db", "vip"]));
    assert_eq!(tolerated(&stack), Some(0));
    assert_eq!(
        refusal(&stack, 1),
        "if n1 fails, db with vip (6 GiB) doesn't fit: n2 has 5 GiB left, n3 has 5 GiB left"
    );
}

#[test]
fn a_torn_group_goes_where_its_other_part_runs() {
    let mut torn = cluster(&[("n1", 8), ("n2", 8), ("n3", 8)], &[("db", 3, "n1"), ("vip", 3, "n2")]);
    torn.together.push(names(&["db", "vip"]));
    assert_eq!(tolerated(&torn), Some(2));
    torn.nodes[1].memory = Memory::Bytes(5 * GIB);
    let why = refusal(&torn, 1);
    assert!(why.contains("n3 isn't n2, where vip runs that it is kept together with"), "{why}");
}

#[test]
fn together_and_apart_has_no_place_but_its_own() {
    let mut torn = cluster(&[("n1", 8), ("n2", 8)], &[("a", 1, "n1"), ("b", 1, "n1")]);
    torn.together.push(names(&["a", "b"]));
    torn.apart.push(names(&["a", "b"]));
    assert_eq!(tolerated(&torn), Some(0));
}

#[test]
fn unlimited_memory_is_never_the_limit_and_too_full_nodes_give_none() {
    let mut nodes = cluster(&[("n1", 1), ("n2", 0)], &[("a", 9, "n1"), ("b", 9, "n1")]);
    assert_eq!(tolerated(&nodes), Some(0));
    nodes.nodes[1].memory = Memory::Unlimited;
    assert_eq!(refusal(&nodes.with(resource("c", 1, "n2")), 1), "if n2 fails, c (1 GiB) doesn't fit: n1 has 0 B left");
    nodes.nodes[0].memory = Memory::Unlimited;
    assert_eq!(tolerated(&nodes), Some(1));
}

#[test]
fn what_cannot_be_planned_for_is_named() {
    let twice = cluster(&[("n1", 1), ("n1", 1)], &[]);
    assert_eq!(plan(&twice, 1, Budget::default()), Err(ClusterError::NodeTwice { node: member("n1") }));
    let twice = cluster(&[("n1", 1)], &[("a", 1, ""), ("a", 1, "n1")]);
    assert_eq!(plan(&twice, 1, Budget::default()), Err(ClusterError::ResourceTwice { resource: named("a") }));
    let mut huge = cluster(&[("n1", 1)], &[("a", 1, "")]);
    huge.resources[0].memory_bytes = u64::MAX;
    let refused = ClusterError::TooMuchMemory { resource: named("a"), memory_bytes: u64::MAX };
    assert_eq!(plan(&huge, 1, Budget::default()), Err(refused));
    let many: Vec<String> = (0..65).map(|n| format!("n{n}")).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|name| (name.as_str(), 1)).collect();
    assert_eq!(plan(&cluster(&many, &[]), 1, Budget::default()), Err(ClusterError::TooManyNodes { count: 65 }));
}

#[test]
fn the_biggest_numbers_stay_numbers() {
    let mut most = cluster(&[], &[]);
    for n in 0..NODES_MAX {
        most.nodes.push(Node { name: member(&format!("n{n}")), memory: Memory::Bytes(u64::MAX), in_service: true });
    }
    for n in 0..RESOURCES_MAX {
        let mut huge = resource(&format!("r{n}"), 0, &format!("n{}", n % NODES_MAX));
        huge.memory_bytes = RESOURCE_MEMORY_MAX - u64::try_from(n).unwrap();
        most.resources.push(huge);
    }
    assert!(ask(&most, 3).is_plan());
}

#[test]
fn one_unit_too_little_is_too_little_among_many() {
    // Three of 2 go into twice 3 only if one is cut; the many of 1 take the path for big clusters.
    let mut many = cluster(&[("n1", 6), ("n2", 43), ("n3", 43)], &[("a", 2, "n1"), ("b", 2, "n1"), ("c", 2, "n1")]);
    for n in 0..80 {
        many.resources.push(resource(&format!("r{n}"), 1, if n % 2 == 0 { "n2" } else { "n3" }));
    }
    for node in ["n4", "n5"] {
        many.nodes.push(Node { name: member(node), memory: Memory::Bytes(0), in_service: true });
    }
    many.nodes[0].memory = Memory::Bytes(99 * GIB);
    assert_eq!(
        refusal(&many, 1),
        "if n1 fails, c (2 GiB) doesn't fit: n2 has 1 GiB left, n3 has 1 GiB left, n4 has 0 B left, and 1 more can't run it either"
    );
}

#[test]
fn an_operation_is_refused_only_if_it_breaks_a_plan() {
    let before = cluster(&[("n1", 8), ("n2", 8)], &[("db", 4, "n1")]);
    let effect = |before: &Cluster, after: &Cluster| what_if(before, after, 1, Budget::default()).unwrap();
    let good = before.with(resource("web", 4, ""));
    assert_eq!(effect(&before, &good), Effect::Keeps);
    let bad = good.with(resource("log", 1, ""));
    let refused = effect(&good, &bad);
    assert!(refused.is_refusal());
    let why = refused.to_string();
    assert!(why.starts_with("1 failure would no longer be survived: if n"), "{why}");
    assert_eq!(effect(&bad, &bad.with(resource("more", 1, ""))), Effect::NoneToBreak);
    assert!(effect(&before, &before.without_node(&member("n2"))).is_refusal());
    assert_eq!(
        what_if(&before, &before.without_node(&member("n2")), 0, Budget::default()),
        Ok(Effect::Keeps),
        "its resources move"
    );
}

#[test]
fn without_a_budget_arithmetic_answers_and_says_so() {
    let roomy = cluster(&[("n1", 64), ("n2", 64), ("n3", 64)], &[("a", 4, "n1"), ("b", 4, "n2"), ("c", 4, "n3")]);
    let answer = plan(&roomy, 2, Budget(0)).unwrap();
    assert_eq!((answer.method, answer.verdict), (Method::Bound, Verdict::Plan));
    let tight = cluster(&[("n1", 64), ("n2", 9), ("n3", 5)], &[("a", 5, "n1"), ("b", 5, "n1"), ("c", 4, "n1")]);
    let answer = plan(&tight, 1, Budget(0)).unwrap();
    assert_eq!((answer.method, answer.verdict), (Method::Bound, Verdict::Unproven(None)));
    assert!(ask(&tight, 1).is_plan());
}

#[test]
fn a_majority_limits_what_is_worth_planning_for() {
    let limits = [(3, 0), (2, 0), (2, 1), (5, 0), (64, 0), (0, 0)].map(|(members, out)| majority_limit(members, out));
    assert_eq!(limits, [1, 0, 1, 2, 31, 0]);
}

#[test]
fn a_drained_node_that_leaves_no_room_is_not_drained() {
    let full = cluster(&[("n1", 8), ("n2", 4)], &[("db", 8, "n1"), ("web", 2, "n1")]);
    let evacuation = evacuate(&full, &member("n1"), &[], Budget::default()).unwrap();
    assert_eq!(evacuation.moves, [(named("web"), member("n2"))]);
    assert_eq!(evacuation.stuck[0].to_string(), "db (8 GiB) doesn't fit: n2 has 2 GiB left");
}

#[test]
fn an_evacuation_spreads_groups_as_far_as_memory_goes() {
    let nodes = [("n1", 99), ("n2", 12), ("n3", 20)];
    let group = [names(&["a", "b", "c"])];
    let moved = |resources: &[(&str, u64, &str)]| {
        let evacuation = evacuate(&cluster(&nodes, resources), &member("n1"), &group, Budget::default()).unwrap();
        assert!(evacuation.stuck.is_empty());
        let mut to: Vec<String> = evacuation.moves.iter().map(|(name, node)| format!("{name} {node}")).collect();
        to.sort();
        (evacuation.manner, to.join(", "))
    };
    let three = [("a", 1, "n1"), ("b", 2, "n1"), ("c", 3, "n1")];
    assert_eq!(moved(&three), (Manner::SpreadEvenly, "a n2, b n3, c n2".to_owned()));
    let [a, b, c] = three;
    let with_one_there = [("a", 1, "n2"), b, c];
    assert_eq!(moved(&with_one_there), (Manner::SpreadEvenly, "b n3, c n2".to_owned()));
    assert_eq!(moved(&[a, b, c, ("big", 11, "n1")]), (Manner::SpreadEvenly, "a n2, b n3, big n3, c n2".to_owned()));
    let tight = [a, b, c, ("big", 11, "n1"), ("more", 15, "n1")];
    assert_eq!(moved(&tight), (Manner::NoBreach, "a n2, b n3, big n2, c n3, more n3".to_owned()));
    let full = [a, b, c, ("big", 11, "n1"), ("more", 10, "n1"), ("much", 5, "n1")];
    assert_eq!(moved(&full).0, Manner::NoBreach);
    let brim = [a, ("b", 1, "n1"), ("big", 12, "n1"), ("more", 18, "n1")];
    assert_eq!(moved(&brim), (Manner::Packed, "a n3, b n3, big n2, more n3".to_owned()));
}
