//! Cases of our own for the tests, in the form of the published ones.

use serde_json::{Value, json};

use crate::{Case, Conversion, Converted, LeftOut, convert};

/// Three nodes that are off, one machine on the second, and the given commands; `changes` replaces whole keys.
pub(crate) fn case(commands: &[&[&str]], changes: &Value) -> Case {
    let mut case = json!({
        "name": "own",
        "cmdlist": commands,
        "hardware": {"node1": off(), "node2": off(), "node3": off()},
        "services": {"vm:7": {"node": "node2", "state": "enabled"}},
        "initial_manager_status": {},
        "datacenter": {},
        "rules": [],
        "groups": [],
        "static_stats": null,
        "dynamic_stats": null,
        "outcome": {
            "final_location": {"vm:7": "node2"},
            "final_crm_state": {"vm:7": "started"},
            "final_running": {"vm:7": ["node2"]},
            "final_node_state": {"node1": "online", "node2": "online", "node3": "maintenance"},
            "final_power": {"node1": "on", "node2": "on", "node3": "on"},
            "fence_ack_order": [],
            "events": [],
        },
    });
    for (key, value) in changes.as_object().expect("changes are an object") {
        case[key] = value.clone();
    }
    serde_json::from_value(case).expect("a case of our own has the right form")
}

pub(crate) fn off() -> Value {
    json!({"power": "off", "network": "off"})
}

/// An outcome in which the machine ends as said, after what happened.
pub(crate) fn outcome(state: Option<&str>, node: &str, runs: bool, fenced: &[&str], events: &Value) -> Value {
    let mut outcome = json!({
        "final_location": {"vm:7": node},
        "final_crm_state": {},
        "final_running": {},
        "final_node_state": {"node1": "online", "node2": "unknown", "node3": "online"},
        "final_power": {"node1": "on", "node2": "off", "node3": "on"},
        "fence_ack_order": fenced,
        "events": events,
    });
    if let Some(state) = state {
        outcome["final_crm_state"]["vm:7"] = state.into();
    }
    if runs {
        outcome["final_running"]["vm:7"] = json!([node]);
    }
    outcome
}

pub(crate) fn converted(case: &Case) -> Converted {
    match convert(case).expect("the case is understood") {
        Conversion::Converted(converted) => *converted,
        Conversion::LeftOut(reason) => panic!("left out: {reason}"),
    }
}

pub(crate) fn left_out(case: &Case) -> LeftOut {
    match convert(case).expect("the case is understood") {
        Conversion::LeftOut(reason) => reason,
        Conversion::Converted(_) => panic!("{} was converted", case.name),
    }
}

/// What happens in a scenario, as `20s power-on node1`.
pub(crate) fn events(converted: &Converted) -> Vec<String> {
    converted.scenario.event.iter().map(|event| format!("{} {}", event.at, event.what)).collect()
}
