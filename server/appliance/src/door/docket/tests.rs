//! Two halves that ask for each other, agents that are killed and ask again, restarts.

use super::*;

const OFF: Wish = Wish::Off { then_on: false };
const REBOOT: Wish = Wish::Off { then_on: true };

fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

fn names(text: &str) -> Vec<MemberName> {
    text.split_whitespace().map(name).collect()
}

fn refusal(entry: Entry) -> String {
    match entry {
        Entry::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_mirror_of_a_fence_is_refused_while_it_goes_on_and_a_moment_longer() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
    let why = refusal(docket.open(1_001, &b, names("b"), &a, OFF));
    assert!(why.contains("b is itself being fenced, for a"), "{why}");
    assert_eq!(docket.off(5_000, &b, 1, "bmc".into()), Some(false));
    let why = refusal(docket.open(24_999, &b, names("b"), &a, OFF));
    assert!(why.contains("a moment ago"), "{why}");
    assert_eq!(docket.open(25_000, &b, names("b"), &a, OFF), Entry::Opened, "b has booted, and a has gone");
}

#[test]
fn nobody_on_whose_behalf_a_fence_goes_on_is_fenced_meanwhile() {
    let (a, b, c, d) = (name("a"), name("b"), name("c"), name("d"));
    let mut docket = Docket::default();
    // The half of a and b has c fenced; then it loses the vote to the half of c and d.
    assert_eq!(docket.open(1_000, &a, names("a b"), &c, OFF), Entry::Opened);
    let why = refusal(docket.open(2_000, &d, names("c d"), &b, OFF));
    assert!(why.contains("b is of the half on whose behalf c is being fenced"), "{why}");
    assert_eq!(docket.open(2_000, &b, names("a b"), &d, OFF), Entry::Opened, "one half may fence several");
    docket.over(3_000, &c, 1, "the device fails".into());
    docket.over(3_000, &d, 2, "the device fails".into());
    assert_eq!(docket.open(3_000, &d, names("c d"), &b, OFF), Entry::Opened);
}

#[test]
fn who_asks_again_joins_and_hears_a_result_that_nobody_has_heard() {
    let (a, b, c) = (name("a"), name("b"), name("c"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a c"), &b, OFF), Entry::Opened);
    assert_eq!(docket.join(2_000, &a, &b, OFF), Some(Entry::Joined));
    assert_eq!(docket.join(2_000, &c, &b, REBOOT), Some(Entry::Joined), "another of the same half");
    assert_eq!(docket.join(2_000, &name("d"), &b, OFF), None, "not of that half: it needs the vote");
    assert!(refusal(docket.open(2_000, &name("d"), names("d"), &b, OFF)).contains("for others already"));
    assert_eq!(docket.off(3_000, &b, 1, "bmc".into()), Some(true), "somebody wants it on again");
    assert_eq!(docket.join(4_000, &a, &b, OFF), Some(Entry::Known("bmc".into())));
    docket.over(5_000, &b, 1, "on again".into());
    assert_eq!(docket.join(6_000, &a, &b, OFF), Some(Entry::Known("bmc".into())), "nobody has heard it yet");
    assert_eq!(docket.join(22_999, &a, &b, OFF), Some(Entry::Known("bmc".into())), "it can't have booted");
    assert_eq!(docket.join(23_000, &a, &b, OFF), None, "too old to be about the same failure");
    docket.heard(&b);
    assert_eq!(docket.join(6_000, &a, &b, OFF), None, "the next is another fence");
    assert_eq!(docket.open(6_000, &a, names("a c"), &b, OFF), Entry::Opened);
    assert_eq!(docket.get(&b).unwrap().number, 2);
}

#[test]
fn a_node_that_may_run_again_is_fenced_anew_though_nobody_has_heard_of_the_last_time() {
    let (a, b) = (name("a"), name("b"));
    for wish in [OFF, REBOOT] {
        let mut docket = Docket::default();
        assert_eq!(docket.open(1_000, &a, names("a"), &b, wish), Entry::Opened);
        docket.off(1_000, &b, 1, "bmc".into());
        // Its power is back, by us or by a hand at its button; it boots, joins, and fails once more.
        docket.over(3_000, &b, 1, "on again".into());
        assert_eq!(docket.join(51_000, &a, &b, wish), None, "{wish:?}: the vote is asked for");
        assert_eq!(docket.open(51_000, &a, names("a"), &b, wish), Entry::Opened, "{wish:?}");
        assert_eq!(docket.get(&b).unwrap().stage, Stage::Cutting);
    }
}

#[test]
fn a_result_of_an_earlier_fence_changes_nothing() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
    docket.over(2_000, &b, 1, "failed".into());
    assert_eq!(docket.open(3_000, &a, names("a"), &b, OFF), Entry::Opened);
    assert_eq!(docket.off(4_000, &b, 1, "late".into()), None);
    docket.over(4_000, &b, 1, "late".into());
    assert_eq!(docket.get(&b).unwrap().stage, Stage::Cutting);
}

#[test]
fn power_is_given_only_where_it_is_not_being_cut() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
    assert!(refusal(docket.open(1_000, &a, names("a"), &b, Wish::On)).contains("is being fenced"));
    docket.off(2_000, &b, 1, "bmc".into());
    assert_eq!(docket.open(3_000, &a, names("a"), &b, Wish::On), Entry::Opened);
    assert_eq!(docket.open(3_000, &a, names("a"), &b, Wish::On), Entry::Joined);
}

#[test]
fn whose_off_can_still_land_has_nobody_fenced_though_its_fence_has_failed() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
    assert_eq!(docket.tells_off(2_000, &b, 1, "bmc"), Told::First);
    assert_eq!(docket.tells_off(9_000, &b, 1, "bmc"), Told::Again);
    docket.over(61_000, &b, 1, "its time is over".into());
    assert_eq!(docket.tells_off(61_000, &b, 1, "bmc"), Told::No);
    let why = refusal(docket.open(62_000, &b, names("b"), &a, OFF));
    assert!(why.contains("b/bmc was told \"off\", and may"), "{why}");
    // Another fence makes it forget nothing, nor does a restart.
    assert_eq!(docket.open(63_000, &a, names("a"), &b, Wish::On), Entry::Opened);
    docket.over(64_000, &b, 2, "on".into());
    let mut docket: Docket = serde_json::from_str(&serde_json::to_string(&docket).unwrap()).unwrap();
    docket.resume(65_000);
    refusal(docket.open(128_999, &b, names("b"), &a, OFF));
    assert_eq!(docket.open(129_000, &b, names("b"), &a, OFF), Entry::Opened, "it would have landed");
}

#[test]
fn what_showed_the_node_off_has_landed_and_what_another_level_was_told_has_not() {
    let (a, b) = (name("a"), name("b"));
    for others in [false, true] {
        let mut docket = Docket::default();
        assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
        if others {
            docket.tells_off(1_000, &b, 1, "bmc");
        }
        docket.tells_off(2_000, &b, 1, "plug");
        docket.landed(&b, 1, "plug");
        docket.off(3_000, &b, 1, "plug".into());
        let entry = docket.open(23_000, &b, names("b"), &a, OFF);
        assert_eq!(matches!(entry, Entry::Refused(_)), others, "{entry:?}");
    }
}

#[test]
fn when_a_former_process_told_off_last_is_not_known() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
    docket.tells_off(2_000, &b, 1, "bmc");
    docket.resume(50_000);
    docket.over(61_000, &b, 1, "failed".into());
    refusal(docket.open(169_999, &b, names("b"), &a, OFF));
}

#[test]
fn power_that_is_given_makes_nobody_forget_who_was_fenced_a_moment_ago() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, OFF), Entry::Opened);
    docket.off(2_000, &b, 1, "bmc".into());
    assert_eq!(docket.open(3_000, &a, names("a"), &b, Wish::On), Entry::Opened);
    assert!(refusal(docket.open(4_000, &b, names("b"), &a, OFF)).contains("a moment ago"));
}

#[test]
fn who_gives_power_back_may_not_once_another_fence_has_begun_which_waits_for_what_it_was_told() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, REBOOT), Entry::Opened);
    assert!(!docket.tells_on(1_500, &b, 1), "it is being cut");
    docket.off(2_000, &b, 1, "bmc".into());
    assert!(docket.tells_on(30_000, &b, 1));
    assert_eq!(docket.open(31_000, &a, names("a"), &b, OFF), Entry::Opened);
    assert!(!docket.tells_on(31_001, &b, 1), "that fence is no more");
    assert!(!docket.tells_on(31_001, &b, 2));
    let job = docket.get(&b).unwrap();
    assert_eq!(job.comes_on_within(31_000), Some(Duration::from_secs(19)));
    assert_eq!(job.comes_on_within(50_000), None);
    // What was seen on has carried out what it was told.
    let mut docket = Docket::default();
    assert_eq!(docket.open(1_000, &a, names("a"), &b, Wish::On), Entry::Opened);
    assert!(docket.tells_on(1_500, &b, 1));
    docket.is_back(&b, 1);
    docket.over(2_000, &b, 1, "on".into());
    assert_eq!(docket.open(3_000, &a, names("a"), &b, OFF), Entry::Opened);
    assert_eq!(docket.get(&b).unwrap().comes_on_within(3_000), None);
}

#[test]
fn a_fence_goes_on_after_a_restart_as_long_as_its_time_lasts() {
    let (a, b) = (name("a"), name("b"));
    let mut docket = Docket::default();
    docket.open(1_000, &a, names("a"), &b, REBOOT);
    let stored = serde_json::to_string(&docket).unwrap();
    let mut docket: Docket = serde_json::from_str(&stored).unwrap();
    let job = docket.get(&b).unwrap();
    assert_eq!(job.left(2_000, false), Some(CUT_WITHIN - Duration::from_secs(1)));
    assert_eq!(job.left(301_000, false), None);
    assert_eq!(job.left(61_000, true), None, "without a vote nobody knows whether it is still wanted");
    assert_eq!(job.left(999, false), None, "a clock that was set back tells nothing");
    docket.off(301_000, &b, 1, "bmc".into());
    assert_eq!(docket.get(&b).unwrap().left(302_000, true), Some(RESTORE_WITHIN - Duration::from_secs(1)));
    assert_eq!(docket.active().count(), 1);
}
