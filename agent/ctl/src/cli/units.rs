//! Numbers with units, as people write them.

use std::time::Duration;

use jiff::SignedDuration;

/// A value, or the word that takes it away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrNone<T>(pub Option<T>);

/// Seconds with an optional fraction, as milliseconds.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    thousandths(text).ok_or_else(|| "use a number of seconds, for instance 10 or 0.5".to_owned())
}

/// Processors with an optional fraction, as thousandths; or `none`.
pub fn parse_cpus(text: &str) -> Result<OrNone<u64>, String> {
    or_none(text, |text| {
        thousandths(text).ok_or_else(|| "use a number of processors, for instance 2 or 1.5, or none".to_owned())
    })
}

/// Memory with its unit, as bytes; or `none`.
pub fn parse_memory(text: &str) -> Result<OrNone<u64>, String> {
    or_none(text, |text| {
        memory(text).ok_or_else(|| "use a number with its unit, for instance 4GiB or 512MiB, or none".to_owned())
    })
}

/// A number, or `none`.
pub fn parse_count_or_none(text: &str) -> Result<OrNone<u32>, String> {
    or_none(text, |text| text.parse().map_err(|_| "use a number, or none".to_owned()))
}

/// A span of time above zero: `2h`, `30m`, `1h30m`, `45s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || "use a span of time, for instance 2h, 30m, 1h30m or 45s".to_owned();
    let span: SignedDuration = text.parse().map_err(|_| bad())?;
    Duration::try_from(span).ok().filter(|span| !span.is_zero()).ok_or_else(bad)
}

/// A span of time, or `none`.
pub fn parse_duration_or_none(text: &str) -> Result<OrNone<Duration>, String> {
    or_none(text, parse_duration)
}

/// `on` or `off`.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("use on or off".to_owned()),
    }
}

fn or_none<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<OrNone<T>, String> {
    if text == "none" { Ok(OrNone(None)) } else { parse(text).map(|value| OrNone(Some(value))) }
}

/// A decimal number with three digits after the point at most, in thousandths.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(fraction)
}

/// Units of memory: binary ones, and the decimal ones that disks are sold by.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

fn memory(text: &str) -> Option<u64> {
    let (number, unit) = UNITS.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let thousandths = u128::from(thousandths(number.trim_end())?);
    u64::try_from(thousandths * u128::from(unit) / 1000).ok()
}

/// Bytes as people read them, cut to one digit behind the point.
pub fn show_memory(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    let point = if tenths.is_multiple_of(10) { String::new() } else { format!(".{}", tenths % 10) };
    format!("{}{point} {}", tenths / 10, units[unit])
}

/// A span of time in whole seconds, as people read it.
pub fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let said: Vec<String> =
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count} {unit}")).collect();
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(parse_seconds("10"), Ok(10_000));
        assert_eq!(parse_seconds("0.25"), Ok(250));
        for bad in ["", ".", "1.", "-1", "1.0000", "1e3", "99999999999999999999"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_needs_its_unit() {
        assert_eq!(parse_memory("4GiB"), Ok(OrNone(Some(4 << 30))));
        assert_eq!(parse_memory("1.5 MiB"), Ok(OrNone(Some(3 << 19))));
        assert_eq!(parse_memory("2GB"), Ok(OrNone(Some(2_000_000_000))));
        assert_eq!(parse_memory("none"), Ok(OrNone(None)));
        for bad in ["", "4", "4G", "GiB", "-1GiB", "99999999999999TiB", "4gib"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
        let shown = [0, 1023, 4 << 30, 3 << 29, 1 << 50].map(show_memory);
        assert_eq!(shown, ["0 B", "1023 B", "4 GiB", "1.5 GiB", "1024 TiB"]);
    }

    #[test]
    fn processors_may_have_a_fraction() {
        assert_eq!(parse_cpus("1.5"), Ok(OrNone(Some(1500))));
        assert_eq!(parse_cpus("none"), Ok(OrNone(None)));
        assert!(parse_cpus("many").is_err());
    }

    #[test]
    fn spans_of_time_are_above_zero() {
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "2", "0s", "-2h", "2 moons"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(show_duration(Duration::from_secs(5401)), "1 h 30 min 1 s");
        assert_eq!(show_duration(Duration::ZERO), "0 s");
    }
}
