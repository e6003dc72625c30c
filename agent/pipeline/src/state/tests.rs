use super::*;
use crate::command::{Command, ENTRY_VERSION, Entry, Setting};
use crate::fence::{Evidence, FenceReason, OffSign};
use crate::fixture::{Log, member, promise, proven, report, spec, web};
use crate::report::{Answer, Capacity, LeaseVerdict, Leave, Observed, Refusal, Renew};
use crate::resource::{Driver, MoveReason, Phase, Requested, ResourceSpec};

fn hex(bytes: &[u8]) -> String {
    // 60 bytes to a line, so that a change shows where it is.
    bytes.chunks(60).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n").collect()
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, value).unwrap();
    bytes
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// Compares with the pinned file. `PIN=1` writes it anew, which only a new version of the format may do.
fn pinned(name: &str, found: &str) -> String {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("PIN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        found, text,
        "the encoding in {name} has changed: members of one cluster would not understand each other"
    );
    text
}

/// One of every command, in the order of their declaration.
fn commands() -> Vec<Command> {
    let ocf = Driver::Ocf {
        provider: "heartbeat".into(),
        agent: "IPaddr2".into(),
        params: BTreeMap::from([("ip".to_owned(), "192.0.2.7".to_owned())]),
    };
    let db = ResourceName::new("db").unwrap();
    let mut unproven = proven("pdu");
    (unproven.proven, unproven.why) = (false, Some("login refused".into()));
    vec![
        Log::add("c", Role::Node),
        Command::RemoveMember { name: member("c"), raft_id: 4 },
        Command::AddOperator { name: "alice".into(), key: "aa".into() },
        Log::admit("a", 1, "boot-a1", 0),
        Log::admit("b", 1, "boot-b1", 0),
        Log::add_web(),
        Command::AddResource {
            name: db.clone(),
            spec: ResourceSpec::with_defaults(ocf.clone()),
            requested: Requested::Stopped,
            node: None,
        },
        Command::Assign { resource: web(), generation: 1, to: member("a"), incarnation: 1 },
        Command::Assign { resource: db.clone(), generation: 2, to: member("a"), incarnation: 1 },
        Command::SetResource { name: web(), spec: Some(spec()), requested: Requested::Started },
        Command::Release {
            resource: web(),
            generation: 5,
            to: Some(member("b")),
            why: MoveReason::Failed { why: "it died".into() },
        },
        Command::GiveUp { resource: db.clone(), generation: 4, why: "it is hopeless".into() },
        Command::SetDevices { node: member("a"), devices: vec![proven("bmc"), unproven] },
        Command::FenceWanted { node: member("a"), incarnation: 1, reason: FenceReason::Lost { silent_ms: 2_000 } },
        Command::FenceFailed { id: FenceId(1), why: "no answer".into() },
        Command::Fenced { id: FenceId(1), evidence: Evidence::BmcOff { device: "bmc".into() } },
        Command::Closed { id: FenceId(1) },
        Command::SetProfile { profile: Profile::Patient },
        Command::SettleProfile { profile: Profile::Patient, since: 22 },
        Command::SetProfile { profile: Profile::Fast },
        Command::RemoveResource { name: db },
        Command::FenceWanted { node: member("b"), incarnation: 1, reason: FenceReason::Asked { by: "alice".into() } },
    ]
}

fn everything() -> State {
    let mut log = Log::joined(Rules::ALL, &["a", "b"]);
    // From before levels were counted.
    log.state.level = Level::FIRST;
    let index = log.state.applied + 1;
    log.state.apply_voters(index, BTreeSet::from([1]));
    for command in commands() {
        log.must(command);
    }
    log.state
}

/// One of every command that came after those, in an order in which none is void, and what they make of a cluster.
fn later_commands() -> (Vec<Command>, State) {
    let mut log = Log::live(Rules::ALL);
    log.state.level = Level::FIRST;
    let mut all = Vec::new();
    let mut must = |log: &mut Log, command: Command| {
        log.must(command.clone());
        all.push(command);
    };
    must(&mut log, Command::RaiseLevel { from: Level::FIRST, to: Level::FAILED_MOVES_COUNT });
    must(&mut log, Command::SetLock { resource: web(), reason: Some("backup".into()) });
    must(&mut log, Command::SetLock { resource: web(), reason: None });
    let migrate = log.migrate("b", 1);
    must(&mut log, migrate);
    let go = log.go();
    must(&mut log, go);
    let generation = log.web().generation;
    must(&mut log, Command::CallOff { resource: web(), generation, why: "the link broke".into() });
    let end = log.assign("a", 1);
    must(&mut log, end);
    must(&mut log, Command::AddOperator { name: "bob".into(), key: "bb".into() });
    must(&mut log, Command::RemoveOperator { name: "bob".into() });
    must(&mut log, Command::SetTakeback { seconds: 90 });
    must(&mut log, Command::Forced { by: "alice".into(), done: "b was removed".into(), breaks: "the plan".into() });
    must(&mut log, Command::Disarm { mode: DisarmMode::Freeze });
    must(&mut log, Command::Disarmed);
    must(&mut log, Command::Arm);
    let since = log.state.applied;
    must(&mut log, Command::ArmingFailed { since, why: "b is not heard".into() });
    must(&mut log, Command::Arm);
    let since = log.state.applied;
    for node in ["a", "b"] {
        must(&mut log, Command::Bind { node: member(node), incarnation: 1, since });
    }
    must(&mut log, Command::Armed { since });
    must(&mut log, Command::Set(Setting::Rebalance(true)));
    must(&mut log, Command::SetMaintenance { node: member("b"), on: true });
    must(&mut log, Log::leave("b", Leave::Reboot));
    let left = log.left("b");
    must(&mut log, left);
    (all, log.state)
}

#[test]
fn the_state_and_the_entries_of_the_first_counted_level_are_pinned() {
    let (commands, state) = later_commands();
    assert!(state.resources[&web()].moves_failed.is_some(), "a failed move is remembered");
    let text = pinned("state-level1.hex", &hex(&state.encode()));
    assert_eq!(State::decode(&unhex(&text)).unwrap(), state);
    let entries = commands.into_iter().map(|command| Entry { version: ENTRY_VERSION, ticket: 7, at_ms: 8, command });
    let found: String = entries.clone().map(|entry| hex(&bytes(&entry)) + "\n").collect();
    let text = pinned("entries-level1.hex", &found);
    for (block, entry) in text.split("\n\n").zip(entries) {
        let read: Entry = cbor4ii::serde::from_slice(&unhex(block)[..]).unwrap();
        assert_eq!(read, entry);
    }
}

#[test]
fn the_evidence_of_the_second_level_is_pinned() {
    let devices = ["plug", "button", "outlet", "agent"].map(str::to_owned);
    let signs = [OffSign::Meter, OffSign::Led, OffSign::Relay, OffSign::Program];
    let all: Vec<Evidence> =
        signs.into_iter().zip(devices).map(|(sign, name)| Evidence::read_off(sign, name)).collect();
    let found: String = all.iter().map(|evidence| hex(&bytes(evidence)) + "\n").collect();
    let text = pinned("evidence-level2.hex", &found);
    for (block, evidence) in text.split("\n\n").zip(all) {
        assert_eq!(cbor4ii::serde::from_slice::<Evidence>(&unhex(block)[..]).unwrap(), evidence);
    }
}

#[test]
fn the_hold_of_the_third_level_is_pinned() {
    let mut log = Log::placed(crate::rules::Rules::ALL);
    let hold = Command::Set(Setting::Hold { by: "alice".into(), reason: Some("cables".into()) });
    log.must(hold.clone());
    let held = log.state.settings.hold.clone().unwrap();
    let short = Command::Set(Setting::Hold { by: "alice".into(), reason: None });
    let all = [hold, short, Command::Set(Setting::Release { by: "bob".into() })];
    let mut found = hex(&bytes(&held)) + "\n";
    found.extend(all.iter().map(|command| hex(&bytes(command)) + "\n"));
    let text = pinned("hold-level3.hex", &found);
    let mut blocks = text.split("\n\n").map(unhex);
    assert_eq!(cbor4ii::serde::from_slice::<Hold>(&blocks.next().unwrap()[..]).unwrap(), held);
    for (block, command) in blocks.zip(all) {
        assert_eq!(cbor4ii::serde::from_slice::<Command>(&block[..]).unwrap(), command);
    }
}

#[test]
fn the_setting_and_the_line_of_the_fourth_level_are_pinned() {
    let all = [Some(90), None].map(|age| Command::Set(Setting::FailuresAge(age)));
    let line = Decision::LockDropped { resource: web(), node: member("a"), reason: "backup".into() };
    let mut found = hex(&bytes(&line)) + "\n";
    found.extend(all.iter().map(|command| hex(&bytes(command)) + "\n"));
    let text = pinned("starts-level4.hex", &found);
    let mut blocks = text.split("\n\n").map(unhex);
    assert_eq!(cbor4ii::serde::from_slice::<Decision>(&blocks.next().unwrap()[..]).unwrap(), line);
    for (block, command) in blocks.zip(all) {
        assert_eq!(cbor4ii::serde::from_slice::<Command>(&block[..]).unwrap(), command);
    }
}

#[test]
fn a_state_from_before_levels_is_at_the_first_and_its_encoding_is_what_it_was() {
    let state = everything();
    let fields: BTreeMap<String, serde::de::IgnoredAny> = cbor4ii::serde::from_slice(&state.encode()[..]).unwrap();
    assert!(!fields.contains_key("level"));
    assert_eq!(State::decode(&state.encode()).unwrap().level, Level::FIRST);
}

#[test]
fn a_mark_tells_states_apart_by_what_decides_and_leaves_the_timeline_alone() {
    let (mut one, mut other) = (everything(), everything());
    assert_eq!(one.mark(), other.mark());
    assert_eq!(one, everything(), "marking changes nothing");
    other.log.clear();
    assert_eq!(one.mark(), other.mark(), "the timeline decides nothing");
    other.settings.takeback_s = Some(61);
    assert_ne!(one.mark(), other.mark());
}

#[test]
fn the_encoded_state_is_pinned() {
    let state = everything();
    let text = pinned("state-v1.hex", &hex(&state.encode()));
    assert_eq!(State::decode(&unhex(&text)).unwrap(), state);
}

#[test]
fn every_encoded_entry_is_pinned() {
    let entries = commands().into_iter().map(|command| Entry { version: ENTRY_VERSION, ticket: 7, at_ms: 8, command });
    let found: String = entries.clone().map(|entry| hex(&bytes(&entry)) + "\n").collect();
    let text = pinned("entries-v1.hex", &found);
    for (block, entry) in text.split("\n\n").zip(entries) {
        let read: Entry = cbor4ii::serde::from_slice(&unhex(block)[..]).unwrap();
        assert_eq!(read, entry);
    }
}

#[test]
fn renewals_and_answers_are_pinned() {
    let observed = |why: &str| Observed::Unknown { why: why.into() };
    let renews = [
        Observed::Stopped,
        Observed::Running,
        Observed::Starting,
        Observed::Stopping,
        observed("no answer"),
        Observed::Failed { why: "it died".into() },
        Observed::StopFailed { why: "it hangs".into() },
    ]
    .map(|seen| Renew {
        seq: 1,
        term: 2,
        incarnation: 3,
        boot: "boot-a1".into(),
        watchdog: Some(promise(Trust::Drilled)),
        machine: Some("4c4c4544-0042-3510-8054-b4c04f4d3132".into()),
        capacity: Capacity::default(),
        booted_in_ms: None,
        level: Level::FIRST,
        report: report(4, Some(seen)),
    });
    let refusals = [
        Refusal::NoQuorumLease,
        Refusal::NotAdmitted,
        Refusal::Condemned,
        Refusal::Outdated,
        Refusal::Twin,
        Refusal::NotAMember,
    ];
    let verdicts = refusals.map(|why| LeaseVerdict::Refused { why }).into_iter().chain([
        LeaseVerdict::Granted { ttl_ms: 5_000, commit: 9 },
        LeaseVerdict::NotLeader { leader: Some(member("pi")) },
        LeaseVerdict::NotLeader { leader: None },
    ]);
    let answers = verdicts.map(|verdict| Answer { seq: 1, incarnation: 3, term: 2, verdict });
    let found: String =
        renews.iter().map(|renew| hex(&bytes(renew))).chain(answers.map(|answer| hex(&bytes(&answer)))).collect();
    pinned("leases-v1.hex", &found);
    let Some(mut renew) = renews.into_iter().next() else { panic!("a renewal") };
    renew.level = Level::FAILED_MOVES_COUNT;
    let refusals = [
        Refusal::TooOld { committed: Level::FAILED_MOVES_COUNT, known: Level::FIRST },
        Refusal::Diverged { index: 640 },
    ];
    let answers =
        refusals.map(|why| Answer { seq: 1, incarnation: 3, term: 2, verdict: LeaseVerdict::Refused { why } });
    let found = hex(&bytes(&renew)) + &answers.map(|answer| hex(&bytes(&answer))).concat();
    pinned("leases-level1.hex", &found);
}

#[test]
fn a_state_survives_its_encoding_and_keeps_its_digest() {
    let state = everything();
    let read = State::decode(&state.encode()).unwrap();
    assert_eq!(read, state);
    assert_eq!(read.digest(), state.digest());
}

#[test]
fn the_same_log_gives_the_same_digest_and_another_gives_another() {
    assert_eq!(everything().digest(), everything().digest());
    let mut other = everything();
    other.apply_nothing(other.applied + 1);
    assert_ne!(other.digest(), everything().digest());
}

#[cfg(feature = "mutations")]
#[test]
fn the_rules_are_no_part_of_the_digest() {
    let odd = everything().with_rules(Rules::without("late_commands_are_void").unwrap());
    assert_eq!(odd.digest(), everything().digest());
}

#[test]
fn a_newer_state_and_garbage_are_refused() {
    let mut state = everything();
    state.version = STATE_VERSION + 1;
    assert!(matches!(State::decode(&state.encode()), Err(StateError::Version { found }) if found == STATE_VERSION + 1));
    assert!(matches!(State::decode(b"garbage"), Err(StateError::Decode(_))));
    let encoded = everything().encode();
    assert!(State::decode(&encoded[..encoded.len() - 1]).is_err(), "half a state is none");
}

#[test]
fn in_service_means_a_life_and_no_open_fence() {
    let mut log = Log::joined(Rules::ALL, &["a", "b"]);
    assert!(log.state.in_service(&member("pi")) && !log.state.in_service(&member("a")));
    log.must(Log::admit("a", 1, "boot-a1", 0));
    assert!(log.state.in_service(&member("a")) && !log.state.in_service(&member("stranger")));
    log.must(Log::admit("b", 1, "boot-b1", 0));
    log.must(Log::fence("a", 1));
    assert!(!log.state.in_service(&member("a")));
    log.must(Log::fenced(1));
    assert!(!log.state.in_service(&member("a")));
    assert_eq!(log.state.owned_by(&member("a")).count(), 0);
    let (phases, owner) = ([Phase::New, Phase::Free { from: member("a") }], None);
    assert!(phases.iter().all(|phase| phase.owner() == owner));
}
