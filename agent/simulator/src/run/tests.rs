use super::*;
use crate::output::{Happened, Switch};
use crate::scenario::Format;

/// Three nodes, one resource on each of the first two.
const CLUSTER: &str = "\
duration = \"400s\"
[[node]]
name = \"node1\"
[[node]]
name = \"node2\"
[[node]]
name = \"node3\"
[[resource]]
id = \"vm:101\"
node = \"node1\"
[[resource]]
id = \"ct:102\"
node = \"node2\"
";

fn read(text: &str) -> Scenario {
    Scenario::parse(text, Format::Toml, "s.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// Runs it; whatever happens, no invariant may break.
fn run(text: &str) -> Document {
    let document = simulate(&read(text));
    println!("{document}");
    assert_eq!(document.violations, []);
    document
}

fn events(events: &[(&str, &str)]) -> String {
    events.iter().map(|(at, what)| format!("[[event]]\nat = \"{at}\"\ndo = \"{what}\"\n")).collect()
}

fn at_end(document: &Document, id: &str) -> (String, Option<String>, Vec<String>) {
    let end = &document.resources[id];
    (end.state.clone(), end.node.clone(), end.running_on.clone())
}

fn runs_on(node: &str) -> (String, Option<String>, Vec<String>) {
    ("started".into(), Some(node.into()), vec![node.into()])
}

fn answers(document: &Document) -> Vec<(bool, &str)> {
    document
        .timeline
        .iter()
        .filter_map(|line| match &line.what {
            What::Answer { done, answer } => Some((*done, answer.as_str())),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_configured_somewhere_runs_there() {
    let document = run(CLUSTER);
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
    assert_eq!(at_end(&document, "ct:102"), runs_on("node2"));
    assert_eq!(document.nodes["node3"].state, "online");
    // Whoever starts first leads first.
    assert_eq!(document.leaders.last().map(String::as_str), Some("appliance"));
    assert_eq!((document.fenced.len(), document.recovered.len()), (0, 0));
}

#[test]
fn of_two_moves_at_once_the_second_is_judged_by_what_comes_of_the_first() {
    let apart = "[[rule]]\nkind = \"apart\"\nresources = [\"vm:101\", \"ct:102\"]\n";
    let moves = events(&[("100s", "relocate vm:101 node3"), ("100s", "relocate ct:102 node3")]);
    let document = run(&format!("{CLUSTER}{apart}{moves}"));
    // Which of the two the leader hears first is the network's business.
    let moved = (at_end(&document, "vm:101"), at_end(&document, "ct:102"));
    let one = [(runs_on("node3"), runs_on("node2")), (runs_on("node1"), runs_on("node3"))];
    assert!(one.contains(&moved), "{moved:?}");
    let answers = answers(&document);
    let refused: Vec<&str> = answers.iter().filter(|(done, _)| !done).map(|(_, answer)| *answer).collect();
    assert!(matches!(refused[..], [why] if why.contains("apart from it")), "{answers:?}");
}

#[test]
fn a_node_without_power_is_fenced_by_its_bmc_and_recovered_in_seconds() {
    let document = run(&format!("{CLUSTER}{}", events(&[("100s", "power-off node1")])));
    let [fenced] = &document.fenced[..] else { panic!("{:?}", document.fenced) };
    assert_eq!((fenced.node.as_str(), fenced.evidence.as_str()), ("node1", "bmc-off"));
    let [recovered] = &document.recovered[..] else { panic!("{:?}", document.recovered) };
    assert_eq!((recovered.resource.as_str(), recovered.from.as_str()), ("vm:101", "node1"));
    assert!(recovered.after_s > 2.0 && recovered.after_s < 5.0, "{recovered:?}");
    assert!((recovered.at_s - 100.0 - recovered.after_s).abs() < 0.002, "{recovered:?}");
    assert_eq!(at_end(&document, "vm:101"), runs_on(&recovered.to));
    assert_eq!((document.nodes["node1"].state.as_str(), document.nodes["node1"].power), ("unknown", Switch::Off));
}

#[test]
fn an_isolated_node_without_a_bmc_is_recovered_by_time_and_comes_back() {
    let text = CLUSTER.replace("name = \"node1\"\n", "name = \"node1\"\nbmc = \"none\"\nboot = \"10s\"\n");
    let document = run(&format!("{text}{}", events(&[("100s", "isolate node1"), ("200s", "rejoin node1")])));
    assert_eq!(document.fenced[0].evidence, "watchdog-time");
    assert!(document.recovered[0].after_s <= 17.0, "{:?}", document.recovered);
    assert_ne!(document.resources["vm:101"].node.as_deref(), Some("node1"));
    assert_eq!(document.nodes["node1"].state, "online");
}

#[test]
fn a_reset_node_stays_off_if_it_is_set_so() {
    let text = CLUSTER.replace("name = \"node1\"\n", "name = \"node1\"\nbmc = \"none\"\nafter_reset = \"off\"\n");
    let freeze = events(&[("100s", "freeze node1")]);
    let document = run(&format!("{text}{freeze}"));
    assert_eq!(document.nodes["node1"].power, Switch::Off);
    let again = run(&format!("{text}{freeze}{}", events(&[("200s", "power-on node1")])));
    assert_eq!((again.nodes["node1"].state.as_str(), again.nodes["node1"].power), ("online", Switch::On));
}

#[test]
fn a_cut_link_and_a_killed_agent_cost_nothing() {
    let document = run(&format!(
        "{CLUSTER}{}",
        events(&[("100s", "cut node1 appliance"), ("120s", "kill-agent node2"), ("200s", "heal appliance node1")])
    ));
    assert_eq!((document.fenced.len(), document.recovered.len()), (0, 0));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
}

#[test]
fn the_nodes_go_on_without_the_appliance_and_it_leads_again() {
    let document =
        run(&format!("{CLUSTER}{}", events(&[("100s", "power-off appliance"), ("150s", "power-on appliance")])));
    assert_eq!(document.fenced, []);
    let [.., before, meanwhile, after] = &document.leaders[..] else { panic!("{:?}", document.leaders) };
    assert_eq!((before.as_str(), after.as_str()), ("appliance", "appliance"));
    assert!(meanwhile.starts_with("node"), "{:?}", document.leaders);
}

#[test]
fn a_node_that_never_comes_up_is_fenced_after_the_time_to_boot() {
    let text = CLUSTER.replace("name = \"node1\"\n", "name = \"node1\"\npower = \"off\"\n");
    let document = run(&text);
    assert_eq!(document.fenced[0].node, "node1");
    assert!(document.fenced[0].at_s > 60.0, "{:?}", document.fenced);
    assert_eq!(document.recovered[0].resource, "vm:101");
}

#[test]
fn a_node_that_comes_up_late_gets_what_is_placed_on_it() {
    let text = CLUSTER.replace("name = \"node1\"\n", "name = \"node1\"\npower = \"off\"\nboot = \"5s\"\n");
    let document = run(&format!("{text}{}", events(&[("20s", "power-on node1")])));
    assert_eq!(document.fenced, []);
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
}

#[test]
fn a_bmc_that_lies_is_no_evidence() {
    for (bmc, evidence) in [("stuck", "watchdog-time"), ("unreachable", "watchdog-time"), ("slow:2s", "bmc-off")] {
        let before = format!("bmc node1 {bmc}");
        let document = run(&format!("{CLUSTER}{}", events(&[("90s", &before), ("100s", "isolate node1")])));
        assert_eq!(document.fenced[0].evidence, evidence, "{bmc}");
    }
}

#[test]
fn operators_add_stop_start_and_remove() {
    let document = run(&format!(
        "{CLUSTER}{}",
        events(&[
            ("50s", "add service:web node3"),
            ("80s", "set vm:101 state=stopped"),
            ("90s", "set ct:102 state=stopped"),
            ("120s", "set ct:102 state=started"),
            ("150s", "remove service:web"),
        ])
    ));
    let answers = answers(&document);
    assert_eq!(answers.len(), 5);
    assert!(answers.iter().all(|(done, _)| *done), "{answers:?}");
    assert_eq!(at_end(&document, "vm:101"), ("stopped".into(), Some("node1".into()), vec![]));
    assert_eq!(at_end(&document, "ct:102"), runs_on("node2"));
    assert_eq!(at_end(&document, "service:web").0, "removed");
}

#[test]
fn operators_ask_again_while_nobody_leads() {
    let text = format!("appliance = false\n{CLUSTER}").replace("[[node]]", "[[node]]\npower = \"off\"");
    let document = run(&format!(
        "{text}{}",
        events(&[
            ("10s", "set vm:101 state=stopped"),
            ("50s", "power-on node1"),
            ("50s", "power-on node2"),
            ("50s", "power-on node3")
        ])
    ));
    assert_eq!(answers(&document), [(true, "set vm:101 state=stopped")]);
    assert_eq!(at_end(&document, "vm:101").0, "stopped");
}

#[test]
fn a_stopped_resource_is_recovered_stopped() {
    let document = run(&format!(
        "{CLUSTER}[[resource]]\nid = \"vm:103\"\nnode = \"node1\"\nstate = \"stopped\"\n{}",
        events(&[("100s", "power-off node1")])
    ));
    let end = &document.resources["vm:103"];
    assert_eq!((end.state.as_str(), end.running_on.len()), ("stopped", 0));
    assert_ne!(end.node.as_deref(), Some("node1"));
    assert_eq!(document.recovered.len(), 2);
}

#[test]
fn what_dies_is_started_again_and_what_fails_moves() {
    let failing = "fails = { start = 3, only_on = [\"node1\"] }\n";
    let document = run(&format!("{CLUSTER}{failing}{}", events(&[("100s", "fail vm:101")]))
        .replace("id = \"ct:102\"\nnode = \"node2\"", "id = \"ct:102\"\nnode = \"node1\""));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
    let died = document.timeline.iter().filter(
        |line| matches!(&line.what, What::Resource { happened: Happened::Died, resource, .. } if resource == "vm:101"),
    );
    assert_eq!(died.count(), 1);
    // Twice on its node, then elsewhere.
    assert_ne!(document.resources["ct:102"].node.as_deref(), Some("node1"));
    assert_eq!(document.resources["ct:102"].state, "started");
    assert_eq!(document.fenced, []);
}

#[test]
fn who_has_lost_its_disk_stays_away() {
    let document = run(&format!("{CLUSTER}{}", events(&[("100s", "lose-disk node1")])));
    assert_eq!(document.fenced[0].node, "node1");
    assert_eq!(document.nodes["node1"].state, "unknown");
    assert_ne!(document.resources["vm:101"].node.as_deref(), Some("node1"));
    let appliance = run(&format!("{CLUSTER}{}", events(&[("100s", "lose-disk appliance")])));
    assert_eq!(appliance.fenced, []);
    assert_ne!(appliance.leaders.last().map(String::as_str), Some("appliance"));
}

#[test]
fn drifting_clocks_and_stalling_disks_are_survived() {
    let document = run(&format!(
        "{CLUSTER}{}",
        events(&[("50s", "drift node1 80000"), ("60s", "drift appliance -500"), ("100s", "disk-stall appliance 3")])
    ));
    assert_eq!(document.fenced, []);
}

#[test]
fn the_same_scenario_is_the_same_run() {
    let text = format!("{CLUSTER}{}", events(&[("100s", "isolate node1"), ("200s", "rejoin node1")]));
    assert_eq!(run(&text), run(&text));
}

#[test]
fn a_virtual_machine_moves_live_and_a_container_by_a_stop() {
    let document =
        run(&format!("{CLUSTER}{}", events(&[("100s", "migrate vm:101 node3"), ("150s", "migrate ct:102 node3")])));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node3"));
    let happened = |id: &str, what: &Happened| {
        document.timeline.iter().any(
            |line| matches!(&line.what, What::Resource { resource, happened, .. } if resource == id && happened == what),
        )
    };
    assert!(happened("vm:101", &Happened::Moves) && !happened("vm:101", &Happened::Stops));
    assert_eq!(answers(&document).len(), 2);
    // What can't move live says so, or is stopped first.
    assert!(!happened("ct:102", &Happened::Moves));
    let relocated = run(&format!("{CLUSTER}{}", events(&[("100s", "relocate ct:102 node3")])));
    assert_eq!(at_end(&relocated, "ct:102"), runs_on("node3"));
    assert_eq!((relocated.fenced.len(), relocated.recovered.len()), (0, 0));
}

#[test]
fn a_migration_that_fails_leaves_it_where_it_was() {
    let text = CLUSTER.replace("id = \"vm:101\"\n", "id = \"vm:101\"\nfails = { migrate = 100 }\n");
    let document = run(&format!("{text}{}", events(&[("100s", "migrate vm:101 node3")])));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
}

#[test]
fn maintenance_empties_a_node_and_ends() {
    let on = events(&[("100s", "maintenance node1 on")]);
    let document = run(&format!("{CLUSTER}{on}"));
    assert_eq!(document.nodes["node1"].state, "maintenance");
    assert_eq!((document.resources["vm:101"].running_on.len(), document.fenced.len()), (1, 0));
    assert_ne!(document.resources["vm:101"].node.as_deref(), Some("node1"));
    let again = run(&format!("{CLUSTER}{on}{}", events(&[("200s", "maintenance node1 off")])));
    assert_eq!(again.nodes["node1"].state, "online");
}

#[test]
fn a_shutdown_fails_over_and_a_reboot_freezes() {
    let shutdown = run(&format!("{CLUSTER}{}", events(&[("100s", "shutdown node1")])));
    let evidence: Vec<&str> = shutdown.fenced.iter().map(|fenced| fenced.evidence.as_str()).collect();
    assert_eq!((evidence, shutdown.nodes["node1"].power), (vec!["clean-shutdown"], Switch::Off), "its own word");
    assert_eq!(shutdown.nodes["node1"].state, "gone");
    assert_ne!(shutdown.resources["vm:101"].node.as_deref(), Some("node1"));
    assert_eq!(shutdown.resources["vm:101"].running_on.len(), 1);
    let reboot = run(&format!("{CLUSTER}{}", events(&[("100s", "reboot node1")])));
    assert_eq!(reboot.fenced, []);
    assert_eq!(at_end(&reboot, "vm:101"), runs_on("node1"));
    let migrate = format!("shutdown_policy = \"migrate\"\n{CLUSTER}{}", events(&[("100s", "reboot node1")]));
    let migrate = run(&migrate);
    assert_eq!(migrate.fenced, []);
    assert_ne!(migrate.resources["vm:101"].node.as_deref(), Some("node1"));
}

#[test]
fn an_agent_that_restarts_touches_nothing() {
    let document = run(&format!("{CLUSTER}{}", events(&[("100s", "restart-agent node1")])));
    assert_eq!((document.fenced.len(), document.recovered.len()), (0, 0));
    let stops = |line: &crate::output::Line| {
        line.at_s >= 100.0 && matches!(line.what, What::Resource { happened: Happened::Stops, .. })
    };
    assert!(!document.timeline.iter().any(stops));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
}

#[test]
fn nothing_is_done_while_the_cluster_is_disarmed() {
    for mode in ["freeze", "ignore"] {
        let disarm = format!("disarm {mode}");
        let document = run(&format!(
            "{CLUSTER}{}",
            events(&[("100s", &disarm), ("150s", "isolate node1"), ("250s", "rejoin node1"), ("300s", "arm")])
        ));
        assert_eq!((document.fenced.len(), document.recovered.len()), (0, 0), "{mode}");
        assert!(answers(&document).iter().all(|(done, _)| *done), "{:?}", answers(&document));
        assert_eq!(at_end(&document, "vm:101"), runs_on("node1"), "{mode}");
    }
}

#[test]
fn a_machine_of_a_disarmed_cluster_is_shut_down_as_any_other() {
    let shutdown = events(&[("100s", "disarm freeze"), ("150s", "shutdown node1")]);
    let document = run(&format!("{CLUSTER}{shutdown}{}", events(&[("170s", "arm")])));
    assert_eq!(document.nodes["node1"].power, Switch::Off, "its agent lets it go");
    assert_eq!((document.fenced.len(), document.recovered.len()), (0, 0));
    assert_eq!(
        at_end(&document, "vm:101").2,
        Vec::<String>::new(),
        "nobody starts elsewhere what may be running there"
    );
    let [.., (done, answer)] = &answers(&document)[..] else { panic!("no answer") };
    assert!(!done && answer.contains("node1 is not heard"), "{answer}");
    let back = run(&format!("{CLUSTER}{shutdown}{}", events(&[("170s", "power-on node1"), ("250s", "arm")])));
    assert_eq!(at_end(&back, "vm:101"), runs_on("node1"));
    assert_eq!(back.fenced, []);
}

#[test]
fn a_live_move_that_always_fails_is_given_up_and_one_that_fails_twice_is_made() {
    let failing = |times: u32| {
        let fails = format!("id = \"vm:101\"\nfails = {{ migrate = {times} }}\n");
        let text = CLUSTER.replace("id = \"vm:101\"\n", &fails);
        run(&format!("{text}{}", events(&[("100s", "maintenance node1 on")])))
    };
    let tried = |document: &Document| {
        let moves = |line: &&crate::output::Line| matches!(&line.what, What::Resource { resource, happened: Happened::Moves, .. } if resource == "vm:101");
        document.timeline.iter().filter(moves).count()
    };
    let decided = |document: &Document| document.to_string().matches("vm:101 moves live from").count();
    let never = failing(100);
    assert_eq!(at_end(&never, "vm:101"), runs_on("node1"));
    // One that can't begin at once has failed as well.
    assert_eq!(decided(&never), 5);
    let later = failing(2);
    assert_ne!(later.resources["vm:101"].node.as_deref(), Some("node1"));
    assert_eq!(tried(&later), 3);
}

#[test]
fn the_load_is_evened_out_by_itself_and_each_move_is_explained() {
    for placement in ["static", "dynamic"] {
        let node = |name: &str| format!("[[node]]\nname = \"{name}\"\nmemory = \"32GiB\"\ncpus = 16\n");
        let vm = |nth: u32| format!("[[resource]]\nid = \"vm:{nth}\"\nnode = \"node1\"\nmemory = \"4GiB\"\n");
        let text = format!(
            "duration = \"1200s\"\nplacement = \"{placement}\"\nrebalance = true\n{}{}{}",
            node("node1"),
            node("node2"),
            (1..=4).map(vm).collect::<String>()
        );
        let document = run(&text);
        let on = |node: &str| document.resources.values().filter(|end| end.running_on == [node]).count();
        assert_eq!((on("node1"), on("node2")), (2, 2), "{placement}");
        let told = document.to_string();
        let moves: Vec<&str> = told.lines().filter(|line| line.contains("moves live from")).collect();
        assert_eq!(moves.len(), 2, "{placement}: nothing moves to and fro: {moves:?}");
        assert!(moves.iter().all(|line| line.contains("the imbalance has been above 0.3 for 3 rounds")), "{moves:?}");
        let still = run(&text.replace("rebalance = true", "rebalance = false"));
        assert!(still.resources.values().all(|end| end.running_on == ["node1"]), "{placement}");
    }
}

#[test]
fn what_is_locked_is_left_alone() {
    let document = run(&format!(
        "{CLUSTER}{}",
        events(&[("100s", "lock vm:101"), ("110s", "migrate vm:101 node2"), ("150s", "unlock vm:101")])
    ));
    let answers = answers(&document);
    assert_eq!(answers.iter().map(|(done, _)| *done).collect::<Vec<_>>(), [true, false, true], "{answers:?}");
    assert!(answers[1].1.contains("locked"), "{answers:?}");
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
}

#[test]
fn disabled_resources_are_not_fenced_for_and_ignored_ones_are_nobodys() {
    let text = CLUSTER.replace("id = \"vm:101\"\n", "id = \"vm:101\"\nstate = \"disabled\"\n");
    let document = run(&format!("{text}{}", events(&[("100s", "isolate node1")])));
    assert_eq!(document.fenced, []);
    assert_eq!(
        (document.resources["vm:101"].state.as_str(), document.nodes["node1"].state.as_str()),
        ("disabled", "unknown")
    );
    let text = CLUSTER.replace("id = \"vm:101\"\n", "id = \"vm:101\"\nstate = \"ignored\"\n");
    let document = run(&text);
    assert_eq!(at_end(&document, "vm:101"), ("ignored".into(), Some("node1".into()), vec![]));
}

#[test]
fn rules_and_memory_decide_where_things_go() {
    let rule = "[[rule]]\nkind = \"apart\"\nresources = [\"vm:101\", \"ct:102\"]\n";
    let document = run(&format!("{CLUSTER}{rule}{}", events(&[("100s", "power-off node1")])));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node3"));
    let rule = "[[rule]]\nkind = \"node-affinity\"\nresources = [\"vm:101\"]\nnodes = { node1 = 2, node2 = 1 }\n";
    let document = run(&format!("{CLUSTER}{rule}{}", events(&[("100s", "power-off node1")])));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node2"));
    let text = CLUSTER
        .replace("name = \"node3\"\n", "name = \"node3\"\nmemory = \"1GiB\"\n")
        .replace("id = \"vm:101\"\n", "id = \"vm:101\"\nmemory = \"2GiB\"\n");
    for placement in ["basic", "static", "dynamic"] {
        let text = format!("placement = \"{placement}\"\n{text}{}", events(&[("100s", "power-off node1")]));
        assert_eq!(at_end(&run(&text), "vm:101"), runs_on("node2"), "{placement}");
    }
}

#[test]
fn the_documented_example_runs() {
    let document = run(include_str!("../../../../docs/examples/simulate.toml"));
    assert!(answers(&document).iter().all(|(done, _)| *done), "{:?}", answers(&document));
    assert_eq!(at_end(&document, "vm:101"), runs_on("node1"));
}
