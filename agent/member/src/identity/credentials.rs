//! A machine's identity: its key, its certificate and its authority's, together in one file, so that a renewal is one
//! rename and key and certificate can't be torn apart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::certificate::{CaCertificate, CertFault, PeerCert};
use super::files::{FileError, read_private, replace_private};
use super::key::{KeyError, Keypair};
use super::name::PeerId;

const FILE: &str = "identity.pem";

/// An identity that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file lacks something or holds something else.
    #[error("{path} is damaged ({what}): remove it and join again with a new token")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        what: &'static str,
    },
    /// The certificate belongs to another key.
    #[error("the certificate is for another key than the one it is stored with: join again with a new token")]
    KeyMismatch,
    /// The certificate isn't what the authority makes.
    #[error("the certificate can't be used: {0}")]
    Certificate(CertFault),
    /// The key can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Key, certificate and authority of one holder in one cluster.
pub struct Identity {
    key: Keypair,
    leaf: CertificateDer<'static>,
    cert: PeerCert,
    ca: CaCertificate,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Puts an identity together and checks that its parts belong together.
    ///
    /// # Errors
    /// When they don't.
    pub fn new(key: Keypair, leaf: &[u8], ca: CaCertificate) -> Result<Self, IdentityError> {
        let cert = ca.read_leaf(leaf).map_err(IdentityError::Certificate)?;
        let leaf = CertificateDer::from(leaf.to_vec());
        // The authority goes along so that a joiner, who knows its fingerprint alone, can learn it.
        let chain = vec![leaf.clone(), ca.der().clone()];
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8()));
        let signing = rustls::crypto::ring::sign::any_ecdsa_type(&der).map_err(|_| IdentityError::KeyMismatch)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_| IdentityError::KeyMismatch)?;
        Ok(Self { key, leaf, cert, ca, certified: Arc::new(certified) })
    }

    /// Stores it in `dir`, in place of what was there.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn store(&self, dir: &Path) -> Result<(), IdentityError> {
        let mut text = pem_key(&self.key);
        text.push_str(&pem_block("CERTIFICATE", &self.leaf));
        text.push_str(&pem_block("CERTIFICATE", self.ca.der()));
        replace_private(&dir.join(FILE), text.as_bytes())?;
        Ok(())
    }

    /// Loads it from `dir`.
    ///
    /// # Errors
    /// When the file is missing, open to others, or damaged.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        let text = read_private(&path, "this machine has not joined a cluster; join with a token")?;
        let damaged = |what| IdentityError::Damaged { path: path.clone(), what };
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| damaged("there is no private key in it"))?;
        let key = Keypair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| damaged("its private key is unreadable"))?;
        let certs: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| damaged("a certificate in it is unreadable"))?;
        let [leaf, ca] = certs.as_slice() else {
            return Err(damaged("it must hold the machine's certificate and the authority's"));
        };
        let ca = CaCertificate::from_der(ca).map_err(|_| damaged("the authority's certificate is unreadable"))?;
        Self::new(key, leaf, ca)
    }

    /// Whether `dir` holds an identity, good or not.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Who this is.
    #[must_use]
    pub fn peer(&self) -> &PeerId {
        &self.cert.subject.peer
    }

    /// What the certificate says.
    #[must_use]
    pub fn cert(&self) -> &PeerCert {
        &self.cert
    }

    /// The authority.
    #[must_use]
    pub fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    /// A certificate request for this identity's own key, for renewal.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        self.key.csr()
    }

    /// This identity under a new certificate for the same key.
    ///
    /// # Errors
    /// As [`Identity::new`]; also when the certificate is for another key.
    pub fn renewed(&self, leaf: &[u8]) -> Result<Self, IdentityError> {
        let key = Keypair::from_pkcs8(self.key.pkcs8()).map_err(IdentityError::Key)?;
        Self::new(key, leaf, self.ca.clone())
    }

    /// Whether two thirds of the certificate's life have gone by at `now` (seconds since 1970), so that it is time to
    /// ask for the next one. The key stays.
    #[must_use]
    pub fn renewal_due(&self, now: u64) -> bool {
        let life = self.cert.not_after.saturating_sub(self.cert.not_before);
        now >= self.cert.not_after.saturating_sub(life / 3)
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, serial {})", self.cert.subject.peer, self.cert.serial)
    }
}

/// A private key as PEM.
pub(super) fn pem_key(key: &Keypair) -> Zeroizing<String> {
    pem_block("PRIVATE KEY", key.pkcs8())
}

/// One PEM block (RFC 7468). The text may be a secret, so it is wiped when dropped.
pub(super) fn pem_block(label: &str, der: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Sized at once, so that growing leaves no copies behind.
    let mut text = Zeroizing::new(String::with_capacity(der.len() / 48 * 65 + 65 + 2 * label.len() + 64));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let word = group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for digit in 0..4 {
                if digit <= group.len() {
                    let index = usize::try_from(word >> (18 - 6 * digit) & 63).expect("six bits fit");
                    text.push(char::from(ALPHABET[index]));
                } else {
                    text.push('=');
                }
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::super::ca::{Ca, LEAF_VALIDITY};
    use super::super::name::Subject;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn identity(ca: &Ca) -> Identity {
        ca.issue(&Subject::from_uri("tiebreaker://home/node/a").unwrap(), NOW, LEAF_VALIDITY).unwrap()
    }

    #[test]
    fn pem_reads_back_at_every_length() {
        for len in 1..200_usize {
            let der: Vec<u8> = (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
            let text = pem_block("CERTIFICATE", &der);
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }

    #[test]
    fn an_identity_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let made = identity(&Ca::new_in_memory().unwrap());
        assert!(!Identity::exists(dir.path()));
        made.store(dir.path()).unwrap();
        let loaded = Identity::load(dir.path()).unwrap();
        assert_eq!(loaded.cert(), made.cert());
        assert_eq!(loaded.ca(), made.ca());
    }

    #[test]
    fn torn_and_mixed_files_are_refused() {
        let ca = Ca::new_in_memory().unwrap();
        let (one, two) = (identity(&ca), identity(&ca));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::File(FileError::Missing { .. }))));
        let cert = pem_block("CERTIFICATE", &one.leaf);
        let authority = pem_block("CERTIFICATE", ca.certificate().der());
        let mixed = format!("{}{}{}", *pem_key(&two.key), *cert, *authority);
        replace_private(&path, mixed.as_bytes()).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::KeyMismatch)));
        let short = format!("{}{}", *pem_key(&one.key), *cert);
        for text in [short.as_str(), "", &short[..short.len() / 3]] {
            replace_private(&path, text.as_bytes()).unwrap();
            assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Damaged { .. })));
        }
        let other = Ca::new_in_memory().unwrap();
        let foreign =
            format!("{}{}{}", *pem_key(&one.key), *cert, *pem_block("CERTIFICATE", other.certificate().der()));
        replace_private(&path, foreign.as_bytes()).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Certificate(CertFault::OtherCa))));
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_life() {
        let one = identity(&Ca::new_in_memory().unwrap());
        assert!(!one.renewal_due(NOW + 59 * 86_400));
        assert!(one.renewal_due(NOW + 60 * 86_400));
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let one = identity(&Ca::new_in_memory().unwrap());
        assert_eq!(format!("{:?}", one.key), "Keypair(..)");
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
