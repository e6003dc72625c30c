//! Small files that must be whole after a power cut and, if they hold a key, readable by nobody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Nothing that is read here is larger; a bigger file is the wrong file.
const MAX_FILE: u64 = 1 << 20;

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{path} does not exist: {hint}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes it.
        hint: &'static str,
    },
    /// Others than its owner may read or write it.
    #[error(
        "{path} holds a private key but has mode {mode:04o}: run 'chmod 600 {path}', and make new keys if others could read it"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its bytes are no text.
    #[error("{path} is not UTF-8 text: it is damaged or another file")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than anything of ours.
    #[error("{path} is larger than 1 MiB: it is not the file that belongs here")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("can't {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

/// Reads a text file that only its owner may access.
///
/// # Errors
/// When there is none (`hint` says what makes it), others could read it, it is no text, or the system refuses.
pub fn read_private(path: &Path, hint: &'static str) -> Result<Zeroizing<String>, FileError> {
    read_guarded(path, hint, None)
}

/// As [`read_private`], but the members of one group may read it too: a daemon that isn't root is one of them.
///
/// # Errors
/// When it isn't there, is open to others, or can't be read.
pub fn read_guarded(path: &Path, hint: &'static str, group: Option<u32>) -> Result<Zeroizing<String>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FileError::Missing { path: path.to_owned(), hint });
        }
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let meta = file.metadata().map_err(io_error("examine", path))?;
    let mode = meta.mode() & 0o7777;
    let allowed = if group == Some(meta.gid()) { 0o640 } else { 0o600 };
    if mode & 0o077 & !allowed != 0 {
        return Err(FileError::TooOpen { path: path.to_owned(), mode });
    }
    if meta.len() > MAX_FILE {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0)));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(FileError::NotUtf8 { path: path.to_owned() }),
    }
}

/// Replaces a file with mode 0600: after a power cut there is the old one or the new one, whole.
///
/// # Errors
/// When the system refuses.
pub fn replace_private(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    make_dir(dir)?;
    let tmp = path.with_extension("tmp");
    // A leftover of an interrupted write may have been made with other permissions.
    match fs::remove_file(&tmp) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("remove the leftover", &tmp)(error)),
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tmp).map_err(io_error("create", &tmp))?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // The write's error is the one to report; a leftover is removed by the next try anyway.
        let _ = fs::remove_file(&tmp);
        return Err(io_error("write", &tmp)(error));
    }
    fs::rename(&tmp, path).map_err(io_error("put in place", path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync the directory", dir))
}

fn make_dir(dir: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create the directory", dir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("x.pem");
        replace_private(&path, b"one").unwrap();
        replace_private(&path, b"two").unwrap();
        assert_eq!(read_private(&path, "").unwrap().as_str(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        assert!(matches!(read_private(&path, "make it"), Err(FileError::Missing { .. })));
        replace_private(&path, &[0xff, 0xfe]).unwrap();
        assert!(matches!(read_private(&path, ""), Err(FileError::NotUtf8 { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path, "").unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
