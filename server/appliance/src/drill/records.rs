//! What drills have shown: a small file beside the configuration, so that nobody has to write `drilled = true` by hand.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tiebreaker_member::ask::DrillTimes;
use tiebreaker_member::{FileError, replace_private};
use tracing::error;

use crate::level::Level;

/// One device, or one level of several, that a drill has shown to be its node's. What it switches belongs to it: with another
/// address it has to be shown anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    cluster: String,
    node: String,
    device: String,
    kind: String,
    switches: String,
    times: DrillTimes,
}

impl Record {
    fn new(level: &Level, times: DrillTimes) -> Self {
        Self {
            cluster: level.cluster().to_string(),
            node: level.node().to_string(),
            device: level.name().to_owned(),
            kind: level.kind(),
            switches: level.address(),
            times,
        }
    }

    fn is_of(&self, level: &Level) -> bool {
        *self == Self::new(level, self.times.clone())
    }

    fn is_in_place_of(&self, other: &Self) -> bool {
        (&self.cluster, &self.node, &self.device) == (&other.cluster, &other.node, &other.device)
    }
}

/// Clusters have drills side by side, and one file: whoever adds to it has read what the others added. Drills are the daemon's
/// alone, so no other process writes it.
static WRITING: Mutex<()> = Mutex::new(());

/// Where they lie.
#[derive(Clone, Debug)]
pub(super) struct Records {
    path: PathBuf,
}

impl Records {
    pub(super) fn below(root: &Path) -> Self {
        Self { path: root.join("drills.json") }
    }

    /// What a drill has shown of this very device. What can't be read has shown nothing, and says so.
    pub(super) fn of(&self, level: &Level) -> Option<DrillTimes> {
        self.read().into_iter().find(|record| record.is_of(level)).map(|record| record.times)
    }

    /// Keeps what a drill has shown, in the place of what an earlier one has.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn put(&self, level: &Level, times: DrillTimes) -> Result<(), FileError> {
        let new = Record::new(level, times);
        let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.read();
        all.retain(|record| !new.is_in_place_of(record));
        all.push(new);
        let text = serde_json::to_vec_pretty(&all).expect("texts and numbers can always be written as JSON");
        replace_private(&self.path, &text)
    }

    fn read(&self) -> Vec<Record> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(problem) => {
                error!(path = %self.path.display(), "what drills have shown can't be read, so it counts for nothing: {problem}");
                return Vec::new();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|problem| {
            error!(path = %self.path.display(), "what drills have shown is damaged, so it counts for nothing: {problem}");
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::devices::Devices;

    fn plug(root: &Path, mac: &str) -> Level {
        plug_of(root, "node1", mac)
    }

    fn plug_of(root: &Path, node: &str, mac: &str) -> Level {
        let text = format!(
            "name = \"pi\"\nlisten = [\"[::]:1\"]\n[[clusters.home.devices]]\nnode = \"{node}\"\nname = \"plug\"\nkind = \"shelly\"\n\
             address = \"192.0.2.1:80\"\nmac = \"{mac}\"\nno_password = true\n"
        );
        let config = Config::parse(&text, root).unwrap();
        let (cluster, (audit, _scribe)) = ("home".parse().unwrap(), crate::audit::Audit::start(root));
        Devices::new(&cluster, &config.cluster(&cluster), audit, root).unwrap().find_level(node, None).unwrap()
    }

    #[test]
    fn what_a_drill_has_shown_counts_for_the_very_device_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let (plug, moved) = (plug(root.path(), "A8032ABE54DC"), plug(root.path(), "A8032ABE54DD"));
        let records = Records::below(root.path());
        assert_eq!(records.of(&plug), None);
        let times = DrillTimes { at_ms: 1, off_ms: 2, dark_ms: 3, boot_ms: 4, grade: "supply-cut".into() };
        records.put(&plug, times.clone()).unwrap();
        records.put(&plug, DrillTimes { off_ms: 9, ..times.clone() }).unwrap();
        assert_eq!(records.of(&plug), Some(DrillTimes { off_ms: 9, ..times.clone() }));
        assert_eq!(records.of(&moved), None, "it may switch something else");
        records.put(&moved, times.clone()).unwrap();
        assert_eq!((records.of(&moved), records.of(&plug)), (Some(times), None), "one of a name");
        std::fs::write(&records.path, "[{").unwrap();
        assert_eq!(records.of(&moved), None, "what is damaged has shown nothing");
    }

    #[test]
    fn drills_that_end_at_one_time_are_all_kept() {
        let root = tempfile::tempdir().unwrap();
        let levels: Vec<Level> = (0..8).map(|n| plug_of(root.path(), &format!("node{n}"), "A8032ABE54DC")).collect();
        let records = Records::below(root.path());
        let times = DrillTimes { at_ms: 1, off_ms: 2, dark_ms: 3, boot_ms: 4, grade: "supply-cut".into() };
        std::thread::scope(|threads| {
            for level in &levels {
                threads.spawn(|| records.put(level, times.clone()).unwrap());
            }
        });
        for level in &levels {
            assert_eq!(records.of(level), Some(times.clone()), "{}", level.node());
        }
    }
}
