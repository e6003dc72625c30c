//! Each lease rule left out alone must be caught by a schedule: otherwise the schedules prove nothing about it.
#![cfg(feature = "mutations")]

mod harness;

use harness::{answers_that_waited, chaos, restart_of_the_only_promise};
use tiebreaker_consensus::Config;

/// The first seed whose schedule catches the mutation.
fn caught(configure: fn(&mut Config)) -> Option<(u64, String)> {
    (0..20_000).find_map(|seed| chaos(seed, 12, configure).0.map(|violation| (seed, violation)))
}

#[test]
fn with_all_rules_there_is_no_violation() {
    for seed in 0..500 {
        assert_eq!(chaos(seed, 12, |_| {}).0, None, "seed {seed}");
    }
}

#[test]
fn a_restarted_voter_that_votes_at_once_is_caught() {
    let found = (0..300)
        .find_map(|seed| restart_of_the_only_promise(seed, |config| config.rules.vote_silence_after_restart = false));
    println!("{found:?}");
    assert!(found.is_some());
}

#[test]
fn a_gate_that_stays_open_during_a_transfer_is_caught() {
    let found = caught(|config| config.rules.gate_shuts_before_vote = false);
    println!("{found:?}");
    assert!(found.is_some());
}

#[test]
fn a_gate_that_does_not_wait_for_the_own_term_is_caught() {
    let found = caught(|config| config.rules.gate_waits_for_own_term = false);
    println!("{found:?}");
    assert!(found.is_some());
}

#[test]
fn a_lease_that_needs_both_clocks_to_end_is_caught() {
    let found = caught(|config| config.rules.lease_ends_on_either_clock = false);
    println!("{found:?}");
    assert!(found.is_some());
}

#[test]
fn a_lease_from_the_time_of_the_answer_is_caught() {
    let found = (0..300).find_map(|seed| answers_that_waited(seed, |config| config.rules.lease_from_send_time = false));
    println!("{found:?}");
    assert!(found.is_some());
}
