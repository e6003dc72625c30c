//! What can go wrong, and what operators do: the steps of a schedule.

use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::report::Leave;
use tiebreaker_pipeline::resource::{Class, Requested};
use tiebreaker_pipeline::state::{DisarmMode, ShutdownPolicy};
use tiebreaker_simulator::world::{BmcMode, Who};

/// How the programs on a machine behave for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scripts {
    /// They fail, lie, hang and don't know.
    Bad,
    /// They hang and are slow.
    Slow,
}

/// One step of a schedule. Times are nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A link is cut, in one direction or both.
    Cut {
        /// From whom nothing arrives.
        from: Who,
        /// At whom.
        to: Who,
        /// The other direction too.
        both: bool,
        /// For how long.
        for_ns: u64,
    },
    /// All links of a machine are cut.
    Isolate {
        /// Whose.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// Messages take long.
    Slow {
        /// From whom.
        from: Who,
        /// To whom.
        to: Who,
        /// At least.
        least_ns: u64,
        /// At most.
        most_ns: u64,
        /// For how long.
        for_ns: u64,
    },
    /// Messages are lost.
    Lossy {
        /// From whom.
        from: Who,
        /// To whom.
        to: Who,
        /// Of a thousand, so many.
        permille: u64,
        /// For how long.
        for_ns: u64,
    },
    /// The agent or the appliance's daemon dies after so many further actions, and is started again.
    Crash {
        /// Whose.
        who: Who,
        /// Restarted after.
        back_ns: u64,
        /// Actions that it still carries out.
        after_actions: u32,
    },
    /// The agent or daemon is stopped (SIGSTOP); what it started runs on.
    Stop {
        /// Whose.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// The same, right between the petter's look at the lease and its pet.
    StopInPet {
        /// Whose.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// The whole machine stands still and doesn't know: a virtual machine that its host pauses.
    Pause {
        /// Which.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// The machine sleeps.
    Suspend {
        /// Which.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// The kernel hangs; only the hardware watchdog runs on.
    Hang {
        /// Which.
        who: Who,
        /// Somebody resets it then.
        for_ns: u64,
    },
    /// The mains fail.
    PowerCut {
        /// Whose.
        who: Who,
        /// For how long.
        for_ns: u64,
        /// Its BMC hangs on the same supply.
        bmc: bool,
    },
    /// The machine resets.
    Reset {
        /// Which.
        who: Who,
    },
    /// The disk writes nothing.
    Stall {
        /// Whose.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// CLOCK_BOOTTIME is slewed.
    Slew {
        /// Whose.
        who: Who,
        /// Parts per million.
        ppm: i64,
    },
    /// A resource dies.
    Dies {
        /// Which.
        resource: usize,
    },
    /// A BMC misbehaves.
    Bmc {
        /// Whose.
        who: Who,
        /// The machine's other device, where it has two.
        second: bool,
        /// How.
        mode: BmcMode,
        /// For how long.
        for_ns: u64,
    },
    /// Arming and disarming the watchdog takes long, until everything heals.
    SlowWatchdog {
        /// Whose.
        who: Who,
        /// At most.
        most_ns: u64,
    },
    /// The BMC of a machine is really another one's. Only scenes draw it: what was rewired after the appliance's last check
    /// to a machine that is off reads off before anybody has switched anything, and only the next check can tell.
    Miswire {
        /// Whose it should be.
        who: Who,
        /// Whose it is.
        other: Who,
        /// For how long.
        for_ns: u64,
    },
    /// A machine that is no member gets a copy of a member's disk and is switched on.
    Copy {
        /// Whose disk.
        of: Who,
        /// Which machine.
        to: Who,
    },
    /// The programs of a machine misbehave.
    Scripts {
        /// Whose.
        who: Who,
        /// How.
        mood: Scripts,
        /// For how long.
        for_ns: u64,
    },
    /// An operator adds a resource, which may run somewhere already.
    Add {
        /// Which.
        resource: usize,
        /// Where it runs.
        runs_on: Option<Who>,
    },
    /// An operator sets a resource.
    Set {
        /// Which.
        resource: usize,
        /// What is wanted of it.
        requested: Requested,
    },
    /// An operator locks a resource, or takes the lock off.
    Lock {
        /// Which.
        resource: usize,
        /// Locked?
        on: bool,
    },
    /// An operator moves a resource with what belongs to it, as the command line does.
    Send {
        /// Which.
        resource: usize,
        /// Where to.
        to: Who,
        /// Live, or stopped here and started there.
        live: bool,
    },
    /// The next live moves of a resource fail.
    MovesFail {
        /// Which.
        resource: usize,
        /// So many.
        times: u32,
    },
    /// An operator wants a node empty, or used again.
    Maintenance {
        /// Which.
        who: Who,
        /// Empty?
        on: bool,
        /// Though it breaks the plan.
        force: bool,
    },
    /// Somebody shuts a machine down or reboots it, or restarts its agent, in good order.
    Leave {
        /// Which.
        who: Who,
        /// How.
        how: Leave,
        /// The agent is waited for so long at most.
        within_ns: u64,
    },
    /// Somebody switches a machine on.
    PowerOn {
        /// Which.
        who: Who,
    },
    /// An operator disarms the cluster.
    Disarm(DisarmMode),
    /// An operator arms the cluster.
    Arm,
    /// An operator says what a planned shutdown means.
    Policy(ShutdownPolicy),
    /// An operator says how long one order waits for the one before it.
    Delay {
        /// Of which class.
        class: Class,
        /// In seconds.
        seconds: u32,
    },
    /// An operator sets how many failures shall be tolerable.
    Tolerate(Option<u32>),
    /// A machine joins that never was a member, or was removed.
    Join {
        /// Which.
        who: Who,
    },
    /// An operator doesn't expect the vote of a member for a while.
    FewerVotes {
        /// Whose.
        who: Who,
        /// For how long.
        for_ns: u64,
    },
    /// Appliance and manager aside: an operator's bare decision that a resource leaves its node.
    Move {
        /// Which.
        resource: usize,
        /// Where to.
        to: Who,
    },
    /// A service is enabled against all advice: from now on a machine starts this resource at boot, before the agent.
    Enable {
        /// Whose.
        who: Who,
        /// Which.
        resource: usize,
    },
    /// An operator takes a resource out.
    Drop {
        /// Which.
        resource: usize,
    },
    /// An operator asks for a fence.
    Fence {
        /// Of whom.
        who: Who,
    },
    /// An operator confirms the open fence of a node, if that is really off.
    Confirm {
        /// Of whom.
        who: Who,
    },
    /// An operator changes the profile.
    Profile(Profile),
    /// An operator removes a node.
    Remove {
        /// Whom.
        who: Who,
    },
    /// The appliance's check of a device fails, or succeeds again.
    Proven {
        /// Whose.
        who: Who,
        /// The result.
        proven: bool,
    },
}
