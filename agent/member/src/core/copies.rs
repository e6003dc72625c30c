//! Copies of a disk that were started on another machine. The copy is refused and the admitted machine goes on, so nothing
//! but an alarm shows that there are two.

use std::collections::BTreeMap;
use std::time::Duration;

use tiebreaker_pipeline::name::MemberName;
use tiebreaker_pipeline::report::{LeaseVerdict, Refusal, Renew};
use tiebreaker_pipeline::state::State;
use tiebreaker_pipeline::time::Reading;

/// A copy that isn't heard any more is remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Who was refused as a copy lately, as far as this leader has seen.
#[derive(Default)]
pub(super) struct Copies(BTreeMap<MemberName, Copy>);

struct Copy {
    /// The boot that asked.
    boot: String,
    /// The admitted boot was heard after it, or could not have become it: what asks is no later boot of the same machine.
    certain: bool,
    /// When it asked last.
    asked: Reading,
}

/// A renewal by another boot than the admitted one.
pub(super) struct Stranger {
    boot: String,
    certain: bool,
}

impl Stranger {
    /// If `renew` comes from another boot of `name` than the admitted one.
    pub(super) fn of(state: &State, name: &MemberName, renew: &Renew) -> Option<Self> {
        let life = state.life(name).filter(|life| life.boot != renew.boot)?;
        // Starts are counted on the node's disk, and a machine has one UUID.
        let certain = life.incarnation == renew.incarnation || life.is_of_another(renew.machine.as_ref());
        Some(Self { boot: renew.boot.clone(), certain })
    }
}

impl Copies {
    /// A renewal of `name` was answered; `stranger` if another boot sent it.
    pub(super) fn answered(
        &mut self,
        now: Reading,
        state: &State,
        name: &MemberName,
        stranger: Option<Stranger>,
        verdict: &LeaseVerdict,
    ) {
        match (stranger, verdict) {
            (Some(Stranger { boot, certain }), LeaseVerdict::Refused { why: Refusal::Twin }) => {
                self.0.retain(|name, copy| state.members.contains_key(name) && copy.is_remembered(now));
                let known = self.0.get(name).is_some_and(|copy| copy.certain && copy.boot == boot);
                self.0.insert(name.clone(), Copy { boot, certain: certain || known, asked: now });
            }
            (None, LeaseVerdict::Granted { .. }) => {
                if let Some(copy) = self.0.get_mut(name) {
                    copy.certain = true;
                }
            }
            (Some(_), LeaseVerdict::Granted { .. } | LeaseVerdict::Refused { .. } | LeaseVerdict::NotLeader { .. })
            | (None, LeaseVerdict::Refused { .. } | LeaseVerdict::NotLeader { .. }) => {}
        }
    }

    pub(super) fn alarms(&self, state: &State, now: Reading) -> Vec<String> {
        let heard = self.0.iter().filter(|(_, copy)| copy.certain && copy.is_remembered(now));
        heard
            .filter_map(|(name, copy)| {
                let admitted = &state.life(name).filter(|life| life.boot != copy.boot)?.boot;
                Some(format!(
                    "two machines say that they are {name}: boot {admitted} is in service, boot {} is refused. Switch the \
                     second off: if its disk is a copy, wipe the agent's data folder on it and join under another name",
                    copy.boot
                ))
            })
            .collect()
    }
}

impl Copy {
    fn is_remembered(&self, now: Reading) -> bool {
        now.since_at_least(self.asked) < REMEMBERED
    }
}
