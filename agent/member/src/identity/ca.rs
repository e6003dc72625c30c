//! The appliance's certificate authority: one key for all of its clusters.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::certificate::{CaCertificate, CertFault, PeerCert, key_of, p256_point};
use super::credentials::{Identity, pem_block, pem_key};
use super::files::{FileError, read_private, replace_private};
use super::key::{KeyError, Keypair};
use super::name::Subject;
use super::time::EARLIEST_PLAUSIBLE;

/// How long a certificate is good for: 90 days, so that a forgotten one ends by itself, renewed at 60.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(90 * 86_400);

const FILE: &str = "ca.pem";

/// A request for a certificate is a key and a signature; more than this is something else.
const MAX_CSR: usize = 4096;

/// 9999-01-01T00:00:00Z: dates in certificates end with that year.
const LAST_DATE: u64 = 253_370_764_800;

/// What the authority can't do.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is one already, and a new one would lock every member out.
    #[error("{0} already holds an authority: to start anew, move it away; every member then has to join again")]
    Exists(PathBuf),
    /// Its file has no usable key and certificate.
    #[error("{path} is damaged ({what}): restore it from the appliance's backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        what: &'static str,
    },
    /// A key can't be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The request is no PKCS#10 request with a P-256 key.
    #[error("the certificate request is malformed or its key is not ECDSA P-256")]
    Request,
    /// The requester doesn't hold the key.
    #[error("the certificate request is not signed by its own key")]
    NotPossessed,
    /// The machine doesn't know the date, so a certificate made now would have expired elsewhere.
    #[error("this machine's clock says it is before 2026: set it (timedatectl set-ntp true, or date -s) and try again")]
    ClockUnset,
    /// The clock stands at a date that no certificate can carry.
    #[error("this machine's clock says it is after the year 9998: set it and try again")]
    ClockAbsurd,
    /// Making the certificate failed.
    #[error("can't make the certificate")]
    Sign(#[source] rcgen::Error),
}

/// The time to sign by: the authority's own trusted time, or, where it stands before 2026 because the board has no
/// clock, the time of a joiner who has shown a good token.
#[must_use]
pub fn signing_time(own: u64, joiner: u64) -> u64 {
    if own >= EARLIEST_PLAUSIBLE { own } else { joiner.max(own) }
}

/// The certificate authority: an ECDSA P-256 key and the certificate that names it.
pub struct Ca {
    key: Keypair,
    certificate: CaCertificate,
    issuer: DistinguishedName,
}

impl Ca {
    /// Makes an authority and stores it in `dir`.
    ///
    /// # Errors
    /// When there is one already, or the file can't be written.
    pub fn create(dir: &Path) -> Result<Self, CaError> {
        let path = vacant(dir)?;
        let ca = Self::new_in_memory()?;
        replace_private(&path, ca.to_pem().as_bytes())?;
        Ok(ca)
    }

    /// Stores in `dir` an authority that [`Ca::to_pem`] wrote elsewhere: the restored appliance is known to all nodes.
    ///
    /// # Errors
    /// When there is one already, the text is damaged, or the file can't be written.
    pub fn restore(dir: &Path, pem: &str) -> Result<Self, CaError> {
        let path = vacant(dir)?;
        let ca = Self::from_pem(&path, pem)?;
        replace_private(&path, ca.to_pem().as_bytes())?;
        Ok(ca)
    }

    /// Makes an authority that is stored nowhere yet.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new_in_memory() -> Result<Self, CaError> {
        let key = Keypair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = issuer_name(&key);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(random_serial()?);
        // The authority is trusted for its key; its dates are never looked at.
        params.not_before = date_time_ymd(1970, 1, 2);
        params.not_after = date_time_ymd(9999, 12, 31);
        let cert = params.self_signed(key.rcgen()).map_err(CaError::Sign)?;
        let certificate = CaCertificate::from_der(cert.der()).map_err(|_| CaError::Request)?;
        Ok(Self { issuer: params.distinguished_name, key, certificate })
    }

    /// Loads the authority from `dir`.
    ///
    /// # Errors
    /// When its file is missing, open to others, or damaged.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let path = dir.join(FILE);
        let text = read_private(&path, "run 'tiebreaker-server init', or restore the appliance's backup")?;
        Self::from_pem(&path, &text)
    }

    fn from_pem(path: &Path, text: &str) -> Result<Self, CaError> {
        let damaged = |what| CaError::Damaged { path: path.to_owned(), what };
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| damaged("there is no private key in it"))?;
        let key = Keypair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| damaged("its private key is unreadable"))?;
        let cert =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged("there is no certificate in it"))?;
        let certificate = CaCertificate::from_der(&cert).map_err(|_| damaged("its certificate is unreadable"))?;
        if certificate.point() != key.public_point() {
            return Err(damaged("its key doesn't match its certificate"));
        }
        Ok(Self { issuer: issuer_name(&key), key, certificate })
    }

    /// What members need to know of it.
    #[must_use]
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// Signs a certificate for the key in `csr`, valid from `now` (seconds since 1970) for `validity`. Of the request
    /// nothing but the public key is used.
    ///
    /// # Errors
    /// When the request is bad, or `now` shows that the clock was never set.
    pub fn sign(
        &self,
        csr: &[u8],
        subject: &Subject,
        now: u64,
        validity: Duration,
    ) -> Result<CertificateDer<'static>, CaError> {
        if now < EARLIEST_PLAUSIBLE {
            return Err(CaError::ClockUnset);
        }
        let spki = public_key_of(csr)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.peer.name.as_str());
        let uri = subject.to_uri().try_into().map_err(CaError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(random_serial()?);
        let end = now.saturating_add(validity.as_secs());
        if end > LAST_DATE {
            return Err(CaError::ClockAbsurd);
        }
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(now);
        params.not_after = epoch + Duration::from_secs(end);
        // Leaves need no more of the issuer than its name and key.
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = self.issuer.clone();
        issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = Issuer::from_params(&issuer, self.key.rcgen());
        let cert = params.signed_by(&spki, &issuer).map_err(CaError::Sign)?;
        Ok(cert.der().clone())
    }

    /// Makes a key and a certificate for this machine itself: the appliance's own leaf in one of its clusters.
    ///
    /// # Errors
    /// As [`Ca::sign`].
    pub fn issue(&self, subject: &Subject, now: u64, validity: Duration) -> Result<Identity, CaError> {
        let key = Keypair::generate()?;
        let leaf = self.sign(&key.csr()?, subject, now, validity)?;
        Identity::new(key, &leaf, self.certificate.clone()).map_err(|_| CaError::Request)
    }

    /// Checks that `leaf` is this authority's work and reads it.
    ///
    /// # Errors
    /// As [`CaCertificate::read_leaf`].
    pub fn read_leaf(&self, leaf: &[u8]) -> Result<PeerCert, CertFault> {
        self.certificate.read_leaf(leaf)
    }

    /// Key and certificate as text, for the appliance's encrypted backup and its own file.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut text = pem_key(&self.key);
        text.push_str(&pem_block("CERTIFICATE", self.certificate.der()));
        text
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({})", self.certificate.fingerprint())
    }
}

fn vacant(dir: &Path) -> Result<PathBuf, CaError> {
    let path = dir.join(FILE);
    match path.try_exists() {
        Ok(false) => Ok(path),
        Ok(true) => Err(CaError::Exists(path)),
        Err(source) => Err(FileError::Io { action: "examine", path, source }.into()),
    }
}

/// The name carries the key's beginning, so that two authorities can be told apart by people with openssl.
fn issuer_name(key: &Keypair) -> DistinguishedName {
    let point = key.public_point();
    let start: String = point.iter().skip(1).take(4).map(|b| format!("{b:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("Tiebreaker appliance {start}"));
    name
}

fn random_serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(CaError::Random)?;
    Ok(SerialNumber::from_slice(&bytes))
}

/// SHA-256 of the public key in a certificate request, in hex, after the request's own signature was checked: by it a
/// member is known for as long as it keeps its key.
///
/// # Errors
/// When the request is bad or was not made by the key's holder.
pub fn request_key(csr: &[u8]) -> Result<String, CaError> {
    public_key_of(csr)?;
    let Ok((_, request)) = X509CertificationRequest::from_der(csr) else {
        return Err(CaError::Request);
    };
    Ok(key_of(&request.certification_request_info.subject_pki))
}

fn public_key_of(csr: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    if csr.len() > MAX_CSR {
        return Err(CaError::Request);
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(csr) else {
        return Err(CaError::Request);
    };
    let info = &request.certification_request_info;
    let point = p256_point(&info.subject_pki).map_err(|_| CaError::Request)?;
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(CaError::Request);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| CaError::NotPossessed)?;
    SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CaError::Request)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn subject(uri: &str) -> Subject {
        Subject::from_uri(uri).unwrap()
    }

    #[test]
    fn a_leaf_says_what_the_authority_decided() {
        let ca = Ca::new_in_memory().unwrap();
        let subject = subject("tiebreaker://home/node/pve1?id=7");
        let csr = Keypair::generate().unwrap().csr().unwrap();
        let leaf = ca.sign(&csr, &subject, NOW, LEAF_VALIDITY).unwrap();
        let read = ca.read_leaf(&leaf).unwrap();
        assert_eq!(read.subject, subject);
        assert_eq!(read.not_before, NOW);
        assert_eq!(read.not_after, NOW + LEAF_VALIDITY.as_secs());
        let again = ca.read_leaf(&ca.sign(&csr, &subject, NOW, LEAF_VALIDITY).unwrap()).unwrap();
        assert_ne!(again.serial, read.serial);
    }

    #[test]
    fn what_a_request_asks_for_beyond_its_key_is_ignored() {
        let ca = Ca::new_in_memory().unwrap();
        let key = Keypair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![SanType::URI("tiebreaker://home/appliance/pi".try_into().unwrap())];
        let csr = params.serialize_request(key.rcgen()).unwrap();
        let leaf = ca.sign(csr.der(), &subject("tiebreaker://home/observer/eve"), NOW, LEAF_VALIDITY).unwrap();
        assert_eq!(ca.read_leaf(&leaf).unwrap().subject.to_uri(), "tiebreaker://home/observer/eve");
    }

    #[test]
    fn a_request_must_be_signed_by_its_own_key() {
        let ca = Ca::new_in_memory().unwrap();
        let mut csr = Keypair::generate().unwrap().csr().unwrap();
        let other = Keypair::generate().unwrap();
        let point = other.public_point().to_vec();
        let at = csr.windows(2).position(|w| w == [0x00, 0x04]).unwrap() + 1;
        csr[at..at + point.len()].copy_from_slice(&point);
        let error = ca.sign(&csr, &subject("tiebreaker://h/node/a"), NOW, LEAF_VALIDITY).unwrap_err();
        assert!(matches!(error, CaError::NotPossessed), "{error}");
        for junk in [&[][..], &[0x30, 0x80], &[0; 5000]] {
            let error = ca.sign(junk, &subject("tiebreaker://h/node/a"), NOW, LEAF_VALIDITY).unwrap_err();
            assert!(matches!(error, CaError::Request), "{error}");
        }
    }

    #[test]
    fn other_authorities_and_authorities_as_leaves_are_refused() {
        let (ca, other) = (Ca::new_in_memory().unwrap(), Ca::new_in_memory().unwrap());
        let csr = Keypair::generate().unwrap().csr().unwrap();
        let leaf = ca.sign(&csr, &subject("tiebreaker://h/node/a"), NOW, LEAF_VALIDITY).unwrap();
        assert_eq!(other.read_leaf(&leaf), Err(CertFault::OtherCa));
        assert_eq!(ca.read_leaf(ca.certificate().der()), Err(CertFault::Malformed));
        assert!(CaCertificate::from_der(&leaf).is_err());
        let mut bent = leaf.to_vec();
        let at = bent.windows(4).position(|w| w == b"node").unwrap();
        bent[at..at + 4].copy_from_slice(b"nope");
        assert_eq!(ca.read_leaf(&bent), Err(CertFault::OtherCa));
    }

    #[test]
    fn an_unset_clock_signs_nothing_but_a_joiners_clock_helps() {
        let ca = Ca::new_in_memory().unwrap();
        let csr = Keypair::generate().unwrap().csr().unwrap();
        let who = subject("tiebreaker://h/node/a");
        assert!(matches!(ca.sign(&csr, &who, 5, LEAF_VALIDITY), Err(CaError::ClockUnset)));
        assert!(matches!(ca.sign(&csr, &who, u64::MAX - 1, LEAF_VALIDITY), Err(CaError::ClockAbsurd)));
        assert_eq!(signing_time(5, NOW), NOW);
        assert_eq!(signing_time(NOW, NOW + 9_999_999), NOW, "a joiner can't move a clock that is set");
    }

    #[test]
    fn an_authority_survives_its_file_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create(dir.path()).unwrap();
        assert!(matches!(Ca::create(dir.path()), Err(CaError::Exists(_))));
        let loaded = Ca::load(dir.path()).unwrap();
        assert_eq!(loaded.certificate(), ca.certificate());
        let csr = Keypair::generate().unwrap().csr().unwrap();
        let leaf = loaded.sign(&csr, &subject("tiebreaker://h/node/a"), NOW, LEAF_VALIDITY).unwrap();
        assert!(ca.read_leaf(&leaf).is_ok());
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(Ca::restore(elsewhere.path(), &ca.to_pem()).unwrap().certificate(), ca.certificate());
    }

    #[test]
    fn a_damaged_authority_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Ca::new_in_memory().unwrap(), Ca::new_in_memory().unwrap());
        let mixed = pem_key(&one.key).to_string() + &pem_block("CERTIFICATE", two.certificate.der());
        for text in [mixed.as_str(), "", "hello", &pem_key(&one.key)] {
            replace_private(&dir.path().join(FILE), text.as_bytes()).unwrap();
            assert!(matches!(Ca::load(dir.path()), Err(CaError::Damaged { .. })));
        }
    }
}
