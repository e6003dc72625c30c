//! The passwords of power devices: one file of mode 0600, encrypted with [age](https://age-encryption.org) to a key of this
//! appliance and, where the operator has given one, to a recovery key that lies elsewhere.
//!
//! Nothing of it stays in memory: each use decrypts the file, takes one secret, and wipes the rest.

mod error;
mod key;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::{Decryptor, Encryptor, x25519};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tiebreaker_member::ask::{LocalReply, SecretsReport, SecretsRequest};
use tiebreaker_member::replace_private;
use zeroize::{Zeroize, Zeroizing};

pub(crate) use error::SecretsError;
pub(crate) use key::{CREDENTIAL, KeyPlace, Keys, new_key};

/// The layout of the plain text. A person with the recovery key reads it with the `age` program alone, so it is JSON.
const VERSION: u32 = 1;
/// The whole file at most: far more than the passwords of 64 nodes.
const MAX_BYTES: u64 = 1 << 20;

/// Where the secrets of an appliance lie.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    root: PathBuf,
    credentials: Option<PathBuf>,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// Public keys to which the file is sealed beside the appliance's own.
    recovery: Vec<String>,
    secrets: BTreeMap<String, String>,
}

impl Content {
    const fn empty() -> Self {
        Self { version: VERSION, recovery: Vec::new(), secrets: BTreeMap::new() }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.secrets.values_mut().for_each(Zeroize::zeroize);
    }
}

impl Vault {
    /// That of a data folder, with the credentials that the service manager gave this process.
    pub(crate) fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }

    /// As [`Vault::of`], with the credentials in a folder of the test's.
    #[cfg(test)]
    pub(crate) fn with_credentials(root: &Path, credentials: Option<&Path>) -> Self {
        Self { root: root.to_owned(), credentials: credentials.map(Path::to_owned) }
    }

    /// The encrypted file.
    pub(crate) fn file(&self) -> PathBuf {
        self.root.join("secrets.age")
    }

    fn keys(&self) -> Keys {
        Keys { file: self.root.join("secrets.key"), credentials: self.credentials.clone() }
    }

    /// The secret of this name.
    ///
    /// # Errors
    /// There is none, or the file can't be read or decrypted.
    pub(crate) fn get(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
        let mut content = self.open()?;
        let secret = content.secrets.remove(name);
        secret
            .map(|text| Zeroizing::new(text.into_bytes()))
            .ok_or_else(|| SecretsError::Unknown { name: name.to_owned(), file: self.file() })
    }

    /// Keeps a secret, in the place of what had this name. Says where the key is.
    ///
    /// # Errors
    /// As [`Vault::get`], and when the file can't be written.
    pub(crate) fn put(&self, name: &str, secret: &str) -> Result<KeyPlace, SecretsError> {
        let _lock = self.lock()?;
        let mut content = self.open()?;
        if let Some(mut old) = content.secrets.insert(name.to_owned(), secret.to_owned()) {
            old.zeroize();
        }
        self.write(&content)
    }

    /// Seals the file to one more key from now on: whoever holds its private half can read the secrets without this
    /// appliance.
    ///
    /// # Errors
    /// It is no public key of age, or as [`Vault::put`].
    pub(crate) fn seal_to(&self, recipient: &str) -> Result<KeyPlace, SecretsError> {
        recipient_of(recipient)?;
        let _lock = self.lock()?;
        let mut content = self.open()?;
        if !content.recovery.iter().any(|known| known == recipient) {
            content.recovery.push(recipient.to_owned());
        }
        self.write(&content)
    }

    /// Takes over a file that is sealed to the recovery key in the file `identity`, and seals it to this appliance's key.
    ///
    /// # Errors
    /// The appliance has secrets of its own already, `identity` holds no key that opens `from`, or as [`Vault::put`].
    pub(crate) fn restore(&self, from: &Path, identity: &Path) -> Result<KeyPlace, SecretsError> {
        let _lock = self.lock()?;
        // Where its own key opens the file that is there, nothing is lost that had to be restored.
        if self.file() != from && self.file().exists() {
            return Err(SecretsError::Present { file: self.file() });
        }
        let identities = key::read_identities(identity)?;
        let content = decrypt(from, &identities)?;
        self.write(&content)
    }

    /// All of it in plain text, for a backup that is sealed by itself; `None` where there is nothing.
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub(crate) fn export(&self) -> Result<Option<serde_json::Value>, SecretsError> {
        if !self.file().exists() {
            return Ok(None);
        }
        let content = self.open()?;
        let value = serde_json::to_value(&content);
        value.map(Some).map_err(|error| SecretsError::Encrypt { file: self.file(), why: error.to_string() })
    }

    /// Takes over what [`Vault::export`] gave elsewhere, and seals it to this appliance's key and to the recovery keys that it names.
    ///
    /// # Errors
    /// There are secrets already, it is something else, or as [`Vault::put`].
    pub(crate) fn import(&self, plain: serde_json::Value) -> Result<KeyPlace, SecretsError> {
        let _lock = self.lock()?;
        if self.file().exists() {
            return Err(SecretsError::Present { file: self.file() });
        }
        // The parser's own error could repeat what it read.
        let content: Content = serde_json::from_value(plain).map_err(|error| SecretsError::Damaged {
            file: self.file(),
            line: error.line(),
            column: error.column(),
        })?;
        if content.version != VERSION {
            return Err(SecretsError::Version { file: self.file(), version: content.version, known: VERSION });
        }
        self.write(&content)
    }

    /// What can be told without a secret.
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub(crate) fn status(&self) -> Result<SecretsReport, SecretsError> {
        let mut content = self.open()?;
        let names = content.secrets.keys().cloned().collect();
        let recovery = std::mem::take(&mut content.recovery);
        let key = self.keys().place()?.map(|place| place.word().to_owned());
        Ok(SecretsReport { file: self.file().display().to_string(), key, names, recovery })
    }

    /// Held while the file is changed: the daemon and a command may want to at once.
    fn lock(&self) -> Result<File, SecretsError> {
        let path = self.root.join("secrets.lock");
        let unlocked = |source| SecretsError::Read { file: path.clone(), source };
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(unlocked)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| unlocked(error.into()))?;
        Ok(lock)
    }

    fn open(&self) -> Result<Content, SecretsError> {
        if !self.file().exists() {
            return Ok(Content::empty());
        }
        decrypt(&self.file(), &self.keys().identities(&self.file())?)
    }

    fn write(&self, content: &Content) -> Result<KeyPlace, SecretsError> {
        let (own, place) = self.keys().recipient()?;
        let recovery = content.recovery.iter().map(|text| recipient_of(text)).collect::<Result<Vec<_>, _>>()?;
        let recipients = std::iter::once(&own).chain(&recovery).map(|key| key as &dyn age::Recipient);
        let unwritten = |why: String| SecretsError::Encrypt { file: self.file(), why };
        let encryptor = Encryptor::with_recipients(recipients).map_err(|error| unwritten(error.to_string()))?;
        let mut plain = Zeroizing::new(Vec::new());
        serde_json::to_writer(&mut *plain, content).map_err(|error| unwritten(error.to_string()))?;
        let mut sealed = Vec::new();
        let write = |sealed: &mut Vec<u8>| -> std::io::Result<()> {
            let mut writer = encryptor.wrap_output(sealed)?;
            writer.write_all(&plain)?;
            writer.finish().map(drop)
        };
        write(&mut sealed).map_err(|error| unwritten(error.to_string()))?;
        replace_private(&self.file(), &sealed)?;
        Ok(place)
    }
}

/// Answers what is asked about the secrets of the appliance with this data folder.
///
/// # Errors
/// They can't be opened, or it is no key to which they could be sealed.
pub(crate) fn answer(root: &Path, request: &SecretsRequest) -> Result<LocalReply, SecretsError> {
    let vault = Vault::of(root);
    match request {
        SecretsRequest::Status => {}
        SecretsRequest::SealTo { recipient } => vault.seal_to(recipient).map(drop)?,
    }
    Ok(LocalReply::Secrets(vault.status()?))
}

fn recipient_of(text: &str) -> Result<x25519::Recipient, SecretsError> {
    x25519::Recipient::from_str(text).map_err(|_| SecretsError::NoRecipient { text: text.to_owned() })
}

fn decrypt(file: &Path, identities: &[x25519::Identity]) -> Result<Content, SecretsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let unread = |source| SecretsError::Read { file: file.to_owned(), source };
    let handle = File::open(file).map_err(unread)?;
    let mode = handle.metadata().map_err(unread)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SecretsError::TooOpen { file: file.to_owned(), mode: mode & 0o777 });
    }
    let sealed = |source| SecretsError::Decrypt { file: file.to_owned(), source };
    let decryptor = Decryptor::new_buffered(std::io::BufReader::new(handle)).map_err(sealed)?;
    let reader = decryptor.decrypt(identities.iter().map(|key| key as &dyn age::Identity)).map_err(sealed)?;
    let mut plain = Zeroizing::new(Vec::new());
    reader.take(MAX_BYTES).read_to_end(&mut plain).map_err(unread)?;
    // The parser's own error could repeat what it read.
    let content: Content = serde_json::from_slice(&plain).map_err(|error| SecretsError::Damaged {
        file: file.to_owned(),
        line: error.line(),
        column: error.column(),
    })?;
    if content.version != VERSION {
        return Err(SecretsError::Version { file: file.to_owned(), version: content.version, known: VERSION });
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
