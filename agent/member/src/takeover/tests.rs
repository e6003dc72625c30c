use tiebreaker_consensus::{Entry as LogEntry, bootstrap};
use tiebreaker_pipeline::command::{Command, ENTRY_VERSION};
use tiebreaker_pipeline::decision::Decision;

use super::*;
use crate::identity::{Serial, Subject};

const NOW_MS: i64 = 1_800_000_000_000;

fn cert(uri: &str) -> PeerCert {
    let subject = Subject::from_uri(uri).unwrap();
    PeerCert { subject, serial: Serial::from_bytes([1; 16]), key: String::new(), not_before: 0, not_after: 1 }
}

fn entry(index: u64, command: Command) -> LogEntry {
    let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1_700_000_000_000, command };
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &entry).unwrap();
    LogEntry { index, term: 4, payload: EntryPayload::Command(bytes) }
}

fn join(name: &str) -> Command {
    let addresses = vec![format!("{name}:8405")];
    Command::AddMember { name: name.parse().unwrap(), role: Role::Node, addresses, key: name.into() }
}

/// A store of `home` with `pi`, n1 (number 2) and n2, of which the last is not known to be committed.
fn stored() -> Stored {
    let state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), vec!["pi:8405".into()], "00".into());
    let mut stored = bootstrap(Membership::of_voters([RaftId(1)]), state.encode());
    stored.entries = vec![
        LogEntry { index: 2, term: 4, payload: EntryPayload::Empty },
        entry(3, join("n1")),
        LogEntry { index: 4, term: 4, payload: EntryPayload::Command(b"not ours".to_vec()) },
        entry(5, join("n2")),
    ];
    stored.hard_state = HardState { term: 4, vote: Some(RaftId(1)), commit: 4 };
    stored
}

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        drop(RaftStore::create(home.path(), &stored()).unwrap());
        home
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("raft.redb")
    }

    fn prepare(&self, uri: &str) -> Result<Takeover, TakeoverError> {
        Takeover::prepare(&self.path(), &cert(uri), Timestamp::from_millisecond(NOW_MS).unwrap(), "root")
    }

    fn now(&self) -> Stored {
        RaftStore::open(self.path()).unwrap().1.unwrap()
    }
}

#[test]
fn row_66_the_store_begins_anew_with_one_voter_a_new_term_and_the_end_of_the_log() {
    let home = Home::new();
    let kept = home.prepare("tiebreaker://home/node/n1?id=2").unwrap().carry_out().unwrap();
    assert_eq!(kept, home.folder.path().join("raft.redb.before-takeover"));
    let old = RaftStore::open(&kept).unwrap().1.unwrap();
    assert_eq!(old.entries, stored().entries, "the old store is whole");

    let new = home.now();
    new.check().unwrap();
    assert_eq!(new.hard_state, HardState { term: 5, vote: None, commit: 6 });
    let snapshot = new.snapshot.unwrap();
    assert_eq!((snapshot.index, snapshot.term, new.entries.len()), (6, 5, 0));
    assert_eq!(snapshot.membership, Membership::of_voters([RaftId(2)]));
    let state = State::decode(&snapshot.state).unwrap();
    assert_eq!((state.epoch, state.applied, state.members.len()), (1, 6, 1));
    let n2 = "n2".parse().unwrap();
    assert!(state.parted.contains_key(&n2), "the entry that may not be committed was taken");
    assert!(
        state
            .log
            .iter()
            .any(|line| matches!(&line.decision, Decision::TakenOver { without, .. } if without.contains(&n2)))
    );
}

#[test]
fn row_66_the_words_say_what_may_be_lost_who_must_be_off_and_what_starts() {
    let home = Home::new();
    let words = home.prepare("tiebreaker://home/node/n1?id=2").unwrap().words();
    for part in [
        "n2 (a node), pi (the appliance)",
        "up to entry 5 of its log, of 2023-11-14T22:13:20Z",
        "The last 1 of these entries",
        "SWITCH n2 and pi OFF NOW",
        "n1 will run: nothing",
        "authority",
    ] {
        assert!(words.contains(part), "{part:?} is not in: {words}");
    }
    let words = home.prepare("tiebreaker://home/appliance/pi?id=1").unwrap().words();
    assert!(words.contains("it starts nothing") && words.contains("token create --cluster home"), "{words}");
}

#[test]
fn without_the_clusters_name_nothing_changes() {
    let home = Home::new();
    let wrong = Confirmation { confirm: Some("hone".into()), others_are_off: true };
    let refused = take_over(&home.path(), &cert("tiebreaker://home/node/n1?id=2"), &wrong).unwrap_err();
    assert!(matches!(refused, TakeoverError::WrongName { .. }), "{refused}");
    assert_eq!(home.now(), stored());
    assert_eq!(std::fs::read_dir(home.folder.path()).unwrap().count(), 1, "nothing was left beside it");
}

#[test]
fn another_machines_certificate_or_a_running_daemon_is_refused() {
    let home = Home::new();
    for uri in ["tiebreaker://away/node/n1?id=2", "tiebreaker://home/node/n1"] {
        assert!(matches!(home.prepare(uri), Err(TakeoverError::OtherIdentity { .. })), "{uri}");
    }
    assert!(matches!(home.prepare("tiebreaker://home/node/n1?id=9"), Err(TakeoverError::Refused(_))));
    let _running = RaftStore::open(home.path()).unwrap();
    let refused = home.prepare("tiebreaker://home/node/n1?id=2").unwrap_err();
    assert!(matches!(refused, TakeoverError::Store(StoreError::InUse { .. })), "{refused}");
}
