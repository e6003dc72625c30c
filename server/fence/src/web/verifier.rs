//! A server is who shows a pinned certificate and can sign with its key. Nothing else in the certificate counts: BMCs make
//! their own, long expired ones, without names, of X.509 version 1.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime},
};
use x509_parser::{
    asn1_rs::Any,
    prelude::{FromDer, X509Certificate},
};

use super::pin::{Fingerprint, Pins};

/// Judges one handshake.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pins: Pins,
    algorithms: WebPkiSupportedAlgorithms,
    refused: OnceLock<Fingerprint>,
}

impl PinVerifier {
    pub(crate) fn new(pins: Pins) -> Arc<Self> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { pins, algorithms, refused: OnceLock::new() })
    }

    /// The settings of one connection.
    ///
    /// # Errors
    /// Never with the provider that is built in.
    pub(crate) fn client(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        // A resumed session shows no certificate.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The certificate that was shown and isn't pinned.
    pub(crate) fn refused(&self) -> Option<Fingerprint> {
        self.refused.get().copied()
    }

    /// Checks a signature with one of the algorithms that its scheme stands for and the certificate's key fits.
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        choices: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = |error| Error::InvalidCertificate(error);
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
        let spki = &parsed.tbs_certificate.subject_pki;
        let key_kind = algorithm_id(spki.raw).ok_or_else(|| bad(CertificateError::BadEncoding))?;
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let fitting: Option<&&dyn SignatureVerificationAlgorithm> = known.and_then(|(_, algorithms)| {
            algorithms.iter().take(choices).find(|algorithm| algorithm.public_key_alg_id().as_ref() == key_kind)
        });
        let algorithm = fitting.ok_or_else(|| bad(CertificateError::BadSignature))?;
        algorithm
            .verify_signature(&spki.subject_public_key.data, message, signed.signature())
            .map_err(|_| bad(CertificateError::BadSignature))?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Fingerprint::of(certificate);
        if self.pins.allow(shown) {
            return Ok(ServerCertVerified::assertion());
        }
        // The first that was shown is the one to name; there is but one in a handshake.
        let _ = self.refused.set(shown);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signed, usize::MAX)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use SignatureScheme as S;
        // RFC 8446, section 4.2.3: no PKCS#1 v1.5, and each ECDSA scheme names its curve, which the first algorithm is.
        let allowed = [
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::ED25519,
        ];
        if !allowed.contains(&signed.scheme) {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        self.verify(message, certificate, signed, 1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The content of the AlgorithmIdentifier at the head of a SubjectPublicKeyInfo (RFC 5280, section 4.1).
fn algorithm_id(spki: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Any::from_der(spki).ok()?;
    let (_, inner) = Any::from_der(outer.data).ok()?;
    Some(inner.data)
}
