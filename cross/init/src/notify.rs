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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over() {
        let said: Vec<_> = events(b"STATUS=well\nREADY=1\nWATCHDOG=1\n\xff\nWATCHDOG=10").collect();
        assert_eq!(said, [Event::Up, Event::Proof]);
        assert_eq!(events(b"").count(), 0);
    }
}
