//! The key that opens the secrets: a credential of the service manager where there is one, else a file beside them.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use age::x25519::{Identity, Recipient};
use tiebreaker_member::{read_private, replace_private};
use zeroize::Zeroizing;

use super::SecretsError;

/// The name of the credential that holds the key.
pub(crate) const CREDENTIAL: &str = "tiebreaker-secrets-key";

/// Where the key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyPlace {
    /// The service manager gives it, from where it may be bound to the machine's TPM.
    Credential,
    /// A file of mode 0600 beside the secrets: whoever copies both can read them.
    File,
}

impl KeyPlace {
    /// In one word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::File => "file",
        }
    }
}

/// The places in which a key may be.
pub(crate) struct Keys {
    /// The file beside the secrets.
    pub(super) file: PathBuf,
    /// The folder of the service manager's credentials.
    pub(super) credentials: Option<PathBuf>,
}

impl Keys {
    fn credential(&self) -> Option<PathBuf> {
        self.credentials.as_ref().map(|folder| folder.join(CREDENTIAL)).filter(|path| path.exists())
    }

    /// Where the key is now, if there is one.
    pub(super) fn place(&self) -> Result<Option<KeyPlace>, SecretsError> {
        Ok(match self.credential() {
            Some(_) => Some(KeyPlace::Credential),
            None => self.file.exists().then_some(KeyPlace::File),
        })
    }

    /// Every key that may open the file `secrets`. Where the operator has just moved from the file to a credential, the
    /// former still opens what was sealed to it.
    pub(super) fn identities(&self, secrets: &Path) -> Result<Vec<Identity>, SecretsError> {
        let mut found = Vec::new();
        if let Some(path) = self.credential() {
            found.extend(read_identities(&path)?);
        }
        if self.file.exists() {
            found.extend(read_identities(&self.file)?);
        }
        if found.is_empty() {
            return Err(SecretsError::NoKey { secrets: secrets.to_owned(), file: self.file.clone() });
        }
        Ok(found)
    }

    /// To whom the file is sealed: the credential's key, else that of the key file, which is made where there is none.
    pub(super) fn recipient(&self) -> Result<(Recipient, KeyPlace), SecretsError> {
        if let Some(path) = self.credential() {
            return Ok((first_of(&path)?, KeyPlace::Credential));
        }
        if !self.file.exists() {
            replace_private(&self.file, new_key().as_bytes())?;
        }
        Ok((first_of(&self.file)?, KeyPlace::File))
    }
}

/// A new key, as the program `age-keygen` writes it.
pub(crate) fn new_key() -> Zeroizing<String> {
    let identity = Identity::generate();
    let public = identity.to_public();
    Zeroizing::new(format!("# public key: {public}\n{}\n", identity.to_string().expose_secret()))
}

fn first_of(path: &Path) -> Result<Recipient, SecretsError> {
    let found = read_identities(path)?;
    found.first().map(Identity::to_public).ok_or_else(|| SecretsError::BadKey { file: path.to_owned() })
}

/// The keys in a file of `age-keygen`.
pub(super) fn read_identities(path: &Path) -> Result<Vec<Identity>, SecretsError> {
    let text = read_private(path, "it holds a private key of age")?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bad = |_| SecretsError::BadKey { file: path.to_owned() };
    let found = lines.map(|line| Identity::from_str(line).map_err(bad)).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(SecretsError::BadKey { file: path.to_owned() }) } else { Ok(found) }
}
