//! Which safety rules hold in a run: those of the deciding crates and those of the shells that the simulator stands for.

use tiebreaker_pipeline::rules::Rules;

/// Rules that the shells around the deciding code keep; here the simulator is the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShellRules {
    /// Row 1: the service manager keeps the watchdog's descriptor, so that an agent's death and start pet nothing.
    pub descriptor_is_kept: bool,
    /// Row 2: the device runs at half the promised time.
    pub device_at_half_the_promise: bool,
    /// Row 26: a starting agent kills what earlier ones left running before it probes.
    pub leftovers_are_killed: bool,
}

/// All rules of a run.
#[derive(Clone, Copy, Debug)]
pub struct Switches {
    /// The pipeline's.
    pub pipeline: Rules,
    /// The consensus crate's.
    #[cfg(feature = "mutations")]
    pub consensus: tiebreaker_consensus::Rules,
    /// The shells'.
    pub shell: ShellRules,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            pipeline: Rules::ALL,
            #[cfg(feature = "mutations")]
            consensus: tiebreaker_consensus::Rules::default(),
            shell: ShellRules {
                descriptor_is_kept: true,
                device_at_half_the_promise: true,
                leftovers_are_killed: true,
            },
        }
    }
}

/// The shells' rules by name and row.
const SHELL: [(&str, u32); 3] =
    [("shell.descriptor_is_kept", 1), ("shell.device_at_half_the_promise", 2), ("shell.leftovers_are_killed", 26)];

/// The rules of consensus by name and row.
const CONSENSUS: [(&str, u32); 5] = [
    ("consensus.lease_from_send_time", 14),
    ("consensus.lease_ends_on_either_clock", 15),
    ("consensus.vote_silence_after_restart", 17),
    ("consensus.gate_shuts_before_vote", 18),
    ("consensus.gate_waits_for_own_term", 19),
];

impl Switches {
    /// Every rule that can be left out: its name, and its row in the list of attacks.
    #[must_use]
    pub fn table() -> Vec<(&'static str, u32)> {
        let mut table: Vec<_> = SHELL.into_iter().chain(CONSENSUS).chain(Rules::TABLE.iter().copied()).collect();
        table.sort_by_key(|(_, row)| *row);
        table
    }

    /// All rules but the named one; `None` where there is no such rule, or it can't be left out of this build.
    #[must_use]
    pub fn without(name: &str) -> Option<Self> {
        Self::without_all(&[name])
    }

    /// All rules but the named ones; `None` where there is no such rule, or it can't be left out of this build.
    #[must_use]
    pub fn without_all(names: &[&str]) -> Option<Self> {
        names.iter().try_fold(Self::default(), |rest, name| rest.less(name))
    }

    fn less(mut self, name: &str) -> Option<Self> {
        match name {
            "shell.descriptor_is_kept" => self.shell.descriptor_is_kept = false,
            "shell.device_at_half_the_promise" => self.shell.device_at_half_the_promise = false,
            "shell.leftovers_are_killed" => self.shell.leftovers_are_killed = false,
            _ => return self.less_deciding(name),
        }
        Some(self)
    }

    #[cfg(feature = "mutations")]
    fn less_deciding(mut self, name: &str) -> Option<Self> {
        match name {
            "consensus.lease_from_send_time" => self.consensus.lease_from_send_time = false,
            "consensus.lease_ends_on_either_clock" => self.consensus.lease_ends_on_either_clock = false,
            "consensus.vote_silence_after_restart" => self.consensus.vote_silence_after_restart = false,
            "consensus.gate_shuts_before_vote" => self.consensus.gate_shuts_before_vote = false,
            "consensus.gate_waits_for_own_term" => self.consensus.gate_waits_for_own_term = false,
            _ => self.pipeline = self.pipeline.less(name)?,
        }
        Some(self)
    }

    #[cfg(not(feature = "mutations"))]
    const fn less_deciding(self, _: &str) -> Option<Self> {
        None
    }
}
