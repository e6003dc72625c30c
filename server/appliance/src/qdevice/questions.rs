//! What others ask the running service.

use std::time::Instant;

use tiebreaker_member::ask::QdeviceCluster;
use tiebreaker_qnetd::{ClusterView, Server};
use tokio::sync::{mpsc, oneshot};

use super::handover::Leaving;
use super::status;

/// Questions that wait for the engine.
const WAITING: usize = 8;

/// The way to ask the running service what one can see.
#[derive(Clone)]
pub struct Questions {
    ask: mpsc::Sender<Question>,
    end: mpsc::Sender<oneshot::Sender<Leaving>>,
}

/// One question, and where the answer goes.
pub enum Question {
    /// For people and programs.
    Status(oneshot::Sender<Vec<QdeviceCluster>>),
    /// All there is to see, for the control socket.
    Look(oneshot::Sender<Look>),
}

/// What there is to see at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// Connections, those included that have not joined a cluster yet.
    pub clients: usize,
    /// The clusters, by name.
    pub clusters: Vec<ClusterView>,
}

impl Questions {
    /// A way to ask, its other end, and where the wish to end arrives.
    pub fn new() -> (Self, mpsc::Receiver<Question>, mpsc::Receiver<oneshot::Sender<Leaving>>) {
        let (ask, asked) = mpsc::channel(WAITING);
        let (end, ending) = mpsc::channel(1);
        (Self { ask, end }, asked, ending)
    }

    /// Ends the service and gives what goes to the next process; `None` if it has ended already.
    pub async fn hand_over(&self) -> Option<Leaving> {
        let (answer, answered) = oneshot::channel();
        self.end.send(answer).await.ok()?;
        answered.await.ok()
    }

    /// The clusters and their votes; `None` if the service has ended.
    pub async fn status(&self) -> Option<Vec<QdeviceCluster>> {
        self.answer(Question::Status).await
    }

    /// All there is to see; `None` if the service has ended.
    pub async fn look(&self) -> Option<Look> {
        self.answer(Question::Look).await
    }

    async fn answer<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.ask.send(question(answer)).await.ok()?;
        answered.await.ok()
    }
}

impl Question {
    /// Answers it. Who asked may have gone.
    pub fn answer(self, server: &Server) {
        match self {
            Self::Status(answer) => {
                let now = Instant::now();
                let _ = answer.send(server.clusters().map(|view| status::cluster(&view, now)).collect());
            }
            Self::Look(answer) => {
                let _ = answer.send(Look { clients: server.clients(), clusters: server.clusters().collect() });
            }
        }
    }
}
