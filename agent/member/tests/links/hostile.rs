//! Peers that break the rules.

use std::time::Duration;

use tiebreaker_member::{Frame, Hello, Lane, PathState, Purpose, RefuseCode, Role, Route, Timing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::raw::Raw;
use crate::world::{NOW, World, issue, soon};

/// A greeting of a version to come.
#[derive(serde::Serialize)]
enum Greeting {
    Hello { min: u16, max: u16, purpose: Purpose, added: String },
}

/// The appliance still serves others.
async fn unharmed(world: &mut World) {
    world.n2.direct_up("pi").await;
    world.n2.send("pi", Lane::Urgent, Route::Best, b"well");
    assert_eq!(world.pi.message().await.2, b"well");
}

#[tokio::test]
async fn an_oversize_frame_ends_the_connection_before_it_is_read() {
    let mut world = World::new(Timing::default()).await;
    // A greeting may have 16 KiB, with or without a certificate. What a newer version adds to it is ignored.
    let me = issue(&world.ca, "home", Role::Node, "n1");
    for (identity, purpose) in [(None, Purpose::Join), (Some(&me), Purpose::Member { epoch: 0 })] {
        for (pad, fits) in [(1_000, true), (17_000, false)] {
            let greeting = Greeting::Hello { min: 1, max: 1, purpose: purpose.clone(), added: "x".repeat(pad) };
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &greeting).unwrap();
            let mut raw = Raw::connect(world.pi.addr, "home", identity).await;
            raw.stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
            // The connection may end before all of it is written.
            let _ = raw.stream.write_all(&bytes).await;
            let _ = raw.stream.flush().await;
            let answer = raw.next().await.ok().flatten();
            assert_eq!(answer, fits.then_some(Frame::Welcome { version: 1 }));
        }
    }
    // After it a fragment.
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    assert_eq!(raw.hello(Purpose::Member { epoch: 0 }).await.unwrap(), Some(Frame::Welcome { version: 1 }));
    raw.stream.write_all(&(1_u32 << 20).to_be_bytes()).await.unwrap();
    raw.ends().await;
    unharmed(&mut world).await;
}

#[tokio::test]
async fn a_message_of_endless_fragments_ends_the_connection() {
    let mut world = World::new(Timing::default()).await;
    let me = issue(&world.ca, "home", Role::Node, "n1");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    assert_eq!(raw.hello(Purpose::Member { epoch: 0 }).await.unwrap(), Some(Frame::Welcome { version: 1 }));
    let fragment = tiebreaker_member::encode(&Frame::Data { more: true, bytes: vec![0; 64 << 10] }).unwrap();
    let (mut read, mut write) = tokio::io::split(raw.stream);
    let pour = async {
        // 8 MiB are 128 fragments; the pipe breaks soon after them.
        for _ in 0..100_000 {
            if write.write_all(&fragment).await.is_err() {
                return;
            }
        }
        panic!("the appliance took it all");
    };
    let drain = async {
        let mut scratch = [0; 4096];
        while read.read(&mut scratch).await.is_ok_and(|len| len > 0) {}
    };
    soon("the cut", async { tokio::join!(pour, drain) }).await;
    unharmed(&mut world).await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let mut world = World::new(Timing::default()).await;
    let me = issue(&world.ca, "home", Role::Node, "n1");
    let mut tcp = TcpStream::connect(world.pi.addr).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    soon("the end", tcp.read_to_end(&mut Vec::new())).await.ok();
    let mut tcp = TcpStream::connect(world.pi.addr).await.unwrap();
    tcp.write_all(b"TBrelay?").await.unwrap();
    soon("the end", tcp.read_to_end(&mut Vec::new())).await.ok();
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    raw.stream.write_all(b"\x00\x00\x00\x04\xff\xff\xff\xff").await.unwrap();
    raw.ends().await;
    for misplaced in [Frame::End, Frame::Hello(Hello { min: 1, max: 1, purpose: Purpose::Join }), Frame::Urgent(vec![])]
    {
        let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
        if misplaced == Frame::Urgent(vec![]) {
            // Before the greeting.
            raw.send(&misplaced).await;
        } else {
            assert_eq!(raw.hello(Purpose::Member { epoch: 0 }).await.unwrap(), Some(Frame::Welcome { version: 1 }));
            raw.send(&misplaced).await;
        }
        raw.ends().await;
    }
    unharmed(&mut world).await;
}

#[tokio::test]
async fn who_dawdles_in_the_handshake_is_dropped() {
    let mut world = World::new(Timing::default()).await;
    let mut mute = TcpStream::connect(world.pi.addr).await.unwrap();
    let mut dribbling = TcpStream::connect(world.pi.addr).await.unwrap();
    dribbling.write_all(&[0x16, 3, 1]).await.unwrap();
    let mut no_greeting = Raw::connect(world.pi.addr, "home", None).await;
    unharmed(&mut world).await;
    let mut sink = Vec::new();
    soon("the first cut", mute.read_to_end(&mut sink)).await.ok();
    soon("the second cut", dribbling.read_to_end(&mut sink)).await.ok();
    no_greeting.ends().await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let world = World::new(Timing::default()).await;
    // Half-open handshakes, from one address; the members here come from another.
    let mut dawdlers = Vec::new();
    for _ in 0..200 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.66:0".parse().unwrap()).unwrap();
        dawdlers.push(socket.connect(world.pi.addr).await.unwrap());
    }
    // The one too many is dropped without waiting for any deadline.
    let mut last = dawdlers.pop().unwrap();
    soon("the drop", last.read_to_end(&mut Vec::new())).await.ok();
    let me = issue(&world.ca, "home", Role::Operator, "ann");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    assert_eq!(raw.hello(Purpose::Request).await.unwrap(), Some(Frame::Welcome { version: 1 }));
}

#[tokio::test]
async fn a_version_that_is_too_new_or_too_old_is_refused_with_both_named() {
    let world = World::new(Timing::default()).await;
    let me = issue(&world.ca, "home", Role::Node, "n1");
    for (min, max) in [(2, 9), (0, 0)] {
        let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
        raw.send(&Frame::Hello(Hello { min, max, purpose: Purpose::Member { epoch: 0 } })).await;
        match raw.next().await.unwrap() {
            Some(Frame::Refuse { code: RefuseCode::Version, text, .. }) => {
                assert!(text.contains(&format!("{min} to {max}")) && text.contains("upgrade the older"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    // A newer peer that still speaks this version is welcome.
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    raw.send(&Frame::Hello(Hello { min: 1, max: 2, purpose: Purpose::Member { epoch: 0 } })).await;
    assert_eq!(raw.next().await.unwrap(), Some(Frame::Welcome { version: 1 }));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_given_up() {
    // It would be dropped for its silence, too: a busy machine must not come near that.
    let timing = Timing { ping: Duration::from_millis(200), dead: Duration::from_secs(3), ..Timing::default() };
    let world = World::strangers(timing, NOW).await;
    world.pi.knows("n1", Role::Node, &[world.n1.addr]);
    let me = issue(&world.ca, "home", Role::Node, "n1");
    let mut raw = Raw::connect(world.pi.addr, "home", Some(&me)).await;
    assert_eq!(raw.hello(Purpose::Member { epoch: 0 }).await.unwrap(), Some(Frame::Welcome { version: 1 }));
    // It talks all the time, and answers nothing.
    let talk = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let frame = tiebreaker_member::encode(&Frame::Ping { n: 0 }).unwrap();
        loop {
            tick.tick().await;
            if raw.stream.write_all(&frame).await.is_err() || raw.stream.flush().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let deaf = |paths: &tiebreaker_member::PeerPaths| matches!(&paths.direct, PathState::Down { why, .. } if why.contains("reads nothing"));
    tokio::select! {
        _ = world.pi.until("the end", "n1", deaf) => {}
        () = talk => {}
    }
}

#[tokio::test]
async fn a_host_that_speaks_something_else_is_named() {
    let world = World::strangers(Timing::default(), NOW).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.ok();
        }
    });
    world.n2.knows("n1", Role::Node, &[addr]);
    let named = |paths: &tiebreaker_member::PeerPaths| matches!(&paths.direct, PathState::Down { why, .. } if why.contains("doesn't speak Tiebreaker's protocol"));
    world.n2.until("the fault's name", "n1", named).await;
    server.abort();
}
