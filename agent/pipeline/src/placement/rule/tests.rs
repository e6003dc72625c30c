use serde_json::json;

use super::*;
use crate::placement::fixture::{apart, node, on, res, rule_name, together};

#[test]
fn a_rule_names_its_fault() {
    assert_eq!(on(&["a"], &[("n1", 1000)]).check(), Ok(()));
    assert_eq!(together(&[]).check(), Err(RuleError::NoResources));
    assert_eq!(on(&["a"], &[]).check(), Err(RuleError::NoNodes));
    let high = on(&["a"], &[("n1", 1), ("n2", 1001)]).check();
    assert_eq!(high, Err(RuleError::PriorityTooHigh { node: node("n2"), priority: 1001 }));
    let mut wide = apart(&["a"]);
    wide.resources = (0..=RESOURCES_MAX).map(|i| res(&format!("r{i}"))).collect();
    assert_eq!(wide.check(), Err(RuleError::TooManyResources { count: 257 }));
    let mut many = on(&["a"], &[]);
    let nodes = (0..=NODES_MAX).map(|i| (node(&format!("n{i}")), 0)).collect();
    many.kind = RuleKind::NodeAffinity { nodes, strict: false };
    assert_eq!(many.check(), Err(RuleError::TooManyNodes { count: 65 }));
}

#[test]
fn the_number_of_rules_is_bounded_and_a_bad_one_is_named() {
    let rules = |n: usize| (0..n).map(|i| (rule_name(&format!("r{i}")), together(&["a", "b"]))).collect();
    assert_eq!(check_rules(&rules(RULES_MAX)), Ok(()));
    assert_eq!(check_rules(&rules(RULES_MAX + 1)), Err(RulesError::TooMany { count: 257 }));
    let bad = [(rule_name("x"), apart(&[]))].into();
    assert_eq!(check_rules(&bad), Err(RulesError::Rule { name: rule_name("x"), why: RuleError::NoResources }));
}

#[test]
fn a_rule_is_stored_and_read_back_and_unknown_keys_are_refused() {
    for rule in [on(&["a"], &[("n1", 2), ("n2", 0)]), together(&["a", "b"]), apart(&["a", "b"])] {
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &rule).unwrap();
        assert_eq!(cbor4ii::serde::from_slice::<PlacementRule>(bytes.as_slice()).unwrap(), rule);
    }
    let mut bytes = Vec::new();
    let value = json!({ "resources": ["a"], "kind": "together", "soft": true });
    cbor4ii::serde::to_writer(&mut bytes, &value).unwrap();
    assert!(cbor4ii::serde::from_slice::<PlacementRule>(bytes.as_slice()).is_err());
    let kind = json!({ "node_affinity": { "nodes": {}, "strict": true, "soft": true } });
    let value = json!({ "resources": ["a"], "kind": kind });
    bytes.clear();
    cbor4ii::serde::to_writer(&mut bytes, &value).unwrap();
    assert!(cbor4ii::serde::from_slice::<PlacementRule>(bytes.as_slice()).is_err());
}
