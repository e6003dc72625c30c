//! What resources use is measured on running nodes, shown, and placement goes by it. The real daemons on loopback.
//!
//! Needs dd, of the Debian package coreutils.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tiebreaker_interop::{Cluster, Look, SOON, command_spec, until};
use tiebreaker_pipeline::report::Usage;
use tiebreaker_pipeline::resource::ResourceSpec;

const HELD: u64 = 256 << 20;

/// Starts what `run` says and keeps its process id.
fn script(folder: &Path, name: &str, run: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    // Both nodes are on this machine, and each has a folder of its own.
    let pid = format!("$TIEBREAKER_AGENT/{name}.pid");
    let text = format!(
        "#!/bin/sh\nalive() {{ [ -s {pid} ] && kill -0 $(cat {pid}) 2>/dev/null; }}\ncase $1 in\n\
         start) alive && exit 0; {run} & echo $! >{pid};;\n\
         stop) alive && kill -KILL $(cat {pid}); while alive; do sleep 0.02; done; rm -f {pid};;\n\
         status) alive && exit 0; exit 3;;\nesac\n"
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[test]
fn what_runs_is_measured_and_dynamic_placement_goes_by_it() -> Result<()> {
    let cluster = Cluster::start(&["node1", "node2"])?;
    let operator = cluster.operator();
    operator.until("three votes", SOON, |status| status.votes == (3, 3))?;
    let folder = cluster.folder().join("work");
    fs::create_dir_all(&folder)?;
    // Holds its memory and waits for a reader that never reads.
    let hog = script(&folder, "hog", "(dd if=/dev/zero bs=256M count=1 2>/dev/null | sleep 1000)")?;
    let sleeper = script(&folder, "sleeper", "sleep 1000")?;
    let add = |name: &str, node: &str, argv: &[&str]| -> Result<()> {
        let words = ["resource", "add", name, "--node", node, "--monitor-s", "1"];
        cluster.operate(&[&words[..], argv].concat())?.done().map(drop)
    };
    let program = |path: &str| ["start", "stop", "status"].map(|verb| format!("{path} {verb}"));
    for (name, node, path) in [("hog", "node1", &hog), ("sleeper", "node2", &sleeper)] {
        let [start, stop, status] = program(path);
        add(name, node, &["--start", &start, "--stop", &stop, "--status", &status])?;
    }
    // Has no process at all: what it uses can't be known.
    let sh = |script: &str| format!("/bin/sh -c '{script}'");
    let (touch, rm) = (sh("touch $TIEBREAKER_AGENT/marker"), sh("rm -f $TIEBREAKER_AGENT/marker"));
    let look = sh("[ -e $TIEBREAKER_AGENT/marker ] && exit 0; exit 3");
    add("marker", "node2", &["--start", &touch, "--stop", &rm, "--status", &look])?;

    let used = |name: &str| -> Result<Usage> {
        let status = operator.status()?;
        let resource = status.resource(name).context("a resource")?;
        resource.usage.with_context(|| format!("{name} is not measured: {resource:?}"))
    };
    let (hogs, sleepers) = until("both measured", SOON, || {
        let (hogs, sleepers) = (used("hog")?, used("sleeper")?);
        ensure!(hogs.memory > HELD, "{hogs:?}");
        Ok((hogs, sleepers))
    })?;
    assert!(sleepers.memory > 0 && sleepers.memory * 10 < hogs.memory, "{hogs:?} {sleepers:?}");
    let status: Value = serde_json::from_str(&cluster.operate(&["status", "--json"])?.done()?)?;
    let of = |name: &str| {
        status["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap()["usage"].clone()
    };
    assert!(of("hog")["memory"].as_u64() > Some(HELD) && of("hog")["milli_cpus"].is_u64(), "{status:#}");
    assert_eq!(of("marker"), Value::Null, "unknown is not zero");
    let shown = cluster.operate(&["status"])?.done()?;
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("hog").contains(" MiB") && line("hog").contains(" CPU"), "{shown}");
    assert!(!line("marker").contains(" CPU"), "{shown}");

    // By their number, or by what was declared, node1 would be the better one; by what they use node2 is.
    cluster.operate(&["set", "placement", "dynamic"])?.done()?;
    let next = script(&folder, "next", "sleep 1000")?;
    let spec = command_spec(&[&next, "start"], &[&next, "stop"], &[&next, "status"]);
    operator.add("next", ResourceSpec { memory: Some(HELD), ..spec })?;
    let placed = operator.until("the next one running", SOON, |status| status.runs_on("next").is_some())?;
    assert_eq!(placed.runs_on("next").as_deref(), Some("node2"));
    Ok(())
}
