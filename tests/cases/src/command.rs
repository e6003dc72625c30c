//! The commands of a case.

use crate::fault::Requested;

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// `power NODE on|off`: power and network.
    Power { node: String, on: bool },
    /// `network NODE on|off`.
    Network { node: String, on: bool },
    /// `delay SECONDS`: the next batch comes later.
    Delay(u32),
    /// `reboot NODE`.
    Reboot(String),
    /// `shutdown NODE`.
    Shutdown(String),
    /// `restart-lrm NODE`, or `crm NODE stop`: a daemon of that node stops for a while. Ours are one.
    RestartAgent(String),
    /// `crm NODE start`: it is there again.
    StartAgent,
    /// `crm NODE enable-node-maintenance`, or `disable`.
    Maintenance { node: String, on: bool },
    /// `crm NODE disarm-ha MODE`.
    Disarm(String),
    /// `crm NODE arm-ha`.
    Arm,
    /// `service SID STATE`, or `service SID stop SECONDS`.
    Request { sid: String, state: Requested },
    /// `service SID add NODE [STATE]`.
    Add { sid: String, node: String, state: Requested },
    /// `service SID delete`.
    Remove(String),
    /// `service SID migrate NODE`.
    Migrate { sid: String, to: String },
    /// `service SID relocate NODE`.
    Relocate { sid: String, to: String },
    /// `service SID lock [KIND]`.
    Lock { sid: String, kind: Option<String> },
    /// `service SID unlock`.
    Unlock(String),
    /// `service SID manual-migrate NODE`.
    ManualMove(String),
    /// `skip-round …`.
    SkipRound,
    /// `cfs …`.
    ConfigFilesystem,
    /// `service SID set-static-stats …` or `set-dynamic-stats`.
    Load,
    /// `pve-manager-version …`.
    Version,
}

impl Command {
    /// Reads one; `None` if there is no such command.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Some(match *words.as_slice() {
            ["power", node, switch] => Self::Power { node: node.to_owned(), on: on(switch)? },
            ["network", node, switch] => Self::Network { node: node.to_owned(), on: on(switch)? },
            ["delay", seconds] => Self::Delay(seconds.parse().ok()?),
            ["reboot", node] => Self::Reboot(node.to_owned()),
            ["shutdown", node] => Self::Shutdown(node.to_owned()),
            ["restart-lrm", node] | ["crm", node, "stop"] => Self::RestartAgent(node.to_owned()),
            ["crm", _, "start"] => Self::StartAgent,
            ["crm", node, "enable-node-maintenance"] => Self::Maintenance { node: node.to_owned(), on: true },
            ["crm", node, "disable-node-maintenance"] => Self::Maintenance { node: node.to_owned(), on: false },
            ["crm", _, "disarm-ha", mode @ ("freeze" | "ignore")] => Self::Disarm(mode.to_owned()),
            ["crm", _, "arm-ha"] => Self::Arm,
            ["service", sid, ref rest @ ..] => Self::service(sid.to_owned(), rest)?,
            ["skip-round", ..] => Self::SkipRound,
            ["cfs", ..] => Self::ConfigFilesystem,
            ["pve-manager-version", ..] => Self::Version,
            _ => return None,
        })
    }

    fn service(sid: String, rest: &[&str]) -> Option<Self> {
        Some(match *rest {
            ["delete"] => Self::Remove(sid),
            ["migrate", to] => Self::Migrate { sid, to: to.to_owned() },
            ["relocate", to] => Self::Relocate { sid, to: to.to_owned() },
            ["manual-migrate", _] => Self::ManualMove(sid),
            ["stop", seconds] => {
                seconds.parse::<u32>().ok()?;
                Self::Request { sid, state: Requested::Stopped }
            }
            ["add", node] => Self::Add { sid, node: node.to_owned(), state: Requested::Started },
            // "1" behind the state is a resource that already runs, for which there is no event of ours.
            ["add", node, state] | ["add", node, state, "0"] => {
                Self::Add { sid, node: node.to_owned(), state: Requested::parse(state)? }
            }
            ["lock"] => Self::Lock { sid, kind: None },
            ["lock", kind] => Self::Lock { sid, kind: Some(kind.to_owned()) },
            ["unlock", ..] => Self::Unlock(sid),
            ["set-static-stats" | "set-dynamic-stats", ..] => Self::Load,
            [state] => Self::Request { sid, state: Requested::parse(state)? },
            _ => return None,
        })
    }

    /// The resource that the command is about.
    pub(crate) fn sid(&self) -> Option<&str> {
        match self {
            Self::Request { sid, .. }
            | Self::Add { sid, .. }
            | Self::Remove(sid)
            | Self::Migrate { sid, .. }
            | Self::Relocate { sid, .. }
            | Self::Lock { sid, .. }
            | Self::Unlock(sid)
            | Self::ManualMove(sid) => Some(sid),
            Self::Power { .. }
            | Self::Network { .. }
            | Self::Delay(_)
            | Self::Reboot(_)
            | Self::Shutdown(_)
            | Self::RestartAgent(_)
            | Self::StartAgent
            | Self::Maintenance { .. }
            | Self::Disarm(_)
            | Self::Arm
            | Self::SkipRound
            | Self::ConfigFilesystem
            | Self::Load
            | Self::Version => None,
        }
    }
}

fn on(switch: &str) -> Option<bool> {
    match switch {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}
