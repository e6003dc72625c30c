//! The forms in which a password can be left behind, and the files that hold one of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// A password in all the forms that our programs and their libraries give it.
#[derive(Debug)]
pub struct Traces {
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Traces {
    /// Those of a password, which should be no word that a process holds by chance.
    #[must_use]
    pub fn of(password: &str) -> Self {
        let plain = password.as_bytes();
        let xored = |pad: u8| plain.iter().map(|byte| byte ^ pad).collect();
        let hex: String = plain.iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = vec![
            ("plain", plain.to_vec()),
            ("base64", base64_after(0, plain)),
            ("base64 after 1 byte", base64_after(1, plain)),
            ("base64 after 2 bytes", base64_after(2, plain)),
            ("hexadecimal", hex.into_bytes()),
            // A key of HMAC is kept as this (RFC 2104, ipad and opad).
            ("HMAC's inner key", xored(0x36)),
            ("HMAC's outer key", xored(0x5c)),
        ];
        Self { forms }
    }

    /// What to look for.
    #[must_use]
    pub fn texts(&self) -> Vec<&[u8]> {
        self.forms.iter().map(|(_, text)| &text[..]).collect()
    }

    /// The forms of which something was found, given how often each was.
    #[must_use]
    pub fn told(&self, found: &[usize]) -> Vec<(&'static str, usize)> {
        self.forms.iter().map(|(name, _)| *name).zip(found.iter().copied()).filter(|(_, count)| *count > 0).collect()
    }

    /// The regular files below a folder that hold one of the forms.
    ///
    /// # Errors
    /// The file system's.
    pub fn in_files(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                found.extend(self.in_files(&entry.path())?);
            } else if kind.is_file() {
                let bytes = fs::read(entry.path())?;
                if self.texts().iter().any(|text| bytes.windows(text.len()).any(|window| window == *text)) {
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }
}

/// The letters of base64 that depend on these bytes alone, when so many others stand before them: in a header of HTTP the
/// user's name does.
fn base64_after(before: usize, bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| (bytes[at / 8] >> (7 - at % 8)) & 1;
    let first = (6 - before * 8 % 6) % 6;
    let letters = (first..).step_by(6).take_while(|from| from + 6 <= bytes.len() * 8);
    letters.map(|from| LETTERS[(from..from + 6).fold(0, |index, at| index << 1 | usize::from(bit(at)))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_wherever_it_begins() {
        // Of "quarterdeck", "x:quarterdeck" and "a:quarterdeck!" without "a".
        for (before, whole) in [(0, "cXVhcnRlcmRlY2s="), (2, "eDpxdWFydGVyZGVjaw=="), (1, "OnF1YXJ0ZXJkZWNrIQ==")] {
            let part = String::from_utf8(base64_after(before, b"quarterdeck")).unwrap();
            assert!(whole.contains(&part) && part.len() >= 13, "{before}: {part} in {whole}");
        }
    }

    #[test]
    fn a_password_in_a_file_is_found_in_each_form() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        let traces = Traces::of("quarterdeck-7");
        let file = folder.path().join("below/log");
        for text in traces.texts() {
            fs::write(&file, [b"password=", text, b"\n"].concat()).unwrap();
            assert_eq!(traces.in_files(folder.path()).unwrap(), std::slice::from_ref(&file));
        }
        fs::write(&file, "password=quarterdeck-8").unwrap();
        assert_eq!(traces.in_files(folder.path()).unwrap(), <[PathBuf; 0]>::default());
    }
}
