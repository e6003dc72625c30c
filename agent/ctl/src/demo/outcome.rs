//! What a demo found out: one JSON document, and the same in words.

use std::fmt;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::profile::Profile;

use super::args::Fail;

/// The outcome of a demo. Times are seconds from the break, by the demo's own monotonic clock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What was broken.
    pub fail: Fail,
    /// The profile.
    pub profile: Profile,
    /// The nodes had no BMC.
    pub no_bmc: bool,
    /// The protected resource.
    pub resource: String,
    /// Where it ran before the break.
    pub from: String,
    /// Where it ran in the end.
    pub to: String,
    /// When the fence was committed; for `appliance`, when a node led.
    pub detected_s: Option<f64>,
    /// When the fence was proven.
    pub fenced_s: Option<f64>,
    /// The grade of that proof.
    pub evidence: Option<String>,
    /// When the new instance acknowledged its first count. For `agent-crash`, when the new agent had taken over the
    /// running resource; for `appliance`, when the returned appliance led again. Nothing where nothing had to recover.
    pub recovered_s: Option<f64>,
    /// Who led before the break.
    pub leader_before: Option<String>,
    /// Who led in the end.
    pub leader_after: Option<String>,
    /// Acknowledged counts that are not stored once and in order.
    pub lost_counts: u64,
    /// Signs that two instances of the resource ran at once.
    pub double_runs: u64,
    /// Leases that ran out on nodes that were not broken.
    pub leases_lost: u64,
    /// How many counts were acknowledged.
    pub counts: u64,
    /// What went otherwise than it must.
    pub failures: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = if self.from == self.to {
            format!("{} stayed on {}", self.resource, self.from)
        } else {
            format!("{} went from {} to {}", self.resource, self.from, self.to)
        };
        let seconds =
            |what: &str, time: Option<f64>| time.map(|s| format!(", {what} after {s:.2} s")).unwrap_or_default();
        let evidence = self.evidence.as_ref().map(|grade| format!(" ({grade})")).unwrap_or_default();
        writeln!(
            f,
            "\n{} ({}): {moved}{}{}{evidence}{}.",
            self.fail,
            self.profile,
            seconds("detected", self.detected_s),
            seconds("fenced", self.fenced_s),
            seconds("recovered", self.recovered_s),
        )?;
        writeln!(
            f,
            "{} counts acknowledged, {} lost; {} double runs; {} leases lost by nodes that were well.",
            self.counts, self.lost_counts, self.double_runs, self.leases_lost
        )?;
        if self.failures.is_empty() {
            write!(f, "Everything went as it must.")
        } else {
            write!(f, "FAILED:")?;
            for failure in &self.failures {
                write!(f, "\n  {failure}")?;
            }
            Ok(())
        }
    }
}

/// Rounds to milliseconds, which is more than the demo can tell.
#[must_use]
pub fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
pub(super) fn example(fail: Fail, recovered_s: Option<f64>) -> Outcome {
    Outcome {
        fail,
        profile: Profile::Balanced,
        no_bmc: false,
        resource: "counter".into(),
        from: "node1".into(),
        to: "node2".into(),
        detected_s: Some(2.05),
        fenced_s: Some(2.3),
        evidence: Some("bmc-off".into()),
        recovered_s,
        leader_before: Some("pi".into()),
        leader_after: Some("pi".into()),
        lost_counts: 0,
        double_runs: 0,
        leases_lost: 0,
        counts: 123,
        failures: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_promised_fields() {
        let document = serde_json::to_value(example(Fail::NodePower, Some(2.7))).unwrap();
        let promised = [
            "fail",
            "profile",
            "resource",
            "from",
            "to",
            "detected_s",
            "fenced_s",
            "evidence",
            "recovered_s",
            "leader_before",
            "leader_after",
            "lost_counts",
            "double_runs",
            "leases_lost",
        ];
        for field in promised {
            assert!(document.get(field).is_some(), "{field}");
        }
        assert_eq!(document["fail"], "node-power");
        assert_eq!(document["profile"], "balanced");
    }

    #[test]
    fn the_words_say_what_failed() {
        let mut outcome = example(Fail::NodePower, Some(2.7));
        assert!(outcome.to_string().contains("recovered after 2.70 s"), "{outcome}");
        assert!(outcome.to_string().contains("Everything went as it must."));
        outcome.failures.push("too slow".into());
        assert!(outcome.to_string().ends_with("FAILED:\n  too slow"));
    }
}
