//! How many virtual seconds pass in one second while nothing happens. The target is 10,000 for the usual cluster of two
//! nodes and an appliance.

use std::time::Instant;

use tiebreaker_simulator::run::simulate;
use tiebreaker_simulator::scenario::{Format, Scenario};

/// Virtual seconds of one run.
const SECONDS: u32 = 36_000;

fn main() {
    for nodes in [2, 3, 16] {
        let nodes_text: String = (1..=nodes).map(|nth| format!("[[node]]\nname = \"node{nth}\"\n")).collect();
        let resource = "[[resource]]\nid = \"vm:101\"\nnode = \"node1\"\n";
        let text = format!("duration = \"{SECONDS}s\"\n{nodes_text}{resource}");
        let scenario = Scenario::parse(&text, Format::Toml, "bench.toml").expect("the scenario is right");
        let begun = Instant::now();
        let document = simulate(&scenario);
        let took = begun.elapsed().as_secs_f64();
        assert!(document.fenced.is_empty() && document.violations.is_empty(), "nothing happens");
        println!("{nodes:>3} nodes: {:>6.0} virtual seconds per second", f64::from(SECONDS) / took);
    }
}
