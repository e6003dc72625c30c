//! How long each level of a plan takes to read off, learned from the fences and drills that it was used for, and how long
//! it is waited for before the next level follows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebreaker_member::replace_private;
use tiebreaker_pipeline::fencer;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::devices::Key;
use crate::level::Level;

/// So many of the last times are remembered; the longest of them counts.
const REMEMBERED: usize = 8;
/// A device gets so many times what it was seen to need.
const FACTOR: u32 = 3;
/// It gets this at least: a machine that happens to be busy is no failure.
const LEAST: Duration = Duration::from_secs(5);
/// And this at most: what wasn't carried out by then never is. Also where a drill finds out how slow it is: BMCs were seen to take 70 s.
pub(crate) const MOST: Duration = Duration::from_secs(120);
/// What one gets of which nothing is known. The fencer's own limit comes right after, and says less.
pub(crate) const UNKNOWN: Duration = fencer::OFF_WITHIN.saturating_sub(Duration::from_secs(1));

/// What is remembered of a level. It is forgotten with what it switches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    node: String,
    level: String,
    kind: String,
    switches: String,
    /// From the command until it read off, in milliseconds, the oldest first.
    off_ms: Vec<u64>,
}

impl Record {
    fn new(level: &Level) -> Self {
        Self {
            node: level.node().to_string(),
            level: level.name().to_owned(),
            kind: level.kind(),
            switches: level.address(),
            off_ms: Vec::new(),
        }
    }

    fn is_of(&self, level: &Level) -> bool {
        *self == Self { off_ms: self.off_ms.clone(), ..Self::new(level) }
    }
}

/// A level that was told "off".
#[derive(Clone, Copy, Debug)]
struct Told {
    /// First, and whenever it was told again since then without having read off.
    first: Instant,
    last: Instant,
    /// It is waited for so long after that.
    within: Duration,
    /// That is over, and the fencer knows.
    failed: bool,
    /// No other level of the node was told anything meanwhile: what it reads is its own doing.
    alone: bool,
}

/// The times of one cluster's levels.
#[derive(Clone)]
pub(crate) struct Times {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
    /// Held by who writes, so that nothing older is written last.
    writing: Arc<Mutex<()>>,
}

#[derive(Default)]
struct Known {
    records: Vec<Record>,
    told: BTreeMap<Key, Told>,
    /// Something was learned that isn't written down.
    unwritten: bool,
}

impl Times {
    /// Those in the cluster's folder. What can't be read is learned anew.
    pub(crate) fn below(cluster: &Path) -> Self {
        let path = cluster.join("device-times.json");
        let records = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|problem| {
                error!(path = %path.display(), "what is known of devices' times is damaged, it is learned anew: {problem}");
                Vec::new()
            }),
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(problem) => {
                error!(path = %path.display(), "what is known of devices' times can't be read, it is learned anew: {problem}");
                Vec::new()
            }
        };
        let known = Known { records, told: BTreeMap::new(), unwritten: false };
        Self { path, known: Arc::new(Mutex::new(known)), writing: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest that it took lately, in milliseconds.
    pub(crate) fn off_ms(&self, level: &Level) -> Option<u64> {
        self.lock().records.iter().find(|record| record.is_of(level))?.off_ms.iter().max().copied()
    }

    /// How long it is waited for.
    pub(crate) fn within(&self, level: &Level) -> Duration {
        within(self.off_ms(level), level.answers())
    }

    /// It was told "off" at `sent` and may have taken it. How long it is waited for: in a drill as long as there is, since that finds
    /// out how much it needs.
    pub(crate) fn told_off(&self, sent: Instant, level: &Level, drill: bool) -> Duration {
        let within = if drill { MOST } else { self.within(level) };
        let mut known = self.lock();
        known.told.retain(|_, told| sent < told.last + MOST);
        let key = (level.node().clone(), level.name().to_owned());
        let mut alone = true;
        for (_, other) in known.told.iter_mut().filter(|(other, _)| other.0 == key.0 && **other != key) {
            (other.alone, alone) = (false, false);
        }
        let new = Told { first: sent, last: sent, within, failed: false, alone };
        let told = known.told.entry(key).or_insert(new);
        *told = Told { last: sent, within, failed: false, ..*told };
        within
    }

    /// It has its power back: what it reads from here on is no answer to an "off".
    pub(crate) fn is_over(&self, level: &Level) {
        self.lock().told.remove(&(level.node().clone(), level.name().to_owned()));
    }

    /// When an "off" that it took can't be carried out any more.
    pub(crate) fn lands_until(&self, level: &Level) -> Option<Instant> {
        let within = self.within(level);
        let known = self.lock();
        known.told.get(&(level.node().clone(), level.name().to_owned())).map(|told| told.last + within)
    }

    /// It reads off: the first time after it was told, that is learned. It is written down by [`Times::keep`]: a fence doesn't
    /// wait for the card.
    pub(crate) fn reads_off(&self, now: Instant, level: &Level) {
        let mut known = self.lock();
        let Some(told) = known.told.get_mut(&(level.node().clone(), level.name().to_owned())) else { return };
        if !std::mem::replace(&mut told.alone, false) {
            return;
        }
        let took = now.saturating_duration_since(told.first);
        let Ok(took) = u64::try_from(took.as_millis()) else { return };
        let place = known.records.iter().position(|record| record.is_of(level));
        let place = place.unwrap_or_else(|| {
            // One of a name: what was configured differently before is forgotten.
            let new = Record::new(level);
            known.records.retain(|record| (&record.node, &record.level) != (&new.node, &new.level));
            known.records.push(new);
            known.records.len() - 1
        });
        let times = &mut known.records[place].off_ms;
        times.push(took);
        times.drain(..times.len().saturating_sub(REMEMBERED));
        known.unwritten = true;
    }

    /// Writes down what was learned, if anything. Who has a result to tell tells it first.
    pub(crate) async fn keep(&self) {
        if !self.lock().unwritten {
            return;
        }
        let times = self.clone();
        // Panics end the process, and nobody aborts it.
        let _ = spawn_blocking(move || times.write()).await;
    }

    fn write(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = self.lock();
        let text = serde_json::to_vec_pretty(&known.records).expect("texts and numbers can always be written as JSON");
        known.unwritten = false;
        drop(known);
        if let Err(problem) = replace_private(&self.path, &text) {
            warn!(path = %self.path.display(), "how long a device took can't be kept: {problem}");
        }
    }

    /// It reads on. Why that is a failure, told once, if it was told "off" for too long ago.
    pub(crate) fn reads_on(&self, now: Instant, level: &Level) -> Option<String> {
        let usual = self.off_ms(level);
        let mut known = self.lock();
        let told = known.told.get_mut(&(level.node().clone(), level.name().to_owned()))?;
        if told.failed || now < told.last + told.within {
            return None;
        }
        told.failed = true;
        let usual = usual.map_or_else(
            || "nobody knows yet how long it takes".to_owned(),
            |ms| format!("it took {} at most so far", seconds(Duration::from_millis(ms))),
        );
        let waited = seconds(now.saturating_duration_since(told.last));
        Some(format!("{}: it took the command {waited} ago and still reads on; {usual}", level.name()))
    }
}

/// How long a level is waited for that took so long at most, and whose devices answer within that.
fn within(off_ms: Option<u64>, answers: Option<Duration>) -> Duration {
    let Some(off_ms) = off_ms else { return UNKNOWN };
    // Two reads belong to it, of a device that may be slow to answer today.
    let reads = answers.unwrap_or_default() * 2;
    (Duration::from_millis(off_ms).saturating_mul(FACTOR) + reads).clamp(LEAST, MOST)
}

fn seconds(span: Duration) -> String {
    format!("{}.{} s", span.as_secs(), span.subsec_millis() / 100)
}
