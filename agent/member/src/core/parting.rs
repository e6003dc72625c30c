//! The end of a member whose cluster goes on without it: an operator took it over with another member, in a newer epoch.
//!
//! That operator gave his word that this machine is off, and what was placed here is started there because of it. So
//! nothing is left to decide here: no lease is granted or used, no vote given, no device worked. A node that may be running
//! something resets itself, as after a fence; one that runs nothing ends.

use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::node;

use super::{Action, Core, Moment};

impl Core {
    /// A peer says that it is in a newer epoch of this cluster. Its certificate is the cluster's; here it matters whether it
    /// is a member as far as this one knows: who was removed must not be able to end the cluster.
    pub fn newer_epoch(&mut self, moment: Moment, from: &MemberName, number: Option<u64>, epoch: u64) {
        let known = self.state.members.get(from).is_some_and(|member| Some(member.raft_id) == number);
        if !known || *from == self.name || epoch <= self.state.epoch || self.parting.is_some() || self.stopped {
            return;
        }
        let why = format!(
            "an operator took the cluster {} over with {from}, in epoch {epoch} (here it is {}), and gave this member up; \
             wipe what this machine holds of the cluster and join again",
            self.state.cluster, self.state.epoch
        );
        self.leading = None;
        self.actions.push_back(Action::SetAside { why: why.clone() });
        self.parting = Some(why);
        if let Some(node) = &mut self.node {
            node.handle(moment.now, &self.state, node::Event::TakenOver);
        }
        self.settle(moment);
    }

    /// Ends as soon as nothing runs here.
    pub(super) fn part(&mut self, moment: Moment) {
        if let Some(node) = &mut self.node {
            node.advance(moment.now, &self.state);
            while let Some(action) = node.poll_action() {
                match action {
                    node::Action::Renew { .. } | node::Action::Extend(_) => {}
                    node::Action::Arm
                    | node::Action::Disarm
                    | node::Action::Begin { .. }
                    | node::Action::Cancel(_)
                    | node::Action::StartAnew
                    | node::Action::MayGo
                    | node::Action::ResetParted
                    | node::Action::ResetSelf(_) => self.actions.push_back(Action::Node(action)),
                }
            }
            if !node.is_parted() {
                return;
            }
        }
        if let Some(why) = self.parting.clone() {
            self.stopped = true;
            self.actions.push_back(Action::Stop { why, forgot: false });
        }
    }
}
