//! What an operator does by hand, by the real command: looks at resources, has a node fenced that runs, and gives a word
//! for one whose fence nothing else can prove yet. The real daemons on loopback, with simulated watchdogs.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tiebreaker_interop::{Cluster, Look, Ran, SOON, Workload, until};
use tiebreaker_member::core::Status;
use tiebreaker_pipeline::{decision::Decision, fence::Evidence};

fn home(status: &Status) -> Option<String> {
    status.runs_on("service")
}

fn answer(ran: Ran) -> Result<Value> {
    let text = ran.done()?;
    serde_json::from_str(&text).with_context(|| format!("the answer {text:?}"))
}

#[test]
fn a_node_is_fenced_by_hand_while_it_runs_and_another_by_a_word_when_it_is_dead() -> Result<()> {
    let mut cluster = Cluster::start(&["node1", "node2"])?;
    let service = Workload::new(&cluster.folder().join("shared"))?;
    let operator = cluster.operator();
    operator.add("service", service.spec())?;
    let first = home(&operator.until("the service running", SOON, |status| home(status).is_some())?).unwrap();
    let second = if first == "node1" { "node2" } else { "node1" };

    let listed = answer(cluster.operate(&["--json", "resource", "list"])?)?;
    ensure!(listed.to_string().contains("\"service\""), "{listed}");
    let why = answer(cluster.operate(&["--json", "why", "service"])?)?;
    ensure!(why["because"].is_string(), "{why}");
    let unknown = cluster.operate(&["why", "nothing"])?;
    ensure!(unknown.refused()?.contains("nothing"), "the name that isn't there is told");

    // It runs, and learns of its fence: it ends all that it runs by itself, and its next boot is the proof, unless the
    // watchdog's time has passed before.
    cluster.operate(&["fence", &first, "--yes"])?.done()?;
    let proven = |name: &str| {
        operator.until_decided(
            "the fence proven",
            SOON,
            |line| matches!(&line.decision, Decision::Fenced { node, .. } if node.to_string() == name),
        )
    };
    let Decision::Fenced { evidence, .. } = proven(&first)?.decision else { unreachable!() };
    ensure!(matches!(evidence, Evidence::NewBoot { .. } | Evidence::WatchdogTime { .. }), "{evidence}");
    until("reset of the fenced node", SOON, || {
        ensure!(!cluster.node(&first)?.reported("reset")?.is_empty(), "{:?}", cluster.node(&first)?.reports()?);
        Ok(())
    })?;
    operator.until("the service on the other node", SOON, |status| home(status).as_deref() == Some(second))?;
    cluster.all_online()?;

    // It is dead: nobody can ask it, and its watchdog's time has not passed.
    let unasked = cluster.operate(&["fence", "confirm", second, "--yes"])?.refused()?;
    ensure!(unasked.contains(second), "there is nothing to confirm: {unasked}");
    cluster.end(second)?;
    until("word for the dead node taken", SOON, || cluster.operate(&["fence", "confirm", second, "--yes"])?.done())?;
    let Decision::Fenced { evidence, .. } = proven(second)?.decision else { unreachable!() };
    ensure!(matches!(evidence, Evidence::Operator { .. } | Evidence::WatchdogTime { .. }), "{evidence}");
    operator.until("the service back on the first node", SOON, |status| home(status).as_ref() == Some(&first))?;

    // Both are dead: no majority is left.
    cluster.end(&first)?;
    until("no leader", SOON, || {
        let ran = cluster.operate(&["--json", "resource", "set", "service", "--state", "stopped"])?;
        ensure!(ran.code == Some(3), "{:?}, {}", ran.code, ran.stdout);
        let told: Value = serde_json::from_str(&ran.stdout).with_context(|| format!("the answer {:?}", ran.stdout))?;
        ensure!(told["exit"] == 3, "{told}");
        Ok(())
    })
}
