//! What happened, readable: time, machine, event.

use std::fmt::Display;

/// Lines of a run. Costs nothing while it is off.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) on: bool,
    lines: Vec<String>,
}

impl Trace {
    pub(crate) const fn new(on: bool) -> Self {
        Self { on, lines: Vec::new() }
    }

    pub(crate) fn say(&mut self, now: u64, who: &dyn Display, what: impl FnOnce() -> String) {
        if self.on {
            let ms = now / 1_000_000;
            self.lines.push(format!("{:>4}.{:03} {:<9} {}", ms / 1000, ms % 1000, who.to_string(), what()));
        }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
