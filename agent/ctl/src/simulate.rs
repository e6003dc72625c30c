//! `tiebreaker simulate`: a scenario in virtual time, of a file or of the cluster itself.

mod likeness;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde::Serialize;
use tiebreaker_pipeline::state::State;
use tiebreaker_simulator::output::Document;
use tiebreaker_simulator::run;
use tiebreaker_simulator::scenario::{Format, Scenario, ScenarioError};

use crate::failure::Failure;

/// Runs the scenario of a file and prints what came of it.
pub fn simulate(file: &Path, json: bool) -> Result<(), Failure> {
    play(&Scenario::load(file).map_err(unusable)?, None, json)
}

/// Plays what shall happen on a likeness of the cluster, and prints what came of it.
pub fn simulate_cluster(state: &State, doing: &[String], json: bool) -> Result<(), Failure> {
    // A line for each key, so that a mistake is shown with little around it.
    let text =
        serde_json::to_string_pretty(&likeness::of(state, doing)).context("writing JSON").map_err(Failure::refused)?;
    let scenario = Scenario::parse(&text, Format::Json, "the cluster's likeness").map_err(Failure::usage)?;
    let left_out = likeness::left_out(state);
    if !json {
        for what in &left_out {
            eprintln!("tiebreaker: not carried over: {what}");
        }
    }
    play(&scenario, Some(&left_out), json)
}

fn play(scenario: &Scenario, left_out: Option<&[String]>, json: bool) -> Result<(), Failure> {
    let document = run::simulate(scenario);
    let text = if json { written(&document, left_out) } else { Ok(document.to_string()) };
    let mut text = text.map_err(Failure::refused)?;
    text.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("writing to standard output")
        .map_err(Failure::refused)?;
    judge(&document, json)
}

/// The document, with what the likeness of a cluster leaves out.
fn written(document: &Document, left_out: Option<&[String]>) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(flatten)]
        document: &'a Document,
        #[serde(skip_serializing_if = "Option::is_none")]
        not_carried_over: Option<&'a [String]>,
    }
    serde_json::to_string(&Written { document, not_carried_over: left_out }).context("writing JSON")
}

/// A broken invariant is a failure, whatever else came of it.
fn judge(document: &Document, json: bool) -> Result<(), Failure> {
    match document.violations.len() {
        0 => Ok(()),
        broken => {
            let why = anyhow!("{broken} invariant(s) were broken: this is a fault of Tiebreaker, please report it");
            let mut failure = Failure::refused(why);
            failure.documented = json;
            Err(failure)
        }
    }
}

fn unusable(error: ScenarioError) -> Failure {
    Failure::usage(error)
}

#[cfg(test)]
mod tests {
    use tiebreaker_simulator::output::Violation;

    use super::*;
    use crate::failure::Exit;

    fn scenario(text: &str) -> Result<(), Failure> {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        simulate(file.path(), true)
    }

    #[test]
    fn a_scenario_with_a_mistake_is_wrong_usage_and_the_mistake_is_told() {
        let failure = scenario("[[node]]\nname = \"node1\"\nbcm = \"none\"\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains(".toml:3:1: a node has no key \"bcm\""), "{failure}");
    }

    #[test]
    fn a_run_without_a_broken_invariant_is_a_success() {
        scenario("duration = \"20s\"\n[[node]]\nname = \"node1\"\n").unwrap();
    }

    #[test]
    fn a_broken_invariant_is_a_failure() {
        let violation = Violation { at_s: 1.0, invariant: "one runner".into(), how: "twice".into() };
        let document = Document { violations: vec![violation], ..Document::default() };
        assert_eq!(judge(&document, false).unwrap_err().exit, Exit::Refused);
    }
}
