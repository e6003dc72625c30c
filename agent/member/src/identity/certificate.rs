//! Certificates as this project reads them: signed by one authority directly, naming one subject.

use std::fmt;
use std::sync::Arc;

use ring::digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::CertificateError;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::name::Subject;

/// Bytes of the authority's fingerprint: 160 bits of SHA-256, far beyond any search, and short enough for a token
/// that people paste.
const FINGERPRINT_LEN: usize = 20;

/// Why a peer's certificate is refused. Both sides of a connection see the same fault: the refused one reads it off
/// the TLS alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertFault {
    /// The certificate, or the authority that signed it, isn't the one that this side trusts.
    #[error(
        "the certificate was signed by another appliance's authority: check that address and cluster are right; after a new appliance was set up, join again with a new token"
    )]
    OtherCa,
    /// Past its end.
    #[error(
        "the certificate has expired: join again with a new token (and check the clocks of both machines, if one runs ahead)"
    )]
    Expired,
    /// Its holder was removed from the cluster.
    #[error("its holder was removed from the cluster: to come back, join again with a new token")]
    Removed,
    /// It is good, but for another cluster, role or name than expected here.
    #[error(
        "the certificate is for another cluster, role or name than this connection is for: check the address and the cluster's name"
    )]
    OtherSubject,
    /// It isn't a certificate of this project, or is damaged.
    #[error("the certificate is not one that Tiebreaker made, or its file is damaged: join again with a new token")]
    Malformed,
}

impl CertFault {
    /// As the TLS library's error, from which it chooses the alert that the peer sees.
    pub(crate) fn to_tls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::OtherCa => CertificateError::UnknownIssuer,
            Self::Expired => CertificateError::Expired,
            Self::Removed => CertificateError::Revoked,
            Self::OtherSubject => CertificateError::ApplicationVerificationFailure,
            Self::Malformed => CertificateError::BadEncoding,
        })
    }

    /// Reads the fault back, from this side's own refusal or from the peer's alert. The flag is true when the peer
    /// refused our certificate, false when we refused the peer's.
    pub(crate) fn from_tls(error: &rustls::Error) -> Option<(Self, bool)> {
        use rustls::AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(reason) => match reason {
                CertificateError::UnknownIssuer => Some((Self::OtherCa, false)),
                CertificateError::Expired => Some((Self::Expired, false)),
                CertificateError::Revoked => Some((Self::Removed, false)),
                CertificateError::ApplicationVerificationFailure => Some((Self::OtherSubject, false)),
                _ => Some((Self::Malformed, false)),
            },
            rustls::Error::AlertReceived(alert) => match alert {
                Alert::UnknownCA => Some((Self::OtherCa, true)),
                Alert::CertificateExpired => Some((Self::Expired, true)),
                Alert::CertificateRevoked => Some((Self::Removed, true)),
                Alert::AccessDenied => Some((Self::OtherSubject, true)),
                Alert::BadCertificate => Some((Self::Malformed, true)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A certificate's serial number, 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A serial from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, most significant first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a certificate that was checked against the authority says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCert {
    /// Who its holder is.
    pub subject: Subject,
    /// Its serial number.
    pub serial: Serial,
    /// Its holder's key, as [`request_key`](super::request_key) tells it.
    pub key: String,
    /// When it was made, seconds since 1970. Nobody is refused for it: clocks run behind more often than certificates
    /// come from the future.
    pub not_before: u64,
    /// When it ends, seconds since 1970.
    pub not_after: u64,
}

/// The fingerprint of an authority's public key: the first 160 bits of the SHA-256 of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaFingerprint([u8; FINGERPRINT_LEN]);

impl CaFingerprint {
    pub(crate) const LEN: usize = FINGERPRINT_LEN;

    pub(crate) const fn from_bytes(bytes: [u8; FINGERPRINT_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; FINGERPRINT_LEN] {
        &self.0
    }
}

impl fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The authority as its members know it: one certificate, trusted for its key alone.
#[derive(Clone)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    point: Arc<[u8]>,
    fingerprint: CaFingerprint,
}

impl CaCertificate {
    /// Reads an authority's certificate: an ECDSA P-256 key that signed itself.
    ///
    /// # Errors
    /// [`CertFault::Malformed`] when it is anything else.
    pub fn from_der(der: &[u8]) -> Result<Self, CertFault> {
        let cert = parse(der)?;
        let is_ca = cert.basic_constraints().ok().flatten().is_some_and(|ext| ext.value.ca);
        if !is_ca {
            return Err(CertFault::Malformed);
        }
        let point = p256_point(cert.public_key())?;
        verify_signed_by(&cert, point).map_err(|_| CertFault::Malformed)?;
        let hash = digest::digest(&digest::SHA256, cert.public_key().raw);
        let mut short = [0; FINGERPRINT_LEN];
        short.copy_from_slice(&hash.as_ref()[..FINGERPRINT_LEN]);
        Ok(Self { point: Arc::from(point), fingerprint: CaFingerprint(short), der: CertificateDer::from(der.to_vec()) })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The fingerprint that tokens pin.
    #[must_use]
    pub fn fingerprint(&self) -> CaFingerprint {
        self.fingerprint
    }

    pub(super) fn point(&self) -> &[u8] {
        &self.point
    }

    /// Checks that `leaf` was signed by this authority's key and reads what it says. Its dates aren't judged here.
    ///
    /// # Errors
    /// [`CertFault::OtherCa`] or [`CertFault::Malformed`].
    pub fn read_leaf(&self, leaf: &[u8]) -> Result<PeerCert, CertFault> {
        let cert = parse(leaf)?;
        verify_signed_by(&cert, &self.point)?;
        read_signed(&cert)
    }
}

impl PartialEq for CaCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.point == other.point
    }
}

impl Eq for CaCertificate {}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificate({})", self.fingerprint)
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertFault> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) | Err(_) => Err(CertFault::Malformed),
    }
}

/// The public point of a P-256 key; any other kind of key is refused.
pub(super) fn p256_point<'a>(spki: &'a SubjectPublicKeyInfo<'_>) -> Result<&'a [u8], CertFault> {
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(CertFault::Malformed);
    }
    Ok(&spki.subject_public_key.data)
}

/// By what a key is known: its SHA-256, in hex.
pub(super) fn key_of(spki: &SubjectPublicKeyInfo<'_>) -> String {
    let hash = digest::digest(&digest::SHA256, spki.raw);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verify_signed_by(cert: &X509Certificate<'_>, point: &[u8]) -> Result<(), CertFault> {
    if cert.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        || cert.tbs_certificate.signature.algorithm != OID_SIG_ECDSA_WITH_SHA256
    {
        return Err(CertFault::OtherCa);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(cert.tbs_certificate.as_ref(), &cert.signature_value.data)
        .map_err(|_| CertFault::OtherCa)
}

fn read_signed(cert: &X509Certificate<'_>) -> Result<PeerCert, CertFault> {
    p256_point(cert.public_key())?;
    // The authority makes leaves alone, so whatever may sign others isn't its work.
    if cert.basic_constraints().map_err(|_| CertFault::Malformed)?.is_some_and(|ext| ext.value.ca) {
        return Err(CertFault::Malformed);
    }
    let san = cert.subject_alternative_name().map_err(|_| CertFault::Malformed)?.ok_or(CertFault::Malformed)?;
    let [GeneralName::URI(uri)] = san.value.general_names.as_slice() else {
        return Err(CertFault::Malformed);
    };
    let subject = Subject::from_uri(uri).map_err(|_| CertFault::Malformed)?;
    let serial = cert.tbs_certificate.raw_serial();
    let digits = serial.strip_prefix(&[0]).unwrap_or(serial);
    let mut bytes = [0; 16];
    let start = bytes.len().checked_sub(digits.len()).ok_or(CertFault::Malformed)?;
    bytes[start..].copy_from_slice(digits);
    let validity = cert.validity();
    Ok(PeerCert {
        subject,
        serial: Serial(bytes),
        key: key_of(cert.public_key()),
        not_before: u64::try_from(validity.not_before.timestamp()).unwrap_or(0),
        // A date before 1970 is long past: zero expires it.
        not_after: u64::try_from(validity.not_after.timestamp()).unwrap_or(0),
    })
}
