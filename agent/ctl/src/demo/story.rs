//! The demo's story: set up, break, watch, judge.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::report::Observed;
use tiebreaker_pipeline::resource::{Driver, Requested, ResourceSpec};
use tiebreaker_pipeline::state::Role;

use super::args::{DemoArgs, Fail};
use super::chassis::Order;
use super::clients::{Ack, Clients};
use super::counter::{Instance, Ledger, Line};
use super::judgement::{Before, Judgement, Played};
use super::monotonic_ns;
use super::network::Host;
use super::outcome::Outcome;
use super::stage::{APPLIANCE, COUNTER, NODES, Stage};
use super::witness::{Seen, Witness};
use crate::connection::Connection;
use crate::render;

/// Counts before anything breaks.
const COUNTS_FIRST: usize = 20;
/// Everything is set up within this time on any machine that could play the demo at all.
const SET_UP_WITHIN: Duration = Duration::from_secs(90);
/// Beyond the longest recovery by time, so that a slow one is told as slow.
const RECOVERY_WITHIN: Duration = Duration::from_secs(150);
/// An election, or a lead taken back, has ended long before.
const LEAD_WITHIN: Duration = Duration::from_secs(90);
/// What must not happen is watched for this long.
const NOTHING_FOR: Duration = Duration::from_secs(10);
/// With nothing broken.
const CALM_FOR: Duration = Duration::from_secs(5);
/// After the recovery, for whatever would come late.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Plays the story and judges it.
///
/// # Errors
/// When it can't be played to its end. What went wrong in the cluster is in the outcome.
pub async fn play(args: &DemoArgs, stage: &mut Stage) -> Result<Outcome> {
    stage.set_up(args).await?;
    let mut witness = Witness::start(stage.sockets(), stage.timeline.clone());
    witness.until(stage, "all members are online", SET_UP_WITHIN, |seen| all_well(seen, args).then_some(())).await?;
    add_counter(stage).await?;
    let clients = Clients::start(stage.nodes().iter().map(|place| place.port).collect());
    let before = witness
        .until(stage, "the counter runs", SET_UP_WITHIN, |seen| {
            let status = seen.status().filter(|status| all_well(seen, args) && runs_on(status).is_some())?;
            let ack = clients.last().filter(|_| clients.count() >= COUNTS_FIRST)?;
            Some(Before { status: status.clone(), instance: ack.line.instance, counts: clients.count() })
        })
        .await?;
    let watched = DeathWatch::start(&before.instance)?;
    let mut played = break_it(args.fail, stage, &mut witness, &before, &clients).await?;
    if args.fail != Fail::None {
        witness.hold(stage, AFTERMATH).await;
    }
    played.after = witness.seen.status_since(played.broken).cloned();
    let acknowledged = clients.stop().await;
    let ledger = Ledger::read(&stage.path("shared"))?;
    let judgement = Judgement { args, before: &before, played: &played, seen: &witness.seen, died_ns: watched.died() };
    Ok(judgement.outcome(&ledger, &acknowledged))
}

fn all_well(seen: &Seen, args: &DemoArgs) -> bool {
    let Some(status) = seen.status() else { return false };
    let node_ready = |name: &str| {
        status.members.iter().any(|member| {
            member.name.as_str() == name
                && member.role == Role::Node
                && member.state == "online"
                && member.voter
                && member.unprotectable.is_none()
                && member.watchdog.is_some()
                && (args.no_bmc || (!member.devices.is_empty() && member.devices.iter().all(|device| device.proven)))
        })
    };
    NODES.iter().all(|name| node_ready(name))
        && status.votes == (3, 3)
        && status.profile == args.profile
        && status.leader.as_ref().is_some_and(|leader| leader.as_str() == APPLIANCE)
}

/// The node that says that it runs the counter.
fn runs_on(status: &Status) -> Option<&str> {
    let counter = status.resources.iter().find(|resource| resource.name.as_str() == COUNTER)?;
    match (&counter.observed, &counter.node) {
        (Some(Observed::Running), Some(node)) => Some(node.as_str()),
        _ => None,
    }
}

async fn add_counter(stage: &Stage) -> Result<()> {
    let own = std::env::current_exe().context("finding the own program")?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let (own, shared) = (text(&own)?, text(&stage.path("shared"))?);
    let command = |words: &[&str]| {
        [own.as_str(), "demo-counter"].iter().chain(words).map(|word| (*word).to_owned()).collect::<Vec<String>>()
    };
    let driver = Driver::Command {
        start: command(&["start", "--shared", &shared]),
        stop: command(&["stop"]),
        status: command(&["status"]),
        migrate: None,
    };
    let spec = ResourceSpec {
        start_timeout_ms: 20_000,
        stop_timeout_ms: 20_000,
        monitor_every_ms: 1_000,
        monitor_timeout_ms: 5_000,
        ..ResourceSpec::with_defaults(driver)
    };
    let name = ResourceName::new(COUNTER)?;
    let add = Command::AddResource { name, spec, requested: Requested::Started, node: None };
    let mut connection = Connection::local(&stage.path(APPLIANCE).join("control.sock"), None).await?;
    match connection.ask(Request::Propose(add)).await? {
        Reply::Done { .. } => Ok(()),
        Reply::Void { why } => bail!("adding the counter: {why}"),
        Reply::Refused { why } | Reply::NoLeader { why } => bail!("adding the counter: {why}"),
        _ => bail!("adding the counter: the cluster answered something else than was asked"),
    }
}

async fn break_it(
    fail: Fail,
    stage: &mut Stage,
    witness: &mut Witness,
    before: &Before,
    clients: &Clients,
) -> Result<Played> {
    let from = before.instance.node.clone();
    if fail.breaks_the_node() {
        witness.ignore(&from);
    }
    let broken = Instant::now();
    stage.timeline.breaks(broken);
    let mut played = Played { broken, recovered: None, led: None, restored: None, after: None };
    match fail {
        Fail::NodePower | Fail::NodeCrash | Fail::AgentFreeze | Fail::NodeIsolate => {
            strike(fail, stage, &from).await?;
            played.recovered = Some(recovery(stage, witness, before, clients).await?);
            if fail != Fail::NodeIsolate {
                isolate(stage, &from, false)?;
            }
        }
        Fail::AgentCrash => {
            stage.timeline.happened(broken, &format!("the agent of {from} is killed"));
            stage.tell(&from, Order::KillAgent).await?;
            let what = "the new agent has taken over the counter";
            let restored = witness.until(stage, what, LEAD_WITHIN, |seen| adopted(seen, before)).await?;
            stage.timeline.happened(restored, &format!("the new agent of {from} has taken over the counter"));
            played.restored = Some(restored);
            witness.heed(&from);
        }
        Fail::NodeLink => {
            let [one, two] = [stage.host(NODES[0])?, stage.host(NODES[1])?];
            stage.network.cut(one, two);
            stage.timeline.happened(broken, &format!("the link between {} and {} is cut", NODES[0], NODES[1]));
            witness.hold(stage, NOTHING_FOR).await;
            stage.network.mend(one, two);
            stage.timeline.now("the link is mended");
        }
        Fail::Appliance => {
            witness.ignore(APPLIANCE);
            stage.timeline.happened(broken, "the appliance is killed");
            stage.tell(APPLIANCE, Order::Crash).await?;
            let led = witness.until(stage, "a node leads", LEAD_WITHIN, |seen| leads(seen, broken, false)).await?;
            stage.timeline.happened(led.0, &format!("{} leads", led.1));
            played.led = Some(led.0);
            witness.hold(stage, NOTHING_FOR).await;
            stage.timeline.now("the appliance is started again");
            stage.tell(APPLIANCE, Order::On).await?;
            witness.heed(APPLIANCE);
            let back =
                witness.until(stage, "the appliance leads", LEAD_WITHIN, |seen| leads(seen, led.0, true)).await?;
            stage.timeline.happened(back.0, &format!("{} leads again", back.1));
            played.restored = Some(back.0);
        }
        Fail::None => {
            stage.timeline.happened(broken, "nothing is broken");
            witness.hold(stage, CALM_FOR).await;
            if let Some(status) = witness.seen.status() {
                stage.timeline.say(&format!("\n{}", render::status(status)));
            }
        }
    }
    Ok(played)
}

async fn strike(fail: Fail, stage: &mut Stage, from: &str) -> Result<()> {
    let what = match fail {
        Fail::NodePower => {
            // The kernel would close the dead's connections, and so tell everybody; one that has no power doesn't.
            isolate(stage, from, true)?;
            stage.tell(from, Order::Cut).await?;
            format!("{from} loses its power")
        }
        Fail::NodeCrash => {
            isolate(stage, from, true)?;
            stage.tell(from, Order::Crash).await?;
            format!("all processes of {from} die")
        }
        Fail::AgentFreeze => {
            stage.tell(from, Order::Freeze).await?;
            format!("the agent of {from} is stopped")
        }
        Fail::NodeIsolate => {
            isolate(stage, from, true)?;
            format!("{from} loses all of its links")
        }
        Fail::AgentCrash | Fail::NodeLink | Fail::Appliance | Fail::None => return Ok(()),
    };
    stage.timeline.now(&what);
    Ok(())
}

/// Cuts all links of a node, or mends them.
fn isolate(stage: &Stage, node: &str, cut: bool) -> Result<()> {
    let host = stage.host(node)?;
    let others = stage.nodes().iter().map(|place| place.host).filter(|other| *other != host);
    for other in others.chain([Host::Appliance]) {
        if cut {
            stage.network.cut(host, other);
        } else {
            stage.network.mend(host, other);
        }
    }
    Ok(())
}

/// Waits for the whole of a recovery: the fence, its proof, and the first count by a new instance.
async fn recovery(stage: &mut Stage, witness: &mut Witness, before: &Before, clients: &Clients) -> Result<Ack> {
    let mut told = false;
    let timeline = stage.timeline.clone();
    witness
        .until(stage, "the counter is served by another node", RECOVERY_WITHIN, |seen| {
            let ack = clients.first_by_another(before.counts, &before.instance)?;
            if !told {
                told = true;
                let Line { count, instance } = &ack.line;
                let text = format!("the counter answers on {}, process {}: {count}", instance.node, instance.pid);
                timeline.happened(ack.at, &text);
            }
            let fenced =
                seen.lines_after(before.index()).any(|(_, line)| matches!(line.decision, Decision::Fenced { .. }));
            let runs = seen.status().and_then(runs_on) == Some(ack.line.instance.node.as_str());
            (fenced && runs).then_some(ack)
        })
        .await
}

/// A new start of the broken agent is admitted, and reports that the counter runs.
fn adopted(seen: &Seen, before: &Before) -> Option<Instant> {
    let from = before.instance.node.as_str();
    let (at, admitted) = seen.lines_after(before.index()).find_map(|(at, line)| match &line.decision {
        Decision::Admitted { node, incarnation, .. } if node.as_str() == from => Some((*at, *incarnation)),
        _ => None,
    })?;
    let status = seen.status_since(at)?;
    let life = status.members.iter().find(|member| member.name.as_str() == from)?.incarnation;
    (life == Some(admitted) && runs_on(status) == Some(from)).then(Instant::now)
}

/// The appliance leads, or a node does, by what was seen after `since`.
fn leads(seen: &Seen, since: Instant, appliance: bool) -> Option<(Instant, String)> {
    let status = seen.status_since(since)?;
    // Only who leads itself tells the time of its quorum lease, so this is not hearsay.
    let leader = status.leader.as_ref().filter(|_| status.quorum_lease_ms.is_some_and(|ms| ms > 0))?;
    ((leader.as_str() == APPLIANCE) == appliance).then(|| (Instant::now(), leader.to_string()))
}

/// Waits beside the story for the end of the counter's first process.
struct DeathWatch {
    died: Arc<OnceLock<u64>>,
}

impl DeathWatch {
    fn start(instance: &Instance) -> Result<Self> {
        let pid = Pid::from_raw(instance.pid.cast_signed()).context("the counter has no process id")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("watching the counter's process")?;
        let died = Arc::new(OnceLock::new());
        let say = Arc::clone(&died);
        // The process ends when the demo tidies up, if not before, and the thread with it.
        std::thread::spawn(move || {
            let mut fds = [PollFd::new(&process, PollFlags::IN)];
            while let Ok(0) | Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
            say.get_or_init(monotonic_ns);
        });
        Ok(Self { died })
    }

    /// When it was dead at the latest, by CLOCK_MONOTONIC; `None` while it lives.
    fn died(&self) -> Option<u64> {
        self.died.get().copied()
    }
}
