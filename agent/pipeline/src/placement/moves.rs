//! What an operator's move takes along, and why it may be refused.

use std::collections::BTreeSet;

use super::choose::Surroundings;
use super::judge::EffectiveRules;
use super::picture::{Picture, Seat, TooSmall};
use crate::name::{MemberName, ResourceName, RuleName};

/// A move that may be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moves {
    /// Where to.
    pub target: MemberName,
    /// Everything that moves: the resource, and what belongs with it and isn't there.
    pub resources: BTreeSet<ResourceName>,
}

/// Why a move is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No such resource.
    #[error("there is no resource {resource}")]
    NoResource {
        /// What was asked for.
        resource: ResourceName,
    },
    /// No such node.
    #[error("the cluster has no node {target}")]
    NoNode {
        /// What was asked for.
        target: MemberName,
    },
    /// The node is offline, in maintenance or lost.
    #[error("{target} takes no resources now: wait until it is online, or end its maintenance")]
    TakesNothing {
        /// The node.
        target: MemberName,
    },
    /// It is there.
    #[error("{resource} is on {target} already, or on its way")]
    AlreadyThere {
        /// The resource.
        resource: ResourceName,
        /// The node.
        target: MemberName,
    },
    /// It is placed nowhere.
    #[error("{resource} is on no node that it could move from: start it first")]
    Nowhere {
        /// The resource.
        resource: ResourceName,
    },
    /// Its storage or hardware is elsewhere.
    #[error("the storage or hardware of {resource} is not on {target}")]
    NotThere {
        /// The resource.
        resource: ResourceName,
        /// The node.
        target: MemberName,
    },
    /// A strict rule names other nodes.
    #[error("the rule {rule} doesn't allow {resource} on {target}: change the rule first")]
    NotAllowed {
        /// The resource.
        resource: ResourceName,
        /// The node.
        target: MemberName,
        /// The rule.
        rule: RuleName,
    },
    /// A resource that it is kept apart from is there.
    #[error(
        "{peer} is on {target} or on its way to or from it, and the rule {rule} keeps {resource} apart from it: move {peer} first"
    )]
    Apart {
        /// The resource.
        resource: ResourceName,
        /// The node.
        target: MemberName,
        /// The one that is in the way.
        peer: ResourceName,
        /// The rule.
        rule: RuleName,
    },
    /// Its memory is promised to others.
    #[error("{target} is too small for {}: {why}", names(resources))]
    TooSmall {
        /// What would move.
        resources: BTreeSet<ResourceName>,
        /// The node.
        target: MemberName,
        /// By how much.
        why: TooSmall,
    },
}

fn names(resources: &BTreeSet<ResourceName>) -> String {
    resources.iter().map(ResourceName::as_str).collect::<Vec<_>>().join(", ")
}

/// Whether an operator may move a resource, and what moves along.
///
/// # Errors
/// The rule, the node's state or the memory that is in the way.
pub fn check_move(
    picture: &Picture,
    rules: &EffectiveRules,
    resource: &ResourceName,
    target: &MemberName,
) -> Result<Moves, Refusal> {
    let (asked, to) = (|| resource.clone(), || target.clone());
    let view = picture.resources().get(resource).ok_or_else(|| Refusal::NoResource { resource: asked() })?;
    let node = picture.nodes.get(target).ok_or_else(|| Refusal::NoNode { target: to() })?;
    match &view.seat {
        Seat::Nowhere => return Err(Refusal::Nowhere { resource: asked() }),
        Seat::On(on) | Seat::Moving { from: _, to: on } if on == target => {
            return Err(Refusal::AlreadyThere { resource: asked(), target: to() });
        }
        Seat::On(_) | Seat::Moving { .. } => {}
    }
    if !node.may_take {
        return Err(Refusal::TakesNothing { target: to() });
    }
    if !picture.has_what_it_needs(target, resource) {
        return Err(Refusal::NotThere { resource: asked(), target: to() });
    }
    if let Some(belongs) = rules.node_rule(resource)
        && belongs.strict
        && !belongs.nodes.contains_key(target)
    {
        return Err(Refusal::NotAllowed { resource: asked(), target: to(), rule: belongs.rule.clone() });
    }
    let elsewhere = |name: &&ResourceName| {
        let destination = picture.resources().get(*name).and_then(|view| view.seat.destination());
        destination.is_some_and(|node| node != target)
    };
    let moving: BTreeSet<&ResourceName> = rules.bundle(resource).into_iter().filter(elsewhere).collect();
    for member in &moving {
        if let Some((peer, rule)) = Surroundings::of(picture, rules, member).apart.get(target) {
            let (resource, peer, rule) = ((*member).clone(), (*peer).clone(), (*rule).clone());
            return Err(Refusal::Apart { resource, target: to(), peer, rule });
        }
    }
    let resources = moving.iter().map(|name| (*name).clone()).collect();
    match picture.fits(target, &moving) {
        Ok(()) => Ok(Moves { target: to(), resources }),
        Err(why) => Err(Refusal::TooSmall { resources, target: to(), why }),
    }
}

#[cfg(test)]
mod tests;
