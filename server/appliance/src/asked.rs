//! Requests of operators that the audit log keeps, with what came of them.

use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::command::{Command, Setting};
use tiebreaker_pipeline::name::MemberName;

use crate::audit::Event;

/// A request that waits for its answer.
pub(crate) struct Asked {
    cluster: String,
    what: &'static str,
    node: Option<String>,
    by: String,
}

impl Asked {
    /// The request, if it is one that the audit log keeps.
    pub(crate) fn of(member: &MemberHandle, request: &Request, by: &str) -> Option<Self> {
        let (what, node): (_, Option<&MemberName>) = match request {
            Request::Fence { node, .. } => ("fence", Some(node)),
            Request::Confirm { node, .. } => ("confirm", Some(node)),
            Request::Remove { name, .. } => ("remove", Some(name)),
            Request::Propose(Command::Set(Setting::Hold { .. })) => ("hold", None),
            Request::Propose(Command::Set(Setting::Release { .. })) => ("release", None),
            Request::Propose(_)
            | Request::Force { .. }
            | Request::Move { .. }
            | Request::Drain { .. }
            | Request::State
            | Request::Status
            | Request::Log { .. }
            | Request::Why { .. }
            | Request::Journal { .. }
            | Request::ReadIndex
            | Request::RenewCertificate { .. } => return None,
        };
        let cluster = member.state().borrow().cluster.to_string();
        Some(Self { cluster, what, node: node.map(ToString::to_string), by: by.to_owned() })
    }

    /// The request with its answer.
    pub(crate) fn answered(self, reply: &Reply) -> Event {
        let why = match reply {
            Reply::Done { .. } => None,
            Reply::Void { why } => Some(why.to_string()),
            Reply::Refused { why } | Reply::NoLeader { why } => Some(why.clone()),
            other => Some(format!("answered with something else: {other:?}")),
        };
        let Self { cluster, what, node, by } = self;
        Event::Asked { cluster, what: what.to_owned(), node, by, granted: why.is_none(), why }
    }
}
