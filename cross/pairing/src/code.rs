//! The code that a person reads off the machine's screen and types as root's password.

use std::fmt;

use subtle::ConstantTimeEq;

/// Small letters and digits without those that are taken for each other (0 and o, 1, l and i).
const LETTERS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// 59 bits, in four groups of three.
const LENGTH: usize = 12;
const GROUP: usize = 3;

/// A fresh code. It is shown by [`fmt::Display`] alone, so that it gets into no log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; LENGTH]);

impl Code {
    /// A random one.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut code = [0; LENGTH];
        let mut drawn = [0; 1];
        for letter in &mut code {
            loop {
                getrandom::fill(&mut drawn)?;
                // 248 is eight times 31: what is above would make the first letters likelier.
                if drawn[0] < 248 {
                    *letter = LETTERS[usize::from(drawn[0]) % LETTERS.len()];
                    break;
                }
            }
        }
        Ok(Self(code))
    }

    /// Whether this is what was typed. Hyphens, spaces and capital letters make no difference; how many letters are right
    /// doesn't show in the time that it takes.
    #[must_use]
    pub fn is(&self, typed: &str) -> bool {
        let typed: Vec<u8> =
            typed.bytes().filter(|byte| !matches!(byte, b'-' | b' ')).map(|byte| byte.to_ascii_lowercase()).collect();
        typed.ct_eq(&self.0).into()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.0.chunks(GROUP).enumerate() {
            let hyphen = if at == 0 { "" } else { "-" };
            write!(f, "{hyphen}{}", String::from_utf8_lossy(group))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

#[cfg(test)]
impl Code {
    /// A known one.
    pub(crate) fn known() -> Self {
        Self(*b"k7mxp29qdfhw")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_typed_as_it_is_shown_or_without_the_hyphens() {
        let code = Code::known();
        assert_eq!(code.to_string(), "k7m-xp2-9qd-fhw");
        for right in ["k7m-xp2-9qd-fhw", "k7mxp29qdfhw", "K7M XP2 9QD FHW"] {
            assert!(code.is(right), "{right}");
        }
        for wrong in ["", "k7m", "k7m-xp2-9qd-fh", "k7m-xp2-9qd-fhww", "k7m-xp2-9qd-fhx"] {
            assert!(!code.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{code:?}"), "Code(..)");
    }

    #[test]
    fn two_are_never_the_same() {
        let codes: Vec<Code> = (0..100).map(|_| Code::random().unwrap()).collect();
        for (at, code) in codes.iter().enumerate() {
            assert!(code.0.iter().all(|letter| LETTERS.contains(letter)));
            assert!(!codes[at + 1..].contains(code));
        }
    }
}
