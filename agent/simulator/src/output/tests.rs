use super::*;

fn document() -> Document {
    Document {
        resources: BTreeMap::from([(
            "vm:101".into(),
            ResourceEnd { state: "started".into(), node: Some("node2".into()), running_on: vec!["node2".into()] },
        )]),
        nodes: BTreeMap::from([("node1".into(), NodeEnd { state: "unknown".into(), power: Switch::Off })]),
        fenced: vec![Fenced { node: "node1".into(), at_s: seconds(123_456_789_000), evidence: "bmc-off".into() }],
        recovered: vec![Recovered {
            resource: "vm:101".into(),
            from: "node1".into(),
            to: "node2".into(),
            at_s: 123.5,
            after_s: 3.5,
        }],
        leaders: vec!["appliance".into()],
        violations: vec![],
        timeline: vec![
            Line { at_s: 120.0, what: What::Event { event: "power-off node1".into() } },
            Line {
                at_s: 123.5,
                what: What::Resource {
                    resource: "vm:101".into(),
                    node: "node2".into(),
                    happened: Happened::Failed { why: "it failed".into() },
                },
            },
        ],
    }
}

#[test]
fn the_document_has_the_promised_form() {
    let written = serde_json::to_value(document()).unwrap();
    let promised = serde_json::json!({
        "resources": {"vm:101": {"state": "started", "node": "node2", "running_on": ["node2"]}},
        "nodes": {"node1": {"state": "unknown", "power": "off"}},
        "fenced": [{"node": "node1", "at_s": 123.456, "evidence": "bmc-off"}],
        "recovered": [{"resource": "vm:101", "from": "node1", "to": "node2", "at_s": 123.5, "after_s": 3.5}],
        "leaders": ["appliance"],
        "violations": [],
        "timeline": [
            {"at_s": 120.0, "what": "event", "event": "power-off node1"},
            {"at_s": 123.5, "what": "resource", "resource": "vm:101", "node": "node2",
             "happened": {"failed": {"why": "it failed"}}},
        ],
    });
    assert_eq!(written, promised);
    assert_eq!(serde_json::from_value::<Document>(written).unwrap(), document());
}

#[test]
fn people_read_it_line_by_line() {
    let text = document().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "  120.000  EVENT        power-off node1");
    assert_eq!(lines[1], "  123.500  node2        vm:101 it failed");
    assert!(text.contains("resource  vm:101           started        belongs on node2, runs on node2"), "{text}");
    assert!(text.ends_with("no invariant was broken"), "{text}");
}
