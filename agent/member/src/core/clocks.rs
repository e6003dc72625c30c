//! Wrong wall clocks, here and at others. Nothing is decided by them, but certificates and tokens are judged by them, and
//! people order what happened by them.

use std::collections::BTreeMap;
use std::time::Duration;

use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::time::Reading;

use super::{Core, Deed, Message, Moment};
use crate::clock::{ClockFault, LOOK_AT_WALL_EVERY};

/// Others' faults are forgotten after this long without a word of them: who has one says so at each look.
const FORGET_AFTER: Duration = LOOK_AT_WALL_EVERY.saturating_mul(3);

/// Faults of wall clocks.
#[derive(Default)]
pub(super) struct Clocks {
    own: Option<ClockFault>,
    others: BTreeMap<MemberName, (ClockFault, Reading)>,
}

impl Clocks {
    pub(super) fn alarms(&self, me: &MemberName, now: Reading) -> Vec<String> {
        let own = self.own.map(|fault| (me, fault));
        let others = self.others.iter().filter(|(_, (_, until))| !now.reached_on_either(*until));
        own.into_iter()
            .chain(others.map(|(name, (fault, _))| (name, *fault)))
            .map(|(name, fault)| format!("{name}: {fault}"))
            .collect()
    }
}

impl Core {
    /// The shell has looked at the wall clock: what is new, and what is wrong with it now. Called at each look, so that
    /// the others keep hearing of it.
    pub fn clock_seen(&mut self, moment: Moment, news: Option<ClockFault>, fault: Option<ClockFault>) {
        if let Some(fault) = news {
            self.journal.write(moment.wall_ms, Deed::ClockWrong(fault));
        }
        self.clocks.own = fault;
        if let Some(fault) = fault
            && !self.stopped
            // An older version can't read it.
            && self.state.level >= Level::STARTS_ARE_LOOKED_AT
        {
            let others: Vec<MemberName> =
                self.state.members.keys().filter(|name| **name != self.name).cloned().collect();
            for to in others {
                self.send(&to, Message::Clock(fault), false);
            }
        }
        self.settle(moment);
    }

    /// Another member says that its clock is wrong.
    pub(super) fn clock_of(&mut self, moment: Moment, from: &MemberName, fault: ClockFault) {
        let members = &self.state.members;
        self.clocks.others.retain(|name, _| members.contains_key(name));
        if members.contains_key(from) {
            self.clocks.others.insert(from.clone(), (fault, moment.now.after(FORGET_AFTER)));
        }
    }
}
