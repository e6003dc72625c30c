//! Operations outlive nobody, whoever is killed when; workloads outlive everybody.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{PATIENCE, alive, pid_in, reexec, signal, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;
use tiebreaker_agent::drivers::{CommandSpec, Deadlines, Driver, Probe, Resource};
use tiebreaker_agent::operation::{
    Kind, Leftovers, OUTPUT_TAIL, OperationError, OperationRequest, Operations, OperationsConfig, Outcome, op_exec,
};

/// The unit's process: `tiebreaker-agent op-exec` without the agent's binary.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn unit_entry() {
    if std::env::var_os("TIEBREAKER_OP").is_some() {
        std::process::exit(i32::from(op_exec().is_err()));
    }
}

/// An agent's process that starts a resource: the test kills it.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn agent_entry() {
    let Some(folder) = std::env::var_os("TIEBREAKER_TEST_FOLDER") else { return };
    let folder = Path::new(&folder);
    let (operations, _) = open(folder);
    let script = fs::read_to_string(folder.join("start")).unwrap();
    let outcome = block_on(operations.run(request(Kind::Start, &script, PATIENCE))).unwrap();
    fs::write(folder.join("outcome"), format!("{outcome:?}\n")).unwrap();
    loop {
        std::thread::park();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

fn open(folder: &Path) -> (Operations, Leftovers) {
    let mut config = OperationsConfig::new(folder.join("run"));
    config.unit = reexec("unit_entry");
    Operations::open(config).unwrap()
}

fn request(kind: Kind, script: &str, deadline: Duration) -> OperationRequest {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).into();
    OperationRequest { resource: "web".into(), kind, argv, env: [].into(), deadline }
}

fn run(operations: &Operations, kind: Kind, script: &str, deadline: Duration) -> Outcome {
    block_on(operations.run(request(kind, script, deadline))).unwrap()
}

/// An agent that is running `script` as the start of `web`, in a process of its own.
fn agent_starting(folder: &TempDir, script: &str) -> Child {
    fs::write(folder.path().join("start"), script).unwrap();
    let command = reexec("agent_entry");
    Command::new(&command[0])
        .args(&command[1..])
        .env("TIEBREAKER_TEST_FOLDER", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill_agent(mut agent: Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// The process id of the unit of the one operation that is on record.
fn unit_of(folder: &TempDir) -> i32 {
    let ops = fs::read_dir(folder.path().join("run/ops")).unwrap();
    let record = ops.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|end| end == "op"));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record.unwrap()).unwrap()).unwrap();
    i32::try_from(record["pid"].as_i64().unwrap()).unwrap()
}

/// Row 26 of the safety table: a start script that is orphaned by the agent's death must not finish after the probe.
#[test]
fn a_start_dies_with_its_agent() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    // The script, a child of its own session, and one whose parent has gone.
    let script = format!(
        "setsid sh -c 'echo $$ >{at}/b; while :; do sleep 1; done' & \
         (sh -c 'echo $$ >{at}/c; while :; do sleep 1; done' &) ; \
         echo $$ >{at}/a; while :; do sleep 1; done"
    );
    let agent = agent_starting(&folder, &script);
    let pids = ["a", "b", "c"].map(|name| pid_in(&folder.path().join(name)));
    kill_agent(agent);
    // Nobody but the unit kills here: the next agent has not even started.
    wait_until("the end of the operation", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn the_next_agent_kills_what_a_frozen_unit_left_before_it_probes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let agent = agent_starting(&folder, &format!("echo $$ >{at}/a; while :; do sleep 1; done"));
    let script = pid_in(&folder.path().join("a"));
    let unit = unit_of(&folder);
    signal(unit, Signal::STOP);
    kill_agent(agent);
    assert!(alive(script) && alive(unit));
    let (operations, leftovers) = open(folder.path());
    // Already gone when `open` returns: no probe comes before.
    assert!(!alive(script) && !alive(unit));
    assert_eq!((leftovers.killed.len(), leftovers.stuck.len()), (1, 0));
    assert!(leftovers.killed[0].starts_with("tiebreaker-op-web-start-"), "{leftovers:?}");
    assert!(operations.in_flight().is_empty());
    drop(operations);
    // And it is forgotten.
    assert_eq!(open(folder.path()).1, Leftovers::default());
}

#[test]
fn the_next_agent_finds_the_orphans_of_a_killed_unit_by_session_and_mark() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let script = format!(
        "setsid sh -c 'echo $$ >{at}/marked; while :; do sleep 1; done' & \
         env -i /bin/sh -c 'echo $$ >{at}/unmarked; while :; do /bin/sleep 1; done' & \
         wait"
    );
    let agent = agent_starting(&folder, &script);
    let pids = ["marked", "unmarked"].map(|name| pid_in(&folder.path().join(name)));
    // Agent first, frozen, so that it can't clean up; then the unit, so that it can't either.
    signal(agent.id().cast_signed(), Signal::STOP);
    let unit = unit_of(&folder);
    signal(unit, Signal::KILL);
    kill_agent(agent);
    assert!(pids.iter().all(|pid| alive(*pid)));
    let (_operations, leftovers) = open(folder.path());
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert_eq!(leftovers.killed.len(), 1);
}

#[test]
fn a_workload_outlives_its_start_and_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let agent = agent_starting(
        &folder,
        &format!(
            "setsid sh -c 'echo $$ >{at}/own; while :; do sleep 1; done' & \
             sh -c 'echo $$ >{at}/same; while :; do echo noise; sleep 0.01; done' & exit 0"
        ),
    );
    let pids = ["own", "same"].map(|name| pid_in(&folder.path().join(name)));
    wait_until("the start's outcome", || folder.path().join("outcome").exists());
    kill_agent(agent);
    let (operations, leftovers) = open(folder.path());
    assert_eq!(leftovers, Leftovers::default());
    assert!(operations.in_flight().is_empty());
    // Another operation of the same resource leaves it alone, too, and so does the end of its output's reader.
    assert_eq!(run(&operations, Kind::Monitor, "exit 0", PATIENCE), Outcome::Done);
    assert!(pids.iter().all(|pid| alive(*pid)));
    for pid in pids {
        signal(pid, Signal::KILL);
    }
}

#[test]
fn a_unit_without_an_order_runs_nothing_and_goes() {
    let unit = reexec("unit_entry");
    let mut unit = Command::new(&unit[0])
        .args(&unit[1..])
        .env("TIEBREAKER_OP", "tiebreaker-op-test")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    drop(unit.stdin.take());
    assert_eq!(unit.wait().unwrap().code(), Some(1));
}

fn web(start: &str, stop: &str, status: &str, stop_deadline: Duration) -> Resource {
    let argv = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).into();
    Resource {
        name: "web".into(),
        driver: Driver::Command(CommandSpec {
            start: argv(start),
            stop: argv(stop),
            status: argv(status),
            migrate: None,
        }),
        deadlines: Deadlines { stop: stop_deadline, ..Deadlines::default() },
    }
}

/// Row 27 of the safety table.
#[test]
fn a_hung_stop_counts_as_running_while_it_hangs_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let (operations, _) = open(folder.path());
    let stop = format!("echo $$ >{at}/stop; while :; do sleep 1; done");
    let web = web("true", &stop, "exit 3", Duration::from_secs(2));
    block_on(async {
        let (outcome, while_it_hangs) = tokio::join!(web.stop(&operations), async {
            while !folder.path().join("stop").exists() {
                tokio::task::yield_now().await;
            }
            // Its status program would say that it is stopped.
            (web.probe(&operations).await, operations.in_flight())
        });
        let (probe, in_flight) = while_it_hangs;
        assert!(matches!(&probe, Probe::Unknown { why } if why.contains("still runs")), "{probe:?}");
        assert!(probe.counts_as_running());
        assert!(in_flight.contains("web"));
        assert_eq!(outcome.unwrap(), Outcome::TimedOut);
        assert!(!alive(pid_in(&folder.path().join("stop"))));
        // Only now that nothing of the stop is left, the probe is heard.
        assert!(operations.in_flight().is_empty());
        assert_eq!(web.probe(&operations).await, Probe::Stopped);
    });
}

#[test]
fn a_stop_that_lies_convinces_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (operations, _) = open(folder.path());
    let web = web("true", "exit 0", "exit 0", PATIENCE);
    block_on(async {
        assert_eq!(web.stop(&operations).await.unwrap(), Outcome::Done);
        assert_eq!(web.probe(&operations).await, Probe::Running);
    });
}

#[test]
fn a_probe_that_hangs_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let (operations, _) = open(folder.path());
    let mut web = web("true", "true", "while :; do sleep 1; done", PATIENCE);
    web.deadlines.monitor = Duration::from_millis(100);
    let probe = block_on(web.probe(&operations));
    assert!(matches!(&probe, Probe::Unknown { why } if why.contains("in time")), "{probe:?}");
}

#[test]
fn a_program_that_is_not_there_fails_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (operations, _) = open(folder.path());
    let mut request = request(Kind::Start, "", PATIENCE);
    request.argv = vec!["/no/such/program".into()];
    let outcome = block_on(operations.run(request)).unwrap();
    assert!(
        matches!(&outcome, Outcome::Failed { code: 127, output } if output.contains("/no/such/program")),
        "{outcome:?}"
    );
}

#[test]
fn a_failed_start_leaves_nothing_and_tells_the_end_of_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let (operations, _) = open(folder.path());
    let script = format!(
        "setsid sh -c 'echo $$ >{at}/half; while :; do sleep 1; done' & \
         while [ ! -s {at}/half ]; do sleep 0.01; done; \
         yes filler | head -c 10000; echo the reason >&2; exit 5"
    );
    let Outcome::Failed { code, output } = run(&operations, Kind::Start, &script, PATIENCE) else {
        panic!("it fails");
    };
    assert_eq!(code, 5);
    assert!(output.ends_with("the reason"), "{output}");
    assert!(output.len() as u64 <= OUTPUT_TAIL);
    assert!(!alive(pid_in(&folder.path().join("half"))));
}

#[test]
fn a_cancelled_start_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let (operations, _) = open(folder.path());
    let script = format!("setsid sh -c 'echo $$ >{at}/child; while :; do sleep 1; done' & wait");
    block_on(async {
        let start = operations.run(request(Kind::Start, &script, PATIENCE));
        let (outcome, ()) = tokio::join!(start, async {
            while !fs::read_to_string(folder.path().join("child")).is_ok_and(|text| text.ends_with('\n')) {
                tokio::task::yield_now().await;
            }
            operations.cancel("web");
        });
        assert_eq!(outcome.unwrap(), Outcome::Cancelled);
    });
    assert!(!alive(pid_in(&folder.path().join("child"))));
    assert!(operations.in_flight().is_empty());
}

#[test]
fn a_cancellation_before_the_program_is_begun_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("began").display().to_string();
    let (operations, _) = open(folder.path());
    let script = format!("touch {at}");
    let announced = operations.announce("web");
    operations.cancel("web");
    assert_eq!(run(&operations, Kind::Start, &script, PATIENCE), Outcome::Cancelled);
    assert!(!Path::new(&at).exists() && operations.in_flight().is_empty());
    // It counts for what was announced, and for nothing after it; nor does the end of the earlier end the later.
    let next = operations.announce("web");
    drop(announced);
    assert_eq!(run(&operations, Kind::Start, "true", PATIENCE), Outcome::Done);
    operations.cancel("web");
    drop(next);
    operations.cancel("web");
    assert_eq!(run(&operations, Kind::Start, &script, PATIENCE), Outcome::Done);
    assert!(Path::new(&at).exists());
}

#[test]
fn programs_see_the_documented_environment_only() {
    let folder = tempfile::tempdir().unwrap();
    let (operations, _) = open(folder.path());
    let mut env = request(Kind::Start, "", PATIENCE);
    env.argv = vec!["env".into()];
    env.env = [("OCF_ROOT".to_owned(), "/x".to_owned())].into();
    assert_eq!(block_on(operations.run(env)).unwrap(), Outcome::Done);
    let seen = fs::read_to_string(folder.path().join("run/output/web.start")).unwrap();
    let mut names: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["LANG", "OCF_ROOT", "PATH", "TIEBREAKER_AGENT", "TIEBREAKER_OP", "TIEBREAKER_RESOURCE"]);
    let where_it_is = "test \"$(pwd)\" = / && ! read line && test $(ps -o sid= -p $$) != $(ps -o sid= -p 1)";
    assert_eq!(run(&operations, Kind::Monitor, where_it_is, PATIENCE), Outcome::Done);
}

#[test]
fn there_is_one_agent_per_node_and_one_operation_per_resource() {
    let folder = tempfile::tempdir().unwrap();
    let (operations, _) = open(folder.path());
    let second = Operations::open(OperationsConfig::new(folder.path().join("run")));
    assert!(matches!(second, Err(OperationError::Busy { .. })));
    let mut bad = request(Kind::Start, "true", PATIENCE);
    bad.resource = "../web".into();
    assert!(matches!(block_on(operations.run(bad)), Err(OperationError::Name { .. })));
}
