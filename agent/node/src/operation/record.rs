//! What is known of an operation outside of any process's memory.
//!
//! The folder is on a file system that needs to outlive processes, not the machine: `/run`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest order to a unit, environment and arguments included: what the kernel takes for one argument.
const ORDER_MAX: u32 = 128 * 1024;

/// One operation that has been begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The name, which is also the mark.
    pub name: String,
    /// Whose operation it is.
    pub resource: String,
    /// The unit's process id.
    pub pid: i32,
    /// The unit's start time in clock ticks: with the id, it names one process of this boot.
    pub started: u64,
    /// The kernel's id of this boot. Records of another boot name nobody.
    pub boot: String,
}

/// How an operation's program ended, as its unit saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It exited.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It could not be started.
    NotStarted(String),
    /// The agent died or gave it up; everything was killed.
    Abandoned,
    /// It ended, but what it left behind could not be killed.
    Survivors,
}

/// What a unit is told to run. Not printable: its environment may hold passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// The file that takes its output.
    pub output: PathBuf,
    /// The file that takes the outcome.
    pub done: PathBuf,
    /// What may stay behind.
    pub keep: Keep,
}

/// What of a program's descendants may outlive it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// All, if it succeeded; they are the workload. None otherwise.
    AllIfSuccessful,
    /// Those that left its session on purpose.
    OtherSessions,
}

impl Order {
    /// Sends the order: its length in four bytes, big endian, then JSON.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= ORDER_MAX);
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::ArgumentListTooLong))?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(json);
        Ok(bytes)
    }

    /// Reads an order to its last byte; an order that is cut short is an error.
    pub fn read(source: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        source.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > ORDER_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut json = vec![0; length as usize];
        source.read_exact(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

/// The folder with the records.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

impl Records {
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub fn record_path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.op"))
    }

    pub fn done_path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.done"))
    }

    pub fn write(&self, record: &Record) -> io::Result<()> {
        replace(&self.record_path(&record.name), &serde_json::to_vec(record)?)
    }

    pub fn done(&self, name: &str) -> io::Result<Option<Done>> {
        match fs::read(self.done_path(name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets an operation. The record goes first: an outcome without a record means nothing, a record without its
    /// outcome would mean an interrupted operation.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        for path in [self.record_path(name), self.done_path(name)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All records. What is not a record (an outcome without one, an unfinished write) is removed.
    pub fn all(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "op") {
                records.push(serde_json::from_slice(&fs::read(&path)?)?);
            } else if !path.with_extension("op").exists() {
                fs::remove_file(&path)?;
            }
        }
        Ok(records)
    }
}

/// Writes a file so that it is there whole or not at all, whichever process dies. No flush to the disk: it needs to
/// survive processes, not the machine.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = fs::File::create(&draft)?;
    file.write_all(bytes)?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_cut_short_is_no_order() {
        let order = Order {
            argv: vec!["true".into()],
            env: BTreeMap::new(),
            output: "/o".into(),
            done: "/d".into(),
            keep: Keep::OtherSessions,
        };
        let bytes = order.encode().unwrap();
        assert!(Order::read(&mut &bytes[..]).unwrap() == order);
        for length in 0..bytes.len() {
            assert!(Order::read(&mut &bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Order::read(&mut &u32::MAX.to_be_bytes()[..]).is_err());
    }

    #[test]
    fn an_outcome_without_a_record_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().into());
        let record = Record { name: "a.1".into(), resource: "a".into(), pid: 1, started: 2, boot: "b".into() };
        records.write(&record).unwrap();
        replace(&records.done_path("a.1"), &serde_json::to_vec(&Done::Exited(0)).unwrap()).unwrap();
        replace(&records.done_path("b"), &serde_json::to_vec(&Done::Abandoned).unwrap()).unwrap();
        assert_eq!(records.all().unwrap(), [record]);
        assert_eq!(records.done("a.1").unwrap(), Some(Done::Exited(0)));
        assert_eq!(records.done("b").unwrap(), None);
        records.forget("a.1").unwrap();
        assert!(records.all().unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
