//! A checksum for each sector beneath the database.
//!
//! The database checks its pages only when it repairs itself; on a page that rotted it panics, and a panic ends the
//! daemon without a word about the way out. So it reads through this layer: a sector that isn't what was written is an
//! error before the database sees a byte of it. Sectors have the size that disks write as one, so a power cut leaves each
//! of them old or new, never torn, and the database's own recovery works as without this layer.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use sha2::{Digest, Sha256};

/// What a disk writes as one.
const SECTOR: u64 = 512;
const SUM: usize = 16;
/// What of a sector is the database's.
const DATA: u64 = SECTOR - SUM as u64;
/// Begins the first sector, followed by the length of the database.
const MAGIC: &[u8; 8] = b"TBRSTOR1";

type Sector = [u8; SECTOR as usize];

/// The file as the database sees it.
#[derive(Debug)]
pub(super) struct Sectors {
    file: File,
    len: AtomicU64,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn sum(number: u64, data: &[u8]) -> [u8; SUM] {
    let digest = Sha256::new().chain_update(number.to_le_bytes()).chain_update(data).finalize();
    let mut short = [0; SUM];
    short.copy_from_slice(&digest[..SUM]);
    short
}

impl Sectors {
    /// A new, empty file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        lock(&file)?;
        let sectors = Self { file, len: AtomicU64::new(0) };
        sectors.write_len(0)?;
        Ok(sectors)
    }

    /// An existing file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        lock(&file)?;
        let sectors = Self { file, len: AtomicU64::new(0) };
        let first = sectors.read_sector(0)?;
        let (magic, rest) = first.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(invalid("it isn't a store of this program".to_owned()));
        }
        let mut len = [0; 8];
        len.copy_from_slice(&rest[..8]);
        sectors.len.store(u64::from_le_bytes(len), Ordering::Release);
        Ok(sectors)
    }

    fn read_sector(&self, number: u64) -> io::Result<Sector> {
        let mut sector = [0; SECTOR as usize];
        let cut_off = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid(format!("it is cut off at sector {number}")),
            _ => error,
        };
        self.file.read_exact_at(&mut sector, number * SECTOR).map_err(cut_off)?;
        let (data, stated) = sector.split_at(DATA as usize);
        if sum(number, data) != stated {
            return Err(invalid(format!("sector {number} has a wrong checksum")));
        }
        Ok(sector)
    }

    fn write_sector(&self, number: u64, sector: &mut Sector) -> io::Result<()> {
        let (data, stated) = sector.split_at_mut(DATA as usize);
        stated.copy_from_slice(&sum(number, data));
        self.file.write_all_at(sector, number * SECTOR)
    }

    fn write_len(&self, len: u64) -> io::Result<()> {
        let mut first: Sector = [0; SECTOR as usize];
        first[..MAGIC.len()].copy_from_slice(MAGIC);
        first[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&len.to_le_bytes());
        self.write_sector(0, &mut first)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }
}

/// Where `offset` of the database lies: the sector and the place in it. Sector 0 is ours.
const fn place(offset: u64) -> (u64, usize) {
    (offset / DATA + 1, (offset % DATA) as usize)
}

fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl StorageBackend for Sectors {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > self.len.load(Ordering::Acquire) {
            return Err(invalid("a read past its end".to_owned()));
        }
        let (mut number, mut from) = place(offset);
        let mut rest = out;
        while !rest.is_empty() {
            let take = rest.len().min(DATA as usize - from);
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&self.read_sector(number)?[from..from + take]);
            rest = later;
            (number, from) = (number + 1, 0);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let old = self.len.load(Ordering::Acquire);
        let count = |len: u64| len.div_ceil(DATA) + 1;
        if len > old {
            for number in count(old)..count(len) {
                self.write_sector(number, &mut [0; SECTOR as usize])?;
            }
            self.file.sync_data()?;
        }
        self.write_len(len)?;
        // The length must not come after what is written by it.
        self.file.sync_data()?;
        if len < old { self.file.set_len(count(len) * SECTOR) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut number, mut from) = place(offset);
        let mut rest = data;
        while !rest.is_empty() {
            let take = rest.len().min(DATA as usize - from);
            let mut sector = if take == DATA as usize { [0; SECTOR as usize] } else { self.read_sector(number)? };
            sector[from..from + take].copy_from_slice(&rest[..take]);
            self.write_sector(number, &mut sector)?;
            rest = &rest[take..];
            (number, from) = (number + 1, 0);
        }
        Ok(())
    }
}
