//! A smart plug through a whole cluster of real daemons on loopback, from its table in the configuration to the timeline.

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tiebreaker_interop::{
    Cluster, SOON, Workload,
    plug::{MAC, Plug},
};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_pipeline::{command::Command, decision::Decision, fence::Evidence, resource::Requested};

#[test]
fn a_node_that_hangs_is_fenced_by_its_plug_and_the_timeline_says_that_it_was_measured() -> Result<()> {
    let plug = Plug::start()?;
    let mut cluster = Cluster::appliance()?;
    cluster.appliance.stop();
    // On a machine as busy as one that tests, the watchdog's time must not come before the plug.
    cluster.appliance.configure(&format!(
        "\n[clusters.home]\nprofile = \"patient\"\n[[clusters.home.devices]]\nnode = \"node1\"\nname = \"plug\"\nkind = \"shelly\"\naddress = \"{}\"\n\
         mac = \"{MAC}\"\nno_password = true\ndrilled = true\n",
        plug.address()
    ))?;
    cluster.appliance.start()?;
    for node in ["node1", "node2"] {
        cluster.add(node)?;
    }
    cluster.all_online()?;
    let operator = cluster.operator();
    operator.until("the plug's proof", SOON, |status| {
        status.members.iter().flat_map(|member| &member.devices).any(|device| device.name == "plug" && device.proven)
    })?;
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
