//! The running clusters, for whoever asks for figures.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::name::ClusterName;
use tiebreaker_pipeline::state::State;

/// The clusters of the daemon that run now.
#[derive(Clone, Default)]
pub struct Figures(Arc<RwLock<BTreeMap<ClusterName, MemberHandle>>>);

impl Figures {
    /// One has started.
    pub(crate) fn started(&self, name: &ClusterName, member: &MemberHandle) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), member.clone());
    }

    /// One has stopped.
    pub(crate) fn stopped(&self, name: &ClusterName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What they have applied, by name.
    pub(crate) fn states(&self) -> Vec<Arc<State>> {
        let clusters = self.0.read().unwrap_or_else(PoisonError::into_inner);
        clusters.values().map(|member| member.state().borrow().clone()).collect()
    }
}
