//! A smart plug through a whole cluster of real daemons on loopback, from its table in the configuration to the timeline.

use std::process::Command as Process;

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use tiebreaker_interop::{
    Cluster, Look, Node, Operator, Program, SOON, Workload,
    plug::{MAC, Plug},
    until,
};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::{command::Command, decision::Decision, fence::Evidence, resource::Requested};

/// An appliance that has a plug for `node1`, and these settings of its cluster.
fn with_plug(plug: &Plug, drilled: bool, settings: &str) -> Result<Cluster> {
    let mut cluster = Cluster::appliance()?;
    cluster.appliance.stop();
    cluster.appliance.configure(&format!(
        "\n[clusters.home]\n{settings}[[clusters.home.devices]]\nnode = \"node1\"\nname = \"plug\"\nkind = \"shelly\"\naddress = \"{}\"\n\
         mac = \"{MAC}\"\nno_password = true\ndrilled = {drilled}\n",
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
    let mut cluster = with_plug(&plug, true, "profile = \"patient\"\n")?;
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
    let mut cluster = with_plug(&plug, true, "")?;
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

    cut(&cluster, "node1")?;
    let asked = cluster.operate(&["fence", "node1", "--yes"])?.done()?;
    ensure!(asked.contains("Its power is not cut, for that is held by root: new cables"), "{asked}");
    let before = looked_at(&cluster, 3)?;
    cluster.appliance.stop();
    // Without a daemon it is kept to as well.
    for command in [&["device", "on", "node1"][..], &["device", "off", "node1", "--confirm", "node1"]] {
        let alone = cluster.appliance.command(command)?.refused()?;
        ensure!(alone.contains("held by root: new cables") && alone.contains("--force"), "{alone}");
    }
    cluster.appliance.start()?;
    operator.until("word of the hold and the fence", SOON, |status| {
        // What a leader has just begun to lead, it has not applied to its end yet.
        status.leader.is_some()
            && status.alarms.iter().any(|alarm| alarm.contains("held by root: new cables"))
            && status.fences.iter().any(|open| open.fence.node.as_str() == "node1")
    })?;
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

/// Kills a node as a power cut does.
fn cut(cluster: &Cluster, node: &str) -> Result<()> {
    kill(i32::try_from(cluster.running(node)?.pid())?, cluster.node(node)?)
}

/// The same by the number of its supervisor.
fn kill(supervisor: i32, node: &Node) -> Result<()> {
    kill_process(Pid::from_raw(supervisor).context("a supervisor")?, Signal::KILL)?;
    let agent = node.reported("started")?.last().and_then(|report| report["pid"].as_i64()).context("an agent")?;
    match kill_process(Pid::from_raw(agent.try_into()?).context("an agent")?, Signal::KILL) {
        // It has reset itself meanwhile, for its fence, and nobody starts it again.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_drill_shows_whose_device_it_is_and_whose_it_is_not() -> Result<()> {
    let plug = Plug::start()?;
    let mut cluster = with_plug(&plug, false, "")?;
    for node in ["node1", "node2"] {
        cluster.add(node)?;
    }
    cluster.all_online()?;
    let operator = cluster.operator();
    operator.until("word that nobody knows whose plug it is", SOON, |status| {
        status.alarms.iter().any(|alarm| alarm.contains("device drill"))
    })?;
    let drill = ["device", "drill", "node1", "--confirm", "node1", "--dark", "20"];

    // Nobody takes this node's power when the plug says off: it comes back by itself.
    let other = cluster.appliance.command(&drill)?.refused()?;
    ensure!(other.contains("node1/plug is not shown to be its device"), "{other}");
    ensure!(other.contains("maintenance node1 off"), "{other}");
    // An "off" that was taken may be carried out late, so the "on" waits for half a minute.
    let up = operator.until("node1 after that", 2 * SOON, |status| {
        status.fences.is_empty() && status.of("node1").is_some_and(|node| node.state == "maintenance")
    })?;
    ensure!(!up.of("node1").is_some_and(|node| node.devices.iter().any(|device| device.proven)), "{up:?}");
    ensure!(plug.told() == [false, true] || plug.told().is_empty(), "{:?}", plug.told());
    let before = plug.told().len();
    let boot = up.of("node1").and_then(|node| node.boot.clone());

    // Now it hangs on this plug.
    let (supervisor, node) = (i32::try_from(cluster.running("node1")?.pid())?, cluster.node("node1")?.clone());
    plug.feeds(move |on| {
        if !on {
            kill(supervisor, &node).expect("the node has to lose its power");
        }
    });
    let data = cluster.appliance.data();
    let server = Program::Server.path()?;
    // Longer than a command of the tests usually has.
    let drilling = std::thread::spawn(move || {
        let mut command = Process::new("timeout");
        command.arg("300").arg(server).args(drill).arg("--data").arg(data).output()
    });
    until("its power", 2 * SOON, || {
        ensure!(plug.told()[before..] == [false, true], "{:?}", plug.told());
        Ok(())
    })?;
    cluster.end("node1")?;
    cluster.start_again("node1")?;
    let drilled = drilling.join().map_err(|_| anyhow::anyhow!("the drill panicked"))??;
    let [said, words] = [drilled.stdout, drilled.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(drilled.status.success(), "{}: {words}", drilled.status);
    ensure!(said.contains("node1/plug is the device of node1: off (supply-cut)"), "{said}");
    ensure!(words.contains("its lease has ended, and plug still reads off"), "{words}");
    let back = operator.until("the proof by the drill", SOON, |status| {
        status.of("node1").is_some_and(|node| node.devices.iter().any(|device| device.proven))
    })?;
    ensure!(back.of("node1").and_then(|node| node.boot.clone()) != boot, "it booted anew");

    // It is kept, and counts after a restart.
    cluster.appliance.stop();
    cluster.appliance.start()?;
    let listed = cluster.appliance.command(&["device", "list", "--json"])?.done()?;
    ensure!(listed.contains("\"grade\":\"supply-cut\"") && listed.contains("\"boot_ms\":"), "{listed}");
    until_proven(&operator)?;
    let audit = cluster.appliance.command(&["audit", "list", "--last", "1000", "--json"])?.done()?;
    ensure!(audit.contains("\"passed\":false") && audit.contains("\"passed\":true"), "{audit}");
    Ok(())
}

#[test]
fn when_one_supply_can_not_be_cut_the_next_level_follows_and_all_of_it_is_told() -> Result<()> {
    const MACS: [&str; 3] = ["A8032ABE54D1", "A8032ABE54D2", "A8032ABE54D3"];
    let [first, second, spare] = [Plug::with_mac(MACS[0])?, Plug::with_mac(MACS[1])?, Plug::with_mac(MACS[2])?];
    let mut cluster = Cluster::appliance()?;
    cluster.appliance.stop();
    let mut devices = "\n[clusters.home]\nprofile = \"patient\"\n".to_owned();
    for (name, level, plug, mac) in
        [("psu-b", 1, &second, MACS[1]), ("psu-a", 1, &first, MACS[0]), ("a-strip", 2, &spare, MACS[2])]
    {
        devices += &format!(
            "[[clusters.home.devices]]\nnode = \"node1\"\nname = \"{name}\"\nlevel = {level}\nkind = \"shelly\"\naddress = \"{}\"\n\
             mac = \"{mac}\"\nno_password = true\ndrilled = true\n",
            plug.address()
        );
    }
    cluster.appliance.configure(&devices)?;
    cluster.appliance.start()?;
    for node in ["node1", "node2"] {
        cluster.add(node)?;
    }
    cluster.all_online()?;
    let operator = cluster.operator();
    let proven = |status: &Status| {
        let node = status.of("node1");
        let plan =
            node.map(|node| node.devices.iter().map(|level| (&level.name[..], level.proven)).collect::<Vec<_>>());
        plan.is_some_and(|plan| plan == [("psu-a+psu-b", true), ("a-strip", true)])
    };
    operator.until("the proof of both levels, in their order", SOON, proven)?;
    let listed = cluster.appliance.command(&["device", "list", "node1"])?.done()?;
    ensure!(listed.contains("level 1, all of psu-a+psu-b") && listed.contains("given up after 29.0 s"), "{listed}");
    let part = ["device", "drill", "node1/psu-a", "--confirm", "node1"];
    let part = cluster.appliance.command(&part)?.refused()?;
    ensure!(part.contains("name node1/psu-a+psu-b"), "{part}");

    // One of the two supplies can't be cut.
    drop(second);
    cut(&cluster, "node1")?;
    // On a busy machine the cluster itself may want it first: then this says so.
    let asked = cluster.operate(&["fence", "node1", "--yes"])?;
    let fenced = operator.until_decided("the fence", SOON, |line| matches!(&line.decision, Decision::Fenced { .. }))?;
    let measured = Evidence::SupplyCut { device: "a-strip".into() };
    ensure!(
        matches!(&fenced.decision, Decision::Fenced { evidence, .. } if *evidence == measured),
        "{fenced:?} {asked:?}"
    );
    ensure!(first.told().first() == Some(&false) && spare.told().first() == Some(&false), "all were told");
    let log = cluster.operate(&["log"])?.done()?;
    ensure!(log.contains("psu-b: shelly"), "{log}");
    let audit = cluster.appliance.command(&["audit", "list", "--last", "1000", "--json"])?.done()?;
    for (device, result) in [("psu-a", "taken"), ("psu-b", "unanswered"), ("a-strip", "taken")] {
        let attempt = format!("\"device\":\"{device}\",\"command\":\"off\",\"result\":\"{result}\"");
        ensure!(audit.contains(&attempt), "no {attempt} in {audit}");
    }
    Ok(())
}
