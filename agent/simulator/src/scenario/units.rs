//! Quantities as people write them: `64GiB`, `30s`.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

/// Bytes of each unit.
const BYTES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A span of time: `30s`, `1500ms`, `2m 30s`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: write a number and its unit, for instance \"30s\"");
    // The library also reads ISO 8601, signs and "ago", which nobody needs here.
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.contains("ago") {
        return Err(wrong());
    }
    let span: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

/// Bytes: `64GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no amount of memory: write a number and its unit, for instance \"64GiB\"");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start();
    let (_, bytes) = BYTES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*bytes).ok_or_else(wrong)
}

/// Writes a span so that [`span`] reads it again: in seconds, or where that isn't whole, in milliseconds and less.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(span) = self;
        match span.subsec_nanos() {
            0 => write!(f, "{}s", span.as_secs()),
            nanos if nanos % 1_000_000 == 0 => write!(f, "{}ms", span.as_millis()),
            _ => write!(f, "{}ns", span.as_nanos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, ms) in [("30s", 30_000), ("1500ms", 1_500), ("2m30s", 150_000), ("1.5s", 1_500), ("2h", 7_200_000)] {
            let read = span(text).unwrap();
            assert_eq!(read, Duration::from_millis(ms), "{text}");
            assert_eq!(span(&Span(read).to_string()), Ok(read), "{text}");
        }
        for wrong in ["", "30", "-3s", "s", "PT30S", "30s ago", "30 parsecs", "99999999999999999999s"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_has_a_unit() {
        assert_eq!(bytes("64GiB"), Ok(64 << 30));
        assert_eq!(bytes("512 MB"), Ok(512_000_000));
        for wrong in ["64", "GiB", "-1GiB", "64gib", "1.5GiB", "99999999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
