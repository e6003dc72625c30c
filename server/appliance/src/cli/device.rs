//! `tiebreaker-server device`: power devices, with the daemon running or not.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use tiebreaker_fence::{BoxFuture, Overseer, PowerState, Progress, power_off};
use tiebreaker_member::ask::{
    DeviceReport, DeviceRequest, DeviceTrial, DrillReport, DrillState, DrillTimes, Hidden, LocalReply, LocalRequest,
};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::{LocalAccess, LocalSocket};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tokio::time::Instant;

use super::prompt::{ask_secret, confirm};
use super::{ask_running_daemon, operator};
use crate::audit::{Audit, Event};
use crate::config::Config;
use crate::desk::Hand;
use crate::devices::{COMMAND_WITHIN, Devices};
use crate::layout::Layout;

/// An operator's request is answered by then: a device may take its time, and a level has several.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
/// A node that isn't off by then is reported as not off; its fence goes on.
const OFF_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at a fence.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Between the two reads that confirm an off.
const SPACING: Duration = Duration::from_millis(200);

/// What all of these have in common.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// The data folder.
    #[arg(long, default_value = "/var/lib/tiebreaker-server")]
    data: PathBuf,
    /// The cluster; may be left out where there is one.
    #[arg(long)]
    cluster: Option<String>,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum DeviceCommand {
    /// Tries a new power device and keeps it if it works. Asks for the secret without showing it.
    Add(Box<Add>),
    /// Shows the devices, and when each was proven last. Nothing is sent to them.
    List {
        /// Of this node alone.
        node: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Reads the power state of a node's devices now.
    Status {
        /// NODE or NODE/DEVICE.
        target: String,
        #[command(flatten)]
        common: Common,
    },
    /// Logs in with the right to switch power, reads the state and switches nothing.
    Prove {
        /// NODE or NODE/DEVICE.
        target: String,
        #[command(flatten)]
        common: Common,
    },
    /// Gives a node power. Refused while its fence is open.
    On {
        /// NODE or NODE/DEVICE.
        target: String,
        /// Also while the switching of power is held, where no daemon runs.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Cuts a node's power, and says so only when it was read off twice. While the daemon runs that is a fence, decided by
    /// the cluster: the resources go elsewhere, and the power comes back when that is safe.
    Off {
        /// NODE or, without the daemon, NODE/DEVICE.
        target: String,
        /// Also while the switching of power is held, where no daemon runs.
        #[arg(long)]
        force: bool,
        /// The node's name, instead of typing it when asked.
        #[arg(long, value_name = "NODE")]
        confirm: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Shows that a device is its node's, and learns the times: the cluster fences the empty node by it, sees it go dark and
    /// nothing else, gives the power back and sees a new boot. The node has to be empty; the daemon has to run.
    Drill {
        /// NODE, or NODE/DEVICE where it has several.
        target: String,
        /// How long the node stays without power, in seconds: your word that it needs less from power to a running agent, firmware
        /// included. Less proves nothing. [default: longer than it was seen to boot, and ten minutes for its firmware]
        #[arg(long = "dark", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1800))]
        dark_s: Option<u64>,
        /// Also if that breaks the plan. If the device is proven, also if the node runs something: that is recovered elsewhere.
        #[arg(long)]
        force: bool,
        /// The node's name, instead of typing it when asked.
        #[arg(long, value_name = "NODE")]
        confirm: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Keeps another secret for a device, and proves it. Asks for the secret without showing it.
    Password {
        /// NODE/DEVICE.
        target: String,
        /// A file with the secret; without it the secret is asked for.
        #[arg(long)]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// Whose power it switches.
    node: String,
    /// Its kind: ipmi, redfish, and what docs/devices.md names.
    kind: String,
    /// Its address, with a port where that isn't the usual one.
    address: Option<String>,
    /// Its name, unique per node.
    #[arg(long, default_value = "bmc")]
    name: String,
    /// The account, with the right to switch power.
    #[arg(long)]
    user: Option<String>,
    /// A file with the secret; it is kept in the appliance's encrypted file.
    #[arg(long, conflicts_with = "credential")]
    password_file: Option<PathBuf>,
    /// The name of a credential of the service manager that holds the secret; the daemon reads it there.
    #[arg(long)]
    credential: Option<String>,
    /// The BMC's certificate by its SHA-256 fingerprint (redfish); twice: also the next one.
    #[arg(long)]
    certificate: Vec<String>,
    /// The path of the node's system (redfish).
    #[arg(long)]
    system: Option<String>,
    /// The UUID of the node's machine (redfish); what the node told is taken if it is left out.
    #[arg(long)]
    uuid: Option<String>,
    /// You saw this device cut this node's power, and no other's.
    #[arg(long)]
    drilled: bool,
    /// The level of the node's plan, 1 to 9: lower ones are tried first, and all devices of one have to confirm. Without it
    /// the device is a level by itself, after those with a number.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=9))]
    level: Option<u8>,
    /// Any other key of the device's table in server.toml, KEY=VALUE; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keeps it also if it doesn't work.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs one of the commands.
pub(super) async fn run(command: DeviceCommand) -> Result<()> {
    match command {
        DeviceCommand::Add(add) => add.run().await,
        DeviceCommand::List { node, common } => common.ask_and_show(DeviceRequest::List { node }).await,
        DeviceCommand::Status { target, common } => {
            let (node, device) = split(&target);
            common.ask_and_show(DeviceRequest::Look { node, device }).await
        }
        DeviceCommand::Prove { target, common } => {
            let (node, device) = split(&target);
            common.ask_and_show(DeviceRequest::Prove { node, device }).await
        }
        DeviceCommand::On { target, force, common } => {
            let (node, device) = split(&target);
            common.ask_and_show(DeviceRequest::On { node, device, force }).await
        }
        DeviceCommand::Off { target, force, confirm, common } => common.off(&target, force, confirm).await,
        DeviceCommand::Drill { target, dark_s, force, confirm, common } => {
            common.drill(&target, dark_s, force, confirm).await
        }
        DeviceCommand::Password { target, password_file, common } => {
            let (node, device) = split(&target);
            let device = device.with_context(|| format!("which device of {node}? NODE/DEVICE"))?;
            let password = secret(password_file.as_deref(), &format!("Secret of {node}/{device}"))?;
            common.ask_and_show(DeviceRequest::Password { node, device, password }).await
        }
    }
}

fn split(target: &str) -> (String, Option<String>) {
    match target.split_once('/') {
        Some((node, device)) => (node.to_owned(), Some(device.to_owned())),
        None => (target.to_owned(), None),
    }
}

fn secret(file: Option<&Path>, question: &str) -> Result<Hidden> {
    let Some(path) = file else { return ask_secret(question) };
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let text = String::from_utf8(crate::recipe::without_line_end(&text).to_vec());
    Ok(Hidden::new(text.ok().with_context(|| format!("{} holds no UTF-8 text", path.display()))?))
}

impl Common {
    /// Asks the daemon; where none runs, does it here.
    async fn ask(&self, request: DeviceRequest) -> Result<LocalReply> {
        let ask = LocalRequest::Devices { cluster: self.cluster.clone(), request: request.clone() };
        match ask_running_daemon(&self.data, &ask, ANSWERED_WITHIN).await? {
            Some(LocalReply::Refused { why }) => bail!("{why}"),
            Some(reply) => Ok(reply),
            None => self.alone(async |hand, devices| hand.serve(devices, None, request).await).await,
        }
    }

    /// Works without a daemon, and keeps one from starting meanwhile.
    async fn alone<T>(&self, work: impl AsyncFnOnce(&Hand, &Devices) -> Result<T>) -> Result<T> {
        let layout = Layout::new(&self.data);
        let config = Config::load(&layout.config())?;
        let (lock, _nobody_asks) = LocalSocket::start(&layout.socket(), LocalAccess::default())?;
        let cluster = match &self.cluster {
            Some(name) => ClusterName::new(name)?,
            None => match &layout.clusters()?[..] {
                [only] => only.clone(),
                [] => bail!("there is no cluster yet: `tiebreaker-server token create --cluster NAME` creates one"),
                _ => bail!("this appliance serves several clusters: name one with --cluster"),
            },
        };
        let (audit, scribe) = Audit::start(layout.root());
        if let Some(alarm) = audit.alarm() {
            eprintln!("{alarm}");
        }
        let devices = Devices::new(&cluster, &config.cluster(&cluster), audit.clone(), layout.root())?;
        let hand = Hand { layout, audit, by: operator() };
        let done = work(&hand, &devices).await;
        tokio::task::block_in_place(|| scribe.finish());
        drop(lock);
        done
    }

    async fn ask_and_show(&self, request: DeviceRequest) -> Result<()> {
        let LocalReply::Devices { reports } = self.ask(request).await? else {
            bail!("the daemon answered something else than was asked")
        };
        if self.json {
            println!("{}", serde_json::json!({ "devices": reports }));
        } else {
            print!("{}", table(&reports));
        }
        let faults = reports.iter().filter(|report| report.fault.is_some()).count();
        if faults > 0 {
            bail!("{faults} of {} device(s) failed", reports.len());
        }
        Ok(())
    }

    async fn off(&self, target: &str, force: bool, typed: Option<String>) -> Result<()> {
        let (node, device) = split(target);
        let list = LocalRequest::Devices { cluster: self.cluster.clone(), request: DeviceRequest::List { node: None } };
        let runs = ask_running_daemon(&self.data, &list, ANSWERED_WITHIN).await?.is_some();
        if runs && device.is_some() {
            bail!("while the daemon runs the cluster fences whole nodes: name {node} alone");
        }
        let question = if runs {
            format!("{node} will be powered off hard, and its resources will be started on other nodes.")
        } else {
            format!(
                "No daemon runs, so no cluster decides this: {target} will be powered off hard, and stays off. Whatever \
                 runs there ends, and nothing takes its place."
            )
        };
        confirm(&node, &question, typed)?;
        if runs { self.fence(&node).await } else { self.cut(&node, device.as_deref(), force).await }
    }

    /// Off through the log.
    async fn fence(&self, node: &str) -> Result<()> {
        let name = MemberName::new(node)?;
        if let Reply::Status(status) = self.cluster_request(Request::Status).await?
            && let Some(hold) = &status.settings.hold
        {
            bail!("the switching of power is {hold}: `tiebreaker fence release` ends that");
        }
        let asked = self.cluster_request(Request::Fence { node: name.clone(), by: operator() }).await?;
        match asked {
            Reply::Done { .. } => {}
            Reply::Void { why } => bail!("{why}"),
            Reply::Refused { why } | Reply::NoLeader { why } => bail!("{why}"),
            _ => bail!("the daemon answered something else than was asked"),
        }
        let until = Instant::now() + OFF_WITHIN;
        let mut told = None;
        loop {
            let Reply::Status(status) = self.cluster_request(Request::Status).await? else {
                bail!("the daemon answered something else than was asked")
            };
            let open = status.fences.iter().find(|open| open.fence.node == name);
            match open.map(|open| (&open.fence.progress, open)) {
                Some((tiebreaker_pipeline::fence::Progress::Wanted, open)) => {
                    let failure = open.fence.last_failure.clone();
                    if failure != told
                        && let Some(why) = &failure
                    {
                        eprintln!("not off yet: {why}");
                    }
                    told = failure;
                }
                Some((tiebreaker_pipeline::fence::Progress::Fenced { evidence }, _)) => {
                    let (grade, words) = (evidence.grade(), evidence.to_string());
                    return self.is_off(node, grade, &words);
                }
                Some((tiebreaker_pipeline::fence::Progress::Closed { .. }, _)) | None => {
                    return self.is_off(
                        node,
                        "closed",
                        "its fence is proven and closed: `tiebreaker log` has the evidence",
                    );
                }
            }
            if Instant::now() >= until {
                bail!(
                    "{node} is not proven off after {} s; its fence goes on: `tiebreaker status`",
                    OFF_WITHIN.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn drill(&self, target: &str, dark_s: Option<u64>, force: bool, typed: Option<String>) -> Result<()> {
        let (node, device) = split(target);
        let question = format!(
            "{node} goes into maintenance, is powered off hard and started again, to see whether {target} is its device. If it is \
             another machine's, that one goes dark instead."
        );
        confirm(&node, &question, typed)?;
        let request = DeviceRequest::Drill { node: node.clone(), device, dark_s, force };
        let mut report = self.drilled(request).await?;
        let mut told = 0;
        while report.state == DrillState::UnderWay {
            told = tell(&report, told);
            tokio::time::sleep(LOOK_EVERY).await;
            let next = self.drilled(DeviceRequest::Drilled).await.context("the drill goes on without being watched")?;
            if next.node != node {
                bail!("another drill has begun since: `tiebreaker-server audit list` has the end of this one");
            }
            report = next;
        }
        tell(&report, told);
        if self.json {
            println!("{}", serde_json::json!({ "drill": report }));
        }
        match &report.state {
            DrillState::Passed(times) if !self.json => {
                println!("{}/{} is the device of {}: {}", report.node, report.device, report.node, drill_words(times));
                Ok(())
            }
            DrillState::Passed(_) => Ok(()),
            DrillState::Failed { why } => {
                bail!("{}/{} is not shown to be its device: {why}", report.node, report.device)
            }
            DrillState::UnderWay => bail!("the drill goes on"),
        }
    }

    async fn drilled(&self, request: DeviceRequest) -> Result<DrillReport> {
        let ask = LocalRequest::Devices { cluster: self.cluster.clone(), request };
        match ask_running_daemon(&self.data, &ask, ANSWERED_WITHIN).await? {
            Some(LocalReply::Drill(report)) => Ok(report),
            Some(LocalReply::Refused { why }) => bail!("{why}"),
            Some(_) => bail!("the daemon answered something else than was asked"),
            None => bail!("a drill is a fence, which the daemon has to carry out: start it first"),
        }
    }

    async fn cluster_request(&self, request: Request) -> Result<Reply> {
        let ask = LocalRequest::Cluster { cluster: self.cluster.clone(), request: Box::new(request) };
        match ask_running_daemon(&self.data, &ask, ANSWERED_WITHIN).await?.context("the daemon has ended")? {
            LocalReply::Cluster(reply) => Ok(reply),
            LocalReply::Refused { why } => bail!("{why}"),
            _ => bail!("the daemon answered something else than was asked"),
        }
    }

    fn is_off(&self, node: &str, grade: &str, words: &str) -> Result<()> {
        if self.json {
            println!("{}", serde_json::json!({ "node": node, "off": true, "grade": grade, "evidence": words }));
        } else {
            println!("{node} is off: {words}.");
        }
        Ok(())
    }

    /// Off without a cluster that could decide it.
    async fn cut(&self, node: &str, device: Option<&str>, force: bool) -> Result<()> {
        self.alone(async |hand, devices| {
            hand.may_switch_alone(devices.cluster(), force)?;
            for managed in devices.find(Some(node), device)? {
                hand.audit.record(Event::Attempt {
                    cluster: managed.cluster().to_string(),
                    node: node.to_owned(),
                    device: managed.name().to_owned(),
                    command: "off".to_owned(),
                });
                let until = Instant::now() + OFF_WITHIN;
                let off = power_off(managed.device(), SPACING, until, &ByHand).await;
                hand.audit.record(Event::Answer {
                    cluster: managed.cluster().to_string(),
                    node: node.to_owned(),
                    device: managed.name().to_owned(),
                    command: "off".to_owned(),
                    result: if off.is_ok() { "off" } else { "unanswered" }.to_owned(),
                    why: off.as_ref().err().map(|error| format!("by hand, {}: {error}", hand.by)),
                });
                off.with_context(|| format!("{node}/{} is not known to be off", managed.name()))?;
            }
            // One that went off first may be on again.
            let told = devices.find(Some(node), device)?;
            if told.len() > 1 {
                for managed in told {
                    let state = managed.device().state(Instant::now() + COMMAND_WITHIN).await;
                    let state = state.with_context(|| format!("reading {node}/{} once more", managed.name()))?;
                    if state == PowerState::On {
                        bail!("{node}/{} is on again: it was off when it was told", managed.name());
                    }
                }
            }
            Ok(())
        })
        .await?;
        self.is_off(node, "by-hand", "every device that was told reads off twice")
    }
}

/// The operator's own right: no cluster runs that could take it away.
struct ByHand;

impl Overseer for ByHand {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, step: Progress) {
        match step {
            Progress::ReadFailed(why) | Progress::OffFailed(why) => eprintln!("not off yet: {why}"),
            Progress::Read(_) | Progress::OffAcknowledged => {}
        }
    }
}

impl Add {
    async fn run(self) -> Result<()> {
        let elsewhere = |pair: &String| pair.starts_with("no_password=") || pair.starts_with("password_file=");
        let wants_secret = self.credential.is_none() && !self.set.iter().any(elsewhere);
        let question =
            format!("Secret of {} at the {} of {}", self.user.as_deref().unwrap_or(""), self.kind, self.node);
        let password = if wants_secret || self.password_file.is_some() {
            Some(secret(self.password_file.as_deref(), &question)?)
        } else {
            None
        };
        let request = DeviceRequest::Add { table: self.table()?, password, force: self.force };
        let LocalReply::Tried(trial) = self.common.ask(request).await? else {
            bail!("the daemon answered something else than was asked")
        };
        if self.common.json {
            println!("{}", serde_json::to_string(&trial)?);
        } else {
            print!("{}", words(&trial));
        }
        match &trial.report.fault {
            Some(_) if trial.kept => Ok(()),
            Some(fault) => bail!("not kept: {fault}"),
            None => Ok(()),
        }
    }

    /// The device's table of `server.toml`, without its heading.
    fn table(&self) -> Result<String> {
        let mut table = toml::Table::new();
        let mut put = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
        put("node", self.node.clone().into());
        put("name", self.name.clone().into());
        put("kind", self.kind.clone().into());
        if let Some(address) = &self.address {
            put("address", with_port(address, &self.kind).into());
        }
        for (key, value) in
            [("user", &self.user), ("credential", &self.credential), ("system", &self.system), ("uuid", &self.uuid)]
        {
            if let Some(value) = value {
                put(key, value.clone().into());
            }
        }
        if !self.certificate.is_empty() {
            put("certificates", self.certificate.clone().into());
        }
        if self.drilled {
            put("drilled", true.into());
        }
        if let Some(level) = self.level {
            put("level", i64::from(level).into());
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair:?}: it is KEY=VALUE"))?;
            // Numbers, lists and the like as TOML has them; anything else is text.
            let parsed: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
            let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| value.to_owned().into());
            put(key, value);
        }
        Ok(toml::to_string(&table)?)
    }
}

/// Tells what was seen since the last time.
fn tell(report: &DrillReport, told: usize) -> usize {
    for words in report.seen.iter().skip(told) {
        eprintln!("{words}");
    }
    report.seen.len()
}

fn drill_words(times: &DrillTimes) -> String {
    format!(
        "off ({}) {} after it was told, back {} after it got its power again, drilled {}",
        times.grade,
        tenths(times.off_ms),
        tenths(times.boot_ms),
        moment(times.at_ms)
    )
}

fn tenths(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// The usual port, where none was given.
fn with_port(address: &str, kind: &str) -> String {
    let port = match kind {
        "ipmi" => 623,
        "redfish" => 443,
        _ => return address.to_owned(),
    };
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        Err(_) => address.to_owned(),
    }
}

fn words(trial: &DeviceTrial) -> String {
    let report = &trial.report;
    let mut text = format!("{}/{}: {} {}\n", report.node, report.device, report.kind, report.address);
    for finding in &trial.findings {
        text += &format!("  {finding}\n");
    }
    if let Some(state) = &report.state {
        text += &format!("  it reads {state}, after {} ms\n", report.took_ms.unwrap_or(0));
    }
    match (&report.fault, trial.kept) {
        (None, _) => text += "  kept\n",
        (Some(fault), true) => text += &format!("  kept by your word, though: {fault}\n"),
        (Some(_), false) => {}
    }
    text
}

fn table(reports: &[DeviceReport]) -> String {
    let mut text = String::new();
    for report in reports {
        text += &format!("{}/{}  {} {}", report.node, report.device, report.kind, report.address);
        match (report.level, &report.together) {
            (Some(level), Some(together)) => text += &format!("  level {level}, all of {together}"),
            (Some(level), None) => text += &format!("  level {level}"),
            (None, _) => {}
        }
        match (&report.state, report.took_ms) {
            (Some(state), Some(ms)) => text += &format!("  reads {state} after {ms} ms"),
            (None, Some(ms)) if report.fault.is_none() => text += &format!("  done after {ms} ms"),
            _ => {}
        }
        if let Some(proven) = report.proven {
            text += if proven { "  proven" } else { "  NOT PROVEN" };
        }
        match (report.proven_ago_ms, report.proven_at_ms) {
            (Some(ago), Some(at)) => text += &format!(", last {} s ago, {}", ago / 1000, moment(at)),
            (None, Some(at)) => text += &format!(", last {}", moment(at)),
            (_, None) if report.proven == Some(true) => text += " by an earlier run of the daemon",
            (_, None) => {}
        }
        text.push('\n');
        match (report.off_ms, report.within_ms) {
            (Some(off), Some(within)) => {
                text += &format!("    off after {} at most so far, given up after {}\n", tenths(off), tenths(within))
            }
            (None, Some(within)) => {
                text += &format!("    it is not known how long off takes: given up after {}\n", tenths(within))
            }
            (_, None) => {}
        }
        if let Some(times) = &report.drill {
            text += &format!("    {}\n", drill_words(times));
        }
        for why in [&report.fault, &report.unproven].into_iter().flatten() {
            text += &format!("    {why}\n");
        }
    }
    if text.is_empty() {
        text = "there are no power devices: `tiebreaker-server device add` adds one\n".to_owned();
    }
    text
}

fn moment(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms after 1970"), |at| at.strftime("%F %T UTC").to_string())
}

/// Whatever is left in the output's buffer is shown before a question.
pub(super) fn flush() -> Result<()> {
    std::io::stderr().flush().context("writing to the terminal")
}
