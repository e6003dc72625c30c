//! What an operator's word turns into: moves, maintenance, and the check before the cluster is armed.

use super::View;
use crate::command::Command;
use crate::name::{MemberName, ResourceName};
use crate::placement::moves::{Refusal, check_move};
use crate::resource::{MoveReason, Phase, Requested, Resource};

/// Why an operator's wish can't be carried out now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AskError {
    /// A rule, the memory or the node's state is in the way.
    #[error(transparent)]
    Move(#[from] Refusal),
    /// The resource isn't where it could be moved from.
    #[error("{resource} can't be moved now: {why}")]
    NotNow {
        /// Which.
        resource: ResourceName,
        /// What is in the way.
        why: String,
    },
    /// So many planned moves are under way that it has to wait for its turn.
    #[error(
        "{under_way} planned move(s) are under way, {most} may be at once, and this one takes {takes}: ask again when one is \
         over, or allow more with `tiebreaker set moves`"
    )]
    NotItsTurn {
        /// How many are under way.
        under_way: usize,
        /// How many may be.
        most: usize,
        /// How many this would be: what belongs with a resource goes along.
        takes: usize,
    },
    /// It can't move live.
    #[error("{resource} can't move live: {why}; `tiebreaker resource relocate` stops it here and starts it there")]
    NotLive {
        /// Which.
        resource: ResourceName,
        /// Why not.
        why: &'static str,
    },
    /// A node that isn't online can't be emptied.
    #[error("{node} is not online ({why}): maintenance is for a node whose resources can still move away")]
    NotOnline {
        /// Which.
        node: MemberName,
        /// What is known.
        why: String,
    },
    /// A check before arming has failed.
    #[error("the cluster stays disarmed: {}", .faults.join("; "))]
    NotReady {
        /// Everything that is in the way.
        faults: Vec<String>,
    },
}

impl View<'_> {
    /// The commands that move a resource, and what belongs with it, to a node. It waits for its turn as a drain's moves do.
    ///
    /// # Errors
    /// What is in the way; [`AskError::NotItsTurn`] ends by itself.
    pub fn moving(&self, name: &ResourceName, to: &MemberName, live: bool) -> Result<Vec<Command>, AskError> {
        let resource = self.state.resources.get(name).ok_or_else(|| Refusal::NoResource { resource: name.clone() })?;
        if !self.state.nodes.contains_key(to) {
            return Err(Refusal::NoNode { target: to.clone() }.into());
        }
        let not_now = |why: &str| AskError::NotNow { resource: name.clone(), why: why.to_owned() };
        if !self.state.settings.arming.acts() {
            return Err(not_now("the cluster is disarmed"));
        }
        let node = match &resource.phase {
            Phase::Placed { node } => node,
            Phase::Free { .. } => return Err(not_now("it is being recovered, and goes wherever it can")),
            Phase::New => return Err(not_now("it hasn't been placed yet")),
            Phase::Releasing { .. } | Phase::Migrating { .. } => return Err(not_now("a move is under way already")),
            Phase::Error { .. } => return Err(not_now("it is in error: disable it first")),
            Phase::Ignored => return Err(not_now("the cluster has nothing to do with it")),
        };
        // What doesn't run only changes its place.
        if resource.requested != Requested::Started {
            if node == to {
                return Err(Refusal::AlreadyThere { resource: name.clone(), target: to.clone() }.into());
            }
            return Ok(vec![self.relocating(name, resource, to)]);
        }
        if live && !resource.spec.live {
            return Err(AskError::NotLive { resource: name.clone(), why: "its configuration doesn't say that it can" });
        }
        let (picture, rules, _) = self.picture();
        let moves = check_move(&picture, &rules, name, to)?;
        self.has_its_turn(moves.resources.len())?;
        let commands = moves.resources.iter().filter_map(|name| {
            let resource = self.state.resources.get(name)?;
            let placed = matches!(resource.phase, Phase::Placed { .. });
            placed.then(|| {
                if live {
                    self.sending(name, resource, to, MoveReason::Asked)
                } else {
                    self.relocating(name, resource, to)
                }
            })
        });
        Ok(commands.collect())
    }

    /// What goes together, goes alone where more belongs together than may move at once.
    fn has_its_turn(&self, takes: usize) -> Result<(), AskError> {
        let (under_way, most) = (self.state.moves_under_way(), self.state.settings.moves_at_once());
        if under_way == 0 || under_way.saturating_add(takes) <= most {
            Ok(())
        } else {
            Err(AskError::NotItsTurn { under_way, most, takes })
        }
    }

    fn relocating(&self, name: &ResourceName, resource: &Resource, to: &MemberName) -> Command {
        Command::Release {
            resource: name.clone(),
            generation: resource.generation,
            to: Some(to.clone()),
            why: MoveReason::Asked,
        }
    }

    /// Whether a node can be put into maintenance.
    ///
    /// # Errors
    /// It is not there, or not online.
    pub fn may_be_emptied(&self, node: &MemberName) -> Result<(), AskError> {
        let not_online = |why: &str| AskError::NotOnline { node: node.clone(), why: why.to_owned() };
        if !self.state.nodes.contains_key(node) {
            return Err(Refusal::NoNode { target: node.clone() }.into());
        }
        if self.state.open_fence(node).is_some() {
            return Err(not_online("it is being fenced"));
        }
        if self.state.life(node).is_none() {
            return Err(not_online("it has no admitted life"));
        }
        if !self.leases.is_heard(self.state, node, self.now) {
            return Err(not_online("it is not heard"));
        }
        Ok(())
    }

    /// Whether the cluster may be armed: every node that lives is heard and can keep its promise, and what is to be
    /// protected has somewhere to be.
    ///
    /// # Errors
    /// Everything that is in the way.
    pub fn may_be_armed(&self) -> Result<(), AskError> {
        let mut faults = Vec::new();
        for (node, state) in &self.state.nodes {
            if state.life.is_none() {
                continue;
            }
            if !self.leases.is_heard(self.state, node, self.now) {
                faults.push(format!(
                    "{node} is not heard: bring it back, or `tiebreaker fence {node}` and, once it is off for certain, \
                     `tiebreaker fence confirm {node}`"
                ));
                continue;
            }
            if let Some(reason) = self.state.unprotectable(node) {
                faults.push(reason);
            }
            if let Some(trouble) = self.leases.report(self.state, node).and_then(|report| report.trouble.as_ref()) {
                faults.push(format!("the watchdog of {node}: {trouble}"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(AskError::NotReady { faults }) }
    }
}
