//! What process 1 of the image knows of its machine, and leaves in a file for this page. Packages have no such file.

use std::io::ErrorKind;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::debug;

/// The variable in which process 1 names its file.
const FILE: &str = "TIEBREAKER_MACHINE";

/// A mistake in the settings, which therefore don't hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mistake {
    /// The file.
    pub(super) file: String,
    /// From 1, as an editor counts; not every mistake has a place.
    pub(super) line: Option<usize>,
    /// Likewise.
    pub(super) column: Option<usize>,
    /// What is wrong, and what is right.
    pub(super) what: String,
}

/// The board's watchdog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Watchdog {
    /// What the driver calls itself; absent where there is none.
    pub(super) identity: Option<String>,
    /// After so many seconds without a sign of life it resets the machine.
    pub(super) timeout_s: Option<u64>,
    /// Whether this boot came of it: `watchdog`, `heat`, `supply`; absent where the driver doesn't say, and few do.
    pub(super) last_boot: Option<String>,
}

/// How the clock is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Clock {
    /// Whether a server is to be asked for the time at all.
    pub(super) asks: bool,
    /// When one answered last, in seconds since the machine's start.
    pub(super) answered_at_s: Option<u64>,
    /// Whether the last question had an answer.
    pub(super) answers: bool,
}

/// The ssh for one `pvecm qdevice setup`. The code that lets a node in is on the screen alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ssh {
    /// It waits for a node.
    Open,
    /// One cluster was set up.
    Used,
    /// Nobody came in time.
    Late,
    /// Too many codes were wrong.
    Guessed,
    /// It could not be started, or ended by a fault.
    Failed,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Why `tiebreaker.toml` doesn't hold.
    pub(super) mistake: Option<Mistake>,
    /// The watchdog.
    pub(super) watchdog: Watchdog,
    /// The clock.
    pub(super) clock: Clock,
    /// The ssh for `pvecm`; absent where the settings don't ask for it.
    #[serde(default)]
    pub(super) ssh: Option<Ssh>,
}

impl Machine {
    /// Reads what process 1 left, if there is one that leaves something.
    pub(super) fn look() -> Option<Self> {
        let path = std::env::var_os(FILE)?;
        Self::read(Path::new(&path))
    }

    fn read(path: &Path) -> Option<Self> {
        match std::fs::read(path) {
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(mut machine) => {
                    if let Some(mistake) = &mut machine.mistake {
                        mistake.what = without_values(&mistake.what);
                    }
                    Some(machine)
                }
                Err(error) => {
                    debug!("{} makes no sense: {error}", path.display());
                    None
                }
            },
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    debug!("{} can't be read: {error}", path.display());
                }
                None
            }
        }
    }
}

/// Seconds since the machine's start.
pub(super) fn boot_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// A message of the parser without the text that stands where something else should: somebody may have put a password there, and
/// the network is not the screen.
fn without_values(what: &str) -> String {
    const BEGINS: &str = "string \"";
    let mut left = String::with_capacity(what.len());
    let mut rest = what;
    while let Some(at) = rest.find(BEGINS) {
        let (before, quoted) = rest.split_at(at + BEGINS.len());
        left.push_str(before);
        left.push_str("…\"");
        let mut escaped = false;
        let ends = quoted.find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        rest = ends.and_then(|ends| quoted.get(ends + 1..)).unwrap_or_default();
    }
    left + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_process_1_writes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        std::fs::write(&path, include_str!("../../../../cross/init/src/known/golden.json")).unwrap();
        let machine = Machine::read(&path).unwrap();
        let mistake = machine.mistake.unwrap();
        assert_eq!((mistake.file.as_str(), mistake.line, mistake.column), ("tiebreaker.toml", Some(4), Some(1)));
        assert_eq!(mistake.what, "unknown field `server`");
        assert_eq!(machine.watchdog.timeout_s, Some(15));
        assert_eq!(machine.watchdog.last_boot.as_deref(), Some("watchdog"));
        assert_eq!(machine.clock, Clock { asks: true, answered_at_s: Some(12), answers: true });
        assert_eq!(machine.ssh, Some(Ssh::Open));
        let with_value = include_str!("../../../../cross/init/src/known/golden.json")
            .replace("unknown field `server`", r#"invalid type: string \"hunter2\", expected u16"#);
        std::fs::write(&path, with_value).unwrap();
        assert_eq!(Machine::read(&path).unwrap().mistake.unwrap().what, r#"invalid type: string "…", expected u16"#);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Machine::read(&path), None);
        assert_eq!(Machine::read(&folder.path().join("none")), None);
    }

    #[test]
    fn what_stands_in_a_wrong_place_is_not_told() {
        for (said, left) in [
            (r#"invalid type: string "hunter2", expected u16"#, r#"invalid type: string "…", expected u16"#),
            (r#"invalid type: string "a\"b", expected a list"#, r#"invalid type: string "…", expected a list"#),
            (r#"string "a\\", or string "b""#, r#"string "…", or string "…""#),
            (r#"string "never ends"#, r#"string "…""#),
            ("unknown field `x`", "unknown field `x`"),
        ] {
            assert_eq!(without_values(said), left);
        }
    }
}
