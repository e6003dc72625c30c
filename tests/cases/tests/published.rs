//! The published cases. They are other people's and lie outside this tree; without them this says that it did not run.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use tiebreaker_cases::{
    BoxError, CASES_VARIABLE, Case, Conversion, DIFFERENCES, Expected, Simulate, State, Suite, compare, convert, load,
};

/// What simulates a scenario: from its JSON to its outcome's.
const SIMULATE: Option<Simulate> = Some(simulated);

fn simulated(scenario: &str) -> Result<String, BoxError> {
    let scenario = tiebreaker_simulator::scenario::Scenario::parse(
        scenario,
        tiebreaker_simulator::scenario::Format::Json,
        "case.json",
    )?;
    Ok(serde_json::to_string(&tiebreaker_simulator::run::simulate(&scenario))?)
}

/// How many are published.
const PUBLISHED: usize = 144;
/// How many of them a scenario can't say: 29 of load scheduling, 4 of groups, 4 moved by hand, 2 of the cluster file
/// system, 1 with skipped rounds.
const LEFT_OUT: usize = 40;

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os(CASES_VARIABLE) else {
        println!("published cases: NOT run: {CASES_VARIABLE} doesn't name the folder that holds them");
        println!("test result: ok. 0 passed; 0 failed");
        return ExitCode::SUCCESS;
    };
    let failures = match judge(Path::new(&folder)) {
        Ok(failures) => failures,
        Err(error) => vec![error.to_string()],
    };
    for failure in &failures {
        println!("FAILED {failure}");
    }
    // The form that test programs print.
    let (word, passed) = if failures.is_empty() { ("ok", 1) } else { ("FAILED", 0) };
    println!("test result: {word}. {passed} passed; {} failed", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn judge(folder: &Path) -> Result<Vec<String>, BoxError> {
    let cases = load(folder)?;
    let mut failures = Vec::new();
    if cases.len() != PUBLISHED {
        failures.push(format!("there are {} cases, not {PUBLISHED}", cases.len()));
    }
    failures.extend(conversions(&cases)?);
    match SIMULATE {
        None => println!("published cases: converted, NOT simulated: this version has no simulator for them"),
        Some(simulate) => {
            let suite = Suite::run(&cases, DIFFERENCES, simulate)?;
            print!("{suite}");
            let wrong = suite.failures();
            let (runs, left_out) = (suite.runs.len(), suite.left_out.len());
            println!("published cases: {runs} simulated, {left_out} left out, {} failures", wrong.len());
            failures.extend(wrong);
        }
    }
    Ok(failures)
}

/// Every case converts or is left out, and its expectation holds of itself and of nothing worse.
fn conversions(cases: &[Case]) -> Result<Vec<String>, BoxError> {
    let mut failures = Vec::new();
    let mut left_out = 0;
    for case in cases {
        match convert(case)? {
            Conversion::LeftOut(reason) => {
                left_out += 1;
                if SIMULATE.is_none() {
                    println!("{}: left out: {reason}", case.name);
                }
            }
            Conversion::Converted(converted) => {
                let expected = &converted.expected;
                let ideal = compare(expected, &answer(expected, None))?;
                if !ideal.differences.is_empty() || !ideal.violations.is_empty() {
                    failures.push(format!("{}: its own outcome doesn't hold: {ideal:?}", case.name));
                }
                for id in expected.resources.keys() {
                    if compare(expected, &answer(expected, Some(id)))?.differences.is_empty() {
                        failures.push(format!("{}: nobody would see {id} lost", case.name));
                    }
                }
            }
        }
    }
    println!("{} converted, {left_out} left out", cases.len() - left_out);
    if left_out != LEFT_OUT {
        failures.push(format!("{left_out} cases are left out, not {LEFT_OUT}"));
    }
    Ok(failures)
}

/// The outcome that is expected, but that one resource may have ended in an unheard-of state.
fn answer(expected: &Expected, lost: Option<&String>) -> String {
    let resources: serde_json::Map<_, _> = expected
        .resources
        .iter()
        .map(|(id, resource)| {
            let state = match &resource.state {
                State::Is(state) => state,
                State::Disabled => "disabled",
                State::Ignored => "ignored",
                State::Removed => "removed",
            };
            let state = if lost == Some(id) { "lost" } else { state };
            (id.clone(), json!({"state": state, "node": resource.node, "running_on": resource.running_on}))
        })
        .collect();
    let nodes: serde_json::Map<_, _> = expected
        .maintenance
        .iter()
        .map(|(node, on)| (node.clone(), json!({"state": if *on { "maintenance" } else { "online" }, "power": "on"})))
        .collect();
    let fenced: Vec<_> = expected.fenced.iter().map(|node| json!({"node": node, "at_s": 1.0})).collect();
    json!({"resources": resources, "nodes": nodes, "fenced": fenced, "recovered": [], "violations": []}).to_string()
}
