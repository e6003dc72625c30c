//! What the kernel's command line says to this program.

use tiebreaker_update::Slot;

/// The keys of this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandLine {
    /// The signature of the disk that holds the partitions.
    pub disk: Option<u32>,
    /// Whether the hardware's watchdog is used. Off is for emulators that reset at the moment of arming.
    pub watchdog: bool,
    /// After so many seconds this program stops doing anything. For tests of the watchdog.
    pub hang_after_s: Option<u64>,
    /// The slot that was started, from an emulator's harness that plays the firmware. On a Pi the firmware says it.
    pub slot: Option<Slot>,
}

impl CommandLine {
    /// Reads `/proc/cmdline`. What is not this program's, or makes no sense, is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut line = Self { disk: None, watchdog: true, hang_after_s: None, slot: None };
        for word in text.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("tiebreaker.disk", value)) => line.disk = u32::from_str_radix(value, 16).ok(),
                Some(("tiebreaker.watchdog", "off")) => line.watchdog = false,
                Some(("tiebreaker.hang", value)) => line.hang_after_s = value.parse().ok(),
                Some(("tiebreaker.slot", value)) => line.slot = value.parse().ok().and_then(Slot::of_partition),
                _ => {}
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_among_the_kernels_own() {
        let line =
            CommandLine::parse("console=tty1 tiebreaker.disk=7462726b quiet tiebreaker.hang=20 tiebreaker.slot=3\n");
        assert_eq!(
            line,
            CommandLine { disk: Some(0x7462_726b), watchdog: true, hang_after_s: Some(20), slot: Some(Slot::Three) }
        );
        let none = CommandLine { disk: None, watchdog: true, hang_after_s: None, slot: None };
        assert_eq!(CommandLine::parse("tiebreaker.disk=x tiebreaker.watchdog=on tiebreaker.slot=4"), none);
        assert!(!CommandLine::parse("tiebreaker.watchdog=off").watchdog);
    }
}
