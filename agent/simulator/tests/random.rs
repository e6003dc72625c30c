//! Scenarios that nobody wrote: random clusters, rules and faults, from fixed seeds. Whatever happens, no invariant may
//! break.

use serde_json::{Value, json};
use tiebreaker_simulator::run::simulate;
use tiebreaker_simulator::scenario::{Format, Scenario};

/// Scenarios that are played. Another range finds other ones: `TIEBREAKER_RANDOM_SCENARIOS=1000..1200`.
const SEEDS: std::ops::Range<u64> = 0..40;

/// Sebastiano Vigna's splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let nth = self.below(words.len() as u64);
        words[usize::try_from(nth).expect("less than how many there are")]
    }
}

fn scenario(seed: u64) -> Value {
    let mut dice = Dice(seed);
    let (nodes, resources) = (2 + dice.below(4), 1 + dice.below(6));
    let node = |dice: &mut Dice| format!("node{}", 1 + dice.below(nodes));
    let id =
        |nth: u64| format!("{}:{nth}", ["vm", "ct", "service"][usize::try_from(nth % 3).expect("less than three")]);
    let bmcs = !dice.one_in(3);
    let node_list: Vec<Value> = (1..=nodes)
        .map(|nth| {
            json!({
                "name": format!("node{nth}"),
                "bmc": if bmcs { dice.of(&["good", "good", "unreachable", "stuck", "slow:3s"]) } else { "none" },
                "watchdog": dice.of(&["good", "good", "good", "none"]),
                "after_reset": dice.of(&["reboot", "reboot", "off"]),
                "boot": dice.of(&["5s", "20s", "60s"]),
                "memory": "16GiB",
            })
        })
        .collect();
    let resource_list: Vec<Value> = (0..resources)
        .map(|nth| {
            json!({
                "id": id(nth),
                "node": node(&mut dice),
                "state": dice.of(&["started", "started", "started", "stopped", "disabled", "ignored"]),
                "class": dice.of(&["protected", "protected", "best-effort", "unprotected"]),
                "order": dice.below(3),
                "memory": dice.of(&["1GiB", "6GiB", "10GiB"]),
                "failback": dice.one_in(2),
                "fails": { "start": dice.below(3) / 2 * 2, "stop": dice.one_in(12) },
            })
        })
        .collect();
    let rules: Vec<Value> = (0..dice.below(3))
        .map(|_| {
            let some: Vec<String> = (0..resources).filter(|_| dice.one_in(2)).map(id).collect();
            let some = if some.is_empty() { vec![id(0)] } else { some };
            match dice.below(3) {
                0 => {
                    let preferred = node(&mut dice);
                    let strict = dice.one_in(3);
                    json!({ "kind": "node-affinity", "resources": some, "nodes": { preferred: 1 }, "strict": strict })
                }
                1 => json!({ "kind": "together", "resources": some }),
                _ => json!({ "kind": "apart", "resources": some }),
            }
        })
        .collect();
    let mut at = 60 + dice.below(60);
    let mut disarmed = false;
    let events: Vec<Value> = (0..4 + dice.below(8))
        .map(|_| {
            // Some come at once: what was decided first is not applied yet then.
            at += if dice.one_in(3) { 0 } else { dice.below(45) };
            let (one, other, some) = (node(&mut dice), node(&mut dice), id(dice.below(resources)));
            let what = match dice.below(28) {
                0 => format!("power-off {one}"),
                1 | 2 => format!("power-on {one}"),
                3 => format!("isolate {one}"),
                4 | 5 => format!("rejoin {one}"),
                6 if one != other => format!("cut {one} {other}"),
                7 if one != other => format!("heal {one} {other}"),
                8 => format!("freeze {one}"),
                9 => format!("thaw {one}"),
                10 => format!("kill-agent {one}"),
                11 => format!("shutdown {one}"),
                12 => format!("reboot {one}"),
                13 => format!("maintenance {one} {}", dice.of(&["on", "off"])),
                14 => format!("restart-agent {one}"),
                15 if disarmed => {
                    disarmed = false;
                    "arm".to_owned()
                }
                15 => {
                    disarmed = true;
                    format!("disarm {}", dice.of(&["freeze", "ignore"]))
                }
                16 | 24 => format!("migrate {some} {one}"),
                17 | 25 => format!("relocate {some} {one}"),
                26 => format!("set {some} state=started"),
                18 => format!("set {some} state={}", dice.of(&["started", "stopped", "disabled", "ignored"])),
                19 => format!("fail {some}"),
                20 => format!("drift {one} {}", dice.below(400)),
                21 => format!("disk-stall {one} {}", 1 + dice.below(5)),
                22 => format!("{} {some}", dice.of(&["lock", "unlock"])),
                _ if !bmcs => format!("kill-agent {one}"),
                _ => format!("bmc {one} {}", dice.of(&["stuck", "unreachable", "slow:2"])),
            };
            json!({ "at": format!("{at}s"), "do": what })
        })
        .collect();
    json!({
        "profile": dice.of(&["fast", "balanced", "balanced", "patient"]),
        "appliance": nodes < 3 || !dice.one_in(3),
        "shutdown_policy": dice.of(&["conditional", "freeze", "failover", "migrate"]),
        "duration": format!("{}s", at + 200),
        "node": node_list,
        "resource": resource_list,
        "rule": rules,
        "event": events,
    })
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("TIEBREAKER_RANDOM_SCENARIOS") else { return SEEDS };
    let (from, to) = range.split_once("..").expect("write it as 1000..1200");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn no_random_scenario_breaks_an_invariant() {
    let mut broken = Vec::new();
    for seed in seeds() {
        let text = scenario(seed).to_string();
        let scenario = Scenario::parse(&text, Format::Json, "random.json").expect("a scenario that makes sense");
        let document = simulate(&scenario);
        if let Some(violation) = document.violations.first() {
            broken.push(format!(
                "seed {seed}: {} at {} s: {}\n  {text}",
                violation.invariant, violation.at_s, violation.how
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
