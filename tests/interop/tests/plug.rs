//! A smart plug through a whole cluster of real daemons on loopback, from its table in the configuration to the timeline.

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tiebreaker_interop::{
    Cluster, Operator, SOON, Workload,
    plug::{MAC, Plug},
    until,
};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::{command::Command, decision::Decision, fence::Evidence, resource::Requested};

/// An appliance that has a plug for `node1`, and these settings of its cluster.
fn with_plug(plug: &Plug, settings: &str) -> Result<Cluster> {
    let mut cluster = Cluster::appliance()?;
    cluster.appliance.stop();
    cluster.appliance.configure(&format!(
        "\n[clusters.home]\n{settings}[[clusters.home.devices]]\nnode = \"node1\"\nname = \"plug\"\nkind = \"shelly\"\naddress = \"{}\"\n\
         mac = \"{MAC}\"\nno_password = true\ndrilled = true\n",
        plug.address()
    ))?;
    cluster.appliance.start()?;
    Ok(cluster)
}

fn until_proven(operator: &Operator) -> Result<()> {
    let proven = |status: &Status| {
        status.members.iter().flat_map(|member| &member.devices).any(|device| device.name == "plug" && device.proven)
    };
    operator.until("the plug's proof", SOON, proven).map(drop)
}

#[test]
fn a_node_that_hangs_is_fenced_by_its_plug_and_the_timeline_says_that_it_was_measured() -> Result<()> {
    let plug = Plug::start()?;
    // On a machine as busy as one that tests, the watchdog's time must not come before the plug.
    let mut cluster = with_plug(&plug, "profile = \"patient\"\n")?;
    for node in ["node1", "node2"] {
        cluster.add(node)?;
    }
    cluster.all_online()?;
    let operator = cluster.operator();
    until_proven(&operator)?;
    let workload = Workload::new(&cluster.folder().join("service"))?;
    let command = Command::AddResource {
        name: "service".parse()?,
        spec: workload.spec(),
        requested: Requested::Started,
        node: Some("node1".parse()?),
    };
    let reply = operator.request(Request::Propose(command))?;
    ensure!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    let run = workload.until_on(cluster.node("node1")?.folder(), SOON)?;
    workload.lives(&run)?;

    // The machine stops doing anything, and has power.
    let supervisor = i32::try_from(cluster.running("node1")?.pid())?;
    let agent = cluster.running("node1")?.agent()?;
    for pid in [Pid::from_raw(supervisor), Some(agent), Pid::from_raw(run.pid)].into_iter().flatten() {
        kill_process(pid, Signal::KILL)?;
    }
    let fenced = operator.until_decided("the fence", SOON, |line| matches!(&line.decision, Decision::Fenced { .. }))?;
    let Decision::Fenced { node, evidence, .. } = &fenced.decision else { unreachable!() };
    let measured = Evidence::SupplyCut { device: "plug".into() };
    ensure!(
        (node.as_str(), evidence) == ("node1", &measured),
        "{fenced:?}\n{:?}\n{}",
        operator.log(),
        cluster.appliance.log()
    );
    workload.until_on(cluster.node("node2")?.folder(), SOON)?;
    assert_eq!(plug.told(), [false], "it gets its power back once no command of the fence can land any more");
    Ok(())
}

/// Waits until the plug was looked at for a fence so often at least.
fn looked_at(cluster: &Cluster, least: usize) -> Result<usize> {
    until("looks at the plug", SOON, || {
        let audit = cluster.appliance.command(&["audit", "list", "--last", "1000", "--json"])?.done()?;
        let looks = audit.matches("\"command\":\"look\",\"result\":\"on\"").count();
        ensure!(looks >= least, "{looks} looks, not {least}");
        Ok(looks)
    })
}

#[test]
fn nothing_is_switched_while_an_operator_holds_it_not_even_after_a_restart_of_the_appliance() -> Result<()> {
    let plug = Plug::start()?;
    let mut cluster = with_plug(&plug, "")?;
    // Nothing but the plug can prove this node's fence.
    cluster.add_with("node1", &["--watchdog", "simulated"])?;
    cluster.add("node2")?;
    cluster.all_online()?;
    let operator = cluster.operator();
    until_proven(&operator)?;
    cluster.operate(&["fence", "hold", "--reason", "new cables"])?.done()?;
    let again = cluster.operate(&["fence", "hold"])?.refused()?;
    ensure!(again.contains("held by root: new cables"), "{again}");
    let on = cluster.appliance.command(&["device", "on", "node1"])?.refused()?;
    ensure!(on.contains("fence release"), "{on}");
    let off = cluster.appliance.command(&["device", "off", "node1", "--confirm", "node1"])?.refused()?;
    ensure!(off.contains("fence release"), "{off}");

    let supervisor = i32::try_from(cluster.running("node1")?.pid())?;
    let agent = cluster.running("node1")?.agent()?;
    for pid in [Pid::from_raw(supervisor), Some(agent)].into_iter().flatten() {
        kill_process(pid, Signal::KILL)?;
    }
    let asked = cluster.operate(&["fence", "node1", "--yes"])?.done()?;
    ensure!(asked.contains("Its power is not cut, for that is held by root: new cables"), "{asked}");
    let before = looked_at(&cluster, 3)?;
    cluster.appliance.stop();
    cluster.appliance.start()?;
    let held = operator.until("word of the hold", SOON, |status| {
        status.leader.is_some() && status.alarms.iter().any(|alarm| alarm.contains("held by root: new cables"))
    })?;
    ensure!(held.fences.iter().any(|open| open.fence.node.as_str() == "node1"), "{held:?}");
    let shown = cluster.operate(&["status"])?.done()?;
    ensure!(shown.contains("THE SWITCHING OF POWER IS HELD by root: new cables, since 20"), "{shown}");
    looked_at(&cluster, before + 3)?;
    ensure!(plug.told().is_empty(), "it was told {:?} while that was held", plug.told());

    cluster.operate(&["fence", "release"])?.done()?;
    let fenced = operator.until_decided("the proof", SOON, |line| matches!(&line.decision, Decision::Fenced { .. }))?;
    let measured = Evidence::SupplyCut { device: "plug".into() };
    ensure!(matches!(&fenced.decision, Decision::Fenced { evidence, .. } if *evidence == measured), "{fenced:?}");
    assert_eq!(plug.told().first(), Some(&false));
    let audit = cluster.appliance.command(&["audit", "list", "--last", "1000", "--json"])?.done()?;
    for word in ["\"what\":\"hold\"", "\"what\":\"release\"", "\"event\":\"held\"", "\"event\":\"released\""] {
        ensure!(audit.contains(word), "no {word} in {audit}");
    }
    Ok(())
}
