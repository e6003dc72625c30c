use std::time::Duration;

use super::*;
use crate::command::Setting;
use crate::fixture::{Log, at, member, ms, proven};

/// The appliance: node a has these proven devices, and is to be fenced.
struct Appliance {
    log: Log,
    fencer: Fencer,
    now: Reading,
    /// What devices were asked to do and have not answered.
    asked: VecDeque<(u64, String, DeviceCommand)>,
    reads: VecDeque<u64>,
    proposals: Vec<Command>,
}

const ON: DeviceResult = DeviceResult::IsOn;
const OFF: DeviceResult = DeviceResult::IsOff { sign: OffSign::Bmc };
const TAKEN: DeviceResult = DeviceResult::Taken;

fn unanswered() -> DeviceResult {
    DeviceResult::Unanswered { why: "no answer".into() }
}

fn refused() -> DeviceResult {
    DeviceResult::Refused { why: "no right to".into() }
}

impl Appliance {
    fn new(devices: &[&str]) -> Self {
        Self::that_inherits(devices, 0)
    }

    fn that_inherits(devices: &[&str], inherited: u64) -> Self {
        let mut log = Log::placed(Rules::ALL);
        let devices = devices.iter().map(|name| proven(name)).collect();
        log.must(Command::SetDevices { node: member("a"), devices });
        log.must(Log::fence("a", 1));
        Self::starting(log, inherited)
    }

    fn starting(log: Log, inherited: u64) -> Self {
        let fencer = Fencer::new(inherited, Rules::ALL);
        let (asked, reads, proposals) = (VecDeque::new(), VecDeque::new(), Vec::new());
        let mut appliance = Self { log, fencer, now: at(10_000), asked, reads, proposals };
        appliance.look();
        appliance
    }

    fn look(&mut self) {
        self.fencer.advance(self.now, &self.log.state);
        self.collect();
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.look();
    }

    fn collect(&mut self) {
        while let Some(action) = self.fencer.poll_action() {
            match action {
                Action::Read(token) => self.reads.push_back(token),
                Action::Command { token, device, command, node, fence } => {
                    assert_eq!(self.log.state.fences[&fence].node, node);
                    self.asked.push_back((token, device, command));
                }
                Action::Propose(command) => self.proposals.push(command),
            }
        }
    }

    /// The only command under way is this one; it is answered so.
    #[track_caller]
    fn device(&mut self, device: &str, command: DeviceCommand, result: DeviceResult) {
        let (token, asked, what) = self.asked.pop_front().unwrap_or_else(|| panic!("{device} is asked nothing"));
        assert_eq!((asked.as_str(), what), (device, command));
        assert!(self.asked.is_empty(), "one command at a time");
        self.fencer.handle(self.now, &self.log.state, Event::CommandDone(token, result));
        self.collect();
    }

    fn looks(&mut self, device: &str, result: DeviceResult) {
        self.device(device, DeviceCommand::Look, result);
    }

    #[track_caller]
    fn read(&mut self) {
        let token = self.reads.pop_front().expect("no read is under way");
        self.fencer.handle(self.now, &self.log.state, Event::ReadDone(token, true));
        self.collect();
    }

    /// Off, by a device that reads on.
    fn switch_off(&mut self, device: &str, result: DeviceResult) {
        self.looks(device, ON);
        self.read();
        self.device(device, DeviceCommand::Off, result);
    }

    /// Two fresh reads say off.
    fn confirm(&mut self, device: &str) {
        self.pass(LOOK_EVERY);
        self.looks(device, OFF);
        self.pass(LOOK_EVERY);
        self.looks(device, OFF);
    }

    fn apply(&mut self, command: Command) {
        self.log.must(command);
        self.look();
    }

    #[track_caller]
    fn proposed(&mut self) -> Command {
        assert_eq!(self.proposals.len(), 1, "{:?}", self.proposals);
        self.proposals.remove(0)
    }

    fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.reads.is_empty() && self.proposals.is_empty()
    }
}

fn by(device: &str) -> Command {
    Command::Fenced { id: FenceId(1), evidence: Evidence::BmcOff { device: device.into() } }
}

const SIGNS: [OffSign; 5] = [OffSign::Bmc, OffSign::Meter, OffSign::Led, OffSign::Relay, OffSign::Program];

#[test]
fn what_stands_behind_a_read_of_off_is_the_grade_of_its_evidence() {
    let grades = ["bmc-off", "supply-cut", "led-off", "supply-switched", "program-off"];
    for (sign, grade) in SIGNS.into_iter().zip(grades) {
        let mut pi = Appliance::new(&["it"]);
        pi.looks("it", DeviceResult::IsOff { sign });
        pi.pass(LOOK_EVERY);
        pi.looks("it", DeviceResult::IsOff { sign });
        let Command::Fenced { evidence, .. } = pi.proposed() else { panic!("{sign:?} proves nothing") };
        assert_eq!((evidence.grade(), evidence.is_of_a_device()), (grade, true));
        let mut log = Log::live(crate::rules::Rules::ALL);
        log.must(Log::fence("a", 1));
        log.must(Command::Fenced { id: FenceId(1), evidence });
    }
}

#[test]
fn row_34_evidence_that_some_member_could_not_read_is_neither_proposed_nor_taken() {
    for sign in SIGNS {
        let mut pi = Appliance::new(&["it"]);
        pi.log.state.level = crate::level::Level::FAILED_MOVES_COUNT;
        pi.looks("it", DeviceResult::IsOff { sign });
        let evidence = Evidence::read_off(sign, "it".into());
        if sign == OffSign::Bmc {
            assert!(pi.proposals.is_empty(), "one read is no confirmation");
            pi.log.must(Command::Fenced { id: FenceId(1), evidence });
        } else {
            let Command::FenceFailed { why, .. } = pi.proposed() else { panic!("{sign:?} is taken") };
            assert!(why.contains("older version"), "{why}");
            assert_eq!(pi.log.void(Command::Fenced { id: FenceId(1), evidence }), crate::command::Void::Outdated);
        }
    }
}

#[test]
fn off_two_fresh_offs_fenced_on_closed() {
    let mut pi = Appliance::new(&["bmc"]);
    assert!(pi.fencer.works_on(&member("a")) && !pi.fencer.works_on(&member("b")));
    pi.looks("bmc", ON);
    pi.read();
    pi.device("bmc", DeviceCommand::Off, TAKEN);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", ON);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    assert!(pi.proposals.is_empty(), "one read is no confirmation");
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    let fenced = pi.proposed();
    assert_eq!(fenced, by("bmc"));
    assert!(pi.is_idle(), "no power before the proof is committed");
    pi.apply(fenced);
    assert!(pi.is_idle(), "the off may still land, for instance when lost mains return");
    pi.pass(OFF_WITHIN);
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    let closed = pi.proposed();
    assert_eq!(closed, Log::closed(1));
    pi.apply(closed);
    pi.pass(ms(600_000));
    assert!(pi.is_idle() && !pi.fencer.works_on(&member("a")));
    assert_eq!(pi.fencer.poll_timeout(), None);
}

#[test]
fn a_node_that_is_off_already_needs_no_command_and_gets_none() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", OFF);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    let fenced = pi.proposed();
    pi.apply(fenced);
    assert_eq!(pi.proposed(), Log::closed(1), "what this fence didn't switch off it doesn't switch on");
}

#[test]
fn an_on_between_two_offs_starts_the_confirmation_anew() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.switch_off("bmc", TAKEN);
    for result in [OFF, ON, OFF] {
        pi.pass(LOOK_EVERY);
        pi.looks("bmc", result);
    }
    assert!(pi.proposals.is_empty());
}

#[test]
fn nothing_is_switched_before_the_read_is_done_and_a_read_that_fails_is_asked_again() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", ON);
    let token = pi.reads.pop_front().unwrap();
    pi.fencer.handle(pi.now, &pi.log.state, Event::ReadDone(token, false));
    pi.collect();
    assert!(pi.is_idle());
    pi.pass(REPEAT);
    let again = pi.reads.front().copied().unwrap();
    pi.fencer.handle(pi.now, &pi.log.state, Event::ReadDone(token, true));
    pi.collect();
    assert!(pi.asked.is_empty(), "the answer to an old read says nothing about now");
    assert_ne!(again, token);
    pi.read();
    pi.device("bmc", DeviceCommand::Off, TAKEN);
}

#[test]
fn an_off_is_withdrawn_when_the_fence_was_proven_meanwhile() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", ON);
    pi.log.must(Log::fenced(1));
    pi.read();
    assert!(pi.asked.is_empty(), "the node may be coming back already");
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn a_fence_that_is_closed_by_the_time_of_the_read_gets_no_command() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", ON);
    pi.log.must(Log::fenced(1));
    pi.log.must(Log::closed(1));
    pi.read();
    assert!(pi.is_idle());
}

#[test]
fn an_unanswered_off_delays_the_power_and_the_closing() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.switch_off("bmc", unanswered());
    assert!(matches!(pi.proposed(), Command::FenceFailed { .. }));
    let sent = pi.now;
    pi.pass(AGAIN);
    pi.looks("bmc", OFF);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    let fenced = pi.proposed();
    pi.apply(fenced);
    pi.now = sent.after(LANDS_WITHIN - ms(1));
    pi.look();
    assert!(pi.is_idle(), "the off may still land");
    pi.now.raw_ns += 60_000_000_000;
    pi.look();
    assert!(pi.is_idle(), "both clocks have to say that it can't");
    pi.now = sent.after(LANDS_WITHIN + ms(60_000));
    pi.look();
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn a_refused_off_delays_nothing() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.switch_off("bmc", refused());
    assert!(matches!(pi.proposed(), Command::FenceFailed { why, .. } if why == "no right to"));
    pi.apply(Log::fenced(1));
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn a_node_fenced_by_time_while_its_off_is_on_the_way_is_closed_only_when_that_cant_land() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", ON);
    pi.read();
    // The watchdog's time proves it; the BMC is slow.
    pi.log.must(Log::fenced(1));
    pi.look();
    assert!(pi.proposals.is_empty());
    pi.pass(ms(20_000));
    assert!(pi.proposals.is_empty(), "the command is under way");
    pi.device("bmc", DeviceCommand::Off, TAKEN);
    let taken = pi.now;
    assert!(pi.proposals.is_empty() && pi.reads.is_empty(), "taken is not carried out");
    pi.now = taken.after(OFF_WITHIN);
    pi.look();
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn a_device_that_fails_makes_way_for_the_next_and_then_has_its_turn_again() {
    let mut pi = Appliance::new(&["bmc", "pdu"]);
    pi.looks("bmc", unanswered());
    assert!(matches!(pi.proposed(), Command::FenceFailed { .. }));
    pi.switch_off("pdu", refused());
    assert!(matches!(pi.proposed(), Command::FenceFailed { .. }));
    assert!(pi.is_idle(), "after the last device a pause");
    pi.pass(AGAIN);
    pi.switch_off("bmc", TAKEN);
    pi.confirm("bmc");
    assert_eq!(pi.proposed(), by("bmc"));
}

#[test]
fn a_device_that_takes_the_off_and_reads_on_has_failed() {
    let mut pi = Appliance::new(&["bmc", "pdu"]);
    pi.switch_off("bmc", TAKEN);
    pi.now = pi.now.after(OFF_WITHIN - LOOK_EVERY);
    pi.look();
    pi.looks("bmc", ON);
    assert!(pi.proposals.is_empty());
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", ON);
    assert!(matches!(pi.proposed(), Command::FenceFailed { .. }));
    pi.looks("pdu", ON);
}

#[test]
fn every_device_that_was_switched_off_is_switched_on() {
    let mut pi = Appliance::new(&["pdu", "bmc"]);
    pi.switch_off("pdu", TAKEN);
    pi.pass(LOOK_EVERY);
    pi.looks("pdu", unanswered());
    pi.proposals.clear();
    pi.switch_off("bmc", TAKEN);
    pi.confirm("bmc");
    let fenced = pi.proposed();
    pi.apply(fenced);
    pi.pass(OFF_WITHIN);
    pi.read();
    pi.device("pdu", DeviceCommand::On, TAKEN);
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn an_on_that_fails_is_said_and_closes_all_the_same() {
    for result in [unanswered(), refused(), ON] {
        let mut pi = Appliance::new(&["bmc"]);
        pi.switch_off("bmc", TAKEN);
        pi.confirm("bmc");
        let fenced = pi.proposed();
        pi.apply(fenced);
        pi.pass(OFF_WITHIN);
        pi.read();
        pi.device("bmc", DeviceCommand::On, result);
        assert!(matches!(pi.proposals[..], [Command::FenceFailed { .. }, Command::Closed { .. }]));
    }
}

#[test]
fn the_proof_and_the_closing_are_proposed_until_they_are_applied() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", OFF);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    for _ in 0..3 {
        assert_eq!(pi.proposed(), by("bmc"));
        pi.pass(PROVE_EVERY);
    }
    let fenced = pi.proposed();
    pi.apply(fenced);
    for _ in 0..3 {
        assert_eq!(pi.proposed(), Log::closed(1));
        pi.pass(REPEAT);
    }
}

#[test]
fn row_44_a_proof_that_did_not_count_at_once_is_read_anew() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.switch_off("bmc", TAKEN);
    pi.confirm("bmc");
    assert_eq!(pi.proposed(), by("bmc"));
    pi.pass(FRESH);
    assert!(pi.proposals.is_empty(), "what was read a second ago is not proposed any more");
    pi.looks("bmc", OFF);
    assert!(pi.proposals.is_empty(), "one read is no confirmation");
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    assert_eq!(pi.proposed(), by("bmc"));
}

#[test]
fn row_44_what_read_off_and_reads_on_again_is_switched_no_more() {
    let mut pi = Appliance::new(&["bmc", "pdu"]);
    pi.switch_off("bmc", TAKEN);
    pi.confirm("bmc");
    pi.proposals.clear();
    pi.pass(FRESH);
    pi.looks("bmc", ON);
    let said = pi.proposed();
    assert!(matches!(said, Command::FenceFailed { .. }));
    pi.pass(REPEAT);
    assert_eq!(pi.proposed(), said, "an operator has to know, also where nobody led when it was said");
    pi.apply(said);
    pi.pass(ms(600_000));
    assert!(pi.is_idle(), "it may be another machine that somebody has switched on again");
    assert_eq!(pi.fencer.poll_timeout(), None);
    // Other proof ends it as ever.
    pi.apply(Log::fenced(1));
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn row_44_where_one_device_read_off_no_other_is_tried() {
    for device in ["bmc", "pdu"] {
        let mut pi = Appliance::new(&["bmc", "pdu"]);
        if device == "pdu" {
            pi.looks("bmc", unanswered());
            pi.proposals.clear();
        }
        pi.switch_off(device, TAKEN);
        pi.confirm(device);
        pi.proposals.clear();
        pi.pass(FRESH);
        pi.looks(device, unanswered());
        assert!(matches!(pi.proposed(), Command::FenceFailed { .. }));
        assert!(pi.is_idle(), "it is asked again after a while");
        pi.pass(AGAIN);
        pi.looks(device, OFF);
        pi.pass(LOOK_EVERY);
        pi.looks(device, OFF);
        assert_eq!(pi.proposed(), by(device));
    }
}

#[test]
fn without_a_device_the_fence_waits_for_other_proof_and_is_closed_at_once() {
    let mut pi = Appliance::new(&[]);
    pi.pass(ms(600_000));
    assert!(pi.is_idle());
    assert_eq!(pi.fencer.poll_timeout(), None, "it waits for the log, not for time");
    pi.apply(Log::fenced(1));
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn an_unproven_device_is_never_asked() {
    let mut log = Log::placed(Rules::ALL);
    let mut device = proven("bmc");
    device.proven = false;
    log.must(Command::SetDevices { node: member("a"), devices: vec![device] });
    log.must(Log::fence("a", 1));
    let mut pi = Appliance::starting(log, 0);
    pi.pass(ms(60_000));
    assert!(pi.is_idle());
}

#[test]
fn a_fence_of_an_earlier_process_may_have_a_command_under_way() {
    let mut pi = Appliance::that_inherits(&["bmc"], 1_000);
    let started = pi.now;
    pi.looks("bmc", OFF);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    let fenced = pi.proposed();
    pi.apply(fenced);
    assert!(pi.is_idle());
    pi.now = started.after(LANDS_WITHIN);
    pi.look();
    // It may have been that process which switched it off: without this the node would stay off.
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn a_device_that_lost_its_proof_may_still_carry_out_what_an_earlier_process_asked() {
    let mut log = Log::placed(Rules::ALL);
    let mut device = proven("bmc");
    device.proven = false;
    log.must(Command::SetDevices { node: member("a"), devices: vec![device] });
    log.must(Log::fence("a", 1));
    log.must(Log::fenced(1));
    let mut pi = Appliance::starting(log, 1_000);
    pi.pass(LANDS_WITHIN - ms(1));
    assert!(pi.is_idle());
    pi.pass(ms(1));
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn a_fence_that_began_after_the_start_inherits_nothing() {
    let mut pi = Appliance::that_inherits(&["bmc"], 1);
    pi.apply(Log::fenced(1));
    pi.looks("bmc", ON);
    assert_eq!(pi.proposed(), Log::closed(1));
}

#[test]
fn who_stood_down_begins_afresh_and_counts_what_it_had_asked_for_as_unanswered() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", ON);
    pi.read();
    let (late, _, _) = pi.asked.pop_front().expect("an off is under way");
    pi.fencer.stand_down(pi.log.state.applied);
    assert_eq!(pi.fencer.poll_action(), None);
    pi.look();
    pi.fencer.handle(pi.now, &pi.log.state, Event::CommandDone(late, OFF));
    let again = pi.now;
    pi.looks("bmc", OFF);
    pi.pass(LOOK_EVERY);
    pi.looks("bmc", OFF);
    assert_eq!(pi.proposed(), by("bmc"), "two fresh reads of its own");
    pi.apply(by("bmc"));
    pi.now = again.after(LANDS_WITHIN - ms(1));
    pi.look();
    assert!(pi.is_idle(), "the off that it forgot may still land");
}

#[test]
fn a_late_answer_of_a_finished_job_changes_nothing() {
    let mut pi = Appliance::new(&["bmc"]);
    let (token, ..) = pi.asked.pop_front().unwrap();
    pi.log.must(Log::fenced(1));
    pi.log.must(Log::closed(1));
    pi.look();
    pi.fencer.handle(pi.now, &pi.log.state, Event::CommandDone(token, ON));
    pi.collect();
    assert!(pi.is_idle());
}

#[test]
fn two_fences_go_side_by_side() {
    let mut log = Log::joined(Rules::ALL, &["a", "b", "c", "d"]);
    for node in ["a", "b", "c", "d"] {
        log.must(Log::admit(node, 1, node, 0));
    }
    for node in ["a", "b"] {
        log.must(Command::SetDevices { node: member(node), devices: vec![proven(node)] });
        log.must(Log::fence(node, 1));
    }
    let mut pi = Appliance::starting(log, 0);
    assert_eq!(pi.asked.len(), 2);
    let (first, second) = (pi.asked.pop_front().unwrap(), pi.asked.pop_front().unwrap());
    pi.fencer.handle(pi.now, &pi.log.state, Event::CommandDone(second.0, ON));
    pi.collect();
    pi.read();
    pi.device("b", DeviceCommand::Off, TAKEN);
    pi.fencer.handle(pi.now, &pi.log.state, Event::CommandDone(first.0, OFF));
    pi.collect();
    assert!(pi.proposals.is_empty());
}

#[test]
fn the_fencer_never_asks_to_be_woken_in_the_past() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.switch_off("bmc", unanswered());
    for turn in 0..400 {
        while let Some((token, _, command)) = pi.asked.pop_front() {
            let result = if command == DeviceCommand::Look { OFF } else { TAKEN };
            pi.fencer.handle(pi.now, &pi.log.state, Event::CommandDone(token, result));
            pi.collect();
        }
        for command in std::mem::take(&mut pi.proposals) {
            let _late_or_double = pi.log.apply(command);
            pi.look();
        }
        if !pi.reads.is_empty() {
            pi.read();
            continue;
        }
        let Some(next) = pi.fencer.poll_timeout() else { break };
        assert!(!pi.now.reached_on_either(next), "turn {turn}");
        pi.now = next;
        pi.look();
    }
    assert!(!pi.fencer.works_on(&member("a")), "it comes to an end");
}

// Holding the switching of power.

fn hold() -> Command {
    Command::Set(Setting::Hold { by: "alice".into(), reason: None })
}

fn release() -> Command {
    Command::Set(Setting::Release { by: "alice".into() })
}

#[test]
fn while_power_is_held_devices_are_looked_at_and_not_switched() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.apply(hold());
    for _ in 0..5 {
        pi.looks("bmc", ON);
        assert!(pi.is_idle(), "it is looked at again after a while");
        pi.pass(HELD_LOOK_EVERY);
    }
    pi.looks("bmc", ON);
    pi.apply(release());
    pi.pass(HELD_LOOK_EVERY);
    pi.switch_off("bmc", TAKEN);
    pi.confirm("bmc");
    assert_eq!(pi.proposed(), by("bmc"));
}

#[test]
fn a_hold_that_the_read_before_a_command_shows_withdraws_the_command() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.looks("bmc", ON);
    // Not applied when the read was begun: that is what it is for.
    pi.log.must(hold());
    pi.read();
    pi.looks("bmc", ON);
    assert!(pi.is_idle());
}

#[test]
fn what_somebody_else_switched_off_while_power_is_held_is_proven_and_stays_off_until_the_release() {
    let mut pi = Appliance::new(&["bmc"]);
    pi.switch_off("bmc", TAKEN);
    pi.apply(hold());
    pi.confirm("bmc");
    let fenced = pi.proposed();
    pi.apply(fenced);
    for _ in 0..100 {
        pi.pass(HELD_LOOK_EVERY);
        assert!(pi.is_idle(), "no power, and nobody comes back");
    }
    pi.apply(release());
    // Held once more while it reads.
    pi.log.must(hold());
    pi.read();
    pi.pass(HELD_LOOK_EVERY);
    assert!(pi.is_idle());
    pi.apply(release());
    pi.read();
    pi.device("bmc", DeviceCommand::On, TAKEN);
    assert_eq!(pi.proposed(), Log::closed(1));
}
