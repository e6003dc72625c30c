//! The file: in the format of [age](https://age-encryption.org), to a passphrase.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, scrypt};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::BackupError;
use super::contents::{Contents, FORMAT};

/// A passphrase has so many characters at least.
pub(crate) const PASSPHRASE_LEAST: usize = 12;

/// scrypt's work: 2^16 takes 64 MiB and a moment. It is not measured, because a file that was made on a fast machine has to open on
/// a Pi with half a gigabyte.
const WORK: u8 = if cfg!(test) { 2 } else { 16 };

/// More than that is no work of ours, and would take gigabytes.
const WORK_MOST: u8 = 20;

/// The plain text at most: far more than an appliance has.
const PLAIN_MOST: u64 = 16 << 20;

/// Seals a backup into a new file of mode 0600: it is there as a whole or not at all. What is there already is replaced only with
/// `force`.
///
/// # Errors
/// The passphrase is too short, there is a file, or it can't be written.
pub(crate) fn seal(plain: &[u8], passphrase: &str, file: &Path, force: bool) -> Result<(), BackupError> {
    let length = passphrase.chars().count();
    if length < PASSPHRASE_LEAST {
        return Err(BackupError::TooShort { length, least: PASSPHRASE_LEAST });
    }
    let exists = || BackupError::Exists { file: file.to_owned() };
    // Said before the work; the link below says it again, of who was faster.
    if !force && file.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(WORK);
    let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as _))
        .map_err(BackupError::part("sealing the backup"))?;
    let mut sealed = Vec::new();
    let write = |sealed: &mut Vec<u8>| -> std::io::Result<()> {
        let mut writer = encryptor.wrap_output(sealed)?;
        writer.write_all(plain)?;
        writer.finish().map(drop)
    };
    write(&mut sealed).map_err(BackupError::io("sealing", file))?;
    let unfinished = unfinished(file);
    let result = put(&unfinished, &sealed, file, force);
    // Renamed, or not wanted: either way it goes.
    let _ = fs::remove_file(&unfinished);
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && !force => Err(exists()),
        other => other.map_err(BackupError::io("writing", file)),
    }
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

fn put(unfinished: &Path, sealed: &[u8], file: &Path, force: bool) -> std::io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
    new.write_all(sealed)?;
    new.sync_all()?;
    if force {
        fs::rename(unfinished, file)?;
    } else {
        // Unlike a rename it fails where there is something already. Where a file system has no links, a look has to do.
        match fs::hard_link(unfinished, file) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && file.symlink_metadata().is_err() => {
                fs::rename(unfinished, file)?;
            }
            other => other?,
        }
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Opens a backup.
///
/// # Errors
/// The passphrase is another one, the file is damaged, or comes from a newer version.
pub(crate) fn open(file: &Path, passphrase: &str) -> Result<Contents, BackupError> {
    let damaged = |what: String| BackupError::Damaged { file: file.to_owned(), what };
    let handle = File::open(file).map_err(BackupError::io("opening", file))?;
    let decryptor = Decryptor::new_buffered(BufReader::new(handle)).map_err(|error| damaged(error.to_string()))?;
    if !decryptor.is_scrypt() {
        return Err(damaged("it is not sealed by a passphrase".to_owned()));
    }
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    identity.set_max_work_factor(WORK_MOST);
    let reader = decryptor.decrypt(std::iter::once(&identity as _)).map_err(|error| match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys => {
            BackupError::Passphrase { file: file.to_owned() }
        }
        other => damaged(other.to_string()),
    })?;
    let mut plain = Zeroizing::new(Vec::new());
    reader.take(PLAIN_MOST).read_to_end(&mut plain).map_err(|error| damaged(error.to_string()))?;
    read(file, &plain)
}

/// Reads the plain text.
fn read(file: &Path, plain: &[u8]) -> Result<Contents, BackupError> {
    /// The one field that every format has.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    // The parser's own words could repeat what it read.
    let damaged = |error: serde_json::Error| BackupError::Damaged {
        file: file.to_owned(),
        what: format!("line {}, column {} of its plain text", error.line(), error.column()),
    };
    let Format { format } = serde_json::from_slice(plain).map_err(damaged)?;
    if format > FORMAT {
        return Err(BackupError::Newer { file: file.to_owned(), format, known: FORMAT });
    }
    serde_json::from_slice(plain).map_err(damaged)
}
