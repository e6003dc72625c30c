//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tiebreaker_member::{Address, ClusterName as LinkCluster};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::resource::Requested;

use crate::demo::DemoArgs;
use crate::failure::EXIT_CODES;

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
    /// Adds, changes, removes and lists resources.
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Fences a node: its power is cut, and its resources are recovered elsewhere.
    Fence(FenceArgs),
    /// Why a resource stands as it does.
    Why {
        /// Which.
        resource: ResourceName,
    },
    /// The timeline of decisions, oldest first.
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
    /// Sets the cluster's times.
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
        #[arg(value_name = "FILE")]
        file: PathBuf,
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
        spec: SpecArgs,
        /// What is wanted of it.
        #[arg(long, default_value = "started", value_parser = parse_requested, value_name = "started|stopped")]
        state: Requested,
    },
    /// Changes a resource; what isn't named stays. Also clears its error.
    Set {
        /// Its name.
        name: ResourceName,
        #[command(flatten)]
        driver: DriverArgs,
        #[command(flatten)]
        spec: SpecArgs,
        /// What is wanted of it.
        #[arg(long, value_parser = parse_requested, value_name = "started|stopped")]
        state: Option<Requested>,
    },
    /// Ends the protection of a resource, and leaves it as it is.
    Remove {
        /// Its name.
        name: ResourceName,
    },
    /// Lists the resources.
    List,
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
    /// An OCF agent, for instance ocf:heartbeat:IPaddr2.
    #[arg(long, value_name = "ocf:PROVIDER:AGENT", conflicts_with = "start")]
    pub ocf: Option<String>,
    /// A parameter of the OCF agent; may be given several times.
    #[arg(long = "param", value_name = "KEY=VALUE", requires = "ocf")]
    pub params: Vec<String>,
}

/// The limits of a resource.
#[derive(Args, Debug, Clone, Default)]
pub struct SpecArgs {
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
}

/// What to do with members.
#[derive(Subcommand, Debug)]
pub enum MemberCommand {
    /// Removes a member; its certificate is refused at once. A node that is away must be fenced first.
    Remove {
        /// Whom.
        name: MemberName,
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

fn parse_requested(text: &str) -> Result<Requested, String> {
    match text {
        "started" => Ok(Requested::Started),
        "stopped" => Ok(Requested::Stopped),
        _ => Err("use started or stopped".to_owned()),
    }
}

/// Seconds with an optional fraction, as milliseconds.
fn parse_seconds(text: &str) -> Result<u64, String> {
    let bad = || "use a number of seconds, for instance 10 or 0.5".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
    whole.checked_mul(1000).and_then(|ms| ms.checked_add(fraction)).ok_or_else(bad)
}

/// The program that a binary of this name acts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persona {
    /// The operator's command.
    Operator,
    /// `tiebreaker-server`.
    Server,
    /// `tiebreaker-agent`.
    Agent,
    /// The demo's machine.
    Chassis,
}

/// The name of the demo's machine, by which this binary plays it.
pub const CHASSIS: &str = "tiebreaker-demo-chassis";

impl Persona {
    /// Whom a command line asks for, by the program's name or else by its first word; and the command line for it.
    #[must_use]
    pub fn of(mut args: Vec<OsString>) -> (Self, Vec<OsString>) {
        let name = args.first().map(PathBuf::from).and_then(|path| path.file_name().map(OsString::from));
        match name.as_deref().and_then(|name| name.to_str()) {
            Some("tiebreaker-server") => return (Self::Server, args),
            Some("tiebreaker-agent") => return (Self::Agent, args),
            Some(CHASSIS) => return (Self::Chassis, args),
            Some(_) | None => {}
        }
        let persona = match args.get(1).and_then(|word| word.to_str()) {
            Some("server") => Self::Server,
            // The agent calls itself again through /proc/self/exe, where the name of the file says nothing.
            Some("agent") => Self::Agent,
            Some(_) | None => return (Self::Operator, args),
        };
        args.remove(0);
        args[0] = format!("tiebreaker-{}", args[0].to_string_lossy()).into();
        (persona, args)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
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
        assert!(parse("tiebreaker fence").is_err());
        assert!(parse("tiebreaker fence NODE").is_err(), "names are in lower case");
    }

    #[test]
    fn drivers_exclude_each_other_and_need_all_their_parts() {
        assert!(parse("tiebreaker resource add r --start /a --stop /b --status /c").is_ok());
        assert!(parse("tiebreaker resource add r --ocf ocf:heartbeat:Dummy --param a=b --param c=d").is_ok());
        assert!(parse("tiebreaker resource add r --start /a --stop /b").is_err());
        assert!(parse("tiebreaker resource add r --start /a --stop /b --status /c --ocf ocf:x:y").is_err());
        assert!(parse("tiebreaker resource add r --param a=b").is_err());
    }

    #[test]
    fn a_scenario_is_a_file() {
        let Ok(Cli { command: Command::Simulate { file }, json: true, .. }) =
            parse("tiebreaker simulate s.toml --json")
        else {
            panic!("no simulation")
        };
        assert_eq!(file, PathBuf::from("s.toml"));
        assert!(parse("tiebreaker simulate").is_err());
    }

    #[test]
    fn one_target_at_a_time() {
        assert!(parse("tiebreaker --data /d status --json").is_ok());
        assert!(parse("tiebreaker status --connect pi.lan --identity /i").is_ok());
        assert!(parse("tiebreaker --data /d --connect pi.lan status").is_err());
        assert!(parse("tiebreaker --data /d --socket /s status").is_err());
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(parse_seconds("10"), Ok(10_000));
        assert_eq!(parse_seconds("0.25"), Ok(250));
        for bad in ["", ".", "1.", "-1", "1.0000", "1e3", "99999999999999999999"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_of_the_program_says_whom_it_plays() {
        let of = |line: &str| {
            let (persona, args) = Persona::of(line.split_whitespace().map(OsString::from).collect());
            (persona, args.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(of("/usr/bin/tiebreaker-server run").0, Persona::Server);
        assert_eq!(of("tiebreaker-agent").0, Persona::Agent);
        assert_eq!(of(CHASSIS).0, Persona::Chassis);
        assert_eq!(of("/proc/self/exe agent run --data /d"), (Persona::Agent, "tiebreaker-agent run --data /d".into()));
        assert_eq!(of("tiebreaker server init"), (Persona::Server, "tiebreaker-server init".into()));
        assert_eq!(
            of("target/release/tiebreaker status"),
            (Persona::Operator, "target/release/tiebreaker status".into())
        );
        assert_eq!(of("").0, Persona::Operator);
    }
}
