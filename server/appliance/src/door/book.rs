//! What the appliance knows of one Corosync cluster and keeps: its fences, who may ask, whose machine is which, and which power
//! devices were proven. One small file, replaced whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_member::{EARLIEST_PLAUSIBLE, FileError, Roster, Serial, read_private, replace_private};
use tiebreaker_pipeline::name::MemberName;

use super::docket::Docket;
use crate::layout::unix_seconds;
use crate::recipe::Recipe;

const VERSION: u32 = 1;

/// Certificates of one node that count at once: the one in use, and the next, whose delivery may have failed.
const CERTIFICATES: usize = 4;

/// Refused certificates that are remembered; each ends by itself within three months.
const REFUSED: usize = 256;

/// The file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    version: u32,
    /// The newest time that was seen, seconds since 1970: what a board without a clock goes by.
    newest_s: u64,
    /// The fences.
    pub(super) docket: Docket,
    /// Who may ask, by node.
    clients: BTreeMap<MemberName, Client>,
    /// Certificates of those who were enrolled anew.
    refused: Vec<Serial>,
    /// The UUIDs of the nodes' machines, as they tell them.
    pub(super) machines: BTreeMap<MemberName, String>,
    /// Devices that once read on while their node was up, and are that node's.
    proven: Vec<Proven>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    /// Its key, as [`request_key`](tiebreaker_member::request_key) tells it.
    key: String,
    serials: Vec<Serial>,
}

/// A device: at another address it is another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proven {
    node: MemberName,
    device: String,
    address: String,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            version: VERSION,
            newest_s: 0,
            docket: Docket::default(),
            clients: BTreeMap::new(),
            refused: Vec::new(),
            machines: BTreeMap::new(),
            proven: Vec::new(),
        }
    }
}

impl Book {
    /// Where it lies in the cluster's folder.
    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join("fences.json")
    }

    /// Reads it; an empty one where there is none.
    ///
    /// # Errors
    /// It can't be read, or is damaged.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        let text = match read_private(&path, "") {
            Ok(text) => text,
            Err(FileError::Missing { .. }) => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let way_out = "remove it: fences under way are forgotten then, and the cluster's nodes have to enrol again";
        let book: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged: {way_out}", path.display()))?;
        if book.version != VERSION {
            bail!(
                "{} has version {}, this program knows {VERSION}: install the newer one",
                path.display(),
                book.version
            );
        }
        Ok(book)
    }

    /// Writes it; it is durable when this returns.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn write(&mut self, folder: &Path) -> Result<()> {
        let now = unix_seconds();
        if now >= EARLIEST_PLAUSIBLE {
            self.newest_s = now;
        }
        Ok(replace_private(&Self::path(folder), &serde_json::to_vec_pretty(self)?)?)
    }

    /// The newest time that is known.
    pub(super) fn newest_s(&self) -> u64 {
        self.newest_s
    }

    /// A node has a certificate, and the ones that it had before count no more.
    pub(super) fn enrolled(&mut self, node: MemberName, key: String, serial: Serial) {
        if let Some(former) = self.clients.insert(node, Client { key, serials: vec![serial] }) {
            self.refused.extend(former.serials);
        }
        let surplus = self.refused.len().saturating_sub(REFUSED);
        self.refused.drain(..surplus);
    }

    /// A node has one more certificate for its key.
    pub(super) fn renewed(&mut self, node: &MemberName, serial: Serial) {
        if let Some(client) = self.clients.get_mut(node) {
            client.serials.push(serial);
            let surplus = client.serials.len().saturating_sub(CERTIFICATES);
            client.serials.drain(..surplus);
        }
    }

    /// The key of a node that may ask.
    pub(super) fn key(&self, node: &MemberName) -> Option<&str> {
        self.clients.get(node).map(|client| client.key.as_str())
    }

    /// Whose certificates are refused: those of nodes that were enrolled anew, or aren't configured any more.
    pub(super) fn roster(&self, is_node: impl Fn(&MemberName) -> bool) -> Roster {
        let mut roster = Roster::default();
        let gone = self.clients.iter().filter(|(node, _)| !is_node(node)).flat_map(|(_, client)| &client.serials);
        self.refused.iter().chain(gone).for_each(|serial| roster.remove_serial(*serial));
        roster
    }

    /// Whether a device was proven, at the address that it has now.
    pub(super) fn is_proven(&self, recipe: &Recipe) -> bool {
        self.proven.contains(&proof_of(recipe))
    }

    /// Notes whether a device is proven. Gives whether that is new.
    pub(super) fn prove(&mut self, recipe: &Recipe, proven: bool) -> bool {
        if self.is_proven(recipe) == proven {
            return false;
        }
        let proof = proof_of(recipe);
        self.proven.retain(|other| (&other.node, &other.device) != (&proof.node, &proof.device));
        if proven {
            self.proven.push(proof);
        }
        true
    }

    /// Forgets nodes that aren't configured any more, but who may no longer ask.
    pub(super) fn retain(&mut self, is_node: impl Fn(&MemberName) -> bool) {
        self.docket.retain(&is_node);
        self.machines.retain(|node, _| is_node(node));
        self.proven.retain(|proven| is_node(&proven.node));
    }
}

fn proof_of(recipe: &Recipe) -> Proven {
    Proven {
        node: recipe.node.clone(),
        device: recipe.name.clone(),
        address: format!("{} {}", recipe.kind, recipe.address()),
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_member::{PeerCert, Subject};

    use super::*;

    fn serial(byte: u8) -> Serial {
        Serial::from_bytes([byte; 16])
    }

    fn cert(byte: u8) -> PeerCert {
        let subject = Subject::from_uri("tiebreaker://prod/fence-client/a").unwrap();
        PeerCert { subject, serial: serial(byte), not_before: 0, not_after: 1 }
    }

    #[test]
    fn who_enrols_anew_leaves_its_former_certificates_without_worth() {
        let dir = tempfile::tempdir().unwrap();
        let a = MemberName::new("a").unwrap();
        let mut book = Book::read(dir.path()).unwrap();
        book.enrolled(a.clone(), "one".into(), serial(1));
        book.renewed(&a, serial(2));
        assert!(!book.roster(|_| true).refuses(&cert(1)) && !book.roster(|_| true).refuses(&cert(2)));
        book.enrolled(a.clone(), "two".into(), serial(3));
        book.write(dir.path()).unwrap();
        let book = Book::read(dir.path()).unwrap();
        assert_eq!(book.key(&a), Some("two"));
        let roster = book.roster(|_| true);
        assert!(roster.refuses(&cert(1)) && roster.refuses(&cert(2)) && !roster.refuses(&cert(3)));
        assert!(book.roster(|_| false).refuses(&cert(3)), "it is no node any more");
        assert!(book.newest_s() >= EARLIEST_PLAUSIBLE);
    }

    #[test]
    fn damage_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        replace_private(&Book::path(dir.path()), b"{").unwrap();
        let error = format!("{:#}", Book::read(dir.path()).unwrap_err());
        assert!(error.contains("fences.json is damaged: remove it"), "{error}");
    }
}
