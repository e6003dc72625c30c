//! Where an authority lies: key and certificate in one file, and in the folder that Corosync's own commands work in also
//! what those look for.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tiebreaker_member::{FileError, read_guarded, replace_private};

use super::pki::{Pki, PkiError};

/// The key and the certificate.
const AUTHORITY: &str = "qdevice-ca.pem";

/// The certificate where `pvecm`, `pcs` and `crm` fetch it.
const EXPORTED: &str = "qnetd-cacert.crt";

/// `pcs` and `crm` take the folder as set up if one of NSS's files is there. This one is a text that NSS reads modules'
/// names from; ours names none, and says where the certificates are.
const MARKER: &str = "pkcs11.txt";

const MARKER_TEXT: &str =
    "# There is no NSS database here: tiebreaker-server keeps the QDevice authority in qdevice-ca.pem.\n";

/// NSS's databases, the present kind and the old one.
const NSS: [&str; 2] = ["cert9.db", "cert8.db"];

/// The folder of an authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folder {
    path: PathBuf,
    of_corosync: bool,
}

impl Folder {
    /// An appliance's data folder.
    #[must_use]
    pub fn of_appliance(data: &Path) -> Self {
        Self { path: data.to_owned(), of_corosync: false }
    }

    /// A folder in which Corosync's commands look for files, `/etc/corosync/qnetd/nssdb` mostly.
    #[must_use]
    pub fn of_corosync(path: &Path) -> Self {
        Self { path: path.to_owned(), of_corosync: true }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The authority's file.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path.join(AUTHORITY)
    }

    /// The authority's certificate for the nodes.
    #[must_use]
    pub fn exported(&self) -> PathBuf {
        self.path.join(EXPORTED)
    }

    /// Whether an authority is there.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.authority().exists()
    }

    /// Whether corosync-qnetd's own database is there.
    #[must_use]
    pub fn has_nss(&self) -> bool {
        NSS.iter().any(|name| self.path.join(name).exists())
    }

    /// Loads the authority.
    ///
    /// # Errors
    /// When there is none, or its file can't be read or is damaged.
    pub fn open(&self) -> Result<Pki, PkiError> {
        let path = self.authority();
        let group = fs::metadata(&self.path).ok().filter(|_| self.of_corosync).map(|meta| meta.gid());
        match read_guarded(&path, "it is made when it is first needed", group) {
            Ok(text) => Pki::from_pem(&path, &text),
            Err(FileError::Missing { .. }) if self.of_corosync && self.has_nss() => {
                Err(PkiError::Nss { folder: self.path.clone() })
            }
            Err(FileError::Missing { .. }) => Err(PkiError::Missing { folder: self.path.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads the authority, or makes it. In a folder of Corosync's, what its commands look for is there afterwards.
    ///
    /// # Errors
    /// When a file can't be read or written, or is damaged.
    pub fn open_or_make(&self) -> Result<Pki, PkiError> {
        match self.open() {
            Ok(pki) => {
                if self.of_corosync && !(self.exported().exists() && self.path.join(MARKER).exists()) {
                    self.export(&pki)?;
                }
                Ok(pki)
            }
            Err(PkiError::Missing { .. }) => {
                let pki = Pki::create()?;
                self.make_path(0o750)?;
                self.put(&pki)?;
                Ok(pki)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the folder with the rights of the one that it lies in, if it isn't there. Tells whether it was made.
    ///
    /// # Errors
    /// When it can't be.
    pub fn make_path(&self, mode: u32) -> Result<bool, PkiError> {
        if self.path.is_dir() {
            return Ok(false);
        }
        DirBuilder::new().recursive(true).mode(mode).create(&self.path).map_err(failed("create", &self.path))?;
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).map_err(failed("set the mode of", &self.path))?;
        if let Some(parent) = self.path.parent() {
            give(&self.path, parent)?;
        }
        Ok(true)
    }

    /// Stores an authority that is not there yet.
    ///
    /// # Errors
    /// When there is another, or it can't be written.
    pub fn put(&self, pki: &Pki) -> Result<(), PkiError> {
        if self.has_authority() {
            return Err(PkiError::Exists { folder: self.path.clone() });
        }
        // The authority comes last: where it is, the rest is whole.
        if self.of_corosync {
            self.export(pki)?;
        }
        let path = self.authority();
        replace_private(&path, pki.to_pem().as_bytes())?;
        if self.of_corosync {
            give(&path, &self.path)?;
            // A daemon that isn't root is of the folder's group. For root's own group there is nothing to open.
            let group = fs::metadata(&path).map_err(failed("examine", &path))?.gid();
            if group != 0 {
                fs::set_permissions(&path, Permissions::from_mode(0o640)).map_err(failed("set the mode of", &path))?;
            }
        }
        Ok(())
    }

    /// Sets an authority aside, so that another can take its place. Tells where it is now.
    ///
    /// # Errors
    /// When it can't be renamed.
    pub fn set_aside(&self) -> Result<PathBuf, PkiError> {
        let path = self.authority();
        let free = |number: &u32| !path.with_extension(format!("pem.before-{number}")).exists();
        let number = (1..=u32::MAX).find(free).unwrap_or(u32::MAX);
        let aside = path.with_extension(format!("pem.before-{number}"));
        fs::rename(&path, &aside).map_err(failed("set aside", &path))?;
        Ok(aside)
    }

    /// Writes a file that anybody may read, whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn publish(&self, name: &str, text: &str) -> Result<PathBuf, PkiError> {
        let path = self.path.join(name);
        replace_private(&path, text.as_bytes())?;
        fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(failed("set the mode of", &path))?;
        give(&path, &self.path)?;
        Ok(path)
    }

    /// What Corosync's commands look for.
    fn export(&self, pki: &Pki) -> Result<(), PkiError> {
        self.publish(EXPORTED, pki.certificate_pem())?;
        // Beside a real database its own list of modules stays.
        if !self.path.join(MARKER).exists() {
            self.publish(MARKER, MARKER_TEXT)?;
        }
        Ok(())
    }
}

/// Gives a file to the owner and group of another. Only root can, and only root has to.
fn give(path: &Path, like: &Path) -> Result<(), PkiError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let meta = fs::metadata(like).map_err(failed("examine", like))?;
    chown(path, Some(meta.uid()), Some(meta.gid())).map_err(failed("give away", path))?;
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File(FileError::Io { action, path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corosyncs_folder_gets_what_its_commands_look_for_and_an_appliances_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of_corosync(&dir.path().join("nssdb"));
        assert!(matches!(folder.open(), Err(PkiError::Missing { .. })));
        let made = folder.open_or_make().unwrap();
        assert_eq!(fs::read_to_string(folder.exported()).unwrap(), made.certificate_pem());
        assert!(!made.certificate_pem().contains("PRIVATE"));
        assert_eq!(fs::metadata(folder.exported()).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(folder.authority()).unwrap().mode() & 0o037, 0);
        fs::remove_file(folder.exported()).unwrap();
        assert_eq!(folder.open_or_make().unwrap().certificate(), made.certificate());
        assert!(folder.exported().exists() && folder.path().join("pkcs11.txt").exists());
        assert!(matches!(folder.put(&Pki::create().unwrap()), Err(PkiError::Exists { .. })));

        let data = Folder::of_appliance(&dir.path().join("data"));
        data.open_or_make().unwrap();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_database_of_nss_is_never_taken_for_an_empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cert9.db"), "SQLite").unwrap();
        let folder = Folder::of_corosync(dir.path());
        let error = folder.open_or_make().unwrap_err();
        assert!(matches!(error, PkiError::Nss { .. }) && error.to_string().contains("qdevice adopt"), "{error}");
        assert!(!folder.has_authority());
    }

    #[test]
    fn an_authority_that_others_could_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of_corosync(dir.path());
        folder.open_or_make().unwrap();
        for (mode, good) in [(0o640, true), (0o600, true), (0o660, false), (0o644, false)] {
            fs::set_permissions(folder.authority(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(folder.open().is_ok(), good, "{mode:o}");
        }
        let aside = folder.set_aside().unwrap();
        assert!(!folder.has_authority() && aside.exists());
    }
}
