//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// How it is called.
pub const HELP: &str = "tiebreaker-pairing --data FOLDER [--server PROGRAM] [--listen ADDRESS:PORT]

Lets `pvecm qdevice setup` in over ssh, once. Shows a code, which is root's password for a quarter of an hour.

  --data FOLDER            the data folder of tiebreaker-server; the host key is kept there too
  --server PROGRAM         tiebreaker-server, where it isn't in the PATH
  --listen ADDRESS:PORT    where to listen; without it the standard input is a socket that listens

It ends with 0 when a cluster was set up, 3 when nobody came, 4 after ten wrong codes, 1 for a fault and 2 for wrong usage.
";

/// What it is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The data folder of `tiebreaker-server`.
    pub data: PathBuf,
    /// Its program.
    pub server: PathBuf,
    /// Where to listen, if not at the socket on the standard input.
    pub listen: Option<SocketAddr>,
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum WrongUsage {
    /// There is no such option.
    #[error("there is no option {0:?}: see --help")]
    Unknown(OsString),
    /// Something must follow.
    #[error("{0} needs a value: see --help")]
    NoValue(&'static str),
    /// An address can't be read.
    #[error("--listen {0:?} is no ADDRESS:PORT: give for instance [::]:22")]
    Address(OsString),
    /// The folder is missing.
    #[error("give --data FOLDER, the data folder of tiebreaker-server")]
    NoData,
}

impl Options {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, WrongUsage> {
        let mut words = words.into_iter();
        let (mut data, mut server, mut listen) = (None, PathBuf::from("tiebreaker-server"), None);
        while let Some(word) = words.next() {
            let mut value = |name| words.next().ok_or(WrongUsage::NoValue(name));
            match word.to_str() {
                Some("--data") => data = Some(value("--data")?.into()),
                Some("--server") => server = value("--server")?.into(),
                Some("--listen") => {
                    let text = value("--listen")?;
                    let address = text.to_str().and_then(|text| text.parse().ok());
                    listen = Some(address.ok_or(WrongUsage::Address(text))?);
                }
                _ => return Err(WrongUsage::Unknown(word)),
            }
        }
        Ok(Self { data: data.ok_or(WrongUsage::NoData)?, server, listen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, WrongUsage> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_command_line_is_read_whole_or_refused() {
        let options = parse("--data /d --server /s --listen [::]:22").unwrap();
        assert_eq!((options.data, options.server), ("/d".into(), "/s".into()));
        assert_eq!(options.listen, Some("[::]:22".parse().unwrap()));
        assert_eq!(parse("--data /d").unwrap().listen, None);
        assert_eq!(parse(""), Err(WrongUsage::NoData));
        assert_eq!(parse("--data"), Err(WrongUsage::NoValue("--data")));
        assert_eq!(parse("--data /d -x"), Err(WrongUsage::Unknown("-x".into())));
        assert_eq!(parse("--data /d --listen 22"), Err(WrongUsage::Address("22".into())));
    }
}
