//! The figures side by side.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::servers::Whose;

/// What ours has to reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// So much at most, in every repetition.
    AtMost(f64),
    /// So much at least.
    AtLeast(f64),
    /// So many times the original's at least.
    Times(f64),
    /// This part of the original's at most, middle against middle of one run: for what a slower machine makes slower for both.
    Share(f64),
    /// Shown, and not judged.
    Told,
}

/// A figure of the table.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What is measured.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
    /// What ours has to reach.
    pub target: Target,
}

/// All figures, in the order of the table.
pub const FIGURES: [Figure; 16] = {
    use Target::{AtLeast, AtMost, Share, Times, Told};
    const fn figure(name: &'static str, unit: &'static str, target: Target) -> Figure {
        Figure { name, unit, target }
    }
    [
        figure("idle memory", "MB", AtMost(8.0)),
        figure("idle memory, of it pages of files", "MB", Told),
        figure("idle memory, with a cluster of its own", "MB", Told),
        figure("per TLS client", "kB", AtMost(12.0)),
        figure("per plain client", "kB", AtMost(2.15)),
        figure("CPU per TLS handshake", "ms", Share(0.1)),
        figure("vote, ffsplit, 1 cluster, p50", "ms", AtMost(1.0)),
        figure("vote, ffsplit, 1000 clusters, p50", "ms", AtMost(2.0)),
        figure("vote, lms", "ms", AtMost(5.0)),
        figure("clients held", "", AtLeast(8000.0)),
        figure("connects per second there", "/s", Times(3.0)),
        figure("echoes per second, 16 connections", "/s", Times(1.0)),
        // Nearly all of it is Corosync's own: 3 s for the token, 3.6 s for consensus, and 0.56 s in which it holds its token and doesn't
        // look for the vote, unless that comes before. They count from the token before the fault, at most 0.56 s earlier. The row
        // below is what the vote takes of it.
        figure("kill -9 of corosync to quorate", "s", AtMost(7.0)),
        figure("of it, Corosync's question to our vote", "ms", Told),
        figure("all links cut to quorate", "s", AtMost(7.8)),
        figure("winner of an lms split dies", "s", AtMost(8.0)),
    ]
};

/// What was measured of one server: a value for each repetition; infinite where it never came.
type Values = Vec<f64>;

/// The table.
#[derive(Default)]
pub struct Table {
    rows: Vec<(Figure, Values, Values)>,
}

fn middle(values: &Values) -> Option<f64> {
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn shown(values: &Values) -> String {
    let number = |value: f64| match value {
        value if value.is_infinite() => "never".to_owned(),
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    };
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    match middle(values) {
        None => "-".into(),
        Some(value) if values.len() == 1 || low.is_infinite() => number(value),
        Some(value) => format!("{} ({} to {})", number(value), number(low), number(high)),
    }
}

impl Table {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self { rows: FIGURES.iter().map(|figure| (*figure, Values::new(), Values::new())).collect() }
    }

    /// Notes a value.
    pub fn note(&mut self, whose: Whose, name: &str, value: f64) {
        for (figure, original, ours) in &mut self.rows {
            if figure.name == name {
                if whose == Whose::Ours { &mut *ours } else { &mut *original }.push(value);
            }
        }
    }

    /// Whether a row's target is met; `None` where there is none or nothing was measured.
    fn met(figure: &Figure, original: &Values, ours: &Values) -> Option<bool> {
        if ours.is_empty() {
            return None;
        }
        match figure.target {
            Target::AtMost(most) => Some(ours.iter().all(|value| *value <= most)),
            Target::AtLeast(least) => Some(ours.iter().all(|value| *value >= least)),
            Target::Times(times) => Some(middle(ours)? >= times * middle(original)?),
            Target::Share(share) => Some(middle(ours)? <= share * middle(original)?),
            Target::Told => None,
        }
    }

    /// Whether all that was measured is as it has to be.
    pub fn all_met(&self) -> bool {
        self.rows.iter().all(|(figure, original, ours)| Self::met(figure, original, ours) != Some(false))
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text =
            format!("{:<42} {:>24} {:>24} {:>8} {:>16}  met\n", "figure", "corosync-qnetd", "ours", "ratio", "target");
        for (figure, original, ours) in &self.rows {
            if original.is_empty() && ours.is_empty() {
                continue;
            }
            let name =
                if figure.unit.is_empty() { figure.name.into() } else { format!("{}, {}", figure.name, figure.unit) };
            let ratio = match (middle(original), middle(ours)) {
                (Some(original), Some(ours)) if original.is_finite() => format!("{:.3}", ours / original),
                _ => "-".into(),
            };
            let target = match figure.target {
                Target::AtMost(most) => format!("at most {most}"),
                Target::AtLeast(least) => format!("at least {least}"),
                Target::Times(times) => format!("{times} times"),
                Target::Share(share) => format!("{share} of it"),
                Target::Told => "-".into(),
            };
            let met = match Self::met(figure, original, ours) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            let _ =
                writeln!(text, "{name:<42} {:>24} {:>24} {ratio:>8} {target:>16}  {met}", shown(original), shown(ours));
        }
        text
    }

    /// For programs. A value that never came is null.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().filter(|(_, original, ours)| !original.is_empty() || !ours.is_empty());
        let rows = rows.map(|(figure, original, ours)| {
            let (kind, value) = match figure.target {
                Target::AtMost(value) => ("at_most", Some(value)),
                Target::AtLeast(value) => ("at_least", Some(value)),
                Target::Times(value) => ("times_the_original", Some(value)),
                Target::Share(value) => ("at_most_times_the_original", Some(value)),
                Target::Told => ("none", None),
            };
            json!({
                "figure": figure.name,
                "unit": figure.unit,
                "original": original,
                "ours": ours,
                "ratio": middle(original).zip(middle(ours)).map(|(original, ours)| ours / original),
                "target": { "kind": kind, "value": value },
                "met": Self::met(figure, original, ours),
            })
        });
        json!({ "figures": rows.collect::<Vec<_>>() })
    }
}
