//! Setting a node up without ssh: an invitation is one line for the node's shell. It fetches a script from here over TLS
//! with the server's key pinned, which has Corosync's own script make a certificate request, and brings it here to be
//! signed.
//!
//! Invitations live in memory, and so does the key: a new start of the daemon ends them all. The port is open while
//! there is an invitation, and no longer.

mod book;
#[cfg(test)]
mod tests;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_member::ask::QdeviceHappening;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::book::Opened;
use self::web::Desk;
use super::events::Events;
use super::store::Folder;

/// How a cluster's vote is to be decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvitedAlgorithm {
    /// One half of a cluster of an even number of nodes.
    FfSplit,
    /// The last node standing.
    Lms,
}

impl InvitedAlgorithm {
    /// As corosync.conf writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FfSplit => "ffsplit",
            Self::Lms => "lms",
        }
    }

    /// Reads the name.
    ///
    /// # Errors
    /// There is no such algorithm to be invited with.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "ffsplit" => Ok(Self::FfSplit),
            "lms" => Ok(Self::Lms),
            other => bail!("there is no algorithm {other:?} to invite with: use ffsplit or lms"),
        }
    }
}

/// The invitations of this run of the daemon.
pub struct Invitations {
    listen: Vec<SocketAddr>,
    desk: Arc<Desk>,
    open: Option<JoinHandle<()>>,
    events: Events,
}

impl Invitations {
    /// None yet. `folder` is where the authority lies.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(listen: Vec<SocketAddr>, folder: Folder, events: Events) -> Result<Self> {
        Ok(Self { listen, desk: Arc::new(Desk::new(folder, events.clone())?), open: None, events })
    }

    /// Makes an invitation, the line for the node's shell with the secret in it, and opens the port where it isn't.
    ///
    /// # Errors
    /// When the names can't stand in a command, there are too many invitations, or the port is taken.
    pub async fn create(
        &mut self,
        cluster: &str,
        algorithm: InvitedAlgorithm,
        host: &str,
        good_for: Duration,
    ) -> Result<Zeroizing<String>> {
        // It goes through a shell, a script of others and a certificate's name.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if cluster.is_empty() || cluster.starts_with('-') || !cluster.chars().all(plain) {
            bail!(
                "a cluster of the name {cluster:?} can't be invited: letters, digits, '.', '_' and '-' can; set it up by hand"
            );
        }
        let port = self.listen.first().context("qdevice.invite_listen is empty")?.port();
        let host = web::Host::parse(host)
            .with_context(|| format!("{host:?} is no name or address under which a node could reach this machine"))?;
        let (secret, opened) = self.desk.book().add(cluster, Instant::now(), good_for)?;
        if opened == Opened::Anew {
            // Whoever listened before is letting go of the port, or has.
            if let Some(former) = self.open.take() {
                let _ended = former.await;
            }
            match self.bind().await {
                Ok(listeners) => self.open = Some(tokio::spawn(web::listen(listeners, Arc::clone(&self.desk)))),
                Err(error) => {
                    self.desk.book().clear();
                    return Err(error);
                }
            }
        }
        self.events.happened(QdeviceHappening::Invited { cluster: cluster.to_owned(), address: None });
        let (pin, url) = (self.desk.pin(), host.url(port));
        // The pin is what counts, so the certificate is not asked for its name; the script is run when it is whole.
        let command = format!(
            "curl -fsSk --pinnedpubkey {pin} {url}/qdevice/node.sh | TIEBREAKER_INVITATION={} sh -s -- {cluster} {}",
            *secret,
            algorithm.name()
        );
        Ok(Zeroizing::new(command))
    }

    async fn bind(&self) -> Result<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        for address in &self.listen {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.with_context(|| {
                format!("listening for invited nodes on {address}: set qdevice.invite_listen to another")
            })?);
        }
        Ok(listeners)
    }
}

impl Drop for Invitations {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.abort();
        }
    }
}
