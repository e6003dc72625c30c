//! What operators plan, and what goes wrong meanwhile: moves, maintenance, machines that go in good order, disarming, and
//! changes of who belongs to the cluster and of its settings.

use tiebreaker_pipeline::report::Leave;
use tiebreaker_pipeline::resource::Class;
use tiebreaker_pipeline::state::{DisarmMode, ShutdownPolicy};
use tiebreaker_simulator::world::{Dice, MS, SEC, Who};

use crate::fault::Fault;
use crate::schedule::{Schedule, long};

/// What a resource is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// It can move live.
    pub live: bool,
    /// An OCF agent operates it: the target of a live move has a part in that.
    pub received: bool,
    /// How much the cluster does for it.
    pub class: Class,
    /// Its place in the start order of its class.
    pub order: u32,
    /// It returns to where it was.
    pub failback: bool,
    /// Restarts on its node, and moves to others after that.
    pub tries: (u32, u32),
}

impl Default for Shape {
    fn default() -> Self {
        Self { live: false, received: false, class: Class::Protected, order: 0, failback: false, tries: (1, 1) }
    }
}

impl Shape {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            live: dice.one_in(2),
            received: false,
            class: dice.pick(&[
                Class::Protected,
                Class::Protected,
                Class::Protected,
                Class::Protected,
                Class::BestEffort,
                Class::Unprotected,
            ]),
            order: u32::try_from(dice.below(3)).expect("small"),
            failback: dice.one_in(4),
            tries: dice.pick(&[(1, 1), (1, 1), (0, 1), (0, 0), (3, 2)]),
        }
    }
}

impl Schedule {
    /// A move, and mostly something that happens to one of its ends while it is under way.
    pub(crate) fn moves(&mut self, dice: &mut Dice, at: u64) {
        let resource = dice.index(4);
        let to = self.node(dice);
        if dice.one_in(4) {
            let times = 1 + u32::try_from(dice.below(3)).expect("small");
            self.faults.push((at - dice.below(SEC), Fault::MovesFail { resource, times }));
        }
        self.faults.push((at, Fault::Send { resource, to, live: !dice.one_in(4) }));
        if dice.one_in(3) {
            return;
        }
        let who = self.node(dice);
        let later = dice.below(3 * SEC);
        let fault = match dice.below(9) {
            0 => Fault::Crash { who, back_ns: dice.between(200 * MS, 2 * SEC), after_actions: 0 },
            1 => Fault::PowerCut { who, for_ns: dice.between(SEC, 20 * SEC), bmc: dice.one_in(3) },
            2 => Fault::Reset { who },
            3 => Fault::Isolate { who, for_ns: long(dice) },
            4 => Fault::Stop { who, for_ns: long(dice) },
            5 => self.still_of(who, dice),
            6 => Fault::Dies { resource },
            7 => Fault::Isolate { who: 0, for_ns: long(dice) },
            _ => Fault::Send { resource, to: who, live: dice.one_in(2) },
        };
        self.faults.push((at + later, fault));
    }

    /// Maintenance, or somebody switches off, reboots, or restarts an agent; and back again, mostly.
    pub(crate) fn leaving(&mut self, dice: &mut Dice, at: u64) {
        let who = self.node(dice);
        if dice.one_in(3) {
            self.faults.push((at, Fault::Maintenance { who, on: true, force: dice.one_in(2) }));
            if !dice.one_in(4) {
                let after = dice.between(500 * MS, 20 * SEC);
                self.faults.push((at + after, Fault::Maintenance { who, on: false, force: false }));
            }
            if dice.one_in(3) {
                let after = dice.between(500 * MS, 8 * SEC);
                self.faults.push((at + after, self.goes(who, dice)));
            }
            return;
        }
        self.faults.push((at, self.goes(who, dice)));
        if !dice.one_in(3) {
            let after = dice.between(2 * SEC, 30 * SEC);
            self.faults.push((at + after, Fault::PowerOn { who }));
        }
    }

    fn goes(&self, who: Who, dice: &mut Dice) -> Fault {
        let how = dice.pick(&[Leave::AgentRestart, Leave::AgentRestart, Leave::Reboot, Leave::PowerOff]);
        // Somebody who won't wait pulls the plug.
        let within_ns = if dice.one_in(4) { dice.between(200 * MS, 3 * SEC) } else { dice.between(5 * SEC, 60 * SEC) };
        Fault::Leave { who, how, within_ns }
    }

    /// The cluster is disarmed and, mostly, armed again.
    pub(crate) fn arming(&mut self, dice: &mut Dice, at: u64) {
        self.faults.push((at, Fault::Disarm(dice.pick(&[DisarmMode::Freeze, DisarmMode::Ignore]))));
        for _ in 0..dice.below(4) {
            let after = dice.between(100 * MS, 15 * SEC);
            self.faults.push((at + after, Fault::Arm));
        }
    }

    /// A machine joins, or one is emptied, removed, and joins again.
    pub(crate) fn members(&mut self, dice: &mut Dice, at: u64) {
        if self.strangers > 0 && dice.one_in(2) {
            let who = self.machines.len() - 1;
            let copied = self.machines.len() > 4 && dice.one_in(3);
            let fault = if copied { Fault::Copy { of: self.node(dice), to: who } } else { Fault::Join { who } };
            self.faults.push((at, fault));
            return;
        }
        let who = self.node(dice);
        if dice.one_in(3) {
            self.faults.push((at, Fault::FewerVotes { who, for_ns: dice.between(2 * SEC, 20 * SEC) }));
            return;
        }
        let mut after = 0;
        if !dice.one_in(4) {
            self.faults.push((at, Fault::Maintenance { who, on: true, force: true }));
            after = dice.between(SEC, 8 * SEC);
        }
        self.faults.push((at + after, Fault::Remove { who }));
        if !dice.one_in(3) {
            after += dice.between(SEC, 15 * SEC);
            self.faults.push((at + after, Fault::Join { who }));
        }
    }

    pub(crate) fn settings(&self, dice: &mut Dice) -> Fault {
        match dice.below(3) {
            0 => Fault::Policy(dice.pick(&ShutdownPolicy::ALL)),
            1 => {
                let seconds = u32::try_from(dice.below(4)).expect("small");
                Fault::Delay { class: dice.pick(&Class::ALL), seconds }
            }
            _ => Fault::Tolerate(dice.pick(&[None, Some(1)])),
        }
    }
}
