//! `autoboot.txt`, by which the Pi's firmware chooses the slot.
//!
//! Changing the choice exchanges two digits. Nothing is moved, and nothing gets longer, so that the one sector in which the
//! file lies is all that is written.

use crate::Slot;

/// The firmware reads no more.
pub const LONGEST: usize = 512;

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Autoboot {
    /// The slot that starts.
    pub start: Slot,
    /// The slot that a trial starts.
    pub trial: Slot,
    start_at: usize,
    trial_at: usize,
}

/// Why the file can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("autoboot.txt {0}: put the one of the image back onto the card's first partition")]
pub struct AutobootError(String);

impl Autoboot {
    /// Reads the file.
    ///
    /// # Errors
    /// It doesn't name both slots, each once.
    pub fn parse(text: &[u8]) -> Result<Self, AutobootError> {
        let wrong = |what: &str| AutobootError(what.to_owned());
        if text.len() > LONGEST {
            return Err(wrong("is longer than the firmware reads"));
        }
        let (mut all, mut tryboot, mut by_partition) = (None, None, false);
        let mut section = Section::All;
        let mut at = 0;
        for raw in text.split_inclusive(|byte| *byte == b'\n') {
            let line = raw.trim_ascii();
            // A trimmed line lies in the raw one, behind its blanks.
            let begin = at + (raw.len() - raw.trim_ascii_start().len());
            at += raw.len();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if line.starts_with(b"[") {
                section = match line {
                    b"[all]" => Section::All,
                    b"[tryboot]" => Section::Tryboot,
                    _ => Section::Other,
                };
                continue;
            }
            if line == b"tryboot_a_b=1" && section == Section::All {
                by_partition = true;
                continue;
            }
            let Some(number) = line.strip_prefix(b"boot_partition=") else { continue };
            let slot = match number {
                b"2" => Slot::Two,
                b"3" => Slot::Three,
                _ => return Err(wrong("names a partition that is no slot (2 and 3 are)")),
            };
            let place = (slot, begin + line.len() - 1);
            let before = match section {
                Section::All => all.replace(place),
                Section::Tryboot => tryboot.replace(place),
                Section::Other => None,
            };
            if before.is_some() {
                return Err(wrong("names boot_partition twice in one section"));
            }
        }
        if !by_partition {
            return Err(wrong("has no tryboot_a_b=1"));
        }
        let (start, start_at) = all.ok_or_else(|| wrong("has no boot_partition under [all]"))?;
        let (trial, trial_at) = tryboot.ok_or_else(|| wrong("has no boot_partition under [tryboot]"))?;
        if start == trial {
            return Err(wrong("names one slot twice"));
        }
        Ok(Self { start, trial, start_at, trial_at })
    }

    /// The file with the two exchanged. `text` is the one that was parsed.
    #[must_use]
    pub fn exchanged(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        text.swap(self.start_at, self.trial_at);
        text
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    All,
    Tryboot,
    Other,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As cross/image writes it.
    pub const NEW: &[u8] = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";

    #[test]
    fn the_image_s_file_is_read_and_exchanged_in_place() {
        let autoboot = Autoboot::parse(NEW).unwrap();
        assert_eq!((autoboot.start, autoboot.trial), (Slot::Two, Slot::Three));
        let exchanged = autoboot.exchanged(NEW);
        assert_eq!(exchanged, b"[all]\ntryboot_a_b=1\nboot_partition=3\n[tryboot]\nboot_partition=2\n");
        let again = Autoboot::parse(&exchanged).unwrap();
        assert_eq!((again.start, again.trial), (Slot::Three, Slot::Two));
        assert_eq!(again.exchanged(&exchanged), NEW);
    }

    #[test]
    fn what_an_editor_adds_does_no_harm() {
        let text = b"# mine\r\n[all]\r\n  tryboot_a_b=1\r\n  boot_partition=2  \r\n\r\n[pi4]\r\nboot_partition=2\r\n[tryboot]\r\nboot_partition=3";
        let autoboot = Autoboot::parse(text).unwrap();
        let again = autoboot.exchanged(text);
        assert_eq!(Autoboot::parse(&again).unwrap().start, Slot::Three);
        assert_eq!(text.iter().zip(&again).filter(|(old, new)| old != new).count(), 2, "two digits and nothing else");
    }

    #[test]
    fn a_file_that_names_no_two_slots_is_refused_with_a_way_out() {
        for text in [
            "",
            "[all]\nboot_partition=2\n[tryboot]\nboot_partition=3\n",
            "[all]\ntryboot_a_b=1\nboot_partition=2\n",
            "[all]\ntryboot_a_b=1\n[tryboot]\nboot_partition=3\n",
            "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=2\n",
            "[all]\ntryboot_a_b=1\nboot_partition=2\nboot_partition=3\n[tryboot]\nboot_partition=3\n",
            "[all]\ntryboot_a_b=1\nboot_partition=4\n[tryboot]\nboot_partition=3\n",
        ] {
            let refused = Autoboot::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains("put the one of the image back"), "{text:?}: {refused}");
        }
        assert!(Autoboot::parse(&[b'#'; 513]).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_exchanged_and_back(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("[all]"), Just("[tryboot]"), Just("[none]"), Just("tryboot_a_b=1"), Just("boot_partition=2"),
                    Just("boot_partition=3"), Just("boot_partition=9"), Just(" # x"), Just(""), Just("boot_partition="),
                ],
                0..9,
            ),
            crlf: bool,
            noise in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let text = lines.join(if crlf { "\r\n" } else { "\n" }).into_bytes();
            if let Ok(autoboot) = Autoboot::parse(&text) {
                let exchanged = autoboot.exchanged(&text);
                let again = Autoboot::parse(&exchanged).unwrap();
                prop_assert_eq!((again.start, again.trial), (autoboot.trial, autoboot.start));
                prop_assert_eq!(again.exchanged(&exchanged), text);
            }
            let _ = Autoboot::parse(&noise);
        }
    }
}
