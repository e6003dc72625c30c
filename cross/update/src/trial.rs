//! Whether an update on trial has proven that it works. Sans-IO: times count from the start of the program.
//!
//! What is asked of it is what it can do alone: the server is up, answers itself for a while, and has opened every cluster
//! that ran before. Nodes may be switched off, so nothing is asked of them: no quorum, no lead.

use std::time::Duration;

/// How long an update may take to prove it.
pub const WITHIN: Duration = Duration::from_secs(120);
/// How long the server must work without a gap.
const STEADY: Duration = Duration::from_secs(20);
/// From one proof of the server to the next, at most: it gives one every few seconds.
const GAP: Duration = Duration::from_secs(15);

/// A sign of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sign {
    /// It said that it is up.
    Up,
    /// It proved that it works: it answered itself.
    Proof,
    /// It told which clusters don't run.
    Stopped(Vec<String>),
    /// Its process ended.
    Ended,
}

/// What became of a trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It works.
    Healthy,
    /// It doesn't.
    Failed(String),
}

/// A trial.
#[derive(Debug)]
pub struct Trial {
    /// Clusters of which nothing is asked, since they did not run before either.
    excused: Vec<String>,
    up: bool,
    /// Since when each proof followed the one before in time.
    steady: Option<(Duration, Duration)>,
    /// The clusters that don't run; nothing is known of them before the server says so.
    stopped: Option<Vec<String>>,
    ends: u32,
    over: bool,
}

impl Trial {
    /// One that begins with the program.
    #[must_use]
    pub fn new(excused: Vec<String>) -> Self {
        Self { excused, up: false, steady: None, stopped: None, ends: 0, over: false }
    }

    /// Takes a sign.
    pub fn handle(&mut self, now: Duration, sign: Sign) {
        match sign {
            Sign::Up => self.up = true,
            Sign::Proof => {
                let since =
                    self.steady.filter(|(_, last)| now.saturating_sub(*last) <= GAP).map_or(now, |(since, _)| since);
                self.steady = Some((since, now));
            }
            Sign::Stopped(names) => self.stopped = Some(names),
            Sign::Ended => (self.up, self.steady, self.stopped, self.ends) = (false, None, None, self.ends + 1),
        }
    }

    /// The verdict, once.
    pub fn poll(&mut self, now: Duration) -> Option<Verdict> {
        if self.over {
            return None;
        }
        let broken = self.broken();
        let verdict = match self.steady {
            Some((since, last))
                if self.up
                    && self.stopped.is_some()
                    && broken.is_empty()
                    && last.saturating_sub(since) >= STEADY
                    && now.saturating_sub(last) <= GAP
                    && now <= WITHIN =>
            {
                Some(Verdict::Healthy)
            }
            _ if now >= WITHIN => Some(Verdict::Failed(self.lacks(&broken))),
            _ => None,
        };
        self.over = verdict.is_some();
        verdict
    }

    /// Clusters that ran before and don't now.
    fn broken(&self) -> Vec<&str> {
        let stopped = self.stopped.iter().flatten();
        stopped.filter(|name| !self.excused.contains(name)).map(String::as_str).collect()
    }

    fn lacks(&self, broken: &[&str]) -> String {
        let ended = match self.ends {
            0 => String::new(),
            ends => format!("; its process ended {ends} times"),
        };
        if !broken.is_empty() {
            return format!("its server could not open what the former version opened: {}{ended}", broken.join(", "));
        }
        let what = if !self.up {
            "its server did not come up"
        } else if self.stopped.is_none() {
            "its server did not tell which clusters run"
        } else {
            "its server did not go on answering itself"
        };
        format!("{what} within {} s{ended}", WITHIN.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn none_stopped() -> Sign {
        Sign::Stopped(Vec::new())
    }

    /// Plays signs at their seconds, with a proof every 5 s within `proofs`. Gives when a verdict fell, and which.
    fn play(excused: &[&str], signs: &[(u64, Sign)], proofs: std::ops::Range<u64>) -> (u64, Verdict) {
        let mut trial = Trial::new(excused.iter().map(ToString::to_string).collect());
        for second in 0..1000 {
            for (_, sign) in signs.iter().filter(|(at, _)| *at == second) {
                trial.handle(s(second), sign.clone());
            }
            if proofs.contains(&second) && second % 5 == 0 {
                trial.handle(s(second), Sign::Proof);
            }
            if let Some(verdict) = trial.poll(s(second)) {
                assert_eq!(trial.poll(s(second + 1)), None, "there is one verdict");
                return (second, verdict);
            }
        }
        panic!("no verdict fell");
    }

    fn failed(played: (u64, Verdict)) -> String {
        match played {
            (120, Verdict::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_that_works_for_a_while_is_healthy() {
        assert_eq!(play(&[], &[(8, Sign::Up), (8, none_stopped())], 10..1000), (30, Verdict::Healthy));
    }

    #[test]
    fn one_that_is_late_dumb_or_stops_answering_is_not() {
        assert!(failed(play(&[], &[], 0..0)).contains("did not come up within 120 s"));
        assert!(failed(play(&[], &[(8, none_stopped())], 10..1000)).contains("did not come up"));
        assert!(failed(play(&[], &[(8, Sign::Up)], 10..1000)).contains("which clusters"));
        assert!(failed(play(&[], &[(8, Sign::Up), (8, none_stopped())], 10..25)).contains("answering itself"));
        // 20 s of work that begin too late.
        assert!(failed(play(&[], &[(99, Sign::Up), (99, none_stopped())], 105..1000)).contains("answering itself"));
        // A look that comes late gives no more time.
        let mut late = Trial::new(Vec::new());
        late.handle(s(8), Sign::Up);
        late.handle(s(8), none_stopped());
        (100..=125).step_by(5).for_each(|second| late.handle(s(second), Sign::Proof));
        assert!(matches!(late.poll(s(125)), Some(Verdict::Failed(_))));
    }

    #[test]
    fn a_gap_between_proofs_begins_the_while_anew() {
        let mut trial = Trial::new(Vec::new());
        trial.handle(s(8), Sign::Up);
        trial.handle(s(8), none_stopped());
        for second in [10, 15, 40, 45, 50, 55] {
            trial.handle(s(second), Sign::Proof);
            assert_eq!(trial.poll(s(second)), None, "{second}");
        }
        trial.handle(s(60), Sign::Proof);
        assert_eq!(trial.poll(s(60)), Some(Verdict::Healthy));
    }

    #[test]
    fn one_that_ends_begins_anew_and_is_told_of() {
        let once = [(8, Sign::Up), (8, none_stopped()), (29, Sign::Ended), (31, Sign::Up), (31, none_stopped())];
        assert_eq!(play(&[], &once, 10..1000), (50, Verdict::Healthy), "what it proved before its end doesn't count");
        let mut ends = vec![(8, Sign::Up), (8, none_stopped())];
        ends.extend((1..12).map(|number| (10 * number, Sign::Ended)));
        assert!(failed(play(&[], &ends, 10..1000)).contains("ended 11 times"));
    }

    #[test]
    fn a_cluster_that_ran_before_has_to_run() {
        let signs = [(8, Sign::Up), (8, Sign::Stopped(vec!["home".into()]))];
        assert!(failed(play(&[], &signs, 10..1000)).contains("could not open what the former version opened: home"));
        assert_eq!(play(&["home"], &signs, 10..1000), (30, Verdict::Healthy), "it did not run before either");
        // One that comes up later.
        let later = [(8, Sign::Up), (8, Sign::Stopped(vec!["home".into()])), (40, none_stopped())];
        assert_eq!(play(&[], &later, 10..1000), (40, Verdict::Healthy));
    }
}
