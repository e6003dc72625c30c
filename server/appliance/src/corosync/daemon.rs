//! `corosync-qnetd`: the QDevice service alone, without an appliance, with the original's options and paths.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{stderr, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::fs::Access;
use tiebreaker_qnetd::wire::{Algorithm, MessageKind};
use tiebreaker_qnetd::{Clusters, Config, TlsMode};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::advanced::{Advanced, on_or_off};
use super::lock::Lock;
use super::options::{Operands, Said, complaint, read};
use super::{detach, print, syslog};
use crate::notify;
use crate::qdevice::{Arrived, ControlSocket, Engine, Events, Folder, HolderFile, OnShutdown, Pki, Settings};
use crate::sys::give_start_back;

const USAGE: &str = "usage: corosync-qnetd [-46dfhv] [-l listen_addr] [-p listen_port] [-s tls]\n              \
[-c client_cert_required] [-m max_clients] [-S option=value[,option2=value2,...]]\n";

const PORT: u16 = 5403;

/// There, if the kernel has IPv6.
const HAS_IPV6: &str = "/proc/net/if_inet6";

/// Addresses of one kind only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

/// What the command line says.
#[derive(Clone, Debug)]
struct Options {
    family: Option<Family>,
    debug: bool,
    foreground: bool,
    address: Option<String>,
    port: u16,
    tls: TlsMode,
    certificate: bool,
    max_clients: usize,
    advanced: Advanced,
}

/// Why nothing is run.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stop {
    /// The usage is wanted, or nothing else helps; a mistake before it.
    Usage(String),
    /// The versions are wanted.
    Version,
    /// A value is wrong.
    Wrong(String),
}

/// Runs it.
pub fn main(args: &[OsString]) -> ExitCode {
    let options = match Options::read(args) {
        Ok(options) => options,
        Err(stop) => {
            match stop {
                Stop::Usage(mistake) => {
                    print(stderr(), mistake.as_bytes());
                    print(stdout(), USAGE.as_bytes());
                }
                Stop::Version => print(stdout(), version().as_bytes()),
                Stop::Wrong(what) => print(stderr(), format!("corosync-qnetd: {what}\n").as_bytes()),
            }
            // The original's code for each of them.
            return ExitCode::FAILURE;
        }
    };
    let detached = detach::is_detached();
    if !options.foreground && !detached {
        return detach::detach(args);
    }
    if detached {
        detach::leave_session();
    }
    syslog::start(options.foreground, options.debug);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("corosync-qnetd: can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(&options, detached)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why:#}");
            if !options.foreground {
                print(stderr(), format!("corosync-qnetd: {why:#}\n").as_bytes());
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Options, detached: bool) -> Result<()> {
    for remark in &options.advanced.remarks {
        warn!("{remark}");
    }
    let lock = Lock::take(&options.advanced.lock_file).map_err(anyhow::Error::msg)?;
    let pki = match options.tls {
        // Nobody gets to see it.
        TlsMode::Off => Pki::create()?,
        TlsMode::Optional | TlsMode::Required => Folder::of_corosync(&options.advanced.nss_db_dir).open()?,
    };
    let settings = options.settings()?;
    let holders = HolderFile::in_folder(&memory_folder(&options.advanced));
    let (engine, questions) = Engine::bind(&settings, &pki, Events::new(), holders, Arrived::default()).await?;
    let (tell, mut told) = mpsc::channel(1);
    let control = options.advanced.control.clone();
    let control = ControlSocket::bind(control, &settings, engine.addresses(), questions, OnShutdown::Tell(tell))?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    info!(listen = ?engine.addresses(), "the QDevice service is up");
    give_start_back();
    if detached {
        detach::ready();
    }
    if let Err(error) = notify::ready() {
        warn!("the service manager can't be told: {error}");
    }
    let result = tokio::select! {
        ended = engine.run() => ended.context("the QDevice service has stopped"),
        ended = control.run() => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = told.recv() => Ok(()),
    };
    drop(lock);
    result
}

/// Where it is kept who has the votes: beside the authority, which outlives a power cut, or else beside the lock, which
/// outlives a crash.
fn memory_folder(advanced: &Advanced) -> PathBuf {
    let beside_lock = advanced.lock_file.parent().unwrap_or(Path::new("/")).to_owned();
    if rustix::fs::access(&advanced.nss_db_dir, Access::WRITE_OK).is_ok() {
        return advanced.nss_db_dir.clone();
    }
    warn!(
        folder = %beside_lock.display(),
        "{} can't be written to: who has the votes is kept elsewhere, and may be forgotten in a power cut",
        advanced.nss_db_dir.display()
    );
    beside_lock
}

impl Options {
    fn read(args: &[OsString]) -> Result<Self, Stop> {
        let program = args.first().map_or(OsStr::new("corosync-qnetd"), OsString::as_os_str);
        let mut options = Self {
            family: None,
            debug: false,
            foreground: false,
            address: None,
            port: PORT,
            tls: TlsMode::Optional,
            certificate: true,
            max_clients: 0,
            advanced: Advanced::default(),
        };
        for said in read(args.get(1..).unwrap_or_default(), "46dfhv", "clmpsS", Operands::Skipped) {
            match said {
                Said::Flag(flag) => options.flag(flag)?,
                Said::Value(letter, value) => {
                    let Some(value) = value.to_str() else {
                        return Err(Stop::Wrong(format!("the value of -{letter} is no text")));
                    };
                    options.value(letter, value)?;
                }
                mistake @ (Said::Unknown(_) | Said::NoValue(_)) => {
                    return Err(Stop::Usage(complaint(program, &mistake).unwrap_or_default()));
                }
            }
        }
        Ok(options)
    }

    fn flag(&mut self, flag: char) -> Result<(), Stop> {
        let family = |family| match self.family {
            Some(other) if other != family => Err(Stop::Wrong("-4 and -6 exclude each other".into())),
            Some(_) | None => Ok(Some(family)),
        };
        match flag {
            '4' => self.family = family(Family::V4)?,
            '6' => self.family = family(Family::V6)?,
            'd' => self.debug = true,
            'f' => self.foreground = true,
            'v' => return Err(Stop::Version),
            _ => return Err(Stop::Usage(String::new())),
        }
        Ok(())
    }

    fn value(&mut self, letter: char, value: &str) -> Result<(), Stop> {
        let wrong = |what: &str| Stop::Wrong(what.to_owned());
        match letter {
            'l' => self.address = Some(value.to_owned()),
            'p' => {
                let port = value.parse().ok().filter(|port| *port > 0);
                self.port = port.ok_or_else(|| wrong("host port must be in range 1-65535"))?;
            }
            's' => {
                self.tls = match on_or_off(value) {
                    Some(true) => TlsMode::Optional,
                    Some(false) => TlsMode::Off,
                    // The manual page says `required`, the original takes `req`.
                    None if ["req", "required"].iter().any(|word| value.eq_ignore_ascii_case(word)) => {
                        TlsMode::Required
                    }
                    None => return Err(wrong("tls must be one of on, off, req")),
                }
            }
            'c' => {
                let required = on_or_off(value);
                self.certificate =
                    required.ok_or_else(|| wrong("client_cert_required should be on/yes/1, off/no/0"))?;
            }
            'm' => {
                let invalid = |_| Stop::Wrong(format!("max clients value {value} is invalid"));
                self.max_clients = value.parse().map_err(invalid)?;
            }
            _ => self.advanced.take(value).map_err(Stop::Wrong)?,
        }
        Ok(())
    }

    fn settings(&self) -> Result<Settings> {
        let mut votes = Config::new(Clusters::Any(self.tls));
        votes.client_cert_required = self.certificate;
        if self.max_clients > 0 {
            votes.limits.clients = self.max_clients;
        }
        self.advanced.apply(&mut votes).map_err(anyhow::Error::msg)?;
        let (authority, control) = (self.advanced.nss_db_dir.clone(), self.advanced.control.path.clone());
        Ok(Settings::alone(vec![self.listen()?], authority, control, votes))
    }

    fn listen(&self) -> Result<SocketAddr> {
        let Some(name) = &self.address else {
            let ip = match self.family {
                Some(Family::V4) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                None if !Path::new(HAS_IPV6).exists() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Some(Family::V6) | None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            return Ok(SocketAddr::new(ip, self.port));
        };
        let mut found =
            (name.as_str(), self.port).to_socket_addrs().with_context(|| format!("looking up the address {name}"))?;
        let fits = |address: &SocketAddr| match self.family {
            Some(Family::V4) => address.is_ipv4(),
            Some(Family::V6) => address.is_ipv6(),
            None => true,
        };
        match found.find(fits) {
            Some(address) => Ok(address),
            None => bail!("{name} has no address of the kind that -4 or -6 asks for"),
        }
    }
}

fn version() -> String {
    let mut text =
        format!("Tiebreaker as Corosync Qdevice Network Daemon, version '{}'\n\n", env!("CARGO_PKG_VERSION"));
    let algorithms = Algorithm::ALL.iter().map(|algorithm| {
        let name = match algorithm {
            Algorithm::Test => "Test",
            Algorithm::FfSplit => "Fifty-Fifty split",
            Algorithm::TwoNodeLms => "2 Node LMS",
            Algorithm::Lms => "LMS",
        };
        format!("{name} ({})", algorithm.number())
    });
    let _ = writeln!(text, "Supported algorithms: {}", algorithms.collect::<Vec<_>>().join(", "));
    let kinds = MessageKind::ALL.iter().map(|kind| format!("{kind:?} ({})", kind.number()));
    let _ = writeln!(text, "Supported message types: {}", kinds.collect::<Vec<_>>().join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, Stop> {
        Options::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_wrong_is_said_as_the_original_says_it() {
        for (line, complaint) in [
            ("x -s bogus", "tls must be one of on, off, req"),
            ("x -c x", "client_cert_required should be on/yes/1, off/no/0"),
            ("x -p 0", "host port must be in range 1-65535"),
            ("x -p 99999", "host port must be in range 1-65535"),
            ("x -m -1", "max clients value -1 is invalid"),
            ("x -S foo=1", "Unknown option 'foo'"),
            ("x -46", "-4 and -6 exclude each other"),
        ] {
            assert_eq!(options(line).unwrap_err(), Stop::Wrong(complaint.into()), "{line}");
        }
        assert_eq!(options("x -v -Z").unwrap_err(), Stop::Version);
        assert_eq!(options("x -h").unwrap_err(), Stop::Usage(String::new()));
        assert_eq!(options("x -Z").unwrap_err(), Stop::Usage("x: invalid option -- 'Z'\n".into()));
    }

    #[test]
    fn defaults_are_the_originals() {
        let options = options("x -f").unwrap();
        let settings = options.settings().unwrap();
        assert_eq!(settings.votes.clusters, Clusters::Any(TlsMode::Optional));
        assert!(settings.votes.client_cert_required && options.foreground);
        assert_eq!(settings.listen.iter().map(SocketAddr::port).collect::<Vec<_>>(), [5403]);
        assert_eq!(options.advanced.nss_db_dir, Path::new("/etc/corosync/qnetd/nssdb"));
        let narrow = super::Options::read(&["x", "-4dm7", "-l127.0.0.9", "-p", "5999"].map(OsString::from)).unwrap();
        let settings = narrow.settings().unwrap();
        assert_eq!((settings.listen[0].to_string().as_str(), settings.votes.limits.clients), ("127.0.0.9:5999", 7));
    }
}
