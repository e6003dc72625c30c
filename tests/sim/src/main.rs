//! `tiebreaker-sim`: runs schedules of faults, replays one, or proves that each safety rule is needed.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use tiebreaker_sim::{
    Draw, Found, Masked, Schedule, Switches, Until, Verdict, known, masked, prove, prove_masked, run, search,
};

/// Fault schedules over the deciding code, in virtual time.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run fresh seeds, and fail with the seed that breaks something.
    Run {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Run so many schedules instead.
        #[arg(long)]
        soak: Option<u64>,
        /// The first seed; drawn from the clock if not given.
        #[arg(long)]
        from: Option<u64>,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Draw what operators plan, too: moves, maintenance, leaving, disarming, new members and settings.
        #[arg(long)]
        plans: bool,
    },
    /// Run one seed again.
    Replay {
        /// Which.
        seed: u64,
        /// Print what happens.
        #[arg(long)]
        trace: bool,
        /// Leave out this rule, or these, joined by `+`.
        #[arg(long)]
        without: Option<String>,
        /// Draw the schedule as the search without this rule, or these, does.
        #[arg(long)]
        focus: Option<String>,
        /// Draw what operators plan, too.
        #[arg(long)]
        plans: bool,
    },
    /// Leave out one rule after the other: each recorded seed must show a violation without its rule, and none with it.
    Mutate(Mutate),
}

#[derive(Args)]
struct Mutate {
    /// Look at most so long for a new seed in place of one that shows nothing any more.
    #[arg(long, default_value_t = 60)]
    seconds_each: u64,
    /// Look for a seed of the rules that have none, too.
    #[arg(long)]
    search: bool,
    /// This rule only.
    #[arg(long)]
    rule: Option<String>,
    /// The first seed of a search.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { seconds, soak, from, threads, plans } => {
            let until = soak.map_or(Until::Time(Duration::from_secs(seconds)), Until::Count);
            soak_or_run(until, from, threads, plans)
        }
        Command::Replay { seed, trace, without, focus, plans } => {
            let draw = match focus.as_deref().or(without.as_deref()) {
                Some(rules) => Draw::For(rules),
                None => faults_or(plans),
            };
            replay(seed, trace, without.as_deref(), draw)
        }
        Command::Mutate(how) => mutate(&how),
    }
}

const fn faults_or(plans: bool) -> Draw<'static> {
    if plans { Draw::Plans } else { Draw::Faults }
}

fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(since).unwrap_or(0) << 20
}

fn totals(found: &Found, begun: Instant) -> String {
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    format!(
        "{} schedules, {} events, {} virtual hours, {} fences, {} recoveries, {} leases lost, {:.0} schedules a minute",
        found.schedules,
        found.steps,
        found.virtual_s / 3600,
        found.fences,
        found.recovered,
        found.leases_lost,
        found.schedules as f64 / minutes,
    )
}

fn soak_or_run(until: Until, from: Option<u64>, threads: usize, plans: bool) -> ExitCode {
    let from = from.unwrap_or_else(fresh_seed);
    println!("seeds from {from}");
    let begun = Instant::now();
    let progress = |found: &Found| println!("{}", totals(found, begun));
    let found = search(from, until, threads, faults_or(plans), Switches::default(), &[], &progress);
    println!("{}", totals(&found, begun));
    match found.violation {
        None => ExitCode::SUCCESS,
        Some((seed, violation)) => {
            println!("seed {seed}: {violation}");
            println!("tiebreaker-sim replay {seed} --trace{}", if plans { " --plans" } else { "" });
            ExitCode::FAILURE
        }
    }
}

fn replay(seed: u64, trace: bool, without: Option<&str>, draw: Draw<'_>) -> ExitCode {
    let switches = match without {
        None => Switches::default(),
        Some(rules) => match Switches::without_all(&rules.split('+').collect::<Vec<_>>()) {
            Some(switches) => switches,
            None => return no_rule(rules),
        },
    };
    let outcome = run(Schedule::draw(seed, draw), switches, trace);
    for line in &outcome.trace {
        println!("{line}");
    }
    match outcome.violation {
        None => {
            println!("seed {seed}: no violation in {} events", outcome.steps);
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn no_rule(rule: &str) -> ExitCode {
    eprintln!(
        "there is no rule {rule:?} that this build can leave out; build with --features mutations, and choose of:"
    );
    for (name, row) in Switches::table() {
        eprintln!("{row:>4} {name}");
    }
    ExitCode::from(2)
}

fn mutate(how: &Mutate) -> ExitCode {
    if !cfg!(feature = "mutations") {
        eprintln!("this build can leave out no rule: build it with --features mutations");
        return ExitCode::from(2);
    }
    println!("{:<46} {:>3} {:>9}  without it", "rule", "row", "seed");
    let mut missed = Vec::new();
    let mut chosen = Switches::table();
    chosen.retain(|(rule, _)| how.rule.as_ref().is_none_or(|only| only == rule));
    if chosen.is_empty() {
        return no_rule(how.rule.as_deref().unwrap_or_default());
    }
    for (rule, row) in &chosen {
        let (Some(switches), Some(known)) = (Switches::without(rule), known(rule)) else {
            println!("{rule:<46} {row:>3} {:>9}  it has no line in mutations.txt", "-");
            missed.push((*rule).to_owned());
            continue;
        };
        let search = || how.search(rule, switches, &[Switches::default()]);
        match prove(&known, switches, how.search, search) {
            Verdict::Replayed { seed, violation } => println!("{rule:<46} {row:>3} {seed:>9}  {violation}"),
            Verdict::Found { seed, violation } => println!("{rule:<46} {row:>3} {seed:>9}  new seed: {violation}"),
            Verdict::Elsewhere { proof } => {
                println!("{rule:<46} {row:>3} {:>9}  not reached by a schedule; proven by {proof}", "-");
            }
            Verdict::Missed => {
                println!("{rule:<46} {row:>3} {:>9}  NOT FOUND", "-");
                missed.push((*rule).to_owned());
            }
        }
    }
    println!();
    for masked in masked() {
        let Some((rule, row)) = chosen.iter().find(|(rule, _)| Some(rule) == masked.rules.first()) else { continue };
        let shown = mutate_masked(how, &masked);
        let by = masked.rules[1..].join(" and ");
        println!(
            "{rule:<46} {row:>3} masked by {by}; without all of them: {}",
            shown.as_deref().unwrap_or("NOT FOUND")
        );
        if shown.is_none() {
            missed.push(masked.focus());
        }
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("nothing shows that these are needed: {}", missed.join(", "));
    ExitCode::FAILURE
}

/// The seed that shows what rules prevent that mask each other, and the violation.
fn mutate_masked(how: &Mutate, masked: &Masked) -> Option<String> {
    let without = Switches::without_all(&masked.rules)?;
    match prove_masked(masked, without, || how.search(&masked.focus(), without, &masked.each_covers())) {
        Verdict::Replayed { seed, violation } => Some(format!("seed {seed}: {violation}")),
        Verdict::Found { seed, violation } => Some(format!("new seed {seed}: {violation}")),
        Verdict::Elsewhere { .. } | Verdict::Missed => None,
    }
}

impl Mutate {
    fn search(&self, focus: &str, without: Switches, holds: &[Switches]) -> Found {
        let until = Until::Time(Duration::from_secs(self.seconds_each));
        search(self.from, until, self.threads, Draw::For(focus), without, holds, &|_| {})
    }
}
