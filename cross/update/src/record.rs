//! What the machine remembers of updates, on the partition of its state: so that after a restart it knows whether it is on
//! trial, came back from one, or is done.
//!
//! The record is written by one version and read by another, in both directions: what a reader doesn't know it passes over,
//! and fields are only ever added.

use serde::{Deserialize, Serialize};

use crate::Slot;

/// Files that are remembered, at most.
const MOST_TRIED: usize = 16;

/// How far an update is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its slot is started once, to be tried.
    Trying,
    /// It is what starts.
    Kept,
    /// The former version is what starts.
    Failed,
}

/// One update.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// How far it is.
    pub phase: Phase,
    /// The slot that it was written to.
    pub slot: Slot,
    /// The digest of its content.
    pub sha256: String,
    /// Its version.
    pub version: String,
    /// Its build.
    pub build: String,
    /// The version that wrote it.
    pub from_version: String,
    /// The highest feature level that the version knows that wrote it. On trial no cluster gets a higher one.
    pub level: u32,
    /// Clusters that did not run before the trial either.
    #[serde(default)]
    pub stopped: Vec<String>,
    /// Why it failed.
    #[serde(default)]
    pub why: Option<String>,
}

/// All that is remembered.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    /// The last update.
    #[serde(default)]
    pub last: Option<Record>,
    /// The digests of what was tried, the newest last. A file on the card is tried once and not again by itself.
    #[serde(default)]
    pub tried: Vec<String>,
}

impl Book {
    /// Reads it.
    ///
    /// # Errors
    /// It isn't one.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings, numbers and lists can be written");
        text.push('\n');
        text
    }

    /// Whether an update was tried on this machine before.
    #[must_use]
    pub fn was_tried(&self, sha256: &str) -> bool {
        self.tried.iter().any(|tried| tried == sha256)
    }

    /// An update is going to be tried.
    pub fn try_it(&mut self, record: Record) {
        self.tried.retain(|tried| *tried != record.sha256);
        self.tried.push(record.sha256.clone());
        let too_many = self.tried.len().saturating_sub(MOST_TRIED);
        self.tried.drain(..too_many);
        self.last = Some(Record { phase: Phase::Trying, why: None, ..record });
    }

    /// The update on trial says why it gives up; that it failed is for the version that comes back to say.
    pub fn suspect(&mut self, why: &str) {
        if let Some(record) = &mut self.last {
            record.why = Some(why.to_owned());
        }
    }

    /// The last update has failed.
    pub fn fail(&mut self, why: &str) {
        if let Some(record) = &mut self.last {
            record.phase = Phase::Failed;
            record.why = Some(why.to_owned());
        }
    }

    /// The last update is what starts from now on.
    pub fn keep(&mut self) {
        if let Some(record) = &mut self.last {
            record.phase = Phase::Kept;
            record.why = None;
        }
    }
}

/// What a start is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// One like any.
    Usual,
    /// That of an update which is to prove that it works.
    Trial(Record),
    /// That of the former version, after an update didn't come back with its word.
    FellBack(Record),
    /// That of an update which was kept; the power failed before this was written down.
    Kept(Record),
}

impl Start {
    /// Judges a start. `running` is the build that runs; `told` the slot that the firmware says it started, where it says
    /// so; `starts` the slot that `autoboot.txt` names.
    #[must_use]
    pub fn judge(last: Option<&Record>, running: &str, told: Option<Slot>, starts: Option<Slot>) -> Self {
        let Some(record) = last.filter(|record| record.phase == Phase::Trying) else { return Self::Usual };
        // Two slots of one and the same build are told apart by the firmware alone, and no update makes such.
        let tried = told.map_or(running == record.build, |slot| slot == record.slot);
        let record = record.clone();
        match (tried, starts) {
            (false, _) => Self::FellBack(record),
            (true, Some(slot)) if slot == record.slot => Self::Kept(record),
            (true, _) => Self::Trial(record),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn record(phase: Phase) -> Record {
        Record {
            phase,
            slot: Slot::Three,
            sha256: "ab".repeat(32),
            version: "0.2.0".into(),
            build: "new".into(),
            from_version: "0.1.0".into(),
            level: 4,
            stopped: vec!["home".into()],
            why: None,
        }
    }

    #[test]
    fn a_start_is_a_trial_only_where_the_tried_slot_runs_and_another_is_chosen() {
        let trying = record(Phase::Trying);
        let judge = |running, told, starts| Start::judge(Some(&trying), running, told, starts);
        let (two, three) = (Some(Slot::Two), Some(Slot::Three));
        assert_eq!(judge("new", three, two), Start::Trial(trying.clone()));
        assert_eq!(judge("old", two, two), Start::FellBack(trying.clone()));
        assert_eq!(judge("new", three, three), Start::Kept(trying.clone()));
        // Firmware that doesn't tell what it started.
        assert_eq!(judge("new", None, two), Start::Trial(trying.clone()));
        assert_eq!(judge("old", None, two), Start::FellBack(trying.clone()));
        assert_eq!(judge("new", None, three), Start::Kept(trying.clone()));
        // A card whose choice can't be read is on trial all the same, and won't be kept.
        assert_eq!(judge("new", three, None), Start::Trial(trying.clone()));
        for phase in [Phase::Kept, Phase::Failed] {
            assert_eq!(Start::judge(Some(&record(phase)), "new", three, two), Start::Usual);
        }
        assert_eq!(Start::judge(None, "new", three, two), Start::Usual);
    }

    #[test]
    fn what_was_tried_is_remembered_whatever_became_of_it() {
        let mut book = Book::default();
        let sha256 = "ab".repeat(32);
        book.fail("there is none");
        assert_eq!(book, Book::default());
        book.try_it(record(Phase::Failed));
        assert_eq!((book.was_tried(&sha256), book.last.as_ref().unwrap().phase), (true, Phase::Trying));
        book.suspect("it is slow");
        assert!(
            matches!(Start::judge(book.last.as_ref(), "old", None, None), Start::FellBack(_)),
            "nobody has said so yet"
        );
        book.fail("it hung");
        assert_eq!(book.last.as_ref().unwrap().why.as_deref(), Some("it hung"));
        book.try_it(record(Phase::Trying));
        book.keep();
        let last = book.last.as_ref().unwrap();
        assert_eq!((book.tried.len(), last.phase, last.why.as_deref()), (1, Phase::Kept, None));
        for number in 0..40 {
            book.try_it(Record { sha256: number.to_string(), ..record(Phase::Trying) });
        }
        assert_eq!((book.tried.len(), book.was_tried("39"), book.was_tried("0")), (MOST_TRIED, true, false));
    }

    #[test]
    fn the_stored_form_stays_and_another_version_s_fields_are_passed_over() {
        let book = Book { last: Some(record(Phase::Trying)), tried: vec!["cd".repeat(32)] };
        assert_eq!(Book::parse(&book.text()).unwrap(), book);
        let text = format!(
            "{{\"last\": {{\"phase\": \"kept\", \"slot\": 3, \"sha256\": \"{}\", \"version\": \"0.2.0\", \"build\": \"new\",\
             \"from_version\": \"0.1.0\", \"level\": 4, \"later\": 1}}, \"tried\": [], \"more\": {{}}}}",
            "ab".repeat(32)
        );
        let read = Book::parse(&text).unwrap().last.unwrap();
        assert_eq!((read.phase, read.slot, read.level, read.stopped), (Phase::Kept, Slot::Three, 4, Vec::new()));
        assert!(Book::parse(&text.replace("\"slot\": 3", "\"slot\": 4")).is_err());
        assert!(Book::parse("").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}\\[\\]\":,a-z0-9 ]{0,80}") {
            let _ = Book::parse(&text);
        }
    }
}
