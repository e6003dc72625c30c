//! The order of the nodes that rules leave: by the number of resources, or by processors and memory.
//!
//! The second is TOPSIS (Hwang and Yoon, 1981) with the criteria that Proxmox VE documents for its cluster resource
//! scheduler: the root mean square and the highest of the nodes' processor and memory use as it would be with the
//! resource on each node in turn, weighted 1, 2, 5 and 10, because memory can't be shared out twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::picture::{NodeView, Picture, ResourceView, Total};
use crate::name::{MemberName, ResourceName};

/// How nodes are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scoring {
    /// By the number of resources.
    #[default]
    Basic,
    /// By the processors and memory that resources were promised.
    Static,
    /// By the processors and memory that resources use.
    Dynamic,
}

impl Scoring {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Static, Self::Dynamic];
}

impl std::fmt::Display for Scoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic => "basic",
            Self::Static => "static",
            Self::Dynamic => "dynamic",
        })
    }
}

/// How good each node is for a resource; the lower, the better.
#[derive(Clone, PartialEq, Debug)]
pub struct Scores {
    /// How they were found.
    pub scoring: Scoring,
    /// The node whose processors or memory aren't known, where that made it [`Scoring::Basic`].
    pub unknown: Option<MemberName>,
    /// All nodes that may take a resource.
    pub nodes: BTreeMap<MemberName, f64>,
}

/// How much of a node is used, in shares of what it has.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Load {
    pub cpu: f64,
    pub memory: f64,
}

impl Load {
    /// Both in one number, as Proxmox VE does for the imbalance.
    pub fn mean(self) -> f64 {
        f64::midpoint(self.cpu, self.memory)
    }

    pub fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }

    pub fn minus(self, other: Self) -> Self {
        Self { cpu: (self.cpu - other.cpu).max(0.0), memory: (self.memory - other.memory).max(0.0) }
    }
}

/// What a node has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Size {
    cpus: f64,
    memory: f64,
}

impl Size {
    fn of(node: &NodeView) -> Option<Self> {
        let cpus = node.cpus.filter(|cpus| *cpus > 0)?;
        let memory = node.memory.filter(|memory| *memory > 0)?;
        Some(Self { cpus: f64::from(cpus), memory: float(memory) })
    }

    /// The share of it that so much is.
    fn share(self, total: Total) -> Load {
        let memory = u64::try_from(total.memory).unwrap_or(u64::MAX);
        let cpus = float(total.unlimited) + float(total.cpu_milli) / 1000.0 / self.cpus;
        Load { cpu: cpus, memory: float(memory) / self.memory }
    }

    /// What a resource would use here that has what it was promised.
    pub fn promised(self, resource: &ResourceView) -> Load {
        self.share(Total::promised(resource))
    }

    /// What a resource that runs uses here.
    pub fn used(self, resource: &ResourceView, scoring: Scoring) -> Load {
        match scoring {
            Scoring::Dynamic => self.share(Total::used(resource)),
            Scoring::Basic | Scoring::Static => self.promised(resource),
        }
    }
}

/// The nodes that may take resources, by size and load.
pub(super) type Loads<'a> = BTreeMap<&'a MemberName, (Size, Load)>;

/// The load of all nodes that may take resources.
///
/// # Errors
/// The first node whose processors or memory aren't known.
pub(super) fn loads(picture: &Picture, scoring: Scoring) -> Result<Loads<'_>, &MemberName> {
    let loads = picture.counted_takers().map(|(name, node, counted)| {
        let size = Size::of(node).ok_or(name)?;
        let total = if scoring == Scoring::Dynamic { counted.used } else { counted.promised };
        Ok((name, (size, size.share(total))))
    });
    loads.collect()
}

/// Scores all nodes that may take resources for this one.
#[must_use]
pub fn score(picture: &Picture, resource: &ResourceName, scoring: Scoring) -> Scores {
    match scoring {
        Scoring::Basic => Scores { scoring, unknown: None, nodes: counts(picture) },
        Scoring::Static | Scoring::Dynamic => match loads(picture, scoring) {
            Ok(loads) => {
                let scores = topsis(&loads, picture.resources().get(resource));
                let nodes = loads.into_keys().cloned().zip(scores).collect();
                Scores { scoring, unknown: None, nodes }
            }
            Err(unknown) => Scores { scoring: Scoring::Basic, unknown: Some(unknown.clone()), nodes: counts(picture) },
        },
    }
}

/// Of the nodes that may take a resource, have room for it and are among these, the one with the lowest score; the first by
/// name, if several have it.
pub(super) fn least<'a>(
    picture: &'a Picture,
    resource: &ResourceView,
    scoring: Scoring,
    among: impl Fn(&MemberName) -> bool,
) -> Option<&'a MemberName> {
    let loads = match scoring {
        Scoring::Basic => None,
        Scoring::Static | Scoring::Dynamic => loads(picture, scoring).ok(),
    };
    let Some(loads) = loads else { return picture.fewest(resource, among) };
    let scores = topsis(&loads, Some(resource));
    let mut best: Option<(f64, &MemberName)> = None;
    for ((node, view, counted), score) in picture.counted_takers().zip(scores) {
        let better = best.is_none_or(|(lowest, _)| score.total_cmp(&lowest).is_lt());
        if better && among(node) && counted.has_room(node, view, resource) {
            best = Some((score, node));
        }
    }
    best.map(|(_, node)| node)
}

fn counts(picture: &Picture) -> BTreeMap<MemberName, f64> {
    let count = |node| float(u64::try_from(picture.count_on(node)).unwrap_or(u64::MAX));
    picture.takers().map(|node| (node.clone(), count(node))).collect()
}

/// Root mean square and highest of processors, then of memory.
const CRITERIA: usize = 4;

/// What each criterion weighs, of 18 in all.
const WEIGHTS: [f64; CRITERIA] = [1.0 / 18.0, 2.0 / 18.0, 5.0 / 18.0, 10.0 / 18.0];

/// The scores, in the order of the nodes.
fn topsis(loads: &Loads<'_>, resource: Option<&ResourceView>) -> Vec<f64> {
    let cpu = Shares::new(loads.values().map(|(_, load)| load.cpu));
    let memory = Shares::new(loads.values().map(|(_, load)| load.memory));
    let mut rows: Vec<[f64; CRITERIA]> = loads
        .values()
        .map(|(size, load)| {
            let with = resource.map_or(*load, |resource| load.plus(size.promised(resource)));
            let [cpu, cpu_max] = cpu.spread_with(load.cpu, with.cpu);
            let [memory, memory_max] = memory.spread_with(load.memory, with.memory);
            [cpu, cpu_max, memory, memory_max]
        })
        .collect();
    // Each criterion in units of its own length, times its weight. All of them cost: the least is the best.
    let (mut best, mut worst) = ([f64::INFINITY; CRITERIA], [f64::NEG_INFINITY; CRITERIA]);
    for column in 0..CRITERIA {
        let length = length(rows.iter().map(|row| row[column]));
        for row in &mut rows {
            row[column] *= WEIGHTS[column] / length;
            best[column] = best[column].min(row[column]);
            worst[column] = worst[column].max(row[column]);
        }
    }
    let away = |row: &[f64; CRITERIA], from: &[f64; CRITERIA]| length(row.iter().zip(from).map(|(a, b)| a - b));
    let scores = rows.iter().map(|row| {
        let (to_best, to_worst) = (away(row, &best), away(row, &worst));
        let all = to_best + to_worst;
        // The share of the way from the best to the worst; nodes that are all alike are all at its beginning.
        if all > 0.0 { to_best / all } else { 0.0 }
    });
    scores.collect()
}

/// The shares of all nodes: the sum of their squares, and the highest.
struct Shares {
    squares: f64,
    highest: f64,
    count: f64,
}

impl Shares {
    fn new(shares: impl Iterator<Item = f64>) -> Self {
        let (squares, highest, count) = shares.fold((0.0, 0.0_f64, 0_u32), |(squares, highest, count), share| {
            (squares + share * share, highest.max(share), count + 1)
        });
        Self { squares, highest, count: count.max(1).into() }
    }

    /// One plus the root mean square, and one plus the highest: the one keeps tiny shares from looking like big
    /// differences. One of the shares is raised from `old` to `new`. Equal nodes give equal numbers, and where nothing is
    /// raised all nodes do.
    fn spread_with(&self, old: f64, new: f64) -> [f64; 2] {
        let squares = self.squares + (new * new - old * old);
        [1.0 + (squares / self.count).sqrt(), 1.0 + self.highest.max(new)]
    }
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// The nearest float: exact up to 2^53, which no memory of a node reaches.
pub(super) fn float(value: u64) -> f64 {
    let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let high = u32::try_from(value >> 32).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests;
