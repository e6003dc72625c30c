//! What resources really use: processors and memory of the processes that belong to each.
//!
//! A resource's processes are those that its start has left behind, and all that come from them: they carry the mark of
//! the operation in their environment, or descend from one that does, or share its session. What other daemons run on
//! its behalf (a container's runtime, libvirt, systemd) is not found that way. Then nothing is told of the resource:
//! unknown is never zero, and placement goes by what was promised.
//!
//! Processor time is what the kernel counts for each process, and for its children once they have ended. Memory is the
//! private memory of each, and of the files and shared memory that they map the largest share of one: the sum would
//! count what many share many times.
//!
//! A look reads `/proc`. It is taken every [`LOOK_EVERY`], or so seldom that looking takes one part in
//! [`SHARE`] of a processor at most, however many processes there are.

mod kin;
mod memory;
mod meter;
mod window;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tiebreaker_member::clock;
use tiebreaker_member::runtime::{MemberHandle, Tell};
use tiebreaker_pipeline::node::Event;

pub use meter::Meter;

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looking takes one part in so many of a processor at most.
pub const SHARE: u32 = 100;

/// Measures for as long as the agent runs, and tells the node.
pub(crate) async fn measure(runtime_dir: PathBuf, member: MemberHandle) {
    let mut meter = Meter::new(&runtime_dir);
    let mut fails = false;
    loop {
        let began = Instant::now();
        let usage = match tokio::task::block_in_place(|| meter.look(clock::now())) {
            Ok(usage) => {
                fails = false;
                usage
            }
            Err(error) => {
                if !fails {
                    tracing::warn!(%error, "what the resources use can't be measured");
                }
                fails = true;
                std::collections::BTreeMap::new()
            }
        };
        member.tell(Tell::Node(Event::Used(usage))).await;
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// How long to rest after a look that took so long.
fn pause(took: Duration) -> Duration {
    LOOK_EVERY.max(took.saturating_mul(SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_takes_long_is_taken_less_often() {
        assert_eq!(pause(Duration::from_millis(1)), LOOK_EVERY);
        assert_eq!(pause(Duration::from_secs(1)), Duration::from_secs(100));
    }
}
