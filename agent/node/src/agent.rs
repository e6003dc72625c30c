//! `tiebreaker-agent run`: the member of this node with its executor, until a signal or a failure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_consensus::EntryPayload;
use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::core::Reply;
use tiebreaker_member::runtime::{Member, MemberConfig, MemberHandle, Tell, Want};
use tiebreaker_member::store::RaftStore;
use tiebreaker_member::{
    Acceptor, Address, Client, Identity, Incoming, LocalAccess, LocalSocket, Renewal, Role, SystemClock, TimeFloor,
    TrustedTime, ask_for_renewal,
};
use tiebreaker_pipeline::command::{Command, Entry};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::node::{Event, NodeConfig};
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::report::{Leave, WatchdogPromise};
use tiebreaker_pipeline::rules::Rules;
use tiebreaker_pipeline::state;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::config::{Config, WatchdogChoice};
use crate::executor::Executor;
use crate::guard::{Guard, GuardConfig};
use crate::join::{CONFIG_FILE, SOCKET_FILE, STORE_FILE, forget_joining_key};
use crate::machine;
use crate::operation::{Operations, OperationsConfig};
use crate::supervisor::WATCHDOG_VARIABLE;
use crate::usage;
use crate::watchdog::{DogError, KEPT_NAME, Realtime, WatchdogSource};
use tiebreaker_member::service_manager::{MAX_KEPT, ServiceManager, take_kept};

const RENEW_WITHIN: Duration = Duration::from_secs(20);
/// An agent that is to end waits so long for the cluster to freeze what it leaves running.
const RESTART_WITHIN: Duration = Duration::from_secs(5);
/// The agent of a machine that shuts down waits so long for its resources to be stopped or moved. The service manager's
/// own patience (`TimeoutStopSec`) may be shorter.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1800);

/// Runs until SIGTERM or SIGINT, or until the member gives up.
///
/// # Errors
/// What stopped it.
pub async fn run(data: &Path, operation_unit: Vec<std::ffi::OsString>) -> Result<()> {
    let config = Config::load(&data.join(CONFIG_FILE))?;
    let identity = Identity::load(data)?;
    // The identity is whole, so joining was done, though it may have been cut off before its end.
    forget_joining_key(data)?;
    let peer = identity.peer().clone();
    if peer.role != Role::Node || peer.name != config.name {
        bail!(
            "the certificate in {} is for {peer}, but {CONFIG_FILE} names the node {}: put the name back, or join again",
            data.display(),
            config.name
        );
    }
    let raft_id = identity.cert().subject.raft_id.context("the certificate names no number: join again")?;
    let boot = machine::boot_id(&config.watchdog)?;
    // The lock that Operations takes comes before anything else: one agent per node. What programs keep in its folder
    // must not outlive a boot, or probes would believe files of processes that are gone.
    let runtime = machine::runtime_dir(&machine::runtime_root(data, &config.watchdog)?, &boot)?;
    let runtime_of_boot = runtime.clone();
    let mut operations = OperationsConfig::new(runtime);
    operations.unit = operation_unit;
    let (operations, leftovers) = tokio::task::spawn_blocking(move || Operations::open(operations)).await??;
    if !leftovers.killed.is_empty() || !leftovers.stuck.is_empty() {
        warn!(killed = ?leftovers.killed, stuck = ?leftovers.stuck, "operations of an earlier agent were left over");
    }
    let incarnation = machine::next_incarnation(data)?;
    let booted_in_ms = machine::booted_in_ms(&runtime_of_boot, &config.watchdog)?;
    let kept = take_kept(MAX_KEPT).context("taking over what the service manager kept")?;
    let kept = kept.into_iter().rev().find(|(name, _)| name == KEPT_NAME).map(|(_, fd)| fd);
    let armed = kept.is_some();
    let (watchdog, guard) = tokio::task::block_in_place(|| watchdog(&config, data, kept))?;
    let acceptor = Acceptor::bind(&config.listen).await?;
    let (socket, local) = LocalSocket::start(&data.join(SOCKET_FILE), LocalAccess::default())?;
    let (identity, identity_rx) = watch::channel(Arc::new(identity));
    let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::default());
    let node = NodeConfig {
        name: config.name.clone(),
        incarnation,
        boot: boot.clone(),
        watchdog,
        machine: machine::uuid(&config.watchdog),
        armed,
        capacity: machine::capacity(),
        booted_in_ms,
        rules: Rules::ALL,
    };
    let (member, handle, wants) = Member::open(
        MemberConfig {
            cluster: peer.cluster.clone(),
            name: config.name.clone(),
            raft_id,
            store: data.join(STORE_FILE),
            identity: identity_rx,
            time: time.clone(),
            source: config.source,
            node: Some(node),
            fences: false,
        },
        &acceptor,
    )?;
    info!(node = %config.name, cluster = %peer.cluster, incarnation, boot, armed, "tiebreaker-agent is up");
    let (may_go, mut going) = watch::channel(false);
    let executor = Executor::new(handle.clone(), operations, guard, may_go);
    let leaver = handle.clone();
    handle.tell(Tell::Node(Event::LeftoversKilled)).await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { member.run().await.map_err(anyhow::Error::from) });
    tasks.spawn(execute(executor, wants));
    tasks.spawn(serve(local, handle.clone()));
    tasks.spawn(measured(runtime_of_boot, handle.clone()));
    let renewal = Renewal { dir: data.to_owned(), identity, time };
    tasks.spawn(renew(renewal, config.clone(), handle));
    if let Some(manager) = ServiceManager::from_env() {
        manager.ready().context("telling the service manager that the agent is up")?;
    }
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let asked = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        leave(&leaver, &config.watchdog, &mut going).await;
    };
    let result = tokio::select! {
        () = asked => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Ok(Ok(()))) | None => Err(anyhow::anyhow!("a part of the agent ended by itself")),
            Some(Err(error)) => Err(error).context("a part of the agent ended by itself"),
        },
    };
    // Workloads stay as they are: the next agent adopts them, and without one the watchdog ends them.
    tasks.abort_all();
    drop(socket);
    result
}

/// Tells the cluster that this agent goes, and waits until it may; for a bounded time, because who switches a machine
/// off doesn't wait for ever. What has not been agreed to by then looks like a loss.
async fn leave(member: &MemberHandle, watchdog: &WatchdogChoice, going: &mut watch::Receiver<bool>) {
    let how = machine::how_it_goes(watchdog).await;
    let within = match how {
        Leave::AgentRestart => RESTART_WITHIN,
        Leave::Reboot | Leave::PowerOff => SHUTDOWN_WITHIN,
    };
    info!(%how, within_s = within.as_secs(), "the agent is asked to end");
    member.tell(Tell::Node(Event::Leaving(how))).await;
    match tokio::time::timeout(within, going.wait_for(|may| *may)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => warn!("the executor has ended before the cluster agreed"),
        Err(_) => warn!(within_s = within.as_secs(), "the cluster has not agreed in time: going all the same"),
    }
}

/// The promise for the cluster, and the watchdog for the executor.
fn watchdog(
    config: &Config,
    data: &Path,
    kept: Option<std::os::fd::OwnedFd>,
) -> Result<(Option<WatchdogPromise>, Option<Guard>)> {
    let Some((driver, trust)) = machine::judge_watchdog(&config.watchdog, &config.accept, data)? else {
        if kept.is_some() {
            bail!(
                "the service manager keeps an armed watchdog, but {CONFIG_FILE} says watchdog = \"none\": put it back"
            );
        }
        return Ok((None, None));
    };
    let source = match &config.watchdog {
        WatchdogChoice::None => return Ok((None, None)),
        WatchdogChoice::Device(path) => WatchdogSource::Linux(path.clone()),
        WatchdogChoice::Simulated => WatchdogSource::Simulated(
            std::env::var_os(WATCHDOG_VARIABLE)
                .context("watchdog = \"simulated\" needs the supervisor: start with `tiebreaker-agent supervise`")?
                .into(),
        ),
    };
    // The stored profile decides; `status` says so where a later change waits for the agent's next start.
    let wanted = stored_profile(data)?.watchdog();
    // What an earlier agent armed runs on as it is until this one has a lease, and maybe never gets one.
    let running = match &kept {
        Some(kept) => source.running_timeout(kept).context(
            "the timeout of the watchdog that an earlier agent left armed can't be read: nothing is promised",
        )?,
        None => None,
    };
    let promised = promise(wanted, running);
    if promised > wanted {
        info!(?running, ?promised, "the watchdog that an earlier agent left armed is slower than the profile asks for");
    }
    let promised_ms = u64::try_from(promised.as_millis()).unwrap_or(u64::MAX);
    let manager = ServiceManager::from_env();
    if kept.is_none()
        && let Some(manager) = &manager
        && let Err(why) = manager.has_room()
    {
        warn!("nothing protected can be started here: {}", DogError::NoKeeper { why });
    }
    let guard = Guard::new(GuardConfig {
        source,
        promised: wanted,
        kept,
        manager,
        clock: tiebreaker_member::clock::now,
        realtime: Realtime::Try,
    });
    Ok((Some(WatchdogPromise { driver, promised_ms, trust }), Some(guard)))
}

/// What this life may promise: what the profile wants, but never less than what a watchdog keeps that runs already. A
/// feeder that was stopped between looking and petting may have started a second timeout of it.
fn promise(wanted: Duration, running: Option<Duration>) -> Duration {
    running.map_or(wanted, |timeout| wanted.max(timeout.saturating_mul(2)))
}

/// The profile as of the stored log: its snapshot, and what was committed after it.
fn stored_profile(data: &Path) -> Result<Profile> {
    let (_store, stored) = RaftStore::open(data.join(STORE_FILE))?;
    let stored = stored.context("the store is empty: join again")?;
    let snapshot = stored.snapshot.as_ref().context("the store is empty: join again")?;
    let mut profile = state::State::decode(&snapshot.state)?.settings.profile;
    for entry in stored.entries.iter().filter(|entry| entry.index <= stored.hard_state.commit) {
        if let EntryPayload::Command(bytes) = &entry.payload
            && let Ok(Entry { command: Command::SetProfile { profile: newer }, .. }) =
                cbor4ii::serde::from_slice(&bytes[..])
        {
            profile = newer;
        }
    }
    Ok(profile)
}

/// Nothing rests on what is measured, but an agent whose parts end is not well.
async fn measured(runtime: std::path::PathBuf, member: MemberHandle) -> Result<()> {
    usage::measure(runtime, member).await;
    Ok(())
}

async fn execute(mut executor: Executor, mut wants: mpsc::Receiver<Want>) -> Result<()> {
    while let Some(want) = wants.recv().await {
        match want {
            Want::Node(action) => executor.carry_out(action).await,
            Want::Join { reply, .. } => {
                // Joiners belong to the appliance; they may have the wrong address.
                let _ = reply.refuse("this is a node: join at the appliance's address".into());
            }
            Want::Renewal { reply, .. } => {
                let _ = reply.send(Reply::Refused { why: "certificates come from the appliance: ask it".into() });
            }
            Want::Device { node, device, .. } => error!(%node, device, "a power device's command on a node"),
        }
    }
    Ok(())
}

/// Requests through the node's own socket.
async fn serve(mut incoming: mpsc::Receiver<Incoming>, member: MemberHandle) -> Result<()> {
    while let Some(incoming) = incoming.recv().await {
        let Incoming::Request { from, bytes, reply } = incoming else { continue };
        let by = from.to_string();
        let member = member.clone();
        tokio::spawn(async move {
            let request = match cbor4ii::serde::from_slice(&bytes[..]) {
                Ok(request) => request,
                Err(error) => {
                    let text =
                        format!("the request can't be decoded ({error}): is your tiebreaker of another version?");
                    // The client may have gone.
                    let _ = reply.fail(text).await;
                    return;
                }
            };
            let answer = answer(&member, request, by).await;
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &answer)
                .expect("writing to memory can't fail, and every field is encodable");
            let _ = reply.only(bytes).await;
        });
    }
    Ok(())
}

async fn answer(member: &MemberHandle, request: LocalRequest, by: String) -> LocalReply {
    let cluster_name = member.state().borrow().cluster.to_string();
    match request {
        LocalRequest::Cluster { cluster: Some(other), .. } if other != cluster_name => {
            LocalReply::Refused { why: format!("this node belongs to {cluster_name}, not to {other}") }
        }
        LocalRequest::Cluster { request, .. } => LocalReply::Cluster(member.ask_for_operator(*request, by).await),
        LocalRequest::Clusters => LocalReply::Clusters { names: vec![cluster_name] },
        LocalRequest::Qdevice | LocalRequest::QdeviceInvite { .. } | LocalRequest::QdeviceEvents { .. } => {
            LocalReply::Refused { why: "this is a node: the appliance serves QDevice clients, ask there".into() }
        }
        LocalRequest::Devices { .. }
        | LocalRequest::Secrets(_)
        | LocalRequest::Fenced
        | LocalRequest::FencedHold { .. }
        | LocalRequest::FencedRelease { .. } => {
            LocalReply::Refused { why: "this is a node: the appliance keeps the power devices, ask there".into() }
        }
        LocalRequest::Backup => LocalReply::Refused {
            why: "this is a node, and needs no backup: it joins again with a new token. The appliance is what is saved"
                .into(),
        },
        LocalRequest::CreateToken { .. } => LocalReply::Refused {
            why: "tokens come from the appliance: run `tiebreaker-server token create` there".into(),
        },
    }
}

/// Renews the node's certificate at two thirds of its life.
async fn renew(renewal: Renewal, config: Config, member: MemberHandle) -> Result<()> {
    let time = renewal.time.clone();
    renewal.run(|current| renewed(&config, &member, current, &time)).await;
    Ok(())
}

async fn renewed(
    config: &Config,
    member: &MemberHandle,
    current: Arc<Identity>,
    time: &TrustedTime,
) -> Result<Identity> {
    let addresses: Vec<Address> = {
        let state = member.state();
        let state = state.borrow();
        let appliance: &MemberName = state.appliance().context("the cluster has no appliance")?;
        let member = state.members.get(appliance).context("the cluster has no appliance")?;
        member.addresses.iter().filter_map(|text| text.parse().ok()).collect()
    };
    let mut client = Client::connect(&addresses, config.source, &current, time, RENEW_WITHIN).await?;
    Ok(ask_for_renewal(&mut client, &current, RENEW_WITHIN).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_life_promises_no_less_than_the_watchdog_that_runs() {
        let [wanted, fast, slow] = [4, 1, 5].map(Duration::from_secs);
        assert_eq!(promise(wanted, None), wanted);
        assert_eq!(promise(wanted, Some(fast)), wanted);
        assert_eq!(promise(wanted, Some(slow)), Duration::from_secs(10));
    }
}
