//! The command line of `tiebreaker-server`.

mod backup;
mod corosync;
mod device;
mod prompt;
mod secrets;
mod update;

use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tiebreaker_member::ask::{LocalReply, LocalRequest};
use tiebreaker_member::program::{self, log_to_stderr};
use tiebreaker_member::takeover::{Confirmation, take_over};
use tiebreaker_member::{Address, Ca, CaError, Client, FileError, LinkError, LocalAccess, LocalSocket, TokenBook};
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use zeroize::Zeroizing;

use crate::backup::{BackupError, finish_or_refuse};
use crate::config::Config;
use crate::corosync as named;
use crate::daemon;
use crate::joins::Gate;
use crate::layout::{Layout, unix_seconds};
use crate::qdevice::{self, Folder};
use crate::rejoin::Pending;

const ASK_WITHIN: Duration = Duration::from_secs(10);

/// The appliance of Tiebreaker: casts the deciding vote, keeps the third copy of the cluster's state, holds the keys to
/// the nodes' power.
///
/// Exit codes: 0 done, 1 failed or refused, 2 wrong usage. Those of backups besides: 3 another passphrase, 4 damaged or no backup, 5
/// of a newer version, 6 the folder is not empty.
#[derive(Parser, Debug)]
#[command(name = "tiebreaker-server", version)]
struct Args {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Creates the certificate authority and the configuration of a new appliance.
    Init {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// The appliance's name.
        #[arg(long, default_value = "appliance")]
        name: String,
        /// Where to listen, ADDRESS:PORT; may be given several times.
        #[arg(long, default_values_t = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, Address::DEFAULT_PORT))])]
        listen: Vec<SocketAddr>,
        /// Where the nodes reach this machine, HOST:PORT, best first; may be given several times.
        #[arg(long)]
        address: Vec<String>,
    },
    /// Tokens with which machines and operators join.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Saves who this appliance is and what it keeps secret in one file, sealed by a passphrase. The daemon may run.
    Backup(backup::BackupArgs),
    /// Makes an appliance of such a file, in an empty folder. It comes back into its clusters by itself, as a new member: no node
    /// needs a change.
    Restore(backup::RestoreArgs),
    /// After a restore: shows the clusters into which this appliance is not back yet, and tells it what it can't know.
    Rejoin(backup::RejoinArgs),
    /// Emergency: makes the appliance the whole cluster, after every node was lost for good. The daemon must be stopped.
    /// Says what may be lost, and has it confirmed.
    Takeover {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// The cluster.
        #[arg(long)]
        cluster: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Power devices: adding and trying them, reading and switching them by hand.
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// The secrets of power devices: one encrypted file.
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// The audit log of fencing.
    #[command(subcommand)]
    Audit(secrets::AuditCommand),
    /// The QDevice service: votes for clusters that run Corosync.
    #[command(subcommand)]
    Qdevice(QdeviceCommand),
    /// Corosync clusters whose nodes this appliance fences: `fence_tiebreaker` asks for them.
    #[command(subcommand)]
    Corosync(corosync::CorosyncCommand),
    /// Updates the appliance's image: writes the slot of the SD card that doesn't run, and tries it. It is checked first, and
    /// comes off again by itself if it doesn't prove within two minutes that it works. Needs a machine that was started from
    /// the image.
    Update(update::UpdateArgs),
    /// Checks server.toml and the files that it names, as the daemon will read them. Changes nothing.
    Check {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Another file than the data folder's server.toml, as if it were that: to try one before it takes its place.
        #[arg(long)]
        file: Option<PathBuf>,
        /// Prints one JSON document; of a mistake too, with line and column where it has a place.
        #[arg(long)]
        json: bool,
    },
    /// Runs the daemon.
    Run {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// The highest feature level that clusters may get, where that is lower than what this version knows: for a version
        /// that is tried and may have to be taken back.
        #[arg(long, value_name = "LEVEL")]
        at_most_level: Option<u32>,
    },
}

#[derive(Subcommand, Debug)]
enum TokenCommand {
    /// Prints a token that is good for one join. A cluster of a new name is created, but those of Corosync are named in
    /// server.toml.
    Create {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// The cluster.
        #[arg(long)]
        cluster: String,
        /// For whom.
        #[arg(long, value_enum, default_value_t = Kind::Node)]
        kind: Kind,
        /// How long it is good for.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=10_080))]
        ttl_minutes: u64,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand, Debug)]
enum QdeviceCommand {
    /// Shows the clusters, their connected nodes, and who has which vote and why.
    Status {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Shows what happened: nodes that came and went, votes that moved, ties, strangers, certificates near their end.
    Events {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Goes on with what happens from now on, also across restarts of the daemon.
        #[arg(long)]
        follow: bool,
        /// Prints one JSON document per event.
        #[arg(long)]
        json: bool,
    },
    /// Prints one line for a node's shell, which sets its QDevice client up: certificates, and the device in its
    /// corosync.conf. It is good for one node, and needs no ssh; the node fetches from port 8406 of this machine.
    Invite {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// The Corosync cluster's name, as in server.toml.
        cluster: String,
        /// How the vote is decided: ffsplit for an even number of nodes, lms for any.
        #[arg(long, value_enum, default_value_t = Decides::Ffsplit)]
        algorithm: Decides,
        /// Where the node reaches this machine, a name or an address; the first of server.toml's if it is left out.
        #[arg(long)]
        address: Option<String>,
        /// How long it is good for.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=1440))]
        ttl_minutes: u64,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Prints the authority's certificate, for `corosync-qdevice-net-certutil -i -c` on the nodes.
    Ca {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
    },
    /// Takes the authority of a corosync-qnetd over, so that this machine can stand in for it and no node notices: from the
    /// folder of its NSS database (with pk12util, of the package libnss3-tools), or from a PKCS#12 file with 'QNet CA'.
    Adopt {
        /// /etc/corosync/qnetd/nssdb or a copy of it, or a PKCS#12 file.
        source: PathBuf,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server", conflicts_with = "into")]
        data: PathBuf,
        /// The folder of `corosync-qnetd`, where that is used instead of an appliance; /etc/corosync/qnetd/nssdb mostly.
        #[arg(long)]
        into: Option<PathBuf>,
        /// A file with the PKCS#12 file's password in its first line; without it there is none.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// Puts an authority aside that is there already. Nodes that were set up with that one must be set up again.
        #[arg(long)]
        replace: bool,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Signs the request that `corosync-qdevice-net-certutil -r` made on a node, and prints the certificate.
    Sign {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// The Corosync cluster's name.
        #[arg(long)]
        cluster: String,
        /// The request's file.
        request: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Decides {
    Ffsplit,
    Lms,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    Node,
    Operator,
    /// The fence agent of a Corosync cluster's node.
    FenceClient,
}

/// The definition of the command line, for its manual and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the command line and gives its exit code.
#[must_use]
pub fn main_from(args: Vec<OsString>) -> ExitCode {
    match named::Name::of(&args) {
        Some(name) => name.main(&args),
        None => program::main_with_codes("tiebreaker-server", args, run, exit_code),
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<BackupError>().map_or(1, BackupError::exit_code)
}

fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    match args.command {
        Subcommands::Init { data, name, listen, address } => init(&data, &name, &listen, &address),
        Subcommands::Token(TokenCommand::Create { data, cluster, kind, ttl_minutes, json }) => {
            runtime.block_on(create_token(&data, &cluster, kind, ttl_minutes * 60, json))
        }
        Subcommands::Backup(args) => runtime.block_on(backup::backup(args)),
        Subcommands::Restore(args) => backup::restore(args),
        Subcommands::Rejoin(args) => backup::rejoin(args),
        Subcommands::Takeover { data, cluster, confirmation } => {
            runtime.block_on(takeover(&data, &cluster, &confirmation))
        }
        Subcommands::Device(command) => runtime.block_on(device::run(command)),
        Subcommands::Secrets(command) => runtime.block_on(secrets::run(command)),
        Subcommands::Audit(command) => secrets::run_audit(command),
        Subcommands::Qdevice(QdeviceCommand::Status { data, json }) => runtime.block_on(qdevice_status(&data, json)),
        Subcommands::Qdevice(QdeviceCommand::Invite { data, cluster, algorithm, address, ttl_minutes, json }) => {
            let algorithm = match algorithm {
                Decides::Ffsplit => "ffsplit".into(),
                Decides::Lms => "lms".into(),
            };
            let request = LocalRequest::QdeviceInvite { cluster, algorithm, host: address, ttl_s: ttl_minutes * 60 };
            runtime.block_on(invite_for_qdevice(&data, &request, json))
        }
        Subcommands::Qdevice(QdeviceCommand::Events { data, follow, json }) => {
            runtime.block_on(qdevice::follow(&Layout::new(&data).socket(), follow, json))
        }
        Subcommands::Qdevice(QdeviceCommand::Ca { data }) => {
            print!("{}", authority(&data)?.open_or_make()?.certificate_pem());
            Ok(())
        }
        Subcommands::Qdevice(QdeviceCommand::Sign { data, cluster, request }) => {
            sign_for_qdevice(&data, &cluster, &request)
        }
        Subcommands::Qdevice(QdeviceCommand::Adopt { source, data, into, password_file, replace, json }) => {
            let folder = into.map_or_else(|| authority(&data), |into| Ok(Folder::of_corosync(&into)))?;
            adopt(&source, &folder, password_file.as_deref(), replace, json)
        }
        Subcommands::Corosync(command) => runtime.block_on(corosync::run(command)),
        Subcommands::Update(args) => update::run(&args),
        Subcommands::Check { data, file, json } => check(&data, file, json),
        Subcommands::Run { data, at_most_level } => {
            log_to_stderr();
            runtime.block_on(daemon::run(Layout::new(&data), at_most_level.map(Level::new)))
        }
    }
}

fn init(data: &Path, name: &str, listen: &[SocketAddr], addresses: &[String]) -> Result<()> {
    let layout = Layout::new(data);
    let name = MemberName::new(name)?;
    if layout.config().exists() {
        bail!(
            "{} exists already: this appliance has been set up; a second authority would lock every node out",
            layout.config().display()
        );
    }
    finish_or_refuse(&layout)?;
    std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
    let text = Config::first(&name, listen, addresses)?;
    // An authority without a configuration is what a crash between the two leaves: it is finished, not made again.
    let ca = match Ca::load(data) {
        Ok(ca) => ca,
        Err(CaError::File(FileError::Missing { .. })) => Ca::create(data)?,
        Err(error) => return Err(error.into()),
    };
    // The configuration comes last: where it is, the rest is whole.
    let tmp = data.join("server.toml.new");
    std::fs::write(&tmp, text).with_context(|| format!("writing {}", tmp.display()))?;
    std::fs::File::open(&tmp).and_then(|file| file.sync_all()).with_context(|| format!("writing {}", tmp.display()))?;
    std::fs::rename(&tmp, layout.config()).with_context(|| format!("writing {}", layout.config().display()))?;
    println!("The authority's fingerprint is {}.", ca.certificate().fingerprint());
    if addresses.is_empty() {
        println!("No --address was given: put HOST:PORT under which the nodes reach this machine into server.toml.");
    }
    println!("Next: `tiebreaker-server run`, then `tiebreaker-server token create --cluster NAME` for each node.");
    Ok(())
}

fn check(data: &Path, file: Option<PathBuf>, json: bool) -> Result<()> {
    let file = file.unwrap_or_else(|| Layout::new(data).config());
    let config = match Config::load_beside(&file, data) {
        Ok(config) => config,
        Err(error) => {
            if json {
                let mistake = crate::config::Mistake::of(&error);
                println!("{}", serde_json::json!({ "configuration": file, "mistake": mistake }));
            }
            return Err(error);
        }
    };
    program::tell_in_order(&file, &config.name, json);
    Ok(())
}

async fn takeover(data: &Path, cluster: &str, confirmation: &Confirmation) -> Result<()> {
    let layout = Layout::new(data);
    let cluster = ClusterName::new(cluster)?;
    if !layout.cluster(&cluster).exists() {
        bail!("there is no cluster {cluster} in {}", data.display());
    }
    if Pending::exists(&layout, &cluster) {
        bail!(
            "this appliance was restored and is not back in {cluster} yet: it has no state of it to take over. If the nodes have no \
             majority without it, `tiebreaker-agent takeover` on one of them makes that the whole cluster, and this one joins it"
        );
    }
    // The daemon's own lock: none starts before this is done.
    let (lock, _nobody_asks) = LocalSocket::start(&layout.socket(), LocalAccess::default())?;
    let identity = layout.identity(&cluster)?;
    let taken = tokio::task::block_in_place(|| take_over(&layout.store(&cluster), identity.cert(), confirmation));
    drop(lock);
    Ok(taken?)
}

/// Asks the running daemon.
async fn ask_daemon(data: &Path, request: &LocalRequest) -> Result<LocalReply> {
    let mut client = Client::local(&Layout::new(data).socket(), ASK_WITHIN).await?;
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, request)?;
    let answer = client.ask(&bytes, ASK_WITHIN).await?;
    cbor4ii::serde::from_slice(&answer[..]).context("the daemon's answer can't be decoded: is it of another version?")
}

async fn invite_for_qdevice(data: &Path, request: &LocalRequest, json: bool) -> Result<()> {
    match ask_daemon(data, request).await? {
        LocalReply::QdeviceInvitation { command, expires } if json => {
            println!("{}", serde_json::json!({ "command": command, "expires_ms": expires * 1000 }));
        }
        LocalReply::QdeviceInvitation { command, expires } => {
            let minutes = expires.saturating_sub(unix_seconds()).div_ceil(60);
            eprintln!("Run this as root on one node, within {minutes} minutes; make another for the next node:");
            println!("{command}");
        }
        LocalReply::Refused { why } => bail!("{why}"),
        _ => bail!("the daemon answered something else than was asked"),
    }
    Ok(())
}

async fn qdevice_status(data: &Path, json: bool) -> Result<()> {
    match ask_daemon(data, &LocalRequest::Qdevice).await? {
        LocalReply::Qdevice { clusters } if json => println!("{}", serde_json::json!({ "clusters": clusters })),
        LocalReply::Qdevice { clusters } => print!("{}", qdevice::table(&clusters, unix_seconds())),
        LocalReply::Refused { why } => bail!("{why}"),
        _ => bail!("the daemon answered something else than was asked"),
    }
    Ok(())
}

/// Where the appliance's QDevice authority lies.
fn authority(data: &Path) -> Result<Folder> {
    match Config::load(&Layout::new(data).config())?.qdevice {
        Some(settings) => Ok(settings.folder(data)?),
        None => Ok(Folder::of_appliance(data)),
    }
}

fn adopt(source: &Path, folder: &Folder, password_file: Option<&Path>, replace: bool, json: bool) -> Result<()> {
    let password = match password_file {
        None => Zeroizing::new(String::new()),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let text = Zeroizing::new(text);
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
    };
    let pki = qdevice::adopt::read(source, &password)?;
    let mut aside = None;
    if folder.has_authority() {
        let there = folder.authority();
        if folder.open().is_ok_and(|present| present.certificate() == pki.certificate()) {
            bail!("{} holds this very authority already: there is nothing to do", there.display());
        }
        if !replace {
            bail!(
                "{} holds another authority: if no node uses it, or all shall be set up again, --replace puts it aside",
                there.display()
            );
        }
        aside = Some(folder.set_aside()?);
    }
    folder.make_path(0o750)?;
    folder.put(&pki)?;
    if json {
        let document =
            serde_json::json!({ "authority": folder.authority(), "fingerprint": pki.fingerprint(), "aside": aside });
        println!("{document}");
        return Ok(());
    }
    if let Some(aside) = aside {
        println!("The former authority is {}.", aside.display());
    }
    println!("The authority of {} is {} now.", source.display(), folder.authority().display());
    println!("Its fingerprint is {}.", pki.fingerprint());
    println!("Stop the other server, give this machine its address, and start (or restart) the service here.");
    Ok(())
}

fn sign_for_qdevice(data: &Path, cluster: &str, request: &Path) -> Result<()> {
    let config = Config::load(&Layout::new(data).config())?;
    if !config.qdevice.is_some_and(|settings| settings.serves(cluster)) {
        bail!(
            "server.toml does not name this cluster: add the line [qdevice.clusters.{cluster:?}] and restart the daemon"
        );
    }
    let bytes = std::fs::read(request).with_context(|| format!("reading {}", request.display()))?;
    let certificate = authority(data)?
        .open_or_make()?
        .sign(&bytes, cluster)
        .with_context(|| format!("signing {}", request.display()))?;
    print!("{certificate}");
    Ok(())
}

async fn create_token(data: &Path, cluster: &str, kind: Kind, ttl_s: u64, json: bool) -> Result<()> {
    let layout = Layout::new(data);
    let name = ClusterName::new(cluster)?;
    let kind = match kind {
        Kind::Node => "node",
        Kind::Operator => "operator",
        Kind::FenceClient => "fence-client",
    };
    let reply = match Client::local(&layout.socket(), ASK_WITHIN).await {
        Ok(mut client) => {
            let request = LocalRequest::CreateToken { cluster: name.to_string(), kind: kind.into(), ttl_s };
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &request)?;
            let answer = client.ask(&bytes, ASK_WITHIN).await?;
            cbor4ii::serde::from_slice(&answer[..])
                .context("the daemon's answer can't be decoded: is it of another version?")?
        }
        Err(LinkError::Local { source, .. }) if no_daemon(&source) => {
            offline_token(&layout, &name, kind, ttl_s).await?
        }
        Err(error) => return Err(error.into()),
    };
    match reply {
        LocalReply::Token { token, expires, created } => {
            if json {
                let document = serde_json::json!({
                    "token": token, "cluster": name.to_string(), "kind": kind, "expires_ms": expires * 1000,
                    "created": created,
                });
                println!("{document}");
            } else {
                if created {
                    eprintln!("Cluster {name} is new and was created.");
                }
                println!("{token}");
            }
            Ok(())
        }
        LocalReply::Refused { why } => bail!("{why}"),
        _ => bail!("the daemon answered something else than was asked"),
    }
}

/// Asks the daemon, if one runs.
async fn ask_running_daemon(data: &Path, request: &LocalRequest, within: Duration) -> Result<Option<LocalReply>> {
    let mut client = match Client::local(&Layout::new(data).socket(), ASK_WITHIN).await {
        Ok(client) => client,
        Err(LinkError::Local { source, .. }) if no_daemon(&source) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    cbor4ii::serde::to_writer(&mut *bytes, request)?;
    let answer = client.ask(&bytes, within).await?;
    let reply = cbor4ii::serde::from_slice(&answer[..]);
    Ok(Some(reply.context("the daemon's answer can't be decoded: is it of another version?")?))
}

/// Who works here, as the daemon calls him too.
fn operator() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() { "root".into() } else { format!("user {}", uid.as_raw()) }
}

/// Nobody listens: the socket isn't there, or was left behind.
fn no_daemon(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

/// Without a daemon the files are worked on directly; the daemon finds the result when it starts.
async fn offline_token(layout: &Layout, cluster: &ClusterName, kind: &str, ttl_s: u64) -> Result<LocalReply> {
    let config = Config::load(&layout.config())?;
    // The daemon's own lock: one that starts just now must not overwrite what is written here.
    let (lock, _nobody_asks) = LocalSocket::start(&layout.socket(), LocalAccess::default())?;
    let gate = Gate::new(Ca::load(layout.root())?, TokenBook::open(layout.root())?);
    if daemon::kind_of_door(&config, cluster, kind)? {
        let (token, expires) = gate.create_token(cluster, kind, unix_seconds(), ttl_s).await?;
        return Ok(LocalReply::Token { token: token.to_string(), expires, created: false });
    }
    let created = !layout.cluster(cluster).exists();
    if created {
        layout.create_cluster(gate.ca(), cluster, &config.name, &config.addresses)?;
    }
    let (token, expires) = gate.create_token(cluster, kind, unix_seconds(), ttl_s).await?;
    drop(lock);
    Ok(LocalReply::Token { token: token.to_string(), expires, created })
}
