mod arming;
mod leaving;
mod moves;
mod property;
mod starts;

use std::collections::BTreeSet;

use crate::command::{Command, ENTRY_VERSION, Entry, Setting, Void};
use crate::decision::Decision;
use crate::fence::{FenceId, Progress};
use crate::fixture::{Log, driver, lost, member, promise, proven, spec, web, word};
use crate::level::Level;
use crate::name::ResourceName;
use crate::profile::Profile;
use crate::report::Capacity;
use crate::report::Trust;
use crate::resource::{Driver, MoveReason, Phase, Requested};
use crate::rules::Rules;
use crate::state::{
    CLOSED_FENCES_MAX, DEVICES_MAX, DisarmMode, MEMBERS_MAX, OPERATORS_MAX, REASON_MAX, RESOURCES_MAX, Role,
};

fn placed() -> Log {
    Log::placed(Rules::ALL)
}

fn failed() -> MoveReason {
    MoveReason::Failed { why: "it died".into() }
}

#[test]
fn an_entry_of_a_newer_version_is_void() {
    let mut log = placed();
    let entry = Entry { version: ENTRY_VERSION + 1, ticket: 0, at_ms: 0, command: Log::add_web() };
    let index = log.state.applied + 1;
    assert_eq!(log.state.apply(index, entry), Err(Void::Version { version: ENTRY_VERSION + 1 }));
    assert_eq!(log.state.applied, index);
}

#[test]
fn every_entry_moves_the_index_and_time_never_goes_back() {
    let mut log = placed();
    let newest = log.state.newest_ms;
    let index = log.state.applied + 1;
    let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1, command: Log::closed(9) };
    assert_eq!(log.state.apply(index, entry), Err(Void::FenceNotOpen { id: FenceId(9) }));
    assert_eq!((log.state.applied, log.state.newest_ms), (index, newest));
    log.state.apply_nothing(index + 1);
    assert_eq!(log.state.applied, index + 1);
}

// Members.

#[test]
fn row_36_the_appliance_is_not_removed_while_a_power_off_may_still_land() {
    let mut log = placed();
    let remove = || Command::RemoveMember { name: member("pi"), raft_id: 1 };
    log.must(Log::fence("a", 1));
    let open = |id| Void::FenceOpen { id: FenceId(id), node: member("a") };
    assert_eq!(log.void(remove()), open(1), "it may have told the device already");
    log.must(Log::fenced(1));
    assert_eq!(log.void(remove()), open(1), "without it the leader would close the fence at once");
    log.must(Log::closed(1));
    assert!(matches!(log.void(remove()), Void::VoteNeeded { .. }), "without it one of three voters is in service");
    let closed = log.state.nodes[&member("a")].closed_at;
    log.must(Log::admit("a", 2, "boot-a2", closed));
    log.must(remove());
    assert_eq!(log.state.appliance(), None);
}

#[test]
fn a_member_gets_a_number_that_was_never_used() {
    let mut log = Log::joined(Rules::ALL, &["a"]);
    log.state.apply_voters(log.state.applied, [1].into());
    log.must(Command::RemoveMember { name: member("a"), raft_id: 2 });
    log.must(Log::add("a", Role::Node));
    assert_eq!(log.state.members[&member("a")].raft_id, 3);
    assert_eq!(log.state.removed[&member("a")], 2, "the old certificate stays refused");
}

#[test]
fn the_same_key_may_change_its_addresses_and_another_key_may_not_take_the_name() {
    let mut log = placed();
    let moved = |key: &str| Command::AddMember {
        name: member("a"),
        role: Role::Node,
        addresses: vec!["a.lan:5404".into()],
        key: key.into(),
    };
    log.must(moved("a"));
    assert_eq!(log.state.members[&member("a")].addresses, ["a.lan:5404"]);
    assert!(log.state.life(&member("a")).is_some(), "a new address is no new machine");
    assert_eq!(log.void(moved("thief")), Void::Exists { name: "a".into() });
    assert!(matches!(log.void(Log::add("a", Role::Appliance)), Void::Exists { .. }));
}

#[test]
fn members_are_bounded() {
    let mut log = Log::new(Rules::ALL);
    for n in 1..MEMBERS_MAX {
        log.must(Log::add(&format!("n{n}"), Role::Node));
    }
    assert_eq!(log.void(Log::add("more", Role::Node)), Void::Full { what: "members".into(), most: MEMBERS_MAX });
}

#[test]
fn removing_names_the_number_of_the_member_that_is_meant() {
    let mut log = placed();
    let remove = |name: &str, raft_id| Command::RemoveMember { name: member(name), raft_id };
    assert_eq!(log.void(remove("b", 9)), Void::Outdated);
    assert!(matches!(log.void(remove("c", 3)), Void::Unknown { .. }));
    log.must(remove("b", 3));
    assert!(!log.state.nodes.contains_key(&member("b")));
    assert!(matches!(log.void(remove("b", 3)), Void::Unknown { .. }), "a duplicate");
}

#[test]
fn a_member_that_may_run_something_is_not_removed() {
    let mut log = placed();
    let remove = || Command::RemoveMember { name: member("a"), raft_id: 2 };
    assert_eq!(log.void(remove()), Void::StillOwns { node: member("a"), resource: web() });
    log.must(log.release(None, failed()));
    assert!(matches!(log.void(remove()), Void::StillOwns { .. }), "it has not said that it stopped it");
    log.must(log.give_up());
    assert!(matches!(log.void(remove()), Void::StillOwns { .. }), "what was given up may run");
    log.must(Log::fence("a", 1));
    assert!(matches!(log.void(remove()), Void::FenceOpen { .. }));
    log.must(Log::fenced(1));
    assert!(matches!(log.void(remove()), Void::FenceOpen { .. }));
    log.must(Log::closed(1));
    log.must(remove());
}

#[test]
fn a_node_that_may_run_a_new_resource_is_not_removed_without_its_word() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    let remove = || Command::RemoveMember { name: member("a"), raft_id: 2 };
    assert!(matches!(log.void(remove()), Void::StillOwns { .. }));
    log.must(log.assign("b", 1));
    log.must(remove());
}

#[test]
fn a_node_that_may_run_what_was_forgotten_until_the_cluster_is_armed_is_not_removed() {
    let mut log = placed();
    log.must(Command::Disarm { mode: DisarmMode::Ignore });
    log.must(Command::Disarmed);
    let remove = || Command::RemoveMember { name: member("a"), raft_id: 2 };
    assert_eq!(log.void(remove()), Void::StillOwns { node: member("a"), resource: web() });
    log.must(Command::SetResource { name: web(), spec: None, requested: Requested::Ignored });
    log.must(remove());
}

#[test]
fn a_member_whose_vote_is_needed_is_not_removed() {
    let mut log = Log::cluster(Rules::ALL);
    log.state.apply_voters(log.state.applied, [1, 2].into());
    let remove = |name: &str, raft_id: u64| Command::RemoveMember { name: member(name), raft_id };
    assert_eq!(log.void(remove("a", 2)), Void::VoteNeeded { node: member("a"), left: 1, voters: 2 });
    log.state.apply_voters(log.state.applied, [1, 2, 3].into());
    log.must(remove("a", 2));
    assert_eq!(log.void(remove("b", 3)), Void::VoteNeeded { node: member("b"), left: 1, voters: 3 });
    log.state.apply_voters(log.state.applied, [1].into());
    log.must(remove("b", 3));
}

#[test]
fn row_33_another_machine_takes_nobodys_place_while_that_ones_life_stands() {
    let mut log = Log::cluster(Rules::ALL);
    let admit = |incarnation: u64, machine: &str| Command::Admit {
        node: member("a"),
        incarnation,
        boot: format!("a-boot-{incarnation}"),
        watchdog: None,
        machine: Some(machine.to_owned()),
        closed: 0,
        capacity: Capacity::default(),
        booted_in_ms: 0,
    };
    log.must(admit(11, "one"));
    assert_eq!(log.void(admit(12, "other")), Void::Outdated);
    log.must(admit(12, "one"));
}

#[test]
fn operators_are_bounded_and_keep_their_key() {
    let mut log = Log::new(Rules::ALL);
    let add = |n: usize| Command::AddOperator { name: format!("op{n}"), key: "00".into() };
    log.must(add(0));
    assert!(matches!(log.void(add(0)), Void::Exists { .. }));
    for n in 1..OPERATORS_MAX {
        log.must(add(n));
    }
    assert!(matches!(log.void(add(OPERATORS_MAX)), Void::Full { .. }));
}

// Lives.

#[test]
fn a_life_is_admitted_once_and_an_older_one_never_again() {
    let mut log = placed();
    assert_eq!(log.void(Log::admit("a", 1, "boot-a1", 0)), Void::Outdated, "a duplicate");
    log.must(Log::admit("a", 3, "boot-a1", 0));
    assert_eq!(log.void(Log::admit("a", 2, "boot-a1", 0)), Void::Outdated, "out of order");
    assert!(matches!(log.void(Log::admit("pi", 1, "x", 0)), Void::Unknown { .. }));
    let life = log.state.life(&member("a")).unwrap();
    assert_eq!((life.incarnation, life.since), (3, log.state.applied - 2));
    assert_eq!(log.web().phase.owner(), Some(&member("a")), "an agent's restart moves nothing");
}

#[test]
fn the_fenced_life_never_comes_back_even_after_the_closing() {
    let mut log = placed();
    log.must(Log::fence("a", 1));
    log.must(Log::fenced(1));
    log.must(Log::closed(1));
    let closed = log.state.applied;
    assert_eq!(log.void(Log::admit("a", 1, "boot-a1", closed)), Void::Outdated);
    assert_eq!(log.void(Log::admit("a", 2, "boot-a2", closed - 1)), Void::Outdated, "decided before the closing");
    log.must(Log::admit("a", 2, "boot-a2", closed));
}

#[test]
fn no_life_is_admitted_while_its_node_has_an_open_fence() {
    let mut log = placed();
    log.must(Log::fence("a", 1));
    let void = Void::FenceOpen { id: FenceId(1), node: member("a") };
    assert_eq!(log.void(Log::admit("a", 2, "boot-a2", 0)), void);
    log.must(Log::fenced(1));
    assert_eq!(log.void(Log::admit("a", 2, "boot-a2", 0)), void);
}

// Resources.

#[test]
fn a_resource_is_added_once_with_a_specification_that_holds() {
    let mut log = placed();
    assert!(matches!(log.void(Log::add_web()), Void::Exists { .. }));
    let mut bad = spec();
    bad.stop_timeout_ms = 0;
    let name = ResourceName::new("db").unwrap();
    let add = Command::AddResource { name, spec: bad.clone(), requested: Requested::Started, node: None };
    assert!(matches!(log.void(add), Void::BadSpec { .. }));
    let set = Command::SetResource { name: web(), spec: Some(bad), requested: Requested::Started };
    assert!(matches!(log.void(set), Void::BadSpec { .. }));
}

#[test]
fn resources_are_bounded() {
    let mut log = Log::new(Rules::ALL);
    let add = |n: usize| Command::AddResource {
        name: ResourceName::new(&format!("r{n}")).unwrap(),
        spec: spec(),
        requested: Requested::Started,
        node: None,
    };
    for n in 0..RESOURCES_MAX {
        log.must(add(n));
    }
    assert!(matches!(log.void(add(RESOURCES_MAX)), Void::Full { .. }));
}

#[test]
fn every_decision_about_a_resource_has_a_generation_of_its_own() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    let mut seen = BTreeSet::from([log.web().generation]);
    let steps: [fn(&Log) -> Command; 5] = [
        |log| log.assign("a", 1),
        |_| Log::set_web(Requested::Stopped),
        |log| log.release(None, MoveReason::Asked),
        |log| log.assign("b", 1),
        |log| log.give_up(),
    ];
    for step in steps {
        log.must(step(&log));
        assert!(seen.insert(log.web().generation));
        assert_eq!(log.web().since, log.state.applied);
    }
    // Removed and added again: a decision about the old one must not fit the new one.
    log.must(Command::RemoveResource { name: web() });
    log.must(Log::add_web());
    assert!(seen.insert(log.web().generation));
}

#[test]
fn a_decision_of_an_older_generation_is_void() {
    let mut log = placed();
    let late = [log.assign("b", 1), log.release(None, MoveReason::Asked), log.give_up()];
    log.must(Log::set_web(Requested::Started));
    for command in late {
        assert_eq!(log.void(command), Void::Outdated);
    }
    log.must(Command::RemoveResource { name: web() });
    assert!(matches!(log.void(Command::RemoveResource { name: web() }), Void::Unknown { .. }));
    assert!(matches!(log.void(Log::set_web(Requested::Started)), Void::Unknown { .. }));
}

#[test]
fn a_duplicate_of_a_decision_is_void() {
    let mut log = placed();
    let release = log.release(Some("b"), MoveReason::Asked);
    log.must(release.clone());
    assert_eq!(log.void(release), Void::Outdated);
    let assign = log.assign("b", 1);
    log.must(assign.clone());
    assert_eq!(log.void(assign), Void::Outdated);
    let give_up = log.give_up();
    log.must(give_up.clone());
    assert_eq!(log.void(give_up), Void::Outdated);
}

#[test]
fn a_decision_must_fit_the_phase() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::add_web());
    assert_eq!(log.void(log.release(None, MoveReason::Asked)), Void::Outdated, "nobody owns a new resource");
    assert_eq!(log.void(log.give_up()), Void::Outdated, "a new resource may run somewhere");
    log.must(log.assign("a", 1));
    assert_eq!(log.void(log.assign("b", 1)), Void::Outdated, "a move needs a release first");
    log.must(log.release(None, MoveReason::Asked));
    assert_eq!(log.void(log.release(None, MoveReason::Asked)), Void::Outdated);
    log.must(log.give_up());
    assert_eq!(log.void(log.assign("b", 1)), Void::Outdated, "its owner may still run what was given up");
}

#[test]
fn only_an_admitted_life_without_a_fence_is_assigned_anything() {
    let mut log = Log::joined(Rules::ALL, &["a", "b", "c"]);
    log.must(Log::admit("a", 4, "boot-a1", 0));
    log.must(Log::admit("b", 1, "boot-b1", 0));
    log.must(Log::add_web());
    assert_eq!(log.void(log.assign("c", 1)), Void::NotAdmitted { node: member("c") });
    assert_eq!(log.void(log.assign("pi", 1)), Void::NotAdmitted { node: member("pi") });
    assert_eq!(log.void(log.assign("a", 3)), Void::Outdated, "another life than the one that was meant");
    // Four voters and c not in service: not even one may be fenced.
    assert!(matches!(log.void(Log::fence("a", 4)), Void::NoMajorityLeft { left: 2, voters: 4, .. }));
    log.must(Log::admit("c", 1, "boot-c1", 0));
    log.must(Log::fence("a", 4));
    assert_eq!(log.void(log.assign("a", 4)), Void::FenceOpen { id: FenceId(1), node: member("a") });
}

#[test]
fn a_failure_is_counted_and_a_wish_is_not() {
    let mut log = placed();
    log.must(log.release(Some("b"), MoveReason::Asked));
    assert_eq!((log.web().relocations, log.web().failed_on.len()), (0, 0));
    log.must(log.assign("b", 1));
    log.must(log.release(None, failed()));
    assert_eq!(
        (log.web().relocations, log.web().failed_on.keys().cloned().collect()),
        (1, BTreeSet::from([member("b")]))
    );
    log.must(Log::set_web(Requested::Started));
    assert_eq!((log.web().relocations, log.web().failed_on.len()), (0, 0), "an operator's word starts afresh");
}

#[test]
fn setting_a_resource_clears_its_error_back_to_where_it_may_run() {
    let mut log = placed();
    log.must(log.give_up());
    assert!(matches!(log.void(Log::set_web(Requested::Started)), Void::InError { .. }));
    log.must(Log::set_web(Requested::Disabled));
    assert_eq!(*log.phase(), Phase::Placed { node: member("a") });
    log.must(Log::set_web(Requested::Started));
    log.must(log.give_up());
    log.must(Log::fence("a", 1));
    log.must(Log::fenced(1));
    assert!(
        matches!(log.phase(), Phase::Error { node: None, .. }),
        "a fence doesn't undo an error, but frees its node"
    );
    log.must(Log::set_web(Requested::Disabled));
    assert_eq!(*log.phase(), Phase::New, "nobody knows who runs it: every node is asked");
}

#[test]
fn setting_a_resource_keeps_its_place() {
    let mut log = placed();
    let mut other = spec();
    other.driver = driver("web2");
    log.must(Command::SetResource { name: web(), spec: Some(other.clone()), requested: Requested::Stopped });
    assert_eq!(
        (log.phase().owner(), &log.web().spec, log.web().requested),
        (Some(&member("a")), &other, Requested::Stopped)
    );
    log.must(log.release(Some("b"), MoveReason::Asked));
    log.must(Log::set_web(Requested::Started));
    assert!(matches!(log.phase(), Phase::Releasing { to: Some(_), .. }), "a release under way goes on");
}

// Fences.

#[test]
fn a_fence_is_for_the_admitted_life_alone() {
    let mut log = Log::joined(Rules::ALL, &["a", "b"]);
    assert_eq!(log.void(Log::fence("a", 1)), Void::NotAdmitted { node: member("a") });
    log.must(Log::admit("a", 5, "boot-a1", 0));
    log.must(Log::admit("b", 1, "boot-b1", 0));
    assert_eq!(log.void(Log::fence("a", 4)), Void::Outdated);
    log.must(Log::fence("a", 5));
    let (id, fence) = log.state.open_fence(&member("a")).unwrap();
    assert_eq!((id, fence.boot.as_str(), fence.wanted_at), (FenceId(1), "boot-a1", log.state.applied));
    assert_eq!(log.void(Log::fence("a", 5)), Void::FenceOpen { id, node: member("a") }, "a duplicate");
}

#[test]
fn two_open_fences_never_leave_a_minority() {
    let mut log = Log::joined(Rules::ALL, &["a", "b", "c", "d"]);
    for node in ["a", "b", "c", "d"] {
        log.must(Log::admit(node, 1, node, 0));
    }
    log.must(Log::fence("a", 1));
    log.must(Log::fence("b", 1));
    assert!(matches!(log.void(Log::fence("c", 1)), Void::NoMajorityLeft { left: 2, voters: 5, .. }));
    log.must(Log::fenced(1));
    assert!(matches!(log.void(Log::fence("c", 1)), Void::NoMajorityLeft { .. }), "fenced is not back in service");
    log.must(Log::closed(1));
    assert!(matches!(log.void(Log::fence("c", 1)), Void::NoMajorityLeft { .. }), "closed is not admitted");
    let closed = log.state.nodes[&member("a")].closed_at;
    log.must(Log::admit("a", 2, "a2", closed));
    log.must(Log::fence("c", 1));
}

#[test]
fn learners_count_neither_for_nor_against_a_fence() {
    let mut log = Log::cluster(Rules::ALL);
    let index = log.state.applied + 1;
    log.state.apply_voters(index, BTreeSet::from([1]));
    log.must(Log::fence("a", 1));
    log.must(Log::fence("b", 1));
}

#[test]
fn fenced_frees_what_the_node_may_have_run_and_nothing_else() {
    let mut log = placed();
    let db = ResourceName::new("db").unwrap();
    log.must(Command::AddResource { name: db.clone(), spec: spec(), requested: Requested::Started, node: None });
    let generation = log.state.resources[&db].generation;
    log.must(Command::Assign { resource: db.clone(), generation, to: member("b"), incarnation: 1 });
    log.must(log.release(Some("b"), failed()));
    log.must(Log::fence("a", 1));
    assert!(matches!(log.phase(), Phase::Releasing { .. }), "wanted is not fenced");
    let before = log.web().generation;
    log.must(Log::fenced(1));
    assert_eq!(*log.phase(), Phase::Free { from: member("a") });
    assert!(log.web().generation > before);
    assert_eq!(log.state.resources[&db].phase, Phase::Placed { node: member("b") });
    assert!(log.state.life(&member("a")).is_none());
    log.must(log.assign("b", 1));
}

#[test]
fn a_late_or_repeated_word_about_a_fence_is_void() {
    let mut log = placed();
    let failure = |id: u64| Command::FenceFailed { id: FenceId(id), why: "no answer".into() };
    assert_eq!(log.void(Log::fenced(1)), Void::FenceNotOpen { id: FenceId(1) }, "an id that never was");
    assert_eq!(log.void(failure(1)), Void::FenceNotOpen { id: FenceId(1) });
    log.must(Log::fence("a", 1));
    assert_eq!(log.void(Log::closed(1)), Void::FenceNotOpen { id: FenceId(1) }, "not proven yet");
    log.must(failure(1));
    log.must(Log::fenced(1));
    assert_eq!(log.void(Log::fenced(1)), Void::FenceNotOpen { id: FenceId(1) }, "a duplicate");
    log.must(log.assign("b", 1));
    log.must(Log::closed(1));
    assert_eq!(log.void(Log::closed(1)), Void::FenceNotOpen { id: FenceId(1) }, "a duplicate");
    assert_eq!(log.void(failure(1)), Void::FenceNotOpen { id: FenceId(1) });
    let closed = log.state.nodes[&member("a")].closed_at;
    log.must(Log::admit("a", 2, "boot-a2", closed));
    assert_eq!(log.void(Log::fenced(1)), Void::FenceNotOpen { id: FenceId(1) }, "an old id against a new life");
    log.must(Log::fence("a", 2));
    assert!(log.state.fences.contains_key(&FenceId(2)), "no id is used twice");
}

#[test]
fn the_same_failure_again_is_no_news() {
    let mut log = placed();
    log.must(Log::fence("a", 1));
    let failure = |why: &str| Command::FenceFailed { id: FenceId(1), why: why.into() };
    log.must(failure("no answer"));
    let lines = log.state.log.len();
    log.must(failure("no answer"));
    assert_eq!(log.state.log.len(), lines);
    log.must(failure("login refused"));
    assert_eq!(log.state.log.len(), lines + 1);
    assert!(log.state.open_fence(&member("a")).is_some(), "a failure never ends a fence");
}

#[test]
fn closed_fences_and_the_timeline_are_bounded_and_open_fences_stay() {
    let mut log = Log::cluster(Rules::ALL);
    log.must(Log::fence("b", 1));
    let index = log.state.applied + 1;
    log.state.apply_voters(index, BTreeSet::from([1]));
    for n in 0..120 {
        log.must(Log::fence("a", n + 1));
        log.must(Log::fenced(n + 2));
        log.must(Log::closed(n + 2));
        let closed = log.state.nodes[&member("a")].closed_at;
        log.must(Log::admit("a", n + 2, &format!("boot-{n}"), closed));
    }
    assert_eq!(log.state.fences.len(), CLOSED_FENCES_MAX + 1);
    assert_eq!(log.state.fences.first_key_value().map(|(id, fence)| (*id, fence.is_open())), Some((FenceId(1), true)));
    assert!(log.state.log.len() <= crate::state::LOG_MAX);
    for n in 0..crate::state::LOG_MAX {
        log.must(Command::SetProfile { profile: Profile::ALL[n % 3] });
    }
    assert_eq!(log.state.log.len(), crate::state::LOG_MAX);
}

// Settings.

#[test]
fn devices_belong_to_a_node() {
    let mut log = placed();
    log.must(Command::SetDevices { node: member("a"), devices: vec![proven("bmc")] });
    assert_eq!(log.state.nodes[&member("a")].devices, [proven("bmc")]);
    assert!(matches!(log.void(Command::SetDevices { node: member("pi"), devices: vec![] }), Void::Unknown { .. }));
    let many = vec![proven("bmc"); DEVICES_MAX + 1];
    assert!(matches!(log.void(Command::SetDevices { node: member("a"), devices: many }), Void::Full { .. }));
}

#[test]
fn the_longest_times_hold_until_the_last_change_of_profile_is_settled() {
    let mut log = placed();
    log.must(Command::SetProfile { profile: Profile::Patient });
    log.must(Command::SetProfile { profile: Profile::Fast });
    assert_eq!(log.state.longest_lease(), Profile::Patient.lease());
    assert_eq!(log.state.longest_quorum_lease(), Profile::Patient.quorum_lease());
    let since = log.state.settings.profile_since;
    assert_eq!(log.void(Command::SettleProfile { profile: Profile::Patient, since }), Void::Outdated);
    // The same profile again is no change, and keeps what was settled.
    log.must(Command::SetProfile { profile: Profile::Fast });
    log.must(Command::SettleProfile { profile: Profile::Fast, since });
    assert_eq!(log.state.longest_lease(), Profile::Fast.lease());
}

#[test]
fn a_settling_of_an_earlier_change_to_the_same_profile_is_void() {
    let mut log = placed();
    log.must(Command::SetProfile { profile: Profile::Fast });
    let since = log.state.settings.profile_since;
    log.must(Command::SetProfile { profile: Profile::Patient });
    log.must(Command::SetProfile { profile: Profile::Fast });
    assert_eq!(log.void(Command::SettleProfile { profile: Profile::Fast, since }), Void::Outdated);
    assert_eq!(log.state.longest_lease(), Profile::Patient.lease());
}

#[test]
fn voters_are_said_once() {
    let mut log = placed();
    let lines = log.state.log.len();
    let voters = log.state.voters.clone();
    let index = log.state.applied + 1;
    log.state.apply_voters(index, voters);
    assert_eq!((log.state.applied, log.state.log.len()), (index, lines));
    log.state.apply_voters(index + 1, BTreeSet::from([1, 99]));
    let said = log.state.log.back().map(|line| line.decision.to_string());
    assert_eq!(said.as_deref(), Some("the voters are pi, #99"));
}

#[test]
fn an_unproven_watchdog_and_no_device_make_a_node_unprotectable_and_the_reason_says_what_to_do() {
    let mut log = Log::joined(Rules::ALL, &["a"]);
    let a = member("a");
    let mut incarnation = 0;
    let mut why = |watchdog: Option<crate::report::WatchdogPromise>, devices: Vec<crate::state::DeviceStatus>| {
        incarnation += 1;
        log.must(Command::Admit {
            node: a.clone(),
            incarnation,
            boot: "b".into(),
            watchdog,
            machine: None,
            closed: 0,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        });
        log.must(Command::SetDevices { node: a.clone(), devices });
        log.state.unprotectable(&a)
    };
    let mut broken = proven("bmc");
    (broken.proven, broken.why) = (false, Some("login refused".into()));
    assert_eq!(why(Some(promise(Trust::Drilled)), vec![]), None);
    assert_eq!(why(Some(promise(Trust::Accepted)), vec![]), None);
    assert_eq!(why(None, vec![proven("bmc")]), None);
    assert_eq!(why(None, vec![broken.clone(), proven("pdu")]), None);
    let text = why(None, vec![]).unwrap();
    assert_eq!(text, "it has no power-fencing device and no watchdog: add one of the two");
    let text = why(Some(promise(Trust::Unproven)), vec![broken]).unwrap();
    assert!(text.contains("bmc is unproven (login refused)") && text.contains("drill the watchdog"), "{text}");
    assert_eq!(log.state.unprotectable(&member("x")).as_deref(), Some("x is not a node"));
    let fresh = Log::joined(Rules::ALL, &["a"]);
    assert_eq!(fresh.state.unprotectable(&a).as_deref(), Some("a is not in service"));
}

#[test]
fn an_operators_word_counts_for_one_fence() {
    let mut log = placed();
    let fence = Command::FenceWanted { node: member("a"), incarnation: 1, reason: lost() };
    log.must(fence);
    assert_eq!(log.void(Command::Fenced { id: FenceId(2), evidence: word() }), Void::FenceNotOpen { id: FenceId(2) });
    log.must(Command::Fenced { id: FenceId(1), evidence: word() });
    assert_eq!(log.state.fences[&FenceId(1)].progress, Progress::Fenced { evidence: word() });
}

/// `web` can move live, and is on its way from a to b.
fn moving_live() -> Log {
    let mut log = Log::cluster(Rules::ALL);
    let mut live = spec();
    let argv = |verb: &str| vec!["/opt/web".to_owned(), verb.to_owned()];
    live.driver = Driver::Command {
        start: argv("start"),
        stop: argv("stop"),
        status: argv("status"),
        migrate: Some(argv("migrate")),
    };
    live.live = true;
    log.must(Command::AddResource { name: web(), spec: live, requested: Requested::Started, node: None });
    log.must(log.assign("a", 1));
    let generation = log.web().generation;
    let (resource, to) = (web(), member("b"));
    log.must(Command::Migrate { resource, generation, to, incarnation: 1, why: MoveReason::Asked });
    log
}

#[test]
fn row_32_a_live_move_belongs_to_both_ends() {
    let mut log = moving_live();
    for node in ["a", "b"] {
        assert_eq!(log.state.owned_by(&member(node)).collect::<Vec<_>>(), [&web()], "{node}");
    }
    assert_eq!(log.void(log.give_up()), Void::Outdated, "two owners don't become one by giving up");
    assert_eq!(log.void(log.release(None, MoveReason::Asked)), Void::Outdated);
    for node in ["a", "b"] {
        let raft_id = log.state.members[&member(node)].raft_id;
        assert!(matches!(log.void(Command::RemoveMember { name: member(node), raft_id }), Void::StillOwns { .. }));
    }
}

#[test]
fn row_32_the_fence_of_one_end_leaves_the_other_and_frees_nothing() {
    for (fenced, left) in [("a", "b"), ("b", "a")] {
        let mut log = moving_live();
        log.must(Log::fence(fenced, 1));
        assert!(matches!(log.phase(), Phase::Migrating { .. }), "a fence that is only wanted decides nothing");
        log.must(Log::fenced(1));
        assert_eq!(*log.phase(), Phase::Placed { node: member(left) });
    }
}

// Feature levels.

fn raise(from: Level, to: Level) -> Command {
    Command::RaiseLevel { from, to }
}

/// `web` has tried to move live from a to b and has stayed, in a cluster of this level.
fn stayed(level: Level) -> Log {
    let mut log = Log::live(Rules::ALL);
    log.state.level = level;
    fail_to_move(&mut log);
    log
}

fn fail_to_move(log: &mut Log) {
    log.must(log.migrate("b", 1));
    log.must(log.go());
    let generation = log.web().generation;
    log.must(Command::CallOff { resource: web(), generation, why: "the link broke".into() });
    log.must(log.assign("a", 1));
}

#[test]
fn row_34_a_level_is_raised_from_the_one_that_holds_and_never_lowered() {
    let mut log = placed();
    log.state.level = Level::FIRST;
    log.must(raise(Level::FIRST, Level::new(7)));
    assert_eq!(log.state.level, Level::new(7), "whatever this program knows itself");
    assert_eq!(log.void(raise(Level::FIRST, Level::new(9))), Void::Outdated, "another level holds by now");
    assert_eq!(log.void(raise(Level::new(7), Level::new(7))), Void::Outdated);
    assert_eq!(log.void(raise(Level::new(7), Level::FIRST)), Void::Outdated);
}

#[test]
fn row_34_what_a_newer_version_does_differently_waits_for_its_level() {
    let mut old = stayed(Level::FIRST);
    assert_eq!(old.web().moves_failed, None, "an older version knows of no such thing");
    let says = |log: &Log| log.state.log.iter().any(|line| matches!(line.decision, Decision::MoveFailed { .. }));
    assert!(!says(&old));
    old.must(raise(Level::FIRST, Level::FAILED_MOVES_COUNT));
    fail_to_move(&mut old);
    assert_eq!(old.web().moves_failed.as_ref().map(|failed| failed.times), Some(1));
    assert!(says(&old));

    let remove = || Command::RemoveMember { name: member("pi"), raft_id: 1 };
    let mut fencing = placed();
    fencing.must(Log::fence("a", 1));
    fencing.void(remove());
    fencing.state.level = Level::FIRST;
    fencing.must(remove());
}

// Holding the switching of power.

#[test]
fn power_is_held_by_one_for_all_until_it_is_released() {
    let hold = |by: &str| Command::Set(Setting::Hold { by: by.into(), reason: Some("cables".into()) });
    let release = || Command::Set(Setting::Release { by: "bob".into() });
    let mut log = placed();
    assert!(matches!(log.void(release()), Void::BadSpec { why } if why.contains("isn't held")));
    log.must(hold("alice"));
    let held = log.state.settings.hold.clone().unwrap();
    assert_eq!((held.by.as_str(), held.reason.as_deref()), ("alice", Some("cables")));
    assert!(matches!(log.void(hold("bob")), Void::BadSpec { why } if why.contains("held by alice: cables")));
    assert_eq!(log.state.settings.hold, Some(held), "who came first is remembered");
    log.must(release());
    assert_eq!(log.state.settings.hold, None);
    let long = Command::Set(Setting::Hold { by: "alice".into(), reason: Some("x".repeat(REASON_MAX + 1)) });
    assert!(matches!(log.void(long), Void::BadSpec { .. }));
}

#[test]
fn row_34_power_is_not_held_where_the_appliance_might_not_know_of_it() {
    let mut log = placed();
    log.state.level = Level::SUPPLIES_PROVE;
    let hold = || Command::Set(Setting::Hold { by: "alice".into(), reason: None });
    assert!(matches!(log.void(hold()), Void::BadSpec { why } if why.contains("older version")));
    log.must(raise(Level::SUPPLIES_PROVE, Level::POWER_CAN_BE_HELD));
    log.must(hold());
}

// How long failures count.

#[test]
fn failures_are_forgotten_after_the_time_that_is_set() {
    let age = |seconds| Command::Set(Setting::FailuresAge(seconds));
    let mut log = placed();
    assert_eq!(log.state.settings.failures_age(), std::time::Duration::from_secs(3_600));
    log.must(age(Some(90)));
    assert_eq!(log.state.settings.failures_age(), std::time::Duration::from_secs(90));
    for wrong in [0, 59, 30 * 24 * 3_600 + 1] {
        assert!(matches!(log.void(age(Some(wrong))), Void::BadSpec { why } if why.contains("30 days")), "{wrong}");
    }
    log.must(age(None));
    assert_eq!(log.state.settings.failures_age_s, None);
    log.state.level = Level::POWER_CAN_BE_HELD;
    assert!(matches!(log.void(age(Some(90))), Void::BadSpec { why } if why.contains("older version")));
}

// Locks that end with a life.

#[test]
fn a_lock_that_ends_with_its_nodes_life_is_told_with_its_reason_and_once() {
    let mut log = placed();
    log.must(Command::SetLock { resource: web(), reason: Some("backup".into()) });
    log.must(Log::fence("a", 1));
    log.must(Log::fenced(1));
    let said: Vec<String> = log.state.log.iter().map(|line| line.decision.to_string()).collect();
    let last = said.last().unwrap();
    assert_eq!(last, "the lock of web is off, since nothing runs on a any more: it was locked for \"backup\"");
    let mut other = placed();
    other.must(Log::fence("a", 1));
    other.must(Log::fenced(1));
    assert!(!other.state.log.iter().any(|line| matches!(line.decision, Decision::LockDropped { .. })));
}

#[test]
fn who_holds_power_is_who_asks() {
    let mut signed = Command::Set(Setting::Hold { by: "somebody else".into(), reason: None }).signed("alice");
    assert_eq!(signed, Command::Set(Setting::Hold { by: "alice".into(), reason: None }));
    signed = Command::Set(Setting::Release { by: "somebody else".into() }).signed("bob");
    assert_eq!(signed, Command::Set(Setting::Release { by: "bob".into() }));
}
