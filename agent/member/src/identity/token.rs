//! The join token: what an operator copies from the appliance to the machine that joins.
//!
//! `tb1` and Crockford's base32 of: version, role, the authority's fingerprint, a 128-bit secret, the cluster's name,
//! four bytes of SHA-256 over all that. One word, no characters that a terminal splits at, and a typo is told from a
//! wrong token.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use zeroize::{Zeroize, Zeroizing};

use super::certificate::CaFingerprint;
use super::name::{ClusterName, Role};

const PREFIX: &str = "tb1";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SECRET_LEN: usize = 16;
const CHECK_LEN: usize = 4;
const FIXED_LEN: usize = 1 + CaFingerprint::LEN + SECRET_LEN;
/// A token with the longest cluster name has 168 characters.
const MAX_TEXT: usize = 256;

/// A text that is no token, before anybody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenParseError {
    /// It doesn't begin like a token.
    #[error("this is no join token: it must begin with '{PREFIX}'; make one with 'tiebreaker-server token create'")]
    NotAToken,
    /// A character that tokens don't have.
    #[error("the token is mistyped: character {at} can't be in a token; copy it again")]
    Character {
        /// Position, counted from one.
        at: usize,
    },
    /// The checksum is wrong.
    #[error("the token is mistyped or cut short (its checksum is wrong): copy it again, whole")]
    Checksum,
    /// It is whole, but not understood.
    #[error("the token was made by another version of Tiebreaker: use the same version on both machines")]
    Version,
}

/// The secret in a token. It is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; SECRET_LEN]);

impl TokenSecret {
    /// Draws a new secret.
    pub(super) fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_LEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// From the bytes that a joiner sent; `None` when their number is wrong.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// What is stored of it. 128 random bits need no slow hash.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        out
    }
}

impl Drop for TokenSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The role that its user gets.
    pub role: Role,
    /// The cluster that it joins.
    pub cluster: ClusterName,
    /// The authority that the appliance must show.
    pub ca: CaFingerprint,
    /// The secret.
    pub secret: TokenSecret,
}

impl Token {
    /// The text to copy.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIXED_LEN + 63 + CHECK_LEN));
        bytes.push(role_code(self.role));
        bytes.extend_from_slice(self.ca.as_bytes());
        bytes.extend_from_slice(self.secret.as_bytes());
        bytes.extend_from_slice(self.cluster.as_str().as_bytes());
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
        text.push_str(PREFIX);
        encode(&bytes, &mut text);
        text
    }
}

impl FromStr for Token {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        let text = text.trim();
        let start = text.get(..PREFIX.len()).ok_or(TokenParseError::NotAToken)?;
        if !start.eq_ignore_ascii_case(PREFIX) {
            return Err(TokenParseError::NotAToken);
        }
        if text.len() > MAX_TEXT {
            return Err(TokenParseError::Checksum);
        }
        let bytes = decode(&text[PREFIX.len()..])?;
        let cut = bytes.len().checked_sub(CHECK_LEN).ok_or(TokenParseError::Checksum)?;
        let (body, check) = bytes.split_at(cut);
        // A fuzzer can't guess a checksum, and what is behind it has to be reached.
        if checksum(body) != *check && !cfg!(fuzzing) {
            return Err(TokenParseError::Checksum);
        }
        let (fixed, cluster) = body.split_at_checked(FIXED_LEN).ok_or(TokenParseError::Version)?;
        let (head, secret) = fixed.split_at(1 + CaFingerprint::LEN);
        let role = role_of(head[0]).ok_or(TokenParseError::Version)?;
        let ca = <[u8; CaFingerprint::LEN]>::try_from(&head[1..]).map_err(|_| TokenParseError::Version)?;
        let cluster = std::str::from_utf8(cluster).map_err(|_| TokenParseError::Version)?;
        Ok(Self {
            role,
            cluster: cluster.parse().map_err(|_| TokenParseError::Version)?,
            ca: CaFingerprint::from_bytes(ca),
            secret: TokenSecret::from_slice(secret).ok_or(TokenParseError::Version)?,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("role", &self.role)
            .field("cluster", &self.cluster)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

const fn role_code(role: Role) -> u8 {
    match role {
        Role::Appliance => 0,
        Role::Node => 1,
        Role::Operator => 2,
        Role::FenceClient => 3,
        Role::Observer => 4,
        // No token has it: it is not among those that are read.
        Role::Authority => 5,
    }
}

fn role_of(code: u8) -> Option<Role> {
    [Role::Appliance, Role::Node, Role::Operator, Role::FenceClient, Role::Observer]
        .into_iter()
        .find(|role| role_code(*role) == code)
}

fn checksum(body: &[u8]) -> [u8; CHECK_LEN] {
    let hash = digest::digest(&digest::SHA256, body);
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hash.as_ref()[..CHECK_LEN]);
    check
}

fn encode(bytes: &[u8], out: &mut String) {
    let (mut word, mut bits) = (0_u32, 0);
    for byte in bytes {
        word = word << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push_digit(word >> bits, out);
        }
        word &= (1 << bits) - 1;
    }
    if bits > 0 {
        push_digit(word << (5 - bits), out);
    }
}

fn push_digit(word: u32, out: &mut String) {
    let index = usize::try_from(word & 31).expect("five bits fit");
    out.push(char::from(ALPHABET[index]));
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, TokenParseError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TEXT));
    let (mut word, mut bits) = (0_u32, 0);
    for (index, c) in text.chars().enumerate() {
        // Letters that people take for digits are read as those digits.
        let digit = match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        let value = u8::try_from(digit)
            .ok()
            .and_then(|digit| ALPHABET.iter().position(|letter| *letter == digit))
            .and_then(|value| u32::try_from(value).ok())
            .ok_or(TokenParseError::Character { at: PREFIX.len() + index + 1 })?;
        word = word << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).expect("eight bits fit"));
            word &= (1 << bits) - 1;
        }
    }
    // Bits that don't fill a byte are padding and zero, so that a token has one spelling.
    if word != 0 || bits >= 5 { Err(TokenParseError::Checksum) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(cluster: &str) -> Token {
        Token {
            role: Role::Node,
            cluster: cluster.parse().unwrap(),
            ca: CaFingerprint::from_bytes([0xa5; CaFingerprint::LEN]),
            secret: TokenSecret::from_slice(&[0x3c; SECRET_LEN]).unwrap(),
        }
    }

    #[test]
    fn a_token_survives_copying_in_any_case() {
        for cluster in ["a", "home", "a-longer-name", &"x".repeat(63)] {
            let text = token(cluster).to_text();
            assert!(text.len() <= MAX_TEXT);
            assert_eq!(text.parse::<Token>().unwrap(), token(cluster));
            assert_eq!(format!("  {} \n", text.to_uppercase()).parse::<Token>().unwrap(), token(cluster));
        }
    }

    #[test]
    fn every_single_typo_is_noticed() {
        let text = token("home").to_text();
        for at in PREFIX.len()..text.len() {
            for digit in ALPHABET {
                let mut typed = text.as_bytes().to_vec();
                if typed[at] == *digit {
                    continue;
                }
                typed[at] = *digit;
                let typed = String::from_utf8(typed).unwrap();
                assert_eq!(typed.parse::<Token>(), Err(TokenParseError::Checksum), "{typed}");
            }
        }
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<Token>(), Err(TokenParseError::Checksum));
        }
        assert_eq!("tb1ab!".parse::<Token>(), Err(TokenParseError::Character { at: 6 }));
        assert_eq!("hello".parse::<Token>(), Err(TokenParseError::NotAToken));
        assert_eq!("äöü".parse::<Token>(), Err(TokenParseError::NotAToken));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let debug = format!("{:?} {:?}", token("home"), token("home").secret);
        assert!(!debug.contains("3c") && !debug.contains("60"), "{debug}");
    }
}
