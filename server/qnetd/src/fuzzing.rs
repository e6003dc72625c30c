//! Entry points for the fuzzers under `fuzz/`, and for the test that throws bytes at the same code without them. Not part
//! of the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    Action, ClientId, Clusters, Config, Ending, Event, PeerNames, Server, TlsMode,
    wire::{
        Algorithm, Fields, Heuristics, Inbox, ListKind, MAX_MESSAGE, Message, MessageKind, NodeId, NodeInfo, Opt,
        RingId, Taken, TieBreaker, options,
    },
};

/// What a shell reads at once.
#[cfg(test)]
const PORTION: usize = 4096;

/// After so long nobody can cast a vote that was given before: more than twice the longest heartbeat interval.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Bytes as a shell would bring them.
#[cfg(test)]
pub(crate) fn portions(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(PORTION)
}

/// Any bytes as a stream of messages.
///
/// # Panics
/// When what was decoded, written again, says something else, or when bytes get lost or pile up.
pub fn decode(data: &[u8]) {
    let mut inbox = Inbox::default();
    for portion in data.chunks(7) {
        inbox.push(portion);
        while let Some(taken) = inbox.take() {
            let Taken::Frame(frame) = taken else { continue };
            assert!(frame.body.len() <= MAX_MESSAGE);
            let Ok(fields) = Fields::read(&frame.body) else { continue };
            let known: Vec<Opt> = options(&frame.body).flatten().collect();
            let again = Message::new(frame.kind, known).encode();
            let body = again.get(6..).unwrap_or_default();
            // Options of unknown types are gone; without any other the message is empty.
            if !body.is_empty() {
                assert_eq!(Fields::read(body), Ok(fields));
            }
        }
    }
}

/// Any bytes as the conversation of three clients with the server. Each step is a byte that says who does what, for
/// messages followed by a length and bytes. Handshakes are done at the next step that lets time pass.
///
/// # Panics
/// When the server talks to who isn't there or shakes hands, reads as plain text what belongs to a handshake, or keeps
/// anything of clients that have gone.
pub fn conversation(data: &[u8]) {
    let _said = conversation_with(data, |server, _, _| server);
}

/// The same, with whatever is done to the server after each step; gives what it said.
///
/// # Panics
/// As [`conversation`].
pub fn conversation_with(
    data: &[u8],
    mut between: impl FnMut(Server, Config, Instant) -> Server,
) -> Vec<(ClientId, Vec<u8>)> {
    let Some((first, mut rest)) = data.split_first() else { return Vec::new() };
    let mode = [TlsMode::Off, TlsMode::Optional, TlsMode::Required][usize::from(first & 3).min(2)];
    let mut config = Config::new(Clusters::Any(mode));
    config.lms_as_original = first & 4 != 0;
    let server = Server::new(config.clone());
    let mut talk = Talk {
        server,
        now: Instant::now(),
        open: BTreeMap::new(),
        next: 0,
        starting: BTreeSet::new(),
        portion: Vec::new(),
        said: Vec::new(),
    };
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        let slot = step & 3;
        match step >> 2 & 3 {
            0 => talk.connect(slot),
            1 => talk.close(slot),
            2 => {
                talk.now += Duration::from_millis(u64::from(step >> 4) * 400);
                talk.event(Event::Tick);
                talk.secure();
            }
            _ => {
                let Some((length, after)) = rest.split_first() else { break };
                let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
                rest = after;
                talk.receive(slot, bytes);
            }
        }
        let server = std::mem::replace(&mut talk.server, Server::new(config.clone()));
        talk.server = between(server, config.clone(), talk.now);
        talk.carry_out();
    }
    for slot in 0..4 {
        talk.close(slot);
    }
    assert_eq!(talk.server.clients(), 0, "who has gone is forgotten");
    assert_eq!(talk.server.clusters().count(), 0, "and so is its cluster");
    talk.now += FORGOTTEN;
    talk.event(Event::Tick);
    assert_eq!(talk.server.known_holders(), 0, "and who had its vote, once nobody can cast it");
    assert_eq!(talk.server.poll_timeout(), None, "and its timers");
    talk.said
}

struct Talk {
    server: Server,
    now: Instant,
    open: BTreeMap<u8, u64>,
    next: u64,
    /// Who is in the middle of a handshake.
    starting: BTreeSet<u64>,
    /// What came last.
    portion: Vec<u8>,
    said: Vec<(ClientId, Vec<u8>)>,
}

impl Talk {
    fn connect(&mut self, slot: u8) {
        self.close(slot);
        self.next += 1;
        self.open.insert(slot, self.next);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, slot.into()));
        self.event(Event::Connected { client: ClientId(self.next), address });
    }

    fn close(&mut self, slot: u8) {
        if let Some(client) = self.open.remove(&slot) {
            self.event(Event::Gone { client: ClientId(client), how: Ending::Farewell });
        }
    }

    fn receive(&mut self, slot: u8, bytes: &[u8]) {
        if let Some(client) = self.open.get(&slot) {
            self.portion = bytes.to_vec();
            self.event(Event::Received { client: ClientId(*client), bytes: bytes.to_vec() });
        }
    }

    fn secure(&mut self) {
        for client in std::mem::take(&mut self.starting) {
            let names = Some(PeerNames { common: Some("home".into()), dns: vec![] });
            self.event(Event::Secured { client: ClientId(client), names });
        }
    }

    fn event(&mut self, event: Event) {
        self.server.handle(self.now, event);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Send { client, bytes } => {
                    assert!(self.open.values().any(|open| *open == client.0), "{client} is not there");
                    assert!((6..=MAX_MESSAGE).contains(&bytes.len()), "{} bytes", bytes.len());
                    assert!(!self.starting.contains(&client.0), "{client} gets plain text in its handshake");
                    self.said.push((client, bytes));
                    self.server.handle(self.now, Event::Sent { client, messages: 1 });
                }
                Action::Close { client, .. } => self.open.retain(|_, open| *open != client.0),
                Action::StartTls { client, rest } => {
                    assert!(self.portion.ends_with(&rest), "what follows STARTTLS is handed on as it came");
                    self.starting.insert(client.0);
                }
                Action::Remember { number, .. } => self.server.handle(self.now, Event::Remembered { number }),
                Action::Read { .. } | Action::Tell(_) => {}
            }
        }
    }
}

/// What stock clients send, message by message.
fn honest(node: u32, algorithm: Algorithm) -> Vec<Message> {
    let ring = |seq| Opt::RingId(RingId { node: NodeId(1), seq });
    let list = |kind, nodes: &[u32]| {
        let mut options = vec![Opt::NodeListType(kind), Opt::Seq(4)];
        options.extend(nodes.iter().map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(*node)))));
        options
    };
    let with = |mut options: Vec<Opt>, more: Opt| {
        options.push(more);
        options
    };
    vec![
        Message::new(MessageKind::Preinit, vec![Opt::Seq(1), Opt::ClusterName(b"home".to_vec())]),
        Message::new(
            MessageKind::Init,
            vec![
                Opt::Seq(2),
                Opt::SupportedMessages(MessageKind::ALL.iter().map(|kind| kind.number()).collect()),
                Opt::SupportedOptions((0..24).collect()),
                Opt::NodeId(NodeId(node)),
                Opt::DecisionAlgorithm(algorithm.number()),
                Opt::HeartbeatInterval(8000),
                Opt::TieBreaker(TieBreaker::Lowest),
                ring(1),
            ],
        ),
        Message::new(MessageKind::SetOption, vec![Opt::Seq(3), Opt::KeepActivePartition(true)]),
        Message::new(MessageKind::NodeList, with(list(ListKind::InitialConfig, &[1, 2]), Opt::ConfigVersion(2))),
        Message::new(MessageKind::NodeList, with(list(ListKind::Membership, &[1, 2]), ring(5))),
        Message::new(MessageKind::NodeList, with(list(ListKind::Quorum, &[1, 2]), Opt::Quorate(true))),
        Message::new(MessageKind::VoteInfoReply, vec![Opt::Seq(1)]),
        Message::new(MessageKind::EchoRequest, vec![Opt::Seq(1)]),
        Message::new(MessageKind::HeuristicsChange, vec![Opt::Seq(6), Opt::Heuristics(Heuristics::Pass)]),
        Message::new(MessageKind::NodeList, with(list(ListKind::Membership, &[node]), ring(5 + u64::from(node)))),
        Message::new(MessageKind::VoteInfoReply, vec![Opt::Seq(2)]),
        Message::new(MessageKind::AskForVote, vec![Opt::Seq(7)]),
    ]
}

/// Inputs for [`decode`]: each message of a stock client.
#[must_use]
pub fn decode_seeds() -> Vec<Vec<u8>> {
    honest(1, Algorithm::FfSplit).iter().map(Message::encode).collect()
}

/// Inputs for [`conversation`]: two stock clients that form, split and leave, for each algorithm.
#[must_use]
pub fn conversation_seeds() -> Vec<Vec<u8>> {
    let seeds = Algorithm::ALL.into_iter().flat_map(|algorithm| [0, 4].map(|lms| (algorithm, lms)));
    let seeds = seeds.map(|(algorithm, lms)| {
        let mut bytes = vec![lms, 0, 1];
        let say = |bytes: &mut Vec<u8>, slot: u8, message: &Message| {
            let message = message.encode();
            bytes.push(0b1100 | slot);
            bytes.push(u8::try_from(message.len()).expect("honest messages are short"));
            bytes.extend(message);
        };
        for (one, other) in honest(1, algorithm).iter().zip(&honest(2, algorithm)) {
            say(&mut bytes, 0, one);
            say(&mut bytes, 1, other);
        }
        bytes.extend([0b0100, 0xf8, 0xf8]);
        bytes
    });
    seeds.chain((0..=starting().len()).map(secured_seed)).collect()
}

/// STARTTLS, and behind it what a handshake begins with.
fn starting() -> Vec<u8> {
    let mut bytes = Message::new(MessageKind::StartTls, vec![Opt::Seq(2)]).encode();
    bytes.extend([0x16, 3, 1, 2, 0, 1]);
    bytes
}

/// Two stock clients with TLS. The first one's STARTTLS and the first bytes of its handshake come in two pieces, cut here.
fn secured_seed(cut: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 1];
    let say = |bytes: &mut Vec<u8>, slot: u8, said: &[u8]| {
        bytes.push(0b1100 | slot);
        bytes.push(u8::try_from(said.len()).expect("honest messages are short"));
        bytes.extend(said);
    };
    let (one, other) = (honest(1, Algorithm::FfSplit), honest(2, Algorithm::FfSplit));
    for (number, (one, other)) in one.iter().zip(&other).enumerate() {
        say(&mut bytes, 0, &one.encode());
        say(&mut bytes, 1, &other.encode());
        if number == 0 {
            let starting = starting();
            let (head, tail) = starting.split_at(cut);
            say(&mut bytes, 0, head);
            say(&mut bytes, 0, tail);
            say(&mut bytes, 1, &starting);
            bytes.push(0b1000);
        }
    }
    bytes.extend([0b0100, 0xf8, 0xf8]);
    bytes
}

#[cfg(test)]
mod tests;
