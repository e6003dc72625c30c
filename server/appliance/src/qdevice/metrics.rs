//! The service's figures for Prometheus, in its text format 0.0.4.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tiebreaker_member::ask::{QdeviceCluster, QdeviceNode};
use tiebreaker_pipeline::state::State;
use tokio::net::TcpListener;

use super::events::{Counts, Events};
use super::questions::Questions;
use crate::figures::Figures;
use crate::http::{Answer, Asked, Method, StatusCode, accept, serve as serve_http};

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Opens a port for Prometheus; what comes back serves it for ever.
///
/// # Errors
/// When the port is taken.
pub async fn serve(
    address: SocketAddr,
    questions: Questions,
    events: Events,
    clusters: Figures,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("listening on {address} for who asks for figures: set qdevice.metrics_listen to another")
    })?;
    Ok(async move {
        let one = move |stream, _from| {
            let (questions, events, clusters) = (questions.clone(), events.clone(), clusters.clone());
            async move {
                let answer = |asked: Asked| answer(asked, &questions, &events, &clusters);
                serve_http(stream, answer).await;
            }
        };
        match accept(listener, one).await {}
    })
}

async fn answer(asked: Asked, questions: &Questions, events: &Events, figures: &Figures) -> Answer {
    match (&asked.method, asked.path.as_str()) {
        (&Method::GET, "/metrics") => match questions.status().await {
            Some(clusters) => Answer {
                status: StatusCode::OK,
                kind: MEDIA_TYPE,
                body: render(&clusters, &events.counts(), &figures.states()),
            },
            None => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the QDevice service is stopping"),
        },
        _ => Answer::text(StatusCode::NOT_FOUND, "the figures are at /metrics"),
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if number == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// One figure of each node: its name, what it means, and how it is got.
type NodeFigure = (&'static str, &'static str, fn(&QdeviceNode) -> Option<f64>);

const NODE_FIGURES: [NodeFigure; 7] = [
    ("vote", "Whether the node was told to cast the vote (1: ACK) or not to (0: NACK).", |node| {
        node.vote.as_ref().map(|vote| flag(vote == "ACK"))
    }),
    ("vote_since_timestamp_seconds", "Since when the node has that, in seconds since 1970.", |node| {
        node.since_ms.map(|since| number(since) / 1000.0)
    }),
    ("waiting", "Whether the node was told to wait and casts nothing.", |node| Some(flag(node.waits.is_some()))),
    ("quorate", "Whether the node's Corosync says that it has quorum.", |node| node.quorate.map(flag)),
    ("tls", "Whether the node speaks TLS.", |node| Some(flag(node.tls))),
    ("members", "Nodes that the node sees in its partition.", |node| Some(count(node.sees.len()))),
    ("configured", "Nodes that the node has configured.", |node| Some(count(node.configured.len()))),
];

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[allow(clippy::cast_precision_loss, reason = "counts and times are far below 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}

fn count(value: usize) -> f64 {
    u64::try_from(value).map_or(f64::INFINITY, number)
}

/// The page.
#[must_use]
pub fn render(clusters: &[QdeviceCluster], events: &Counts, own: &[Arc<State>]) -> String {
    let mut page = Page(String::new());
    page.family("tiebreaker_qdevice_clusters", "gauge", "Corosync clusters of which a node is connected.");
    page.sample("tiebreaker_qdevice_clusters", &[], clusters.len());
    page.family("tiebreaker_qdevice_nodes", "gauge", "Connected nodes of a cluster.");
    for cluster in clusters {
        let labels = [("cluster", &*cluster.name), ("algorithm", &*cluster.algorithm)];
        page.sample("tiebreaker_qdevice_nodes", &labels, cluster.nodes.len());
    }
    for (figure, help, get) in NODE_FIGURES {
        let name = format!("tiebreaker_qdevice_node_{figure}");
        page.family(&name, "gauge", help);
        for cluster in clusters {
            for node in &cluster.nodes {
                if let Some(value) = get(node) {
                    page.sample(&name, &[("cluster", &cluster.name), ("node", &node.node.to_string())], value);
                }
            }
        }
    }
    page.family("tiebreaker_qdevice_events_total", "counter", "What happened since the daemon was started, by kind.");
    for (event, count) in &events.all {
        page.sample("tiebreaker_qdevice_events_total", &[("event", event)], count);
    }
    let name = "tiebreaker_qdevice_cluster_events_total";
    page.family(name, "counter", "What happened in a cluster since the daemon was started, by kind.");
    for (cluster, counts) in &events.by_cluster {
        for (event, count) in counts {
            page.sample(name, &[("cluster", cluster), ("event", event)], count);
        }
    }
    power(&mut page, own);
    page.0
}

/// What the appliance's own clusters say of power.
fn power(page: &mut Page, clusters: &[Arc<State>]) {
    page.family("tiebreaker_power_held", "gauge", "Whether an operator holds the switching of power in a cluster.");
    for state in clusters {
        page.sample(
            "tiebreaker_power_held",
            &[("cluster", state.cluster.as_str())],
            flag(state.settings.hold.is_some()),
        );
    }
    page.family("tiebreaker_fences_open", "gauge", "Fences that are not over.");
    for state in clusters {
        let open = state.fences.values().filter(|fence| fence.is_open()).count();
        page.sample("tiebreaker_fences_open", &[("cluster", state.cluster.as_str())], open);
    }
    page.family("tiebreaker_power_device_proven", "gauge", "Whether a cluster takes the word of a power device.");
    for state in clusters {
        for (node, device) in
            state.nodes.iter().flat_map(|(node, it)| it.devices.iter().map(move |device| (node, device)))
        {
            let labels =
                [("cluster", state.cluster.as_str()), ("node", node.as_str()), ("device", device.name.as_str())];
            page.sample("tiebreaker_power_device_proven", &labels, flag(device.proven));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tiebreaker_pipeline::state::Hold;

    use super::*;

    fn node(number: u32, vote: Option<&str>) -> QdeviceNode {
        QdeviceNode {
            node: number,
            address: "192.0.2.1:4000".into(),
            tls: true,
            ring: "1.5".into(),
            sees: vec![1, 2],
            configured: vec![1, 2, 3],
            quorate: Some(true),
            vote: vote.map(Into::into),
            why: None,
            since_ms: vote.map(|_| 1_700_000_000_500),
            waits: None,
        }
    }

    fn page() -> String {
        let cluster = QdeviceCluster {
            name: "a\"b\\c".into(),
            algorithm: "ffsplit".into(),
            tie_breaker: "lowest node id".into(),
            keep_active: false,
            nodes: vec![node(1, Some("ACK")), node(2, Some("NACK")), node(3, None)],
        };
        let mut own = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        own.settings.hold = Some(Hold { by: "alice".into(), reason: None, at_ms: 0 });
        let counts = Counts {
            all: BTreeMap::from([("node_joined", 3)]),
            by_cluster: BTreeMap::from([("a\"b\\c".into(), vec![("node_joined", 2)])]),
        };
        render(&[cluster], &counts, &[Arc::new(own)])
    }

    #[test]
    fn a_parser_of_others_finds_every_figure() {
        let lines = page().lines().map(|line| Ok(line.to_owned())).collect::<Vec<_>>();
        let scrape = prometheus_parse::Scrape::parse(lines.into_iter()).unwrap();
        let find = |metric: &str, node: Option<&str>| {
            let mut found =
                scrape.samples.iter().filter(|sample| sample.metric == metric && sample.labels.get("node") == node);
            let sample = found.next().cloned();
            assert!(found.next().is_none(), "{metric} {node:?} is there twice");
            sample.map(|sample| match sample.value {
                prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => value,
                other => panic!("{metric}: {other:?}"),
            })
        };
        assert_eq!(find("tiebreaker_qdevice_clusters", None), Some(1.0));
        assert_eq!(find("tiebreaker_qdevice_nodes", None), Some(3.0));
        assert_eq!(find("tiebreaker_qdevice_node_vote", Some("1")), Some(1.0));
        assert_eq!(find("tiebreaker_qdevice_node_vote", Some("2")), Some(0.0));
        assert_eq!(find("tiebreaker_qdevice_node_vote", Some("3")), None, "unknown is not NACK");
        assert_eq!(find("tiebreaker_qdevice_node_vote_since_timestamp_seconds", Some("1")), Some(1_700_000_000.5));
        assert_eq!(find("tiebreaker_qdevice_node_members", Some("1")), Some(2.0));
        assert_eq!(find("tiebreaker_qdevice_events_total", None), Some(3.0));
        assert_eq!(find("tiebreaker_qdevice_cluster_events_total", None), Some(2.0));
        assert_eq!(find("tiebreaker_power_held", None), Some(1.0));
        assert_eq!(find("tiebreaker_fences_open", None), Some(0.0));
        let typed = |text: &str| scrape.docs.contains_key(text);
        assert!(typed("tiebreaker_qdevice_node_vote") && typed("tiebreaker_qdevice_events_total"));
    }

    #[test]
    fn names_can_not_break_out_of_their_quotes() {
        assert!(page().contains(r#"tiebreaker_qdevice_nodes{cluster="a\"b\\c",algorithm="ffsplit"} 3"#), "{}", page());
    }
}
