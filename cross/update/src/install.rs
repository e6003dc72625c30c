//! Writing an update into a slot.

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use crate::file::{Head, Key, Manifest, PIECE, UpdateError, check_content, hex, read_content};

/// A slot that can be written: a partition of the card, or a file in a test.
pub trait Medium {
    /// Its length.
    ///
    /// # Errors
    /// The system's.
    fn bytes(&self) -> io::Result<u64>;
    /// Writes all of a piece, and returns when the card has it.
    ///
    /// # Errors
    /// The system's.
    fn write(&mut self, at: u64, piece: &[u8]) -> io::Result<()>;
    /// Makes sure that what is read from now on comes from the card.
    ///
    /// # Errors
    /// The system's.
    fn forget(&mut self) -> io::Result<()>;
    /// Fills a piece.
    ///
    /// # Errors
    /// The system's.
    fn read(&mut self, at: u64, piece: &mut [u8]) -> io::Result<()>;
}

/// What is being done, each in percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The update is checked.
    Checking(u8),
    /// It is written.
    Writing(u8),
    /// The slot is read back.
    Reading(u8),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, percent) = match self {
            Self::Checking(percent) => ("checking the update", percent),
            Self::Writing(percent) => ("writing the slot", percent),
            Self::Reading(percent) => ("reading the slot back", percent),
        };
        write!(f, "{what}: {percent} %")
    }
}

/// Why an update isn't installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The file.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// It isn't for this machine, or not now.
    #[error("{0}")]
    Refused(String),
    /// It has no room.
    #[error(
        "the update's content has {bytes} bytes, and a slot of this card {room}: write the card anew with the new image"
    )]
    TooLarge {
        /// Of the update.
        bytes: u64,
        /// Of the slot.
        room: u64,
    },
    /// The slot can't be written. It isn't the one that starts.
    #[error("the slot can't be written; the machine goes on from the other one")]
    Write(#[source] io::Error),
    /// The slot can't be read back.
    #[error("the slot can't be read back; the machine goes on from the other one. Is the card worn out?")]
    ReadBack(#[source] io::Error),
    /// It isn't what was written.
    #[error(
        "what was written to the slot isn't what is read from it: the card is worn out. Put the image onto a new one"
    )]
    Worn,
}

/// Installs an update: checks all of it, then writes it, then reads it back. Until the whole update has proven to be what was
/// signed, and `may` has had nothing against it, no byte is written.
///
/// # Errors
/// [`InstallError`] says whether the slot was touched.
pub fn install(
    source: &mut (impl Read + Seek),
    key: &Key,
    may: impl FnOnce(&Manifest) -> Result<(), String>,
    slot: &mut impl Medium,
    mut progress: impl FnMut(Step),
) -> Result<Manifest, InstallError> {
    let head = Head::read(source)?;
    let manifest = head.verified(key)?;
    may(&manifest).map_err(InstallError::Refused)?;
    let room = slot.bytes().map_err(InstallError::Write)?;
    if manifest.bytes > room {
        return Err(InstallError::TooLarge { bytes: manifest.bytes, room });
    }
    let percent = |at: u64| u8::try_from(at * 100 / manifest.bytes).unwrap_or(100);
    read_content(source, &manifest, |at, _| {
        progress(Step::Checking(percent(at)));
        Ok::<(), UpdateError>(())
    })?;
    source.seek(SeekFrom::Start(head.bytes())).map_err(UpdateError::Read)?;
    read_content(source, &manifest, |at, piece| {
        progress(Step::Writing(percent(at)));
        slot.write(at, piece).map_err(InstallError::Write)
    })?;
    slot.forget().map_err(InstallError::ReadBack)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < manifest.bytes {
        progress(Step::Reading(percent(at)));
        let length = usize::try_from(manifest.bytes - at).unwrap_or(PIECE).min(PIECE);
        slot.read(at, &mut piece[..length]).map_err(InstallError::ReadBack)?;
        digest.update(&piece[..length]);
        at += length as u64;
    }
    if hex(&digest.finalize()) == manifest.sha256 { Ok(manifest) } else { Err(InstallError::Worn) }
}

/// Checks an update and installs it nowhere.
///
/// # Errors
/// What is wrong with it.
pub fn check(source: &mut impl Read, key: &Key) -> Result<Manifest, UpdateError> {
    let manifest = Head::read(source)?.verified(key)?;
    check_content(source, &manifest)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use crate::file::tests::{keys, manifest_of, put_together, sign, update};

    use super::*;

    struct Card {
        bytes: Vec<u8>,
        writes: usize,
        fails_at: Option<usize>,
        /// Reads something else than was written here.
        rots_at: Option<usize>,
        forgotten: bool,
    }

    impl Card {
        fn new() -> Self {
            Self { bytes: vec![0xff; 4 * PIECE], writes: 0, fails_at: None, rots_at: None, forgotten: false }
        }
    }

    impl Medium for Card {
        fn bytes(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn write(&mut self, at: u64, piece: &[u8]) -> io::Result<()> {
            if self.fails_at == Some(self.writes) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.writes += 1;
            let at = at as usize;
            self.bytes[at..at + piece.len()].copy_from_slice(piece);
            Ok(())
        }

        fn forget(&mut self) -> io::Result<()> {
            self.forgotten = true;
            Ok(())
        }

        fn read(&mut self, at: u64, piece: &mut [u8]) -> io::Result<()> {
            assert!(self.forgotten, "what is read back comes from the card");
            let at = at as usize;
            piece.copy_from_slice(&self.bytes[at..at + piece.len()]);
            if let Some(rots) = self.rots_at.filter(|rots| (at..at + piece.len()).contains(rots)) {
                piece[rots - at] ^= 1;
            }
            Ok(())
        }
    }

    fn play(file: &[u8], key: &Key, card: &mut Card) -> Result<Manifest, InstallError> {
        install(&mut Cursor::new(file), key, |_| Ok(()), card, |_| {})
    }

    #[test]
    fn an_update_is_written_whole_and_nothing_behind_it() {
        let ((pair, key), mut card) = (keys(), Card::new());
        let content: Vec<u8> = (0..2 * PIECE + 1024).map(|at| (at % 251) as u8).collect();
        let mut steps = Vec::new();
        install(&mut Cursor::new(update(&pair, &content)), &key, |_| Ok(()), &mut card, |step| steps.push(step))
            .unwrap();
        assert_eq!(card.bytes[..content.len()], content);
        assert!(card.bytes[content.len()..].iter().all(|byte| *byte == 0xff));
        assert_eq!((steps[0], steps.len()), (Step::Checking(0), 9));
    }

    #[test]
    fn what_is_not_in_order_writes_no_byte() {
        let ((pair, key), (other, _)) = (keys(), keys());
        let content = vec![3; 2 * PIECE];
        let whole = update(&pair, &content);
        let mut spoiled = whole.clone();
        *spoiled.last_mut().unwrap() ^= 1;
        let manifest = manifest_of(&content, "0.2.0", "0123456789abcdef");
        for file in [
            update(&other, &content),
            put_together(&manifest, "", &content),
            put_together(&manifest, &sign(&other, &manifest), &content),
            whole[..whole.len() - 1].to_vec(),
            spoiled,
            [&whole[..], b"x"].concat(),
            update(&pair, &vec![0; 4 * PIECE + 512]),
        ] {
            let mut card = Card::new();
            play(&file, &key, &mut card).unwrap_err();
            assert_eq!((card.writes, card.bytes), (0, Card::new().bytes));
        }
        let mut card = Card::new();
        let refused = install(&mut Cursor::new(&whole), &key, |_| Err("it runs already".into()), &mut card, |_| {});
        assert_eq!((refused.unwrap_err().to_string().as_str(), card.writes), ("it runs already", 0));
    }

    #[test]
    fn a_card_that_fails_or_lies_is_told_of() {
        let (pair, key) = keys();
        let file = update(&pair, &vec![3; 3 * PIECE]);
        let mut full = Card { fails_at: Some(1), ..Card::new() };
        assert!(matches!(play(&file, &key, &mut full), Err(InstallError::Write(_))));
        let mut worn = Card { rots_at: Some(2 * PIECE + 5), ..Card::new() };
        assert!(matches!(play(&file, &key, &mut worn), Err(InstallError::Worn)));
    }

    #[test]
    fn a_check_installs_nothing_and_sees_the_same() {
        let (pair, key) = keys();
        let file = update(&pair, &[3; 1024]);
        assert_eq!(check(&mut Cursor::new(&file), &key).unwrap().bytes, 1024);
        assert!(check(&mut Cursor::new(&file[..file.len() - 1]), &key).is_err());
    }
}
