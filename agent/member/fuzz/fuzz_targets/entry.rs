//! An entry of the log: no panic, neither when it is read nor when it is applied to a cluster of two nodes and an appliance.
//! A void entry changes nothing but what is known of the time, and what comes of the others can be stored.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state::{Role, State};

/// Two nodes and their appliance, who all vote.
static CLUSTER: LazyLock<State> = LazyLock::new(|| {
    let name = |text| MemberName::new(text).expect("a good name");
    let cluster = ClusterName::new("home").expect("a good name");
    let mut state = State::new(cluster, name("pi"), vec!["pi:8405".into()], "00".into());
    for (index, node) in (1..).zip(["a", "c"]) {
        let command = Command::AddMember {
            name: name(node),
            role: Role::Node,
            addresses: vec![format!("{node}:8405")],
            key: node.into(),
        };
        let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1_800_000_000_000, command };
        state.apply(index, entry).expect("nothing is void yet");
    }
    let voters = state.members.values().map(|member| member.raft_id).collect();
    state.apply_voters(3, voters);
    state
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = cbor4ii::serde::from_slice::<Entry>(bytes) else { return };
    let mut written = Vec::new();
    cbor4ii::serde::to_writer(&mut written, &entry).expect("what was read can be written");
    assert!(cbor4ii::serde::from_slice::<Entry>(&written[..]).expect("what was written can be read") == entry);

    let mut state = CLUSTER.clone();
    // Twice, since it may be committed twice.
    for index in [4, 5] {
        let mut before = state.clone();
        if state.apply(index, entry.clone()).is_err() {
            (before.applied, before.newest_ms) = (state.applied, state.newest_ms);
            assert!(before == state);
        }
    }
    let stored = state.encode();
    assert!(State::decode(&stored).expect("what was stored can be read").encode() == stored);
});
