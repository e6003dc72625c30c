//! Proofs of power devices: while its node is up each is asked on a schedule, so that a changed certificate or a rotated
//! password is found then, and not in the outage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_fence::{Device, Fault, PowerState, SystemGuid};
use tiebreaker_member::core::{Reply, Request, Surroundings};
use tiebreaker_member::errors::chain;
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::DeviceStatus;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::audit::Event;
use crate::devices::{COMMAND_WITHIN, Devices, Key, Managed};
use crate::level::{Level, Verdict};

/// Between two proofs of a device that is in order, unless the configuration says otherwise.
pub(crate) const PROVE_EVERY: Duration = Duration::from_secs(3600);
/// Between two proofs of one that isn't.
pub(crate) const PROVE_AGAIN: Duration = Duration::from_secs(2);
/// The longest time between two proofs of one that refuses the account: some lock it when it keeps trying.
const REFUSED_AGAIN: Duration = Duration::from_secs(300);

/// When a device is proven next, and what is known of it.
struct Due {
    at: Instant,
    /// It was proven.
    proven: bool,
    /// What is wrong, if anything.
    why: Option<String>,
    /// How often in a row it refused the account.
    refusals: u32,
}

impl Devices {
    /// Proves the devices while they are idle, for as long as the member runs.
    pub async fn prove(self, member: MemberHandle) {
        let mut due: BTreeMap<Key, Due> = BTreeMap::new();
        let mut told = Surroundings::default();
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let levels = self.levels();
            let parts = Level::with_parts(&levels);
            let mut nodes: BTreeMap<MemberName, Vec<DeviceStatus>> = BTreeMap::new();
            for (place, (level, managed)) in parts.iter().enumerate() {
                let node = managed.node();
                let key = (node.clone(), managed.name().to_owned());
                let entry = due.entry(key).or_insert_with(|| {
                    let (proven, why) = known(&member, level);
                    Due { at: Instant::now(), proven, why, refusals: 0 }
                });
                if managed.is_anew() {
                    entry.at = Instant::now();
                }
                // A device is proven only while its node renews: then it must read on. A node in a fence is left alone.
                if Instant::now() >= entry.at && is_up(&member, node) {
                    let uuid = machine(&member, node);
                    let seen = self.drills.of(level).is_some();
                    let drilled = if managed.recipe().drilled {
                        Drilled::Said
                    } else if seen {
                        Drilled::Seen
                    } else {
                        Drilled::No
                    };
                    let begun = Instant::now();
                    let proof = prove_unless_wanted(managed.device(), &managed.wanted, uuid.as_deref(), drilled).await;
                    if matches!(proof, Some(Ok(()))) {
                        managed.answered_within(begun.elapsed());
                    }
                    // The node may have gone while the device was asked: then its answer proves nothing.
                    if let Some(proof) = proof
                        && is_up(&member, node)
                    {
                        let share = spread(place, parts.len());
                        self.take(managed, entry, proof, share);
                    }
                }
            }
            for level in &levels {
                let verdict = |managed: &Arc<Managed>| {
                    let due = due.get(&(managed.node().clone(), managed.name().to_owned()))?;
                    Some(Verdict { name: managed.name().to_owned(), proven: due.proven, why: due.why.clone() })
                };
                let verdicts: Vec<Verdict> = level.parts().filter_map(verdict).collect();
                nodes.entry(level.node().clone()).or_default().push(level.status(&verdicts));
            }
            for (node, plan) in nodes {
                let plan = self.drills.shown(&node, plan);
                publish(&member, &node, plan).await;
            }
            let surroundings = self.surroundings(&levels);
            if surroundings != told && member.tell(Tell::Surroundings(surroundings.clone())).await {
                told = surroundings;
            }
        }
    }

    /// What the status shall show of this appliance and the log doesn't hold.
    fn surroundings(&self, levels: &[Level]) -> Surroundings {
        let proven = |one: &Level| Some(((one.node().clone(), one.name().to_owned()), one.proven_at()?));
        let within = |one: &Level| {
            let within = u64::try_from(self.times.within(one).as_millis()).unwrap_or(u64::MAX);
            ((one.node().clone(), one.name().to_owned()), within)
        };
        Surroundings {
            alarms: self.audit.alarm().into_iter().collect(),
            proven: levels.iter().filter_map(proven).collect(),
            off_within_ms: levels.iter().map(within).collect(),
        }
    }

    /// What came of a proof: it is remembered, said once where it is news, and sets the time of the next.
    fn take(&self, managed: &Managed, due: &mut Due, proof: Result<(), Unproven>, share: f64) {
        let first = managed.proven_at_ms().is_none();
        let (proven, why) = (proof.is_ok(), proof.as_ref().err().map(|unproven| unproven.why.clone()));
        if due.proven != proven || due.why != why {
            let (node, device) = (managed.node(), managed.name());
            match &why {
                Some(why) => warn!(%node, device, why, "a power device is not proven: it gives no evidence"),
                None => info!(%node, device, "a power device is proven"),
            }
            self.audit.record(Event::Proof {
                cluster: managed.cluster().to_string(),
                node: node.to_string(),
                device: device.to_owned(),
                proven,
                why: why.clone(),
            });
        }
        managed.judged(proven, why.clone());
        due.proven = proven;
        due.why = why;
        let pause = match proof {
            Ok(()) => {
                managed.proven_now();
                due.refusals = 0;
                // All are proven when the daemon starts: their second proofs are spread over the whole time, and so are all later ones.
                if first { self.prove_every.mul_f64(share) } else { self.prove_every }
            }
            Err(Unproven { refused: true, .. }) => {
                due.refusals = due.refusals.saturating_add(1);
                pause_after_refusals(due.refusals)
            }
            Err(Unproven { refused: false, .. }) => PROVE_AGAIN,
        };
        due.at = Instant::now() + pause;
    }
}

/// The part of the time between two proofs after which a device has its second: each its own.
fn spread(place: usize, of: usize) -> f64 {
    (place + 1) as f64 / of.max(1) as f64
}

/// Some devices lock an account that keeps trying.
pub(crate) fn pause_after_refusals(refusals: u32) -> Duration {
    (PROVE_AGAIN * 2_u32.saturating_pow(refusals.min(10))).min(REFUSED_AGAIN)
}

/// Whether a node is up for certain: admitted, not being fenced, and heard just now. A device is proven, and loses its
/// proof, only then: after an outage a device that reads off is the very evidence that is needed.
fn is_up(member: &MemberHandle, node: &MemberName) -> bool {
    member.hears(node) && member.state().borrow().in_service(node)
}

/// What the cluster already knows of the devices of a level; of a new one, or one that is of another kind now, nothing.
fn known(member: &MemberHandle, level: &Level) -> (bool, Option<String>) {
    let state = member.state();
    let state = state.borrow();
    let same = |device: &&DeviceStatus| device.name == level.name() && device.kind == level.kind();
    let known = state.nodes.get(level.node()).and_then(|node| node.devices.iter().find(same));
    match known {
        // Which of several is wrong, their next proofs say.
        Some(known) if known.proven || !level.is_of_several() => (known.proven, known.why.clone()),
        Some(_) | None => (false, Some("not tried yet".to_owned())),
    }
}

/// Puts what is known into the replicated state, where it differs.
async fn publish(member: &MemberHandle, node: &MemberName, wanted: Vec<DeviceStatus>) {
    let known = member.state().borrow().nodes.get(node).map(|state| state.devices.clone());
    if known.is_none_or(|known| known == wanted) {
        return;
    }
    let command = Command::SetDevices { node: node.clone(), devices: wanted };
    match member.ask(Request::Propose(command)).await {
        Reply::Done { .. } => {}
        // Tried again with the next look.
        other => warn!(%node, answer = ?other, "what is known about the power devices could not be recorded"),
    }
}

/// The UUID that a node's machine reported when it was admitted.
fn machine(member: &MemberHandle, node: &MemberName) -> Option<String> {
    member.state().borrow().life(node).and_then(|life| life.machine.clone())
}

/// Why a device is not proven.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Unproven {
    why: String,
    /// It refuses the account: trying again soon doesn't help, and may lock it.
    refused: bool,
}

impl Unproven {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), refused: false }
    }
}

/// Proves a device. `None` if a fence wants it before that is done.
async fn prove_unless_wanted(
    device: &dyn Device,
    wanted: &Notify,
    machine: Option<&str>,
    drilled: Drilled,
) -> Option<Result<(), Unproven>> {
    tokio::select! {
        biased;
        () = wanted.notified() => None,
        proof = prove(device, machine, drilled) => Some(proof),
    }
}

/// Proves a device: it lets us in with the right to switch, reads on while its node is up, and is this machine's by its
/// UUID or by a drill.
async fn prove(device: &dyn Device, machine: Option<&str>, drilled: Drilled) -> Result<(), Unproven> {
    let proof = device.prove(Instant::now() + COMMAND_WITHIN).await.map_err(|error| Unproven {
        why: chain(&error),
        refused: matches!(error.fault, Fault::Credentials | Fault::Privilege),
    })?;
    if proof.state != PowerState::On {
        return Err(Unproven::because("it reads off while its node is up: is it the device of another machine?"));
    }
    belongs(proof.guid, machine, drilled).map_err(Unproven::because)
}

/// What a fence on purpose has shown of whose device it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drilled {
    No,
    /// A drill saw it once. Later a board may be swapped, or the address may go to another machine: a UUID tells that.
    Seen,
    /// An operator says so, whatever UUID the device tells.
    Said,
}

/// Whether a device is that of the machine with this UUID, by its own or by a drill.
pub(crate) fn belongs(guid: Option<SystemGuid>, machine: Option<&str>, drilled: Drilled) -> Result<(), String> {
    match (guid, machine) {
        _ if drilled == Drilled::Said => Ok(()),
        (Some(guid), Some(machine)) if guid.matches_dmi(machine) => Ok(()),
        (Some(_), Some(machine)) => Err(format!(
            "it is the device of another machine: it doesn't name the UUID of this node, {machine}; mend the address"
        )),
        (None, _) | (_, None) if drilled == Drilled::Seen => Ok(()),
        (None, _) | (_, None) => {
            Err("it can't be told whose device it is (no UUID on one side): `tiebreaker-server device drill NODE` shows it, or \
                 fence the node once by hand, see that this very machine goes dark, and set drilled = true"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_fence::{BoxFuture, DeviceError, Proof};

    use super::*;

    #[test]
    fn a_device_of_another_machine_is_never_proven() {
        let uuid = "4c4c4544-0042-3510-8054-b4c04f4d3132";
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(uuid.replace('-', "").as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        let own = SystemGuid::new(bytes);
        let other = SystemGuid::new([7; 16]);
        assert!(belongs(own, Some(uuid), Drilled::No).is_ok());
        assert!(belongs(other, Some(uuid), Drilled::No).unwrap_err().contains("another machine"));
        assert!(belongs(None, Some(uuid), Drilled::No).unwrap_err().contains("drilled"));
        assert!(belongs(own, None, Drilled::No).unwrap_err().contains("drilled"));
        assert!(belongs(other, Some(uuid), Drilled::Seen).unwrap_err().contains("another machine"));
        assert!(belongs(None, Some(uuid), Drilled::Seen).is_ok());
        assert!(belongs(None, None, Drilled::Said).is_ok());
        assert!(belongs(other, Some(uuid), Drilled::Said).is_ok());
    }

    /// A device that answers always the same.
    struct Fixed {
        state: PowerState,
        guid: Option<SystemGuid>,
    }

    impl Device for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn sign(&self) -> tiebreaker_fence::OffSign {
            tiebreaker_fence::OffSign::Bmc
        }

        fn state(&self, _: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
            Box::pin(std::future::ready(Ok(self.state)))
        }

        fn off(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            unreachable!("a proof switches nothing")
        }

        fn on(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            unreachable!("a proof switches nothing")
        }

        fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
            Box::pin(std::future::ready(Ok(Proof { state: self.state, guid: self.guid })))
        }
    }

    /// A device that never answers.
    struct Silent;

    impl Device for Silent {
        fn name(&self) -> &'static str {
            "silent"
        }

        fn sign(&self) -> tiebreaker_fence::OffSign {
            tiebreaker_fence::OffSign::Bmc
        }

        fn state(&self, _: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
            Box::pin(std::future::pending())
        }

        fn off(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            unreachable!("a proof switches nothing")
        }

        fn on(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            unreachable!("a proof switches nothing")
        }

        fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn second_proofs_are_spread_over_the_whole_time() {
        let all: Vec<f64> = (0..4).map(|place| spread(place, 4)).collect();
        assert_eq!(all, [0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn an_account_that_is_refused_is_not_tried_until_it_is_locked() {
        let refused = |times: u32| (0..times).fold(Duration::ZERO, |_, n| pause_after_refusals(n + 1));
        assert_eq!(refused(1), Duration::from_secs(4));
        assert_eq!(refused(3), Duration::from_secs(16));
        assert_eq!(refused(100), REFUSED_AGAIN);
    }

    #[tokio::test]
    async fn a_proof_gives_way_to_a_fence() {
        let wanted = Notify::new();
        let proof = prove_unless_wanted(&Silent, &wanted, None, Drilled::No);
        let (proof, ()) = tokio::join!(proof, async { wanted.notify_waiters() });
        assert_eq!(proof, None);
    }

    #[tokio::test]
    async fn row_43_a_device_that_reads_off_while_its_node_is_up_is_never_proven() {
        let guid = SystemGuid::new([7; 16]);
        let uuid = "07070707-0707-0707-0707-070707070707";
        for drilled in [Drilled::No, Drilled::Seen, Drilled::Said] {
            let on = Fixed { state: PowerState::On, guid };
            assert_eq!(prove(&on, Some(uuid), drilled).await, Ok(()));
            let off = Fixed { state: PowerState::Off, guid };
            let why = prove(&off, Some(uuid), drilled).await.unwrap_err().why;
            assert!(why.contains("reads off while its node is up"), "{why}");
        }
    }
}
