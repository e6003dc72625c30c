//! The file of who has which cluster's vote: written before anybody is told of a vote, read after a crash.
//!
//! One small file for all clusters, replaced whole, and only when a cluster's vote goes to other nodes than before: it
//! wears no card. A digest stands before the rest, so that a damaged file is never taken for another truth.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tiebreaker_member::{FileError, replace_private};
use tiebreaker_qnetd::wire::NodeId;
use tiebreaker_qnetd::{ClusterName, Holder, Remembered};

const NAME: &str = "qdevice-holders.cbor";

/// Raised with every change of what the fields mean.
const FORMAT: u32 = 2;

/// Knows of no heirs: a version that doesn't know them either must not overlook them, and can read all else.
const WITHOUT_HEIRS: u32 = 1;

const DIGEST: usize = 32;

/// Ten thousand clusters with the longest names that a stranger may use.
const MAX_FILE: u64 = 64 << 20;

/// The file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolderFile {
    path: PathBuf,
}

/// Why it says nothing.
#[derive(Debug, thiserror::Error)]
pub enum HolderFileError {
    /// It can't be read.
    #[error("{path} can't be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged, or written by a newer version")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    whole: bool,
    holders: Vec<StoredHolder>,
}

#[derive(Serialize, Deserialize)]
struct StoredHolder {
    #[serde(with = "serde_bytes")]
    cluster: Vec<u8>,
    nodes: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heirs: Vec<u32>,
    believes_ms: u64,
}

impl HolderFile {
    /// The file in a folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(NAME) }
    }

    /// What it says; without a file there is nothing to remember.
    ///
    /// # Errors
    /// When there is one that can't be read or is damaged: then anybody may hold a vote.
    pub fn read(&self) -> Result<Remembered, HolderFileError> {
        let failed = |source| HolderFileError::Io { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
        decode(&bytes).ok_or_else(|| HolderFileError::Damaged { path: self.path.clone() })
    }

    /// Replaces it; when this returns, it outlives a power cut.
    ///
    /// # Errors
    /// The system's. What was there before stays.
    pub fn write(&self, remembered: &Remembered) -> Result<(), FileError> {
        replace_private(&self.path, &encode(remembered))
    }
}

fn encode(remembered: &Remembered) -> Vec<u8> {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let holders = remembered.holders.iter().map(|(name, holder)| StoredHolder {
        cluster: name.as_bytes().to_vec(),
        nodes: numbers(&holder.nodes),
        heirs: numbers(&holder.heirs),
        believes_ms: u64::try_from(holder.believes.as_millis()).unwrap_or(u64::MAX),
    });
    let heirs = remembered.holders.values().any(|holder| !holder.heirs.is_empty());
    let format = if heirs { FORMAT } else { WITHOUT_HEIRS };
    let stored = Stored { format, whole: remembered.whole, holders: holders.collect() };
    let mut body = Vec::new();
    cbor4ii::serde::to_writer(&mut body, &stored).expect("memory takes any bytes, and every type has a form in CBOR");
    let mut bytes = digest(&SHA256, &body).as_ref().to_vec();
    bytes.append(&mut body);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Remembered> {
    let (sum, body) = bytes.split_at_checked(DIGEST)?;
    if digest(&SHA256, body).as_ref() != sum {
        return None;
    }
    let stored: Stored = cbor4ii::serde::from_slice(body).ok()?;
    if ![WITHOUT_HEIRS, FORMAT].contains(&stored.format) {
        return None;
    }
    let sorted = |numbers: Vec<u32>| {
        let mut nodes: Vec<NodeId> = numbers.into_iter().map(NodeId).collect();
        nodes.sort_unstable();
        nodes
    };
    let holders = stored.holders.into_iter().map(|stored| {
        let believes = Duration::from_millis(stored.believes_ms);
        let holder = Holder { nodes: sorted(stored.nodes), heirs: sorted(stored.heirs), believes };
        (ClusterName::new(&stored.cluster), holder)
    });
    let holders: BTreeMap<ClusterName, Holder> = holders.collect();
    Some(Remembered { holders, whole: stored.whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered() -> Remembered {
        let nodes = vec![NodeId(1), NodeId(3)];
        let holder = Holder { nodes, heirs: vec![], believes: Duration::from_secs(17) };
        Remembered { holders: BTreeMap::from([("home".into(), holder)]), whole: true }
    }

    fn expected() -> Remembered {
        let mut remembered = remembered();
        for holder in remembered.holders.values_mut() {
            holder.heirs = vec![NodeId(3)];
        }
        remembered
    }

    /// As version 1 of the format writes it, and version 2.
    const GOLDEN: [&str; 2] = [include_str!("holders/golden.hex"), include_str!("holders/golden-2.hex")];

    #[test]
    fn what_was_written_is_read_and_the_format_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = HolderFile::in_folder(&dir.path().join("data"));
        assert_eq!(file.read().unwrap(), Remembered::default(), "nothing was ever given");
        for (golden, remembered) in GOLDEN.into_iter().zip([remembered(), expected()]) {
            file.write(&remembered).unwrap();
            assert_eq!(file.read().unwrap(), remembered);
            assert_eq!(data_encoding::HEXLOWER.encode(&encode(&remembered)), golden.trim());
            assert_eq!(decode(&data_encoding::HEXLOWER.decode(golden.trim().as_bytes()).unwrap()), Some(remembered));
        }
    }

    #[test]
    fn no_damaged_file_says_anything() {
        let good = encode(&expected());
        for at in 0..good.len() {
            let mut bent = good.clone();
            bent[at] ^= 0x10;
            assert_eq!(decode(&bent), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "cut at {at}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = HolderFile::in_folder(dir.path());
        std::fs::write(&file.path, b"").unwrap();
        let error = file.read().unwrap_err();
        assert!(matches!(error, HolderFileError::Damaged { .. }), "{error}");
        std::fs::remove_file(&file.path).unwrap();
        std::fs::create_dir(&file.path).unwrap();
        assert!(matches!(file.read(), Err(HolderFileError::Io { .. })));
        assert!(file.write(&remembered()).is_err());
    }
}
