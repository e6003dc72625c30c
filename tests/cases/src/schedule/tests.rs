use serde_json::json;

use crate::convert;
use crate::tests::{case, converted, events, off};

#[test]
fn batches_come_in_the_first_and_then_in_every_fifth_round() {
    let case = case(&[&["power node1 on"], &["power node2 on", "power node3 on"], &[], &["reboot node1"]], &json!({}));
    let converted = converted(&case);
    assert_eq!(
        events(&converted),
        ["20s power-on node1", "120s power-on node2", "120s power-on node3", "320s reboot node1"]
    );
    assert_eq!(converted.scenario.duration, "920s");
}

#[test]
fn a_delay_postpones_the_next_batch_alone() {
    let case = case(
        &[&["delay 200", "power node1 on"], &["power node2 on"], &["delay 0"], &["delay 30"], &["power node3 on"]],
        &json!({}),
    );
    // 20 + 200 is a round; the fifth from there on is at 300. Then 400, 500, and 530 is in the round of 540.
    assert_eq!(events(&converted(&case)), ["20s power-on node1", "300s power-on node2", "620s power-on node3"]);
}

#[test]
fn many_nodes_make_rounds_longer() {
    let nodes: serde_json::Map<_, _> = (1..=12).map(|node| (format!("node{node}"), off())).collect();
    let case = case(&[&["power node1 on"], &["power node2 on"]], &json!({"hardware": nodes}));
    assert_eq!(events(&converted(&case)), ["24s power-on node1", "144s power-on node2"]);
}

#[test]
fn a_command_that_nobody_knows_is_named_with_its_case() {
    for command in ["power node1 maybe", "service vm:7 add node1 started 1", "service vm:7 stop soon", "sing"] {
        let error = convert(&case(&[&[command]], &json!({}))).unwrap_err().to_string();
        assert!(error.starts_with("case own: the command ") && error.contains(command), "{error}");
    }
}
