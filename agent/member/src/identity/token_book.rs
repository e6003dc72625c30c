//! The appliance's record of the tokens it gave out: hashes only, in one small durable file.

use std::path::{Path, PathBuf};

use ring::digest;
use serde::{Deserialize, Serialize};

use super::certificate::CaFingerprint;
use super::files::{FileError, read_private, replace_private};
use super::name::{ClusterName, MemberName, Role};
use super::token::{Token, TokenSecret};

/// How long a token is good for if nobody says otherwise: 15 minutes, in seconds.
pub const DEFAULT_TOKEN_TTL: u64 = 15 * 60;

/// A week. A longer one is a password.
const MAX_TTL: u64 = 7 * 86_400;

/// How long a used or expired token is remembered, so that its user is told what happened to it.
const REMEMBERED: u64 = 7 * 86_400;

/// Tokens remembered at once.
const MAX_ENTRIES: usize = 256;

const FILE: &str = "tokens.json";
const VERSION: u32 = 1;

/// Why a token isn't honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// No such token was given out here, or it was long ago.
    #[error(
        "this appliance doesn't know the token: it was made elsewhere, or is older than a week; make one with 'tiebreaker-server token create'"
    )]
    Unknown,
    /// Somebody has used it.
    #[error(
        "the token was already used by '{by}': every machine needs its own; make one with 'tiebreaker-server token create'"
    )]
    Used {
        /// By whom.
        by: MemberName,
    },
    /// Its time is over.
    #[error("the token expired {ago_s} s ago: make a new one with 'tiebreaker-server token create'")]
    Expired {
        /// How long ago, in seconds.
        ago_s: u64,
    },
    /// It is for another cluster of this appliance.
    #[error("the token is for cluster '{token}', not for '{asked}'")]
    OtherCluster {
        /// The token's cluster.
        token: ClusterName,
        /// The cluster that was to be joined.
        asked: ClusterName,
    },
}

/// What the book can't do.
#[derive(Debug, thiserror::Error)]
pub enum TokenBookError {
    /// Its file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file is damaged.
    #[error("{path} is damaged: remove it; open tokens are void then, members aren't touched")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Its file comes from a newer version.
    #[error("{path} has version {version}, this program knows {VERSION}: install the newer program")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The book can't be written as text.
    #[error("can't write the tokens down")]
    Encode(#[source] serde_json::Error),
    /// The system gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// Too many unused tokens.
    #[error("{MAX_ENTRIES} tokens are open: wait until some expire")]
    Full,
    /// Nobody joins as an appliance.
    #[error("a token can't make an appliance: it is set up with 'tiebreaker-server init'")]
    Role,
    /// The validity is zero or too long.
    #[error("a token is good for 1 second to 7 days")]
    Ttl,
    /// The token is not honoured.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
}

/// A token that was honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// The cluster that its user joins.
    pub cluster: ClusterName,
    /// The role that its user gets.
    pub role: Role,
    /// True when the same joiner, with the same key, had used it before: its reply got lost.
    pub again: bool,
}

/// A token as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its role.
    pub role: Role,
    /// When it ends, seconds since 1970.
    pub expires: u64,
    /// Who used it.
    pub used_by: Option<MemberName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Use {
    by: MemberName,
    at: u64,
    /// Hash of the certificate request's key: who lost the reply may ask again.
    key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: String,
    cluster: ClusterName,
    role: Role,
    expires: u64,
    used: Option<Use>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    tokens: Vec<Entry>,
}

/// The record.
#[derive(Debug)]
pub struct TokenBook {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl TokenBook {
    /// Opens the book in `dir`; where there is none it begins empty.
    ///
    /// # Errors
    /// When its file can't be read or is damaged.
    pub fn open(dir: &Path) -> Result<Self, TokenBookError> {
        let path = dir.join(FILE);
        let text = match read_private(&path, "") {
            Ok(text) => text,
            Err(FileError::Missing { .. }) => return Ok(Self { path, entries: Vec::new() }),
            Err(error) => return Err(error.into()),
        };
        let stored: Stored =
            serde_json::from_str(&text).map_err(|source| TokenBookError::Damaged { path: path.clone(), source })?;
        if stored.version != VERSION {
            return Err(TokenBookError::Version { path, version: stored.version });
        }
        Ok(Self { path, entries: stored.tokens })
    }

    /// Makes a token, good from `now` for `ttl` seconds. It is on disk when this returns.
    ///
    /// # Errors
    /// When the role or the time is not allowed, too many are open, or the file can't be written.
    pub fn create(
        &mut self,
        ca: CaFingerprint,
        cluster: &ClusterName,
        role: Role,
        now: u64,
        ttl: u64,
    ) -> Result<Token, TokenBookError> {
        if matches!(role, Role::Appliance | Role::Authority) {
            return Err(TokenBookError::Role);
        }
        if ttl == 0 || ttl > MAX_TTL {
            return Err(TokenBookError::Ttl);
        }
        let mut entries = self.entries.clone();
        entries.retain(|entry| now < entry.expires.saturating_add(REMEMBERED));
        if entries.len() >= MAX_ENTRIES {
            // What is only remembered gives way to what is needed.
            entries.retain(|entry| entry.used.is_none() && now < entry.expires);
        }
        if entries.len() >= MAX_ENTRIES {
            return Err(TokenBookError::Full);
        }
        let secret = TokenSecret::generate().map_err(TokenBookError::Random)?;
        entries.push(Entry {
            hash: hex(&secret.hash()),
            cluster: cluster.clone(),
            role,
            expires: now.saturating_add(ttl),
            used: None,
        });
        self.commit(entries)?;
        Ok(Token { role, cluster: cluster.clone(), ca, secret })
    }

    /// Uses a token up for `by`, whose certificate request is `csr`. That it is used is on disk when this returns. A
    /// joiner whose reply got lost may use it again with the same request's key until it expires.
    ///
    /// # Errors
    /// [`TokenBookError::Refused`] with the reason, or when the file can't be written: then the token is unused.
    pub fn redeem(
        &mut self,
        asked: &ClusterName,
        secret: &TokenSecret,
        by: &MemberName,
        csr: &[u8],
        now: u64,
    ) -> Result<Redeemed, TokenBookError> {
        // Entries are found by the hash of a secret that nobody can guess, so the search's timing tells nothing.
        let hash = hex(&secret.hash());
        let mut entries = self.entries.clone();
        let entry = entries.iter_mut().find(|entry| entry.hash == hash).ok_or(TokenRefusal::Unknown)?;
        if entry.cluster != *asked {
            return Err(TokenRefusal::OtherCluster { token: entry.cluster.clone(), asked: asked.clone() }.into());
        }
        let key = hex(digest::digest(&digest::SHA256, &csr_key(csr)).as_ref());
        let again = match &entry.used {
            Some(used) if used.by != *by || used.key != key => {
                return Err(TokenRefusal::Used { by: used.by.clone() }.into());
            }
            Some(_) => true,
            None => false,
        };
        if now >= entry.expires {
            return Err(TokenRefusal::Expired { ago_s: now - entry.expires }.into());
        }
        let redeemed = Redeemed { cluster: entry.cluster.clone(), role: entry.role, again };
        if !again {
            entry.used = Some(Use { by: by.clone(), at: now, key });
            self.commit(entries)?;
        }
        Ok(redeemed)
    }

    /// The tokens that are remembered.
    #[must_use]
    pub fn list(&self) -> Vec<TokenView> {
        self.entries
            .iter()
            .map(|entry| TokenView {
                cluster: entry.cluster.clone(),
                role: entry.role,
                expires: entry.expires,
                used_by: entry.used.as_ref().map(|used| used.by.clone()),
            })
            .collect()
    }

    /// Memory follows the disk, so that a failed write leaves no token used that isn't.
    fn commit(&mut self, entries: Vec<Entry>) -> Result<(), TokenBookError> {
        let mut stored = Stored { version: VERSION, tokens: entries };
        let text = serde_json::to_vec_pretty(&stored).map_err(TokenBookError::Encode)?;
        replace_private(&self.path, &text)?;
        self.entries = std::mem::take(&mut stored.tokens);
        Ok(())
    }
}

/// The public key of a request; of an unreadable one, all of it (it is refused later anyway).
fn csr_key(csr: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::FromDer;
    match x509_parser::certification_request::X509CertificationRequest::from_der(csr) {
        Ok((_, request)) => request.certification_request_info.subject_pki.raw.to_vec(),
        Err(_) => csr.to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;

    const NOW: u64 = 1_800_000_000;

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, TokenBookError>) -> TokenRefusal {
        match result {
            Err(TokenBookError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_used_once_and_the_book_remembers_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let home: ClusterName = "home".parse().unwrap();
        let ca = CaFingerprint::from_bytes([1; 20]);
        let mut book = TokenBook::open(dir.path()).unwrap();
        let token = book.create(ca, &home, Role::Node, NOW, DEFAULT_TOKEN_TTL).unwrap();
        let other = "other".parse().unwrap();
        let key = Keypair::generate().unwrap();
        let csr = key.csr().unwrap();
        assert!(matches!(
            refusal(book.redeem(&other, &token.secret, &name("a"), &csr, NOW)),
            TokenRefusal::OtherCluster { .. }
        ));
        let redeemed = book.redeem(&home, &token.secret, &name("a"), &csr, NOW + 899).unwrap();
        assert_eq!(redeemed, Redeemed { cluster: home.clone(), role: Role::Node, again: false });

        let mut book = TokenBook::open(dir.path()).unwrap();
        assert!(book.redeem(&home, &token.secret, &name("a"), &key.csr().unwrap(), NOW + 899).unwrap().again);
        let stranger = Keypair::generate().unwrap().csr().unwrap();
        let used = TokenRefusal::Used { by: name("a") };
        assert_eq!(refusal(book.redeem(&home, &token.secret, &name("a"), &stranger, NOW)), used);
        assert_eq!(refusal(book.redeem(&home, &token.secret, &name("b"), &csr, NOW)), used);
        assert_eq!(book.list()[0].used_by, Some(name("a")));
    }

    #[test]
    fn expired_and_unknown_tokens_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let home: ClusterName = "home".parse().unwrap();
        let ca = CaFingerprint::from_bytes([1; 20]);
        let mut book = TokenBook::open(dir.path()).unwrap();
        let token = book.create(ca, &home, Role::Operator, NOW, 60).unwrap();
        let expired = refusal(book.redeem(&home, &token.secret, &name("a"), b"", NOW + 65));
        assert_eq!(expired, TokenRefusal::Expired { ago_s: 5 });
        let stray = TokenSecret::generate().unwrap();
        assert_eq!(refusal(book.redeem(&home, &stray, &name("a"), b"", NOW)), TokenRefusal::Unknown);
    }

    #[test]
    fn secrets_are_not_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = TokenBook::open(dir.path()).unwrap();
        let ca = CaFingerprint::from_bytes([1; 20]);
        let token = book.create(ca, &"home".parse().unwrap(), Role::Node, NOW, 60).unwrap();
        let file = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!file.contains(&hex(token.secret.as_bytes())));
        assert!(file.contains(&hex(&token.secret.hash())));
    }

    #[test]
    fn the_book_is_bounded_and_picky() {
        let dir = tempfile::tempdir().unwrap();
        let home: ClusterName = "home".parse().unwrap();
        let ca = CaFingerprint::from_bytes([1; 20]);
        let mut book = TokenBook::open(dir.path()).unwrap();
        for role in [Role::Appliance, Role::Authority] {
            assert!(matches!(book.create(ca, &home, role, NOW, 60), Err(TokenBookError::Role)));
        }
        assert!(matches!(book.create(ca, &home, Role::Node, NOW, 0), Err(TokenBookError::Ttl)));
        assert!(matches!(book.create(ca, &home, Role::Node, NOW, MAX_TTL + 1), Err(TokenBookError::Ttl)));
        for _ in 0..MAX_ENTRIES {
            book.create(ca, &home, Role::Node, NOW, 60).unwrap();
        }
        assert!(matches!(book.create(ca, &home, Role::Node, NOW, 60), Err(TokenBookError::Full)));
        book.create(ca, &home, Role::Node, NOW + 60, 60).unwrap();
        assert_eq!(book.list().len(), 1);
        std::fs::write(dir.path().join(FILE), "{\"version\":1,\"tokens\":[],\"x\":1}").unwrap();
        assert!(matches!(TokenBook::open(dir.path()), Err(TokenBookError::Damaged { .. })));
    }
}
