//! The OCF driver against a real agent: `ocf:heartbeat:Dummy` of the Debian package `resource-agents`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tiebreaker_agent::drivers::{Deadlines, Driver, OcfRoot, OcfSpec, Probe, Resource};
use tiebreaker_agent::operation::{Operations, OperationsConfig, Outcome, op_exec};

/// The unit's process: `tiebreaker-agent op-exec` without the agent's binary.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn unit_entry() {
    if std::env::var_os("TIEBREAKER_OP").is_some() {
        std::process::exit(i32::from(op_exec().is_err()));
    }
}

fn open(folder: &Path) -> Operations {
    let mut config = OperationsConfig::new(folder.to_owned());
    let exe = std::env::current_exe().unwrap();
    config.unit = vec![exe.into(), "unit_entry".into(), "--exact".into(), "--ignored".into(), "--nocapture".into()];
    Operations::open(config).unwrap().0
}

fn agent(class: &str, params: &[(&str, &str)]) -> Resource {
    let params: BTreeMap<String, String> =
        params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = OcfSpec::parse(class, params).unwrap();
    if let Err(error) = spec.agent_file(&OcfRoot::default()) {
        panic!("{error}: apt-get install resource-agents");
    }
    let deadlines = Deadlines { monitor: Duration::from_secs(60), ..Deadlines::default() };
    Resource { name: "dummy".into(), driver: Driver::Ocf(spec, OcfRoot::default()), deadlines }
}

#[tokio::test(flavor = "multi_thread")]
async fn dummy_starts_runs_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let operations = open(folder.path());
    let dummy = agent("ocf:heartbeat:Dummy", &[]);
    assert_eq!(dummy.probe(&operations).await, Probe::Stopped);
    // Stopping what is stopped is success by the standard.
    assert_eq!(dummy.stop(&operations).await.unwrap(), Outcome::Done);
    assert_eq!(dummy.start(&operations).await.unwrap(), Outcome::Done);
    // Its state is this node's alone, not in the machine's common folder.
    assert!(folder.path().join("rsctmp/Dummy-dummy.state").exists());
    assert_eq!(dummy.probe(&operations).await, Probe::Running);
    assert_eq!(dummy.start(&operations).await.unwrap(), Outcome::Done);
    assert_eq!(dummy.stop(&operations).await.unwrap(), Outcome::Done);
    assert_eq!(dummy.probe(&operations).await, Probe::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn dummy_moves_live_by_both_ends() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [source, target] = [&folders[0], &folders[1]].map(|folder| open(folder.path()));
    let dummy = agent("ocf:heartbeat:Dummy", &[]);
    assert_eq!(dummy.start(&source).await.unwrap(), Outcome::Done);
    assert_eq!(dummy.migrate(&source, "b").await.unwrap(), Outcome::Done);
    assert_eq!(dummy.probe(&source).await, Probe::Stopped, "sent");
    assert_eq!(dummy.probe(&target).await, Probe::Stopped, "and not received");
    assert_eq!(dummy.receive(&target, "a").await.unwrap(), Outcome::Done);
    assert_eq!(dummy.probe(&target).await, Probe::Running);
    // Both were told of each other.
    let said = |folder: &tempfile::TempDir, kind: &str| {
        std::fs::read_to_string(folder.path().join("output").join(kind)).unwrap()
    };
    let (sent, received) = (said(&folders[0], "dummy.migrate_to"), said(&folders[1], "dummy.migrate_from"));
    assert!(sent.contains("Migrating dummy to b."), "{sent}");
    assert!(received.contains("Migrating dummy from a."), "{received}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_reach_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let operations = open(folder.path());
    let state = folder.path().join("elsewhere");
    let dummy = agent("ocf:heartbeat:Dummy", &[("state", state.to_str().unwrap())]);
    assert_eq!(dummy.start(&operations).await.unwrap(), Outcome::Done);
    assert!(state.exists());
    // Where the state vanishes, the agent says "not running", and so do we.
    std::fs::remove_file(&state).unwrap();
    assert_eq!(dummy.probe(&operations).await, Probe::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_parameter_is_unknown_and_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let operations = open(folder.path());
    // IPaddr2 without its address: "not configured".
    let address = agent("ocf:heartbeat:IPaddr2", &[]);
    let probe = address.probe(&operations).await;
    assert!(matches!(probe, Probe::Unknown { .. } | Probe::Failed), "{probe:?}");
    assert!(probe.counts_as_running());
    let Outcome::Failed { code, output } = address.start(&operations).await.unwrap() else {
        panic!("a start without an address fails");
    };
    assert!(code != 0 && !output.is_empty(), "{code}: {output}");
}
