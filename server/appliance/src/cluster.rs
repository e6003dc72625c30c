//! One cluster on the appliance: its member of consensus, its devices, and the doors that it serves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::runtime::{Member, MemberConfig, MemberError, MemberHandle, Want};
use tiebreaker_member::{Acceptor, Renewal, Subject, SystemClock, TimeFloor, TrustedTime};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::profile::Profile;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::audit::Audit;
use crate::config::ClusterConfig;
use crate::devices::Devices;
use crate::fence_watch;
use crate::joins::SharedGate;
use crate::layout::{Layout, appliance_subject};

/// A running cluster.
pub struct Cluster {
    /// The way to its member.
    pub member: MemberHandle,
    /// Its power devices.
    pub devices: Devices,
    tasks: JoinSet<Result<(), MemberError>>,
}

impl Cluster {
    /// Opens the cluster's store and starts its tasks.
    ///
    /// # Errors
    /// When its files are missing or damaged.
    pub fn start(
        layout: &Layout,
        name: &ClusterName,
        appliance: &MemberName,
        config: ClusterConfig,
        gate: &SharedGate,
        acceptor: &Acceptor,
        audit: &Audit,
    ) -> Result<Self> {
        let identity = layout.identity(name)?;
        let raft_id = identity.cert().subject.raft_id.context("the appliance's certificate names no number")?;
        let (identity, identity_rx) = watch::channel(Arc::new(identity));
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::default());
        let member = MemberConfig {
            cluster: name.clone(),
            name: appliance.clone(),
            raft_id,
            store: layout.store(name),
            identity: identity_rx,
            time: time.clone(),
            source: None,
            node: None,
            fences: true,
        };
        let (member, handle, wants) = Member::open(member, acceptor)?;
        let member = match config.most_level {
            Some(level) => member.knowing_at_most(level),
            None => member,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(member.run());
        let devices = Devices::new(name, &config, audit.clone(), layout.root())?;
        tasks.spawn(forever(fence_watch::watch(handle.clone(), audit.clone(), layout.root().to_owned())));
        tasks.spawn(serve(name.clone(), handle.clone(), devices.clone(), Arc::clone(gate), wants));
        tasks.spawn(forever(devices.clone().prove(handle.clone())));
        let renewal = Renewal { dir: layout.cluster(name), identity, time };
        let subject = appliance_subject(name, appliance, raft_id);
        tasks.spawn(forever(renew_own(renewal, Arc::clone(gate), subject)));
        tasks.spawn(forever(set(handle.clone(), config.profile, config.takeback)));
        Ok(Self { member: handle, devices, tasks })
    }

    /// Waits until one of the cluster's tasks fails.
    pub async fn failed(&mut self) -> MemberError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return error,
                Some(Ok(Ok(()))) => {}
                Some(Err(error)) => return MemberError::Task { why: error.to_string() },
                None => return MemberError::Task { why: "all have ended".into() },
            }
        }
    }
}

async fn forever(task: impl Future<Output = ()>) -> Result<(), MemberError> {
    task.await;
    Ok(())
}

async fn serve(
    cluster: ClusterName,
    member: MemberHandle,
    devices: Devices,
    gate: SharedGate,
    mut wants: mpsc::Receiver<Want>,
) -> Result<(), MemberError> {
    while let Some(want) = wants.recv().await {
        match want {
            Want::Device { token, node, device, command } => {
                devices.command(member.clone(), token, node, device, command);
            }
            Want::Join { from, request, reply } => {
                let (cluster, member, gate) = (cluster.clone(), member.clone(), Arc::clone(&gate));
                tokio::spawn(async move {
                    let name = request.name.to_string();
                    let answer = gate.admit(&cluster, &member, request).await;
                    let told = match answer {
                        Ok(bytes) => {
                            info!(%cluster, name, %from, "joined");
                            reply.accept(bytes)
                        }
                        Err(error) => {
                            warn!(%cluster, name, %from, "refused to let a machine join: {error:#}");
                            reply.refuse(format!("{error:#}"))
                        }
                    };
                    if told.is_err() {
                        warn!(%cluster, name, %from, "the joiner went away before it had its answer");
                    }
                });
            }
            Want::Renewal { from, csr, reply } => {
                let answer = match gate.renew(&member, &from, &csr) {
                    Ok(der) => {
                        info!(%cluster, member = %from.name, "certificate renewed");
                        Reply::Certificate { der }
                    }
                    Err(error) => Reply::Refused { why: format!("{error:#}") },
                };
                // Who asked may have gone; it asks again.
                let _ = reply.send(answer);
            }
            // The appliance runs no workloads, so its member has no executor.
            Want::Node(_) => error!("an action of a node's executor on the appliance"),
        }
    }
    Ok(())
}

/// What is configured is proposed once; afterwards the cluster remembers it.
async fn set(member: MemberHandle, profile: Option<Profile>, takeback: Option<Duration>) {
    let settings = member.state().borrow().settings.clone();
    let profile = profile.filter(|profile| settings.profile != *profile);
    let seconds = takeback.map(|takeback| takeback.as_secs()).filter(|seconds| settings.takeback_s != Some(*seconds));
    let commands = profile.map(|profile| Command::SetProfile { profile }).into_iter();
    for command in commands.chain(seconds.map(|seconds| Command::SetTakeback { seconds })) {
        // No leader yet: a cluster may start in any order.
        while !matches!(member.ask(Request::Propose(command.clone())).await, Reply::Done { .. }) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Renews the appliance's own certificate in the cluster: it is its own authority.
async fn renew_own(renewal: Renewal, gate: SharedGate, subject: Subject) {
    let time = renewal.time.clone();
    renewal.run(|_current| async { gate.issue_own(&subject, &time) }).await;
}
