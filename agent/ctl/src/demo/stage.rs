//! What the demo is played on: folders, wires, machines and their daemons.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_pipeline::profile::Profile;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::args::DemoArgs;
use super::chassis::{BmcAccount, ChassisConfig, Happened, Order};
use super::counter::{Here, MACHINE_VARIABLE};
use super::machine::{Machine, News};
use super::network::{Host, Network};
use super::timeline::Timeline;
use crate::connection::Connection;

/// The cluster's name.
const CLUSTER: &str = "demo";
/// The protected resource's name.
pub const COUNTER: &str = "counter";
/// The appliance's name.
pub const APPLIANCE: &str = "pi";
/// The nodes' names.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// The account of the BMCs.
const USER: &str = "tiebreaker";
/// A returned appliance takes the lead back after so many seconds of good health: soon enough to be watched.
const TAKEBACK_S: u64 = 5;
/// From power on to the start of the agent. Real machines take longer, which proves nothing more here.
const BOOT: Duration = Duration::from_secs(3);
/// Added to the watchdog's time for [`reboot`].
const REBOOT_MARGIN: Duration = Duration::from_secs(5);
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a starting daemon.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const DAEMON_WITHIN: Duration = Duration::from_secs(30);
/// News of machines that wait to be heard.
const NEWS_MAX: usize = 256;

/// A node's place on the stage.
pub struct NodePlace {
    /// Its name.
    pub name: &'static str,
    /// Its end of the wires.
    pub host: Host,
    /// Its data folder.
    pub data: PathBuf,
    /// Where its counter listens.
    pub port: u16,
}

/// The stage.
pub struct Stage {
    dir: TempDir,
    /// The wires.
    pub network: Network,
    /// News of the machines.
    pub news: mpsc::Receiver<News>,
    say: mpsc::Sender<News>,
    /// What is printed.
    pub timeline: Timeline,
    nodes: Vec<NodePlace>,
    /// Where the nodes reach the appliance.
    appliance: String,
    /// One for each node that has yet to join.
    tokens: Vec<String>,
    machines: BTreeMap<&'static str, Machine>,
}

impl Stage {
    /// An empty stage: a folder, and nothing in it.
    ///
    /// # Errors
    /// When there is no room for a folder.
    pub fn new(timeline: Timeline) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tiebreaker-demo-").tempdir().context("making a folder")?;
        let (say, news) = mpsc::channel(NEWS_MAX);
        Ok(Self {
            dir,
            network: Network::new(),
            news,
            say,
            timeline,
            nodes: Vec::new(),
            appliance: String::new(),
            tokens: Vec::new(),
            machines: BTreeMap::new(),
        })
    }

    /// Sets everything up, and switches it on. Whatever comes of it, [`Stage::end`] tidies up.
    ///
    /// # Errors
    /// When the system doesn't give what is needed, or a daemon doesn't start.
    pub async fn set_up(&mut self, args: &DemoArgs) -> Result<()> {
        for (number, name) in (1..).zip(NODES) {
            let host = Host::Node(number);
            let place = NodePlace { name, host, data: self.path(name), port: free_port(Ipv4Addr::LOCALHOST)? };
            fs::create_dir_all(&place.data).with_context(|| format!("making {}", place.data.display()))?;
            self.nodes.push(place);
        }
        for folder in ["shared", "counter-node1", "counter-node2"] {
            let path = self.path(folder);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let bmcs = self.start_machines(args).await?;
        self.start_appliance(args, &bmcs).await?;
        for place in 0..self.nodes.len() {
            self.join(place).await?;
        }
        for name in NODES {
            self.tell(name, Order::On).await?;
        }
        let bmc = if args.no_bmc { "without a BMC" } else { "each with a BMC" };
        self.timeline.now(&format!("{} and {} join and start, {bmc}", NODES[0], NODES[1]));
        Ok(())
    }

    /// The nodes' machines, still without power; gives the addresses of their BMCs.
    async fn start_machines(&mut self, args: &DemoArgs) -> Result<BTreeMap<&'static str, SocketAddr>> {
        let mut bmcs = BTreeMap::new();
        let secrets = self.path(APPLIANCE).join("secrets");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets).context("making the folder of secrets")?;
        for place in 0..self.nodes.len() {
            let NodePlace { name, data, port, .. } = &self.nodes[place];
            let (name, data, port) = (*name, data.clone(), *port);
            let here = Here { dir: self.path(&format!("counter-{name}")), node: name.to_owned(), port };
            here.store()?;
            let bmc = if args.no_bmc {
                None
            } else {
                let password_file = secrets.join(format!("{name}-bmc"));
                write_password(&password_file)?;
                Some(BmcAccount { user: USER.to_owned(), password_file })
            };
            let argv = ["tiebreaker-agent", "supervise", "--data", text(&data)?, "--reboot-delay-ms"];
            let mut argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
            argv.push(reboot(args.profile).as_millis().to_string());
            let config = ChassisConfig {
                program: own_program()?,
                argv,
                env: BTreeMap::from([(MACHINE_VARIABLE.to_owned(), text(&here.dir)?.to_owned())]),
                log: self.path(&format!("{name}.log")),
                bmc,
                boot_ms: u64::try_from(BOOT.as_millis()).context("the time to boot")?,
            };
            let (machine, ready) = Machine::start(name, &config, self.dir.path(), self.say.clone()).await?;
            self.machines.insert(name, machine);
            if let Happened::Ready { bmc: Some(address) } = ready {
                bmcs.insert(name, address);
            }
        }
        Ok(bmcs)
    }

    async fn start_appliance(&mut self, args: &DemoArgs, bmcs: &BTreeMap<&'static str, SocketAddr>) -> Result<()> {
        let data = self.path(APPLIANCE);
        let listen = SocketAddr::from((Host::Appliance.address(), free_port(Host::Appliance.address())?));
        let address = self.network.proxy(Host::Appliance, listen).await.context("opening a proxy's port")?;
        let (listen, address) = (listen.to_string(), address.to_string());
        let init = ["init", "--data", text(&data)?, "--name", APPLIANCE, "--listen", &listen, "--address", &address];
        self.command("tiebreaker-server", &init).await?;
        let mut extra = format!("\n[clusters.{CLUSTER}]\nprofile = \"{}\"\ntakeback_s = {TAKEBACK_S}\n", args.profile);
        // One failure after the other is what a demo is for.
        extra.push_str("brake_window_s = 0\n");
        for (name, address) in bmcs {
            extra.push_str(&format!(
                "\n[[clusters.{CLUSTER}.devices]]\nnode = \"{name}\"\nname = \"bmc\"\nkind = \"ipmi\"\naddress = \
                 \"{address}\"\nuser = \"{USER}\"\nsuite = 17\npassword_file = \"secrets/{name}-bmc\"\ndrilled = true\n"
            ));
        }
        append(&data.join("server.toml"), &extra)?;
        self.appliance = address;
        // The first token creates the cluster, before the daemon starts: so it finds all of its configuration in place.
        for _ in NODES {
            let token = self.token().await?;
            self.tokens.push(token);
        }
        let config = ChassisConfig {
            program: own_program()?,
            argv: ["tiebreaker-server", "run", "--data", text(&data)?].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            log: self.path(&format!("{APPLIANCE}.log")),
            bmc: None,
            boot_ms: 0,
        };
        let (machine, _) = Machine::start(APPLIANCE, &config, self.dir.path(), self.say.clone()).await?;
        self.machines.insert(APPLIANCE, machine);
        self.tell(APPLIANCE, Order::On).await?;
        self.wait_for_daemon(&data.join("control.sock"), args.profile).await?;
        self.timeline.now(&format!("the appliance {APPLIANCE} runs"));
        Ok(())
    }

    /// Waits until the daemon serves its cluster, before which it lets nobody join, and has set the profile, by which
    /// a node that joins chooses its watchdog's time.
    async fn wait_for_daemon(&mut self, socket: &Path, profile: Profile) -> Result<()> {
        let end = Instant::now() + DAEMON_WITHIN;
        loop {
            match leads(socket, profile).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= end => {
                    bail!("the daemon did not start within {DAEMON_WITHIN:?}: {error:#}")
                }
                Err(_) => {}
            }
            // Its end would be news; else it is asked again soon.
            if let Ok(Some(News { machine, what: Happened::Ended { status }, .. })) =
                timeout(LOOK_EVERY, self.news.recv()).await
            {
                bail!("the daemon of {machine} ended ({status})");
            }
        }
    }

    async fn join(&mut self, place: usize) -> Result<()> {
        let NodePlace { name, host, data, .. } = &self.nodes[place];
        let (name, host, data) = (*name, *host, data.clone());
        let listen = SocketAddr::from((host.address(), free_port(host.address())?));
        let address = self.network.proxy(host, listen).await.context("opening a proxy's port")?;
        let token = self.tokens.pop().context("there is a token for each node")?;
        let (listen, address, source) = (listen.to_string(), address.to_string(), host.address().to_string());
        let join = [
            "join",
            &self.appliance,
            "--token",
            &token,
            "--data",
            text(&data)?,
            "--name",
            name,
            "--listen",
            &listen,
            "--address",
            &address,
            "--source",
            &source,
            "--watchdog",
            "simulated",
            "--accept",
            "simulated",
        ];
        self.command("tiebreaker-agent", &join).await.map(drop)
    }

    async fn token(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
        }
        let data = self.path(APPLIANCE);
        let create = ["token", "create", "--data", text(&data)?, "--cluster", CLUSTER, "--json"];
        let output = self.command("tiebreaker-server", &create).await?;
        let answer: Answer = serde_json::from_slice(&output.stdout).context("reading the token")?;
        Ok(answer.token)
    }

    /// Runs a command of a daemon's program to its end.
    async fn command(&self, name: &str, args: &[&str]) -> Result<Output> {
        // The words after the first may hold a token.
        let what = format!("{name} {}", args.first().unwrap_or(&""));
        let running =
            Command::new(own_program()?).arg0(name).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(COMMAND_WITHIN, running)
            .await
            .with_context(|| format!("`{what}` took longer than {COMMAND_WITHIN:?}"))?
            .with_context(|| format!("running `{what}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let how = match (output.status.code(), output.status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("signal {}", signal.unwrap_or(0)),
            };
            bail!("`{what}` failed ({how}): {said}");
        }
        Ok(output)
    }

    /// Tells a machine what happens to it.
    ///
    /// # Errors
    /// When there is no such machine, or its process is gone.
    pub async fn tell(&mut self, machine: &str, order: Order) -> Result<()> {
        let machine = self.machines.get_mut(machine).with_context(|| format!("there is no machine {machine}"))?;
        machine.tell(order).await
    }

    /// A path on the stage.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[NodePlace] {
        &self.nodes
    }

    /// The nodes' end of the wires, by name.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn host(&self, node: &str) -> Result<Host> {
        self.nodes.iter().find(|place| place.name == node).map(|place| place.host).context("no such node")
    }

    /// The daemons' sockets, by member.
    #[must_use]
    pub fn sockets(&self) -> Vec<(&'static str, PathBuf)> {
        let nodes = self.nodes.iter().map(|place| (place.name, place.data.join("control.sock")));
        nodes.chain([(APPLIANCE, self.path(APPLIANCE).join("control.sock"))]).collect()
    }

    /// How a person can look at it while it is left running.
    #[must_use]
    pub fn how_to_look(&self) -> String {
        let own = std::env::current_exe().map_or_else(|_| "tiebreaker".to_owned(), |path| path.display().to_string());
        let mut text = format!("\nIt is left running in {} until Ctrl-C. Look at it with\n", self.dir.path().display());
        text.push_str(&format!("  {own} --data {} status --watch\n", self.path(APPLIANCE).display()));
        text.push_str(&format!("  {own} --data {} log\n", self.path(APPLIANCE).display()));
        for place in &self.nodes {
            text.push_str(&format!("  curl -d '' http://127.0.0.1:{}/count    # {}\n", place.port, place.name));
        }
        text.push_str(&format!("  tail -f {}/*.log", self.dir.path().display()));
        text
    }

    /// Ends all machines, and removes the folder unless it is wanted.
    ///
    /// # Errors
    /// When something could not be killed or removed.
    pub async fn end(mut self, keep_folder: bool) -> Result<()> {
        let mut failures = Vec::new();
        for (_, machine) in std::mem::take(&mut self.machines) {
            if let Err(error) = machine.end().await {
                failures.push(format!("{error:#}"));
            }
        }
        if keep_folder {
            let path = self.dir.keep();
            self.timeline.say(&format!("All logs are kept in {}.", path.display()));
        } else if let Err(error) = self.dir.close() {
            failures.push(format!("removing the folder: {error}"));
        }
        if failures.is_empty() { Ok(()) } else { bail!("tidying up: {}", failures.join("; ")) }
    }
}

/// How long a machine takes to boot after its watchdog has reset it: as with real ones longer than the watchdog's time,
/// so that it is that time which proves the node silent.
fn reboot(profile: Profile) -> Duration {
    profile.watchdog() + REBOOT_MARGIN
}

/// Whether the appliance leads and has the profile, by what its daemon says.
async fn leads(socket: &Path, profile: Profile) -> Result<()> {
    let reply = Connection::local(socket, Some(CLUSTER.to_owned())).await?.ask(Request::Status).await?;
    let Reply::Status(status) = reply else { bail!("it answers something else than was asked") };
    let leads = status.leader.as_ref().is_some_and(|leader| leader.as_str() == APPLIANCE);
    if !leads || status.quorum_lease_ms.is_none_or(|ms| ms == 0) {
        bail!("it doesn't lead yet");
    }
    if status.profile != profile {
        bail!("the profile is still {}", status.profile);
    }
    Ok(())
}

/// This very program, also when its file was replaced meanwhile.
fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("finding the own program")
}

fn append(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A port that nobody listens on now. Another program may take it before its owner does; then that one says so.
fn free_port(address: Ipv4Addr) -> Result<u16> {
    let listener = TcpListener::bind((address, 0)).with_context(|| format!("looking for a free port on {address}"))?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

/// A password of 16 random hexadecimal digits; IPMI takes 20 bytes at most.
fn write_password(path: &Path) -> Result<()> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("drawing a password")?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
