//! The key by which nodes know this machine again: made once, and kept with the appliance's state.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{self, LineEnding};
use thiserror::Error;

/// Its file in the data folder.
const FILE: &str = "pairing-host-key";

/// Why there is no key.
#[derive(Debug, Error)]
pub enum HostKeyError {
    /// The file can't be read or written.
    #[error("can't {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others could have read it.
    #[error("{} can be read by others: remove it, and a new one is made, which nodes will ask about", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file is no key.
    #[error("{} is damaged: remove it, and a new one is made, which nodes will ask about", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ssh_key::Error,
    },
    /// There are no random bytes.
    #[error("can't make a host key: no random bytes")]
    Random(#[source] getrandom::Error),
    /// The key can't be put into words.
    #[error("can't make a host key")]
    Make(#[source] ssh_key::Error),
}

/// Loads the key of a data folder, or makes it.
///
/// # Errors
/// It can't be read or written, or is damaged: a new one in its place would alarm nodes, so none is made.
pub fn load_or_make(data: &Path) -> Result<PrivateKey, HostKeyError> {
    let path = data.join(FILE);
    let failed = |action| {
        let path = path.clone();
        move |source| HostKeyError::File { action, path, source }
    };
    match fs::metadata(&path) {
        Ok(about) if about.permissions().mode() & 0o077 != 0 => Err(HostKeyError::Open { path }),
        Ok(_) => {
            let text = fs::read_to_string(&path).map_err(failed("read"))?;
            PrivateKey::from_openssh(text).map_err(|source| HostKeyError::Damaged { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(HostKeyError::Random)?;
            let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
            let key = PrivateKey::new(pair, "tiebreaker").map_err(HostKeyError::Make)?;
            let text = key.to_openssh(LineEnding::LF).map_err(HostKeyError::Make)?;
            put(data, &path, text.as_bytes()).map_err(failed("write"))?;
            Ok(key)
        }
        Err(source) => Err(failed("examine")(source)),
    }
}

/// Whole or not at all, and on the card when it is used.
fn put(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let made = load_or_make(folder.path()).unwrap();
        assert_eq!(load_or_make(folder.path()).unwrap(), made);
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_make(folder.path()), Err(HostKeyError::Open { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(matches!(load_or_make(folder.path()), Err(HostKeyError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "no key", "it is left for a person to look at");
    }
}
