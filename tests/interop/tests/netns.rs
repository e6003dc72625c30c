//! Three members in network namespaces behind one switch, each node on a machine of its own with OpenIPMI's `ipmi_sim` as
//! its BMC. Links are cut silently, and the invariants are read off the real processes: the service writes a ledger in
//! which a double run shows, nodes count the leases that they lose, the timeline tells every fence.
//!
//! Needs root, and the Debian packages iproute2, util-linux and openipmi; without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tiebreaker_interop::{
    Appliance, Look, Machine, Network, Node, Operator, Run, Workload,
    ipmi_sim::{MachineBmc, OPERATOR, PASSWORD},
    until,
};
use tiebreaker_pipeline::{decision::Decision, fence::Evidence};

const NODES: [&str; 2] = ["node1", "node2"];
/// Anything that has to come has come by then, also in a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(120);
/// Longer than a lease (5 s), and than it takes to call a node lost and to fence it.
const HOLD: Duration = Duration::from_secs(6);
/// The test's machine has few cores, and recoveries are timed by leases.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An appliance, two nodes, and the service under protection. Fields fall in this order: BMCs before the machines that
/// they would switch on again, namespaces last.
struct Cluster {
    bmcs: Vec<MachineBmc>,
    appliance: Appliance,
    machines: Vec<Machine>,
    nodes: Vec<Node>,
    service: Workload,
    network: Network,
    _folder: TempDir,
}

/// What must stay as it is while a link is cut.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Calm {
    run: Run,
    node: String,
    fences: usize,
    leases_lost: Vec<(String, Option<u64>)>,
}

impl Cluster {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tiebreaker-netns").tempdir()?;
        let network = Network::new(&["pi", "node1", "node2"])?;
        let service = Workload::new(&folder.path().join("shared"))?;
        let mut appliance = Appliance::init(&folder.path().join("pi"), network.address("pi")?, network.on("pi"))?;
        let secret = appliance.data().join("bmc.password");
        fs::write(&secret, PASSWORD)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut config = "\n[clusters.home]\ntakeback_s = 2\n".to_owned();
        for (number, node) in NODES.iter().enumerate() {
            config.push_str(&format!(
                "[[clusters.home.devices]]\nnode = \"{node}\"\nname = \"bmc\"\nkind = \"ipmi\"\naddress = \"{}\"\n\
                 user = \"{OPERATOR}\"\nsuite = 3\npassword_file = \"bmc.password\"\ndrilled = true\n",
                bmc_address(number)
            ));
        }
        appliance.configure(&config)?;
        appliance.start()?;
        let mut cluster = Self {
            bmcs: Vec::new(),
            appliance,
            machines: Vec::new(),
            nodes: Vec::new(),
            service,
            network,
            _folder: folder,
        };
        for (number, name) in NODES.iter().enumerate() {
            let node = Node::new(cluster._folder.path(), name)?;
            let place = cluster.network.on(name);
            let token = cluster.appliance.token("home")?;
            node.must_join(&place, cluster.appliance.address(), &token, cluster.network.address(name)?)?;
            let machine = Machine::new(&node, &place)?;
            cluster.bmcs.push(MachineBmc::start(&machine, bmc_address(number), &cluster.network.on("pi"))?);
            machine.on()?;
            cluster.machines.push(machine);
            cluster.nodes.push(node);
        }
        let operator = cluster.appliance.operator();
        operator.until("two nodes with proven BMCs and votes", SOON, |status| {
            let proven = |name| status.of(name).is_some_and(|node| node.devices.iter().any(|device| device.proven));
            status.online() == 2 && status.votes == (3, 3) && NODES.into_iter().all(proven)
        })?;
        operator.add("service", cluster.service.spec())?;
        operator.until("the service running", SOON, |status| status.runs_on("service").is_some())?;
        Ok(cluster)
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name() == name).unwrap()
    }

    /// Reads the invariants off the processes, as whoever leads at `operator`'s member sees them.
    fn calm(&self, operator: &Operator) -> Result<Calm> {
        let status = operator.status()?;
        let leases_lost = NODES.map(|name| (name.to_owned(), status.of(name).and_then(|node| node.leases_lost)));
        let fences =
            operator.log()?.iter().filter(|line| matches!(line.decision, Decision::FenceWanted { .. })).count();
        Ok(Calm {
            run: self.service.latest()?,
            node: status.runs_on("service").context("the service is not seen running")?,
            fences,
            leases_lost: leases_lost.to_vec(),
        })
    }

    /// Waits until everybody is in service again, with nothing moved since `before`.
    fn settled(&self, before: &Calm) -> Result<()> {
        let operator = self.appliance.operator();
        operator.until("all in service", SOON, |status| {
            status.online() == 2 && status.leader.as_ref().is_some_and(|leader| leader.as_str() == "pi")
        })?;
        let after = until("calm", SOON, || self.calm(&operator))?;
        ensure!(after == *before, "before {before:#?}, after {after:#?}");
        self.service.lives(&after.run)
    }

    /// Holds a cut and sees that nothing happens: nobody is fenced, nobody loses a lease, nothing moves.
    fn nothing_happens(&self, cut: &str, before: &Calm) -> Result<()> {
        let operator = self.appliance.operator();
        let end = Instant::now() + HOLD;
        while Instant::now() < end {
            let lines = operator.log()?;
            let fenced = lines.iter().find(|line| matches!(line.decision, Decision::FenceWanted { .. }));
            ensure!(fenced.is_none(), "{cut}: {}", fenced.unwrap().decision);
            ensure!(self.service.latest()? == before.run, "{cut}: the service was started anew");
            thread::sleep(Duration::from_millis(100));
        }
        self.network.heal_all()?;
        self.settled(before).with_context(|| cut.to_owned())
    }
}

fn bmc_address(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 6230 + u16::try_from(number).unwrap()))
}

/// The node that does not run the service.
fn other(node: &str) -> &'static str {
    NODES.into_iter().find(|other| *other != node).unwrap()
}

#[test]
fn no_cut_of_one_link_costs_a_lease_a_fence_or_a_move() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start()?;
    let before = cluster.calm(&cluster.appliance.operator())?;
    assert_eq!(before.leases_lost, NODES.map(|name| (name.to_owned(), Some(0))));
    for (a, b) in [("node1", "node2"), ("pi", "node1"), ("pi", "node2")] {
        assert!(cluster.network.connects(a, b)?, "the link is whole");
        cluster.network.cut(a, b)?;
        assert!(!cluster.network.connects(a, b)? && !cluster.network.connects(b, a)?, "the cut cuts");
        cluster.nothing_happens(&format!("{a} and {b} cut off from each other"), &before)?;
        assert!(cluster.network.connects(a, b)?, "healed");
    }
    for from in ["pi", "node1", "node2"] {
        for to in ["pi", "node1", "node2"].into_iter().filter(|to| *to != from) {
            cluster.network.cut_one_way(from, to)?;
            assert!(!cluster.network.connects(from, to)?, "the cut cuts");
            cluster.nothing_happens(&format!("nothing from {from} reaches {to}"), &before)?;
        }
    }
    Ok(())
}

#[test]
fn an_isolated_node_is_fenced_its_service_recovered_and_it_comes_back_without_failback() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start()?;
    let operator = cluster.appliance.operator();
    let before = cluster.calm(&operator)?;
    let (lost, survivor) = (before.node.as_str(), other(&before.node));
    assert_eq!(before.run.machine, cluster.node(lost).folder());
    let boot = operator.status()?.of(lost).and_then(|node| node.boot.clone());
    for peer in ["pi", survivor] {
        cluster.network.cut(lost, peer)?;
    }

    let fenced = operator.until_decided(
        "fence that is carried out",
        SOON,
        |line| matches!(&line.decision, Decision::Fenced { node, .. } if node.as_str() == lost),
    )?;
    let Decision::Fenced { evidence, .. } = &fenced.decision else { unreachable!() };
    assert_eq!(evidence, &Evidence::BmcOff { device: "bmc".into() });
    let run = cluster.service.until_on(cluster.node(survivor).folder(), SOON)?;
    cluster.service.lives(&run)?;
    operator
        .until("the service on the survivor", SOON, |status| status.runs_on("service").as_deref() == Some(survivor))?;
    let lines = operator.log()?;
    let at =
        |wanted: &dyn Fn(&Decision) -> bool| lines.iter().find(|line| wanted(&line.decision)).map(|line| line.index);
    let assigned = at(
        &|decision| matches!(decision, Decision::Assigned { recovered_from: Some(from), .. } if from.as_str() == lost),
    );
    assert!(assigned.context("the recovery is in the timeline")? > fenced.index, "proof comes before the start");

    cluster.network.heal_all()?;
    operator.until("the fenced node's new boot in service", SOON, |status| {
        status.online() == 2 && status.fences.is_empty() && status.of(lost).is_some_and(|node| node.boot != boot)
    })?;
    let end = Instant::now() + HOLD;
    while Instant::now() < end {
        assert_eq!(cluster.service.latest()?, run, "no failback by itself");
        thread::sleep(Duration::from_millis(100));
    }
    cluster.service.lives(&run)?;
    let after = cluster.calm(&operator)?;
    assert_eq!((after.node.as_str(), after.fences), (survivor, 1));
    assert_eq!(cluster.service.runs()?.len(), 2, "one start, one recovery");
    let kept = after.leases_lost.iter().find(|(name, _)| name == survivor);
    assert_eq!(kept.context("the survivor is known")?.1, Some(0), "the survivor kept its lease");
    Ok(())
}

#[test]
fn without_the_appliance_a_node_leads_nothing_is_lost_and_the_appliance_takes_the_lead_back() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = Cluster::start()?;
    let before = cluster.calm(&cluster.appliance.operator())?;
    for _ in 0..2 {
        cluster.appliance.kill()?;
        let operator = cluster.node("node1").operator();
        operator.until("node that leads", SOON, |status| {
            status.leader.as_ref().is_some_and(|leader| NODES.contains(&leader.as_str())) && status.online() == 2
        })?;
        let end = Instant::now() + HOLD;
        while Instant::now() < end {
            assert_eq!(cluster.service.latest()?, before.run, "the service runs on");
            thread::sleep(Duration::from_millis(100));
        }
        let during = until("calm without the appliance", SOON, || cluster.calm(&operator))?;
        assert_eq!(during, before);
        cluster.appliance.start()?;
        cluster.settled(&before)?;
    }
    Ok(())
}
