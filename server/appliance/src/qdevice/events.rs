//! What happens in the service, told once and read by all: the log, `qdevice events`, alerts, counters.
//!
//! The newest events are kept in memory, so many and no more. What strangers cause is counted in full, but told only so
//! often: nobody outside shall be able to wash the rest away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tiebreaker_member::EARLIEST_PLAUSIBLE;
use tiebreaker_member::ask::{LocalReply, QdeviceEvent, QdeviceHappening};
use tiebreaker_member::clock::{self, ClockFault, LOOK_AT_WALL_EVERY, WallWatch};
use tiebreaker_qnetd::{ChosenBy, CloseReason, Notice};
use tokio::sync::watch;
use tracing::{info, warn};

use super::kept::KeptEvents;

/// Strangers' events that are told at once, and how long it takes until one more may be.
const STRANGERS_AT_ONCE: u32 = 20;
const ONE_MORE_AFTER: Duration = Duration::from_secs(3);

/// A certificate that ends in less than this is told.
const ENDS_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// So many clusters have counters of their own; what happens to others is counted with all.
const CLUSTERS_COUNTED: usize = 10_000;

/// How often each kind of event happened since the daemon was started; suppressed ones count, too.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// In all.
    pub all: BTreeMap<&'static str, u64>,
    /// By cluster, of those that name one which is served; each kind once.
    pub by_cluster: BTreeMap<String, Vec<(&'static str, u64)>>,
}

impl Counts {
    fn count(&mut self, kind: &'static str, what: &QdeviceHappening) {
        *self.all.entry(kind).or_default() += 1;
        let Some(cluster) = served_cluster(what) else { return };
        if let Some(counts) = self.by_cluster.get_mut(cluster) {
            match counts.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind, 1)),
            }
        } else if self.by_cluster.len() < CLUSTERS_COUNTED {
            self.by_cluster.insert(cluster.to_owned(), vec![(kind, 1)]);
        }
    }
}

/// The events of this run of the daemon. Clones are the same.
#[derive(Clone)]
pub struct Events {
    history: Arc<Mutex<History>>,
    newest: Arc<watch::Sender<u64>>,
}

struct History {
    run: u64,
    kept: KeptEvents,
    last: u64,
    counts: Counts,
    strangers: Allowance,
}

/// So many at once, and one more every so often.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < STRANGERS_AT_ONCE && now.saturating_duration_since(self.since) >= ONE_MORE_AFTER {
            self.left += 1;
            self.since += ONE_MORE_AFTER;
        }
        if self.left == STRANGERS_AT_ONCE {
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Events {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        // Numbers begin anew with each run: who follows must see that it is another.
        let run = u64::try_from(unix().as_micros()).unwrap_or_default();
        let strangers = Allowance { left: STRANGERS_AT_ONCE, since: Instant::now() };
        let history = History { run, kept: KeptEvents::default(), last: 0, counts: Counts::default(), strangers };
        Self { history: Arc::new(Mutex::new(history)), newest: Arc::new(watch::Sender::new(0)) }
    }

    /// Something has happened.
    pub fn happened(&self, what: QdeviceHappening) {
        let (kind, warning, text) = told(&what);
        let mut history = self.history();
        history.counts.count(kind, &what);
        if by_stranger(&what) && !history.strangers.take(Instant::now()) {
            return;
        }
        if warning {
            warn!("{text}");
        } else {
            info!("{text}");
        }
        history.last += 1;
        let at_ms = u64::try_from(unix().as_millis()).unwrap_or_default();
        let event = QdeviceEvent { number: history.last, at_ms, warning, what, text };
        history.kept.push(&event);
        let last = history.last;
        drop(history);
        self.newest.send_replace(last);
    }

    /// The vote service has something to tell.
    pub fn noticed(&self, notice: &Notice) {
        self.happened(happening(notice));
    }

    /// A node has shown a certificate that ends at this time, in seconds since 1970.
    pub fn certificate(&self, cluster: Option<String>, address: Option<String>, ends: i64) {
        let ends = Duration::from_secs(u64::try_from(ends).unwrap_or_default());
        if ends < unix().max(Duration::from_secs(EARLIEST_PLAUSIBLE)) + ENDS_SOON {
            let ends_ms = u64::try_from(ends.as_millis()).unwrap_or(u64::MAX);
            self.happened(QdeviceHappening::CertificateEnds { cluster, address, ends_ms });
        }
    }

    /// How often each kind happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.history().counts.clone()
    }

    /// Does something while what is counted by cluster is packed into a few pieces of memory. Each of the many was allocated among the
    /// memory of a cluster's clients, and would keep a page of that from going back to the system.
    pub fn while_packed(&self, act: impl FnOnce()) {
        let mut history = self.history();
        let (mut names, mut counts, mut lengths) = (String::new(), Vec::new(), Vec::new());
        for (name, of_cluster) in std::mem::take(&mut history.counts.by_cluster) {
            names.push_str(&name);
            lengths.push((name.len(), of_cluster.len()));
            counts.extend(of_cluster);
        }
        act();
        let (mut names, mut counts) = (names.as_str(), counts.into_iter());
        for (name, kinds) in lengths {
            let (name, rest) = names.split_at(name);
            names = rest;
            history.counts.by_cluster.insert(name.to_owned(), counts.by_ref().take(kinds).collect());
        }
    }

    /// The events after a number, oldest first; waits for one if there is none.
    pub async fn after(&self, run: Option<u64>, after: u64, wait: Duration) -> LocalReply {
        let mut newest = self.newest.subscribe();
        let own = self.history().run;
        // Another run's number says nothing here.
        let after = if run.is_none_or(|run| run == own) { after } else { 0 };
        // Its end without an event is an answer, too.
        let _nothing = tokio::time::timeout(wait, newest.wait_for(|newest| *newest > after)).await;
        let history = self.history();
        let events = history.kept.after(after);
        let first = events.first().map_or(history.last + 1, |event| event.number);
        LocalReply::QdeviceEvents { run: own, missed: first.saturating_sub(after + 1), events }
    }

    /// Looks at the clock, for ever: it may never have been set, and it may be set at any time.
    pub async fn watch_clock(self) {
        let mut watch = WallWatch::default();
        loop {
            if let Some(fault) = watch.look(clock::wall_ms(), clock::now()) {
                let jumped_s = match fault {
                    ClockFault::NeverSet => None,
                    ClockFault::Jumped { by_s } => Some(by_s),
                };
                self.happened(QdeviceHappening::ClockWrong { jumped_s });
            }
            tokio::time::sleep(LOOK_AT_WALL_EVERY).await;
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // Nothing in there is left half-done by a panic.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whether somebody who belongs to no cluster of ours can cause it.
fn by_stranger(what: &QdeviceHappening) -> bool {
    matches!(
        what,
        QdeviceHappening::UnknownCluster { .. }
            | QdeviceHappening::TurnedAway { .. }
            | QdeviceHappening::Refused { .. }
    )
}

/// The cluster that it is about, unless a stranger has only named it.
fn served_cluster(what: &QdeviceHappening) -> Option<&str> {
    match what {
        QdeviceHappening::NodeJoined { cluster, .. }
        | QdeviceHappening::NodeLeft { cluster, .. }
        | QdeviceHappening::VoteMoved { cluster, .. }
        | QdeviceHappening::PartitionChosen { cluster, .. }
        | QdeviceHappening::TieBroken { cluster, .. }
        | QdeviceHappening::Invited { cluster, .. } => Some(cluster),
        QdeviceHappening::CertificateEnds { cluster, .. } => cluster.as_deref(),
        QdeviceHappening::Started { .. }
        | QdeviceHappening::HoldersUnknown { .. }
        | QdeviceHappening::HoldersNotKept { .. }
        | QdeviceHappening::UnknownCluster { .. }
        | QdeviceHappening::TurnedAway { .. }
        | QdeviceHappening::Refused { .. }
        | QdeviceHappening::ClockWrong { .. } => None,
    }
}

fn happening(notice: &Notice) -> QdeviceHappening {
    match notice {
        Notice::Joined { cluster, node, address } => {
            QdeviceHappening::NodeJoined { cluster: cluster.to_string(), node: node.0, address: address.to_string() }
        }
        Notice::Left { cluster, node, why } => {
            QdeviceHappening::NodeLeft { cluster: cluster.to_string(), node: node.0, why: why.to_string() }
        }
        Notice::TurnedAway { address, why: CloseReason::UnknownCluster(cluster) } => {
            QdeviceHappening::UnknownCluster { cluster: cluster.to_string(), address: address.to_string() }
        }
        Notice::TurnedAway { address, why } => {
            QdeviceHappening::TurnedAway { address: address.to_string(), why: why.to_string() }
        }
        Notice::Refused { address, code } => {
            QdeviceHappening::Refused { address: address.to_string(), why: code.to_string() }
        }
        Notice::Moved { cluster, node, from, to, reason } => QdeviceHappening::VoteMoved {
            cluster: cluster.to_string(),
            node: node.0,
            from: from.map(|vote| vote.to_string()),
            to: to.to_string(),
            why: reason.to_string(),
        },
        Notice::Chosen { cluster, partition, by } => {
            let (cluster, nodes, why) =
                (cluster.to_string(), partition.iter().map(|node| node.0).collect(), by.to_string());
            match by {
                ChosenBy::TieBreaker | ChosenBy::KeptActive => QdeviceHappening::TieBroken { cluster, nodes, why },
                ChosenBy::Majority | ChosenBy::Alone | ChosenBy::Score | ChosenBy::Size | ChosenBy::OthersNew => {
                    QdeviceHappening::PartitionChosen { cluster, nodes, why }
                }
            }
        }
    }
}

/// The kind as it is counted, whether a person should look, and the sentence.
fn told(what: &QdeviceHappening) -> (&'static str, bool, String) {
    let list = |nodes: &[u32]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match what {
        QdeviceHappening::Started { kept: 0 } => ("started", false, "the QDevice service begins".into()),
        QdeviceHappening::Started { kept } => {
            ("started", false, format!("the QDevice service goes on with {kept} connections of the former process"))
        }
        QdeviceHappening::HoldersUnknown { why } => (
            "holders_unknown",
            true,
            format!("who had the votes before is not known, so nodes that don't see all others wait a while: {why}"),
        ),
        QdeviceHappening::HoldersNotKept { why } => (
            "holders_not_kept",
            true,
            format!("no vote goes to other nodes than before until it can be kept on the disk who has it: {why}"),
        ),
        QdeviceHappening::NodeJoined { cluster, node, address } => {
            ("node_joined", false, format!("cluster {cluster}: node {node} has joined from {address}"))
        }
        QdeviceHappening::NodeLeft { cluster, node, why } => {
            ("node_left", true, format!("cluster {cluster}: node {node} has gone: {why}"))
        }
        QdeviceHappening::VoteMoved { cluster, node, to, why, .. } => {
            ("vote_moved", to != "ACK", format!("cluster {cluster}: node {node} has {to}: {why}"))
        }
        QdeviceHappening::PartitionChosen { cluster, nodes, .. } if nodes.is_empty() => {
            ("partition_chosen", true, format!("cluster {cluster}: no partition has the vote"))
        }
        QdeviceHappening::PartitionChosen { cluster, nodes, why } => (
            "partition_chosen",
            false,
            format!("cluster {cluster}: the partition of {} has the vote: {why}", list(nodes)),
        ),
        QdeviceHappening::TieBroken { cluster, nodes, why } => {
            let text = format!("cluster {cluster}: two equal halves, the one of {} has the vote: {why}", list(nodes));
            ("tie_broken", true, text)
        }
        QdeviceHappening::UnknownCluster { cluster, address } => {
            let text = format!(
                "{address} names the cluster {cluster}, which is not served here: add it to the configuration if it should be"
            );
            ("unknown_cluster", true, text)
        }
        QdeviceHappening::TurnedAway { address, why } => {
            ("turned_away", true, format!("{address} is turned away: {why}"))
        }
        QdeviceHappening::Refused { address, why } => ("refused", true, format!("{address} is refused: {why}")),
        QdeviceHappening::CertificateEnds { cluster, address, ends_ms } => {
            let whose = match (cluster, address) {
                (Some(cluster), Some(address)) => format!("the certificate of cluster {cluster} that {address} shows"),
                (Some(cluster), None) => format!("the certificate of cluster {cluster}"),
                (None, _) => "the QDevice authority's certificate".into(),
            };
            let now = u64::try_from(unix().as_millis()).unwrap_or_default();
            let days = ends_ms.saturating_sub(now) / (24 * 3600 * 1000);
            ("certificate_ends", true, format!("{whose} ends in {days} days: make a new one"))
        }
        QdeviceHappening::ClockWrong { jumped_s: None } => {
            ("clock_wrong", true, "this machine's clock was never set: times in logs are wrong until it is".into())
        }
        QdeviceHappening::ClockWrong { jumped_s: Some(by) } => {
            ("clock_wrong", true, format!("this machine's clock has jumped by {by} s"))
        }
        QdeviceHappening::Invited { cluster, address: None } => {
            ("invited", false, format!("cluster {cluster}: a node is invited"))
        }
        QdeviceHappening::Invited { cluster, address: Some(address) } => {
            ("invited", false, format!("cluster {cluster}: the invited node {address} has its certificate"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tiebreaker_qnetd::wire::{NodeId, Vote};
    use tiebreaker_qnetd::{ClusterName, Reason};

    use super::*;

    fn moved(node: u32) -> Notice {
        Notice::Moved {
            cluster: ClusterName::from("home"),
            node: NodeId(node),
            from: None,
            to: Vote::Nack,
            reason: Reason::NoneChosen,
        }
    }

    async fn all(events: &Events, after: u64) -> (u64, Vec<QdeviceEvent>, u64) {
        match events.after(None, after, Duration::ZERO).await {
            LocalReply::QdeviceEvents { run, events, missed } => (run, events, missed),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_are_numbered_bounded_and_say_what_was_missed() {
        let events = Events::new();
        assert_eq!(all(&events, 0).await.1, []);
        for node in 0..1500 {
            events.noticed(&moved(node));
        }
        let (_, kept, missed) = all(&events, 0).await;
        assert_eq!((kept.len(), missed), (1000, 500));
        assert_eq!((kept[0].number, kept[999].number), (501, 1500));
        let (_, kept, missed) = all(&events, 1499).await;
        assert_eq!((kept.len(), missed), (1, 0));
        assert_eq!(kept[0].text, "cluster home: node 1499 has NACK: no partition can have the vote");
        assert!(kept[0].warning);
        let json = serde_json::to_value(&kept[0]).unwrap();
        assert_eq!((&json["event"], &json["node"], &json["to"]), (&"vote_moved".into(), &1499.into(), &"NACK".into()));
        assert_eq!(all(&events, 1500).await.2, 0);
    }

    #[tokio::test]
    async fn who_follows_is_woken_and_sees_another_run() {
        let events = Events::new();
        let (run, ..) = all(&events, 0).await;
        let following = tokio::spawn({
            let events = events.clone();
            async move { events.after(Some(run), 0, Duration::from_secs(60)).await }
        });
        events.noticed(&moved(1));
        let LocalReply::QdeviceEvents { events: heard, .. } = following.await.unwrap() else { panic!("no events") };
        assert_eq!(heard.len(), 1);
        let other = events.after(Some(run + 1), 700, Duration::ZERO).await;
        let LocalReply::QdeviceEvents { events: heard, missed, .. } = other else { panic!("no events") };
        assert_eq!((heard.len(), missed), (1, 0), "the other run's number counts for nothing");
    }

    #[tokio::test]
    async fn strangers_can_not_wash_the_rest_away() {
        let events = Events::new();
        events.noticed(&moved(1));
        let address = SocketAddr::from(([192, 0, 2, 1], 4000));
        for _ in 0..5000 {
            let why = CloseReason::UnknownCluster(ClusterName::from("who"));
            events.noticed(&Notice::TurnedAway { address, why });
        }
        let (_, kept, _) = all(&events, 0).await;
        assert!((21..30).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[0].text, "cluster home: node 1 has NACK: no partition can have the vote");
        assert_eq!(events.counts().all["unknown_cluster"], 5000);
        events.while_packed(|| {});
        let clusters = events.counts().by_cluster;
        assert_eq!(clusters, BTreeMap::from([("home".into(), vec![("vote_moved", 1)])]), "and no stranger's");
    }

    #[test]
    fn what_is_packed_meanwhile_is_counted_as_before() {
        let events = Events::new();
        let all = BTreeMap::from([
            ("a".into(), vec![("vote_moved", 1), ("node_left", 2)]),
            ("bb".into(), vec![("node_joined", 3)]),
            ("ccc".into(), vec![("node_left", 4), ("node_joined", 5), ("vote_moved", 6)]),
        ]);
        events.history().counts.by_cluster = all.clone();
        let mut acted = false;
        events.while_packed(|| acted = true);
        assert!(acted);
        assert_eq!(events.counts().by_cluster, all);
    }

    #[test]
    fn a_tie_that_was_broken_is_told_apart() {
        let chosen = |by| {
            let (cluster, partition) = (ClusterName::from("home"), vec![NodeId(1)]);
            happening(&Notice::Chosen { cluster, partition, by })
        };
        assert!(matches!(chosen(ChosenBy::TieBreaker), QdeviceHappening::TieBroken { .. }));
        assert!(matches!(chosen(ChosenBy::Majority), QdeviceHappening::PartitionChosen { .. }));
    }

    #[tokio::test]
    async fn a_certificate_near_its_end_is_told_and_others_are_not() {
        let events = Events::new();
        let now = i64::try_from(unix().as_secs()).unwrap();
        let day = 24 * 3600;
        events.certificate(Some("home".into()), None, now + 31 * day);
        assert_eq!(all(&events, 0).await.1, []);
        events.certificate(Some("home".into()), Some("192.0.2.1:4000".into()), now + 29 * day + 3600);
        let (_, kept, _) = all(&events, 0).await;
        assert_eq!(
            kept[0].text,
            "the certificate of cluster home that 192.0.2.1:4000 shows ends in 29 days: make a new one"
        );
    }
}
