//! The command, on a case of our own.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with one case that converts and one that doesn't.
fn folder() -> TempDir {
    let node = json!({"power": "on", "network": "on"});
    let case = json!({
        "name": "test-own1",
        "cmdlist": [["service ct:5 disabled"]],
        "hardware": {"north": node, "south": node},
        "services": {"ct:5": {"node": "south", "state": "started"}},
        "initial_manager_status": {},
        "datacenter": {"ha": {"shutdown_policy": "freeze"}},
        "rules": [],
        "groups": [],
        "static_stats": null,
        "dynamic_stats": null,
        "outcome": {
            "final_location": {"ct:5": "south"},
            "final_crm_state": {"ct:5": "stopped"},
            "final_running": {},
            "final_node_state": {"north": "online", "south": "online"},
            "final_power": {"north": "on", "south": "on"},
            "fence_ack_order": [],
            "events": [],
        },
    });
    let mut other = case.clone();
    other["name"] = "test-own2".into();
    other["cmdlist"] = json!([["cfs north rw fail"]]);
    let folder = TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("pve_scenarios.json");
    std::fs::write(file, json!([case, other]).to_string()).expect("a temporary file can be written");
    folder
}

/// What it prints, and whether it succeeds.
fn run(folder: Option<&TempDir>, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebreaker-cases"));
    command.env_remove(tiebreaker_cases::CASES_VARIABLE).args(arguments);
    if let Some(folder) = folder {
        command.env(tiebreaker_cases::CASES_VARIABLE, folder.path());
    }
    let output = command.output().expect("the command was built with this test");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).expect("it prints UTF-8"))
}

#[test]
fn a_case_is_shown_as_a_scenario() {
    let folder = folder();
    let (ok, one) = run(Some(&folder), &["convert", "own1"]);
    assert!(ok, "{one}");
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["shutdown_policy"], "freeze");
    assert_eq!(one["event"], json!([{"at": "20s", "do": "set ct:5 state=disabled"}]));
    let (ok, all) = run(Some(&folder), &["convert", "--all"]);
    assert!(ok, "{all}");
    assert_eq!(serde_json::from_str::<Value>(&all).unwrap(), json!({"test-own1": one}));
}

#[test]
fn what_is_expected_is_shown() {
    let folder = folder();
    let (ok, text) = run(Some(&folder), &["expect", "--all"]);
    assert!(ok, "{text}");
    assert_eq!(
        text,
        "test-own1\n  ct:5: stopped (disabled) on south, runs nowhere\n  fenced: nobody\n\
         test-own2\n  left out: it breaks the cluster file system\n"
    );
}

#[test]
fn what_is_left_out_or_missing_is_an_error_that_says_so() {
    let folder = folder();
    for (arguments, why) in [
        (["convert", "test-own2"], "test-own2 is left out: it breaks the cluster file system"),
        (["expect", "own3"], "there is no case own3"),
    ] {
        let (ok, text) = run(Some(&folder), &arguments);
        assert!(!ok && text.contains(why), "{text}");
    }
    let (ok, text) = run(None, &["list"]);
    assert!(!ok && text.contains("set TIEBREAKER_CASES"), "{text}");
    let empty = TempDir::new().unwrap();
    let (ok, text) = run(Some(&empty), &["list"]);
    assert!(!ok && text.contains("has to name the folder"), "{text}");
}
