//! What `status` says is wrong.

use tiebreaker_pipeline::report::{Refusal, Report};

use super::*;
use crate::clock::ClockFault;

impl Net {
    fn sees_its_clock(&mut self, text: &str, news: Option<ClockFault>, fault: Option<ClockFault>) {
        let moment = self.moment();
        self.cores.get_mut(&name(text)).unwrap().clock_seen(moment, news, fault);
        self.settle();
    }

    /// Another start or another boot of a node asks the leader for a lease.
    fn renews_as(&mut self, text: &str, boot: &str, incarnation: u64) -> LeaseVerdict {
        let (node, moment) = (name(text), self.moment());
        let applied = self.cores[&name("pi")].state().applied;
        let report = Report {
            applied,
            resources: BTreeMap::new(),
            hears: BTreeSet::new(),
            armed: false,
            leases_lost: 0,
            leaving: None,
            trouble: None,
            usage: BTreeMap::new(),
        };
        let renew = Renew {
            seq: 1,
            term: 0,
            incarnation,
            boot: boot.into(),
            watchdog: None,
            machine: None,
            capacity: tiebreaker_pipeline::report::Capacity::default(),
            booted_in_ms: None,
            level: Level::KNOWN,
            report,
        };
        let core = self.cores.get_mut(&name("pi")).unwrap();
        let answer = core.answer(moment, &node, renew);
        self.settle();
        answer.verdict
    }

    fn alarms_of(&mut self, asked: &str, about: &str) -> Vec<String> {
        self.status(asked).alarms.into_iter().filter(|alarm| alarm.contains(about)).collect()
    }
}

#[test]
fn a_journal_that_cant_be_kept_is_an_alarm_of_the_cluster_and_a_line_of_it_and_costs_nothing_else() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    let says = |net: &mut Net, member: &str, fault: Option<&str>| {
        let moment = net.moment();
        net.cores.get_mut(&name(member)).unwrap().journal_kept(moment, fault.map(str::to_owned));
        net.settle();
    };
    says(&mut net, "b", Some("its journal can't be kept: no space"));
    says(&mut net, "b", Some("its journal can't be kept: no space"));
    for asked in ["pi", "b"] {
        assert_eq!(net.alarms_of(asked, "journal"), ["b: its journal can't be kept: no space"]);
    }
    let lines = net.cores.get_mut(&name("b")).unwrap().fresh_lines();
    let said = lines.iter().filter(|line| matches!(line.deed, Deed::JournalNotKept { .. })).count();
    assert_eq!(said, 1, "{lines:?}");
    assert_eq!(net.status("pi").votes, (3, 3));
    assert!(matches!(net.ask("b", change(Profile::Fast), 1_000), Some(Reply::Done { .. })));
    net.pass(31_000);
    assert_eq!(net.alarms_of("pi", "journal"), Vec::<String>::new(), "it is not said any more");
    says(&mut net, "b", None);
    assert_eq!(net.alarms_of("b", "journal"), Vec::<String>::new());
}

#[test]
fn row_34_what_an_older_member_cant_read_is_not_sent_to_it() {
    let mut net = Net::of_level(&["a", "b"], Level::POWER_CAN_BE_HELD);
    for member in ["a", "b", "pi"] {
        net.start_knowing(member, Level::POWER_CAN_BE_HELD);
    }
    net.pass(10_000);
    net.hear();
    let moment = net.moment();
    net.cores.get_mut(&name("b")).unwrap().journal_kept(moment, Some("its journal can't be kept".into()));
    net.settle();
    net.sees_its_clock("b", None, Some(ClockFault::NeverSet));
    let about = |net: &mut Net, asked| net.alarms_of(asked, "b: its ").len();
    assert_eq!(
        (about(&mut net, "pi"), about(&mut net, "b")),
        (0, 0),
        "the leader answers for both, and hasn't heard of it"
    );
    assert_eq!(net.cores[&name("b")].kept.alarms(&name("b"), net.moment().now).len(), 1);
}

#[test]
fn a_wrong_clock_is_an_alarm_of_the_cluster_and_a_line_in_its_members_journal() {
    let mut net = Net::up(&["a", "b"]);
    net.hear();
    let jumped = Some(ClockFault::Jumped { by_s: 3_600 });
    net.sees_its_clock("b", jumped, jumped);
    net.sees_its_clock("pi", Some(ClockFault::NeverSet), Some(ClockFault::NeverSet));
    for asked in ["pi", "b"] {
        let alarms = net.alarms_of(asked, "clock");
        let [pi, b] = &alarms[..] else { panic!("asked at {asked}: {alarms:?}") };
        assert!(pi.starts_with("pi: its clock stands before 2026"), "{pi}");
        assert!(b.starts_with("b: its clock jumped by +3600 s;") && b.contains("set-ntp"), "{b}");
    }
    // The next look finds nothing new, and the same fault.
    net.sees_its_clock("b", None, jumped);
    let Some(Reply::Journal { lines }) = net.ask("pi", Request::Journal { of: name("b"), last: 9 }, 1_000) else {
        panic!("no journal");
    };
    let wrong: Vec<&Deed> =
        lines.iter().map(|line| &line.deed).filter(|deed| matches!(deed, Deed::ClockWrong(_))).collect();
    assert_eq!(wrong, [&Deed::ClockWrong(ClockFault::Jumped { by_s: 3_600 })], "told once");
    let text = serde_json::to_string(wrong[0]).unwrap();
    assert_eq!(text, r#"{"what":"clock_wrong","fault":"jumped","by_s":3600}"#);
    assert_eq!(&serde_json::from_str::<Deed>(&text).unwrap(), wrong[0]);
    // Of others a member knows as long as they say it; of itself, what it saw last.
    net.pass(31_000);
    assert_eq!(net.alarms_of("pi", "clock").len(), 1);
    net.sees_its_clock("pi", None, None);
    assert_eq!(net.alarms_of("pi", "clock"), Vec::<String>::new());
}

#[test]
fn row_33_a_copy_of_a_disk_is_an_alarm_that_names_both_boots_until_it_is_gone() {
    let refused = LeaseVerdict::Refused { why: Refusal::Twin };
    // Whether the copy was started as often as its original, or more often.
    for starts in [1, 2] {
        let mut net = Net::up(&["a", "b"]);
        assert_eq!(net.renews_as("b", "boot of the copy", starts), refused);
        net.pass(1_000);
        let alarms = net.alarms_of("pi", "two machines");
        let [alarm] = &alarms[..] else { panic!("{starts}: {alarms:?}") };
        assert!(alarm.contains("are b: boot boot of b is in service, boot boot of the copy is refused"), "{alarm}");
        net.pass(30_000);
        assert_eq!(net.renews_as("b", "boot of the copy", starts), refused);
        net.pass(40_000);
        assert_eq!(net.alarms_of("pi", "two machines").len(), 1, "it was there a minute ago");
        net.pass(30_000);
        assert_eq!(net.alarms_of("pi", "two machines"), Vec::<String>::new());
    }
}

#[test]
fn a_node_that_boots_again_within_its_lease_is_no_copy() {
    let mut net = Net::up(&["a", "b"]);
    net.cores.remove(&name("b"));
    assert_eq!(net.renews_as("b", "a later boot", 2), LeaseVerdict::Refused { why: Refusal::Twin });
    assert_eq!(net.alarms_of("pi", "two machines"), Vec::<String>::new());
}
