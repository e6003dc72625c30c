//! A scenario in the form that `tiebreaker simulate` reads.

use std::collections::BTreeMap;

use serde::Serialize;

/// A scenario.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Scenario {
    pub(crate) profile: &'static str,
    pub(crate) appliance: bool,
    pub(crate) placement: &'static str,
    pub(crate) shutdown_policy: String,
    pub(crate) duration: String,
    pub(crate) node: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource: Vec<Resource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rule: Vec<Rule>,
    pub(crate) event: Vec<Event>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) power: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<u32>,
    pub(crate) bmc: &'static str,
    pub(crate) watchdog: &'static str,
    pub(crate) after_reset: &'static str,
    pub(crate) boot: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Resource {
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) state: &'static str,
    pub(crate) max_restart: u32,
    pub(crate) max_relocate: u32,
    pub(crate) failback: bool,
    #[serde(skip_serializing_if = "Fails::is_none")]
    pub(crate) fails: Fails,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Fails {
    pub(crate) start: u32,
    pub(crate) migrate: u32,
    pub(crate) stop: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) only_on: Vec<String>,
}

impl Fails {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Rule {
    NodeAffinity { resources: Vec<String>, nodes: BTreeMap<String, u32>, strict: bool },
    Together { resources: Vec<String> },
    Apart { resources: Vec<String> },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) at: String,
    #[serde(rename = "do")]
    pub(crate) what: String,
}

impl Scenario {
    /// As JSON, for a file or a simulator.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("maps with text for keys and numbers can always be written")
    }
}

/// Seconds as a scenario writes them.
pub(crate) fn seconds(seconds: u32) -> String {
    format!("{seconds}s")
}
