//! Journals that can't be kept on their disks, here and at others. Nothing else suffers from that, so people are told.

use std::collections::BTreeMap;
use std::time::Duration;

use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::time::Reading;

use super::{Core, Deed, JournalLine, Message, Moment};
use crate::clock::LOOK_AT_WALL_EVERY;

/// Others' faults are forgotten after this long without a word of them: who has one says so as often as it looks at its clock.
const FORGET_AFTER: Duration = LOOK_AT_WALL_EVERY.saturating_mul(3);
/// Characters of a fault that are kept.
const WORDS_MAX: usize = 500;

/// What keeps journals from being kept.
#[derive(Default)]
pub(super) struct Kept {
    own: Option<String>,
    others: BTreeMap<MemberName, (String, Reading)>,
}

impl Kept {
    pub(super) fn alarms(&self, me: &MemberName, now: Reading) -> Vec<String> {
        let own = self.own.as_ref().map(|what| (me, what));
        let others = self.others.iter().filter(|(_, (_, until))| !now.reached_on_either(*until));
        own.into_iter()
            .chain(others.map(|(name, (what, _))| (name, what)))
            .map(|(name, what)| format!("{name}: {what}"))
            .collect()
    }
}

impl Core {
    /// The same with what its earlier processes did and saw.
    #[must_use]
    pub fn remembering(mut self, lines: Vec<JournalLine>) -> Self {
        self.journal.precede(lines);
        self
    }

    /// Lines of the journal that came since the last call.
    pub fn fresh_lines(&mut self) -> Vec<JournalLine> {
        self.journal.fresh()
    }

    /// The shell has looked whether the journal can be kept: what is in the way. Called again and again, so that the others
    /// keep hearing of it.
    pub fn journal_kept(&mut self, moment: Moment, fault: Option<String>) {
        if let Some(why) = fault.as_ref().filter(|_| self.kept.own.is_none()) {
            self.journal.write(moment.wall_ms, Deed::JournalNotKept { why: why.clone() });
        }
        self.kept.own.clone_from(&fault);
        // An older version can't read it.
        if let Some(what) = fault
            && !self.stopped
            && self.state.level >= Level::STARTS_ARE_LOOKED_AT
        {
            let others: Vec<MemberName> =
                self.state.members.keys().filter(|name| **name != self.name).cloned().collect();
            for to in others {
                self.send(&to, Message::JournalNotKept { what: what.clone() }, false);
            }
        }
        self.settle(moment);
    }

    /// Another member says that it can't keep its journal.
    pub(super) fn journal_of(&mut self, moment: Moment, from: &MemberName, what: &str) {
        let members = &self.state.members;
        self.kept.others.retain(|name, _| members.contains_key(name));
        if members.contains_key(from) {
            let what = what.chars().take(WORDS_MAX).collect();
            self.kept.others.insert(from.clone(), (what, moment.now.after(FORGET_AFTER)));
        }
    }
}
