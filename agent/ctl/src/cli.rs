//! The command line.

mod persona;
mod plan;
mod resource;
mod rule;
mod settings;
mod units;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tiebreaker_member::{Address, ClusterName as LinkCluster};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::profile::Profile;

use crate::demo::DemoArgs;
use crate::failure::EXIT_CODES;

pub use persona::{CHASSIS, Persona};
pub use plan::{DisarmArgs, MaintenanceArgs, PlanCommand, UpdateArgs, WaitArgs};
pub use resource::{DriverArgs, MoveArgs, Moving, ResourceCommand, SpecArgs};
pub use rule::RuleCommand;
pub use settings::{SetCommand, VotesCommand};
pub use units::{OrNone, show_duration, show_memory};

/// Looks at a Tiebreaker cluster and changes it.
#[derive(Parser, Debug)]
#[command(name = "tiebreaker", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print JSON instead of text: one document per answer.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Whom to ask.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Whom to ask")]
pub struct TargetArgs {
    /// Ask the daemon of this machine whose data folder this is.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Ask the daemon behind this Unix socket.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "data")]
    pub socket: Option<PathBuf>,
    /// Ask this member over the network; needs an identity, see `tiebreaker login`.
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with_all = ["data", "socket"])]
    pub connect: Option<Address>,
    /// The folder with the operator's identity [default: ~/.config/tiebreaker].
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["data", "socket"])]
    pub identity: Option<PathBuf>,
    /// Which cluster, where the daemon serves several.
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<LinkCluster>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Members, leases, watchdogs, fencing and resources at a glance.
    Status {
        /// Show it anew every second, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Adds, changes, moves, locks, removes and lists resources.
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Says where resources belong: on which nodes, together, apart.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Empties a node for work on it, or lets it be used again.
    Maintenance(MaintenanceArgs),
    /// How many node failures the cluster survives, and what emptying a node would do.
    Plan {
        #[command(subcommand)]
        command: Option<PlanCommand>,
    },
    /// Updates all nodes, one at a time, and stops at the first doubt.
    Update(UpdateArgs),
    /// Lets the whole cluster stop acting: every watchdog is released, nothing is started, stopped or moved.
    Disarm(DisarmArgs),
    /// Lets the cluster act again, if every node can keep its promise.
    Arm {
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Sets and shows the cluster's settings.
    #[command(subcommand)]
    Set(SetCommand),
    /// Says whose votes are expected.
    #[command(subcommand)]
    Votes(VotesCommand),
    /// Fences a node: its power is cut, and its resources are recovered elsewhere.
    Fence(FenceArgs),
    /// Why a resource stands as it does.
    Why {
        /// Which.
        resource: ResourceName,
    },
    /// The timeline: what the cluster decided, and what each member did and saw; oldest first.
    Log {
        /// How many of the last lines.
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        lines: u16,
    },
    /// Changes the membership.
    #[command(subcommand)]
    Member(MemberCommand),
    /// Changes who may operate the cluster.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Sets the cluster's times; the same as `set profile`.
    Profile {
        /// fast, balanced or patient.
        profile: Profile,
    },
    /// Fetches an operator's identity with a token made by `tiebreaker-server token create --kind operator`.
    Login(LoginArgs),
    /// Runs a scenario in virtual time over the code that decides in a real cluster, and tells what came of it.
    ///
    /// docs/simulate.md documents every key and every event.
    Simulate {
        /// The scenario, TOML or JSON by its ending.
        #[arg(value_name = "FILE", required_unless_present = "from_cluster")]
        file: Option<PathBuf>,
        /// A likeness of the cluster as it stands instead of a file: its nodes, resources and rules.
        #[arg(long, conflicts_with = "file", requires = "doing")]
        from_cluster: bool,
        /// What happens to it, for instance "power-off node1"; may be given several times.
        #[arg(long = "do", value_name = "EVENT", requires = "from_cluster")]
        doing: Vec<String>,
    },
    /// Plays a failure on this machine, with an appliance and two nodes as processes, and checks what comes of it.
    Demo(DemoArgs),
    /// Summarises the JSON documents of several demos, read from standard input.
    #[command(hide = true)]
    DemoBench,
    /// The demo's protected service.
    #[command(hide = true, subcommand)]
    DemoCounter(crate::demo::CounterCommand),
}

/// Whom to fence.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct FenceArgs {
    /// The node.
    #[arg(required = true)]
    pub node: Option<MemberName>,
    /// Don't ask.
    #[arg(long)]
    pub yes: bool,
    #[command(subcommand)]
    pub command: Option<FenceCommand>,
}

/// More about fences.
#[derive(Subcommand, Debug)]
pub enum FenceCommand {
    /// Gives your word that the open fence of a node is carried out: that you have seen the machine without power.
    Confirm {
        /// The node.
        node: MemberName,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Holds the switching of power in the whole cluster: no power device is told to switch anything until `fence release`,
    /// not even to fence a lost node or to give it power again. A command that had begun already is carried out.
    Hold {
        /// Why, for whoever looks at the status.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Ends a hold: what waits for a power device goes on.
    Release,
}

/// What to do with members.
#[derive(Subcommand, Debug)]
pub enum MemberCommand {
    /// Removes a member; its certificate is refused at once. A node that is away must be fenced first.
    Remove {
        /// Whom.
        name: MemberName,
        /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
        #[arg(long)]
        force: bool,
    },
}

/// Changes of who may operate the cluster.
#[derive(Subcommand, Debug)]
pub enum OperatorCommand {
    /// Removes an operator; its certificate is refused at once.
    Remove {
        /// Whom, as `log` shows it.
        name: MemberName,
    },
}

/// How to log in.
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// The appliance.
    pub address: Address,
    /// The token.
    #[arg(long)]
    pub token: String,
    /// The operator's name [default: the user's].
    #[arg(long)]
    pub name: Option<String>,
    /// Where to keep the identity [default: ~/.config/tiebreaker].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Parses a line as a shell would split it.
    pub fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(shlex::split(line).unwrap())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_fence_is_asked_for_or_confirmed() {
        let Ok(Cli { command: Command::Fence(args), .. }) = parse("tiebreaker fence node1 --yes") else {
            panic!("no fence")
        };
        assert!(args.yes && args.command.is_none());
        assert_eq!(args.node.map(|node| node.to_string()).as_deref(), Some("node1"));
        let Ok(Cli { command: Command::Fence(args), .. }) = parse("tiebreaker fence confirm node1") else {
            panic!("no confirmation")
        };
        assert!(matches!(args.command, Some(FenceCommand::Confirm { yes: false, .. })));
        let Ok(Cli { command: Command::Fence(args), .. }) = parse("tiebreaker fence hold --reason cables") else {
            panic!("no hold")
        };
        assert!(matches!(args.command, Some(FenceCommand::Hold { reason: Some(why) }) if why == "cables"));
        assert!(parse("tiebreaker fence release").is_ok());
        assert!(parse("tiebreaker fence").is_err());
        assert!(parse("tiebreaker fence NODE").is_err(), "names are in lower case");
    }

    #[test]
    fn a_scenario_is_a_file() {
        let Ok(Cli { command: Command::Simulate { file, .. }, json: true, .. }) =
            parse("tiebreaker simulate s.toml --json")
        else {
            panic!("no simulation")
        };
        assert_eq!(file, Some(PathBuf::from("s.toml")));
        assert!(parse("tiebreaker simulate").is_err());
        let likeness = "tiebreaker simulate --from-cluster --do 'power-off node1' --do 'power-on node1'";
        let Ok(Cli { command: Command::Simulate { doing, from_cluster: true, .. }, .. }) = parse(likeness) else {
            panic!("no simulation of the cluster")
        };
        assert_eq!(doing, ["power-off node1", "power-on node1"]);
        assert!(parse("tiebreaker simulate --from-cluster").is_err(), "nothing would happen");
        assert!(parse("tiebreaker simulate s.toml --from-cluster --do 'power-off node1'").is_err());
    }

    #[test]
    fn one_target_at_a_time() {
        assert!(parse("tiebreaker --data /d status --json").is_ok());
        assert!(parse("tiebreaker status --connect pi.lan --identity /i").is_ok());
        assert!(parse("tiebreaker --data /d --connect pi.lan status").is_err());
        assert!(parse("tiebreaker --data /d --socket /s status").is_err());
    }
}
