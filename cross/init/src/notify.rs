//! What the server tells its service manager: the datagrams of systemd's `sd_notify`.

use crate::supervisor::Event;

/// What a datagram says, as far as it matters here.
pub fn events(datagram: &[u8]) -> impl Iterator<Item = Event> + '_ {
    datagram.split(|byte| *byte == b'\n').filter_map(|line| match line {
        b"READY=1" => Some(Event::Up),
        b"WATCHDOG=1" => Some(Event::Proof),
        _ => None,
    })
}

/// The clusters that don't run, where the datagram tells them.
pub fn stopped(datagram: &[u8]) -> Option<Vec<String>> {
    let mut lines = datagram.split(|byte| *byte == b'\n');
    let names = lines.find_map(|line| line.strip_prefix(b"X_TIEBREAKER_STOPPED="))?;
    let names = String::from_utf8_lossy(names);
    Some(names.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over() {
        let said: Vec<_> = events(b"STATUS=well\nREADY=1\nWATCHDOG=1\n\xff\nWATCHDOG=10").collect();
        assert_eq!(said, [Event::Up, Event::Proof]);
        assert_eq!(events(b"").count(), 0);
    }

    #[test]
    fn clusters_that_do_not_run_are_told_by_name() {
        assert_eq!(stopped(b"READY=1"), None);
        assert_eq!(stopped(b"X_TIEBREAKER_STOPPED="), Some(Vec::new()));
        assert_eq!(stopped(b"X_TIEBREAKER_STOPPED=home,work\nREADY=1").unwrap(), ["home", "work"]);
        assert!(stopped(b"X_TIEBREAKER_STOPPED=\xff,").is_some());
    }
}
