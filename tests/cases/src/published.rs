//! The published cases, as their file has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// The variable that names the folder of published cases.
pub const CASES_VARIABLE: &str = "TIEBREAKER_CASES";
/// The file in that folder.
const FILE: &str = "pve_scenarios.json";

/// Why the cases, or one of them, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The file can't be read.
    #[error("reading {}: {source}: {CASES_VARIABLE} has to name the folder that holds it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file isn't a list of cases.
    #[error("{}: {source}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// Part of a case says nothing that this program knows.
    #[error("case {case}: {what} {text:?} is not understood: teach the converter what it means")]
    Unknown {
        /// Which case.
        case: String,
        /// What kind of thing.
        what: &'static str,
        /// Its text.
        text: String,
    },
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, as `test-basic1`.
    pub name: String,
    /// Commands in batches; a batch is carried out at once.
    pub cmdlist: Vec<Vec<String>>,
    /// The nodes at the start.
    pub hardware: BTreeMap<String, Hardware>,
    /// The resources at the start.
    pub services: BTreeMap<String, Service>,
    /// What the manager remembers from before the start.
    pub initial_manager_status: Memory,
    /// Settings of the whole cluster.
    pub datacenter: Datacenter,
    /// Rules of placement.
    pub rules: Vec<Rule>,
    /// Groups, which rules have replaced.
    pub groups: Vec<serde_json::Value>,
    /// Declared load.
    pub static_stats: Option<serde_json::Value>,
    /// Measured load.
    pub dynamic_stats: Option<serde_json::Value>,
    /// What comes of it.
    pub outcome: Outcome,
    /// The state that a run of theirs left behind; the outcome tells more.
    #[serde(default, rename = "perl_run")]
    _run: Option<IgnoredAny>,
}

/// A node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// `on` or `off`.
    pub power: String,
    /// `on` or `off`; powering a node on sets it too.
    pub network: String,
    /// CPUs.
    #[serde(default)]
    pub maxcpu: Option<u32>,
    /// Bytes of memory.
    #[serde(default)]
    pub maxmem: Option<u64>,
    /// The version of its software, for moving from groups to rules.
    #[serde(default, rename = "pve-manager-version")]
    pub version: Option<String>,
}

/// A resource.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Where it is configured.
    pub node: String,
    /// What is requested; nothing is disabled.
    #[serde(default)]
    pub state: Option<String>,
    /// Its group.
    #[serde(default)]
    pub group: Option<String>,
    /// Restarts on the same node.
    #[serde(default, deserialize_with = "number")]
    pub max_restart: Option<u32>,
    /// Moves after failures.
    #[serde(default, deserialize_with = "number")]
    pub max_relocate: Option<u32>,
    /// 0 is off.
    #[serde(default, deserialize_with = "number")]
    pub failback: Option<u32>,
}

/// What the manager remembers.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Memory {
    /// States of nodes.
    #[serde(default)]
    pub node_status: BTreeMap<String, String>,
    /// States of resources.
    #[serde(default)]
    pub service_status: BTreeMap<String, Remembered>,
}

/// A resource that the manager remembers.
#[derive(Clone, Debug, Deserialize)]
pub struct Remembered {
    /// Its state.
    pub state: String,
    /// Where it was.
    pub node: String,
    /// Where it was being moved to.
    #[serde(default)]
    pub target: Option<String>,
}

/// Settings of the whole cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datacenter {
    /// Of the HA manager.
    #[serde(default)]
    pub ha: HaSettings,
    /// Of load scheduling.
    #[serde(default)]
    pub crs: BTreeMap<String, serde_json::Value>,
}

/// Settings of the HA manager.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaSettings {
    /// What a shutdown means for resources; `conditional` if it isn't said.
    #[serde(default)]
    pub shutdown_policy: Option<String>,
}

/// A rule of placement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `node-affinity` or `resource-affinity`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub id: String,
    /// Resources, with commas between them.
    pub resources: String,
    /// Nodes, with commas between them, each with `:priority` or without.
    #[serde(default)]
    pub nodes: Option<String>,
    /// `1` is strict.
    #[serde(default)]
    pub strict: Option<String>,
    /// `positive` or `negative`.
    #[serde(default)]
    pub affinity: Option<String>,
}

/// What comes of a case.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// Where each resource belongs.
    pub final_location: BTreeMap<String, String>,
    /// The manager's state of each resource that it still manages.
    pub final_crm_state: BTreeMap<String, String>,
    /// Where each resource runs.
    pub final_running: BTreeMap<String, Vec<String>>,
    /// The manager's state of each node.
    pub final_node_state: BTreeMap<String, String>,
    /// Which nodes have power.
    pub final_power: BTreeMap<String, String>,
    /// The nodes whose fencing was acknowledged, in that order.
    pub fence_ack_order: Vec<String>,
    /// What happened when.
    pub events: Vec<Event>,
}

/// Something that happened in a run of theirs.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Seconds from the start.
    pub t: u32,
    /// What.
    pub ev: String,
    /// To which resource.
    #[serde(default)]
    pub sid: Option<String>,
    /// From which node.
    #[serde(default)]
    pub frm: Option<String>,
    /// To which node.
    #[serde(default)]
    pub to: Option<String>,
}

/// Numbers stand there as numbers in some cases, as text in others.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Plain(u32),
        Text(String),
    }
    match Number::deserialize(deserializer)? {
        Number::Plain(number) => Ok(Some(number)),
        Number::Text(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// Reads all cases from a folder.
///
/// # Errors
/// If the file isn't there or isn't a list of cases.
pub fn load(folder: &Path) -> Result<Vec<Case>, CaseError> {
    let path = folder.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(CaseError::Read { path, source }),
    };
    serde_json::from_slice(&text).map_err(|source| CaseError::Form { path, source })
}

impl Case {
    pub(crate) fn unknown(&self, what: &'static str, text: &str) -> CaseError {
        CaseError::Unknown { case: self.name.clone(), what, text: text.to_owned() }
    }
}
