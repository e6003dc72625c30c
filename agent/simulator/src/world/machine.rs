//! A machine: power, clocks, processes, disk, watchdog, and what runs on it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tiebreaker_consensus::RaftId;
use tiebreaker_member::core::{Core, Moment};
use tiebreaker_pipeline::name::{MemberName, ResourceName};
use tiebreaker_pipeline::report::{Capacity, Leave, Trust};
use tiebreaker_pipeline::time::Reading;

use super::bmc::{Bmc, BmcMode, DEVICES};
use super::clock::Clock;
use super::dice::MS;
use super::disk::Disk;
use super::event::Event;
use super::watchdog::{Petter, Watchdog};
use super::workload::{Mood, Workloads};

/// A machine by its place: 0 is the appliance.
pub type Who = usize;

/// What every wall clock shows at the beginning, milliseconds since 1970.
pub const WALL_MS: u64 = 1_700_000_000_000;

/// What a machine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// The trust in its watchdog; `None` without one.
    pub watchdog: Option<Trust>,
    /// It has a BMC.
    pub bmc: bool,
    /// It has a second device that switches it, for instance a switched socket.
    pub second: bool,
    /// It may be paused or suspended from outside, so its watchdog is never trusted.
    pub pausable: bool,
}

impl Kind {
    /// The appliance.
    pub const APPLIANCE: Self = Self { watchdog: None, bmc: false, second: false, pausable: false };
    /// A machine with a drilled watchdog and a BMC.
    pub const SERVER: Self = Self { watchdog: Some(Trust::Drilled), bmc: true, second: false, pausable: false };
    /// A machine with a drilled watchdog and two devices of which each is enough.
    pub const DUAL: Self = Self { watchdog: Some(Trust::Drilled), bmc: true, second: true, pausable: false };
    /// A machine with a drilled watchdog alone.
    pub const PLAIN: Self = Self { watchdog: Some(Trust::Drilled), bmc: false, second: false, pausable: false };
    /// A virtual machine: its host is its BMC.
    pub const VIRTUAL: Self = Self { watchdog: Some(Trust::Unproven), bmc: true, second: false, pausable: true };
    /// A virtual machine without a watchdog.
    pub const BARE: Self = Self { watchdog: None, bmc: true, second: false, pausable: true };
}

/// A machine's power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Off.
    Off,
    /// On, and nothing runs yet.
    Booting,
    /// Its kernel is up.
    Up,
}

/// How long a machine takes from power to its service manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boot {
    /// Drawn anew each time.
    Drawn,
    /// Always this long, the start of the agent included. Nanoseconds.
    Takes(u64),
}

/// What a machine begins with.
#[derive(Clone, Debug)]
pub struct MachineSetup {
    /// Its name.
    pub name: MemberName,
    /// What it is.
    pub kind: Kind,
    /// How long it boots.
    pub boot: Boot,
    /// It is switched on.
    pub on: bool,
    /// It boots after a reset; else it stays off until it is switched on.
    pub reboots: bool,
    /// How its BMC behaves.
    pub bmc: BmcMode,
    /// How often its agent has started before.
    pub starts: u64,
    /// What it has to give to resources.
    pub capacity: Capacity,
}

/// Why nothing on a machine moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    /// Its host has paused it, and it doesn't know.
    Paused,
    /// It sleeps.
    Suspended,
    /// Its kernel hangs.
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

/// One machine.
pub struct Machine {
    pub(crate) name: MemberName,
    pub(crate) raft_id: RaftId,
    pub(crate) kind: Kind,
    pub(crate) boots: Boot,
    pub(crate) reboots: bool,
    pub(crate) capacity: Capacity,
    /// It goes as soon as its agent says that it may.
    pub(crate) leaving: Option<Leave>,
    /// Counts such wishes, so that only the last one's patience ends.
    pub(crate) leaves: u64,
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
    /// When its host last let a paused one go on: until its lease is over by its own clock, which stood still, it doesn't
    /// know how late it is.
    pub(crate) paused_until: Option<u64>,
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
    /// Arming and disarming the watchdog takes up to this long, in nanoseconds.
    pub(crate) dog_takes: u64,
    pub(crate) workloads: Workloads,
    pub(crate) mood: Mood,
    pub(crate) moods: u64,
    /// Its power devices.
    pub(crate) devices: [Bmc; DEVICES.len()],
    /// It was made by copying another one's disk, and bears its name.
    pub(crate) is_copy: bool,
    /// There is or was another machine that is the same member: what that one has acknowledged, this one may not know.
    pub(crate) was_copied: bool,
    /// The name that it had before that.
    pub(crate) own_name: Option<MemberName>,
    /// The end of the newest lease of any agent of this boot.
    pub(crate) lease_end: Option<Reading>,
    /// When that lease ends for everybody else, in true time: a machine that its host has paused counts on too long.
    pub(crate) lease_over_at: u64,
    /// When everything that the cluster put here must be gone, unless the lease is extended.
    pub(crate) gone_by: Option<u64>,
}

impl Machine {
    pub(super) fn new(setup: MachineSetup, raft_id: RaftId, mood: Mood, disk: Disk, dog: Watchdog) -> Self {
        let MachineSetup { name, kind, boot, on, reboots, bmc, starts, capacity } = setup;
        Self {
            name,
            raft_id,
            kind,
            boots: boot,
            reboots,
            capacity,
            leaving: None,
            leaves: 0,
            clock: Clock::new(0, 0, 0, 0),
            power: if on { Power::Booting } else { Power::Off },
            mains: true,
            off_by_fence: false,
            offs: 0,
            boot: 0,
            ended_by_fence: None,
            enabled: BTreeSet::new(),
            epoch: 0,
            halted: None,
            halted_at: 0,
            paused_until: None,
            halts: 0,
            frozen: VecDeque::new(),
            process: None,
            starts,
            stopped: false,
            stops: 0,
            held: VecDeque::new(),
            disk,
            dog,
            dog_takes: 20 * MS,
            workloads: Workloads::default(),
            mood,
            moods: 0,
            devices: [Bmc::new(bmc), Bmc::new(BmcMode::Works)],
            is_copy: false,
            was_copied: false,
            own_name: None,
            lease_end: None,
            lease_over_at: 0,
            gone_by: None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &MemberName {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its number in consensus; 0 before it has joined.
    #[must_use]
    pub const fn raft_id(&self) -> u64 {
        self.raft_id.0
    }

    /// Its power.
    #[must_use]
    pub const fn power(&self) -> Power {
        self.power
    }

    /// The deciding code of its agent or daemon, while that runs.
    #[must_use]
    pub fn core(&self) -> Option<&Core> {
        self.process.as_ref().map(|process| &process.core)
    }

    /// Its clocks.
    #[must_use]
    pub fn reading(&self, now: u64) -> Reading {
        self.clock.reading(now)
    }

    /// Whether a resource really runs here.
    #[must_use]
    pub fn runs(&self, resource: &ResourceName) -> bool {
        self.workloads.runs(resource)
    }

    /// It runs here, or a start is under way that may still bring it up.
    #[must_use]
    pub fn is_alive(&self, resource: &ResourceName) -> bool {
        self.workloads.is_alive(resource)
    }

    pub(crate) fn boot_id(&self) -> String {
        let copy = if self.is_copy { "-copy" } else { "" };
        format!("{}-{}{copy}", self.name, self.boot)
    }

    pub(crate) fn moment(&self, now: u64) -> Moment {
        Moment { now: self.clock.reading(now), wall_ms: WALL_MS + now / 1_000_000 }
    }

    /// True while its processes move.
    #[must_use]
    pub const fn moves(&self) -> bool {
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
