//! The authority's rules, and the engine over real sockets. TLS with stock clients is proven in `tests/interop`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tiebreaker_qnetd::wire::{
    ErrorCode, Fields, ListKind, Message, MessageKind, NodeId, NodeInfo, Opt, RingId, TieBreaker, Vote,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::settings::RawQdevice;
use super::tls::{TlsError, TlsServer, names_in};
use super::*;

const SOON: Duration = Duration::from_secs(10);

/// What corosync-qdevice-net-certutil makes for a cluster "Home": RSA-2048; its key was thrown away.
const REQUEST: &str = include_str!("tests/home.csr");

#[test]
fn a_request_is_signed_for_the_cluster_that_it_names_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Folder::of_appliance(dir.path()).open_or_make().unwrap();
    let signed = pki.sign(REQUEST.as_bytes(), "home").unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
    assert_eq!(names_in(&block.contents).unwrap().common.unwrap(), "home");
    let (_, request) = x509_parser::pem::parse_x509_pem(REQUEST.as_bytes()).unwrap();
    assert!(pki.sign(&request.contents, "home").is_ok(), "DER is what the stock script writes");
    let other = pki.sign(REQUEST.as_bytes(), "work").unwrap_err();
    assert!(matches!(&other, PkiError::OtherCluster { .. }), "{other}");
    let mut bent = request.contents.clone();
    let last = bent.len() - 1;
    bent[last] ^= 1;
    assert!(matches!(pki.sign(&bent, "home"), Err(PkiError::NotPossessed)));
    for junk in [&[][..], b"hello", &[0x30; 9000], &request.contents[..100]] {
        assert!(matches!(pki.sign(junk, "home"), Err(PkiError::Request)));
    }
}

#[test]
fn the_authority_is_made_once_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Folder::of_appliance(dir.path()).open_or_make().unwrap();
    let again = Folder::of_appliance(dir.path()).open_or_make().unwrap();
    assert_eq!(first.certificate(), again.certificate());
    assert_eq!(first.certificate_pem(), again.certificate_pem());
    assert!(!first.certificate_pem().contains("PRIVATE"));
    let path = dir.path().join("qdevice-ca.pem");
    std::fs::write(&path, "hello").unwrap();
    assert!(matches!(Folder::of_appliance(dir.path()).open_or_make(), Err(PkiError::Damaged { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        matches!(Folder::of_appliance(dir.path()).open_or_make(), Err(PkiError::File(_))),
        "others may read the key"
    );
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    async fn say(&mut self, kind: MessageKind, options: Vec<Opt>) {
        self.stream.write_all(&Message::new(kind, options).encode()).await.unwrap();
    }

    /// The next message; `None` if the server closes.
    async fn hear(&mut self) -> Option<(MessageKind, Fields)> {
        let mut head = [0; 6];
        let read = timeout(SOON, self.stream.read_exact(&mut head)).await.unwrap();
        read.ok()?;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([head[2], head[3], head[4], head[5]])).unwrap()];
        timeout(SOON, self.stream.read_exact(&mut body)).await.unwrap().unwrap();
        let kind = MessageKind::from_number(u16::from_be_bytes([head[0], head[1]])).unwrap();
        Some((kind, Fields::read(&body).unwrap()))
    }

    async fn ask(&mut self, kind: MessageKind, options: Vec<Opt>) -> Option<(MessageKind, Fields)> {
        self.say(kind, options).await;
        self.hear().await
    }

    async fn named(&mut self, cluster: &str) -> Option<(MessageKind, Fields)> {
        self.ask(MessageKind::Preinit, vec![Opt::Seq(1), Opt::ClusterName(cluster.into())]).await
    }

    async fn init(&mut self) -> Fields {
        let options = vec![
            Opt::Seq(2),
            Opt::NodeId(NodeId(1)),
            Opt::DecisionAlgorithm(1),
            Opt::HeartbeatInterval(8000),
            Opt::TieBreaker(TieBreaker::Lowest),
            Opt::RingId(RingId { node: NodeId(1), seq: 1 }),
        ];
        self.ask(MessageKind::Init, options).await.unwrap().1
    }
}

async fn service() -> (SocketAddr, Questions, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let raw: RawQdevice =
        toml::from_str("listen = ['127.0.0.1:0']\n[clusters.plain]\nplain_text = true\n[clusters.secret]").unwrap();
    let settings = Settings::check(&raw).unwrap();
    assert!(settings.serves("secret") && !settings.serves("Secret"));
    let pki = Folder::of_appliance(dir.path()).open_or_make().unwrap();
    let holders = HolderFile::in_folder(dir.path());
    let (engine, questions) = Engine::bind(&settings, &pki, Events::new(), holders, Arrived::default()).await.unwrap();
    let address = engine.addresses()[0];
    assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
    tokio::spawn(engine.run());
    (address, questions, dir)
}

#[tokio::test]
async fn a_node_gets_its_vote_and_one_can_see_why() {
    let (address, questions, _dir) = service().await;
    let mut client = Client::connect(address).await;
    client.named("plain").await.unwrap();
    assert_eq!(client.init().await.error_code, Some(0));
    let nodes = [1, 2, 3].map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(node))));
    let mut config = vec![Opt::NodeListType(ListKind::InitialConfig), Opt::Seq(3)];
    config.extend(nodes.clone());
    client.ask(MessageKind::NodeList, config).await.unwrap();
    let ring = Opt::RingId(RingId { node: NodeId(1), seq: 7 });
    let mut members = vec![Opt::NodeListType(ListKind::Membership), Opt::Seq(4), ring];
    members.extend(nodes.into_iter().take(2));
    let (kind, vote) = client.ask(MessageKind::NodeList, members).await.unwrap();
    assert_eq!((kind, vote.vote), (MessageKind::VoteInfo, Some(Vote::Ack)));
    let (kind, reply) = client.hear().await.unwrap();
    assert_eq!((kind, reply.vote), (MessageKind::NodeListReply, Some(Vote::NoChange)));
    let status = questions.status().await.unwrap();
    let node = &status[0].nodes[0];
    assert_eq!((node.vote.as_deref(), &node.sees[..], node.tls), (Some("ACK"), &[1, 2][..], false));
    let now = node.since_ms.unwrap() / 1000 + 3;
    let text = table(&status, now).replace(&node.address, "ADDRESS");
    assert_eq!(
        text,
        "cluster plain: ffsplit, a tie goes to the lowest node id\n\
         \u{20} node 1 from ADDRESS, plain text: sees 1,2 in ring 1.7\n\
         \u{20}   ACK for 3 s: the partition of nodes 1, 2 has the vote: it is the majority\n"
    );
    drop(client);
    timeout(SOON, async { while !questions.status().await.unwrap().is_empty() {} }).await.unwrap();
}

#[tokio::test]
async fn plain_text_is_served_to_clusters_that_the_configuration_names_for_it_alone() {
    let (address, _questions, _dir) = service().await;
    let mut client = Client::connect(address).await;
    client.named("secret").await.unwrap();
    let (kind, fields) = {
        client.say(MessageKind::Init, vec![Opt::Seq(2)]).await;
        client.hear().await.unwrap()
    };
    assert_eq!(kind, MessageKind::ServerError);
    assert_eq!(fields.error_code, Some(ErrorCode::TlsRequired.number()));
    let mut client = Client::connect(address).await;
    assert_eq!(client.named("unknown").await, None, "who names another cluster is not answered");
}

#[tokio::test]
async fn a_handshake_that_is_none_ends_the_connection() {
    let (address, _questions, _dir) = service().await;
    let mut client = Client::connect(address).await;
    client.named("secret").await.unwrap();
    let mut bytes = Message::new(MessageKind::StartTls, vec![Opt::Seq(2)]).encode();
    bytes.extend(b"GET / HTTP/1.1\r\n\r\n");
    client.stream.write_all(&bytes).await.unwrap();
    let mut rest = Vec::new();
    let _either_way = timeout(SOON, client.stream.read_to_end(&mut rest)).await.unwrap();
    // An alert, in a record of its own, and the end.
    assert_eq!(rest.first(), Some(&21), "{rest:02x?}");
}

#[tokio::test]
async fn many_messages_in_one_segment_are_all_answered() {
    let (address, _questions, _dir) = service().await;
    let mut client = Client::connect(address).await;
    client.named("plain").await.unwrap();
    client.init().await;
    let echo = Message::new(MessageKind::EchoRequest, vec![Opt::Seq(9)]).encode();
    client.stream.write_all(&echo.repeat(2000)).await.unwrap();
    for _ in 0..2000 {
        let (kind, fields) = client.hear().await.unwrap();
        assert_eq!((kind, fields.seq), (MessageKind::EchoReply, Some(9)));
    }
}

#[test]
fn of_a_handshake_little_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tls = TlsServer::new(&Folder::of_appliance(dir.path()).open_or_make().unwrap(), true).unwrap();
    let mut stream = tls.accept().unwrap();
    // A first message that says it has 60 kB, in records of 8 kB.
    let record = |body: &[u8]| [&[22, 3, 1][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let mut first = vec![1, 0, 0xea, 0x60];
    first.resize(8192, 0);
    let mut results = Vec::new();
    for body in [first, vec![0; 8192], vec![0; 8192]] {
        results.push(stream.receive(&record(&body), &mut Vec::new(), &mut Vec::new()));
    }
    assert!(results[0].is_ok(), "{results:?}");
    assert!(matches!(results[1..], [Err(TlsError::TooLong), ..] | [_, Err(TlsError::TooLong)]), "{results:?}");
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: pi\r\n\r\n").as_bytes()).await.unwrap();
    let mut said = String::new();
    timeout(SOON, stream.read_to_string(&mut said)).await.unwrap().unwrap();
    said
}

#[tokio::test]
async fn prometheus_fetches_the_figures_over_http() {
    let (address, questions, _dir) = service().await;
    let mut client = Client::connect(address).await;
    client.named("plain").await.unwrap();
    client.init().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let events = Events::new();
    events.happened(tiebreaker_member::ask::QdeviceHappening::Started { kept: 0 });
    let serving =
        tokio::spawn(serve_metrics(free, questions, events, crate::figures::Figures::default()).await.unwrap());
    let said = get(free, "/metrics").await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let scrape = prometheus_parse::Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let value = |name: &str, label: &str, text: &str| {
        let sample =
            scrape.samples.iter().find(|sample| sample.metric == name && sample.labels.get(label) == Some(text));
        match sample.unwrap().value {
            prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => value,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(value("tiebreaker_qdevice_nodes", "cluster", "plain").to_string(), "1");
    assert_eq!(value("tiebreaker_qdevice_node_tls", "node", "1").to_string(), "0");
    assert_eq!(value("tiebreaker_qdevice_events_total", "event", "started").to_string(), "1");
    assert!(get(free, "/other").await.starts_with("HTTP/1.1 404"));
    serving.abort();
}
