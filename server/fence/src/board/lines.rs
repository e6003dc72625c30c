//! Lines as a configuration names them.

use std::str::FromStr;

use tiebreaker_firmware::{BadLineAddress, LineAddress, Polarity};

/// A line, and which level of it means active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The line.
    pub line: LineAddress,
    /// Its active level.
    pub polarity: Polarity,
}

/// Reads a line as it is written in a configuration: `GPIO23` or `gpiochip0:23`, active when high; with a `!` before it
/// active when low.
///
/// # Errors
/// It is no line.
pub fn parse_line(text: &str) -> Result<Wire, BadLineAddress> {
    let (polarity, name) = match text.strip_prefix('!') {
        Some(name) => (Polarity::ActiveLow, name),
        None => (Polarity::ActiveHigh, text),
    };
    Ok(Wire { line: LineAddress::from_str(name)?, polarity })
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = match self.polarity {
            Polarity::ActiveHigh => "",
            Polarity::ActiveLow => "!",
        };
        write!(f, "{mark}{}", self.line)
    }
}
