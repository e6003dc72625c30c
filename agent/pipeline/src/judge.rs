//! `apply`, the judge: the one place where the replicated state changes.
//!
//! Pure: the same state and entry give the same result on every member, whenever and however often they meet.

mod fences;
mod members;
mod resources;
mod settings;
mod takeover;

use std::collections::BTreeSet;

use crate::command::{Command, ENTRY_VERSION, Entry, Void};
use crate::decision::Decision;
use crate::state::{DEVICES_MAX, Life, State};

pub use takeover::TakeoverError;

impl State {
    /// Applies the entry at `index`. `Err` means void: the state has moved to `index` and is otherwise unchanged.
    ///
    /// # Errors
    /// [`Void`] says what the command rested on that doesn't hold any more.
    pub fn apply(&mut self, index: u64, entry: Entry) -> Result<(), Void> {
        self.applied = index;
        if entry.version > ENTRY_VERSION {
            return Err(Void::Version { version: entry.version });
        }
        self.newest_ms = self.newest_ms.max(entry.at_ms);
        let at = entry.at_ms;
        match entry.command {
            Command::AddMember { name, role, addresses, key } => self.add_member(at, name, role, addresses, key),
            Command::RaiseLevel { from, to } => {
                if from != self.level || to <= from {
                    return Err(Void::Outdated);
                }
                self.level = to;
                self.say(at, Decision::LevelRaised { level: to });
                Ok(())
            }
            Command::RemoveMember { name, raft_id } => self.remove_member(at, &name, raft_id),
            Command::AddOperator { name, key } => self.add_operator(at, name, key),
            Command::RemoveOperator { name } => {
                if self.operators.remove(&name).is_none() {
                    return Err(Void::Unknown { name });
                }
                self.say(at, Decision::OperatorRemoved { name });
                Ok(())
            }
            Command::Admit { node, incarnation, boot, watchdog, machine, closed, capacity, booted_in_ms } => {
                let life = Life { incarnation, boot, watchdog, machine, since: index, unbound: None };
                self.admit(at, node, life, closed, capacity, booted_in_ms)
            }
            Command::Bind { node, incarnation, since } => self.bind(&node, incarnation, since),
            Command::Leave { node, incarnation, how } => self.leave(at, node, incarnation, how),
            Command::Left { node, incarnation, since } => self.left(at, node, incarnation, since),
            Command::SetMaintenance { node, on } => self.set_maintenance(at, node, on),
            Command::Migrate { resource, generation, to, incarnation, why } => {
                self.migrate(at, resource, generation, to, incarnation, why)
            }
            Command::CallOff { resource, generation, why } => self.call_off(&resource, generation, why),
            Command::Arrive { resource, generation, incarnation } => self.arrive(at, resource, generation, incarnation),
            Command::Go { resource, generation } => self.go(&resource, generation),
            Command::Forget { resource, generation } => self.forget(&resource, generation),
            Command::SetLock { resource, reason } => self.set_lock(at, resource, reason),
            Command::SetRule { name, rule } => self.set_rule(at, name, rule),
            Command::RemoveRule { name } => self.remove_rule(at, name),
            Command::Set(setting) => self.set(at, setting),
            Command::Disarm { mode } => self.disarm(at, mode),
            Command::Disarmed => self.disarmed(at),
            Command::Arm => self.arm(at),
            Command::Armed { since } => self.armed(at, since),
            Command::ArmingFailed { since, why } => self.arming_failed(at, since, why),
            Command::Forced { by, done, breaks } => {
                self.say(at, Decision::Forced { by, done, breaks });
                Ok(())
            }
            Command::AddResource { name, spec, requested, node } => self.add_resource(at, name, spec, requested, node),
            Command::SetResource { name, spec, requested } => self.set_resource(at, name, spec, requested),
            Command::RemoveResource { name } => self.remove_resource(at, name),
            Command::Release { resource, generation, to, why } => self.release(at, resource, generation, to, why),
            Command::Assign { resource, generation, to, incarnation } => {
                self.assign(at, resource, generation, to, incarnation)
            }
            Command::GiveUp { resource, generation, why } => self.give_up(at, resource, generation, why),
            Command::FenceWanted { node, incarnation, reason } => self.fence_wanted(at, node, incarnation, reason),
            Command::Fenced { id, evidence } => self.fenced(at, id, evidence),
            Command::FenceFailed { id, why } => self.fence_failed(at, id, why),
            Command::Closed { id } => self.close(at, id),
            Command::SetDevices { node, devices } => {
                let Some(state) = self.nodes.get_mut(&node) else {
                    return Err(Void::Unknown { name: node.to_string() });
                };
                if devices.len() > DEVICES_MAX {
                    return Err(Void::Full { what: "devices per node".into(), most: DEVICES_MAX });
                }
                let (proven, of) = (devices.iter().filter(|d| d.proven).count(), devices.len());
                state.devices = devices;
                self.say(at, Decision::Devices { node, proven, of });
                Ok(())
            }
            Command::SetProfile { profile } => {
                if profile != self.settings.profile {
                    self.settings.unsettled.insert(self.settings.profile);
                    self.settings.profile = profile;
                    self.settings.profile_since = index;
                    self.say(at, Decision::ProfileSet { profile });
                }
                Ok(())
            }
            Command::SetTakeback { seconds } => {
                self.settings.takeback_s = Some(seconds);
                Ok(())
            }
            Command::SettleProfile { profile, since } => {
                let settings = &self.settings;
                let late = profile != settings.profile || since != settings.profile_since;
                if late && self.rules.late_commands_are_void() {
                    return Err(Void::Outdated);
                }
                self.settings.unsettled.clear();
                Ok(())
            }
        }
    }

    /// Applies an entry that carries no command.
    pub fn apply_nothing(&mut self, index: u64) {
        self.applied = index;
    }

    /// Applies a change of who votes.
    pub fn apply_voters(&mut self, index: u64, voters: BTreeSet<u64>) {
        self.applied = index;
        if self.voters != voters {
            self.voters = voters;
            let name = |id: &u64| self.member_by_id(*id).map_or_else(|| format!("#{id}"), |(name, _)| name.to_string());
            let voters = self.voters.iter().map(name).collect();
            self.say(self.newest_ms, Decision::VotersChanged { voters });
        }
    }
}

#[cfg(test)]
mod tests;
