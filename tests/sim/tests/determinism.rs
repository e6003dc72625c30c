//! The same seed is the same run.

use tiebreaker_sim::{Schedule, Switches, run};

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    for seed in [1, 7, 42, 1_000_003] {
        let first = run(Schedule::draw(seed, None), Switches::default(), true);
        let second = run(Schedule::draw(seed, None), Switches::default(), true);
        assert!(first.trace.len() > 20, "seed {seed} has hardly a trace: {:?}", first.trace);
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!((first.steps, first.virtual_ns), (second.steps, second.virtual_ns), "seed {seed}");
    }
}

#[test]
fn a_trace_changes_nothing() {
    let silent = run(Schedule::draw(3, None), Switches::default(), false);
    let loud = run(Schedule::draw(3, None), Switches::default(), true);
    assert_eq!((silent.steps, silent.virtual_ns), (loud.steps, loud.virtual_ns));
}
