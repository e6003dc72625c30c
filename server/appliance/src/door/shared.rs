//! What all tasks at one Corosync cluster's door share.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state::Hold;
use tiebreaker_qnetd::wire::NodeId;
use tiebreaker_qnetd::{ClusterName as CorosyncName, ClusterView};
use tokio::sync::{mpsc, oneshot};

use super::STOPPING;
use super::book::{Barred, Book};
use super::clerk::{Note, Progress, Ticket};
use super::docket::Wish;
use super::prove::Health;
use super::right::{Right, right};
use super::settings::DoorSettings;
use crate::audit::{Audit, Event};
use crate::devices::{Devices, Key};
use crate::level::Level;
use crate::qdevice::Questions;

/// Between two looks at the votes, for who waits for them.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// It.
pub(super) struct Shared {
    /// The cluster's name here.
    pub(super) name: ClusterName,
    pub(super) settings: DoorSettings,
    pub(super) devices: Devices,
    pub(super) audit: Audit,
    /// Where the votes are; absent where none decides.
    pub(super) votes: Option<Questions>,
    pub(super) notes: mpsc::Sender<Note>,
    /// What the last proofs have shown.
    pub(super) health: Mutex<BTreeMap<Key, Health>>,
}

impl Shared {
    /// Whether whoever asks first is believed.
    pub(super) fn is_trusted(&self) -> bool {
        self.settings.qdevice.is_none()
    }

    fn id(&self, node: &MemberName) -> Option<NodeId> {
        self.settings.names.0.get(node).copied()
    }

    /// What the QDevice service shows of the cluster; `None`: nothing.
    pub(super) async fn view(&self) -> Option<ClusterView> {
        let name = CorosyncName::from(self.settings.qdevice.as_deref()?);
        let look = self.votes.as_ref()?.look().await?;
        look.clusters.into_iter().find(|cluster| cluster.name == name)
    }

    /// Whether a node is connected to the QDevice service; `None`: nobody can tell, since there is none.
    pub(super) async fn is_up(&self, node: &MemberName) -> Option<bool> {
        if self.is_trusted() {
            return None;
        }
        let (view, id) = (self.view().await, self.id(node));
        Some(view.is_some_and(|view| view.members.iter().any(|member| Some(member.node) == id)))
    }

    /// The levels of a node's plan, in the order in which they are tried.
    pub(super) fn levels_of(&self, node: &MemberName) -> Vec<Level> {
        self.devices.levels().into_iter().filter(|level| level.node() == node).collect()
    }

    /// Whether a level could be used now, and its word counted: by the last proofs of all of its devices.
    pub(super) fn is_fine(&self, level: &Level, book: &Book) -> bool {
        level.parts().all(|managed| {
            let health = self.health(&(managed.node().clone(), managed.name().to_owned()));
            health.is_some_and(|health| health.fault.is_none()) && book.is_proven(managed.recipe())
        })
    }

    /// Whether `by` may have `node` fenced now.
    pub(super) async fn right(&self, by: &MemberName, node: &MemberName) -> Right {
        let (Some(asker), Some(target)) = (self.id(by), self.id(node)) else {
            return Right::Refused { why: format!("{by} or {node} is no node of the cluster any more") };
        };
        if self.is_trusted() {
            return Right::Granted { partition: vec![asker] };
        }
        right(self.view().await.as_ref(), asker, target, &self.settings.names)
    }

    /// Whether one of these may have `node` fenced now; else what holds for the first.
    pub(super) async fn right_of_any(&self, by: &[MemberName], node: &MemberName) -> Right {
        let mut first = None;
        for one in by {
            match self.right(one, node).await {
                granted @ Right::Granted { .. } => return granted,
                other => first = first.or(Some(other)),
            }
        }
        first.unwrap_or(Right::Refused { why: "nobody is left who wants it".into() })
    }

    /// Enters a wish; `None` where there is nothing to join, or the daemon is ending.
    pub(super) async fn enter(
        &self,
        by: &MemberName,
        node: &MemberName,
        wish: Wish,
        partition: Option<Vec<MemberName>>,
    ) -> Option<Ticket> {
        let (answer, answered) = oneshot::channel();
        self.note(Note::Enter { by: by.clone(), node: node.clone(), wish, partition, answer }).await;
        answered.await.ok()
    }

    /// Why nothing is switched, and the ways out, for who wants a node fenced.
    pub(super) fn held(&self, hold: &Hold, node: &MemberName) -> String {
        let Hold { by, reason, at_ms: _ } = hold;
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!(
            "the switching of power is held by {by}{reason}: `tiebreaker-server corosync release {}` ends that; if {node} is off \
             for certain, tell Pacemaker: `stonith_admin --confirm {node}`",
            self.name
        )
    }

    /// Holds the switching of power; it is written down when this returns.
    ///
    /// # Errors
    /// It is held already, or can't be written down.
    pub(super) async fn hold(&self, hold: Hold) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.note(Note::Hold { hold, answer }).await;
        answered.await.context(STOPPING)?
    }

    /// Ends that; it is written down when this returns.
    ///
    /// # Errors
    /// It isn't held, or that can't be written down.
    pub(super) async fn release(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.note(Note::Release { answer }).await;
        answered.await.context(STOPPING)?
    }

    /// Writes a request of an operator into the audit log, with what came of it.
    pub(super) fn operator_asked(&self, what: &str, by: &str, done: &Result<()>) {
        self.audit.record(Event::Asked {
            cluster: self.name.to_string(),
            what: what.to_owned(),
            node: None,
            by: by.to_owned(),
            granted: done.is_ok(),
            why: done.as_ref().err().map(|error| format!("{error:#}")),
        });
    }

    /// Whether a level of a node may be told "off" by this fence. Only who asks right before the command knows.
    pub(super) async fn may_tell_off(&self, node: &MemberName, number: u64, level: &str) -> Result<(), Barred> {
        let (answer, answered) = oneshot::channel();
        self.note(Note::TellsOff { node: node.clone(), number, level: level.to_owned(), answer }).await;
        // Without an answer the daemon is ending, and this task with it.
        answered.await.unwrap_or(Err(Barred::Another))
    }

    /// Whether a node may be told "on" by this fence. Only who asks right before the command knows.
    pub(super) async fn may_tell_on(&self, node: &MemberName, number: u64) -> Result<(), Barred> {
        let (answer, answered) = oneshot::channel();
        self.note(Note::TellsOn { node: node.clone(), number, answer }).await;
        // Without an answer the daemon is ending, and this task with it.
        answered.await.unwrap_or(Err(Barred::Another))
    }

    /// A fence is over.
    pub(super) async fn over(&self, node: MemberName, number: u64, result: Progress) {
        self.note(Note::Over { node, number, result }).await;
    }

    /// The book as it is now; `None` if the daemon is ending.
    pub(super) async fn book(&self) -> Option<Book> {
        let (answer, answered) = oneshot::channel();
        self.note(Note::Look { answer }).await;
        answered.await.ok()
    }

    /// Tells the clerk, who is there for as long as the daemon.
    pub(super) async fn note(&self, note: Note) {
        let _ = self.notes.send(note).await;
    }

    /// What the last proof of a device has shown.
    pub(super) fn health(&self, key: &Key) -> Option<Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Notes what a proof has shown; gives what was known before.
    pub(super) fn set_health(&self, key: Key, health: Health) -> Option<Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).insert(key, health)
    }
}
