//! The status page: what one may see of this appliance from the network, as a page for people and as data.
//!
//! It is read only and open to everybody who reaches the port, so it tells nothing that lets anybody in: no token, no address
//! of a power device, no name of a person, no value of a setting. However often it is asked, the clusters are asked once a
//! second.

mod document;
mod gatherer;
mod machine;
mod page;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::http::{Answer, Asked, Method, StatusCode, accept, serve};
use crate::local::LocalAsk;

use document::Document;
use gatherer::{Gatherer, Question};
pub(crate) use settings::{RawStatus, listen};

/// An address may come later than this program: DHCP takes its time, and a cable may come years later.
const AGAIN: Duration = Duration::from_secs(10);
/// Questions that wait for the one who gathers; each connection has one.
const WAITING: usize = 32;

/// What the page tells of this appliance without asking anybody.
#[derive(Clone, Debug)]
pub(crate) struct Appliance {
    /// Its name in its clusters.
    pub(crate) name: String,
    /// Where members find it.
    pub(crate) addresses: Vec<String>,
    /// The data folder, for clusters that don't run.
    pub(crate) layout: crate::layout::Layout,
    /// Its name on its own network, if it answers for one.
    pub(crate) mdns: Option<watch::Receiver<String>>,
}

/// Serves the page at each of the addresses until this is dropped. One that can't be had is told of once and tried again: nothing
/// but the page depends on it.
pub(crate) fn start(listen: &[SocketAddr], appliance: Appliance, asks: mpsc::Sender<LocalAsk>) -> JoinSet<()> {
    let (questions, asked) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    tasks.spawn(Gatherer::new(appliance, asks).run(asked));
    for address in listen {
        tasks.spawn(at(*address, questions.clone()));
    }
    tasks
}

async fn at(address: SocketAddr, questions: mpsc::Sender<Question>) {
    let mut said = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !said => {
                said = true;
                warn!(%address, "there is no status page at this address for now, see status.listen: {error}");
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    };
    info!(%address, "the status page is up");
    let one = move |stream: TcpStream, _from| {
        let questions = questions.clone();
        async move { serve(stream, |asked| answer(asked, &questions)).await }
    };
    match accept(listener, one).await {}
}

async fn answer(asked: Asked, questions: &mpsc::Sender<Question>) -> Answer {
    let render: fn(&Document) -> Answer = match asked.path.as_str() {
        "/" => page::answer,
        "/status.json" => Document::answer,
        _ => {
            return Answer::text(
                StatusCode::NOT_FOUND,
                "the status is at / for people and at /status.json for programs",
            );
        }
    };
    if !matches!(asked.method, Method::GET | Method::HEAD) {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "the status can be read and nothing else: use GET");
    }
    match gatherer::ask(questions).await {
        Some(document) => render(&document),
        None => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the appliance's daemon is stopping"),
    }
}

/// What there is to see, shared by all who ask in the same second.
type Seen = Arc<Document>;

#[cfg(test)]
mod tests;
