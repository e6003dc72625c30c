//! The sense of a scenario: names that are somebody's, times within its duration, and no contradictions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{MEMBERS_MAX, RESOURCES_MAX};

use super::event::Name;
use super::mistake::{Report, meant};
use super::shape::{At, Shape};
use super::units::Span;
use super::{APPLIANCE, BmcSetup, DURATION_MAX, Do, EVENTS_MAX, RULES_MAX, ResourceId};

/// Reports everything that makes no sense.
pub(super) fn check(shape: &Shape, report: &mut Report) {
    let check = Check { shape, nodes: shape.scenario.nodes.iter().map(|node| &node.name).collect() };
    check.sizes(report);
    check.nodes(report);
    check.resources(report);
    check.rules(report);
    check.events(report);
}

struct Check<'a> {
    shape: &'a Shape,
    nodes: BTreeSet<&'a MemberName>,
}

impl Check<'_> {
    fn sizes(&self, report: &mut Report) {
        let Shape { at, scenario, duration_at, .. } = self.shape;
        let start = at.start..at.start;
        if scenario.nodes.is_empty() {
            report.add(&start, "there is no node: a scenario needs at least one [[node]]");
        }
        if scenario.duration > DURATION_MAX {
            report.add(duration_at, format!("duration: {} is the most", Span(DURATION_MAX)));
        }
        // One member may be the appliance.
        for (what, are, most) in [
            ("nodes", scenario.nodes.len(), MEMBERS_MAX - 1),
            ("resources", scenario.resources.len(), RESOURCES_MAX),
            ("rules", scenario.rules.len(), RULES_MAX),
            ("events", scenario.events.len(), EVENTS_MAX),
        ] {
            if are > most {
                report.add(&start, format!("{are} {what} are too many: {most} is the most"));
            }
        }
    }

    fn nodes(&self, report: &mut Report) {
        let mut seen = BTreeSet::new();
        for (at, node) in self.shape.nodes.iter().zip(&self.shape.scenario.nodes) {
            if node.name.as_str() == APPLIANCE {
                report.add(at, format!("{APPLIANCE:?} is the appliance's own name: call the node something else"));
            }
            if !seen.insert(&node.name) {
                report.add(at, format!("there is a node {:?} already: names are unique", node.name.as_str()));
            }
        }
    }

    fn resources(&self, report: &mut Report) {
        let mut seen = BTreeSet::new();
        for (at, resource) in self.shape.resources.iter().zip(&self.shape.scenario.resources) {
            if !seen.insert(&resource.id) {
                report.add(&at.id, format!("there is a resource \"{}\" already: names are unique", resource.id));
            }
            self.node(&at.node, &resource.node, report);
            for (at, node) in &at.only_on {
                self.node(at, node, report);
            }
        }
    }

    fn node(&self, at: &At, name: &MemberName, report: &mut Report) {
        if !self.nodes.contains(name) {
            let meant = meant(name.as_str(), self.nodes.iter().map(|name| name.as_str()));
            report.add(at, format!("there is no node {:?}: {meant}", name.as_str()));
        }
    }

    /// A node, or the appliance.
    fn machine(&self, at: &At, name: &MemberName, report: &mut Report) {
        match (name.as_str() == APPLIANCE, self.shape.scenario.appliance) {
            (true, true) => {}
            (true, false) => report.add(at, "this scenario has no appliance: it says appliance = false"),
            (false, _) if self.nodes.contains(name) => {}
            (false, with) => {
                let known = self.nodes.iter().map(|name| name.as_str()).chain(with.then_some(APPLIANCE));
                report.add(at, format!("there is no machine {:?}: {}", name.as_str(), meant(name.as_str(), known)));
            }
        }
    }

    fn rules(&self, report: &mut Report) {
        let added = self.shape.scenario.events.iter().filter_map(|event| {
            let Do::Add { id, .. } = &event.what else { return None };
            Some(id)
        });
        let known: BTreeSet<&ResourceId> =
            self.shape.scenario.resources.iter().map(|resource| &resource.id).chain(added).collect();
        for at in &self.shape.rules {
            let mut seen = BTreeSet::new();
            for (at, id) in &at.resources {
                if !known.contains(id) {
                    report.add(at, no_resource(id, known.iter().copied()));
                } else if !seen.insert(id) {
                    report.add(at, format!("\"{id}\" is in this rule already: name it once"));
                }
            }
            for (at, node) in &at.nodes {
                self.node(at, node, report);
            }
        }
    }

    fn events(&self, report: &mut Report) {
        let scenario = &self.shape.scenario;
        // In the order in which they happen.
        let mut order: Vec<usize> = (0..scenario.events.len()).collect();
        order.sort_by_key(|nth| scenario.events[*nth].at);
        let mut there: BTreeSet<&ResourceId> = scenario.resources.iter().map(|resource| &resource.id).collect();
        let mut removed: BTreeMap<&ResourceId, Duration> = BTreeMap::new();
        for nth in order {
            let (at, event) = (&self.shape.events[nth], &scenario.events[nth]);
            if event.at > scenario.duration {
                let ends = Span(scenario.duration);
                report.add(&at.at, format!("the scenario ends at {ends}, before this: make its duration longer"));
            }
            for (name, at) in event.what.names().into_iter().zip(&at.words) {
                match name {
                    Name::Node(name) => self.node(at, name, report),
                    Name::Machine(name) => self.machine(at, name, report),
                    Name::Resource(id) => match (&event.what, there.contains(id), removed.get(id)) {
                        (Do::Add { .. }, true, _) => {
                            report.add(at, format!("there is a resource \"{id}\" already: remove it first"));
                        }
                        (Do::Add { .. }, false, _) | (_, true, _) => {}
                        (_, false, Some(when)) => {
                            report.add(at, format!("\"{id}\" was removed at {}", Span(*when)));
                        }
                        (_, false, None) => report.add(at, no_resource(id, there.iter().copied())),
                    },
                }
            }
            if let Do::Add { id, .. } = &event.what {
                there.insert(id);
                removed.remove(id);
            }
            if let Do::Remove { id } = &event.what {
                there.remove(id);
                removed.insert(id, event.at);
            }
            if let Do::Cut(one, other) | Do::Heal(one, other) = &event.what
                && one == other
            {
                report.add(&at.text, format!("{one} has no link to itself: name two machines"));
            }
            if let Do::Bmc { node, .. } = &event.what
                && scenario.nodes.iter().any(|setup| setup.name == *node && setup.bmc == BmcSetup::None)
            {
                report.add(&at.text, format!("{node} has no BMC: it says bmc = \"none\""));
            }
        }
    }
}

fn no_resource<'a>(id: &ResourceId, known: impl Iterator<Item = &'a ResourceId>) -> String {
    let known: Vec<String> = known.map(ToString::to_string).collect();
    format!("there is no resource \"{id}\" by then: {}", meant(&id.to_string(), known.iter().map(String::as_str)))
}
