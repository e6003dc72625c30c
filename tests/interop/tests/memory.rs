//! What an appliance keeps of a BMC's password once it has fenced through it. Needs root, because the daemon keeps its memory
//! private, and the Debian package openipmi; without them these tests fail.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{
    Cluster, Look, SOON, Traces,
    ipmi_sim::{IpmiSim, OPERATOR},
    process::found_in_memory,
    require_root, until,
};

/// No word that the memory of a process holds by chance.
const PASSWORD: &str = "quay-lantern-47x";

/// One node's password is in the encrypted file, the other's in a file of its own: they take different ways.
#[test]
fn after_a_fence_neither_memory_nor_a_log_of_the_appliance_holds_the_password() -> Result<()> {
    require_root("reading a daemon's memory")?;
    let traces = Traces::of(PASSWORD);
    let (sealed, plain) = (IpmiSim::start_with(PASSWORD)?, IpmiSim::start_with(PASSWORD)?);
    let mut cluster = Cluster::appliance()?;
    cluster.appliance.stop();
    let file = cluster.appliance.data().join("bmc.password");
    fs::write(&file, format!("{PASSWORD}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    // Times so long that the BMC is the first evidence.
    cluster.appliance.configure(&format!(
        "[clusters.home]\nprofile = \"patient\"\n[[clusters.home.devices]]\nnode = \"node2\"\nname = \"bmc\"\nkind = \"ipmi\"\n\
         address = \"{}\"\nuser = \"{OPERATOR}\"\nsuite = 3\npassword_file = \"bmc.password\"\ndrilled = true\n",
        plain.address()
    ))?;
    cluster.appliance.start()?;
    cluster.add("node1")?;
    cluster.add("node2")?;
    cluster.all_online()?;
    let address = sealed.address().to_string();
    let add = ["device", "add", "node1", "ipmi", &address, "--user", OPERATOR, "--drilled", "--password-file"];
    let added = cluster.appliance.command(&[&add[..], &[file.to_str().context("text")?]].concat())?.done()?;
    ensure!(added.contains("kept"), "{added}");
    cluster.operator().until("proof of both devices", SOON, |status| {
        let proven = |name| status.of(name).is_some_and(|node| node.devices.iter().any(|device| device.proven));
        proven("node1") && proven("node2")
    })?;

    let pid = cluster.appliance.pid().context("the appliance runs")?;
    let left = || -> Result<_> { Ok(traces.told(&found_in_memory(pid, &traces.texts())?)) };
    // The search finds each form where it is: in this process; and the password where it has to be: in a BMC, and in the
    // appliance for as long as it waits for one.
    let here = found_in_memory(std::process::id(), &traces.texts())?;
    ensure!(here.iter().all(|count| *count > 0), "this process holds all forms: {:?}", traces.told(&here));
    let bmc = found_in_memory(sealed.pid(), &traces.texts())?;
    ensure!(bmc[0] > 0, "a BMC holds its password");
    for (node, sim) in [("node1", &sealed), ("node2", &plain)] {
        sim.set_still(true)?;
        let mut asked = cluster.appliance.to_run(&["device", "status", node])?;
        let mut asked = asked.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let meanwhile = until("the password in memory while its BMC is asked", SOON, || {
            let left = left()?;
            ensure!(!left.is_empty(), "it is not there");
            Ok(left)
        });
        sim.set_still(false)?;
        asked.wait()?;
        println!("while {node}'s BMC is asked: {:?}", meanwhile?);
        until("answer of the BMC", SOON, || cluster.appliance.command(&["device", "status", node])?.done())?;
    }

    for (node, sim) in [("node1", &sealed), ("node2", &plain)] {
        cluster.end(node)?;
        let off = cluster.appliance.command(&["device", "off", node, "--confirm", node, "--json"])?.done()?;
        ensure!(off.contains("bmc-off") || off.contains("closed"), "{off}");
        ensure!(sim.node().is_none(), "the machine of {node} runs");
        let left = left()?;
        ensure!(left.is_empty(), "after the fence of {node} the memory of the appliance holds its password: {left:?}");
        // Without a majority nobody is fenced.
        if node == "node1" {
            cluster.start_again(node)?;
            cluster.all_online()?;
        }
    }
    let audit = cluster.appliance.command(&["audit", "list", "--last", "1000", "--json"])?.done()?;
    ensure!(audit.matches("\"grade\":\"bmc-off\"").count() >= 2, "{audit}");
    ensure!(traces.in_files(cluster.folder())? == [file.clone()], "{:?}", traces.in_files(cluster.folder())?);
    Ok(())
}
