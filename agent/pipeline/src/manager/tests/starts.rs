//! What is set to started starts where rules and memory allow it, or is placed anew.

use super::*;
use crate::command::Setting;
use crate::name::{ResourceName, RuleName};
use crate::placement::rule::{PlacementRule, RuleKind};
use crate::resource::Phase;

fn named(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

/// a and b with 4 of memory each; `web` of 3 is placed on a, and stopped.
fn stopped() -> Lead {
    let mut log = Log::joined(Rules::ALL, &["a", "b"]);
    for node in ["a", "b"] {
        let Command::Admit { node, incarnation, boot, watchdog, machine, closed, booted_in_ms, .. } =
            Log::admit(node, 1, &format!("boot-{node}1"), 0)
        else {
            panic!("an admission")
        };
        let capacity = Capacity { memory: Some(4), milli_cpus: None };
        log.must(Command::Admit { node, incarnation, boot, watchdog, machine, closed, capacity, booted_in_ms });
    }
    let mut lead = Lead::new(log);
    put(&mut lead, "web", "a", Requested::Stopped, 3);
    hear(&mut lead, &[]);
    assert_eq!(lead.proposals(), []);
    lead
}

fn put(lead: &mut Lead, name: &str, on: &str, requested: Requested, memory: u64) {
    let mut spec = spec();
    spec.memory = Some(memory);
    lead.log.must(Command::AddResource { name: named(name), spec, requested, node: None });
    let generation = lead.log.state.resources[&named(name)].generation;
    lead.log.must(Command::Assign { resource: named(name), generation, to: member(on), incarnation: 1 });
}

/// Both nodes have applied everything; these run where they are placed, and nothing else does.
fn hear(lead: &mut Lead, running: &[&str]) {
    for node in ["a", "b"] {
        let runs = |name: &ResourceName| {
            let there = lead.log.state.resources[name].phase.owner() == Some(&member(node));
            there && running.contains(&name.as_str())
        };
        let seen = |name: &ResourceName| if runs(name) { Observed::Running } else { Observed::Stopped };
        let resources = lead.log.state.resources.keys().map(|name| (name.clone(), seen(name))).collect();
        let applied = lead.log.state.applied;
        lead.hear(node, crate::report::Report { resources, ..report(applied, None) });
    }
}

fn start(lead: &mut Lead, running: &[&str]) -> Vec<Command> {
    lead.log.must(Log::set_web(Requested::Started));
    hear(lead, running);
    lead.proposals()
}

fn rule(lead: &mut Lead, kind: RuleKind, resources: &[&str]) {
    let resources = resources.iter().map(|name| named(name)).collect();
    let rule = PlacementRule { kind, resources, disabled_by_operator: false };
    lead.log.must(Command::SetRule { name: RuleName::new("rule").unwrap(), rule });
}

fn only_on(lead: &mut Lead, node: &str) {
    rule(lead, RuleKind::NodeAffinity { nodes: [(member(node), 1)].into(), strict: true }, &["web"]);
}

/// It goes to b, and nothing lets it start on a.
#[track_caller]
fn goes_to_b(lead: &Lead, commands: &[Command]) {
    let [Command::Release { to: Some(to), .. }] = commands else { panic!("{commands:?}, {}", lead.why()) };
    assert_eq!(to, &member("b"));
}

#[test]
fn where_nothing_is_against_it_it_starts_where_it_is() {
    let mut lead = stopped();
    assert_eq!(start(&mut lead, &[]), [lead.log.go()]);
}

#[test]
fn a_strict_rule_that_came_meanwhile_places_it_anew() {
    let mut lead = stopped();
    only_on(&mut lead, "b");
    let commands = start(&mut lead, &[]);
    goes_to_b(&lead, &commands);
    lead.log.must(commands[0].clone());
    hear(&mut lead, &[]);
    assert_eq!(assigned_to(&lead.obey()), Some("b"));
    assert!(!lead.log.web().held, "its new node may start it");
}

#[test]
fn what_it_is_kept_apart_from_places_it_anew() {
    let mut lead = stopped();
    put(&mut lead, "peer", "a", Requested::Started, 1);
    rule(&mut lead, RuleKind::Apart, &["web", "peer"]);
    let commands = start(&mut lead, &["peer"]);
    goes_to_b(&lead, &commands);
}

#[test]
fn it_follows_what_it_belongs_with() {
    let mut lead = stopped();
    put(&mut lead, "peer", "b", Requested::Started, 1);
    rule(&mut lead, RuleKind::Together, &["web", "peer"]);
    let commands = start(&mut lead, &["peer"]);
    goes_to_b(&lead, &commands);
}

#[test]
fn memory_that_was_given_to_others_meanwhile_places_it_anew() {
    let mut lead = stopped();
    put(&mut lead, "peer", "a", Requested::Started, 2);
    let commands = start(&mut lead, &["peer"]);
    goes_to_b(&lead, &commands);
}

#[test]
fn where_no_node_may_have_it_it_waits_and_says_why() {
    let mut lead = stopped();
    put(&mut lead, "here", "a", Requested::Started, 2);
    put(&mut lead, "there", "b", Requested::Started, 2);
    assert_eq!(start(&mut lead, &["here", "there"]), []);
    let why = lead.why().to_string();
    assert!(why.contains("a: 1 MiB of memory are needed") && why.contains("b: "), "{why}");
    // Room comes, and it starts.
    lead.log.must(Command::RemoveResource { name: named("here") });
    hear(&mut lead, &["there"]);
    assert_eq!(lead.proposals(), [lead.log.go()]);
}

#[test]
fn of_two_that_fit_alone_and_not_together_the_first_starts() {
    let mut lead = stopped();
    put(&mut lead, "app", "a", Requested::Stopped, 3);
    put(&mut lead, "there", "b", Requested::Started, 4);
    lead.log.must(Command::SetResource { name: named("app"), spec: None, requested: Requested::Started });
    let commands = start(&mut lead, &["there"]);
    let generation = lead.log.state.resources[&named("app")].generation;
    assert_eq!(commands, [Command::Go { resource: named("app"), generation }]);
    assert!(matches!(lead.why(), Why::NoNode { .. }), "{}", lead.why());
}

#[test]
fn a_new_start_of_the_agent_or_the_machine_lets_nothing_start_unlooked_at() {
    for boot in ["boot-a1", "boot-a2"] {
        let mut lead = stopped();
        put(&mut lead, "peer", "a", Requested::Started, 2);
        lead.log.must(Log::set_web(Requested::Started));
        lead.log.must(Log::admit("a", 2, boot, 0));
        let Some(node) = lead.log.state.nodes.get_mut(&member("a")) else { panic!("a is there") };
        node.capacity.memory = Some(4);
        hear(&mut lead, &[]);
        let resources = [("web", Observed::Stopped), ("peer", Observed::Running)];
        let resources = resources.map(|(name, seen)| (named(name), seen)).into();
        let said = crate::report::Report { resources, ..report(lead.log.state.applied, None) };
        lead.renew("a", renewal(2, boot, 9, said));
        let of_web = |command: &Command| !matches!(command, Command::Go { resource, .. } if *resource != web());
        let commands: Vec<Command> = lead.proposals().into_iter().filter(of_web).collect();
        goes_to_b(&lead, &commands);
    }
}

#[test]
fn what_runs_already_is_not_moved_by_this() {
    let mut lead = stopped();
    put(&mut lead, "peer", "a", Requested::Started, 2);
    assert_eq!(start(&mut lead, &["peer", "web"]), [lead.log.go()]);
}

#[test]
fn on_a_node_in_maintenance_it_is_placed_anew_and_comes_home_later() {
    let mut lead = stopped();
    lead.log.must(Command::SetMaintenance { node: member("a"), on: true });
    lead.log.must(Command::Set(Setting::Moves { most: Some(1), force: false }));
    // The one planned move that may be under way is.
    put(&mut lead, "peer", "a", Requested::Started, 1);
    let generation = lead.log.state.resources[&named("peer")].generation;
    let why = MoveReason::Maintenance;
    lead.log.must(Command::Release { resource: named("peer"), generation, to: Some(member("b")), why });
    let commands = start(&mut lead, &["peer"]);
    goes_to_b(&lead, &commands);
    lead.log.must(commands[0].clone());
    assert_eq!(lead.log.web().home, Some(member("a")));
}

#[test]
fn on_a_node_in_maintenance_it_waits_where_no_other_may_have_it() {
    let mut lead = stopped();
    put(&mut lead, "there", "b", Requested::Started, 2);
    lead.log.must(Command::SetMaintenance { node: member("a"), on: true });
    assert_eq!(start(&mut lead, &["there"]), []);
    let why = lead.why().to_string();
    assert!(why.contains("a: it takes no resources now") && why.contains("b: "), "{why}");
}

#[test]
fn what_was_stopped_for_a_while_on_its_way_does_not_go_where_its_room_was_given_to_others() {
    let mut lead = stopped();
    lead.log.must(Log::set_web(Requested::Started));
    lead.log.must(lead.log.go());
    lead.log.must(lead.log.release(Some("b"), MoveReason::Asked));
    lead.log.must(Log::set_web(Requested::Stopped));
    put(&mut lead, "peer", "b", Requested::Started, 2);
    let commands = start(&mut lead, &["peer"]);
    assert_eq!(assigned_to(&commands), Some("a"), "{commands:?}");
}

#[test]
fn frozen_on_a_node_in_maintenance_it_does_not_start_before_its_turn_to_leave() {
    let mut lead = stopped();
    lead.log.must(Log::set_web(Requested::Started));
    lead.log.must(lead.log.go());
    lead.log.must(Command::Set(Setting::Moves { most: Some(1), force: false }));
    put(&mut lead, "peer", "a", Requested::Started, 1);
    let generation = lead.log.state.resources[&named("peer")].generation;
    let (to, why) = (Some(member("b")), MoveReason::Maintenance);
    lead.log.must(Command::SetMaintenance { node: member("a"), on: true });
    lead.log.must(Command::Release { resource: named("peer"), generation, to, why });
    let Some(resource) = lead.log.state.resources.get_mut(&web()) else { panic!("web is there") };
    resource.held = true;
    hear(&mut lead, &["peer"]);
    assert_eq!(lead.proposals(), []);
    assert!(matches!(lead.why(), Why::MoveWaits { .. }), "{}", lead.why());
}

#[test]
fn what_may_run_keeps_its_room_until_it_is_seen_stopped() {
    for seen in [Observed::Unknown { why: "no answer".into() }, Observed::Stopping, Observed::Starting] {
        let mut lead = stopped();
        lead.log.must(Log::set_web(Requested::Started));
        lead.hear_that("a", seen);
        assert_eq!(lead.view().picture().0.count_on(&member("a")), 1);
        lead.hear_that("a", Observed::Stopped);
        assert_eq!(lead.view().picture().0.count_on(&member("a")), 0);
    }
}

#[test]
fn nothing_follows_it_before_it_is_seen_whether_it_runs() {
    let mut lead = stopped();
    put(&mut lead, "peer", "b", Requested::Started, 1);
    rule(&mut lead, RuleKind::Together, &["web", "peer"]);
    hear(&mut lead, &["peer"]);
    lead.log.must(Log::set_web(Requested::Started));
    assert_eq!(lead.proposals(), [], "{:?}", lead.plan());
    hear(&mut lead, &["peer"]);
    let commands = lead.proposals();
    goes_to_b(&lead, &commands);
}

#[test]
fn after_a_boot_it_starts_where_it_had_its_room() {
    let mut lead = stopped();
    lead.log.must(Log::set_web(Requested::Started));
    lead.log.must(lead.log.go());
    put(&mut lead, "peer", "a", Requested::Started, 2);
    lead.log.must(Log::admit("a", 2, "boot-a2", 0));
    let resources = ["web", "peer"].map(|name| (named(name), Observed::Stopped)).into();
    let applied = lead.log.state.applied;
    let said = crate::report::Report { resources, ..report(applied, None) };
    lead.renew("a", renewal(2, "boot-a2", 1, said));
    assert_eq!(lead.log.phase(), &Phase::Placed { node: member("a") });
    assert!(lead.proposals().contains(&lead.log.go()));
}

#[test]
fn failures_are_forgotten_after_the_time_that_is_set() {
    let mut lead = settled();
    lead.log.must(Command::Set(Setting::FailuresAge(Some(90))));
    let failed = MoveReason::Failed { why: "it died".into() };
    lead.log.must(lead.log.release(Some("b"), failed));
    let at = lead.log.web().failed_on[&member("a")];
    let forgets = |lead: &Lead| lead.proposals().iter().any(|command| matches!(command, Command::Forget { .. }));
    lead.wall_ms = at + 89_999;
    assert!(!forgets(&lead));
    lead.wall_ms = at + 90_000;
    assert!(forgets(&lead));
}
