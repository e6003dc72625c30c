use super::*;

/// The example of the documentation.
const EXAMPLE: &str = include_str!("../../../../docs/examples/simulate.toml");

fn toml(text: &str) -> Result<Scenario, Mistakes> {
    Scenario::parse(text, Format::Toml, "s.toml")
}

fn json(text: &str) -> Result<Scenario, Mistakes> {
    Scenario::parse(text, Format::Json, "s.json")
}

/// The smallest cluster: what a test adds stands from line 10 on.
const BASE: &str = "\
duration = \"200s\"
[[node]]
name = \"node1\"
[[node]]
name = \"node2\"
bmc = \"none\"
[[resource]]
id = \"vm:101\"
node = \"node1\"
";

/// The one mistake of [`BASE`] with `more`: line, column, and the message.
fn mistake(more: &str) -> (usize, usize, String) {
    let mistakes = toml(&format!("{BASE}{more}")).expect_err(more);
    let [one] = mistakes.all() else { panic!("{more}: {mistakes}") };
    (one.line, one.column, one.what.clone())
}

fn event(text: &str) -> String {
    format!("[[event]]\nat = \"10s\"\ndo = \"{text}\"\n")
}

fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

#[test]
fn what_is_not_written_has_its_documented_default() {
    let scenario = toml("[[node]]\nname = \"node1\"\n[[resource]]\nid = \"ct:1\"\nnode = \"node1\"\n").unwrap();
    assert_eq!(
        scenario,
        Scenario {
            profile: Profile::Balanced,
            appliance: true,
            placement: Placement::Basic,
            rebalance: false,
            shutdown_policy: ShutdownPolicy::Conditional,
            tolerate: None,
            moves: None,
            order_delay_s: vec![],
            duration: Duration::from_secs(1500),
            nodes: vec![NodeSetup {
                name: name("node1"),
                on: true,
                memory: None,
                cpus: None,
                bmc: BmcSetup::Good,
                watchdog: true,
                reboots: true,
                boot: Duration::from_secs(30),
                maintenance: false,
            }],
            resources: vec![ResourceSetup {
                id: shape::id("ct:1").unwrap(),
                node: name("node1"),
                state: Requested::Started,
                class: Class::Protected,
                order: 0,
                memory: None,
                milli_cpus: None,
                live: false,
                only_on: BTreeSet::new(),
                max_restart: 1,
                max_relocate: 1,
                failback: false,
                fails: Fails::default(),
            }],
            rules: vec![],
            events: vec![],
        }
    );
}

#[test]
fn every_key_is_read() {
    let scenario = toml(EXAMPLE).unwrap();
    assert_eq!(scenario.nodes[0].memory, Some(64 << 30));
    assert_eq!(scenario.nodes[0].cpus, Some(16));
    assert_eq!(scenario.nodes[2].bmc, BmcSetup::Slow(Duration::from_secs(8)));
    assert!(!scenario.nodes[2].watchdog && !scenario.nodes[2].reboots && !scenario.nodes[2].on);
    assert_eq!((scenario.tolerate, scenario.moves), (Some(1), Some(2)));
    assert_eq!(scenario.order_delay_s, [(Class::Protected, 5)]);
    assert!(scenario.nodes[2].maintenance && !scenario.nodes[1].maintenance);
    let second = &scenario.resources[1];
    assert_eq!((second.milli_cpus, second.live), (Some(1_500), false));
    assert_eq!(second.only_on, BTreeSet::from([name("node1"), name("node2")]));
    let fails = &scenario.resources[0].fails;
    assert!(scenario.resources[0].live, "a virtual machine");
    assert_eq!((fails.start, fails.migrate, fails.stop), (2, 0, false));
    assert_eq!(fails.only_on, BTreeSet::from([name("node3")]));
    let RuleKind::NodeAffinity { nodes, strict } = &scenario.rules[0].kind else { panic!("{:?}", scenario.rules) };
    assert!(*strict);
    assert_eq!(*nodes, BTreeMap::from([(name("node1"), 2), (name("node2"), 1)]));
    assert_eq!(scenario.rules[2].kind, RuleKind::Apart);
}

#[test]
fn json_says_the_same() {
    let toml = toml(&format!("{BASE}{}", event("cut node1 appliance"))).unwrap();
    let json = json(
        r#"{"duration": "200s", "node": [{"name": "node1"}, {"name": "node2", "bmc": "none"}],
            "resource": [{"node": "node1", "id": "vm:101"}],
            "event": [{"at": "10s", "do": "cut node1 appliance"}]}"#,
    )
    .unwrap();
    assert_eq!(json, toml);
}

#[test]
fn events_come_in_the_order_of_their_times() {
    let text = "[[event]]\nat = \"20s\"\ndo = \"arm\"\n[[event]]\nat = \"10s\"\ndo = \"disarm ignore\"\n[[event]]\nat = \"20s\"\ndo = \"fail vm:101\"\n";
    let scenario = toml(&format!("{BASE}{text}")).unwrap();
    let order: Vec<String> = scenario.events.iter().map(|event| event.what.to_string()).collect();
    assert_eq!(order, ["disarm ignore", "arm", "fail vm:101"]);
}

#[test]
fn every_event_is_understood_and_written_as_it_is_read() {
    for usage in Usage::ALL {
        let filled = usage
            .to_string()
            .replace(" M M", " node1 appliance")
            .replace(" M", " appliance")
            .replace(" N", " node1")
            .replace(" ID", " vm:101")
            .replace("PPM", "-300")
            .replace("slow:SECONDS", "slow:2.5")
            .replace("SECONDS", "8");
        let options: Vec<&str> = filled.split('|').collect();
        let last = options.last().unwrap();
        let (before, _) = options[0].rsplit_once(['=', ' ']).unwrap_or((options[0], ""));
        let joint = if options[0].contains('=') { "=" } else { " " };
        let mut sentences = vec![options[0].replace(['[', ']'], "")];
        if options.len() > 1 {
            sentences.push(format!("{before}{joint}{last}").replace(['[', ']'], ""));
        }
        for sentence in sentences {
            // What is added must not be there before.
            let sentence = if usage.verb == "add" { sentence.replace("101", "102") } else { sentence };
            let scenario = toml(&format!("{BASE}{}", event(&sentence))).unwrap_or_else(|error| panic!("{error}"));
            let written = scenario.events[0].what.to_string();
            let again = toml(&format!("{BASE}{}", event(&written))).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again, scenario, "{sentence} / {written}");
            assert!(written.starts_with(usage.verb), "{sentence}");
        }
    }
}

#[test]
fn a_mistake_is_shown_with_its_file_and_line() {
    let error = toml(&format!("{BASE}{}", event("isolate nide2"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "s.toml:12:15: there is no machine \"nide2\": did you mean \"node2\"?\n \
         12 | do = \"isolate nide2\"\n    \
         |               ^^^^^"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let error = toml("duraton = \"1s\"\n[[node]]\nname = \"node1\"\nbmc = \"god\"\nwatchdog = 1\n").unwrap_err();
    let lines: Vec<usize> = error.all().iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [1, 4, 5]);
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(mistake("staet = \"started\"\n").2, "a resource has no key \"staet\": did you mean \"state\"?");
    let (line, column, what) = mistake("fails = { starts = 2 }\n");
    assert_eq!((line, column, what.as_str()), (10, 11, "fails has no key \"starts\": did you mean \"start\"?"));
    assert!(
        mistake("[[rule]]\nkind = \"apart\"\nresources = [\"vm:101\"]\nresource = 1\n").2.contains("\"resources\"")
    );
    assert!(mistake("[[event]]\nat = \"1s\"\ndo = \"arm\"\nwhy = \"x\"\n").2.contains("an event has no key \"why\""));
    assert!(toml("profil = \"fast\"\n[[node]]\nname = \"n\"\n").unwrap_err().to_string().contains("\"profile\""));
}

#[test]
fn unknown_values_name_the_nearest_or_all() {
    assert_eq!(
        mistake("state = \"startet\"\n"),
        (10, 9, "state: \"startet\" is not known here: did you mean \"started\"?".into())
    );
    assert!(mistake("class = \"gold\"\n").2.contains("use \"protected\", \"best-effort\" or \"unprotected\""));
    assert!(mistake("[[node]]\nname = \"node3\"\nafter_reset = \"boot\"\n").2.contains("after_reset: \"boot\""));
    assert!(mistake("[[node]]\nname = \"node3\"\nbmc = \"slow\"\n").2.contains("did you mean \"slow:8s\"?"));
    assert!(mistake("[[rule]]\nkind = \"node_affinity\"\nresources = [\"vm:101\"]\n").2.contains("\"node-affinity\""));
}

#[test]
fn wrong_kinds_of_values_say_what_is_wanted() {
    assert!(mistake("failback = \"no\"\n").2.contains("this is a text, and should be true or false"));
    assert!(mistake("order = -1\n").2.contains("-1 is out of range: use a whole number from 0 to"));
    assert!(mistake("order = 1.5\n").2.contains("a number with a fraction"));
    assert!(mistake("memory = 4\n").2.contains("\"64GiB\""));
    assert!(mistake("memory = \"4GB of RAM\"\n").2.contains("\"64GiB\""));
    assert!(mistake("[[node]]\nname = \"node3\"\nboot = \"30\"\n").2.contains("\"30\" is no span of time"));
    assert!(mistake("[[node]]\nname = \"node3\"\nboot = 30\n").2.contains("a text with a unit, for instance \"30s\""));
    assert!(mistake("[[node]]\nname = \"Node 3\"\n").2.contains("is no valid name"));
    assert!(mistake("[[resource]]\nid = \"101\"\nnode = \"node1\"\n").2.contains("for instance \"vm:101\""));
    assert!(mistake("[[resource]]\nid = \"mv:101\"\nnode = \"node1\"\n").2.contains("\"mv\" is not known here"));
    assert!(mistake("rule = 3\n").2.contains("a resource has no key \"rule\""));
    assert!(toml("node = 3\n").unwrap_err().to_string().contains("should be a list"));
    assert!(toml("node = [3]\n").unwrap_err().to_string().contains("a node is a table of keys"));
}

#[test]
fn missing_keys_are_named() {
    assert_eq!(mistake("[[node]]\nboot = \"1s\"\n").0, 10);
    assert!(mistake("[[node]]\nboot = \"1s\"\n").2.contains("a node needs the key \"name\""));
    assert!(mistake("[[resource]]\nid = \"vm:1\"\n").2.contains("a resource needs the key \"node\""));
    assert!(mistake("[[event]]\nat = \"1s\"\n").2.contains("an event needs the key \"do\""));
    assert!(mistake("[[event]]\ndo = \"arm\"\n").2.contains("an event needs the key \"at\""));
    assert!(mistake("[[rule]]\nkind = \"apart\"\n").2.contains("at least one resource"));
    assert!(
        mistake("[[rule]]\nkind = \"node-affinity\"\nresources = [\"vm:101\"]\nnodes = {}\n").2.contains("one node")
    );
}

#[test]
fn mistakes_in_events_stand_at_their_word() {
    let cases = [
        ("islate node1", 7, "there is no event \"islate\": did you mean \"isolate\"?"),
        ("isolate", 6, "this event is not complete: write \"isolate M\""),
        ("", 6, "an event says what happens"),
        ("isolate node1 node2", 21, "this event ends before here: write \"isolate M\""),
        ("maintenance node1 of", 25, "did you mean \"off\"?"),
        ("set vm:101 started", 18, "write \"state=started\""),
        ("set vm:101 state=start", 18, "did you mean \"started\"?"),
        ("disarm now", 14, "use \"freeze\" or \"ignore\""),
        ("bmc node1 none", 17, "\"none\" is not known here"),
        ("bmc node1 slow:x", 17, "\"x\" is no span of time"),
        ("drift node1 fast", 19, "\"fast\" is no drift"),
        ("drift node1 2000000", 19, "from -100000 to 100000"),
        ("disk-stall node1 long", 24, "\"long\" is no span of time"),
        ("migrate 101 node1", 15, "\"101\" is no resource"),
    ];
    for (sentence, column, what) in cases {
        let found = mistake(&event(sentence));
        assert_eq!((found.0, found.1), (12, column), "{sentence}: {}", found.2);
        assert!(found.2.contains(what), "{sentence}: {}", found.2);
    }
}

#[test]
fn names_must_be_somebodys() {
    assert!(mistake("[[resource]]\nid = \"vm:1\"\nnode = \"node3\"\n").2.contains("there is no node \"node3\""));
    assert!(mistake("fails = { only_on = [\"node2\", \"node7\"] }\n").2.contains("there is no node \"node7\""));
    assert!(mistake("[[rule]]\nkind = \"apart\"\nresources = [\"vm:101\", \"vm:10\"]\n").2.contains("\"vm:10\""));
    let rule = "[[rule]]\nkind = \"node-affinity\"\nresources = [\"vm:101\"]\nnodes = { node1 = 1, node9 = 2 }\n";
    assert_eq!(mistake(rule).0, 13);
    assert_eq!(mistake(rule).1, 22);
    assert!(mistake(&event("cut node1 node5")).2.contains("there is no machine \"node5\""));
    assert!(mistake(&event("shutdown appliance")).2.contains("there is no node \"appliance\""));
    assert!(mistake(&event("fail vm:102")).2.contains("there is no resource \"vm:102\" by then"));
    assert!(mistake(&event("bmc node2 stuck")).2.contains("node2 has no BMC"));
    assert!(mistake(&event("cut node1 node1")).2.contains("no link to itself"));
}

#[test]
fn a_scenario_without_an_appliance_names_none() {
    let error = toml(&format!("appliance = false\n{BASE}{}", event("isolate appliance"))).unwrap_err();
    assert!(error.to_string().contains("it says appliance = false"), "{error}");
}

#[test]
fn names_are_unique() {
    assert!(mistake("[[node]]\nname = \"node1\"\n").2.contains("there is a node \"node1\" already"));
    assert!(mistake("[[resource]]\nid = \"vm:101\"\nnode = \"node2\"\n").2.contains("\"vm:101\" already"));
    assert!(mistake("[[node]]\nname = \"appliance\"\n").2.contains("the appliance's own name"));
    let rule = "[[rule]]\nkind = \"apart\"\nresources = [\"vm:101\", \"vm:101\"]\n";
    assert!(mistake(rule).2.contains("in this rule already"));
    assert!(mistake(&event("add vm:101 node2")).2.contains("already: remove it first"));
}

#[test]
fn resources_are_there_from_their_addition_to_their_removal() {
    let at = |at: &str, text: &str| format!("[[event]]\nat = \"{at}\"\ndo = \"{text}\"\n");
    let add = at("50s", "add ct:7 node2 stopped");
    let text = format!("{BASE}{add}{}{}", at("60s", "remove ct:7"), at("70s", "add ct:7 node1"));
    assert!(toml(&text).is_ok());
    assert!(mistake(&format!("{add}{}", at("40s", "fail ct:7"))).2.contains("by then"));
    let late = format!("{add}{}{}", at("60s", "remove ct:7"), at("70s", "fail ct:7"));
    assert!(mistake(&late).2.contains("was removed at 60s"));
    // A rule may speak of what is added later.
    assert!(toml(&format!("{BASE}{add}[[rule]]\nkind = \"apart\"\nresources = [\"vm:101\", \"ct:7\"]\n")).is_ok());
}

#[test]
fn nothing_happens_after_the_end() {
    let (line, column, what) = mistake("[[event]]\nat = \"201s\"\ndo = \"arm\"\n");
    assert_eq!((line, column), (11, 6));
    assert!(what.contains("the scenario ends at 200s"), "{what}");
    assert!(toml("duration = \"8d\"\n").is_err());
    assert!(toml("duration = \"60000h\"\n[[node]]\nname = \"n\"\n").unwrap_err().to_string().contains("is the most"));
}

#[test]
fn a_cluster_has_nodes_and_not_too_many() {
    assert!(toml("").unwrap_err().to_string().contains("at least one [[node]]"));
    let nodes: String = (0..65).map(|nth| format!("[[node]]\nname = \"n{nth}\"\n")).collect();
    assert!(toml(&nodes).unwrap_err().to_string().contains("65 nodes are too many: 64 is the most"));
}

#[test]
fn keys_that_belong_to_another_kind_of_rule_are_refused() {
    let rule = "[[rule]]\nkind = \"together\"\nresources = [\"vm:101\"]\n";
    assert!(mistake(&format!("{rule}nodes = {{ node1 = 1 }}\n")).2.contains("\"node-affinity\" alone"));
    assert!(mistake(&format!("{rule}strict = false\n")).2.contains("always hold"));
    assert!(toml(&format!("{BASE}{rule}strict = true\n")).is_ok());
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let error = toml("[[node]]\nname = \n").unwrap_err();
    assert_eq!((error.all()[0].line, error.all()[0].column), (2, 8), "{error}");
    let error = toml("profile = \"fast\"\nprofile = \"fast\"\n").unwrap_err();
    assert_eq!(error.all()[0].line, 2, "{error}");
}

#[test]
fn mistakes_in_json_have_a_place_as_well() {
    let text = "{\"node\": [{\"name\": \"node1\",\n  \"bmc\": \"stukc\"}],\n \"event\": [\n{\"at\": \"1s\", \"do\": \"isolate  nöde1\"}]}";
    let error = json(text).unwrap_err();
    let places: Vec<_> = error.all().iter().map(|mistake| (mistake.line, mistake.column)).collect();
    assert_eq!(places, [(2, 10), (4, 30)], "{error}");
    let twice = json("{\"node\": [{\"name\": \"n\", \"name\": \"m\"}]}").unwrap_err();
    assert!(twice.to_string().contains("s.json:1:25: the key \"name\" is here twice"), "{twice}");
    let broken = json("{\"node\": [\n{\"name\" \"n\"}]}").unwrap_err();
    assert_eq!((broken.all()[0].line, broken.all()[0].column), (2, 9), "{broken}");
    for wrong in ["", "[]", "3", "null", "{\"node\": [{\"name\": null}]}", "{\"duration\": \"\\ud800\"}", "{} {}"] {
        assert!(json(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_word_that_is_written_with_escapes_is_found_where_its_text_is() {
    let error = json("{\"node\": [{\"name\": \"n\"}], \"event\": [{\"at\": \"1s\", \"do\": \"isolate\\u0020m\"}]}")
        .unwrap_err();
    assert!(error.to_string().contains("no machine \"m\""), "{error}");
}

#[test]
fn deep_nesting_is_a_mistake_and_no_crash() {
    let deep = format!("{{\"node\": {}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(json(&deep).unwrap_err().to_string().contains("nested"));
    assert!(toml(&format!("node = {}{}", "[".repeat(50_000), "]".repeat(50_000))).is_err());
}

#[test]
fn files_are_read_by_their_ending() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("s.toml"), BASE).unwrap();
    assert!(Scenario::load(&path("s.toml")).is_ok());
    std::fs::write(path("s.yaml"), BASE).unwrap();
    assert!(Scenario::load(&path("s.yaml")).unwrap_err().to_string().contains("ends in .toml or .json"));
    std::fs::write(path("bad.toml"), b"profile = \"fast\"\n# \xc3\xa4 \xff\n").unwrap();
    assert!(Scenario::load(&path("bad.toml")).unwrap_err().to_string().contains("bad.toml:2:5: this is not UTF-8"));
    assert!(Scenario::load(&path("none.toml")).unwrap_err().to_string().contains("reading"));
    std::fs::write(path("huge.json"), vec![b' '; 5 << 20]).unwrap();
    assert!(matches!(Scenario::load(&path("huge.json")), Err(ScenarioError::Size { .. })));
}

#[test]
fn every_key_word_and_event_is_documented() {
    let page = include_str!("../../../../docs/simulate.md");
    let keys = [
        &shape::SCENARIO[..],
        &shape::NODE,
        &shape::RESOURCE,
        &shape::FAILS,
        &shape::RULE,
        &shape::EVENT,
        &shape::ORDER_DELAY,
    ];
    for key in keys.into_iter().flatten() {
        assert!(page.contains(&format!("`{key}`")), "the key {key} is not documented");
    }
    for usage in Usage::ALL {
        assert!(page.contains(&format!("| `{}`", usage.to_string().replace('|', "\\|"))), "{usage} is not documented");
    }
}
