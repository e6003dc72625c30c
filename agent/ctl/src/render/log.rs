//! The timeline.

use jiff::Timestamp;

use crate::commands::{Line, Timeline, What};

/// One line each: when, by the wall clock (UTC) of whoever proposed or did it; who did it, or `#` and the log index of a
/// decision; and what it was.
#[must_use]
pub fn log(timeline: &Timeline) -> String {
    let width = timeline.lines.iter().map(|line| who(line).chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for line in &timeline.lines {
        let what = match &line.what {
            What::Decided { decision, .. } => decision.to_string(),
            What::Did { deed, .. } => deed.to_string(),
        };
        out.push_str(&format!("{}  {:<width$}  {what}\n", when(line.at_ms), who(line)));
    }
    for missing in &timeline.missing {
        out.push_str(&format!("MISSING: what {} did and saw: {}\n", missing.member, missing.why));
    }
    out
}

fn who(line: &Line) -> String {
    match &line.what {
        What::Decided { index, .. } => format!("#{index}"),
        What::Did { member, .. } => member.to_string(),
    }
}

/// A wall clock reading, to the millisecond; a clock beyond all calendars is shown as the number it is.
pub(super) fn when(at_ms: u64) -> String {
    let stamp = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| format!("{at_ms} ms"), |stamp| format!("{stamp:.3}"))
}

#[cfg(test)]
mod tests {
    use tiebreaker_member::core::Deed;
    use tiebreaker_pipeline::decision::Decision;
    use tiebreaker_pipeline::name::MemberName;

    use super::*;
    use crate::commands::Missing;

    #[test]
    fn a_line_says_when_who_and_what() {
        let name = |text: &str| MemberName::new(text).unwrap();
        let at_ms = 1_800_000_000_123;
        let joined = What::Decided { index: 7, decision: Decision::Joined { name: name("node1") } };
        let armed = What::Did { member: name("node1"), deed: Deed::WatchdogArmed };
        let timeline = Timeline {
            lines: vec![Line { at_ms, what: joined }, Line { at_ms: at_ms + 1, what: armed }],
            missing: vec![Missing { member: name("node2"), why: "pi doesn't hear node2 at the moment".into() }],
        };
        let expected = "\
2027-01-15T08:00:00.123Z  #7     node1 joined
2027-01-15T08:00:00.124Z  node1  its watchdog is armed
MISSING: what node2 did and saw: pi doesn't hear node2 at the moment
";
        assert_eq!(log(&timeline), expected);
        assert_eq!(when(u64::MAX), format!("{} ms", u64::MAX));
    }
}
