//! The two slots of the card: which one runs, which one starts, and how a slot is written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Advice, fadvise};
use tiebreaker_update::autoboot::Autoboot;
use tiebreaker_update::{Medium, Slot, fat};

/// What the Pi's firmware says of its start, numbers of four bytes.
const FIRMWARE: &str = "/proc/device-tree/chosen/bootloader";

/// The slot that runs, as the firmware tells it; `said` is what an emulator's harness says in its place.
#[must_use]
pub fn told(said: Option<Slot>) -> Option<Slot> {
    said.or_else(|| number(&fs::read(Path::new(FIRMWARE).join("partition")).ok()?).and_then(Slot::of_partition))
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?).into())
}

/// `autoboot.txt` on the card's first partition, with the sector in which it lies.
pub struct Choice {
    partition: PathBuf,
    place: fat::Place,
    sector: Sector,
    /// What it says.
    pub autoboot: Autoboot,
}

/// One sector, where a card's driver can take it from as it is.
#[repr(align(4096))]
#[derive(Clone, PartialEq, Eq)]
struct Sector([u8; fat::SECTOR]);

impl Choice {
    /// Reads it, from the card itself.
    ///
    /// # Errors
    /// It isn't there, or says something else than the image's.
    pub fn read(partition: &Path) -> Result<Self> {
        let file = open(partition, false)?;
        let sector = |at: u64| {
            let mut sector = Sector([0; fat::SECTOR]);
            file.read_exact_at(&mut sector.0, at * fat::SECTOR as u64).map(|()| sector)
        };
        let place = fat::find(|at| sector(at).map(|sector| sector.0))?;
        let sector = sector(place.sector).context("reading autoboot.txt")?;
        let autoboot = Autoboot::parse(&sector.0[..place.length])?;
        Ok(Self { partition: partition.into(), place, sector, autoboot })
    }

    /// Makes the other slot the one that starts: one sector is written in place, and read back.
    ///
    /// # Errors
    /// It can't be written, or something else is read.
    pub fn exchange(&self) -> Result<()> {
        let mut sector = self.sector.clone();
        let text = self.autoboot.exchanged(&sector.0[..self.place.length]);
        sector.0[..self.place.length].copy_from_slice(&text);
        let file = open(&self.partition, true)?;
        file.write_all_at(&sector.0, self.place.sector * fat::SECTOR as u64).context("writing autoboot.txt")?;
        file.sync_all().context("writing autoboot.txt")?;
        drop(file);
        if Self::read(&self.partition)?.sector != sector {
            bail!("autoboot.txt isn't what was written: is the card worn out?");
        }
        Ok(())
    }
}

/// A partition past the kernel's cache, so that one sector is one write; through it where that isn't offered.
fn open(path: &Path, write: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write);
    let direct = options.clone().custom_flags(libc::O_DIRECT | libc::O_SYNC).open(path);
    let opened = match direct {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.custom_flags(libc::O_SYNC).open(path),
        other => other,
    };
    opened.with_context(|| format!("opening {}", path.display()))
}

/// The partition of a slot.
pub struct Partition {
    file: File,
    bytes: u64,
}

impl Partition {
    /// Opens it to be written.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        Ok(Self { file, bytes })
    }
}

impl Medium for Partition {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn write(&mut self, at: u64, piece: &[u8]) -> io::Result<()> {
        self.file.write_all_at(piece, at)?;
        // Piece by piece: what waits in memory would all have to be written at once, while the machine waits.
        self.file.sync_data()
    }

    fn forget(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        Ok(fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    fn read(&mut self, at: u64, piece: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(piece, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FAT16 of the image's kind in a file, with the text of `autoboot.txt` at the returned place.
    fn card(text: &[u8]) -> (tempfile::NamedTempFile, usize) {
        let mut bytes = vec![0_u8; 400 * 512];
        for (at, part) in [
            (11, &512_u16.to_le_bytes()[..]),
            (13, &[4]),
            (14, &4_u16.to_le_bytes()),
            (16, &[2]),
            (17, &512_u16.to_le_bytes()),
            (19, &400_u16.to_le_bytes()),
            (22, &32_u16.to_le_bytes()),
            (510, &[0x55, 0xaa]),
        ] {
            bytes[at..at + part.len()].copy_from_slice(part);
        }
        let entry = (4 + 64) * 512;
        bytes[entry..entry + 11].copy_from_slice(b"AUTOBOOTTXT");
        bytes[entry + 26] = 3;
        bytes[entry + 28..entry + 30].copy_from_slice(&(text.len() as u16).to_le_bytes());
        let at = (4 + 64 + 32 + 4) * 512;
        bytes[at..at + text.len()].copy_from_slice(text);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        (file, at)
    }

    #[test]
    fn the_choice_is_exchanged_in_its_sector_and_nowhere_else() {
        let text = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";
        let (file, at) = card(text);
        let before = fs::read(file.path()).unwrap();
        let choice = Choice::read(file.path()).unwrap();
        assert_eq!(choice.autoboot.start, Slot::Two);
        choice.exchange().unwrap();
        let after = fs::read(file.path()).unwrap();
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [at + 35, at + 62]);
        let again = Choice::read(file.path()).unwrap();
        assert_eq!((again.autoboot.start, again.autoboot.trial), (Slot::Three, Slot::Two));
        again.exchange().unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), before);
    }

    #[test]
    fn a_card_without_a_choice_is_told_of() {
        let (file, _) = card(b"boot_partition=2\n");
        assert!(Choice::read(file.path()).err().unwrap().to_string().contains("put the one of the image back"));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(Choice::read(empty.path()).is_err());
    }

    #[test]
    fn a_slot_is_written_and_read_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let mut slot = Partition::open(file.path()).unwrap();
        assert_eq!(slot.bytes().unwrap(), 8192);
        slot.write(4096, &[7; 512]).unwrap();
        slot.forget().unwrap();
        let mut read = [0; 1024];
        slot.read(3584, &mut read).unwrap();
        assert_eq!((read[511], read[512], read[1023]), (0, 7, 7));
        assert!(slot.read(8000, &mut read).is_err());
    }

    #[test]
    fn the_firmware_s_numbers_are_of_four_bytes() {
        assert_eq!(number(&[0, 0, 0, 3]).and_then(Slot::of_partition), Some(Slot::Three));
        assert_eq!(number(&[0, 0, 0, 1]).and_then(Slot::of_partition), None);
        assert_eq!(number(&[3]), None);
        assert_eq!(told(Some(Slot::Two)), Some(Slot::Two));
    }
}
