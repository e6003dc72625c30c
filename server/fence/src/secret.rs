//! Bytes that must not be seen: redacted in every output, wiped when dropped.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A password or key. `Debug` prints a placeholder, there is no `Display` and no `Serialize`, and the memory is wiped
/// on drop. Whoever writes the secrets file asks for the bytes by name, with [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why bytes can't be a [`Secret`]. Says nothing about the bytes themselves but their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// IPMI v2.0 keys have 20 bytes; what is longer would be cut silently by one side and not by the other.
    #[error("has {0} bytes, but IPMI v2.0 allows at most {max}", max = Secret::MAX_BYTES)]
    TooLong(usize),
    /// Longer than any password that a device takes over HTTP.
    #[error("has {0} bytes, but at most {max} are taken", max = Secret::MAX_WEB_BYTES)]
    TooLongForWeb(usize),
    /// Keys are padded with zero bytes on the wire's other end, so a zero byte can't be part of one.
    #[error("holds a zero byte, which IPMI can't tell from padding")]
    ZeroByte,
    /// JSON and HTTP carry text.
    #[error("is not UTF-8 or holds control characters")]
    NoText,
}

impl Secret {
    /// The longest password and K_G of IPMI v2.0 (section 22.30, Set User Password).
    pub const MAX_BYTES: usize = 20;

    /// Takes the bytes over; they are wiped when they are refused too.
    ///
    /// # Errors
    /// More than [`Secret::MAX_BYTES`] bytes, or a zero byte among them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() > Self::MAX_BYTES {
            return Err(SecretError::TooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(SecretError::ZeroByte);
        }
        Ok(Self(bytes))
    }

    /// The longest password of a device that is reached over HTTP.
    pub const MAX_WEB_BYTES: usize = 256;

    /// Takes over the password of a device that is reached over HTTP, where IPMI's limit doesn't hold.
    ///
    /// # Errors
    /// More than [`Secret::MAX_WEB_BYTES`] bytes, or something other than printable text.
    pub fn for_web(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() > Self::MAX_WEB_BYTES {
            return Err(SecretError::TooLongForWeb(bytes.len()));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains(char::is_control) => Ok(Self(bytes)),
            _ => Err(SecretError::NoText),
        }
    }

    /// The bytes in the clear: for a key derivation, and for the one encrypted file that holds the secrets.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor instead of `String::deserialize`: serde's own type errors would print the value.
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a secret of at most {} bytes", Secret::MAX_BYTES)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Secret::new(text).map_err(E::custom)
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
                Secret::new(text).map_err(E::custom)
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Secret, E> {
                Secret::new(bytes).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("a secret must be quoted"))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom("a secret must be quoted"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("a secret must be quoted"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        password: Secret,
    }

    #[test]
    fn debug_never_shows_the_bytes() {
        let secret = Secret::new("hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert_eq!(format!("{:?}", Holder { password: secret }), "Holder { password: Secret(redacted) }");
    }

    #[test]
    fn too_long_and_zero_bytes_are_refused() {
        assert_eq!(Secret::new([b'a'; 21]).unwrap_err(), SecretError::TooLong(21));
        assert_eq!(Secret::new(*b"a\0b").unwrap_err(), SecretError::ZeroByte);
        assert_eq!(Secret::new([b'a'; 20]).unwrap().expose(), [b'a'; 20]);
    }

    #[test]
    fn a_password_for_http_may_be_longer_and_is_text() {
        assert_eq!(Secret::for_web([b'a'; 256]).unwrap().expose(), [b'a'; 256]);
        assert_eq!(Secret::for_web([b'a'; 257]).unwrap_err(), SecretError::TooLongForWeb(257));
        for bad in [&b"a\0b"[..], b"a\nb", b"\xff"] {
            assert_eq!(Secret::for_web(bad).unwrap_err(), SecretError::NoText);
        }
    }

    #[test]
    fn a_bad_secret_in_a_file_is_not_repeated_in_the_error() {
        let long: Result<Holder, _> = toml::from_str("password = 'correct-horse-battery-staple'");
        assert!(!long.unwrap_err().message().contains("horse"));
        let number: Result<Holder, _> = toml::from_str("password = 8675309");
        let error = number.unwrap_err();
        assert!(!error.message().contains("8675309") && error.message().contains("quoted"), "{error}");
        let good: Holder = toml::from_str("password = 'pw'").unwrap();
        assert_eq!(good.password.expose(), b"pw");
    }
}
