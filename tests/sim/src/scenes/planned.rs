//! Scenes in which something goes wrong with what operators plan: moves, leaving, disarming, and copied disks.

use tiebreaker_pipeline::report::Leave;
use tiebreaker_pipeline::resource::Requested;
use tiebreaker_pipeline::state::{DisarmMode, ShutdownPolicy};
use tiebreaker_simulator::world::{BmcMode, Kind, MS, SEC};

use super::{Scene, TO_THE_END};
use crate::fault::{Fault, Scripts};
use crate::planned::Shape;

impl Scene {
    /// Row 8: an agent said that it restarts, what runs goes on without a watchdog, and it is never heard again.
    pub(super) fn gone_with_its_promise_suspended(&mut self) {
        self.nodes(&[Kind::PLAIN]);
        self.length = 150 * SEC;
        let (who, _) = self.victim();
        self.add(0, Fault::Leave { who, how: Leave::AgentRestart, within_ns: 20 * SEC });
        let after = self.between(300 * MS, 3 * SEC);
        self.add(after, Fault::Isolate { who, for_ns: TO_THE_END });
    }

    /// Row 8: the cluster is armed again while a watchdog is still being disarmed, and then the node is cut off.
    pub(super) fn armed_again_while_it_disarms(&mut self) {
        self.nodes(&[Kind::PLAIN]);
        let (who, _) = self.victim();
        for who in 1..3 {
            let most_ns = self.between(SEC, 5 * SEC);
            self.add(0, Fault::SlowWatchdog { who, most_ns });
        }
        self.add(0, Fault::Disarm(DisarmMode::Freeze));
        let armed = self.between(100 * MS, 2 * SEC);
        self.add(armed, Fault::Arm);
        let cut = armed + self.between(50 * MS, 1500 * MS);
        self.add(cut, Fault::Isolate { who, for_ns: TO_THE_END });
    }

    /// Row 25 with row 28 broken: an assignment is made again for somebody else, because disks stall and its first node is
    /// about to go; both commit.
    pub(super) fn assigned_again_elsewhere(&mut self) {
        let (who, _) = self.victim();
        for resource in 2..5 {
            self.add(0, Fault::Add { resource, runs_on: None });
        }
        let stall = self.between(50 * MS, 700 * MS);
        let for_ns = self.between(1100 * MS, 3 * SEC);
        for who in 0..3 {
            self.add(stall, Fault::Stall { who, for_ns });
        }
        let leaves = stall + self.between(0, 900 * MS);
        self.add(leaves, Fault::Leave { who, how: Leave::AgentRestart, within_ns: 20 * SEC });
    }

    /// Row 25: a node that goes has said that it runs nothing, and then hears that it shall start something.
    pub(super) fn started_while_it_leaves(&mut self) {
        self.shutdown = ShutdownPolicy::Migrate;
        let (who, _) = self.victim();
        for resource in 0..2 {
            self.faults.push((self.at - 5 * SEC, Fault::Set { resource, requested: Requested::Stopped }));
            let after = self.between(10 * MS, 900 * MS);
            self.add(after, Fault::Set { resource, requested: Requested::Started });
        }
        let how = self.dice.pick(&[Leave::Reboot, Leave::PowerOff]);
        self.add(0, Fault::Leave { who, how, within_ns: 30 * SEC });
    }

    /// Row 31: what was taken out of protection runs on where its node has left, and is added again.
    pub(super) fn added_again_where_somebody_left(&mut self) {
        let resource = 3;
        let (who, _) = self.victim();
        self.faults.push((self.at - 6 * SEC, Fault::Add { resource, runs_on: Some(who) }));
        self.faults.push((self.at - 2 * SEC, Fault::Drop { resource }));
        self.add(0, Fault::SlowWatchdog { who, most_ns: 40 * SEC });
        self.add(0, Fault::Leave { who, how: Leave::PowerOff, within_ns: 60 * SEC });
        // It has left, and its watchdog is still being disarmed.
        let cut = self.between(1500 * MS, 4 * SEC);
        self.add(cut, Fault::Isolate { who, for_ns: TO_THE_END });
        let again = cut + self.between(500 * MS, 4 * SEC);
        self.add(again, Fault::Add { resource, runs_on: None });
    }

    fn live(&mut self) {
        self.shape = Shape { live: true, ..Shape::default() };
    }

    /// Row 32: a live move to a node that has nothing to guard yet.
    pub(super) fn moved_to_an_idle_node(&mut self) {
        self.live();
        self.resources = 1;
        let (who, other) = self.victim();
        if self.dice.one_in(2) {
            self.add(0, Fault::SlowWatchdog { who, most_ns: 3 * SEC });
        }
        self.add(0, Fault::Send { resource: 0, to: who, live: true });
        let after = self.between(5 * SEC, 8 * SEC);
        self.add(after, Fault::Send { resource: 0, to: other, live: true });
    }

    /// Row 32: a live move is under way for longer than its target's lease.
    pub(super) fn comes_after_the_lease(&mut self) {
        self.live();
        self.resources = 1;
        let (source, target) = self.victim();
        self.machines[source] = Kind::BARE;
        self.add(0, Fault::Bmc { who: source, second: false, mode: BmcMode::Unreachable, for_ns: TO_THE_END });
        self.add(0, Fault::Scripts { who: source, mood: Scripts::Slow, for_ns: TO_THE_END });
        self.add(0, Fault::Send { resource: 0, to: target, live: true });
        // From when it begins to move nobody grants the target anything, and the source's agent relays nothing.
        let after = self.between(200 * MS, 2 * SEC);
        self.add(after, Fault::Cut { from: 0, to: target, both: true, for_ns: TO_THE_END });
        self.add(after, Fault::Stop { who: source, for_ns: TO_THE_END });
    }

    /// Row 32: live moves, one after the other, by programs that hang, lie and don't know.
    pub(super) fn moves_by_programs_that_lie(&mut self) {
        self.live();
        for who in 1..3 {
            self.add(0, Fault::Scripts { who, mood: Scripts::Bad, for_ns: TO_THE_END });
            if self.dice.one_in(2) {
                let most_ns = self.between(200 * MS, 2 * SEC);
                self.add(0, Fault::Slow { from: who, to: 0, least_ns: 10 * MS, most_ns, for_ns: TO_THE_END });
            }
        }
        for round in 0..8 {
            for resource in 0..2 {
                let after = round * 5 * SEC + self.dice.below(3 * SEC);
                let to = 1 + self.dice.index(2);
                self.add(after, Fault::Send { resource, to, live: true });
            }
        }
    }

    /// Row 32: the same by agents whose moves have two parts.
    pub(super) fn sent_by_programs_that_lie(&mut self) {
        self.moves_by_programs_that_lie();
        self.shape.received = true;
    }

    /// Row 32: moves in two parts, and meanwhile a link is cut, or an agent starts again and has forgotten what it sent.
    pub(super) fn sent_and_forgotten(&mut self) {
        self.shape = Shape { live: true, received: true, ..Shape::default() };
        for round in 0..6 {
            for resource in 0..2 {
                let begin = round * 6 * SEC + self.dice.below(2 * SEC);
                let (who, other) = self.victim();
                self.add(begin, Fault::Send { resource, to: who, live: true });
                let after = begin + self.between(50 * MS, 2500 * MS);
                let who = if self.dice.one_in(4) { who } else { other };
                let for_ns = self.between(100 * MS, 2 * SEC);
                let fault = match self.dice.below(3) {
                    0 => Fault::Crash { who, back_ns: for_ns, after_actions: 0 },
                    1 => Fault::Isolate { who, for_ns },
                    _ => Fault::Stop { who, for_ns },
                };
                self.add(after, fault);
            }
        }
    }

    /// Row 32: the target of a live move goes, and says that it runs nothing.
    pub(super) fn target_leaves_during_a_move(&mut self) {
        self.live();
        self.resources = 1;
        self.shutdown = self.dice.pick(&ShutdownPolicy::ALL);
        let (source, target) = self.victim();
        self.add(0, Fault::Scripts { who: source, mood: Scripts::Slow, for_ns: TO_THE_END });
        self.add(0, Fault::Send { resource: 0, to: target, live: true });
        let how = self.dice.pick(&[Leave::Reboot, Leave::PowerOff]);
        let after = self.between(100 * MS, 2 * SEC);
        self.add(after, Fault::Leave { who: target, how, within_ns: 30 * SEC });
        if self.dice.one_in(2) {
            self.add(0, Fault::SlowWatchdog { who: target, most_ns: 10 * SEC });
        }
    }

    /// Row 33: somebody copies a node's disk, and switches the copy on.
    pub(super) fn copied_disk(&mut self) {
        self.machines = vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER, Kind::SERVER, Kind::SERVER];
        (self.strangers, self.resources) = (1, 4);
        self.add(0, Fault::Copy { of: 3, to: 4 });
        if self.dice.one_in(2) {
            let after = self.between(5 * SEC, 30 * SEC);
            let for_ns = self.between(SEC, 20 * SEC);
            self.add(after, Fault::Isolate { who: 3, for_ns });
        }
    }
}
