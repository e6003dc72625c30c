//! The table of what is known of each rule.

use tiebreaker_sim::{Switches, known};

#[test]
fn every_rule_has_a_line_with_its_row_and_a_seed_or_a_proof() {
    for (rule, row) in Switches::table() {
        let known = known(rule).unwrap_or_else(|| panic!("{rule} has no line"));
        assert_eq!(known.row, row, "{rule}");
        assert!(known.seed.is_some() || known.proof.is_some(), "{rule}");
    }
}

#[test]
fn every_proof_that_is_named_is_there() {
    let pipeline = include_str!("../../../agent/pipeline/src/rules/tests.rs");
    let consensus = include_str!("../../../agent/consensus/tests/mutations.rs");
    for proof in Switches::table().into_iter().filter_map(|(rule, _)| known(rule)?.proof) {
        let (file, name) = proof.split_once("::").expect("file, two colons, name");
        let there = match file {
            "agent/pipeline/src/rules/tests.rs" => pipeline.contains(&format!("pub fn {name}(rules: Rules) -> bool")),
            "agent/consensus/tests/mutations.rs" => consensus.contains(&format!("#[test]\nfn {name}()")),
            _ => false,
        };
        assert!(there, "{proof}");
    }
}

#[cfg(feature = "mutations")]
#[test]
fn every_recorded_seed_shows_that_its_rule_is_needed() {
    use tiebreaker_sim::{Found, Verdict, prove};

    for (rule, _) in Switches::table() {
        let Some(known) = known(rule).filter(|known| known.seed.is_some()) else { continue };
        let without = Switches::without(rule).expect("the build can leave it out");
        let verdict = prove(&known, without, false, Found::default);
        assert!(matches!(verdict, Verdict::Replayed { .. }), "{rule}: {verdict:?}");
    }
}
