//! What the demo can be asked to play.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tiebreaker_pipeline::profile::Profile;

/// Options of `tiebreaker demo`.
#[derive(Args, Debug, Clone)]
pub struct DemoArgs {
    /// What to break.
    #[arg(long, value_enum, default_value_t = Fail::NodePower)]
    pub fail: Fail,
    /// The cluster's times: fast, balanced or patient.
    #[arg(long, default_value = "balanced")]
    pub profile: Profile,
    /// Leave the nodes without a BMC, so that only their watchdogs prove anything.
    #[arg(long)]
    pub no_bmc: bool,
    /// Leave it running afterwards, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Report times without judging them, for machines that are busy with other things.
    #[arg(long)]
    pub no_time_limit: bool,
}

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fail {
    /// The node that runs the counter loses its power; its BMC lives on and answers.
    NodePower,
    /// All of its processes die, but its power stays on; its BMC answers.
    NodeCrash,
    /// Its agent is stopped (SIGSTOP), and so pets no watchdog; the counter runs on meanwhile.
    AgentFreeze,
    /// Its agent is killed (kill -9) and started again by its supervisor.
    AgentCrash,
    /// It loses all of its links to other members.
    NodeIsolate,
    /// The link between the two nodes is cut for ten seconds.
    NodeLink,
    /// The appliance is killed (kill -9), and started again once a node leads.
    Appliance,
    /// Nothing.
    None,
}

impl Fail {
    /// The node must be fenced and the counter recovered on the other.
    #[must_use]
    pub const fn fences(self) -> bool {
        match self {
            Self::NodePower | Self::NodeCrash | Self::AgentFreeze | Self::NodeIsolate => true,
            Self::AgentCrash | Self::NodeLink | Self::Appliance | Self::None => false,
        }
    }

    /// The node that runs the counter is the one that breaks.
    #[must_use]
    pub const fn breaks_the_node(self) -> bool {
        self.fences() || matches!(self, Self::AgentCrash)
    }

    /// The counter must be served again this long after the break.
    ///
    /// By power that is the bound of the profile and a second for the device and the counter's own start; by time it
    /// is the bound of the profile.
    #[must_use]
    pub fn recovered_within(profile: Profile, no_bmc: bool) -> Duration {
        match (profile, no_bmc) {
            (Profile::Fast, false) => Duration::from_millis(4_500),
            (Profile::Balanced, false) => Duration::from_secs(5),
            (Profile::Patient, false) => Duration::from_secs(9),
            (Profile::Fast, true) => Duration::from_secs(10),
            (Profile::Balanced, true) => Duration::from_secs(17),
            (Profile::Patient, true) => Duration::from_secs(80),
        }
    }
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NodePower => "node-power",
            Self::NodeCrash => "node-crash",
            Self::AgentFreeze => "agent-freeze",
            Self::AgentCrash => "agent-crash",
            Self::NodeIsolate => "node-isolate",
            Self::NodeLink => "node-link",
            Self::Appliance => "appliance",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_the_json_and_the_text_agree_on_the_names() {
        for fail in Fail::value_variants() {
            let text = fail.to_string();
            assert_eq!(Fail::from_str(&text, false), Ok(*fail));
            assert_eq!(serde_json::to_value(fail).unwrap(), text.as_str());
        }
    }
}
