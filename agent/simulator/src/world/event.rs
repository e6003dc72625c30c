//! What is going to happen in a run.

use tiebreaker_consensus::RaftId;
use tiebreaker_member::core::Message;
use tiebreaker_pipeline::fencer::{DeviceCommand, DeviceResult};
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::node;

use super::machine::Who;

/// What a parcel holds.
#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    /// A ping of the links, and whether its sender hears the receiver directly.
    Ping {
        hears_you: bool,
    },
    Message(Box<Message>),
}

/// Something that crosses between two processes.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) from: Who,
    /// Whose certificate the connection was made with: the machine may be another member by the time this arrives.
    pub(crate) sender: (MemberName, RaftId),
    pub(crate) to: Who,
    /// The process at the other end of the connection: no other one ever reads it.
    pub(crate) instance: u64,
    pub(crate) cargo: Cargo,
    /// It came or comes through a third member.
    pub(crate) relayed: bool,
}

/// Something that an earlier fault did is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relief {
    Link {
        from: Who,
        to: Who,
    },
    Speed {
        from: Who,
        to: Who,
    },
    Loss {
        from: Who,
        to: Who,
    },
    Continue {
        who: Who,
        stops: u64,
    },
    Resume {
        who: Who,
        halts: u64,
    },
    Mains {
        who: Who,
    },
    Bmc {
        who: Who,
        device: usize,
        changes: u64,
    },
    Wires {
        who: Who,
    },
    Mood {
        who: Who,
        moods: u64,
    },
    /// Somebody who shuts a machine down waits no longer for its agent.
    Patience {
        who: Who,
        leaves: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Arrives at its end.
    Arrive(Parcel),
    /// Arrives at the member that relays it, at that process.
    Hop {
        relay: Who,
        relay_instance: u64,
        parcel: Parcel,
    },
    /// A process pings the others and learns whom it heard.
    Ping {
        who: Who,
        instance: u64,
    },
    /// The oldest batch is durable.
    Durable {
        who: Who,
        instance: u64,
    },
    /// A process is told something by its machine.
    Told {
        who: Who,
        instance: u64,
        event: node::Event,
    },
    LeftoversKilled {
        who: Who,
        instance: u64,
    },
    Arm {
        who: Who,
        instance: u64,
    },
    Disarm {
        who: Who,
        instance: u64,
    },
    /// The petter looks at the lease.
    Check {
        who: Who,
        instance: u64,
    },
    /// The petter pets.
    Pet {
        who: Who,
        instance: u64,
    },
    /// An operation does what it does.
    Effect {
        who: Who,
        epoch: u64,
        key: u64,
    },
    /// An operation ends.
    End {
        who: Who,
        epoch: u64,
        key: u64,
    },
    /// An operation is killed.
    Kill {
        who: Who,
        epoch: u64,
        key: u64,
    },
    /// The kernel is up.
    Booted {
        who: Who,
        epoch: u64,
    },
    /// The service manager starts the agent or daemon.
    Start {
        who: Who,
        epoch: u64,
    },
    /// A command reaches a BMC.
    Command {
        node: Who,
        device: usize,
        token: u64,
        instance: u64,
        command: DeviceCommand,
    },
    /// A BMC switches off, some time after it took the command; `offs` are the node's power-offs until then, if an
    /// earlier one makes this one void.
    LateOff {
        node: Who,
        device: usize,
        offs: Option<u64>,
    },
    /// The appliance's daemon hears from a BMC.
    Device {
        instance: u64,
        token: u64,
        result: DeviceResult,
    },
    /// Power comes on: a node's own setting, or somebody's finger.
    PowerOn {
        who: Who,
    },
    Relief(Relief),
    /// Whoever drives the world wants to be called.
    Cue(u64),
}

impl Event {
    /// The machine on which this happens, if it stands still with it.
    pub(crate) const fn on_machine(&self) -> Option<Who> {
        match self {
            Self::Arrive(parcel) => Some(parcel.to),
            Self::Hop { relay, .. } => Some(*relay),
            Self::Ping { who, .. }
            | Self::Durable { who, .. }
            | Self::Told { who, .. }
            | Self::LeftoversKilled { who, .. }
            | Self::Arm { who, .. }
            | Self::Disarm { who, .. }
            | Self::Check { who, .. }
            | Self::Pet { who, .. }
            | Self::Effect { who, .. }
            | Self::End { who, .. }
            | Self::Kill { who, .. }
            | Self::Booted { who, .. }
            | Self::Start { who, .. } => Some(*who),
            Self::Device { .. } => Some(0),
            Self::Command { .. } | Self::LateOff { .. } | Self::PowerOn { .. } | Self::Relief(_) | Self::Cue(_) => None,
        }
    }

    /// The process that takes this, if it waits while that is stopped.
    pub(crate) const fn in_process(&self) -> Option<(Who, u64)> {
        match self {
            Self::Arrive(parcel) => Some((parcel.to, parcel.instance)),
            Self::Hop { relay, relay_instance, .. } => Some((*relay, *relay_instance)),
            Self::Ping { who, instance }
            | Self::Durable { who, instance }
            | Self::Told { who, instance, .. }
            | Self::LeftoversKilled { who, instance }
            | Self::Arm { who, instance }
            | Self::Disarm { who, instance }
            | Self::Check { who, instance }
            | Self::Pet { who, instance } => Some((*who, *instance)),
            Self::Device { instance, .. } => Some((0, *instance)),
            Self::Effect { .. }
            | Self::End { .. }
            | Self::Kill { .. }
            | Self::Booted { .. }
            | Self::Start { .. }
            | Self::Command { .. }
            | Self::LateOff { .. }
            | Self::PowerOn { .. }
            | Self::Relief(_)
            | Self::Cue(_) => None,
        }
    }
}
