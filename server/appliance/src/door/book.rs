//! What the appliance knows of one Corosync cluster and keeps: its fences, who may ask, whose machine is which, and which power
//! devices were proven. One small file, replaced whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_member::{EARLIEST_PLAUSIBLE, FileError, Role, Roster, Serial, read_private, replace_private};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{Hold, REASON_MAX};

use super::docket::{Docket, Told};
use crate::layout::unix_seconds;
use crate::recipe::Recipe;

const VERSION: u32 = 1;

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
    /// Former versions refused certificates one by one. It is read, and written no more.
    #[serde(default, skip_serializing)]
    refused: Vec<Serial>,
    /// The UUIDs of the nodes' machines, as they tell them.
    pub(super) machines: BTreeMap<MemberName, String>,
    /// Devices that once read on while their node was up, and are that node's.
    proven: Vec<Proven>,
    /// No power device of the cluster is told to switch anything, for as long as this stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<Hold>,
}

/// Why a command may not be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Barred {
    /// The fence is over, or another one of its node has begun.
    Another,
    /// The switching of power is held.
    Held(Hold),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    /// Its key, as [`request_key`](tiebreaker_member::request_key) tells it.
    key: String,
    /// Of former versions too.
    #[serde(default, skip_serializing)]
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
            hold: None,
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
        let way_out =
            "remove it: fences under way and a hold are forgotten then, and the cluster's nodes have to enrol again";
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

    /// A node has a certificate for this key, and those for the key that it had before count no more.
    pub(super) fn enrolled(&mut self, node: MemberName, key: String) {
        self.clients.insert(node, Client { key, serials: Vec::new() });
    }

    /// The key of a node that may ask.
    pub(super) fn key(&self, node: &MemberName) -> Option<&str> {
        self.clients.get(node).map(|client| client.key.as_str())
    }

    /// Whose certificates are taken: those of nodes that are configured, for the keys that they enrolled with.
    pub(super) fn roster(&self, is_node: impl Fn(&MemberName) -> bool) -> Roster {
        let nodes = self.clients.iter().filter(|(node, _)| is_node(node));
        let mut roster = Roster::default();
        roster.bind_keys(Role::FenceClient, nodes.map(|(node, client)| (node.clone(), client.key.clone())).collect());
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

    /// Holds the switching of power.
    ///
    /// # Errors
    /// It is held already, or there is no room for so many words.
    pub(super) fn hold(&mut self, hold: Hold) -> Result<()> {
        if [Some(&hold.by), hold.reason.as_ref()].into_iter().flatten().any(|text| text.chars().count() > REASON_MAX) {
            bail!("a reason has {REASON_MAX} characters at most");
        }
        if let Some(hold) = &self.hold {
            bail!("the switching of power is {hold}: nothing to do");
        }
        self.hold = Some(hold);
        Ok(())
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn release(&mut self) -> Result<()> {
        self.hold.take().context("the switching of power isn't held: nothing to release")?;
        Ok(())
    }

    /// A level of a node is about to be told "off". Gives whether that is new, if it may be.
    pub(super) fn tells_off(
        &mut self,
        now_ms: u64,
        node: &MemberName,
        number: u64,
        level: &str,
    ) -> Result<bool, Barred> {
        self.bars(node, number)?;
        match self.docket.tells_off(now_ms, node, number, level) {
            Told::First => Ok(true),
            Told::Again => Ok(false),
            Told::No => Err(Barred::Another),
        }
    }

    /// A node is about to be told "on". Gives whether it may be.
    pub(super) fn tells_on(&mut self, now_ms: u64, node: &MemberName, number: u64) -> Result<(), Barred> {
        self.bars(node, number)?;
        if self.docket.tells_on(now_ms, node, number) { Ok(()) } else { Err(Barred::Another) }
    }

    /// A fence that is over ends, held or not.
    fn bars(&self, node: &MemberName, number: u64) -> Result<(), Barred> {
        let is_under_way = self.docket.get(node).is_some_and(|job| job.number == number && job.is_active());
        match &self.hold {
            Some(hold) if is_under_way => Err(Barred::Held(hold.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// The same without what is only true of this machine and this moment: fences, and what devices have shown.
    pub(super) fn for_backup(self) -> Self {
        Self { docket: self.docket.emptied(), proven: Vec::new(), ..self }
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

    fn cert(key: &str) -> PeerCert {
        let subject = Subject::from_uri("tiebreaker://prod/fence-client/a").unwrap();
        PeerCert { subject, serial: Serial::from_bytes([1; 16]), key: key.into(), not_before: 0, not_after: 1 }
    }

    #[test]
    fn who_enrols_anew_leaves_its_former_certificates_without_worth() {
        let dir = tempfile::tempdir().unwrap();
        let a = MemberName::new("a").unwrap();
        let mut book = Book::read(dir.path()).unwrap();
        assert!(book.roster(|_| true).refuses(&cert("one")), "it is not enrolled");
        book.enrolled(a.clone(), "one".into());
        assert!(!book.roster(|_| true).refuses(&cert("one")));
        book.enrolled(a.clone(), "two".into());
        book.write(dir.path()).unwrap();
        let book = Book::read(dir.path()).unwrap();
        assert_eq!(book.key(&a), Some("two"));
        let roster = book.roster(|_| true);
        assert!(roster.refuses(&cert("one")) && !roster.refuses(&cert("two")));
        assert!(book.roster(|_| false).refuses(&cert("two")), "it is no node any more");
        assert!(book.newest_s() >= EARLIEST_PLAUSIBLE);
    }

    #[test]
    fn a_book_that_names_certificates_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let serial = serde_json::to_string(&Serial::from_bytes([7; 16])).unwrap();
        let text = format!(
            "{{\"version\":1,\"newest_s\":0,\"docket\":{{\"last\":0,\"jobs\":{{}}}},\"refused\":[{serial}],\
             \"clients\":{{\"a\":{{\"key\":\"one\",\"serials\":[{serial}]}}}},\"machines\":{{}},\"proven\":[]}}"
        );
        replace_private(&Book::path(dir.path()), text.as_bytes()).unwrap();
        let mut book = Book::read(dir.path()).unwrap();
        assert!(!book.roster(|_| true).refuses(&cert("one")));
        book.write(dir.path()).unwrap();
        Book::read(dir.path()).unwrap();
    }

    #[test]
    fn damage_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        replace_private(&Book::path(dir.path()), b"{").unwrap();
        let error = format!("{:#}", Book::read(dir.path()).unwrap_err());
        assert!(error.contains("fences.json is damaged: remove it"), "{error}");
    }
}
