//! The quorum lease: for how long this leader may be sure that nobody else leads.
//!
//! A voter that acknowledges a leader's message keeps its vote to itself for [`crate::PROMISE_TICKS`]. So from the *send*
//! time of the latest message that a majority has acknowledged, no other leader can exist for [`LEASE_TICKS`]. Only
//! stamps of our own are used, on the clocks of the lease: a library's metric would freeze while its loop is stuck.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tiebreaker_pipeline::time::Reading;

use crate::RaftId;
use crate::config::{ELECTION_TICKS, LEASE_TICKS};

/// How finely sends are stamped: messages sent within a quarter of a tick share a number and the earliest send time.
const NUMBERS_PER_TICK: u32 = 4;
/// Send times kept for each peer: one election timeout at that grain. Older ones prove nothing any more.
const MAX_STAMPS: usize = ELECTION_TICKS as usize * NUMBERS_PER_TICK as usize;

/// Clusters of up to so many voters need no memory of their own to find what a majority has reached.
const FEW: usize = 8;

/// A reading later than every other.
const NEVER: Reading = Reading { boottime_ns: u64::MAX, raw_ns: u64::MAX };

/// Whether the lease may be used at all in this term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// No entry of the own term is applied yet: something committed may still be unknown here.
    Waits,
    Open,
    /// The leader helps somebody else to lead; for the rest of the term.
    Shut,
}

#[derive(Debug)]
struct Peer {
    stamps: VecDeque<(u64, Reading)>,
    last_number: u64,
    /// The send time of the latest acknowledged message.
    heard: Reading,
    /// The end of what this peer's acknowledgement is worth.
    until: Option<Reading>,
}

/// The lease of one leader in one term.
#[derive(Debug)]
pub(crate) struct QuorumLease {
    term: u64,
    since: Reading,
    gate: Gate,
    peers: BTreeMap<RaftId, Peer>,
}

impl QuorumLease {
    pub(crate) const fn new(term: u64, now: Reading) -> Self {
        Self { term, since: now, gate: Gate::Waits, peers: BTreeMap::new() }
    }

    pub(crate) const fn term(&self) -> u64 {
        self.term
    }

    pub(crate) fn open(&mut self) {
        match self.gate {
            Gate::Waits => self.gate = Gate::Open,
            Gate::Open | Gate::Shut => {}
        }
    }

    pub(crate) const fn shut(&mut self) {
        self.gate = Gate::Shut;
    }

    /// The number for a message sent to `to` at `now`.
    pub(crate) fn number(&mut self, to: RaftId, now: Reading, tick: Duration) -> u64 {
        let since = self.since;
        let peer = self.peers.entry(to).or_insert_with(|| Peer {
            stamps: VecDeque::new(),
            last_number: 0,
            heard: since,
            until: None,
        });
        if let Some((number, sent)) = peer.stamps.back()
            && now.since_at_most(*sent) < tick / NUMBERS_PER_TICK
        {
            return *number;
        }
        if peer.stamps.len() == MAX_STAMPS {
            peer.stamps.pop_front();
        }
        peer.last_number += 1;
        peer.stamps.push_back((peer.last_number, now));
        peer.last_number
    }

    /// `from` has stepped the message `number`, and has ticks of `their_tick`. `from_send_time` is off in mutation tests
    /// only.
    pub(crate) fn acknowledged(
        &mut self,
        from: RaftId,
        number: u64,
        their_tick: Duration,
        our_tick: Duration,
        now: Reading,
        from_send_time: bool,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(at) = peer.stamps.iter().rposition(|(stamped, _)| *stamped == number) else { return };
        let sent = peer.stamps[at].1;
        peer.stamps.drain(..at);
        let counted = if from_send_time { sent } else { now };
        peer.heard = peer.heard.later_of(counted);
        // Members may differ in their profile for a moment: the shorter promise counts.
        let end = counted.after(their_tick.min(our_tick) * LEASE_TICKS as u32);
        peer.until = Some(peer.until.map_or(end, |until| until.later_of(end)));
    }

    /// The end of the lease, if the gate is open and it hasn't run out. `majorities` are the sets of voters that must
    /// each agree (two while the membership changes).
    pub(crate) fn until(
        &self,
        me: RaftId,
        majorities: &[BTreeSet<RaftId>],
        now: Reading,
        tick: Duration,
        either_clock: bool,
    ) -> Option<Reading> {
        if self.gate != Gate::Open {
            return None;
        }
        // Of a sole voter's lease only its own clock is the judge: it is as good as sent and acknowledged now.
        let mut end = now.after(tick * LEASE_TICKS as u32);
        for voters in majorities {
            let by_voter = |voter: &RaftId| self.peers.get(voter).and_then(|peer| peer.until);
            end = end.earlier_of(agreed(me, voters, by_voter)?);
        }
        let over = if either_clock { now.reached_on_either(end) } else { now.reached_on_both(end) };
        if over { None } else { Some(end) }
    }

    /// The latest send time that a majority has acknowledged in this term: its beginning counts as one.
    pub(crate) fn quorum_heard(&self, me: RaftId, majorities: &[BTreeSet<RaftId>]) -> Reading {
        let by_voter = |voter: &RaftId| Some(self.peers.get(voter).map_or(self.since, |peer| peer.heard));
        majorities
            .iter()
            .fold(NEVER, |heard, voters| heard.earlier_of(agreed(me, voters, by_voter).unwrap_or(self.since)))
    }
}

/// What a majority of `voters` has reached; this member itself is always up to date.
fn agreed(me: RaftId, voters: &BTreeSet<RaftId>, by_voter: impl Fn(&RaftId) -> Option<Reading>) -> Option<Reading> {
    // Asked many times a second, of few voters.
    let (mut few, mut many);
    let reached: &mut [Reading] = {
        let each = voters.iter().filter_map(|voter| if *voter == me { Some(NEVER) } else { by_voter(voter) });
        if voters.len() <= FEW {
            few = [NEVER; FEW];
            let count = few.iter_mut().zip(each).map(|(place, reading)| *place = reading).count();
            &mut few[..count]
        } else {
            many = each.collect::<Vec<_>>();
            &mut many
        }
    };
    // Clock by clock the worst of the majority: the readings are one machine's, so this is one of them unless a clock
    // was stepped, and then it errs to the early side.
    let majority = voters.len() / 2 + 1;
    if reached.len() < majority {
        return None;
    }
    reached.sort_unstable_by_key(|reading| std::cmp::Reverse((reading.boottime_ns, reading.raw_ns)));
    reached.iter().take(majority).copied().reduce(Reading::earlier_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: RaftId = RaftId(1);
    const TICK: Duration = Duration::from_millis(10);

    fn at(ms: u64) -> Reading {
        Reading::both(ms * 1_000_000)
    }

    fn voters(ids: &[u64]) -> Vec<BTreeSet<RaftId>> {
        vec![ids.iter().copied().map(RaftId).collect()]
    }

    #[test]
    fn the_lease_counts_from_the_send_time_of_what_a_majority_acknowledged() {
        let mut lease = QuorumLease::new(3, at(0));
        let two = lease.number(RaftId(2), at(10), TICK);
        lease.number(RaftId(3), at(10), TICK);
        lease.acknowledged(RaftId(2), two, TICK, TICK, at(90), true);
        let all = voters(&[1, 2, 3]);
        assert_eq!(lease.until(ME, &all, at(90), TICK, true), None, "the gate still waits");
        lease.open();
        assert_eq!(lease.until(ME, &all, at(90), TICK, true), Some(at(130)));
        assert_eq!(lease.until(ME, &all, at(130), TICK, true), None);
        assert_eq!(lease.quorum_heard(ME, &all), at(10));
        assert_eq!(lease.until(ME, &voters(&[1, 2, 3, 4, 5]), at(90), TICK, true), None, "2 of 5 are no majority");
    }

    #[test]
    fn a_shut_gate_never_opens_again() {
        let mut lease = QuorumLease::new(3, at(0));
        lease.shut();
        lease.open();
        assert_eq!(lease.until(ME, &voters(&[1]), at(0), TICK, true), None);
    }

    #[test]
    fn both_majorities_of_a_transition_must_agree() {
        let mut lease = QuorumLease::new(3, at(0));
        lease.open();
        let two = lease.number(RaftId(2), at(10), TICK);
        lease.acknowledged(RaftId(2), two, TICK, TICK, at(11), true);
        let mut joint = voters(&[1, 2]);
        assert!(lease.until(ME, &joint, at(12), TICK, true).is_some());
        joint.extend(voters(&[1, 3]));
        assert_eq!(lease.until(ME, &joint, at(12), TICK, true), None);
    }

    #[test]
    fn the_shorter_tick_of_two_members_counts() {
        let mut lease = QuorumLease::new(3, at(0));
        lease.open();
        let two = lease.number(RaftId(2), at(10), TICK);
        lease.acknowledged(RaftId(2), two, TICK / 2, TICK, at(11), true);
        assert_eq!(lease.until(ME, &voters(&[1, 2]), at(12), TICK, true), Some(at(70)));
    }

    #[test]
    fn stamps_are_bounded_and_an_unknown_number_is_worth_nothing() {
        let mut lease = QuorumLease::new(3, at(0));
        lease.open();
        let mut last = 0;
        for ms in 0..10_000 {
            last = lease.number(RaftId(2), at(ms), TICK);
        }
        assert_eq!(lease.peers[&RaftId(2)].stamps.len(), MAX_STAMPS);
        lease.acknowledged(RaftId(2), last + 1, TICK, TICK, at(10_000), true);
        lease.acknowledged(RaftId(2), 1, TICK, TICK, at(10_000), true);
        assert_eq!(lease.until(ME, &voters(&[1, 2]), at(10_000), TICK, true), None);
        lease.acknowledged(RaftId(2), last, TICK, TICK, at(10_000), true);
        assert!(lease.until(ME, &voters(&[1, 2]), at(10_000), TICK, true).is_some());
    }
}
