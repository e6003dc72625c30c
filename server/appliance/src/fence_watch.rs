//! Watches what the cluster decides about fences, for the audit log: whoever asked, and wherever.

use std::collections::BTreeMap;

use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::fence::{Evidence, Fence, FenceId, Progress};
use tiebreaker_pipeline::state::State;

use crate::audit::{Audit, Event};

/// How far a fence had come when it was looked at last.
#[derive(Default)]
struct Seen {
    fenced: bool,
    closed: bool,
    failure: Option<String>,
}

/// Records each step of each fence, for as long as the member runs. What was over when the daemon started is left to the
/// one that ran then: the end of a fence that closed while none ran is not recorded.
pub(crate) async fn watch(member: MemberHandle, audit: Audit) {
    let mut states = member.state();
    let mut seen = BTreeMap::new();
    for (id, fence) in &states.borrow_and_update().fences {
        if !fence.is_open() {
            seen.insert(*id, Seen { fenced: true, closed: true, failure: fence.last_failure.clone() });
        }
    }
    loop {
        let events = look(&mut seen, &states.borrow_and_update());
        for event in events {
            audit.record(event);
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// What is new.
fn look(seen: &mut BTreeMap<FenceId, Seen>, state: &State) -> Vec<Event> {
    let mut events = Vec::new();
    for (id, fence) in &state.fences {
        let known = seen.entry(*id).or_insert_with(|| {
            events.push(wanted(state, *id, fence));
            Seen::default()
        });
        let (cluster, fence_number, node) = (state.cluster.to_string(), id.0, fence.node.to_string());
        if let Some(why) = &fence.last_failure
            && known.failure.as_ref() != Some(why)
        {
            known.failure = Some(why.clone());
            events.push(Event::Failed { cluster: cluster.clone(), fence: fence_number, why: why.clone() });
        }
        let (proof, over) = match &fence.progress {
            Progress::Wanted => (None, false),
            Progress::Fenced { evidence } => (Some(evidence), false),
            Progress::Closed { evidence } => (Some(evidence), true),
        };
        if let Some(evidence) = proof
            && !std::mem::replace(&mut known.fenced, true)
        {
            events.push(proven(&cluster, fence_number, &node, evidence));
        }
        if over && !std::mem::replace(&mut known.closed, true) {
            events.push(Event::Closed { cluster, fence: fence_number, node });
        }
    }
    seen.retain(|id, _| state.fences.contains_key(id));
    events
}

fn wanted(state: &State, id: FenceId, fence: &Fence) -> Event {
    Event::Wanted {
        cluster: state.cluster.to_string(),
        fence: id.0,
        node: fence.node.to_string(),
        incarnation: fence.incarnation,
        reason: fence.reason.to_string(),
    }
}

fn proven(cluster: &str, fence: u64, node: &str, evidence: &Evidence) -> Event {
    Event::Evidence {
        cluster: cluster.to_owned(),
        fence,
        node: node.to_owned(),
        grade: evidence.grade().to_owned(),
        evidence: evidence.to_string(),
    }
}
