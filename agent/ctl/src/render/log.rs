//! The timeline.

use jiff::Timestamp;
use tiebreaker_pipeline::decision::LogLine;

/// One line per decision: its index, when by the wall clock of whoever proposed it (UTC), and what it was.
#[must_use]
pub fn log(lines: &[LogLine]) -> String {
    let width = lines.last().map_or(1, |line| line.index.to_string().len());
    let mut out = String::new();
    for line in lines {
        out.push_str(&format!("{:>width$}  {}  {}\n", line.index, when(line.at_ms), line.decision));
    }
    out
}

/// A wall clock reading, to the millisecond; a clock beyond all calendars is shown as the number it is.
fn when(at_ms: u64) -> String {
    let stamp = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| format!("{at_ms} ms"), |stamp| format!("{stamp:.3}"))
}

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::decision::Decision;
    use tiebreaker_pipeline::name::MemberName;

    use super::*;

    #[test]
    fn a_line_says_when_and_what() {
        let name = MemberName::new("node1").unwrap();
        let line = LogLine { index: 7, at_ms: 1_800_000_000_123, decision: Decision::Joined { name } };
        assert_eq!(log(&[line]), "7  2027-01-15T08:00:00.123Z  node1 joined\n");
        assert_eq!(when(u64::MAX), format!("{} ms", u64::MAX));
    }
}
