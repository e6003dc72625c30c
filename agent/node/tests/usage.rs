//! What real processes use is found, by the marks that operations give them.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{PATIENCE, pid_in, reexec, signal, wait_until};
use rustix::process::Signal;
use tiebreaker_agent::operation::{
    Kind, OperationError, OperationRequest, Operations, OperationsConfig, Outcome, op_exec,
};
use tiebreaker_agent::usage::Meter;
use tiebreaker_member::clock;
use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::report::Usage;

/// The unit's process: `tiebreaker-agent op-exec` without the agent's binary.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn unit_entry() {
    if std::env::var_os("TIEBREAKER_OP").is_some() {
        std::process::exit(i32::from(op_exec().is_err()));
    }
}

/// Runs a script to its end as an operation of a resource.
fn run(operations: &Operations, resource: &str, kind: Kind, script: &str) {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).into();
    let request = OperationRequest { resource: resource.into(), kind, argv, env: [].into(), deadline: PATIENCE };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    assert_eq!(runtime.block_on(operations.run(request)).unwrap(), Outcome::Done);
}

fn open(folder: &Path) -> Operations {
    let mut opened = None;
    // What another test starts at this moment has a copy of the forerunner's lock until it becomes its program.
    wait_until("the lock of the folder", || {
        let mut config = OperationsConfig::new(folder.to_owned());
        config.unit = reexec("unit_entry");
        opened = match Operations::open(config) {
            Err(OperationError::Busy { .. }) => None,
            opened => Some(opened.unwrap().0),
        };
        opened.is_some()
    });
    opened.unwrap()
}

/// A workload that ends with the test.
struct Ends(Vec<i32>);

impl Drop for Ends {
    fn drop(&mut self) {
        for pid in &self.0 {
            // It may have been ended by the test already.
            if common::alive(*pid) {
                signal(*pid, Signal::KILL);
            }
        }
    }
}

struct Bench {
    folder: tempfile::TempDir,
    operations: Operations,
    meter: Meter,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let operations = open(folder.path());
        let meter = Meter::new(operations.runtime_dir());
        Self { folder, operations, meter }
    }

    /// Starts a resource whose script writes the ids of its processes into files of these names.
    fn start(&self, resource: &str, script: &str, files: &[&str]) -> Ends {
        let at = self.folder.path().display().to_string();
        run(&self.operations, resource, Kind::Start, &script.replace("AT", &at));
        Ends(files.iter().map(|file| pid_in(&self.folder.path().join(file))).collect())
    }

    fn look(&mut self, resource: &str) -> Option<Usage> {
        self.meter.look(clock::now()).unwrap().get(&ResourceName::new(resource).unwrap()).copied()
    }
}

const HELD: u64 = 64 << 20;

/// Reads 64 MiB into its memory, again and again.
const BUSY: &str = "dd if=/dev/zero of=/dev/null bs=64M 2>/dev/null & echo $! >AT/busy";
const IDLE: &str = "sleep 1000 & echo $! >AT/idle";

#[test]
fn a_busy_resource_and_an_idle_one_are_told_apart() {
    let mut bench = Bench::new();
    let _busy = bench.start("busy", BUSY, &["busy"]);
    let _idle = bench.start("idle", IDLE, &["idle"]);
    assert_eq!(bench.look("busy"), None, "one look tells nothing");
    let mut both = None;
    wait_until("a busy resource that is seen to be busy", || {
        std::thread::sleep(Duration::from_millis(200));
        let (busy, idle) = (bench.look("busy").unwrap(), bench.look("idle").unwrap());
        both = Some((busy, idle));
        // However little of this machine it gets: it spends many ticks by now, and the other none.
        busy.milli_cpus >= 20 && busy.memory > HELD
    });
    let (busy, idle) = both.unwrap();
    assert!(idle.milli_cpus * 10 < busy.milli_cpus, "{busy:?} {idle:?}");
    assert!(idle.memory > 0 && idle.memory * 10 < busy.memory && busy.memory < 2 * HELD, "{busy:?} {idle:?}");
    assert_eq!(bench.look("web"), None, "of what doesn't run nothing is known");
}

#[test]
fn what_a_resource_starts_anew_every_moment_counts_and_so_does_who_has_shed_every_mark() {
    let mut bench = Bench::new();
    // Each of the short ones has ended before anybody looks at it twice.
    let short = "(while :; do sh -c 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done'; done) & echo $! >AT/short";
    let _short = bench.start("short", short, &["short"]);
    // Without an environment, in a session of its own: known by its parent, which then goes.
    let shed = "(env -i setsid sh -c 'echo $$ >AT/shed; exec dd if=/dev/zero of=/dev/null bs=1M 2>/dev/null' & \
                echo $$ >/dev/null; sleep 1000) & echo $! >AT/parent";
    let ends = bench.start("shed", shed, &["shed", "parent"]);
    bench.look("shed");
    signal(ends.0[1], Signal::KILL);
    wait_until("the end of the parent", || !common::alive(ends.0[1]));
    wait_until("both seen to be busy", || {
        std::thread::sleep(Duration::from_millis(200));
        let used = |usage: Option<Usage>| usage.is_some_and(|usage| usage.milli_cpus >= 20);
        let (short, shed) = (bench.look("short"), bench.look("shed"));
        used(short) && used(shed)
    });
}

#[test]
fn a_probe_is_no_part_of_what_it_looks_at_and_another_agents_workload_is_nobodys_here() {
    let mut bench = Bench::new();
    let other = Bench::new();
    let _theirs = other.start("theirs", IDLE, &["idle"]);
    let at = bench.folder.path().display().to_string();
    // A session of its own is what lets it outlive the probe.
    run(&bench.operations, "probed", Kind::Monitor, &format!("setsid sleep 1000 & echo $! >{at}/probe"));
    let _probe = Ends(vec![pid_in(&bench.folder.path().join("probe"))]);
    let _idle = bench.start("idle", IDLE, &["idle"]);
    bench.look("idle");
    std::thread::sleep(Duration::from_millis(50));
    assert!(bench.look("idle").is_some());
    assert_eq!((bench.look("probed"), bench.look("theirs")), (None, None));
}

#[test]
fn a_successor_of_the_agent_knows_what_its_forerunner_has_started_and_forgets_what_has_ended() {
    let bench = Bench::new();
    let ends = bench.start("idle", IDLE, &["idle"]);
    let Bench { folder, operations, .. } = bench;
    let runtime_dir = operations.runtime_dir().to_owned();
    drop(operations);
    let mut next = Bench { operations: open(folder.path()), meter: Meter::new(&runtime_dir), folder };
    next.look("idle");
    std::thread::sleep(Duration::from_millis(50));
    assert!(next.look("idle").is_some());
    drop(ends);
    wait_until("the end of the workload", || next.look("idle").is_none());
    assert!(fs::exists(next.folder.path()).unwrap());
}
