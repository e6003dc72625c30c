//! What an operator asks of power devices by hand, with the daemon running or not. Nothing here switches a node off: that
//! goes through the cluster's log, where there is a cluster that runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tiebreaker_fence::PowerState;
use tiebreaker_member::ask::{DeviceReport, DeviceRequest, LocalReply};
use tiebreaker_member::errors::chain;
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_member::{clock, takeover};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audit::{Act, Audit, Event};
use crate::devices::{Devices, Managed};
use crate::door;
use crate::drill::Order;
use crate::enrol::Enrolment;
use crate::layout::Layout;
use crate::level::Level;
use crate::secrets::Vault;

/// An operator waits longer than a fence does.
const BY_HAND_WITHIN: Duration = Duration::from_secs(30);

/// Milliseconds since 1970 by the wall clock.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An operator at work on power devices, through the daemon or beside it.
pub(crate) struct Hand {
    /// The data folder.
    pub layout: Layout,
    /// Where it is kept what he does.
    pub audit: Audit,
    /// Who.
    pub by: String,
}

impl Hand {
    /// Serves a request; `member` is absent where no daemon runs.
    ///
    /// # Errors
    /// What keeps it from being done, and the way out.
    pub(crate) async fn serve(
        &self,
        devices: &Devices,
        member: Option<&MemberHandle>,
        request: DeviceRequest,
    ) -> Result<LocalReply> {
        match &request {
            DeviceRequest::Add { table, password, force } => {
                let machines = member.map(machines).unwrap_or_default();
                let cluster = devices.cluster();
                let (layout, password, force) = (&self.layout, password.as_ref(), *force);
                let (trial, kept) = Enrolment { layout, cluster, table, password, force, machines }.enrol().await?;
                if let Some(recipe) = kept {
                    self.audit.record(Event::DeviceAdded {
                        cluster: cluster.to_string(),
                        node: recipe.node.to_string(),
                        device: recipe.name.clone(),
                        address: format!("{} {}", recipe.kind, recipe.address()),
                        by: self.by.clone(),
                    });
                    devices.add(recipe)?;
                }
                Ok(LocalReply::Tried(Box::new(trial)))
            }
            DeviceRequest::Password { node, device, password } => {
                let found = devices.find(Some(node), Some(device))?;
                let managed = found.first().context("the device")?;
                if !managed.recipe().is_in_vault() {
                    bail!("server.toml names where the secret of {node}/{device} lies: change it there");
                }
                Vault::of(self.layout.root()).put(&managed.recipe().secret_name(), password.expose())?;
                self.audit.record(Event::SecretSet {
                    cluster: managed.cluster().to_string(),
                    node: node.clone(),
                    device: device.clone(),
                    by: self.by.clone(),
                });
                managed.renew();
                let request = DeviceRequest::Prove { node: node.clone(), device: Some(device.clone()) };
                let reports = ask(devices, member, &request, &self.by, &self.audit).await?;
                Ok(LocalReply::Devices { reports })
            }
            DeviceRequest::Drill { node, device, dark_s, force } => {
                let member = member.context("a drill is a fence, which the daemon has to carry out: start it first")?;
                let (node, device, dark) = (node.clone(), device.clone(), dark_s.map(Duration::from_secs));
                let order = Order { node, device, dark, force: *force, by: self.by.clone() };
                Ok(LocalReply::Drill(devices.drill(member, order).await?))
            }
            DeviceRequest::Drilled => Ok(LocalReply::Drill(
                devices.drills.report().context("there was no drill since the daemon was started")?,
            )),
            DeviceRequest::On { force, .. } => {
                if member.is_none() {
                    self.may_switch_alone(devices.cluster(), *force)?;
                }
                let reports = ask(devices, member, &request, &self.by, &self.audit).await?;
                Ok(LocalReply::Devices { reports })
            }
            DeviceRequest::List { .. } | DeviceRequest::Look { .. } | DeviceRequest::Prove { .. } => {
                let reports = ask(devices, member, &request, &self.by, &self.audit).await?;
                Ok(LocalReply::Devices { reports })
            }
        }
    }
}

impl Hand {
    /// Whether power may be switched where no member is asked: not while somebody holds it, as far as this appliance has heard.
    ///
    /// # Errors
    /// It is held, or that can't be found out; `force` goes on all the same, and says so.
    pub(crate) fn may_switch_alone(&self, cluster: &ClusterName, force: bool) -> Result<()> {
        let store = self.layout.store(cluster);
        let unknown = |error: anyhow::Error| {
            Some(format!("whether somebody holds the switching of power can't be found out: {error:#}"))
        };
        let of_door = match door::stored_hold(&self.layout, cluster) {
            Ok(None) => None,
            Ok(Some(hold)) => Some(format!(
                "the switching of power is {hold}: with the daemon running, `tiebreaker-server corosync release {cluster}` ends that"
            )),
            Err(error) => unknown(error),
        };
        let why = match store.exists().then(|| takeover::last_stored(&store)) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(state))) => state.settings.hold.as_ref().map(|hold| format!(
                    "the switching of power was {hold}, when this appliance heard of its cluster last; start the daemon and \
                     `tiebreaker fence release`"
                )),
            Some(Err(error)) => unknown(error.into()),
        };
        let Some(why) = of_door.or(why) else { return Ok(()) };
        if !force {
            bail!("{why}; or insist with --force");
        }
        eprintln!("{why}; it is switched all the same, by --force");
        Ok(())
    }
}

/// The UUIDs that the nodes' machines reported when they were admitted.
fn machines(member: &MemberHandle) -> BTreeMap<MemberName, String> {
    let state = member.state();
    let state = state.borrow();
    let told = |node: &MemberName| Some((node.clone(), state.life(node)?.machine.clone()?));
    state.nodes.keys().filter_map(told).collect()
}

/// Does what is asked of the devices of one cluster; `member` is absent where no daemon runs.
///
/// # Errors
/// There is no such device, or it must not be switched now.
pub(crate) async fn ask(
    devices: &Devices,
    member: Option<&MemberHandle>,
    request: &DeviceRequest,
    by: &str,
    audit: &Audit,
) -> Result<Vec<DeviceReport>> {
    let (act, node, device) = match request {
        DeviceRequest::List { node } => {
            // A node that has none gets its words.
            devices.find(node.as_deref(), None)?;
            let wanted = |level: &&Level| node.as_ref().is_none_or(|node| level.node().as_str() == node);
            let levels = devices.levels();
            let of_level = |level: &Level| {
                let (drill, off_ms) = (devices.drills.of(level), devices.times.off_ms(level));
                let within_ms = u64::try_from(devices.times.within(level).as_millis()).ok();
                level
                    .parts()
                    .map(|part| DeviceReport { drill: drill.clone(), off_ms, within_ms, ..report(level, part, member) })
                    .collect()
            };
            return Ok(levels
                .iter()
                .filter(wanted)
                .flat_map(|level| -> Vec<DeviceReport> { of_level(level) })
                .collect());
        }
        DeviceRequest::Look { node, device } => (Act::Look, node, device),
        DeviceRequest::Prove { node, device } => (Act::Prove, node, device),
        DeviceRequest::On { node, device, .. } => (Act::On, node, device),
        DeviceRequest::Password { .. }
        | DeviceRequest::Add { .. }
        | DeviceRequest::Drill { .. }
        | DeviceRequest::Drilled => bail!("this is not asked of a device"),
    };
    let found = devices.find(Some(node), device.as_deref())?;
    let mut asked = JoinSet::new();
    for (place, managed) in found.into_iter().enumerate() {
        if act == Act::On
            && let Some(member) = member
            && let Some((id, _)) = member.state().borrow().open_fence(managed.node())
        {
            bail!("fence {id} of {node} is open: the appliance gives the power back itself once that is safe");
        }
        if act == Act::On
            && let Some(member) = member
            && let Some(hold) = &member.state().borrow().settings.hold
        {
            bail!("the switching of power is {hold}: `tiebreaker fence release` ends that");
        }
        let (member, audit, by) = (member.cloned(), audit.clone(), by.to_owned());
        let level = devices.levels().into_iter().find(|level| level.parts().any(|part| Arc::ptr_eq(part, &managed)));
        let level = level.context("the device was configured anew just now: try again")?;
        asked.spawn(async move {
            if act == Act::On {
                audit.record(Event::ByHand {
                    cluster: managed.cluster().to_string(),
                    node: managed.node().to_string(),
                    device: managed.name().to_owned(),
                    act,
                    by,
                });
            }
            (place, one(&level, &managed, member.as_ref(), act).await)
        });
    }
    let mut reports = Vec::new();
    while let Some(done) = asked.join_next().await {
        reports.push(done?);
    }
    reports.sort_by_key(|(place, _)| *place);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

async fn one(level: &Level, managed: &Managed, member: Option<&MemberHandle>, act: Act) -> DeviceReport {
    let mut report = report(level, managed, member);
    let begun = Instant::now();
    let until = begun + BY_HAND_WITHIN;
    let device = managed.device();
    let state = match act {
        Act::Look => device.state(until).await.map(|state| (Some(state), None)),
        Act::Prove => device.prove(until).await.map(|proof| (Some(proof.state), proof.guid)),
        Act::On => device.on(until).await.map(|()| (None, None)),
    };
    match state {
        Ok((state, guid)) => {
            report.state = state.as_ref().map(PowerState::to_string);
            report.guid = guid.map(|guid| guid.to_string());
        }
        Err(error) => report.fault = Some(chain(&error)),
    }
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).ok();
    report
}

/// What is known of a device of this level without asking it.
fn report(level: &Level, managed: &Managed, member: Option<&MemberHandle>) -> DeviceReport {
    let known = member.and_then(|member| {
        let state = member.state();
        let state = state.borrow();
        let node = state.nodes.get(managed.node())?;
        let known = node.devices.iter().find(|device| device.name == level.name())?;
        // The cluster knows levels; which of several is wrong is known here.
        let own = managed.verdict().filter(|_| level.is_of_several());
        Some(own.unwrap_or_else(|| (known.proven, known.why.clone())))
    });
    DeviceReport {
        cluster: managed.cluster().to_string(),
        node: managed.node().to_string(),
        device: managed.name().to_owned(),
        kind: managed.kind().to_owned(),
        address: managed.device().name().to_owned(),
        state: None,
        guid: None,
        fault: None,
        level: managed.recipe().level,
        together: level.is_of_several().then(|| level.name().to_owned()),
        proven: known.as_ref().map(|(proven, _)| *proven),
        unproven: known.and_then(|(_, why)| why),
        proven_at_ms: managed.proven_at_ms(),
        drill: None,
        off_ms: None,
        within_ms: None,
        proven_ago_ms: managed
            .proven_at()
            .map(|at| u64::try_from(clock::now().since_at_most(at).as_millis()).unwrap_or(u64::MAX)),
        took_ms: None,
    }
}
