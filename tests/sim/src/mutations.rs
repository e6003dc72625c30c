//! What is known of each rule: a seed whose schedule breaks something without it, or the test that proves it instead.

use tiebreaker_simulator::world::{Switches, Violation};

use crate::schedule::{Draw, Schedule};
use crate::search::{Found, all_hold, run};

/// The table in the tree.
const TABLE: &str = include_str!("../mutations.txt");
/// The table of rules that others mask.
const MASKED: &str = include_str!("../masked.txt");

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

/// Rules of which each covers for the others: a schedule breaks something only when all of them are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Masked {
    /// The rules; the first is the one that no schedule shows alone.
    pub rules: Vec<&'static str>,
    /// A schedule of this seed, drawn for these rules, breaks something without all of them, and nothing as long as any
    /// one of them holds.
    pub seed: Option<u64>,
}

impl Masked {
    /// What a schedule for these rules is drawn for.
    #[must_use]
    pub fn focus(&self) -> String {
        self.rules.join("+")
    }

    /// All rules, and those that hold when all but one of these are left out: each of them must be enough.
    #[must_use]
    pub fn each_covers(&self) -> Vec<Switches> {
        let but_one = |kept: &str| {
            let others: Vec<&str> = self.rules.iter().copied().filter(|rule| *rule != kept).collect();
            Switches::without_all(&others)
        };
        std::iter::once(Switches::default()).chain(self.rules.iter().filter_map(|rule| but_one(rule))).collect()
    }
}

/// The rules that others mask: a line is the rules joined by `+`, a seed or `-`, then a remark.
#[must_use]
pub fn masked() -> Vec<Masked> {
    let lines = MASKED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let rules = words.next()?.split('+').collect();
            Some(Masked { rules, seed: words.next()?.parse().ok() })
        })
        .collect()
}

/// Shows that a rule is masked by others, and needed where they fail. It searches if no seed is recorded, or the
/// recorded one shows nothing any more.
#[must_use]
pub fn prove_masked(masked: &Masked, without: Switches, search: impl FnOnce() -> Found) -> Verdict {
    let focus = masked.focus();
    if let Some(seed) = masked.seed
        && let Some(violation) = run(Schedule::draw(seed, Draw::For(&focus)), without, false).violation
        && all_hold(seed, Draw::For(&focus), &masked.each_covers())
    {
        return Verdict::Replayed { seed, violation };
    }
    match search().violation {
        Some((seed, violation)) => Verdict::Found { seed, violation },
        None => Verdict::Missed,
    }
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
        let schedule = || Schedule::draw(seed, Draw::For(known.rule));
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
