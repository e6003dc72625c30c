//! A node's baseboard management controller, with the moods that these have.

use tiebreaker_pipeline::fencer::DeviceCommand;

use super::machine::Who;

/// The name of the device that each machine with a BMC has, and that of the second one, which some have.
pub const DEVICES: [&str; 2] = ["bmc", "socket"];

/// How a BMC behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BmcMode {
    /// It does what it is told.
    Works,
    /// It takes every command and carries none out.
    Stuck,
    /// Nothing reaches it.
    Unreachable,
    /// Nothing is answered, and an "off" is carried out many seconds later.
    Queues,
    /// It carries out, and its answers are lost.
    Mute,
    /// It acknowledges at once and carries out seconds later.
    Lags,
    /// It answers, and switches, so many nanoseconds after it was told; what it answers was true when it was asked.
    Slow(u64),
}

/// The device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bmc {
    pub(crate) mode: BmcMode,
    /// Counts changes of the mode, so that only the last change is taken back.
    pub(crate) changes: u64,
    /// False while it is without power itself.
    pub(crate) powered: bool,
    /// The machine that it really switches, if that isn't its own.
    pub(crate) wired_to: Option<Who>,
}

impl Bmc {
    pub(crate) const fn new(mode: BmcMode) -> Self {
        Self { mode, changes: 0, powered: true, wired_to: None }
    }

    pub(crate) const fn set(&mut self, mode: BmcMode) -> u64 {
        self.mode = mode;
        self.changes += 1;
        self.changes
    }
}

pub(crate) const fn word(command: DeviceCommand) -> &'static str {
    match command {
        DeviceCommand::Look => "look",
        DeviceCommand::Off => "off",
        DeviceCommand::On => "on",
    }
}
