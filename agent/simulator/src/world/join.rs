//! Machines that join: an empty disk, and what the appliance hands over.

use tiebreaker_consensus::{HardState, RaftId, Stored};

use super::World;
use super::dice::MS;
use super::machine::{Power, Who};

impl World {
    /// True if the machine is the member that has its name now, and not one that was removed.
    #[must_use]
    pub fn is_current(&self, who: Who) -> bool {
        let machine = &self.machines[who];
        let member = self.watch.committed.members.get(&machine.name);
        member.is_some_and(|member| member.raft_id == machine.raft_id.0)
    }

    /// The appliance hands a machine that it knows as a member, and that isn't one yet, a number and a snapshot to begin
    /// with; its agent starts from there. False if it can't now.
    pub fn take_in(&mut self, who: Who) -> bool {
        let name = self.machines[who].name.clone();
        if !self.machines[0].moves() {
            return false;
        }
        let known = self.machines[0].core().and_then(|core| core.state().members.get(&name));
        let Some(raft_id) = known.map(|member| RaftId(member.raft_id)) else { return false };
        let mut snapshot = None;
        self.enter(0, |core, _| snapshot = core.snapshot());
        let Some(snapshot) = snapshot else { return false };
        let hard_state = HardState { term: snapshot.term, vote: None, commit: snapshot.index };
        let stored = Stored { hard_state, snapshot: Some(snapshot), entries: Vec::new() };
        self.say(who, || format!("joins as number {}", raft_id.0));
        // An agent of an earlier membership ends: its data folder was wiped.
        let back = self.dice.between(200 * MS, 2_000 * MS);
        self.crash(who, back);
        let machine = &mut self.machines[who];
        machine.disk.replace(stored);
        machine.raft_id = raft_id;
        machine.starts = 0;
        machine.was_copied = false;
        let epoch = machine.epoch;
        match machine.power {
            Power::Off => self.power_on(who),
            Power::Booting => {}
            Power::Up => self.after(back, super::event::Event::Start { who, epoch }),
        }
        true
    }
}
