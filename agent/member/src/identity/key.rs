//! A machine's own key. It is made where it is used and never leaves.

use std::fmt;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

/// A key that could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The random generator or the curve code failed.
    #[error("can't make an ECDSA P-256 key")]
    Generate(#[source] rcgen::Error),
    /// The bytes are no PKCS#8 key of the right kind.
    #[error("this is no ECDSA P-256 key in PKCS#8 form")]
    Parse(#[source] rcgen::Error),
    /// Signing failed.
    #[error("can't sign the certificate request")]
    Request(#[source] rcgen::Error),
}

/// An ECDSA P-256 key pair.
pub struct Keypair {
    pair: KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Keypair {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        let pkcs8 = Zeroizing::new(pair.serialize_der());
        Ok(Self { pair, pkcs8 })
    }

    /// Reads a key from its PKCS#8 form.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)
            .map_err(KeyError::Parse)?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// A request for a certificate, in DER. It proves possession of the key and names nobody: who its holder is, the
    /// authority decides.
    ///
    /// # Errors
    /// When signing fails.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.pair).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// The public point, uncompressed.
    #[must_use]
    pub fn public_point(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    /// The private key in PKCS#8 form, for the file or the TLS library.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn rcgen(&self) -> &KeyPair {
        &self.pair
    }
}

impl Drop for Keypair {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.pair);
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keypair(..)")
    }
}
