//! What the agent is told: options on the command line, for people, or lines on standard input, as Pacemaker gives them.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use tiebreaker_member::{Address, AddressError};

/// Where the agent keeps who it is.
pub const IDENTITY: &str = "/var/lib/tiebreaker-fence";
/// The port of the appliance.
pub const PORT: u16 = Address::DEFAULT_PORT;
/// An answer is waited for so long, in seconds: Pacemaker kills an agent after 60 s, and then nobody hears why.
pub const ANSWER_WITHIN_S: u64 = 55;
/// The longest time that one may ask for, in seconds.
const ANSWER_WITHIN_MAX_S: u64 = 600;

/// Fences nodes of a Corosync cluster through a Tiebreaker appliance.
///
/// Called without options it reads them from standard input, a line NAME=VALUE each. The appliance grants a fence to the half of
/// the cluster that has the vote of its QDevice service, and refuses the other; it holds the passwords of the power devices, sees
/// the power off twice before it says so, and goes on when the agent is killed: who asks again gets the result.
///
/// A node enrols once, with a token from the appliance (`tiebreaker-server token create --cluster NAME --kind fence-client`):
/// `fence_tiebreaker --join pi.lan --token TOKEN`.
///
/// Exit codes: 0 done, or the node is on; 1 not done, or not known; 2 the node is off, of `status` alone.
#[derive(Parser, Debug, Default, PartialEq, Eq)]
#[command(name = "fence_tiebreaker", version)]
pub struct Args {
    /// on, off, reboot, status, monitor, list, list-status, metadata, manpage or validate-all.
    #[arg(short = 'o', long, value_name = "ACTION")]
    action: Option<String>,
    /// The node that is meant.
    #[arg(short = 'n', long, value_name = "NODE")]
    plug: Option<String>,
    /// The appliance; where the node enrolled, if it is left out.
    #[arg(short = 'a', long, value_name = "HOST")]
    ip: Option<String>,
    /// Its port.
    #[arg(short = 'u', long, value_name = "PORT")]
    ipport: Option<String>,
    /// The folder with this node's identity.
    #[arg(long, value_name = "FOLDER")]
    identity: Option<PathBuf>,
    /// How long to wait for the result of a fence, 1 to 600 s. It goes on after that.
    #[arg(long, value_name = "SECONDS")]
    answer_timeout: Option<String>,
    /// Taken, and without effect: what there is to say is always said.
    #[arg(short, long)]
    verbose: bool,
    /// Enrols this node at the appliance.
    #[arg(long, value_name = "HOST[:PORT]", requires = "token", conflicts_with = "action")]
    join: Option<String>,
    /// A token of the kind fence-client; `-` reads it from standard input.
    #[arg(long, value_name = "TOKEN", requires = "join")]
    token: Option<String>,
    /// The name of this node in corosync.conf; the machine's, if it is left out.
    #[arg(long, value_name = "NODE", requires = "join")]
    name: Option<String>,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Give power.
    On,
    /// Cut it, and see it cut.
    Off,
    /// Cut it, see it cut, and give it back.
    Reboot,
    /// Whether a node has power.
    Status,
    /// Whether all nodes could be fenced.
    Monitor,
    /// Which nodes there are.
    List,
    /// The same with their power.
    ListStatus,
    /// What the agent takes, for programs.
    Metadata,
    /// The same for people.
    Manpage,
    /// Whether the options are in order.
    ValidateAll,
}

impl Action {
    /// All of them, by the names of the contract.
    pub const ALL: [(&str, Self); 10] = [
        ("on", Self::On),
        ("off", Self::Off),
        ("reboot", Self::Reboot),
        ("status", Self::Status),
        ("monitor", Self::Monitor),
        ("list", Self::List),
        ("list-status", Self::ListStatus),
        ("metadata", Self::Metadata),
        ("manpage", Self::Manpage),
        ("validate-all", Self::ValidateAll),
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, action)| action == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// What is wrong with the options.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mistake {
    /// There is no action.
    #[error("no action is given: action=NAME on standard input, or --action NAME; see --help")]
    NoAction,
    /// There is no such action.
    #[error("there is no action {0:?}: see --help")]
    Action(String),
    /// A node has to be named.
    #[error("{0} needs a node: plug=NAME on standard input, or --plug NAME")]
    NoPlug(Action),
    /// The appliance's address is none.
    #[error("{text:?} is no address of the appliance (ip, ipport): {why}")]
    Address {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The time is none.
    #[error("answer_timeout: {0:?} is no number of seconds from 1 to {ANSWER_WITHIN_MAX_S}")]
    Timeout(String),
}

/// What is asked, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub action: Action,
    pub plug: Option<String>,
    /// The appliance, if it isn't the one where the node enrolled.
    pub address: Option<Address>,
    pub identity: PathBuf,
    pub answer_within: Duration,
}

/// A node that enrols.
#[derive(Debug, PartialEq, Eq)]
pub struct Join {
    pub address: Address,
    pub token: String,
    pub name: Option<String>,
    pub identity: PathBuf,
}

impl Args {
    /// Whether nothing at all was given: then standard input counts.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The options of standard input: lines NAME=VALUE; the last of a name counts. Names that aren't ours are somebody else's.
    pub fn from_input(text: &str) -> Self {
        let mut args = Self::default();
        let (mut plug, mut port, mut nodename) = (None, None, None);
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "action" | "option" => args.action = value,
                "plug" => plug = value,
                "port" => port = value,
                "nodename" => nodename = value,
                "ip" | "ipaddr" => args.ip = value,
                "ipport" => args.ipport = value,
                "identity" => args.identity = value.map(PathBuf::from),
                "answer_timeout" => args.answer_timeout = value,
                _ => {}
            }
        }
        // The node's name in the cluster is what Pacemaker gives in any case; a plug is what it is called here.
        args.plug = plug.or(port).or(nodename);
        args
    }

    /// What a node needs to enrol, if that is what is wanted.
    pub fn join(&self) -> Result<Option<Join>, Mistake> {
        let (Some(address), Some(token)) = (&self.join, &self.token) else { return Ok(None) };
        Ok(Some(Join {
            address: parse(address, None)?,
            token: token.clone(),
            name: self.name.clone(),
            identity: self.folder(),
        }))
    }

    /// Checks everything else.
    pub fn check(self) -> Result<Options, Mistake> {
        let action = self.action.as_deref().ok_or(Mistake::NoAction)?;
        let found = Action::ALL.iter().find(|(name, _)| *name == action.to_ascii_lowercase());
        let (_, action) = *found.ok_or_else(|| Mistake::Action(action.chars().take(64).collect()))?;
        let address = self.ip.as_deref().map(|ip| parse(ip, self.ipport.as_deref())).transpose()?;
        let answer_within = match &self.answer_timeout {
            None => ANSWER_WITHIN_S,
            Some(text) => {
                let seconds = text.trim_end_matches('s').parse().ok();
                let allowed = |seconds: &u64| (1..=ANSWER_WITHIN_MAX_S).contains(seconds);
                seconds.filter(allowed).ok_or_else(|| Mistake::Timeout(text.clone()))?
            }
        };
        let (identity, answer_within) = (self.folder(), Duration::from_secs(answer_within));
        Ok(Options { action, plug: self.plug, address, identity, answer_within })
    }

    fn folder(&self) -> PathBuf {
        self.identity.clone().unwrap_or_else(|| Path::new(IDENTITY).to_owned())
    }
}

/// An address with or without its port.
fn parse(host: &str, port: Option<&str>) -> Result<Address, Mistake> {
    let has_port = host.parse::<SocketAddr>().is_ok() || host.matches(':').count() == 1;
    let text = match port {
        Some(port) => format!("{}:{port}", bracketed(host)),
        None if has_port => host.to_owned(),
        None => format!("{}:{PORT}", bracketed(host)),
    };
    text.parse().map_err(|error: AddressError| Mistake::Address { text, why: error.to_string() })
}

/// An IPv6 address before a port.
fn bracketed(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}
