mod alarms;
mod replicas;
mod restored;

use std::collections::{BTreeMap, BTreeSet};
use tiebreaker_pipeline::command::{ENTRY_VERSION, Setting, Void};
use tiebreaker_pipeline::fence::OffSign;
use tiebreaker_pipeline::state::FewerVotes;

use tiebreaker_consensus::{Batch, Body, Config, MESSAGE_VERSION, Membership, Promise, Stored, bootstrap};
use tiebreaker_pipeline::name::{ClusterName, ResourceName};
use tiebreaker_pipeline::node::NodeConfig;
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::report::{Trust, WatchdogPromise};

use super::*;

/// Members in one machine's memory: messages arrive at once, disks are quick.
struct Net {
    cores: BTreeMap<MemberName, Core>,
    disks: BTreeMap<MemberName, Stored>,
    first: Stored,
    state: State,
    now: u64,
    replies: Vec<(RequestId, Reply)>,
    stops: Vec<(MemberName, String)>,
    /// What goes over every path arrives by two of them.
    twice: bool,
    /// How often each agent has been started.
    starts: BTreeMap<MemberName, u64>,
    /// Whose store must not be used again.
    set_aside: BTreeSet<MemberName>,
    /// Whose agent may go.
    let_go: BTreeSet<MemberName>,
    /// Whose disk takes no writes, and what waits for it.
    stalled: Option<MemberName>,
    waiting: Vec<Batch>,
}

fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

fn change(profile: Profile) -> Request {
    Request::Propose(Command::SetProfile { profile })
}

impl Net {
    /// `pi` and these nodes, of whom all vote if there are two or more. Nobody is up yet.
    fn new(nodes: &[&str]) -> Self {
        Self::of_level(nodes, Level::KNOWN)
    }

    /// The same with a cluster of this feature level.
    fn of_level(nodes: &[&str], level: Level) -> Self {
        let mut state = State::new(ClusterName::new("home").unwrap(), name("pi"), vec!["pi:5404".into()], "00".into());
        for node in nodes {
            let command = Command::AddMember {
                name: name(node),
                role: Role::Node,
                addresses: vec![format!("{node}:5404")],
                key: (*node).into(),
            };
            state.apply(1, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command }).unwrap();
        }
        let all: BTreeSet<u64> = state.members.values().map(|member| member.raft_id).collect();
        let voters = if nodes.len() < 2 { BTreeSet::from([1]) } else { all.clone() };
        state.apply_voters(1, voters.clone());
        let learners = all.difference(&voters).map(|id| RaftId(*id)).collect();
        state.level = level;
        let first =
            bootstrap(Membership { voters: voters.into_iter().map(RaftId).collect(), learners }, state.encode());
        let (cores, disks) = (BTreeMap::new(), BTreeMap::new());
        Self {
            cores,
            disks,
            first,
            state,
            now: 1_000,
            replies: Vec::new(),
            stops: Vec::new(),
            twice: false,
            starts: BTreeMap::new(),
            set_aside: BTreeSet::new(),
            let_go: BTreeSet::new(),
            stalled: None,
            waiting: Vec::new(),
        }
    }

    fn up(nodes: &[&str]) -> Self {
        let mut net = Self::new(nodes);
        for member in nodes.iter().chain(&["pi"]) {
            net.start(member);
        }
        net.pass(10_000);
        net
    }

    fn moment(&self) -> Moment {
        Moment { now: Reading::both(self.now * 1_000_000), wall_ms: self.now }
    }

    /// Starts a member from what is on its disk.
    fn start(&mut self, text: &str) {
        self.start_knowing(text, Level::KNOWN);
    }

    /// The same with a program of another version.
    fn start_knowing(&mut self, text: &str, level: Level) {
        let member = name(text);
        let stored = self.disks.entry(member.clone()).or_insert_with(|| self.first.clone()).clone();
        let raft_id = RaftId(self.state.members[&member].raft_id);
        let last_index = stored.last_index();
        let mut state = State::decode(&stored.snapshot.as_ref().unwrap().state).unwrap();
        state.applied = stored.snapshot_index();
        let config = Config::new(raft_id, Rank::new(0, 3).unwrap(), raft_id.0, Profile::Balanced.tick());
        let moment = self.moment();
        let raft = Raft::new(config, stored, moment.now).unwrap();
        let fences = text == "pi";
        let node = (!fences).then(|| {
            let watchdog = WatchdogPromise { driver: "iTCO_wdt".into(), promised_ms: 10_000, trust: Trust::Drilled };
            let config = NodeConfig {
                name: member.clone(),
                incarnation: *self.starts.entry(member.clone()).and_modify(|starts| *starts += 1).or_insert(1),
                boot: format!("boot of {text}"),
                watchdog: Some(watchdog),
                machine: None,
                armed: false,
                capacity: tiebreaker_pipeline::report::Capacity::default(),
                booted_in_ms: None,
                rules: Rules::ALL,
            };
            Node::new(moment.now, config).knowing(level)
        });
        let config =
            CoreConfig { name: member.clone(), raft_id, raft, state, last_index, node, fences, rules: Rules::ALL };
        self.cores.insert(member, Core::new(moment, config).knowing(level));
        self.settle();
    }

    /// A member's disk is full from now on.
    fn fill(&mut self, text: &str) {
        self.stalled = Some(name(text));
        let moment = self.moment();
        let what = Some("no space left for x.redb: make room".to_owned());
        self.cores.get_mut(&name(text)).unwrap().disk_full(moment, what);
        self.settle();
    }

    /// There is room again: what waited is written, in order.
    fn make_room(&mut self) {
        let full = self.stalled.take().unwrap();
        let moment = self.moment();
        let core = self.cores.get_mut(&full).unwrap();
        core.disk_full(moment, None);
        for batch in self.waiting.drain(..) {
            self.disks.get_mut(&full).unwrap().write(&batch);
            core.persisted(moment, batch.number);
        }
        self.settle();
    }

    /// Everybody hears everybody who is up.
    fn hear(&mut self) {
        let up: BTreeSet<MemberName> = self.cores.keys().cloned().collect();
        let moment = self.moment();
        for core in self.cores.values_mut() {
            core.hears(moment, up.clone());
        }
        self.settle();
    }

    fn all_hold_leases_for(&mut self, ms: u64) {
        for _ in 0..ms / 25 {
            self.pass(25);
            for core in self.cores.values() {
                let holds = core.node().is_none_or(|node| node.has_lease(self.moment().now));
                assert!(holds, "{} lost its lease at {}", core.name(), self.now);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now += 25;
            let moment = self.moment();
            for core in self.cores.values_mut() {
                core.advance(moment);
            }
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            let mail = self.collect();
            if mail.is_empty() {
                return;
            }
            self.hand_out(mail);
        }
    }

    /// What everybody has to say: writes are durable, and messages are on their way.
    fn collect(&mut self) -> Vec<(MemberName, MemberName, Message)> {
        let moment = self.moment();
        let mut mail = Vec::new();
        for (from, core) in &mut self.cores {
            while let Some(action) = core.poll_action() {
                match action {
                    Action::Send { to, message, everywhere } => {
                        if everywhere && self.twice {
                            mail.push((from.clone(), to.clone(), message.clone()));
                        }
                        mail.push((from.clone(), to, message));
                    }
                    Action::Persist(batch) if self.stalled.as_ref() == Some(from) => self.waiting.push(batch),
                    Action::Persist(batch) => {
                        if let Some(disk) = self.disks.get_mut(from) {
                            disk.write(&batch);
                        }
                        core.persisted(moment, batch.number);
                    }
                    Action::Reply { request, reply } => self.replies.push((request, reply)),
                    Action::Stop { why, .. } => self.stops.push((from.clone(), why)),
                    Action::SetAside { .. } => {
                        self.set_aside.insert(from.clone());
                    }
                    Action::Node(node::Action::MayGo) => {
                        self.let_go.insert(from.clone());
                    }
                    Action::Node(_) | Action::Device { .. } | Action::Changed => {}
                }
            }
        }
        mail
    }

    fn hand_out(&mut self, mail: Vec<(MemberName, MemberName, Message)>) {
        let moment = self.moment();
        for (from, to, message) in mail {
            if let Some(core) = self.cores.get_mut(&to) {
                core.message(moment, &from, message);
            }
        }
    }

    fn asks_pi(&mut self, request: Request) {
        let moment = self.moment();
        self.cores.get_mut(&name("pi")).unwrap().request(moment, RequestId(7), request);
    }

    /// Asks a member, and waits for the answer at most so long.
    fn ask(&mut self, member: &str, request: Request, ms: u64) -> Option<Reply> {
        let moment = self.moment();
        self.cores.get_mut(&name(member)).unwrap().request(moment, RequestId(7), request);
        self.settle();
        if self.replies.is_empty() {
            self.pass(ms);
        }
        assert!(self.replies.len() <= 1, "a request ends in one reply: {:?}", self.replies);
        self.replies.pop().map(|(id, reply)| {
            assert_eq!(id, RequestId(7));
            reply
        })
    }

    fn status(&mut self, member: &str) -> Status {
        match self.ask(member, Request::Status, 1_000) {
            Some(Reply::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }
}

#[test]
fn a_cluster_of_one_node_protects_nothing_and_says_so() {
    let mut net = Net::up(&["a"]);
    let status = net.status("pi");
    assert_eq!(status.leader, Some(name("pi")));
    assert!(status.alarms.iter().any(|alarm| alarm.contains("nothing is protected")), "{:?}", status.alarms);
    assert!(status.alarms.iter().any(|alarm| alarm.contains("the appliance alone votes")), "{:?}", status.alarms);
}

#[test]
fn two_nodes_and_the_appliance_protect_and_raise_no_alarm() {
    let mut net = Net::up(&["a", "b"]);
    let status = net.status("pi");
    assert_eq!((status.leader, status.votes, status.alarms), (Some(name("pi")), (3, 3), vec![]));
    for node in ["a", "b"] {
        let core = &net.cores[&name(node)];
        assert!(core.node().unwrap().has_lease(net.moment().now), "{node} was admitted and renews");
    }
}

#[test]
fn an_unproven_power_device_alarms_and_what_the_appliance_knows_alone_is_shown_to_all() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    let device = |proven: bool| tiebreaker_pipeline::state::DeviceStatus {
        name: "bmc".into(),
        kind: "ipmi".into(),
        proven,
        why: (!proven).then(|| "login refused".into()),
    };
    let set = |net: &mut Net, proven| {
        let command = Command::SetDevices { node: name("a"), devices: vec![device(proven)] };
        assert!(matches!(net.ask("pi", Request::Propose(command), 1_000), Some(Reply::Done { .. })));
    };
    set(&mut net, false);
    assert_eq!(net.status("b").alarms, [unproven(&name("a"), &device(false), false)]);
    set(&mut net, true);
    assert_eq!(net.status("b").alarms, Vec::<String>::new());
    let at = net.moment().now;
    let proven = BTreeMap::from([((name("a"), "bmc".to_owned()), at)]);
    let off_within_ms = BTreeMap::from([((name("a"), "bmc".to_owned()), 9_000)]);
    let surroundings = Surroundings { alarms: vec!["the card is full".into()], proven, off_within_ms };
    net.cores.get_mut(&name("pi")).unwrap().surrounded(surroundings);
    net.pass(2_000);
    let status = net.status("b");
    assert_eq!(status.alarms, ["the card is full"]);
    let a = status.members.iter().find(|member| member.name == name("a")).unwrap();
    assert!(a.proven_ms["bmc"] >= 2_000, "{:?}", a.proven_ms);
    assert_eq!(a.off_within_ms["bmc"], 9_000);
}

#[test]
fn a_request_to_a_follower_is_decided_by_the_leader_and_answered_where_it_was_asked() {
    let mut net = Net::up(&["a", "b"]);
    assert!(matches!(net.ask("b", change(Profile::Patient), 1_000), Some(Reply::Done { .. })));
    net.pass(1_000);
    for core in net.cores.values() {
        assert_eq!(core.state().settings.profile, Profile::Patient, "{}", core.name());
    }
    let status = net.status("a");
    assert_eq!(status.answered_by, name("pi"), "what only the leader knows comes from it");
}

#[test]
fn a_request_that_comes_by_two_paths_is_dealt_with_once() {
    let mut net = Net::up(&["a", "b"]);
    net.twice = true;
    let applied = |net: &Net| net.cores[&name("pi")].state().applied;
    let even_out = Request::Propose(Command::Set(Setting::Rebalance(true)));
    let before = applied(&net);
    assert!(matches!(net.ask("b", even_out, 1_000), Some(Reply::Done { .. })));
    net.pass(1_000);
    assert_eq!(applied(&net), before + 1, "a second entry would be void, and its refusal could come first");

    // Another member's number means nothing, and a later use of the same one is another request.
    let ask = |net: &mut Net, from: &str, id| {
        let moment = net.moment();
        let request = Request::Propose(Command::RemoveOperator { name: "nobody".into() });
        net.cores.get_mut(&name("pi")).unwrap().message(moment, &name(from), Message::Ask { id, request });
        net.settle();
        net.pass(1_000);
        applied(net) - before
    };
    assert_eq!(ask(&mut net, "a", 9), 2);
    assert_eq!(ask(&mut net, "a", 9), 2);
    assert_eq!(ask(&mut net, "b", 9), 3);
    assert_eq!(ask(&mut net, "a", 10), 4);
    net.pass(5_000);
    assert_eq!(ask(&mut net, "a", 9), 5, "its sender may have started again");
}

fn journal(net: &mut Net, asked: &str, of: &str) -> Option<Reply> {
    net.ask(asked, Request::Journal { of: name(of), last: 500 }, 5_100)
}

#[test]
fn a_journal_is_answered_by_its_own_member_whoever_is_asked_and_whoever_leads() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    for asked in ["a", "b", "pi"] {
        let Some(Reply::Journal { lines }) = journal(&mut net, asked, "b") else {
            panic!("{asked} tells nothing of b")
        };
        let deeds: Vec<&Deed> = lines.iter().map(|line| &line.deed).collect();
        assert_eq!(deeds, [&Deed::Up, &Deed::LeaseHeld], "asked at {asked}");
    }
    let Some(Reply::Journal { lines }) = journal(&mut net, "a", "pi") else { panic!("pi tells nothing") };
    assert!(lines.iter().any(|line| matches!(line.deed, Deed::Leads { .. })), "{lines:?}");
    // Nobody leads any more; what is known is told all the same, and who is missing too.
    net.cores.remove(&name("pi"));
    net.cores.remove(&name("b"));
    net.hear();
    assert!(matches!(journal(&mut net, "a", "a"), Some(Reply::Journal { .. })));
    assert!(matches!(journal(&mut net, "a", "b"), Some(Reply::NotHeard { .. })));
    assert!(matches!(journal(&mut net, "a", "c"), Some(Reply::Void { why: Void::Unknown { .. } })));
}

#[test]
fn an_agent_that_goes_in_good_order_leaves_that_on_its_disk_for_the_next_one() {
    let mut net = Net::up(&["a", "b"]);
    let known = |net: &Net| {
        let snapshot = net.disks[&name("a")].snapshot.clone().unwrap();
        State::decode(&snapshot.state).unwrap().nodes[&name("a")].leaving.is_some()
    };
    assert!(!known(&net));
    let moment = net.moment();
    let core = net.cores.get_mut(&name("a")).unwrap();
    core.node_event(moment, node::Event::Leaving(tiebreaker_pipeline::report::Leave::AgentRestart));
    net.settle();
    net.pass(2_000);
    assert!(net.let_go.contains(&name("a")), "nothing is in its way");
    assert!(known(&net), "the next agent knows it before anybody tells it");
}

#[test]
fn an_agent_whose_disk_takes_nothing_is_not_let_go() {
    let mut net = Net::up(&["a", "b"]);
    net.fill("a");
    let moment = net.moment();
    let core = net.cores.get_mut(&name("a")).unwrap();
    core.node_event(moment, node::Event::Leaving(tiebreaker_pipeline::report::Leave::AgentRestart));
    net.settle();
    net.pass(2_000);
    assert!(net.let_go.is_empty());
    net.make_room();
    net.pass(2_000);
    assert!(net.let_go.contains(&name("a")));
}

#[test]
fn a_void_change_is_told_with_its_reason() {
    let mut net = Net::up(&["a", "b"]);
    let web = tiebreaker_pipeline::name::ResourceName::new("web").unwrap();
    let remove = Request::Propose(Command::RemoveResource { name: web });
    assert!(matches!(net.ask("a", remove, 1_000), Some(Reply::Void { why: Void::Unknown { .. } })));
}

#[test]
fn a_request_whose_leader_vanished_ends_in_time() {
    let mut net = Net::up(&["a", "b"]);
    net.cores.remove(&name("pi"));
    let reply = net.ask("a", change(Profile::Fast), 5_100);
    assert!(matches!(reply, Some(Reply::NoLeader { .. })), "{reply:?}");
}

#[test]
fn without_a_leader_what_is_known_here_is_told_and_nothing_is_changed() {
    let mut net = Net::new(&["a", "b"]);
    net.start("a");
    net.pass(10_000);
    assert_eq!(net.status("a").leader, None);
    assert!(matches!(net.ask("a", change(Profile::Fast), 1_000), Some(Reply::NoLeader { .. })));
    assert!(!net.cores[&name("a")].node().unwrap().has_lease(net.moment().now));
}

#[test]
fn a_member_that_lost_what_it_acknowledged_stops() {
    let mut net = Net::up(&["a", "b"]);
    net.disks.remove(&name("b"));
    net.start("b");
    net.pass(5_000);
    assert_eq!(net.stops.len(), 1, "once: {:?}", net.stops);
    let (who, why) = &net.stops[0];
    assert_eq!(*who, name("b"));
    assert!(why.contains("amnesia") && why.contains("join again"), "{why}");
}

#[test]
fn row_66_a_leader_that_hears_of_a_takeover_stops_at_once() {
    let mut net = Net::up(&["a", "b"]);
    let (moment, number) = (net.moment(), net.state.members[&name("a")].raft_id);
    net.cores.get_mut(&name("pi")).unwrap().newer_epoch(moment, &name("a"), Some(number), 1);
    net.settle();
    assert!(net.set_aside.contains(&name("pi")));
    assert_eq!(net.stops.len(), 1, "{:?}", net.stops);
    assert!(net.stops[0].1.contains("took the cluster home over with a, in epoch 1"), "{:?}", net.stops);
    let before = net.cores[&name("pi")].state().applied;
    assert!(!matches!(net.ask("b", change(Profile::Fast), 100), Some(Reply::Done { .. })));
    assert_eq!(net.cores[&name("pi")].state().applied, before);
}

#[test]
fn row_66_a_node_that_hears_of_a_takeover_loses_its_lease_and_says_why() {
    let mut net = Net::up(&["a", "b"]);
    let (moment, number) = (net.moment(), net.state.members[&name("pi")].raft_id);
    let b = name("b");
    assert!(net.cores[&b].node().unwrap().has_lease(moment.now));
    net.cores.get_mut(&b).unwrap().newer_epoch(moment, &name("pi"), Some(number), 3);
    assert!(!net.cores[&b].node().unwrap().has_lease(moment.now));
    net.settle();
    // Nobody has told it yet that what an earlier agent left is dead, so it doesn't know that nothing runs.
    assert!(net.set_aside.contains(&b) && net.stops.is_empty(), "{:?}", net.stops);
    let told = net.ask("b", change(Profile::Fast), 10);
    assert!(matches!(&told, Some(Reply::Refused { why }) if why.contains("epoch 3")), "{told:?}");
    net.cores.get_mut(&b).unwrap().node_event(moment, node::Event::LeftoversKilled);
    net.settle();
    assert_eq!(net.stops.iter().map(|(who, _)| who).collect::<Vec<_>>(), [&b]);
}

#[test]
fn row_66_the_word_of_who_is_no_member_or_in_no_newer_epoch_ends_nobody() {
    let mut net = Net::up(&["a", "b"]);
    let (moment, number) = (net.moment(), net.state.members[&name("a")].raft_id);
    let words = [
        ("a", Some(number + 7), 1),
        ("a", None, 1),
        ("a", Some(number), 0),
        ("gone", Some(99), 1),
        ("pi", Some(number), 1),
    ];
    for (from, number, epoch) in words {
        net.cores.get_mut(&name("pi")).unwrap().newer_epoch(moment, &name(from), number, epoch);
    }
    net.pass(1_000);
    assert!(net.set_aside.is_empty() && net.stops.is_empty(), "{:?}", net.stops);
    assert!(matches!(net.ask("b", change(Profile::Fast), 1_000), Some(Reply::Done { .. })));
}

/// Consensus, as `from` says it to `to`.
fn says(net: &mut Net, from: &str, to: &str, term: u64, body: Body) {
    let id = net.state.members[&name(from)].raft_id;
    let message = tiebreaker_consensus::Message { version: MESSAGE_VERSION, term, number: 0, body };
    let promise = Promise::default();
    let moment = net.moment();
    let to = net.cores.get_mut(&name(to)).unwrap();
    to.message(moment, &name(from), Message::Consensus { from: id, promise, message });
    net.settle();
}

fn asks_for_a_vote(net: &mut Net, from: &str, to: &str, term: u64) {
    let body =
        Body::RequestVote { pre: false, transfer: true, index: 10_000, log_term: term - 1, commit: 0, commit_term: 0 };
    says(net, from, to, term, body);
}

#[test]
fn row_52_a_voter_whose_card_forgot_a_vote_is_told_by_its_candidate_and_steps_aside() {
    let mut net = Net::up(&["a", "b"]);
    let before = net.disks[&name("b")].clone();
    asks_for_a_vote(&mut net, "a", "b", 50);
    assert_eq!(net.disks[&name("b")].hard_state.vote, Some(RaftId(net.state.members[&name("a")].raft_id)));
    net.disks.insert(name("b"), before);
    net.start("b");
    let (who, why) = &net.stops[0];
    assert_eq!(*who, name("b"));
    assert!(why.contains("amnesia: a remembers") && why.contains("term 50") && why.contains("join again"), "{why}");
    // And it gives no second vote in that term.
    let after = net.disks[&name("b")].hard_state;
    asks_for_a_vote(&mut net, "pi", "b", 50);
    assert_eq!(net.disks[&name("b")].hard_state, after);
}

#[test]
fn row_52_a_leader_whose_card_forgot_what_it_committed_steps_aside() {
    let mut net = Net::up(&["a", "b"]);
    let before = net.disks[&name("pi")].clone();
    assert!(matches!(net.ask("pi", change(Profile::Patient), 1_000), Some(Reply::Done { .. })));
    net.disks.insert(name("pi"), before);
    net.start("pi");
    net.pass(5_000);
    let who: Vec<&str> = net.stops.iter().map(|(who, _)| who.as_str()).collect();
    assert_eq!(who, ["pi"], "{:?}", net.stops);
    assert!(net.stops[0].1.contains("amnesia: a remembers"), "{:?}", net.stops);
}

#[test]
fn row_52_a_peer_that_was_away_tells_what_it_knows_when_it_is_back() {
    let mut net = Net::up(&["a", "b"]);
    let before = net.disks[&name("b")].clone();
    asks_for_a_vote(&mut net, "a", "b", 50);
    let a = net.cores.remove(&name("a")).unwrap();
    net.disks.insert(name("b"), before);
    net.start("b");
    net.pass(3_000);
    assert_eq!(net.stops, [], "nobody who is up knows better, and nobody waits for ever");
    net.cores.insert(name("a"), a);
    net.pass(2_000);
    assert_eq!(net.stops.len(), 1, "{:?}", net.stops);
    assert!(net.stops[0].1.contains("term 50"), "{:?}", net.stops);
}

#[test]
fn row_52_before_a_peer_has_answered_nothing_is_promised_to_it() {
    let mut net = Net::up(&["a", "b"]);
    net.cores.remove(&name("a"));
    net.cores.remove(&name("pi"));
    net.start("b");
    net.pass(10_000);
    let before = net.disks[&name("b")].clone();
    asks_for_a_vote(&mut net, "a", "b", 50);
    assert_eq!(net.disks[&name("b")], before, "not even a vote that it could give");
}

#[test]
fn row_52_a_restarted_voter_waits_for_no_peer_that_is_down() {
    for down in ["a", "pi"] {
        let mut net = Net::up(&["a", "b"]);
        net.cores.remove(&name(down));
        net.pass(5_000);
        net.start("b");
        net.pass(8_000);
        assert_eq!(net.stops, []);
        assert!(net.status("b").leader.is_some(), "two of three are up without {down}");
        assert!(matches!(net.ask("b", change(Profile::Patient), 2_000), Some(Reply::Done { .. })), "without {down}");
    }
}

#[test]
fn a_member_that_restarts_with_its_disk_goes_on() {
    let mut net = Net::up(&["a", "b"]);
    net.start("b");
    net.pass(5_000);
    assert_eq!(net.stops, []);
    assert_eq!(net.cores[&name("b")].state().digest(), net.cores[&name("pi")].state().digest());
}

#[test]
fn when_the_appliance_is_gone_a_node_leads_and_its_peer_keeps_its_lease() {
    let mut net = Net::up(&["a", "b"]);
    net.cores.remove(&name("pi"));
    for _ in 0..400 {
        net.pass(25);
        for core in net.cores.values() {
            assert!(core.node().unwrap().has_lease(net.moment().now), "{} lost its lease", core.name());
        }
    }
    assert!(net.status("a").leader.is_some_and(|leader| leader != name("pi")));
}

#[test]
fn the_lead_goes_back_to_the_appliance_only_when_its_log_is_close() {
    let mut net = Net::up(&["a", "b"]);
    let seconds = Request::Propose(Command::SetTakeback { seconds: 2 });
    assert!(matches!(net.ask("pi", seconds, 1_000), Some(Reply::Done { .. })));
    net.cores.remove(&name("pi"));
    net.pass(5_000);
    let leads = net.status("a").leader.unwrap();
    net.stalled = Some(name("pi"));
    net.start("pi");
    for profile in [Profile::Patient, Profile::Balanced].into_iter().cycle().take(12) {
        assert!(matches!(net.ask("a", change(profile), 1_000), Some(Reply::Done { .. })));
    }
    let moment = net.moment();
    net.cores.get_mut(&leads).unwrap().hears(moment, BTreeSet::from([name("pi")]));
    let term = net.status("a").term;
    net.pass(10_000);
    let status = net.status("a");
    assert_eq!((status.leader, status.term), (Some(leads), term), "a transfer that can't succeed isn't begun");
    net.stalled = None;
    net.waiting.clear();
    net.start("pi");
    net.pass(10_000);
    let status = net.status("a");
    assert_eq!((status.leader, status.term), (Some(name("pi")), term + 1));
}

/// `a` has not heard yet that `b` joined and votes: its store ends before that. The others' begins after it.
fn with_a_lagging_voter() -> Net {
    let lagging = Net::new(&["a"]).first;
    let mut net = Net::new(&["a", "b"]);
    let snapshot = net.first.snapshot.as_mut().unwrap();
    snapshot.index = 5;
    net.first.hard_state.commit = 5;
    net.disks.insert(name("a"), lagging);
    net
}

#[test]
fn a_voter_that_lags_lets_a_member_lead_that_it_has_not_heard_of() {
    let mut net = with_a_lagging_voter();
    net.start("a");
    net.start("b");
    net.pass(10_000);
    assert_eq!(net.status("b").leader, Some(name("b")), "two of three voters are up");
    assert!(net.cores[&name("a")].state().members.contains_key(&name("b")), "and the one that lagged has caught up");
    assert_eq!(net.stops, []);
}

#[test]
fn a_member_that_is_not_known_yet_may_ask_for_nothing() {
    let mut net = with_a_lagging_voter();
    net.disks.insert(name("pi"), net.disks[&name("a")].clone());
    net.start("pi");
    net.start("a");
    net.pass(5_000);
    assert_eq!(net.status("pi").leader, Some(name("pi")));
    let moment = net.moment();
    let ask = Message::Ask { id: 3, request: change(Profile::Patient) };
    let pi = net.cores.get_mut(&name("pi")).unwrap();
    pi.message(moment, &name("b"), ask);
    let told: Vec<Action> = std::iter::from_fn(|| pi.poll_action()).collect();
    let refused = |action: &Action| match action {
        Action::Send { to, message: Message::Told { id: 3, reply: Reply::Refused { .. } }, .. } => *to == name("b"),
        _ => false,
    };
    assert!(told.iter().any(refused), "{told:?}");
    net.pass(1_000);
    assert_eq!(net.cores[&name("pi")].state().settings.profile, Profile::Balanced);
}

#[test]
fn only_a_number_that_is_not_given_out_yet_by_what_is_known_here_may_be_a_newcomers() {
    let mut net = Net::up(&["a", "b"]);
    let moment = net.moment();
    let pi = net.cores.get_mut(&name("pi")).unwrap();
    // 1, 2 and 3 are given out; c never was a member, or was removed.
    for (who, from, heard) in [("c", 4, true), ("a", 4, true), ("c", 3, false), ("a", 3, false), ("c", 1, false)] {
        pi.message(moment, &name(who), Message::Recall { id: 1, from });
        let answers = std::iter::from_fn(|| pi.poll_action())
            .filter(|action| matches!(action, Action::Send { message: Message::Recalled { .. }, .. }));
        assert_eq!(answers.count() == 1, heard, "{who} as #{from}");
    }
}

#[test]
fn a_node_whose_disk_is_full_keeps_its_lease_promises_nothing_and_catches_up() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    net.fill("b");
    let before = net.disks[&name("b")].clone();
    for profile in [Profile::Patient, Profile::Balanced].into_iter().cycle().take(300) {
        assert!(matches!(net.ask("a", change(profile), 1_000), Some(Reply::Done { .. })), "two of three can write");
    }
    net.all_hold_leases_for(30_000);
    asks_for_a_vote(&mut net, "a", "b", 50);
    assert_eq!(net.disks[&name("b")], before);
    assert!(net.waiting.len() < 10, "what waits is bounded: {}", net.waiting.len());
    let alarms = net.status("pi").alarms;
    assert!(alarms.iter().any(|alarm| alarm.starts_with("b: no space left for x.redb")), "{alarms:?}");
    net.make_room();
    net.all_hold_leases_for(6_000);
    assert_eq!(net.cores[&name("b")].state().digest(), net.cores[&name("pi")].state().digest());
    assert_eq!(net.status("pi").alarms, Vec::<String>::new());
}

#[test]
fn a_leader_whose_disk_is_full_hands_the_lead_to_a_majority_that_can_write() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    net.fill("pi");
    net.all_hold_leases_for(5_000);
    let status = net.status("a");
    assert!(status.leader.is_some_and(|leader| leader != name("pi")));
    assert!(status.alarms.iter().any(|alarm| alarm.starts_with("pi: no space left")), "{:?}", status.alarms);
    assert!(matches!(net.ask("a", change(Profile::Patient), 2_000), Some(Reply::Done { .. })));
    net.make_room();
    net.all_hold_leases_for(90_000);
    assert_eq!(net.status("a").leader, Some(name("pi")), "with room it takes the lead back");
}

#[test]
fn a_leader_whose_disk_is_full_leads_on_where_nobody_else_could_be_elected() {
    let mut net = Net::up(&["a", "b"]);
    net.cores.remove(&name("b"));
    net.hear();
    net.fill("pi");
    net.all_hold_leases_for(30_000);
    assert_eq!(net.status("a").leader, Some(name("pi")));
    match net.ask("a", change(Profile::Patient), 2_000) {
        Some(Reply::Refused { why }) => assert!(why.contains("no space left for x.redb"), "{why}"),
        other => panic!("not refused: {other:?}"),
    }
    net.make_room();
    assert!(matches!(net.ask("a", change(Profile::Patient), 2_000), Some(Reply::Done { .. })));
}

#[test]
fn an_agent_that_restarts_leaves_the_agreement_where_the_next_one_begins() {
    let mut net = Net::up(&["a", "b"]);
    let moment = net.moment();
    let leaving = tiebreaker_pipeline::node::Event::Leaving(tiebreaker_pipeline::report::Leave::AgentRestart);
    net.cores.get_mut(&name("a")).unwrap().node_event(moment, leaving);
    net.pass(1_000);
    let stored = net.disks[&name("a")].snapshot.clone().unwrap();
    let state = State::decode(&stored.state).unwrap();
    assert!(state.life(&name("a")).is_some_and(|life| life.unbound.is_some()), "else it would stop what runs");
}

/// A fence of this node, which is down from here on.
fn fence(net: &mut Net, node: &str) -> tiebreaker_pipeline::fence::FenceId {
    let fence = Request::Fence { node: name(node), by: "alice".into() };
    assert!(matches!(net.ask("pi", fence, 1_000), Some(Reply::Done { .. })));
    net.cores.remove(&name(node));
    net.cores[&name("pi")].state().open_fence(&name(node)).expect("the fence is open").0
}

/// The appliance's word that a device reads off.
fn reads_off(net: &mut Net, id: tiebreaker_pipeline::fence::FenceId, sign: OffSign) -> Option<Reply> {
    let evidence = tiebreaker_pipeline::fence::Evidence::read_off(sign, "it".into());
    net.ask("pi", Request::Propose(Command::Fenced { id, evidence }), 1_000)
}

#[test]
fn row_44_a_device_that_reads_off_counts_once_the_other_node_was_heard_again() {
    let mut net = Net::up(&["a", "b"]);
    let id = fence(&mut net, "a");
    let first = reads_off(&mut net, id, OffSign::Bmc);
    assert!(matches!(&first, Some(Reply::Refused { why }) if why.contains("b has not been heard since")), "{first:?}");
    net.pass(600);
    assert!(matches!(reads_off(&mut net, id, OffSign::Bmc), Some(Reply::Done { .. })));
}

#[test]
fn row_44_a_device_that_took_the_power_of_another_node_proves_nothing_and_alarms() {
    let mut net = Net::up(&["a", "b", "c", "d"]);
    let id = fence(&mut net, "a");
    // It has no vote: the appliance and b are still a majority.
    net.cores.remove(&name("c"));
    let signs = [OffSign::Bmc, OffSign::Meter, OffSign::Led, OffSign::Relay, OffSign::Program];
    for sign in signs.into_iter().cycle().take(40) {
        let reply = reads_off(&mut net, id, sign);
        assert!(matches!(reply, Some(Reply::Refused { .. })), "{reply:?}");
        net.pass(250);
    }
    let alarms = net.status("pi").alarms;
    assert!(alarms.iter().any(|alarm| alarm.contains("may have taken the power of c instead")), "{alarms:?}");
}

#[test]
fn row_49_a_node_that_is_away_is_not_removed_before_it_was_fenced() {
    let mut net = Net::up(&["a", "b"]);
    net.cores.remove(&name("a"));
    net.pass(3_000);
    let reply = net.ask("pi", Request::Remove { name: name("a"), forced_by: None }, 1_000);
    assert!(matches!(&reply, Some(Reply::Refused { why }) if why.contains("is away and may still run")), "{reply:?}");
    assert!(net.cores[&name("pi")].state().members.contains_key(&name("a")));
}

#[test]
fn row_61_nobodys_vote_changes_while_a_fence_is_open() {
    let mut net = Net::up(&["a", "b", "c", "d"]);
    let b = net.state.members[&name("b")].raft_id;
    assert!(net.cores[&name("pi")].state().voters.contains(&b));
    let id = fence(&mut net, "c");
    assert!(matches!(
        net.ask("pi", Request::Remove { name: name("b"), forced_by: None }, 1_000),
        Some(Reply::Done { .. })
    ));
    net.pass(5_000);
    assert!(net.cores[&name("pi")].state().voters.contains(&b), "a fence is open");
    let alarm = format!("who votes is to change, and that waits until fence {id} of c is closed");
    assert!(net.status("pi").alarms.iter().any(|said| said.starts_with(&alarm)));
    let word = Request::Confirm { node: name("c"), id, by: "alice".into() };
    assert!(matches!(net.ask("pi", word, 1_000), Some(Reply::Done { .. })));
    net.pass(5_000);
    assert!(!net.cores[&name("pi")].state().voters.contains(&b));
    assert!(!net.status("pi").alarms.iter().any(|said| said.contains("who votes")));
}

/// A resource that is placed on a node by the log, though nobody runs it here.
fn place(net: &mut Net, resource: &str, on: &str) -> ResourceName {
    let resource = ResourceName::new(resource).unwrap();
    let does = || vec!["/bin/true".to_owned()];
    let driver =
        tiebreaker_pipeline::resource::Driver::Command { start: does(), stop: does(), status: does(), migrate: None };
    let spec = tiebreaker_pipeline::resource::ResourceSpec::with_defaults(driver);
    let requested = tiebreaker_pipeline::resource::Requested::Started;
    let add = Command::AddResource { name: resource.clone(), spec, requested, node: None };
    assert!(matches!(net.ask("pi", Request::Propose(add), 1_000), Some(Reply::Done { .. })));
    let moment = net.moment();
    let pi = net.cores.get_mut(&name("pi")).unwrap();
    let generation = pi.state.resources[&resource].generation;
    let incarnation = pi.state.life(&name(on)).unwrap().incarnation;
    let assign = Command::Assign { resource: resource.clone(), generation, to: name(on), incarnation };
    pi.propose(moment, Asker::Nobody, assign);
    net.settle();
    net.pass(500);
    resource
}

#[test]
fn a_move_that_is_asked_before_the_last_one_is_applied_is_judged_by_both() {
    let mut net = Net::up(&["a", "b", "c"]);
    let (one, two) = (place(&mut net, "one", "a"), place(&mut net, "two", "b"));
    let rule = tiebreaker_pipeline::placement::rule::PlacementRule {
        kind: tiebreaker_pipeline::placement::rule::RuleKind::Apart,
        resources: BTreeSet::from([one.clone(), two.clone()]),
        disabled_by_operator: false,
    };
    let rule = Command::SetRule { name: tiebreaker_pipeline::name::RuleName::new("apart").unwrap(), rule };
    assert!(matches!(net.ask("pi", Request::Propose(rule), 1_000), Some(Reply::Done { .. })));
    let to_c = |resource: &ResourceName| Request::Move {
        resource: resource.clone(),
        to: name("c"),
        live: false,
        forced_by: None,
    };
    net.asks_pi(to_c(&one));
    net.asks_pi(to_c(&two));
    let pi = &net.cores[&name("pi")];
    assert!(pi.raft.last_index() > pi.state.applied, "the first is in the log and not applied");
    net.settle();
    net.pass(1_000);
    let replies: Vec<&Reply> = net.replies.iter().map(|(_, reply)| reply).collect();
    assert!(
        matches!(replies.as_slice(), [Reply::Done { .. }, Reply::Refused { why }] if why.contains("the rule apart keeps two apart")),
        "{replies:?}"
    );
    let state = &net.cores[&name("pi")].state;
    assert_eq!(state.resources[&one].phase.bound_for(), Some(&name("c")));
    assert_eq!(state.resources[&two].phase.bound_for(), None);
}

#[test]
fn row_34_that_a_move_may_be_asked_again_is_told_only_from_its_level_on() {
    for (level, known) in [(Level::POWER_CAN_BE_HELD, false), (Level::STARTS_ARE_LOOKED_AT, true)] {
        let mut net = Net::of_level(&["a", "b", "c"], level);
        ["a", "b", "c", "pi"].iter().for_each(|member| net.start_knowing(member, level));
        net.pass(10_000);
        let (one, two) = (place(&mut net, "one", "a"), place(&mut net, "two", "a"));
        let most = Setting::Moves { most: Some(1), force: false };
        assert!(matches!(net.ask("pi", Request::Propose(Command::Set(most)), 1_000), Some(Reply::Done { .. })));
        let to_c = |resource| Request::Move { resource, to: name("c"), live: false, forced_by: None };
        assert!(matches!(net.ask("pi", to_c(one), 1_000), Some(Reply::Done { .. })));
        let reply = net.ask("pi", to_c(two), 5_000);
        assert_eq!(matches!(reply, Some(Reply::NotYet { .. })), known, "{reply:?}");
        assert_eq!(matches!(reply, Some(Reply::Refused { .. })), !known, "{reply:?}");
    }
}

#[test]
fn a_move_waits_for_its_turn_and_may_be_asked_again_when_that_doesnt_come() {
    let mut net = Net::up(&["a", "b", "c"]);
    let (one, two) = (place(&mut net, "one", "a"), place(&mut net, "two", "a"));
    let most = Setting::Moves { most: Some(1), force: false };
    assert!(matches!(net.ask("pi", Request::Propose(Command::Set(most)), 1_000), Some(Reply::Done { .. })));
    let to_c = |resource: &ResourceName| Request::Move {
        resource: resource.clone(),
        to: name("c"),
        live: false,
        forced_by: None,
    };
    assert!(matches!(net.ask("pi", to_c(&one), 1_000), Some(Reply::Done { .. })));
    net.asks_pi(to_c(&two));
    net.pass(5_000);
    let replies = std::mem::take(&mut net.replies);
    let [(_, Reply::NotYet { why })] = replies.as_slice() else { panic!("{replies:?}") };
    assert!(why.contains("1 planned move(s) are under way, 1 may be at once"), "{why}");
    net.asks_pi(to_c(&two));
    net.pass(1_000);
    assert!(net.replies.is_empty(), "it is not its turn");
    let moment = net.moment();
    let pi = net.cores.get_mut(&name("pi")).unwrap();
    let generation = pi.state.resources[&one].generation;
    let incarnation = pi.state.life(&name("c")).unwrap().incarnation;
    pi.propose(moment, Asker::Nobody, Command::Assign { resource: one, generation, to: name("c"), incarnation });
    net.settle();
    net.pass(1_000);
    assert!(matches!(net.replies.as_slice(), [(_, Reply::Done { .. })]), "{:?}", net.replies);
    assert_eq!(net.cores[&name("pi")].state().resources[&two].phase.bound_for(), Some(&name("c")));
}

#[test]
fn an_appliance_that_is_not_heard_is_unknown_and_its_vote_isnt_counted() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    net.cores.remove(&name("pi"));
    net.pass(10_000);
    net.hear();
    let status = net.status("a");
    let pi = status.members.iter().find(|member| member.name == name("pi")).unwrap();
    assert_eq!((pi.state.as_str(), status.votes), ("unknown", (2, 3)));
    assert!(status.alarms.iter().any(|alarm| alarm.contains("the appliance pi is not heard")), "{:?}", status.alarms);
    net.start("pi");
    net.hear();
    net.pass(5_000);
    let status = net.status("a");
    assert_eq!((status.votes, status.alarms), ((3, 3), vec![]));
}

#[test]
fn a_node_that_was_fenced_and_isnt_back_is_unknown() {
    let mut net = Net::up(&["a", "b"]);
    let id = fence(&mut net, "a");
    let word = Request::Confirm { node: name("a"), id, by: "alice".into() };
    assert!(matches!(net.ask("pi", word, 1_000), Some(Reply::Done { .. })));
    net.pass(5_000);
    assert!(net.cores[&name("pi")].state().open_fence(&name("a")).is_none(), "the fence is closed");
    let status = net.status("pi");
    let a = status.members.iter().find(|member| member.name == name("a")).unwrap();
    assert_eq!((a.state.as_str(), status.votes), ("unknown", (2, 3)));
}

#[test]
fn a_rule_that_names_a_node_that_isnt_there_is_told() {
    let mut net = Net::up(&["a", "b"]);
    let nodes = BTreeMap::from([(name("a"), 1), (name("zed"), 1)]);
    let rule = tiebreaker_pipeline::placement::rule::PlacementRule {
        kind: tiebreaker_pipeline::placement::rule::RuleKind::NodeAffinity { nodes, strict: false },
        resources: BTreeSet::from([ResourceName::new("web").unwrap()]),
        disabled_by_operator: false,
    };
    let rule = Command::SetRule { name: tiebreaker_pipeline::name::RuleName::new("home").unwrap(), rule };
    assert!(matches!(net.ask("pi", Request::Propose(rule), 1_000), Some(Reply::Done { .. })));
    net.pass(1_000);
    let status = net.status("pi");
    assert_eq!(status.rules[0].strangers, [name("zed")]);
    assert!(status.alarms.iter().any(|alarm| alarm.contains("home names zed")), "{:?}", status.alarms);
}

/// What the timeline says of who insisted.
fn forced(net: &Net) -> Vec<(String, String)> {
    let log = net.cores[&name("pi")].state().log.iter();
    log.filter_map(|line| match &line.decision {
        tiebreaker_pipeline::decision::Decision::Forced { by, done, .. } => Some((by.clone(), done.clone())),
        _ => None,
    })
    .collect()
}

#[test]
fn what_breaks_the_plan_is_refused_with_the_counterexample_and_forced_under_a_name() {
    let mut net = Net::up(&["a", "b"]);
    let web = place(&mut net, "web", "a");
    let goal = Command::Set(Setting::Tolerate(Some(1)));
    assert!(matches!(net.ask("pi", Request::Propose(goal), 1_000), Some(Reply::Done { .. })));
    let refused = |reply: Option<Reply>| match reply {
        Some(Reply::Refused { why }) => why,
        other => panic!("not refused: {other:?}"),
    };
    let empty = Command::SetMaintenance { node: name("b"), on: true };
    let why = refused(net.ask("pi", Request::Propose(empty.clone()), 1_000));
    assert!(
        why.contains("while b is in maintenance") && why.contains(web.as_str()) && why.contains("--force"),
        "{why}"
    );
    let remove = |by: Option<&str>| Request::Remove { name: name("b"), forced_by: by.map(str::to_owned) };
    let why = refused(net.ask("pi", remove(None), 1_000));
    assert!(why.contains(web.as_str()) && why.contains("--force"), "{why}");
    assert!(net.cores[&name("pi")].state().members.contains_key(&name("b")));
    assert_eq!(forced(&net), []);
    let force = Request::Force { command: empty, by: "alice".into() };
    assert!(matches!(net.ask("pi", force, 1_000), Some(Reply::Done { .. })));
    assert_eq!(forced(&net), [("alice".to_owned(), "b went into maintenance".to_owned())]);
    let back = Command::SetMaintenance { node: name("b"), on: false };
    assert!(matches!(net.ask("pi", Request::Propose(back), 1_000), Some(Reply::Done { .. })));
    assert!(matches!(net.ask("pi", remove(Some("bob")), 1_000), Some(Reply::Done { .. })));
    assert_eq!(forced(&net)[1..], [("bob".to_owned(), "b was removed".to_owned())]);
    assert!(!net.cores[&name("pi")].state().members.contains_key(&name("b")));
}

/// Nobody expects a's vote for a minute.
fn without_a(net: &Net) -> Request {
    let fewer = FewerVotes { without: BTreeSet::from([name("a")]), until_ms: net.now + 60_000 };
    Request::Propose(Command::Set(Setting::FewerVotes(Some(fewer))))
}

fn fence_of_b() -> Request {
    Request::Fence { node: name("b"), by: "alice".into() }
}

#[test]
fn row_61_nobodys_vote_changes_while_a_fence_is_on_its_way_into_the_log() {
    let mut net = Net::up(&["a", "b"]);
    let fewer = without_a(&net);
    net.asks_pi(fewer);
    let mail = net.collect();
    net.hand_out(mail);
    // a and b have what pi wrote first, and pi doesn't know it yet.
    net.asks_pi(fence_of_b());
    net.settle();
    net.pass(1_000);
    let state = net.cores[&name("pi")].state();
    assert!(state.settings.fewer_votes.is_some() && state.open_fence(&name("b")).is_some());
    assert_eq!(state.voters.len(), 3, "without b a majority must be left");
}

#[test]
fn row_61_nobody_is_fenced_while_who_votes_is_being_changed() {
    let mut net = Net::up(&["a", "b"]);
    let fewer = without_a(&net);
    net.asks_pi(fewer);
    while net.replies.is_empty() {
        let mail = net.collect();
        net.hand_out(mail);
    }
    assert!(matches!(net.replies.pop(), Some((_, Reply::Done { .. }))));
    assert_eq!(net.cores[&name("pi")].state().voters.len(), 3, "the change is still on its way");
    net.asks_pi(fence_of_b());
    net.collect();
    let reply = net.replies.pop();
    assert!(
        matches!(&reply, Some((_, Reply::Refused { why })) if why.contains("who votes is just being")),
        "{reply:?}"
    );
    net.pass(1_000);
    assert_eq!(net.cores[&name("pi")].state().voters.len(), 2);
    let reply = net.ask("pi", fence_of_b(), 1_000);
    assert!(matches!(reply, Some(Reply::Void { why: Void::NoMajorityLeft { .. } })), "{reply:?}");
    assert!(
        net.cores[&name("b")].node().unwrap().has_lease(net.moment().now),
        "what was never proposed costs no lease"
    );
}

#[test]
fn row_34_what_an_older_member_cant_read_goes_into_no_log() {
    let older = Level::SUPPLIES_PROVE;
    let mut net = Net::of_level(&["a", "b"], older);
    for member in ["pi", "a", "b"] {
        net.start_knowing(member, older);
    }
    net.pass(10_000);
    net.cores.remove(&name("pi"));
    net.start("pi");
    net.pass(20_000);
    let by = || "alice".to_owned();
    let hold = || Command::Set(Setting::Hold { by: by(), reason: None });
    let release = || Command::Set(Setting::Release { by: by() });
    let last = net.cores[&name("pi")].raft.last_index();
    for command in [hold(), release()] {
        for request in [Request::Propose(command.clone()), Request::Force { command: command.clone(), by: by() }] {
            let reply = net.ask("pi", request, 1_000);
            assert!(matches!(&reply, Some(Reply::Refused { why }) if why.contains("older version")), "{reply:?}");
        }
    }
    assert_eq!(net.cores[&name("pi")].raft.last_index(), last);
}
