//! Short ways to say rules and pictures in tests.

use std::collections::{BTreeMap, BTreeSet};

use super::choose::{Choice, Preference, Wish, choose};
use super::judge::{EffectiveRules, judge_rules};
use super::picture::{NodeView, Picture, ResourceView, Seat, Use};
use super::rule::{PlacementRule, PlacementRules, RuleKind};
use super::score::Scoring;
use crate::name::{MemberName, ResourceName, RuleName};

pub const GIB: u64 = 1 << 30;

pub fn node(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

pub fn res(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

pub fn rule_name(name: &str) -> RuleName {
    RuleName::new(name).unwrap()
}

fn rule(resources: &[&str], kind: RuleKind) -> PlacementRule {
    PlacementRule { resources: resources.iter().map(|r| res(r)).collect(), kind, disabled_by_operator: false }
}

pub fn on(resources: &[&str], nodes: &[(&str, u32)]) -> PlacementRule {
    let nodes = nodes.iter().map(|(name, priority)| (node(name), *priority)).collect();
    rule(resources, RuleKind::NodeAffinity { nodes, strict: false })
}

pub fn only_on(resources: &[&str], nodes: &[&str]) -> PlacementRule {
    rule(resources, RuleKind::NodeAffinity { nodes: nodes.iter().map(|name| (node(name), 0)).collect(), strict: true })
}

pub fn together(resources: &[&str]) -> PlacementRule {
    rule(resources, RuleKind::Together)
}

pub fn apart(resources: &[&str]) -> PlacementRule {
    rule(resources, RuleKind::Apart)
}

pub fn rules(rules: &[(&str, PlacementRule)]) -> PlacementRules {
    rules.iter().map(|(name, rule)| (rule_name(name), rule.clone())).collect()
}

/// A cluster that a test moves things about in.
pub struct Cluster {
    pub picture: Picture,
    pub rules: EffectiveRules,
    pub scoring: Scoring,
    pub failback: bool,
    pub homes: BTreeMap<ResourceName, MemberName>,
}

impl Cluster {
    /// So many nodes, n1 and on, with 24 processors and 128 GiB, and resources on some of them.
    pub fn new(nodes: usize, resources: &[(&str, &str)]) -> Self {
        let view = || NodeView { may_take: true, memory: Some(128 * GIB), cpus: Some(24) };
        let nodes = (1..=nodes).map(|i| (node(&format!("n{i}")), view())).collect();
        let mut cluster = Self {
            picture: Picture::new(nodes, BTreeMap::new()),
            rules: EffectiveRules::default(),
            scoring: Scoring::Basic,
            failback: true,
            homes: BTreeMap::new(),
        };
        for (name, on) in resources {
            cluster.add(name, on, 0, 0);
        }
        cluster
    }

    /// Adds a resource. On "-" it is on no node.
    pub fn add(&mut self, name: &str, on: &str, cpu_milli: u32, memory: u64) {
        let seat = if on == "-" { Seat::Nowhere } else { Seat::On(node(on)) };
        let view = ResourceView {
            seat,
            memory: Some(memory),
            cpu_milli: Some(cpu_milli),
            measured: None,
            only_on: BTreeSet::new(),
            may_balance: true,
        };
        let mut resources = self.picture.resources().clone();
        resources.insert(res(name), view);
        self.picture = Picture::new(self.picture.nodes.clone(), resources);
    }

    pub fn with(mut self, rules: &[(&str, PlacementRule)]) -> Self {
        let nodes: BTreeSet<MemberName> = self.picture.nodes.keys().cloned().collect();
        let (effective, faults) = judge_rules(&self::rules(rules), &nodes);
        assert_eq!(faults, BTreeMap::new());
        self.rules = effective;
        self
    }

    pub fn by(mut self, scoring: Scoring) -> Self {
        self.scoring = scoring;
        self
    }

    pub fn size(&mut self, name: &str, cpus: u32, memory: u64) {
        let view = self.picture.nodes.get_mut(&node(name)).unwrap();
        (view.cpus, view.memory) = (Some(cpus), Some(memory));
    }

    pub fn measure(&mut self, name: &str, cpu_milli: u32, memory: u64) {
        self.change(name, |view| view.measured = Some(Use { cpu_milli, memory }));
    }

    pub fn takes(&mut self, name: &str, may_take: bool) {
        self.picture.nodes.get_mut(&node(name)).unwrap().may_take = may_take;
    }

    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut ResourceView)) {
        self.picture.change(&res(name), change);
    }

    pub fn seat(&mut self, name: &str, seat: Seat) {
        self.change(name, |view| view.seat = seat);
    }

    pub fn moving(&mut self, name: &str, from: &str, to: &str) {
        self.seat(name, Seat::Moving { from: node(from), to: node(to) });
    }

    pub fn ask(&self, name: &str, preference: Preference, failed: &[&str]) -> Choice {
        let (name, failed) = (res(name), failed.iter().map(|name| node(name)).collect());
        let current = match &self.picture.resources()[&name].seat {
            Seat::On(node) | Seat::Moving { from: node, .. } => Some(node),
            Seat::Nowhere => None,
        };
        let home = self.homes.get(&name);
        let wish = Wish { resource: &name, preference, failed: &failed, home, current, failback: self.failback };
        choose(&self.picture, &self.rules, self.scoring, &wish)
    }

    /// The chosen node, or "-".
    pub fn pick(&self, name: &str, preference: Preference, failed: &[&str]) -> String {
        self.ask(name, preference, failed).node().map_or("-".to_owned(), ToString::to_string)
    }

    /// One round of a manager: all resources by name, each decision seen by those after it. Answers who moved.
    pub fn round(&mut self) -> Vec<String> {
        let names: Vec<ResourceName> = self.picture.resources().keys().cloned().collect();
        let mut moved = Vec::new();
        for name in names {
            let Seat::On(from) = self.picture.resources()[&name].seat.clone() else { continue };
            let lost = !self.picture.nodes.contains_key(&from);
            let preference = if lost { Preference::BestScore } else { Preference::None };
            let Some(to) = self.ask(name.as_str(), preference, &[]).node().cloned() else { continue };
            if to == from {
                continue;
            }
            moved.push(format!("{name} {from} {to}"));
            let seat = if lost { Seat::On(to) } else { Seat::Moving { from, to } };
            self.seat(name.as_str(), seat);
        }
        moved
    }

    /// All moves are over.
    pub fn land(&mut self) {
        let names: Vec<ResourceName> = self.picture.resources().keys().cloned().collect();
        for name in names {
            self.picture.change(&name, |view| {
                if let Seat::Moving { to, .. } = &view.seat {
                    view.seat = Seat::On(to.clone());
                }
            });
        }
    }

    /// Rounds until nothing moves.
    pub fn rest(&mut self) {
        for _ in 0..20 {
            if self.round().is_empty() {
                return;
            }
            self.land();
        }
        panic!("it never rests: {:?}", self.places());
    }

    /// A node is gone, and what ran there is to be recovered.
    pub fn lose(&mut self, name: &str) {
        self.picture.nodes.remove(&node(name)).unwrap();
    }

    /// Where everything is, as "a:n1 b:n2".
    pub fn places(&self) -> String {
        let place = |view: &ResourceView| match &view.seat {
            Seat::Nowhere => "-".to_owned(),
            Seat::On(node) => node.to_string(),
            Seat::Moving { from, to } => format!("{from}>{to}"),
        };
        let places = self.picture.resources().iter().map(|(name, view)| format!("{name}:{}", place(view)));
        places.collect::<Vec<_>>().join(" ")
    }
}

/// Small numbers that look random: xorshift, seeded by the case.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub fn yes(&mut self) -> bool {
        self.roll(2) == 0
    }
}

pub const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

pub fn random_rules(dice: &mut Dice, nodes: u64) -> Vec<(String, PlacementRule)> {
    let mut rules = Vec::new();
    for i in 0..dice.roll(5) {
        let some: Vec<&str> = NAMES.into_iter().filter(|_| dice.roll(3) == 0).collect();
        let mut at: Vec<String> = (1..=nodes).filter(|_| dice.yes()).map(|n| format!("n{n}")).collect();
        if at.is_empty() {
            at.push("n1".to_owned());
        }
        let rule = match dice.roll(4) {
            0 => only_on(&some, &at.iter().map(String::as_str).collect::<Vec<_>>()),
            1 => on(&some, &at.iter().map(|name| (name.as_str(), 0)).collect::<Vec<_>>()),
            2 => together(&some),
            _ => apart(&some),
        };
        rules.push((format!("r{i}"), rule));
    }
    rules
}
