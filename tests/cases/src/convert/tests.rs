use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::LeftOut;
use crate::fault::named;
use crate::scenario::{Fails, Rule};
use crate::tests::{case, converted, events, left_out, off, outcome};
use crate::{State, Untimed, convert};

const ALL_ON: &[&str] = &["power node1 on", "power node2 on", "power node3 on"];

/// The same outcome for another resource.
fn outcome_of(sid: &str, state: &str) -> Value {
    let text = outcome(Some(state), "node2", state == "started", &[], &json!([])).to_string();
    serde_json::from_str(&text.replace("vm:7", sid)).unwrap()
}

#[test]
fn what_a_scenario_cannot_say_is_left_out_with_its_reason() {
    let by = |command| left_out(&case(&[&[command]], &json!({})));
    assert_eq!(by("skip-round crm 2"), LeftOut::SkippedRounds);
    assert_eq!(by("cfs node1 rw fail"), LeftOut::ConfigFilesystem);
    assert_eq!(by("service vm:7 set-dynamic-stats cpu 1"), LeftOut::LoadScheduling);
    assert_eq!(by("pve-manager-version node1 set 9.0.0"), LeftOut::GroupMigration);
    assert_eq!(by("service vm:7 manual-migrate node1"), LeftOut::ManualMove { resource: "vm:7".into() });
    let with = |changes: Value| left_out(&case(&[ALL_ON], &changes));
    assert_eq!(with(json!({"datacenter": {"crs": {"ha": "static"}}})), LeftOut::LoadScheduling);
    assert_eq!(with(json!({"static_stats": {}})), LeftOut::LoadScheduling);
    assert_eq!(with(json!({"groups": [{"id": "some"}]})), LeftOut::GroupMigration);
}

#[test]
fn an_isolated_node_that_is_powered_on_rejoins() {
    let case = case(
        &[ALL_ON, &["network node2 off"], &["power node2 on"], &["power node2 off"], &["power node2 on"]],
        &json!({}),
    );
    assert_eq!(
        events(&converted(&case))[3..],
        ["120s isolate node2", "220s rejoin node2", "320s power-off node2", "420s power-on node2"]
    );
}

#[test]
fn operators_commands_become_events() {
    let commands: &[&str] = &[
        "shutdown node1",
        "reboot node2",
        "restart-lrm node3",
        "crm node1 stop",
        "crm node2 enable-node-maintenance",
        "crm node2 disable-node-maintenance",
        "crm node1 disarm-ha ignore",
        "crm node1 arm-ha",
        "service vm:7 stop 30",
        "service vm:7 enabled",
        "service vm:7 migrate node1",
        "service vm:7 relocate node3",
        "service vm:7 lock snapshot",
        "service vm:7 unlock",
    ];
    let converted = converted(&case(&[commands], &json!({})));
    assert_eq!(
        events(&converted),
        [
            "20s shutdown node1",
            "20s reboot node2",
            "20s restart-agent node3",
            "20s restart-agent node1",
            "20s maintenance node2 on",
            "20s maintenance node2 off",
            "20s disarm ignore",
            "20s arm",
            "20s set vm:7 state=stopped",
            "20s set vm:7 state=started",
            "20s migrate vm:7 node1",
            "20s relocate vm:7 node3",
            "20s lock vm:7",
            "20s unlock vm:7",
        ]
    );
    assert!(converted.notes.is_empty());
}

#[test]
fn adding_without_a_state_means_started_and_removing_leaves_it_running() {
    let outcome = outcome(None, "node1", true, &[], &json!([]));
    let commands: &[&[&str]] = &[&["service vm:7 add node1"], &["service vm:7 delete"]];
    let converted = converted(&case(commands, &json!({"services": {}, "outcome": outcome})));
    assert_eq!(events(&converted), ["20s add vm:7 node1 started", "120s remove vm:7"]);
    let expected = &converted.expected.resources["vm:7"];
    assert_eq!(expected.state, State::Removed);
    assert!(expected.running_on.contains("node1"));
}

#[test]
fn a_resource_has_their_defaults() {
    let plain = &converted(&case(&[ALL_ON], &json!({}))).scenario.resource[0];
    assert_eq!((plain.state, plain.max_restart, plain.max_relocate, plain.failback), ("started", 1, 1, true));
    let services = json!({"vm:7": {"node": "node2", "max_restart": "3", "max_relocate": 0, "failback": 0}});
    let outcome = outcome(Some("stopped"), "node2", false, &[], &json!([]));
    let converted = converted(&case(&[ALL_ON], &json!({"services": services, "outcome": outcome})));
    let set = &converted.scenario.resource[0];
    assert_eq!((set.state, set.max_restart, set.max_relocate, set.failback), ("disabled", 3, 0, false));
    let state = &converted.expected.resources["vm:7"].state;
    assert_eq!(*state, State::Disabled);
    assert!(state.accepts(Some("disabled")) && state.accepts(Some("stopped")));
    assert!(!state.accepts(Some("error")) && !state.accepts(None));
}

#[test]
fn the_appliance_votes_where_nodes_alone_cannot() {
    assert!(!converted(&case(&[ALL_ON], &json!({}))).scenario.appliance);
    let two =
        json!({"hardware": {"node1": off(), "node2": {"power": "on", "network": "off", "maxmem": 1024, "maxcpu": 4}}});
    let converted = converted(&case(&[&["power node1 on"]], &two));
    assert!(converted.scenario.appliance);
    assert_eq!(events(&converted), ["0s isolate node2", "20s power-on node1"]);
    let json: Value = serde_json::from_str(&converted.scenario.to_json()).unwrap();
    assert_eq!(json["node"][1]["memory"], "1024B");
    assert_eq!(json["node"][1]["power"], "on");
    assert_eq!(json["node"][0].get("memory"), None);
}

#[test]
fn names_that_encode_faults_keep_their_place_in_the_order() {
    let of = |sid: &str| named(sid).unwrap();
    assert_eq!(of("fa:120003").id, "service:120003");
    assert_eq!(of("fa:120003").fails, Fails { start: 2, only_on: vec!["node3".to_owned()], ..Fails::default() });
    assert_eq!(of("fa:1001").fails, Fails { stop: true, ..Fails::default() });
    assert_eq!(of("fa:104").fails, Fails { migrate: 4, ..Fails::default() });
    let mut theirs = ["vm:1", "fa:104", "ct:9", "vm:200", "fa:110"];
    theirs.sort_unstable();
    let ours: Vec<String> = theirs.iter().map(|sid| of(sid).id).collect();
    assert_eq!(ours, ["ct:9", "vm:0104", "service:110", "vm:1", "vm:200"]);
    for wrong in ["fa:", "fa:1x", "disk:1", "101", "vm:-1"] {
        assert_eq!(named(wrong), None, "{wrong}");
    }
}

#[test]
fn a_lock_that_survives_recovery_keeps_it_from_starting_elsewhere() {
    let converted = converted(&case(&[ALL_ON, &["service vm:7 lock create"]], &json!({})));
    assert_eq!(events(&converted).len(), 3);
    let resource = &converted.scenario.resource[0];
    assert_eq!((resource.max_restart, resource.max_relocate), (0, 0));
    assert_eq!(resource.fails.only_on, ["node1", "node3"]);
    assert!(resource.fails.start > 100);
    assert_eq!(converted.notes.len(), 1);
}

#[test]
fn rules_keep_their_nodes_and_priorities() {
    let rules = json!([
        {"type": "node-affinity", "id": "a", "nodes": "node1:2,node3", "resources": "vm:7", "strict": "1"},
        {"type": "resource-affinity", "id": "b", "resources": "vm:7,ct:8", "affinity": "positive"},
        {"type": "resource-affinity", "id": "c", "resources": "vm:7,fa:110", "affinity": "negative"},
    ]);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let nodes = BTreeMap::from([("node1".to_owned(), 2), ("node3".to_owned(), 0)]);
    assert_eq!(
        converted(&case(&[ALL_ON], &json!({"rules": rules}))).scenario.rule,
        [
            Rule::NodeAffinity { resources: names(&["vm:7"]), nodes, strict: true },
            Rule::Together { resources: names(&["vm:7", "ct:8"]) },
            Rule::Apart { resources: names(&["vm:7", "service:110"]) },
        ]
    );
    let odd = json!([{"type": "resource-affinity", "id": "odd", "resources": "vm:7", "affinity": "mixed"}]);
    let error = convert(&case(&[ALL_ON], &json!({"rules": odd}))).unwrap_err().to_string();
    assert!(error.contains("the rule \"odd\""), "{error}");
}

fn remembering(state: &Value, nodes: &Value) -> Value {
    json!({"initial_manager_status": {"service_status": {"vm:7": state}, "node_status": nodes}})
}

#[test]
fn a_fence_that_was_pending_is_brought_about_first() {
    let mut changes = remembering(&json!({"state": "fence", "node": "node2"}), &json!({"node2": "fence"}));
    changes["outcome"] = outcome(
        Some("started"),
        "node1",
        true,
        &["node2"],
        &json!([{"t": 22, "ev": "recover", "sid": "vm:7", "frm": "node2", "to": "node1"}]),
    );
    let converted = converted(&case(&[&["power node1 on", "power node3 on"]], &changes));
    assert!(converted.scenario.node.iter().all(|node| node.power == "on"));
    assert_eq!(
        events(&converted),
        [
            "60s power-off node2",
            "66s power-off node1",
            "66s power-off node3",
            "100s power-on node1",
            "100s power-on node3"
        ]
    );
    assert!(converted.expected.fenced.contains("node2"));
    assert_eq!(converted.expected.recoveries[0].time, Err(Untimed::LostBefore));
}

#[test]
fn a_fence_that_nothing_depends_on_is_neither_made_nor_expected() {
    let mut changes = remembering(&json!({"state": "started", "node": "node2"}), &json!({"node3": "fence"}));
    changes["outcome"] = outcome(Some("started"), "node2", true, &["node3"], &json!([]));
    let converted = converted(&case(&[ALL_ON], &changes));
    assert_eq!(events(&converted).len(), 3);
    assert!(converted.expected.fenced.is_empty());
    assert_eq!(converted.notes.len(), 1);
}

#[test]
fn an_earlier_error_is_a_start_that_fails_for_good() {
    let changes = remembering(&json!({"state": "error", "node": "node2"}), &json!({}));
    let resource = &converted(&case(&[ALL_ON], &changes)).scenario.resource[0];
    assert_eq!((resource.max_restart, resource.max_relocate), (0, 0));
    assert!(resource.fails.start > 100 && resource.fails.only_on.is_empty());
    // One that an operator then touches can't be brought about so.
    assert!(convert(&case(&[ALL_ON, &["service vm:7 disabled"]], &changes)).is_err());
}

#[test]
fn an_interrupted_move_is_asked_for_again_unless_it_was_finished_behind_the_managers_back() {
    let memory = |node: &str, target: &str| {
        remembering(&json!({"state": "migrate", "node": node, "target": target}), &json!({}))
    };
    let again = converted(&case(&[ALL_ON], &memory("node2", "node3")));
    assert_eq!(events(&again)[3..], ["60s migrate vm:7 node3"]);
    let behind = left_out(&case(&[ALL_ON], &memory("node3", "node2")));
    assert_eq!(behind, LeftOut::MovedBehind { resource: "vm:7".to_owned() });
}

#[test]
fn a_remembered_recovery_needs_its_node_to_be_off() {
    let changes = remembering(&json!({"state": "recovery", "node": "node2"}), &json!({"node2": "unknown"}));
    assert_eq!(events(&converted(&case(&[&["power node2 on"]], &changes))), ["20s power-on node2"]);
    let mut on = changes;
    on["hardware"] = json!({"node2": {"power": "on", "network": "on"}});
    let error = convert(&case(&[ALL_ON], &on)).unwrap_err().to_string();
    assert!(error.contains("the remembered state \"recovery\""), "{error}");
}

#[test]
fn ignored_is_a_state_of_its_own() {
    let outcome = outcome(None, "node2", true, &[], &json!([]));
    let converted = converted(&case(&[ALL_ON, &["service vm:7 ignored"]], &json!({"outcome": outcome})));
    assert_eq!(converted.expected.resources["vm:7"].state, State::Ignored);
    // Nobody removed it, so a manager that doesn't know it is an outcome that isn't understood.
    let odd = case(&[ALL_ON], &json!({"outcome": self::outcome(None, "node2", true, &[], &json!([]))}));
    assert!(convert(&odd).is_err());
}

#[test]
fn only_nodes_with_power_are_held_to_their_maintenance() {
    let converted = converted(&case(&[ALL_ON], &json!({"outcome": outcome_of("vm:7", "started")})));
    let expected: Vec<(&str, bool)> =
        converted.expected.maintenance.iter().map(|(node, on)| (node.as_str(), *on)).collect();
    assert_eq!(expected, [("node1", false), ("node3", false)]);
}

/// The time of a recovery after these commands, the last of which is the first at 120 s.
fn timed(commands: &[&[&str]], to: &str, started: Option<u32>) -> Result<(u32, u32), Untimed> {
    let mut events = vec![json!({"t": 240, "ev": "recover", "sid": "vm:7", "frm": "node2", "to": to})];
    events.extend(started.map(|t| json!({"t": t, "ev": "started", "sid": "vm:7", "node": to})));
    let outcome = outcome(Some("started"), to, true, &["node2"], &json!(events));
    let converted = converted(&case(&[&[ALL_ON], commands].concat(), &json!({"outcome": outcome})));
    converted.expected.recoveries[0].time.map(|took| (took.lost_at_s, took.after_s))
}

#[test]
fn a_recovery_is_timed_from_the_loss_to_the_running_resource() {
    assert_eq!(timed(&[&["network node2 off"]], "node1", Some(243)), Ok((120, 123)));
    assert_eq!(timed(&[&["power node2 off"], &["power node2 on"]], "node1", Some(243)), Ok((120, 123)));
    assert_eq!(timed(&[&["network node2 off"]], "node1", None), Err(Untimed::NotStarted));
    assert_eq!(timed(&[&["network node2 off"]], "node2", Some(243)), Err(Untimed::WaitedForItsNode));
    assert_eq!(timed(&[&["shutdown node2"]], "node1", Some(243)), Err(Untimed::ShutDown));
    assert_eq!(
        timed(&[&["network node2 off"], &["crm node1 disarm-ha freeze"]], "node1", Some(640)),
        Err(Untimed::Disarmed)
    );
    assert_eq!(timed(&[&["network node2 off"], &["service vm:7 started"]], "node1", Some(243)), Err(Untimed::Asked));
    // The last loss counts, and what was asked for in the moment of the loss was not asked for meanwhile.
    let twice: &[&[&str]] = &[&["network node2 off"], &["power node2 off"]];
    assert_eq!(timed(twice, "node1", Some(243)), Ok((220, 23)));
    assert_eq!(timed(&[&["service vm:7 started", "network node2 off"]], "node1", Some(243)), Ok((120, 123)));
    assert_eq!(timed(&[&["network node3 off"]], "node1", Some(243)), Err(Untimed::LostBefore));
}

#[test]
fn a_recovery_whose_starts_fail_is_not_timed() {
    let events = json!([
        {"t": 240, "ev": "recover", "sid": "fa:120", "frm": "node2", "to": "node1"},
        {"t": 283, "ev": "started", "sid": "fa:120", "node": "node1"},
    ]);
    let outcome = outcome(Some("started"), "node1", true, &["node2"], &events).to_string().replace("vm:7", "fa:120");
    let changes = json!({
        "services": {"fa:120": {"node": "node2", "state": "started"}},
        "outcome": serde_json::from_str::<Value>(&outcome).unwrap(),
    });
    let converted = converted(&case(&[ALL_ON, &["network node2 off"]], &changes));
    assert_eq!(converted.expected.recoveries[0].resource, "service:120");
    assert_eq!(converted.expected.recoveries[0].time, Err(Untimed::StartsFail));
}
