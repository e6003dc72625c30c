//! Scenarios in virtual time, written down as transcripts: who says what, and what comes back.

mod bounds;
mod crash;
mod handover;
mod lost;
mod safety;
mod scenarios;
mod tls;

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    config::{Clusters, TlsMode},
    wire::{Algorithm, Fields, Heuristics, ListKind, NodeId, NodeInfo, TieBreaker},
};

/// A server and the script of what is said to it.
struct Script {
    server: Server,
    begun: Instant,
    now: Instant,
    algorithm: Algorithm,
    tie_breaker: TieBreaker,
    configured: u32,
    text: String,
    /// VOTE_INFOs that were not confirmed yet.
    unconfirmed: Vec<(u64, u32)>,
    /// What is on the disk; nothing gets there any more if it is full.
    kept: Remembered,
    full: bool,
}

impl Script {
    fn new(algorithm: Algorithm) -> Self {
        Self::with(algorithm, Config::new(Clusters::Any(TlsMode::Off)))
    }

    fn with(algorithm: Algorithm, config: Config) -> Self {
        let begun = Instant::now();
        Self {
            server: Server::new(config),
            begun,
            now: begun,
            algorithm,
            tie_breaker: TieBreaker::Lowest,
            configured: 2,
            text: String::new(),
            unconfirmed: Vec::new(),
            kept: Remembered::default(),
            full: false,
        }
    }

    fn event(&mut self, event: Event) {
        self.server.handle(self.now, event);
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Send { client, bytes } => {
                    let (kind, fields) = read(&bytes);
                    let _ = writeln!(self.text, "      {} < {}", client.0, describe(kind, &fields));
                    if let (MessageKind::VoteInfo, Some(seq)) = (kind, fields.seq) {
                        self.unconfirmed.push((client.0, seq));
                    }
                    self.server.handle(self.now, Event::Sent { client, messages: 1 });
                }
                Action::Close { client, why } => {
                    self.unconfirmed.retain(|(to, _)| *to != client.0);
                    let _ = writeln!(self.text, "      {} closed: {why}", client.0);
                }
                Action::StartTls { client, rest } => {
                    let _ = writeln!(self.text, "      {} TLS, {} bytes of it are here", client.0, rest.len());
                }
                Action::Tell(Notice::Moved { node, to, reason, .. }) => {
                    let _ = writeln!(self.text, "      node {node} has {to}: {reason}");
                }
                Action::Remember { .. } if self.full => {}
                Action::Remember { number, .. } => {
                    self.kept = self.server.remembered();
                    self.server.handle(self.now, Event::Remembered { number });
                }
                Action::Tell(_) | Action::Read { .. } => {}
            }
        }
    }

    fn say(&mut self, client: u64, kind: MessageKind, options: Vec<Opt>) {
        let message = Message::new(kind, options);
        let (_, fields) = read(&message.encode());
        let _ = writeln!(self.text, "{:>5} {client} > {}", self.millis(), describe(kind, &fields));
        self.event(Event::Received { client: ClientId(client), bytes: message.encode() });
    }

    fn millis(&self) -> u128 {
        self.now.duration_since(self.begun).as_millis()
    }

    /// A client of this number, for the node of this number, up to its lists.
    fn joins(&mut self, client: u64) {
        self.connects(client);
        let node = NodeId(u32::try_from(client).unwrap());
        self.introduces(client, node);
        self.configures(client);
    }

    fn connects(&mut self, client: u64) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        self.event(Event::Connected { client: ClientId(client), address });
    }

    fn introduces(&mut self, client: u64, node: NodeId) {
        self.say(client, MessageKind::Preinit, vec![Opt::Seq(1), Opt::ClusterName(b"home".to_vec())]);
        self.introduces_as(client, node);
    }

    /// The second half, of any cluster.
    fn introduces_as(&mut self, client: u64, node: NodeId) {
        let (algorithm, tie_breaker) = (self.algorithm, self.tie_breaker);
        let options = vec![
            Opt::Seq(2),
            Opt::NodeId(node),
            Opt::DecisionAlgorithm(algorithm.number()),
            Opt::HeartbeatInterval(8000),
            Opt::TieBreaker(tie_breaker),
            Opt::RingId(RingId { node, seq: 1 }),
        ];
        self.say(client, MessageKind::Init, options);
    }

    fn configures(&mut self, client: u64) {
        let mut options = vec![Opt::NodeListType(ListKind::InitialConfig), Opt::Seq(3)];
        options.extend((1..=self.configured).map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(node)))));
        self.say(client, MessageKind::NodeList, options);
    }

    fn sees(&mut self, client: u64, ring: u64, nodes: &[u32]) {
        let ring = RingId { node: NodeId(nodes[0]), seq: ring };
        let mut options = vec![Opt::NodeListType(ListKind::Membership), Opt::Seq(4), Opt::RingId(ring)];
        options.extend(nodes.iter().map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(*node)))));
        self.say(client, MessageKind::NodeList, options);
    }

    /// A client confirms what it was told.
    fn confirms(&mut self, client: u64) {
        let (mine, others) = std::mem::take(&mut self.unconfirmed).into_iter().partition(|(to, _)| *to == client);
        self.unconfirmed = others;
        let mine: Vec<(u64, u32)> = mine;
        for (_, seq) in mine {
            self.say(client, MessageKind::VoteInfoReply, vec![Opt::Seq(seq)]);
        }
    }

    /// All confirm until nothing is left.
    fn settle(&mut self) {
        while let Some((client, _)) = self.unconfirmed.first() {
            self.confirms(*client);
        }
    }

    fn leaves(&mut self, client: u64) {
        let _ = writeln!(self.text, "{:>5} {client} is gone", self.millis());
        self.unconfirmed.retain(|(to, _)| *to != client);
        self.event(Event::Gone { client: ClientId(client), how: Ending::Farewell });
    }

    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let _ = writeln!(self.text, "{:>5} time passes", self.millis());
            self.event(Event::Tick);
        }
        self.now = end;
    }

    /// What was said since the last call.
    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Forgets what was said so far: it is another scenario's matter.
    fn cut(&mut self) {
        self.text.clear();
    }
}

fn read(bytes: &[u8]) -> (MessageKind, Fields) {
    let kind = MessageKind::from_number(u16::from_be_bytes([bytes[0], bytes[1]])).unwrap();
    let body = &bytes[6..];
    let fields = if body.is_empty() { Fields::default() } else { Fields::read(body).unwrap() };
    (kind, fields)
}

fn describe(kind: MessageKind, fields: &Fields) -> String {
    let mut text = format!("{kind:?}");
    if let Some(seq) = fields.seq {
        let _ = write!(text, " #{seq:x}");
    }
    if let Some(name) = &fields.cluster_name {
        let _ = write!(text, " {}", name.escape_ascii());
    }
    if let Some(tls) = fields.tls_supported {
        let _ = write!(text, " TLS {tls:?}");
    }
    if let Some(node) = fields.node_id {
        let _ = write!(text, " node {node}");
    }
    if let Some(code) = fields.error_code.and_then(crate::wire::ErrorCode::from_number) {
        let _ = write!(text, ": {code}");
    }
    if let Some(list) = fields.list {
        let _ = write!(text, " {list:?}");
    }
    if let Some(ring) = fields.ring {
        let _ = write!(text, " ring {ring}");
    }
    if !fields.nodes.is_empty() {
        let nodes: Vec<String> = fields.nodes.iter().map(|info| info.node.to_string()).collect();
        let _ = write!(text, " nodes {}", nodes.join(","));
    }
    if fields.heuristics != Heuristics::Undefined {
        let _ = write!(text, " checks {:?}", fields.heuristics);
    }
    if let Some(vote) = fields.vote {
        let _ = write!(text, " {vote}");
    }
    text
}
