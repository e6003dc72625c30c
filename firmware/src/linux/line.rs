//! GPIO lines of a Linux machine, by name or by number, as pins of `embedded-hal`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::string::{String, ToString};
use std::vec::Vec;

use embedded_hal::digital::{ErrorKind, ErrorType, InputPin, OutputPin};
use gpiocdev::Request;
use gpiocdev::line::{Bias as KernelBias, Value};

use crate::{Output, Polarity};

/// Which line: by the name that the machine gives it (`GPIO23`), or by chip and number (`gpiochip0:23`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LineAddress(Which);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Which {
    Named(String),
    Numbered { chip: String, number: u32 },
}

/// What no line is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLineAddress(String);

impl fmt::Display for BadLineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no GPIO line: give its name, for instance \"GPIO23\", or its chip and number, \"gpiochip0:23\"; \
             `gpioinfo` lists both",
            self.0
        )
    }
}

impl std::error::Error for BadLineAddress {}

impl FromStr for LineAddress {
    type Err = BadLineAddress;

    fn from_str(text: &str) -> Result<Self, BadLineAddress> {
        let bad = || BadLineAddress(text.to_string());
        // The kernel's names are shorter than 32 bytes.
        if text.is_empty() || text.len() > 64 || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/') {
            return Err(bad());
        }
        if let Some((chip, number)) = text.split_once(':')
            && chip.starts_with("gpiochip")
        {
            let number = number.parse().map_err(|_| bad())?;
            return Ok(Self(Which::Numbered { chip: chip.to_string(), number }));
        }
        // A bare number names a line of no chip in particular: on some boards that is another one after an update.
        if text.chars().all(|c| c.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self(Which::Named(text.to_string())))
    }
}

impl fmt::Display for LineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Which::Named(name) => f.write_str(name),
            Which::Numbered { chip, number } => write!(f, "{chip}:{number}"),
        }
    }
}

/// What pulls an input that nobody drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bias {
    /// Nothing but what is wired to it.
    Wired,
    /// The chip, up.
    PullUp,
    /// The chip, down.
    PullDown,
}

/// A line that was requested as an output.
pub struct OutputLine(Line);

/// A line that was requested as an input.
pub struct InputLine(Line);

struct Line {
    address: LineAddress,
    request: Request,
}

/// A line could not be had, driven or read.
#[derive(Debug)]
pub enum LineError {
    /// No line of this machine has that name.
    NoSuchName(LineAddress),
    /// Several lines have that name.
    SeveralOfThatName(LineAddress),
    /// The kernel refused.
    Kernel {
        /// The line.
        line: LineAddress,
        /// What was tried.
        tried: &'static str,
        /// What the kernel said.
        source: gpiocdev::Error,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName(line) => write!(f, "no GPIO line is called {line}: `gpioinfo` lists those that there are"),
            Self::SeveralOfThatName(line) => {
                write!(
                    f,
                    "several GPIO lines are called {line}: name the chip and the number, for instance gpiochip0:23"
                )
            }
            Self::Kernel { line, tried, .. } => write!(f, "GPIO line {line} could not be {tried}"),
        }
    }
}

impl std::error::Error for LineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { source, .. } => Some(source),
            Self::NoSuchName(_) | Self::SeveralOfThatName(_) => None,
        }
    }
}

impl embedded_hal::digital::Error for LineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

/// The line as an output that rests from the first moment: it is requested at its resting level, so that no edge is
/// seen, and rests again when it is dropped.
///
/// The kernel's active-low flag is never used: not every way of driving a line honours it. [`Polarity`] is ours.
///
/// # Errors
/// There is no such line, somebody else has it, or this process may not have it.
pub fn output_line(line: &LineAddress, polarity: Polarity, consumer: &str) -> Result<Output<OutputLine>, LineError> {
    let rest = Value::from(polarity.level(false) == embedded_hal::digital::PinState::High);
    let found = find(line)?;
    let request = Request::builder()
        .with_consumer(consumer)
        .on_chip(found.chip)
        .with_line(found.number)
        .as_output(rest)
        .request()
        .map_err(kernel(line, "requested as an output"))?;
    Output::at_rest(OutputLine(Line { address: line.clone(), request }), polarity)
}

/// The line as an input.
///
/// # Errors
/// As [`output_line`]; or the chip knows no bias.
pub fn input_line(line: &LineAddress, bias: Bias, consumer: &str) -> Result<InputLine, LineError> {
    let found = find(line)?;
    let bias = match bias {
        Bias::Wired => None,
        Bias::PullUp => Some(KernelBias::PullUp),
        Bias::PullDown => Some(KernelBias::PullDown),
    };
    let request = Request::builder()
        .with_consumer(consumer)
        .on_chip(found.chip)
        .with_line(found.number)
        .as_input()
        .with_bias(bias)
        .request()
        .map_err(kernel(line, "requested as an input"))?;
    Ok(InputLine(Line { address: line.clone(), request }))
}

struct Found {
    chip: PathBuf,
    number: u32,
}

fn find(line: &LineAddress) -> Result<Found, LineError> {
    match &line.0 {
        Which::Numbered { chip, number } => Ok(Found { chip: PathBuf::from("/dev").join(chip), number: *number }),
        Which::Named(name) => {
            let lines = gpiocdev::lines().map_err(kernel(line, "looked for"))?;
            let mut named: Vec<Found> = lines
                .filter(|found| found.info.name == *name)
                .map(|found| Found { chip: found.chip, number: found.info.offset })
                .collect();
            match (named.pop(), named.len()) {
                (Some(found), 0) => Ok(found),
                (Some(_), _) => Err(LineError::SeveralOfThatName(line.clone())),
                (None, _) => Err(LineError::NoSuchName(line.clone())),
            }
        }
    }
}

fn kernel(line: &LineAddress, tried: &'static str) -> impl FnOnce(gpiocdev::Error) -> LineError {
    let line = line.clone();
    move |source| LineError::Kernel { line, tried, source }
}

impl Line {
    fn read(&self) -> Result<bool, LineError> {
        let value = self.request.lone_value().map_err(kernel(&self.address, "read"))?;
        Ok(value == Value::Active)
    }
}

impl ErrorType for OutputLine {
    type Error = LineError;
}

impl OutputPin for OutputLine {
    fn set_low(&mut self) -> Result<(), LineError> {
        self.0.request.set_lone_value(Value::Inactive).map(drop).map_err(kernel(&self.0.address, "driven low"))
    }

    fn set_high(&mut self) -> Result<(), LineError> {
        self.0.request.set_lone_value(Value::Active).map(drop).map_err(kernel(&self.0.address, "driven high"))
    }
}

impl ErrorType for InputLine {
    type Error = LineError;
}

impl InputPin for InputLine {
    fn is_high(&mut self) -> Result<bool, LineError> {
        self.0.read()
    }

    fn is_low(&mut self) -> Result<bool, LineError> {
        self.0.read().map(|high| !high)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_line_is_called_by_name_or_by_chip_and_number() {
        for text in ["GPIO23", "gpiochip0:23", "P8_11", "ETH_LED0:green"] {
            let address: LineAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let numbered: LineAddress = "gpiochip4:7".parse().unwrap();
        assert_eq!(numbered, LineAddress(Which::Numbered { chip: "gpiochip4".into(), number: 7 }));
    }

    #[test]
    fn what_is_no_line_is_refused_with_an_example() {
        for text in ["", "23", "gpiochip0:", "gpiochip0:x", "gpiochip0:-1", "/dev/gpiochip0:3", "a b", "a\n"] {
            let error = LineAddress::from_str(text).unwrap_err().to_string();
            assert!(error.contains("gpiochip0:23") && error.contains("gpioinfo"), "{error}");
        }
    }

    #[test]
    fn a_line_of_a_chip_that_is_not_there_is_named() {
        let line: LineAddress = "gpiochip4711:3".parse().unwrap();
        let error = output_line(&line, Polarity::ActiveLow, "test").err().unwrap();
        assert_eq!(error.to_string(), "GPIO line gpiochip4711:3 could not be requested as an output");
        let error = input_line(&line, Bias::PullUp, "test").err().unwrap();
        assert_eq!(error.to_string(), "GPIO line gpiochip4711:3 could not be requested as an input");
        let line: LineAddress = "no-line-of-this-name".parse().unwrap();
        let error = input_line(&line, Bias::Wired, "test").err().unwrap().to_string();
        assert!(error.contains("no-line-of-this-name"), "{error}");
    }
}
