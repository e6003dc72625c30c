//! The table of what is known of each rule.

use tiebreaker_sim::{Draw, Schedule, Switches, known, masked, run};

#[test]
fn every_rule_has_a_line_with_its_row_and_a_seed_or_a_proof() {
    for (rule, row) in Switches::table() {
        let known = known(rule).unwrap_or_else(|| panic!("{rule} has no line"));
        assert_eq!(known.row, row, "{rule}");
        assert!(known.seed.is_some() || known.proof.is_some(), "{rule}");
    }
}

#[test]
fn no_schedule_for_a_rule_breaks_anything_while_all_rules_hold() {
    let rules = Switches::table().into_iter().map(|(rule, _)| rule.to_owned());
    for focus in rules.chain(masked().iter().map(tiebreaker_sim::Masked::focus)) {
        for seed in 1..=2 {
            let outcome = run(Schedule::draw(seed, Draw::For(&focus)), Switches::default(), false);
            assert_eq!(outcome.violation, None, "tiebreaker-sim replay {seed} --focus {focus} --trace");
        }
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

#[test]
fn what_is_masked_is_several_rules_of_which_no_seed_shows_the_first_alone() {
    let table = Switches::table();
    for masked in masked() {
        assert!(masked.rules.len() > 1, "{}", masked.focus());
        assert!(masked.rules.iter().all(|rule| table.iter().any(|(name, _)| name == rule)), "{}", masked.focus());
        assert!(known(masked.rules[0]).is_some_and(|known| known.seed.is_none()), "{}", masked.focus());
        assert!(masked.seed.is_some(), "{}", masked.focus());
    }
}

#[cfg(feature = "mutations")]
#[test]
fn every_masked_rule_is_needed_where_those_that_mask_it_fail() {
    use tiebreaker_sim::{Found, Verdict, prove_masked};

    for masked in masked() {
        let without = Switches::without_all(&masked.rules).expect("the build can leave them out");
        let verdict = prove_masked(&masked, without, Found::default);
        assert!(matches!(verdict, Verdict::Replayed { .. }), "{}: {verdict:?}", masked.focus());
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
