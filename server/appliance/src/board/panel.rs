//! The LEDs and the button of the appliance: a press acknowledges, held down for five seconds it holds the switching of power
//! or releases it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_hal::digital::{InputPin, OutputPin};
use tiebreaker_fence::{Bias, Polarity, Wire};
use tiebreaker_firmware::{
    BUTTON_EVERY, Indicator, InputLine, Moment, OutputLine, Pattern, PushButton, Pushed, input_line, output_line,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use super::glance::Glance;
use super::settings::Board;
use super::{fenced, set_hold, statuses};

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// It answers within this, or the LEDs say that it doesn't.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// An LED that shows something steady is looked after this often all the same: something new may be there to be shown.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Shows how it stands and listens to the button, for as long as the daemon runs. A line that can't be had is said and
/// done without: it is no reason to serve nobody.
pub(crate) async fn run(board: Board, socket: PathBuf) -> Infallible {
    let mut panel = Panel {
        quorum: led("quorum_led", board.quorum_led.as_ref()),
        fence: led("fence_led", board.fence_led.as_ref()),
        fault: led("fault_led", board.fault_led.as_ref()),
        button: board.button.as_ref().and_then(button),
        acknowledged: BTreeSet::new(),
        failing: false,
    };
    // Nothing is known before the first answer, and that is how it looks.
    let (tell, told) = watch::channel(Glance::silent());
    let asking = ask(socket.clone(), tell);
    tokio::pin!(asking);
    // One at a time: whoever holds the button once more meanwhile sees no answer yet.
    let mut holding = JoinSet::new();
    let start = Instant::now();
    loop {
        let now = Moment::at(start.elapsed());
        let glance = told.borrow().clone();
        match panel.poll(now, &glance) {
            Some(Pushed::Pressed) => panel.acknowledge(&glance),
            Some(Pushed::Held) if holding.is_empty() => drop(holding.spawn(hold(socket.clone(), !glance.held))),
            Some(Pushed::Held) | None => {}
        }
        let next = panel.poll_at(now).since(Moment::at(Duration::ZERO));
        tokio::select! {
            () = sleep_until(start + next) => {}
            never = &mut asking => match never {},
            _ = holding.join_next(), if !holding.is_empty() => {}
        }
    }
}

/// The button was held: the switching of power is held or released. What came of it the fence LED shows.
async fn hold(socket: PathBuf, hold: bool) {
    match set_hold(&socket, hold, ANSWER_WITHIN).await {
        Ok(()) if hold => info!("the switching of power is held, by the button"),
        Ok(()) => info!("the switching of power is released, by the button"),
        Err(error) => warn!(hold, "the button did not do all of it: {error:#}"),
    }
}

/// Asks the daemon how it stands, and passes it on.
async fn ask(socket: PathBuf, tell: watch::Sender<Glance>) -> Infallible {
    let mut every = interval(ASK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        tell.send_replace(glance(&socket).await);
    }
}

/// What the LEDs shall show now.
pub(super) async fn glance(socket: &Path) -> Glance {
    let clusters = async { anyhow::Ok((statuses(socket, ANSWER_WITHIN).await?, fenced(socket, ANSWER_WITHIN).await?)) };
    clusters.await.map_or_else(|_| Glance::silent(), |(clusters, fenced)| Glance::of(&clusters, &fenced))
}

fn led(key: &str, wire: Option<&Wire>) -> Option<Indicator<OutputLine>> {
    let wire = wire?;
    match output_line(&wire.line, wire.polarity, "tiebreaker-led") {
        Ok(output) => Some(Indicator::new(output)),
        Err(error) => {
            warn!("{key} stays dark: {:#}", anyhow::Error::from(error));
            None
        }
    }
}

fn button(wire: &Wire) -> Option<PushButton<InputLine>> {
    let bias = match wire.polarity {
        Polarity::ActiveHigh => Bias::PullDown,
        Polarity::ActiveLow => Bias::PullUp,
    };
    match input_line(&wire.line, bias, "tiebreaker-button") {
        Ok(line) => Some(PushButton::new(line, wire.polarity)),
        Err(error) => {
            warn!("the button does nothing: {:#}", anyhow::Error::from(error));
            None
        }
    }
}

struct Panel<O: OutputPin, I> {
    quorum: Option<Indicator<O>>,
    fence: Option<Indicator<O>>,
    fault: Option<Indicator<O>>,
    button: Option<PushButton<I>>,
    /// What a person has seen.
    acknowledged: BTreeSet<String>,
    /// A line failed, and it was said.
    failing: bool,
}

impl<O: OutputPin, I: InputPin> Panel<O, I> {
    fn poll(&mut self, now: Moment, glance: &Glance) -> Option<Pushed> {
        // What has gone may come again, and is new then.
        self.acknowledged.retain(|seen| glance.reasons.contains(seen));
        let fault = glance.unless_seen(&self.acknowledged);
        let leds = [
            (&mut self.quorum, Pattern::from(glance.quorum)),
            (&mut self.fence, Pattern::from(glance.fencing)),
            (&mut self.fault, Pattern::from(fault)),
        ];
        let mut failure = None;
        for (led, pattern) in leds {
            if let Some(led) = led {
                led.show(now, pattern);
                failure = led.poll(now).err().map(|error| format!("{error:?}")).or(failure);
            }
        }
        let pushed = match self.button.as_mut().map(|button| button.poll(now)) {
            Some(Ok(pushed)) => pushed,
            Some(Err(error)) => {
                failure = Some(format!("{error:?}"));
                None
            }
            None => None,
        };
        if let Some(error) = &failure
            && !self.failing
        {
            warn!(error, "a line of the board fails");
        }
        self.failing = failure.is_some();
        pushed
    }

    fn acknowledge(&mut self, glance: &Glance) {
        info!(reasons = ?glance.reasons, "acknowledged at the button");
        self.acknowledged.clone_from(&glance.reasons);
    }

    fn poll_at(&self, now: Moment) -> Moment {
        let look = if self.button.is_some() { BUTTON_EVERY } else { LOOK_EVERY };
        let changes = [&self.quorum, &self.fence, &self.fault].into_iter().flatten().filter_map(|led| led.poll_at(now));
        changes.fold(now.after(look), Moment::min)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use embedded_hal::digital::ErrorType;
    use tiebreaker_firmware::{Fault, Output};

    use super::*;

    #[derive(Default)]
    struct Bench {
        fault: AtomicBool,
        button: AtomicBool,
    }

    struct Line<'a>(&'a AtomicBool);

    impl ErrorType for Line<'_> {
        type Error = Infallible;
    }

    impl OutputPin for Line<'_> {
        fn set_low(&mut self) -> Result<(), Infallible> {
            self.0.store(false, Ordering::Relaxed);
            Ok(())
        }

        fn set_high(&mut self) -> Result<(), Infallible> {
            self.0.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    impl InputPin for Line<'_> {
        fn is_high(&mut self) -> Result<bool, Infallible> {
            Ok(self.0.load(Ordering::Relaxed))
        }

        fn is_low(&mut self) -> Result<bool, Infallible> {
            self.is_high().map(|high| !high)
        }
    }

    /// Polls for so long; whether the fault LED was lit at any time, and what was pushed.
    fn run(
        panel: &mut Panel<Line<'_>, Line<'_>>,
        bench: &Bench,
        at_ms: &mut u64,
        for_ms: u64,
        glance: &Glance,
    ) -> (bool, Vec<Pushed>) {
        let until = *at_ms + for_ms;
        let (mut lit, mut pushed) = (false, Vec::new());
        while *at_ms < until {
            *at_ms += 20;
            pushed.extend(panel.poll(Moment::at(Duration::from_millis(*at_ms)), glance));
            lit |= bench.fault.load(Ordering::Relaxed);
        }
        (lit, pushed)
    }

    #[test]
    fn held_for_five_seconds_the_button_says_so_once_and_the_fence_led_shows_the_hold() {
        let (bench, fence) = (Bench::default(), AtomicBool::new(false));
        let output = Output::at_rest(Line(&fence), Polarity::ActiveHigh).unwrap();
        let mut panel = Panel {
            quorum: None,
            fence: Some(Indicator::new(output)),
            fault: None,
            button: Some(PushButton::new(Line(&bench.button), Polarity::ActiveHigh)),
            acknowledged: BTreeSet::new(),
            failing: false,
        };
        let (mut at_ms, mut glance) = (0, Glance::of(&[], &[]));
        run(&mut panel, &bench, &mut at_ms, 200, &glance);
        bench.button.store(true, Ordering::Relaxed);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 4_900, &glance).1, []);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 200, &glance).1, [Pushed::Held]);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 20_000, &glance).1, [], "once");
        bench.button.store(false, Ordering::Relaxed);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 200, &glance).1, [], "nor is it a press");
        assert!(!fence.load(Ordering::Relaxed));
        glance.fencing = tiebreaker_firmware::Fencing::Held;
        for _ in 0..50 {
            run(&mut panel, &bench, &mut at_ms, 20, &glance);
            assert!(fence.load(Ordering::Relaxed), "it is lit all the time");
        }
    }

    #[test]
    fn a_press_darkens_the_fault_led_until_something_new_comes() {
        let bench = Bench::default();
        let output = Output::at_rest(Line(&bench.fault), Polarity::ActiveHigh).unwrap();
        let mut panel = Panel {
            quorum: None,
            fence: None,
            fault: Some(Indicator::new(output)),
            button: Some(PushButton::new(Line(&bench.button), Polarity::ActiveHigh)),
            acknowledged: BTreeSet::new(),
            failing: false,
        };
        let mut at_ms = 0;
        let mut glance = Glance::of(&[], &[]);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 2_000, &glance), (false, vec![]));
        glance.fault = Fault::Device;
        glance.reasons.insert("the BMC of node1 isn't proven".into());
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 2_000, &glance), (true, vec![]));
        bench.button.store(true, Ordering::Relaxed);
        run(&mut panel, &bench, &mut at_ms, 200, &glance);
        bench.button.store(false, Ordering::Relaxed);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 200, &glance).1, [Pushed::Pressed]);
        panel.acknowledge(&glance);
        run(&mut panel, &bench, &mut at_ms, 20, &glance);
        assert_eq!(run(&mut panel, &bench, &mut at_ms, 4_000, &glance), (false, vec![]));
        glance.reasons.insert("the BMC of node2 isn't proven".into());
        assert!(run(&mut panel, &bench, &mut at_ms, 2_000, &glance).0);
        panel.acknowledge(&glance);
        glance.reasons.clear();
        run(&mut panel, &bench, &mut at_ms, 2_000, &glance);
        glance.reasons.insert("the BMC of node1 isn't proven".into());
        assert!(run(&mut panel, &bench, &mut at_ms, 2_000, &glance).0, "it went and came again");
    }
}
