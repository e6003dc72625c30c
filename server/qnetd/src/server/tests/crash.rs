//! A server that crashed doesn't know who is cut off from it. Node 1 holds the vote of a split, loses the server and casts
//! on until it misses an echo; node 2 comes to the server's next process.

use super::*;
use crate::{holder::believes, reason::Reason};

/// The last moment at which node 1 may cast its vote.
const BELIEVES: Duration = Duration::from_secs(17);

impl Script {
    fn crashes(&mut self) {
        let _ = writeln!(self.text, "{:>5} the server crashes", self.millis());
        self.unconfirmed.clear();
        let config = Config::new(Clusters::Any(TlsMode::Off));
        self.server = Server::after(config, self.kept.clone(), self.now);
    }

    /// A client whose number is ten times its run and once its node.
    fn comes(&mut self, client: u64, ring: u64, nodes: &[u32]) {
        self.connects(client);
        self.introduces(client, NodeId(u32::try_from(client % 10).unwrap()));
        self.configures(client);
        self.sees(client, ring, nodes);
    }

    fn acks(&self, client: u64) -> usize {
        let to = format!("      {client} < ");
        self.text.lines().filter(|line| line.starts_with(&to) && line.ends_with(" ACK")).count()
    }
}

/// Both have joined; whether node 1 is alone in its partition then, with the vote.
fn begun(algorithm: Algorithm, split: bool) -> Script {
    let mut script = Script::new(algorithm);
    for node in [1, 2] {
        script.joins(node);
        script.sees(node, 5, &[1, 2]);
        script.settle();
    }
    if split {
        script.sees(1, 6, &[1]);
        script.sees(2, 7, &[2]);
        script.settle();
        script.leaves(2);
        script.settle();
    }
    script.cut();
    script
}

const DECIDING: [Algorithm; 3] = [Algorithm::FfSplit, Algorithm::TwoNodeLms, Algorithm::Lms];

#[test]
fn who_is_outside_of_the_last_holders_partition_waits_until_that_one_has_missed_the_server() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, true);
        script.crashes();
        script.passes(Duration::from_secs(2));
        script.comes(12, 7, &[2]);
        script.settle();
        let waits = script.server.clusters().next().unwrap().members[0].waiting.clone();
        assert_eq!(waits, Some(Reason::FormerHolder { nodes: vec![NodeId(1)] }), "{algorithm:?}: {}", script.text);
        for _ in 0..2 {
            script.passes(Duration::from_millis(7499));
            script.say(12, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        }
        script.settle();
        assert_eq!(script.acks(12), 0, "{algorithm:?}, 2 ms too early: {}", script.text);
        script.passes(Duration::from_millis(2));
        assert_eq!(script.acks(12), 1, "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn the_last_holder_itself_and_whoever_sees_it_have_their_vote_at_once() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, true);
        script.crashes();
        script.comes(11, 6, &[1]);
        script.settle();
        assert_eq!(script.acks(11), 1, "{algorithm:?}: {}", script.text);
        script.crashes();
        script.comes(12, 8, &[1, 2]);
        script.settle();
        assert_eq!(script.acks(12), 1, "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn a_whole_cluster_is_not_slowed_by_a_crash_nor_is_one_half_of_it() {
    for algorithm in DECIDING {
        for nodes in [&[1, 2][..], &[2]] {
            let mut script = begun(algorithm, false);
            script.crashes();
            for node in nodes {
                script.comes(10 + u64::from(*node), 8, nodes);
            }
            script.settle();
            assert_eq!(script.acks(12), 1, "{algorithm:?}: {}", script.text);
        }
    }
}

#[test]
fn the_holder_coming_back_ends_the_wait() {
    for algorithm in [Algorithm::FfSplit, Algorithm::Lms] {
        let mut script = begun(algorithm, true);
        script.crashes();
        script.comes(12, 7, &[2]);
        script.settle();
        assert_eq!(script.acks(12), 0, "{algorithm:?}: {}", script.text);
        script.comes(11, 6, &[1]);
        script.settle();
        assert_eq!(script.acks(11) + script.acks(12), 1, "{algorithm:?}, one of both: {}", script.text);
    }
}

#[test]
fn lms_has_the_holder_let_go_when_it_is_back_before_another_gets_the_vote() {
    let mut script = begun(Algorithm::Lms, true);
    script.tie_breaker = TieBreaker::Highest;
    script.crashes();
    script.comes(12, 7, &[2]);
    // Node 1 is back, and casts still: it waits for all and has quorum.
    script.comes(11, 6, &[1]);
    assert_eq!(script.acks(12), 0, "{}", script.text);
    script.confirms(11);
    assert_eq!(script.acks(12), 1, "{}", script.text);
}

#[test]
fn the_originals_lms_waits_too() {
    let config = Config { lms_as_original: true, ..Config::new(Clusters::Any(TlsMode::Off)) };
    let holder = Holder { nodes: vec![NodeId(1)], heirs: vec![], believes: BELIEVES };
    let mut script = Script::with(Algorithm::Lms, config.clone());
    script.kept.holders.insert("home".into(), holder);
    script.server = Server::after(config, script.kept.clone(), script.now);
    script.comes(12, 7, &[2]);
    script.passes(Duration::from_secs(9));
    script.say(12, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
    script.passes(Duration::from_millis(7999));
    assert_eq!(script.acks(12), 0, "{}", script.text);
    script.passes(Duration::from_millis(2001));
    assert_eq!(script.acks(12), 1, "{}", script.text);
}

#[test]
fn where_it_is_not_known_who_held_the_vote_only_whole_clusters_have_theirs_at_once() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, true);
        script.kept = Remembered { holders: BTreeMap::new(), whole: false };
        script.crashes();
        script.comes(12, 7, &[2]);
        script.settle();
        assert_eq!(script.acks(12), 0, "{algorithm:?}: {}", script.text);
        script.crashes();
        script.comes(21, 8, &[1, 2]);
        script.comes(22, 8, &[1, 2]);
        script.settle();
        assert!(script.acks(21) > 0 && script.acks(22) > 0, "{algorithm:?}: {}", script.text);
        assert!(!script.server.remembered().whole, "of other clusters nothing is known yet");
        script.passes(believes(Duration::from_secs(120)));
        script.comes(31, 9, &[1]);
        script.settle();
        assert!(script.server.remembered().whole, "by now nobody casts any vote that was given before");
    }
}

#[test]
fn no_vote_leaves_before_its_holder_is_kept() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, false);
        script.full = true;
        script.leaves(1);
        script.settle();
        script.cut();
        script.sees(2, 7, &[2]);
        script.say(2, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        assert_eq!(script.acks(2), 0, "{algorithm:?}: {}", script.text);
        assert!(!script.text.contains("EchoReply"), "its messages keep their order: {}", script.text);
        assert!(!script.server.can_hand_over(ClientId(2)));
        // Another cluster's client is served.
        let number = script.server.remembers;
        script.event(Event::Remembered { number: number - 1 });
        assert_eq!(script.acks(2), 0, "{algorithm:?}: {}", script.text);
        script.event(Event::Remembered { number });
        script.settle();
        assert!(script.acks(2) > 0 && script.text.contains("EchoReply"), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn what_stays_the_same_is_not_written_again() {
    let mut script = begun(Algorithm::FfSplit, false);
    let written = script.server.remembers;
    for ring in 8..12 {
        script.sees(1, ring, &[1, 2]);
        script.sees(2, ring, &[1, 2]);
        script.settle();
    }
    assert!(script.acks(1) > 0 && script.server.remembers == written, "{}", script.text);
    let holder = &script.kept.holders[&ClusterName::from("home")];
    assert_eq!(*holder, Holder { nodes: vec![NodeId(1), NodeId(2)], heirs: vec![], believes: BELIEVES });
}

#[test]
fn who_had_the_vote_of_a_cluster_that_all_have_left_is_known_until_nobody_can_cast_it() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, true);
        let home = ClusterName::from("home");
        script.event(Event::Gone { client: ClientId(1), how: Ending::Broken });
        assert!(script.server.clusters.is_empty());
        script.passes(BELIEVES - Duration::from_millis(1));
        assert!(script.server.remembered().holders.contains_key(&home), "{algorithm:?}: it may be cast still");
        script.passes(Duration::from_secs(1));
        assert_eq!(script.server.known_holders(), 0, "{algorithm:?}");
        assert!(script.server.unheard.is_empty() && script.server.poll_timeout().is_none(), "{algorithm:?}");

        // So it is with what a process before this one gave, and of which nobody has come.
        script.crashes();
        script.passes(BELIEVES - Duration::from_millis(1));
        assert!(script.server.remembered().holders.contains_key(&home), "{algorithm:?}: it may be cast still");
        script.passes(Duration::from_secs(1));
        assert_eq!((script.server.known_holders(), script.server.poll_timeout()), (0, None), "{algorithm:?}");

        // Who is there is not forgotten.
        script.comes(21, 9, &[1]);
        script.settle();
        script.passes(Duration::from_secs(7));
        assert_eq!(script.server.known_holders(), 1, "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn of_clusters_that_all_have_left_those_are_known_that_may_still_cast() {
    let mut script = begun(Algorithm::Lms, true);
    script.event(Event::Gone { client: ClientId(1), how: Ending::Broken });
    // Meanwhile others end well, whose clusters are forgotten at once; this one isn't, by a process after this one neither.
    for (client, crashes) in [(31, false), (41, true), (51, false)] {
        if crashes {
            script.crashes();
        }
        script.passes(Duration::from_secs(3));
        let (gone, there) = (format!("gone-{client}"), format!("there-{client}"));
        for (client, name) in [(client, &gone), (client + 1, &there)] {
            script.connects(client);
            script.say(client, MessageKind::Preinit, vec![Opt::Seq(1), Opt::ClusterName(name.clone().into_bytes())]);
            script.introduces_as(client, NodeId(1));
            script.configures(client);
            script.sees(client, 5, &[1]);
            script.settle();
        }
        let known =
            |script: &Script, name: &str| script.server.remembered().holders.contains_key(&ClusterName::from(name));
        assert!(known(&script, &gone) && known(&script, &there), "{}", script.text);
        script.leaves(client);
        script.passes(Duration::from_secs(2));
        assert!(known(&script, "home") && known(&script, &there), "{}", script.text);
        // What a process before this one gave is known until all of it is over, and what this one gives meanwhile.
        assert!(client > 31 || !known(&script, &gone), "{}", script.text);
    }
}

#[test]
fn whose_vote_was_expected_when_another_left_has_it_without_waiting_for_the_disk() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, false);
        script.leaves(1);
        script.settle();
        let holder = &script.kept.holders[&ClusterName::from("home")];
        assert_eq!((&holder.nodes[..], &holder.heirs[..]), (&[NodeId(1), NodeId(2)][..], &[NodeId(2)][..]));
        script.cut();
        script.full = true;
        script.sees(2, 7, &[2]);
        script.settle();
        assert!(script.acks(2) > 0, "{algorithm:?}: {}", script.text);
        // What is on the disk doesn't say whether that has come true: node 1 must fear it, node 2 has nothing to fear.
        let kept = script.kept.clone();
        for (client, nodes, has) in [(11, &[1][..], false), (22, &[2], true), (31, &[1, 2], true)] {
            (script.kept, script.full) = (kept.clone(), false);
            script.crashes();
            script.cut();
            script.comes(client, 8, nodes);
            script.settle();
            assert_eq!(script.acks(client) > 0, has, "{algorithm:?}, {client}: {}", script.text);
        }
    }
}

#[test]
fn what_is_expected_holds_nothing_back() {
    for algorithm in DECIDING {
        let mut script = begun(algorithm, false);
        script.full = true;
        script.leaves(1);
        script.say(2, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        assert!(script.text.contains("EchoReply"), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn what_is_expected_ends_when_all_are_back_and_is_not_replaced_before() {
    let mut script = Script::new(Algorithm::FfSplit);
    script.configured = 4;
    for node in 1..=4 {
        script.joins(node);
        script.sees(node, 5, &[1, 2, 3, 4]);
        script.settle();
    }
    let heirs = |script: &Script| script.kept.holders[&ClusterName::from("home")].heirs.clone();
    assert_eq!(heirs(&script), []);
    script.leaves(1);
    script.settle();
    assert_eq!(heirs(&script), [2, 3, 4].map(NodeId));
    script.leaves(2);
    script.settle();
    assert_eq!(heirs(&script), [2, 3, 4].map(NodeId), "they may have the vote by now, for all that the disk says");
    for client in [11, 12] {
        script.comes(client, 9, &[1, 2, 3, 4]);
    }
    for client in [3, 4] {
        script.sees(client, 9, &[1, 2, 3, 4]);
    }
    script.settle();
    assert_eq!(heirs(&script), []);
}
