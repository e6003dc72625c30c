//! An appliance that was restored from a backup, and one whose vote was left out for a while.

use tiebreaker_consensus::HardState;

use super::*;

fn leader(net: &mut Net) -> String {
    net.status("a").leader.expect("a majority is up").to_string()
}

fn voters(net: &Net, member: &str) -> BTreeSet<u64> {
    net.cores[&name(member)].state().voters.clone()
}

/// The appliance loses its disk, and a leader lets it in anew. Gives its old number and its new one.
fn lose_and_restore(net: &mut Net) -> (u64, u64) {
    net.cores.remove(&name("pi"));
    net.pass(5_000);
    net.hear();
    let leads = leader(net);
    let old = net.cores[&name(&leads)].state().members[&name("pi")].raft_id;
    let remove = Request::Force { command: Command::RemoveMember { name: name("pi"), raft_id: old }, by: "pi".into() };
    assert!(matches!(net.ask(&leads, remove, 1_000), Some(Reply::Done { .. })));
    let (addresses, key) = (vec!["pi:5404".into()], "restored".into());
    let add = Command::AddMember { name: name("pi"), role: Role::Appliance, addresses, key };
    assert!(matches!(net.ask(&leads, Request::Propose(add), 1_000), Some(Reply::Done { .. })));
    let core = net.cores.get_mut(&name(&leads)).unwrap();
    let snapshot = core.snapshot().unwrap();
    net.state = core.state().clone();
    let hard_state = HardState { term: snapshot.term, vote: None, commit: snapshot.index };
    net.disks.insert(name("pi"), Stored { hard_state, snapshot: Some(snapshot), entries: Vec::new() });
    (old, net.state.members[&name("pi")].raft_id)
}

#[test]
fn row_51_a_restored_appliance_votes_under_its_new_number_and_the_next_failure_is_survived() {
    let mut net = Net::up(&["a", "b"]);
    let (old, new) = lose_and_restore(&mut net);
    net.pass(5_000);
    assert!(!voters(&net, "a").contains(&new), "nobody hears it yet");
    net.start("pi");
    net.hear();
    net.pass(5_000);
    for member in ["a", "b", "pi"] {
        let voters = voters(&net, member);
        assert!(voters.contains(&new) && !voters.contains(&old) && voters.len() == 3, "{member}: {voters:?}");
    }
    let lost = if leader(&mut net) == "a" { "a" } else { "b" };
    net.cores.remove(&name(lost));
    net.pass(10_000);
    net.hear();
    let left = if lost == "a" { "b" } else { "a" };
    assert!(net.status(left).leader.is_some_and(|leader| leader != name(lost)), "two of three are a majority");
    assert!(matches!(net.ask(left, change(Profile::Patient), 2_000), Some(Reply::Done { .. })));
    assert_eq!(net.stops, []);
}

#[test]
fn an_appliance_whose_vote_was_left_out_for_a_while_gets_it_back_while_a_node_leads() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    let pi = net.state.members[&name("pi")].raft_id;
    net.cores.remove(&name("pi"));
    net.pass(5_000);
    let leads = leader(&mut net);
    let until_ms = net.now + 5_000;
    let fewer = FewerVotes { without: BTreeSet::from([name("pi")]), until_ms };
    let fewer = Request::Propose(Command::Set(Setting::FewerVotes(Some(fewer))));
    assert!(matches!(net.ask(&leads, fewer, 1_000), Some(Reply::Done { .. })));
    net.pass(2_000);
    assert!(!voters(&net, &leads).contains(&pi));
    net.start("pi");
    net.hear();
    net.pass(10_000);
    assert!(voters(&net, &leads).contains(&pi), "{:?}", voters(&net, &leads));
}
