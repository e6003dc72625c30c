//! A machine: power, clocks, processes, disk, watchdog, and what runs on it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tiebreaker_consensus::RaftId;
use tiebreaker_member::core::{Core, Moment};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::report::Trust;
use tiebreaker_pipeline::time::Reading;

use crate::bmc::Bmc;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::event::Event;
use crate::watchdog::{Petter, Watchdog};
use crate::workload::{Mood, Workloads};

/// What a machine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// The trust in its watchdog; `None` without one.
    pub watchdog: Option<Trust>,
    /// It has a BMC.
    pub bmc: bool,
    /// It may be paused or suspended from outside, so its watchdog is never trusted.
    pub pausable: bool,
}

impl Kind {
    /// The appliance.
    pub const APPLIANCE: Self = Self { watchdog: None, bmc: false, pausable: false };
    /// A machine with a drilled watchdog and a BMC.
    pub const SERVER: Self = Self { watchdog: Some(Trust::Drilled), bmc: true, pausable: false };
    /// A machine with a drilled watchdog alone.
    pub const PLAIN: Self = Self { watchdog: Some(Trust::Drilled), bmc: false, pausable: false };
    /// A virtual machine: its host is its BMC.
    pub const VIRTUAL: Self = Self { watchdog: Some(Trust::Unproven), bmc: true, pausable: true };
    /// A virtual machine without a watchdog.
    pub const BARE: Self = Self { watchdog: None, bmc: true, pausable: true };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    Off,
    Booting,
    Up,
}

/// Why nothing on a machine moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Halt {
    Paused,
    Suspended,
    Hung,
}

/// When another member was last heard, by a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// By any path.
    pub(crate) any: u64,
    /// Over the direct link.
    pub(crate) direct: u64,
    /// Over the direct link, saying that it hears this one over it too.
    pub(crate) echo: u64,
    /// Since when it is heard by any path without a gap.
    pub(crate) without_gap_since: u64,
}

/// The agent or the appliance's daemon.
pub(crate) struct Process {
    pub(crate) core: Core,
    pub(crate) instance: u64,
    pub(crate) wake_at: Option<u64>,
    /// What happens to it now is a wake-up of its own.
    pub(crate) woken: bool,
    /// Wake-ups in a row that had nothing to wait for.
    pub(crate) spins: u32,
    pub(crate) heard: Vec<Heard>,
    pub(crate) petter: Petter,
    /// The promise of this start of the agent.
    pub(crate) promised: Duration,
    /// The petter's next pet is held up by a stop of the process for this long.
    pub(crate) stop_in_pet: Option<u64>,
    pub(crate) dies_after: Option<u32>,
    pub(crate) leases_lost: u64,
    /// The term that it leads, and whether it may grant, when last looked at.
    pub(crate) leads: Option<(u64, bool)>,
}

pub(crate) struct Machine {
    pub(crate) name: MemberName,
    pub(crate) raft_id: RaftId,
    pub(crate) kind: Kind,
    pub(crate) clock: Clock,
    pub(crate) power: Power,
    /// False while the mains fail.
    pub(crate) mains: bool,
    pub(crate) off_by_fence: bool,
    /// How often it was off.
    pub(crate) offs: u64,
    pub(crate) boot: u64,
    /// The last boot that was ended by a fence's power-off.
    pub(crate) ended_by_fence: Option<String>,
    /// What starts at boot, although nothing that is protected should.
    pub(crate) enabled: BTreeSet<ResourceName>,
    /// Counts everything that ends what ran: power-offs and resets.
    pub(crate) epoch: u64,
    pub(crate) halted: Option<Halt>,
    pub(crate) halted_at: u64,
    /// Counts halts, so that only the last one is taken back.
    pub(crate) halts: u64,
    /// What waits for the end of the halt.
    pub(crate) frozen: VecDeque<Event>,
    pub(crate) process: Option<Process>,
    /// Starts of the agent, counted on the disk.
    pub(crate) starts: u64,
    pub(crate) stopped: bool,
    pub(crate) stops: u64,
    /// What waits for SIGCONT.
    pub(crate) held: VecDeque<Event>,
    pub(crate) disk: Disk,
    pub(crate) dog: Watchdog,
    pub(crate) workloads: Workloads,
    pub(crate) mood: Mood,
    pub(crate) moods: u64,
    pub(crate) bmc: Bmc,
    pub(crate) bmc_has_power: bool,
    /// The end of the newest lease of any agent of this boot.
    pub(crate) lease_end: Option<Reading>,
    /// When that lease ends for everybody else, in true time: a machine that its host has paused counts on too long.
    pub(crate) lease_over_at: u64,
    /// When everything that the cluster put here must be gone, unless the lease is extended.
    pub(crate) gone_by: Option<u64>,
}

impl Machine {
    pub(crate) fn boot_id(&self) -> String {
        format!("{}-{}", self.name, self.boot)
    }

    pub(crate) fn moment(&self, now: u64) -> Moment {
        Moment { now: self.clock.reading(now), wall_ms: 1_700_000_000_000 + now / 1_000_000 }
    }

    /// True while its processes move.
    pub(crate) const fn moves(&self) -> bool {
        self.halted.is_none() && !self.stopped
    }

    /// True while its watchdog is believed.
    pub(crate) const fn is_trusted(&self) -> bool {
        matches!(self.kind.watchdog, Some(Trust::Drilled | Trust::Accepted))
    }

    pub(crate) fn instance(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.instance)
    }
}
