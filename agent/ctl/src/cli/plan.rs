//! Planned work: `maintenance`, `plan`, `disarm`, `arm`, `update`.

use std::time::Duration;

use clap::{Args, Subcommand};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::state::DisarmMode;

use super::units::{parse_duration, parse_switch};

/// Whether to wait for the end of it.
#[derive(Args, Debug, Clone, Copy)]
pub struct WaitArgs {
    /// Wait until it is done, and tell how it goes on meanwhile.
    #[arg(long)]
    pub wait: bool,
    /// Wait so long at most.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30m", requires = "wait")]
    pub within: Duration,
}

/// Which node to empty.
#[derive(Args, Debug)]
pub struct MaintenanceArgs {
    /// The node.
    pub node: MemberName,
    /// on empties the node, off lets it be used again.
    #[arg(value_name = "on|off", value_parser = parse_switch, action = clap::ArgAction::Set)]
    pub on: bool,
    /// Also where the failures that shall be tolerable wouldn't be any more; the timeline keeps that.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What to plan.
#[derive(Subcommand, Debug)]
pub enum PlanCommand {
    /// What emptying a node would move, what would come back, and what is in the way. Nothing is done.
    Drain {
        /// The node.
        node: MemberName,
    },
}

/// How to disarm.
#[derive(Args, Debug)]
pub struct DisarmArgs {
    #[command(flatten)]
    pub mode: ModeArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What disarming means for the resources.
#[derive(Args, Debug, Clone, Copy)]
#[group(required = true, multiple = false)]
pub struct ModeArgs {
    /// The resources stay as they are, and are taken up again where they were.
    #[arg(long)]
    pub freeze: bool,
    /// The cluster forgets where they are, and looks everywhere when it is armed again.
    #[arg(long)]
    pub ignore: bool,
}

impl ModeArgs {
    /// The mode.
    #[must_use]
    pub const fn mode(self) -> DisarmMode {
        if self.ignore { DisarmMode::Ignore } else { DisarmMode::Freeze }
    }
}

/// How to update all nodes, one at a time.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// The command that updates a node, run here without a shell; {node} in it stands for the node's name.
    #[arg(long, value_name = "COMMAND")]
    pub run: String,
    /// The nodes in their order, separated by commas [default: all, by name].
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    pub nodes: Vec<MemberName>,
    /// The command reboots the node: it is well only after a new boot.
    #[arg(long)]
    pub reboots: bool,
    /// Also where the failures that shall be tolerable aren't while a node is empty; the timeline keeps that.
    #[arg(long)]
    pub force: bool,
    /// Each step may take so long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30m")]
    pub within: Duration,
    /// A node has to be well for so long without a break before it is used again.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub settle: Duration,
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn maintenance_is_on_or_off() {
        let Ok(Cli { command: Command::Maintenance(args), .. }) = parse("tiebreaker maintenance n1 on --wait") else {
            panic!("not taken")
        };
        assert!(args.on && args.wait.wait && !args.force);
        assert_eq!(args.wait.within, Duration::from_secs(1800));
        assert!(parse("tiebreaker maintenance n1 off").is_ok());
        for wrong in ["", "on", "n1", "n1 yes", "n1 on --within 2"] {
            assert!(parse(&format!("tiebreaker maintenance {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn disarming_says_what_becomes_of_the_resources() {
        let mode = |words: &str| match parse(&format!("tiebreaker disarm {words}")) {
            Ok(Cli { command: Command::Disarm(args), .. }) => Some(args.mode.mode()),
            Ok(_) | Err(_) => None,
        };
        assert_eq!(mode("--freeze"), Some(DisarmMode::Freeze));
        assert_eq!(mode("--ignore --wait"), Some(DisarmMode::Ignore));
        assert_eq!((mode(""), mode("--freeze --ignore")), (None, None));
    }

    #[test]
    fn a_plan_can_be_asked_for_alone_or_for_a_drain() {
        assert!(matches!(parse("tiebreaker plan").unwrap().command, Command::Plan { command: None }));
        assert!(parse("tiebreaker plan drain n1").is_ok());
        assert!(parse("tiebreaker plan drain").is_err());
    }

    #[test]
    fn an_update_has_a_command() {
        assert!(parse("tiebreaker update --run 'ssh {node} true' --nodes n2,n1 --settle 5s").is_ok());
        assert!(parse("tiebreaker update").is_err());
    }
}
