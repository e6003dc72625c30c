//! Power devices and their secrets: what a program on the appliance asks its daemon.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A password on its way through the local socket. It is never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Takes a text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text in the clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(redacted)")
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// What is asked about power devices. Without the name of a device all of the node's are meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceRequest {
    /// Which there are, and what is known of them. Nothing is sent to them.
    List {
        /// Of this node alone.
        node: Option<String>,
    },
    /// Reads the power state now.
    Look {
        /// Whose.
        node: String,
        /// Which.
        device: Option<String>,
    },
    /// Logs in with the right to switch, reads the state, and switches nothing.
    Prove {
        /// Whose.
        node: String,
        /// Which.
        device: Option<String>,
    },
    /// Gives the node power.
    On {
        /// Whose.
        node: String,
        /// Which.
        device: Option<String>,
        /// Also while the switching of power is held, where no daemon runs: a daemon keeps to it.
        #[serde(default)]
        force: bool,
    },
    /// Begins a drill: the cluster fences the node by this device, sees it go dark and come back, and learns the times.
    Drill {
        /// Whose.
        node: String,
        /// Which; may be left out where the node has one.
        device: Option<String>,
        /// How long the node stays dark, in seconds; `None`: longer than it boots.
        dark_s: Option<u64>,
        /// Also if that breaks the plan, or the node runs something.
        force: bool,
    },
    /// How the drill stands that is under way or was last.
    Drilled,
    /// Keeps another secret for a device.
    Password {
        /// Whose.
        node: String,
        /// Which.
        device: String,
        /// The secret.
        password: Hidden,
    },
    /// Tries a device, and keeps it if it works.
    Add {
        /// Its table of `server.toml`, without the heading.
        table: String,
        /// The secret, where the table names no place for one.
        password: Option<Hidden>,
        /// Keeps it also if it doesn't work.
        force: bool,
    },
}

/// What a drill has shown of a power device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrillTimes {
    /// When it ended, milliseconds since 1970.
    pub at_ms: u64,
    /// From the command until it read off twice, in milliseconds.
    pub off_ms: u64,
    /// How long the node stayed without power, in milliseconds.
    pub dark_ms: u64,
    /// From the power until the node was admitted again, in milliseconds.
    pub boot_ms: u64,
    /// The grade of the evidence.
    pub grade: String,
}

/// How a drill stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillState {
    /// It goes on.
    UnderWay,
    /// The device is this node's.
    Passed(DrillTimes),
    /// It has shown nothing, or that the device is another's.
    Failed {
        /// What happened, and what to do.
        why: String,
    },
}

/// A drill.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrillReport {
    /// Whom.
    pub node: String,
    /// By which device.
    pub device: String,
    /// What was seen so far, a sentence each.
    pub seen: Vec<String>,
    /// How it stands.
    pub state: DrillState,
}

/// What is known of a power device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its cluster.
    pub cluster: String,
    /// Whose power it switches.
    pub node: String,
    /// Its name.
    pub device: String,
    /// Its kind.
    pub kind: String,
    /// What it switches, as it is reached.
    pub address: String,
    /// `on` or `off`, if it was read just now.
    pub state: Option<String>,
    /// What it told of the machine behind it.
    pub guid: Option<String>,
    /// What is wrong, if it was asked just now and did not do it.
    pub fault: Option<String>,
    /// The number of its level in the node's plan, if it has one.
    #[serde(default)]
    pub level: Option<u8>,
    /// The name of its level, where several devices have to confirm together.
    #[serde(default)]
    pub together: Option<String>,
    /// Whether the cluster takes its word; unknown without a daemon.
    pub proven: Option<bool>,
    /// Why the cluster doesn't take its word.
    pub unproven: Option<String>,
    /// When it was proven last by this run of the daemon, milliseconds since 1970.
    pub proven_at_ms: Option<u64>,
    /// How long ago that is, in milliseconds, by a clock that nobody sets.
    #[serde(default)]
    pub proven_ago_ms: Option<u64>,
    /// What a drill has shown.
    #[serde(default)]
    pub drill: Option<DrillTimes>,
    /// How long its level took at most until it read off, in milliseconds, in the last fences and drills that used it.
    #[serde(default)]
    pub off_ms: Option<u64>,
    /// How long its level is waited for before the node's next one follows, in milliseconds.
    #[serde(default)]
    pub within_ms: Option<u64>,
    /// How long it took to answer just now.
    pub took_ms: Option<u64>,
}

/// What trying a new device showed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceTrial {
    /// The device; its `fault` says what is wrong.
    pub report: DeviceReport,
    /// What was found out, a sentence each.
    pub findings: Vec<String>,
    /// It was kept.
    pub kept: bool,
}

/// What is asked about the secrets of power devices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretsRequest {
    /// For which devices there are some, where the key is, and to whom they are sealed.
    Status,
    /// Seals them to one more public key of age.
    SealTo {
        /// The key.
        recipient: String,
    },
}

/// What is known of the secrets, without any of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SecretsReport {
    /// The encrypted file.
    pub file: String,
    /// `credential`, `file`, or nothing before the first secret.
    pub key: Option<String>,
    /// The devices.
    pub names: Vec<String>,
    /// The public keys to which they are sealed beside the appliance's own.
    pub recovery: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_crosses_the_socket_and_is_never_shown() {
        let request = DeviceRequest::Password {
            node: "node1".into(),
            device: "bmc".into(),
            password: Hidden::new("hunter2".into()),
        };
        assert!(!format!("{request:?}").contains("hunter2"));
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &request).unwrap();
        assert_eq!(cbor4ii::serde::from_slice::<DeviceRequest>(&bytes[..]).unwrap(), request);
    }
}
