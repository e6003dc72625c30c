//! `[board]` in `server.toml`.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_fence::{Wire, parse_line};
use toml::Spanned;

/// The section as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBoard {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quorum_led: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence_led: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault_led: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    button: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    watchdogs: Vec<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watchdog_timeout_s: Option<Spanned<u64>>,
}

/// What is wired to the appliance.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Board {
    pub(crate) quorum_led: Option<Wire>,
    pub(crate) fence_led: Option<Wire>,
    pub(crate) fault_led: Option<Wire>,
    pub(crate) button: Option<Wire>,
    pub(crate) watchdogs: Option<Watchdogs>,
}

impl Board {
    /// Whether there is anything for a person.
    pub(crate) fn has_panel(&self) -> bool {
        self.wires().next().is_some()
    }

    /// All lines that it takes.
    pub(crate) fn wires(&self) -> impl Iterator<Item = &Wire> {
        [&self.quorum_led, &self.fence_led, &self.fault_led, &self.button].into_iter().flatten()
    }
}

/// The appliance's own watchdogs: one, or two that must both be fed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Watchdogs {
    pub(crate) first: Which,
    pub(crate) second: Option<Which>,
    pub(crate) timeout: Duration,
}

/// Where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// A device of the kernel, `/dev/watchdogN`.
    Kernel(PathBuf),
    /// A Sequent Super Watchdog on this I2C bus.
    Sequent(PathBuf),
}

/// What stands before the bus of a Sequent Super Watchdog.
const SEQUENT: &str = "sequent:";

impl FromStr for Which {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix(SEQUENT) {
            Some(bus) if bus.starts_with('/') => Ok(Self::Sequent(bus.into())),
            None if text.starts_with('/') => Ok(Self::Kernel(text.into())),
            Some(_) | None => bail!(
                "{text:?} is no watchdog: give a device of the kernel, for instance \"/dev/watchdog0\", or the I2C bus of \
                 a Sequent Super Watchdog, for instance \"sequent:/dev/i2c-1\""
            ),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(path) => write!(f, "{}", path.display()),
            Self::Sequent(bus) => write!(f, "the Sequent Super Watchdog on {}", bus.display()),
        }
    }
}

/// The daemon answers itself within a fraction of the shortest, on a busy Pi too.
const TIMEOUT_S: std::ops::RangeInclusive<u64> = 8..=600;
/// The Pi's own watchdog knows no more than 15.
const TIMEOUT_S_DEFAULT: u64 = 15;

impl RawBoard {
    /// Checks the section. `text` is the file's, for the places of mistakes.
    pub(crate) fn check(self, text: &str) -> Result<Board> {
        let mut taken: Vec<Wire> = Vec::new();
        let mut wire = |key: &str, raw: Option<Spanned<String>>| -> Result<Option<Wire>> {
            let Some(raw) = raw else { return Ok(None) };
            let at = || format!("{}: {key}", place(text, raw.span()));
            let wire = parse_line(raw.get_ref()).with_context(at)?;
            if taken.iter().any(|other| other.line == wire.line) {
                bail!("{}: line {} is wired to something else already", at(), wire.line);
            }
            taken.push(wire.clone());
            Ok(Some(wire))
        };
        let (quorum_led, fence_led) = (wire("quorum_led", self.quorum_led)?, wire("fence_led", self.fence_led)?);
        let (fault_led, button) = (wire("fault_led", self.fault_led)?, wire("button", self.button)?);
        let watchdogs = watchdogs(&self.watchdogs, self.watchdog_timeout_s.as_ref(), text)?;
        Ok(Board { quorum_led, fence_led, fault_led, button, watchdogs })
    }
}

fn watchdogs(raw: &[Spanned<String>], timeout_s: Option<&Spanned<u64>>, text: &str) -> Result<Option<Watchdogs>> {
    let which = |raw: &Spanned<String>| {
        raw.get_ref().parse().with_context(|| format!("{}: watchdogs", place(text, raw.span())))
    };
    let (first, second) = match raw {
        [] => return Ok(None),
        [one] => (which(one)?, None),
        [one, other] => {
            let (first, second): (Which, Which) = (which(one)?, which(other)?);
            if first == second {
                bail!("{}: watchdogs: {second} is given twice", place(text, other.span()));
            }
            (first, Some(second))
        }
        [_, _, third, ..] => bail!("{}: watchdogs: two at most", place(text, third.span())),
    };
    let seconds = timeout_s.map_or(TIMEOUT_S_DEFAULT, |seconds| *seconds.get_ref());
    if let Some(given) = timeout_s.filter(|given| !TIMEOUT_S.contains(given.get_ref())) {
        let (least, most) = (TIMEOUT_S.start(), TIMEOUT_S.end());
        bail!("{}: watchdog_timeout_s: {seconds} is not between {least} and {most}", place(text, given.span()));
    }
    Ok(Some(Watchdogs { first, second, timeout: Duration::from_secs(seconds) }))
}

/// Where a value begins, as an editor counts.
fn place(text: &str, span: Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Board, String> {
        #[derive(Deserialize)]
        struct File {
            board: RawBoard,
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        file.board.check(text).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn everything_is_optional_and_a_whole_board_is_read() {
        assert_eq!(check("[board]\n"), Ok(Board::default()));
        let board = check(
            "[board]\nquorum_led = 'GPIO17'\nfence_led = 'gpiochip0:27'\nfault_led = '!GPIO22'\nbutton = '!GPIO3'\n\
             watchdogs = ['/dev/watchdog0', 'sequent:/dev/i2c-1']\nwatchdog_timeout_s = 14\n",
        )
        .unwrap();
        assert_eq!(board.fault_led.unwrap().to_string(), "!GPIO22");
        let watchdogs = board.watchdogs.unwrap();
        assert_eq!(watchdogs.second, Some(Which::Sequent("/dev/i2c-1".into())));
        assert_eq!(watchdogs.timeout, Duration::from_secs(14));
        let one = check("[board]\nwatchdogs = ['/dev/watchdog0']\n").unwrap().watchdogs.unwrap();
        assert_eq!((one.second, one.timeout), (None, Duration::from_secs(15)));
    }

    #[test]
    fn mistakes_are_named_with_line_column_and_a_way_out() {
        let has = |text: &str, words: &[&str]| {
            let error = check(text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in: {error}");
            }
        };
        has("[board]\nbuton = 'GPIO3'\n", &["line 2, column 1", "buton", "`button`"]);
        has("[board]\nbutton = '3'\n", &["line 2, column 10", "button", "gpiochip0:23"]);
        has("[board]\nbutton = 'GPIO3'\nfault_led = '!GPIO3'\n", &["line 2, column 10", "GPIO3", "already"]);
        has("[board]\nwatchdogs = ['watchdog']\n", &["line 2, column 14", "/dev/watchdog0", "sequent:/dev/i2c-1"]);
        has("[board]\nwatchdogs = ['/a', '/a']\n", &["line 2, column 20", "/a is given twice"]);
        has("[board]\nwatchdogs = ['/a', '/b', '/c']\n", &["line 2, column 26", "two at most"]);
        has("[board]\nwatchdogs = ['/a']\nwatchdog_timeout_s = 3\n", &["line 3, column 22", "between 8 and 600"]);
    }
}
