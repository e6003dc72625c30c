//! The command line of `tiebreaker-agent`.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use tiebreaker_member::program::{self, log_to_stderr};
use tiebreaker_member::takeover::{Confirmation, take_over};
use tiebreaker_member::{Identity, LocalAccess, LocalSocket};
use tiebreaker_pipeline::name::MemberName;

use crate::config::Config;
use crate::join::{CONFIG_FILE, SOCKET_FILE, STORE_FILE};
use crate::supervisor::{SupervisorConfig, run as supervise};
use crate::{agent, join};

/// The agent of a Tiebreaker node: holds its lease, keeps its resources running, feeds its watchdog.
///
/// Exit codes: 0 done, 1 failed or refused, 2 wrong usage. `run` also: 70 it has asked for a reset of this machine, because
/// it is fenced or its cluster goes on without it; 75 the cluster has ended its life, start it anew.
#[derive(Parser, Debug)]
#[command(name = "tiebreaker-agent", version)]
struct Args {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Makes this machine a node of a cluster, with a token from the appliance.
    Join {
        /// The appliance, HOST:PORT.
        appliance: String,
        /// The token that `tiebreaker-server token create` printed.
        #[arg(long, env = "TIEBREAKER_TOKEN", hide_env_values = true)]
        token: String,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-agent")]
        data: PathBuf,
        /// The node's name; this machine's host name if left out.
        #[arg(long)]
        name: Option<String>,
        /// Where to listen, ADDRESS:PORT; may be given several times.
        #[arg(long, default_value = "[::]:8405")]
        listen: Vec<SocketAddr>,
        /// Where the other members reach this machine, HOST:PORT, best first; may be given several times. Where it
        /// listens if left out, which must be a concrete address then.
        #[arg(long)]
        address: Vec<String>,
        /// Local address for outgoing connections.
        #[arg(long)]
        source: Option<IpAddr>,
        /// The watchdog: none, /dev/watchdog0, or (in tests) simulated.
        #[arg(long, default_value = "none")]
        watchdog: String,
        /// Accepts a weaker watchdog by its driver's name, for instance softdog.
        #[arg(long)]
        accept: Vec<String>,
    },
    /// Checks agent.toml, as the agent will read it. Changes nothing.
    Check {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-agent")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Runs the agent.
    Run {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-agent")]
        data: PathBuf,
    },
    /// Emergency: makes this node the whole cluster, after every other member was lost for good. The agent must be
    /// stopped. Says what may be lost, and has it confirmed.
    Takeover {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-agent")]
        data: PathBuf,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Runs the agent under a supervisor with a simulated watchdog, for the demo and tests. SIGUSR1 reboots the node in
    /// good order.
    Supervise {
        /// The data folder.
        #[arg(long)]
        data: PathBuf,
        /// How long a simulated reboot takes, milliseconds.
        #[arg(long, default_value_t = 2000)]
        reboot_delay_ms: u64,
    },
    /// Runs one operation of the executor; the agent calls this itself.
    #[command(hide = true)]
    OpExec,
}

/// The definition of the command line, for its manual and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the command line and gives its exit code.
#[must_use]
pub fn main_from(args: Vec<OsString>) -> ExitCode {
    program::main_from("tiebreaker-agent", args, run)
}

/// How this program calls itself again: the demo's single binary takes `agent` as its first word.
fn own_command() -> Vec<OsString> {
    let mut command: Vec<OsString> = vec!["/proc/self/exe".into()];
    let is_agent = std::env::current_exe()
        .is_ok_and(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tiebreaker-agent")));
    if !is_agent {
        command.push("agent".into());
    }
    command
}

fn run(args: Args) -> Result<()> {
    match args.command {
        Subcommands::Join { appliance, token, data, name, listen, address, source, watchdog, accept } => {
            let name = match name {
                Some(name) => name,
                None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            };
            let config = Config {
                name: MemberName::new(&name)?,
                listen,
                addresses: address,
                source,
                watchdog: watchdog.parse()?,
                accept,
            };
            block_on(join::join_cluster(&data, &appliance, &token, &config))
        }
        Subcommands::Check { data, json } => check(&data, json),
        Subcommands::Run { data } => {
            log_to_stderr();
            let mut unit = own_command();
            unit.push("op-exec".into());
            block_on(agent::run(&data, unit)).map_err(|error| explained(error, &data))
        }
        Subcommands::Takeover { data, confirmation } => block_on(takeover(&data, &confirmation)),
        Subcommands::Supervise { data, reboot_delay_ms } => {
            log_to_stderr();
            let mut command = own_command();
            command.extend(["run".into(), "--data".into(), data.clone().into_os_string()]);
            let mut config = SupervisorConfig::new(command, data.join("run"));
            config.reboot_delay = Duration::from_millis(reboot_delay_ms);
            Ok(supervise(&config)?)
        }
        Subcommands::OpExec => crate::operation::op_exec().context("running an operation"),
    }
}

fn check(data: &Path, json: bool) -> Result<()> {
    let file = data.join(CONFIG_FILE);
    let config = Config::load(&file)?;
    program::tell_in_order(&file, &config.name, json);
    Ok(())
}

/// A start that fails for want of room says so in a word that people know, and what to do.
fn explained(error: anyhow::Error, data: &Path) -> anyhow::Error {
    let is_full = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(io, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    });
    if is_full {
        error.context(format!("the disk of {} is full: make room there; the agent is started again", data.display()))
    } else {
        error
    }
}

async fn takeover(data: &Path, confirmation: &Confirmation) -> Result<()> {
    let identity = Identity::load(data)?;
    // The agent's own lock: none starts before this is done.
    let (lock, _nobody_asks) = LocalSocket::start(&data.join(SOCKET_FILE), LocalAccess::default())?;
    let taken = tokio::task::block_in_place(|| take_over(&data.join(STORE_FILE), identity.cert(), confirmation));
    drop(lock);
    Ok(taken?)
}

fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new().context("starting the runtime")?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_room_names_the_way_out_and_others_stay_as_they_are() {
        let said = |kind: ErrorKind| {
            let error = anyhow::Error::from(std::io::Error::from(kind)).context("writing /data/incarnation.new");
            format!("{:#}", explained(error, Path::new("/data")))
        };
        let full = said(ErrorKind::StorageFull);
        assert!(
            full.starts_with("the disk of /data is full: make room there") && full.contains("incarnation"),
            "{full}"
        );
        assert!(said(ErrorKind::PermissionDenied).starts_with("writing /data/incarnation.new"));
    }
}
