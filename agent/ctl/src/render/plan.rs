//! What the planner says, placement rules, and settings.

use tiebreaker_member::core::RuleStatus;
use tiebreaker_pipeline::manager::{Drain, Outlook};
use tiebreaker_pipeline::placement::rule::RuleKind;
use tiebreaker_pipeline::resource::Class;
use tiebreaker_pipeline::state::{MOVES, Settings};

use super::Table;
use crate::cli::{show_duration, show_memory};
use crate::commands::{Planned, Promised};

/// How many failures the cluster survives, why not more, and the memory that is promised.
#[must_use]
pub fn planned(planned: &Planned) -> String {
    let mut table = Table::new(&["NODE", "MEMORY", "PROTECTED", "BEST-EFFORT", "UNPROTECTED", "FREE"]);
    let mut row = |name: &str, promised: &Promised| {
        let known = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), show_memory);
        let of = |class: Class| show_memory(promised.by_class.get(&class).copied().unwrap_or(0));
        let [protected, best_effort, unprotected] = Class::ALL.map(of);
        table.row(vec![
            name.to_owned(),
            known(promised.has),
            protected,
            best_effort,
            unprotected,
            known(promised.free()),
        ]);
    };
    for (node, promised) in &planned.memory {
        row(node.as_str(), promised);
    }
    row("all", &planned.memory_in_all);
    format!("{}\n{}", outlook(&planned.outlook), table.render())
}

/// How many failures the cluster survives, and why not more.
#[must_use]
fn outlook(outlook: &Outlook) -> String {
    format!("{}\nNot more: {}\n", tolerance(outlook), outlook.limit)
}

/// The same in one line.
pub fn tolerance(outlook: &Outlook) -> String {
    let goal = outlook.goal.map(|goal| format!(" (goal {goal})")).unwrap_or_default();
    let least = if outlook.exact { "" } else { "at least " };
    match outlook.tolerable {
        None => format!("Not even now does everything protected have a place{goal}"),
        Some(1) => format!("Tolerates {least}1 node failure{goal}"),
        Some(failures) => format!("Tolerates {least}{failures} node failures{goal}"),
    }
}

/// What emptying a node would do.
#[must_use]
pub fn drain(drain: &Drain) -> String {
    let mut out = String::new();
    if drain.moves.is_empty() {
        out.push_str(&format!("Nothing has to leave {}.\n", drain.node));
    } else {
        let mut table = Table::new(&["RESOURCE", "TO", "HOW", "RETURNS", "WHY"]);
        for step in &drain.moves {
            let how = match (&step.to, step.live) {
                (None, _) => "stays",
                (Some(_), true) => "live",
                (Some(_), false) => "stop and start",
            };
            table.row(vec![
                step.resource.to_string(),
                step.to.as_ref().map(ToString::to_string).unwrap_or_default(),
                how.to_owned(),
                if step.returns { "yes" } else { "no" }.to_owned(),
                step.why.clone(),
            ]);
        }
        out.push_str(&table.render());
        out.push_str(&format!("{} at once at most.\n", drain.at_once));
    }
    for conflict in &drain.conflicts {
        out.push_str(&format!("CONFLICT: {conflict}\n"));
    }
    out
}

/// Placement rules, one per line.
#[must_use]
pub fn rules(rules: &[RuleStatus]) -> String {
    if rules.is_empty() {
        return "There are no placement rules: add one with `tiebreaker rule add`.\n".to_owned();
    }
    let mut table = Table::new(&["RULE", "SAYS", "RESOURCES", "EFFECT"]);
    for rule in rules {
        let names: Vec<String> = rule.rule.resources.iter().map(ToString::to_string).collect();
        table.row(vec![rule.name.to_string(), says(&rule.rule.kind), names.join(","), effect(rule)]);
    }
    table.render()
}

fn says(kind: &RuleKind) -> String {
    match kind {
        RuleKind::NodeAffinity { nodes, strict } => {
            let nodes: Vec<String> = nodes.iter().map(|(node, priority)| format!("{node}={priority}")).collect();
            format!("on {}{}", nodes.join(","), if *strict { ", strictly" } else { "" })
        }
        RuleKind::Together => "together".to_owned(),
        RuleKind::Apart => "apart".to_owned(),
    }
}

fn effect(rule: &RuleStatus) -> String {
    match &rule.fault {
        _ if rule.rule.disabled_by_operator => "none: an operator has disabled it".to_owned(),
        Some(fault) => format!("NONE: {fault}"),
        None if !rule.strangers.is_empty() => {
            let names: Vec<&str> = rule.strangers.iter().map(|name| name.as_str()).collect();
            format!("holds; NOT A NODE HERE: {}", names.join(", "))
        }
        None => "holds".to_owned(),
    }
}

/// Settings with their defaults.
#[must_use]
pub fn settings(settings: &Settings) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "DEFAULT"]);
    for (name, value, default) in all(settings) {
        table.row(vec![name, value, default]);
    }
    table.render()
}

/// Settings that aren't the default, in one line; nothing where all are.
pub fn changed(settings: &Settings) -> Option<String> {
    let changed: Vec<String> = all(settings)
        .into_iter()
        .filter(|(_, value, default)| value != default)
        .map(|(name, value, _)| format!("{name} {value}"))
        .collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}

/// Name, value and default of each setting; the profile has a place of its own.
fn all(settings: &Settings) -> Vec<(String, String, String)> {
    let usual = Settings::default();
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let count = |number: Option<u32>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let without = |settings: &Settings| match &settings.fewer_votes {
        None => "all".to_owned(),
        Some(fewer) => {
            let names: Vec<&str> = fewer.without.iter().map(|name| name.as_str()).collect();
            format!("without {} until {}", names.join(","), super::log::when(fewer.until_ms))
        }
    };
    let mut all = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&Settings) -> String| {
        all.push((name.to_owned(), value(settings), value(&usual)));
    };
    row("shutdown-policy", &|s| s.shutdown.word().to_owned());
    row("placement", &|s| s.placement.to_string());
    row("rebalance", &|s| switch(s.rebalance));
    row("tolerate", &|s| count(s.tolerate));
    row("moves", &|s| s.moves.unwrap_or(MOVES).to_string());
    for class in Class::ALL {
        let delay = move |s: &Settings| format!("{} s", s.order_delay_s.get(&class).copied().unwrap_or(0));
        row(&format!("order-delay {class}"), &delay);
    }
    row("failures-age", &|s| show_duration(s.failures_age()));
    row("takeback", &|s| format!("{} s", s.takeback().as_secs()));
    row("votes", &without);
    row("profile", &|s| s.profile.to_string());
    all
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::manager::DrainMove;
    use tiebreaker_pipeline::name::{MemberName, ResourceName, RuleName};
    use tiebreaker_pipeline::placement::rule::PlacementRule;
    use tiebreaker_pipeline::state::ShutdownPolicy;

    use super::*;

    fn node(text: &str) -> MemberName {
        MemberName::new(text).unwrap()
    }

    fn resource(text: &str) -> ResourceName {
        ResourceName::new(text).unwrap()
    }

    #[test]
    fn an_outlook_says_how_many_and_why_not_more() {
        let told = |tolerable, goal, exact| {
            outlook(&Outlook { tolerable, goal, exact, limit: "n2 is too small".into(), at_best: 1 })
        };
        assert_eq!(told(Some(1), Some(1), true), "Tolerates 1 node failure (goal 1)\nNot more: n2 is too small\n");
        assert!(told(Some(2), None, false).starts_with("Tolerates at least 2 node failures\n"));
        assert!(told(None, Some(1), true).starts_with("Not even now"));
    }

    #[test]
    fn a_drain_shows_moves_returns_and_conflicts() {
        let step = |name: &str, to: Option<&str>, live, returns, why: &str| DrainMove {
            resource: resource(name),
            to: to.map(node),
            live,
            returns,
            why: why.into(),
        };
        let plan = Drain {
            node: node("n1"),
            moves: vec![
                step("web", Some("n2"), true, true, "the only node left"),
                step("db", None, false, false, "n2: too small"),
            ],
            at_once: 4,
            conflicts: vec!["db has nowhere to go".into()],
        };
        let expected = "\
RESOURCE  TO  HOW    RETURNS  WHY
web       n2  live   yes      the only node left
db        -   stays  no       n2: too small
4 at once at most.
CONFLICT: db has nowhere to go
";
        assert_eq!(drain(&plan), expected);
        let nothing = Drain { moves: vec![], conflicts: vec![], ..plan };
        assert_eq!(drain(&nothing), "Nothing has to leave n1.\n");
    }

    #[test]
    fn a_rule_without_effect_says_why() {
        let rule = |name: &str, kind, disabled_by_operator, fault: Option<&str>| RuleStatus {
            name: RuleName::new(name).unwrap(),
            rule: PlacementRule { resources: [resource("a"), resource("b")].into(), kind, disabled_by_operator },
            fault: fault.map(str::to_owned),
            strangers: vec![],
        };
        let affinity = RuleKind::NodeAffinity { nodes: [(node("n1"), 2), (node("n2"), 1)].into(), strict: true };
        let listed = rules(&[
            rule("home", affinity, false, None),
            rule("pair", RuleKind::Together, true, None),
            rule("split", RuleKind::Apart, false, Some("it contradicts pair")),
        ]);
        let expected = "\
RULE   SAYS                   RESOURCES  EFFECT
home   on n1=2,n2=1, strictly  a,b        holds
pair   together               a,b        none: an operator has disabled it
split  apart                  a,b        NONE: it contradicts pair
";
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&listed), words(expected));
        let drifted = RuleStatus { strangers: vec![node("n9")], ..rule("pair", RuleKind::Together, false, None) };
        assert!(rules(&[drifted]).contains("holds; NOT A NODE HERE: n9"));
    }

    #[test]
    fn only_what_is_not_the_default_is_shown_in_one_line() {
        let mut wanted = Settings::default();
        assert_eq!(changed(&wanted), None);
        wanted.shutdown = ShutdownPolicy::Migrate;
        wanted.tolerate = Some(1);
        wanted.moves = Some(MOVES);
        assert_eq!(changed(&wanted).as_deref(), Some("shutdown-policy migrate, tolerate 1"));
        assert!(settings(&wanted).contains("order-delay best-effort  0 s"), "{}", settings(&wanted));
    }
}
