//! What the counter stores, and what that proves: no acknowledged count was lost, and no two processes served at once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};

/// One start of the counter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instance {
    /// Where.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// When it was started, by CLOCK_MONOTONIC: all nodes of a demo share that clock.
    pub started_ns: u64,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.node, self.pid, self.started_ns)
    }
}

/// A text that isn't what the counter writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct LedgerError {
    what: &'static str,
    text: String,
}

impl LedgerError {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(200).collect() }
    }
}

impl FromStr for Instance {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let bad = || LedgerError::new("instance", text);
        let mut parts = text.rsplitn(3, ':');
        let started_ns = parts.next().and_then(|part| part.parse().ok()).ok_or_else(bad)?;
        let pid = parts.next().and_then(|part| part.parse().ok()).ok_or_else(bad)?;
        let node = parts.next().filter(|node| !node.is_empty()).ok_or_else(bad)?.to_owned();
        Ok(Self { node, pid, started_ns })
    }
}

/// A stored count, and what a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The count.
    pub count: u64,
    /// Who counted.
    pub instance: Instance,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.instance)
    }
}

impl FromStr for Line {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let bad = || LedgerError::new("count", text);
        let (count, instance) = text.split_once(' ').ok_or_else(bad)?;
        Ok(Self { count: count.parse().map_err(|_| bad())?, instance: instance.parse()? })
    }
}

/// What an instance did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happening {
    /// It began to serve.
    Start,
    /// It counted.
    Serve,
    /// When it started another one had the folder.
    Double,
}

/// A line of the events: all instances append to one file, so their order is the order in which things happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, by CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Who.
    pub instance: Instance,
    /// What.
    pub what: Happening,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Happening::Start => "start",
            Happening::Serve => "serve",
            Happening::Double => "double",
        };
        write!(f, "{} {what} {}", self.at_ns, self.instance)
    }
}

impl FromStr for Event {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let bad = || LedgerError::new("event", text);
        let parts: Vec<&str> = text.split(' ').collect();
        let [at_ns, what, instance] = parts[..] else { return Err(bad()) };
        let what = match what {
            "start" => Happening::Start,
            "serve" => Happening::Serve,
            "double" => Happening::Double,
            _ => return Err(bad()),
        };
        Ok(Self { at_ns: at_ns.parse().map_err(|_| bad())?, instance: instance.parse()?, what })
    }
}

/// All that the counter stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// The counts in the order of the file.
    pub counts: Vec<Line>,
    /// The events in the order of the file.
    pub events: Vec<Event>,
}

/// What a ledger proves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Acknowledged counts that are not stored once and in order.
    pub lost_counts: u64,
    /// Signs that two instances ran at once.
    pub double_runs: u64,
    /// The first few of both, in words.
    pub faults: Vec<String>,
}

/// Faults that are told in words; more say nothing new.
const FAULTS_TOLD: usize = 10;

impl Ledger {
    /// Reads what the counter has stored in `shared`. A half written last line was told to nobody and doesn't count.
    ///
    /// # Errors
    /// When a file can't be read or holds something else.
    pub fn read(shared: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = shared.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Self::parse(&text("counts")?, &text("events")?)?)
    }

    fn parse(counts: &str, events: &str) -> Result<Self, LedgerError> {
        fn whole(text: &str) -> std::str::Lines<'_> {
            text[..text.rfind('\n').map_or(0, |end| end + 1)].lines()
        }
        Ok(Self {
            counts: whole(counts).map(str::parse).collect::<Result<_, _>>()?,
            events: whole(events).map(str::parse).collect::<Result<_, _>>()?,
        })
    }

    /// The newest instance that has started.
    #[must_use]
    pub fn newest(&self) -> Option<&Instance> {
        self.events.iter().rev().find(|event| event.what == Happening::Start).map(|event| &event.instance)
    }

    /// Holds it against what the clients were told.
    #[must_use]
    pub fn judge(&self, acknowledged: &[Line]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut stored: BTreeMap<u64, Vec<&Line>> = BTreeMap::new();
        for (at, line) in self.counts.iter().enumerate() {
            stored.entry(line.count).or_default().push(line);
            if line.count != at as u64 + 1 {
                verdict.lost(format!("the stored count {} stands in place {}", line.count, at + 1));
            }
        }
        let mut told: BTreeMap<u64, u64> = BTreeMap::new();
        for line in acknowledged {
            let times = told.entry(line.count).or_default();
            *times += 1;
            if *times > 1 {
                verdict.lost(format!("{} was acknowledged {times} times", line.count));
            }
            match stored.get(&line.count).map(Vec::as_slice) {
                Some([one]) if one.instance == line.instance => {}
                Some([one]) => {
                    verdict.lost(format!("{} of {} is stored as {}'s", line.count, line.instance, one.instance));
                }
                Some(many) => verdict.lost(format!("{} is stored {} times", line.count, many.len())),
                None => verdict.lost(format!("{} was acknowledged and is not stored", line.count)),
            }
        }
        self.judge_runs(&mut verdict);
        verdict
    }

    /// One instance after the other: who has been followed by another must never be heard of again.
    fn judge_runs(&self, verdict: &mut Verdict) {
        let mut over: Vec<&Instance> = Vec::new();
        let mut current: Option<&Instance> = None;
        for event in &self.events {
            match event.what {
                Happening::Start => {
                    over.extend(current.replace(&event.instance));
                }
                Happening::Double => verdict.double(format!("{} started beside another", event.instance)),
                Happening::Serve if over.contains(&&event.instance) => {
                    verdict.double(format!("{} served after another had started", event.instance));
                }
                Happening::Serve => {}
            }
        }
        let mut over: Vec<&Instance> = Vec::new();
        let mut current: Option<&Instance> = None;
        for line in &self.counts {
            if over.contains(&&line.instance) {
                verdict.double(format!("{} stored {} after another had", line.instance, line.count));
            } else if current != Some(&line.instance) {
                over.extend(current.replace(&line.instance));
            }
        }
    }
}

impl Verdict {
    fn lost(&mut self, why: String) {
        self.lost_counts += 1;
        self.tell(why);
    }

    fn double(&mut self, why: String) {
        self.double_runs += 1;
        self.tell(why);
    }

    fn tell(&mut self, why: String) {
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "node1:10:1000";
    const B: &str = "node2:20:2000";

    fn ledger(counts: &[(u64, &str)], events: &[(&str, &str)]) -> Ledger {
        let counts: String = counts.iter().map(|(count, who)| format!("{count} {who}\n")).collect();
        let events: String =
            events.iter().enumerate().map(|(at, (what, who))| format!("{at} {what} {who}\n")).collect();
        Ledger::parse(&counts, &events).unwrap()
    }

    fn line(count: u64, who: &str) -> Line {
        Line { count, instance: who.parse().unwrap() }
    }

    #[test]
    fn a_clean_recovery_loses_nothing_and_runs_once() {
        let events = [("start", A), ("serve", A), ("serve", A), ("start", B), ("serve", B)];
        let clean = ledger(&[(1, A), (2, A), (3, B)], &events);
        // The second count was stored but its client never heard of it.
        assert_eq!(clean.judge(&[line(1, A), line(3, B)]), Verdict::default());
        assert_eq!(clean.newest().unwrap().to_string(), B);
    }

    #[test]
    fn what_was_acknowledged_and_is_gone_is_lost() {
        let short = ledger(&[(1, A)], &[("start", A)]);
        assert_eq!(short.judge(&[line(1, A), line(2, A)]).lost_counts, 1);
        assert_eq!(short.judge(&[line(1, B)]).lost_counts, 1, "stored by another");
        assert_eq!(short.judge(&[line(1, A), line(1, A)]).lost_counts, 1, "acknowledged twice");
        let twice = ledger(&[(1, A), (1, A)], &[("start", A)]);
        assert!(twice.judge(&[line(1, A)]).lost_counts > 0, "stored twice");
        let gap = ledger(&[(1, A), (3, A)], &[("start", A)]);
        assert!(gap.judge(&[]).lost_counts > 0, "out of order");
    }

    #[test]
    fn two_at_once_are_seen() {
        let late = ledger(&[], &[("start", A), ("start", B), ("serve", A)]);
        assert_eq!(late.judge(&[]).double_runs, 1);
        let locked = ledger(&[], &[("start", A), ("start", B), ("double", B)]);
        assert_eq!(locked.judge(&[]).double_runs, 1);
        let mixed = ledger(&[(1, A), (2, B), (3, A)], &[]);
        assert_eq!(mixed.judge(&[]).double_runs, 1);
    }

    #[test]
    fn half_a_line_at_the_end_was_told_to_nobody() {
        let ledger = Ledger::parse(&format!("1 {A}\n2 nod"), "").unwrap();
        assert_eq!(ledger.counts, [line(1, A)]);
        assert!(Ledger::parse("x\n", "").is_err());
        assert!(Ledger::parse("", &format!("1 dance {A}\n")).is_err());
    }
}
