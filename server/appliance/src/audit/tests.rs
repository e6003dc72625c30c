use std::fs;

use super::file::{FILE_MAX, FILES_MAX, files};
use super::*;

fn written(root: &Path, events: u64) -> PathBuf {
    let mut writer = Writer::open(&folder(root)).unwrap();
    for n in 0..events {
        writer.append(Event::Lost { events: n }).unwrap();
    }
    files(&folder(root)).unwrap().pop().unwrap()
}

fn change(path: &Path, change: impl FnOnce(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

#[test]
fn what_is_written_is_whole_and_goes_on_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    written(root.path(), 3);
    written(root.path(), 2);
    let verdict = verify(&folder(root.path())).unwrap();
    assert!(verdict.whole && verdict.torn_bytes == 0);
    assert_eq!((verdict.first, verdict.last), (Some(1), Some(5)));
    let numbers: Vec<u64> = entries(&folder(root.path())).unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[test]
fn a_changed_a_removed_and_an_inserted_line_break_the_chain_where_they_are() {
    type Case = (&'static str, fn(String) -> String, usize);
    let cases: [Case; 5] = [
        ("changed", |text| text.replacen("\"events\":2", "\"events\":7", 1), 3),
        ("the first changed", |text| text.replacen("\"events\":0", "\"events\":7", 1), 1),
        (
            "removed",
            |text| text.lines().filter(|line| !line.contains("\"events\":2")).map(|line| format!("{line}\n")).collect(),
            3,
        ),
        ("doubled", |text| text.lines().flat_map(|line| [line, line]).map(|line| format!("{line}\n")).collect(), 2),
        ("nonsense", |text| text.replacen("\"event\":\"lost\"", "\"event\":\"found\"", 1), 1),
    ];
    for (what, tamper, line) in cases {
        let root = tempfile::tempdir().unwrap();
        let path = written(root.path(), 5);
        change(&path, tamper);
        let verdict = verify(&folder(root.path())).unwrap();
        let fault = verdict.fault.unwrap_or_else(|| panic!("{what} went unnoticed"));
        assert!(!verdict.whole);
        assert_eq!(fault.line, line, "{what}: {}", fault.why);
    }
}

#[test]
fn a_line_that_a_power_cut_tore_is_told_from_tampering_and_mended() {
    let root = tempfile::tempdir().unwrap();
    let path = written(root.path(), 3);
    let whole = fs::read(&path).unwrap();
    // Wherever the power went, the log is whole up to the last durable line.
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let verdict = verify(&folder(root.path())).unwrap();
        assert!(verdict.whole, "cut at {cut}");
        assert_eq!((verdict.last, verdict.torn_bytes), (Some(2), (cut - last) as u64));
        let mut writer = Writer::open(&folder(root.path())).unwrap();
        writer.append(Event::Lost { events: 9 }).unwrap();
        let after = entries(&folder(root.path())).unwrap();
        let torn = after.iter().any(|entry| matches!(entry.event, Event::Torn { .. }));
        assert_eq!(torn, cut > last, "cut at {cut}");
        assert!(verify(&folder(root.path())).unwrap().whole, "cut at {cut}");
    }
}

#[test]
fn a_log_that_was_tampered_with_is_not_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let path = written(root.path(), 3);
    change(&path, |text| text.replacen("\"events\":1", "\"events\":4", 1));
    let error = Writer::open(&folder(root.path())).unwrap_err();
    assert!(matches!(error, AuditError::Tampered { line: 2, .. }), "{error}");
    // The daemon sets it aside as it is, and says so in the new one.
    let before = fs::read(&path).unwrap();
    let (audit, scribe) = Audit::start(root.path());
    drop(audit);
    scribe.finish();
    let new = entries(&folder(root.path())).unwrap();
    let Event::SetAside { folder: aside, .. } = &new[0].event else { panic!("{new:?}") };
    assert_eq!(fs::read(Path::new(aside).join(path.file_name().unwrap())).unwrap(), before);
}

#[test]
fn the_log_is_bounded_and_the_chain_goes_on_from_file_to_file() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(&folder(root.path())).unwrap();
    let long = "x".repeat(usize::try_from(FILE_MAX / 2).unwrap());
    for _ in 0..2 * (FILES_MAX + 2) {
        writer.append(Event::Started { version: long.clone() }).unwrap();
    }
    let all = files(&folder(root.path())).unwrap();
    assert_eq!(all.len(), FILES_MAX);
    let verdict = verify(&folder(root.path())).unwrap();
    assert!(verdict.whole, "{:?}", verdict.fault);
    assert!(verdict.first > Some(1));
    assert_eq!(verdict.last, Some(2 * (FILES_MAX as u64 + 2)));
    // A whole file that is taken out of the middle is missed.
    fs::remove_file(&all[3]).unwrap();
    assert!(!verify(&folder(root.path())).unwrap().whole);
}

#[test]
fn what_is_recorded_is_written_by_the_time_that_the_scribe_has_finished() {
    let root = tempfile::tempdir().unwrap();
    let (audit, scribe) = Audit::start(root.path());
    for n in 0..10 {
        audit.record(Event::Lost { events: n });
    }
    drop(audit);
    scribe.finish();
    assert_eq!(entries(&folder(root.path())).unwrap().len(), 11);
}

#[test]
fn a_log_that_can_not_be_opened_keeps_nobody_from_working_and_says_what_it_missed() {
    let root = tempfile::tempdir().unwrap();
    // Whoever is root can't be kept out by a mode: a file stands where the folder has to be.
    fs::write(folder(root.path()), "in the way").unwrap();
    let mut book = Book { root: root.path().into(), writer: None, trouble: Arc::default(), failing: false };
    let missed = AtomicU64::new(0);
    let said = |book: &Book| book.trouble.lock().unwrap().clone();
    assert!(!book.is_open());
    assert!(said(&book).is_some_and(|why| why.contains("audit")), "{:?}", said(&book));
    book.take(Event::Torn { bytes: 1 }, &missed);
    book.take(Event::Torn { bytes: 2 }, &missed);
    fs::remove_file(folder(root.path())).unwrap();
    book.take(Event::Torn { bytes: 3 }, &missed);
    assert_eq!(said(&book), None);
    let kept: Vec<Event> = entries(&folder(root.path())).unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(kept[1..], [Event::Lost { events: 2 }, Event::Torn { bytes: 3 }]);
    assert!(matches!(kept[0], Event::Started { .. }));
}

#[test]
fn what_was_missed_is_written_without_waiting_for_news() {
    let root = tempfile::tempdir().unwrap();
    fs::write(folder(root.path()), "in the way").unwrap();
    let (audit, scribe) = Audit::start(root.path());
    assert!(audit.alarm().is_some_and(|alarm| alarm.contains("not written")), "{:?}", audit.alarm());
    audit.record(Event::Torn { bytes: 1 });
    scribe.finish();
    let mut book = Book { root: root.path().into(), writer: None, trouble: Arc::default(), failing: true };
    fs::remove_file(folder(root.path())).unwrap();
    let missed = AtomicU64::new(4);
    book.catch_up(&missed);
    assert_eq!((missed.into_inner(), book.failing), (0, false));
    assert_eq!(entries(&folder(root.path())).unwrap()[1].event, Event::Lost { events: 4 });
}
