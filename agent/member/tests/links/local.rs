//! The local socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tiebreaker_member::{Client, Incoming, LinkError, LocalAccess, LocalSocket, Requester};

use crate::world::{PATIENCE, soon};

#[tokio::test]
async fn a_local_request_is_answered_and_its_user_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.sock");
    let (socket, mut rx) = LocalSocket::start(&path, LocalAccess::default()).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o777, 0o660);
    let mut client = Client::local(&path, PATIENCE).await.unwrap();
    let answer = async {
        match soon("a request", rx.recv()).await {
            Some(Incoming::Request { from: Requester::Local { uid, pid }, bytes, reply }) => {
                assert_eq!(uid, meta.uid());
                assert_eq!(pid, Some(i32::try_from(std::process::id()).unwrap()));
                reply.only(bytes).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    };
    let (reply, ()) = tokio::join!(client.ask(b"status", PATIENCE), answer);
    assert_eq!(reply.unwrap(), b"status");
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.sock");
    // What a daemon leaves behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (_socket, _rx) = LocalSocket::start(&path, LocalAccess::default()).unwrap();
    Client::local(&path, PATIENCE).await.unwrap();
    let error = LocalSocket::start(&path, LocalAccess::default()).unwrap_err();
    assert!(matches!(error, LinkError::AlreadyRunning { .. }), "{error}");
    assert!(error.to_string().contains("another daemon"), "{error}");
    Client::local(&path, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_is_in_the_way_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.sock");
    std::fs::write(&path, "somebody's notes").unwrap();
    let error = LocalSocket::start(&path, LocalAccess::default()).unwrap_err();
    assert!(matches!(error, LinkError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's notes");
}

#[tokio::test]
async fn the_socket_belongs_to_the_configured_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.sock");
    let group = std::fs::metadata(dir.path()).unwrap().gid();
    let (_socket, _rx) = LocalSocket::start(&path, LocalAccess { group: Some(group) }).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().gid(), group);
    Client::local(&path, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_missing_daemon_is_named_with_its_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::local(&dir.path().join("daemon.sock"), PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("no daemon runs here"), "{error}");
    let long = dir.path().join("x".repeat(200));
    let error = LocalSocket::start(&long, LocalAccess::default()).unwrap_err();
    assert!(error.to_string().contains("can't make the socket"), "{error}");
}
