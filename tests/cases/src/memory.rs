//! What their manager remembers from before the start of a case, which a scenario can't say: it begins with a cluster
//! that has just been configured. So the memory is brought about.

use std::collections::BTreeSet;

use crate::command::Command;
use crate::convert::LeftOut;
use crate::published::{Case, CaseError, Remembered};
use crate::scenario::{Event, seconds};
use crate::schedule::Schedule;

/// When the node is lost that the memory calls lost. Until then the cluster came up and started everything.
const LOSS_S: u32 = 60;
/// When the others go down too: after the fence was wanted, long before the node can be proven silent.
const BLACKOUT_S: u32 = LOSS_S + 6;
/// A case with such a beginning starts so much later.
const SHIFT_S: u32 = BLACKOUT_S + 14;
/// An interrupted move is asked for again so long after the first batch, when everything runs.
const MOVE_AGAIN_S: u32 = 40;

/// How a scenario gets to where the case begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Beginning {
    /// All nodes are on at the start, whatever the case says.
    pub(crate) all_on: bool,
    /// Everything in the case comes so much later.
    pub(crate) shift_s: u32,
    /// What happens before it.
    pub(crate) events: Vec<Event>,
    /// Resources that fail until they are given up.
    pub(crate) given_up: BTreeSet<String>,
    /// Moves that were under way: which resource, and where to.
    pub(crate) moves: Vec<(String, String)>,
    /// When those are asked for again.
    pub(crate) moves_at_s: u32,
    /// Nodes whose fencing is of an earlier time, and not expected.
    pub(crate) forgotten: BTreeSet<String>,
    /// What was done about the memory, for people.
    pub(crate) notes: Vec<String>,
}

/// How to bring a case's memory about.
pub(crate) fn beginning(case: &Case, schedule: &Schedule) -> Result<Result<Beginning, LeftOut>, CaseError> {
    let mut beginning = Beginning::default();
    let mut lost = BTreeSet::new();
    for (sid, remembered) in &case.initial_manager_status.service_status {
        let Some(service) = case.services.get(sid) else {
            return Err(case.unknown("the memory of an unknown resource", sid));
        };
        let here = remembered.node == service.node;
        match remembered.state.as_str() {
            "started" | "stopped" if here => {}
            "error" if here && schedule.commands().all(|(_, command)| command.sid() != Some(sid)) => {
                beginning.given_up.insert(sid.clone());
                beginning.notes.push(format!("{sid} fails until it is given up: it was in error before"));
            }
            "fence" if here && case.hardware.values().all(|node| node.power == "off") => {
                lost.insert(remembered.node.clone());
            }
            // A node that is off from the start is all that this takes.
            "recovery" if here && case.hardware.get(&service.node).is_some_and(|node| node.power == "off") => {}
            "migrate" | "relocate" if here => beginning.moves.push((sid.clone(), target(case, sid, remembered)?)),
            "started" | "stopped" | "migrate" | "relocate" => {
                return Ok(Err(LeftOut::MovedBehind { resource: sid.clone() }));
            }
            other => return Err(case.unknown("the remembered state", other)),
        }
    }
    if !beginning.moves.is_empty() {
        beginning.moves_at_s = schedule.batches.first().map_or(0, |(at, _)| *at) + MOVE_AGAIN_S;
        beginning.notes.push("a move that was under way is asked for again once everything runs".to_owned());
    }
    for (node, state) in &case.initial_manager_status.node_status {
        if state == "fence" && !lost.contains(node) {
            beginning.forgotten.insert(node.clone());
            beginning.notes.push(format!("{node}'s fence is of an earlier time, nothing depends on it: left out"));
        }
    }
    if !lost.is_empty() {
        beginning.all_on = true;
        beginning.shift_s = SHIFT_S;
        let off = |at, node: &String| Event { at: seconds(at), what: format!("power-off {node}") };
        beginning.events.extend(lost.iter().map(|node| off(LOSS_S, node)));
        let others = case.hardware.keys().filter(|node| !lost.contains(*node));
        beginning.events.extend(others.map(|node| off(BLACKOUT_S, node)));
        beginning.notes.push(format!("a node is lost and then all others; the case begins {SHIFT_S} s later"));
    }
    Ok(Ok(beginning))
}

fn target(case: &Case, sid: &str, remembered: &Remembered) -> Result<String, CaseError> {
    remembered.target.clone().ok_or_else(|| case.unknown("a remembered move without a target, of", sid))
}

impl Beginning {
    /// The moves that were under way, as events.
    pub(crate) fn moves(&self) -> impl Iterator<Item = (u32, Command)> {
        self.moves.iter().map(|(sid, to)| (self.moves_at_s, Command::Migrate { sid: sid.clone(), to: to.clone() }))
    }
}
