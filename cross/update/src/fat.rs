//! Where `autoboot.txt` lies on the card's first partition, a FAT16 as `cross/image` makes it.
//!
//! Mounting that partition to write would change its boot sector, its tables and a folder's entry. Here nothing is changed
//! but the one sector with the file's text, which the card writes whole or not at all.

use std::io;

/// A sector's bytes.
pub const SECTOR: usize = 512;
const NAME: &[u8; 11] = b"AUTOBOOTTXT";
const ENTRY: usize = 32;
/// A folder's entry that isn't a file: a label, a folder, a part of a long name.
const NO_FILE: u8 = 0x18;

/// Where the text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which sector of the partition.
    pub sector: u64,
    /// How many bytes of it.
    pub length: usize,
}

/// Why it isn't found.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// The card.
    #[error("the card's first partition can't be read")]
    Read(#[source] io::Error),
    /// Somebody formatted it.
    #[error("the card's first partition isn't the FAT16 of the image ({0}): write the card anew")]
    Other(&'static str),
    /// Somebody took the file away.
    #[error(
        "there is no autoboot.txt of at most 512 bytes on the card's first partition: put the one of the image back"
    )]
    Missing,
}

/// Finds it. `read` gives a sector of the partition.
///
/// # Errors
/// It isn't there, or the partition is another.
pub fn find(mut read: impl FnMut(u64) -> io::Result<[u8; SECTOR]>) -> Result<Place, FatError> {
    let boot = read(0).map_err(FatError::Read)?;
    let byte = |at: usize| u64::from(boot[at]);
    let word = |at: usize| byte(at) | byte(at + 1) << 8;
    if boot[510..] != [0x55, 0xaa] {
        return Err(FatError::Other("it has no boot sector"));
    }
    if word(11) != SECTOR as u64 {
        return Err(FatError::Other("its sectors aren't of 512 bytes"));
    }
    let (cluster, reserved, tables) = (byte(13), word(14), byte(16));
    let (entries, table) = (word(17), word(22));
    let total = match word(19) {
        0 => word(32) | word(34) << 16,
        short => short,
    };
    if !cluster.is_power_of_two() || reserved == 0 || !(1..=2).contains(&tables) || entries == 0 || table == 0 {
        return Err(FatError::Other("its boot sector is another's"));
    }
    let root = reserved + tables * table;
    let data = root + (entries * ENTRY as u64).div_ceil(SECTOR as u64);
    for sector in root..data.min(total) {
        let folder = read(sector).map_err(FatError::Read)?;
        for entry in folder.chunks_exact(ENTRY) {
            if entry[0] == 0 {
                return Err(FatError::Missing);
            }
            if entry[..NAME.len()] != NAME[..] || entry[11] & NO_FILE != 0 {
                continue;
            }
            let first = u64::from(entry[26]) | u64::from(entry[27]) << 8;
            let length = u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]]) as usize;
            if first < 2 || !(1..=SECTOR).contains(&length) {
                return Err(FatError::Missing);
            }
            let sector = data + (first - 2) * cluster;
            if sector >= total {
                return Err(FatError::Other("autoboot.txt lies behind its end"));
            }
            return Ok(Place { sector, length });
        }
    }
    Err(FatError::Missing)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A FAT16 with one file, of 4 sectors a cluster, and its text at the returned sector.
    pub fn partition(name: &[u8; 11], text: &[u8]) -> (Vec<u8>, u64) {
        let (cluster, reserved, table, entries) = (4_u64, 4_u64, 32_u64, 512_u64);
        let root = reserved + 2 * table;
        let data = root + entries * 32 / 512;
        let total = data + 100 * cluster;
        let mut bytes = vec![0; total as usize * SECTOR];
        bytes[11..13].copy_from_slice(&512_u16.to_le_bytes());
        bytes[13] = cluster as u8;
        bytes[14..16].copy_from_slice(&(reserved as u16).to_le_bytes());
        bytes[16] = 2;
        bytes[17..19].copy_from_slice(&(entries as u16).to_le_bytes());
        bytes[19..21].copy_from_slice(&(total as u16).to_le_bytes());
        bytes[22..24].copy_from_slice(&(table as u16).to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let at = root as usize * SECTOR;
        bytes[at..at + 11].copy_from_slice(b"TIEBREAKER ");
        bytes[at + 11] = 8;
        bytes[at + 32] = 0xe5;
        let entry = at + 20 * 32;
        for gone in 2..20 {
            bytes[at + gone * 32] = 0xe5;
        }
        bytes[entry..entry + 11].copy_from_slice(name);
        bytes[entry + 11] = 0x20;
        bytes[entry + 26] = 9;
        bytes[entry + 28..entry + 32].copy_from_slice(&(text.len() as u32).to_le_bytes());
        let sector = data + 7 * cluster;
        let start = sector as usize * SECTOR;
        bytes[start..start + text.len()].copy_from_slice(text);
        (bytes, sector)
    }

    pub fn reader(bytes: &[u8]) -> impl FnMut(u64) -> io::Result<[u8; SECTOR]> + '_ {
        |sector| {
            let at = usize::try_from(sector).ok().and_then(|sector| sector.checked_mul(SECTOR));
            let sector = at.and_then(|at| bytes.get(at..at.checked_add(SECTOR)?));
            sector.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
    }

    #[test]
    fn the_text_is_found_where_it_lies() {
        let (bytes, sector) = partition(NAME, b"[all]\n");
        assert_eq!(find(reader(&bytes)).unwrap(), Place { sector, length: 6 });
    }

    #[test]
    fn what_is_another_s_is_named() {
        let (bytes, _) = partition(NAME, b"[all]\n");
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            find(reader(&bytes)).unwrap_err().to_string()
        };
        for (at, byte) in [(510, 0), (12, 4), (13, 3), (16, 0), (22, 0)] {
            assert!(with(at, byte).contains("write the card anew"), "{at}");
        }
        let mut short = bytes.clone();
        short[19..21].copy_from_slice(&101_u16.to_le_bytes());
        assert!(find(reader(&short)).unwrap_err().to_string().contains("behind its end"));
        let (bytes, _) = partition(b"AUTOBOOTBAK", b"[all]\n");
        assert!(find(reader(&bytes)).unwrap_err().to_string().contains("put the one of the image back"));
        let (bytes, _) = partition(NAME, b"");
        assert!(matches!(find(reader(&bytes)), Err(FatError::Missing)));
    }

    proptest! {
        #[test]
        fn no_partition_makes_it_panic(
            changes in proptest::collection::vec((0..512_usize, any::<u8>()), 0..20),
            folder in proptest::collection::vec(any::<u8>(), 512),
        ) {
            let (mut bytes, _) = partition(NAME, b"[all]\n");
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _ = find(reader(&bytes));
            let at = (4 + 64) * SECTOR;
            bytes[at..at + 512].copy_from_slice(&folder);
            let _ = find(reader(&bytes));
        }
    }
}
