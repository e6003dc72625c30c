//! The authority that nodes' QDevice clients trust: its key and certificate, the server's certificate, and the signing of
//! nodes' requests.
//!
//! It is not the appliance's own authority: certificates of this one name Corosync clusters, live as long as the stock
//! tools make them, and open nothing else.

use std::path::{Path, PathBuf};

use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tiebreaker_member::FileError;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_PKCS1_SHA256WITHRSA;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// What the stock client expects of the server's certificate.
const SERVER_NAME: &str = "Qnetd Server";

/// A request is a key and a signature; more than this is something else.
const MAX_REQUEST: usize = 8192;

/// What the authority can't do.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Its file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file has no usable key and certificate.
    #[error(
        "{path} is damaged ({what}): restore it from a backup, or move it away and set up every node's QDevice again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        what: &'static str,
    },
    /// There is none.
    #[error("there is no QDevice authority in {folder}: `corosync-qnetd-certutil -i` makes one")]
    Missing {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// There is one, of corosync-qnetd's own.
    #[error(
        "{folder} holds the certificates of a corosync-qnetd, which are not read in place: `tiebreaker-server qdevice adopt {folder} --into {folder}` takes them over"
    )]
    Nss {
        /// The folder of the NSS database.
        folder: PathBuf,
    },
    /// There is one already.
    #[error("there is a QDevice authority in {folder} already")]
    Exists {
        /// Its folder.
        folder: PathBuf,
    },
    /// The configuration names a folder, and the authority lies in another.
    #[error(
        "qdevice.authority is {folder}, but this appliance's QDevice authority lies in {elsewhere}: move it, mv {elsewhere} {folder}/"
    )]
    Elsewhere {
        /// The folder that is configured.
        folder: PathBuf,
        /// The authority's file.
        elsewhere: PathBuf,
    },
    /// Key and certificate that were brought along are of no use.
    #[error("the authority can't be taken over: {0}")]
    Unfit(&'static str),
    /// The request is no PKCS#10 request with an RSA key.
    #[error("this is no certificate request of corosync-qdevice-net-certutil (PKCS#10, RSA of 2048 bits or more)")]
    Request,
    /// The requester doesn't hold the key.
    #[error("the certificate request is not signed by its own key")]
    NotPossessed,
    /// The request is for another cluster.
    #[error(
        "the request is for cluster {found:?}, not {wanted:?}: make it with corosync-qdevice-net-certutil -r -n {wanted}"
    )]
    OtherCluster {
        /// The cluster that it was to be for.
        wanted: String,
        /// The name in it.
        found: String,
    },
    /// The system gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// Making a certificate failed.
    #[error("can't make the certificate")]
    Make(#[source] rcgen::Error),
}

/// The authority.
pub struct Pki {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// What the server shows and proves itself with.
pub struct ServerIdentity {
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivatePkcs8KeyDer<'static>,
}

impl Pki {
    /// A new authority. It is nowhere yet but in memory.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn create() -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Make)?;
        let mut params = named(authority_name(&key))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).map_err(PkiError::Make)?;
        Ok(Self { key, pem: certificate.pem(), certificate: certificate.der().clone() })
    }

    /// The authority whose key (PKCS#8) and certificate, both DER, were brought along.
    ///
    /// # Errors
    /// When they can't serve as one.
    pub fn adopt(key: &[u8], certificate: &[u8]) -> Result<Self, PkiError> {
        let pem = pem::encode(&Pem::new("CERTIFICATE", certificate));
        Self::from_parts(&PrivatePkcs8KeyDer::from(key), certificate.to_vec().into(), pem).map_err(PkiError::Unfit)
    }

    /// The authority in the text of its file.
    pub(crate) fn from_pem(path: &Path, text: &str) -> Result<Self, PkiError> {
        let damaged = |what| PkiError::Damaged { path: path.to_owned(), what };
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| damaged("there is no private key in it"))?;
        let certificate =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged("there is no certificate in it"))?;
        let at = text.find("-----BEGIN CERTIFICATE").ok_or_else(|| damaged("there is no certificate in it"))?;
        let pem = text.get(at..).unwrap_or_default().to_owned();
        Self::from_parts(&key, certificate, pem).map_err(damaged)
    }

    fn from_parts(
        key: &PrivatePkcs8KeyDer<'_>,
        certificate: CertificateDer<'static>,
        pem: String,
    ) -> Result<Self, &'static str> {
        // ECDSA by ourselves; RSA by corosync-qnetd-certutil.
        let key = KeyPair::try_from(key).map_err(|_| "its private key is unreadable")?;
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&certificate) else {
            return Err("its certificate is unreadable");
        };
        if !parsed.is_ca() {
            return Err("its certificate is no authority's");
        }
        if parsed.public_key().subject_public_key.as_ref() != key.public_key_raw() {
            return Err("its key doesn't match its certificate");
        }
        Ok(Self { key, certificate, pem })
    }

    /// The text of its file: key and certificate.
    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.key.serialize_pem());
        text.push_str(&self.pem);
        text
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate as the nodes' tools read it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// When the authority's certificate ends, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> Option<i64> {
        super::tls::ends_at(&self.certificate)
    }

    /// What tells this authority from others: the SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hash = digest(&SHA256, &self.certificate);
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A certificate and key for the server itself; made anew at each start, because nodes trust the authority. So it is
    /// with an adopted one: the old server's own key is not needed.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn server(&self) -> Result<ServerIdentity, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Make)?;
        let params = named(common_name(SERVER_NAME))?;
        let certificate = params.signed_by(&key, &self.issuer()?).map_err(PkiError::Make)?.der().clone();
        Ok(ServerIdentity { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }

    /// Signs a node's request for a cluster, PEM or DER, and gives the certificate as PEM. Of the request nothing but the
    /// public key is used.
    ///
    /// # Errors
    /// When the request is bad, or for another cluster.
    pub fn sign(&self, request: &[u8], cluster: &str) -> Result<String, PkiError> {
        if request.len() > MAX_REQUEST {
            return Err(PkiError::Request);
        }
        let unwrapped = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(request);
        let request = unwrapped.as_ref().map_or(request, |der| der.as_ref());
        let Ok(([], parsed)) = X509CertificationRequest::from_der(request) else {
            return Err(PkiError::Request);
        };
        let info = &parsed.certification_request_info;
        if parsed.signature_algorithm.algorithm != OID_PKCS1_SHA256WITHRSA {
            return Err(PkiError::Request);
        }
        let spki = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| PkiError::Request)?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, info.subject_pki.subject_public_key.as_ref())
            .verify(info.raw, &parsed.signature_value.data)
            .map_err(|_| PkiError::NotPossessed)?;
        let names = info.subject.iter_common_name().filter_map(|name| name.as_str().ok());
        let found = names.last().unwrap_or_default();
        if !found.eq_ignore_ascii_case(cluster) {
            return Err(PkiError::OtherCluster { wanted: cluster.into(), found: found.escape_debug().to_string() });
        }
        let params = named(common_name(cluster))?;
        Ok(params.signed_by(&spki, &self.issuer()?).map_err(PkiError::Make)?.pem())
    }

    /// Signs under the name that the certificate has, byte by byte: an adopted one is of another maker.
    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, PkiError> {
        Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(PkiError::Make)
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pki(..)")
    }
}

/// The name carries the key's beginning: NSS refuses two authorities of one name.
fn authority_name(key: &KeyPair) -> DistinguishedName {
    let start: String = key.public_key_raw().iter().skip(1).take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "QNet CA");
    name.push(DnType::OrganizationName, format!("Tiebreaker appliance {start}"));
    name
}

/// A certificate of this name. It is good for a hundred years, as the stock tools make them: no stock node renews its
/// certificate, and a Pi may not know the date.
fn named(name: DistinguishedName) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
