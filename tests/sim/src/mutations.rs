//! What is known of each rule: a seed whose schedule breaks something without it, or the test that proves it instead.

use crate::invariants::Violation;
use crate::rules::Switches;
use crate::schedule::Schedule;
use crate::search::{Found, run};

/// The table in the tree.
const TABLE: &str = include_str!("../mutations.txt");

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The rule.
    pub rule: &'static str,
    /// Its row in the list of attacks.
    pub row: u32,
    /// A schedule of this seed, drawn for the rule, breaks something without it.
    pub seed: Option<u64>,
    /// The test that proves it by itself: file, two colons, name.
    pub proof: Option<&'static str>,
}

/// What the table says about a rule.
#[must_use]
pub fn known(rule: &str) -> Option<Known> {
    TABLE.lines().filter_map(parse).find(|known| known.rule == rule)
}

/// A line: rule, row, seed or `-`, proof or `-`, then a remark.
fn parse(line: &'static str) -> Option<Known> {
    let mut words = line.split_whitespace();
    let rule = words.next().filter(|word| !word.starts_with('#'))?;
    let row = words.next()?.parse().ok()?;
    let seed = words.next()?.parse().ok();
    let proof = words.next().filter(|word| *word != "-");
    Some(Known { rule, row, seed, proof })
}

/// What became of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its recorded seed shows the violation.
    Replayed {
        /// The seed.
        seed: u64,
        /// What it shows.
        violation: Violation,
    },
    /// A search has found a seed that belongs in the table.
    Found {
        /// The seed.
        seed: u64,
        /// What it shows.
        violation: Violation,
    },
    /// No seed is recorded, but a test is.
    Elsewhere {
        /// Which.
        proof: &'static str,
    },
    /// Its recorded seed shows nothing any more and no other was found, or it has neither seed nor test.
    Missed,
}

/// Shows that a rule is needed. It searches if the recorded seed shows nothing any more, and where none is recorded if
/// `also_unreached` says so, or if nothing else proves the rule.
#[must_use]
pub fn prove(known: &Known, without: Switches, also_unreached: bool, search: impl FnOnce() -> Found) -> Verdict {
    if let Some(seed) = known.seed {
        let schedule = || Schedule::draw(seed, Some(known.rule));
        let with = run(schedule(), Switches::default(), false).violation;
        if let (None, Some(violation)) = (with, run(schedule(), without, false).violation) {
            return Verdict::Replayed { seed, violation };
        }
    }
    let elsewhere = known.proof.filter(|_| known.seed.is_none());
    if let (Some(proof), false) = (elsewhere, also_unreached) {
        return Verdict::Elsewhere { proof };
    }
    match (search().violation, elsewhere) {
        (Some((seed, violation)), _) => Verdict::Found { seed, violation },
        (None, Some(proof)) => Verdict::Elsewhere { proof },
        (None, None) => Verdict::Missed,
    }
}
