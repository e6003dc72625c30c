//! A small HTTP server for what `curl` and Prometheus ask: bounded in connections, in time and in bytes, one request per
//! connection.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName};
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
/// The head's bytes at most; hyper takes no smaller bound.
const HEAD_MAX: usize = 8192;
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
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.kind));
    response
}
