//! What members say to each other, and what operators ask.

use serde::{Deserialize, Serialize};
use tiebreaker_consensus as consensus;
use tiebreaker_pipeline::command::{Command, Void};
use tiebreaker_pipeline::decision::LogLine;
use tiebreaker_pipeline::fence::FenceId;
use tiebreaker_pipeline::manager::{Drain, Why};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::report::{Answer, Renew};

use super::journal::JournalLine;
use super::status::Status;
use crate::clock::ClockFault;

/// A message between two members of a cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Consensus.
    Consensus {
        /// The sender's number, for a receiver that hasn't applied the sender's joining yet.
        from: u64,
        /// What the sender holds durably; the receiver remembers it for the time after a restart of the sender.
        promise: consensus::Promise,
        /// The message.
        message: consensus::Message,
    },
    /// A node asks for its lease.
    Renew(Renew),
    /// The answer to a renewal.
    Answer(Answer),
    /// A request for the leader.
    Ask {
        /// Names the request, for its sender.
        id: u64,
        /// The request.
        request: Request,
    },
    /// The answer to a request.
    Told {
        /// The request's name.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// A member has started and asks what it has promised the receiver before.
    Recall {
        /// Names the question.
        id: u64,
        /// The sender's number.
        from: u64,
    },
    /// The answer to a recall.
    Recalled {
        /// The question's name.
        id: u64,
        /// The greatest promise heard from the asking member since this one started.
        promise: Option<consensus::Promise>,
    },
    /// What the sender's copy of the replicated state comes to. From the first counted feature level on.
    Mark {
        /// At this log index.
        index: u64,
        /// Part of its digest.
        digest: u64,
    },
    /// The sender's disk is full.
    Trouble {
        /// What is wrong, and the way out, in words for an operator.
        what: String,
    },
    /// The sender's wall clock is wrong. From the fourth feature level on.
    Clock(ClockFault),
    /// The sender can't keep its journal on its disk. From the fourth feature level on.
    JournalNotKept {
        /// Why, and the way out, in words for an operator.
        what: String,
    },
}

impl Message {
    /// The number in consensus that the sender claims, where it does: its certificate has to say the same.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        match self {
            Self::Consensus { from, .. } | Self::Recall { from, .. } => Some(*from),
            Self::Renew(_)
            | Self::Answer(_)
            | Self::Ask { .. }
            | Self::Told { .. }
            | Self::Recalled { .. }
            | Self::Mark { .. }
            | Self::Trouble { .. }
            | Self::Clock(_)
            | Self::JournalNotKept { .. } => None,
        }
    }
}

/// What can be asked of the cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Change the replicated state.
    Propose(Command),
    /// Fence a node.
    Fence {
        /// Whom.
        node: MemberName,
        /// Who asks.
        by: String,
    },
    /// An operator's word that a node runs nothing. It is given for one fence and void for any other.
    Confirm {
        /// Whom.
        node: MemberName,
        /// For which fence, as `status` showed it.
        id: FenceId,
        /// Who says so.
        by: String,
    },
    /// Remove a member.
    Remove {
        /// Whom.
        name: MemberName,
        /// Who insists though it breaks the plan.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forced_by: Option<String>,
    },
    /// Move a resource, and what belongs with it.
    Move {
        /// Which.
        resource: ResourceName,
        /// Where to.
        to: MemberName,
        /// Live, or stopped here and started there.
        live: bool,
        /// Who insists though it breaks the plan.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forced_by: Option<String>,
    },
    /// What emptying a node would do, without doing it.
    Drain {
        /// Which.
        node: MemberName,
    },
    /// The replicated state, for a look at what would happen.
    State,
    /// Change the replicated state though that breaks the plan.
    Force {
        /// The change.
        command: Command,
        /// Who insists.
        by: String,
    },
    /// Everything at a glance.
    Status,
    /// The timeline.
    Log {
        /// How many of the last lines.
        last: usize,
    },
    /// Why a resource stands as it does.
    Why {
        /// Which.
        resource: ResourceName,
    },
    /// The journal of one member, which it answers itself, whoever leads.
    Journal {
        /// Whose.
        of: MemberName,
        /// How many of the last lines.
        last: usize,
    },
    /// The index up to which a linearizable read must have applied.
    ReadIndex,
    /// A new certificate for the asking member's own key. The appliance's daemon answers it, never the core.
    RenewCertificate {
        /// The certificate request, DER.
        csr: Vec<u8>,
    },
}

/// On whose behalf a request comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// This member's own daemon.
    Daemon,
    /// An operator, by certificate or through the local socket.
    Operator,
    /// A node, which passes on what its operators ask.
    Node,
    /// The appliance, which also lets members in and works the power devices.
    Appliance,
}

impl Request {
    /// The same request, signed by who really asks: what a client writes about itself is no signature.
    #[must_use]
    pub fn signed(self, by: String) -> Self {
        match self {
            Self::Fence { node, .. } => Self::Fence { node, by },
            Self::Confirm { node, id, .. } => Self::Confirm { node, id, by },
            Self::Force { command, .. } => Self::Force { command: command.signed(&by), by },
            Self::Propose(command) => Self::Propose(command.signed(&by)),
            Self::Remove { name, forced_by: Some(_) } => Self::Remove { name, forced_by: Some(by) },
            Self::Move { resource, to, live, forced_by: Some(_) } => {
                Self::Move { resource, to, live, forced_by: Some(by) }
            }
            other @ (Self::Remove { .. }
            | Self::Move { .. }
            | Self::Drain { .. }
            | Self::State
            | Self::Status
            | Self::Log { .. }
            | Self::Why { .. }
            | Self::Journal { .. }
            | Self::ReadIndex
            | Self::RenewCertificate { .. }) => other,
        }
    }

    /// Whether this may be asked on behalf of `origin`. What the manager and the fencer alone decide can't be asked for.
    ///
    /// # Errors
    /// Why not, in words for who asked.
    pub fn permitted(&self, origin: Origin) -> Result<(), String> {
        let of_appliance = match self {
            Self::Propose(command) | Self::Force { command, .. } => match command {
                Command::AddResource { .. }
                | Command::SetResource { .. }
                | Command::RemoveResource { .. }
                | Command::RemoveOperator { .. }
                | Command::SetTakeback { .. }
                | Command::SetMaintenance { .. }
                | Command::SetLock { .. }
                | Command::SetRule { .. }
                | Command::RemoveRule { .. }
                | Command::Set(_)
                | Command::Disarm { .. }
                | Command::Arm
                | Command::SetProfile { .. } => return Ok(()),
                Command::AddMember { .. }
                | Command::AddOperator { .. }
                | Command::SetDevices { .. }
                | Command::Fenced { .. }
                | Command::FenceFailed { .. }
                | Command::Closed { .. } => true,
                Command::RemoveMember { .. }
                | Command::RaiseLevel { .. }
                | Command::Admit { .. }
                | Command::Release { .. }
                | Command::Assign { .. }
                | Command::GiveUp { .. }
                | Command::Migrate { .. }
                | Command::CallOff { .. }
                | Command::Arrive { .. }
                | Command::Go { .. }
                | Command::Forget { .. }
                | Command::Bind { .. }
                | Command::Leave { .. }
                | Command::Left { .. }
                | Command::Disarmed
                | Command::Armed { .. }
                | Command::ArmingFailed { .. }
                | Command::Forced { .. }
                | Command::FenceWanted { .. }
                | Command::SettleProfile { .. } => false,
            },
            Self::Fence { .. }
            | Self::Confirm { .. }
            | Self::Remove { .. }
            | Self::Move { .. }
            | Self::Drain { .. }
            | Self::State
            | Self::Status
            | Self::Log { .. }
            | Self::Why { .. }
            | Self::Journal { .. }
            | Self::RenewCertificate { .. }
            | Self::ReadIndex => return Ok(()),
        };
        match origin {
            Origin::Daemon | Origin::Appliance if of_appliance => Ok(()),
            Origin::Daemon | Origin::Appliance | Origin::Operator | Origin::Node => {
                Err("this is for the cluster itself to decide and can't be asked for".into())
            }
        }
    }
}

/// What the cluster answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Committed and applied at this index.
    Done {
        /// The log index.
        index: u64,
    },
    /// Committed, and void.
    Void {
        /// Why.
        why: Void,
    },
    /// Not done.
    Refused {
        /// Why, and the way out.
        why: String,
    },
    /// Not done, because its turn has not come: what is in the way ends by itself. Known from
    /// [`Level::STARTS_ARE_LOOKED_AT`](tiebreaker_pipeline::level::Level::STARTS_ARE_LOOKED_AT) on.
    NotYet {
        /// What is in the way.
        why: String,
    },
    /// Nobody leads, or the leader doesn't answer. A change may still be carried out.
    NoLeader {
        /// What is known.
        why: String,
    },
    /// The status.
    Status(Box<Status>),
    /// What emptying a node would do.
    Drain(Drain),
    /// The replicated state, encoded.
    State {
        /// As a snapshot holds it.
        bytes: Vec<u8>,
    },
    /// The timeline.
    Log {
        /// Oldest first.
        lines: Vec<LogLine>,
    },
    /// The reason.
    Why {
        /// As data.
        why: Why,
    },
    /// A member's journal.
    Journal {
        /// Oldest first.
        lines: Vec<JournalLine>,
    },
    /// The member that was meant isn't heard.
    NotHeard {
        /// What is known.
        why: String,
    },
    /// The read index.
    ReadIndex {
        /// The index.
        index: u64,
    },
    /// A certificate.
    Certificate {
        /// DER.
        der: Vec<u8>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiebreaker_consensus::{Body, MESSAGE_VERSION, Promise, RaftId};
    use tiebreaker_pipeline::report::LeaseVerdict;

    /// Compares with the pinned file. `PIN=1` writes it anew, which only a new version of the protocol may do.
    #[test]
    fn the_encoding_is_pinned() {
        let promise = Promise { term: 5, vote: Some(RaftId(2)), index: 9, log_term: 4 };
        let body = Body::Ack { number: 7, tick_ns: 62_500_000 };
        let message = consensus::Message { version: MESSAGE_VERSION, term: 5, number: 0, body };
        let verdict = LeaseVerdict::NotLeader { leader: None };
        let messages = [
            Message::Consensus { from: 3, promise, message },
            Message::Answer(Answer { seq: 1, incarnation: 2, term: 5, verdict }),
            Message::Ask { id: 1, request: Request::Status },
            Message::Told { id: 1, reply: Reply::Done { index: 4 } },
            Message::Recall { id: 8, from: 3 },
            Message::Recalled { id: 8, promise: Some(promise) },
            Message::Recalled { id: 8, promise: None },
            Message::Trouble { what: "no space".into() },
            Message::Mark { index: 640, digest: 0x0123_4567_89ab_cdef },
            Message::Clock(ClockFault::NeverSet),
            Message::Clock(ClockFault::Jumped { by_s: -3_600 }),
            Message::JournalNotKept { what: "no space".into() },
        ];
        let mut found = String::new();
        for message in messages {
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &message).unwrap();
            found.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
            found.push('\n');
            assert_eq!(cbor4ii::serde::from_slice::<Message>(bytes.as_slice()).unwrap(), message);
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/messages-v1.hex");
        if std::env::var_os("PIN").is_some() {
            std::fs::write(path, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(path).unwrap(), "members would not understand each other");
    }
}
