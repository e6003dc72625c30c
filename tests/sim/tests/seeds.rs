//! Fixed seeds, and those that once broke something.

use tiebreaker_sim::{Draw, Schedule, Switches, run};

fn holds(seed: u64, draw: Draw<'_>) {
    let outcome = run(Schedule::draw(seed, draw), Switches::default(), false);
    assert_eq!(outcome.violation, None, "tiebreaker-sim replay {seed} --trace, drawn as {draw:?}");
}

#[test]
fn fifty_fixed_seeds_hold() {
    (1..=50).for_each(|seed| holds(seed, Draw::Plans));
}

#[test]
fn seeds_that_once_broke_something_hold() {
    let lines = include_str!("seeds.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seeds: Vec<(u64, Draw<'_>)> = lines
        .map(|line| {
            let (draw, line) = match line.strip_prefix("faults ") {
                Some(rest) => (Draw::Faults, rest),
                None => (Draw::Plans, line),
            };
            (
                line.split_whitespace().next().and_then(|seed| seed.parse().ok()).expect("a line begins with a seed"),
                draw,
            )
        })
        .collect();
    assert!(!seeds.is_empty());
    seeds.into_iter().for_each(|(seed, draw)| holds(seed, draw));
}
