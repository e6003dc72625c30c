//! The supervisor: what resets a node, and what doesn't.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{PATIENCE, alive, pid_in, reexec, signal, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tiebreaker_agent::supervisor::{BOOT_ID_VARIABLE, SupervisorConfig, WATCHDOG_VARIABLE, run};
use tiebreaker_agent::watchdog::{Feeder, FeederConfig, FeederHandle, KEPT_NAME, Realtime, WatchdogSource};
use tiebreaker_member::clock;
use tiebreaker_member::service_manager::{MAX_KEPT, ServiceManager, take_kept};

/// What the agents of these tests promise: their device runs at one second.
const PROMISED: Duration = Duration::from_secs(2);

/// The supervisor's process.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn supervisor_entry() {
    let Some(folder) = std::env::var_os("TIEBREAKER_TEST_FOLDER") else { return };
    let mut config = SupervisorConfig::new(reexec("agent_entry"), Path::new(&folder).join("run"));
    config.restart_delay = Duration::from_millis(20);
    config.restart_delay_max = Duration::from_millis(20);
    config.reboot_delay = Duration::from_millis(20);
    run(&config).unwrap();
}

/// The agent's process: arms the watchdog under a lease and starts a workload, once per boot.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn agent_entry() {
    let Some(folder) = std::env::var_os("TIEBREAKER_TEST_FOLDER") else { return };
    let folder = Path::new(&folder);
    let boot = std::env::var(BOOT_ID_VARIABLE).unwrap();
    let kept = take_kept(MAX_KEPT).unwrap();
    let kept = kept.into_iter().rev().find(|(name, _)| name == KEPT_NAME).map(|(_, fd)| fd);
    log(folder, &format!("life {boot} {}", if kept.is_some() { "kept" } else { "none" }));
    if let Some(kept) = &kept {
        // In every life of every mode, so that a question which petted would be seen.
        log(folder, &format!("runs {:?}", source().running_timeout(kept).unwrap()));
    }
    let workload = folder.join(format!("workload.{boot}"));
    match std::env::var("TIEBREAKER_TEST_MODE").unwrap().as_str() {
        "fed" => {
            let feeder = feed(kept);
            if !workload.exists() {
                // In a session of its own, and its parent gone: nothing but the process tree leads to it.
                let script = format!("setsid sh -c 'echo $$ >{}; while :; do sleep 1; done' &", workload.display());
                assert!(Command::new("/bin/sh").arg("-c").arg(script).status().unwrap().success());
            }
            wait_until("a pet", || feeder.state().pets > 0);
            log(folder, &format!("fed {boot}"));
            if folder.join("disarm").exists() {
                let mut feeder = feeder;
                feeder.disarm().unwrap();
                ServiceManager::from_env().unwrap().remove(KEPT_NAME).unwrap();
                log(folder, &format!("disarmed {boot}"));
                std::process::exit(0);
            }
            loop {
                std::thread::park();
            }
        }
        "crash-loop" => {
            // The lease was valid in the first life and never again.
            if kept.is_none() && !workload.exists() {
                fs::write(&workload, "").unwrap();
                std::mem::forget(feed(None));
            } else {
                // Every life gives up what was kept and connects anew, as one that opens a device would.
                let manager = ServiceManager::from_env().unwrap();
                manager.remove(KEPT_NAME).unwrap();
                let _dog = source().open(None, Some(&manager)).unwrap();
            }
            std::process::abort();
        }
        mode => panic!("no mode {mode}"),
    }
}

fn source() -> WatchdogSource {
    WatchdogSource::Simulated(PathBuf::from(std::env::var_os(WATCHDOG_VARIABLE).unwrap()))
}

fn feed(kept: Option<std::os::fd::OwnedFd>) -> FeederHandle {
    let manager = ServiceManager::from_env().unwrap();
    let config = FeederConfig {
        promised: PROMISED,
        lease_end: clock::now().after(Duration::from_secs(3600)),
        clock: clock::now,
        realtime: Realtime::Off,
        fresh: kept.is_none(),
    };
    Feeder::start(config, || source().open(kept, Some(&manager))).unwrap()
}

fn log(folder: &Path, line: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(folder.join("log")).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// A supervisor with its agent, in processes of their own.
struct Supervised {
    folder: TempDir,
    process: Child,
    reports: Receiver<Value>,
}

impl Supervised {
    fn start(mode: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), mode)
    }

    fn start_in(folder: TempDir, mode: &str) -> Self {
        let command = reexec("supervisor_entry");
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .env("TIEBREAKER_TEST_FOLDER", folder.path())
            .env("TIEBREAKER_TEST_MODE", mode)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test harness of the child writes here, too, sometimes into the same line.
                let json = line.find('{').and_then(|at| serde_json::from_str(&line[at..]).ok());
                if let Some(report) = json
                    && sender.send(report).is_err()
                {
                    return;
                }
            }
        });
        Self { folder, process, reports }
    }

    /// The next report of this kind, and how many others came before it.
    fn report(&self, event: &str) -> (Value, Vec<Value>) {
        let mut others = Vec::new();
        // One deadline for all: other reports may come for ever.
        let end = Instant::now() + PATIENCE;
        loop {
            match self.reports.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(report) if report["event"] == event => return (report, others),
                Ok(report) => others.push(report),
                Err(error) => panic!("no {event} ({error}) after {others:?}"),
            }
        }
    }

    fn started(&self) -> (i32, String) {
        let (report, _) = self.report("started");
        let pid = i32::try_from(report["pid"].as_i64().unwrap()).unwrap();
        (pid, report["boot"].as_str().unwrap().to_owned())
    }

    fn workload(&self, boot: &str) -> i32 {
        pid_in(&self.folder.path().join(format!("workload.{boot}")))
    }

    fn wait_for_log(&self, line: &str, times: usize) {
        wait_until(&format!("{times} x {line:?} in the log"), || {
            fs::read_to_string(self.folder.path().join("log"))
                .is_ok_and(|log| log.lines().filter(|seen| *seen == line).count() >= times)
        });
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            signal(self.process.id().cast_signed(), Signal::TERM);
        }
        self.process.wait().expect("our own child");
    }
}

#[test]
fn a_frozen_agents_node_is_reset_whole() {
    let node = Supervised::start("fed");
    let (agent, boot) = node.started();
    node.wait_for_log(&format!("fed {boot}"), 1);
    let workload = node.workload(&boot);
    signal(agent, Signal::STOP);
    let (reset, _) = node.report("reset");
    assert!(reset["why"].as_str().unwrap().contains("not petted for 1000 ms"), "{reset}");
    assert!(!alive(workload) && !alive(agent));
    // It comes back as another boot, without the watchdog of the one before.
    let (_, next) = node.started();
    assert_ne!(next, boot);
    node.wait_for_log(&format!("life {next} none"), 1);
    node.wait_for_log(&format!("fed {next}"), 1);
}

#[test]
fn a_killed_agent_comes_back_on_the_same_boot_armed_and_its_workload_lives() {
    let node = Supervised::start("fed");
    let (agent, boot) = node.started();
    node.wait_for_log(&format!("fed {boot}"), 1);
    let workload = node.workload(&boot);
    signal(agent, Signal::KILL);
    let (exited, _) = node.report("agent_exited");
    assert_eq!(exited["watchdog_armed"], true, "{exited}");
    let (next, same) = node.started();
    assert_eq!(same, boot);
    assert_ne!(next, agent);
    node.wait_for_log(&format!("life {boot} kept"), 1);
    node.wait_for_log("runs Some(1s)", 1);
    node.wait_for_log(&format!("fed {boot}"), 2);
    assert!(alive(workload));
    // It is the same watchdog: frozen now, the node is reset.
    signal(next, Signal::STOP);
    node.report("reset");
    assert!(!alive(workload));
}

/// Row 1 of the safety table.
#[test]
fn a_crash_looping_agent_does_not_pet() {
    let node = Supervised::start("crash-loop");
    let (_, boot) = node.started();
    node.report("armed");
    let (reset, before) = node.report("reset");
    assert!(reset["why"].as_str().unwrap().contains("not petted"), "{reset}");
    let lives = before.iter().filter(|report| report["event"] == "started").count();
    assert!(lives >= 3, "the agent has to have died and connected often: {before:?}");
    assert!(before.iter().all(|report| report["event"] != "started" || report["boot"] == boot.as_str()));
    assert!(before.iter().all(|report| report["event"] != "armed"), "{before:?}");
    // They asked for its timeout, too.
    node.wait_for_log("runs Some(1s)", 2);
}

#[test]
fn a_disarmed_watchdog_stays_disarmed_and_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disarm"), "").unwrap();
    let node = Supervised::start_in(folder, "fed");
    let (_, boot) = node.started();
    node.report("disarmed");
    let (exited, _) = node.report("agent_exited");
    assert_eq!(exited["watchdog_armed"], false);
    // The next life finds nothing that was kept, and the workload of the first.
    node.wait_for_log(&format!("life {boot} none"), 2);
    assert!(alive(node.workload(&boot)));
}

#[test]
fn sigterm_ends_everything() {
    let mut node = Supervised::start("fed");
    let (agent, boot) = node.started();
    node.wait_for_log(&format!("fed {boot}"), 1);
    let workload = node.workload(&boot);
    signal(node.process.id().cast_signed(), Signal::TERM);
    node.report("stopped");
    assert!(node.process.wait().unwrap().success());
    assert!(!alive(agent) && !alive(workload));
}

#[test]
fn the_agent_dies_with_a_killed_supervisor() {
    let mut node = Supervised::start("fed");
    let (agent, boot) = node.started();
    node.wait_for_log(&format!("fed {boot}"), 1);
    let workload = node.workload(&boot);
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    wait_until("the agent's end", || !alive(agent));
    // The documented limit: nobody is left to kill the workload.
    assert!(alive(workload));
    signal(workload, Signal::KILL);
}

#[test]
fn one_folder_has_one_supervisor() {
    let node = Supervised::start("fed");
    node.started();
    let config = SupervisorConfig::new(vec!["true".into()], node.folder.path().join("run"));
    let error = run(&config).unwrap_err().to_string();
    assert!(error.contains("another supervisor"), "{error}");
    let nothing = SupervisorConfig::new(vec![], node.folder.path().join("run"));
    assert!(run(&nothing).unwrap_err().to_string().contains("no command"));
}
