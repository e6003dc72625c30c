//! A scenario of the cluster as it stands: its nodes, resources and rules, with something that shall happen to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::placement::rule::RuleKind;
use tiebreaker_pipeline::report::Trust;
use tiebreaker_pipeline::resource::Resource;
use tiebreaker_pipeline::state::State;

/// By then the simulated cluster has booted and everything runs: what shall happen begins here.
pub const BEGINS_AT_S: u64 = 120;
/// So much later each further event happens.
pub const NEXT_AFTER_S: u64 = 30;
/// So long the cluster is watched after the last event.
const WATCHED_S: u64 = 600;
/// A boot that nobody has measured takes this long.
const USUAL_BOOT_MS: u64 = 30_000;

/// The scenario, as JSON of the format of scenarios. `doing` are events, in order; they name resources as the cluster
/// does.
pub fn of(state: &State, doing: &[String]) -> Value {
    let ids: BTreeMap<&ResourceName, String> = state.resources.iter().map(|(name, r)| (name, id(name, r))).collect();
    let nodes: Vec<Value> = state
        .nodes
        .iter()
        .map(|(name, node)| {
            let trusted = node.life.as_ref().and_then(|life| life.watchdog.as_ref());
            let trusted = trusted.is_some_and(|promise| promise.trust != Trust::Unproven);
            let bmc = match (node.devices.is_empty(), node.devices.iter().any(|device| device.proven)) {
                (true, _) => "none",
                (false, true) => "good",
                (false, false) => "unreachable",
            };
            let boot_ms = if node.boot_ms == 0 { USUAL_BOOT_MS } else { node.boot_ms };
            let mut node_is = json!({
                "name": name.as_str(),
                "power": if node.life.is_some() { "on" } else { "off" },
                "bmc": bmc,
                "watchdog": if trusted { "good" } else { "none" },
                "boot": format!("{boot_ms}ms"),
            });
            if let Some(memory) = node.capacity.memory {
                node_is["memory"] = format!("{}KiB", memory / 1024).into();
            }
            if let Some(cpus) = node.capacity.milli_cpus.map(|milli| milli / 1000).filter(|cpus| *cpus > 0) {
                node_is["cpus"] = cpus.into();
            }
            node_is
        })
        .collect();
    let placed = |resource: &Resource| resource.phase.owner().or(resource.first.as_ref()).cloned();
    let resources: Vec<Value> = state
        .resources
        .iter()
        .filter_map(|(name, resource)| {
            let node = placed(resource).or_else(|| state.nodes.keys().next().cloned())?;
            let spec = &resource.spec;
            let mut resource_is = json!({
                "id": ids[name],
                "node": node.as_str(),
                "state": resource.requested.word(),
                "class": spec.class.to_string(),
                "order": spec.order,
                "max_restart": spec.max_restart,
                "max_relocate": spec.max_relocate,
                "failback": spec.failback,
            });
            if let Some(memory) = spec.memory {
                resource_is["memory"] = format!("{}KiB", memory.div_ceil(1024)).into();
            }
            Some(resource_is)
        })
        .collect();
    let rules: Vec<Value> = state
        .placement_rules
        .values()
        .filter(|rule| !rule.disabled_by_operator)
        .filter_map(|rule| {
            let members: Vec<&String> = rule.resources.iter().filter_map(|name| ids.get(name)).collect();
            let names = (!members.is_empty()).then_some(members)?;
            // What it is about isn't there, so it has no effect.
            if let RuleKind::NodeAffinity { nodes, .. } = &rule.kind
                && !nodes.keys().any(|node| state.nodes.contains_key(node))
            {
                return None;
            }
            Some(match &rule.kind {
                RuleKind::NodeAffinity { nodes, strict } => {
                    let nodes: BTreeMap<&str, u32> = nodes
                        .iter()
                        .filter(|(node, _)| state.nodes.contains_key(*node))
                        .map(|(node, priority)| (node.as_str(), *priority))
                        .collect();
                    json!({ "kind": "node-affinity", "resources": names, "nodes": nodes, "strict": strict })
                }
                RuleKind::Together => json!({ "kind": "together", "resources": names }),
                RuleKind::Apart => json!({ "kind": "apart", "resources": names }),
            })
        })
        .collect();
    let events: Vec<Value> = (0..)
        .zip(doing)
        .map(|(nth, event)| json!({ "at": format!("{}s", at_s(nth)), "do": with_ids(event, &ids) }))
        .collect();
    let last = at_s(u64::try_from(doing.len()).unwrap_or(0).saturating_sub(1));
    json!({
        "profile": state.settings.profile.to_string(),
        "appliance": state.appliance().is_some(),
        "placement": state.settings.placement.to_string(),
        "rebalance": state.settings.rebalance,
        "shutdown_policy": state.settings.shutdown.word(),
        "duration": format!("{}s", last + WATCHED_S),
        "node": nodes,
        "resource": resources,
        "rule": rules,
        "event": events,
    })
}

const fn at_s(nth: u64) -> u64 {
    BEGINS_AT_S + nth * NEXT_AFTER_S
}

/// A resource's name in a scenario says what it is.
fn id(name: &ResourceName, resource: &Resource) -> String {
    let known = ["vm:", "ct:", "service:"].iter().any(|kind| name.as_str().starts_with(kind));
    match (known, resource.spec.live) {
        (true, _) => name.to_string(),
        (false, true) => format!("vm:{name}"),
        (false, false) => format!("service:{name}"),
    }
}

/// The event with each resource under its name in the scenario.
fn with_ids(event: &str, ids: &BTreeMap<&ResourceName, String>) -> String {
    let word = |word: &str| {
        let named = ids.iter().find(|(name, _)| name.as_str() == word);
        named.map_or_else(|| word.to_owned(), |(_, id)| id.clone())
    };
    event.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
    use tiebreaker_pipeline::name::{ClusterName, MemberName};
    use tiebreaker_pipeline::resource::{Driver, Requested, ResourceSpec};
    use tiebreaker_pipeline::state::{DeviceStatus, Role};
    use tiebreaker_simulator::run;
    use tiebreaker_simulator::scenario::{Format, Scenario};

    use super::*;

    fn name(text: &str) -> MemberName {
        MemberName::new(text).unwrap()
    }

    /// An appliance and two nodes with BMCs; `web` was added for node1.
    fn cluster() -> State {
        let mut state = State::new(ClusterName::new("home").unwrap(), name("pi"), vec!["pi:1".into()], "00".into());
        let mut apply =
            |command| state.apply(1, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command }).unwrap();
        for node in ["node1", "node2"] {
            apply(Command::AddMember { name: name(node), role: Role::Node, addresses: vec![], key: node.into() });
            let device = DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven: true, why: None };
            apply(Command::SetDevices { node: name(node), devices: vec![device] });
            apply(Command::Admit {
                node: name(node),
                incarnation: 1,
                boot: format!("{node}-1"),
                watchdog: None,
                machine: None,
                closed: 0,
                capacity: tiebreaker_pipeline::report::Capacity::default(),
                booted_in_ms: 20_000,
            });
        }
        let argv = || vec!["/opt/web".to_owned()];
        let driver = Driver::Command { start: argv(), stop: argv(), status: argv(), migrate: None };
        apply(Command::AddResource {
            name: ResourceName::new("web").unwrap(),
            spec: ResourceSpec::with_defaults(driver),
            requested: Requested::Started,
            node: Some(name("node1")),
        });
        state
    }

    #[test]
    fn what_happens_to_the_likeness_is_told_by_the_clusters_own_names() {
        let likeness = of(&cluster(), &["power-off node1".into(), "set web state=stopped".into()]);
        let scenario = Scenario::parse(&likeness.to_string(), Format::Json, "the cluster").unwrap();
        let document = run::simulate(&scenario);
        assert_eq!(document.violations.len(), 0);
        assert_eq!(document.fenced.first().map(|fenced| fenced.node.as_str()), Some("node1"));
        let recovered = document.recovered.first().expect("it was recovered before it was stopped");
        assert_eq!((recovered.resource.as_str(), recovered.to.as_str()), ("service:web", "node2"));
        assert_eq!(document.resources["service:web"].state, "stopped");
    }
}
