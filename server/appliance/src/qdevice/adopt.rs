//! Taking over the authority of a corosync-qnetd that was here before, so that no node notices the change: out of its NSS
//! database, or out of a PKCS#12 file that was made from it.
//!
//! The database is read with NSS's own `pk12util`, from a copy, and what that exports with `openssl`: NSS writes BER, with
//! ciphers of three decades, for which there is no strict decoder. The old server's certificate
//! and key stay behind, because a new one of the same authority is as good for the nodes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::pki::Pki;

/// The name under which corosync-qnetd-certutil keeps the authority.
const NICKNAME: &str = "QNet CA";

/// An export of one key has a few kilobytes.
const MAX_ARCHIVE: u64 = 1 << 20;

/// A memory file system, so that the key never gets onto a disk in between.
const IN_MEMORY: &str = "/dev/shm";

/// Why an authority can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// A file can't be read or written.
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
    /// The folder is of something else.
    #[error(
        "{path} holds no NSS database: there is neither cert9.db with key4.db nor cert8.db with key3.db in it; corosync-qnetd keeps its own in /etc/corosync/qnetd/nssdb"
    )]
    NoDatabase {
        /// The folder.
        path: PathBuf,
    },
    /// NSS's tool is missing.
    #[error(
        "reading an NSS database needs pk12util: install the package libnss3-tools (Debian), nss-tools (Fedora) or mozilla-nss-tools (SUSE) here; or export it elsewhere with `pk12util -o qnetd-ca.p12 -n 'QNet CA' -d {path}` and adopt that file"
    )]
    NoTool {
        /// The folder of the database.
        path: PathBuf,
    },
    /// NSS's tool failed.
    #[error("pk12util can't export 'QNet CA' from {path}: {said}")]
    Export {
        /// The folder of the database.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// The file is larger than any export.
    #[error("{path} is larger than 1 MiB: it is no PKCS#12 export of a key")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The tool that decodes exports is missing.
    #[error("reading PKCS#12 needs the program openssl: install the package openssl here")]
    NoOpenssl,
    /// The file can't be decoded.
    #[error("{path} can't be read as PKCS#12: is the password right? {said}")]
    Archive {
        /// The file.
        path: PathBuf,
        /// What openssl said.
        said: String,
    },
    /// There is no authority in it.
    #[error("{path} holds no authority: there must be the key and the certificate of 'QNet CA' in it")]
    NoAuthority {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The system gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Reads an authority: from the folder of an NSS database, whose own password lies beside it as `pwdfile.txt`; or from a
/// PKCS#12 file with a password.
///
/// # Errors
/// Says what is missing, and the way out.
pub fn read(source: &Path, password: &str) -> Result<Pki, AdoptError> {
    let meta = fs::metadata(source).map_err(failed("examine", source))?;
    if meta.is_dir() {
        return from_database(source);
    }
    if meta.len() > MAX_ARCHIVE {
        return Err(AdoptError::TooLarge { path: source.to_owned() });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(source).map_err(failed("open", source))?;
    file.take(MAX_ARCHIVE).read_to_end(&mut bytes).map_err(failed("read", source))?;
    from_archive(source, &bytes, password)
}

fn from_archive(path: &Path, bytes: &[u8], password: &str) -> Result<Pki, AdoptError> {
    let openssl = program("openssl").ok_or(AdoptError::NoOpenssl)?;
    let work = Workplace::new()?;
    work.write("in.p12", bytes)?;
    // An empty line is no password.
    let line = Zeroizing::new(format!("{password}\n"));
    work.write("password", line.as_bytes())?;
    let output = Command::new(openssl)
        .args(["pkcs12", "-nodes", "-in"])
        .arg(work.path.join("in.p12"))
        .arg("-passin")
        .arg(format!("file:{}", work.path.join("password").display()))
        .stdin(Stdio::null())
        .output()
        .map_err(failed("run openssl on", path))?;
    let text = Zeroizing::new(output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().trim().to_owned();
        return Err(AdoptError::Archive { path: path.to_owned(), said });
    }
    let keys: Vec<PrivatePkcs8KeyDer<'static>> = PrivatePkcs8KeyDer::pem_slice_iter(&text).flatten().collect();
    // Exports bring chains along: the authority is the one pair that fits.
    let mut found = CertificateDer::pem_slice_iter(&text).flatten().filter_map(|certificate| {
        let made = keys.iter().map(|key| Pki::adopt(key.secret_pkcs8_der(), &certificate));
        made.filter_map(Result::ok).next()
    });
    found.next().ok_or_else(|| AdoptError::NoAuthority { path: path.to_owned() })
}

fn from_database(folder: &Path) -> Result<Pki, AdoptError> {
    let there = |name: &&str| folder.join(name).is_file();
    let (kind, files): (_, &[&str]) = if ["cert9.db", "key4.db"].iter().all(there) {
        ("sql", &["cert9.db", "key4.db", "pkcs11.txt"])
    } else if ["cert8.db", "key3.db"].iter().all(there) {
        ("dbm", &["cert8.db", "key3.db", "secmod.db"])
    } else {
        return Err(AdoptError::NoDatabase { path: folder.to_owned() });
    };
    let tool = program("pk12util").ok_or_else(|| AdoptError::NoTool { path: folder.to_owned() })?;
    let work = Workplace::new()?;
    for name in files.iter().filter(|name| there(name)) {
        let (from, to) = (folder.join(name), work.path.join(name));
        fs::copy(&from, &to).map_err(failed("copy", &from))?;
    }
    // corosync-qnetd-certutil sets no password, and an empty file is none for every version of NSS: a line is.
    let own = folder.join("pwdfile.txt");
    let mut password = Zeroizing::new(fs::read(&own).unwrap_or_else(|_| Vec::new()));
    if password.is_empty() {
        password.push(b'\n');
    }
    work.write("slot", &password)?;
    let mut random = Zeroizing::new([0; 24]);
    getrandom::fill(&mut *random).map_err(AdoptError::Random)?;
    let transport = Zeroizing::new(random.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    work.write("transport", transport.as_bytes())?;
    let out = work.path.join("out.p12");
    let output = Command::new(tool)
        .arg("-o")
        .arg(&out)
        .args(["-n", NICKNAME, "-d", &format!("{kind}:{}", work.path.display())])
        .arg("-k")
        .arg(work.path.join("slot"))
        .arg("-w")
        .arg(work.path.join("transport"))
        .stdin(Stdio::null())
        .output()
        .map_err(failed("run pk12util on", folder))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(AdoptError::Export { path: folder.to_owned(), said });
    }
    let bytes = Zeroizing::new(fs::read(&out).map_err(failed("read", &out))?);
    from_archive(folder, &bytes, &transport)
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]);
    folders.map(|folder| folder.join(name)).find(|tool| tool.is_file())
}

/// A folder that nobody else sees into; it goes with its value.
struct Workplace {
    path: PathBuf,
}

impl Workplace {
    fn new() -> Result<Self, AdoptError> {
        let memory = Path::new(IN_MEMORY);
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = getrandom::u64().map_err(AdoptError::Random)?;
        let path = parent.join(format!("tiebreaker-adopt-{number:016x}"));
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("create", &path))?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AdoptError> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(failed("write", &path))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("tiebreaker-server: {} holds a copy of a key and can't be removed: {error}", self.path.display());
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AdoptError {
    let path = path.to_owned();
    move |source| AdoptError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An authority of corosync-qnetd-certutil in the form that pk12util gives it, AES-256 and PBKDF2, but with fewer
    /// rounds. Made for this test alone.
    const EXPORT: &[u8] = include_bytes!("tests/qnetd-ca.p12");

    #[test]
    fn an_export_of_pk12util_becomes_an_authority_that_signs() {
        let pki = from_archive(Path::new("x"), EXPORT, "moved").unwrap();
        let request = include_bytes!("tests/home.csr");
        let signed = pki.sign(request, "home").unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&block.contents).unwrap();
        let (_, authority) = x509_parser::parse_x509_certificate(pki.certificate()).unwrap();
        assert_eq!(leaf.issuer().as_raw(), authority.subject().as_raw(), "names are compared byte by byte");
        // Its file is read back as it was.
        let again = Pki::from_pem(Path::new("x"), &pki.to_pem()).unwrap();
        assert_eq!((again.certificate(), again.certificate_pem()), (pki.certificate(), pki.certificate_pem()));
    }

    #[test]
    fn what_is_no_authority_is_refused_and_named() {
        let wrong = from_archive(Path::new("x.p12"), EXPORT, "guessed").unwrap_err();
        assert!(matches!(wrong, AdoptError::Archive { .. }) && wrong.to_string().contains("password"), "{wrong}");
        let junk = from_archive(Path::new("x.p12"), b"hello", "").unwrap_err();
        assert!(junk.to_string().contains("x.p12"), "{junk}");
        let empty = tempfile::tempdir().unwrap();
        let none = read(empty.path(), "").unwrap_err();
        assert!(none.to_string().contains("cert9.db"), "{none}");
        assert!(matches!(read(&empty.path().join("gone"), ""), Err(AdoptError::Io { .. })));
    }
}
