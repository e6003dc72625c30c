//! Watches what the cluster decides about fences, for the audit log: whoever asked, and wherever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::command::Setting;
use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::fence::{Evidence, Fence, FenceId, Progress};
use tiebreaker_pipeline::state::State;
use tracing::warn;

use crate::audit::{self, Audit, AuditError, Event};

/// Whoever doesn't know the newest decision is asked again after this.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// How far a fence had come when it was looked at last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Seen {
    fenced: bool,
    closed: bool,
    failure: Option<String>,
}

/// What the audit log holds already, of one cluster.
#[derive(Debug, Default)]
struct History {
    /// Each fence with its node, the node's life and the reason: a cluster that was founded anew counts from 1 again.
    fences: BTreeMap<FenceId, (String, u64, String, Seen)>,
    hold: Option<(String, Option<String>)>,
}

impl History {
    /// Reads it out of the log below the data folder.
    fn read(root: &Path, cluster: &str) -> Result<Self, AuditError> {
        let mut history = Self::default();
        audit::each(&audit::folder(root), |event| history.add(cluster, event))?;
        Ok(history)
    }

    fn add(&mut self, of: &str, event: &Event) {
        match event {
            Event::Wanted { cluster, fence, node, incarnation, reason, .. } if cluster == of => {
                let first = (node.clone(), *incarnation, reason.clone(), Seen::default());
                self.fences.insert(FenceId(*fence), first);
            }
            Event::Failed { cluster, fence, why } if cluster == of => {
                self.change(*fence, |seen| seen.failure = Some(why.clone()));
            }
            Event::Evidence { cluster, fence, .. } if cluster == of => self.change(*fence, |seen| seen.fenced = true),
            Event::Closed { cluster, fence, .. } if cluster == of => self.change(*fence, |seen| seen.closed = true),
            Event::Held { cluster, by, reason } if cluster == of => self.hold = Some((by.clone(), reason.clone())),
            Event::Released { cluster, .. } if cluster == of => self.hold = None,
            _ => {}
        }
    }

    fn change(&mut self, fence: u64, change: impl FnOnce(&mut Seen)) {
        if let Some((.., seen)) = self.fences.get_mut(&FenceId(fence)) {
            change(seen);
        }
    }

    /// What is recorded of a fence.
    fn of(&self, id: FenceId, fence: &Fence) -> Option<&Seen> {
        let (node, incarnation, reason, seen) = self.fences.get(&id)?;
        let same =
            *node == fence.node.as_str() && *incarnation == fence.incarnation && *reason == fence.reason.to_string();
        same.then_some(seen)
    }

    /// Whether a fence that is over and isn't recorded is from before the log's beginning, or from its gaps long ago.
    fn is_older(&self, id: FenceId) -> bool {
        self.fences.last_key_value().is_none_or(|(newest, _)| id < *newest)
    }
}

/// Records each step of each fence, for as long as the member runs, and what came of those whose end the log lacks because
/// the daemon was down then.
pub(crate) async fn watch(member: MemberHandle, audit: Audit, root: PathBuf) {
    let mut states = member.state();
    let cluster = states.borrow().cluster.to_string();
    // Some 32 MiB at most, and nothing waits for it.
    let history = tokio::task::spawn_blocking(move || History::read(&root, &cluster)).await;
    let history = match history.map_err(|error| error.to_string()).and_then(|read| read.map_err(|e| e.to_string())) {
        Ok(history) => history,
        Err(why) => {
            warn!("what the audit log holds of fences can't be read, so some may be recorded twice: {why}");
            History::default()
        }
    };
    let mut seen = BTreeMap::new();
    let mut holds = Holds { seen: history.hold.clone(), newest: None };
    let mut asking = std::pin::pin!(newest(&member));
    loop {
        let mut events = look(&history, &mut seen, &states.borrow_and_update());
        events.extend(holds.look(&states.borrow()));
        for event in events {
            audit.record(event);
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() {
                return;
            },
            index = &mut asking, if holds.newest.is_none() => holds.newest = Some(index),
        }
    }
}

/// The index of the newest decision, as soon as somebody leads who knows it.
async fn newest(member: &MemberHandle) -> u64 {
    loop {
        if let Reply::ReadIndex { index } = member.ask(Request::ReadIndex).await {
            return index;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What is new.
fn look(history: &History, seen: &mut BTreeMap<FenceId, Seen>, state: &State) -> Vec<Event> {
    let mut events = Vec::new();
    for (id, fence) in &state.fences {
        let known = seen.entry(*id).or_insert_with(|| match history.of(*id, fence) {
            Some(seen) => seen.clone(),
            None if !fence.is_open() && history.is_older(*id) => {
                Seen { fenced: true, closed: true, failure: fence.last_failure.clone() }
            }
            None => {
                events.push(wanted(state, *id, fence));
                Seen::default()
            }
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
            events.push(proven(state, *id, &node, evidence));
        }
        if over && !std::mem::replace(&mut known.closed, true) {
            let is = |decision: &Decision| matches!(decision, Decision::FenceClosed { id: it, .. } if it == id);
            events.push(Event::Closed { cluster, fence: fence_number, node, decided_ms: decided(state, is) });
        }
    }
    // A store that is being read again may not have come to its newest fences yet.
    seen.retain(|id, _| state.fences.contains_key(id) || id.0 >= state.next_fence);
    events
}

/// When that was decided, if the timeline still says so.
fn decided(state: &State, is: impl Fn(&Decision) -> bool) -> Option<u64> {
    state.log.iter().rev().find(|line| is(&line.decision)).map(|line| line.at_ms)
}

/// What was seen of the holding of power.
struct Holds {
    seen: Option<(String, Option<String>)>,
    /// The newest decision when somebody was asked. A daemon that starts reads its store, whose state may be from before what it
    /// has recorded itself: up to there a difference is no news.
    newest: Option<u64>,
}

impl Holds {
    /// What is new about the switching of power.
    fn look(&mut self, state: &State) -> Option<Event> {
        self.newest.filter(|newest| state.applied >= *newest)?;
        let now = state.settings.hold.as_ref().map(|hold| (hold.by.clone(), hold.reason.clone()));
        let before = std::mem::replace(&mut self.seen, now.clone());
        let cluster = state.cluster.to_string();
        match now {
            Some((by, reason)) if before.as_ref() != self.seen.as_ref() => Some(Event::Held { cluster, by, reason }),
            None if before.is_some() => {
                let by = state.log.iter().rev().find_map(|line| match &line.decision {
                    Decision::Set { setting: Setting::Release { by } } => Some(by.clone()),
                    _ => None,
                });
                Some(Event::Released { cluster, by })
            }
            Some(_) | None => None,
        }
    }
}

fn wanted(state: &State, id: FenceId, fence: &Fence) -> Event {
    let is = |decision: &Decision| matches!(decision, Decision::FenceWanted { id: it, .. } if *it == id);
    Event::Wanted {
        cluster: state.cluster.to_string(),
        fence: id.0,
        node: fence.node.to_string(),
        incarnation: fence.incarnation,
        reason: fence.reason.to_string(),
        decided_ms: decided(state, is),
    }
}

fn proven(state: &State, id: FenceId, node: &str, evidence: &Evidence) -> Event {
    let is = |decision: &Decision| matches!(decision, Decision::Fenced { id: it, .. } if *it == id);
    Event::Evidence {
        cluster: state.cluster.to_string(),
        fence: id.0,
        node: node.to_owned(),
        grade: evidence.grade().to_owned(),
        evidence: evidence.to_string(),
        decided_ms: decided(state, is),
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
    use tiebreaker_pipeline::fence::FenceReason;
    use tiebreaker_pipeline::name::MemberName;
    use tiebreaker_pipeline::report::Capacity;
    use tiebreaker_pipeline::state::Role;

    use super::*;

    #[test]
    fn a_hold_and_its_end_are_recorded_once_each_with_who_did_it() {
        let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        let mut set = |setting| {
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 7, command: Command::Set(setting) };
            state.apply(state.applied + 1, entry).unwrap();
            state.clone()
        };
        let held = set(Setting::Hold { by: "alice".into(), reason: None });
        let free = set(Setting::Release { by: "bob".into() });
        let mut holds = Holds { seen: None, newest: Some(0) };
        let cluster = || "home".to_owned();
        let hold = || Event::Held { cluster: cluster(), by: "alice".into(), reason: None };
        let release = || Event::Released { cluster: cluster(), by: Some("bob".into()) };
        assert_eq!(holds.look(&held), Some(hold()));
        assert_eq!(holds.look(&held), None);
        assert_eq!(holds.look(&free), Some(release()));
        assert_eq!(holds.look(&free), None);

        // A daemon that starts behind its own commit records neither an end that there was not, nor the beginning once more.
        let founded = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        let mut again = Holds { seen: Some(("alice".into(), None)), newest: None };
        assert_eq!(again.look(&founded), None, "nobody knows yet whether that is the newest");
        again.newest = Some(held.applied);
        assert_eq!(again.look(&founded), None, "it is not");
        assert_eq!(again.look(&held), None, "it is recorded");
        let mut over = Holds { seen: None, newest: Some(free.applied) };
        assert_eq!((over.look(&held), over.look(&free)), (None, None), "both are recorded");
        let mut missed = Holds { seen: Some(("alice".into(), None)), newest: Some(free.applied) };
        assert_eq!(missed.look(&free), Some(release()), "it was released while the daemon was down");
    }

    /// A cluster whose node `a` is admitted, and what is done to it.
    fn fenced(commands: &[Command]) -> State {
        let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        let node = || "a".parse::<MemberName>().unwrap();
        let join = Command::AddMember { name: node(), role: Role::Node, addresses: Vec::new(), key: "aa".into() };
        let admit = Command::Admit {
            node: node(),
            incarnation: 1,
            boot: "one".into(),
            watchdog: None,
            machine: None,
            closed: 0,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        };
        let reason = FenceReason::Asked { by: "alice".into() };
        let fence = Command::FenceWanted { node: node(), incarnation: 1, reason };
        for command in [join, admit, fence].iter().chain(commands) {
            let index = state.applied + 1;
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1_000 * index, command: command.clone() };
            state.apply(index, entry).unwrap();
        }
        state
    }

    fn names(events: &[Event]) -> Vec<&'static str> {
        let name = |event: &Event| match event {
            Event::Wanted { .. } => "wanted",
            Event::Failed { .. } => "failed",
            Event::Evidence { .. } => "evidence",
            Event::Closed { decided_ms: Some(5_000), .. } => "closed",
            _ => "something else",
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn a_fence_that_ended_while_the_daemon_was_down_gets_the_entries_that_it_lacks_and_none_twice() {
        let by = |by: &str| Evidence::Operator { by: by.to_owned() };
        let open = fenced(&[]);
        let closed =
            fenced(&[Command::Fenced { id: FenceId(1), evidence: by("bob") }, Command::Closed { id: FenceId(1) }]);
        let mut history = History::default();
        let first = look(&history, &mut BTreeMap::new(), &open);
        assert_eq!(names(&first), ["wanted"]);
        first.iter().for_each(|event| history.add("home", event));
        // The daemon that starts again has a store that is read again: at first it stands where it stood.
        let mut seen = BTreeMap::new();
        let founded = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
        assert_eq!(look(&history, &mut seen, &founded), []);
        assert_eq!(look(&history, &mut seen, &open), [], "it is recorded already");
        let rest = look(&history, &mut seen, &closed);
        assert_eq!(names(&rest), ["evidence", "closed"]);
        rest.iter().for_each(|event| history.add("home", event));
        assert_eq!(look(&history, &mut BTreeMap::new(), &closed), []);
        // A cluster of the same name that was founded anew has a first fence again.
        let mut other = closed.clone();
        other.fences.get_mut(&FenceId(1)).unwrap().incarnation = 9;
        assert_eq!(names(&look(&history, &mut BTreeMap::new(), &other)), ["wanted", "evidence", "closed"]);
    }

    #[test]
    fn a_fence_from_before_the_log_began_is_not_recorded_as_if_it_were_new() {
        let by = Evidence::Operator { by: "bob".into() };
        let closed = fenced(&[Command::Fenced { id: FenceId(1), evidence: by }, Command::Closed { id: FenceId(1) }]);
        assert_eq!(look(&History::default(), &mut BTreeMap::new(), &closed), []);
    }
}
