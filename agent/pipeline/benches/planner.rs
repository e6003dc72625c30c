//! How long the planner takes for the largest clusters: 64 nodes, 2,000 resources, three failures.
//!
//! `cargo bench -p tiebreaker-pipeline --bench planner`. Before the times, what the planner answers is printed.

use std::collections::BTreeSet;

use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::planner::{Budget, Cluster, Memory, Node, Resource, place, plan};

const GIB: u64 = 1 << 30;
const NODES: u64 = 64;
const FAILURES: usize = 3;

fn main() {
    println!("{NODES} nodes, {FAILURES} failures");
    for name in CLUSTERS {
        let cluster = cluster(name);
        let answer = plan(&cluster, FAILURES, Budget::default()).expect("the cluster is well formed");
        let verdict = format!("{:?}", answer.verdict);
        let verdict = verdict.split('(').next().unwrap_or_default();
        println!("  {name}: {} resources, {:?}: {verdict}", cluster.resources.len(), answer.method);
    }
    divan::main();
}

const CLUSTERS: [&str; 8] =
    ["uniform", "mixed", "tight", "fewer and bigger", "ruled", "refuted", "no room", "crowded and ruled"];

fn cluster(name: &str) -> Cluster {
    match name {
        "uniform" => made(2_000, [256, 256], [6, 6], 80, false),
        "mixed" => made(2_000, [256, 1024], [4, 24], 80, false),
        "tight" => made(2_000, [256, 512], [4, 16], 90, false),
        "fewer and bigger" => made(200, [256, 512], [30, 110], 80, false),
        "ruled" => made(2_000, [256, 1024], [4, 24], 70, true),
        "refuted" => made(2_000, [256, 300], [8, 24], 99, false),
        "no room" => made(2_000, [256, 512], [4, 64], 92, false),
        _ => made(300, [256, 512], [20, 110], 88, true),
    }
}

/// SplitMix64: the same clusters on every machine.
struct Dice(u64);

impl Dice {
    fn between(&mut self, [least, most]: [u64; 2]) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        least + (z ^ (z >> 31)) % (most - least + 1)
    }
}

/// Nodes and resources of such sizes in GiB, filled to so many percent of each node or until there are enough.
fn made(resources: usize, node_gib: [u64; 2], resource_gib: [u64; 2], percent: u64, rules: bool) -> Cluster {
    let mut dice = Dice(7);
    let mut cluster = Cluster::default();
    let node = |n: u64| MemberName::new(&format!("n{n}")).expect("a name");
    let mut room: Vec<u64> = Vec::new();
    for n in 0..NODES {
        let gib = dice.between(node_gib);
        room.push(gib * percent / 100);
        cluster.nodes.push(Node { name: node(n), memory: Memory::Bytes(gib * GIB), in_service: true });
    }
    let racks: Vec<BTreeSet<MemberName>> =
        (0..4).map(|rack| (0..NODES).filter(|n| n % 4 != rack).map(node).collect()).collect();
    let mut misses = 0;
    while cluster.resources.len() < resources && misses < 2_000 {
        let (gib, n) = (dice.between(resource_gib), dice.between([0, NODES - 1]));
        let Some(room) = usize::try_from(n).ok().and_then(|n| room.get_mut(n)) else { continue };
        let Some(left) = room.checked_sub(gib) else {
            misses += 1;
            continue;
        };
        *room = left;
        let at = cluster.resources.len();
        let rack =
            usize::try_from(n % 4).ok().filter(|_| rules && at % 10 == 0).and_then(|own| racks.get((own + 1) % 4));
        cluster.resources.push(Resource {
            name: ResourceName::new(&format!("r{at}")).expect("a name"),
            memory_bytes: gib * GIB,
            node: Some(node(n)),
            may_run_on: rack.cloned(),
        });
    }
    if rules {
        let pairs = cluster.resources.chunks(2).filter(|pair| pair.len() == 2 && pair[0].node != pair[1].node);
        cluster.apart = pairs.take(100).map(|pair| pair.iter().map(|one| one.name.clone()).collect()).collect();
    }
    cluster
}

#[divan::bench(args = CLUSTERS)]
fn three_failures(bencher: divan::Bencher, name: &str) {
    let cluster = cluster(name);
    bencher.bench(|| plan(&cluster, FAILURES, Budget::default()));
}

#[divan::bench(args = CLUSTERS)]
fn placing_after_the_first(bencher: divan::Bencher, name: &str) {
    let cluster = cluster(name);
    let after = cluster.without_node(&cluster.nodes[0].name);
    bencher.bench(|| place(&after, FAILURES - 1, Budget::default()));
}
