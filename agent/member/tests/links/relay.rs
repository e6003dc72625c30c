//! What goes through a third member.

use std::time::Duration;

use tiebreaker_member::{Frame, Lane, PathState, Purpose, RefuseCode, Role, Route, Timing, Via};
use tokio::time::Instant;

use crate::raw::Raw;
use crate::world::{Member, Mode, NOW, Proxy, World, issue, name, port, soon};

/// A silent connection is never declared dead in these tests, so nothing here can be due to a new connection.
fn patient() -> Timing {
    Timing { dead: Duration::from_secs(600), ..Timing::default() }
}

async fn falls_over(mode: Mode) {
    let mut world = World::strangers(patient(), NOW).await;
    let proxy = Proxy::before(world.n1.addr).await;
    world.n2.knows("n1", Role::Node, &[proxy.addr]);
    world.introduce();
    world.all_up().await;
    proxy.set(mode);
    let began = Instant::now();
    // A member repeats what matters; what is sent while the silence is young is lost.
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let arrival = async {
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    world.n2.send("n1", Lane::Urgent, Route::Best, b"renew");
                }
                (_, via, bytes) = world.n1.message() => {
                    assert_eq!(bytes, b"renew");
                    return via;
                }
            }
        }
    };
    let via = soon("the message", arrival).await;
    assert_eq!(via, Via::Relayed);
    println!("{mode:?}: arrived through the relay after {:?}", began.elapsed());
    assert!(world.n2.links.paths()["n1"].direct.is_up(), "nobody waited for the link to be declared dead");
}

#[tokio::test]
async fn a_silent_direct_link_is_bypassed_before_it_is_declared_dead() {
    falls_over(Mode::Hole).await;
}

#[tokio::test]
async fn a_link_that_is_dead_one_way_is_bypassed_although_the_peer_is_heard() {
    falls_over(Mode::DeafForth).await;
}

#[tokio::test]
async fn who_cannot_be_reached_directly_is_reached_through_the_relay_which_sees_no_plaintext() {
    let mut world = World::strangers(Timing::default(), NOW).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::before(world.n1.addr).await;
    world.n2.knows("n1", Role::Node, &[closed]);
    world.pi.knows("n1", Role::Node, &[proxy.addr]);
    world.introduce();
    world.n2.relay_up("n1").await;
    world.n1.relay_up("n2").await;
    let secret = b"an unmistakable message".repeat(20);
    world.n2.send("n1", Lane::Bulk, Route::Best, &secret);
    world.n1.send("n2", Lane::Bulk, Route::Best, &secret);
    let (from, via, bytes) = world.n1.message().await;
    assert_eq!((from.as_str(), via), ("node 'n2' of cluster 'home'", Via::Relayed));
    assert_eq!(bytes, secret);
    assert_eq!(world.n2.message().await.2, secret);
    let paths = world.n2.links.paths();
    assert!(matches!(&paths["n1"].relay, PathState::Up { via: Some(via), .. } if via.as_str() == "pi"), "{paths:?}");
    assert!(matches!(&paths["n1"].direct, PathState::Down { why, .. } if why.contains("refused")), "{paths:?}");
    let seen = proxy.seen.lock().unwrap().clone();
    assert!(seen.windows(8).any(|bytes| bytes == b"TBrelay1"), "the proxy saw what the relay passed on");
    assert!(seen.len() > 2 * secret.len());
    assert!(!seen.windows(12).any(|bytes| bytes == &secret[..12]));
}

#[tokio::test]
async fn what_was_relayed_is_not_relayed_again() {
    let world = World::new(Timing::default()).await;
    world.all_up().await;
    let me = issue(&world.ca, "home", Role::Node, "n2");
    // n2 → pi, spliced to n1, and from there on to pi.
    let mut outer = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    let answer = outer.hello(Purpose::Relay { to: name("n1") }).await.unwrap();
    assert_eq!(answer, Some(Frame::Welcome { version: 1 }));
    let mut inner = Raw::over(outer.stream, "home", Some(&me)).await.unwrap();
    let answer = inner.hello(Purpose::Relay { to: name("pi") }).await.unwrap();
    assert!(matches!(answer, Some(Frame::Refuse { code: RefuseCode::RelayOfRelay, .. })), "{answer:?}");
}

#[tokio::test]
async fn only_members_are_relayed_and_only_to_members() {
    let world = World::new(Timing::default()).await;
    world.all_up().await;
    let ask = async |role, who: &str, to: &str| {
        let me = issue(&world.ca, "home", role, who);
        let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
        match raw.hello(Purpose::Relay { to: name(to) }).await.unwrap() {
            Some(Frame::Refuse { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(Role::Operator, "ann", "n1").await, RefuseCode::Role);
    assert_eq!(ask(Role::Node, "n2", "stranger").await, RefuseCode::NoSuchMember);
    assert_eq!(ask(Role::Node, "n2", "n2").await, RefuseCode::NoSuchMember);
    assert_eq!(ask(Role::Node, "n2", "pi").await, RefuseCode::NoSuchMember);
    assert_eq!(ask(Role::Node, "n9", "n1").await, RefuseCode::NotAMember);
}

#[tokio::test]
async fn a_relay_that_cannot_reach_the_target_says_so() {
    let world = World::strangers(Timing::default(), NOW).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.n2.knows("n1", Role::Node, &[closed]);
    world.pi.knows("n1", Role::Node, &[closed]);
    world.introduce();
    let told = |paths: &tiebreaker_member::PeerPaths| matches!(&paths.relay, PathState::Down { why, .. } if why.contains("can't reach 'n1'"));
    world.n2.until("the relay's words", "n1", told).await;
}

#[tokio::test]
async fn a_removed_member_is_relayed_no_longer() {
    let world = World::new(Timing::default()).await;
    world.all_up().await;
    world.pi.change(|table| {
        table.members.remove("n2");
    });
    world.n2.until("the end of relaying", "n1", |paths| !paths.relay.is_up()).await;
    world.n2.direct_up("n1").await;
}

#[tokio::test]
async fn another_relay_is_taken_when_the_first_has_gone() {
    let world = World::strangers(Timing::default(), NOW).await;
    let n3 = Member::start(&port().await, issue(&world.ca, "home", Role::Node, "n3"), Timing::default(), NOW);
    for member in [&world.pi, &world.n1, &world.n2] {
        member.knows("n3", Role::Node, &[n3.addr]);
        n3.knows(
            member.name.as_str(),
            if member.name.as_str() == "pi" { Role::Appliance } else { Role::Node },
            &[member.addr],
        );
    }
    world.introduce();
    let through = |who: &'static str| move |paths: &tiebreaker_member::PeerPaths| matches!(&paths.relay, PathState::Up { via: Some(via), .. } if via.as_str() == who);
    world.n2.until("any relay", "n1", |paths| paths.relay.is_up()).await;
    let World { pi, n2, n1: _n1, .. } = world;
    drop(pi);
    n2.until("the other relay", "n1", through("n3")).await;
}
