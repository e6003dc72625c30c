use std::panic::{AssertUnwindSafe, catch_unwind};

use tiebreaker_consensus::{EntryPayload, HardState, Membership, RaftId, bootstrap};

use super::*;

fn members() -> Membership {
    Membership::of_voters([RaftId(1), RaftId(2), RaftId(3)])
}

fn entry(index: u64, term: u64) -> Entry {
    let bytes = vec![u8::try_from(index % 251).expect("small") + 1; 200];
    Entry { index, term, payload: EntryPayload::Command(bytes) }
}

fn batch(number: u64, term: u64, commit: u64, entries: Vec<Entry>) -> Batch {
    let hard_state = Some(HardState { term, vote: Some(RaftId(1)), commit });
    Batch { number, hard_state, snapshot: None, entries, two_phase: number.is_multiple_of(2) }
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    Snapshot { index, term, membership: members(), state: vec![9; 3000] }
}

/// Batches as a life brings them: entries, a truncation, a compaction, a snapshot from the leader, votes alone.
fn life() -> Vec<Batch> {
    let mut batches = vec![
        batch(1, 2, 1, (2..12).map(|index| entry(index, 2)).collect()),
        batch(2, 3, 9, (10..14).map(|index| entry(index, 3)).collect()),
        batch(3, 3, 13, Vec::new()),
    ];
    batches[2].snapshot = Some(SnapshotWrite::Compact(snapshot(11, 3)));
    batches.push(batch(4, 4, 13, vec![entry(14, 4)]));
    let mut replace = batch(5, 5, 40, vec![entry(41, 5)]);
    replace.snapshot = Some(SnapshotWrite::Replace(snapshot(40, 5)));
    batches.push(replace);
    batches.push(batch(6, 6, 41, Vec::new()));
    batches.extend((42..60).map(|index| batch(index, 6, index - 1, vec![entry(index, 6)])));
    batches
}

fn reopen(path: &Path) -> Database {
    Database::builder().create_with_backend(Sectors::open(path).expect("opens")).expect("opens")
}

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("home.raft")
}

#[test]
fn what_was_written_is_read_back_after_every_batch() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let mut expected = bootstrap(members(), vec![1, 2, 3]);
    drop(RaftStore::create(&path, &expected).expect("creates"));
    for batch in life() {
        let (mut store, stored) = RaftStore::open(&path).expect("opens");
        assert_eq!(stored, Some(expected.clone()));
        store.write(&batch).expect("writes");
        expected.write(&batch);
    }
    let (_, stored) = RaftStore::open(&path).expect("opens");
    assert_eq!(stored, Some(expected.clone()));
}

#[test]
fn a_joiner_starts_with_an_empty_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    drop(RaftStore::create(&path, &Stored::default()).expect("creates"));
    let (_, stored) = RaftStore::open(&path).expect("opens");
    assert_eq!(stored, Some(Stored::default()));
}

#[test]
fn a_missing_file_is_refused_and_an_existing_one_is_never_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    assert!(matches!(RaftStore::open(&path), Err(StoreError::Missing { .. })));
    assert!(!path.exists());
    fs::write(unfinished(&path), b"left by a crash").expect("writes");
    drop(RaftStore::create(&path, &Stored::default()).expect("creates"));
    assert!(matches!(RaftStore::create(&path, &Stored::default()), Err(StoreError::Exists { .. })));
}

#[test]
fn row_52_a_store_that_forgot_is_never_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let open = RaftStore::create(&path, &Stored::default()).expect("creates");
    RaftStore::retire(&path, Aside::Forgot).expect("set aside while it is open");
    drop(open);
    let error = RaftStore::open(&path).expect_err("refused");
    assert!(matches!(error, StoreError::Forgetful { .. }), "{error:?}");
    assert!(error.to_string().contains("join again"), "{error}");
}

#[test]
fn row_66_a_store_whose_cluster_went_on_elsewhere_is_never_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    drop(RaftStore::create(&path, &Stored::default()).expect("creates"));
    RaftStore::retire(&path, Aside::TakenOver).expect("set aside");
    let error = RaftStore::open(&path).expect_err("refused");
    assert!(matches!(error, StoreError::TakenOver { .. }), "{error:?}");
    assert!(error.to_string().contains("took this cluster over"), "{error}");
}

#[test]
fn a_superseded_store_is_kept_under_a_name_of_its_own_each_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let mut older = Vec::new();
    let mut store = RaftStore::create(&path, &Stored::default()).expect("creates");
    for term in 1..=3 {
        fs::write(with_ending(&path, ".takeover"), b"left by a crash").expect("writes");
        let hard_state = HardState { term, ..HardState::default() };
        older.push(store.supersede(&Stored { hard_state, ..Stored::default() }).expect("superseded"));
        let (next, stored) = RaftStore::open(&path).expect("opens");
        assert_eq!(stored.expect("a state").hard_state.term, term);
        store = next;
    }
    for (term, kept) in older.iter().enumerate() {
        let (_, stored) = RaftStore::open(kept).expect("the old one is whole");
        assert_eq!(stored.expect("a state").hard_state.term, term as u64, "{}", kept.display());
    }
    assert!(!with_ending(&path, ".takeover").exists());
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let _held = RaftStore::create(&path, &Stored::default()).expect("creates");
    assert!(matches!(RaftStore::open(&path), Err(StoreError::InUse { .. })));
}

#[test]
fn foreign_files_are_refused_by_name_with_a_way_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    for content in [Vec::new(), b"short".to_vec(), vec![0; 100_000], b"#!/bin/sh\n".repeat(5_000)] {
        fs::write(&path, &content).expect("writes");
        let error = RaftStore::open(&path).expect_err("refused");
        let text = error.to_string();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(text.contains("home.raft") && text.contains("rejoin"), "{text}");
    }
    let other = directory.path().join("other");
    let sectors = Sectors::create(&other).expect("creates");
    let database = Database::builder().create_with_backend(sectors).expect("creates");
    drop(database);
    assert_eq!(RaftStore::open(&other).expect("a database, with nothing in it").1, None);
}

#[test]
fn a_newer_format_asks_for_the_newer_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let store = RaftStore::create(&path, &Stored::default()).expect("creates");
    let transaction = store.database.begin_write().expect("begins");
    {
        let mut meta = transaction.open_table(META).expect("opens");
        let mut bytes = encode(Place::Head, &store.head);
        bytes[0] = FORMAT + 1;
        meta.insert(HEAD, bytes.as_slice()).expect("inserts");
    }
    transaction.commit().expect("commits");
    drop(store);
    assert!(matches!(RaftStore::open(&path), Err(StoreError::Newer { found: 2, known: 1, .. })));
}

#[test]
fn a_lost_entry_or_snapshot_is_noticed_even_if_the_database_is_sound() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let mut store = RaftStore::create(&path, &bootstrap(members(), vec![1])).expect("creates");
    store.write(&batch(1, 2, 1, (2..12).map(|index| entry(index, 2)).collect())).expect("writes");
    drop(store);
    let whole = fs::read(&path).expect("reads");
    for lost in [2, 6, 11] {
        fs::write(&path, &whole).expect("writes");
        let database = reopen(&path);
        let transaction = database.begin_write().expect("begins");
        transaction.open_table(LOG).expect("opens").remove(lost).expect("removes");
        transaction.commit().expect("commits");
        drop(database);
        assert!(RaftStore::open(&path).is_err(), "entry {lost}");
    }
    fs::write(&path, &whole).expect("writes");
    let database = reopen(&path);
    let transaction = database.begin_write().expect("begins");
    transaction.open_table(META).expect("opens").remove(SNAPSHOT).expect("removes");
    transaction.commit().expect("commits");
    drop(database);
    assert!(matches!(RaftStore::open(&path), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_batch_that_leaves_a_gap_is_refused_and_stops_the_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = path(&directory);
    let mut store = RaftStore::create(&path, &bootstrap(members(), vec![1])).expect("creates");
    assert!(matches!(store.write(&batch(1, 2, 1, vec![entry(3, 2)])), Err(StoreError::Gap { .. })));
    assert!(matches!(store.write(&batch(2, 2, 1, vec![entry(2, 2)])), Err(StoreError::Stopped { .. })));
}

/// All states that were ever committed, and the file after each, as a crash leaves it (not closed cleanly).
fn states(directory: &tempfile::TempDir) -> (Vec<Stored>, Vec<Vec<u8>>) {
    let path = path(directory);
    let mut state = bootstrap(members(), vec![1, 2, 3]);
    let mut store = RaftStore::create(&path, &state).expect("creates");
    let mut states = vec![state.clone()];
    let mut files = vec![fs::read(&path).expect("reads")];
    for batch in life() {
        store.write(&batch).expect("writes");
        state.write(&batch);
        states.push(state.clone());
        files.push(fs::read(&path).expect("reads"));
    }
    drop(store);
    files.push(fs::read(&path).expect("reads"));
    (states, files)
}

/// Opens `content`: a state that was once committed, or a refusal; a panic is what must not happen.
fn opens_honestly(path: &Path, content: &[u8], states: &[Stored], what: &str) -> bool {
    fs::write(path, content).expect("writes");
    let result = catch_unwind(AssertUnwindSafe(|| RaftStore::open(path).map(|(_, stored)| stored)));
    match result {
        Ok(Ok(Some(stored))) => {
            assert!(states.contains(&stored), "{what}: opened as a state that never was");
            true
        }
        Ok(Ok(None)) => panic!("{what}: opened as if nothing was ever written"),
        Ok(Err(error)) => {
            assert!(error.to_string().contains("damaged.raft"), "{what}: {error}");
            false
        }
        Err(_) => panic!("{what}: panicked"),
    }
}

#[test]
fn a_damaged_file_opens_as_a_committed_state_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let (states, files) = states(&directory);
    let path = directory.path().join("damaged.raft");
    // Unclean ones, as a power cut leaves them, open.
    for (number, file) in files.iter().enumerate() {
        assert!(opens_honestly(&path, file, &states, &format!("file {number}")));
    }
    let mut refused = 0;
    for (number, file) in files.iter().enumerate().step_by(12).chain([(files.len() - 1, &files[files.len() - 1])]) {
        // The header densely, the pages in steps that hit every part of them.
        let offsets = (0..1_500).step_by(29).chain((1_500..file.len()).step_by(file.len() / 40 + 7));
        for at in offsets {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            refused += u64::from(!opens_honestly(&path, &flipped, &states, &format!("file {number} flip at {at}")));
            let end = (at + 512).min(file.len());
            flipped[at..end].fill(0);
            refused += u64::from(!opens_honestly(&path, &flipped, &states, &format!("file {number} zeros at {at}")));
        }
        for length in (0..file.len()).step_by(file.len() / 20 + 1) {
            let what = format!("file {number} cut to {length}");
            refused += u64::from(!opens_honestly(&path, &file[..length], &states, &what));
        }
    }
    assert!(refused > 50, "damage must be noticed: {refused}");
}

#[test]
fn a_write_torn_by_a_power_cut_opens_as_before_or_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (states, files) = states(&directory);
    let path = directory.path().join("damaged.raft");
    let mut seed = 7_u64;
    let mut opened = 0;
    for (pair, batch) in files.windows(2).zip(life()).filter(|(pair, _)| pair[0].len() == pair[1].len()) {
        for _ in 0..4 {
            // Of what wasn't flushed some sectors are on the disk, some aren't.
            let mut torn = pair[1].clone();
            for at in (0..torn.len()).step_by(512) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Two phases write the sector that makes the commit only after the others were flushed.
                let commit_record = at == 512;
                let old = (batch.two_phase && commit_record) || seed >> 63 == 1;
                if old {
                    let end = (at + 512).min(torn.len());
                    torn[at..end].copy_from_slice(&pair[0][at..end]);
                }
            }
            opened += u64::from(opens_honestly(&path, &torn, &states, &format!("batch {}", batch.number)));
        }
    }
    assert!(opened > 20, "a torn write costs no more than itself: {opened}");
}

#[test]
fn a_full_disk_is_told_apart_from_other_faults() {
    let error = fault(Path::new("/x/home.raft"), "writing", io::Error::from(io::ErrorKind::StorageFull));
    assert!(matches!(error, StoreError::Full { .. }));
    assert!(error.to_string().contains("make room"));
}
