//! TLS with stock QDevice clients, as a state machine over bytes.
//!
//! They name the server "Qnetd Server", with a space, in their first message, and rustls 0.23 refuses that; so this module,
//! and no other, uses the version that can be told to take no notice. See docs/adr/0007.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_next::crypto::Identity;
use rustls_next::enums::ProtocolVersion;
use rustls_next::server::{InvalidSniPolicy, NoServerSessionStorage, ServerConfig, ServerSide, WebPkiClientVerifier};
use rustls_next::time_provider::TimeProvider;
use rustls_next::{Connection, RootCertStore, SliceInput, Tcp};
use rustls_pki_types::{PrivateKeyDer, UnixTime};
use serde::{Deserialize, Serialize};
use tiebreaker_member::EARLIEST_PLAUSIBLE;
use tiebreaker_qnetd::PeerNames;
use x509_parser::extensions::GeneralName;

use super::pki::{Pki, PkiError};
use super::records::{Keys, RecordError, Records};

/// What has come and can't be read yet is never more: a record has 16 kB, a handshake's message the rest.
const MAX_UNREAD: usize = 64 * 1024;

/// And not so much before the peer has proven who it is: the stock client's whole handshake has less than 3 kB.
const MAX_UNPROVEN: usize = 16 * 1024;

/// What makes TLS impossible.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is no certificate to show.
    #[error("can't make the server's certificate")]
    Pki(#[from] PkiError),
    /// The library refuses it.
    #[error("can't set TLS up")]
    SetUp(#[source] rustls_next::Error),
    /// The authority can't be trusted.
    #[error("the QDevice authority's certificate is unusable: {0}")]
    Authority(String),
    /// The peer broke the protocol, or its certificate is refused.
    #[error("TLS with the peer failed")]
    Peer(#[source] rustls_next::Error),
    /// A connection that was handed over can't go on.
    #[error(transparent)]
    Record(RecordError),
    /// It is over, by the peer's word.
    #[error("the peer took its leave")]
    Farewell,
    /// The peer sends what never becomes a record.
    #[error("the peer's TLS messages are too long")]
    TooLong,
}

impl From<RecordError> for TlsError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Closed => Self::Farewell,
            RecordError::Forged | RecordError::Unexpected | RecordError::UsedUp | RecordError::Keys => {
                Self::Record(error)
            }
        }
    }
}

/// The wall clock, but never a date before this software was written: a Pi without a clock starts anywhere, and would refuse
/// every certificate as not yet valid.
#[derive(Debug)]
struct Plausible;

impl TimeProvider for Plausible {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = Duration::from_secs(EARLIEST_PLAUSIBLE);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(floor);
        Some(UnixTime::since_unix_epoch(now.max(floor)))
    }
}

/// Shared by all connections.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// A server that shows a certificate of this authority, and wants one of it, if `required`; else it takes none, too.
    ///
    /// # Errors
    /// When the authority is unusable.
    pub fn new(pki: &Pki, required: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls_ring::DEFAULT_PROVIDER);
        let mut roots = RootCertStore::empty();
        roots.add(pki.certificate().clone()).map_err(TlsError::SetUp)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots), &provider);
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let verifier = verifier.build().map_err(|error| TlsError::Authority(error.to_string()))?;
        let server = pki.server()?;
        let identity =
            Identity::from_cert_chain(vec![server.certificate]).map_err(|misuse| TlsError::SetUp(misuse.into()))?;
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(Plausible))
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(Arc::new(identity), PrivateKeyDer::Pkcs8(server.key))
            .map_err(TlsError::SetUp)?;
        config.invalid_sni_policy = InvalidSniPolicy::IgnoreAll;
        // Stock clients resume nothing: no memory for it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets.default = 0;
        config.send_tls13_tickets.max = 0;
        // At the end of this process its connections go to the next one.
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config) })
    }

    /// A new connection.
    ///
    /// # Errors
    /// When the settings don't fit together.
    pub fn accept(&self) -> Result<TlsStream, TlsError> {
        let connection = Connection::<ServerSide, Tcp>::new(Arc::clone(&self.config)).map_err(TlsError::SetUp)?;
        Ok(TlsStream { layer: Layer::Library(Box::new(connection)), unread: Vec::new() })
    }
}

enum Layer {
    Library(Box<Connection<ServerSide, Tcp>>),
    /// Another process has shaken hands.
    Kept(Box<Records>),
}

/// One connection's encryption.
pub struct TlsStream {
    layer: Layer,
    unread: Vec<u8>,
}

/// A connection's encryption on its way to the next process.
#[derive(Serialize, Deserialize)]
pub struct KeptTls {
    receive: Keys,
    send: Keys,
    unread: Vec<u8>,
}

impl std::fmt::Debug for KeptTls {
    /// Keys are never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptTls(..)")
    }
}

impl TlsStream {
    /// Takes bytes of the peer's in. What it says goes to `plain`, what must be sent to it to `out`, also in case of an
    /// error: the peer shall hear what was wrong.
    ///
    /// # Errors
    /// When the peer can't be talked to.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let bound = if self.is_handshaking() { MAX_UNPROVEN } else { MAX_UNREAD };
        if self.unread.len() + bytes.len() > bound {
            return Err(TlsError::TooLong);
        }
        self.unread.extend_from_slice(bytes);
        let result = match &mut self.layer {
            Layer::Library(connection) => {
                let mut input = SliceInput::new(&mut self.unread);
                let result = connection.read_tls(&mut input, out).handle_all(plain);
                let used = input.into_used();
                self.unread.drain(..used.min(self.unread.len()));
                match result {
                    Ok(state) if state.peer_has_closed() => Err(TlsError::Farewell),
                    Ok(_) => Ok(()),
                    Err(error) => Err(TlsError::Peer(error)),
                }
            }
            Layer::Kept(records) => records.receive(&mut self.unread, plain).map_err(TlsError::from),
        };
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        result
    }

    /// Encrypts.
    ///
    /// # Errors
    /// When the connection has failed before.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        match &mut self.layer {
            Layer::Library(connection) => connection.write(plain.into(), out).map_err(TlsError::Peer),
            Layer::Kept(records) => Ok(records.send(plain, out)?),
        }
    }

    /// Goes on with what another process has negotiated.
    ///
    /// # Errors
    /// When its keys are unusable.
    pub fn resume(kept: KeptTls) -> Result<Self, TlsError> {
        let records = Records::new(kept.receive, kept.send)?;
        Ok(Self { layer: Layer::Kept(Box::new(records)), unread: kept.unread })
    }

    /// Gives it away, for the next process. All that it gave to be sent must have been sent, or go along. `None` if that
    /// can't be: the handshake isn't done, or it isn't TLS 1.3.
    pub fn into_kept(self) -> Option<KeptTls> {
        let (receive, send) = match self.layer {
            Layer::Library(connection) if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
                let secrets = connection.dangerous_extract_secrets().ok()?;
                (Keys::new(secrets.rx)?, Keys::new(secrets.tx)?)
            }
            Layer::Library(_) => return None,
            Layer::Kept(records) => records.into_keys(),
        };
        Some(KeptTls { receive, send, unread: self.unread })
    }

    /// Whether the handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        match &self.layer {
            Layer::Library(connection) => connection.is_handshaking(),
            Layer::Kept(_) => false,
        }
    }

    /// What the peer's certificate says, which was checked against the authority.
    pub fn names(&self) -> Option<PeerNames> {
        names_in(self.certificate()?)
    }

    /// When the peer's certificate ends, in seconds since 1970.
    pub fn ends(&self) -> Option<i64> {
        ends_at(self.certificate()?)
    }

    fn certificate(&self) -> Option<&[u8]> {
        let Layer::Library(connection) = &self.layer else { return None };
        match connection.peer_identity()?.identity() {
            Identity::X509(chain) => Some(&chain.end_entity),
            _ => None,
        }
    }
}

/// When a certificate ends, in seconds since 1970.
pub(super) fn ends_at(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The names in a certificate: the last common name and all DNS names.
pub(super) fn names_in(certificate: &[u8]) -> Option<PeerNames> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).last();
    let alternative = certificate.subject_alternative_name().ok()?;
    let dns = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Some(PeerNames { common: common.map(ToOwned::to_owned), dns: dns.collect() })
}

#[cfg(test)]
mod tests;
