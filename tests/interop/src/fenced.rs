//! A Corosync cluster of two whose nodes are fenced by our appliance: each is a machine of its own, a namespace that dies with its
//! power, with Debian's Corosync and QDevice client, and Pacemaker where it is wanted; and a BMC before each, `ipmi_sim`.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    Appliance, Certificate, CorosyncNode, Machine, Network, Program, Ran, VoteCluster,
    ipmi_sim::{MachineBmc, OPERATOR, PASSWORD},
    run, tool, until,
};

/// Corosync and Pacemaker come up by then, also on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(120);

/// The first process of a node. What the daemons write lies in the node's folder; `/usr/sbin` is as it was, with the agent beside.
const INIT: &str = r#"#!/bin/sh
dir=$1 host=$2 pacemaker=$3
hostname "$host"
bind() { mount --bind "$dir/$1" "$2" || exit 1; }
bind etc /etc/corosync
bind lib /var/lib/corosync
mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /mnt || exit 1
mkdir /mnt/fence /mnt/sbin
bind fence /mnt/fence
mount --bind /usr/sbin /mnt/sbin && bind sbin /usr/sbin || exit 1
if [ -n "$pacemaker" ]; then
    bind pacemaker /var/lib/pacemaker
    bind pacemaker-log /var/log/pacemaker
fi
corosync -f >>"$dir/corosync.log" 2>&1 &
until corosync-cfgtool -s >/dev/null 2>&1; do sleep 0.2; done
corosync-qdevice -f >>"$dir/qdevice.log" 2>&1 &
if [ -n "$pacemaker" ]; then
    PCMK_logfile=/var/log/pacemaker/pacemaker.log pacemakerd -f >>"$dir/pacemakerd.log" 2>&1 &
fi
# It collects whatever is left to the first process.
while :; do sleep 60 & wait $!; done
"#;

/// The folders of a node that its daemons see in the place of the system's.
const FOLDERS: [&str; 4] = ["fence", "sbin", "pacemaker", "pacemaker-log"];

/// The identity of a node's agent, as the node sees it.
const IDENTITY: &str = "/mnt/fence/identity";

/// One node with its BMC.
#[derive(Debug)]
pub struct FencedMachine {
    /// Its BMC ends before the machine behind it.
    _bmc: MachineBmc,
    /// Its power.
    pub machine: Machine,
    folder: PathBuf,
}

/// The cluster. Fields fall in this order: daemons before the namespaces in which they run.
#[derive(Debug)]
pub struct Fenced {
    /// The machines, `node1` and `node2`.
    pub nodes: Vec<FencedMachine>,
    /// The QDevice server, and who fences, `pi`.
    pub appliance: Appliance,
    /// What connects them.
    pub network: Network,
    folder: TempDir,
}

impl Fenced {
    /// The cluster with its nodes enrolled, and nothing of it running but the appliance.
    ///
    /// # Errors
    /// Not root, a package is missing, or something can't be set up.
    pub fn new(pacemaker: bool) -> Result<Self> {
        for (program, package) in [("pacemakerd", "pacemaker"), ("crm_mon", "pacemaker-cli-utils")] {
            if pacemaker {
                tool(program, package)?;
            }
        }
        let VoteCluster { nodes, mut appliance, network, folder } =
            VoteCluster::new("ffsplit", Certificate::Of("home"))?;
        drop::<Vec<CorosyncNode>>(nodes);
        let pi = network.ip("pi")?;
        let address = |node: u16| SocketAddr::from((pi, 6230 + node));
        let secret = appliance.data().join("bmc");
        fs::write(&secret, PASSWORD)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut config = "\n[corosync.prod]\nqdevice = 'home'\nnodes = { node1 = 1, node2 = 2 }\n".to_owned();
        for node in [1, 2] {
            config += &format!(
                "[[corosync.prod.devices]]\nnode = 'node{node}'\nname = 'bmc'\nkind = 'ipmi'\naddress = '{}'\nuser = '{OPERATOR}'\n\
                 suite = 3\npassword_file = 'bmc'\ndrilled = true\n",
                address(node)
            );
        }
        appliance.configure(&config)?;
        appliance.stop();
        appliance.start()?;
        let mut machines = Vec::new();
        for node in [1, 2] {
            let host = format!("node{node}");
            let own = folder.path().join(&host);
            let machine = node_of(&own, &host, &network, pacemaker)?;
            let bmc = MachineBmc::start(&machine, address(node), &network.on("pi"))?;
            let joined = FencedMachine { _bmc: bmc, machine, folder: own };
            joined.enrol(&appliance, &network, &host)?;
            machines.push(joined);
        }
        Ok(Self { nodes: machines, appliance, network, folder })
    }

    /// Gives both nodes power and waits until they have their vote, and are online where Pacemaker runs.
    ///
    /// # Errors
    /// They don't come up.
    pub fn form(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.machine.on())?;
        self.whole()
    }

    /// Waits until both nodes see each other, with their vote.
    ///
    /// # Errors
    /// They don't in time; tells everybody's logs.
    pub fn whole(&self) -> Result<()> {
        let seen = until("both nodes with their vote", UP_WITHIN, || {
            let status = self.appliance.command(&["qdevice", "status"])?.done()?;
            let whole = status.matches("ACK for").count() == 2 && status.matches("sees 1,2 ").count() == 2;
            ensure!(whole && !status.contains("waits:"), "{status}");
            Ok(())
        });
        seen.with_context(|| self.logs())
    }

    /// Cuts the link between the nodes; both still reach the appliance.
    ///
    /// # Errors
    /// The namespaces have gone.
    pub fn split(&self) -> Result<()> {
        self.network.cut("node1", "node2")
    }

    /// What the audit log has.
    ///
    /// # Errors
    /// It can't be read.
    pub fn audit(&self) -> Result<String> {
        self.appliance.audit()
    }

    /// The appliance's and the nodes' logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = format!("the appliance:\n{}", self.appliance.log());
        for node in ["node1", "node2"] {
            for log in ["corosync.log", "qdevice.log", "pacemakerd.log", "log"] {
                let path = self.folder.path().join(node).join(log);
                let bytes = fs::read(&path).unwrap_or_default();
                let said = String::from_utf8_lossy(&bytes);
                let from = said.len().saturating_sub(4000);
                let tail = said.char_indices().map(|(at, _)| at).find(|at| *at >= from).unwrap_or(0);
                text += &format!("\n--- {node} {log}:\n{}", said.get(tail..).unwrap_or_default());
            }
        }
        text
    }
}

impl FencedMachine {
    /// Runs a program on the node to its end.
    ///
    /// # Errors
    /// It has no power, or the program can't be run; whether it succeeded is in the result.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        run(self.machine.command(words)?)
    }

    /// Runs the node's fence agent as Pacemaker does: the options on standard input.
    ///
    /// # Errors
    /// As [`FencedMachine::run`].
    pub fn agent(&self, options: &str) -> Result<Ran> {
        let script = format!("printf 'identity={IDENTITY}\\n{options}' | /usr/sbin/fence_tiebreaker");
        self.run(&["sh", "-c", &script])
    }

    /// A file for the BMC: `stuck` or `slow`; `None` takes it away.
    ///
    /// # Errors
    /// The file system's.
    pub fn trouble(&self, name: &str, text: Option<&str>) -> Result<()> {
        let path = self.folder.join(name);
        match text {
            Some(text) => fs::write(path, text)?,
            None => fs::remove_file(path)?,
        }
        Ok(())
    }

    /// Enrols the node before it has power: from a namespace with its address.
    fn enrol(&self, appliance: &Appliance, network: &Network, host: &str) -> Result<()> {
        let token = appliance.command(&["token", "create", "--cluster", "prod", "--kind", "fence-client"])?.done()?;
        let mut command =
            crate::node::placed(&network.on(host), self.folder.join("agent/fence_tiebreaker").as_os_str());
        command.args(["--join", &appliance.address().to_string(), "--token", token.trim(), "--name", host]);
        command.arg("--identity").arg(self.folder.join("fence/identity"));
        run(command)?.done()?;
        Ok(())
    }
}

/// Prepares a node's folder, and gives its machine.
fn node_of(own: &Path, host: &str, network: &Network, pacemaker: bool) -> Result<Machine> {
    for name in FOLDERS.into_iter().chain(["agent"]) {
        fs::create_dir_all(own.join(name))?;
    }
    let agent = own.join("agent/fence_tiebreaker");
    symlink(Program::Operator.path()?, &agent)?;
    // The node's /usr/sbin: what there is, and the agent.
    for entry in fs::read_dir("/usr/sbin")? {
        let name = entry?.file_name();
        symlink(Path::new("/mnt/sbin").join(&name), own.join("sbin").join(&name))?;
    }
    let _none = fs::remove_file(own.join("sbin/fence_tiebreaker"));
    symlink(&agent, own.join("sbin/fence_tiebreaker"))?;
    if pacemaker {
        let mut made = std::process::Command::new("install");
        made.args(["-d", "-o", "hacluster", "-g", "haclient", "-m", "0770"]);
        made.args(["", "/cib", "/pengine", "/blackbox", "/cores"].map(|below| own.join(format!("pacemaker{below}"))));
        made.arg(own.join("pacemaker-log"));
        run(made)?.done()?;
    }
    let init = own.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let command = vec![init.into(), own.into(), host.into(), if pacemaker { "yes" } else { "" }.into()];
    Machine::booting(own, &network.on(host), &["--mount", "--ipc", "--uts"], command)
}
