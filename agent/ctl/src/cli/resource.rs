//! `tiebreaker resource`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::resource::{Class, Requested};

use super::units::{OrNone, parse_cpus, parse_duration, parse_memory, parse_seconds};

const USAGE_MIGRATE: &str = "tiebreaker resource migrate [OPTIONS] NAME NODE
       tiebreaker resource migrate [OPTIONS] --from NODE --to NODE [NAME]...";
const USAGE_RELOCATE: &str = "tiebreaker resource relocate [OPTIONS] NAME NODE
       tiebreaker resource relocate [OPTIONS] --from NODE --to NODE [NAME]...";
const STATES: &str = "started|stopped|disabled|ignored";

/// What to do with resources.
#[derive(Subcommand, Debug)]
pub enum ResourceCommand {
    /// Puts a resource under protection.
    Add {
        /// Its name.
        name: ResourceName,
        #[command(flatten)]
        driver: DriverArgs,
        #[command(flatten)]
        spec: Box<SpecArgs>,
        /// What is wanted of it.
        #[arg(long, default_value = "started", value_name = STATES)]
        state: Requested,
        /// Where it shall be first, if that is possible.
        #[arg(long)]
        node: Option<MemberName>,
        /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
        #[arg(long)]
        force: bool,
    },
    /// Changes a resource; what isn't named stays.
    Set {
        /// Its name.
        name: ResourceName,
        #[command(flatten)]
        driver: DriverArgs,
        #[command(flatten)]
        spec: Box<SpecArgs>,
        /// What is wanted of it; `disabled` clears its error.
        #[arg(long, value_name = STATES)]
        state: Option<Requested>,
        /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
        #[arg(long)]
        force: bool,
    },
    /// Ends the protection of a resource, and leaves it as it is.
    Remove {
        /// Its name.
        name: ResourceName,
    },
    /// Lists the resources.
    List,
    /// Moves a resource live to a node, and what belongs with it; or many, one after another.
    #[command(override_usage = USAGE_MIGRATE)]
    Migrate(MoveArgs),
    /// Stops a resource where it is and starts it on a node, and what belongs with it; or many, one after another.
    #[command(override_usage = USAGE_RELOCATE)]
    Relocate(MoveArgs),
    /// Locks a resource: the cluster neither starts, stops nor moves it until it is unlocked.
    Lock {
        /// Which.
        name: ResourceName,
        /// Why, for those who wonder.
        #[arg(long)]
        reason: String,
    },
    /// Takes the lock off a resource.
    Unlock {
        /// Which.
        name: ResourceName,
    },
}

/// What is to move, and where to.
#[derive(Args, Debug)]
pub struct MoveArgs {
    /// A resource and the node that it goes to; with --from and --to, what is to move, and all that is there if nothing is
    /// named.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Moves many away from this node: as many at once as planned moves may be under way (`tiebreaker set moves`), and tells
    /// how it goes on until the last one is over. What has begun is finished when this command is interrupted.
    #[arg(long, value_name = "NODE", requires = "to")]
    pub from: Option<MemberName>,
    /// The node that they go to.
    #[arg(long, value_name = "NODE", requires = "from")]
    pub to: Option<MemberName>,
    /// So many of them at once at most, where that is fewer.
    #[arg(long, value_name = "N", requires = "from", value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: Option<u16>,
    /// Begin no more after this long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30m", requires = "from")]
    pub within: Duration,
    /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
    #[arg(long)]
    pub force: bool,
}

/// What is to move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Moving {
    /// One resource.
    One {
        /// Which.
        name: ResourceName,
        /// Where to.
        to: MemberName,
    },
    /// Many.
    Many {
        /// Which; all that is there, if none is named.
        names: BTreeSet<ResourceName>,
        /// Where from.
        from: MemberName,
        /// Where to.
        to: MemberName,
    },
}

impl MoveArgs {
    /// What is to move.
    pub fn moving(&self) -> Result<Moving, String> {
        let resource = |name: &String| ResourceName::new(name).map_err(|error| error.to_string());
        match (&self.from, &self.to, self.names.as_slice()) {
            (Some(from), Some(to), _) if from == to => Err(format!("from {from} to {to} is no way to go")),
            (Some(from), Some(to), names) => {
                let names = names.iter().map(resource).collect::<Result<_, _>>()?;
                Ok(Moving::Many { names, from: from.clone(), to: to.clone() })
            }
            (_, _, [name, to]) => {
                let to = MemberName::new(to).map_err(|error| error.to_string())?;
                Ok(Moving::One { name: resource(name)?, to })
            }
            (_, _, _) => Err("name one resource and the node that it goes to, or say --from NODE --to NODE".to_owned()),
        }
    }
}

/// How a resource is operated.
#[derive(Args, Debug, Clone, Default)]
pub struct DriverArgs {
    /// The command that starts it and returns; quotes as in a shell, the program by its absolute path.
    #[arg(long, value_name = "COMMAND", requires_all = ["stop", "status"])]
    pub start: Option<String>,
    /// The command that stops it and returns.
    #[arg(long, value_name = "COMMAND", requires = "start")]
    pub stop: Option<String>,
    /// The command that tells whether it runs: exit code 0 means running, 3 stopped, anything else unknown.
    #[arg(long, value_name = "COMMAND", requires = "start")]
    pub status: Option<String>,
    /// The command that moves it live to the node in TIEBREAKER_TARGET, and returns when that is over.
    #[arg(long, value_name = "COMMAND", conflicts_with = "ocf")]
    pub migrate: Option<String>,
    /// An OCF agent, for instance ocf:heartbeat:IPaddr2.
    #[arg(long, value_name = "ocf:PROVIDER:AGENT", conflicts_with = "start")]
    pub ocf: Option<String>,
    /// A parameter of the OCF agent; may be given several times.
    #[arg(long = "param", value_name = "KEY=VALUE", requires = "ocf")]
    pub params: Vec<String>,
}

/// What a resource is worth, what it needs, and its limits.
#[derive(Args, Debug, Clone, Default)]
pub struct SpecArgs {
    /// How much the cluster does for it [default: protected].
    #[arg(long, value_parser = parse_class, value_name = "protected|best-effort|unprotected")]
    pub class: Option<Class>,
    /// Its place in the start order of its class, lowest first [default: 0].
    #[arg(long, value_name = "N")]
    pub order: Option<u32>,
    /// Memory that it needs, a hard limit of where it fits, for instance 4GiB; or none.
    #[arg(long, value_parser = parse_memory, value_name = "SIZE")]
    pub memory: Option<OrNone<u64>>,
    /// Processors that it needs, which placement weighs, for instance 1.5; or none.
    #[arg(long, value_parser = parse_cpus, value_name = "N")]
    pub cpus: Option<OrNone<u64>>,
    /// It moves back to a better node as soon as that can have it.
    #[arg(long, overrides_with = "no_failback")]
    pub failback: bool,
    /// It stays where it runs.
    #[arg(long)]
    pub no_failback: bool,
    /// It can move live.
    #[arg(long, overrides_with = "no_live")]
    pub live: bool,
    /// It can't move live.
    #[arg(long)]
    pub no_live: bool,
    /// Seconds that a live migration may take [default: 600].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub migrate_timeout_s: Option<u64>,
    /// The only nodes that can run it, separated by commas; an empty text means all.
    #[arg(long, value_name = "NODE,…", value_parser = parse_nodes)]
    pub only_on: Option<NodeSet>,
    /// Restarts on the same node before it is moved [default: 1].
    #[arg(long, value_name = "N")]
    pub max_restart: Option<u32>,
    /// Moves after failures before it is given up [default: 1].
    #[arg(long, value_name = "N")]
    pub max_relocate: Option<u32>,
    /// Seconds between two probes of the running resource [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub monitor_s: Option<u64>,
    /// Seconds that a probe may take [default: 20].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub monitor_timeout_s: Option<u64>,
    /// Seconds that a start may take [default: 60].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub start_timeout_s: Option<u64>,
    /// Seconds that a stop may take [default: 60].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub stop_timeout_s: Option<u64>,
}

impl SpecArgs {
    /// Whether failback was switched, and how.
    #[must_use]
    pub const fn wants_failback(&self) -> Option<bool> {
        switched(self.failback, self.no_failback)
    }

    /// Whether live migration was switched, and how.
    #[must_use]
    pub const fn wants_live(&self) -> Option<bool> {
        switched(self.live, self.no_live)
    }
}

const fn switched(on: bool, off: bool) -> Option<bool> {
    match (on, off) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// Nodes by name.
pub type NodeSet = BTreeSet<MemberName>;

/// A class by its name.
pub fn parse_class(text: &str) -> Result<Class, String> {
    Class::ALL
        .into_iter()
        .find(|class| class.to_string() == text)
        .ok_or_else(|| "use protected, best-effort or unprotected".to_owned())
}

fn parse_nodes(text: &str) -> Result<NodeSet, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| MemberName::new(name).map_err(|error| error.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::super::{Cli, Command};
    use super::*;

    fn set(line: &str) -> SpecArgs {
        let Ok(Cli { command: Command::Resource(ResourceCommand::Set { spec, .. }), .. }) = parse(line) else {
            panic!("{line} is not taken")
        };
        *spec
    }

    #[test]
    fn drivers_exclude_each_other_and_need_all_their_parts() {
        assert!(parse("tiebreaker resource add r --start /a --stop /b --status /c").is_ok());
        assert!(parse("tiebreaker resource add r --start /a --stop /b --status /c --migrate /d --live").is_ok());
        assert!(parse("tiebreaker resource add r --ocf ocf:heartbeat:Dummy --param a=b --param c=d").is_ok());
        assert!(parse("tiebreaker resource add r --start /a --stop /b").is_err());
        assert!(parse("tiebreaker resource add r --start /a --stop /b --status /c --ocf ocf:x:y").is_err());
        assert!(parse("tiebreaker resource add r --ocf ocf:x:y --migrate /d").is_err());
        assert!(parse("tiebreaker resource add r --param a=b").is_err());
    }

    #[test]
    fn one_resource_moves_to_a_node_and_many_from_one_to_another() {
        let moving = |line: &str| match parse(&format!("tiebreaker resource {line}")) {
            Ok(Cli { command: Command::Resource(ResourceCommand::Migrate(args)), .. })
            | Ok(Cli { command: Command::Resource(ResourceCommand::Relocate(args)), .. }) => args.moving(),
            other => Err(format!("{other:?}")),
        };
        let node = |name: &str| MemberName::new(name).unwrap();
        let web = || ResourceName::new("web").unwrap();
        assert_eq!(moving("migrate web n2"), Ok(Moving::One { name: web(), to: node("n2") }));
        let many = |names: &[&str]| Moving::Many {
            names: names.iter().map(|name| ResourceName::new(name).unwrap()).collect(),
            from: node("n1"),
            to: node("n2"),
        };
        assert_eq!(moving("relocate --from n1 --to n2"), Ok(many(&[])));
        assert_eq!(moving("migrate web db --from n1 --to n2 --at-once 2 --within 5m"), Ok(many(&["web", "db"])));
        for wrong in [
            "migrate web",
            "migrate web n2 n3",
            "migrate web N2",
            "migrate --from n1",
            "migrate --from n1 --to n1",
            "migrate web n2 --at-once 2",
            "migrate --from n1 --to n2 --at-once 0",
            "migrate 'we b' --from n1 --to n2",
        ] {
            assert!(moving(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_not_named_is_told_from_what_was_switched_off() {
        let nothing = set("tiebreaker resource set r");
        assert_eq!((nothing.wants_failback(), nothing.wants_live(), nothing.only_on), (None, None, None));
        let off = set("tiebreaker resource set r --no-failback --no-live --only-on '' --memory none");
        assert_eq!((off.wants_failback(), off.wants_live()), (Some(false), Some(false)));
        assert_eq!((off.only_on, off.memory), (Some(NodeSet::new()), Some(OrNone(None))));
        let on = set("tiebreaker resource set r --failback --live --only-on n1,n2 --class best-effort --order 3");
        assert_eq!((on.wants_failback(), on.wants_live()), (Some(true), Some(true)));
        assert_eq!(on.only_on.map(|nodes| nodes.len()), Some(2));
        assert_eq!((on.class, on.order), (Some(Class::BestEffort), Some(3)));
    }

    #[test]
    fn every_state_can_be_asked_for_and_no_other() {
        for state in Requested::ALL {
            assert!(parse(&format!("tiebreaker resource set r --state {state}")).is_ok(), "{state}");
        }
        let wrong = parse("tiebreaker resource set r --state running").unwrap_err().to_string();
        assert!(wrong.contains("disabled or ignored"), "{wrong}");
        assert!(parse("tiebreaker resource set r --class best").is_err());
        assert!(parse("tiebreaker resource set r --only-on N1").is_err(), "names are in lower case");
        assert!(parse("tiebreaker resource lock r").is_err(), "a lock has its reason");
    }
}
