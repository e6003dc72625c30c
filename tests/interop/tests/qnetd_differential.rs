//! Our vote service beside Debian's `corosync-qnetd`: the same messages to both, and every byte that comes back must be
//! the same. Ours is set to be as the original (`Config::as_original`); what differs even so, on purpose, is not sent:
//! a second PREINIT or INIT (ours closes the connection, because the certificate was checked for the first), an unknown
//! message without a body (the original answers with error 0, ours with 4), the departure of a node while another has
//! not told its lists (the original fails an assertion and ends).
//!
//! Needs the Debian package corosync-qnetd; without it these tests fail.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tiebreaker_interop::{Original, Peer};
use tiebreaker_qnetd::{
    Action, ClientId, Clusters, Config, Ending, Event, MemberView, Server, TlsMode,
    wire::{Heuristics, ListKind, Message, MessageKind, NodeId, NodeInfo, NodeState, Opt, RingId, TieBreaker},
};

/// More with TIEBREAKER_QNETD_SEQUENCES.
const SEQUENCES: u64 = 4000;
const STEPS: usize = 40;
const NODES: usize = 4;

/// Small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn index(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(u64::try_from(sides).unwrap())).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// What the test knows of one connection.
#[derive(Debug)]
struct Link {
    peer: Peer,
    named: bool,
    joined: bool,
    votes: Vec<u32>,
    seq: u32,
}

struct Pair<'o> {
    original: &'o Original,
    ours: Server,
    now: Instant,
    watch: Peer,
    links: BTreeMap<u64, Link>,
    next: u64,
    cluster: Vec<u8>,
    log: Vec<String>,
}

impl<'o> Pair<'o> {
    fn new(original: &'o Original, cluster: &str) -> Result<Self> {
        let mut watch = original.connect()?;
        watch.watch()?;
        Ok(Self {
            original,
            ours: Server::new(Config::as_original(Clusters::Any(TlsMode::Off))),
            now: Instant::now(),
            watch,
            links: BTreeMap::new(),
            next: 0,
            cluster: cluster.into(),
            log: Vec::new(),
        })
    }

    fn connect(&mut self) -> Result<u64> {
        let number = self.next;
        self.next += 1;
        let peer = self.original.connect()?;
        let link = Link { peer, named: false, joined: false, votes: vec![], seq: 0 };
        self.links.insert(number, link);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(number)?));
        self.ours.handle(self.now, Event::Connected { client: ClientId(number), address });
        self.log.push(format!("{number} connects"));
        self.compare()?;
        Ok(number)
    }

    fn send(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        self.log.push(format!("{number} > {bytes:02x?}"));
        self.links.get_mut(&number).context("open")?.peer.send(bytes);
        self.ours.handle(self.now, Event::Received { client: ClientId(number), bytes: bytes.to_vec() });
        self.compare()
    }

    fn message(&mut self, number: u64, kind: MessageKind, options: Vec<Opt>) -> Result<()> {
        self.log.push(format!("{number} {kind:?} {options:?}"));
        self.send(number, &Message::new(kind, options).encode())
    }

    fn close(&mut self, number: u64) -> Result<()> {
        self.log.push(format!("{number} closes"));
        self.links.remove(&number);
        self.ours.handle(self.now, Event::Gone { client: ClientId(number), how: Ending::Farewell });
        // Not before the departure was dealt with: an answer must not be mistaken for one to the next step.
        self.watch.barrier()?;
        self.compare()
    }

    /// Takes what ours sends and expects the same of the original.
    fn compare(&mut self) -> Result<()> {
        let mut silent = true;
        while let Some(action) = self.ours.poll_action() {
            match action {
                Action::Send { client, bytes } => {
                    silent = false;
                    self.log.push(format!("{} < {bytes:02x?}", client.0));
                    let link = self.links.get_mut(&client.0).context("ours sends to a closed connection")?;
                    let same = link.peer.read(bytes.len())?;
                    ensure!(same == bytes, "to {}: the original sends {same:02x?}, ours {bytes:02x?}", client.0);
                    if bytes[..2] == MessageKind::VoteInfo.number().to_be_bytes() {
                        link.votes.push(u32::from_be_bytes(bytes[10..14].try_into()?));
                    }
                    if bytes[..2] == MessageKind::InitReply.number().to_be_bytes() && bytes[10..12] == [0, 0] {
                        link.joined = true;
                    }
                    self.ours.handle(self.now, Event::Sent { client, messages: 1 });
                }
                Action::Close { client, .. } => {
                    let mut link = self.links.remove(&client.0).context("ours closes twice")?;
                    link.peer.closed()?;
                }
                Action::Remember { number, .. } => self.ours.handle(self.now, Event::Remembered { number }),
                Action::Read { .. } | Action::Tell(_) => {}
                Action::StartTls { .. } => anyhow::bail!("TLS is off"),
            }
        }
        if silent {
            self.watch.barrier()?;
        }
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = MemberView> {
        self.ours.clusters().flat_map(|cluster| cluster.members)
    }

    /// Members that have not told which nodes are configured.
    fn untold(&self) -> Vec<(u64, NodeId)> {
        let untold = self.members().filter(|member| member.configured.is_empty());
        untold.map(|member| (number_of(&member), member.node)).collect()
    }

    /// Nothing may have come from the original beyond what ours sent.
    fn end(&mut self) -> Result<()> {
        // They all leave now; see the module's words.
        for (number, node) in self.untold() {
            let mut options = vec![Opt::NodeListType(ListKind::InitialConfig), Opt::Seq(99)];
            options.extend([node, NodeId(77)].map(|node| Opt::NodeInfo(NodeInfo::new(node))));
            self.message(number, MessageKind::NodeList, options)?;
        }
        self.watch.barrier()?;
        for (number, link) in &mut self.links {
            let more = link.peer.leftover()?;
            ensure!(more.is_empty(), "the original sent more to {number}: {more:02x?}");
        }
        Ok(())
    }
}

/// One random sequence.
struct Sequence {
    dice: Dice,
    algorithm: u16,
    tie_breaker: TieBreaker,
    configured: usize,
    keep_active: bool,
    ring_seq: u64,
}

fn number_of(member: &MemberView) -> u64 {
    member.address.port().into()
}

impl Sequence {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let algorithm = [1, 1, 1, 1, 1, 0, 2, 3, 3][dice.index(9)];
        let tie_breaker = match dice.roll(3) {
            0 => TieBreaker::Lowest,
            1 => TieBreaker::Highest,
            _ => TieBreaker::Node(NodeId(1 + u32::try_from(dice.index(NODES)).unwrap())),
        };
        let configured = if algorithm == 2 { 2 } else { 2 + dice.index(NODES - 1) };
        let keep_active = dice.chance(50);
        Self { dice, algorithm, tie_breaker, configured, keep_active, ring_seq: 10 }
    }

    fn step(&mut self, pair: &mut Pair<'_>) -> Result<()> {
        if pair.links.len() < self.configured && (pair.links.is_empty() || self.dice.chance(25)) {
            let number = pair.connect()?;
            let name = pair.cluster.clone();
            pair.message(number, MessageKind::Preinit, vec![Opt::Seq(1), Opt::ClusterName(name)])?;
            pair.links.get_mut(&number).context("open")?.named = true;
            return self.init(pair, number);
        }
        let numbers: Vec<u64> = pair.links.keys().copied().collect();
        let number = numbers[self.dice.index(numbers.len())];
        if !pair.links[&number].joined {
            return if self.dice.chance(80) { self.init(pair, number) } else { self.odd(pair, number) };
        }
        match self.dice.roll(100) {
            0..=19 => self.config(pair, number),
            20..=39 => self.membership(pair, number),
            40..=54 => self.split(pair),
            55..=59 => self.quorum(pair, number),
            60..=79 => self.answer(pair, number),
            80..=83 => {
                let seq = self.seq(pair, number);
                let heuristics = [Heuristics::Pass, Heuristics::Fail][self.dice.index(2)];
                pair.message(number, MessageKind::HeuristicsChange, vec![Opt::Seq(seq), Opt::Heuristics(heuristics)])
            }
            84..=87 => {
                let seq = self.seq(pair, number);
                let mut options = vec![Opt::Seq(seq), Opt::KeepActivePartition(self.dice.chance(90))];
                if self.dice.chance(30) {
                    options.push(Opt::HeartbeatInterval([120_000, 120_000, 999, 120_001][self.dice.index(4)]));
                }
                pair.message(number, MessageKind::SetOption, options)
            }
            88..=89 => {
                let seq = self.seq(pair, number);
                pair.message(number, MessageKind::AskForVote, vec![Opt::Seq(seq)])
            }
            90..=92 => self.odd(pair, number),
            _ => {
                // See the module's words: the original doesn't survive this.
                let untold = self.algorithm == 1 && pair.untold().iter().any(|(other, _)| *other != number);
                if untold { Ok(()) } else { pair.close(number) }
            }
        }
    }

    fn seq(&mut self, pair: &mut Pair<'_>, number: u64) -> u32 {
        let link = pair.links.get_mut(&number).unwrap();
        link.seq += 1;
        link.seq
    }

    /// The node that a link stands for: mostly one that is free.
    fn init(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let node = 1 + u32::try_from(self.dice.index(self.configured)).unwrap();
        let mut options = vec![
            Opt::Seq(2),
            Opt::NodeId(NodeId(node)),
            Opt::DecisionAlgorithm(if self.dice.chance(97) { self.algorithm } else { 7 }),
            Opt::HeartbeatInterval(if self.dice.chance(97) { 120_000 } else { 500 }),
            Opt::TieBreaker(if self.dice.chance(97) { self.tie_breaker } else { TieBreaker::Node(NodeId(9)) }),
            Opt::RingId(self.ring()),
            Opt::SupportedMessages(vec![0, 1]),
            Opt::SupportedOptions(vec![0]),
        ];
        if self.dice.chance(6) {
            let lost = self.dice.index(options.len());
            options.remove(lost);
        }
        pair.message(number, MessageKind::Init, options)?;
        let joined = pair.links.get(&number).is_some_and(|link| link.joined);
        if !joined {
            return Ok(());
        }
        if self.keep_active {
            pair.message(number, MessageKind::SetOption, vec![Opt::Seq(2), Opt::KeepActivePartition(true)])?;
        }
        if self.dice.chance(70) { self.config_all(pair, number) } else { Ok(()) }
    }

    fn ring(&mut self) -> RingId {
        let node = NodeId(1 + u32::try_from(self.dice.index(2)).unwrap());
        RingId { node, seq: self.dice.roll(4) }
    }

    fn nodes(&mut self, mask: u64, state: bool) -> Vec<Opt> {
        let mut options = Vec::new();
        for node in (1..=u32::try_from(self.configured).unwrap()).filter(|node| mask & (1 << node) != 0) {
            let mut info = NodeInfo::new(NodeId(node));
            if self.dice.chance(10) {
                info.data_center = Some(7);
            }
            if state {
                info.state = Some(NodeState::Member);
            }
            options.push(Opt::NodeInfo(info));
        }
        options
    }

    /// As stock clients begin.
    fn config_all(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let seq = self.seq(pair, number);
        let mut options = vec![Opt::NodeListType(ListKind::InitialConfig), Opt::Seq(seq)];
        options.extend(self.nodes(u64::MAX, false));
        pair.message(number, MessageKind::NodeList, options)
    }

    fn config(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let seq = self.seq(pair, number);
        let initial = self.dice.chance(60);
        let kind = if initial { ListKind::InitialConfig } else { ListKind::ChangedConfig };
        let mut options = vec![Opt::NodeListType(kind), Opt::Seq(seq), Opt::ConfigVersion(3)];
        let mask = if self.dice.chance(97) { u64::MAX } else { self.dice.roll(32) };
        options.extend(self.nodes(mask, false));
        pair.message(number, MessageKind::NodeList, options)?;
        Ok(())
    }

    /// Partitions of a split, mostly consistent: a ring goes with a set of nodes.
    fn membership(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let seq = self.seq(pair, number);
        let splits: [(u64, u64); 5] = [(u64::MAX, 1), (0b0_0110, 2), (0b1_1000, 3), (0b0_0010, 2), (0b0_0100, 3)];
        let (mask, ring_seq) =
            if self.dice.chance(90) { splits[self.dice.index(5)] } else { (self.dice.roll(32), self.dice.roll(4)) };
        let ring = RingId { node: NodeId(1), seq: ring_seq };
        let mut options = vec![Opt::NodeListType(ListKind::Membership), Opt::Seq(seq), Opt::RingId(ring)];
        match self.dice.roll(4) {
            0 => options.push(Opt::Heuristics(Heuristics::Pass)),
            1 if self.dice.chance(50) => options.push(Opt::Heuristics(Heuristics::Fail)),
            _ => {}
        }
        options.extend(self.nodes(mask, false));
        pair.message(number, MessageKind::NodeList, options)
    }

    /// All tell one and the same split, and mostly confirm what they are told.
    fn split(&mut self, pair: &mut Pair<'_>) -> Result<()> {
        let side = if self.dice.chance(30) { 0 } else { self.dice.roll(32) };
        self.ring_seq += 2;
        let members: Vec<(u64, NodeId)> = pair.members().map(|member| (number_of(&member), member.node)).collect();
        for (number, node) in members {
            if !pair.links.contains_key(&number) || self.dice.chance(7) {
                continue;
            }
            let here = side & (1 << node.0) != 0;
            let ring = RingId { node: NodeId(1), seq: self.ring_seq + u64::from(here) };
            let seq = self.seq(pair, number);
            let mut options = vec![Opt::NodeListType(ListKind::Membership), Opt::Seq(seq), Opt::RingId(ring)];
            match self.dice.roll(3) {
                0 => options.push(Opt::Heuristics(Heuristics::Pass)),
                1 => options.push(Opt::Heuristics(Heuristics::Fail)),
                _ => {}
            }
            options.extend(self.nodes(if here { side } else { !side }, false));
            pair.message(number, MessageKind::NodeList, options)?;
        }
        let numbers: Vec<u64> = pair.links.keys().copied().collect();
        for number in numbers {
            if pair.links.get(&number).is_some_and(|link| link.joined) && self.dice.chance(90) {
                self.answer(pair, number)?;
            }
        }
        Ok(())
    }

    fn quorum(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let seq = self.seq(pair, number);
        let quorate = self.dice.chance(50);
        let mut options = vec![Opt::NodeListType(ListKind::Quorum), Opt::Seq(seq), Opt::Quorate(quorate)];
        options.extend(self.nodes(u64::MAX, true));
        pair.message(number, MessageKind::NodeList, options)
    }

    /// Confirms a vote: the last, or an old one.
    fn answer(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let votes = &pair.links[&number].votes;
        let seq = match votes.last() {
            Some(last) if self.dice.chance(85) => *last,
            Some(_) => votes[self.dice.index(votes.len())],
            None => u32::try_from(self.dice.roll(3)).unwrap(),
        };
        pair.message(number, MessageKind::VoteInfoReply, vec![Opt::Seq(seq)])
    }

    /// Bytes that no client sends, and messages out of place.
    fn odd(&mut self, pair: &mut Pair<'_>, number: u64) -> Result<()> {
        let joined = pair.links[&number].joined;
        match self.dice.roll(8) {
            0 => {
                let kind = 18 + u16::try_from(self.dice.roll(60_000)).unwrap();
                let body = vec![0x5a; 1 + self.dice.index(50)];
                let mut bytes = kind.to_be_bytes().to_vec();
                bytes.extend(u32::try_from(body.len())?.to_be_bytes());
                bytes.extend(body);
                pair.send(number, &bytes)
            }
            1 => {
                // One byte too long, and exactly as long as may be.
                let length = [32_768 - 6, 32_769 - 6][self.dice.index(2)];
                let mut bytes = MessageKind::EchoRequest.number().to_be_bytes().to_vec();
                bytes.extend(u32::try_from(length)?.to_be_bytes());
                bytes.extend([0, 99]);
                bytes.extend(u16::try_from(length - 4)?.to_be_bytes());
                bytes.resize(length + 6, 7);
                pair.send(number, &bytes)
            }
            2 => {
                let kinds = [1, 4, 5, 7, 9, 11, 13, 14, 17];
                let kind = MessageKind::from_number(kinds[self.dice.index(kinds.len())]).context("known")?;
                pair.message(number, kind, vec![Opt::Seq(77)])
            }
            3 => {
                let kinds = [6, 8, 10, 12, 15, 16];
                let kind = MessageKind::from_number(kinds[self.dice.index(kinds.len())]).context("known")?;
                let options = if self.dice.chance(50) { vec![Opt::Seq(78)] } else { vec![Opt::Quorate(true)] };
                // A reply to a vote without a number is an error; with a wrong one, nothing.
                pair.message(number, kind, options)
            }
            4 if !joined => pair.message(number, MessageKind::StartTls, vec![Opt::Seq(3)]),
            // A good echo, bent in one place.
            _ => {
                let options = vec![Opt::Seq(9), Opt::Quorate(true), Opt::Heuristics(Heuristics::Pass)];
                let kind = if joined { MessageKind::EchoRequest } else { MessageKind::AskForVote };
                let mut bytes = Message::new(kind, options).encode();
                let at = 6 + self.dice.index(bytes.len() - 6);
                bytes[at] = u8::try_from(self.dice.roll(256))?;
                pair.send(number, &bytes)
            }
        }
    }
}

fn run(original: &Original, seed: u64) -> Result<()> {
    let mut pair = Pair::new(original, &format!("cluster-{seed}"))?;
    let mut sequence = Sequence::new(seed);
    let result = (0..STEPS).try_for_each(|_| sequence.step(&mut pair)).and_then(|()| pair.end());
    result.with_context(|| format!("sequence {seed}:\n{}", pair.log.join("\n")))
}

#[test]
fn ours_answers_every_sequence_as_the_original_does() {
    let chosen = std::env::var("TIEBREAKER_QNETD_SEQUENCES").ok();
    let sequences = chosen.map_or(SEQUENCES, |text| text.parse().unwrap());
    let mut original = Original::start().unwrap();
    let begun = Instant::now();
    for seed in 0..sequences {
        if let Err(error) = run(&original, seed) {
            std::thread::sleep(Duration::from_millis(200));
            let runs = original.runs().unwrap();
            panic!("{error:?}\nthe original still runs: {runs}; its log: {}", original.log());
        }
    }
    println!("{sequences} sequences in {:?}", begun.elapsed());
}
