//! `tiebreaker demo-bench`: minimum, median and maximum over the JSON documents of many demos.

use std::collections::BTreeMap;
use std::io::{self, Read};

use anyhow::{Context, anyhow};
use serde::Deserialize;

use super::outcome::Outcome;
use crate::failure::Failure;
use crate::render::Table;

/// Reads documents from standard input and prints the table.
///
/// # Errors
/// When the input holds anything else, or nothing.
pub fn main() -> Result<(), Failure> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("reading the documents").map_err(Failure::usage)?;
    print!("{}", summarise(&text).map_err(Failure::usage)?);
    Ok(())
}

/// What a demo prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    /// It was played.
    Outcome(Box<Outcome>),
    /// It wasn't.
    Unplayed {
        /// Why.
        error: String,
    },
}

fn summarise(text: &str) -> anyhow::Result<String> {
    let mut cases: BTreeMap<(String, String), Vec<Outcome>> = BTreeMap::new();
    let mut unplayed = 0;
    for (at, document) in serde_json::Deserializer::from_str(text).into_iter::<Document>().enumerate() {
        let outcome = match document.with_context(|| format!("document {}", at + 1))? {
            Document::Outcome(outcome) => *outcome,
            Document::Unplayed { error } => {
                eprintln!("a demo that could not be played: {error}");
                unplayed += 1;
                continue;
            }
        };
        let suffix = if outcome.no_bmc { ", no BMC" } else { "" };
        cases.entry((outcome.profile.to_string(), format!("{}{suffix}", outcome.fail))).or_default().push(outcome);
    }
    if cases.is_empty() && unplayed == 0 {
        return Err(anyhow!("there is no document on the standard input"));
    }
    let mut table = Table::new(&["PROFILE", "CASE", "RUNS", "FAILED", "WHAT", "MIN", "MEDIAN", "MAX"]);
    for ((profile, case), outcomes) in &cases {
        let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
        type Time = fn(&Outcome) -> Option<f64>;
        let times: [(&str, Time); 3] = [
            ("detected", |outcome| outcome.detected_s),
            ("fenced", |outcome| outcome.fenced_s),
            ("recovered", |outcome| outcome.recovered_s),
        ];
        for (what, time) in times {
            let mut values: Vec<f64> = outcomes.iter().filter_map(time).collect();
            if values.is_empty() && what != "recovered" {
                continue;
            }
            values.sort_by(f64::total_cmp);
            let cell = |value: Option<f64>| value.map(|s| format!("{s:.2} s")).unwrap_or_default();
            table.row(vec![
                profile.clone(),
                case.clone(),
                outcomes.len().to_string(),
                failed.to_string(),
                what.to_owned(),
                cell(values.first().copied()),
                cell(median(&values)),
                cell(values.last().copied()),
            ]);
        }
    }
    let mut text = table.render();
    if unplayed > 0 {
        text.push_str(&format!("{unplayed} demos could not be played to their end.\n"));
    }
    Ok(text)
}

/// The middle of sorted values, or the mean of the middle two.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(*sorted.get(middle - 1)?, upper) } else { upper })
}

#[cfg(test)]
mod tests {
    use super::super::args::Fail;
    use super::super::outcome::example;
    use super::*;

    #[test]
    fn documents_are_summarised_per_case() {
        let documents: String = [3.0, 1.0, 2.0]
            .into_iter()
            .map(|s| serde_json::to_string(&example(Fail::NodePower, Some(s))).unwrap() + "\n")
            .chain([serde_json::to_string(&example(Fail::NodeLink, None)).unwrap()])
            .chain([r#"{"error":"no room","exit":4}"#.to_owned()])
            .collect();
        let table = summarise(&documents).unwrap();
        let line = |case: &str, what: &str| {
            table
                .lines()
                .find(|line| line.contains(case) && line.contains(what))
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            line("node-power", "recovered")[2..],
            ["3", "0", "recovered", "1.00", "s", "2.00", "s", "3.00", "s"]
        );
        assert_eq!(line("node-link", "recovered")[2..], ["1", "0", "recovered", "-", "-", "-"]);
        assert!(table.ends_with("1 demos could not be played to their end.\n"), "{table}");
        assert!(summarise("").is_err() && summarise("{}").is_err());
    }

    #[test]
    fn the_median_of_two_lies_between() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, 4.0]), Some(2.5));
    }
}
