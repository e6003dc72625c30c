//! A scenario of the cluster as it stands: its nodes, resources and rules, with something that shall happen to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::placement::rule::RuleKind;
use tiebreaker_pipeline::report::Trust;
use tiebreaker_pipeline::resource::{Phase, Resource, ResourceSpec};
use tiebreaker_pipeline::state::{Arming, MOVES_MAX, State};

/// By then the simulated cluster has booted and everything runs: what shall happen begins here.
pub const BEGINS_AT_S: u64 = 120;
/// So much later each further event happens.
pub const NEXT_AFTER_S: u64 = 30;
/// So long the cluster is watched after the last event.
const WATCHED_S: u64 = 600;
/// A boot that nobody has measured takes this long.
const USUAL_BOOT_MS: u64 = 30_000;
/// The highest goal that a scenario can have: as many as a cluster has nodes.
const TOLERATE_MAX: u32 = 64;

/// The scenario, as JSON of the format of scenarios. `doing` are events, in order; they name resources as the cluster
/// does. What of the cluster a scenario has no words for is for [`left_out`] to say.
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
            if node.maintenance {
                node_is["maintenance"] = true.into();
            }
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
                "live": spec.live,
            });
            if let Some(milli_cpus) = spec.milli_cpus.filter(|milli| *milli > 0) {
                resource_is["milli_cpus"] = milli_cpus.into();
            }
            let there: Vec<&str> =
                spec.only_on.iter().filter(|node| state.nodes.contains_key(*node)).map(MemberName::as_str).collect();
            if !there.is_empty() {
                resource_is["only_on"] = there.into();
            }
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
    let mut scenario = json!({
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
    });
    if let Some(goal) = state.settings.tolerate {
        scenario["tolerate"] = goal.min(TOLERATE_MAX).into();
    }
    if let Some(moves) = state.settings.moves {
        scenario["moves"] = moves.min(MOVES_MAX).into();
    }
    if !state.settings.order_delay_s.is_empty() {
        let delays = state.settings.order_delay_s.iter().map(|(class, s)| (class.to_string(), format!("{s}s").into()));
        scenario["order_delay"] = Value::Object(delays.collect());
    }
    scenario
}

/// What of the cluster the likeness leaves out, because a scenario has no words for it.
pub fn left_out(state: &State) -> Vec<String> {
    let mut out = Vec::new();
    for (name, node) in &state.nodes {
        if node.devices.len() > 1 {
            out.push(format!("{name} has {} power devices; one BMC stands for all", node.devices.len()));
        }
        let accepted = node.life.as_ref().and_then(|life| life.watchdog.as_ref());
        if accepted.is_some_and(|promise| promise.trust == Trust::Accepted) {
            out.push(format!(
                "the watchdog of {name} is accepted by name; here it counts as one that was seen to reset it"
            ));
        }
        if node.leaving.is_some() {
            out.push(format!("{name} has said that it goes; here it stays"));
        }
    }
    let usual = |resource: &Resource| ResourceSpec::with_defaults(resource.spec.driver.clone());
    for (name, resource) in &state.resources {
        if let Some(reason) = &resource.locked {
            out.push(format!("{name} is locked ({reason})"));
        }
        if let Phase::Error { why, .. } = &resource.phase {
            out.push(format!("{name} is in error ({why}); here it is tried anew"));
        }
        if resource.spec.milli_cpus == Some(0) {
            out.push(format!("{name} may have as many processors as its node has"));
        }
        let (spec, usual) = (&resource.spec, usual(resource));
        let times = |spec: &ResourceSpec| {
            (
                spec.start_timeout_ms,
                spec.stop_timeout_ms,
                spec.monitor_every_ms,
                spec.monitor_timeout_ms,
                spec.migrate_timeout_ms,
            )
        };
        if times(spec) != times(&usual) {
            out.push(format!("how long the programs of {name} may take, and how often it is probed"));
        }
    }
    let settings = &state.settings;
    if settings.moves.is_some_and(|moves| moves > MOVES_MAX) {
        out.push(format!("more than {MOVES_MAX} planned moves at once"));
    }
    if settings.fewer_votes.is_some() {
        out.push("votes that are not expected for a while; here all are".to_owned());
    }
    if settings.arming != Arming::Armed {
        out.push(format!("the cluster is {}; here it is armed", settings.arming));
    }
    out
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
    use tiebreaker_pipeline::command::Setting;
    use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
    use tiebreaker_pipeline::name::ClusterName;
    use tiebreaker_pipeline::resource::{Class, Driver, Requested};
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

    /// The same cluster with everything set that a scenario has a word for, and some that it has none for.
    #[test]
    fn goal_settings_and_needs_are_carried_over_and_what_is_not_is_named() {
        let mut state = cluster();
        let mut apply =
            |command| state.apply(2, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command }).unwrap();
        let web = ResourceName::new("web").unwrap();
        let argv = || vec!["/opt/web".to_owned()];
        let driver = Driver::Command { start: argv(), stop: argv(), status: argv(), migrate: Some(argv()) };
        let spec = ResourceSpec {
            live: true,
            milli_cpus: Some(1_500),
            only_on: [name("node1")].into(),
            start_timeout_ms: 7_000,
            ..ResourceSpec::with_defaults(driver)
        };
        apply(Command::SetResource { name: web.clone(), spec: Some(spec), requested: Requested::Started });
        apply(Command::Set(Setting::Tolerate(Some(1))));
        apply(Command::Set(Setting::Moves { most: Some(2), force: false }));
        apply(Command::Set(Setting::OrderDelay { class: Class::BestEffort, seconds: 9 }));
        apply(Command::SetMaintenance { node: name("node2"), on: true });
        apply(Command::SetLock { resource: web, reason: Some("backup".into()) });
        let likeness = of(&state, &["power-off node1".into()]);
        let scenario = Scenario::parse(&likeness.to_string(), Format::Json, "the cluster").unwrap();
        assert_eq!((scenario.tolerate, scenario.moves), (Some(1), Some(2)));
        assert_eq!(scenario.order_delay_s, [(tiebreaker_simulator::scenario::Class::BestEffort, 9)]);
        let resource = &scenario.resources[0];
        assert_eq!((resource.live, resource.milli_cpus), (true, Some(1_500)));
        assert_eq!(resource.only_on, [name("node1")].into());
        assert!(scenario.nodes[1].maintenance && !scenario.nodes[0].maintenance);
        // Its only node is gone, and it may run nowhere else.
        let document = run::simulate(&scenario);
        assert_eq!(document.violations.len(), 0);
        assert!(document.recovered.is_empty(), "{:?}", document.recovered);
        let out = left_out(&state).join("; ");
        assert!(
            out.contains("web is locked (backup)") && out.contains("how long the programs of web may take"),
            "{out}"
        );
        assert_eq!(left_out(&cluster()), Vec::<String>::new());
    }
}
