use serde_json::{Value, json};

use super::{Verdict, compare};
use crate::expected::Expected;
use crate::tests::{case, converted, outcome};

/// A node is lost at 120 s, its machine runs again 123 s later; another is fine.
fn expected() -> Expected {
    let events = json!([
        {"t": 240, "ev": "recover", "sid": "vm:7", "frm": "node2", "to": "node1"},
        {"t": 243, "ev": "started", "sid": "vm:7", "node": "node1"},
    ]);
    let outcome = outcome(Some("started"), "node1", true, &["node2"], &events);
    converted(&case(&[&["power node1 on"], &["power node2 off", "network node2 off"]], &json!({"outcome": outcome})))
        .expected
}

/// What a simulator would answer if all went as expected, in 15 s.
fn answer() -> Value {
    json!({
        "resources": {"vm:7": {"state": "started", "node": "node1", "running_on": ["node1"]}},
        "nodes": {
            "node1": {"state": "online", "power": "on"},
            "node2": {"state": "unknown", "power": "off"},
            "node3": {"state": "online", "power": "on"},
        },
        "fenced": [{"node": "node2", "at_s": 134.0, "evidence": "arithmetic"}],
        "recovered": [{"resource": "vm:7", "from": "node2", "to": "node1", "at_s": 135.0, "after_s": 15.0}],
        "leaders": [],
        "violations": [],
        "timeline": [],
    })
}

fn verdict(answer: &Value) -> Verdict {
    compare(&expected(), &answer.to_string()).unwrap()
}

/// What differs when one place of the answer is another.
fn differs(pointer: &str, value: &Value) -> Vec<String> {
    let mut answer = answer();
    *answer.pointer_mut(pointer).unwrap() = value.clone();
    verdict(&answer).differences.iter().map(ToString::to_string).collect()
}

#[test]
fn the_expected_answer_differs_in_nothing() {
    let verdict = verdict(&answer());
    assert_eq!((verdict.violations.len(), verdict.differences.len()), (0, 0), "{verdict:?}");
    assert_eq!(verdict.timings.len(), 1);
    assert!(!verdict.timings[0].is_slower());
    assert_eq!(verdict.timings[0].ratio(), Some(8.2));
}

#[test]
fn every_part_of_the_outcome_is_seen_to_differ() {
    assert_eq!(differs("/resources/vm:7/state", &json!("error")), ["vm:7 state: theirs started, ours error"]);
    assert_eq!(differs("/resources/vm:7/node", &json!("node3")), ["vm:7 node: theirs node1, ours node3"]);
    assert_eq!(differs("/resources/vm:7/node", &json!(null)), ["vm:7 node: theirs node1, ours none"]);
    assert_eq!(differs("/resources/vm:7/running_on", &json!([])), ["vm:7 running: theirs node1, ours none"]);
    assert_eq!(differs("/fenced", &json!([])), ["fenced: theirs node2, ours none"]);
    assert_eq!(differs("/fenced/0/node", &json!("node3")), ["fenced: theirs node2, ours node3"]);
    assert_eq!(
        differs("/nodes/node3/state", &json!("maintenance")),
        ["node3 maintenance: theirs none, ours maintenance"]
    );
    assert_eq!(
        differs("/nodes/node2/state", &json!("maintenance")),
        Vec::<String>::new(),
        "it has no power in the end"
    );
    let all = json!({});
    assert_eq!(
        differs("/resources", &all),
        [
            "vm:7 state: theirs started, ours unknown",
            "vm:7 node: theirs node1, ours none",
            "vm:7 running: theirs node1, ours unknown"
        ]
    );
}

#[test]
fn a_resource_that_theirs_never_had_differs() {
    let mut answer = answer();
    answer["resources"]["vm:8"] = json!({"state": "started", "node": "node1", "running_on": []});
    assert_eq!(verdict(&answer).differences[0].what, "vm:8 state");
}

#[test]
fn a_removed_resource_may_be_unknown_but_where_it_runs_counts() {
    let outcome = outcome(None, "node2", true, &["node2"], &json!([]));
    let case = case(&[&["service vm:7 delete"]], &json!({"outcome": outcome}));
    let expected = converted(&case).expected;
    let of = |resource: Value| {
        let mut answer = answer();
        answer["resources"] = resource;
        let verdict = compare(&expected, &answer.to_string()).unwrap();
        verdict.differences.into_iter().map(|difference| difference.what).collect::<Vec<_>>()
    };
    let runs = |state: &str, on: &str| json!({"vm:7": {"state": state, "node": null, "running_on": [on]}});
    assert_eq!(of(runs("removed", "node2")), Vec::<String>::new());
    assert_eq!(of(runs("removed", "node1")), ["vm:7 running"]);
    assert_eq!(of(runs("started", "node2")), ["vm:7 state"]);
    assert_eq!(of(json!({})), ["vm:7 running"]);
}

#[test]
fn violations_are_taken_over_and_two_runners_are_one_whatever_the_simulator_says() {
    let mut answer = answer();
    answer["violations"] = json!(["vm:7 ran twice at 130 s"]);
    answer["resources"]["vm:7"]["running_on"] = json!(["node1", "node3"]);
    let violations = verdict(&answer).violations;
    assert_eq!(violations, ["\"vm:7 ran twice at 130 s\"", "vm:7 runs in the end on node1 node3"]);
}

#[test]
fn a_recovery_is_as_long_as_the_longer_of_its_two_numbers() {
    let of = |at_s: f64, after_s: f64| {
        let mut answer = answer();
        answer["recovered"][0]["at_s"] = at_s.into();
        answer["recovered"][0]["after_s"] = after_s.into();
        verdict(&answer).timings[0].clone()
    };
    assert_eq!(of(135.0, 2.0).ours_s, Some(15.0));
    assert_eq!(of(135.0, 40.0).ours_s, Some(40.0));
    assert!(of(244.0, 2.0).is_slower());
    assert!(!of(243.0, 2.0).is_slower());
}

#[test]
fn a_second_recovery_is_held_against_our_second() {
    let events = json!([
        {"t": 140, "ev": "recover", "sid": "vm:7", "frm": "node2", "to": "node1"},
        {"t": 143, "ev": "started", "sid": "vm:7", "node": "node1"},
        {"t": 540, "ev": "recover", "sid": "vm:7", "frm": "node2", "to": "node3"},
        {"t": 550, "ev": "started", "sid": "vm:7", "node": "node3"},
    ]);
    let outcome = outcome(Some("started"), "node3", true, &["node2"], &events);
    let commands: &[&[&str]] =
        &[&["power node2 on"], &["power node2 off"], &["power node2 on"], &[], &["power node2 off"]];
    let expected = converted(&case(commands, &json!({"outcome": outcome}))).expected;
    let mut answer = answer();
    let ours = |at_s: u32, after_s: u32| json!({"resource": "vm:7", "from": "node2", "to": "node1", "at_s": at_s, "after_s": after_s});
    answer["recovered"] = json!([ours(129, 9), ours(437, 17)]);
    let timings = compare(&expected, &answer.to_string()).unwrap().timings;
    let pairs: Vec<_> = timings.iter().map(|timing| (timing.theirs_s, timing.ours_s)).collect();
    assert_eq!(pairs, [(23.0, Some(9.0)), (130.0, Some(17.0))]);
}

#[test]
fn a_recovery_that_ours_never_made_has_no_time() {
    for wrong in
        [json!([]), json!([{"resource": "vm:7", "from": "node3", "to": "node1", "at_s": 135.0, "after_s": 1.0}])]
    {
        let mut answer = answer();
        answer["recovered"] = wrong;
        assert_eq!(verdict(&answer).timings[0].ours_s, None);
    }
}

#[test]
fn an_answer_of_another_form_is_an_error_that_names_the_case() {
    for wrong in ["", "[]", "{}", r#"{"resources": {}}"#] {
        let error = compare(&expected(), wrong).unwrap_err().to_string();
        assert!(error.contains("answer for own"), "{error}");
    }
}
