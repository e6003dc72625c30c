//! Whole machines instead of processes: a node in a virtual machine with a watchdog and a BMC of hardware, as QEMU models them,
//! and the appliance's image in one. What a namespace can't show: a reset by a watchdog that nobody asked, a power-off that
//! takes a machine's processors away, and a machine that hangs while its BMC says that it obeys.
//!
//! `tests/hardware/run` starts them, and fetches what they boot. They need root, and the Debian packages qemu-system-x86,
//! qemu-system-arm, openipmi, iproute2, util-linux, e2fsprogs, binutils and mtools; without any of it they fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tiebreaker_interop::{
    Appliance, Look, Machine, Network, Node, Operator, Program, Run, VirtualMachine, Workload,
    ipmi_sim::{MachineBmc, OPERATOR, PASSWORD},
    until,
};
use tiebreaker_pipeline::{
    decision::{Decision, LogLine},
    fence::Evidence,
};

/// Anything that has to come has come by then: emulated processors are slow, and share those of a busy machine.
const SOON: Duration = Duration::from_secs(240);
/// The driver's name of the watchdog in a node's machine.
const WATCHDOG: &str = "i6300ESB timer";
/// The port of the switch's loopback at which the BMC is the machine's hardware.
const HARDWARE: u16 = 9702;
/// A lease of the profile `balanced`, and the time that its watchdog promises.
const LEASE: Duration = Duration::from_secs(5);
const PROMISED_MS: u64 = 10_000;
/// The test's machine has few cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The variable that names the folder of our programs where they were built before; else they are built now.
const PROGRAMS_VARIABLE: &str = "TIEBREAKER_PROGRAMS";

/// Nobody else's turn, and the programs that were built before.
fn turn() -> Result<MutexGuard<'static, ()>> {
    if let Some(folder) = std::env::var_os(PROGRAMS_VARIABLE) {
        Program::use_built(Path::new(&folder))?;
    }
    Ok(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What makes certain that the node in the virtual machine is off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certainty {
    /// Its watchdog, which an operator accepts by name: a virtual machine could be paused.
    Watchdog,
    /// Its BMC alone.
    Bmc,
}

/// An appliance, `node1` in namespaces, `node2` in a virtual machine, and the service, which begins there. Fields fall in this
/// order: the BMC before the machine that it would switch on again, namespaces last.
struct Cluster {
    _bmc: Option<MachineBmc>,
    machine: VirtualMachine,
    appliance: Appliance,
    _node1: Machine,
    nodes: [Node; 2],
    service: Workload,
    network: Network,
    _folder: TempDir,
}

impl Cluster {
    fn start(certainty: Certainty) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-vm").tempdir()?;
        let network = Network::new(&["pi", "node1", "node2"])?;
        let management = SocketAddr::from((network.address_switch()?, 6230));
        let shared = folder.path().join("shared");
        let service = Workload::new(&shared)?;
        let mut appliance = Appliance::init(&folder.path().join("pi"), network.address("pi")?, network.on("pi"))?;
        if certainty == Certainty::Bmc {
            let secret = appliance.data().join("bmc.password");
            fs::write(&secret, PASSWORD)?;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
            appliance.configure(&format!(
                "\n[[clusters.home.devices]]\nnode = \"node2\"\nname = \"bmc\"\nkind = \"ipmi\"\naddress = \"{management}\"\n\
                 user = \"{OPERATOR}\"\nsuite = 3\npassword_file = \"bmc.password\"\ndrilled = true\n"
            ))?;
        }
        appliance.start()?;
        let nodes = [Node::new(folder.path(), "node1")?, Node::new(folder.path(), "node2")?];
        let (place, token) = (network.on("node1"), appliance.token("home")?);
        nodes[0].must_join(&place, appliance.address(), &token, network.address("node1")?)?;
        let node1 = Machine::new(&nodes[0], &place)?;
        node1.on()?;
        let mut options = vec!["--watchdog", "/dev/watchdog0"];
        if certainty == Certainty::Watchdog {
            options.extend(["--accept", WATCHDOG]);
        }
        let (place, token) = (network.on("node2"), appliance.token("home")?);
        nodes[1].join(&place, appliance.address(), &token, network.address("node2")?, &options)?.done()?;
        let mut machine = VirtualMachine::node(&nodes[1], &network, &shared)?;
        let mut bmc = None;
        match certainty {
            Certainty::Watchdog => machine.on()?,
            Certainty::Bmc => {
                machine = machine.with_bmc(HARDWARE);
                bmc = Some(MachineBmc::of(&machine, HARDWARE, management, &network.on_switch())?);
            }
        }
        let cluster = Self { _bmc: bmc, machine, appliance, _node1: node1, nodes, service, network, _folder: folder };
        let by_watchdog = cluster.machine.until_booted(1, SOON)?;
        ensure!(!by_watchdog, "no watchdog caused the first boot");
        let operator = cluster.operator();
        let bmcs = usize::from(certainty == Certainty::Bmc);
        let online = operator.until("two nodes with votes, and a proven BMC where there is one", SOON, |status| {
            let proven = status.of("node2").map(|node| node.devices.iter().filter(|device| device.proven).count());
            status.online() == 2 && status.votes == (3, 3) && proven == Some(bmcs)
        });
        online.with_context(|| cluster.machine.end_of_console())?;
        operator.add_on("service", cluster.service.spec(), "node2")?;
        let running = operator.until("the service on node2, its watchdog armed", SOON, |status| {
            let armed = status.of("node2").is_some_and(|node| node.armed == Some(true));
            armed && status.runs_on("service").as_deref() == Some("node2")
        });
        running.with_context(|| cluster.machine.end_of_console())?;
        Ok(cluster)
    }

    fn operator(&self) -> Operator {
        self.appliance.operator()
    }

    /// The boot of the virtual machine that the cluster has admitted.
    fn boot(&self) -> Result<String> {
        self.operator().status()?.of("node2").and_then(|node| node.boot.clone()).context("node2 has a boot")
    }

    /// The fence of `node2`, as it was proven.
    fn fenced(&self) -> Result<(LogLine, Evidence)> {
        let line = self.operator().until_decided("proof that node2 is fenced", SOON, fences_node2)?;
        let Decision::Fenced { evidence, .. } = line.decision.clone() else { unreachable!() };
        Ok((line, evidence))
    }

    /// The service's second run, on the survivor, after the proof.
    fn recovered(&self, proof: &LogLine) -> Result<Run> {
        let run = self.service.until_on(self.nodes[0].folder(), SOON)?;
        self.service.lives(&run)?;
        let lines = self.operator().log()?;
        let assigned = lines.iter().find(|line| {
            matches!(&line.decision, Decision::Assigned { recovered_from: Some(from), .. } if from.as_str() == "node2")
        });
        let assigned = assigned.context("the recovery is in the timeline")?;
        ensure!(assigned.index > proof.index, "the proof comes before the start");
        Ok(run)
    }

    /// Waits until the virtual machine is in service again, by another boot, and the service has stayed where it is.
    fn back(&self, before: &str, run: &Run) -> Result<()> {
        let back = self.operator().until("node2's new boot in service", SOON, |status| {
            let other = status.of("node2").is_some_and(|node| node.boot.as_deref().is_some_and(|boot| boot != before));
            status.online() == 2 && status.fences.is_empty() && other
        });
        back.with_context(|| self.machine.end_of_console())?;
        ensure!(self.service.latest()? == *run, "no failback by itself");
        self.service.lives(run)?;
        ensure!(self.service.runs()?.len() == 2, "one start, one recovery: {:#?}", self.service.runs()?);
        Ok(())
    }
}

fn fences_node2(line: &LogLine) -> bool {
    matches!(&line.decision, Decision::Fenced { node, .. } if node.as_str() == "node2")
}

#[test]
#[ignore = "boots virtual machines: tests/hardware/run does"]
fn a_node_that_loses_its_quorum_and_can_not_stop_is_reset_by_its_watchdog() -> Result<()> {
    let _turn = turn()?;
    let cluster = Cluster::start(Certainty::Watchdog)?;
    let (before, boot) = (cluster.service.latest()?, cluster.boot()?);
    // A node that can stop what it runs does so, and disarms its watchdog.
    cluster.service.set_clinging(true)?;
    cluster.network.unplug("node2")?;
    let cut = Instant::now();
    // The folder that machines share is no network: what runs on after the cut is seen.
    let (mut signs, mut last) = (cluster.service.signs_of_life(&before)?, Duration::ZERO);
    let seen = until("second boot of the machine", SOON, || {
        let now = cluster.service.signs_of_life(&before)?;
        if now > signs {
            (signs, last) = (now, cut.elapsed());
        }
        ensure!(cluster.machine.boots() > 1, "it has booted once");
        Ok(())
    });
    seen.with_context(|| cluster.machine.end_of_console())?;
    ensure!(cluster.machine.until_booted(2, SOON)?, "the watchdog's driver doesn't say that it has reset the machine");
    let console = cluster.machine.console();
    ensure!(!console.contains("Kernel panic") && !console.contains("sysrq"), "it was reset in another way:\n{console}");
    ensure!(last > LEASE, "the service ran for {last:?} after the cut, so something stopped it at its lease's end");

    let (proof, evidence) = cluster.fenced()?;
    let Evidence::WatchdogTime { waited_ms } = evidence else { panic!("the watchdog's time proves it: {evidence:?}") };
    ensure!(
        waited_ms > PROMISED_MS,
        "{waited_ms} ms are less than the watchdog's promise and what clocks may differ by"
    );
    let run = cluster.recovered(&proof)?;
    eprintln!("the service's last sign of life came {last:?} after the cut; proven after {waited_ms} ms without lease");
    cluster.service.set_clinging(false)?;
    cluster.network.plug("node2")?;
    cluster.back(&boot, &run)?;
    ensure!(cluster.machine.boots() == 2, "one reset was enough: {} boots", cluster.machine.boots());
    Ok(())
}

#[test]
#[ignore = "boots virtual machines: tests/hardware/run does"]
fn a_lost_node_is_powered_off_through_its_bmc_and_switched_on_again() -> Result<()> {
    let _turn = turn()?;
    let cluster = Cluster::start(Certainty::Bmc)?;
    let boot = cluster.boot()?;
    let process = cluster.machine.pid().context("the machine's process")?;
    cluster.network.unplug("node2")?;
    let cut = Instant::now();
    let (proof, evidence) = cluster.fenced()?;
    ensure!(evidence == Evidence::BmcOff { device: "bmc".into() }, "the BMC proves it: {evidence:?}");
    ensure!(cluster.machine.pid() != Some(process), "the BMC reads off, and the machine's process is there");
    let run = cluster.recovered(&proof)?;
    eprintln!("proven and recovered {:?} after the cut", cut.elapsed());
    cluster.network.plug("node2")?;
    let by_watchdog = cluster.machine.until_booted(2, SOON)?;
    ensure!(!by_watchdog, "its power was cut before its watchdog was late");
    let again = cluster.machine.pid().context("the machine is on again")?;
    ensure!(again != process, "it is the process of before");
    cluster.back(&boot, &run)
}

#[test]
#[ignore = "boots virtual machines: tests/hardware/run does"]
fn a_frozen_machine_whose_bmc_takes_the_command_is_not_taken_for_off_before_it_is() -> Result<()> {
    let _turn = turn()?;
    let cluster = Cluster::start(Certainty::Bmc)?;
    let (before, boot) = (cluster.service.latest()?, cluster.boot()?);
    let process = cluster.machine.pid().context("the machine's process")?;
    cluster.machine.set_still(true)?;
    // Nothing is taken for proven while its process is there.
    let mut wanted = None;
    until("end of the frozen machine", SOON, || {
        // The process is looked at last: what was decided before is older than it.
        let lines = cluster.operator().log()?;
        let latest = cluster.service.latest()?;
        let gone = cluster.machine.pid() != Some(process);
        if wanted.is_none() && lines.iter().any(|line| matches!(line.decision, Decision::FenceWanted { .. })) {
            wanted = Some(Instant::now());
        }
        if !gone {
            assert!(!lines.iter().any(fences_node2), "the frozen machine was taken for off");
            assert_eq!(latest, before, "the service was started while the frozen machine was there");
        }
        ensure!(gone, "it is there");
        Ok(())
    })?;
    let window = wanted.context("the fence was wanted before")?.elapsed();
    let (proof, evidence) = cluster.fenced()?;
    ensure!(evidence == Evidence::BmcOff { device: "bmc".into() }, "the BMC proves it: {evidence:?}");
    let run = cluster.recovered(&proof)?;
    taken_on_off(&cluster.appliance)?;
    eprintln!("the frozen machine was there for {window:?} after its fence was wanted");
    cluster.back(&boot, &run)
}

/// In the audit log: the BMC took the command, read on after that, and off before the fence was proven.
fn taken_on_off(appliance: &Appliance) -> Result<()> {
    // It is written beside what it tells of.
    until("the fence in the audit log", SOON, || {
        let text = appliance.audit()?;
        let mut wanted = ["off taken", "look on", "look off", "evidence"].into_iter().peekable();
        for line in text.lines() {
            let (_hash, document) = line.split_once(' ').context("a line is a hash and a document")?;
            let event: Value = serde_json::from_str(document)?;
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let answer = word("event") == "answer";
            let said = if answer { format!("{} {}", word("command"), word("result")) } else { word("event") };
            wanted.next_if(|next| *next == said);
        }
        ensure!(wanted.peek().is_none(), "no {:?} in its order:\n{text}", wanted.peek());
        Ok(())
    })
}

/// The image's settings: its address at the switch, and two tokens.
const SETTINGS: &str = r#"name = "tiebreaker"
addresses = ["10.77.0.1:8405"]
[network]
addresses = ["10.77.0.1/24"]
[time]
servers = []
[setup]
cluster = "home"
tokens = ["node", "node"]
"#;

#[test]
#[ignore = "boots virtual machines: tests/hardware/run does"]
fn the_image_votes_and_a_nodes_death_is_survived_with_its_vote() -> Result<()> {
    let _turn = turn()?;
    let folder = tempfile::Builder::new().prefix("tiebreaker-image").tempdir()?;
    let network = Network::new(&["pi", "node1", "node2"])?;
    let mut image = VirtualMachine::appliance(folder.path(), &network, "pi", SETTINGS)?;
    image.on()?;
    image.until_said("READY", 1, SOON)?;
    let tokens = image.until_said("token for one node of home: ", 2, SOON)?;
    let service = Workload::new(&folder.path().join("shared"))?;
    let mut machines = Vec::new();
    for (name, token) in ["node1", "node2"].into_iter().zip(&tokens) {
        let node = Node::new(folder.path(), name)?;
        let place = network.on(name);
        node.must_join(&place, network.address("pi")?, token, network.address(name)?)?;
        let machine = Machine::new(&node, &place)?;
        machine.on()?;
        machines.push((node, machine));
    }
    let operator = machines[0].0.operator();
    let formed =
        operator.until("two nodes and three votes", SOON, |status| status.online() == 2 && status.votes == (3, 3));
    formed.with_context(|| image.end_of_console())?;
    operator.add("service", service.spec())?;
    let status = operator.until("the service running", SOON, |status| status.runs_on("service").is_some())?;
    let home = status.runs_on("service").context("it runs")?;
    let boot = status.of(&home).and_then(|node| node.boot.clone());
    let at = machines.iter().position(|(node, _)| node.name() == home).context("it runs on a node")?;
    let (lost, survivor) = (&machines[at], &machines[1 - at]);
    let before = service.latest()?;
    ensure!(before.machine == lost.0.folder(), "{before:?}");

    lost.1.off()?;
    let cut = Instant::now();
    let operator = survivor.0.operator();
    let proof = operator.until_decided(
        "proof that the dead node is fenced",
        SOON,
        |line| matches!(&line.decision, Decision::Fenced { node, .. } if node.as_str() == home),
    )?;
    let Decision::Fenced { evidence, .. } = &proof.decision else { unreachable!() };
    let Evidence::WatchdogTime { waited_ms } = evidence else { panic!("the watchdog's time proves it: {evidence:?}") };
    ensure!(*waited_ms > PROMISED_MS, "{waited_ms} ms");
    let run = service.until_on(survivor.0.folder(), SOON)?;
    eprintln!("recovered {:?} after the node's death", cut.elapsed());
    service.lives(&run)?;
    // Two of three: the survivor, and the image. Which of both leads, its emulated processor decides.
    operator.until("the service on the survivor, by its vote and the image's", SOON, |status| {
        status.runs_on("service").as_deref() == Some(survivor.0.name()) && status.votes == (2, 3)
    })?;

    lost.1.on()?;
    operator.until("the dead node's new boot in service", SOON, |status| {
        status.online() == 2 && status.fences.is_empty() && status.of(&home).is_some_and(|node| node.boot != boot)
    })?;
    // An emulated processor that is slow enough costs leases, and the service begins anew then, where it is: never elsewhere.
    let runs = service.runs()?;
    let after: Vec<&Run> = runs.iter().skip_while(|run| **run != before).skip(1).collect();
    let stayed = after.iter().all(|run| run.machine == survivor.0.folder());
    ensure!(stayed && !after.is_empty(), "no failback by itself: {runs:#?}\n{:#?}", operator.log()?);
    service.lives(&service.latest()?)?;
    ensure!(image.said("READY").len() == 1, "the image was never restarted:\n{}", image.end_of_console());
    Ok(())
}
