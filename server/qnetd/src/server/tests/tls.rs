//! Identity, and what is served to whom.

use super::*;
use crate::wire::ErrorCode;

fn names(common: &str, dns: &[&str]) -> Option<PeerNames> {
    Some(PeerNames { common: Some(common.into()), dns: dns.iter().map(|name| (*name).to_owned()).collect() })
}

/// A client of cluster `home` that has sent STARTTLS, with the handshake's first bytes behind it.
fn starting() -> Script {
    let mut script = Script::with(Algorithm::FfSplit, Config::new(Clusters::Any(TlsMode::Required)));
    script.connects(1);
    script.say(1, MessageKind::Preinit, vec![Opt::Seq(1), Opt::ClusterName(b"home".to_vec())]);
    let mut bytes = Message::new(MessageKind::StartTls, vec![Opt::Seq(2)]).encode();
    bytes.extend([0x16, 3, 1]);
    script.event(Event::Received { client: ClientId(1), bytes });
    script
}

#[test]
fn what_follows_starttls_belongs_to_tls() {
    let mut script = starting();
    // Whatever the shell may send before the handshake is done is not read as plain text.
    script.event(Event::Received { client: ClientId(1), bytes: vec![0; 6] });
    insta::assert_snapshot!(script.take(), @r"
        0 1 > Preinit #1 home
          1 < PreinitReply #1 TLS Required
          1 TLS, 3 bytes of it are here
    ");
}

#[test]
fn a_certificate_must_name_the_cluster_whatever_the_case() {
    for (peer, good) in [
        (names("home", &[]), true),
        (names("HOME", &[]), true),
        (names("other", &["Home"]), true),
        (names("home", &["other"]), false),
        (names("*", &[]), false),
        (names("other", &[]), false),
        (Some(PeerNames::default()), false),
        (None, false),
    ] {
        let mut script = starting();
        script.event(Event::Secured { client: ClientId(1), names: peer.clone() });
        assert_eq!(script.server.clients() == 1, good, "{peer:?}");
    }
}

#[test]
fn an_identity_is_bound_to_its_connection() {
    for again in [MessageKind::Preinit, MessageKind::StartTls] {
        let mut script = starting();
        script.event(Event::Secured { client: ClientId(1), names: names("home", &[]) });
        script.say(1, again, vec![Opt::Seq(3), Opt::ClusterName(b"other".to_vec())]);
        assert_eq!(script.server.clients(), 0, "{again:?}: {}", script.text);
    }
    let mut script = Script::new(Algorithm::FfSplit);
    script.joins(1);
    script.introduces(1, NodeId(2));
    assert_eq!(script.server.clients(), 0);
}

#[test]
fn nothing_but_introductions_is_served_in_plain_text_where_tls_is_required() {
    let mut script = Script::with(Algorithm::FfSplit, Config::new(Clusters::Any(TlsMode::Required)));
    script.connects(1);
    script.introduces(1, NodeId(1));
    script.say(1, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
    assert_eq!(script.text.matches(&ErrorCode::TlsRequired.to_string()).count(), 2, "{}", script.text);
}

#[test]
fn plain_text_is_for_clusters_that_are_named_for_it() {
    let modes = [("home".into(), TlsMode::Optional), ("work".into(), TlsMode::Required)];
    let mut script = Script::with(Algorithm::FfSplit, Config::new(Clusters::Named(modes.into())));
    script.joins(1);
    assert_eq!(script.server.clusters().count(), 1, "{}", script.text);
    for name in ["work", "unknown"] {
        script.connects(2);
        script.cut();
        script.say(2, MessageKind::Preinit, vec![Opt::ClusterName(name.as_bytes().to_vec())]);
        script.say(2, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
        match name {
            "work" => assert!(script.text.contains("TLS is required"), "{}", script.text),
            _ => assert!(script.text.contains("not served here"), "{}", script.text),
        }
        script.leaves(2);
    }
}

#[test]
fn a_certificate_alone_makes_a_cluster_served_that_is_not_named() {
    for (shown, served) in [(names("unknown", &[]), true), (names("other", &[]), false), (None, false)] {
        let modes = [("home".into(), TlsMode::Optional)];
        let mut config = Config::new(Clusters::Certified(modes.into()));
        // Whatever else is said of certificates: here they are all that there is.
        config.client_cert_required = false;
        let mut script = Script::with(Algorithm::FfSplit, config);
        script.joins(1);
        assert_eq!(script.server.clusters().count(), 1, "plain text, as it is named: {}", script.text);
        script.connects(2);
        script.say(2, MessageKind::Preinit, vec![Opt::ClusterName(b"unknown".to_vec())]);
        script.cut();
        script.say(2, MessageKind::EchoRequest, vec![Opt::Seq(1)]);
        assert!(script.text.contains(&ErrorCode::TlsRequired.to_string()), "{}", script.text);
        script.say(2, MessageKind::StartTls, vec![Opt::Seq(2)]);
        script.event(Event::Secured { client: ClientId(2), names: shown });
        let options = vec![
            Opt::Seq(3),
            Opt::NodeId(NodeId(2)),
            Opt::DecisionAlgorithm(Algorithm::FfSplit.number()),
            Opt::HeartbeatInterval(8000),
            Opt::TieBreaker(TieBreaker::Lowest),
            Opt::RingId(RingId { node: NodeId(2), seq: 1 }),
        ];
        script.say(2, MessageKind::Init, options);
        assert_eq!(script.server.clusters().count(), if served { 2 } else { 1 }, "{}", script.text);
    }
}

#[test]
fn tls_that_is_off_can_not_be_started() {
    let mut script = Script::new(Algorithm::FfSplit);
    script.connects(1);
    script.say(1, MessageKind::StartTls, vec![Opt::Seq(7)]);
    assert!(script.text.contains("ServerError #7: preinit required"), "{}", script.text);
    script.say(1, MessageKind::Preinit, vec![Opt::ClusterName(b"home".to_vec())]);
    script.say(1, MessageKind::StartTls, vec![Opt::Seq(8)]);
    assert_eq!(script.server.clients(), 0, "{}", script.text);
}
