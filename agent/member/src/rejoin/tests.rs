use tiebreaker_pipeline::command::{ENTRY_VERSION, Entry};
use tiebreaker_pipeline::fence::FenceReason;
use tiebreaker_pipeline::report::Capacity;

use super::*;

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

/// `home` with the appliance `pi`, which is number 7, and two nodes in service; all three vote.
struct Home(State);

impl Home {
    fn new() -> Self {
        let state =
            State::new("home".parse().unwrap(), name("pi"), vec!["pi:8405".into()], String::new()).founded_as(7);
        let mut home = Self(state);
        for node in ["n1", "n2"] {
            let (addresses, key) = (vec![format!("{node}:8405")], node.into());
            home.must(Command::AddMember { name: name(node), role: Role::Node, addresses, key });
        }
        let voters = home.0.members.values().map(|member| member.raft_id).collect();
        home.0.apply_voters(home.0.applied + 1, voters);
        for node in ["n1", "n2"] {
            home.admit(node);
        }
        home
    }

    fn admit(&mut self, node: &str) {
        self.must(Command::Admit {
            node: name(node),
            incarnation: 1,
            boot: format!("boot-{node}"),
            watchdog: None,
            machine: None,
            closed: 0,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        });
    }

    fn must(&mut self, command: Command) {
        let index = self.0.applied + 1;
        self.0.apply(index, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 1_000 * index, command }).unwrap();
    }

    fn seen(&self) -> Seen<'_> {
        Seen { state: &self.0, heard_by: None, silent: SILENT_FOR }
    }

    fn judge(&self, ask: &RejoinAsk) -> Verdict {
        judge(self.seen(), ask)
    }

    fn obey(&mut self, verdict: Verdict) {
        let Verdict::Propose(commands) = verdict else { panic!("{verdict:?}") };
        commands.into_iter().for_each(|command| self.must(command));
    }
}

/// What a machine asks that was restored from a backup of when the appliance was number `former`.
fn ask(former: u64, key: &str) -> RejoinAsk {
    RejoinAsk {
        version: REJOIN_VERSION,
        name: name("pi"),
        former,
        key: key.into(),
        addresses: vec!["pi:8405".into()],
        others_are_off: false,
    }
}

fn why(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Answer(RejoinAnswer::Wait { why } | RejoinAnswer::Twin { why } | RejoinAnswer::Refused { why }) => why,
        other => panic!("{other:?}"),
    }
}

fn is_twin(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Answer(RejoinAnswer::Twin { .. }))
}

fn is_wait(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Answer(RejoinAnswer::Wait { .. }))
}

#[test]
fn row_51_a_restored_appliance_gets_a_number_that_was_never_used_and_the_old_one_is_out_for_good() {
    let mut home = Home::new();
    let (first, next) = (ask(7, "one"), home.0.next_raft_id);
    home.obey(home.judge(&first));
    assert_eq!(home.judge(&first), Verdict::Joined(next), "its answer may get lost");
    assert_eq!(home.0.removed[&name("pi")], 7);
    assert_eq!(home.0.appliance(), Some(&name("pi")));
    assert!(home.0.members.values().all(|member| member.raft_id != 7));
}

#[test]
fn row_51_a_request_that_was_cut_off_half_way_is_finished_by_the_next() {
    let mut home = Home::new();
    let verdict = home.judge(&ask(7, "one"));
    let Verdict::Propose(mut commands) = verdict else { panic!("{verdict:?}") };
    home.must(commands.remove(0));
    assert_eq!(home.0.appliance(), None);
    home.obey(home.judge(&ask(7, "one")));
    assert!(matches!(home.judge(&ask(7, "one")), Verdict::Joined(_)));
}

#[test]
fn row_51_while_anybody_hears_the_appliance_a_copy_of_it_is_refused() {
    let home = Home::new();
    let n2 = name("n2");
    for others_are_off in [false, true] {
        let verdict =
            judge(Seen { heard_by: Some(&n2), ..home.seen() }, &RejoinAsk { others_are_off, ..ask(7, "one") });
        assert!(is_twin(&verdict), "{verdict:?}");
        assert!(why(&verdict).contains("#7: n2 hears it"), "{verdict:?}");
    }
    assert!(matches!(alive(&home.0, Some(&n2), &ask(7, "one")), Some(RejoinAnswer::Twin { .. })), "whoever leads");
    assert_eq!(alive(&home.0, None, &ask(7, "one")), None);
    let restarts = judge(Seen { silent: SILENT_FOR - Duration::from_millis(1), ..home.seen() }, &ask(7, "one"));
    assert!(is_wait(&restarts), "its daemon may only be restarting: {restarts:?}");
}

#[test]
fn row_51_of_two_machines_restored_from_one_backup_the_second_is_refused_until_somebody_gives_his_word() {
    let mut home = Home::new();
    home.obey(home.judge(&ask(7, "one")));
    let second = home.judge(&ask(7, "two"));
    assert!(is_twin(&second) && why(&second).contains("--others-are-off"), "{second:?}");
    let sworn = RejoinAsk { others_are_off: true, ..ask(7, "two") };
    home.obey(home.judge(&sworn));
    assert!(matches!(home.judge(&sworn), Verdict::Joined(_)));
    assert!(is_twin(&home.judge(&ask(7, "one"))), "and then it is the first that finds another one in its place");
}

#[test]
fn row_51_two_that_ask_at_once_are_sorted_out_by_the_log() {
    let mut home = Home::new();
    let (one, two) = (home.judge(&ask(7, "one")), home.judge(&ask(7, "two")));
    home.obey(one);
    let Verdict::Propose(commands) = two else { panic!("{two:?}") };
    for command in commands {
        let index = home.0.applied + 1;
        home.0.apply(index, Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command }).unwrap_err();
    }
    assert!(matches!(home.judge(&ask(7, "one")), Verdict::Joined(_)));
}

#[test]
fn without_a_majority_beside_it_a_restored_appliance_waits_and_says_what_to_do() {
    let mut home = Home::new();
    home.0.nodes.get_mut(&name("n2")).unwrap().life = None;
    let verdict = home.judge(&ask(7, "one"));
    assert!(is_wait(&verdict), "{verdict:?}");
    assert!(why(&verdict).contains("1 of 3 voters") && why(&verdict).contains("takeover"), "{verdict:?}");
}

#[test]
fn row_36_a_fence_that_the_lost_appliance_worked_on_keeps_its_successor_out() {
    let mut home = Home::new();
    let reason = FenceReason::Asked { by: "ann".into() };
    home.must(Command::FenceWanted { node: name("n2"), incarnation: 1, reason });
    let verdict = home.judge(&ask(7, "one"));
    assert!(is_wait(&verdict) && why(&verdict).contains("fence 1 of n2"), "{verdict:?}");
}

#[test]
fn after_a_takeover_it_is_added_without_anybody_to_remove() {
    let mut home = Home::new();
    let (n1, id) = (name("n1"), home.0.members[&name("n1")].raft_id);
    home.0.take_over(home.0.applied + 1, 1, &n1, id, "root").unwrap();
    let verdict = home.judge(&ask(7, "one"));
    assert!(matches!(&verdict, Verdict::Propose(commands) if commands.len() == 1), "{verdict:?}");
    home.obey(verdict);
    assert!(matches!(home.judge(&ask(7, "one")), Verdict::Joined(number) if number > 1024));
}

#[test]
fn what_can_not_be_is_refused_in_words() {
    let home = Home::new();
    let newer = RejoinAsk { version: REJOIN_VERSION + 1, ..ask(7, "one") };
    let nowhere = RejoinAsk { addresses: Vec::new(), ..ask(7, "one") };
    let node = RejoinAsk { name: name("n1"), ..ask(7, "one") };
    for (ask, words) in [(newer, "same release"), (nowhere, "server.toml"), (node, "another name")] {
        let verdict = home.judge(&ask);
        assert!(
            matches!(&verdict, Verdict::Answer(RejoinAnswer::Refused { why }) if why.contains(words)),
            "{verdict:?}"
        );
    }
}
