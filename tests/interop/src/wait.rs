//! Waiting for events, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until there is something to see, and fails when the time is over. The last look's error is told.
///
/// # Errors
/// Names what was waited for, and what the last look found instead.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(error) if Instant::now() >= end => bail!("after {within:?} still no {what}: {error:#}"),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}
