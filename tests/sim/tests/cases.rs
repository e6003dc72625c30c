//! What the demo shows, as scripts in virtual time whose transcripts can be read (`--nocapture`).

use tiebreaker_pipeline::profile::Profile;
use tiebreaker_sim::{BmcMode, Fault, Kind, Outcome, Schedule, Switches, run};

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;
/// When the fault strikes: long after everything runs.
const AT: u64 = 12 * SEC;

/// Runs a case for several seeds and hands each outcome to `judge`. The cases break node1: seeds that put the resource
/// on the other node tell nothing about them.
fn case(profile: Profile, node: Kind, fault: &Fault, judge: impl Fn(&Outcome)) {
    cases(profile, node, &[(AT, fault.clone())], judge);
}

fn cases(profile: Profile, node: Kind, faults: &[(u64, Fault)], judge: impl Fn(&Outcome)) {
    let mut judged = 0;
    for seed in 1..=16 {
        let faults = faults.to_vec();
        let outcome = run(Schedule::scripted(seed, profile, node, faults, AT + 60 * SEC), Switches::default(), true);
        println!("--- seed {seed}\n{}", outcome.trace.join("\n"));
        assert_eq!(outcome.violation, None, "seed {seed}");
        if when(&outcome, 0, "web is placed on node1").is_some_and(|at| at < AT / MS) {
            judged += 1;
            judge(&outcome);
        }
    }
    assert!(judged >= 4, "only {judged} seeds put the resource on node1");
}

/// The time of the first line after `from` that holds `text`, in milliseconds.
fn when(outcome: &Outcome, from: u64, text: &str) -> Option<u64> {
    outcome.trace.iter().find_map(|line| {
        let (time, what) = line.trim_start().split_once(' ')?;
        let (seconds, millis) = time.split_once('.')?;
        let at = seconds.parse::<u64>().ok()? * 1000 + millis.parse::<u64>().ok()?;
        (at >= from / MS && what.contains(text)).then_some(at)
    })
}

fn recovered_within(outcome: &Outcome, evidence: &str, limit_ms: u64) {
    let fault = AT / MS;
    let wanted = when(outcome, AT, "node1 shall be fenced").expect("the fence is wanted");
    let fenced = when(outcome, AT, evidence).expect("the evidence is the expected one");
    let started = when(outcome, AT, "node2     begins to start web").expect("the survivor starts it");
    let runs = when(outcome, AT, "node2     web runs").expect("it runs on the survivor");
    assert!(wanted <= fenced && fenced <= started && started <= runs);
    assert!(started - fault <= limit_ms, "recovered after {} ms", started - fault);
    assert_eq!((outcome.fences, outcome.recovered), (1, 1));
}

fn untouched(outcome: &Outcome) {
    assert_eq!((outcome.fences, outcome.leases_lost, outcome.recovered), (0, 0, 0));
    assert_eq!(when(outcome, AT, "begins to stop web"), None);
    assert_eq!(when(outcome, AT, "begins to start web"), None);
}

#[test]
fn a_node_dies_and_its_bmc_proves_it() {
    let fault = Fault::PowerCut { who: 1, for_ns: 30 * SEC, bmc: false };
    // The device's own time: a look, the command, and two looks, of up to 330 ms each.
    for (profile, limit) in [(Profile::Fast, 3_500 + 4 * 330), (Profile::Balanced, 5_000)] {
        case(profile, Kind::SERVER, &fault, |outcome| recovered_within(outcome, "read off twice", limit));
    }
}

#[test]
fn a_frozen_agent_without_a_bmc_is_recovered_by_time() {
    let fault = Fault::Stop { who: 1, for_ns: 40 * SEC };
    for (profile, limit) in [(Profile::Fast, 10_000), (Profile::Balanced, 17_000)] {
        case(profile, Kind::PLAIN, &fault, |outcome| {
            // A machine that boots quickly reports in before the watchdog's time has passed.
            let evidence = if when(outcome, AT, "reported in and runs nothing").is_some() {
                "reported in and runs nothing"
            } else {
                "its watchdog's time passed"
            };
            recovered_within(outcome, evidence, limit);
            let reset = when(outcome, AT, "node1     its watchdog resets it").expect("the watchdog fires");
            assert!(reset <= when(outcome, AT, "node2     begins to start web").expect("it is recovered"));
        });
    }
}

#[test]
fn an_agent_crash_touches_nothing() {
    let fault = Fault::Crash { who: 1, back_ns: 500 * MS, after_actions: 0 };
    case(Profile::Balanced, Kind::SERVER, &fault, |outcome| {
        assert_eq!((outcome.fences, outcome.recovered), (0, 0));
        assert_eq!(when(outcome, AT, "begins to stop web"), None);
        assert_eq!(when(outcome, AT, "begins to start web"), None);
        assert!(when(outcome, AT, "node1 was admitted as incarnation 2, the same boot").is_some());
    });
}

#[test]
fn a_cut_between_the_nodes_is_invisible() {
    let fault = Fault::Cut { from: 1, to: 2, both: true, for_ns: 40 * SEC };
    case(Profile::Balanced, Kind::SERVER, &fault, untouched);
}

#[test]
fn a_killed_appliance_costs_no_lease_and_leads_again() {
    let fault = Fault::PowerCut { who: 0, for_ns: 8 * SEC, bmc: false };
    case(Profile::Balanced, Kind::SERVER, &fault, |outcome| {
        untouched(outcome);
        let node = when(outcome, AT, "and may grant").expect("a node leads");
        let back = when(outcome, AT + 8 * SEC, "appliance leads term").expect("the appliance leads again");
        assert!(node < back);
    });
}

#[test]
fn row_57_an_appliance_that_stands_still_is_replaced_before_a_lease_ends() {
    let fault = Fault::Stop { who: 0, for_ns: 20 * SEC };
    case(Profile::Balanced, Kind::SERVER, &fault, |outcome| {
        untouched(outcome);
        let node = when(outcome, AT, "and may grant").expect("a node leads");
        assert!(node < (AT + 5 * SEC) / MS, "within a lease, not when the appliance goes on");
    });
}

#[test]
fn an_isolated_node_is_fenced_by_its_bmc() {
    let fault = Fault::Isolate { who: 1, for_ns: 40 * SEC };
    case(Profile::Balanced, Kind::SERVER, &fault, |outcome| recovered_within(outcome, "read off twice", 5_000));
}

#[test]
fn a_machine_joins_and_a_removed_one_joins_again() {
    let faults = vec![(AT, Fault::Join { who: 3 }), (AT + 40 * SEC, Fault::Remove { who: 3 })];
    let faults = faults.into_iter().chain([(AT + 50 * SEC, Fault::Join { who: 3 })]).collect();
    let mut schedule = Schedule::scripted(1, Profile::Balanced, Kind::SERVER, faults, AT + 60 * SEC);
    schedule.machines.push(Kind::SERVER);
    schedule.strangers = 1;
    let outcome = run(schedule, Switches::default(), true);
    assert_eq!(outcome.violation, None);
    let joins = when(&outcome, AT, "node3     joins as number 4").expect("it joins");
    let admitted = when(&outcome, AT, "node3 was admitted as incarnation 1").expect("it is admitted");
    let removed = when(&outcome, AT + 40 * SEC, "node3 was removed").expect("it is removed");
    let again = when(&outcome, AT + 50 * SEC, "node3     joins as number 5").expect("it joins under another number");
    assert!(joins < admitted && admitted < removed && removed < again);
    assert!(when(&outcome, AT + 50 * SEC, "node3 was admitted as incarnation 1").is_some_and(|at| again < at));
    assert_eq!(outcome.fences, 0);
}

#[test]
fn a_second_device_switches_off_where_the_first_is_stuck() {
    let fault = [
        (AT - SEC, Fault::Bmc { who: 1, second: false, mode: BmcMode::Unreachable, for_ns: 60 * SEC }),
        (AT, Fault::Isolate { who: 1, for_ns: 40 * SEC }),
    ];
    cases(Profile::Balanced, Kind::DUAL, &fault, |outcome| {
        assert!(when(outcome, AT, "tells the socket of node1: off").is_some());
        assert!(when(outcome, AT, "\"socket\" read off twice").is_some());
        assert_eq!((outcome.fences, outcome.recovered), (1, 1));
    });
}

#[test]
fn a_resource_that_keeps_failing_is_released_before_it_is_placed_elsewhere() {
    let dies = Fault::Dies { resource: 0 };
    let faults = vec![(AT, dies.clone()), (AT + 5 * SEC, dies)];
    cases(Profile::Balanced, Kind::SERVER, &faults, |outcome| {
        assert_eq!((outcome.fences, outcome.leases_lost, outcome.recovered), (0, 0, 0));
        let again = when(outcome, AT, "node1     begins to start web").expect("it is restarted where it was");
        let released = when(outcome, AT, "web has to leave node1").expect("it is released after the second death");
        let placed = when(outcome, AT, "web is placed on node2").expect("it is placed");
        let starts = when(outcome, AT, "node2     begins to start web").expect("it is started");
        assert!(again < released && released <= placed && placed <= starts);
    });
}
