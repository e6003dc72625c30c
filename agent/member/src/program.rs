//! What the daemons' programs have in common: the command line's outermost layer, the log, and the configuration file,
//! which is read strictly, so that a typo is an error with its line, never a setting that silently isn't there.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::de::DeserializeOwned;
use tiebreaker_pipeline::name::MemberName;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Why a configuration file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error("{path} does not exist: {way_out}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes one.
        way_out: &'static str,
    },
    /// It can't be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It isn't text.
    #[error("{path} is not UTF-8 (byte {at}): save it as UTF-8")]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that isn't.
        at: usize,
    },
    /// It isn't TOML, or holds something else than it should; the source names line and column.
    #[error("in {path}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong there.
        #[source]
        source: toml::de::Error,
    },
    /// An address to listen on.
    #[error("listen: {text:?} is no ADDRESS:PORT, for instance [::]:8405")]
    Listen {
        /// What stands there.
        text: String,
    },
    /// Nothing to listen on.
    #[error("listen is empty: give at least one ADDRESS:PORT")]
    ListensNowhere,
}

/// Reads a configuration file as it is written. `way_out` says what makes one where there is none.
///
/// # Errors
/// Names the file, the place in it and the way out.
pub fn read_config<T: DeserializeOwned>(path: &Path, way_out: &'static str) -> Result<T, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.into(), way_out },
        _ => ConfigError::Read { path: path.into(), source },
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|error| ConfigError::NotText { path: path.into(), at: error.utf8_error().valid_up_to() })?;
    toml::from_str(&text).map_err(|source| ConfigError::Content { path: path.into(), source })
}

/// The addresses under `listen` in a configuration file.
///
/// # Errors
/// One is no address, or there is none.
pub fn listen_addresses(texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let parse = |text: &String| text.parse().map_err(|_| ConfigError::Listen { text: text.clone() });
    let addresses = texts.iter().map(parse).collect::<Result<Vec<SocketAddr>, _>>()?;
    if addresses.is_empty() { Err(ConfigError::ListensNowhere) } else { Ok(addresses) }
}

/// Parses a command line and runs it: 0 for done, 1 for failed or refused, 2 for wrong usage.
pub fn main_from<A: Parser, E: Display>(
    program: &str,
    args: Vec<OsString>,
    run: impl FnOnce(A) -> Result<(), E>,
) -> ExitCode {
    main_with_codes(program, args, run, |_| 1)
}

/// The same where some failures have exit codes of their own.
pub fn main_with_codes<A: Parser, E: Display>(
    program: &str,
    args: Vec<OsString>,
    run: impl FnOnce(A) -> Result<(), E>,
    code: impl FnOnce(&E) -> u8,
) -> ExitCode {
    let args = match A::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output and end well.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With all that led to it, where the error knows that.
            eprintln!("{program}: {error:#}");
            ExitCode::from(code(&error))
        }
    }
}

/// Writes the log to standard error, coloured on a terminal. `RUST_LOG` says how much, `info` if it is not set: a level, or
/// TARGET=LEVEL for parts of the program, with commas between them.
pub fn log_to_stderr() {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let wanted = wanted.and_then(|text| text.parse().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// Prints that the configuration file of a member can be used, for people or as JSON.
pub fn tell_in_order(file: &Path, name: &MemberName, json: bool) {
    if json {
        println!("{}", serde_json::json!({ "configuration": file, "name": name.to_string() }));
    } else {
        println!("{} is in order.", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        listen: Vec<String>,
    }

    fn fault(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, bytes).unwrap();
        let error = read_config::<Raw>(&path, "join first").unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(error.to_string().contains("x.toml"), "{error}");
        format!("{error} {source}")
    }

    #[test]
    fn a_mistake_is_named_with_its_file_and_place() {
        let unknown = fault(b"listen = ['[::]:8405']\nlisen = 3\n");
        assert!(unknown.contains("line 2, column 1") && unknown.contains("lisen"), "{unknown}");
        let wrong = fault(b"listen = 3\n");
        assert!(wrong.contains("line 1, column 10"), "{wrong}");
        assert!(fault(b"listen = ['\xff']").contains("not UTF-8 (byte 11)"));
        let whole = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(whole.path(), b"listen = ['[::]:8405']").unwrap();
        assert_eq!(read_config::<Raw>(whole.path(), "join first").unwrap().listen, ["[::]:8405"]);
        let missing = read_config::<Raw>(Path::new("/nonexistent/x.toml"), "join first").unwrap_err();
        assert_eq!(missing.to_string(), "/nonexistent/x.toml does not exist: join first");
    }

    #[test]
    fn it_listens_somewhere_or_says_what_is_wrong() {
        let texts = |texts: &[&str]| listen_addresses(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(texts(&["[::]:8405", "10.0.0.1:1"]).unwrap().len(), 2);
        assert!(texts(&["here"]).unwrap_err().to_string().contains("ADDRESS:PORT"));
        assert!(matches!(texts(&[]), Err(ConfigError::ListensNowhere)));
    }

    #[derive(Parser)]
    struct Args {
        #[arg(long)]
        fail: bool,
    }

    #[test]
    fn exit_codes_tell_done_from_failed_and_from_wrong_usage() {
        let code = |words: &[&str]| {
            let words = words.iter().map(OsString::from).collect();
            let run = |args: Args| if args.fail { Err("no") } else { Ok(()) };
            format!("{:?}", main_from("x", words, run))
        };
        assert_eq!(code(&["x"]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&["x", "--help"]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&["x", "--fail"]), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(&["x", "--nonsense"]), format!("{:?}", ExitCode::from(2)));
    }
}
