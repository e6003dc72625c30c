//! One conversation with one device.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    client::conn::http1::{Builder, SendRequest},
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{error::WebError, pin::Pins, verifier::PinVerifier};

/// The longest body that is read. A system resource of a large server has about 20 kB.
const MAX_BODY: usize = 512 * 1024;
/// The longest head of an answer, and about what is buffered of one at a time.
const MAX_HEAD: usize = 64 * 1024;
/// More header lines than any device sends.
const MAX_HEADERS: usize = 100;

/// A device that speaks HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    /// The certificates that it may show; without them it speaks without TLS.
    pub(crate) pins: Option<Pins>,
}

/// A question. It never prints: its body may hold a password.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) what: &'static str,
    pub(crate) method: Method,
    /// A path with its query: ASCII without blanks, begins with a slash. Some devices want a password in it.
    pub(crate) path: Zeroizing<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON, if any.
    pub(crate) body: Option<Bytes>,
}

impl Question {
    pub(crate) fn get(what: &'static str, path: impl Into<String>) -> Self {
        Self { what, method: Method::GET, path: Zeroizing::new(path.into()), headers: Vec::new(), body: None }
    }

    pub(crate) fn post(what: &'static str, path: impl Into<String>, body: Bytes) -> Self {
        Self { what, method: Method::POST, path: Zeroizing::new(path.into()), headers: Vec::new(), body: Some(body) }
    }
}

/// What came back, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Questions and answers over one connection, which is made when it is needed and anew when the device closed it.
#[derive(Debug)]
pub(crate) struct Conversation {
    site: Site,
    open: Option<Open>,
}

/// A connection, and the task that reads and writes it. Both end together.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Conversation {
    pub(crate) fn new(site: Site) -> Self {
        Self { site, open: None }
    }

    /// Asks, and takes the whole answer. A question that reads is put a second time where the device closed a connection
    /// that had served before; one that changes something only if it certainly wasn't sent.
    pub(crate) async fn ask(&mut self, question: &Question, deadline: Instant) -> Result<Answer, WebError> {
        match timeout_at(deadline, self.ask_in_time(question)).await {
            Ok(answer) => answer,
            Err(_) => {
                // What comes now would be taken for the answer to the next question.
                self.open = None;
                Err(WebError::TimedOut(question.what))
            }
        }
    }

    async fn ask_in_time(&mut self, question: &Question) -> Result<Answer, WebError> {
        let mut reused = false;
        if let Some(open) = &mut self.open {
            reused = open.sender.ready().await.is_ok();
        }
        loop {
            let open = match self.open.take() {
                Some(open) if reused => open,
                Some(_) | None => connect(self.site).await?,
            };
            // Kept only after a whole answer.
            let mut open = open;
            match put(&mut open.sender, self.site.address, question).await {
                Ok(answer) => {
                    self.open = Some(open);
                    return Ok(answer);
                }
                Err(Put::Lost { unsent }) if reused && (unsent || question.method == Method::GET) => reused = false,
                Err(error) => return Err(error.named(question.what)),
            }
        }
    }
}

/// How putting a question failed.
enum Put {
    /// The connection went before any answer.
    Lost {
        /// The question never left.
        unsent: bool,
    },
    TooLong,
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl Put {
    fn named(self, what: &'static str) -> WebError {
        match self {
            Put::Lost { .. } => {
                let source = io::Error::from(io::ErrorKind::ConnectionAborted).into();
                WebError::Broken { what, source }
            }
            Put::TooLong => WebError::TooLong(what),
            Put::Broken(source) => WebError::Broken { what, source },
        }
    }
}

async fn put(sender: &mut SendRequest<Full<Bytes>>, host: SocketAddr, question: &Question) -> Result<Answer, Put> {
    // Wiped once the request is gone.
    let path = Bytes::from_owner(Zeroizing::new(question.path.as_bytes().to_vec()));
    let uri = Uri::from_maybe_shared(path).map_err(|error| Put::Broken(error.into()))?;
    let mut request = Request::builder()
        .method(question.method.clone())
        .uri(uri)
        .header(HOST, host.to_string())
        .header("accept", "application/json");
    if question.path.starts_with("/redfish/") {
        request = request.header("odata-version", "4.0");
    }
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    if question.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::new(question.body.clone().unwrap_or_default());
    let request = request.body(body).map_err(|error| Put::Broken(error.into()))?;
    let response = sender.send_request(request).await.map_err(|error| {
        if error.is_canceled() || error.is_incomplete_message() {
            Put::Lost { unsent: error.is_canceled() }
        } else {
            Put::Broken(error.into())
        }
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| if error.is::<LengthLimitError>() { Put::TooLong } else { Put::Broken(error) })?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

async fn connect(site: Site) -> Result<Open, WebError> {
    let stream = TcpStream::connect(site.address).await.map_err(WebError::Connect)?;
    // Questions are small, and each waits for its answer.
    stream.set_nodelay(true).map_err(WebError::Connect)?;
    let Some(pins) = site.pins else { return speak(stream).await };
    let verifier = PinVerifier::new(pins);
    let config = verifier.client().map_err(|error| WebError::Tls(io::Error::other(error)))?;
    let name = ServerName::IpAddress(site.address.ip().into());
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => speak(stream).await,
        Err(error) => Err(verifier.refused().map_or(WebError::Tls(error), WebError::Certificate)),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Open, WebError> {
    let (sender, connection) = Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| WebError::Broken { what: "the connection", source: source.into() })?;
    let driver = tokio::spawn(async move {
        // Whatever ends the connection, who asked is told.
        let _ = connection.await;
    });
    Ok(Open { sender, driver })
}
