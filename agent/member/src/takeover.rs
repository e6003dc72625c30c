//! The emergency takeover of a lone member: the offline command, which makes this machine the whole cluster on an
//! operator's word that all others are off.
//!
//! Nothing can prove that word, so it is asked for in full, after what it costs was said.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use tiebreaker_consensus::{EntryPayload, HardState, Membership, RaftId, Snapshot, Stored};
use tiebreaker_pipeline::command::Entry;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::resource::{Phase, Requested};
use tiebreaker_pipeline::state::{Role, State, StateError};

use crate::identity::PeerCert;
use crate::store::{RaftStore, StoreError};

/// Why a takeover was not carried out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The store can't be used, or a daemon has it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state in the store.
    #[error("the state in the store can't be used: {0}")]
    State(#[from] StateError),
    /// The store holds no state.
    #[error("{path} holds no state yet: this member never heard from its cluster, so there is nothing to take over")]
    Empty {
        /// The store.
        path: PathBuf,
    },
    /// The identity is of another cluster than the store, or of no member.
    #[error("the certificate is for {peer}, but the store is that of the cluster {cluster}: put the right one back")]
    OtherIdentity {
        /// Whose certificate.
        peer: String,
        /// The store's cluster.
        cluster: String,
    },
    /// The state refuses it.
    #[error(transparent)]
    Refused(#[from] tiebreaker_pipeline::TakeoverError),
    /// Nobody can be asked.
    #[error(
        "this has to be confirmed, and there is no terminal to ask at: give --confirm {cluster} --others-are-off, once \
         every other member is switched off"
    )]
    Unconfirmed {
        /// What has to be typed.
        cluster: String,
    },
    /// Something else was typed.
    #[error("{typed:?} is not the cluster's name, {cluster}: nothing was changed")]
    WrongName {
        /// What was typed.
        typed: String,
        /// What had to be.
        cluster: String,
    },
    /// The terminal.
    #[error("asking for the confirmation failed")]
    Ask(#[source] io::Error),
}

/// How a takeover is confirmed; without these it is asked for.
#[derive(Args, Clone, Debug)]
pub struct Confirmation {
    /// The cluster's name, instead of typing it when asked.
    #[arg(long, value_name = "CLUSTER", requires = "others_are_off")]
    confirm: Option<String>,
    /// Your word that every other member is switched off and stays off until it is wiped.
    #[arg(long, requires = "confirm")]
    others_are_off: bool,
}

impl Confirmation {
    fn obtain(&self, cluster: &str) -> Result<(), TakeoverError> {
        let typed = match &self.confirm {
            Some(typed) => typed.clone(),
            None if !io::stdin().is_terminal() => return Err(TakeoverError::Unconfirmed { cluster: cluster.into() }),
            None => {
                print!("If all of them are switched off, type the cluster's name to go on: ");
                io::stdout().flush().map_err(TakeoverError::Ask)?;
                let mut line = String::new();
                io::stdin().read_line(&mut line).map_err(TakeoverError::Ask)?;
                line.trim().to_owned()
            }
        };
        if typed == cluster { Ok(()) } else { Err(TakeoverError::WrongName { typed, cluster: cluster.into() }) }
    }
}

/// Says what a takeover costs, has it confirmed, and carries it out on the store of a member whose daemon is stopped;
/// `cert` is that member's.
///
/// # Errors
/// [`TakeoverError`]; then nothing has changed.
pub fn take_over(path: &Path, cert: &PeerCert, confirmation: &Confirmation) -> Result<(), TakeoverError> {
    let takeover = Takeover::prepare(path, cert, Timestamp::now(), &operator())?;
    println!("{}", takeover.words());
    confirmation.obtain(takeover.after.cluster.as_str())?;
    let (me, epoch) = (takeover.me.clone(), takeover.after.epoch);
    let kept = takeover.carry_out()?;
    println!("{me} is the whole cluster now, in epoch {epoch}. The old store is kept as {}.", kept.display());
    println!("Next: start its daemon, then look at `tiebreaker status`.");
    Ok(())
}

/// The state at the end of what a member whose daemon is stopped has stored; `None` where it never heard from its cluster. The
/// cluster may have gone on since.
///
/// # Errors
/// The store can't be used, or a daemon has it.
pub fn last_stored(path: &Path) -> Result<Option<State>, TakeoverError> {
    let (_store, stored) = RaftStore::open(path)?;
    Ok(stored.as_ref().map(at_the_end).transpose()?.flatten())
}

fn operator() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() { "root".into() } else { format!("user {}", uid.as_raw()) }
}

/// A takeover that is worked out and not carried out yet. The store is held, so no daemon starts meanwhile.
#[derive(Debug)]
struct Takeover {
    store: RaftStore,
    stored: Stored,
    me: MemberName,
    raft_id: u64,
    before: State,
    after: State,
}

impl Takeover {
    fn prepare(path: &Path, cert: &PeerCert, now: Timestamp, by: &str) -> Result<Self, TakeoverError> {
        let (store, stored) = RaftStore::open(path)?;
        let empty = || TakeoverError::Empty { path: path.into() };
        let stored = stored.ok_or_else(empty)?;
        let before = at_the_end(&stored)?.ok_or_else(empty)?;
        let peer = &cert.subject.peer;
        let cluster = before.cluster.to_string();
        let (true, Some(raft_id)) = (peer.cluster == before.cluster, cert.subject.raft_id) else {
            return Err(TakeoverError::OtherIdentity { peer: peer.to_string(), cluster });
        };
        let mut after = before.clone();
        let at_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
        after.take_over(stored.last_index() + 1, at_ms, &peer.name, raft_id, by)?;
        Ok(Self { store, me: peer.name.clone(), raft_id, stored, before, after })
    }

    /// What the member starts from. The term is a new one, so nothing of the old epoch has a place in it.
    fn beginning(&self) -> Stored {
        let (index, term) = (self.after.applied, self.stored.hard_state.term + 1);
        let membership = Membership::of_voters([RaftId(self.raft_id)]);
        Stored {
            hard_state: HardState { term, vote: None, commit: index },
            snapshot: Some(Snapshot { index, term, membership, state: self.after.encode() }),
            entries: Vec::new(),
        }
    }

    fn carry_out(self) -> Result<PathBuf, StoreError> {
        let beginning = self.beginning();
        self.store.supersede(&beginning)
    }

    /// All that an operator has to know before confirming.
    fn words(&self) -> String {
        let (me, before) = (&self.me, &self.before);
        let others = before.members.iter().filter(|(name, _)| *name != me);
        let named: Vec<String> = others
            .clone()
            .map(|(name, member)| match member.role {
                Role::Appliance => format!("{name} (the appliance)"),
                Role::Node => format!("{name} (a node)"),
            })
            .collect();
        let names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        let all = names.join(" and ");
        let end = self.stored.last_index();
        let open = end.saturating_sub(self.stored.hard_state.commit);
        let mut words = format!(
            "EMERGENCY TAKEOVER of the cluster {} by {me} alone.\n\n\
             The other members are {}. They are given up for good.\n\n\
             WHAT MAY BE LOST: {me} knows the cluster up to entry {end} of its log, of {}. Whatever the others \
             acknowledged after that without {me} is lost: what was added, removed, set or moved since then, also \
             members that joined. What the resources themselves stored elsewhere is not brought here either.\n",
            before.cluster,
            named.join(", "),
            when(before.newest_ms),
        );
        if open > 0 {
            words.push_str(&format!(
                "The last {open} of these entries may not have been agreed to by a majority. They are taken all the same: \
                 {me} can't know which of them were acknowledged, and acknowledged is kept.\n"
            ));
        }
        words.push_str(&format!(
            "\nSWITCH {all} OFF NOW, and keep them off until they are wiped and joined again. Nothing but your word says \
             that they are off. If one of them runs, or is switched on, the same resources run there and here at once and \
             DESTROY EACH OTHER'S DATA. One that reaches {me} is told, and stops; one that doesn't goes on.\n\n"
        ));
        words.push_str(&self.what_starts());
        words.push_str(&self.what_joins());
        words
    }

    fn what_starts(&self) -> String {
        let me = &self.me;
        let listed = |wanted: &dyn Fn(&ResourceName) -> bool| {
            let names: Vec<&str> =
                self.after.resources.keys().filter(|name| wanted(name)).map(ResourceName::as_str).collect();
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        };
        if !self.after.nodes.contains_key(me) {
            return format!("{me} is an appliance: it starts nothing until nodes have joined again.\n\n");
        }
        let starts = |name: &ResourceName| {
            self.after.resources.get(name).is_some_and(|resource| {
                let placed = match &resource.phase {
                    Phase::New | Phase::Free { .. } => true,
                    Phase::Placed { node } | Phase::Releasing { node, .. } => node == me,
                    Phase::Migrating { .. } | Phase::Error { .. } | Phase::Ignored => false,
                };
                placed && resource.requested == Requested::Started
            })
        };
        let armed = if self.after.settings.arming.acts() {
            "As far as rules and room allow"
        } else {
            "The cluster is disarmed, so nothing starts before `tiebreaker arm`; then, as far as rules and room allow"
        };
        format!(
            "{armed}, {me} will run: {}. It will leave alone: {}.\n\n",
            listed(&starts),
            listed(&|name| !starts(name))
        )
    }

    fn what_joins(&self) -> String {
        let (me, cluster) = (&self.me, &self.before.cluster);
        match self.before.appliance() {
            Some(appliance) if appliance == me => format!(
                "{me} goes on as the appliance: wipe each node's data folder, then let it join again with a new token \
                 (`tiebreaker-server token create --cluster {cluster}`).\n"
            ),
            Some(appliance) => format!(
                "Machines join through the appliance alone, which holds the cluster's certificate authority: until {cluster} \
                 has one again no machine can join {me}, and {me} renews no certificate (they end 90 days after they were \
                 made). Keep what {appliance} holds of the authority, or its backup: with another authority every machine, \
                 {me} too, would have to join anew. This version can't bring an appliance into a cluster that goes on \
                 without one: {me} bridges the time until the cluster is set up anew.\n"
            ),
            None => format!("{cluster} has no appliance, so no machine can join {me}.\n"),
        }
    }
}

/// The state at the end of the durable log, entries included that this member doesn't know to be committed: one of them
/// may have been acknowledged. `None` for a store without a snapshot.
fn at_the_end(stored: &Stored) -> Result<Option<State>, StateError> {
    let Some(snapshot) = &stored.snapshot else { return Ok(None) };
    let mut state = State::decode(&snapshot.state)?;
    state.applied = snapshot.index;
    for entry in &stored.entries {
        match &entry.payload {
            EntryPayload::Command(bytes) => match cbor4ii::serde::from_slice::<Entry>(&bytes[..]) {
                // Void is a result as well.
                Ok(command) => drop(state.apply(entry.index, command)),
                Err(_) => state.apply_nothing(entry.index),
            },
            EntryPayload::Change(membership) => {
                state.apply_voters(entry.index, membership.voters.iter().map(|id| id.0).collect());
            }
            EntryPayload::Empty | EntryPayload::Settle => state.apply_nothing(entry.index),
        }
    }
    Ok(Some(state))
}

fn when(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().filter(|ms| *ms > 0).and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| "an unknown time".to_owned(), |stamp| format!("{stamp:.0}"))
}

#[cfg(test)]
mod tests;
