//! How a run ended: what the cluster says of itself, and what is really so.

use std::collections::BTreeSet;

use tiebreaker_consensus::Role as RaftRole;
use tiebreaker_member::core::{MemberStatus, Reply, Request, Status};
use tiebreaker_pipeline::name::ResourceName;
use tiebreaker_pipeline::state::Role;

use crate::output::{Document, NodeEnd, ResourceEnd, Switch, Violation};
use crate::world::{Power, Record, Who, World};

use super::account::Account;

pub(super) fn document(mut world: World, account: Account) -> Document {
    let status = status(&mut world);
    let Account { timeline, fenced, recovered, leaders, places, .. } = account;
    let violations = world
        .violations()
        .iter()
        .map(|broken| Violation {
            at_s: std::time::Duration::from_millis(broken.at_ms).as_secs_f64(),
            invariant: broken.invariant.to_owned(),
            how: broken.what.clone(),
        })
        .collect();
    let member =
        |name: &str| status.as_ref().and_then(|status| status.members.iter().find(|m| m.name.as_str() == name));
    let members = world.machines().iter().skip(1);
    let nodes = members
        .map(|machine| {
            let power = if machine.power() == Power::Off { Switch::Off } else { Switch::On };
            let state = member(machine.name().as_str()).map_or("unknown", word).to_owned();
            (machine.name().to_string(), NodeEnd { state, power })
        })
        .collect();
    let managed = &world.committed().resources;
    let all: BTreeSet<&ResourceName> = managed.keys().chain(places.keys()).collect();
    let resources = all
        .into_iter()
        .map(|name| {
            let told = status.as_ref().and_then(|status| status.resources.iter().find(|told| told.name == *name));
            let resource = managed.get(name);
            let state = match (resource, told) {
                (None, _) => "removed",
                (Some(_), Some(told)) => told.state.word(),
                (Some(_), None) => "unknown",
            };
            let state = state.to_owned();
            // Whoever had it last, where nobody has it.
            let owner = resource.and_then(|resource| resource.phase.owner()).or_else(|| places.get(name));
            let node = owner.map(ToString::to_string);
            let runs = world.machines().iter().filter(|machine| machine.runs(name));
            let running_on = runs.map(|machine| machine.name().to_string()).collect();
            (name.to_string(), ResourceEnd { state, node, running_on })
        })
        .collect();
    Document { resources, nodes, fenced, recovered, leaders, violations, timeline }
}

/// What the leader says; where nobody leads, what some member that is up says.
fn status(world: &mut World) -> Option<Status> {
    let now = world.now();
    let leads = |who: &Who| {
        let machine = &world.machines()[*who];
        machine.core().is_some_and(|core| {
            matches!(core.leadership(machine.reading(now)).role, RaftRole::Leader { lease_until: Some(_) })
        })
    };
    let up = |who: &Who| world.machines()[*who].core().is_some() && world.machines()[*who].moves();
    let all = 0..world.machines().len();
    let who = all.clone().find(|who| up(who) && leads(who)).or_else(|| all.clone().find(up))?;
    let _ = world.take_records();
    let asked = world.ask_at(who, Request::Status)?;
    // Where another member leads, the answer would have to come from there, and time is up.
    world.take_records().into_iter().find_map(|entry| match entry.what {
        Record::Answered { request, reply: Reply::Status(status) } if request == asked => Some(*status),
        _ => None,
    })
}

/// Nobody waits in a simulation: a node that is not admitted yet is one of which nothing is known.
fn word(member: &MemberStatus) -> &str {
    match (member.role, member.state.as_str()) {
        (Role::Node, "waiting") => "unknown",
        (Role::Node | Role::Appliance, word) => word,
    }
}
