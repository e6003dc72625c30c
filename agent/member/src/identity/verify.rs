//! How peers' certificates are judged during the TLS handshake. The library proves that the peer holds its key; who
//! signed the certificate, for whom, until when, and whether its holder was removed is decided here.

use std::fmt;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::watch;

use super::certificate::{CaCertificate, CaFingerprint, CertFault, PeerCert};
use super::name::{ClusterName, MemberName, Role};
use super::time::TrustedTime;
use crate::link::PeerTable;

/// Whom a dialer expects to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This very member.
    Member(Role, MemberName),
    /// Any member of the cluster: a client asks whoever answers.
    AnyMember,
}

/// What is known when a certificate is judged.
#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) cluster: ClusterName,
    pub(crate) ca: CaCertificate,
    pub(crate) time: TrustedTime,
    pub(crate) peers: watch::Receiver<Arc<PeerTable>>,
}

impl Judge {
    /// Judges whom this side dialed.
    pub(crate) fn judge(&self, leaf: &[u8]) -> Result<PeerCert, CertFault> {
        let cert = self.judge_caller(leaf)?;
        if self.peers.borrow().roster.refuses(&cert) { Err(CertFault::Removed) } else { Ok(cert) }
    }

    /// Judges who dialed this side: whom a takeover left behind is refused later, in words.
    fn judge_caller(&self, leaf: &[u8]) -> Result<PeerCert, CertFault> {
        let cert = self.ca.read_leaf(leaf)?;
        if cert.subject.peer.cluster != self.cluster {
            return Err(CertFault::OtherSubject);
        }
        if self.time.now() >= cert.not_after {
            return Err(CertFault::Expired);
        }
        if self.peers.borrow().roster.was_removed(&cert) {
            return Err(CertFault::Removed);
        }
        Ok(cert)
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

/// Only TLS 1.3 is offered; were it ever otherwise, no signature of 1.2 counts.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            no_tls12()
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, dss, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    };
}

/// Judges clients. A client without a certificate is let through the handshake: a joiner has none yet, and may then
/// do nothing but join.
pub(crate) struct ServerSideVerifier(pub(crate) Judge);

impl ClientCertVerifier for ServerSideVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.judge_caller(end_entity).map(|_| ClientCertVerified::assertion()).map_err(CertFault::to_tls)
    }

    signatures!();
}

impl fmt::Debug for ServerSideVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSideVerifier")
    }
}

/// Judges the member that a dialer reached.
pub(crate) struct ClientSideVerifier {
    pub(crate) judge: Judge,
    pub(crate) expected: Expected,
}

impl ServerCertVerifier for ClientSideVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cert = self.judge.judge(end_entity).map_err(CertFault::to_tls)?;
        let peer = &cert.subject.peer;
        let right = match &self.expected {
            Expected::Member(role, name) => peer.role == *role && peer.name == *name,
            Expected::AnyMember => peer.role.is_member(),
        };
        if right { Ok(ServerCertVerified::assertion()) } else { Err(CertFault::OtherSubject.to_tls()) }
    }

    signatures!();
}

impl fmt::Debug for ClientSideVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientSideVerifier({:?})", self.expected)
    }
}

/// Judges the appliance that a joiner reached: all it knows is the fingerprint in its token. Dates aren't judged, the
/// joiner's clock may never have been set.
pub(crate) struct PinnedCaVerifier {
    pub(crate) pin: CaFingerprint,
    pub(crate) cluster: ClusterName,
    /// The authority that matched the pin.
    pub(crate) found: Mutex<Option<CaCertificate>>,
}

impl ServerCertVerifier for PinnedCaVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let [ca] = intermediates else {
            return Err(CertFault::Malformed.to_tls());
        };
        let ca = CaCertificate::from_der(ca).map_err(CertFault::to_tls)?;
        if ca.fingerprint() != self.pin {
            return Err(CertFault::OtherCa.to_tls());
        }
        let peer = ca.read_leaf(end_entity).map_err(CertFault::to_tls)?.subject.peer;
        if peer.cluster != self.cluster || peer.role != Role::Appliance {
            return Err(CertFault::OtherSubject.to_tls());
        }
        *self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(ca);
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl fmt::Debug for PinnedCaVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedCaVerifier({})", self.pin)
    }
}
