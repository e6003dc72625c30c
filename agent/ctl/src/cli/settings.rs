//! `tiebreaker set` and `tiebreaker votes`.

use std::time::Duration;

use clap::Subcommand;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::placement::score::Scoring;
use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::resource::Class;
use tiebreaker_pipeline::state::ShutdownPolicy;

use super::resource::parse_class;
use super::units::{OrNone, parse_count_or_none, parse_duration, parse_duration_or_none, parse_switch};

/// What to set.
#[derive(Subcommand, Debug)]
pub enum SetCommand {
    /// Shows all settings, with their defaults.
    Show,
    /// What a planned shutdown of a node means for its resources.
    ///
    /// conditional: a reboot freezes them, a power-off fails over. freeze: they wait for the node. failover: they are
    /// stopped and started elsewhere. migrate: they move away first, live where they can.
    ShutdownPolicy {
        /// The policy.
        #[arg(value_name = "conditional|freeze|failover|migrate", value_parser = parse_policy)]
        policy: ShutdownPolicy,
    },
    /// How nodes are compared where the rules leave a choice.
    ///
    /// basic: by the number of resources. static: by the processors and memory that resources were promised. dynamic: by
    /// what they use.
    Placement {
        /// The mode.
        #[arg(value_name = "basic|static|dynamic", value_parser = parse_scoring)]
        mode: Scoring,
    },
    /// Whether resources move by themselves to even out the load.
    Rebalance {
        /// on or off.
        #[arg(value_name = "on|off", value_parser = parse_switch, action = clap::ArgAction::Set)]
        on: bool,
    },
    /// How many node failures the cluster shall be able to lose. What would break that is refused.
    Tolerate {
        /// How many, or none.
        #[arg(value_name = "N|none", value_parser = parse_count_or_none)]
        failures: OrNone<u32>,
    },
    /// How many planned moves may be under way at once.
    Moves {
        /// How many, 1 to 8; or none for the default.
        #[arg(value_name = "N|none", value_parser = parse_count_or_none)]
        most: OrNone<u32>,
        /// Also more than 8.
        #[arg(long)]
        force: bool,
    },
    /// Seconds from one start order of a class to the next.
    OrderDelay {
        /// Which class.
        #[arg(value_name = "protected|best-effort|unprotected", value_parser = parse_class)]
        class: Class,
        /// How long.
        seconds: u32,
    },
    /// After how long without a failure a resource's failures are forgotten.
    FailuresAge {
        /// How long, from 1m to 720h; or none for the default.
        #[arg(value_name = "TIME|none", value_parser = parse_duration_or_none)]
        age: OrNone<Duration>,
    },
    /// The cluster's times.
    Profile {
        /// fast, balanced or patient.
        profile: Profile,
    },
    /// Seconds of good health after which the appliance takes the lead back from a node.
    Takeback {
        /// How long.
        seconds: u64,
    },
}

/// What to do with votes.
#[derive(Subcommand, Debug)]
pub enum VotesCommand {
    /// Leaves out the votes of members for a while.
    ///
    /// A majority is then counted without them, so work on them doesn't cost the cluster its majority. Until they are
    /// expected again the cluster survives fewer failures of the others. It ends by itself, after a day at most.
    ExpectWithout {
        /// Whose votes.
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<MemberName>,
        /// For how long, 24h at most.
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        span: Duration,
    },
    /// Expects all votes again.
    ExpectAll,
}

fn parse_policy(text: &str) -> Result<ShutdownPolicy, String> {
    ShutdownPolicy::ALL
        .into_iter()
        .find(|policy| policy.word() == text)
        .ok_or_else(|| "use conditional, freeze, failover or migrate".to_owned())
}

fn parse_scoring(text: &str) -> Result<Scoring, String> {
    Scoring::ALL
        .into_iter()
        .find(|mode| mode.to_string() == text)
        .ok_or_else(|| "use basic, static or dynamic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn settings_take_what_they_name_and_nothing_else() {
        for good in [
            "set show",
            "set shutdown-policy migrate",
            "set placement dynamic",
            "set rebalance on",
            "set tolerate 1",
            "set tolerate none",
            "set moves 12 --force",
            "set moves none",
            "set order-delay best-effort 10",
            "set failures-age 30m",
            "set failures-age none",
            "set profile fast",
            "set takeback 120",
            "votes expect-without n1 n2 --for 2h",
            "votes expect-all",
        ] {
            assert!(parse(&format!("tiebreaker {good}")).is_ok(), "{good}");
        }
        for wrong in [
            "set",
            "set shutdown-policy never",
            "set placement",
            "set rebalance maybe",
            "set tolerate -1",
            "set order-delay some 1",
            "set failures-age 30",
            "votes expect-without --for 2h",
            "votes expect-without n1",
            "votes expect-without n1 --for 2",
        ] {
            assert!(parse(&format!("tiebreaker {wrong}")).is_err(), "{wrong}");
        }
    }
}
