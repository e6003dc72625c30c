//! Constants of time, counted in ticks, and what a member is started with.

use std::time::Duration;

use crate::RaftId;

/// Ticks between two heartbeats.
pub const HEARTBEAT_TICKS: u64 = 4;
/// The shortest election timeout, in ticks; the longest is half as much again.
pub const ELECTION_TICKS: u64 = 16;
/// The quorum lease, in ticks from the *send* time of what a majority acknowledged: 3/4 of the shortest election timeout.
pub const LEASE_TICKS: u64 = 12;
/// For how long an acknowledging voter keeps its vote to itself, in ticks. Longer than the lease, so that two machines'
/// clocks may differ; shorter than the election timeout, so that it never stops an honest election.
pub const PROMISE_TICKS: u64 = 14;
/// For how long a restarted voter neither votes nor campaigns, in ticks: the longest election timeout, since it doesn't
/// remember what it promised.
pub const SILENCE_TICKS: u64 = 24;

/// A voter's place in the order of elections: each place draws its timeout from a range of its own, so two candidates
/// don't collide. The appliance has place 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rank {
    place: u64,
    of: u64,
}

impl Rank {
    /// The most voters that can have ranges of their own.
    pub const MAX: u64 = SILENCE_TICKS - ELECTION_TICKS;

    /// Place `place` (from 0) of `of` voters; `None` unless `place < of <= Rank::MAX`.
    #[must_use]
    pub const fn new(place: u64, of: u64) -> Option<Self> {
        if place < of && of <= Self::MAX { Some(Self { place, of }) } else { None }
    }

    /// The timeouts of this place in ticks: from the first, without the second.
    #[must_use]
    pub const fn timeouts(self) -> (u64, u64) {
        let from = ELECTION_TICKS + Self::MAX * self.place / self.of;
        (from, ELECTION_TICKS + Self::MAX * (self.place + 1) / self.of)
    }
}

/// What a member is started with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Who it is.
    pub id: RaftId,
    /// Its place in elections.
    pub rank: Rank,
    /// Seeds its election timeouts.
    pub seed: u64,
    /// The length of a tick: a quarter of the heartbeat. After a restart give the longest one that may have been in force
    /// when this member stopped: its silence must outlast what it promised then.
    pub tick: Duration,
    /// Rules to leave out, for tests that prove that the rules are needed.
    #[cfg(feature = "mutations")]
    pub rules: Rules,
}

impl Config {
    /// A member's configuration.
    #[must_use]
    pub fn new(id: RaftId, rank: Rank, seed: u64, tick: Duration) -> Self {
        Self {
            id,
            rank,
            seed,
            tick,
            #[cfg(feature = "mutations")]
            rules: Rules::default(),
        }
    }

    #[cfg(feature = "mutations")]
    pub(crate) const fn rules(&self) -> Rules {
        self.rules
    }

    #[cfg(not(feature = "mutations"))]
    pub(crate) const fn rules(&self) -> Rules {
        Rules
    }
}

/// The rules that can be left out one by one, each named by its row in docs/safety.md.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Row 17: a restarted voter keeps silent.
    pub vote_silence_after_restart: bool,
    /// Row 18: the gate shuts before the leader helps anybody else to lead.
    pub gate_shuts_before_vote: bool,
    /// Row 19: the gate waits for an applied entry of the own term.
    pub gate_waits_for_own_term: bool,
    /// Rows 7 and 15: the lease ends on either clock.
    pub lease_ends_on_either_clock: bool,
    /// Row 14: the lease counts from the send time.
    pub lease_from_send_time: bool,
}

#[cfg(feature = "mutations")]
impl Default for Rules {
    fn default() -> Self {
        Self {
            vote_silence_after_restart: true,
            gate_shuts_before_vote: true,
            gate_waits_for_own_term: true,
            lease_ends_on_either_clock: true,
            lease_from_send_time: true,
        }
    }
}

/// Without the feature no rule can be left out.
#[cfg(not(feature = "mutations"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rules;

#[cfg(feature = "mutations")]
impl Rules {
    pub(crate) const fn silence(self) -> bool {
        self.vote_silence_after_restart
    }
    pub(crate) const fn shut_gate(self) -> bool {
        self.gate_shuts_before_vote
    }
    pub(crate) const fn own_term(self) -> bool {
        self.gate_waits_for_own_term
    }
    pub(crate) const fn either_clock(self) -> bool {
        self.lease_ends_on_either_clock
    }
    pub(crate) const fn send_time(self) -> bool {
        self.lease_from_send_time
    }
}

#[cfg(not(feature = "mutations"))]
impl Rules {
    pub(crate) const fn silence(self) -> bool {
        true
    }
    pub(crate) const fn shut_gate(self) -> bool {
        true
    }
    pub(crate) const fn own_term(self) -> bool {
        true
    }
    pub(crate) const fn either_clock(self) -> bool {
        true
    }
    pub(crate) const fn send_time(self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_all_ranks_are_disjoint_and_cover_16_to_24() {
        for of in 1..=Rank::MAX {
            let mut next = ELECTION_TICKS;
            for place in 0..of {
                let (from, to) = Rank::new(place, of).expect("in range").timeouts();
                assert_eq!(from, next);
                assert!(to > from);
                next = to;
            }
            assert_eq!(next, 24);
        }
        assert_eq!(Rank::new(3, 3), None);
        assert_eq!(Rank::new(0, 9), None);
    }
}
