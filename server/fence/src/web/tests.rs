//! Conversations with servers that are who they should be, or aren't, and answer as they please.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    conversation::{Answer, Conversation, Question, Site},
    error::WebError,
    mock::{Identity, MockServer, Received, Reply, acceptor},
    pin::{Fingerprint, Pins},
};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn fine(_: &Received) -> Reply {
    Reply::text(200, &[], "{}")
}

async fn get(site: Site) -> Result<Answer, WebError> {
    Conversation::new(site).ask(&Question::get("the test's question", "/redfish/v1/"), soon()).await
}

#[tokio::test]
async fn a_pinned_certificate_is_taken_whatever_it_says_by_both_versions_of_tls() {
    for identity in [Identity::usual(), Identity::version_1()] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let acceptor = acceptor(&identity.certificate, &identity.key, &[version]);
            let server = MockServer::with(acceptor, identity.fingerprint(), fine).await;
            let answer = get(server.site).await.unwrap();
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]));
        }
    }
}

#[tokio::test]
async fn another_certificate_is_refused_by_its_fingerprint_and_asked_nothing() {
    let server = MockServer::tls(fine).await;
    let shown = server.site.pins.unwrap().current;
    let other = Fingerprint::of(b"another");
    let error = get(Site { pins: Some(Pins { current: other, next: None }), ..server.site }).await.unwrap_err();
    assert!(matches!(&error, WebError::Certificate(found) if *found == shown), "{error:?}");
    assert!(error.to_string().contains(&shown.to_string()));
    assert!(server.questions().is_empty(), "nothing was said to a stranger");

    let next = Site { pins: Some(Pins { current: other, next: Some(shown) }), ..server.site };
    get(next).await.unwrap();
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    for identity in [Identity::usual(), Identity::version_1()] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let stranger = Identity::usual();
            let acceptor = acceptor(&identity.certificate, &stranger.key, &[version]);
            let server = MockServer::with(acceptor, identity.fingerprint(), fine).await;
            let error = get(server.site).await.unwrap_err();
            assert!(matches!(error, WebError::Tls(_)), "{error:?}");
            assert!(server.questions().is_empty());
        }
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_and_who_is_not_there_are_told_apart() {
    let plain = MockServer::plain(fine).await;
    let pins = Some(Pins { current: Fingerprint::of(b"any"), next: None });
    // It waits for the end of a head that never comes, so it is told that nobody reads on.
    let question = Question::get("the test's question", "/");
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = Conversation::new(Site { pins, ..plain.site }).ask(&question, deadline).await.unwrap_err();
    assert!(matches!(error, WebError::Tls(_) | WebError::TimedOut(_)), "{error:?}");

    let gone = plain.site;
    drop(plain);
    let until = soon();
    loop {
        // The listener closes when its task has ended.
        match get(gone).await {
            Err(WebError::Connect(_)) => break,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
    }
}

#[tokio::test]
async fn one_connection_serves_many_questions_and_a_closed_one_is_made_anew() {
    let server = MockServer::plain(fine).await;
    let mut conversation = Conversation::new(server.site);
    let question = Question::get("the test's question", "/");
    for _ in 0..3 {
        conversation.ask(&question, soon()).await.unwrap();
    }
    assert_eq!(server.connections(), 1);

    let closing = MockServer::plain(|_| {
        Reply::SendAndClose(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}".to_vec())
    })
    .await;
    let mut conversation = Conversation::new(closing.site);
    for _ in 0..3 {
        conversation.ask(&question, soon()).await.unwrap();
    }
    assert_eq!(closing.connections(), 3);
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_is_not_sent_twice() {
    let asked = AtomicUsize::new(0);
    let server = MockServer::plain(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::text(200, &[], "{}"),
        _ => Reply::SendAndClose(Vec::new()),
    })
    .await;
    let mut conversation = Conversation::new(server.site);
    conversation.ask(&Question::get("a look", "/"), soon()).await.unwrap();
    let command = Question::post("a command", "/reset", "{}".into());
    let error = conversation.ask(&command, soon()).await.unwrap_err();
    assert!(matches!(error, WebError::Broken { what: "a command", .. }), "{error:?}");
    assert_eq!(server.questions().len(), 2);
}

#[tokio::test]
async fn answers_without_end_and_without_sense_are_errors() {
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000));
    let too_long = format!("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n{}", "a".repeat(600_000));
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let long_header = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\na: {}\r\n\r\n{{}}", "b".repeat(100_000));
    /// Its name, what makes the reply of head and chunk, and the head.
    type Case = (&'static str, fn(&str, &str) -> Reply, String);
    let replies: Vec<Case> = vec![
        ("a body without end", |head, more| Reply::Flood([head, more].concat().into_bytes()), endless.into()),
        ("a body too long", |head, _| Reply::Hang(head.into()), too_long),
        (
            "a body cut short",
            |head, _| Reply::SendAndClose(head.into()),
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".into(),
        ),
        (
            "two lengths",
            |head, _| Reply::Hang(head.into()),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".into(),
        ),
        ("no chunk", |head, _| Reply::Hang(head.into()), format!("{endless}xyz\r\n")),
        ("headers without end", |_, more| Reply::Flood(more.into()), String::new()),
        ("too many headers", |head, _| Reply::Hang(head.into()), many_headers),
        ("a long header", |head, _| Reply::SendAndClose(head.into()), long_header),
        ("something else", |head, _| Reply::Hang(head.into()), "SSH-2.0-OpenSSH_9.2\r\n\r\n".into()),
        ("nothing", |_, _| Reply::SendAndClose(Vec::new()), String::new()),
        ("an HTTP of its own", |head, _| Reply::Hang(head.into()), "HTTP/7.3 200 OK\r\n\r\n".into()),
    ];
    for (name, reply, head) in replies {
        let chunk = chunk.clone();
        let server = MockServer::plain(move |_| reply(&head, &chunk)).await;
        let Err(error) = get(server.site).await else { panic!("{name} is taken") };
        assert!(matches!(error, WebError::Broken { .. } | WebError::TooLong(_)), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    for reply in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let server = MockServer::plain(move |_| Reply::Hang(reply.into())).await;
        let deadline = Instant::now() + Duration::from_millis(200);
        let question = Question::get("the test's question", "/");
        let error = Conversation::new(server.site).ask(&question, deadline).await.unwrap_err();
        assert!(matches!(error, WebError::TimedOut("the test's question")), "{error:?}");
    }
}
