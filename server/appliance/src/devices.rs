//! The power devices of one cluster: commands for the fencer, and proofs while they are idle.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tiebreaker_fence::{Device, DeviceError, Fault, PowerState, SystemGuid};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::fence::OffSign;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::DeviceStatus;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::device_config::DeviceConfig;

/// A command that isn't done by then counts as unanswered.
const COMMAND_WITHIN: Duration = Duration::from_secs(10);
/// Between two proofs of a device that is in order.
const PROVE_EVERY: Duration = Duration::from_secs(3600);
/// Between two proofs of one that isn't.
const PROVE_AGAIN: Duration = Duration::from_secs(2);

/// The devices of one cluster.
#[derive(Clone)]
pub struct Devices {
    devices: Arc<BTreeMap<(MemberName, String), Managed>>,
}

/// A device, and what the configuration says of it.
struct Managed {
    device: Box<dyn Device>,
    /// Its kind, as the configuration names it.
    kind: &'static str,
    /// An operator saw it cut this node's power.
    drilled: bool,
    /// A fence wants it: a device does one thing at a time, and a proof can take seconds.
    wanted: Notify,
}

impl Devices {
    /// Devices from their configuration.
    #[must_use]
    pub fn new(configs: Vec<DeviceConfig>) -> Self {
        let devices = configs
            .into_iter()
            .map(|config| {
                let kind = config.access.kind();
                let managed =
                    Managed { device: config.access.open(), kind, drilled: config.drilled, wanted: Notify::new() };
                ((config.node, config.name), managed)
            })
            .collect();
        Self { devices: Arc::new(devices) }
    }

    /// Carries out a command of the fencer and reports its result.
    pub fn command(&self, member: MemberHandle, token: u64, node: MemberName, device: String, command: DeviceCommand) {
        let devices = Arc::clone(&self.devices);
        tokio::spawn(async move {
            let result = match devices.get(&(node.clone(), device.clone())) {
                Some(found) => {
                    found.wanted.notify_waiters();
                    work(found.device.as_ref(), command).await
                }
                None => DeviceResult::Refused {
                    why: format!("{node} has no device {device:?} in the configuration any more"),
                },
            };
            info!(%node, device, ?command, ?result, "power device");
            member.tell(Tell::Device(token, result)).await;
        });
    }

    /// Proves the devices while they are idle, for as long as the member runs.
    pub async fn prove(self, member: MemberHandle) {
        let mut nodes: BTreeMap<MemberName, Vec<String>> = BTreeMap::new();
        for (node, name) in self.devices.keys() {
            nodes.entry(node.clone()).or_default().push(name.clone());
        }
        let mut due: BTreeMap<(MemberName, String), (Instant, DeviceStatus)> = BTreeMap::new();
        for ((node, name), device) in self.devices.iter() {
            due.insert((node.clone(), name.clone()), (Instant::now(), known(&member, node, name, device.kind)));
        }
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for (node, names) in &nodes {
                for name in names {
                    let key = (node.clone(), name.clone());
                    let (Some(device), Some((at, status))) = (self.devices.get(&key), due.get_mut(&key)) else {
                        continue;
                    };
                    // A device is proven only while its node renews: then it must read on. A node in a fence is left alone.
                    if Instant::now() < *at || !is_up(&member, node) {
                        continue;
                    }
                    let Some(proof) = prove_unless_wanted(device, machine(&member, node).as_deref()).await else {
                        continue;
                    };
                    // The node may have gone while the device was asked: then its answer proves nothing.
                    if !is_up(&member, node) {
                        continue;
                    }
                    status.proven = proof.is_ok();
                    status.why = proof.err();
                    *at = Instant::now() + if status.proven { PROVE_EVERY } else { PROVE_AGAIN };
                }
                let wanted: Vec<DeviceStatus> = names
                    .iter()
                    .filter_map(|name| due.get(&(node.clone(), name.clone())))
                    .map(|(_, status)| status.clone())
                    .collect();
                publish(&member, node, wanted).await;
            }
        }
    }
}

/// Whether a node is up for certain: admitted, not being fenced, and heard just now. A device is proven, and loses its
/// proof, only then: after an outage a device that reads off is the very evidence that is needed.
fn is_up(member: &MemberHandle, node: &MemberName) -> bool {
    member.hears(node) && member.state().borrow().in_service(node)
}

/// What the cluster already knows of a device; of a new one, or one that is of another kind now, nothing.
fn known(member: &MemberHandle, node: &MemberName, name: &str, kind: &'static str) -> DeviceStatus {
    let state = member.state();
    let state = state.borrow();
    let same = |device: &&DeviceStatus| device.name == name && device.kind == kind;
    let known = state.nodes.get(node).and_then(|node| node.devices.iter().find(same));
    known.cloned().unwrap_or_else(|| DeviceStatus {
        name: name.to_owned(),
        kind: kind.into(),
        proven: false,
        why: Some("not tried yet".to_owned()),
    })
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

/// Proves a device. `None` if a fence wants it before that is done.
async fn prove_unless_wanted(managed: &Managed, machine: Option<&str>) -> Option<Result<(), String>> {
    tokio::select! {
        biased;
        () = managed.wanted.notified() => None,
        proof = prove(managed, machine) => Some(proof),
    }
}

/// Proves a device: it lets us in with the right to switch, reads on while its node is up, and is this machine's by its
/// UUID or by a drill.
async fn prove(managed: &Managed, machine: Option<&str>) -> Result<(), String> {
    let proof = managed.device.prove(Instant::now() + COMMAND_WITHIN).await.map_err(|error| explain(&error))?;
    if proof.state != PowerState::On {
        return Err("it reads off while its node is up: is it the device of another machine?".into());
    }
    belongs(proof.guid, machine, managed.drilled)
}

fn belongs(guid: Option<SystemGuid>, machine: Option<&str>, drilled: bool) -> Result<(), String> {
    match (guid, machine) {
        _ if drilled => Ok(()),
        (Some(guid), Some(machine)) if guid.matches_dmi(machine) => Ok(()),
        (Some(_), Some(machine)) => Err(format!(
            "it is the device of another machine: it doesn't name the UUID of this node, {machine}; mend the address"
        )),
        (None, _) | (_, None) => {
            Err("it can't be told whose device it is (no UUID on one side): fence the node once by \
                                      hand, see that this very machine goes dark, then set drilled = true"
                .into())
        }
    }
}

async fn work(device: &dyn Device, command: DeviceCommand) -> DeviceResult {
    let deadline = Instant::now() + COMMAND_WITHIN;
    let result = match command {
        DeviceCommand::Look => device.state(deadline).await.map(|state| match state {
            PowerState::On => DeviceResult::IsOn,
            PowerState::Off => DeviceResult::IsOff { sign: sign(device) },
        }),
        DeviceCommand::Off => device.off(deadline).await.map(|()| DeviceResult::Taken),
        DeviceCommand::On => device.on(deadline).await.map(|()| DeviceResult::Taken),
    };
    result.unwrap_or_else(|error| {
        let why = explain(&error);
        match error.fault {
            // Only a clear refusal proves that nothing will come of the command.
            Fault::Credentials | Fault::Privilege | Fault::Refused => DeviceResult::Refused { why },
            Fault::Unreachable | Fault::Busy | Fault::Protocol => DeviceResult::Unanswered { why },
        }
    })
}

/// What stands behind a device's word, in the words of the cluster.
fn sign(device: &dyn Device) -> OffSign {
    match device.sign() {
        tiebreaker_fence::OffSign::Bmc => OffSign::Bmc,
        tiebreaker_fence::OffSign::Meter => OffSign::Meter,
        tiebreaker_fence::OffSign::Led => OffSign::Led,
        tiebreaker_fence::OffSign::Relay => OffSign::Relay,
        tiebreaker_fence::OffSign::Program => OffSign::Program,
    }
}

/// An error with its causes.
fn explain(error: &DeviceError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tiebreaker_fence::{BoxFuture, Proof};

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
        assert!(belongs(own, Some(uuid), false).is_ok());
        assert!(belongs(other, Some(uuid), false).unwrap_err().contains("another machine"));
        assert!(belongs(None, Some(uuid), false).unwrap_err().contains("drilled"));
        assert!(belongs(own, None, false).unwrap_err().contains("drilled"));
        assert!(belongs(None, None, true).is_ok());
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

    fn managed(device: impl Device + 'static, drilled: bool) -> Managed {
        Managed { device: Box::new(device), kind: "fixed", drilled, wanted: Notify::new() }
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

    #[tokio::test]
    async fn a_proof_gives_way_to_a_fence() {
        let silent = managed(Silent, false);
        let (proof, ()) = tokio::join!(prove_unless_wanted(&silent, None), async { silent.wanted.notify_waiters() });
        assert_eq!(proof, None);
    }

    #[tokio::test]
    async fn row_43_a_device_that_reads_off_while_its_node_is_up_is_never_proven() {
        let guid = SystemGuid::new([7; 16]);
        let uuid = "07070707-0707-0707-0707-070707070707";
        for drilled in [false, true] {
            let managed = |state| managed(Fixed { state, guid }, drilled);
            assert_eq!(prove(&managed(PowerState::On), Some(uuid)).await, Ok(()));
            let why = prove(&managed(PowerState::Off), Some(uuid)).await.unwrap_err();
            assert!(why.contains("reads off while its node is up"), "{why}");
        }
    }
}
