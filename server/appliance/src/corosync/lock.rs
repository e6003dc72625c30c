//! The file that keeps a second daemon of either kind from starting: locked as the original locks it, with the process's
//! number in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

/// The lock. Its file goes with it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// Another holds it, or the system refuses.
    pub fn take(path: &Path) -> Result<Self, String> {
        let refused = |error: io::Error| format!("Can't acquire lock {}: {error}", path.display());
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o770).create(folder).map_err(refused)?;
        }
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o640).open(path).map_err(refused)?;
        if let Err(error) = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(match io::Error::from(error).kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied => {
                    format!("Another instance is running: it holds {}", path.display())
                }
                _ => refused(error.into()),
            });
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(refused)?;
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before it is unlocked. What is left behind is locked by nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}
