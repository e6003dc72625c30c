use super::*;
use crate::placement::fixture::{apart, node, on, only_on, res, rule_name, rules, together};

fn judge(list: &[(&str, PlacementRule)], nodes: usize) -> (EffectiveRules, BTreeMap<RuleName, RuleFault>) {
    judge_rules(&rules(list), &(1..=nodes).map(|i| node(&format!("n{i}"))).collect())
}

/// The rules without effect, each with its text.
fn faults(list: &[(&str, PlacementRule)], nodes: usize) -> Vec<(String, String)> {
    judge(list, nodes).1.iter().map(|(name, fault)| (name.to_string(), fault.to_string())).collect()
}

fn names(list: &[(&str, PlacementRule)], nodes: usize) -> Vec<String> {
    faults(list, nodes).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn rules_that_can_be_kept_hold() {
    let good = [
        ("home", on(&["a", "b"], &[("n1", 2), ("n2", 1)])),
        ("pair", together(&["c", "d"])),
        ("fire", apart(&["c", "e"])),
    ];
    let (effective, faults) = judge(&good, 2);
    assert_eq!(faults, BTreeMap::new());
    assert_eq!(effective.node_rule(&res("a")).unwrap().rule, rule_name("home"));
    assert_eq!(effective.node_rule(&res("c")), None);
    assert_eq!(effective.bundle(&res("x")), [&res("x")].into());
}

#[test]
fn a_resource_in_two_node_affinities_disables_both_and_each_names_the_other() {
    let list =
        [("one", on(&["a"], &[("n1", 0)])), ("two", on(&["a", "b"], &[("n2", 0)])), ("x", on(&["c"], &[("n1", 0)]))];
    let found = faults(&list, 2);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].1, "a is in the node affinity two too: keep it in one of them");
    assert_eq!(found[1].1, "a is in the node affinity one too: keep it in one of them");
    assert_eq!(judge(&list, 2).0.node_rule(&res("a")), None);
}

#[test]
fn a_rule_that_the_operator_disabled_neither_holds_nor_contradicts() {
    let mut off = on(&["a"], &[("n1", 0)]);
    off.disabled_by_operator = true;
    let (effective, faults) = judge(&[("one", off), ("two", on(&["a"], &[("n2", 0)]))], 2);
    assert!(faults.is_empty());
    assert_eq!(effective.node_rule(&res("a")).unwrap().rule, rule_name("two"));
}

#[test]
fn together_and_apart_take_two_resources() {
    assert_eq!(names(&[("t", together(&["a"])), ("x", apart(&["b"]))], 3), ["t", "x"]);
}

#[test]
fn no_more_resources_are_kept_apart_than_there_are_nodes() {
    assert_eq!(names(&[("x", apart(&["a", "b", "c"]))], 3), [""; 0]);
    assert_eq!(names(&[("x", apart(&["a", "b", "c"]))], 2), ["x"]);
}

#[test]
fn resources_that_are_together_through_others_cant_be_apart() {
    let tied = [("t1", together(&["a", "b"])), ("t2", together(&["b", "c"])), ("x", apart(&["a", "c"]))];
    let found = faults(&tied, 3);
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["t1", "t2", "x"]);
    assert_eq!(found[1].1, "a and c can't be together and apart: change it or the rule x");
    // One resource in both is no contradiction.
    assert_eq!(names(&[("t", together(&["a", "b"])), ("x", apart(&["b", "c"]))], 2), [""; 0]);
}

#[test]
fn several_priorities_and_rules_between_resources_exclude_each_other() {
    let several = on(&["a"], &[("n1", 2), ("n2", 1)]);
    let other = on(&["b"], &[("n3", 0)]);
    for between in [together(&["a", "c"]), apart(&["a", "c"])] {
        assert_eq!(names(&[("home", several.clone()), ("m", between)], 3), ["home", "m"]);
    }
    // The other node affinity that the rule touches goes with them.
    assert_eq!(names(&[("home", several), ("m", apart(&["a", "b"])), ("z", other)], 3), ["home", "m", "z"]);
    assert_eq!(names(&[("home", on(&["a"], &[("n1", 1), ("n2", 1)])), ("m", apart(&["a", "c"]))], 3), [""; 0]);
}

#[test]
fn resources_that_are_together_have_one_node_affinity_at_most() {
    let tied = |one: PlacementRule, two: PlacementRule| {
        faults(&[("one", one), ("t1", together(&["a", "b"])), ("t2", together(&["b", "c"])), ("two", two)], 3)
    };
    let soft = tied(on(&["a"], &[("n1", 0)]), on(&["c"], &[("n1", 0)]));
    assert_eq!(soft.len(), 4);
    assert_eq!(soft[0].1, "resources that are to be together are in several node affinities: keep one, this or two");
    let strict = tied(only_on(&["a"], &["n1"]), only_on(&["c"], &["n2"]));
    assert_eq!(strict[3].1, "no node is allowed to all resources that are to be together: change it or the rule one");
}

#[test]
fn resources_that_are_apart_need_as_many_nodes_by_their_node_affinities() {
    let parted = [("home", on(&["a", "b"], &[("n1", 0)])), ("x", apart(&["a", "b", "c"]))];
    let found = faults(&parted, 3);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[1].1,
        "2 resources that are to be apart have 1 nodes in all: add nodes, or change it or the rule home"
    );
    assert_eq!(
        names(&[("home", on(&["a", "b"], &[("n1", 0), ("n2", 0)])), ("x", apart(&["a", "b", "c"]))], 3),
        [""; 0]
    );
}

#[test]
fn a_parting_that_strict_rules_leave_no_way_to_keep_goes_and_they_stay() {
    // Three nodes for three resources in all, but a and b have one and the same.
    let list = [
        ("ab", only_on(&["a", "b"], &["n1", "n9"])),
        ("c", only_on(&["c"], &["n2", "n3"])),
        ("x", apart(&["a", "b", "c"])),
    ];
    let (effective, found) = judge(&list, 3);
    assert_eq!(found.keys().collect::<Vec<_>>(), [&rule_name("x")]);
    assert_eq!(
        found[&rule_name("x")].to_string(),
        "the others leave b none of its nodes: add nodes to ab, or change either rule"
    );
    assert!(effective.node_rule(&res("a")).is_some());
    assert_eq!(effective.apart_from(&res("a")).count(), 0);
    // Where a way exists it is found, though the first tries take each other's nodes.
    let list = [
        ("a", only_on(&["a"], &["n1", "n2", "n3"])),
        ("b", only_on(&["b"], &["n1", "n2"])),
        ("c", only_on(&["c"], &["n1"])),
        ("x", apart(&["a", "b", "c"])),
    ];
    assert_eq!(names(&list, 3), [""; 0]);
}

#[test]
fn a_strict_rule_to_nodes_that_dont_exist_has_no_effect() {
    let found = faults(&[("gone", only_on(&["a"], &["n7", "n8"])), ("part", only_on(&["b"], &["n1", "n8"]))], 2);
    let text = "the cluster has none of its nodes (n7, n8): correct them, or remove the rule";
    assert_eq!(found, [("gone".to_owned(), text.to_owned())]);
}

#[test]
fn together_is_transitive_and_what_holds_for_one_of_a_bundle_holds_for_all() {
    let list = [
        ("home", on(&["c"], &[("n2", 0)])),
        ("t1", together(&["a", "b"])),
        ("t2", together(&["c", "d"])),
        ("t3", together(&["b", "c"])),
        ("t4", together(&["x", "y"])),
        ("z", apart(&["d", "y"])),
    ];
    let (effective, faults) = judge(&list, 3);
    assert_eq!(faults, BTreeMap::new());
    let all = ["a", "b", "c", "d"].map(res);
    for one in &all {
        assert_eq!(effective.bundle(one), all.iter().collect());
        assert_eq!(effective.node_rule(one).unwrap().rule, rule_name("home"));
    }
    let apart = |name: &str| {
        let apart: Vec<_> = effective.apart_from(&res(name)).map(|(other, rule)| format!("{other} {rule}")).collect();
        apart.join(", ")
    };
    // What a rule names is apart from the other's whole bundle.
    assert_eq!(apart("d"), "x z, y z");
    assert_eq!(apart("y"), "a z, b z, c z, d z");
    assert_eq!(apart("a"), "y z");
    assert_eq!(apart("x"), "d z");
    assert_eq!(effective.tie(&res("c")), Some(&rule_name("t2")));
}
