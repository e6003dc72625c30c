//! How an appliance that was restored from a backup comes back into a cluster: as a new member, under a number that was never
//! used, by the decision of a majority that does without it (ADR 0031).
//!
//! It asks with a certificate of the role `authority`, which only the holder of the authority's key can make. The member
//! that leads judges, and proposes that the former appliance is removed and this one added. Nothing that the restored
//! appliance says about the past counts: the number, the state and who votes are the cluster's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::{Role, State};

use crate::join::JoinedMember;

/// The version of [`RejoinAsk`].
pub const REJOIN_VERSION: u32 = 1;

/// Nobody may have heard the appliance that is a member for so long: a restart of its daemon must not cost it its place.
pub const SILENT_FOR: Duration = Duration::from_secs(10);

/// Addresses of an appliance at most, as of any joiner.
const ADDRESSES_MAX: usize = 8;

/// What a restored appliance asks. CBOR.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RejoinAsk {
    /// [`REJOIN_VERSION`].
    pub version: u32,
    /// Its name.
    pub name: MemberName,
    /// The number that the appliance had when the backup was made.
    pub former: u64,
    /// SHA-256 of the key that it made when it was restored, in hex: by this it is told from another one of the same backup.
    pub key: String,
    /// Where it listens, `host:port`, best first.
    pub addresses: Vec<String>,
    /// An operator's word that every other machine with this identity is switched off for good.
    pub others_are_off: bool,
}

/// What it is told. CBOR.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejoinAnswer {
    /// Another member has to be asked.
    NotLeader {
        /// Who leads, as far as is known here.
        leader: Option<MemberName>,
        /// The nodes, and where they listen.
        nodes: BTreeMap<MemberName, Vec<String>>,
    },
    /// Not yet: ask again.
    Wait {
        /// What is in the way, and the way out.
        why: String,
    },
    /// There is another appliance of this identity: this one must serve nobody.
    Twin {
        /// Which, and the way out.
        why: String,
    },
    /// It can't be.
    Refused {
        /// Why, and the way out.
        why: String,
    },
    /// It is a member.
    Joined(JoinedMember),
}

/// What a leader knows when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The applied state.
    pub state: &'a State,
    /// Who hears the appliance that is a member, if anybody does.
    pub heard_by: Option<&'a MemberName>,
    /// For how long nobody has, while this member leads.
    pub silent: Duration,
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is a member already, under this number.
    Joined(u64),
    /// It becomes one by these, in this order.
    Propose(Vec<Command>),
    /// It is told this.
    Answer(RejoinAnswer),
}

impl Verdict {
    fn wait(why: String) -> Self {
        Self::Answer(RejoinAnswer::Wait { why })
    }

    fn twin(why: String) -> Self {
        Self::Answer(RejoinAnswer::Twin { why })
    }

    fn refused(why: String) -> Self {
        Self::Answer(RejoinAnswer::Refused { why })
    }
}

/// Judges what a restored appliance asks of the leader. The judge of the log has the last word about what is proposed.
#[must_use]
pub fn judge(seen: Seen<'_>, ask: &RejoinAsk) -> Verdict {
    let Seen { state, heard_by, silent } = seen;
    let RejoinAsk { name, former, .. } = ask;
    if ask.version != REJOIN_VERSION {
        let version = ask.version;
        return Verdict::refused(format!(
            "the restored appliance asks in version {version}, this member knows {REJOIN_VERSION}: install the same release"
        ));
    }
    if ask.addresses.is_empty() || ask.addresses.len() > ADDRESSES_MAX {
        return Verdict::refused(format!(
            "the restored appliance names {} addresses: put 1 to {ADDRESSES_MAX} under addresses in its server.toml",
            ask.addresses.len()
        ));
    }
    if state.nodes.contains_key(name) {
        return Verdict::refused(format!("{name} is a node of this cluster: give the appliance another name"));
    }
    let add = Command::AddMember {
        name: name.clone(),
        role: Role::Appliance,
        addresses: ask.addresses.clone(),
        key: ask.key.clone(),
    };
    let present = state.appliance().and_then(|name| Some((name, state.members.get(name)?)));
    // A takeover gave it up, or this very request was cut off half way.
    let Some((present, member)) = present else { return Verdict::Propose(vec![add]) };
    let number = member.raft_id;
    if present == name && member.key == ask.key {
        return Verdict::Joined(number);
    }
    if let Some(twin) = alive(state, heard_by, ask) {
        return Verdict::Answer(twin);
    }
    if number != *former && !ask.others_are_off {
        return Verdict::twin(format!(
            "the appliance is member #{number} now, and was #{former} when the backup was made: another machine was restored \
             since. If that one is switched off for good, say so with `tiebreaker-server rejoin --others-are-off`; else \
             switch this one off"
        ));
    }
    if silent < SILENT_FOR {
        return Verdict::wait(format!(
            "the appliance {present} has to be silent for {} s before another takes its place",
            SILENT_FOR.as_secs()
        ));
    }
    if let Some((id, fence)) = state.fences.iter().find(|(_, fence)| fence.is_open()) {
        let node = &fence.node;
        return Verdict::wait(format!(
            "fence {id} of {node} is open, and only the appliance that worked on it could say that no command to a power \
             device can land any more. If {node} can't be brought back and the fence stays open: `tiebreaker-agent takeover` \
             on the other node makes that the whole cluster; this appliance joins it then"
        ));
    }
    let (left, voters) = state.voters_left_without(present);
    if left * 2 <= voters {
        return Verdict::wait(format!(
            "{left} of {voters} voters are in service without the appliance, and more than half of them must be: start the \
             other nodes. If they are lost for good, `tiebreaker-agent takeover` on the node that is left makes it the whole \
             cluster; this appliance joins it then"
        ));
    }
    Verdict::Propose(vec![Command::RemoveMember { name: present.clone(), raft_id: number }, add])
}

/// What every member answers that hears the appliance, whoever leads: mostly that is the appliance itself, and it is asked for
/// nothing.
#[must_use]
pub fn alive(state: &State, heard_by: Option<&MemberName>, ask: &RejoinAsk) -> Option<RejoinAnswer> {
    let hears = heard_by?;
    let present = state.appliance()?;
    let member = state.members.get(present).filter(|member| *present != ask.name || member.key != ask.key)?;
    let number = member.raft_id;
    let why = format!(
        "the appliance {present} is alive, as member #{number}: {hears} hears it. There must be one: if this machine shall take \
         its place, switch that one off for good, and this one comes in by itself"
    );
    Some(RejoinAnswer::Twin { why })
}

#[cfg(test)]
mod tests;
