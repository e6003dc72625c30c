//! A server that is saved and restored is the same server.

use super::*;
use crate::fuzzing::{conversation_seeds, conversation_with};

fn config() -> Config {
    Config::new(Clusters::Any(TlsMode::Off))
}

/// Through the bytes, as from one process to the next.
fn handed_over(server: &Server, config: Config, came: &[u64], now: Instant) -> Result<Server, Unfit> {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &server.save(now)).unwrap();
    let saved: Saved = cbor4ii::serde::from_slice(&bytes[..]).unwrap();
    Server::restore(config, server.remembered(), saved, &came.iter().map(|client| ClientId(*client)).collect(), now)
}

impl Script {
    fn hands_over(&mut self, config: Config, came: &[u64]) {
        self.server = handed_over(&self.server, config, came, self.now).unwrap();
        self.event(Event::Tick);
    }
}

fn two(algorithm: Algorithm) -> Script {
    let mut script = Script::new(algorithm);
    script.joins(1);
    script.joins(2);
    script.sees(1, 5, &[1, 2]);
    script.sees(2, 5, &[1, 2]);
    script.settle();
    script.cut();
    script
}

#[test]
fn members_and_their_votes_are_as_before() {
    for algorithm in [Algorithm::FfSplit, Algorithm::Lms] {
        let mut script = two(algorithm);
        script.passes(Duration::from_secs(3));
        let before: Vec<ClusterView> = script.server.clusters().collect();
        script.cut();
        script.hands_over(config(), &[1, 2]);
        assert_eq!(script.server.clusters().collect::<Vec<_>>(), before);
        assert!(!script.text.contains('<') && !script.text.contains("has"), "nobody is told anything: {}", script.text);
        // The dead-peer time goes on: 12 s from the last message.
        script.passes(Duration::from_millis(8999));
        assert_eq!(script.server.clients(), 2);
        script.passes(Duration::from_millis(1));
        assert_eq!(script.server.clients(), 0);
    }
}

#[test]
fn who_did_not_come_along_has_gone_and_the_others_votes_follow() {
    let mut script = two(Algorithm::FfSplit);
    // A split, of which node 2 has not heard yet that it lost.
    script.sees(1, 6, &[1]);
    script.sees(2, 7, &[2]);
    script.cut();
    script.hands_over(config(), &[1]);
    assert!(script.text.contains("1 < VoteInfo #2 ring 1.6 ACK"), "{}", script.text);
    assert_eq!(script.server.clients(), 1);
}

#[test]
fn who_has_not_joined_stays_behind_and_half_a_message_does_not() {
    let mut script = two(Algorithm::FfSplit);
    script.connects(3);
    let echo = Message::new(MessageKind::EchoRequest, vec![Opt::Seq(77)]).encode();
    let (head, tail) = echo.split_at(7);
    script.event(Event::Received { client: ClientId(1), bytes: head.to_vec() });
    assert!(script.server.can_hand_over(ClientId(1)) && !script.server.can_hand_over(ClientId(3)));
    script.hands_over(config(), &[1, 2]);
    assert_eq!(script.server.clients(), 2);
    script.event(Event::Received { client: ClientId(1), bytes: tail.to_vec() });
    assert!(script.text.contains("1 < EchoReply"), "{}", script.text);
    // The middle of a message that is thrown away is no place to go on from.
    script.event(Event::Received { client: ClientId(2), bytes: vec![0, 99, 0, 0, 0, 9, 1] });
    assert!(!script.server.can_hand_over(ClientId(2)));
}

#[test]
fn new_settings_hold_for_old_connections_too() {
    let mut script = two(Algorithm::FfSplit);
    let named = |clusters: &[(&str, TlsMode)]| {
        Config::new(Clusters::Named(clusters.iter().map(|(name, mode)| ((*name).into(), *mode)).collect()))
    };
    let restored =
        |script: &Script, config| handed_over(&script.server, config, &[1, 2], script.now).map(|s| s.clients());
    assert_eq!(restored(&script, named(&[("home", TlsMode::Off)])), Ok(2));
    assert_eq!(restored(&script, named(&[("other", TlsMode::Off)])), Ok(0), "its cluster is not served any more");
    assert_eq!(restored(&script, named(&[("home", TlsMode::Required)])), Ok(0), "plain text is not allowed any more");
    let lms = Config { lms_as_original: true, ..config() };
    assert_eq!(restored(&script, lms), Err(Unfit::LmsAsOriginal));
    script.leaves(1);
}

#[test]
fn a_conversation_goes_on_as_if_nothing_had_happened() {
    for seed in conversation_seeds() {
        let plain = conversation_with(&seed, |server, _, _| server);
        let handed = conversation_with(&seed, |server, config, now| {
            let came: Vec<u64> = server.save(now).clients().map(|client| client.0).collect();
            let whole = came.iter().all(|client| server.can_hand_over(ClientId(*client)));
            // Who has not joined yet would stay behind, and the conversations would differ for that.
            if whole && came.len() == server.clients() {
                handed_over(&server, config, &came, now).unwrap()
            } else {
                server
            }
        });
        assert!(plain.len() > 10);
        assert_eq!(plain, handed);
    }
}
