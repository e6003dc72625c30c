//! Secrets, what is served for them, and what the script makes of configurations. That a stock node gets its vote by it
//! is shown in `tests/interop`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::book::{Book, NotInvited, Opened};
use super::web::{Desk, Host};
use super::*;
use crate::http::{Answer, Asked, Method, StatusCode};

const REQUEST: &str = include_str!("../tests/home.csr");
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_invitation_is_good_once_and_not_for_long() {
    let mut book = Book::default();
    let now = Instant::now();
    let (secret, opened) = book.add("home", now, HOUR).unwrap();
    assert_eq!(opened, Opened::Anew);
    let (other, opened) = book.add("home", now, HOUR * 2).unwrap();
    assert_eq!(opened, Opened::Already);
    assert_ne!(secret, other);
    let sign = |_: &str| Ok::<_, ()>("signed");
    let refuse = |_: &str| Err::<&str, _>(());
    assert_eq!(book.redeem("", b"a", now, sign), Err(NotInvited::Unknown));
    assert_eq!(book.redeem(&secret, b"bad", now, refuse), Ok(Err(())), "a mistake doesn't cost it");
    assert_eq!(book.redeem(&secret, b"a", now, sign), Ok(Ok("signed")));
    assert_eq!(book.redeem(&secret, b"a", now, sign), Ok(Ok("signed")), "the answer was lost, the node asks again");
    assert_eq!(book.redeem(&secret, b"b", now, sign), Err(NotInvited::Used));
    let later = now + HOUR;
    assert_eq!(book.look(&secret, later), Err(NotInvited::Unknown));
    assert_eq!(book.look(&other, later).unwrap(), "home");
    assert_eq!(book.ends(later), Some(now + HOUR * 2));
    assert_eq!(book.ends(now + HOUR * 2), None);
    assert_eq!(book.add("home", now, HOUR).unwrap().1, Opened::Anew);
}

#[test]
fn invitations_are_bounded() {
    let mut book = Book::default();
    let now = Instant::now();
    let made = (0..100).take_while(|_| book.add("home", now, HOUR).is_ok()).count();
    assert_eq!(made, 64);
    assert!(book.add("home", now + HOUR, HOUR).is_ok(), "those have ended");
}

fn ask(desk: &Desk, method: Method, path: &str, bearer: &str, body: &[u8]) -> Answer {
    let asked = Asked {
        method,
        path: path.into(),
        host: Some("pi.lan:8406".into()),
        bearer: Some(bearer.into()),
        body: Some(body.into()),
    };
    desk.answer(&asked, SocketAddr::from(([192, 0, 2, 7], 4000)))
}

#[test]
fn without_an_invitation_nothing_but_the_script_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::new(Folder::of_appliance(dir.path()), Events::new()).unwrap();
    let script = ask(&desk, Method::GET, "/qdevice/node.sh", "", b"");
    assert_eq!(script.status, StatusCode::OK);
    assert!(script.body.contains("URL='https://pi.lan:8406'\nHOST='pi.lan'\n"), "{}", script.body);
    assert!(script.body.contains(&format!("PIN='{}'", desk.pin())));
    for placeholder in ["@URL@", "@HOST@", "@PIN@", "@AWK@"] {
        assert!(!script.body.contains(placeholder), "{placeholder}");
    }
    assert_eq!(ask(&desk, Method::GET, "/qdevice/ca.crt", "", b"").status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&desk, Method::POST, "/qdevice/sign", "x", REQUEST.as_bytes()).status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&desk, Method::GET, "/", "", b"").status, StatusCode::NOT_FOUND);
    let (secret, _) = desk.book().add("home", Instant::now(), HOUR).unwrap();
    let authority = ask(&desk, Method::GET, "/qdevice/ca.crt", &secret, b"");
    assert!(authority.status == StatusCode::OK && authority.body.starts_with("-----BEGIN CERTIFICATE"));
    let bad = ask(&desk, Method::POST, "/qdevice/sign", &secret, b"hello");
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    let signed = ask(&desk, Method::POST, "/qdevice/sign", &secret, REQUEST.as_bytes());
    assert!(signed.status == StatusCode::OK && signed.body.starts_with("-----BEGIN CERTIFICATE"), "{}", signed.body);
    // The request names another cluster than the invitation.
    let (secret, _) = desk.book().add("work", Instant::now(), HOUR).unwrap();
    let other = ask(&desk, Method::POST, "/qdevice/sign", &secret, REQUEST.as_bytes());
    assert!(other.status == StatusCode::BAD_REQUEST && other.body.contains("not \"work\""), "{}", other.body);
}

#[test]
fn what_can_end_a_quote_is_no_host() {
    for good in ["pi.lan", "192.0.2.1", "[fd00::1]", "fd00::1", "a-b_c"] {
        assert!(Host::parse(good).is_some(), "{good}");
    }
    for bad in ["", "pi'lan", "pi lan", "$(reboot)", "-x", "a..b", "pi\nlan", "[pi]", "pi:1"] {
        assert!(Host::parse(bad).is_none(), "{bad}");
    }
    assert_eq!(Host::with_port("[fd00::1]:8406").unwrap().0.url(1), "https://[fd00::1]:1");
}

#[tokio::test]
async fn the_port_is_open_while_somebody_is_invited() {
    let dir = tempfile::tempdir().unwrap();
    // A port that is free now.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut invitations = Invitations::new(vec![address], Folder::of_appliance(dir.path()), Events::new()).unwrap();
    let connects = || async { tokio::net::TcpStream::connect(address).await.is_ok() };
    assert!(!connects().await);
    for _ in 0..2 {
        let algorithm = InvitedAlgorithm::FfSplit;
        let command = invitations.create("home", algorithm, "127.0.0.1", Duration::from_millis(300)).await.unwrap();
        assert!(command.starts_with("curl -fsSk --pinnedpubkey sha256//"), "{}", *command);
        assert!(command.ends_with(" sh -s -- home ffsplit"), "{}", *command);
        assert!(connects().await);
        let closed_by = tokio::time::Instant::now() + Duration::from_secs(10);
        while connects().await {
            assert!(tokio::time::Instant::now() < closed_by, "the port stays open although the invitation has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for name in ["", "a b", "$(reboot)", "-n", "a'b"] {
        assert!(invitations.create(name, InvitedAlgorithm::Lms, "pi", HOUR).await.is_err(), "{name}");
    }
}

/// Runs the script's awk program. Gives its exit code, what it wrote and what it said.
fn configure(conf: &str, host: &str, algorithm: &str, bump: bool) -> (Option<i32>, String, String) {
    let mut awk = Command::new("awk")
        .args(["-v", "cluster=home", "-v", &format!("host={host}"), "-v", &format!("algorithm={algorithm}")])
        .args(["-v", &format!("bump={}", u8::from(bump)), include_str!("corosync_conf.awk")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse before it has read all.
    let _refused = awk.stdin.take().unwrap().write_all(conf.as_bytes());
    let output = awk.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// As Proxmox VE writes it.
const PROXMOX: &str = "logging {
  debug: off
  to_syslog: yes
}

nodelist {
  node {
    name: a
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 192.0.2.1
  }
  node {
    name: b
    nodeid: 2
    quorum_votes: 1
    ring0_addr: 192.0.2.2
  }
}

quorum {
  provider: corosync_votequorum
}

totem {
  cluster_name: home
  config_version: 9
  interface {
    linknumber: 0
  }
  ip_version: ipv4-6
  version: 2
}
";

const DEVICE: &str = "  device {
    model: net
    votes: 1
    net {
      host: pi.lan
      algorithm: ffsplit
      tls: required
    }
  }
";

#[test]
fn the_device_is_written_and_nothing_else_changes() {
    let wanted = PROXMOX
        .replace("  provider: corosync_votequorum\n", &format!("  provider: corosync_votequorum\n{DEVICE}"))
        .replace("config_version: 9", "config_version: 10");
    assert_eq!(configure(PROXMOX, "pi.lan", "ffsplit", true), (Some(0), wanted.clone(), String::new()));
    // A second time there is nothing to do.
    assert_eq!(configure(&wanted, "pi.lan", "ffsplit", true), (Some(3), wanted.clone(), String::new()));
    let (code, out, said) = configure(&wanted, "other.lan", "ffsplit", true);
    assert!(code == Some(1) && out.is_empty() && said.contains("another QDevice already"), "{said}");
    // A file of the node's own: its version is its admin's.
    let two_node = PROXMOX.replace("votequorum\n", "votequorum\n  two_node: 1\n");
    let (code, out, _) = configure(&two_node, "pi.lan", "lms", false);
    assert_eq!(code, Some(0));
    assert!(out.contains("two_node: 0") && out.contains("config_version: 9") && out.contains("votes: 1\n"), "{out}");
}

#[test]
fn what_is_not_understood_is_refused() {
    let node = "  node {\n    name: c\n    nodeid: 3\n  }\n}\n\nquorum {";
    let three = PROXMOX.replacen("}\n\nquorum {", node, 1);
    let cases = [
        (PROXMOX.replace("name: home", "name: work"), "the cluster \"work\""),
        (PROXMOX.replace("  provider: corosync_votequorum\n", ""), "quorum.provider"),
        (PROXMOX.replace("  provider", "  expected_votes: 2\n  provider"), "expected_votes"),
        (PROXMOX.replace("config_version: 9", "config_version: nine"), "no number"),
        (PROXMOX.replace("config_version: 9", "config_version: 9\n  config_version: 8"), "2 times"),
        (PROXMOX.replace("quorum {", "quorum {\n  what is this"), "not understood"),
        (format!("{PROXMOX}quorum {{\n}}\n"), "one section each"),
        (format!("{PROXMOX}}}\n"), "not opened"),
        (PROXMOX.replace("  version: 2\n}", "  version: 2\n"), "not closed"),
        (String::new(), "one section each"),
        (three.clone(), "--algorithm lms"),
    ];
    for (conf, why) in cases {
        let (code, out, said) = configure(&conf, "pi.lan", "ffsplit", true);
        assert!(code == Some(1) && out.is_empty() && said.contains(why), "{why}: {code:?} {out} {said}");
    }
    let (code, out, _) = configure(&three, "pi.lan", "lms", true);
    assert!(code == Some(0) && out.contains("    votes: 2\n"), "{out}");
    let waits = three.replace("  provider", "  wait_for_all: 1\n  provider");
    let (code, out, said) = configure(&waits, "pi.lan", "lms", true);
    assert!(code == Some(1) && out.is_empty() && said.contains("wait_for_all is 1"), "{said}");
}
