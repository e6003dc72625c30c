//! All cases together, and the judgement on them.

use crate::convert::{Conversion, Converted, LeftOut, convert};
use crate::differences::Explained;
use crate::published::{Case, CaseError};
use crate::verdict::{Timing, Verdict, compare};

/// So many of a hundred cases at least have to come out the same.
const SAME_PERCENT: usize = 95;
/// The median recovery has to be so many times faster.
const FASTER: f64 = 6.0;

/// Whatever goes wrong in a simulator.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A simulator: from a scenario's JSON to its outcome's.
pub type Simulate = fn(&str) -> Result<String, BoxError>;

/// All cases.
#[derive(Debug)]
pub struct Suite {
    /// Those that were simulated.
    pub runs: Vec<Run>,
    /// Those that weren't, and why.
    pub left_out: Vec<(String, LeftOut)>,
    /// Decisions that the differences may rest on.
    explained: Vec<Explained>,
}

/// One case that was simulated.
#[derive(Debug)]
pub struct Run {
    /// The case.
    pub case: String,
    /// What came of it, or why there is no outcome.
    pub verdict: Result<Verdict, BoxError>,
}

/// How an outcome counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing<'a> {
    Same,
    Explained(&'a Explained),
    Differs,
    NoOutcome,
}

impl Suite {
    /// Simulates every case that isn't left out. `simulate` takes a scenario's JSON and gives its outcome's.
    ///
    /// # Errors
    /// If a case can't be converted. What goes wrong in a simulation is part of the suite.
    pub fn run(
        cases: &[Case],
        explained: &[Explained],
        mut simulate: impl FnMut(&str) -> Result<String, BoxError>,
    ) -> Result<Self, CaseError> {
        let mut suite = Self { runs: Vec::new(), left_out: Vec::new(), explained: explained.to_vec() };
        for case in cases {
            match convert(case)? {
                Conversion::LeftOut(reason) => suite.left_out.push((case.name.clone(), reason)),
                Conversion::Converted(converted) => {
                    suite.runs.push(Run { case: case.name.clone(), verdict: run(&converted, &mut simulate) });
                }
            }
        }
        Ok(suite)
    }

    /// Everything that the suite is found wanting in; nothing if all is well.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for run in &self.runs {
            match &run.verdict {
                Err(error) => failures.push(format!("{}: no outcome: {error}", run.case)),
                Ok(verdict) => {
                    failures.extend(verdict.violations.iter().map(|what| format!("{}: UNSAFE: {what}", run.case)));
                    if self.standing(run) == Standing::Differs {
                        failures.extend(verdict.differences.iter().map(|what| format!("{}: {what}", run.case)));
                    }
                    failures.extend(verdict.timings.iter().filter_map(|timing| slow(&run.case, timing)));
                }
            }
        }
        let stale = self.explained.iter().filter(|explained| !self.is_needed(explained));
        failures.extend(stale.map(|explained| {
            format!(
                "{}: the explanation doesn't fit what differs: it names {}",
                explained.case,
                explained.differs.join(", ")
            )
        }));
        let same = self.runs.iter().filter(|run| self.standing(run) == Standing::Same).count();
        if self.runs.is_empty() || same * 100 < SAME_PERCENT * self.runs.len() {
            failures.push(format!("{same} of {} come out the same: fewer than {SAME_PERCENT} %", self.runs.len()));
        }
        match self.median_ratio() {
            Some(ratio) if ratio >= FASTER => {}
            Some(ratio) => failures.push(format!("recoveries are {ratio:.1} times faster in the median, not {FASTER}")),
            None => failures.push("no recovery was timed".to_owned()),
        }
        failures
    }

    /// How many times faster ours is, in the median of all recoveries that both know.
    #[must_use]
    pub fn median_ratio(&self) -> Option<f64> {
        let mut ratios: Vec<f64> = self.timings().filter_map(|(_, timing)| timing.ratio()).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        let upper = *ratios.get(middle)?;
        if ratios.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(ratios[middle - 1], upper)) }
    }

    pub(crate) fn timings(&self) -> impl Iterator<Item = (&str, &Timing)> {
        self.runs.iter().flat_map(|run| {
            run.verdict.iter().flat_map(|verdict| verdict.timings.iter().map(|timing| (run.case.as_str(), timing)))
        })
    }

    pub(crate) fn standing(&self, run: &Run) -> Standing<'_> {
        match &run.verdict {
            Err(_) => Standing::NoOutcome,
            Ok(verdict) if verdict.differences.is_empty() => Standing::Same,
            Ok(verdict) => {
                let explained = self.explained.iter().find(|explained| fits(explained, verdict));
                explained.map_or(Standing::Differs, Standing::Explained)
            }
        }
    }

    fn is_needed(&self, explained: &Explained) -> bool {
        self.runs.iter().any(|run| run.verdict.as_ref().is_ok_and(|verdict| fits(explained, verdict)))
    }
}

fn run(
    converted: &Converted,
    simulate: &mut impl FnMut(&str) -> Result<String, BoxError>,
) -> Result<Verdict, BoxError> {
    let output = simulate(&converted.scenario.to_json())?;
    Ok(compare(&converted.expected, &output)?)
}

fn fits(explained: &Explained, verdict: &Verdict) -> bool {
    let mut found: Vec<&str> = verdict.differences.iter().map(|difference| difference.what.as_str()).collect();
    let mut named = explained.differs.to_vec();
    found.sort_unstable();
    named.sort_unstable();
    explained.case == verdict.case && !found.is_empty() && found == named
}

fn slow(case: &str, timing: &Timing) -> Option<String> {
    let Timing { resource, theirs_s, ours_s } = timing;
    match ours_s {
        None => Some(format!("{case}: {resource} ran again after {theirs_s} s with theirs, ours recovered nothing")),
        Some(ours) if timing.is_slower() => Some(format!("{case}: {resource} took {ours:.1} s, theirs {theirs_s} s")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
