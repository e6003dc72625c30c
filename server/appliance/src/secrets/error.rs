//! Why a secret can't be had. Never holds one.

use std::io;
use std::path::PathBuf;

use super::CREDENTIAL;

/// Why a secret can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// No secret has this name.
    #[error("{file} holds no secret for {name}: `tiebreaker-server device password` sets it")]
    Unknown {
        /// The device.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// There are secrets and no key.
    #[error(
        "{secrets} can't be opened: there is neither a credential {CREDENTIAL} of the service manager nor {file}; the \
         daemon has the credential, a shell has not; if the key is lost, `tiebreaker-server secrets restore` takes the \
         recovery key"
    )]
    NoKey {
        /// The encrypted file.
        secrets: PathBuf,
        /// Where a key file would be.
        file: PathBuf,
    },
    /// A file that should hold a private key of age holds something else.
    #[error("{file} holds no private key of age (AGE-SECRET-KEY-1…)")]
    BadKey {
        /// The file.
        file: PathBuf,
    },
    /// A text that should be a public key.
    #[error("{text:?} is no public key of age (age1…): `age-keygen` makes a pair, and prints the public half")]
    NoRecipient {
        /// What was given.
        text: String,
    },
    /// A file that only its owner may read can be read by others.
    #[error("others may read {file} (mode {mode:o}): run `chmod 600` on it")]
    TooOpen {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system refused.
    #[error("reading {file}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It isn't sealed to any key that is here, or damaged.
    #[error("{file} can't be decrypted with the keys that are here")]
    Decrypt {
        /// The file.
        file: PathBuf,
        /// What age says.
        #[source]
        source: age::DecryptError,
    },
    /// It can't be sealed.
    #[error("{file} can't be encrypted: {why}")]
    Encrypt {
        /// The file.
        file: PathBuf,
        /// What age says.
        why: String,
    },
    /// What it holds isn't ours.
    #[error("what {file} holds in the clear is damaged at line {line}, column {column}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// Of another version.
    #[error("{file} is of version {version}, and this program knows {known}: use a newer one")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
        /// Ours.
        known: u32,
    },
    /// Restoring would throw secrets away.
    #[error("{file} exists: move it away if it shall be replaced by the restored one")]
    Present {
        /// The file.
        file: PathBuf,
    },
    /// A private file of ours.
    #[error(transparent)]
    File(#[from] tiebreaker_member::FileError),
}
