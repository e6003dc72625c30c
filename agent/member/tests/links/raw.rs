//! A peer that speaks the protocol by hand, to say what no honest member would.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tiebreaker_member::{Decoder, Frame, Hello, Identity, Purpose, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::soon;

/// Trusts anybody.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn config(identity: Option<&Identity>, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let dir = tempfile::tempdir().unwrap();
            identity.store(dir.path()).unwrap();
            let text = std::fs::read(dir.path().join("identity.pem")).unwrap();
            let leaf = CertificateDer::from_pem_slice(&text).unwrap();
            let key = PrivateKeyDer::from_pem_slice(&text).unwrap();
            builder.with_client_auth_cert(vec![leaf], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"tiebreaker/1".to_vec()];
    Arc::new(config)
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A TLS stream and a decoder.
pub struct Raw {
    pub stream: Box<dyn Stream>,
    decoder: Decoder,
}

impl Raw {
    /// Connects with TLS to `cluster` at `addr`.
    pub async fn connect(addr: SocketAddr, cluster: &str, identity: Option<&Identity>) -> Self {
        let tcp = TcpStream::connect(addr).await.unwrap();
        Self::over(tcp, cluster, identity).await.unwrap()
    }

    pub async fn connect_tls12(addr: SocketAddr, cluster: &str) -> std::io::Result<Self> {
        let tcp = TcpStream::connect(addr).await.unwrap();
        Self::with(tcp, cluster, config(None, &[&rustls::version::TLS12])).await
    }

    pub async fn over(
        stream: impl Stream + 'static,
        cluster: &str,
        identity: Option<&Identity>,
    ) -> std::io::Result<Self> {
        Self::with(stream, cluster, config(identity, &[&rustls::version::TLS13])).await
    }

    async fn with(stream: impl Stream + 'static, cluster: &str, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let name = ServerName::try_from(format!("{cluster}.tiebreaker.invalid")).unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Self { stream: Box::new(stream), decoder: Decoder::new(1 << 20) })
    }

    pub async fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&encode(frame).unwrap()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn hello(&mut self, purpose: Purpose) -> std::io::Result<Option<Frame>> {
        self.send(&Frame::Hello(Hello { min: 1, max: 1, purpose })).await;
        self.next().await
    }

    /// The next frame, or the stream's end.
    pub async fn next(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Ok(Some(frame));
            }
            let mut buffer = [0; 4096];
            match soon("a frame", self.stream.read(&mut buffer)).await? {
                0 => return Ok(None),
                len => self.decoder.feed(&buffer[..len]),
            }
        }
    }

    /// Reads until the peer ends the stream, whichever way.
    pub async fn ends(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// The alert in a TLS error.
pub fn alert(error: &std::io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
