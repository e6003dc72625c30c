//! Schedules: who takes part, what goes wrong when, and what operators do meanwhile, all drawn from one seed.

use tiebreaker_pipeline::profile::Profile;
use tiebreaker_pipeline::resource::Requested;
use tiebreaker_pipeline::state::ShutdownPolicy;
use tiebreaker_simulator::world::{BmcMode, Dice, Kind, MS, SEC, Who};

use crate::fault::{Fault, Scripts};
use crate::planned::Shape;

/// What a schedule is drawn for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Draw<'a> {
    /// Faults, and operators who add, set and remove resources, fence and remove nodes.
    Faults,
    /// What operators plan, too: moves, maintenance, leaving, disarming, new members and settings; and resources of all
    /// kinds.
    Plans,
    /// As with plans, but leaning towards what could break without this rule, or these, joined by `+`.
    For(&'a str),
}

impl<'a> Draw<'a> {
    /// The rules that it leans towards.
    const fn focus(self) -> Option<&'a str> {
        match self {
            Self::Faults | Self::Plans => None,
            Self::For(rules) => Some(rules),
        }
    }
}

/// What a schedule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Anything goes wrong.
    Mixed,
    /// A single link is cut, once: nothing may be lost or fenced.
    OneCut,
    /// Written by hand.
    Scripted,
}

/// One run's script.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The seed of everything that isn't written here.
    pub seed: u64,
    /// What it is about.
    pub style: Style,
    /// The profile at the start.
    pub profile: Profile,
    /// The machines; the first is the appliance.
    pub machines: Vec<Kind>,
    /// So many of the last machines are no members yet.
    pub strangers: usize,
    /// Resources at the start.
    pub resources: usize,
    /// What each resource is like, also those that are added later.
    pub shapes: [Shape; RESOURCES],
    /// What a planned shutdown means at the start.
    pub shutdown: ShutdownPolicy,
    /// The voters vote from the start; else the appliance alone does.
    pub all_vote: bool,
    /// How far time daemons slew, parts per million.
    pub slew_ppm: i64,
    /// Steps with their times in nanoseconds.
    pub faults: Vec<(u64, Fault)>,
    /// When everything heals.
    pub heal_at: u64,
}

/// Resources that a schedule uses at most.
pub(crate) const RESOURCES: usize = 6;

/// What a schedule leans towards: weights of the kinds of steps.
#[derive(Clone, Copy, Debug)]
struct Lean {
    links: u64,
    slow: u64,
    crash: u64,
    stop: u64,
    in_pet: u64,
    still: u64,
    power: u64,
    disk: u64,
    clock: u64,
    dies: u64,
    bmc: u64,
    scripts: u64,
    operators: u64,
    profile: u64,
    pair: u64,
    appliance: u64,
    moves: u64,
    leaving: u64,
    arming: u64,
    members: u64,
    settings: u64,
}

const EVEN: Lean = Lean {
    links: 8,
    slow: 4,
    crash: 6,
    stop: 6,
    in_pet: 1,
    still: 3,
    power: 4,
    disk: 4,
    clock: 2,
    dies: 4,
    bmc: 4,
    scripts: 4,
    operators: 6,
    profile: 2,
    pair: 5,
    appliance: 4,
    moves: 6,
    leaving: 4,
    arming: 2,
    members: 2,
    settings: 2,
};

const FAULTS: Lean = Lean { moves: 0, leaving: 0, arming: 0, members: 0, settings: 0, ..EVEN };

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn draw(seed: u64, draw: Draw<'_>) -> Self {
        let focus = draw.focus();
        let plans = draw != Draw::Faults;
        if let Some(scene) = focus.and_then(|rule| Self::scene(rule, seed)) {
            return scene;
        }
        // Where several have no scene of their own, the first one's may do.
        let first = focus.and_then(|focus| focus.split('+').next());
        if let Some(scene) = first.and_then(|rule| Self::scene(rule, seed)) {
            return scene;
        }
        let focus = first;
        let mut dice = Dice::new(seed);
        if focus.is_none() && dice.one_in(20) {
            return Self::one_cut(seed, &mut dice);
        }
        let lean = match (focus, plans) {
            (Some(rule), _) => lean_for(rule),
            (None, true) => EVEN,
            (None, false) => FAULTS,
        };
        let nodes = match dice.below(20) {
            0 => 1,
            1 | 2 => 3,
            3 => 4,
            _ => 2,
        };
        let nodes = if focus.is_some() { nodes.max(2) } else { nodes };
        let kinds: &[Kind] = match focus {
            Some("only_trusted_watchdogs_prove_silence") => &[Kind::VIRTUAL],
            _ => &[Kind::SERVER, Kind::SERVER, Kind::DUAL, Kind::PLAIN, Kind::PLAIN, Kind::VIRTUAL, Kind::BARE],
        };
        let mut machines = vec![Kind::APPLIANCE];
        for _ in 0..nodes {
            let kind = dice.pick(kinds);
            // A paused virtual machine that leads believes in its lease when it goes on; with two nodes nobody listens.
            let kind = if nodes > 2 && kind.pausable { Kind::SERVER } else { kind };
            machines.push(kind);
        }
        let strangers = usize::from(plans && dice.one_in(4));
        for _ in 0..strangers {
            machines.push(dice.pick(&[Kind::SERVER, Kind::PLAIN]));
        }
        let profile = if dice.one_in(6) { Profile::Balanced } else { Profile::Fast };
        let longest = if dice.one_in(4) { 120 } else { 50 };
        let length = dice.between(20, longest) * SEC;
        let begin = 4 * SEC;
        let count = dice.between(5, 5 + length / SEC / 2);
        let mut schedule = Self {
            seed,
            style: Style::Mixed,
            profile,
            resources: 1 + dice.index(3),
            shapes: std::array::from_fn(|_| if plans { Shape::draw(&mut dice) } else { Shape::default() }),
            shutdown: if plans { dice.pick(&ShutdownPolicy::ALL) } else { ShutdownPolicy::default() },
            all_vote: !dice.one_in(8),
            slew_ppm: dice.pick(&[0, 500, 80_000]),
            machines,
            strangers,
            faults: Vec::new(),
            heal_at: begin + length,
        };
        for _ in 0..count {
            let at = begin + dice.below(length);
            schedule.step(&mut dice, &lean, at);
        }
        schedule.faults.retain(|(at, _)| *at < schedule.heal_at);
        schedule.faults.sort_by_key(|(at, _)| *at);
        schedule
    }

    /// A schedule written by hand: two nodes of this kind, one resource.
    #[must_use]
    pub fn scripted(seed: u64, profile: Profile, node: Kind, faults: Vec<(u64, Fault)>, heal_at: u64) -> Self {
        Self {
            seed,
            style: Style::Scripted,
            profile,
            machines: vec![Kind::APPLIANCE, node, node],
            strangers: 0,
            resources: 1,
            shapes: [Shape::default(); RESOURCES],
            shutdown: ShutdownPolicy::default(),
            all_vote: true,
            slew_ppm: 0,
            faults,
            heal_at,
        }
    }

    fn one_cut(seed: u64, dice: &mut Dice) -> Self {
        let machines = vec![Kind::APPLIANCE, Kind::SERVER, Kind::SERVER];
        let from = dice.index(3);
        let to = (from + 1 + dice.index(2)) % 3;
        let at = dice.between(8 * SEC, 12 * SEC);
        let for_ns = dice.between(100 * MS, 30 * SEC);
        let fault = Fault::Cut { from, to, both: dice.one_in(2), for_ns };
        Self {
            seed,
            style: Style::OneCut,
            profile: dice.pick(&[Profile::Fast, Profile::Fast, Profile::Balanced]),
            machines,
            strangers: 0,
            resources: 2,
            shapes: [Shape::default(); RESOURCES],
            shutdown: ShutdownPolicy::default(),
            all_vote: true,
            slew_ppm: 500,
            faults: vec![(at, fault)],
            heal_at: at + for_ns + 5 * SEC,
        }
    }

    pub(crate) fn node(&self, dice: &mut Dice) -> Who {
        1 + dice.index(self.machines.len() - 1)
    }

    fn anyone(&self, dice: &mut Dice) -> Who {
        dice.index(self.machines.len())
    }

    fn two(&self, dice: &mut Dice) -> (Who, Who) {
        let from = self.anyone(dice);
        let to = (from + 1 + dice.index(self.machines.len() - 1)) % self.machines.len();
        (from, to)
    }

    fn step(&mut self, dice: &mut Dice, lean: &Lean, at: u64) {
        let weights = [
            lean.links,
            lean.slow,
            lean.crash,
            lean.stop,
            lean.in_pet,
            lean.still,
            lean.power,
            lean.disk,
            lean.clock,
            lean.dies,
            lean.bmc,
            lean.scripts,
            lean.operators,
            lean.profile,
            lean.pair,
            lean.appliance,
            lean.moves,
            lean.leaving,
            lean.arming,
            lean.members,
            lean.settings,
        ];
        let mut throw = dice.below(weights.iter().sum());
        let mut which = 0;
        while throw >= weights[which] {
            throw -= weights[which];
            which += 1;
        }
        let fault = match which {
            7 if dice.one_in(6) => {
                Fault::SlowWatchdog { who: self.node(dice), most_ns: dice.between(100 * MS, 8 * SEC) }
            }
            0 => self.links(dice),
            1 => self.slow(dice),
            2 => {
                let who = self.anyone(dice);
                let after_actions = if dice.one_in(2) { 0 } else { u32::try_from(dice.between(1, 40)).expect("small") };
                Fault::Crash { who, back_ns: dice.between(200 * MS, 2 * SEC), after_actions }
            }
            3 => Fault::Stop { who: self.anyone(dice), for_ns: long(dice) },
            4 => Fault::StopInPet { who: self.node(dice), for_ns: dice.between(500 * MS, 8 * SEC) },
            5 => self.still(dice),
            6 => self.power(dice),
            7 => Fault::Stall { who: self.anyone(dice), for_ns: dice.between(200 * MS, 3 * SEC) },
            8 => {
                let ppm = i64::try_from(dice.below(160_001)).expect("small") - 80_000;
                Fault::Slew { who: self.anyone(dice), ppm }
            }
            9 => Fault::Dies { resource: dice.index(4) },
            10 => self.bmc(dice),
            11 => {
                let mood = if dice.one_in(2) { Scripts::Bad } else { Scripts::Slow };
                Fault::Scripts { who: self.node(dice), mood, for_ns: dice.between(SEC, 10 * SEC) }
            }
            12 => self.operator(dice),
            13 => Fault::Profile(dice.pick(&[Profile::Fast, Profile::Fast, Profile::Balanced, Profile::Patient])),
            14 => return self.pair(dice, at),
            16 => return self.moves(dice, at),
            17 => return self.leaving(dice, at),
            18 => return self.arming(dice, at),
            19 => return self.members(dice, at),
            20 => self.settings(dice),
            _ => {
                let fault = match dice.below(3) {
                    0 => Fault::Isolate { who: 0, for_ns: long(dice) },
                    1 => Fault::PowerCut { who: 0, for_ns: long(dice), bmc: false },
                    _ => Fault::Crash { who: 0, back_ns: dice.between(200 * MS, 5 * SEC), after_actions: 0 },
                };
                self.faults.push((at, fault));
                return;
            }
        };
        self.faults.push((at, fault));
    }

    fn links(&self, dice: &mut Dice) -> Fault {
        if dice.one_in(3) {
            return Fault::Isolate { who: self.anyone(dice), for_ns: long(dice) };
        }
        let (from, to) = self.two(dice);
        Fault::Cut { from, to, both: dice.one_in(2), for_ns: long(dice) }
    }

    fn slow(&self, dice: &mut Dice) -> Fault {
        let (from, to) = self.two(dice);
        if dice.one_in(2) {
            return Fault::Lossy { from, to, permille: dice.between(20, 500), for_ns: long(dice) };
        }
        let (least_ns, most_ns) = dice.pick(&[(MS, 5 * MS), (50 * MS, 800 * MS), (100 * MS, 3 * SEC)]);
        Fault::Slow { from, to, least_ns, most_ns, for_ns: long(dice) }
    }

    fn still(&self, dice: &mut Dice) -> Fault {
        let who = self.node(dice);
        let for_ns = dice.between(500 * MS, 25 * SEC);
        if dice.one_in(8) {
            return Fault::Suspend { who: 0, for_ns };
        }
        match (self.machines[who].pausable, dice.one_in(3)) {
            (true, true) => Fault::Suspend { who, for_ns },
            (true, false) => Fault::Pause { who, for_ns },
            (false, _) => Fault::Hang { who, for_ns: dice.between(2 * SEC, 40 * SEC) },
        }
    }

    fn power(&self, dice: &mut Dice) -> Fault {
        let who = self.anyone(dice);
        if dice.one_in(3) {
            return Fault::Reset { who };
        }
        Fault::PowerCut { who, for_ns: dice.between(SEC, 30 * SEC), bmc: dice.one_in(2) }
    }

    fn bmc(&self, dice: &mut Dice) -> Fault {
        let mode = dice.pick(&[BmcMode::Stuck, BmcMode::Unreachable, BmcMode::Queues, BmcMode::Mute, BmcMode::Lags]);
        let who = self.node(dice);
        let second = self.machines[who].second && dice.one_in(2);
        Fault::Bmc { who, second, mode, for_ns: dice.between(SEC, 30 * SEC) }
    }

    fn operator(&self, dice: &mut Dice) -> Fault {
        let resource = dice.index(4);
        let who = self.node(dice);
        match dice.below(14) {
            0..=2 => Fault::Add { resource, runs_on: dice.one_in(2).then_some(who) },
            3..=5 => {
                let started = Requested::Started;
                let others = [started, Requested::Stopped, Requested::Disabled, Requested::Ignored];
                let requested = if dice.one_in(2) { dice.pick(&others) } else { started };
                Fault::Set { resource, requested }
            }
            12 => Fault::Lock { resource, on: dice.one_in(2) },
            13 => Fault::PowerOn { who },
            6 => Fault::Drop { resource },
            7 | 8 => Fault::Fence { who },
            9 => Fault::Confirm { who },
            10 => Fault::Proven { who, proven: dice.one_in(2) && self.machines[who].bmc },
            _ => {
                if self.machines.len() > 3 {
                    Fault::Remove { who }
                } else {
                    Fault::Fence { who }
                }
            }
        }
    }

    /// Two things that belong together: a node is lost, and its BMC is in no mood.
    fn pair(&mut self, dice: &mut Dice, at: u64) {
        let who = self.node(dice);
        if self.machines[who].bmc {
            let mode =
                dice.pick(&[BmcMode::Stuck, BmcMode::Unreachable, BmcMode::Queues, BmcMode::Mute, BmcMode::Lags]);
            let before = dice.below(SEC);
            let fault = Fault::Bmc { who, second: false, mode, for_ns: dice.between(2 * SEC, 40 * SEC) };
            self.faults.push((at - before, fault));
        }
        let fault = match dice.below(5) {
            0 => Fault::Isolate { who, for_ns: long(dice) },
            1 => Fault::Stop { who, for_ns: long(dice) },
            2 => self.still_of(who, dice),
            3 => Fault::StopInPet { who, for_ns: dice.between(SEC, 10 * SEC) },
            _ => Fault::PowerCut { who, for_ns: dice.between(SEC, 20 * SEC), bmc: dice.one_in(2) },
        };
        self.faults.push((at, fault));
        if dice.one_in(3) {
            let after = dice.between(SEC, 12 * SEC);
            self.faults.push((at + after, Fault::Confirm { who }));
        }
    }

    pub(crate) fn still_of(&self, who: Who, dice: &mut Dice) -> Fault {
        let for_ns = dice.between(3 * SEC, 40 * SEC);
        if self.machines[who].pausable { Fault::Pause { who, for_ns } } else { Fault::Hang { who, for_ns } }
    }
}

/// Mostly short, sometimes long enough for everything to run out.
pub(crate) fn long(dice: &mut Dice) -> u64 {
    if dice.one_in(3) { dice.between(5 * SEC, 25 * SEC) } else { dice.between(200 * MS, 5 * SEC) }
}

/// The lean of the schedules that look for a violation without one rule.
fn lean_for(rule: &str) -> Lean {
    match rule {
        "only_trusted_watchdogs_prove_silence" => Lean { pair: 60, still: 20, bmc: 10, ..EVEN },
        "release_then_assign" => Lean { operators: 30, slow: 15, scripts: 20, ..EVEN },
        "no_grant_to_the_condemned" => Lean { pair: 25, operators: 15, slow: 15, appliance: 15, ..EVEN },
        "one_boot_per_grant" => Lean { power: 30, pair: 20, ..EVEN },
        "consensus.lease_from_send_time"
        | "consensus.lease_ends_on_either_clock"
        | "consensus.vote_silence_after_restart"
        | "consensus.gate_shuts_before_vote"
        | "consensus.gate_waits_for_own_term"
        | "grants_need_the_quorum_lease"
        | "old_terms_are_ignored" => {
            Lean { links: 20, slow: 20, crash: 20, appliance: 25, disk: 15, still: 10, clock: 5, ..EVEN }
        }
        "new_resources_are_probed" => Lean { operators: 60, ..EVEN },
        _ => EVEN,
    }
}
