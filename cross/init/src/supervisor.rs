//! Whether the server runs, is started again, and has proven that it works. Sans-IO.
//!
//! The machine's watchdog hangs on it. A server that hangs proves nothing any more, and the machine is reset. One that ends
//! is started again, ever more slowly: a reset would not help against a mistake in its settings, and would cost whatever
//! else works. Only when it has not worked for ten minutes is a reset tried all the same.

use std::time::Duration;

/// From start to the first proof: a cold card and a large log take their time.
const UP_WITHIN: Duration = Duration::from_secs(90);
/// From one proof to the next.
pub const PROOF_WITHIN: Duration = Duration::from_secs(20);
/// From the order to stop to the end of the process.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// From the kill to the end of the process: one that waits for a dead card never ends.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// From the process's orderly end to that of the machine, which the kernel may refuse.
const DOWN_WITHIN: Duration = Duration::from_secs(10);
/// A machine whose server has not worked for so long is started anew.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LAST: Duration = Duration::from_secs(60);
/// A server that ran for so long starts again at once.
const RAN_WELL: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The process ended.
    Ended,
    /// It could not be started.
    NotStarted,
    /// The server said that it is up.
    Up,
    /// It proved that it works.
    Proof,
    /// It shall end, and not be started again.
    Stop,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start the process.
    Start,
    /// Ask it to end.
    Terminate,
    /// End it.
    Kill,
    /// It has ended as it should: the machine may go down.
    Finished,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting { until: Duration },
    Running { since: Duration, proof: Option<Duration> },
    Terminating { until: Duration, told: bool },
    Killed { until: Duration },
    Finished { until: Duration, told: bool },
}

/// The supervisor of one process. Times count from one moment that doesn't matter.
#[derive(Debug)]
pub struct Supervisor {
    state: State,
    back_off: Duration,
    /// When it last worked; the beginning, if it never did.
    worked: Duration,
}

impl Supervisor {
    /// One whose process is to be started now.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { state: State::Waiting { until: now }, back_off: BACK_OFF_FIRST, worked: now }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Duration, event: Event) {
        match (event, self.state) {
            (Event::Stop, State::Running { .. }) => {
                self.state = State::Terminating { until: now + STOP_WITHIN, told: false };
            }
            (Event::Stop, State::Waiting { .. })
            | (Event::Ended | Event::NotStarted, State::Terminating { .. } | State::Killed { .. }) => {
                self.state = State::Finished { until: now + DOWN_WITHIN, told: false };
            }
            (Event::Ended | Event::NotStarted, State::Running { since, proof }) => {
                if proof.is_some() && now.saturating_sub(since) >= RAN_WELL {
                    self.back_off = BACK_OFF_FIRST;
                }
                self.state = State::Waiting { until: now + self.back_off };
                self.back_off = (self.back_off * 2).min(BACK_OFF_LAST);
            }
            (Event::Up | Event::Proof, State::Running { since, .. }) => {
                self.state = State::Running { since, proof: Some(now) };
                self.worked = now;
            }
            (
                Event::Ended | Event::NotStarted | Event::Up | Event::Proof,
                State::Waiting { .. } | State::Finished { .. },
            )
            | (Event::Stop, State::Terminating { .. } | State::Killed { .. } | State::Finished { .. })
            | (Event::Up | Event::Proof, State::Terminating { .. } | State::Killed { .. }) => {}
        }
    }

    /// What is due.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Running { since: now, proof: None };
                Some(Action::Start)
            }
            State::Terminating { until, told: false } => {
                self.state = State::Terminating { until, told: true };
                Some(Action::Terminate)
            }
            State::Terminating { until, told: true } if now >= until => {
                self.state = State::Killed { until: now + KILL_WITHIN };
                Some(Action::Kill)
            }
            State::Finished { until, told: false } => {
                self.state = State::Finished { until, told: true };
                Some(Action::Finished)
            }
            State::Waiting { .. }
            | State::Running { .. }
            | State::Terminating { .. }
            | State::Killed { .. }
            | State::Finished { told: true, .. } => None,
        }
    }

    /// Whether the machine deserves to go on: only then is its watchdog fed.
    #[must_use]
    pub fn deserves(&self, now: Duration) -> bool {
        let within = |since: Duration, limit: Duration| now.saturating_sub(since) <= limit;
        match self.state {
            State::Running { proof: Some(proof), .. } => within(proof, PROOF_WITHIN),
            State::Running { since, proof: None } => within(since, UP_WITHIN) && within(self.worked, GIVE_UP_AFTER),
            State::Waiting { .. } => within(self.worked, GIVE_UP_AFTER),
            State::Terminating { until, .. } | State::Killed { until } | State::Finished { until, .. } => now <= until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn running() -> Supervisor {
        let mut supervisor = Supervisor::new(s(0));
        assert_eq!(supervisor.poll(s(0)), Some(Action::Start));
        supervisor.handle(s(2), Event::Up);
        supervisor
    }

    #[test]
    fn a_server_that_hangs_costs_the_machine_its_watchdog() {
        let mut supervisor = running();
        for second in 3..100 {
            supervisor.handle(s(second), Event::Proof);
            assert!(supervisor.deserves(s(second)));
        }
        assert!(supervisor.deserves(s(119)));
        assert!(!supervisor.deserves(s(120)), "20 s after the last proof");
        assert_eq!(supervisor.poll(s(120)), None, "it is left as it is, for the reset to end");
        // A server that comes back in time is believed.
        supervisor.handle(s(121), Event::Proof);
        assert!(supervisor.deserves(s(121)));
    }

    #[test]
    fn one_that_never_comes_up_does_so_too() {
        let mut supervisor = Supervisor::new(s(0));
        supervisor.poll(s(0));
        assert!(supervisor.deserves(s(90)));
        assert!(!supervisor.deserves(s(91)));
    }

    #[test]
    fn one_that_ends_is_started_again_ever_more_slowly_and_the_machine_goes_on_for_ten_minutes() {
        let mut supervisor = Supervisor::new(s(0));
        let mut starts = Vec::new();
        let mut now = s(0);
        while supervisor.deserves(now) {
            if supervisor.poll(now) == Some(Action::Start) {
                starts.push(now.as_secs());
                supervisor.handle(now, Event::Ended);
            }
            now += s(1);
        }
        assert_eq!(starts[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
        assert_eq!(now, s(601));
    }

    #[test]
    fn one_that_ran_well_starts_again_at_once() {
        let mut supervisor = running();
        supervisor.handle(s(3), Event::Ended);
        assert_eq!(supervisor.poll(s(4)), Some(Action::Start));
        supervisor.handle(s(5), Event::Up);
        supervisor.handle(s(100), Event::Proof);
        supervisor.handle(s(101), Event::Ended);
        assert_eq!(supervisor.poll(s(102)), Some(Action::Start));
        supervisor.handle(s(102), Event::NotStarted);
        assert_eq!((supervisor.poll(s(103)), supervisor.poll(s(104))), (None, Some(Action::Start)));
    }

    #[test]
    fn an_orderly_end_waits_and_then_kills() {
        let mut supervisor = running();
        supervisor.handle(s(10), Event::Stop);
        assert_eq!(supervisor.poll(s(10)), Some(Action::Terminate));
        assert_eq!(supervisor.poll(s(19)), None);
        assert!(supervisor.deserves(s(19)));
        assert_eq!(supervisor.poll(s(20)), Some(Action::Kill));
        supervisor.handle(s(21), Event::Ended);
        assert_eq!(supervisor.poll(s(21)), Some(Action::Finished));
        assert_eq!(supervisor.poll(s(22)), None, "it is not started again");
        // The kernel may keep the machine up.
        assert!(supervisor.deserves(s(31)));
        assert!(!supervisor.deserves(s(32)), "its end was due");
        let mut waits = Supervisor::new(s(0));
        waits.handle(s(0), Event::Stop);
        assert_eq!(waits.poll(s(0)), Some(Action::Finished));
    }

    #[test]
    fn a_server_that_can_not_be_killed_costs_the_machine_its_watchdog() {
        let mut supervisor = running();
        supervisor.handle(s(10), Event::Stop);
        supervisor.poll(s(10));
        assert_eq!(supervisor.poll(s(20)), Some(Action::Kill));
        assert!(supervisor.deserves(s(30)));
        supervisor.handle(s(31), Event::Proof);
        assert!(!supervisor.deserves(s(31)), "10 s after the kill");
    }
}
