use serde_json::{Value, json};

use super::Suite;
use crate::differences::Explained;
use crate::published::Case;
use crate::tests::{case, outcome};

const SLEEPY: Explained =
    Explained { case: "own", differs: &["vm:7 node"], decision: "we like node3 better, for the sake of this test" };

/// Twenty cases in which a node is lost at 20 s and its machine runs again after 120 s; one is told from the others by its
/// name.
fn cases() -> Vec<Case> {
    let events = json!([
        {"t": 137, "ev": "recover", "sid": "vm:7", "frm": "node2", "to": "node1"},
        {"t": 140, "ev": "started", "sid": "vm:7", "node": "node1"},
    ]);
    let outcome = outcome(Some("started"), "node1", true, &["node2"], &events);
    let mut cases = vec![case(&[&["network node2 off"]], &json!({"outcome": outcome})); 20];
    for other in &mut cases[1..] {
        other.name = "other".to_owned();
    }
    cases
}

fn answer() -> Value {
    json!({
        "resources": {"vm:7": {"state": "started", "node": "node1", "running_on": ["node1"]}},
        "nodes": {"node1": {"state": "online", "power": "on"}, "node3": {"state": "online", "power": "on"}},
        "fenced": [{"node": "node2", "at_s": 29.0, "evidence": "arithmetic"}],
        "recovered": [{"resource": "vm:7", "from": "node2", "to": "node1", "at_s": 30.0, "after_s": 10.0}],
        "violations": [],
    })
}

/// The first case is answered with `pointer` changed, all others as expected.
fn suite(explained: &[Explained], pointer: &str, value: &Value) -> Suite {
    let mut first = answer();
    *first.pointer_mut(pointer).unwrap() = value.clone();
    let mut answers = std::iter::once(first).chain(std::iter::repeat(answer()));
    Suite::run(&cases(), explained, |_| Ok(answers.next().unwrap().to_string())).unwrap()
}

#[test]
fn a_suite_in_which_all_is_the_same_and_faster_has_no_failures() {
    let suite = suite(&[], "/violations", &json!([]));
    assert_eq!(suite.failures(), Vec::<String>::new());
    assert_eq!(suite.median_ratio(), Some(12.0));
    let table = suite.to_string();
    assert!(table.contains("outcome: 20 the same, 0 explained, 0 different, 0 without one"), "{table}");
    assert!(table.contains("120->10.0"), "{table}");
}

#[test]
fn a_difference_needs_its_explanation() {
    let node3 = json!("node3");
    assert_eq!(suite(&[], "/resources/vm:7/node", &node3).failures(), ["own: vm:7 node: theirs node1, ours node3"]);
    let explained = suite(&[SLEEPY], "/resources/vm:7/node", &node3);
    assert_eq!(explained.failures(), Vec::<String>::new());
    let table = explained.to_string();
    assert!(table.contains("because we like node3 better"), "{table}");
    assert!(table.contains("19 the same, 1 explained, 0 different"), "{table}");
}

#[test]
fn an_explanation_covers_what_it_names_and_must_be_needed() {
    let error = suite(&[SLEEPY], "/resources/vm:7/state", &json!("error")).failures();
    assert_eq!(error.len(), 2, "{error:?}");
    assert!(error[0].contains("vm:7 state") && error[1].contains("the explanation doesn't fit"), "{error:?}");
    assert_eq!(suite(&[SLEEPY], "/violations", &json!([])).failures().len(), 1);
}

#[test]
fn an_unsafe_run_fails_however_it_ends() {
    let failures = suite(&[], "/violations", &json!(["two runners"])).failures();
    assert_eq!(failures, ["own: UNSAFE: \"two runners\""]);
}

#[test]
fn a_slower_or_missing_recovery_fails() {
    let slower = suite(&[], "/recovered/0/after_s", &json!(121.0)).failures();
    assert_eq!(slower, ["own: vm:7 took 121.0 s, theirs 120 s"]);
    let missing = suite(&[], "/recovered", &json!([])).failures();
    assert_eq!(missing, ["own: vm:7 ran again after 120 s with theirs, ours recovered nothing"]);
}

#[test]
fn recoveries_have_to_be_six_times_faster_in_the_median() {
    let mut slow = answer();
    slow["recovered"][0]["after_s"] = json!(21.0);
    let suite = Suite::run(&cases(), &[], |_| Ok(slow.to_string())).unwrap();
    assert_eq!(suite.failures(), ["recoveries are 5.7 times faster in the median, not 6"]);
    let unknown = Suite::run(&[], &[], |_| Ok(String::new())).unwrap();
    assert_eq!(unknown.failures(), ["0 of 0 come out the same: fewer than 95 %", "no recovery was timed"]);
}

#[test]
fn fewer_than_nineteen_of_twenty_fail_even_if_all_are_explained() {
    let other = Explained { case: "other", ..SLEEPY };
    let mut elsewhere = answer();
    elsewhere["resources"]["vm:7"]["node"] = json!("node3");
    let mut answers = std::iter::repeat_n(elsewhere, 2).chain(std::iter::repeat(answer()));
    let suite = Suite::run(&cases(), &[SLEEPY, other], |_| Ok(answers.next().unwrap().to_string())).unwrap();
    assert_eq!(suite.failures(), ["18 of 20 come out the same: fewer than 95 %"]);
}

#[test]
fn a_simulator_that_fails_or_talks_nonsense_is_a_failure_of_its_case() {
    let failing = Suite::run(&cases()[..1], &[], |_| Err("it fell over".into())).unwrap();
    assert_eq!(failing.failures()[0], "own: no outcome: it fell over");
    let talking = Suite::run(&cases()[..1], &[], |_| Ok("hm".to_owned())).unwrap();
    assert!(talking.failures()[0].contains("the simulator's answer for own"), "{:?}", talking.failures());
    assert!(talking.to_string().contains("1 without one"));
}

#[test]
fn the_scenario_is_what_is_simulated_and_what_is_left_out_is_listed() {
    let mut cases = cases();
    cases.truncate(2);
    cases[1].cmdlist.push(vec!["cfs node1 rw fail".to_owned()]);
    let mut seen = Vec::new();
    let suite = Suite::run(&cases, &[], |scenario| {
        seen.push(serde_json::from_str::<Value>(scenario)?);
        Ok(answer().to_string())
    })
    .unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["event"][0], json!({"at": "20s", "do": "isolate node2"}));
    assert!(suite.to_string().contains("left out, it breaks the cluster file system: other"), "{suite}");
}
