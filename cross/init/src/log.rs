//! What this program says: one line at a time into the kernel's log, which shows it on every console with the time since
//! the kernel began.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// The kernel cuts a record at about a thousand bytes.
const LONGEST: usize = 900;

/// Says a line.
pub fn say(text: impl Display) {
    for line in text.to_string().lines() {
        let mut end = line.len().min(LONGEST);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        // Level 4 is shown with `loglevel=5`, which keeps the kernel's own chatter off the screen.
        let record = format!("<4>tiebreaker-init: {}\n", &line[..end]);
        let written =
            OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut log| log.write_all(record.as_bytes()));
        if written.is_err() {
            eprintln!("tiebreaker-init: {line}");
        }
    }
}

/// Shows what nobody but who stands before the machine may read, tokens above all: on its screens and in no log.
pub fn show(text: &str) {
    for screen in ["/dev/console", "/dev/tty1"] {
        // A machine may have no screen; the console is then the serial line.
        if let Ok(mut screen) = OpenOptions::new().write(true).open(screen) {
            let _ = screen.write_all(format!("{text}\r\n").as_bytes());
        }
    }
}
