//! What a resource used over the last minute.

use std::collections::VecDeque;
use std::time::Duration;

use tiebreaker_pipeline::report::Usage;
use tiebreaker_pipeline::time::Reading;

/// So long a look back reaches: long enough that no short burst moves anything, short enough to follow a change.
pub const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Reading,
    /// All processor time up to now, in clock ticks.
    ticks: u64,
    /// Memory now, in bytes.
    memory: u64,
}

/// The looks of the last minute.
#[derive(Debug, Default)]
pub struct Window(VecDeque<Look>);

impl Window {
    /// Adds a look: what was spent since the last one, and the memory now.
    pub fn add(&mut self, at: Reading, spent: u64, memory: u64) {
        // The newest that is a whole window old is kept: it is what the window is measured from.
        while self.0.get(1).is_some_and(|second| since(at, second.at) >= WINDOW) {
            self.0.pop_front();
        }
        let ticks = self.0.back().map_or(0, |last| last.ticks).saturating_add(spent);
        self.0.push_back(Look { at, ticks, memory });
    }

    /// The mean over the window; `None` before the second look. `hz` is the number of ticks in a second.
    pub fn mean(&self, hz: u64) -> Option<Usage> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let ms = u64::try_from(since(last.at, first.at).as_millis()).ok().filter(|ms| *ms > 0)?;
        let looks = u64::try_from(self.0.len()).ok()?;
        let memory = self.0.iter().map(|look| look.memory / looks).fold(0, u64::saturating_add);
        // Ticks a second of which a processor has `hz`, in thousandths of it.
        let spent = last.ticks.saturating_sub(first.ticks);
        let milli_cpus = spent.saturating_mul(1_000_000) / hz.max(1) / ms;
        Some(Usage { memory, milli_cpus })
    }
}

/// A machine that was suspended did nothing meanwhile.
fn since(now: Reading, then: Reading) -> Duration {
    now.since_at_least(then)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Reading {
        Reading::both(seconds * 1_000_000_000)
    }

    #[test]
    fn one_look_tells_nothing_and_two_tell_the_mean() {
        let mut window = Window::default();
        window.add(at(0), 0, 4000);
        assert_eq!(window.mean(100), None);
        // 250 of 1000 ticks.
        window.add(at(10), 250, 6000);
        assert_eq!(window.mean(100), Some(Usage { memory: 5000, milli_cpus: 250 }));
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let mut window = Window::default();
        for second in (0..=300).step_by(5) {
            // Busy for two minutes, idle since.
            window.add(at(second), if second <= 120 { 500 } else { 0 }, second);
        }
        assert_eq!(window.mean(100).map(|usage| usage.milli_cpus), Some(0));
        assert!(window.0.len() <= 14, "{}", window.0.len());
    }
}
