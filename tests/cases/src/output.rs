//! What a simulator answers, as far as it is compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// An answer that can't be compared.
#[derive(Debug, thiserror::Error)]
#[error("the simulator's answer for {case} isn't the document that `tiebreaker simulate --json` promises: {source}")]
pub struct OutputError {
    /// Which case.
    pub case: String,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Output {
    pub(crate) resources: BTreeMap<String, Resource>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) fenced: Vec<Fenced>,
    pub(crate) recovered: Vec<Recovered>,
    pub(crate) violations: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Resource {
    pub(crate) state: String,
    /// Where it belongs; nothing for what belongs nowhere.
    pub(crate) node: Option<String>,
    pub(crate) running_on: BTreeSet<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) state: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fenced {
    pub(crate) node: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recovered {
    pub(crate) resource: String,
    pub(crate) from: Option<String>,
    pub(crate) at_s: f64,
    pub(crate) after_s: f64,
}
