//! A server for tests: it reads questions properly, and answers with any bytes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use rcgen::KeyPair;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    conversation::Site,
    pin::{Fingerprint, Pins},
};

/// A question as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the server does with a question.
pub(crate) enum Reply {
    /// Sends these bytes and waits for the next question.
    Send(Vec<u8>),
    /// Sends these bytes and closes.
    SendAndClose(Vec<u8>),
    /// Sends these bytes for ever.
    Flood(Vec<u8>),
    /// Sends these bytes and then nothing.
    Hang(Vec<u8>),
}

impl Reply {
    /// A proper answer with a JSON body.
    pub(crate) fn json(status: u16, headers: &[(&str, &str)], body: &serde_json::Value) -> Self {
        Self::text(status, headers, &body.to_string())
    }

    /// A proper answer.
    pub(crate) fn text(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut answer = format!("HTTP/1.1 {status} Whatever\r\n");
        for (name, value) in headers {
            answer += &format!("{name}: {value}\r\n");
        }
        if status != 204 {
            answer += &format!("Content-Length: {}\r\n", body.len());
        }
        Self::Send(format!("{answer}\r\n{body}").into_bytes())
    }
}

type Answerer = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// The server. Ends when dropped.
pub(crate) struct MockServer {
    pub(crate) site: Site,
    questions: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate with its key, as a BMC makes one.
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Identity {
    /// A certificate that was never good for this server: another name, of X.509 version 3.
    pub(crate) fn usual() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["bmc.invalid".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        Self { certificate: params.self_signed(&key).unwrap().der().to_vec(), key: key.serialize_der() }
    }

    /// An X.509 certificate of version 1, which has neither version nor extensions.
    pub(crate) fn version_1() -> Self {
        use rcgen::PublicKeyData;
        let key = KeyPair::generate().unwrap();
        // ecdsa-with-SHA256, then an empty name, then 2000 to 2001.
        let algorithm = [0x30, 0x0A, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
        let time = |text: &str| element(0x17, text.as_bytes());
        let validity = element(0x30, &[time("000101000000Z"), time("010101000000Z")].concat());
        let name = element(0x30, &[]);
        let spki = key.subject_public_key_info();
        let body = [&element(2, &[1]), &algorithm[..], &name, &validity, &name, &spki].concat();
        // Nobody checks the certificate's own signature: it is pinned as a whole.
        let signature = element(3, &[0, 0x30, 0x06, 2, 1, 1, 2, 1, 1]);
        let certificate = element(0x30, &[&element(0x30, &body), &algorithm[..], &signature].concat());
        Self { certificate, key: key.serialize_der() }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 128 => der.push(short),
        Ok(long) => der.extend([0x81, long]),
        Err(_) => der.extend([0x82, u8::try_from(length / 256).unwrap(), u8::try_from(length % 256).unwrap()]),
    }
    der.extend(content);
    der
}

/// Shows a certificate that rustls itself would refuse to show.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A certificate shown with a key that may be another's.
pub(crate) fn acceptor(certificate: &[u8], key: &[u8], versions: &[&'static SupportedProtocolVersion]) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.to_vec()).unwrap();
    let provider = ring::default_provider();
    let signing = provider.key_provider.load_private_key(key).unwrap();
    let shown = CertifiedKey::new(vec![CertificateDer::from(certificate.to_vec())], signing);
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
    TlsAcceptor::from(Arc::new(config))
}

impl MockServer {
    /// A server without TLS.
    pub(crate) async fn plain(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, None, Arc::new(answer)).await
    }

    /// A server with TLS, and the client's pin of its certificate.
    pub(crate) async fn tls(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let identity = Identity::usual();
        let acceptor = acceptor(&identity.certificate, &identity.key, rustls::ALL_VERSIONS);
        Self::with(acceptor, identity.fingerprint(), answer).await
    }

    /// A server with these settings of TLS.
    pub(crate) async fn with(
        acceptor: TlsAcceptor,
        pin: Fingerprint,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(acceptor), Some(Pins { current: pin, next: None }), Arc::new(answer)).await
    }

    async fn start(acceptor: Option<TlsAcceptor>, pins: Option<Pins>, answer: Answerer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let questions: Arc<Mutex<Vec<Received>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let (heard, met) = (Arc::clone(&questions), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *met.lock().unwrap() += 1;
                let (acceptor, answer, heard) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&heard));
                serving.spawn(async move {
                    // A client that goes away is no fault of the test.
                    let _ = serve(stream, acceptor, answer, heard).await;
                });
            }
        });
        Self { site: Site { address, pins }, questions, connections, task }
    }

    /// What it was asked.
    pub(crate) fn questions(&self) -> Vec<Received> {
        self.questions.lock().unwrap().clone()
    }

    /// How many connections it took.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    answer: Answerer,
    heard: Arc<Mutex<Vec<Received>>>,
) -> io::Result<()> {
    // Else each answer after the first waits for the client's delayed acknowledgement.
    stream.set_nodelay(true)?;
    match acceptor {
        Some(acceptor) => talk(acceptor.accept(stream).await?, answer, heard).await,
        None => talk(stream, answer, heard).await,
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: Answerer,
    heard: Arc<Mutex<Vec<Received>>>,
) -> io::Result<()> {
    while let Some(question) = read(&mut stream).await? {
        heard.lock().unwrap().push(question.clone());
        match answer(&question) {
            Reply::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Reply::SendAndClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Flood(bytes) => loop {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            },
            Reply::Hang(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                std::future::pending::<()>().await;
            }
        }
    }
    Ok(())
}

/// The next question; `None` once the client has closed.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Received>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let mut question = Received { method: first.next().unwrap(), path: first.next().unwrap(), ..Received::default() };
    question.headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into())).collect();
    let length = question.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    question.body = String::from_utf8(body).unwrap();
    Ok(Some(question))
}
