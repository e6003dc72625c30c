//! Members of different versions, and members that made something else of the same log.

use tiebreaker_pipeline::decision::Decision;
use tiebreaker_pipeline::report::Refusal;

use super::*;

const OLD: Level = Level::FIRST;

impl Net {
    /// A fault changes what this member knows, and nobody notices yet.
    fn corrupt(&mut self, text: &str) {
        self.cores.get_mut(&name(text)).unwrap().state.settings.takeback_s = Some(61);
    }

    fn core(&self, text: &str) -> &Core {
        &self.cores[&name(text)]
    }

    fn leader(&self) -> Option<&MemberName> {
        let leads = |core: &&Core| matches!(core.leadership(self.moment().now).role, RaftRole::Leader { .. });
        self.cores.values().find(leads).map(Core::name)
    }

    fn has_lease(&self, text: &str) -> bool {
        self.core(text).node().unwrap().has_lease(self.moment().now)
    }

    fn levels(&self) -> BTreeSet<Level> {
        self.cores.values().map(|core| core.state().level).collect()
    }
}

#[test]
fn row_34_the_level_rises_once_when_the_last_member_is_updated() {
    let mut net = Net::of_level(&["a", "b"], OLD);
    for member in ["pi", "a", "b"] {
        net.start_knowing(member, OLD);
    }
    net.pass(10_000);
    for member in ["pi", "a"] {
        net.cores.remove(&name(member));
        net.start(member);
        net.pass(20_000);
    }
    assert_eq!(net.levels(), [OLD].into(), "b would make something else of it");
    assert!(net.has_lease("a") && net.has_lease("b"), "an older version works together with a newer one");
    net.cores.remove(&name("b"));
    net.start("b");
    net.pass(10_000);
    assert_eq!(net.levels(), [Level::KNOWN].into());
    let raised = |line: &&tiebreaker_pipeline::decision::LogLine| {
        matches!(line.decision, Decision::LevelRaised { level: Level::KNOWN })
    };
    assert_eq!(net.core("b").state().log.iter().filter(raised).count(), 1);
}

#[test]
fn row_34_a_program_that_is_too_old_stops_and_says_what_to_do() {
    let mut net = Net::of_level(&["a", "b"], OLD);
    net.start("pi");
    net.start("a");
    net.start("b");
    net.pass(10_000);
    assert_eq!(net.levels(), [Level::KNOWN].into());
    net.cores.remove(&name("b"));
    net.start_knowing("b", OLD);
    net.pass(10_000);
    let (who, why) = net.stops.first().unwrap();
    assert_eq!((who, net.stops.len()), (&name("b"), 1));
    assert!(why.contains(&format!("feature level {},", Level::KNOWN)) && why.contains("update it"), "{why}");
    assert!(!net.has_lease("b"));
}

#[test]
fn row_34_a_node_whose_state_differs_gets_no_lease_and_everybody_says_so() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    net.pass(15_000);
    net.corrupt("b");
    // It is seen at the next mark, at the latest when the log stands still.
    net.ask("pi", change(Profile::Patient), 1_000).unwrap();
    net.ask("pi", change(Profile::Balanced), 1_000).unwrap();
    net.pass(60_000);
    assert!(net.core("b").is_odd() && !net.core("a").is_odd() && !net.core("pi").is_odd());
    assert!(!net.has_lease("b") && net.has_lease("a"));
    assert!(matches!(net.core("b").node().unwrap().refused(), Some(Refusal::Diverged { .. })));
    for asked in ["pi", "b"] {
        let alarms = net.status(asked).alarms;
        let alarm = alarms.iter().find(|alarm| alarm.contains("on b differs from the majority's"));
        assert!(alarm.is_some_and(|alarm| alarm.contains("Way out")), "{asked}: {alarms:?}");
    }
    assert_eq!(net.leader(), Some(&name("pi")));
    // Its agent starts again, from a disk that was never wrong: it makes of the log what the others do.
    net.cores.remove(&name("b"));
    net.start("b");
    net.pass(40_000);
    assert!(net.cores.values().all(|core| !core.is_odd()));
    assert!(net.has_lease("b"));
}

#[test]
fn row_34_a_leader_whose_state_differs_hands_over_and_is_not_led_by_again() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    net.pass(15_000);
    net.corrupt("pi");
    net.ask("a", change(Profile::Patient), 1_000).unwrap();
    net.ask("a", change(Profile::Balanced), 1_000).unwrap();
    net.all_hold_leases_for(30_000);
    assert!(net.core("pi").is_odd());
    assert!([Some(&name("a")), Some(&name("b"))].contains(&net.leader()), "{:?}", net.leader());
    // Nor does it take the lead back.
    net.all_hold_leases_for(120_000);
    assert_ne!(net.leader(), Some(&name("pi")));
}

#[test]
fn row_34_where_no_majority_says_who_is_right_nothing_is_decided_and_what_runs_goes_on() {
    let mut net = Net::new(&["a", "b"]);
    net.start("pi");
    net.start("a");
    net.pass(15_000);
    net.corrupt("a");
    net.ask("pi", change(Profile::Patient), 1_000).unwrap();
    net.ask("pi", change(Profile::Balanced), 1_000).unwrap();
    net.pass(15_000);
    assert!(net.cores.values().all(|core| core.is_doubtful() && !core.is_odd()));
    let alarms = net.status("pi").alarms;
    assert!(alarms.iter().any(|alarm| alarm.contains("no majority says which one is right")), "{alarms:?}");
    assert!(net.has_lease("a"), "nobody knows that it is the one");
    // A third one would be admitted within a second by a leader that decides.
    net.start("b");
    net.pass(5_000);
    assert!(!net.has_lease("b") && net.has_lease("a"));
    // Once it has made its own of the log, two are right.
    net.pass(40_000);
    assert!(net.core("a").is_odd() && !net.core("b").is_doubtful() && !net.core("pi").is_doubtful());
    assert!(net.has_lease("b") && !net.has_lease("a"));
}

#[test]
fn row_34_members_that_make_the_same_of_the_log_never_doubt_each_other() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    for profile in [Profile::Patient, Profile::Balanced].into_iter().cycle().take(80) {
        net.ask("b", change(profile), 1_000).unwrap();
        net.pass(100);
        assert!(net.cores.values().all(|core| !core.is_odd() && !core.is_doubtful()));
    }
    // One that was away catches up, by the log or by a snapshot.
    net.cores.remove(&name("a"));
    for profile in [Profile::Patient, Profile::Balanced].into_iter().cycle().take(80) {
        net.ask("b", change(profile), 1_000).unwrap();
    }
    net.start("a");
    net.pass(30_000);
    assert!(net.cores.values().all(|core| !core.is_doubtful()));
    assert_eq!(net.status("pi").alarms, Vec::<String>::new());
}
