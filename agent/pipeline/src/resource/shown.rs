//! What people are shown of a resource, in the words that users of Proxmox know.

use serde::{Deserialize, Serialize};

use super::{MoveReason, Phase, Requested, Resource};
use crate::report::Observed;

/// The state of a resource in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// It shall run, and doesn't yet.
    RequestStart,
    /// It runs where it belongs.
    Started,
    /// It shall stop, and hasn't yet.
    RequestStop,
    /// It is stopped, as asked.
    Stopped,
    /// It moves live.
    Migrate,
    /// It moves: stopped here, started there.
    Relocate,
    /// Its node is lost and being fenced.
    Fence,
    /// It is proven to run nowhere, and waits for a node.
    Recovery,
    /// Nobody touches it until its node's agent is back, or the cluster is armed again.
    Freeze,
    /// It was given up.
    Error,
    /// It is stopped and left alone.
    Disabled,
    /// The cluster has nothing to do with it.
    Ignored,
}

impl Shown {
    /// The word for a resource. `observed` is what its owner reports, `fencing` says that a fence of its owner is open,
    /// `frozen` that nothing is decided about it at the moment.
    #[must_use]
    pub fn of(resource: &Resource, observed: Option<&Observed>, fencing: bool, frozen: bool) -> Self {
        let stopped = observed.is_some_and(Observed::is_stopped);
        match (&resource.phase, resource.requested) {
            (Phase::Ignored, _) | (_, Requested::Ignored) => Self::Ignored,
            (Phase::Error { .. }, _) => Self::Error,
            (Phase::Placed { .. } | Phase::Releasing { .. } | Phase::Migrating { .. }, _) if fencing => Self::Fence,
            (_, _) if frozen => Self::Freeze,
            (Phase::Free { .. }, Requested::Disabled) => Self::Disabled,
            (Phase::Free { .. }, Requested::Started | Requested::Stopped) => Self::Recovery,
            (Phase::Migrating { .. }, _) => Self::Migrate,
            (Phase::Releasing { why, .. }, _) => match why {
                MoveReason::Failed { .. }
                | MoveReason::Asked
                | MoveReason::Maintenance
                | MoveReason::Shutdown
                | MoveReason::Better { .. } => Self::Relocate,
            },
            (Phase::New, Requested::Started) => Self::RequestStart,
            (Phase::New, Requested::Stopped | Requested::Disabled) => Self::RequestStop,
            (Phase::Placed { .. }, Requested::Started) => match observed {
                Some(Observed::Running) => Self::Started,
                Some(
                    Observed::Stopped
                    | Observed::Sent
                    | Observed::Starting
                    | Observed::Stopping
                    | Observed::Moving
                    | Observed::Unknown { .. }
                    | Observed::Failed { .. }
                    | Observed::StopFailed { .. }
                    | Observed::MoveFailed { .. },
                )
                | None => Self::RequestStart,
            },
            (Phase::Placed { .. }, Requested::Stopped) if stopped => Self::Stopped,
            (Phase::Placed { .. }, Requested::Disabled) if stopped => Self::Disabled,
            (Phase::Placed { .. }, Requested::Stopped | Requested::Disabled) => Self::RequestStop,
        }
    }

    /// The word itself.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::RequestStart => "request_start",
            Self::Started => "started",
            Self::RequestStop => "request_stop",
            Self::Stopped => "stopped",
            Self::Migrate => "migrate",
            Self::Relocate => "relocate",
            Self::Fence => "fence",
            Self::Recovery => "recovery",
            Self::Freeze => "freeze",
            Self::Error => "error",
            Self::Disabled => "disabled",
            Self::Ignored => "ignored",
        }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}
