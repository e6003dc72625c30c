//! Scenes: what goes wrong, in the order in which a rule's absence hurts, with times drawn from the seed. Chance alone
//! would throw most of these orders once in millions of schedules.

mod planned;

use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::resource::Requested;
use tiebreaker_pipeline::state::ShutdownPolicy;
use tiebreaker_simulator::world::{BmcMode, Dice, Kind, MS, SEC, Who};

use crate::fault::{Fault, Scripts};
use crate::planned::Shape;
use crate::schedule::{RESOURCES, Schedule};

/// Longer than any scene.
const TO_THE_END: u64 = 600 * SEC;

struct Scene {
    dice: Dice,
    machines: Vec<Kind>,
    profile: Profile,
    resources: usize,
    /// So many of the last machines are no members.
    strangers: usize,
    /// What each resource is like.
    shape: Shape,
    shutdown: ShutdownPolicy,
    /// When it begins: everything runs by then.
    at: u64,
    /// How long it takes from there.
    length: u64,
    faults: Vec<(u64, Fault)>,
}

impl Schedule {
    /// The scene for a rule, if that has one.
    #[must_use]
    pub(crate) fn scene(rule: &str, seed: u64) -> Option<Self> {
        let play: fn(&mut Scene) = match rule {
            "shell.descriptor_is_kept" => Scene::crash_loop_without_a_lease,
            "shell.device_at_half_the_promise" => Scene::stopped_before_the_pet,
            "lease_ends_on_either_clock" => Scene::restarted_by_a_slow_clock,
            "leader_assumes_grants" => Scene::new_leader_counts_from_now,
            "consensus.vote_silence_after_restart" => Scene::voter_restarts_inside_the_quorum_lease,
            "executor_waits_for_the_commit_index+reports_are_ordered" => Scene::started_behind_its_release,
            "longer_times_hold" => Scene::shorter_profile_and_a_new_leader,
            "reports_are_ordered" => Scene::moved_right_after_its_start,
            "shell.leftovers_are_killed" | "operations_in_flight_count" => Scene::moved_during_an_orphaned_start,
            "stopped_is_what_a_probe_says" => Scene::moved_by_a_stop_that_lies,
            "late_commands_are_void" => Scene::assignment_behind_a_stalled_disk,
            "unbound_lives_prove_nothing" => Scene::gone_with_its_promise_suspended,
            "armed_is_not_disarming" => Scene::armed_again_while_it_disarms,
            "consensus.gate_shuts_before_vote" => Scene::transfer_whose_end_is_heard_late,
            "old_terms_are_ignored+leader_assumes_grants" => Scene::grant_that_was_on_its_way,
            "consensus.gate_waits_for_own_term" => Scene::fence_that_its_successor_has_not_applied,
            "release_then_assign+late_commands_are_void" => Scene::assigned_again_elsewhere,
            "who_leaves_starts_nothing" => Scene::started_while_it_leaves,
            "absence_proves_what_was_known" => Scene::added_again_where_somebody_left,
            "live_moves_wait_for_the_targets_guard" => Scene::moved_to_an_idle_node,
            "what_may_come_is_guarded" => Scene::comes_after_the_lease,
            "a_failed_move_ends_on_a_fresh_look" => Scene::moves_by_programs_that_lie,
            "moves_end_when_the_source_is_out" => Scene::sent_and_forgotten,
            "what_was_sent_is_probed" => Scene::sent_by_programs_that_lie,
            "nobody_leaves_while_something_comes" => Scene::target_leaves_during_a_move,
            "one_boot_per_grant" => Scene::copied_disk,
            "power_counts_while_the_others_are_heard" => Scene::device_of_another_machine,
            "closed_before_readmission" => Scene::late_off_on_a_later_life,
            "fences_leave_a_majority" => Scene::second_fence_while_the_first_is_open,
            "new_boots_prove_with_the_fence_applied" => Scene::enabled_at_boot,
            "admission_has_applied_the_closing" => Scene::renewal_from_before_the_off,
            "devices_need_a_fresh_read" => Scene::appliance_restarts_behind,
            "others_are_asked_first" => Scene::relay_that_leads_nowhere,
            _ => return None,
        };
        let mut dice = Dice::new(seed ^ 0x5ce7_e000);
        let at = 12 * SEC + dice.below(2 * SEC);
        let mut scene = Scene {
            dice,
            machines: vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER],
            profile: Profile::Fast,
            resources: 2,
            strangers: 0,
            shape: Shape::default(),
            shutdown: ShutdownPolicy::default(),
            at,
            length: 40 * SEC,
            faults: Vec::new(),
        };
        play(&mut scene);
        scene.faults.sort_by_key(|(at, _)| *at);
        let Scene { machines, profile, resources, strangers, shape, shutdown, at, length, faults, .. } = scene;
        let mut schedule = Self::scripted(seed, profile, Kind::SERVER, faults, at + length);
        (schedule.machines, schedule.resources, schedule.strangers) = (machines, resources, strangers);
        (schedule.shapes, schedule.shutdown) = ([shape; RESOURCES], shutdown);
        Some(schedule)
    }
}

impl Scene {
    /// A fault, so long after the beginning.
    fn add(&mut self, after: u64, fault: Fault) {
        self.faults.push((self.at + after, fault));
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.dice.between(from, to)
    }

    fn nodes(&mut self, kinds: &[Kind]) {
        let kind = self.dice.pick(kinds);
        self.machines = vec![Kind::APPLIANCE, kind, kind];
    }

    /// One of the two nodes, and the other.
    fn victim(&mut self) -> (Who, Who) {
        if self.dice.one_in(2) { (1, 2) } else { (2, 1) }
    }

    /// A node without a device hears nobody any more, and its stops hang.
    fn cut_off(&mut self) -> (Who, Who) {
        self.nodes(&[Kind::PLAIN]);
        let (who, other) = self.victim();
        self.add(0, Fault::Isolate { who, for_ns: TO_THE_END });
        self.add(0, Fault::Scripts { who, mood: Scripts::Slow, for_ns: TO_THE_END });
        (who, other)
    }

    /// Row 1: each death and each start of the agent would pet.
    fn crash_loop_without_a_lease(&mut self) {
        let (who, _) = self.cut_off();
        let mut after = self.between(500 * MS, 2 * SEC);
        for _ in 0..16 {
            let back_ns = self.between(50 * MS, 400 * MS);
            self.add(after, Fault::Crash { who, back_ns, after_actions: 0 });
            after += self.between(400 * MS, 1500 * MS);
        }
    }

    /// The last pet comes as late as the device lets it, seen from the end of the lease.
    fn late_pet(&mut self, who: Who, profile: Profile) {
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (lease, half) = (nanos(profile.lease()), nanos(profile.watchdog()) / 2);
        let after = self.between(lease - SEC, lease + lease / 10).saturating_sub(SEC / 2);
        // The last pet before the stop was up to half a second ago.
        let for_ns = half - half / 100 - SEC / 2 - self.dice.below(half / 10);
        self.add(after, Fault::StopInPet { who, for_ns });
    }

    /// Row 2: a pet that was allowed long ago.
    fn stopped_before_the_pet(&mut self) {
        let (who, _) = self.cut_off();
        let after = self.between(1500 * MS, 3 * SEC);
        let for_ns = self.between(SEC, 3900 * MS);
        self.add(after, Fault::StopInPet { who, for_ns });
    }

    /// Row 7: the node's BOOTTIME is slewed down as far as the kernel does, and something dies at the end of the lease.
    fn restarted_by_a_slow_clock(&mut self) {
        self.profile = Profile::Balanced;
        self.at += 8 * SEC;
        let (who, _) = self.cut_off();
        self.faults.push((5 * SEC, Fault::Slew { who, ppm: -80_000 }));
        for resource in 0..2 {
            let after = self.between(3500 * MS, 5300 * MS);
            self.add(after, Fault::Dies { resource });
        }
    }

    /// Row 16: the appliance takes the lead back right after another leader's last grant to a node that is cut off, long
    /// after the appliance's own start: who may still be booting has a grace.
    fn new_leader_counts_from_now(&mut self) {
        self.at += 50 * SEC;
        let (who, _) = self.cut_off();
        let (before, for_ns) = (self.between(3500 * MS, 5500 * MS), self.between(1500 * MS, 2500 * MS));
        self.faults.push((self.at - before, Fault::Isolate { who: 0, for_ns }));
        self.late_pet(who, Profile::Fast);
    }

    /// Row 17: a candidate asks again and again, and the voter that held the leader's lease up has forgotten it.
    fn voter_restarts_inside_the_quorum_lease(&mut self) {
        let (who, other) = self.victim();
        let after = self.between(500 * MS, 1400 * MS);
        self.add(0, Fault::Isolate { who, for_ns: after });
        let before = self.between(0, 60 * MS);
        self.add(after - before, Fault::Isolate { who: 0, for_ns: 3 * SEC });
        let (crash, back_ns) = (self.between(0, 60 * MS), self.between(5 * MS, 60 * MS));
        self.add(after - before + crash, Fault::Crash { who: other, back_ns, after_actions: 0 });
    }

    /// Row 29 with row 22 broken: a node has heard that it shall start something, and not yet that it was released since.
    fn started_behind_its_release(&mut self) {
        let (who, other) = self.victim();
        let most_ns = self.between(500 * MS, 2 * SEC);
        self.add(0, Fault::Slow { from: 0, to: who, least_ns: 50 * MS, most_ns, for_ns: 12 * SEC });
        for resource in 0..2 {
            self.faults.push((self.at - 5 * SEC, Fault::Set { resource, requested: Requested::Stopped }));
            let after = self.between(SEC, 3 * SEC);
            self.add(after, Fault::Set { resource, requested: Requested::Started });
            let later = self.between(50 * MS, 600 * MS);
            self.add(after + later, Fault::Move { resource, to: other });
        }
    }

    /// Row 23: the same, and the profile was longer a moment ago.
    fn shorter_profile_and_a_new_leader(&mut self) {
        self.profile = Profile::Patient;
        self.at += 30 * SEC;
        self.length = 110 * SEC;
        let (who, _) = self.cut_off();
        let before = self.between(30 * MS, 600 * MS);
        self.faults.push((self.at - before, Fault::Profile(Profile::Fast)));
        let (after, back_ns) = (self.between(0, 300 * MS), self.between(100 * MS, 800 * MS));
        self.add(after, Fault::Crash { who: 0, back_ns, after_actions: 0 });
        self.late_pet(who, Profile::Patient);
    }

    /// Stopped some time before, started at the beginning.
    fn restart(&mut self, resource: usize) {
        self.faults.push((self.at - 5 * SEC, Fault::Set { resource, requested: Requested::Stopped }));
        self.add(0, Fault::Set { resource, requested: Requested::Started });
    }

    /// Row 22: the newest report was sent before the start.
    fn moved_right_after_its_start(&mut self) {
        for resource in 0..2 {
            self.restart(resource);
            let after = self.between(0, 800 * MS);
            let to = 1 + self.dice.index(2);
            self.add(after, Fault::Move { resource, to });
        }
        if self.dice.one_in(2) {
            let (who, _) = self.victim();
            let most_ns = self.between(200 * MS, 2 * SEC);
            self.add(0, Fault::Slow { from: who, to: 0, least_ns: 10 * MS, most_ns, for_ns: 5 * SEC });
        }
    }

    /// Row 26: the agent that began the start is dead, and the start goes on.
    fn moved_during_an_orphaned_start(&mut self) {
        for who in 1..3 {
            self.faults.push((self.at - SEC, Fault::Scripts { who, mood: Scripts::Slow, for_ns: 10 * SEC }));
            let after = self.between(20 * MS, 1500 * MS);
            self.add(after, Fault::Crash { who, back_ns: 100 * MS, after_actions: 0 });
        }
        for resource in 0..2 {
            self.restart(resource);
            let after = self.between(20 * MS, 2500 * MS);
            let to = 1 + self.dice.index(2);
            self.add(after, Fault::Move { resource, to });
        }
    }

    /// Row 27: the program that stops says that it has.
    fn moved_by_a_stop_that_lies(&mut self) {
        for who in 1..3 {
            self.add(0, Fault::Scripts { who, mood: Scripts::Bad, for_ns: 30 * SEC });
        }
        for round in 0..8 {
            for resource in 0..2 {
                let after = round * 4 * SEC + self.dice.below(2 * SEC);
                self.add(after, Fault::Set { resource, requested: Requested::Started });
                let to = 1 + self.dice.index(2);
                self.add(after + 500 * MS, Fault::Move { resource, to });
            }
        }
    }

    /// Row 28: a placement on its way while its resource is taken out, and put in again where it runs by hand.
    fn assignment_behind_a_stalled_disk(&mut self) {
        let resource = 3;
        self.add(0, Fault::Add { resource, runs_on: None });
        let mut after = self.between(0, 600 * MS);
        for who in 0..3 {
            if who == 0 || !self.dice.one_in(4) {
                let for_ns = self.between(300 * MS, 3 * SEC);
                self.add(after, Fault::Stall { who, for_ns });
            }
        }
        after += self.between(0, 300 * MS);
        self.add(after, Fault::Drop { resource });
        after += self.between(0, 100 * MS);
        let (who, _) = self.victim();
        self.add(after, Fault::Add { resource, runs_on: Some(who) });
    }

    /// Row 36: an "off" waits in a slow device while the node comes back by itself.
    fn late_off_on_a_later_life(&mut self) {
        self.nodes(&[Kind::BARE, Kind::VIRTUAL, Kind::SERVER]);
        let (who, _) = self.victim();
        self.add(0, Fault::Reset { who });
        if self.dice.one_in(2) {
            // Between the look and the command.
            let after = self.between(1100 * MS, 1800 * MS);
            self.add(after, Fault::Bmc { who, second: false, mode: BmcMode::Queues, for_ns: TO_THE_END });
        } else {
            self.add(0, Fault::Bmc { who, second: false, mode: BmcMode::Unreachable, for_ns: TO_THE_END });
            let after = self.between(2 * SEC, 25 * SEC);
            self.add(after, Fault::Bmc { who, second: false, mode: BmcMode::Lags, for_ns: TO_THE_END });
        }
        for resource in 2..6 {
            let after = self.between(6 * SEC, 30 * SEC);
            self.add(after, Fault::Add { resource, runs_on: None });
        }
    }

    /// Row 37: a node has come back and votes, and its fence is open because an "off" may still land, when the other one
    /// is lost.
    fn second_fence_while_the_first_is_open(&mut self) {
        let (who, other) = self.victim();
        self.add(0, Fault::Reset { who });
        // Between the look and the command.
        let after = self.between(1100 * MS, 1800 * MS);
        self.add(after, Fault::Bmc { who, second: false, mode: BmcMode::Queues, for_ns: TO_THE_END });
        let after = self.between(7 * SEC, 17 * SEC);
        self.add(after, Fault::Reset { who: other });
        // After its "off", and before its "on".
        let later = self.between(1700 * MS, 2600 * MS);
        self.add(after + later, Fault::Bmc { who: other, second: false, mode: BmcMode::Stuck, for_ns: TO_THE_END });
    }

    /// Row 39 with row 30 broken: a service starts at boot, before the agent, and its stop is slow.
    fn enabled_at_boot(&mut self) {
        self.nodes(&[Kind::BARE]);
        let (who, _) = self.victim();
        self.add(0, Fault::Enable { who, resource: 0 });
        self.add(0, Fault::Enable { who, resource: 1 });
        self.add(0, Fault::Bmc { who, second: false, mode: BmcMode::Unreachable, for_ns: TO_THE_END });
        self.add(SEC, Fault::Reset { who });
    }

    /// Row 40: what a later agent of the fenced boot has sent lies in somebody's buffer until the fence is closed.
    fn renewal_from_before_the_off(&mut self) {
        self.length = 60 * SEC;
        let (who, other) = self.victim();
        // Longer than an "off" that was taken may land.
        let (least_ns, most_ns) = (31 * SEC, 45 * SEC);
        for to in [0, other] {
            self.add(0, Fault::Slow { from: who, to, least_ns, most_ns, for_ns: TO_THE_END });
        }
        let (after, back_ns) = (self.between(0, SEC), self.between(50 * MS, 300 * MS));
        self.add(after, Fault::Crash { who, back_ns, after_actions: 0 });
    }

    /// Row 42: the appliance dies with its last writes undone, and comes back without anybody who could tell it that the
    /// fence is over.
    fn appliance_restarts_behind(&mut self) {
        self.machines = vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER, Kind::SERVER];
        self.resources = 3;
        self.length = 60 * SEC;
        self.add(0, Fault::PowerCut { who: 3, for_ns: 8 * SEC, bmc: true });
        let word = self.between(3 * SEC, 6 * SEC);
        self.add(word, Fault::Confirm { who: 3 });
        let stall = word + self.between(2 * MS, 60 * MS);
        self.add(stall, Fault::Stall { who: 0, for_ns: 3 * SEC });
        let crash = stall + self.between(20 * MS, 250 * MS);
        let back_ns = self.between(100 * MS, 800 * MS);
        self.add(crash, Fault::Crash { who: 0, back_ns, after_actions: 0 });
        self.add(crash, Fault::Isolate { who: 0, for_ns: TO_THE_END });
    }

    /// Row 18: the lead goes back to the appliance by the vote of another node, and the old leader hears of it late.
    fn transfer_whose_end_is_heard_late(&mut self) {
        let (who, _) = self.victim();
        let (before, for_ns) = (self.between(4 * SEC, 6 * SEC), self.between(1500 * MS, 2500 * MS));
        self.faults.push((self.at - before, Fault::Isolate { who: 0, for_ns }));
        let (least_ns, most_ns) = (self.between(50 * MS, 300 * MS), self.between(300 * MS, 900 * MS));
        let slow = Fault::Slow { from: 0, to: who, least_ns, most_ns, for_ns: 8 * SEC };
        self.faults.push((self.at - before + for_ns, slow));
    }

    /// Row 20 with row 16 broken: a grant of the last leader arrives after the new one's first word.
    fn grant_that_was_on_its_way(&mut self) {
        self.at += 50 * SEC;
        self.nodes(&[Kind::PLAIN]);
        let (who, other) = self.victim();
        let most_ns = self.between(300 * MS, 1500 * MS);
        for from in [0, other] {
            self.faults
                .push((self.at - 8 * SEC, Fault::Slow { from, to: who, least_ns: MS, most_ns, for_ns: TO_THE_END }));
        }
        // The appliance takes the lead back at about the beginning.
        let (before, for_ns) = (self.between(3500 * MS, 5500 * MS), self.between(1500 * MS, 2500 * MS));
        self.faults.push((self.at - before, Fault::Isolate { who: 0, for_ns }));
        self.add(0, Fault::Isolate { who, for_ns: TO_THE_END });
        self.add(0, Fault::Scripts { who, mood: Scripts::Slow, for_ns: TO_THE_END });
        self.late_pet(who, Profile::Fast);
    }

    /// Row 19: a fence is committed, and its leader is gone before anybody else knows that.
    fn fence_that_its_successor_has_not_applied(&mut self) {
        self.machines = vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER, Kind::SERVER];
        self.resources = 3;
        // The new leader's first entry waits for this disk, once its vote is written.
        let slow = self.between(300 * MS, 900 * MS);
        for who in 1..3 {
            if self.dice.one_in(2) {
                self.add(slow, Fault::Stall { who, for_ns: 2 * SEC });
            }
        }
        self.add(0, Fault::Fence { who: 3 });
        let gone = self.between(2 * MS, 80 * MS);
        self.add(gone, Fault::Isolate { who: 0, for_ns: TO_THE_END });
    }

    /// Row 44: the device of a node that is cut off takes the power of another one.
    fn device_of_another_machine(&mut self) {
        self.machines = vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER, Kind::SERVER];
        self.resources = 3;
        let other = 1 + self.dice.index(2);
        self.add(0, Fault::Miswire { who: 3, other, for_ns: TO_THE_END });
        let after = self.between(0, 2 * SEC);
        self.add(after, Fault::Isolate { who: 3, for_ns: TO_THE_END });
    }

    /// Row 48: a node has lost the leader, and so has the one that relays for it; a third one hears both.
    fn relay_that_leads_nowhere(&mut self) {
        self.machines = vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER, Kind::SERVER];
        self.resources = 3;
        let for_ns = self.between(1600 * MS, 2900 * MS);
        // The second node votes: with it the appliance goes on leading.
        for who in [1, 3] {
            let after = self.between(0, 200 * MS);
            let both = self.dice.one_in(2);
            self.add(after, Fault::Cut { from: who, to: 0, both, for_ns });
        }
    }
}
