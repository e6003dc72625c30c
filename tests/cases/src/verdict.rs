//! An outcome of ours beside what is expected, in three tiers: safety, outcome, time.

use std::collections::BTreeSet;
use std::fmt;

use crate::expected::{Expected, ExpectedResource, State, names};
use crate::output::{Output, OutputError, Recovered, Resource};

/// What the comparison says of one case.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// The case.
    pub case: String,
    /// Safety: what was violated.
    pub violations: Vec<String>,
    /// Outcome: what came out differently.
    pub differences: Vec<Difference>,
    /// Time: each recovery of theirs whose time says something.
    pub timings: Vec<Timing>,
}

/// Something that came out differently.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    /// What: `vm:101 state`, `vm:101 node`, `vm:101 running`, `node1 maintenance`, or `fenced`.
    pub what: String,
    /// With them.
    pub theirs: String,
    /// With us.
    pub ours: String,
}

/// How long a recovery took.
#[derive(Clone, PartialEq, Debug)]
pub struct Timing {
    /// The resource.
    pub resource: String,
    /// Seconds from loss to restart, with them.
    pub theirs_s: f64,
    /// With us; `None` if ours knows of no such recovery.
    pub ours_s: Option<f64>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: theirs {}, ours {}", self.what, self.theirs, self.ours)
    }
}

impl Timing {
    /// How many times faster ours is.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.ours_s.map(|ours| self.theirs_s / ours)
    }

    /// Whether ours takes longer.
    #[must_use]
    pub fn is_slower(&self) -> bool {
        self.ours_s.is_some_and(|ours| ours > self.theirs_s)
    }
}

/// Compares what a simulator answered, as JSON, with what is expected.
///
/// # Errors
/// If the answer isn't the promised document.
pub fn compare(expected: &Expected, output: &str) -> Result<Verdict, OutputError> {
    let output: Output =
        serde_json::from_str(output).map_err(|source| OutputError { case: expected.case.clone(), source })?;
    Ok(Verdict {
        case: expected.case.clone(),
        violations: violations(&output),
        differences: differences(expected, &output),
        timings: timings(expected, &output),
    })
}

/// What the simulator saw, and the end once more, whoever may have watched the rest.
fn violations(output: &Output) -> Vec<String> {
    let seen = output.violations.iter().map(ToString::to_string);
    let twice = output.resources.iter().filter(|(_, resource)| resource.running_on.len() > 1);
    seen.chain(twice.map(|(id, resource)| format!("{id} runs in the end on {}", names(&resource.running_on)))).collect()
}

fn differences(expected: &Expected, output: &Output) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |what: String, theirs: String, ours: String| found.push(Difference { what, theirs, ours });
    for (id, theirs) in &expected.resources {
        resource(id, theirs, output.resources.get(id), &mut differ);
    }
    for id in output.resources.keys().filter(|id| !expected.resources.contains_key(*id)) {
        differ(format!("{id} state"), "unknown".to_owned(), "there".to_owned());
    }
    let fenced: BTreeSet<String> = output.fenced.iter().map(|fenced| fenced.node.clone()).collect();
    if fenced != expected.fenced {
        differ("fenced".to_owned(), or_none(&expected.fenced), or_none(&fenced));
    }
    for (node, theirs) in &expected.maintenance {
        let ours = output.nodes.get(node).map(|node| node.state.as_str());
        if ours.is_none() || *theirs != (ours == Some("maintenance")) {
            let theirs = if *theirs { "maintenance" } else { "none" };
            differ(format!("{node} maintenance"), theirs.to_owned(), ours.unwrap_or("unknown").to_owned());
        }
    }
    found
}

fn resource(
    id: &str,
    theirs: &ExpectedResource,
    ours: Option<&Resource>,
    differ: &mut impl FnMut(String, String, String),
) {
    let state = ours.map(|ours| ours.state.as_str());
    if !theirs.state.accepts(state) {
        differ(format!("{id} state"), theirs.state.to_string(), state.unwrap_or("unknown").to_owned());
    }
    // What is removed belongs nowhere, but where it runs still counts.
    let node = ours.and_then(|ours| ours.node.as_deref());
    if theirs.state != State::Removed && node != Some(&theirs.node) {
        differ(format!("{id} node"), theirs.node.clone(), node.unwrap_or("none").to_owned());
    }
    let running = ours.map(|ours| &ours.running_on);
    if running.is_some_and(|running| *running != theirs.running_on)
        || running.is_none() && !theirs.running_on.is_empty()
    {
        differ(format!("{id} running"), or_none(&theirs.running_on), running.map_or("unknown".to_owned(), or_none));
    }
}

fn or_none(set: &BTreeSet<String>) -> String {
    if set.is_empty() { "none".to_owned() } else { names(set) }
}

/// The n-th recovery of a resource from a node with them is held against the n-th with us.
fn timings(expected: &Expected, output: &Output) -> Vec<Timing> {
    let mut taken = vec![false; output.recovered.len()];
    let mut timings = Vec::new();
    for theirs in &expected.recoveries {
        let same = |ours: &Recovered| ours.resource == theirs.resource && ours.from.as_ref() == Some(&theirs.from);
        let ours = output.recovered.iter().zip(&mut taken).find(|(ours, taken)| !**taken && same(ours));
        let ours = ours.map(|(ours, taken)| {
            *taken = true;
            ours
        });
        if let Ok(took) = theirs.time {
            timings.push(Timing {
                resource: theirs.resource.clone(),
                theirs_s: f64::from(took.after_s),
                // Both of its numbers have to hold: the one that it says, and the one from the loss that the case orders.
                ours_s: ours.map(|ours| ours.after_s.max(ours.at_s - f64::from(took.lost_at_s))),
            });
        }
    }
    timings
}

#[cfg(test)]
mod tests;
