//! A disk without room, made of a limit on the size of files: in a process of its own, because the limit holds for all of
//! one.

use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tiebreaker_consensus::{Batch, Entry, EntryPayload, HardState, Membership, RaftId, Stored, bootstrap};

use super::disk::{Disk, Writer};
use crate::store::{RaftStore, StoreError};

const CHILD: &str = "TIEBREAKER_TEST_FULL_DISK";

/// Runs `test` of this binary again, where writing beyond the limit is an error and no signal.
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let ended = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// No file may grow beyond `room` bytes more than `path` has.
fn leave(path: &Path, room: u64) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = Some(std::fs::metadata(path).unwrap().len() + room);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}

fn make_room() {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
}

fn first() -> Stored {
    bootstrap(Membership::of_voters([RaftId(1)]), vec![1, 2, 3])
}

fn batch(number: u64) -> Batch {
    let index = number + 1;
    let entries = vec![Entry { index, term: 2, payload: EntryPayload::Command(vec![7; 60_000]) }];
    let hard_state = Some(HardState { term: 2, vote: Some(RaftId(1)), commit: number });
    Batch { number, hard_state, snapshot: None, entries, two_phase: number.is_multiple_of(2) }
}

#[test]
fn a_full_disk_keeps_what_was_durable_and_takes_the_rest_when_there_is_room() {
    alone("runtime::full_tests::a_full_disk_keeps_what_was_durable_and_takes_the_rest_when_there_is_room", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("home.raft");
        let mut expected = first();
        let mut store = RaftStore::create(&path, &expected).unwrap();
        leave(&path, 300_000);
        let mut number = 1;
        let error = loop {
            match store.write(&batch(number)) {
                Ok(()) => expected.write(&batch(number)),
                Err(error) => break error,
            }
            number += 1;
            assert!(number < 1_000, "the limit is never reached");
        };
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        for _ in 0..3 {
            drop(store);
            let (again, stored) = RaftStore::open(&path).unwrap();
            assert_eq!(stored, Some(expected.clone()), "all that was durable, and no more");
            store = again;
            assert!(matches!(store.write(&batch(number)), Err(StoreError::Full { .. })));
        }
        drop(store);
        make_room();
        let (mut store, _) = RaftStore::open(&path).unwrap();
        store.write(&batch(number)).unwrap();
        expected.write(&batch(number));
        drop(store);
        assert_eq!(RaftStore::open(&path).unwrap().1, Some(expected));
    });
}

#[test]
fn batches_that_found_no_room_are_written_in_order_once_there_is() {
    alone("runtime::full_tests::batches_that_found_no_room_are_written_in_order_once_there_is", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("home.raft");
            let mut expected = first();
            let store = RaftStore::create(&path, &expected).unwrap();
            leave(&path, 300_000);
            let mut writer = Writer::start(store);
            for number in 1..=40 {
                writer.write(batch(number)).await.unwrap();
                expected.write(&batch(number));
            }
            let mut durable = 0;
            let mut full = 0;
            while durable < 40 {
                match writer.done().await.unwrap() {
                    Disk::Written(number) => {
                        assert_eq!(number, durable + 1);
                        durable = number;
                    }
                    Disk::Full(what) => {
                        assert!(what.contains("home.raft") && what.contains("make room"), "{what}");
                        assert!(durable < 40);
                        full += 1;
                        make_room();
                    }
                    Disk::Room => assert_eq!(full, 1),
                }
            }
            assert_eq!(full, 1, "said once");
            drop(writer);
            let stored = loop {
                match RaftStore::open(&path) {
                    Ok((_, stored)) => break stored,
                    Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            };
            assert_eq!(stored, Some(expected));
        });
    });
}
