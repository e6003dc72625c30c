//! Who gathers what there is to see: through the same door as the commands on the appliance, and once a second at most.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::core::{Reply, Request};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::document::{ClusterAnswer, ClusterSeen, Document, FencedSeen, QdeviceSeen};
use super::machine::{Machine, boot_s};
use super::{Appliance, Seen};
use crate::desk::unix_ms;
use crate::local::LocalAsk;

/// For so long what was seen is shown to who comes next.
const FRESH: Duration = Duration::from_secs(1);
/// A cluster that has not answered by then is shown as one that doesn't.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Who asks, as the daemon's log and audit would name it.
const BY: &str = "the status page";

/// Somebody who wants to see.
pub(super) type Question = oneshot::Sender<Seen>;

/// Asks the one who gathers; `None` if the daemon ends.
pub(super) async fn ask(questions: &mpsc::Sender<Question>) -> Option<Seen> {
    let (answer, answered) = oneshot::channel();
    questions.send(answer).await.ok()?;
    answered.await.ok()
}

pub(super) struct Gatherer {
    appliance: Appliance,
    asks: mpsc::Sender<LocalAsk>,
    began: Instant,
}

impl Gatherer {
    pub(super) fn new(appliance: Appliance, asks: mpsc::Sender<LocalAsk>) -> Self {
        Self { appliance, asks, began: Instant::now() }
    }

    /// Answers until nobody can ask any more.
    pub(super) async fn run(self, mut asked: mpsc::Receiver<Question>) {
        let mut last: Option<(Instant, Seen)> = None;
        while let Some(question) = asked.recv().await {
            let seen = match &last {
                Some((at, seen)) if at.elapsed() < FRESH => Arc::clone(seen),
                Some(_) | None => {
                    let seen = Arc::new(self.gather().await);
                    last = Some((Instant::now(), Arc::clone(&seen)));
                    seen
                }
            };
            // Who asked may have gone.
            let _ = question.send(seen);
        }
    }

    async fn gather(&self) -> Document {
        let (clusters, corosync, qdevice) = tokio::join!(self.clusters(), self.corosync(), self.qdevice());
        let up = self.began.elapsed();
        let now_ms = unix_ms();
        Document {
            name: self.appliance.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            now_ms,
            since_ms: now_ms.saturating_sub(u64::try_from(up.as_millis()).unwrap_or(u64::MAX)),
            up_s: up.as_secs(),
            addresses: addresses(),
            mdns_name: self.appliance.mdns.as_ref().map(|name| name.borrow().clone()),
            members_find_it_at: self.appliance.addresses.clone(),
            clusters,
            corosync,
            qdevice,
            machine: Machine::look(),
            boot_s: boot_s(),
        }
    }

    async fn clusters(&self) -> Vec<ClusterSeen> {
        // Those that have stopped have a folder all the same.
        let mut names: BTreeSet<String> =
            self.appliance.layout.clusters().into_iter().flatten().map(|name| name.to_string()).collect();
        if let Some(LocalReply::Clusters { names: running }) = ask_daemon(&self.asks, LocalRequest::Clusters).await {
            names.extend(running);
        }
        let mut asked = JoinSet::new();
        for name in names {
            let asks = self.asks.clone();
            asked.spawn(async move {
                let request = LocalRequest::Cluster { cluster: Some(name.clone()), request: Box::new(Request::Status) };
                let answer = match ask_daemon(&asks, request).await {
                    Some(LocalReply::Cluster(Reply::Status(status))) => Some(ClusterAnswer::of(&status)),
                    Some(_) | None => None,
                };
                ClusterSeen { name, answer }
            });
        }
        let mut seen = asked.join_all().await;
        seen.sort_by(|one, other| one.name.cmp(&other.name));
        seen
    }

    async fn corosync(&self) -> Vec<FencedSeen> {
        match ask_daemon(&self.asks, LocalRequest::Fenced).await {
            Some(LocalReply::Fenced { clusters }) => clusters.iter().map(FencedSeen::from).collect(),
            Some(_) | None => Vec::new(),
        }
    }

    async fn qdevice(&self) -> Option<Vec<QdeviceSeen>> {
        match ask_daemon(&self.asks, LocalRequest::Qdevice).await {
            Some(LocalReply::Qdevice { clusters }) => Some(clusters.into_iter().map(QdeviceSeen::from).collect()),
            Some(_) | None => None,
        }
    }
}

/// Asks the daemon as a command on the appliance does; `None` if it doesn't answer in time.
async fn ask_daemon(asks: &mpsc::Sender<LocalAsk>, request: LocalRequest) -> Option<LocalReply> {
    let asked = async {
        let (answer, answered) = oneshot::channel();
        asks.send(LocalAsk { request, by: BY.into(), answer }).await.ok()?;
        answered.await.ok()
    };
    timeout(ANSWERS_WITHIN, asked).await.ok().flatten()
}

/// This machine's addresses, IPv4 first, without those that lead nowhere else.
fn addresses() -> Vec<String> {
    let mut all: Vec<std::net::IpAddr> = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().filter(|it| !it.is_loopback()).map(if_addrs::Interface::ip).collect(),
        // The page is for looking: without them it still shows the rest.
        Err(_) => Vec::new(),
    };
    all.sort();
    all.dedup();
    all.iter().map(ToString::to_string).collect()
}
