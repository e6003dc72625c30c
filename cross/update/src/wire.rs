//! How an update gets to process 1: through a Unix socket of its own, which only root and the server's user may use.
//!
//! The client sends one line with the file's length and then the file. Process 1 answers with lines: `at` and what it does,
//! any number of times, and last `done` or `refused` with the words for a person. Its word on an update counts for the
//! machine: who sends the file can't do more than send it.

use std::io::{self, BufRead, Read, Write};

/// A file, at most: a slot's content and its head.
pub const MOST: u64 = crate::file::MOST_BYTES + 8192;
/// A line, at most.
const LONGEST: u64 = 2048;
const REQUEST: &str = "update ";

/// An answer of process 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// What it does.
    At(String),
    /// The update is written, and the machine restarts to try it.
    Done(String),
    /// It isn't installed.
    Refused(String),
}

impl Answer {
    fn line(&self) -> String {
        let (word, text) = match self {
            Self::At(text) => ("at", text),
            Self::Done(text) => ("done", text),
            Self::Refused(text) => ("refused", text),
        };
        format!("{word} {}\n", text.replace(['\n', '\r'], " "))
    }

    fn parse(line: &str) -> Option<Self> {
        let (word, text) = line.split_once(' ')?;
        match word {
            "at" => Some(Self::At(text.to_owned())),
            "done" => Some(Self::Done(text.to_owned())),
            "refused" => Some(Self::Refused(text.to_owned())),
            _ => None,
        }
    }
}

/// Announces a file of this length.
///
/// # Errors
/// The other end is gone.
pub fn announce(to: &mut impl Write, bytes: u64) -> io::Result<()> {
    to.write_all(format!("{REQUEST}{bytes}\n").as_bytes())
}

/// The length of the file that is announced.
///
/// # Errors
/// Something else is said, or the other end is gone.
pub fn announced(from: &mut impl BufRead) -> io::Result<u64> {
    let line = line(from)?;
    let bytes = line.strip_prefix(REQUEST).and_then(|bytes| bytes.parse().ok());
    match bytes {
        Some(bytes) if (1..=MOST).contains(&bytes) => Ok(bytes),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("an update has at most {MOST} bytes"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "no update was announced")),
    }
}

/// Says an answer.
///
/// # Errors
/// The other end is gone.
pub fn say(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    to.write_all(answer.line().as_bytes())?;
    to.flush()
}

/// The next answer.
///
/// # Errors
/// It makes no sense, or the other end is gone.
pub fn hear(from: &mut impl BufRead) -> io::Result<Answer> {
    let line = line(from)?;
    Answer::parse(&line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("it said {line:?}")))
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(LONGEST).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(whole) => Ok(whole.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let mut bytes = Vec::new();
        let said = [Answer::At("a: 1 %".into()), Answer::Refused("no".into()), Answer::Done("two\nlines".into())];
        for answer in &said {
            say(&mut bytes, answer).unwrap();
        }
        let mut from = Cursor::new(bytes);
        assert_eq!([hear(&mut from).unwrap(), hear(&mut from).unwrap()], said[..2]);
        assert_eq!(hear(&mut from).unwrap(), Answer::Done("two lines".into()));
        assert_eq!(hear(&mut from).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_is_announced_and_bounded() {
        let mut bytes = Vec::new();
        announce(&mut bytes, 77).unwrap();
        assert_eq!(announced(&mut Cursor::new(bytes)).unwrap(), 77);
        for text in ["update 0\n", "update 99999999999\n", "update x\n", "update 5", "", "\n"] {
            assert!(announced(&mut Cursor::new(text)).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = hear(&mut Cursor::new(&bytes));
            let _ = announced(&mut Cursor::new(&bytes));
        }
    }
}
