//! The game played out in full: no sizes in order, no kinds, no arithmetic, nothing shared with the planner but its input.

use std::collections::BTreeMap;

use crate::planner::{Cluster, Memory};

/// Where every resource runs.
type Places = Vec<Option<usize>>;

struct Oracle<'a> {
    cluster: &'a Cluster,
    known: BTreeMap<(Vec<bool>, Places, usize), bool>,
}

/// Whether the cluster survives this many failures, one after another, in every order.
pub fn survives(cluster: &Cluster, failures: usize) -> bool {
    let up: Vec<bool> = cluster.nodes.iter().map(|node| node.in_service).collect();
    let place = |name| cluster.nodes.iter().position(|node| node.in_service && Some(&node.name) == name);
    let places: Places = cluster.resources.iter().map(|resource| place(resource.node.as_ref())).collect();
    Oracle { cluster, known: BTreeMap::new() }.some_placement(&up, &mut places.clone(), failures)
}

impl Oracle<'_> {
    fn some_placement(&mut self, up: &[bool], places: &mut Places, failures: usize) -> bool {
        let Some(next) = places.iter().position(Option::is_none) else {
            return self.every_failure(up, places, failures);
        };
        for node in 0..up.len() {
            if up[node] && self.may(places, next, node) {
                places[next] = Some(node);
                let survived = self.some_placement(up, places, failures);
                places[next] = None;
                if survived {
                    return true;
                }
            }
        }
        false
    }

    fn every_failure(&mut self, up: &[bool], places: &Places, failures: usize) -> bool {
        if failures == 0 {
            return true;
        }
        if up.iter().filter(|up| **up).count() < failures {
            return false;
        }
        let key = (up.to_vec(), places.clone(), failures);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let survived = (0..up.len()).filter(|node| up[*node]).all(|node| {
            let (mut up, mut places) = (up.to_vec(), places.clone());
            up[node] = false;
            for place in &mut places {
                if *place == Some(node) {
                    *place = None;
                }
            }
            self.some_placement(&up, &mut places, failures - 1)
        });
        self.known.insert(key, survived);
        survived
    }

    pub fn may(&self, places: &Places, which: usize, node: usize) -> bool {
        let all = &self.cluster.resources;
        let (this, target) = (&all[which], &self.cluster.nodes[node]);
        let there = (0..all.len()).filter(|other| places[*other] == Some(node));
        let used: u64 = there.clone().map(|other| all[other].memory_bytes).sum();
        let memory = match target.memory {
            Memory::Unlimited => true,
            Memory::Bytes(bytes) => this.memory_bytes <= bytes.saturating_sub(used),
        };
        let allowed = this.may_run_on.as_ref().is_none_or(|nodes| nodes.contains(&target.name));
        let foes = |other: usize| {
            (self.cluster.apart.iter()).any(|group| group.contains(&this.name) && group.contains(&all[other].name))
        };
        let mates_elsewhere = self.cluster.together.iter().any(|group| {
            group.contains(&this.name)
                && (0..all.len()).any(|other| {
                    other != which && group.contains(&all[other].name) && places[other].is_some_and(|at| at != node)
                })
        });
        memory && allowed && !mates_elsewhere && !there.clone().any(foes)
    }
}

/// Whether a resource may be given to a node, with the others where the cluster says; `None` says which name is unknown.
pub fn may_start(cluster: &Cluster, resource: &str, node: &str) -> Option<bool> {
    let place = |name| cluster.nodes.iter().position(|node| node.in_service && Some(&node.name) == name);
    let places: Places = cluster.resources.iter().map(|resource| place(resource.node.as_ref())).collect();
    let which = cluster.resources.iter().position(|known| known.name.as_str() == resource)?;
    let node = cluster.nodes.iter().position(|known| known.name.as_str() == node)?;
    Some(Oracle { cluster, known: BTreeMap::new() }.may(&places, which, node))
}
