//! Which certificates a device may show.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The SHA-256 of a whole certificate (DER), as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// A text is no [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no SHA-256 fingerprint: 64 hexadecimal digits, with or without colons; \
     `openssl s_client -connect ADDRESS:443 </dev/null | openssl x509 -noout -fingerprint -sha256` prints it"
)]
pub struct BadFingerprint;

impl Fingerprint {
    /// That of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let mut bytes = [0u8; 32];
        let mut digits = 0usize;
        for c in text.trim().chars().filter(|c| *c != ':') {
            let nibble = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(BadFingerprint)?;
            let byte = bytes.get_mut(digits / 2).ok_or(BadFingerprint)?;
            *byte = *byte << 4 | nibble;
            digits += 1;
        }
        if digits == 64 { Ok(Self(bytes)) } else { Err(BadFingerprint) }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = BadFingerprint;

    fn try_from(text: String) -> Result<Self, BadFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if place == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The certificates that a device may show: the one that it has, and the one that it will get, so that a change needs no
/// moment without fencing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// What it shows now.
    pub current: Fingerprint,
    /// What it will show next.
    pub next: Option<Fingerprint>,
}

impl Pins {
    /// Whether a certificate of this fingerprint is the device's.
    #[must_use]
    pub fn allow(&self, fingerprint: Fingerprint) -> bool {
        fingerprint == self.current || Some(fingerprint) == self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it_and_without_colons() {
        let fingerprint = Fingerprint::of(b"a certificate");
        let printed = fingerprint.to_string();
        assert_eq!(printed.len(), 95);
        assert_eq!(printed.parse(), Ok(fingerprint));
        assert_eq!(printed.replace(':', "").to_lowercase().parse(), Ok(fingerprint));
        for bad in ["", "ab", &printed[1..], &format!("{printed}:00"), &printed.replace(':', "-")] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(BadFingerprint), "{bad}");
        }
    }

    #[test]
    fn two_certificates_may_be_pinned_and_no_third_passes() {
        let [current, next, other] = [b"1", b"2", b"3"].map(|der| Fingerprint::of(der));
        let pins = Pins { current, next: Some(next) };
        assert!(pins.allow(current) && pins.allow(next) && !pins.allow(other));
        assert!(!Pins { current, next: None }.allow(next));
    }
}
