//! The brake: when more nodes were fenced within a while than the cluster can lose, something is wrong that no power device mends.
//! The appliance then holds the switching of power and waits for a person. Safety never rests on it.

use std::time::Duration;

use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_pipeline::command::{Command, Setting};
use tiebreaker_pipeline::decision::{Decision, LogLine};
use tiebreaker_pipeline::fence::FenceReason;
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::State;
use tracing::{error, warn};

/// Fences are counted for so long, where the configuration says nothing else: a node that is fenced again and again as soon as it
/// is back needs minutes for each round.
pub(crate) const BRAKE_WINDOW: Duration = Duration::from_secs(600);
/// Who holds the switching of power then.
const BRAKE: &str = "the brake";

/// Why this node's power may not be cut now, if it may not; the switching of power is held then, until somebody releases it.
pub(crate) async fn hold_if_too_many(member: &MemberHandle, node: &MemberName, window: Duration) -> Option<String> {
    let (why, held) = {
        let state = member.state();
        let state = state.borrow();
        (too_many(&state, node, window)?, state.settings.hold.is_some())
    };
    if !held {
        let setting = Setting::Hold { by: BRAKE.to_owned(), reason: Some(why.clone()) };
        match member.ask(Request::Propose(Command::Set(setting))).await {
            Reply::Done { .. } => {
                error!(%node, why, "the brake holds the switching of power: `tiebreaker fence release` ends that")
            }
            // This command is refused all the same, and the next one asks again.
            other => warn!(%node, answer = ?other, "the brake could not be recorded"),
        }
    }
    Some(format!("{BRAKE}: {why}; look at the nodes, then `tiebreaker fence release`"))
}

/// Whether more nodes were fenced for being lost, within `window` of this node's fence or since then, than the cluster can lose.
/// What an operator asked for isn't counted, and isn't held; nor is anything from before somebody's last release.
fn too_many(state: &State, node: &MemberName, window: Duration) -> Option<String> {
    // Below that nobody could release it.
    if state.level < Level::POWER_CAN_BE_HELD {
        return None;
    }
    let (id, fence) = state.open_fence(node)?;
    match fence.reason {
        FenceReason::Lost { .. } => {}
        FenceReason::Asked { .. } => return None,
    }
    let mine = |line: &&LogLine| matches!(&line.decision, Decision::FenceWanted { id: it, .. } if *it == id);
    // A timeline that has forgotten this fence is no sign of a storm: one that long ago is over.
    let wanted_ms = state.log.iter().rev().take_while(|line| !is_release(line)).find(mine)?.at_ms;
    let since_ms = wanted_ms.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    let is_lost = |line: &&LogLine| {
        matches!(&line.decision, Decision::FenceWanted { reason: FenceReason::Lost { .. }, .. })
            && line.at_ms >= since_ms
    };
    let fences = state.log.iter().rev().take_while(|line| !is_release(line)).filter(is_lost).count();
    let most = can_lose(state);
    (fences > most).then(|| {
        format!("{fences} fences of lost nodes within {} s, and the cluster can lose {most}", window.as_secs())
    })
}

/// Somebody looked, and let it go on.
fn is_release(line: &LogLine) -> bool {
    matches!(&line.decision, Decision::Set { setting: Setting::Release { .. } })
}

/// How many nodes the cluster can lose: what somebody has set as the goal, or what its votes allow. One at least, since that is
/// what a cluster is for.
fn can_lose(state: &State) -> usize {
    let by_votes = state.voters.len().saturating_sub(1) / 2;
    let goal = state.settings.tolerate.map(|goal| usize::try_from(goal).unwrap_or(usize::MAX));
    goal.unwrap_or(by_votes).max(1)
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::command::{ENTRY_VERSION, Entry};
    use tiebreaker_pipeline::fence::{Evidence, FenceId};
    use tiebreaker_pipeline::report::Capacity;
    use tiebreaker_pipeline::state::Role;

    use super::*;

    const MINUTE: u64 = 60_000;
    const WINDOW: Duration = Duration::from_secs(600);

    struct Timeline(State);

    impl Timeline {
        fn new() -> Self {
            let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
            state.level = Level::KNOWN;
            let mut timeline = Self(state);
            for node in ["node1", "node2"] {
                let (name, role, key) = (node.parse().unwrap(), Role::Node, node.into());
                timeline.at(0, Command::AddMember { name, role, addresses: Vec::new(), key });
            }
            timeline
        }

        fn at(&mut self, at_ms: u64, command: Command) {
            let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms, command };
            self.0.apply(self.0.applied + 1, entry).unwrap();
        }

        fn wanted(&mut self, at_ms: u64, node: &str, reason: FenceReason) -> FenceId {
            let node: MemberName = node.parse().unwrap();
            let incarnation = self.0.nodes[&node].last_incarnation + 1;
            let closed = self.0.nodes[&node].closed_at;
            let admit = Command::Admit {
                node: node.clone(),
                incarnation,
                boot: format!("boot {incarnation}"),
                watchdog: None,
                machine: None,
                closed,
                capacity: Capacity::default(),
                booted_in_ms: 0,
            };
            self.at(at_ms, admit);
            self.at(at_ms, Command::FenceWanted { node: node.clone(), incarnation, reason });
            self.0.open_fence(&node).unwrap().0
        }

        fn lost(&mut self, at_ms: u64, node: &str) -> FenceId {
            self.wanted(at_ms, node, FenceReason::Lost { silent_ms: 2_000 })
        }

        fn ends(&mut self, at_ms: u64, id: FenceId) {
            self.at(at_ms, Command::Fenced { id, evidence: Evidence::Operator { by: "root".into() } });
            self.at(at_ms, Command::Closed { id });
        }

        fn brakes(&self, node: &str) -> bool {
            too_many(&self.0, &node.parse().unwrap(), WINDOW).is_some()
        }
    }

    #[test]
    fn more_fences_in_the_window_than_the_cluster_can_lose_are_held_until_somebody_releases() {
        let mut timeline = Timeline::new();
        let first = timeline.lost(MINUTE, "node1");
        assert!(!timeline.brakes("node1"), "one may be lost");
        timeline.ends(2 * MINUTE, first);
        let second = timeline.lost(10 * MINUTE, "node2");
        assert!(timeline.brakes("node2"), "the second within ten minutes");
        let why = too_many(&timeline.0, &"node2".parse().unwrap(), WINDOW).unwrap();
        assert_eq!(why, "2 fences of lost nodes within 600 s, and the cluster can lose 1");
        timeline.at(10 * MINUTE, Command::Set(Setting::Hold { by: BRAKE.into(), reason: Some(why) }));
        assert!(timeline.brakes("node2"), "for as long as nobody has looked");
        timeline.at(60 * MINUTE, Command::Set(Setting::Release { by: "root".into() }));
        assert!(!timeline.brakes("node2"));
        timeline.ends(61 * MINUTE, second);
        let third = timeline.lost(62 * MINUTE, "node1");
        assert!(!timeline.brakes("node1"), "counting begins anew with the release");
        timeline.ends(63 * MINUTE, third);
        timeline.lost(64 * MINUTE, "node1");
        assert!(timeline.brakes("node1"), "one node again and again counts each time");
    }

    #[test]
    fn fences_that_are_long_over_and_those_that_somebody_asked_for_do_not_count() {
        let mut timeline = Timeline::new();
        let first = timeline.lost(MINUTE, "node1");
        timeline.ends(2 * MINUTE, first);
        timeline.lost(11 * MINUTE + 1, "node2");
        assert!(!timeline.brakes("node2"), "the first was before the window");
        let mut asked = Timeline::new();
        let word = || FenceReason::Asked { by: "root".into() };
        let first = asked.wanted(MINUTE, "node1", word());
        asked.ends(2 * MINUTE, first);
        let second = asked.lost(3 * MINUTE, "node2");
        assert!(!asked.brakes("node2"), "what was asked for is no sign of a storm");
        asked.ends(4 * MINUTE, second);
        let third = asked.lost(5 * MINUTE, "node2");
        assert!(asked.brakes("node2"));
        asked.ends(5 * MINUTE, third);
        asked.wanted(6 * MINUTE, "node2", word());
        assert!(!asked.brakes("node2"), "whoever asks has looked");
    }

    #[test]
    fn a_goal_says_how_many_may_be_lost_and_it_is_one_at_least() {
        let mut timeline = Timeline::new();
        let first = timeline.lost(MINUTE, "node1");
        timeline.ends(2 * MINUTE, first);
        timeline.lost(3 * MINUTE, "node2");
        assert!(timeline.brakes("node2"));
        timeline.0.settings.tolerate = Some(2);
        assert!(!timeline.brakes("node2"));
        let mut first = Timeline::new();
        first.0.settings.tolerate = Some(0);
        first.lost(MINUTE, "node1");
        assert!(!first.brakes("node1"));
    }

    #[test]
    fn row_34_where_nobody_could_release_it_nothing_is_held() {
        let mut timeline = Timeline::new();
        let first = timeline.lost(MINUTE, "node1");
        timeline.ends(2 * MINUTE, first);
        timeline.lost(3 * MINUTE, "node2");
        timeline.0.level = Level::SUPPLIES_PROVE;
        assert!(!timeline.brakes("node2"));
    }
}
