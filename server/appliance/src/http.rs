//! A small HTTP server for what `curl` and Prometheus ask: bounded in connections, in time and in bytes, one request per
//! connection.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
pub use hyper::{Method, StatusCode};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 16;
/// A request's head must have come in this time.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// And all of the exchange be over in this.
const OVER_WITHIN: Duration = Duration::from_secs(15);
/// The head's bytes at most; hyper takes no smaller buffer, and goes on reading a head beyond its buffer unless it is told
/// the head's own bound.
const HEAD_MAX: usize = 8192;
/// The head's lines at most: `curl` and Prometheus send six.
const HEADERS_MAX: usize = 32;
/// The body's.
const BODY_MAX: usize = 8192;
/// After an error of accept, which mostly is a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, without a query.
    pub path: String,
    /// The name under which the asker knows this server, if it is text.
    pub host: Option<String>,
    /// The secret of an `Authorization: Bearer` header.
    pub bearer: Option<String>,
    /// Its body; `None` if it was too long or broke off.
    pub body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its media type.
    pub kind: &'static str,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// A line of text.
    pub fn text(status: StatusCode, line: impl std::fmt::Display) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: format!("{line}\n") }
    }
}

/// Gives each connection to `serve`, so many at once as are allowed, for ever. All end when this is dropped.
pub async fn accept<F, R>(listener: TcpListener, mut serve: F) -> Infallible
where
    F: FnMut(TcpStream, SocketAddr) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if under_way.len() < CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    under_way.spawn(serve(stream, from));
                }
                Err(error) => {
                    warn!("no HTTP connection can be accepted: {error}");
                    sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
        }
    }
}

/// Answers one request of a connection.
pub async fn serve<S, F, R>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Asked) -> R + Send + Sync,
    R: Future<Output = Answer> + Send,
{
    let answer = &answer;
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(respond(answer(asked(request).await).await)) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_MAX)
        .max_header_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(OVER_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("an HTTP connection failed: {error}"),
        Err(_) => debug!("an HTTP connection took too long"),
    }
}

async fn asked(request: Request<Incoming>) -> Asked {
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok().map(ToOwned::to_owned);
    let bearer = header(AUTHORIZATION).and_then(|text| text.strip_prefix("Bearer ").map(ToOwned::to_owned));
    let host = header(HOST);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    Asked { method, path, host, bearer, body: body.ok().map(|body| body.to_bytes().to_vec()) }
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body.into()));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, answer.kind),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        // A page of ours brings its style with it, and nothing else; nobody shows it within one of his own.
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

    use super::*;

    /// Sends a head that never ends, and gives what was taken of it and what came back.
    async fn endless(piece: &[u8]) -> (usize, String) {
        // Less than one piece waits in between, so that what was taken was read.
        let (asker, stream) = duplex(16);
        let (mut hears, mut asks) = split(asker);
        let served = tokio::spawn(serve(stream, |_| async { Answer::text(StatusCode::OK, "no head has ended") }));
        let mut taken = 0;
        let said = tokio::spawn(async move {
            let mut said = Vec::new();
            hears.read_to_end(&mut said).await.map(|_| said)
        });
        let begun = asks.write_all(b"GET / HTTP/1.1\r\nhost: pi\r\n").await;
        while begun.is_ok() && taken < 1 << 20 && asks.write_all(piece).await.is_ok() {
            taken += piece.len();
        }
        drop(asks);
        served.await.unwrap();
        (taken, String::from_utf8(said.await.unwrap().unwrap()).unwrap())
    }

    #[tokio::test]
    async fn an_endless_head_is_read_no_further_than_its_bound() {
        let long = [b'a'; 64];
        for piece in [&long[..], b"a: b\r\n"] {
            let (taken, said) = endless(piece).await;
            assert!(taken <= HEAD_MAX + 1024, "{taken} bytes");
            assert!(!said.contains("200 OK"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_head_of_many_lines_is_refused_and_an_ordinary_one_is_not() {
        for (lines, status) in [(HEADERS_MAX - 1, "200"), (HEADERS_MAX + 1, "431")] {
            let (mut asker, stream) = duplex(HEAD_MAX);
            let served = tokio::spawn(serve(stream, |_| async { Answer::text(StatusCode::OK, "hello") }));
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(lines));
            asker.write_all(head.as_bytes()).await.unwrap();
            let mut said = String::new();
            asker.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{lines} lines: {said}");
            served.await.unwrap();
        }
    }
}
