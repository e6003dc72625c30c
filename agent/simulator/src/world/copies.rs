//! Copied disks: two machines that are the same member.

use tiebreaker_consensus::RaftId;
use tiebreaker_pipeline::name::MemberName;

use super::World;
use super::dice::SEC;
use super::machine::{Power, Who};

impl World {
    /// A machine that is no member gets a copy of a member's disk, as of now, and is switched on. Only a member that
    /// doesn't vote is copied: two machines that vote as one are beyond what any rule of ours can make safe, and are told
    /// apart by their connections alone.
    pub fn copy_disk(&mut self, from: Who, to: Who) {
        let source = &self.machines[from];
        let votes = self.watch.committed.voters.contains(&source.raft_id.0);
        let is_new = self.is_blank(to) && !self.machines[to].is_copy;
        if votes || from == to || !self.is_current(from) || self.is_blank(from) || !is_new {
            return;
        }
        let (name, raft_id, starts) = (source.name.clone(), source.raft_id, source.starts);
        let stored = source.disk.stored.clone();
        self.say(to, || format!("gets a copy of the disk of {name}"));
        let machine = &mut self.machines[to];
        machine.own_name = Some(std::mem::replace(&mut machine.name, name));
        (machine.raft_id, machine.starts, machine.is_copy) = (raft_id, starts, true);
        machine.disk.replace(stored);
        for who in [from, to] {
            self.machines[who].was_copied = true;
        }
        self.power_on(to);
    }

    /// True for a machine that is a copy of another one, or has one.
    #[must_use]
    pub fn is_of_copies(&self, who: Who) -> bool {
        let name = &self.machines[who].name;
        self.machines.iter().any(|machine| machine.is_copy && machine.name == *name)
    }

    /// True for a machine that isn't let in, because the one that was admitted under its name was a copy, which is off now.
    #[must_use]
    pub fn is_shut_out_by_a_copy(&self, who: Who) -> bool {
        let machine = &self.machines[who];
        let life = self.watch.committed.life(&machine.name);
        let is_admitted = life.is_none_or(|life| life.boot == machine.boot_id());
        machine.was_copied && !self.is_of_copies(who) && self.is_current(who) && !is_admitted
    }

    /// The machine behind a name, as another one reaches it: of two with one name the one that it heard last.
    pub(crate) fn route(&self, from: Who, name: &MemberName) -> Option<Who> {
        let first = self.who(name)?;
        if !self.is_of_copies(first) {
            return Some(first);
        }
        let heard = |who: Who| self.machines[from].process.as_ref().map_or(0, |process| process.heard[who].any);
        let bearers = (0..self.machines.len()).filter(|who| self.machines[*who].name == *name);
        bearers.max_by_key(|who| (heard(*who), std::cmp::Reverse(*who)))
    }

    /// The machine that the cluster means by a node's name: of two with one name the one whose life is admitted.
    pub(crate) fn admitted(&self, name: &MemberName) -> Option<Who> {
        let life = self.watch.committed.life(name);
        let is_admitted = |who: &Who| {
            self.machines[*who].name == *name && life.is_some_and(|life| self.machines[*who].boot_id() == life.boot)
        };
        (0..self.machines.len()).find(is_admitted).or_else(|| self.who(name))
    }

    /// A member that must stop for good: it has to join anew.
    pub(crate) fn set_aside(&mut self, who: Who, why: &str) {
        self.say(who, || format!("must stop: {why}"));
        self.crash(who, SEC);
        self.machines[who].disk.lose();
    }

    /// Somebody finds the copies and switches them off.
    pub(crate) fn switch_copies_off(&mut self) {
        for who in 0..self.machines.len() {
            if self.machines[who].is_copy {
                if self.machines[who].power != Power::Off {
                    self.power_off(who, "somebody finds out that it is a copy");
                }
                let machine = &mut self.machines[who];
                (machine.raft_id, machine.is_copy) = (RaftId(0), false);
                machine.disk.lose();
                if let Some(name) = machine.own_name.take() {
                    machine.name = name;
                }
            }
        }
    }

    /// True if a machine's disk holds no member.
    #[must_use]
    pub fn is_blank(&self, who: Who) -> bool {
        self.machines[who].disk.stored.snapshot.is_none()
    }
}
