//! What the demo prints while it plays.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The timeline: before the break it tells what is set up, afterwards how many seconds after the break things happen.
#[derive(Clone)]
pub struct Timeline {
    /// Standard output is for the JSON document alone.
    to_stderr: bool,
    broken: Arc<Mutex<Option<Instant>>>,
}

impl Timeline {
    /// A timeline on standard output, or with `json` on standard error.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { to_stderr: json, broken: Arc::default() }
    }

    /// From now on times count from `at`.
    pub fn breaks(&self, at: Instant) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Prints text as it is.
    pub fn say(&self, text: &str) {
        // Nobody may be reading; the demo is played to its end all the same.
        let _unread =
            if self.to_stderr { writeln!(std::io::stderr(), "{text}") } else { writeln!(std::io::stdout(), "{text}") };
    }

    /// Prints what happened at `at`.
    pub fn happened(&self, at: Instant, what: &str) {
        let broken = *self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match broken {
            Some(broken) => {
                let seconds = at.saturating_duration_since(broken).as_secs_f64();
                self.say(&format!("{seconds:>8.2} s  {what}"));
            }
            None => self.say(&format!("   setup    {what}")),
        }
    }

    /// Prints what happens now.
    pub fn now(&self, what: &str) {
        self.happened(Instant::now(), what);
    }
}
