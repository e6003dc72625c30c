//! A suite as people read it.

use std::collections::BTreeMap;
use std::fmt;

use crate::suite::{Run, Standing, Suite};

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:62} {:7} {:10} restart after loss, theirs -> ours", "case", "safety", "outcome")?;
        for run in &self.runs {
            self.row(f, run)?;
        }
        self.reasons(f)?;
        let count =
            |standing: fn(Standing<'_>) -> bool| self.runs.iter().filter(|run| standing(self.standing(run))).count();
        let unsafe_runs =
            self.runs.iter().filter(|run| run.verdict.as_ref().is_ok_and(|verdict| !verdict.violations.is_empty()));
        writeln!(f, "{} simulated, {} left out", self.runs.len(), self.left_out.len())?;
        writeln!(f, "safety: {} violated", unsafe_runs.count())?;
        writeln!(
            f,
            "outcome: {} the same, {} explained, {} different, {} without one",
            count(|standing| standing == Standing::Same),
            count(|standing| matches!(standing, Standing::Explained(_))),
            count(|standing| standing == Standing::Differs),
            count(|standing| standing == Standing::NoOutcome),
        )?;
        let timed = self.timings().filter(|(_, timing)| timing.ours_s.is_some()).count();
        let slower = self.timings().filter(|(_, timing)| timing.is_slower()).count();
        write!(f, "time: {timed} of {} recoveries compared, {slower} slower", self.timings().count())?;
        match self.median_ratio() {
            Some(ratio) => writeln!(f, ", {ratio:.1} times faster in the median"),
            None => writeln!(f),
        }
    }
}

impl Suite {
    fn row(&self, f: &mut fmt::Formatter<'_>, run: &Run) -> fmt::Result {
        let verdict = match &run.verdict {
            Ok(verdict) => verdict,
            Err(error) => return writeln!(f, "{:62} {:7} {error}", run.case, "-"),
        };
        let safety = if verdict.violations.is_empty() { "ok" } else { "UNSAFE" };
        let standing = match self.standing(run) {
            Standing::Same => "same",
            Standing::Explained(_) => "explained",
            Standing::Differs => "DIFFERS",
            Standing::NoOutcome => "none",
        };
        let times: Vec<String> = verdict
            .timings
            .iter()
            .map(|timing| match timing.ours_s {
                Some(ours) => format!("{:.0}->{ours:.1}", timing.theirs_s),
                None => format!("{:.0}->never", timing.theirs_s),
            })
            .collect();
        writeln!(f, "{}", format!("{:62} {safety:7} {standing:10} {}", run.case, times.join(" ")).trim_end())?;
        for violation in &verdict.violations {
            writeln!(f, "    violated: {violation}")?;
        }
        for difference in &verdict.differences {
            writeln!(f, "    {difference}")?;
        }
        if let Standing::Explained(explained) = self.standing(run) {
            writeln!(f, "    because {}", explained.decision)?;
        }
        Ok(())
    }

    fn reasons(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (case, reason) in &self.left_out {
            reasons.entry(reason.to_string()).or_default().push(case);
        }
        for (reason, cases) in reasons {
            writeln!(f, "left out, {reason}: {}", cases.join(" "))?;
        }
        Ok(())
    }
}
