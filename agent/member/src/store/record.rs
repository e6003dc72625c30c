//! How a record lies in the file: a format byte, a checksum over the record's place and content, then CBOR.
//!
//! The database below has checksums of its own. These are for what they don't cover: a record in the wrong place, a file
//! of another format, a defect of the database.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tiebreaker_consensus::{Entry, HardState, Snapshot};

/// The newest format that this version reads and the one that it writes.
pub(super) const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 16;

/// Why a record can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    Newer(u8),
    Damaged(&'static str),
}

/// What ties the records together: without it a log that lost its tail would look whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) hard_state: HardState,
    /// Index and checksum of the snapshot.
    pub(super) snapshot: Option<(u64, [u8; CHECKSUM_BYTES])>,
    /// The last entry of the log, the snapshot's index if there is none, 0 for a joiner.
    pub(super) last_index: u64,
    /// How many batches were written.
    pub(super) writes: u64,
}

/// Where a record lies: part of its checksum.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Head,
    Snapshot,
    Entry(u64),
}

impl Place {
    fn bytes(self) -> [u8; 9] {
        let (kind, index) = match self {
            Self::Head => (b'H', 0),
            Self::Snapshot => (b'S', 0),
            Self::Entry(index) => (b'E', index),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&index.to_le_bytes());
        bytes
    }
}

/// Types that are stored.
pub(super) trait Record: Serialize + DeserializeOwned {}
impl Record for Head {}
impl Record for Snapshot {}
impl Record for Entry {}

fn checksum(place: Place, cbor: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update([FORMAT]).chain_update(place.bytes()).chain_update(cbor).finalize();
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    short
}

/// The bytes of a record.
pub(super) fn encode(place: Place, record: &impl Record) -> Vec<u8> {
    let mut bytes = vec![0; 1 + CHECKSUM_BYTES];
    cbor4ii::serde::to_writer(&mut bytes, record).expect("writing to memory can't fail, and no type here refuses");
    bytes[0] = FORMAT;
    let sum = checksum(place, &bytes[1 + CHECKSUM_BYTES..]);
    bytes[1..=CHECKSUM_BYTES].copy_from_slice(&sum);
    bytes
}

/// The checksum of an encoded record.
pub(super) fn checksum_of(bytes: &[u8]) -> Option<[u8; CHECKSUM_BYTES]> {
    bytes.get(1..=CHECKSUM_BYTES)?.try_into().ok()
}

/// The record in `bytes`, if it is whole and belongs to `place`.
pub(super) fn decode<T: Record>(place: Place, bytes: &[u8]) -> Result<T, RecordError> {
    let format = *bytes.first().ok_or(RecordError::Damaged("an empty record"))?;
    if format > FORMAT {
        return Err(RecordError::Newer(format));
    }
    let stated = checksum_of(bytes).ok_or(RecordError::Damaged("a record that is cut off"))?;
    let cbor = &bytes[1 + CHECKSUM_BYTES..];
    if format == 0 || checksum(place, cbor) != stated {
        return Err(RecordError::Damaged("a record with a wrong checksum"));
    }
    cbor4ii::serde::from_slice(cbor).map_err(|_| RecordError::Damaged("a record of another shape"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiebreaker_consensus::EntryPayload;

    fn entry() -> Entry {
        Entry { index: 7, term: 2, payload: EntryPayload::Command(vec![1, 2, 3]) }
    }

    #[test]
    fn a_record_is_read_back_only_whole_and_in_its_place() {
        let bytes = encode(Place::Entry(7), &entry());
        assert_eq!(decode::<Entry>(Place::Entry(7), &bytes), Ok(entry()));
        assert!(decode::<Entry>(Place::Entry(8), &bytes).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(decode::<Entry>(Place::Entry(7), &flipped).is_err(), "flip at {at}");
            assert!(decode::<Entry>(Place::Entry(7), &bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut bytes = encode(Place::Entry(7), &entry());
        bytes[0] = FORMAT + 1;
        assert_eq!(decode::<Entry>(Place::Entry(7), &bytes), Err(RecordError::Newer(FORMAT + 1)));
    }

    #[test]
    fn the_encoding_is_pinned() {
        let hex: String = encode(Place::Entry(7), &entry()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[34..], "a365696e64657807647465726d02677061796c6f6164a167436f6d6d616e6443010203");
    }
}
