//! Clusters that don't run: why, and when each is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use tiebreaker_pipeline::name::ClusterName;
use tokio::time::Instant;

/// The first pause before a cluster is started again, and the longest: each failure doubles it.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// A cluster that ran for so long had got well: its next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(600);

/// How a cluster came to stop.
struct Stopped {
    why: String,
    pause: Duration,
    /// Absent where it said itself that it can't go on under its number.
    next: Option<Instant>,
}

/// The clusters that don't run, and how often those that do had to be started.
#[derive(Default)]
pub struct StoppedClusters {
    stopped: BTreeMap<ClusterName, Stopped>,
    /// When those that were stopped before were started, and after which pause.
    started: BTreeMap<ClusterName, (Instant, Duration)>,
}

impl StoppedClusters {
    /// A cluster could not be started, or stopped. `final_word` says that another try would end the same way.
    pub fn stopped(&mut self, now: Instant, name: ClusterName, why: String, final_word: bool) {
        let before = self.stopped.get(&name).map(|stopped| stopped.pause);
        let ran = self.started.remove(&name).filter(|(since, _)| now.duration_since(*since) < WELL_AFTER);
        let pause = before.or(ran.map(|(_, pause)| pause)).map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
        let next = (!final_word).then(|| now + pause);
        self.stopped.insert(name, Stopped { why, pause, next });
    }

    /// A cluster runs.
    pub fn started(&mut self, now: Instant, name: &ClusterName) {
        if let Some(stopped) = self.stopped.remove(name) {
            self.started.insert(name.clone(), (now, stopped.pause));
        }
    }

    /// When a cluster has to be tried again next.
    pub fn next(&self) -> Option<Instant> {
        self.stopped.values().filter_map(|stopped| stopped.next).min()
    }

    /// Those whose time has come.
    pub fn due(&self, now: Instant) -> Vec<ClusterName> {
        let due = self.stopped.iter().filter(|(_, stopped)| stopped.next.is_some_and(|next| next <= now));
        due.map(|(name, _)| name.clone()).collect()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.stopped.keys().map(ToString::to_string).collect()
    }

    /// What `status` says about a cluster, if it is stopped.
    pub fn word(&self, now: Instant, name: &ClusterName) -> Option<String> {
        let stopped = self.stopped.get(name)?;
        let again = match stopped.next {
            Some(next) => format!("it is tried again in {} s", next.saturating_duration_since(now).as_secs()),
            None => "it is not tried again before the daemon starts anew".to_owned(),
        };
        Some(format!("cluster {name} of this appliance does not run ({again}): {}", stopped.why))
    }

    /// The same about all of them.
    pub fn words(&self, now: Instant) -> Vec<String> {
        self.stopped.keys().filter_map(|name| self.word(now, name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_cluster_that_never_started_is_tried_again_ever_more_rarely() {
        let begin = Instant::now();
        let home: ClusterName = "home".parse().unwrap();
        let mut clusters = StoppedClusters::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            clusters.stopped(at(begin, now), home.clone(), "its store is damaged".into(), false);
            let next = clusters.next().unwrap().duration_since(at(begin, now)).as_secs();
            assert!(clusters.due(at(begin, now + next - 1)).is_empty());
            now += next;
            assert_eq!(clusters.due(at(begin, now)), std::slice::from_ref(&home));
            pauses.push(next);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        let word = clusters.word(at(begin, now - 7), &home).unwrap();
        assert!(word.contains("home") && word.contains("in 7 s") && word.contains("its store is damaged"), "{word}");
        clusters.started(at(begin, now), &home);
        assert_eq!((clusters.words(begin), clusters.next()), (Vec::new(), None));
        // It fails at once: as if it hadn't run. After a long while it begins anew.
        clusters.stopped(at(begin, now + 1), home.clone(), "again".into(), false);
        assert_eq!(clusters.next(), Some(at(begin, now + 601)));
        clusters.started(at(begin, now + 601), &home);
        clusters.stopped(at(begin, now + 2_000), home, "once more".into(), false);
        assert_eq!(clusters.next(), Some(at(begin, now + 2_010)));
    }

    #[test]
    fn a_cluster_that_can_not_go_on_under_its_number_is_named_and_left_alone() {
        let begin = Instant::now();
        let home: ClusterName = "home".parse().unwrap();
        let mut clusters = StoppedClusters::default();
        clusters.stopped(begin, home.clone(), "amnesia".into(), true);
        assert_eq!((clusters.next(), clusters.due(at(begin, 100_000))), (None, Vec::new()));
        assert!(clusters.word(begin, &home).unwrap().contains("amnesia"));
        assert_eq!(clusters.names(), ["home"]);
    }
}
