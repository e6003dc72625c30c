//! Two machines with Debian's Pacemaker, Corosync and QDevice client, `fence_tiebreaker` as their only fence device, `ipmi_sim`
//! before each, and our appliance: the link between them is cut, again and again.
//!
//! `TIEBREAKER_PACEMAKER_RUNS` says how often (2). Needs root, and the Debian packages pacemaker, pacemaker-cli-utils, corosync,
//! corosync-qdevice, libnss3-tools, resource-agents, openipmi, iproute2 and util-linux; without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Result, ensure};
use tiebreaker_interop::{Fenced, FencedMachine, until};

/// Corosync takes 7 s to see a cut, Pacemaker 60 s to try an agent again that was killed, and this machine may be busy.
const PATIENCE: Duration = Duration::from_secs(240);

/// One fence device for the whole cluster without any delay, and something to protect that would rather be on node2, which loses
/// each split: of two equal halves the stock algorithm prefers the lower node.
const RESOURCES: &str = r#"<resources>
  <primitive id="fencing" class="stonith" type="fence_tiebreaker">
    <instance_attributes id="fencing-attributes">
      <nvpair id="fencing-identity" name="identity" value="/mnt/fence/identity"/>
    </instance_attributes>
    <operations><op id="fencing-monitor" name="monitor" interval="60s"/></operations>
  </primitive>
  <primitive id="web" class="ocf" provider="heartbeat" type="Dummy">
    <operations><op id="web-monitor" name="monitor" interval="10s"/></operations>
  </primitive>
</resources>"#;
const CONSTRAINTS: &str =
    r#"<constraints><rsc_location id="web-prefers" rsc="web" node="node2" score="50"/></constraints>"#;

struct Pair(Fenced);

impl Pair {
    /// Both machines online in Pacemaker, with the fence device and the resource.
    fn new() -> Result<Self> {
        let cluster = Fenced::new(true)?;
        cluster.form()?;
        let pair = Self(cluster);
        pair.online()?;
        let [one, _] = pair.nodes();
        one.run(&["crm_attribute", "--name", "stonith-enabled", "--update", "true"])?.done()?;
        for (section, xml) in [("resources", RESOURCES), ("constraints", CONSTRAINTS)] {
            one.run(&["cibadmin", "--replace", "--scope", section, "--xml-text", xml])?.done()?;
        }
        pair.runs_on("node2")?;
        Ok(pair)
    }

    fn nodes(&self) -> [&FencedMachine; 2] {
        let [one, two] = &self.0.nodes[..] else { unreachable!("two were made") };
        [one, two]
    }

    /// Waits for what node1's Pacemaker knows of the cluster.
    fn until(&self, what: &str, has: impl Fn(&str) -> bool) -> Result<()> {
        let seen = until(what, PATIENCE, || {
            let status = self.nodes()[0].run(&["crm_mon", "--one-shot", "--output-as", "xml"])?.done()?;
            ensure!(has(&status), "{status}");
            Ok(())
        });
        seen.map_err(|error| error.context(self.0.logs()))
    }

    fn online(&self) -> Result<()> {
        self.until("both nodes online in Pacemaker", |status| {
            ["node1", "node2"].iter().all(|node| {
                let line =
                    status.lines().find(|line| line.contains("<node ") && line.contains(&format!("name=\"{node}\"")));
                line.is_some_and(|line| line.contains("online=\"true\"") && line.contains("unclean=\"false\""))
            })
        })
    }

    fn runs_on(&self, node: &str) -> Result<()> {
        self.until(&format!("web on {node}"), |status| {
            let web = status.split("<resource id=\"web\"").nth(1).and_then(|rest| rest.split("</resource>").next());
            web.is_some_and(|web| web.contains("role=\"Started\"") && web.contains(&format!("name=\"{node}\"")))
        })
    }

    /// The link is cut, until node1 runs everything and node2, which has lost its power, has it again.
    fn split_and_recover(&self, meanwhile: impl Fn() -> Result<()>) -> Result<()> {
        let [one, two] = self.nodes();
        let before = two.machine.switched(true)?;
        self.0.split()?;
        meanwhile()?;
        self.runs_on("node1")?;
        ensure!(one.machine.switched(false)? == 0, "node1 has lost its power too:\n{}", self.0.logs());
        until("node2 with power again", PATIENCE, || {
            ensure!(two.machine.switched(true)? > before && two.machine.is_on()?, "it is off");
            Ok(())
        })?;
        self.0.network.heal_all()?;
        self.0.whole()?;
        self.online()?;
        self.runs_on("node2")
    }
}

#[test]
fn however_often_the_link_is_cut_exactly_one_node_is_fenced_and_the_other_goes_on() {
    let runs = std::env::var("TIEBREAKER_PACEMAKER_RUNS").map_or(2, |runs| runs.parse().unwrap());
    let pair = Pair::new().unwrap();
    for run in 1..=runs {
        let fenced = pair.nodes()[1].machine.switched(false).unwrap_or(0);
        pair.split_and_recover(|| Ok(())).unwrap_or_else(|error| panic!("run {run} of {runs}: {error:#}"));
        assert!(pair.nodes()[1].machine.switched(false).unwrap() > fenced, "run {run}: node2 was not fenced");
        println!("run {run} of {runs}: node2 was fenced, and node1 was not");
    }
}

#[test]
fn recovery_goes_on_after_the_agent_is_killed() {
    let pair = Pair::new().unwrap();
    let [one, two] = pair.nodes();
    // The BMC takes its time, so that the agent is killed while it waits.
    two.trouble("slow", Some("6")).unwrap();
    pair.split_and_recover(|| {
        until("an agent that was killed at its work", PATIENCE, || {
            let audit = pair.0.audit()?;
            ensure!(audit.contains(r#""node":"node2","by":"fence-client node1","granted":true"#), "{audit}");
            one.run(&["pkill", "-KILL", "-f", "fence_tiebreaker"])?.done().map(drop)
        })
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}
