//! A connection that goes from process to process, against the library as its peer.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use std::io::{Read, Write};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore as Roots, SupportedProtocolVersion, crypto};

use super::*;

fn server() -> (TlsServer, CertificateDer<'static>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["pi.lan".to_owned()]).unwrap().self_signed(&key).unwrap();
    let identity = Identity::from_cert_chain(vec![certificate.der().clone()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder(Arc::new(rustls_ring::DEFAULT_PROVIDER))
        .with_no_client_auth()
        .with_single_cert(Arc::new(identity), key)
        .unwrap();
    config.send_tls13_tickets.default = 0;
    config.enable_secret_extraction = true;
    (TlsServer { config: Arc::new(config) }, certificate.der().clone())
}

struct Peer(ClientConnection);

impl Peer {
    fn new(authority: &CertificateDer<'static>, version: &'static SupportedProtocolVersion) -> Self {
        let mut roots = Roots::empty();
        roots.add(authority.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(ClientConnection::new(Arc::new(config), ServerName::try_from("pi.lan").unwrap()).unwrap())
    }

    /// What it wants to send.
    fn out(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// What it makes of these bytes.
    fn hears(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).unwrap();
            self.0.process_new_packets().unwrap();
        }
        let mut plain = vec![0; 100_000];
        let count = self.0.reader().read(&mut plain).unwrap_or(0);
        plain.truncate(count);
        plain
    }

    fn says(&mut self, plain: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(plain).unwrap();
        self.out()
    }
}

fn shaken_hands(version: &'static SupportedProtocolVersion) -> (TlsStream, Peer) {
    let (server, authority) = server();
    let (mut stream, mut peer) = (server.accept().unwrap(), Peer::new(&authority, version));
    while stream.is_handshaking() || peer.0.is_handshaking() {
        let mut out = Vec::new();
        stream.receive(&peer.out(), &mut Vec::new(), &mut out).unwrap();
        peer.hears(&out);
    }
    (stream, peer)
}

fn exchange(stream: &mut TlsStream, peer: &mut Peer) {
    let long = vec![7; 20_000];
    for plain in [&b"a"[..], b"", b"hello", &long] {
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        for portion in peer.says(plain).chunks(4096) {
            stream.receive(portion, &mut heard, &mut out).unwrap();
        }
        assert_eq!(heard, plain);
        stream.send(plain, &mut out).unwrap();
        assert_eq!(peer.hears(&out), plain);
    }
}

/// Through the bytes, as to another process.
fn handed_over(stream: TlsStream) -> TlsStream {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &stream.into_kept().unwrap()).unwrap();
    TlsStream::resume(cbor4ii::serde::from_slice(&bytes[..]).unwrap()).unwrap()
}

#[test]
fn a_connection_goes_on_in_another_process_and_in_the_one_after() {
    let (mut stream, mut peer) = shaken_hands(&TLS13);
    exchange(&mut stream, &mut peer);
    for _ in 0..3 {
        // Half a record has come already.
        let bytes = peer.says(b"over the gap");
        let (before, after) = bytes.split_at(9);
        let mut plain = Vec::new();
        stream.receive(before, &mut plain, &mut Vec::new()).unwrap();
        stream = handed_over(stream);
        assert!(!stream.is_handshaking());
        stream.receive(after, &mut plain, &mut Vec::new()).unwrap();
        assert_eq!(plain, b"over the gap");
        exchange(&mut stream, &mut peer);
    }
    peer.0.send_close_notify();
    let closed = stream.receive(&peer.out(), &mut Vec::new(), &mut Vec::new());
    assert!(matches!(closed, Err(TlsError::Farewell)), "{closed:?}");
}

#[test]
fn a_peer_that_takes_its_leave_is_told_from_one_that_is_cut_short() {
    for version in [&TLS13, &TLS12] {
        let (mut stream, mut peer) = shaken_hands(version);
        exchange(&mut stream, &mut peer);
        peer.0.send_close_notify();
        let closed = stream.receive(&peer.out(), &mut Vec::new(), &mut Vec::new());
        assert!(matches!(closed, Err(TlsError::Farewell)), "{closed:?}");
    }
}

#[test]
fn what_was_changed_on_the_way_or_comes_twice_is_refused() {
    let (stream, mut peer) = shaken_hands(&TLS13);
    let mut stream = handed_over(stream);
    let bytes = peer.says(b"once");
    let mut plain = Vec::new();
    stream.receive(&bytes, &mut plain, &mut Vec::new()).unwrap();
    let again = stream.receive(&bytes, &mut plain, &mut Vec::new());
    assert!(matches!(again, Err(TlsError::Record(RecordError::Forged))), "{again:?}");
    for at in 0..bytes.len() {
        let (stream, mut peer) = shaken_hands(&TLS13);
        let mut stream = handed_over(stream);
        let mut bent = peer.says(b"once");
        bent[at] ^= 1;
        let mut plain = Vec::new();
        // With a bent length the rest of the record is still awaited.
        let result = stream.receive(&bent, &mut plain, &mut Vec::new());
        assert!(result.is_err() || at == 3 || at == 4, "byte {at}");
        assert!(plain.is_empty(), "byte {at}");
    }
}

#[test]
fn what_can_not_be_handed_over_says_so() {
    let (stream, _) = shaken_hands(&TLS12);
    assert!(stream.into_kept().is_none());
    let (server, _) = server();
    assert!(server.accept().unwrap().into_kept().is_none(), "its handshake has not begun");
    // New keys are not for it.
    let (stream, mut peer) = shaken_hands(&TLS13);
    let mut stream = handed_over(stream);
    peer.0.refresh_traffic_keys().unwrap();
    let result = stream.receive(&peer.out(), &mut Vec::new(), &mut Vec::new());
    assert!(matches!(result, Err(TlsError::Record(RecordError::Unexpected))), "{result:?}");
}
