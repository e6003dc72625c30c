//! Looks for violations: many seeds, on several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tiebreaker_simulator::world::{Switches, Violation};

use crate::run::{Outcome, Run};
use crate::schedule::{Draw, Schedule};

/// Runs one schedule. A panic of the deciding code counts as a violation.
#[must_use]
pub fn run(schedule: Schedule, switches: Switches, trace: bool) -> Outcome {
    let run = || Run::new(schedule, switches, trace).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "a panic without a text".into());
        let violation = Violation { invariant: "panic", what, at_ms: 0 };
        Outcome {
            violation: Some(violation),
            trace: Vec::new(),
            steps: 0,
            virtual_ns: 0,
            fences: 0,
            leases_lost: 0,
            recovered: 0,
        }
    })
}

/// True if the seed's schedule breaks nothing, whichever of these rules hold.
pub(crate) fn all_hold(seed: u64, draw: Draw<'_>, switches: &[Switches]) -> bool {
    switches.iter().all(|switches| run(Schedule::draw(seed, draw), *switches, false).violation.is_none())
}

/// Until when to search.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// This long.
    Time(Duration),
    /// So many schedules.
    Count(u64),
}

/// What a search has seen.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Schedules run.
    pub schedules: u64,
    /// Events in all of them.
    pub steps: u64,
    /// Virtual time in all of them, in seconds.
    pub virtual_s: u64,
    /// Fences begun.
    pub fences: u64,
    /// Leases that ran out.
    pub leases_lost: u64,
    /// Resources recovered.
    pub recovered: u64,
    /// The lowest seed of those that broke something, and what.
    pub violation: Option<(u64, Violation)>,
}

/// Runs the seeds from `from` on, in order, until the time or the number is reached or something breaks under `switches`
/// and under none of `holds`. `progress` is called about once in ten seconds.
#[must_use]
pub fn search(
    from: u64,
    until: Until,
    threads: usize,
    draw: Draw<'_>,
    switches: Switches,
    holds: &[Switches],
    progress: &(dyn Fn(&Found) + Sync),
) -> Found {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let found = Mutex::new((Found::default(), Instant::now()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let over = match until {
                        Until::Time(time) => begun.elapsed() >= time,
                        Until::Count(count) => nth >= count,
                    };
                    if over {
                        return;
                    }
                    let seed = from.wrapping_add(nth);
                    let mut outcome = run(Schedule::draw(seed, draw), switches, false);
                    if outcome.violation.is_some() && !all_hold(seed, draw, holds) {
                        outcome.violation = None;
                    }
                    let mut held = found.lock().unwrap_or_else(PoisonError::into_inner);
                    let (found, told) = &mut *held;
                    found.schedules += 1;
                    found.steps += outcome.steps;
                    found.virtual_s += outcome.virtual_ns / 1_000_000_000;
                    found.fences += outcome.fences as u64;
                    found.leases_lost += outcome.leases_lost;
                    found.recovered += outcome.recovered as u64;
                    if let Some(violation) = outcome.violation {
                        stop.store(true, Ordering::Relaxed);
                        if found.violation.as_ref().is_none_or(|(other, _)| seed < *other) {
                            found.violation = Some((seed, violation));
                        }
                    }
                    if told.elapsed() > Duration::from_secs(10) {
                        *told = Instant::now();
                        progress(found);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).0
}
