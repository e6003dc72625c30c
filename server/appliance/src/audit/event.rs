//! What the audit log holds. Stored: names and meanings stay, new ones are added.

use serde::{Deserialize, Serialize};

/// What is done with a power device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    /// Read the power state.
    Look,
    /// Prove: log in with the right to switch, and switch nothing.
    Prove,
    /// Switch on.
    On,
}

/// One line's document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Counted from 1, for the life of the appliance.
    pub number: u64,
    /// When, milliseconds since 1970, by the appliance's clock.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The daemon began.
    Started {
        /// Its version.
        version: String,
    },
    /// A power cut tore the last line: so many bytes of it were removed.
    Torn {
        /// Bytes.
        bytes: u64,
    },
    /// The log before this one was tampered with, and lies elsewhere now.
    SetAside {
        /// Where.
        folder: String,
        /// What is wrong with it.
        why: String,
    },
    /// The card took so many entries not in time.
    Lost {
        /// How many.
        events: u64,
    },
    /// Somebody asked for a fence, a confirmation or a removal through the appliance, and was answered.
    Asked {
        /// The cluster.
        cluster: String,
        /// `fence`, `confirm`, `hold`, `release`.
        what: String,
        /// Whom it is about.
        node: Option<String>,
        /// Who.
        by: String,
        /// Whether it was granted.
        granted: bool,
        /// The answer to what was refused.
        why: Option<String>,
    },
    /// The cluster has decided to fence a node.
    Wanted {
        /// The cluster.
        cluster: String,
        /// The fence.
        fence: u64,
        /// Whom.
        node: String,
        /// Which life of it.
        incarnation: u64,
        /// Why.
        reason: String,
        /// When the cluster decided that, milliseconds since 1970 by the clock of whoever proposed it, where its timeline
        /// still says so: it may be recorded late.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_ms: Option<u64>,
    },
    /// A device is told something for a fence.
    Attempt {
        /// The cluster.
        cluster: String,
        /// Whose device.
        node: String,
        /// Which.
        device: String,
        /// `look`, `off` or `on`.
        command: String,
    },
    /// What came of it.
    Answer {
        /// The cluster.
        cluster: String,
        /// Whose device.
        node: String,
        /// Which.
        device: String,
        /// `look`, `off` or `on`.
        command: String,
        /// `on`, `off`, `taken`, `refused` or `unanswered`.
        result: String,
        /// Why it was not done.
        why: Option<String>,
    },
    /// A device failed for a fence.
    Failed {
        /// The cluster.
        cluster: String,
        /// The fence.
        fence: u64,
        /// Why.
        why: String,
    },
    /// A node counts as fenced.
    Evidence {
        /// The cluster.
        cluster: String,
        /// The fence.
        fence: u64,
        /// Whom.
        node: String,
        /// The grade.
        grade: String,
        /// In words.
        evidence: String,
        /// When the cluster decided that, milliseconds since 1970 by the clock of whoever proposed it, where its timeline
        /// still says so: it may be recorded late.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_ms: Option<u64>,
    },
    /// No command of a fence can land any more.
    Closed {
        /// The cluster.
        cluster: String,
        /// The fence.
        fence: u64,
        /// Whom.
        node: String,
        /// When the cluster decided that, milliseconds since 1970 by the clock of whoever proposed it, where its timeline
        /// still says so: it may be recorded late.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_ms: Option<u64>,
    },
    /// The switching of power is held.
    Held {
        /// The cluster.
        cluster: String,
        /// Who holds it.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// The switching of power is held no more.
    Released {
        /// The cluster.
        cluster: String,
        /// Who released it, where the timeline still says so.
        by: Option<String>,
    },
    /// An operator works a device by hand.
    ByHand {
        /// The cluster.
        cluster: String,
        /// Whose device.
        node: String,
        /// Which.
        device: String,
        /// What.
        act: Act,
        /// Who.
        by: String,
    },
    /// A device is proven now, or isn't any more.
    Proof {
        /// The cluster.
        cluster: String,
        /// Whose device.
        node: String,
        /// Which.
        device: String,
        /// Whether the cluster takes its word.
        proven: bool,
        /// Why not.
        why: Option<String>,
    },
    /// A drill has ended.
    Drill {
        /// The cluster.
        cluster: String,
        /// Whom.
        node: String,
        /// By which device.
        device: String,
        /// Who asked for it.
        by: String,
        /// The device is this node's.
        passed: bool,
        /// Why it has not shown that.
        why: Option<String>,
    },
    /// A device was added.
    DeviceAdded {
        /// The cluster.
        cluster: String,
        /// Whose power it switches.
        node: String,
        /// Its name.
        device: String,
        /// Its kind and address.
        address: String,
        /// Who.
        by: String,
    },
    /// The secret of a device was set anew.
    SecretSet {
        /// The cluster.
        cluster: String,
        /// Whose device.
        node: String,
        /// Which.
        device: String,
        /// Who.
        by: String,
    },
}
