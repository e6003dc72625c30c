//! Everything is bounded.

use super::*;
use crate::{config::Limits, fuzzing::portions};

fn limited(limits: Limits) -> Script {
    let config = Config { limits, ..Config::new(Clusters::Any(TlsMode::Off)) };
    Script::with(Algorithm::FfSplit, config)
}

#[test]
fn connections_are_bounded_in_all_and_by_address() {
    let mut script = limited(Limits { clients: 3, clients_per_address: 2, ..Limits::default() });
    let from = |ip: u8, client| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, ip), 1));
        Event::Connected { client: ClientId(client), address }
    };
    for (ip, client) in [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5)] {
        script.event(from(ip, client));
    }
    assert_eq!(script.server.clients(), 3);
    insta::assert_snapshot!(script.take(), @r"
      3 closed: too many connections from this address
      5 closed: too many connections
    ");
    script.leaves(1);
    script.event(from(1, 6));
    assert_eq!(script.server.clients(), 3);
}

#[test]
fn who_has_not_joined_is_bounded_apart_and_gives_its_place_back() {
    let mut script = limited(Limits { strangers: 1, ..Limits::default() });
    script.connects(1);
    script.connects(2);
    assert_eq!(script.server.clients(), 1);
    script.introduces(1, NodeId(1));
    script.connects(2);
    script.leaves(2);
    script.connects(3);
    assert_eq!(script.server.clients(), 2);
    assert_eq!(script.server.strangers, 1);
}

#[test]
fn one_address_can_not_take_all_places_of_strangers() {
    let mut script = limited(Limits { strangers: 3, strangers_per_address: 1, ..Limits::default() });
    script.connects(1);
    script.connects(2);
    assert_eq!(script.server.clients(), 1);
    let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 1));
    script.event(Event::Connected { client: ClientId(3), address });
    assert_eq!(script.server.clients(), 2);
    script.introduces(1, NodeId(1));
    script.connects(4);
    assert_eq!(script.server.clients(), 3);
}

#[test]
fn after_this_machine_stood_still_peers_have_a_moment_to_be_heard() {
    let mut script = Script::new(Algorithm::FfSplit);
    script.joins(1);
    script.now += Duration::from_secs(60);
    script.event(Event::Tick);
    assert_eq!(script.server.clients(), 1, "its echoes lie in the socket");
    script.say(1, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
    script.passes(Duration::from_millis(11_999));
    assert_eq!(script.server.clients(), 1);
    script.now += Duration::from_secs(60);
    script.event(Event::Tick);
    script.passes(Duration::from_millis(500));
    assert_eq!(script.server.clients(), 0, "nothing was heard");
}

#[test]
fn many_messages_at_once_wait_for_their_answers_to_be_read() {
    let mut script = Script::new(Algorithm::FfSplit);
    script.joins(1);
    let echo = Message::new(MessageKind::EchoRequest, vec![Opt::Seq(7)]).encode();
    let client = ClientId(1);
    script.server.handle(script.now, Event::Received { client, bytes: echo.repeat(100) });
    let mut answered = 0;
    loop {
        let mut under_way = 0;
        let mut asks = false;
        while let Some(action) = script.server.poll_action() {
            under_way += usize::from(matches!(action, Action::Send { .. }));
            asks |= matches!(action, Action::Read { .. });
        }
        answered += under_way;
        assert!(under_way <= PAUSE_AT);
        if asks {
            break;
        }
        script.server.handle(script.now, Event::Sent { client, messages: under_way });
    }
    assert_eq!(answered, 100);
}

#[test]
fn who_does_not_read_is_dropped() {
    let mut script = limited(Limits { queued: 3, ..Limits::default() });
    script.configured = 2;
    script.joins(1);
    script.joins(2);
    script.sees(1, 5, &[1, 2]);
    script.sees(2, 5, &[1, 2]);
    // Node 2 reads nothing any more: what is sent to it stays under way.
    let mut dropped = None;
    for ring in 6..20 {
        let ring_id = RingId { node: NodeId(1), seq: ring };
        let mut options = vec![Opt::NodeListType(ListKind::ChangedConfig), Opt::Seq(4), Opt::RingId(ring_id)];
        options.extend([1, 2].map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(node)))));
        let bytes = Message::new(MessageKind::NodeList, options).encode();
        script.server.handle(script.now, Event::Received { client: ClientId(1), bytes });
        while let Some(action) = script.server.poll_action() {
            match action {
                Action::Send { client: ClientId(1), .. } => {
                    script.server.handle(script.now, Event::Sent { client: ClientId(1), messages: 1 });
                }
                Action::Close { client, why } => dropped = Some((client, why)),
                Action::Remember { number, .. } => script.server.handle(script.now, Event::Remembered { number }),
                Action::Send { .. } | Action::Read { .. } | Action::StartTls { .. } | Action::Tell(_) => {}
            }
        }
    }
    assert_eq!(dropped, Some((ClientId(2), CloseReason::SlowReader)));
}

#[test]
fn the_longest_message_is_taken_and_one_byte_more_is_not() {
    for (length, fine) in [(32_768, true), (32_769, false)] {
        let mut script = Script::new(Algorithm::FfSplit);
        script.joins(1);
        script.cut();
        let body = u32::try_from(length - 6).unwrap();
        let mut bytes = vec![0, 8];
        bytes.extend(body.to_be_bytes());
        bytes.extend([0, 99]);
        bytes.extend(u16::try_from(body - 4).unwrap().to_be_bytes());
        bytes.resize(length, 1);
        for portion in portions(&bytes) {
            script.event(Event::Received { client: ClientId(1), bytes: portion.to_vec() });
        }
        let said = script.take();
        assert_eq!(said.contains("EchoReply"), fine, "{said}");
        assert_eq!(said.contains("message too long"), !fine, "{said}");
        script.say(1, MessageKind::EchoRequest, vec![Opt::Seq(2)]);
        assert!(script.text.contains("EchoReply #2"), "{}", script.text);
    }
}

#[test]
fn a_client_that_says_nothing_counts_as_dead_in_the_end() {
    let config = Config { join_within: None, ..Config::new(Clusters::Any(TlsMode::Off)) };
    let mut script = Script::with(Algorithm::FfSplit, config);
    script.connects(1);
    script.passes(Duration::from_millis(179_999));
    assert_eq!(script.server.clients(), 1);
    script.passes(Duration::from_millis(1));
    assert_eq!(script.server.clients(), 0);
    script.joins(2);
    script.passes(Duration::from_millis(11_999));
    script.say(2, MessageKind::SetOption, vec![Opt::Seq(1), Opt::HeartbeatInterval(2000)]);
    script.passes(Duration::from_millis(2999));
    assert_eq!(script.server.clients(), 1);
    script.passes(Duration::from_millis(1));
    assert_eq!(script.server.clients(), 0);
}

#[test]
fn who_joins_no_cluster_is_dropped_in_time_whatever_it_says() {
    let mut script = Script::new(Algorithm::FfSplit);
    script.connects(1);
    script.connects(2);
    script.introduces(2, NodeId(2));
    for _ in 0..19 {
        script.passes(Duration::from_secs(1));
        // Each message restarts the dead-peer time.
        script.say(1, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
        script.say(2, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
    }
    assert_eq!(script.server.clients(), 2);
    script.cut();
    script.passes(Duration::from_secs(1));
    assert_eq!(script.server.clients(), 1);
    assert_eq!(script.server.strangers, 0);
    assert!(script.take().contains("1 closed: it has not joined a cluster in time"));
}

#[test]
fn of_who_has_not_joined_no_long_message_is_kept() {
    let mut script = Script::new(Algorithm::FfSplit);
    script.connects(1);
    let client = ClientId(1);
    // The header of a message of 32 kB, which a member might send, and most of its body.
    let mut bytes = vec![0, 0];
    bytes.extend(32_762_u32.to_be_bytes());
    bytes.resize(30_000, 1);
    for portion in portions(&bytes) {
        script.event(Event::Received { client, bytes: portion.to_vec() });
        let session = script.server.sessions.get_mut(&client).unwrap();
        assert_eq!(session.inbox.rest().len(), 0, "it is dropped as it comes");
    }
    script.event(Event::Received { client, bytes: vec![1; 32_768 - bytes.len()] });
    assert!(script.take().contains("message too long"));
    script.introduces(1, NodeId(1));
    assert_eq!(script.server.strangers, 0, "the connection stays usable");
}
