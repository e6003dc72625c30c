//! The file of an update.
//!
//! ```text
//! tiebreaker-update 1 MANIFEST-BYTES SIGNATURE-BYTES
//! version 0.2.0
//! build 0123456789abcdef
//! bytes 21000192
//! sha256 (64 digits)
//! (the manifest's signature, as minisign writes it)
//! (the slot's content)
//! ```
//!
//! The signature is over the manifest, which names length and digest of everything else: so a person signs five lines, with
//! a stock program, on a machine that never sees the rest.

use std::fmt;
use std::io::{self, Read};

use minisign_verify::{PublicKey, Signature};
use sha2::{Digest as _, Sha256};

/// The format that this program knows.
const FORMAT: &str = "1";
const MAGIC: &str = "tiebreaker-update ";
/// The first line, at most.
const LONGEST_LINE: usize = 64;
const LONGEST_MANIFEST: usize = 2048;
const LONGEST_SIGNATURE: usize = 2048;
/// A slot's content, at most: more than any slot has room for.
pub const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// What is written at once is a multiple of it.
const SECTOR: u64 = 512;
/// What is read at once.
pub const PIECE: usize = 1024 * 1024;

/// Why a file is no update for this machine.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It can't be read.
    #[error("the update can't be read")]
    Read(#[source] io::Error),
    /// It is something else.
    #[error("this is no update of Tiebreaker's image: give the file tiebreaker.update that comes with the image")]
    Other,
    /// It is of a later format.
    #[error(
        "the update is of format {0}, and this version knows format {FORMAT}: update to a version in between first"
    )]
    Newer(String),
    /// Its manifest is wrong.
    #[error("the update's manifest is wrong: {0}. Fetch the file again")]
    Manifest(String),
    /// Nobody signed it.
    #[error("the update isn't signed: sign it with cross/sign-update, or fetch the one that was published")]
    Unsigned,
    /// The signature doesn't fit.
    #[error(
        "the update's signature is wrong ({0}): it was signed with another key, or changed since. Fetch it again, and \
             compare the public key with its maker's"
    )]
    Signature(String),
    /// The key makes no sense.
    #[error("{0:?} is no public key of minisign: give the line that begins with RW")]
    Key(String),
    /// It ends too early.
    #[error("the update is cut off: {there} of {bytes} bytes are there. Copy it again")]
    CutOff {
        /// What is there.
        there: u64,
        /// What should be.
        bytes: u64,
    },
    /// It goes on too long.
    #[error("the update goes on behind its {0} bytes: something was appended. Copy it again")]
    TooLong(u64),
    /// Its content isn't what was signed.
    #[error("the update's content isn't what was signed. Copy it again")]
    Content,
}

/// A version of the product.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version([u32; 3]);

impl Version {
    /// Reads three numbers with points between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| {
            let digits = !number.is_empty() && number.len() <= 9 && number.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| number.parse().ok()).flatten()
        });
        let version = [numbers.next()??, numbers.next()??, numbers.next()??];
        numbers.next().is_none().then_some(Self(version))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// What an update says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The product's version.
    pub version: Version,
    /// Which build: one and the same for one and the same content.
    pub build: String,
    /// The length of the slot's content.
    pub bytes: u64,
    /// Its digest, in hexadecimal digits.
    pub sha256: String,
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Manifest {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut version, mut build, mut bytes, mut sha256) = (None, None, None, None);
        for line in text.lines() {
            let (key, value) = line.split_once(' ').ok_or_else(|| format!("{line:?} has no value"))?;
            let twice = match key {
                "version" => {
                    let parsed = Version::parse(value).ok_or_else(|| format!("{value:?} is no version"))?;
                    version.replace(parsed).is_some()
                }
                "build" if is_hex(value, 16) => build.replace(value.to_owned()).is_some(),
                "bytes" => {
                    let parsed = value
                        .parse::<u64>()
                        .ok()
                        .filter(|bytes| (SECTOR..=MOST_BYTES).contains(bytes) && bytes.is_multiple_of(SECTOR));
                    bytes
                        .replace(parsed.ok_or_else(|| format!("{value:?} is no length of a slot's content"))?)
                        .is_some()
                }
                "sha256" if is_hex(value, 64) => sha256.replace(value.to_owned()).is_some(),
                "build" | "sha256" => return Err(format!("{key} {value:?} is no number in hexadecimal digits")),
                _ => return Err(format!("it has the unknown key {key:?}")),
            };
            if twice {
                return Err(format!("{key} is there twice"));
            }
        }
        let lacks = |key| format!("it has no {key}");
        Ok(Self {
            version: version.ok_or_else(|| lacks("version"))?,
            build: build.ok_or_else(|| lacks("build"))?,
            bytes: bytes.ok_or_else(|| lacks("bytes"))?,
            sha256: sha256.ok_or_else(|| lacks("sha256"))?,
        })
    }
}

/// What an image knows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Build {
    /// The product's version.
    pub version: Version,
    /// Which build.
    pub build: String,
}

impl Build {
    /// Reads the lines `version` and `build`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let build = value("build").filter(|build| is_hex(build, 16))?;
        Some(Self { version: Version::parse(value("version")?)?, build: build.to_owned() })
    }
}

/// The beginning of an update, which nobody has checked yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    signed: Vec<u8>,
    signature: Vec<u8>,
    bytes: u64,
}

impl Head {
    /// Reads it, and leaves the reader at the content.
    ///
    /// # Errors
    /// It isn't one.
    pub fn read(reader: &mut impl Read) -> Result<Self, UpdateError> {
        let line = first_line(reader)?;
        let rest = line.strip_prefix(MAGIC).ok_or(UpdateError::Other)?;
        let mut words = rest.split(' ');
        let format = words.next().unwrap_or_default();
        if format != FORMAT {
            let number = !format.is_empty() && format.bytes().all(|byte| byte.is_ascii_digit());
            return Err(if number { UpdateError::Newer(format.to_owned()) } else { UpdateError::Other });
        }
        let mut length = |most: usize| {
            let parsed: Option<usize> = words.next().and_then(|word| word.parse().ok());
            parsed.filter(|length| *length <= most).ok_or(UpdateError::Other)
        };
        let (manifest, signature) = (length(LONGEST_MANIFEST)?, length(LONGEST_SIGNATURE)?);
        if words.next().is_some() {
            return Err(UpdateError::Other);
        }
        let bytes = (line.len() + 1 + manifest + signature) as u64;
        let mut part = |length: usize| {
            let mut part = vec![0; length];
            match reader.read_exact(&mut part) {
                Ok(()) => Ok(part),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(UpdateError::CutOff { there: 0, bytes })
                }
                Err(error) => Err(UpdateError::Read(error)),
            }
        };
        Ok(Self { signed: part(manifest)?, signature: part(signature)?, bytes })
    }

    /// Its length: where the content begins.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the update says of itself, if the owner of the key says so.
    ///
    /// # Errors
    /// Nobody or somebody else signed it, or the manifest is wrong.
    pub fn verified(&self, key: &Key) -> Result<Manifest, UpdateError> {
        if self.signature.is_empty() {
            return Err(UpdateError::Unsigned);
        }
        let wrong = |why: &dyn fmt::Display| UpdateError::Signature(why.to_string());
        let text = std::str::from_utf8(&self.signature).map_err(|error| wrong(&error))?;
        let signature = Signature::decode(text).map_err(|error| wrong(&error))?;
        key.0.verify(&self.signed, &signature, false).map_err(|error| wrong(&error))?;
        let text = std::str::from_utf8(&self.signed).map_err(|error| UpdateError::Manifest(error.to_string()))?;
        Manifest::parse(text).map_err(UpdateError::Manifest)
    }
}

fn first_line(reader: &mut impl Read) -> Result<String, UpdateError> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LONGEST_LINE {
        match reader.read_exact(&mut byte) {
            Ok(()) if byte[0] == b'\n' => return String::from_utf8(line).map_err(|_| UpdateError::Other),
            Ok(()) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(UpdateError::Other),
            Err(error) => return Err(UpdateError::Read(error)),
        }
    }
    Err(UpdateError::Other)
}

/// Who may say what is installed.
#[derive(Clone, Debug)]
pub struct Key(PublicKey);

impl Key {
    /// Reads a public key of minisign: the line that begins with `RW`, or its file.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, UpdateError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.find(|line| !line.starts_with("untrusted comment:")).unwrap_or_default();
        PublicKey::from_base64(line).map(Self).map_err(|_| UpdateError::Key(line.chars().take(80).collect()))
    }
}

/// Reads the content behind a head, piece by piece, and passes each on. The last piece may have gone when the content
/// proves wrong: who writes must have checked before.
///
/// # Errors
/// It is cut off, goes on too long or isn't what was signed; or `sink` can't go on.
pub fn read_content<E: From<UpdateError>>(
    reader: &mut impl Read,
    manifest: &Manifest,
    mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut there = 0;
    while there < manifest.bytes {
        let most = usize::try_from(manifest.bytes - there).unwrap_or(PIECE).min(PIECE);
        let length = fill(reader, &mut piece[..most]).map_err(UpdateError::Read)?;
        if length < most {
            let there = there + length as u64;
            return Err(UpdateError::CutOff { there, bytes: manifest.bytes }.into());
        }
        digest.update(&piece[..length]);
        sink(there, &piece[..length])?;
        there += length as u64;
    }
    if fill(reader, &mut piece[..1]).map_err(UpdateError::Read)? != 0 {
        return Err(UpdateError::TooLong(manifest.bytes).into());
    }
    if hex(&digest.finalize()) == manifest.sha256 { Ok(()) } else { Err(UpdateError::Content.into()) }
}

/// Checks the content and passes it to nobody.
///
/// # Errors
/// As [`read_content`].
pub fn check_content(reader: &mut impl Read, manifest: &Manifest) -> Result<(), UpdateError> {
    read_content(reader, manifest, |_, _| Ok(()))
}

/// As much as there is.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use minisign::KeyPair;
    use proptest::prelude::*;

    use super::*;

    /// A key pair, and its public half as it is configured.
    pub fn keys() -> (KeyPair, Key) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let key = Key::parse(&pair.pk.to_base64()).unwrap();
        (pair, key)
    }

    pub fn manifest_of(content: &[u8], version: &str, build: &str) -> String {
        let digest = hex(&Sha256::digest(content));
        format!("version {version}\nbuild {build}\nbytes {}\nsha256 {digest}\n", content.len())
    }

    pub fn put_together(manifest: &str, signature: &str, content: &[u8]) -> Vec<u8> {
        let mut file = format!("tiebreaker-update 1 {} {}\n{manifest}{signature}", manifest.len(), signature.len());
        file.reserve(content.len());
        [file.as_bytes(), content].concat()
    }

    pub fn sign(pair: &KeyPair, manifest: &str) -> String {
        minisign::sign(Some(&pair.pk), &pair.sk, manifest.as_bytes(), None, None).unwrap().to_string()
    }

    pub fn update(pair: &KeyPair, content: &[u8]) -> Vec<u8> {
        let manifest = manifest_of(content, "0.2.0", "0123456789abcdef");
        put_together(&manifest, &sign(pair, &manifest), content)
    }

    fn read(file: &[u8], key: &Key) -> Result<Manifest, UpdateError> {
        let mut reader = Cursor::new(file);
        let head = Head::read(&mut reader)?;
        assert_eq!(head.bytes(), reader.position());
        let manifest = head.verified(key)?;
        check_content(&mut reader, &manifest)?;
        Ok(manifest)
    }

    #[test]
    fn what_was_signed_is_read() {
        let (pair, key) = keys();
        let content = vec![7; 3 * PIECE + 512];
        let manifest = read(&update(&pair, &content), &key).unwrap();
        assert_eq!((manifest.bytes, manifest.version.to_string().as_str()), (content.len() as u64, "0.2.0"));
        assert!(Key::parse(&pair.pk.to_box().unwrap().to_string()).is_ok(), "the file that minisign writes");
    }

    #[test]
    fn nobodys_and_anybody_elses_word_is_refused() {
        let ((pair, key), (other, _)) = (keys(), keys());
        let content = [1; 1024];
        let manifest = manifest_of(&content, "0.2.0", "0123456789abcdef");
        let refused = |file: &[u8]| read(file, &key).unwrap_err().to_string();
        assert!(refused(&put_together(&manifest, "", &content)).contains("isn't signed"));
        assert!(refused(&update(&other, &content)).contains("another key"));
        // The signature of one manifest under another.
        let changed = manifest.replace("0.2.0", "0.3.0");
        assert!(refused(&put_together(&changed, &sign(&pair, &manifest), &content)).contains("signature is wrong"));
        // What minisign calls legacy signs the text itself and not its digest: `Ed` in place of `ED`.
        let legacy = sign(&pair, &manifest).replacen("\nRU", "\nRW", 1);
        assert!(refused(&put_together(&manifest, &legacy, &content)).contains("signature is wrong"));
        assert!(Key::parse("nonsense").unwrap_err().to_string().contains("RW"));
        assert!(Key::parse("").is_err());
    }

    #[test]
    fn what_is_cut_off_changed_or_appended_to_is_refused() {
        let (pair, key) = keys();
        let file = update(&pair, &[9; 512]);
        for length in (0..file.len()).step_by(5) {
            assert!(read(&file[..length], &key).is_err(), "{length} bytes");
        }
        assert!(read(&file[..file.len() - 1], &key).unwrap_err().to_string().contains("511 of 512"));
        for at in (0..file.len()).step_by(7) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            // What minisign calls untrusted says nothing: there alone a change goes unnoticed.
            let untrusted = file.windows(9).position(|word| word == b"untrusted").unwrap();
            if !(untrusted..untrusted + 60).contains(&at) {
                assert!(read(&changed, &key).is_err(), "byte {at}");
            }
        }
        let longer = [&file[..], b"x"].concat();
        assert!(matches!(read(&longer, &key), Err(UpdateError::TooLong(512))));
    }

    #[test]
    fn other_files_are_told_from_newer_formats() {
        let head = |text: &str| Head::read(&mut Cursor::new(text.as_bytes())).unwrap_err();
        for text in
            ["", "\n", "PK", "tiebreaker-update 1 9999999 0\n", "tiebreaker-update 1 1\n", "tiebreaker-update x 1 1\n"]
        {
            assert!(matches!(head(text), UpdateError::Other), "{text:?}");
        }
        assert!(matches!(head(&"x".repeat(5000)), UpdateError::Other));
        assert!(matches!(head("tiebreaker-update 2 new things\n"), UpdateError::Newer(_)));
    }

    #[test]
    fn a_manifest_says_everything_once() {
        let whole = manifest_of(&[0; 512], "1.2.3", "0123456789abcdef");
        assert!(Manifest::parse(&whole).is_ok());
        for line in whole.lines() {
            assert!(Manifest::parse(&whole.replace(&format!("{line}\n"), "")).unwrap_err().contains("it has no"));
            assert!(Manifest::parse(&format!("{whole}{line}\n")).unwrap_err().contains("twice"));
        }
        for (from, to) in
            [("1.2.3", "1.2"), ("bytes 512", "bytes 513"), ("bytes 512", "bytes 0"), ("0123456789abcdef", "xyz")]
        {
            assert!(Manifest::parse(&whole.replace(from, to)).is_err(), "{to}");
        }
        assert!(Manifest::parse(&format!("{whole}more 1\n")).unwrap_err().contains("unknown key"));
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("0.10.0") > version("0.9.9") && version("1.0.0") > version("0.10.0"));
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1..2", "-1.0.0", "1.0.9999999999", "+1.0.0"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        let build = Build::parse("version 0.1.0\nbuild 0123456789abcdef\n").unwrap();
        assert_eq!((build.version, build.build.as_str()), (version("0.1.0"), "0123456789abcdef"));
        assert_eq!(Build::parse("version 0.1.0\n"), None);
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), format in 0..4_u8) {
            let key = Key::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3").unwrap();
            let mut file = format!("tiebreaker-update {format} 20 40\n").into_bytes();
            file.extend(&bytes);
            for file in [&bytes, &file] {
                prop_assert!(read(file, &key).is_err());
            }
        }

        #[test]
        fn no_manifest_makes_it_panic(text in "(version|build|bytes|sha256|x)? ?[0-9a-f. \\n]{0,80}") {
            let _ = Manifest::parse(&text);
            let _ = Build::parse(&text);
        }
    }
}
