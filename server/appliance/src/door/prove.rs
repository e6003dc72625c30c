//! Proofs of the power devices of a Corosync cluster: each is asked on a schedule, so that a rotated password or a changed
//! certificate is found then, and not in the outage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_fence::{Fault, PowerState};
use tiebreaker_member::errors::chain;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::clerk::Note;
use super::shared::Shared;
use crate::audit::Event;
use crate::devices::{COMMAND_WITHIN, Key, Managed};
use crate::proofs::{Drilled, PROVE_AGAIN, belongs, pause_after_refusals};

/// What the last proof of a device has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Health {
    /// Why it could not be used now.
    pub(super) fault: Option<String>,
    /// It read off while its node was up: once that is what a node looks like that has just lost its power.
    odd: bool,
    refusals: u32,
}

/// A device that read off while its node was up is looked at once more after this time, which is longer than the QDevice service
/// takes a dead node for connected.
const ODD_AGAIN: Duration = Duration::from_secs(60);

/// One that couldn't be used, but for its account, is asked again after this time: its node may be down for days.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Proves the devices for as long as the daemon runs.
pub(super) async fn prove(shared: Arc<Shared>) {
    let mut due: BTreeMap<Key, Instant> = BTreeMap::new();
    let mut tick = interval(Duration::from_millis(500));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let all = shared.devices.all();
        for (place, managed) in all.iter().enumerate() {
            let key = (managed.node().clone(), managed.name().to_owned());
            let first = !due.contains_key(&key);
            let anew = managed.is_anew();
            if !first && !anew && due.get(&key).is_some_and(|at| Instant::now() < *at) {
                continue;
            }
            // A fence wants the device: it comes first.
            let shown = tokio::select! {
                biased;
                () = managed.wanted.notified() => None,
                shown = look(&shared, managed) => Some(shown),
            };
            let pause = match shown {
                None => PROVE_AGAIN,
                Some(shown) => {
                    let pause = match &shown {
                        Health { fault: None, .. } if first => {
                            let share = (place + 1) as f64 / all.len().max(1) as f64;
                            shared.devices.prove_every.mul_f64(share)
                        }
                        Health { fault: None, .. } => shared.devices.prove_every,
                        Health { odd: true, .. } => ODD_AGAIN,
                        Health { refusals: 0, .. } => ASK_AGAIN,
                        Health { refusals, .. } => pause_after_refusals(*refusals),
                    };
                    if shown.fault.is_none() {
                        managed.proven_now();
                    }
                    tell(&shared, managed, key.clone(), shown);
                    pause
                }
            };
            due.insert(key, Instant::now() + pause);
        }
    }
}

/// Proves one device, and has it written down what that changes.
async fn look(shared: &Shared, managed: &Managed) -> Health {
    let (node, recipe) = (managed.node(), managed.recipe());
    let key = (node.clone(), managed.name().to_owned());
    let before = shared.health(&key);
    let up_before = shared.is_up(node).await;
    let proof = managed.device().prove(Instant::now() + COMMAND_WITHIN).await;
    let up = up_before != Some(false) && shared.is_up(node).await != Some(false);
    let fault = |fault: String| Health { fault: Some(fault), odd: false, refusals: 0 };
    let proof = match proof {
        Ok(proof) => proof,
        Err(error) => {
            let refused = matches!(error.fault, Fault::Credentials | Fault::Privilege);
            let refusals = before.map_or(0, |before| before.refusals).saturating_add(1);
            return Health { refusals: if refused { refusals } else { 0 }, ..fault(chain(&error)) };
        }
    };
    let Some(book) = shared.book().await else { return fault("the daemon is stopping".into()) };
    let levels = shared.levels_of(node);
    let level = levels.iter().find(|level| level.parts().any(|part| part.name() == managed.name()));
    let seen = level.is_some_and(|level| shared.devices.drills.of(level).is_some());
    let drilled = match (recipe.drilled, seen) {
        (true, _) => Drilled::Said,
        (false, true) => Drilled::Seen,
        (false, false) => Drilled::No,
    };
    let machine = book.machines.get(node).map(String::as_str);
    let proven = |proven| Note::Proven { recipe: Box::new(recipe.clone()), proven };
    if let Err(why) = belongs(proof.guid, machine, drilled) {
        shared.note(proven(false)).await;
        return fault(why);
    }
    match proof.state {
        // Without a QDevice nobody says that the node is up: that it has power is all there is to see.
        PowerState::On if up => {
            shared.note(proven(true)).await;
            Health { fault: None, odd: false, refusals: 0 }
        }
        PowerState::Off if up && up_before == Some(true) => {
            if before.is_some_and(|before| before.odd) {
                shared.note(proven(false)).await;
            }
            let why =
                "it reads off while its node is connected to the QDevice service: is it the device of another machine?";
            Health { odd: true, ..fault(why.into()) }
        }
        PowerState::On | PowerState::Off if book.is_proven(recipe) => Health { fault: None, odd: false, refusals: 0 },
        PowerState::On => fault("it lets us in; it is proven once its node is connected to the QDevice service".into()),
        PowerState::Off => fault("it lets us in and reads off; it is proven once its node is up".into()),
    }
}

/// Tells of what has changed.
fn tell(shared: &Shared, managed: &Managed, key: Key, shown: Health) {
    let (cluster, node, device) = (&shared.name, managed.node(), managed.name());
    let before = shared.set_health(key, shown.clone());
    if before.as_ref().is_some_and(|before| before.fault == shown.fault) {
        return;
    }
    match &shown.fault {
        None => info!(%cluster, %node, device, "the power device is proven"),
        Some(why) => warn!(%cluster, %node, device, "the power device can't be used: {why}"),
    }
    shared.audit.record(Event::Proof {
        cluster: cluster.to_string(),
        node: node.to_string(),
        device: device.to_owned(),
        proven: shown.fault.is_none(),
        why: shown.fault,
    });
}
