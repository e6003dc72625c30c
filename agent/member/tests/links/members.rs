//! Messages between members.

use std::net::SocketAddr;
use std::time::Duration;

use tiebreaker_member::{Acceptor, Lane, LinkError, PathState, Role, Route, Sent, Timing, Via};
use tokio::net::TcpListener;

use crate::world::{Member, Mode, NOW, Proxy, World, issue, name, port, soon};

#[tokio::test]
async fn every_member_reaches_every_other_both_ways() {
    let mut world = World::new(Timing::default()).await;
    world.all_up().await;
    assert_eq!(world.n2.send("n1", Lane::Urgent, Route::Best, b"forth"), Sent::Queued(1));
    assert_eq!(world.n1.message().await, ("node 'n2' of cluster 'home'".to_owned(), Via::Direct, b"forth".to_vec()));
    assert_eq!(world.n1.send("n2", Lane::Bulk, Route::Relay, b"back"), Sent::Queued(1));
    assert_eq!(world.n2.message().await, ("node 'n1' of cluster 'home'".to_owned(), Via::Relayed, b"back".to_vec()));
    assert_eq!(world.pi.send("n1", Lane::Urgent, Route::All, b"twice"), Sent::Queued(2));
    let mut ways = [world.n1.message().await.1, world.n1.message().await.1];
    ways.sort_by_key(|via| *via == Via::Relayed);
    assert_eq!(ways, [Via::Direct, Via::Relayed]);
    assert_eq!(world.n1.send("nobody", Lane::Urgent, Route::Best, b""), Sent::NoPath);
    assert_eq!(world.n1.send("n2", Lane::Urgent, Route::Best, &vec![0; (64 << 10) + 1]), Sent::TooLarge);
    assert_eq!(world.n1.send("n2", Lane::Bulk, Route::Best, &vec![0; (8 << 20) + 1]), Sent::TooLarge);
}

#[tokio::test]
async fn an_urgent_message_overtakes_a_large_one() {
    // A slow processor hears nothing else for seconds while it works on the large one.
    let mut world = World::new(Timing { dead: Duration::from_secs(600), ..Timing::default() }).await;
    world.n2.direct_up("n1").await;
    let large: Vec<u8> = (0..8_u32 << 20).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let sent = world.n2.send("n1", Lane::Bulk, Route::Best, &large);
    assert!(matches!(sent, Sent::Queued(_)));
    world.n2.send("n1", Lane::Urgent, Route::Best, b"first");
    assert_eq!(world.n1.message().await.2, b"first");
    assert!(world.n1.message().await.2 == large, "the large message arrives whole");
}

#[tokio::test]
async fn the_first_address_that_answers_is_used() {
    let world = World::strangers(Timing::default(), NOW).await;
    // One address where nobody listens, one where somebody does and never says a word.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addrs = [closed, mute.local_addr().unwrap(), world.n1.addr];
    world.n2.knows("n1", Role::Node, &addrs);
    world.n1.knows("n2", Role::Node, &[world.n2.addr]);
    world.n2.direct_up("n1").await;
}

#[tokio::test]
async fn a_link_that_falls_silent_is_given_up_and_comes_back() {
    let timing = Timing { ping: Duration::from_millis(50), dead: Duration::from_millis(500), ..Timing::default() };
    let mut world = World::strangers(timing, NOW).await;
    let proxy = Proxy::before(world.n1.addr).await;
    world.n2.knows("n1", Role::Node, &[proxy.addr]);
    world.n1.knows("n2", Role::Node, &[world.n2.addr]);
    world.n2.direct_up("n1").await;
    proxy.set(Mode::Hole);
    let silent = |paths: &tiebreaker_member::PeerPaths| matches!(&paths.direct, PathState::Down { why, .. } if why.contains("silent"));
    tokio::join!(world.n2.until("silence", "n1", silent), world.n1.until("silence", "n2", silent));
    assert_eq!(world.n2.send("n1", Lane::Urgent, Route::Best, b"lost"), Sent::NoPath);
    proxy.set(Mode::Pass);
    world.n2.direct_up("n1").await;
    world.n1.direct_up("n2").await;
    world.n2.send("n1", Lane::Urgent, Route::Best, b"again");
    assert_eq!(world.n1.message().await.2, b"again");
}

#[tokio::test]
async fn clusters_on_one_port_do_not_see_each_other() {
    let world = World::strangers(Timing::default(), NOW).await;
    // The appliance serves a second cluster, with a member of the same name, on one port.
    let port = port().await;
    let mut home = Member::start(&port, issue(&world.ca, "home", Role::Appliance, "pi"), Timing::default(), NOW);
    let mut away = Member::start(&port, issue(&world.ca, "away", Role::Appliance, "pi"), Timing::default(), NOW);
    let other = crate::world::port().await;
    let away_n1 = Member::start(&other, issue(&world.ca, "away", Role::Node, "n1"), Timing::default(), NOW);
    for (member, peer) in [(&world.n1, &home), (&away_n1, &away)] {
        member.knows("pi", Role::Appliance, &[peer.addr]);
        peer.knows("n1", Role::Node, &[member.addr]);
    }
    world.n1.direct_up("pi").await;
    away_n1.direct_up("pi").await;
    world.n1.send("pi", Lane::Urgent, Route::Best, b"home");
    away_n1.send("pi", Lane::Urgent, Route::Best, b"away");
    let (from, _, bytes) = home.message().await;
    assert_eq!((from.as_str(), bytes.as_slice()), ("node 'n1' of cluster 'home'", &b"home"[..]));
    let (from, _, bytes) = away.message().await;
    assert_eq!((from.as_str(), bytes.as_slice()), ("node 'n1' of cluster 'away'", &b"away"[..]));
    assert!(home.rx.try_recv().is_err() && away.rx.try_recv().is_err());
    let error = tiebreaker_member::Links::start(
        tiebreaker_member::LinkConfig {
            identity: tokio::sync::watch::channel(std::sync::Arc::new(issue(&world.ca, "away", Role::Appliance, "pi")))
                .1,
            time: home.clock.time(&home.floor),
            source: None,
            timing: Timing::default(),
        },
        &port,
        home.table.subscribe(),
    )
    .unwrap_err();
    assert!(matches!(error, LinkError::AlreadyServed(_)), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_way_out() {
    let first = port().await;
    let addr: SocketAddr = first.local_addrs()[0];
    let error = Acceptor::bind(&[addr]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&addr.to_string()) && text.contains("another program uses this port"), "{text}");
    let error = Acceptor::bind(&["192.0.2.1:7474".parse().unwrap()]).await.unwrap_err();
    assert!(error.to_string().contains("doesn't have that address"), "{error}");
}

#[tokio::test]
async fn links_that_are_dropped_free_their_cluster_and_their_port() {
    let world = World::new(Timing::default()).await;
    world.n2.direct_up("n1").await;
    let World { n1, n2, .. } = world;
    let addr = n1.addr;
    drop(n1);
    n2.until("the end", "n1", |paths| !paths.direct.is_up()).await;
    // The tasks that are being aborted let go of the port a moment later.
    let bound = async {
        loop {
            if let Ok(acceptor) = Acceptor::bind(&[addr]).await {
                return acceptor;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the port", bound).await;
}

#[tokio::test]
async fn outgoing_connections_come_from_the_chosen_address() {
    let world = World::strangers(Timing::default(), NOW).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_keep, identity) =
        tokio::sync::watch::channel(std::sync::Arc::new(issue(&world.ca, "home", Role::Node, "n3")));
    let config = tiebreaker_member::LinkConfig {
        identity,
        time: world.n1.clock.time(&world.n1.floor),
        source: Some("127.0.0.9".parse().unwrap()),
        timing: Timing::default(),
    };
    let table = tiebreaker_member::PeerTable {
        members: [(
            name("n1"),
            tiebreaker_member::MemberEntry { role: Role::Node, addresses: vec![listener.local_addr().unwrap().into()] },
        )]
        .into(),
        ..Default::default()
    };
    let (_table, peers) = tokio::sync::watch::channel(std::sync::Arc::new(table));
    let _links = tiebreaker_member::Links::start(config, &port().await, peers).unwrap();
    let (_, from) = soon("a connection", listener.accept()).await.unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.9");
}
