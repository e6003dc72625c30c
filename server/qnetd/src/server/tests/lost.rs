//! A holder of the vote that falls silent while the server runs: it is given up after a time and a half of its heartbeat,
//! and casts until twice of it. Node 1 has won a split and is cut off then; node 2 shall have the vote after that.

use super::*;
use crate::reason::Reason;

const DECIDING: [Algorithm; 3] = [Algorithm::FfSplit, Algorithm::TwoNodeLms, Algorithm::Lms];

/// They judge again when somebody leaves.
const JUDGING_ANEW: [Algorithm; 2] = [Algorithm::FfSplit, Algorithm::Lms];

const HEARTBEAT: Duration = Duration::from_secs(8);

/// From a client's last message to when it has certainly missed an echo.
const BELIEVES: Duration = Duration::from_secs(17);

impl Script {
    /// This client alone goes on sending echoes.
    fn passes_with_echoes_of(&mut self, client: u64, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let step = HEARTBEAT.min(end - self.now);
            self.passes(step);
            self.say(client, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        }
    }

    fn has_ack(&self, node: u32) -> bool {
        let cluster = self.server.clusters().next().unwrap();
        let member = cluster.members.into_iter().find(|member| member.node == NodeId(node)).unwrap();
        member.waiting.is_none() && member.standing.is_some_and(|(vote, ..)| vote == Vote::Ack)
    }

    fn waits_for(&self, node: u32) -> Option<Reason> {
        let cluster = self.server.clusters().next().unwrap();
        cluster.members.into_iter().find(|member| member.node == NodeId(node)).unwrap().waiting
    }
}

/// Node 1 has the vote, node 2 has not, and neither sees the other.
fn split(algorithm: Algorithm) -> Script {
    let mut script = Script::new(algorithm);
    for node in [1, 2] {
        script.joins(node);
        script.sees(node, 5, &[1, 2]);
        script.settle();
    }
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.settle();
    assert!(script.has_ack(1) && !script.has_ack(2), "{algorithm:?}: {}", script.text);
    script.cut();
    script
}

#[test]
fn who_is_given_up_keeps_the_vote_from_others_until_it_has_missed_the_server() {
    for algorithm in JUDGING_ANEW {
        let mut script = split(algorithm);
        script.say(1, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        script.passes_with_echoes_of(2, Duration::from_millis(12_001));
        assert!(script.text.contains("1 closed: no message in the dead-peer time"), "{}", script.text);
        assert_eq!(script.waits_for(2), Some(Reason::LostHolder { nodes: vec![NodeId(1)] }), "{}", script.text);
        script.passes_with_echoes_of(2, BELIEVES - Duration::from_millis(12_002));
        assert!(!script.has_ack(2), "{algorithm:?}, 1 ms too early: {}", script.text);
        script.passes(Duration::from_millis(1));
        assert!(script.has_ack(2), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn algorithms_that_judge_who_asks_alone_wait_too() {
    let original = Config { lms_as_original: true, ..Config::new(Clusters::Any(TlsMode::Off)) };
    for (algorithm, config) in
        [(Algorithm::TwoNodeLms, Config::new(Clusters::Any(TlsMode::Off))), (Algorithm::Lms, original)]
    {
        let mut script = Script::with(algorithm, config);
        script.joins(1);
        script.sees(1, 6, &[1]);
        assert!(script.has_ack(1), "{algorithm:?}: {}", script.text);
        script.passes(Duration::from_millis(12_001));
        script.joins(2);
        script.sees(2, 7, &[2]);
        script.passes(Duration::from_millis(4_900));
        assert!(!script.has_ack(2), "{algorithm:?}: {}", script.text);
        script.passes(Duration::from_secs(2));
        assert!(script.has_ack(2), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn who_took_its_leave_is_not_waited_for_and_who_was_killed_only_for_a_moment() {
    for algorithm in JUDGING_ANEW {
        let mut script = split(algorithm);
        script.leaves(1);
        assert!(script.has_ack(2), "{algorithm:?}: {}", script.text);

        let mut script = split(algorithm);
        script.event(Event::Gone { client: ClientId(1), how: Ending::Killed });
        script.passes(Duration::from_millis(4999));
        assert!(!script.has_ack(2), "{algorithm:?}, node 1 may come back: {}", script.text);
        script.passes(Duration::from_millis(1));
        assert!(script.has_ack(2), "{algorithm:?}: {}", script.text);

        let mut script = split(algorithm);
        script.event(Event::Gone { client: ClientId(1), how: Ending::Killed });
        script.connects(11);
        script.introduces(11, NodeId(1));
        script.configures(11);
        script.sees(11, 6, &[1]);
        script.settle();
        assert!(script.has_ack(1) && !script.has_ack(2), "{algorithm:?}, its vote is where it was: {}", script.text);
    }
}

#[test]
fn what_the_network_broke_is_silence() {
    for algorithm in JUDGING_ANEW {
        let mut script = split(algorithm);
        script.event(Event::Gone { client: ClientId(1), how: Ending::Broken });
        script.passes_with_echoes_of(2, BELIEVES - Duration::from_millis(1));
        assert!(!script.has_ack(2), "{algorithm:?}, 1 ms too early: {}", script.text);
        script.passes(Duration::from_millis(1));
        assert!(script.has_ack(2), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn a_partition_that_has_ended_is_not_waited_for() {
    for algorithm in DECIDING {
        let mut script = Script::new(algorithm);
        for node in [1, 2] {
            script.joins(node);
            script.sees(node, 5, &[1, 2]);
            script.settle();
        }
        // Node 1 lost all of its links a moment ago.
        script.sees(2, 7, &[2]);
        script.passes(Duration::from_millis(750));
        if algorithm == Algorithm::TwoNodeLms {
            script.sees(2, 7, &[2]);
        }
        assert!(script.text.contains("1 closed: another node no longer sees it"), "{}", script.text);
        assert!(script.has_ack(2), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn a_vote_that_stays_in_the_partition_lets_others_wait_for_who_was_lost_there() {
    for algorithm in JUDGING_ANEW {
        let mut script = Script::new(algorithm);
        script.configured = 4;
        for node in 1..=4 {
            script.joins(node);
        }
        for node in 1..=4 {
            script.sees(node, 5, if node <= 2 { &[1, 2] } else { &[3, 4] });
            script.settle();
        }
        assert!(script.has_ack(1) && script.has_ack(2) && !script.has_ack(3), "{}", script.text);
        script.event(Event::Gone { client: ClientId(1), how: Ending::Broken });
        // Its neighbour's Corosync sees it still, and gets the vote anew.
        script.sees(2, 5, &[1, 2]);
        script.settle();
        script.leaves(2);
        script.passes(Duration::from_secs(5));
        for client in [3, 4] {
            script.say(client, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        }
        script.passes(Duration::from_secs(11));
        assert!(!script.has_ack(3), "{algorithm:?}, node 1 still casts: {}", script.text);
        for client in [3, 4] {
            script.say(client, MessageKind::EchoRequest, vec![Opt::Seq(9)]);
        }
        script.passes(Duration::from_secs(1));
        assert!(script.has_ack(3) && script.has_ack(4), "{algorithm:?}: {}", script.text);
    }
}

#[test]
fn that_outlives_a_cluster_without_clients_and_a_hand_over() {
    for algorithm in DECIDING {
        for hands_over in [false, true] {
            let mut script = split(algorithm);
            script.leaves(2);
            if hands_over {
                script.joins(2);
            }
            script.event(Event::Gone { client: ClientId(1), how: Ending::Broken });
            if hands_over {
                let saved = script.server.save(script.now);
                let came = saved.clients().collect();
                let config = Config::new(Clusters::Any(TlsMode::Off));
                let kept = script.kept.clone();
                script.server = Server::restore(config, kept, saved, &came, script.now).unwrap();
            } else {
                assert_eq!(script.server.clusters().count(), 0);
                script.joins(2);
            }
            script.sees(2, 7, &[2]);
            script.passes_with_echoes_of(2, BELIEVES - Duration::from_millis(1));
            assert!(!script.has_ack(2), "{algorithm:?}, handed over {hands_over}: {}", script.text);
            script.passes(Duration::from_millis(1));
            assert!(script.has_ack(2), "{algorithm:?}, handed over {hands_over}: {}", script.text);
        }
    }
}

#[test]
fn who_was_told_and_has_let_go_is_not_waited_for() {
    let mut script = split(Algorithm::FfSplit);
    // Neither half can have the vote now, and node 1 confirms that.
    script.configured = 3;
    for client in [1, 2] {
        script.configures_anew(client);
    }
    script.settle();
    assert!(!script.has_ack(1) && !script.has_ack(2), "{}", script.text);
    script.event(Event::Gone { client: ClientId(1), how: Ending::Broken });
    script.configured = 2;
    script.configures_anew(2);
    script.settle();
    assert!(script.has_ack(2), "{}", script.text);
}

impl Script {
    fn configures_anew(&mut self, client: u64) {
        let mut options = vec![Opt::NodeListType(ListKind::ChangedConfig), Opt::Seq(8)];
        options.extend((1..=self.configured).map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(node)))));
        self.say(client, MessageKind::NodeList, options);
    }
}
