//! The cluster at a glance.

use tiebreaker_member::core::{FenceStatus, MemberStatus, ResourceStatus, Status};
use tiebreaker_pipeline::fence::Progress;
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::report::{Observed, Trust, Usage, WatchdogPromise};
use tiebreaker_pipeline::resource::{Phase, Shown};
use tiebreaker_pipeline::state::{Arming, DeviceStatus, LeavePolicy, Role, Settings};

use super::log::when;
use super::{Table, plan};
use crate::cli::show_memory;
use crate::spec::describe;

/// Milliseconds as seconds with one digit.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Everything at a glance.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut out = head(status);
    out.push('\n');
    out.push_str(&members(&status.members));
    for member in &status.members {
        for note in notes(member) {
            out.push_str(&format!("  {}: {note}\n", member.name));
        }
    }
    out.push('\n');
    if status.resources.is_empty() {
        out.push_str("No resources are protected: add one with `tiebreaker resource add`.\n");
    } else {
        out.push_str(&placed(&status.resources));
    }
    if !status.fences.is_empty() {
        out.push('\n');
        for open in &status.fences {
            out.push_str(&format!("{}\n", fence(open)));
        }
    }
    if !status.alarms.is_empty() {
        out.push('\n');
        for alarm in &status.alarms {
            out.push_str(&format!("ALARM: {alarm}\n"));
        }
    }
    out
}

fn head(status: &Status) -> String {
    let lead = match (&status.leader, status.quorum_lease_ms) {
        (Some(leader), Some(ms)) => format!("{leader} leads, sure of its majority for {}", seconds(ms)),
        (Some(leader), None) => format!("{leader} leads"),
        (None, _) => "NOBODY LEADS".to_owned(),
    };
    let behind = if status.commit > status.applied { format!(" of {}", status.commit) } else { String::new() };
    let (present, expected) = status.votes;
    format!(
        "Cluster {}: {lead} (term {}), profile {}\n{present} of {expected} votes in service; answered by {}, which has \
         applied {}{behind}\n",
        status.cluster, status.term, status.profile, status.answered_by, status.applied
    ) + &circumstances(status)
}

/// What only matters where it isn't as usual, and how many failures may come.
fn circumstances(status: &Status) -> String {
    let mut out = String::new();
    if status.settings.arming != Arming::Armed {
        out.push_str(&format!("THE CLUSTER IS {}\n", status.settings.arming.to_string().to_uppercase()));
    }
    if let Some(hold) = &status.settings.hold {
        out.push_str(&format!(
            "THE SWITCHING OF POWER IS {}, since {}\n",
            hold.to_string().replacen("held", "HELD", 1),
            when(hold.at_ms)
        ));
    }
    if let Some(outlook) = &status.outlook {
        out.push_str(&format!("{}\n", plan::tolerance(outlook)));
    }
    // The profile is on the first line already.
    let settings = Settings { profile: Profile::default(), ..status.settings.clone() };
    if let Some(changed) = plan::changed(&settings) {
        out.push_str(&format!("Settings: {changed}\n"));
    }
    for rule in status.rules.iter().filter(|rule| rule.rule.disabled_by_operator) {
        out.push_str(&format!("The rule {} has no effect: an operator has disabled it\n", rule.name));
    }
    out
}

fn members(members: &[MemberStatus]) -> String {
    let mut table = Table::new(&["MEMBER", "ROLE", "STATE", "VOTES", "HEARD", "LEASE", "WATCHDOG", "POWER"]);
    for member in members {
        table.row(vec![
            member.name.to_string(),
            match member.role {
                Role::Appliance => "appliance".to_owned(),
                Role::Node => "node".to_owned(),
            },
            member.state.clone(),
            if member.voter { "yes" } else { "no" }.to_owned(),
            member.heard_ms.map(|ms| format!("{} ago", seconds(ms))).unwrap_or_default(),
            member.lease_ms.map(|ms| format!("{} left", seconds(ms))).unwrap_or_default(),
            match (&member.watchdog, member.role) {
                (Some(promise), _) => watchdog(promise, member.armed),
                (None, Role::Node) if member.incarnation.is_some() => "none".to_owned(),
                (None, _) => String::new(),
            },
            match member.role {
                Role::Node if member.devices.is_empty() => "none".to_owned(),
                Role::Node | Role::Appliance => {
                    member.devices.iter().map(|one| device(member, one)).collect::<Vec<_>>().join(", ")
                }
            },
        ]);
    }
    table.render()
}

fn watchdog(promise: &WatchdogPromise, armed: Option<bool>) -> String {
    let trust = match promise.trust {
        Trust::Drilled => "drilled",
        Trust::Accepted => "accepted by name",
        Trust::Unproven => "NOT PROVEN",
    };
    let armed = match armed {
        Some(true) => "armed",
        Some(false) => "off",
        None => "not heard of",
    };
    format!("{} {}, {trust}, {armed}", promise.driver, seconds(promise.promised_ms))
}

fn device(member: &MemberStatus, device: &DeviceStatus) -> String {
    let state = match (device.proven, member.proven_ms.get(&device.name)) {
        (true, Some(ms)) => format!("proven {} ago", roughly(*ms)),
        (true, None) => "proven".to_owned(),
        (false, Some(ms)) => format!("NOT PROVEN, last {} ago", roughly(*ms)),
        (false, None) => "NOT PROVEN".to_owned(),
    };
    let within = member.off_within_ms.get(&device.name);
    let within = within.map(|ms| format!(", off within {}", seconds(*ms))).unwrap_or_default();
    format!("{} ({}) {state}{within}", device.name, device.kind)
}

/// Milliseconds in the largest unit that makes more than one of them.
fn roughly(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// What doesn't fit a column.
fn notes(member: &MemberStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if member.maintenance && member.state != "maintenance" {
        notes.push("an operator wants it empty (maintenance)".to_owned());
    }
    if let Some(leaving) = &member.leaving {
        let resources = match leaving.policy {
            LeavePolicy::Freeze => "its resources wait for it",
            LeavePolicy::Failover => "its resources fail over",
            LeavePolicy::Migrate => "its resources move away first",
        };
        notes.push(format!("it said that it is about to {}: {resources}", leaving.how));
    }
    if let Some(why) = &member.refused {
        notes.push(format!("gets no lease: {why}"));
    }
    if let Some(why) = &member.unprotectable {
        notes.push(format!("takes no protected resources: {why}"));
    }
    for device in member.devices.iter().filter(|device| !device.proven) {
        notes.push(format!("power device {}: {}", device.name, device.why.as_deref().unwrap_or("not tried yet")));
    }
    if let Some(lost) = member.leases_lost.filter(|lost| *lost > 0) {
        notes.push(format!("{lost} of its leases ran out since its agent started"));
    }
    notes
}

/// Where resources stand, one per line.
fn placed(resources: &[ResourceStatus]) -> String {
    let mut table = Table::new(&["RESOURCE", "WANTED", "ON", "STATE", "USES", "WHY"]);
    for resource in resources {
        table.row(vec![
            resource.name.to_string(),
            requested(resource).to_owned(),
            resource.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            state(resource),
            resource.usage.as_ref().map(uses).unwrap_or_default(),
            resource.why.clone(),
        ]);
    }
    table.render()
}

/// How resources are configured, one per line.
#[must_use]
pub fn resources(resources: &[ResourceStatus]) -> String {
    let mut table = Table::new(&[
        "RESOURCE", "WANTED", "ON", "STATE", "CLASS", "ORDER", "MEMORY", "FAILBACK", "RESTARTS", "MOVES", "PROBED",
        "DRIVER",
    ]);
    for resource in resources {
        table.row(vec![
            resource.name.to_string(),
            requested(resource).to_owned(),
            resource.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            state(resource),
            resource.spec.class.to_string(),
            resource.spec.order.to_string(),
            resource.spec.memory.map(show_memory).unwrap_or_default(),
            if resource.spec.failback { "yes" } else { "no" }.to_owned(),
            resource.spec.max_restart.to_string(),
            resource.spec.max_relocate.to_string(),
            format!("every {}", seconds(resource.spec.monitor_every_ms)),
            describe(&resource.spec.driver),
        ]);
    }
    table.render()
}

/// What a resource was measured to use.
fn uses(usage: &Usage) -> String {
    // Hundredths of a processor, to the nearest.
    let hundredths = usage.milli_cpus.saturating_add(5) / 10;
    format!("{}.{:02} CPU, {}", hundredths / 100, hundredths % 100, show_memory(usage.memory))
}

const fn requested(resource: &ResourceStatus) -> &'static str {
    resource.requested.word()
}

fn state(resource: &ResourceStatus) -> String {
    let observed = match &resource.observed {
        None => "not heard of",
        Some(Observed::Stopped | Observed::Sent) => "stopped",
        Some(Observed::Running) => "running",
        Some(Observed::Starting) => "starting",
        Some(Observed::Stopping) => "stopping",
        Some(Observed::Unknown { .. }) => "unknown",
        Some(Observed::Failed { .. }) => "failed",
        Some(Observed::StopFailed { .. }) => "can't be stopped",
        Some(Observed::Moving) => "moving",
        Some(Observed::MoveFailed { .. }) => "running, its move failed",
    };
    // Where what is seen is what the state says, it is said once.
    let same = match resource.state {
        Shown::Started => observed == "running",
        Shown::Stopped | Shown::Disabled => observed == "stopped",
        Shown::Migrate => observed == "moving",
        Shown::RequestStart
        | Shown::RequestStop
        | Shown::Relocate
        | Shown::Fence
        | Shown::Recovery
        | Shown::Freeze
        | Shown::Error
        | Shown::Ignored => false,
    };
    match &resource.phase {
        Phase::Placed { .. } | Phase::Migrating { .. } if same => resource.state.to_string(),
        Phase::Free { from } => format!("{}, free of {from}", resource.state),
        Phase::Ignored => resource.state.to_string(),
        Phase::New | Phase::Placed { .. } | Phase::Releasing { .. } | Phase::Migrating { .. } | Phase::Error { .. } => {
            format!("{}, {observed}", resource.state)
        }
    }
}

fn fence(open: &FenceStatus) -> String {
    let record = &open.fence;
    let progress = match (&record.progress, open.silent_in_ms) {
        (Progress::Wanted, Some(ms)) if ms > 0 => {
            format!("waiting for its power to be cut, or for watchdog expiry, {} s left", ms.div_ceil(1000))
        }
        (Progress::Wanted, Some(_)) => "its watchdog has expired".to_owned(),
        (Progress::Wanted, None) => format!(
            "waiting for its power to be cut; its watchdog proves nothing. Cut its power yourself, then: tiebreaker \
             fence confirm {}",
            record.node
        ),
        (Progress::Fenced { evidence }, _) => format!("proven: {evidence}; it comes back once its devices are done"),
        (Progress::Closed { evidence }, _) => format!("closed: {evidence}"),
    };
    let failure = record.last_failure.as_ref().map(|why| format!("; last failure: {why}")).unwrap_or_default();
    format!("Fence {} of {} ({}): {progress}{failure}", open.id, record.node, record.reason)
}

#[cfg(test)]
pub use tests::example as example_status;

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::fence::{Fence, FenceId, FenceReason};
    use tiebreaker_pipeline::name::MemberName;
    use tiebreaker_pipeline::report::Capacity;
    use tiebreaker_pipeline::resource::{Driver, ResourceSpec};

    use super::*;
    use tiebreaker_pipeline::resource::Requested;

    fn name(text: &str) -> MemberName {
        MemberName::new(text).unwrap()
    }

    fn argv(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    pub fn example() -> Status {
        let promise = WatchdogPromise { driver: "simulated".into(), promised_ms: 10_000, trust: Trust::Accepted };
        let node = |text: &str| MemberStatus {
            name: name(text),
            role: Role::Node,
            raft_id: 2,
            voter: true,
            state: "online".into(),
            heard_ms: Some(210),
            lease_ms: Some(4_790),
            refused: None,
            incarnation: Some(1),
            boot: Some("b".into()),
            watchdog: Some(promise.clone()),
            armed: Some(true),
            leases_lost: Some(0),
            devices: vec![DeviceStatus { name: "bmc".into(), kind: "ipmi".into(), proven: true, why: None }],
            proven_ms: std::collections::BTreeMap::new(),
            off_within_ms: std::collections::BTreeMap::new(),
            unprotectable: None,
            addresses: vec![],
            maintenance: false,
            leaving: None,
            capacity: Capacity::default(),
            boot_ms: 0,
        };
        let appliance = MemberStatus {
            role: Role::Appliance,
            heard_ms: None,
            lease_ms: None,
            incarnation: None,
            watchdog: None,
            armed: None,
            devices: vec![],
            ..node("pi")
        };
        let lost = MemberStatus {
            state: "fence".into(),
            heard_ms: Some(7_350),
            lease_ms: Some(0),
            refused: Some("a fence of this node is open".into()),
            devices: vec![DeviceStatus {
                name: "bmc".into(),
                kind: "ipmi".into(),
                proven: false,
                why: Some("no answer".into()),
            }],
            leases_lost: Some(1),
            ..node("node1")
        };
        let driver =
            Driver::Command { start: argv("/bin/a"), stop: argv("/bin/b"), status: argv("/bin/c"), migrate: None };
        Status {
            cluster: tiebreaker_pipeline::name::ClusterName::new("home").unwrap(),
            answered_by: name("pi"),
            leader: Some(name("pi")),
            term: 3,
            quorum_lease_ms: Some(730),
            applied: 41,
            commit: 42,
            profile: tiebreaker_pipeline::profile::Profile::Balanced,
            votes: (2, 3),
            members: vec![lost, node("node2"), appliance],
            resources: vec![ResourceStatus {
                name: tiebreaker_pipeline::name::ResourceName::new("web").unwrap(),
                spec: ResourceSpec::with_defaults(driver),
                requested: Requested::Started,
                state: Shown::Fence,
                phase: Phase::Placed { node: name("node1") },
                node: Some(name("node1")),
                observed: None,
                why: "waiting for evidence that node1 is fenced (fence 1)".into(),
                home: None,
                locked: None,
                usage: None,
            }],
            fences: vec![FenceStatus {
                id: FenceId(1),
                fence: Fence {
                    node: name("node1"),
                    incarnation: 1,
                    boot: "b".into(),
                    reason: FenceReason::Lost { silent_ms: 2_003 },
                    wanted_at: 40,
                    progress: Progress::Wanted,
                    last_failure: Some("bmc: no answer".into()),
                },
                silent_in_ms: Some(42_100),
            }],
            settings: tiebreaker_pipeline::state::Settings::default(),
            rules: vec![],
            outlook: None,
            alarms: vec!["look at it".into()],
        }
    }

    #[test]
    fn a_status_shows_all_that_an_operator_needs() {
        let expected = "\
Cluster home: pi leads, sure of its majority for 0.7 s (term 3), profile balanced
2 of 3 votes in service; answered by pi, which has applied 41 of 42

MEMBER  ROLE       STATE   VOTES  HEARD      LEASE       WATCHDOG                                   POWER
node1   node       fence   yes    7.3 s ago  0.0 s left  simulated 10.0 s, accepted by name, armed  bmc (ipmi) NOT PROVEN
node2   node       online  yes    0.2 s ago  4.7 s left  simulated 10.0 s, accepted by name, armed  bmc (ipmi) proven
pi      appliance  online  yes    -          -           -                                          -
  node1: gets no lease: a fence of this node is open
  node1: power device bmc: no answer
  node1: 1 of its leases ran out since its agent started

RESOURCE  WANTED   ON     STATE                USES  WHY
web       started  node1  fence, not heard of  -     waiting for evidence that node1 is fenced (fence 1)

Fence 1 of node1 (not heard for 2.003 s): waiting for its power to be cut, or for watchdog expiry, 43 s left; last failure: bmc: no answer

ALARM: look at it
";
        assert_eq!(status(&example()), expected);
    }

    #[test]
    fn a_fence_that_only_a_person_can_end_says_so() {
        let mut status = example();
        status.fences[0].silent_in_ms = None;
        status.leader = None;
        status.quorum_lease_ms = None;
        let text = super::status(&status);
        assert!(text.contains("tiebreaker fence confirm node1") && text.contains("NOBODY LEADS"), "{text}");
    }

    #[test]
    fn what_is_not_as_usual_is_said() {
        let mut status = example();
        status.settings.tolerate = Some(1);
        status.members[1].proven_ms.insert("bmc".into(), 754_000);
        status.members[1].off_within_ms.insert("bmc".into(), 12_400);
        status.members[0].proven_ms.insert("bmc".into(), 7_200_000);
        status.settings.arming = Arming::Disarmed { mode: tiebreaker_pipeline::state::DisarmMode::Freeze, since: 1 };
        let goal = Some(1);
        let limit = "n2 is too small".to_owned();
        status.outlook =
            Some(tiebreaker_pipeline::manager::Outlook { tolerable: Some(1), goal, exact: true, limit, at_best: 1 });
        status.members[1].leaving = Some(tiebreaker_pipeline::state::Leaving {
            incarnation: 1,
            how: tiebreaker_pipeline::report::Leave::Reboot,
            policy: LeavePolicy::Freeze,
            since: 3,
        });
        let (by, reason) = ("alice".to_owned(), Some("cables".to_owned()));
        status.settings.hold = Some(tiebreaker_pipeline::state::Hold { by, reason, at_ms: 1_800_000_000_123 });
        let text = super::status(&status);
        for part in [
            "THE SWITCHING OF POWER IS HELD by alice: cables, since 2027-01-15T08:00:00.123Z\n",
            "bmc (ipmi) proven 12 min ago, off within 12.4 s",
            "bmc (ipmi) NOT PROVEN, last 2 h ago",
            "THE CLUSTER IS DISARMED\n",
            "Tolerates 1 node failure (goal 1)\n",
            "Settings: tolerate 1\n",
            "node2: it said that it is about to reboot: its resources wait for it\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    #[test]
    fn what_was_measured_is_shown_and_nothing_else() {
        let mut status = example();
        assert!(super::status(&status).contains("not heard of  -     waiting"));
        status.resources[0].usage = Some(Usage { memory: 300 << 20, milli_cpus: 1_254 });
        assert!(super::status(&status).contains("1.25 CPU, 300 MiB"), "{}", super::status(&status));
    }

    #[test]
    fn a_list_of_resources_shows_how_they_are_configured() {
        let mut status = example();
        status.resources[0].spec.memory = Some(4 << 30);
        status.resources[0].spec.failback = true;
        let text = resources(&status.resources);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert!(row.join(" ").contains("protected 0 4 GiB yes 1 1 every"), "{text}");
    }
}
