//! The one property that must never break: nobody gets the vote while somebody outside of its partition may cast it.
//!
//! A client may cast its vote from the ACK on, until it has confirmed a NACK or is gone. What it was merely told to wait
//! for counts as nothing. Who is cut off from the server casts until it has missed an echo, whatever the server thinks of
//! it meanwhile.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What one client may do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Its membership is this side of a split: bit n for node n. Bit 0 makes a ring of its own of it.
    Sees(u8),
    /// It confirms the oldest vote that it was told.
    Confirms,
    /// It takes its leave.
    Gone,
    /// It and the server don't hear each other any more, and neither knows. Its next membership ends that.
    CutOff,
    /// Its checks have a result.
    Checks(bool),
    /// Another process takes over, and may lose its connection.
    HandsOver(bool),
    /// The server crashes and starts anew. This node is cut off meanwhile, and knows of nothing; all others do.
    Crashes,
    /// Time passes.
    Waits,
}

#[derive(Clone, Debug, Default)]
struct Client {
    connection: u64,
    membership: Vec<u32>,
    told: Vec<(u32, Vote)>,
    may_cast: bool,
    /// The membership for which it was given its vote.
    holds_for: Vec<u32>,
    /// What it was told last makes it cast its vote.
    casts: bool,
    seq: u32,
    /// When its next echo is due; `None`: it is not connected yet.
    echo: Option<Instant>,
    /// If it is cut off: when it has missed an echo.
    cut_until: Option<Instant>,
}

impl Client {
    /// When it finds out that nobody answers, if that is so from now on.
    fn misses(&self, now: Instant) -> Instant {
        self.cut_until.unwrap_or_else(|| self.echo.unwrap_or(now) + HEARTBEAT)
    }

    fn casts_at(&self, now: Instant) -> bool {
        self.may_cast && self.cut_until.is_none_or(|until| now < until)
    }
}

/// Clients and server, together cloneable, so that every order of steps can be tried.
#[derive(Clone, Debug)]
struct World {
    server: Server,
    now: Instant,
    algorithm: Algorithm,
    nodes: u32,
    /// All clients want a tie to go to the side that had the vote before.
    keep_active: bool,
    clients: BTreeMap<u32, Client>,
    /// Who casts a vote of a connection that the server knows nothing of, for which membership, and until when.
    unaware: BTreeMap<u32, (Vec<u32>, Instant)>,
    /// What is on the server's disk.
    kept: Remembered,
    /// What has time gets there at once, or before the next step, unless that is a crash.
    prompt: bool,
    has_time: Option<u64>,
    connections: u64,
    story: Vec<(u32, Step)>,
    acks: usize,
}

impl World {
    fn new(algorithm: Algorithm, nodes: u32, now: Instant) -> Self {
        let server = Server::new(Config::new(Clusters::Any(TlsMode::Off)));
        Self {
            server,
            now,
            algorithm,
            nodes,
            keep_active: false,
            clients: BTreeMap::new(),
            unaware: BTreeMap::new(),
            kept: Remembered::default(),
            prompt: true,
            has_time: None,
            connections: 0,
            story: vec![],
            acks: 0,
        }
    }

    fn step(&mut self, node: u32, step: Step) {
        self.story.push((node, step));
        if let Some(number) = self.has_time.take()
            && step != Step::Crashes
        {
            self.keep(number);
        }
        self.passes(Duration::from_millis(1));
        match step {
            Step::Sees(side) => {
                self.hears_again(node);
                if !self.clients.contains_key(&node) {
                    self.join(node);
                }
                self.sees(node, side);
            }
            Step::CutOff => {
                let now = self.now;
                if let Some(client) = self.clients.get_mut(&node) {
                    client.cut_until = Some(client.misses(now));
                }
            }
            Step::Confirms => self.confirms(node),
            Step::Gone => {
                if self.is_cut_off(node) {
                    return;
                }
                if let Some(client) = self.clients.remove(&node) {
                    self.event(Event::Gone { client: ClientId(client.connection), how: Ending::Farewell });
                }
            }
            Step::HandsOver(lost) => {
                if lost && let Some(client) = self.clients.remove(&node) {
                    self.closed(node, client);
                }
                let came = self.clients.values().map(|client| ClientId(client.connection)).collect();
                let saved = self.server.save(self.now);
                let config = Config::new(Clusters::Any(TlsMode::Off));
                self.server = Server::restore(config, self.kept.clone(), saved, &came, self.now).unwrap();
                self.event(Event::Tick);
            }
            Step::Crashes => {
                for (other, mut client) in std::mem::take(&mut self.clients) {
                    if other == node {
                        client.cut_until = Some(client.misses(self.now));
                    }
                    self.closed(other, client);
                }
                let config = Config::new(Clusters::Any(TlsMode::Off));
                self.server = Server::after(config, self.kept.clone(), self.now);
            }
            Step::Waits => self.passes(Duration::from_secs(6)),
            Step::Checks(good) => {
                let result = if good { Heuristics::Pass } else { Heuristics::Fail };
                self.say(node, MessageKind::HeuristicsChange, vec![Opt::Heuristics(result)]);
            }
        }
    }

    /// Time passes, with the echoes of those that are not cut off.
    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let connected = self.clients.iter().filter(|(_, client)| client.cut_until.is_none());
            let echo = connected.filter_map(|(node, client)| Some((client.echo?, Some(*node)))).min();
            let tick = self.server.poll_timeout().map(|at| (at, None));
            let next = echo.into_iter().chain(tick).min_by_key(|(at, _)| *at);
            let Some((at, who)) = next.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            match who {
                Some(node) => {
                    if let Some(client) = self.clients.get_mut(&node) {
                        client.echo = Some(at + HEARTBEAT);
                    }
                    self.say(node, MessageKind::EchoRequest, vec![]);
                }
                None => self.event(Event::Tick),
            }
        }
        self.now = end;
    }

    fn is_cut_off(&self, node: u32) -> bool {
        self.clients.get(&node).is_some_and(|client| client.cut_until.is_some())
    }

    /// A connection ends without a word of the client's: who is cut off doesn't hear that, all others let go.
    fn closed(&mut self, node: u32, client: Client) {
        if let Some(until) = client.cut_until.filter(|_| client.may_cast) {
            self.unaware.insert(node, (client.holds_for, until));
        }
    }

    /// Its way to the server is open again. The connection lives on if it has not missed an echo.
    fn hears_again(&mut self, node: u32) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&node) else { return };
        let Some(until) = client.cut_until else { return };
        if now < until {
            client.cut_until = None;
        } else {
            let client = ClientId(client.connection);
            self.clients.remove(&node);
            self.event(Event::Gone { client, how: Ending::Farewell });
        }
    }

    fn join(&mut self, node: u32) {
        self.connections += 1;
        self.unaware.remove(&node);
        let connection = self.connections;
        self.clients.insert(node, Client { connection, ..Client::default() });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        self.event(Event::Connected { client: ClientId(connection), address });
        self.say(node, MessageKind::Preinit, vec![Opt::ClusterName(b"home".to_vec())]);
        let init = vec![
            Opt::NodeId(NodeId(node)),
            Opt::DecisionAlgorithm(self.algorithm.number()),
            Opt::HeartbeatInterval(8000),
            Opt::TieBreaker(TieBreaker::Lowest),
            Opt::RingId(RingId { node: NodeId(node), seq: 1 }),
        ];
        self.say(node, MessageKind::Init, init);
        let keep = Opt::KeepActivePartition(self.keep_active);
        self.say(node, MessageKind::SetOption, vec![keep]);
        let mut config = vec![Opt::NodeListType(ListKind::InitialConfig)];
        config.extend((1..=self.nodes).map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(node)))));
        self.say(node, MessageKind::NodeList, config);
        if let Some(client) = self.clients.get_mut(&node) {
            client.echo = Some(self.now + HEARTBEAT);
        }
    }

    fn sees(&mut self, node: u32, side: u8) {
        let mut nodes: Vec<u32> = (1..=self.nodes).filter(|other| side & (1 << other) != 0).collect();
        if !nodes.contains(&node) {
            nodes.push(node);
            nodes.sort_unstable();
        }
        if let Some(client) = self.clients.get_mut(&node) {
            client.membership.clone_from(&nodes);
        }
        // Who sees the same nodes is in the same ring, most of the time.
        let ring = RingId { node: NodeId(nodes[0]), seq: 2 + u64::from(side & 1) };
        let mut list = vec![Opt::NodeListType(ListKind::Membership), Opt::RingId(ring)];
        list.extend(nodes.iter().map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(*node)))));
        self.say(node, MessageKind::NodeList, list);
    }

    fn confirms(&mut self, node: u32) {
        let Some(client) = self.clients.get_mut(&node) else { return };
        if client.told.is_empty() || client.cut_until.is_some() {
            return;
        }
        let (seq, vote) = client.told.remove(0);
        if vote == Vote::Nack && !client.told.iter().any(|(_, vote)| *vote == Vote::Ack) {
            client.may_cast = false;
        }
        self.say(node, MessageKind::VoteInfoReply, vec![Opt::Seq(seq)]);
    }

    fn say(&mut self, node: u32, kind: MessageKind, mut options: Vec<Opt>) {
        let Some(client) = self.clients.get_mut(&node) else { return };
        if client.cut_until.is_some() {
            return;
        }
        if kind != MessageKind::VoteInfoReply {
            client.seq += 1;
            options.push(Opt::Seq(client.seq));
        }
        let client = ClientId(client.connection);
        self.event(Event::Received { client, bytes: Message::new(kind, options).encode() });
    }

    fn event(&mut self, event: Event) {
        self.server.handle(self.now, event);
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Send { client, bytes } => {
                    let (kind, fields) = read(&bytes);
                    if let Some(vote) = fields.vote {
                        self.voted(client, kind, &fields, vote);
                    }
                    self.server.handle(self.now, Event::Sent { client, messages: 1 });
                }
                Action::Close { client, .. } => {
                    let mut clients = self.clients.iter();
                    let node = clients.find(|(_, other)| other.connection == client.0).map(|(node, _)| *node);
                    if let Some((node, client)) = node.and_then(|node| self.clients.remove_entry(&node)) {
                        self.closed(node, client);
                    }
                }
                Action::Remember { number, urgent } if !urgent && !self.prompt => self.has_time = Some(number),
                Action::Remember { number, .. } => self.keep(number),
                Action::Read { .. } | Action::StartTls { .. } | Action::Tell(_) => {}
            }
        }
    }

    fn keep(&mut self, number: u64) {
        self.has_time = None;
        self.kept = self.server.remembered();
        self.server.handle(self.now, Event::Remembered { number });
    }

    fn voted(&mut self, to: ClientId, kind: MessageKind, fields: &Fields, vote: Vote) {
        let Some((node, _)) = self.clients.iter().find(|(_, client)| client.connection == to.0) else { return };
        let node = *node;
        if vote == Vote::Ack {
            self.acks += 1;
            let partition = self.clients[&node].membership.clone();
            for (other, client) in self.clients.iter().filter(|(other, _)| **other != node) {
                assert!(
                    !client.casts_at(self.now) || partition.contains(other),
                    "node {node} of {partition:?} got the vote while node {other} may cast it: {:?}",
                    self.story
                );
            }
        }
        if vote == Vote::Ack {
            let (now, partition) = (self.now, &self.clients[&node].membership);
            // A membership one node of which has moved on has ended, for the others too.
            self.unaware
                .retain(|_, (nodes, _)| nodes == partition || !nodes.iter().any(|node| partition.contains(node)));
            for (other, (nodes, until)) in &self.unaware {
                assert!(
                    *until <= now || partition.contains(other),
                    "node {node} of {partition:?} got the vote while node {other} of {nodes:?}, cut off, casts it: {:?}",
                    self.story
                );
            }
            let moved_on = partition.clone();
            for client in self.clients.values_mut() {
                if client.holds_for.iter().any(|node| moved_on.contains(node)) {
                    client.holds_for.clone_from(&moved_on);
                }
            }
        }
        let Some(client) = self.clients.get_mut(&node) else { return };
        match vote {
            Vote::Ack => {
                (client.may_cast, client.casts) = (true, true);
                client.holds_for.clone_from(&client.membership);
            }
            Vote::Nack | Vote::AskLater | Vote::WaitForReply => client.casts = false,
            Vote::NoChange => {}
        }
        if kind == MessageKind::VoteInfo
            && let Some(seq) = fields.seq
        {
            client.told.push((seq, vote));
        }
    }
}

/// Every order of steps of two clients from a settled cluster, this deep.
const DEPTH: usize = 5;

/// And this deep with results of checks and hand-overs among the steps.
const DEPTH_OF_MORE: usize = 4;

const FEW: [Step; 5] = [Step::Sees(0b110), Step::Sees(0), Step::Sees(1), Step::Confirms, Step::Gone];

const MORE: [Step; 9] = [
    Step::Sees(0b110),
    Step::Sees(0),
    Step::Sees(1),
    Step::Confirms,
    Step::Gone,
    Step::Checks(true),
    Step::Checks(false),
    Step::HandsOver(false),
    Step::HandsOver(true),
];

/// And this deep with crashes of the server, beginning with a split.
const DEPTH_OF_CRASHES: usize = 4;

/// An echo that is not answered is missed when the next one is due.
const HEARTBEAT: Duration = Duration::from_secs(8);

const CRASHES: [Step; 7] =
    [Step::Sees(0b110), Step::Sees(0), Step::Sees(1), Step::Confirms, Step::Gone, Step::Crashes, Step::Waits];

/// And this deep with nodes that are cut off from a server that runs, beginning with a split.
const DEPTH_OF_CUTS: usize = 4;

const CUTS: [Step; 8] = [
    Step::Sees(0b110),
    Step::Sees(0),
    Step::Sees(1),
    Step::Confirms,
    Step::Gone,
    Step::CutOff,
    Step::HandsOver(false),
    Step::Waits,
];

fn every_order(world: &World, steps: &[Step], depth: usize, worlds: &mut usize) {
    *worlds += 1;
    if depth == 0 {
        return;
    }
    for node in [1, 2] {
        for step in steps {
            let mut next = world.clone();
            next.step(node, *step);
            every_order(&next, steps, depth - 1, worlds);
        }
    }
}

/// Two nodes that see each other and have their vote.
fn settled(algorithm: Algorithm, keep_active: bool) -> World {
    let mut world = World { keep_active, ..World::new(algorithm, 2, Instant::now()) };
    for node in [1, 2] {
        world.step(node, Step::Sees(0b110));
        world.step(node, Step::Confirms);
    }
    while world.clients.values().any(|client| !client.told.is_empty()) {
        world.step(1, Step::Confirms);
        world.step(2, Step::Confirms);
    }
    assert!(world.acks >= 2, "{algorithm:?}: a settled cluster has its vote");
    world
}

#[test]
fn two_halves_never_have_the_vote_in_any_order_of_steps() {
    for algorithm in [Algorithm::FfSplit, Algorithm::Lms] {
        let mut worlds = 0;
        every_order(&settled(algorithm, false), &FEW, DEPTH, &mut worlds);
        assert!(worlds > 100_000);
    }
}

#[test]
fn nor_with_checks_kept_partitions_and_servers_that_take_over() {
    for (algorithm, keep_active) in [(Algorithm::FfSplit, true), (Algorithm::Lms, false)] {
        let mut worlds = 0;
        every_order(&settled(algorithm, keep_active), &MORE, DEPTH_OF_MORE, &mut worlds);
        assert!(worlds > 100_000);
    }
}

#[test]
fn nor_after_crashes_of_the_server_of_which_the_holder_does_not_hear() {
    for algorithm in [Algorithm::FfSplit, Algorithm::Lms] {
        for (split, prompt) in [(false, true), (false, false), (true, true), (true, false)] {
            let mut world = World { prompt, ..settled(algorithm, false) };
            if split {
                for step in [Step::Sees(0), Step::Confirms, Step::Confirms] {
                    world.step(1, step);
                    world.step(2, step);
                }
                assert!(world.clients[&1].casts && !world.clients[&2].casts, "{algorithm:?}: {world:?}");
            }
            let mut worlds = 0;
            every_order(&world, &CRASHES, DEPTH_OF_CRASHES, &mut worlds);
            assert!(worlds > 40_000);
        }
    }
}

#[test]
fn nor_while_a_holder_that_the_server_has_given_up_has_not_given_up_the_server() {
    for algorithm in [Algorithm::FfSplit, Algorithm::Lms] {
        let mut world = settled(algorithm, false);
        for step in [Step::Sees(0), Step::Confirms, Step::Confirms] {
            world.step(1, step);
            world.step(2, step);
        }
        assert!(world.clients[&1].casts && !world.clients[&2].casts, "{algorithm:?}: {world:?}");
        let mut worlds = 0;
        every_order(&world, &CUTS, DEPTH_OF_CUTS, &mut worlds);
        assert!(worlds > 60_000);
        // The longest way there is: 12 s until it is given up, and the rest of what it believes.
        world.step(1, Step::CutOff);
        for _ in 0..2 {
            world.step(2, Step::Waits);
        }
        every_order(&world, &CUTS, DEPTH_OF_CUTS - 1, &mut worlds);
        world.step(2, Step::Waits);
        assert!(world.clients[&2].casts, "{algorithm:?}, it is over for node 1: {world:?}");
    }
}

fn steps(nodes: u32) -> impl Strategy<Value = Vec<(u32, Step)>> {
    let sides = 0..(2_u8 << nodes);
    let step = prop_oneof![
        4 => sides.prop_map(Step::Sees),
        5 => Just(Step::Confirms),
        1 => Just(Step::Gone),
        1 => Just(Step::CutOff),
        1 => any::<bool>().prop_map(Step::Checks),
        1 => any::<bool>().prop_map(Step::HandsOver),
        1 => Just(Step::Crashes),
        1 => Just(Step::Waits),
    ];
    prop::collection::vec((1..=nodes, step), 1..120)
}

proptest! {
    // Several times what PROPTEST_CASES says or what is usual, 256: a slow processor gets fewer.
    #![proptest_config(ProptestConfig {
        cases: 6 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nobody_outside_may_cast_when_a_partition_gets_the_vote_and_after_healing_all_have_it(
        story in (2_u32..=4).prop_flat_map(|nodes| (Just(nodes), steps(nodes))),
        lms in any::<bool>(),
        keep_active in any::<bool>(),
        prompt in any::<bool>(),
    ) {
        let (nodes, story) = story;
        let algorithm = if lms { Algorithm::Lms } else { Algorithm::FfSplit };
        let mut world = World { keep_active, prompt, ..World::new(algorithm, nodes, Instant::now()) };
        for (node, step) in story {
            world.step(node, step);
        }
        // Who believes in a server that is no more finds that out.
        for _ in 0..4 {
            world.step(1, Step::Waits);
        }
        // And once all see each other and confirm what they are told, all have it, whatever came before.
        for node in 1..=nodes {
            world.step(node, Step::Sees(0b1_1110));
        }
        while let Some(node) = world.clients.iter().find(|(_, client)| !client.told.is_empty()).map(|(node, _)| *node) {
            world.step(node, Step::Confirms);
        }
        for (node, client) in &world.clients {
            prop_assert!(client.casts, "{algorithm:?}: node {node} was forgotten: {:?}", world.story);
        }
    }
}
