//! What an invited node fetches: the script, the authority's certificate, and its own.

use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use ring::digest::{SHA256, digest};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tiebreaker_member::ask::QdeviceHappening;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring as provider, version::TLS12, version::TLS13};
use tracing::{debug, warn};

use super::book::Book;
use crate::http::{Answer, Asked, Method, StatusCode, accept, serve};
use crate::qdevice::{Events, Folder};

/// The script; it holds the awk program, and is told where it came from.
const SCRIPT: &str = include_str!("node.sh");
const CONFIGURE: &str = include_str!("corosync_conf.awk");

/// A handshake is two round trips.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// What all connections share.
pub struct Desk {
    folder: Folder,
    book: Mutex<Book>,
    tls: TlsAcceptor,
    pin: String,
    events: Events,
}

impl Desk {
    /// A desk with a key of its own.
    pub fn new(folder: Folder, events: Events) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the key for invitations")?;
        let certificate = CertificateParams::new(vec!["tiebreaker.invalid".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .context("making the certificate for invitations")?;
        let pin = format!("sha256//{}", BASE64.encode(digest(&SHA256, &key.subject_public_key_info()).as_ref()));
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .and_then(|config| {
                let key = PrivatePkcs8KeyDer::from(key.serialize_der());
                config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key.into())
            })
            .context("setting TLS for invitations up")?;
        let tls = TlsAcceptor::from(Arc::new(config));
        Ok(Self { folder, book: Mutex::new(Book::default()), tls, pin, events })
    }

    /// The key's hash, as curl takes it.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The invitations. No caller holds them across an await.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing in there is left half-done by a panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        match timeout(HANDSHAKE_WITHIN, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, |asked| ready(self.answer(&asked, from))).await,
            Ok(Err(error)) => debug!(%from, "no TLS with an invited node: {error}"),
            Err(_) => debug!(%from, "an invited node's TLS handshake took too long"),
        }
    }

    pub(super) fn answer(&self, asked: &Asked, from: SocketAddr) -> Answer {
        match (&asked.method, asked.path.as_str()) {
            (&Method::GET, "/qdevice/node.sh") => match asked.host.as_deref().and_then(Host::with_port) {
                Some((host, port)) => Answer { body: self.script(&host, port), ..Answer::text(StatusCode::OK, "") },
                None => Answer::text(StatusCode::BAD_REQUEST, "the request names no host"),
            },
            (&Method::GET, "/qdevice/ca.crt") => self.invited(asked, |_| {
                let pki = self.folder.open_or_make().map_err(refused)?;
                Ok(pki.certificate_pem().to_owned())
            }),
            (&Method::POST, "/qdevice/sign") => self.sign(asked, from),
            _ => Answer::text(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    fn invited(&self, asked: &Asked, answer: impl FnOnce(&str) -> Result<String, Answer>) -> Answer {
        let looked = self.book().look(asked.bearer.as_deref().unwrap_or_default(), Instant::now());
        match looked {
            Ok(cluster) => match answer(&cluster) {
                Ok(body) => Answer { body, ..Answer::text(StatusCode::OK, "") },
                Err(answer) => answer,
            },
            Err(why) => Answer::text(StatusCode::FORBIDDEN, why),
        }
    }

    fn sign(&self, asked: &Asked, from: SocketAddr) -> Answer {
        let Some(request) = &asked.body else {
            return Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "this is no certificate request: it is too long");
        };
        let secret = asked.bearer.as_deref().unwrap_or_default();
        let mut of = String::new();
        let redeemed = self.book().redeem(secret, request, Instant::now(), |cluster| {
            cluster.clone_into(&mut of);
            self.folder.open_or_make().and_then(|pki| pki.sign(request, cluster))
        });
        match redeemed {
            Ok(Ok(certificate)) => {
                self.events.happened(QdeviceHappening::Invited { cluster: of, address: Some(from.to_string()) });
                Answer { body: certificate, ..Answer::text(StatusCode::OK, "") }
            }
            Ok(Err(error)) => {
                warn!(cluster = of, %from, "an invited node's request is refused: {error}");
                refused(error)
            }
            Err(why) => {
                warn!(%from, "somebody without a good invitation wants a certificate: {why}");
                Answer::text(StatusCode::FORBIDDEN, why)
            }
        }
    }

    fn script(&self, host: &Host, port: u16) -> String {
        SCRIPT
            .replace("@URL@", &host.url(port))
            .replace("@HOST@", &host.bare())
            .replace("@PIN@", &self.pin)
            .replace("@AWK@\n", CONFIGURE)
    }
}

fn refused(error: impl std::fmt::Display) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, error)
}

/// A name or address, safe in a script and in corosync.conf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host(String);

impl Host {
    /// Reads a name or an address, with or without brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() {
            return Some(Self(bare.to_owned()));
        }
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        (text.len() <= 253 && text.split('.').all(label)).then(|| Self(text.to_owned()))
    }

    /// Reads HOST:PORT.
    pub fn with_port(text: &str) -> Option<(Self, u16)> {
        let (host, port) = text.rsplit_once(':')?;
        Some((Self::parse(host)?, port.parse().ok()?))
    }

    /// Without brackets.
    pub fn bare(&self) -> String {
        self.0.clone()
    }

    /// The beginning of an URL.
    pub fn url(&self, port: u16) -> String {
        if self.0.contains(':') { format!("https://[{}]:{port}", self.0) } else { format!("https://{}:{port}", self.0) }
    }
}

/// Serves invited nodes, until no invitation is good any more.
pub async fn listen(listeners: Vec<TcpListener>, desk: Arc<Desk>) {
    let mut doors = JoinSet::new();
    for listener in listeners {
        let desk = Arc::clone(&desk);
        doors.spawn(async move {
            let never = accept(listener, move |stream, from| Arc::clone(&desk).connection(stream, from)).await;
            match never {}
        });
    }
    loop {
        let ends = desk.book().ends(Instant::now());
        let Some(ends) = ends else { break };
        sleep_until(ends).await;
    }
    // The port is free when this task has ended.
    doors.shutdown().await;
}
