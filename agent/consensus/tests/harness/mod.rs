//! A cluster in virtual time: a queue of events, links that delay, drop and repeat, disks that stall and lose what wasn't
//! flushed, clocks that are slewed. After every event it checks what must hold always.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tiebreaker_consensus::{
    Action, Batch, Config, Consensus, Forgotten, Membership, Message, Payload, Promise, Raft, RaftId, Rank, Role,
    Snapshot, StepError, Stored, bootstrap,
};
use tiebreaker_pipeline::time::Reading;

pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1_000 * MS;
pub const TICK: Duration = Duration::from_millis(25);

/// SplitMix64, for the schedule.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

enum Event {
    Deliver { from: u64, to: u64, message: Message },
    Flushed { member: u64, life: u64 },
    Told { member: u64, life: u64, number: u64 },
    Wake { member: u64, token: u64 },
}

pub struct Member {
    pub raft: Option<Raft>,
    pub disk: Stored,
    life: u64,
    token: u64,
    rank: Rank,
    /// Nothing runs here before that time.
    pub paused_until: u64,
    /// The disk answers nothing before that time.
    pub disk_stalled_until: u64,
    disk_free_at: u64,
    /// What isn't flushed yet, in order.
    unflushed: VecDeque<Batch>,
    queue: VecDeque<(u64, Message)>,
    boot_base: (u64, u64),
    boot_ppm: i64,
    raw_lost: u64,
    pub applied: u64,
    pub hash: u64,
    pub writes: u64,
    pub restores: u64,
    pub members_seen: Vec<Membership>,
    pub read_ready: Vec<(u64, u64)>,
    pub read_failed: Vec<u64>,
    pub refused: Vec<StepError>,
    /// The greatest promise that went out with a message.
    pub told: Promise,
    /// What of it the store didn't hold at a start.
    pub forgot: Option<Forgotten>,
    pub tick: Duration,
}

pub struct Cluster {
    pub now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub members: BTreeMap<u64, Member>,
    pub cuts: BTreeSet<(u64, u64)>,
    pub dice: Dice,
    pub seed: u64,
    /// One in so many messages is lost; 0 for none.
    pub loss: u64,
    pub delay: (u64, u64),
    pub fsync: u64,
    /// Term and hash of each committed index.
    pub log: BTreeMap<u64, (u64, u64)>,
    pub trace: Vec<String>,
    pub keep_trace: bool,
    /// Called on everything that is sent: false loses it.
    pub filter: fn(u64, u64, &Message) -> bool,
    pub configure: fn(&mut Config),
    /// What went wrong; the first stops the run.
    pub violation: Option<String>,
    pub compact_every: u64,
}

pub fn ids(voters: &[u64]) -> Membership {
    Membership::of_voters(voters.iter().copied().map(RaftId))
}

fn mix(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

impl Cluster {
    /// A cluster whose member `n` has rank `n - 1`.
    pub fn new(seed: u64, voters: &[u64]) -> Self {
        let mut cluster = Self::empty(seed);
        let stored = bootstrap(ids(voters), encode(1, 0));
        for id in voters {
            cluster.add(*id, stored.clone(), Rank::new(id - 1, voters.len() as u64).expect("few voters"));
        }
        cluster
    }

    pub fn empty(seed: u64) -> Self {
        Self {
            now: SEC,
            events: BTreeMap::new(),
            sequence: 0,
            members: BTreeMap::new(),
            cuts: BTreeSet::new(),
            dice: Dice(seed),
            seed,
            loss: 0,
            delay: (500_000, MS),
            fsync: 5 * MS,
            log: BTreeMap::new(),
            trace: Vec::new(),
            keep_trace: false,
            filter: |_, _, _| true,
            configure: |_| {},
            violation: None,
            compact_every: 0,
        }
    }

    pub fn add(&mut self, id: u64, disk: Stored, rank: Rank) {
        self.members.insert(
            id,
            Member {
                raft: None,
                disk,
                life: 0,
                token: 0,
                rank,
                paused_until: 0,
                disk_stalled_until: 0,
                disk_free_at: 0,
                unflushed: VecDeque::new(),
                queue: VecDeque::new(),
                boot_base: (self.now, self.now),
                boot_ppm: 0,
                raw_lost: 0,
                applied: 0,
                hash: 0,
                writes: 0,
                restores: 0,
                members_seen: Vec::new(),
                read_ready: Vec::new(),
                read_failed: Vec::new(),
                refused: Vec::new(),
                told: Promise::default(),
                forgot: None,
                tick: TICK,
            },
        );
        self.start(id);
    }

    pub fn reading(&self, id: u64) -> Reading {
        let member = &self.members[&id];
        let (since, base) = member.boot_base;
        let passed = i128::from(self.now - since);
        let boot = i128::from(base) + passed + passed * i128::from(member.boot_ppm) / 1_000_000;
        Reading { boottime_ns: u64::try_from(boot).expect("positive"), raw_ns: self.now - member.raw_lost }
    }

    /// From now on CLOCK_BOOTTIME of `id` runs fast by so many millionths.
    pub fn slew(&mut self, id: u64, ppm: i64) {
        let boot = self.reading(id).boottime_ns;
        let member = self.members.get_mut(&id).expect("known");
        member.boot_base = (self.now, boot);
        member.boot_ppm = ppm;
        self.plan_wake(id);
    }

    pub fn start(&mut self, id: u64) {
        let now = self.reading(id);
        let seed = self.seed;
        let member = self.members.get_mut(&id).expect("known");
        member.life += 1;
        let mut config = Config::new(RaftId(id), member.rank, seed.wrapping_add(member.life), member.tick);
        (self.configure)(&mut config);
        let snapshot = member.disk.snapshot.clone();
        let raft = Raft::new(config, member.disk.clone(), now).expect("a stored state that was once durable");
        member.forgot = member.forgot.or_else(|| raft.remembers(member.told).err());
        member.queue.clear();
        member.paused_until = 0;
        (member.applied, member.hash) = snapshot.map_or((0, 0), |snapshot| decode(&snapshot));
        member.raft = Some(raft);
        self.note(|| format!("start {id}"));
        self.drain(id);
    }

    pub fn crash(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("known");
        member.raft = None;
        member.life += 1;
        member.queue.clear();
        member.unflushed.clear();
        member.disk_free_at = 0;
        self.note(|| format!("crash {id}"));
    }

    /// Stops the machine for `span`; a suspended one's raw clock stands still.
    pub fn pause(&mut self, id: u64, span: u64, suspended: bool) {
        let until = self.now + span;
        let member = self.members.get_mut(&id).expect("known");
        member.paused_until = until;
        if suspended {
            // The raw clock's loss shows at once: the harness reads it only when something happens.
            member.raw_lost += span.min(self.now / 4);
        }
        self.note(|| format!("pause {id} {span} {suspended}"));
        self.plan_wake(id);
    }

    pub fn raft(&mut self, id: u64) -> &mut Raft {
        self.members.get_mut(&id).expect("known").raft.as_mut().expect("running")
    }

    /// Calls something on a member and carries out what comes of it.
    pub fn call<T>(&mut self, id: u64, call: impl FnOnce(&mut Raft, Reading) -> T) -> T {
        let now = self.reading(id);
        let result = call(self.raft(id), now);
        self.drain(id);
        result
    }

    pub fn role(&self, id: u64) -> Option<Role> {
        let raft = self.members[&id].raft.as_ref()?;
        Some(raft.leadership(self.reading(id)).role)
    }

    pub fn term(&self, id: u64) -> u64 {
        self.members[&id].raft.as_ref().map_or(0, |raft| raft.leadership(self.reading(id)).term)
    }

    pub fn has_lease(&self, id: u64) -> bool {
        matches!(self.role(id), Some(Role::Leader { lease_until: Some(_) }))
    }

    pub fn leads(&self, id: u64) -> bool {
        matches!(self.role(id), Some(Role::Leader { .. }))
    }

    /// The running leader of the newest term.
    pub fn leader(&self) -> Option<u64> {
        self.members.keys().copied().filter(|id| self.leads(*id)).max_by_key(|id| self.term(*id))
    }

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cuts.insert((a, b));
        self.cuts.insert((b, a));
    }

    pub fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.members.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut(id, other);
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.keep_trace {
            let line = format!("{:>9} {}", self.now / 1000, line());
            self.trace.push(line);
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), event);
    }

    fn plan_wake(&mut self, id: u64) {
        let now = self.reading(id);
        let member = self.members.get_mut(&id).expect("known");
        let Some(raft) = &member.raft else { return };
        let left = raft.poll_timeout().map_or(SEC, |at| u64::try_from(now.left_until(at).as_nanos()).expect("short"));
        // A slewed clock needs a little more true time; waking early only means to sleep again.
        let rate = 1_000_000 + member.boot_ppm.max(0);
        let at = (self.now + left * 1_000_000 / rate.unsigned_abs() + 1).max(member.paused_until);
        member.token += 1;
        let token = member.token;
        self.schedule(at, Event::Wake { member: id, token });
    }

    pub fn drain(&mut self, id: u64) {
        while let Some(action) = self.members.get_mut(&id).and_then(|m| m.raft.as_mut()).and_then(Raft::poll_action) {
            self.note(|| format!("{id}: {action:?}"));
            match action {
                Action::Send { to, message } => self.post(id, to.0, message),
                Action::Persist(batch) => {
                    let fsync = self.fsync;
                    let now = self.now;
                    let member = self.members.get_mut(&id).expect("known");
                    member.writes += 1;
                    let at = now.max(member.disk_free_at).max(member.disk_stalled_until) + fsync;
                    member.disk_free_at = at;
                    member.unflushed.push_back(batch);
                    let life = member.life;
                    self.schedule(at, Event::Flushed { member: id, life });
                }
                Action::Apply(entries) => {
                    for entry in entries {
                        let member = self.members.get_mut(&id).expect("known");
                        if entry.index != member.applied + 1 {
                            let text = format!("{id} applies {} after {}", entry.index, member.applied);
                            self.violation.get_or_insert(text);
                        }
                        let bytes = match entry.payload {
                            Payload::Empty => Vec::new(),
                            Payload::Command(bytes) => bytes,
                            Payload::Membership(members) => {
                                let text = format!("{members:?}").into_bytes();
                                member.members_seen.push(members);
                                text
                            }
                        };
                        member.hash = mix(member.hash ^ entry.term, &bytes);
                        member.applied = entry.index;
                        let (term, hash) = (entry.term, member.hash);
                        let known = *self.log.entry(entry.index).or_insert((term, hash));
                        if known != (term, hash) {
                            let text = format!("{id} has another entry at {}", entry.index);
                            self.violation.get_or_insert(text);
                        }
                    }
                    self.say_applied(id);
                }
                Action::Restore(snapshot) => {
                    let member = self.members.get_mut(&id).expect("known");
                    (member.applied, member.hash) = decode(&snapshot);
                    member.restores += 1;
                    self.say_applied(id);
                }
                Action::ReadReady { id: read, index } => {
                    self.members.get_mut(&id).expect("known").read_ready.push((read, index));
                }
                Action::ReadFailed { id: read } => {
                    self.members.get_mut(&id).expect("known").read_failed.push(read);
                }
                Action::SnapshotWanted => self.compact(id),
            }
        }
        self.plan_wake(id);
    }

    fn say_applied(&mut self, id: u64) {
        let every = self.compact_every;
        let member = self.members.get_mut(&id).expect("known");
        let applied = member.applied;
        if let Some(raft) = &mut member.raft {
            raft.applied(applied);
            if every != 0 && raft.applied_since_snapshot() > every {
                self.compact(id);
            }
        }
    }

    pub fn compact(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("known");
        let state = encode(member.applied, member.hash);
        if let Some(raft) = &mut member.raft {
            // Refused while the membership is in transition, or if nothing is new: both pass by themselves.
            let _ = raft.compact(member.applied, state);
        }
    }

    fn post(&mut self, from: u64, to: u64, message: Message) {
        let member = self.members.get_mut(&from).expect("known");
        if let Some(raft) = &member.raft {
            member.told = member.told.and(raft.promise());
        }
        // What isn't CBOR can't cross.
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &message).expect("encodes");
        assert_eq!(cbor4ii::serde::from_slice::<Message>(bytes.as_slice()).expect("decodes"), message);
        if self.cuts.contains(&(from, to)) || !(self.filter)(from, to, &message) {
            return;
        }
        if self.loss != 0 && self.dice.one_in(self.loss) {
            return;
        }
        let copies = if self.loss != 0 && self.dice.one_in(self.loss) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + self.delay.0 + self.dice.below(self.delay.1 - self.delay.0 + 1);
            self.schedule(at, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn hand_over(&mut self, from: u64, to: u64, message: Message) {
        let now = self.reading(to);
        let member = self.members.get_mut(&to).expect("known");
        let Some(raft) = &mut member.raft else { return };
        if let Err(refused) = raft.step(now, RaftId(from), message) {
            member.refused.push(refused);
        }
        self.drain(to);
    }

    /// Runs one event; false if the next is later than `until`.
    pub fn run_one(&mut self, until: u64) -> bool {
        let Some(entry) = self.events.first_entry() else { return false };
        if entry.key().0 > until {
            return false;
        }
        let ((at, _), event) = entry.remove_entry();
        self.now = at;
        match event {
            Event::Deliver { from, to, message } => {
                let Some(member) = self.members.get_mut(&to) else { return true };
                if member.paused_until > at {
                    member.queue.push_back((from, message));
                } else {
                    self.note(|| format!("{from}->{to} {message:?}"));
                    self.hand_over(from, to, message);
                }
            }
            Event::Flushed { member: id, life } => {
                let member = self.members.get_mut(&id).expect("known");
                if member.life == life {
                    if member.disk_stalled_until > at {
                        let until = member.disk_stalled_until;
                        self.schedule(until, Event::Flushed { member: id, life });
                    } else if let Some(batch) = member.unflushed.pop_front() {
                        member.disk.write(&batch);
                        member.disk.check().expect("what is durable can be resumed");
                        let at = member.paused_until;
                        self.schedule(at, Event::Told { member: id, life, number: batch.number });
                    }
                }
            }
            Event::Told { member: id, life, number } => {
                let now = self.reading(id);
                let member = self.members.get_mut(&id).expect("known");
                if member.life == life {
                    if member.paused_until > at {
                        let until = member.paused_until;
                        self.schedule(until, Event::Told { member: id, life, number });
                    } else if let Some(raft) = &mut member.raft {
                        raft.persisted(now, number);
                        self.drain(id);
                    }
                }
            }
            Event::Wake { member: id, token } => {
                let now = self.reading(id);
                let member = self.members.get_mut(&id).expect("known");
                if member.token == token && member.paused_until <= at {
                    let queue = std::mem::take(&mut member.queue);
                    if let Some(raft) = &mut member.raft {
                        raft.advance(now);
                        self.drain(id);
                    }
                    for (from, message) in queue {
                        self.hand_over(from, id, message);
                    }
                }
            }
        }
        self.check();
        true
    }

    fn check(&mut self) {
        let holders: Vec<u64> = self.members.keys().copied().filter(|id| self.has_lease(*id)).collect();
        if holders.len() > 1 {
            let text = format!("two leases at once: {holders:?} at {}", self.now);
            self.violation.get_or_insert(text);
        }
        for id in holders {
            let (term, applied) = (self.term(id), self.members[&id].applied);
            let unknown = self.log.iter().rev().find(|(_, (of, _))| *of < term).map_or(0, |(index, _)| *index);
            if unknown > applied {
                let text = format!("{id} holds the lease of term {term} with {applied} applied of {unknown}");
                self.violation.get_or_insert(text);
            }
        }
    }

    /// Runs for `span`; panics on a violation.
    pub fn run(&mut self, span: u64) {
        self.run_until(span, |_| false);
    }

    /// Runs until `done`, at most for `span`; true if it was reached.
    pub fn run_until(&mut self, span: u64, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + span;
        let mut reached = done(self);
        while !reached && self.run_one(until) {
            if let Some(violation) = &self.violation {
                panic!("seed {}: {violation}", self.seed);
            }
            reached = done(self);
        }
        if !reached {
            self.now = until;
        }
        reached
    }

    /// Runs until somebody holds the lease, and says who.
    pub fn elect(&mut self) -> u64 {
        let reached = self.run_until(20 * SEC, |c| c.members.keys().any(|id| c.has_lease(*id)));
        assert!(reached, "seed {}: no leader within 20 s", self.seed);
        self.leader().expect("just elected")
    }

    /// Proposes on the leader and waits until every running member has applied it.
    pub fn commit(&mut self, command: &[u8]) {
        let leader = self.elect();
        self.call(leader, |raft, _| raft.propose(command.to_vec())).expect("a leader takes it");
        let index = self.raft(leader).last_index();
        let reached = self
            .run_until(20 * SEC, |c| c.members.values().all(|member| member.raft.is_none() || member.applied >= index));
        assert!(reached, "seed {}: not applied everywhere within 20 s", self.seed);
    }

    pub fn running(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, member)| member.raft.is_some()).map(|(id, _)| *id).collect()
    }
}

pub fn encode(index: u64, hash: u64) -> Vec<u8> {
    [index.to_le_bytes(), hash.to_le_bytes()].concat()
}

pub fn decode(snapshot: &Snapshot) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(snapshot.state[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(word(0), snapshot.index, "the state is as of the snapshot's index");
    (word(0), word(8))
}

/// A random schedule of `seconds`: cuts, one-way cuts, crashes with what wasn't flushed lost, restarts, stalls of disk and
/// machine, suspends, slewed clocks, transfers, proposals. Returns the first violation, if any.
pub fn chaos(seed: u64, seconds: u64, configure: fn(&mut Config)) -> (Option<String>, Cluster) {
    let mut cluster = Cluster::empty(seed);
    cluster.configure = configure;
    cluster.fsync = [MS, 8 * MS, 40 * MS][cluster.dice.below(3) as usize];
    cluster.delay = [(MS / 2, MS), (MS, 60 * MS), (MS, 200 * MS)][cluster.dice.below(3) as usize];
    cluster.loss = [0, 50, 8][cluster.dice.below(3) as usize];
    cluster.compact_every = [0, 3, 40][cluster.dice.below(3) as usize];
    let stored = bootstrap(ids(&[1, 2, 3]), encode(1, 0));
    for id in 1..=3 {
        cluster.add(id, stored.clone(), Rank::new(id - 1, 3).expect("three"));
    }
    let end = cluster.now + seconds * SEC;
    while cluster.now < end && cluster.violation.is_none() {
        let until = cluster.now + cluster.dice.below(300 * MS) + 1;
        while cluster.violation.is_none() && cluster.run_one(until) {}
        cluster.now = cluster.now.max(until);
        let id = cluster.dice.below(3) + 1;
        let other = cluster.dice.below(3) + 1;
        let alive = cluster.members[&id].raft.is_some();
        match cluster.dice.below(14) {
            0 if id != other => cluster.cut(id, other),
            1 if id != other => {
                cluster.cuts.insert((id, other));
            }
            2..=4 => cluster.cuts.clear(),
            5 if alive => cluster.crash(id),
            6 => {
                for id in 1..=3 {
                    if cluster.members[&id].raft.is_none() {
                        cluster.start(id);
                    }
                }
            }
            7 => {
                let stall = cluster.dice.below(3 * SEC);
                let until = cluster.now + stall;
                let member = cluster.members.get_mut(&id).expect("known");
                // A disk answers in order: a later stall doesn't end an earlier one.
                member.disk_stalled_until = member.disk_stalled_until.max(until);
            }
            8 if alive => {
                let span = cluster.dice.below(1500 * MS);
                let suspended = cluster.dice.one_in(2);
                cluster.pause(id, span, suspended);
            }
            9 => {
                let ppm = cluster.dice.below(200_000).cast_signed() - 100_000;
                cluster.slew(id, ppm);
            }
            10 => {
                if let Some(leader) = cluster.leader()
                    && cluster.members[&leader].paused_until <= cluster.now
                {
                    // Refused if the target is the leader itself: part of the schedule.
                    let _ = cluster.call(leader, |raft, now| raft.transfer(now, RaftId(other)));
                }
            }
            _ => {
                if let Some(leader) = cluster.leader()
                    && cluster.members[&leader].paused_until <= cluster.now
                {
                    let command = cluster.now.to_le_bytes().to_vec();
                    // Refused during a transfer: part of the schedule.
                    let _ = cluster.call(leader, |raft, _| raft.propose(command));
                }
            }
        }
    }
    let forgot = cluster.members.iter().find_map(|(id, member)| member.forgot.map(|forgot| format!("{id}: {forgot}")));
    (cluster.violation.clone().or(forgot), cluster)
}

/// The schedule of SAFETY.md row 17: 1 leads by the word of 2 alone while 3, cut off from it, asks again and again; then 2
/// restarts and is cut off from 1 too. What it promised 1 it must still keep.
pub fn restart_of_the_only_promise(seed: u64, configure: fn(&mut Config)) -> Option<String> {
    let mut cluster = Cluster::empty(seed);
    cluster.configure = configure;
    let stored = bootstrap(ids(&[1, 2, 3]), encode(1, 0));
    for id in 1..=3 {
        cluster.add(id, stored.clone(), Rank::new(id - 1, 3).expect("three"));
    }
    let run = |cluster: &mut Cluster, span: u64| {
        let until = cluster.now + span;
        while cluster.violation.is_none() && cluster.run_one(until) {}
        cluster.now = until;
    };
    run(&mut cluster, 2 * SEC);
    cluster.cut(1, 3);
    let span = SEC + cluster.dice.below(SEC);
    run(&mut cluster, span);
    cluster.crash(2);
    cluster.cut(1, 2);
    let down = cluster.dice.below(40 * MS);
    run(&mut cluster, down);
    cluster.start(2);
    run(&mut cluster, SEC);
    cluster.violation
}

/// The schedule of SAFETY.md row 14: the answers to a leader's heartbeats wait for it while it is paused, and when it wakes,
/// cut off, they are news of long ago.
pub fn answers_that_waited(seed: u64, configure: fn(&mut Config)) -> Option<String> {
    let mut cluster = Cluster::empty(seed);
    cluster.configure = configure;
    cluster.delay = (20 * MS, 40 * MS);
    let stored = bootstrap(ids(&[1, 2, 3]), encode(1, 0));
    for id in 1..=3 {
        cluster.add(id, stored.clone(), Rank::new(id - 1, 3).expect("three"));
    }
    let run = |cluster: &mut Cluster, span: u64| {
        let until = cluster.now + span;
        while cluster.violation.is_none() && cluster.run_one(until) {}
        cluster.now = until;
    };
    let span = 2 * SEC + cluster.dice.below(SEC);
    run(&mut cluster, span);
    cluster.pause(1, 330 * MS, false);
    run(&mut cluster, 100 * MS);
    cluster.isolate(1);
    run(&mut cluster, 2 * SEC);
    cluster.violation
}
