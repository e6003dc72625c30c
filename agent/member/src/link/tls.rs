//! TLS as this project uses it: 1.3 alone, our own judgement of certificates, no resumption.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, version};
use rustls_pki_types::ServerName;

use super::error::LinkError;
use crate::identity::{
    CertFault, ClientSideVerifier, ClusterName, Expected, Identity, Judge, PinnedCaVerifier, ServerSideVerifier,
};
use crate::wire::StreamError;

/// The protocol's name in the TLS handshake.
pub(super) const ALPN: &[u8] = b"tiebreaker/1";

/// Certificates are asked for by cluster: a cluster's name is one DNS label, this makes it a host name that exists
/// nowhere (RFC 6761).
const SUFFIX: &str = ".tiebreaker.invalid";

/// The server name that asks for a cluster.
pub(super) fn server_name(cluster: &ClusterName) -> ServerName<'static> {
    ServerName::try_from(format!("{cluster}{SUFFIX}")).expect("a cluster's name is one DNS label")
}

/// The cluster that a server name asks for.
pub(super) fn asked_cluster(server_name: &str) -> Option<ClusterName> {
    server_name.strip_suffix(SUFFIX)?.parse().ok()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For the side that was dialed. A session that could be resumed would skip the judgement of certificates, so none
/// is stored and no ticket given.
pub(super) fn server_config(identity: &Identity, judge: Judge) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("the ring provider has cipher suites for TLS 1.3")
        .with_client_cert_verifier(Arc::new(ServerSideVerifier(judge)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Refuses the handshake with an alert that dialers read as "that cluster isn't served here".
pub(super) fn refusing_config() -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("the ring provider has cipher suites for TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .expect("the ring provider has cipher suites for TLS 1.3")
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// For the side that dials with a certificate.
pub(super) fn client_config(identity: &Identity, judge: Judge, expected: Expected) -> Arc<ClientConfig> {
    finish(
        client_builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ClientSideVerifier { judge, expected }))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()))),
    )
}

/// For a joiner, who has no certificate and knows the authority's fingerprint.
pub(super) fn joiner_config(verifier: Arc<PinnedCaVerifier>) -> Arc<ClientConfig> {
    finish(client_builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// What an I/O error on a TLS stream with `at` means. Refused certificates show up here, because the library hands
/// its own errors and the peer's alerts through as I/O errors.
pub(super) fn explain(at: &str, error: io::Error) -> LinkError {
    let at = at.to_owned();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => match CertFault::from_tls(tls) {
            Some((fault, false)) => LinkError::PeerCertificate { at, fault },
            Some((fault, true)) => LinkError::OwnCertificate { at, fault },
            None => match tls {
                rustls::Error::InvalidMessage(_)
                | rustls::Error::PeerIncompatible(_)
                | rustls::Error::NoApplicationProtocol
                | rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
                    LinkError::NotTiebreaker { at }
                }
                other => LinkError::Tls { at, source: other.clone() },
            },
        },
        None if error.kind() == io::ErrorKind::UnexpectedEof => LinkError::Closed { at },
        None => LinkError::Io { at, source: error },
    }
}

/// The same for errors of the framing.
pub(super) fn explain_stream(at: &str, error: StreamError) -> LinkError {
    match error {
        StreamError::Io(error) => explain(at, error),
        StreamError::Frame(source) => LinkError::Frame { at: at.to_owned(), source },
    }
}
