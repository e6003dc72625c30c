//! Fences, from the wish to the closing.

use crate::command::Void;
use crate::decision::Decision;
use crate::fence::{Evidence, Fence, FenceId, FenceReason, Progress};
use crate::name::MemberName;
use crate::state::{CLOSED_FENCES_MAX, State};

impl State {
    pub(super) fn fence_wanted(
        &mut self,
        at: u64,
        node: MemberName,
        incarnation: u64,
        reason: FenceReason,
    ) -> Result<(), Void> {
        if let Some((id, _)) = self.open_fence(&node) {
            return Err(Void::FenceOpen { id, node });
        }
        let Some(life) = self.life(&node) else {
            return Err(Void::NotAdmitted { node });
        };
        if life.incarnation != incarnation && self.rules.late_commands_are_void() {
            return Err(Void::Outdated);
        }
        let (incarnation, boot) = (life.incarnation, life.boot.clone());
        let (left, voters) = self.voters_left_without(&node);
        if self.rules.fences_leave_a_majority() && left * 2 <= voters {
            return Err(Void::NoMajorityLeft { node, left, voters });
        }
        let id = FenceId(self.next_fence);
        self.next_fence += 1;
        let fence = Fence {
            node: node.clone(),
            incarnation,
            boot,
            reason: reason.clone(),
            progress: Progress::Wanted,
            wanted_at: self.applied,
            last_failure: None,
        };
        self.fences.insert(id, fence);
        self.say(at, Decision::FenceWanted { id, node, reason });
        Ok(())
    }

    pub(super) fn fenced(&mut self, at: u64, id: FenceId, evidence: Evidence) -> Result<(), Void> {
        let Some(fence) = self.fences.get_mut(&id) else {
            return Err(Void::FenceNotOpen { id });
        };
        match fence.progress {
            Progress::Wanted => {}
            Progress::Fenced { .. } | Progress::Closed { .. } => return Err(Void::FenceNotOpen { id }),
        }
        // Some member couldn't read it.
        if evidence.known_from() > self.level {
            return Err(Void::Outdated);
        }
        // A life that nothing guards may be suspended after its leader has done the sum.
        let unbound =
            self.nodes.get(&fence.node).and_then(|state| state.life.as_ref()).is_some_and(|l| l.unbound.is_some());
        let by_time = matches!(evidence, Evidence::WatchdogTime { .. });
        if unbound && by_time && self.rules.unbound_lives_prove_nothing() {
            return Err(Void::Outdated);
        }
        fence.progress = Progress::Fenced { evidence: evidence.clone() };
        let node = fence.node.clone();
        if let Some(state) = self.nodes.get_mut(&node) {
            state.life = None;
            state.leaving = None;
        }
        self.say(at, Decision::Fenced { id, node: node.clone(), evidence });
        self.free_all_of(at, &node, false, false);
        Ok(())
    }

    pub(super) fn fence_failed(&mut self, at: u64, id: FenceId, why: String) -> Result<(), Void> {
        let Some(fence) = self.fences.get_mut(&id).filter(|fence| fence.is_open()) else {
            return Err(Void::FenceNotOpen { id });
        };
        let node = fence.node.clone();
        // The same failure again is not news: a device that stays dead must not fill the timeline.
        if fence.last_failure.as_deref() != Some(&why) {
            fence.last_failure = Some(why.clone());
            self.say(at, Decision::FenceFailed { id, node, why });
        }
        Ok(())
    }

    pub(super) fn close(&mut self, at: u64, id: FenceId) -> Result<(), Void> {
        let applied = self.applied;
        let Some(fence) = self.fences.get_mut(&id) else {
            return Err(Void::FenceNotOpen { id });
        };
        let evidence = match &fence.progress {
            Progress::Fenced { evidence } => evidence.clone(),
            Progress::Wanted | Progress::Closed { .. } => return Err(Void::FenceNotOpen { id }),
        };
        fence.progress = Progress::Closed { evidence };
        let node = fence.node.clone();
        if let Some(state) = self.nodes.get_mut(&node) {
            state.closed_at = applied;
        }
        let closed: Vec<FenceId> = self.fences.iter().filter(|(_, f)| !f.is_open()).map(|(id, _)| *id).collect();
        for old in closed.iter().take(closed.len().saturating_sub(CLOSED_FENCES_MAX)) {
            self.fences.remove(old);
        }
        self.say(at, Decision::FenceClosed { id, node });
        Ok(())
    }
}
