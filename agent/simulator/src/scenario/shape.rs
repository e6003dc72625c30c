//! The form of a scenario: keys, values and units. Whether it makes sense is for `check` to say.

use std::ops::Range;
use std::time::Duration;

use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::placement::rule::{PRIORITY_MAX, RESOURCES_MAX};
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::state::MOVES_MAX;

use super::event;
use super::mistake::Report;
use super::table::{Table, number, one_of, text, truth, word};
use super::tree::{Tree, Value};
use super::units;
use super::{
    BmcSetup, Class, Event, Fails, NodeSetup, Placement, Requested, ResourceId, ResourceKind, ResourceSetup, RuleKind,
    RuleSetup, Scenario, ShutdownPolicy,
};

/// The keys of each table.
pub(super) const SCENARIO: [&str; 13] = [
    "profile",
    "appliance",
    "placement",
    "rebalance",
    "shutdown_policy",
    "tolerate",
    "moves",
    "order_delay",
    "duration",
    "node",
    "resource",
    "rule",
    "event",
];
pub(super) const NODE: [&str; 9] =
    ["name", "power", "memory", "cpus", "bmc", "watchdog", "after_reset", "boot", "maintenance"];
pub(super) const RESOURCE: [&str; 13] = [
    "id",
    "node",
    "state",
    "class",
    "order",
    "memory",
    "milli_cpus",
    "live",
    "only_on",
    "max_restart",
    "max_relocate",
    "failback",
    "fails",
];
pub(super) const ORDER_DELAY: [&str; 3] = ["protected", "best-effort", "unprotected"];
pub(super) const FAILS: [&str; 4] = ["start", "migrate", "stop", "only_on"];
pub(super) const RULE: [&str; 4] = ["kind", "resources", "nodes", "strict"];
pub(super) const EVENT: [&str; 2] = ["at", "do"];

/// The words for what is wanted of a resource.
pub(super) const REQUESTED: [(&str, Requested); 4] = [
    ("started", Requested::Started),
    ("stopped", Requested::Stopped),
    ("disabled", Requested::Disabled),
    ("ignored", Requested::Ignored),
];
const PROFILES: [(&str, Profile); 3] =
    [("fast", Profile::Fast), ("balanced", Profile::Balanced), ("patient", Profile::Patient)];
const PLACEMENTS: [(&str, Placement); 3] =
    [("basic", Placement::Basic), ("static", Placement::Static), ("dynamic", Placement::Dynamic)];
const SHUTDOWN_POLICIES: [(&str, ShutdownPolicy); 4] = [
    ("conditional", ShutdownPolicy::Conditional),
    ("freeze", ShutdownPolicy::Freeze),
    ("failover", ShutdownPolicy::Failover),
    ("migrate", ShutdownPolicy::Migrate),
];
const CLASSES: [(&str, Class); 3] =
    [("protected", Class::Protected), ("best-effort", Class::BestEffort), ("unprotected", Class::Unprotected)];
const KINDS: [(&str, ResourceKind); 3] =
    [("vm", ResourceKind::Machine), ("ct", ResourceKind::Container), ("service", ResourceKind::Service)];

/// What holds where nothing else is written.
const DURATION: Duration = Duration::from_secs(1500);
const BOOT: Duration = Duration::from_secs(30);

/// Where something stands.
pub(super) type At = Range<usize>;

/// A scenario whose every value is well formed, and where its names stand.
pub(super) struct Shape {
    pub(super) at: At,
    pub(super) scenario: Scenario,
    pub(super) duration_at: At,
    pub(super) nodes: Vec<At>,
    pub(super) resources: Vec<ResourceAt>,
    pub(super) rules: Vec<RuleAt>,
    pub(super) events: Vec<EventAt>,
}

/// Where the names of a resource stand.
#[derive(Default)]
pub(super) struct ResourceAt {
    pub(super) id: At,
    pub(super) node: At,
    pub(super) only_on: Vec<(At, MemberName)>,
}

/// Where the names of a rule stand.
#[derive(Default)]
pub(super) struct RuleAt {
    pub(super) resources: Vec<(At, ResourceId)>,
    pub(super) nodes: Vec<(At, MemberName)>,
}

/// Where the parts of an event stand.
#[derive(Default)]
pub(super) struct EventAt {
    pub(super) at: At,
    pub(super) text: At,
    /// The words after the first.
    pub(super) words: Vec<At>,
}

impl Shape {
    pub(super) fn into_scenario(self) -> Scenario {
        let mut scenario = self.scenario;
        scenario.events.sort_by_key(|event| event.at);
        scenario
    }
}

/// Reads the form. What was reported is left out of the result.
pub(super) fn shape(source: &str, tree: &Tree, report: &mut Report) -> Shape {
    let mut shape = Shape {
        at: tree.at.clone(),
        scenario: Scenario {
            profile: Profile::default(),
            appliance: true,
            placement: Placement::default(),
            rebalance: false,
            shutdown_policy: ShutdownPolicy::default(),
            tolerate: None,
            moves: None,
            order_delay_s: Vec::new(),
            duration: DURATION,
            nodes: Vec::new(),
            resources: Vec::new(),
            rules: Vec::new(),
            events: Vec::new(),
        },
        duration_at: tree.at.clone(),
        nodes: Vec::new(),
        resources: Vec::new(),
        rules: Vec::new(),
        events: Vec::new(),
    };
    let Some(table) = Table::open(tree, "a scenario", &SCENARIO, report) else { return shape };
    let scenario = &mut shape.scenario;
    scenario.profile = table.read("profile", Profile::default(), report, word(&PROFILES));
    scenario.appliance = table.read("appliance", true, report, truth);
    scenario.placement = table.read("placement", Placement::default(), report, word(&PLACEMENTS));
    scenario.rebalance = table.read("rebalance", false, report, truth);
    scenario.shutdown_policy =
        table.read("shutdown_policy", ShutdownPolicy::default(), report, word(&SHUTDOWN_POLICIES));
    scenario.tolerate = table.optional("tolerate", report, number(0..=64));
    scenario.moves = table.optional("moves", report, number(1..=MOVES_MAX));
    if let Some(tree) = table.get("order_delay") {
        scenario.order_delay_s = order_delay(tree, report);
    }
    scenario.duration = table.read("duration", DURATION, report, span());
    if let Some(duration) = table.get("duration") {
        shape.duration_at = duration.at.clone();
    }
    for tree in table.list("node", report) {
        if let Some((at, node)) = node(tree, report) {
            shape.nodes.push(at);
            shape.scenario.nodes.push(node);
        }
    }
    for tree in table.list("resource", report) {
        if let Some((at, resource)) = resource(tree, report) {
            shape.resources.push(at);
            shape.scenario.resources.push(resource);
        }
    }
    for tree in table.list("rule", report) {
        if let Some((at, rule)) = rule(tree, report) {
            shape.rules.push(at);
            shape.scenario.rules.push(rule);
        }
    }
    for tree in table.list("event", report) {
        if let Some((at, event)) = happening(source, tree, report) {
            shape.events.push(at);
            shape.scenario.events.push(event);
        }
    }
    shape
}

fn order_delay(tree: &Tree, report: &mut Report) -> Vec<(Class, u32)> {
    let Some(table) = Table::open(tree, "order_delay", &ORDER_DELAY, report) else { return Vec::new() };
    let delay = |(word, class): &(&str, Class)| {
        let span = table.optional(word, report, span())?;
        Some((*class, u32::try_from(span.as_secs()).unwrap_or(u32::MAX)))
    };
    CLASSES.iter().filter_map(delay).collect()
}

fn node(tree: &Tree, report: &mut Report) -> Option<(At, NodeSetup)> {
    let table = Table::open(tree, "a node", &NODE, report)?;
    let name = table.required("name", report, text("a name", member));
    let on = table.read("power", true, report, word(&[("on", true), ("off", false)]));
    let memory = table.optional("memory", report, memory());
    let cpus = table.optional("cpus", report, number(1..=65_536));
    let bmc = table.read("bmc", BmcSetup::Good, report, text("a word", |word| bmc(word, true)));
    let watchdog = table.read("watchdog", true, report, word(&[("good", true), ("none", false)]));
    let reboots = table.read("after_reset", true, report, word(&[("reboot", true), ("off", false)]));
    let boot = table.read("boot", BOOT, report, span());
    let maintenance = table.read("maintenance", false, report, truth);
    let (at, name) = name?;
    Some((at.clone(), NodeSetup { name, on, memory, cpus, bmc, watchdog, reboots, boot, maintenance }))
}

fn resource(tree: &Tree, report: &mut Report) -> Option<(ResourceAt, ResourceSetup)> {
    let table = Table::open(tree, "a resource", &RESOURCE, report)?;
    let id = table.required("id", report, text("a name", id));
    let node = table.required("node", report, text("a node's name", member));
    let state = table.read("state", Requested::default(), report, word(&REQUESTED));
    let class = table.read("class", Class::default(), report, word(&CLASSES));
    let order = table.read("order", 0, report, number(0..=1_000_000));
    let memory = table.optional("memory", report, memory());
    let milli_cpus = table.optional("milli_cpus", report, number(1..=65_536_000));
    let live = table.optional("live", report, truth);
    let mut named = names(table.list("only_on", report), "a node's name", member, report);
    let only_on = named.iter().map(|(_, node)| node.clone()).collect();
    let max_restart = table.read("max_restart", 1, report, number(0..=100));
    let max_relocate = table.read("max_relocate", 1, report, number(0..=100));
    let failback = table.read("failback", false, report, truth);
    let mut failing_on = Vec::new();
    let fails = table.get("fails").map_or_else(Fails::default, |tree| fails(tree, &mut failing_on, report));
    named.extend(failing_on);
    let ((id_at, id), (node_at, node)) = (id?, node?);
    let at = ResourceAt { id: id_at.clone(), node: node_at.clone(), only_on: named };
    let live = live.unwrap_or(id.kind() == ResourceKind::Machine);
    let setup = ResourceSetup {
        id,
        node,
        state,
        class,
        order,
        memory,
        milli_cpus,
        live,
        only_on,
        max_restart,
        max_relocate,
        failback,
        fails,
    };
    Some((at, setup))
}

fn fails(tree: &Tree, only_on: &mut Vec<(At, MemberName)>, report: &mut Report) -> Fails {
    let Some(table) = Table::open(tree, "fails", &FAILS, report) else { return Fails::default() };
    *only_on = names(table.list("only_on", report), "a node's name", member, report);
    Fails {
        start: table.read("start", 0, report, number(0..=1_000_000)),
        migrate: table.read("migrate", 0, report, number(0..=1_000_000)),
        stop: table.read("stop", false, report, truth),
        only_on: only_on.iter().map(|(_, node)| node.clone()).collect(),
    }
}

/// What a rule is called.
#[derive(Clone, Copy)]
enum Kind {
    NodeAffinity,
    Together,
    Apart,
}

fn rule(tree: &Tree, report: &mut Report) -> Option<(RuleAt, RuleSetup)> {
    let table = Table::open(tree, "a rule", &RULE, report)?;
    let kinds = [("node-affinity", Kind::NodeAffinity), ("together", Kind::Together), ("apart", Kind::Apart)];
    let kind = table.required("kind", report, word(&kinds));
    let list = table.list("resources", report);
    if list.len() > RESOURCES_MAX {
        let at = table.get("resources").map_or(table.at, |tree| &tree.at);
        report.add(at, format!("resources: a rule names {RESOURCES_MAX} at most: split it"));
    }
    if list.is_empty() {
        let at = table.get("resources").map_or(table.at, |tree| &tree.at);
        report.add(at, "a rule needs at least one resource: resources = [\"vm:101\"]");
    }
    let resources = names(list, "a resource's name", id, report);
    let nodes = priorities(&table, report);
    let strict = table.optional("strict", report, truth);
    let (_, kind) = kind?;
    let kind = match kind {
        Kind::NodeAffinity => {
            let none =
                matches!(table.get("nodes"), None | Some(Tree { value: Value::Table(_), .. })) && nodes.is_empty();
            if none {
                let at = table.get("nodes").map_or(table.at, |tree| &tree.at);
                report.add(at, "node-affinity needs at least one node: nodes = { node1 = 2, node2 = 1 }");
            }
            let nodes = nodes.iter().map(|(_, node, priority)| (node.clone(), *priority)).collect();
            RuleKind::NodeAffinity { nodes, strict: strict.unwrap_or(false) }
        }
        Kind::Together | Kind::Apart => {
            if let Some(tree) = table.get("nodes") {
                report.add(&tree.at, "nodes: this belongs to the kind \"node-affinity\" alone: leave it out");
            }
            if let (Some(tree), Some(false)) = (table.get("strict"), strict) {
                report.add(&tree.at, "strict: \"together\" and \"apart\" always hold: leave it out");
            }
            match kind {
                Kind::Together => RuleKind::Together,
                Kind::Apart | Kind::NodeAffinity => RuleKind::Apart,
            }
        }
    };
    let rule = RuleSetup { resources: resources.iter().map(|(_, id)| id.clone()).collect(), kind };
    Some((RuleAt { resources, nodes: nodes.into_iter().map(|(at, node, _)| (at, node)).collect() }, rule))
}

fn priorities(table: &Table<'_>, report: &mut Report) -> Vec<(At, MemberName, u32)> {
    let Some(tree) = table.get("nodes") else { return Vec::new() };
    let Value::Table(entries) = &tree.value else {
        let what = tree.value.word();
        report.add(&tree.at, format!("nodes: this is {what}, and should give each node a priority: {{ node1 = 2 }}"));
        return Vec::new();
    };
    let mut nodes = Vec::new();
    for (key, value) in entries {
        let name = member(&key.text).map_err(|why| report.add(&key.at, why)).ok();
        let priority = number(0..=PRIORITY_MAX)(value).map_err(|why| report.add(&value.at, why)).ok();
        if let (Some(name), Some(priority)) = (name, priority) {
            nodes.push((key.at.clone(), name, priority));
        }
    }
    nodes
}

fn happening(source: &str, tree: &Tree, report: &mut Report) -> Option<(EventAt, Event)> {
    let table = Table::open(tree, "an event", &EVENT, report)?;
    let at = table.required("at", report, span());
    let sentence = table.required("do", report, text("a text", |text| Ok(text.to_owned())));
    let (text_at, sentence) = sentence?;
    let read = event::read(source, text_at, &sentence, report);
    let ((at_at, at), (what, words)) = (at?, read?);
    Some((EventAt { at: at_at.clone(), text: text_at.clone(), words }, Event { at, what }))
}

/// The names in a list, each with its place.
fn names<T>(
    list: &[Tree],
    wanted: &'static str,
    read: fn(&str) -> Result<T, String>,
    report: &mut Report,
) -> Vec<(At, T)> {
    list.iter()
        .filter_map(|one| match text(wanted, read)(one) {
            Ok(name) => Some((one.at.clone(), name)),
            Err(why) => {
                report.add(&one.at, why);
                None
            }
        })
        .collect()
}

fn span() -> impl super::table::Read<Duration> {
    text("a text with a unit, for instance \"30s\"", units::span)
}

fn memory() -> impl super::table::Read<u64> {
    text("a text with a unit, for instance \"64GiB\"", units::bytes)
}

pub(super) fn member(text: &str) -> Result<MemberName, String> {
    MemberName::new(text).map_err(|error| error.to_string())
}

/// `vm:101`.
pub(super) fn id(text: &str) -> Result<ResourceId, String> {
    let example = "for instance \"vm:101\", \"ct:102\" or \"service:web\"";
    let Some((kind, name)) = text.split_once(':') else {
        return Err(format!("{text:?} is no resource: write its kind, a colon and its name, {example}"));
    };
    let kind = one_of(kind, &KINDS)?;
    let id = ResourceId { kind, name: name.to_owned() };
    ResourceName::new(name).map_err(|error| format!("{error}; {example}"))?;
    Ok(id)
}

/// `none` is for nodes, not for events: a BMC doesn't come and go.
pub(super) fn bmc(text: &str, or_none: bool) -> Result<BmcSetup, String> {
    if let Some(by) = text.strip_prefix("slow:") {
        return event::seconds(by).map(BmcSetup::Slow);
    }
    let words = [
        ("good", BmcSetup::Good),
        ("stuck", BmcSetup::Stuck),
        ("unreachable", BmcSetup::Unreachable),
        ("slow:8s", BmcSetup::Slow(Duration::from_secs(8))),
        ("none", BmcSetup::None),
    ];
    one_of(text, if or_none { &words } else { &words[..4] })
}
