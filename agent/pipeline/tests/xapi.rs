//! XenServer's own planner cases: where its planner finds a plan ours must, and where it refuses ours may only if it is
//! right.
//!
//! The cases are tables of hosts, virtual machines and expected answers in `$TIEBREAKER_CASES/xapi_cases.json`; they
//! aren't part of this repository, and the suite says so when it didn't run.

#![allow(clippy::unwrap_used, reason = "a test that can't go on shall fail")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::planner::{
    Budget, Cluster, Effect, Manner, Memory, Method, Node, Resource, Verdict, evacuate, group_moves, majority_limit,
    plan, tolerance, what_if,
};

const GIB: u64 = 1 << 30;

/// What deals with a case.
type Verify = fn(&Case) -> Verified;

/// The families of cases, and what deals with each.
const FAMILIES: [(&str, Verify); 5] = [
    ("plan_for_n_failures", plan_for_n_failures),
    ("assert_new_vm", assert_new_vm),
    ("max_failures", max_failures),
    ("anti_affinity", anti_affinity),
    ("evac3phase", evacuation_in_three_phases),
];

/// What a case came to.
enum Verified {
    Same,
    /// Ours is better: it found what theirs doesn't.
    Better(String),
}

#[test]
fn a_plan_exists_wherever_xenserver_finds_one() {
    let Ok(directory) = std::env::var("TIEBREAKER_CASES") else {
        println!("NOT RUN: TIEBREAKER_CASES is unset; it names the directory that holds xapi_cases.json");
        return;
    };
    let path = Path::new(&directory).join("xapi_cases.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{} can't be read: {why}", path.display()));
    let cases: Value = serde_json::from_str(&text).unwrap();
    let mut ran = 0;
    for (family, cases) in cases.as_object().unwrap() {
        let (_, verify) = FAMILIES.iter().find(|(name, _)| name == family).unwrap_or_else(|| panic!("{family} is new"));
        for (at, case) in cases.as_array().unwrap().iter().enumerate() {
            let case = Case::read(&format!("{family} {at}"), case);
            match verify(&case) {
                Verified::Same => println!("{}: as XenServer", case.title),
                Verified::Better(how) => println!("{}: better than XenServer: {how}", case.title),
            }
            ran += 1;
        }
    }
    println!("{ran} cases of XenServer");
    assert!(ran > 0, "{} holds no case", path.display());
}

/// One case: hosts with virtual machines, the failures to tolerate, and what is expected.
struct Case {
    title: String,
    cluster: Cluster,
    /// Groups that are better spread.
    spread: Vec<BTreeSet<ResourceName>>,
    tolerate: usize,
    /// How many hosts are in a Corosync cluster and up; none if there is no such cluster.
    clustered: usize,
    json: Value,
}

impl Case {
    fn read(title: &str, json: &Value) -> Self {
        let mut cluster = Cluster::default();
        let mut groups: Vec<(String, BTreeSet<ResourceName>)> = Vec::new();
        for host in json["hosts"].as_array().unwrap() {
            let name = member(&host["name"]);
            let memory = Memory::Bytes(gib(&host["gib"]));
            cluster.nodes.push(Node { name: name.clone(), memory, in_service: true });
            for vm in host["vms"].as_array().unwrap() {
                let mut resource = resource(vm["name"].as_str().unwrap(), gib(&vm["gib"]));
                // One case has two machines of one name; they are two all the same.
                if cluster.resources.iter().any(|known| known.name == resource.name) {
                    resource.name = ResourceName::new(&format!("{}-{name}", resource.name)).unwrap();
                }
                if let Some(group) = vm["group"].as_str() {
                    match groups.iter_mut().find(|(known, _)| known == group) {
                        Some((_, members)) => drop(members.insert(resource.name.clone())),
                        None => groups.push((group.to_owned(), BTreeSet::from([resource.name.clone()]))),
                    }
                }
                resource.node = Some(name.clone());
                cluster.resources.push(resource);
            }
        }
        let number = |key: &str| usize::try_from(json[key].as_u64().unwrap()).unwrap();
        let spread = groups.into_iter().map(|(_, members)| members).collect();
        let (tolerate, clustered) = (number("tolerate"), number("cluster"));
        Self { title: title.to_owned(), cluster, spread, tolerate, clustered, json: json.clone() }
    }

    fn expected(&self) -> &Value {
        &self.json["expected"]
    }
}

fn member(name: &Value) -> MemberName {
    MemberName::new(name.as_str().unwrap()).unwrap()
}

fn gib(value: &Value) -> u64 {
    value.as_u64().unwrap() * GIB
}

fn resource(name: &str, memory_bytes: u64) -> Resource {
    Resource { name: ResourceName::new(name).unwrap(), memory_bytes, node: None, may_run_on: None }
}

fn plan_for_n_failures(case: &Case) -> Verified {
    let answer = plan(&case.cluster, case.tolerate, Budget::default()).unwrap();
    assert_eq!(answer.method, Method::Exact, "{}: a case this small is decided", case.title);
    let theirs = match case.expected().as_str().unwrap() {
        "Plan_exists_for_all_VMs" => true,
        "No_plan_exists" => false,
        other => panic!("{}: {other} is no expectation that this suite knows", case.title),
    };
    match (theirs, answer.verdict) {
        (true, Verdict::Plan) | (false, Verdict::NoPlan(_)) => Verified::Same,
        (false, Verdict::Plan) => Verified::Better("a plan exists".to_owned()),
        (true, refused @ Verdict::NoPlan(_)) | (_, refused @ Verdict::Unproven(_)) => {
            panic!("{}: {refused:?}", case.title)
        }
    }
}

fn assert_new_vm(case: &Case) -> Verified {
    let after = case.cluster.with(resource("new", gib(&case.json["new_vm_gib"])));
    let effect = what_if(&case.cluster, &after, case.tolerate, Budget::default()).unwrap();
    match (case.expected().as_str().unwrap(), effect) {
        ("ok", Effect::Keeps | Effect::NoneToBreak) | ("would_break_failover_plan", Effect::Breaks { .. }) => {
            Verified::Same
        }
        ("would_break_failover_plan", Effect::Keeps) => {
            Verified::Better("a plan exists with the new machine".to_owned())
        }
        (expected, effect) => panic!("{}: {expected}, not {effect:?}", case.title),
    }
}

/// A Corosync cluster is limited by its majority as well; hosts that aren't up in it don't vote.
fn max_failures(case: &Case) -> Verified {
    let hosts = case.cluster.nodes.len();
    let found = tolerance(&case.cluster, Budget::default()).unwrap().failures.unwrap();
    let most = if case.clustered == 0 { hosts } else { majority_limit(hosts, hosts - case.clustered) };
    assert_eq!(Some(u64::try_from(found.min(most)).unwrap()), case.expected().as_u64(), "{}", case.title);
    Verified::Same
}

/// Moves as a set: their order means nothing.
type Moves = BTreeSet<(String, String)>;

fn moves(of: &[(ResourceName, MemberName)]) -> Moves {
    of.iter().map(|(resource, node)| (resource.to_string(), node.to_string())).collect()
}

fn expected_moves(json: &Value) -> Moves {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    json.as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// The host that is evacuated in all cases.
fn drained() -> MemberName {
    MemberName::new("slave1").unwrap()
}

fn anti_affinity(case: &Case) -> Verified {
    for (key, manner) in [("spread_evenly", Manner::SpreadEvenly), ("no_breach", Manner::NoBreach)] {
        let found = group_moves(&case.cluster, &drained(), &case.spread, manner).unwrap();
        assert_eq!(moves(&found), expected_moves(&case.expected()[key]), "{}: {key}", case.title);
    }
    Verified::Same
}

fn evacuation_in_three_phases(case: &Case) -> Verified {
    let found = evacuate(&case.cluster, &drained(), &case.spread, Budget::default()).unwrap();
    assert!(found.stuck.is_empty(), "{}: {found:?}", case.title);
    assert_eq!(moves(&found.moves), expected_moves(case.expected()), "{}", case.title);
    Verified::Same
}
