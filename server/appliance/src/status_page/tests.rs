use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::document::{
    ClusterAnswer, ClusterSeen, FencedNodeSeen, FencedSeen, MemberSeen, QdeviceNodeSeen, QdeviceSeen,
};
use super::machine::{Clock, Machine, Mistake, Ssh, Watchdog};
use super::*;
use crate::layout::Layout;

/// One with everything in it.
pub(super) fn document() -> Document {
    Document {
        name: "pi".into(),
        version: "0.1.0",
        now_ms: 1_700_000_100_000,
        since_ms: 1_700_000_000_000,
        up_s: 100,
        addresses: vec!["192.0.2.10".into()],
        mdns_name: Some("pi.local".into()),
        members_find_it_at: vec!["192.0.2.10:8405".into()],
        clusters: vec![ClusterSeen {
            name: "home".into(),
            answer: Some(ClusterAnswer {
                leader: Some("pi".into()),
                votes_cast: 2,
                votes: 3,
                members: vec![MemberSeen { name: "node1".into(), part: "node", votes: true, state: "online".into() }],
                power_held: true,
                fences_open: 0,
                alarms: 1,
            }),
        }],
        corosync: vec![FencedSeen {
            name: "prod".into(),
            power_held: false,
            fences_open: 1,
            nodes: vec![FencedNodeSeen { name: "pve1".into(), proven: true }],
        }],
        qdevice: Some(vec![QdeviceSeen {
            name: "pve".into(),
            algorithm: "ffsplit".into(),
            nodes: vec![QdeviceNodeSeen {
                node: 1,
                vote: Some("ACK".into()),
                why: Some("it sees all nodes".into()),
                since_ms: Some(1_700_000_000_000),
                quorate: Some(true),
            }],
        }]),
        machine: Some(Machine {
            mistake: Some(Mistake {
                file: "tiebreaker.toml".into(),
                line: Some(4),
                column: Some(1),
                what: "unknown field `server`".into(),
            }),
            watchdog: Watchdog { identity: Some("bcm2835".into()), timeout_s: Some(15), last_boot: None },
            clock: Clock { asks: true, answered_at_s: Some(12), answers: true },
            ssh: Some(Ssh::Open),
        }),
        boot_s: 40,
    }
}

#[test]
fn as_data_it_keeps_its_keys() {
    let body = document().answer().body;
    let pinned = concat!(
        r#"{"name":"pi","version":"0.1.0","now_ms":1700000100000,"since_ms":1700000000000,"up_s":100,"#,
        r#""addresses":["192.0.2.10"],"mdns_name":"pi.local","members_find_it_at":["192.0.2.10:8405"],"#,
        r#""clusters":[{"name":"home","answer":{"leader":"pi","votes_cast":2,"votes":3,"#,
        r#""members":[{"name":"node1","part":"node","votes":true,"state":"online"}],"#,
        r#""power_held":true,"fences_open":0,"alarms":1}}],"#,
        r#""corosync":[{"name":"prod","power_held":false,"fences_open":1,"nodes":[{"name":"pve1","proven":true}]}],"#,
        r#""qdevice":[{"name":"pve","algorithm":"ffsplit","nodes":[{"node":1,"vote":"ACK","why":"it sees all nodes","#,
        r#""since_ms":1700000000000,"quorate":true}]}],"#,
        r#""machine":{"mistake":{"file":"tiebreaker.toml","line":4,"column":1,"what":"unknown field `server`"},"#,
        r#""watchdog":{"identity":"bcm2835","timeout_s":15,"last_boot":null},"#,
        r#""clock":{"asks":true,"answered_at_s":12,"answers":true},"ssh":"open"},"boot_s":40}"#,
        "\n"
    );
    assert_eq!(body, pinned);
}

#[test]
fn addresses_are_checked() {
    let parse = |text: &str| -> Result<Vec<SocketAddr>, String> {
        let raw: RawStatus = toml::from_str(text).map_err(|error| error.to_string())?;
        listen(Some(&raw)).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(listen(None).unwrap(), []);
    assert_eq!(parse("listen = []").unwrap(), []);
    assert_eq!(parse("listen = ['[::]:80', '127.0.0.1:81']").unwrap().len(), 2);
    assert!(parse("listen = ['80']").unwrap_err().contains("[::]:80"));
    assert!(parse("listen = ['[::]:80']\nlisten_to = 1").unwrap_err().contains("listen_to"));
    let many = format!("listen = [{}]", "'[::]:80',".repeat(9));
    assert!(parse(&many).unwrap_err().contains("8 addresses at most"));
}

/// A daemon with one cluster that never answers, and a page on top of it; with how often the daemon was asked for clusters.
async fn served(folder: &std::path::Path) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let (asks, mut asked) = mpsc::channel::<LocalAsk>(8);
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Some(LocalAsk { request, answer, .. }) = asked.recv().await {
            let reply = match request {
                LocalRequest::Clusters => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    LocalReply::Clusters { names: vec!["home".into()] }
                }
                LocalRequest::Cluster { .. } => {
                    silent.push(answer);
                    continue;
                }
                _ => LocalReply::Refused { why: "not here".into() },
            };
            let _ = answer.send(reply);
        }
    });
    // The port is this process's own for as long as it is tried: nothing else binds to this address.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let appliance = Appliance { name: "pi".into(), addresses: Vec::new(), layout: Layout::new(folder), mdns: None };
    let page = start(&[free], appliance, asks);
    while tokio::net::TcpStream::connect(free).await.is_err() {
        tokio::task::yield_now().await;
    }
    (free, times, page)
}

async fn say(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn it_is_read_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (at, times, _page) = served(folder.path()).await;
    let head = " HTTP/1.1\r\nhost: pi\r\n\r\n";
    let page = say(at, &format!("GET /{head}")).await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("text/html") && page.contains("<h1>pi</h1>"), "{page}");
    assert!(page.contains("it doesn&#39;t answer"), "a cluster that hangs doesn't hang the page: {page}");
    for header in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "cache-control: no-store"]
    {
        assert!(page.contains(header), "{header}: {page}");
    }
    let json = say(at, &format!("GET /status.json?x=1{head}")).await;
    assert!(
        json.contains("application/json") && json.contains(r#""clusters":[{"name":"home","answer":null}]"#),
        "{json}"
    );
    assert!(say(at, &format!("GET /server.toml{head}")).await.starts_with("HTTP/1.1 404"));
    assert!(say(at, &format!("POST /{head}")).await.starts_with("HTTP/1.1 405"));
    let only_head = say(at, &format!("HEAD /{head}")).await;
    assert!(only_head.starts_with("HTTP/1.1 200") && only_head.ends_with("\r\n\r\n"), "{only_head}");
    assert!(times.load(Ordering::Relaxed) >= 1);
}

#[tokio::test(start_paused = true)]
async fn the_clusters_are_asked_once_a_second_however_many_look() {
    let folder = tempfile::tempdir().unwrap();
    let (asks, mut asked) = mpsc::channel::<LocalAsk>(8);
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    tokio::spawn(async move {
        while let Some(LocalAsk { request, answer, .. }) = asked.recv().await {
            if matches!(request, LocalRequest::Clusters) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let _ = answer.send(LocalReply::Refused { why: "none".into() });
        }
    });
    let appliance =
        Appliance { name: "pi".into(), addresses: Vec::new(), layout: Layout::new(folder.path()), mdns: None };
    let (questions, questioned) = mpsc::channel(WAITING);
    tokio::spawn(Gatherer::new(appliance, asks).run(questioned));
    for _ in 0..20 {
        gatherer::ask(&questions).await.unwrap();
    }
    assert_eq!(times.load(Ordering::Relaxed), 1);
    sleep(Duration::from_secs(1)).await;
    gatherer::ask(&questions).await.unwrap();
    assert_eq!(times.load(Ordering::Relaxed), 2);
}
