//! Command lines as getopt reads them: one letter an option, letters in a row, values joined or apart.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One thing that a command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// An option.
    Flag(char),
    /// An option with its value.
    Value(char, OsString),
    /// A letter that is no option.
    Unknown(char),
    /// An option whose value is missing.
    NoValue(char),
}

/// What becomes of words that are no options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operands {
    /// They are passed over: getopt of the C library.
    Skipped,
    /// Nothing behind them is read: the shell's getopts.
    End,
}

/// Reads a command line without its first word.
pub fn read(args: &[OsString], flags: &str, valued: &str, operands: Operands) -> Vec<Said> {
    let mut said = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            break;
        }
        let Some(letters) = bytes.strip_prefix(b"-").filter(|letters| !letters.is_empty()) else {
            match operands {
                Operands::Skipped => continue,
                Operands::End => break,
            }
        };
        let mut letters = letters.iter();
        while let Some(letter) = letters.next().map(|byte| char::from(*byte)) {
            if flags.contains(letter) {
                said.push(Said::Flag(letter));
            } else if valued.contains(letter) {
                let rest = letters.as_slice();
                let value = if rest.is_empty() { args.next().cloned() } else { Some(owned(rest)) };
                said.push(value.map_or(Said::NoValue(letter), |value| Said::Value(letter, value)));
                break;
            } else {
                said.push(Said::Unknown(letter));
            }
        }
    }
    said
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// What getopt of the C library says of a mistake.
pub fn complaint(program: &OsStr, mistake: &Said) -> Option<String> {
    let program = program.display();
    match mistake {
        Said::Unknown(letter) => Some(format!("{program}: invalid option -- '{letter}'\n")),
        Said::NoValue(letter) => Some(format!("{program}: option requires an argument -- '{letter}'\n")),
        Said::Flag(_) | Said::Value(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str, operands: Operands) -> Vec<Said> {
        read(&line.split(' ').map(OsString::from).collect::<Vec<_>>(), "46d", "sp", operands)
    }

    #[test]
    fn letters_stand_alone_in_a_row_and_with_their_value() {
        let value = |letter, text: &str| Said::Value(letter, text.into());
        assert_eq!(said("-4d -6", Operands::Skipped), [Said::Flag('4'), Said::Flag('d'), Said::Flag('6')]);
        assert_eq!(said("-soff -d -p 1", Operands::Skipped), [value('s', "off"), Said::Flag('d'), value('p', "1")]);
        assert_eq!(said("-ds -4", Operands::Skipped), [Said::Flag('d'), value('s', "-4")]);
        assert_eq!(said("-Z -p", Operands::Skipped), [Said::Unknown('Z'), Said::NoValue('p')]);
        assert_eq!(said("x -4 -- -6", Operands::Skipped), [Said::Flag('4')]);
        assert_eq!(said("x -4", Operands::End), []);
        assert_eq!(said("- -4", Operands::End), []);
    }
}
