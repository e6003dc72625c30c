//! Who is let in, and who isn't.

use tiebreaker_member::{
    Ca, CertFault, Client, Frame, Incoming, LEAF_VALIDITY, Lane, LinkError, PathState, PeerPaths, Purpose, RefuseCode,
    Role, Route, TimeFloor, Timing, Via,
};

use crate::raw::{Raw, alert};
use crate::world::{Clock, Member, NOW, PATIENCE, World, issue, name, port, soon, subject};

fn down_because(words: &'static str) -> impl Fn(&PeerPaths) -> bool {
    move |paths| matches!(&paths.direct, PathState::Down { why, .. } if why.contains(words))
}

#[tokio::test]
async fn a_member_whose_clock_stands_at_1970_is_let_in_and_lets_others_in() {
    let mut world = World::with(Timing::default(), 42).await;
    world.all_up().await;
    world.n2.send("n1", Lane::Urgent, Route::Best, b"hello");
    assert_eq!(world.n1.message().await.2, b"hello");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_the_clock_or_where_that_was_never_set_by_the_log() {
    let world = World::strangers(Timing::default(), NOW).await;
    // By the clock: the appliance knows that it is later.
    world.pi.clock.0.store(NOW + LEAF_VALIDITY.as_secs(), std::sync::atomic::Ordering::Relaxed);
    world.introduce();
    world.n1.until("a refusal", "pi", down_because("has expired")).await;
    // By the log, on a machine whose clock stands at 1970.
    let world = World::with(Timing::default(), 0).await;
    world.n2.direct_up("n1").await;
    let world = World::strangers(Timing::default(), 0).await;
    world.n1.floor.raise(NOW + LEAF_VALIDITY.as_secs());
    world.introduce();
    let paths = world.n2.until("a refusal", "n1", down_because("has expired")).await;
    assert!(format!("{paths:?}").contains("refused this machine's certificate"), "{paths:?}");
}

#[tokio::test]
async fn a_log_that_is_years_ahead_locks_nobody_out_whose_clock_is_set() {
    let world = World::strangers(Timing::default(), NOW).await;
    for member in [&world.pi, &world.n1, &world.n2] {
        member.floor.raise(NOW + 10 * LEAF_VALIDITY.as_secs());
    }
    world.introduce();
    world.n1.direct_up("pi").await;
    world.n2.direct_up("n1").await;
}

#[tokio::test]
async fn a_removed_member_is_cut_off_at_once_and_refused_from_then_on() {
    let mut world = World::new(Timing::default()).await;
    world.all_up().await;
    world.pi.change(|table| table.roster.remove(Role::Node, name("n1"), None));
    world.pi.until("the cut", "n1", |paths| !paths.direct.is_up() && !paths.relay.is_up()).await;
    let paths = world.n1.until("a refusal", "pi", down_because("was removed from the cluster")).await;
    assert!(format!("{paths:?}").contains("join again"), "{paths:?}");
    assert!(!world.pi.links.paths()["n1"].direct.is_up());
    // The others are not disturbed.
    world.n2.send("pi", Lane::Urgent, Route::Best, b"still here");
    assert_eq!(world.pi.message().await.2, b"still here");
}

#[tokio::test]
async fn one_who_is_no_member_yet_is_told_so_and_let_in_once_it_is() {
    let world = World::strangers(Timing::default(), NOW).await;
    world.n1.knows("pi", Role::Appliance, &[world.pi.addr]);
    world.n1.until("a refusal", "pi", down_because("no member of the cluster")).await;
    world.introduce();
    world.n1.direct_up("pi").await;
}

#[tokio::test]
async fn a_changed_epoch_parts_the_members() {
    let world = World::new(Timing::default()).await;
    world.n1.direct_up("pi").await;
    world.pi.change(|table| table.epoch = 1);
    world.n1.until("a refusal", "pi", down_because("epoch")).await;
    world.n1.change(|table| table.epoch = 1);
    world.n1.direct_up("pi").await;
}

/// The word of a newer epoch, as it comes to the layer above.
async fn newer(member: &mut Member) -> (String, Option<u64>, u64) {
    loop {
        match soon("a newer epoch", member.rx.recv()).await.unwrap() {
            Incoming::NewerEpoch { from, raft_id, epoch } => return (from.name.to_string(), raft_id, epoch),
            Incoming::Message { .. } | Incoming::Request { .. } | Incoming::Join { .. } => {}
        }
    }
}

#[tokio::test]
async fn row_66_both_sides_of_a_call_learn_of_a_newer_epoch_and_the_newer_side_of_nothing() {
    let mut world = World::new(Timing::default()).await;
    world.n1.direct_up("pi").await;
    // n1 calls pi, and is refused with pi's epoch.
    world.pi.change(|table| table.epoch = 2);
    assert_eq!(newer(&mut world.n1).await, ("pi".to_owned(), None, 2));
    // n2 calls n1, which is behind: it is told by the greeting.
    world.n2.change(|table| table.epoch = 1);
    let told = async {
        loop {
            let (from, _, epoch) = newer(&mut world.n1).await;
            if from == "n2" {
                return epoch;
            }
        }
    };
    assert_eq!(soon("n2's word", told).await, 1);
    while let Ok(incoming) = world.pi.rx.try_recv() {
        assert!(!matches!(incoming, Incoming::NewerEpoch { .. }), "{incoming:?}");
    }
}

#[tokio::test]
async fn row_66_who_was_left_behind_is_told_so_and_may_do_nothing() {
    let mut world = World::new(Timing::default()).await;
    world.n1.direct_up("pi").await;
    world.pi.change(|table| {
        table.epoch = 1;
        table.members.clear();
        table.roster.leave_behind(Role::Node, name("n1"), 0);
    });
    world.n1.until("a refusal", "pi", down_because("took the cluster over")).await;
    assert_eq!(newer(&mut world.n1).await, ("pi".to_owned(), None, 1));
    // With the right epoch, or for anything else, its certificate is as good as that of one who was removed.
    let identity = issue(&world.ca, "home", Role::Node, "n1");
    for purpose in [Purpose::Member { epoch: 1 }, Purpose::Request, Purpose::Relay { to: name("n2") }] {
        let mut raw = Raw::connect(world.pi.addr, "home", Some(&identity)).await;
        let answer = raw.hello(purpose.clone()).await.unwrap();
        assert!(matches!(answer, Some(Frame::Refuse { code: RefuseCode::NotAMember, .. })), "{purpose:?}: {answer:?}");
    }
}

#[tokio::test]
async fn another_authority_is_refused_on_both_sides() {
    let world = World::strangers(Timing::default(), NOW).await;
    let foreign = Ca::new_in_memory().unwrap();
    let intruder = Member::start(&port().await, issue(&foreign, "home", Role::Node, "n1"), Timing::default(), NOW);
    intruder.knows("pi", Role::Appliance, &[world.pi.addr]);
    world.pi.knows("n1", Role::Node, &[intruder.addr]);
    intruder.until("its own refusal", "pi", down_because("another appliance's authority")).await;
    // One who would trust anybody is refused by the appliance.
    let me = issue(&foreign, "home", Role::Node, "n1");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    let error = raw.hello(Purpose::Member { epoch: 0 }).await.unwrap_err();
    assert_eq!(alert(&error), Some(rustls::AlertDescription::UnknownCA), "{error}");
}

#[tokio::test]
async fn another_clusters_certificate_is_refused() {
    let world = World::new(Timing::default()).await;
    // The same appliance signed it, for another of its clusters.
    let me = issue(&world.ca, "away", Role::Node, "n1");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    let error = raw.hello(Purpose::Member { epoch: 0 }).await.unwrap_err();
    assert_eq!(alert(&error), Some(rustls::AlertDescription::AccessDenied), "{error}");
    // Asked for by its own name, that cluster isn't there.
    let time = Clock::at(NOW).time(&TimeFloor::default());
    let error = Client::connect(&[world.pi.addr.into()], None, &me, &time, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, LinkError::NotServed { .. }), "{error}");
    assert!(error.to_string().contains("doesn't serve cluster 'away'"), "{error}");
}

#[tokio::test]
async fn whoever_answers_at_the_wrong_address_is_not_taken_for_the_member() {
    let world = World::strangers(Timing::default(), NOW).await;
    world.n2.knows("n1", Role::Node, &[world.pi.addr]);
    world.pi.knows("n2", Role::Node, &[world.n2.addr]);
    world.n2.until("a refusal", "n1", down_because("another cluster, role or name")).await;
}

#[tokio::test]
async fn a_second_machine_with_the_same_name_is_refused() {
    let world = World::new(Timing::default()).await;
    let me = issue(&world.ca, "home", Role::Appliance, "pi");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    let answer = raw.hello(Purpose::Member { epoch: 0 }).await.unwrap();
    assert!(
        matches!(&answer, Some(Frame::Refuse { code: RefuseCode::NotAMember, text, .. }) if text.contains("cloned"))
    );
}

#[tokio::test]
async fn without_a_certificate_nothing_but_joining_is_possible() {
    let world = World::new(Timing::default()).await;
    for purpose in [Purpose::Member { epoch: 0 }, Purpose::Request, Purpose::Relay { to: name("n1") }] {
        let mut raw = Raw::connect(world.pi.addr, "home", None).await;
        let answer = raw.hello(purpose).await.unwrap();
        assert!(matches!(answer, Some(Frame::Refuse { code: RefuseCode::NoCertificate, .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn an_operator_is_no_member() {
    let world = World::new(Timing::default()).await;
    let me = issue(&world.ca, "home", Role::Operator, "ann");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    let answer = raw.hello(Purpose::Member { epoch: 0 }).await.unwrap();
    assert!(matches!(answer, Some(Frame::Refuse { code: RefuseCode::Role, .. })), "{answer:?}");
}

#[tokio::test]
async fn older_tls_is_refused() {
    let world = World::new(Timing::default()).await;
    let Err(error) = Raw::connect_tls12(world.pi.addr, "home").await else { panic!("TLS 1.2 was accepted") };
    assert_eq!(alert(&error), Some(rustls::AlertDescription::ProtocolVersion), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_the_next_connection_on() {
    let ca = Ca::new_in_memory().unwrap();
    let time = Clock::at(NOW).time(&TimeFloor::default());
    let (renew, identity) = tokio::sync::watch::channel(std::sync::Arc::new(issue(&ca, "home", Role::Appliance, "pi")));
    let first = identity.borrow().cert().serial;
    let acceptor = port().await;
    let config = tiebreaker_member::LinkConfig { identity, time, source: None, timing: Timing::default() };
    let (_table, peers) = tokio::sync::watch::channel(std::sync::Arc::default());
    let (_links, _rx) = tiebreaker_member::Links::start(config, &acceptor, peers).unwrap();
    let operator = issue(&ca, "home", Role::Operator, "ann");
    let connect = async |now: u64| {
        let time = Clock::at(now).time(&TimeFloor::default());
        Client::connect(&[acceptor.local_addrs()[0].into()], None, &operator, &time, PATIENCE).await
    };
    connect(NOW).await.unwrap();
    let later = NOW + LEAF_VALIDITY.as_secs() - 1;
    let renewed = ca.issue(&subject("home", Role::Appliance, "pi"), later, LEAF_VALIDITY).unwrap();
    assert_ne!(renewed.cert().serial, first);
    connect(later).await.unwrap();
    let error = connect(later + 1).await.unwrap_err();
    assert!(matches!(error, LinkError::PeerCertificate { fault: CertFault::Expired, .. }), "{error}");
    renew.send_replace(std::sync::Arc::new(renewed));
    connect(later + 1).await.unwrap();
}

#[tokio::test]
async fn messages_carry_the_certificates_name_whatever_the_greeting_says() {
    // The real one doesn't come: its connection would take the place of this one.
    let mut world = World::strangers(Timing::default(), NOW).await;
    world.pi.knows("n1", Role::Node, &[world.n1.addr]);
    let me = issue(&world.ca, "home", Role::Node, "n1");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    assert_eq!(raw.hello(Purpose::Member { epoch: 0 }).await.unwrap(), Some(Frame::Welcome { version: 1 }));
    raw.send(&Frame::Urgent(b"by hand".to_vec())).await;
    let (from, via, bytes) = soon("the message", world.pi.message()).await;
    assert_eq!((from.as_str(), via, bytes.as_slice()), ("node 'n1' of cluster 'home'", Via::Direct, &b"by hand"[..]));
}

/// A node of `home` with this number.
fn numbered(ca: &Ca, who: &str, number: u64) -> tiebreaker_member::Identity {
    let subject = tiebreaker_member::Subject::from_uri(&format!("tiebreaker://home/node/{who}?id={number}")).unwrap();
    ca.issue(&subject, NOW, LEAF_VALIDITY).unwrap()
}

#[tokio::test]
async fn one_whose_joining_is_not_heard_of_yet_is_let_in_by_a_number_that_was_given_to_nobody() {
    let mut world = World::new(Timing::default()).await;
    world.all_up().await;
    world.n2.change(|table| table.newcomers_from = Some(7));
    // It sorts before n2, which should call it and doesn't know where.
    let mut newcomer = Member::start(&port().await, numbered(&world.ca, "a", 7), Timing::default(), NOW);
    newcomer.knows("n2", Role::Node, &[world.n2.addr]);
    newcomer.direct_up("n2").await;
    newcomer.send("n2", Lane::Urgent, Route::Best, b"may I lead?");
    assert_eq!(world.n2.message().await.2, b"may I lead?");
    // What else changes meanwhile doesn't cut it off.
    world.n2.change(|table| table.newcomers_from = Some(6));
    world.n2.send("a", Lane::Urgent, Route::Best, b"yes");
    assert_eq!(newcomer.message().await.2, b"yes");
    // Then it is heard of, and removed.
    world.n2.change(|table| {
        table.newcomers_from = Some(8);
        table.roster.remove(Role::Node, name("a"), Some(7));
    });
    newcomer.until("a refusal", "n2", down_because("removed")).await;
    assert!(!world.n2.links.paths().contains_key("a"));
}

#[tokio::test]
async fn a_number_that_was_given_out_lets_nobody_in_who_is_no_member() {
    let world = World::new(Timing::default()).await;
    world.n1.change(|table| table.newcomers_from = Some(7));
    let stranger = Member::start(&port().await, numbered(&world.ca, "z", 6), Timing::default(), NOW);
    stranger.knows("n1", Role::Node, &[world.n1.addr]);
    stranger.until("a refusal", "n1", down_because("no member of the cluster")).await;
}
