//! A machine on a bench: its button and its LED are pins, its time is virtual.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedded_hal::digital::{Error, ErrorKind, ErrorType, InputPin, OutputPin};
use tiebreaker_firmware::{AtxButton, AtxSettings, Output, Polarity, Sense, SenseSettings};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::atx::BoardDevice;
use super::lines::parse_line;
use super::panel::Panel;
use super::relay::{OpenError, RelayDevice};
use super::{BoardConfig, RelayConfig};
use crate::{BoxFuture, Device, Fault, OffSign, Overseer, PowerOffError, PowerState, Progress, power_off};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken;

impl Error for Broken {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

#[derive(Debug)]
struct Machine {
    on: bool,
    down_since: Option<Instant>,
    /// What a long press takes; `None` for firmware that doesn't listen.
    off_after: Option<Duration>,
    /// The LED is stuck at this.
    led_stuck: Option<bool>,
    led_fails: bool,
    button_fails: bool,
    presses: u32,
}

#[derive(Debug, Clone)]
struct Bench(Arc<Mutex<Machine>>);

impl Bench {
    fn on() -> Self {
        Self(Arc::new(Mutex::new(Machine {
            on: true,
            down_since: None,
            off_after: Some(Duration::from_secs(4)),
            led_stuck: None,
            led_fails: false,
            button_fails: false,
            presses: 0,
        })))
    }

    fn set(&self, change: impl FnOnce(&mut Machine)) {
        change(&mut self.0.lock().unwrap());
    }

    fn presses(&self) -> u32 {
        self.0.lock().unwrap().presses
    }

    fn is_down(&self) -> bool {
        self.0.lock().unwrap().down_since.is_some()
    }

    fn device(&self) -> BoardDevice {
        let button = Output::at_rest(Button(self.clone()), Polarity::ActiveHigh).unwrap();
        let sense = Sense::new(Lamp(self.clone()), Polarity::ActiveHigh, SenseSettings::default());
        let (asks, asked) = mpsc::channel(8);
        let atx = AtxButton::new(button, sense, AtxSettings::default());
        tokio::spawn(Panel::new("bench".into(), atx, asked).run());
        BoardDevice::over(asks)
    }
}

struct Button(Bench);
struct Lamp(Bench);

impl ErrorType for Button {
    type Error = Broken;
}

impl OutputPin for Button {
    fn set_low(&mut self) -> Result<(), Broken> {
        let mut machine = self.0.0.lock().unwrap();
        if machine.button_fails {
            return Err(Broken);
        }
        machine.down_since = None;
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Broken> {
        let mut machine = self.0.0.lock().unwrap();
        if machine.button_fails {
            return Err(Broken);
        }
        machine.presses += 1;
        machine.down_since = Some(Instant::now());
        if !machine.on {
            machine.on = true;
        }
        Ok(())
    }
}

impl ErrorType for Lamp {
    type Error = Broken;
}

impl InputPin for Lamp {
    fn is_high(&mut self) -> Result<bool, Broken> {
        let mut machine = self.0.0.lock().unwrap();
        if let (Some(since), Some(after)) = (machine.down_since, machine.off_after)
            && since.elapsed() >= after
        {
            machine.on = false;
        }
        if machine.led_fails { Err(Broken) } else { Ok(machine.led_stuck.unwrap_or(machine.on)) }
    }

    fn is_low(&mut self) -> Result<bool, Broken> {
        self.is_high().map(|high| !high)
    }
}

/// Allows everything.
struct Willing;

impl Overseer for Willing {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, _: Progress) {}
}

const SPACING: Duration = Duration::from_millis(500);

fn soon(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

async fn fence(device: &dyn Device) -> Result<(), PowerOffError> {
    power_off(device, SPACING, soon(30), &Willing).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_fenced_by_one_press_and_started_by_another() {
    let bench = Bench::on();
    let device = bench.device();
    assert_eq!(device.sign(), OffSign::Led);
    assert_eq!(device.state(soon(10)).await.unwrap(), PowerState::On);
    let began = Instant::now();
    fence(&device).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(7), "four seconds of the button and three of darkness");
    assert_eq!((bench.presses(), bench.is_down()), (1, false));
    // Said again, off presses nothing: a press would start the node.
    device.off(soon(10)).await.unwrap();
    assert_eq!(bench.presses(), 1);
    device.on(soon(10)).await.unwrap();
    assert_eq!(device.state(soon(10)).await.unwrap(), PowerState::On);
    assert_eq!(bench.presses(), 2);
    device.on(soon(10)).await.unwrap();
    assert_eq!(bench.presses(), 2);
}

#[tokio::test(start_paused = true)]
async fn firmware_that_does_not_listen_is_not_off_and_its_button_is_let_go() {
    let bench = Bench::on();
    bench.set(|machine| machine.off_after = None);
    let device = bench.device();
    let error = fence(&device).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Deadline { last: Some(PowerState::On), .. }), "{error}");
    assert!(!bench.is_down());
}

#[tokio::test(start_paused = true)]
async fn an_led_that_can_not_be_read_is_never_off_and_ends_a_press() {
    let bench = Bench::on();
    let device = bench.device();
    device.state(soon(10)).await.unwrap();
    device.off(soon(10)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(bench.is_down());
    bench.set(|machine| machine.led_fails = true);
    sleep(Duration::from_millis(100)).await;
    assert!(!bench.is_down());
    let error = device.state(soon(10)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Protocol, "{error}");
    assert!(matches!(fence(&device).await, Err(PowerOffError::Deadline { last: None, .. })));
    assert_eq!(bench.presses(), 1, "a blind appliance presses nothing");
}

#[tokio::test(start_paused = true)]
async fn an_led_that_blinks_is_on() {
    let bench = Bench::on();
    let device = bench.device();
    for half in 0..20 {
        bench.set(|machine| machine.led_stuck = Some(half % 2 == 0));
        sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(device.state(soon(1)).await.unwrap(), PowerState::On);
    let error = device.prove(soon(5)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Protocol);
    assert!(error.source.to_string().contains("the LED blinks"), "{}", error.source);
}

#[tokio::test(start_paused = true)]
async fn an_led_that_did_not_follow_a_press_is_not_proven_until_it_does() {
    let bench = Bench::on();
    let device = bench.device();
    assert_eq!(device.prove(soon(10)).await.unwrap().state, PowerState::On);
    // It is lit by something else than this machine.
    bench.set(|machine| machine.led_stuck = Some(true));
    fence(&device).await.unwrap_err();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(device.state(soon(10)).await.unwrap(), PowerState::On);
    let error = device.prove(soon(10)).await.unwrap_err();
    assert!(error.source.to_string().contains("the LED stayed lit"), "{}", error.source);
    // Wired rightly it shows all of it again. Between the presses lies as long as somebody wants.
    bench.set(|machine| (machine.led_stuck, machine.on) = (None, true));
    device.prove(soon(10)).await.unwrap_err();
    fence(&device).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    device.on(soon(10)).await.unwrap();
    assert_eq!(device.prove(soon(10)).await.unwrap().state, PowerState::On);
    // And dark for ever after a start: that is read, too.
    fence(&device).await.unwrap();
    bench.set(|machine| machine.led_stuck = Some(false));
    device.on(soon(10)).await.unwrap();
    sleep(Duration::from_secs(61)).await;
    let error = device.prove(soon(10)).await.unwrap_err();
    assert!(error.source.to_string().contains("the LED stayed dark"), "{}", error.source);
    bench.set(|machine| machine.led_stuck = None);
    assert_eq!(device.prove(soon(10)).await.unwrap().state, PowerState::On);
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_the_led_to_settle_until_its_deadline() {
    let bench = Bench::on();
    let device = bench.device();
    bench.set(|machine| machine.led_stuck = Some(false));
    let error = device.state(soon(2)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Busy, "{error}");
    // The proof is what finds out that this LED is dark while its node runs.
    assert_eq!(device.prove(soon(5)).await.unwrap().state, PowerState::Off);
}

#[tokio::test(start_paused = true)]
async fn a_button_that_can_not_be_let_go_reads_as_no_state_at_all() {
    let bench = Bench::on();
    let device = bench.device();
    device.state(soon(10)).await.unwrap();
    device.off(soon(10)).await.unwrap();
    bench.set(|machine| machine.button_fails = true);
    sleep(Duration::from_secs(10)).await;
    let error = device.state(soon(5)).await.unwrap_err();
    assert!(error.to_string().contains("could NOT be let go"), "{error}");
    bench.set(|machine| machine.button_fails = false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(device.state(soon(5)).await.unwrap(), PowerState::Off);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_dropped_lets_go_of_the_button() {
    let bench = Bench::on();
    let device = bench.device();
    device.state(soon(10)).await.unwrap();
    device.off(soon(10)).await.unwrap();
    assert!(bench.is_down());
    drop(device);
    sleep(Duration::from_millis(100)).await;
    assert!(!bench.is_down());
}

#[derive(Debug, Clone, Default)]
struct Coil(Arc<Mutex<(bool, bool)>>);

impl ErrorType for Coil {
    type Error = Broken;
}

impl OutputPin for Coil {
    fn set_low(&mut self) -> Result<(), Broken> {
        self.drive(false)
    }

    fn set_high(&mut self) -> Result<(), Broken> {
        self.drive(true)
    }
}

impl Coil {
    fn drive(&self, high: bool) -> Result<(), Broken> {
        let mut state = self.0.lock().unwrap();
        if state.1 {
            return Err(Broken);
        }
        state.0 = high;
        Ok(())
    }

    fn is_cut(&self) -> bool {
        self.0.lock().unwrap().0
    }

    fn fail(&self, fails: bool) {
        self.0.lock().unwrap().1 = fails;
    }

    fn device(&self) -> RelayDevice<Coil> {
        let coil = self.clone();
        let open = move || Ok::<_, OpenError>(Output::at_rest(coil.clone(), Polarity::ActiveHigh).unwrap());
        RelayDevice::with_opener("bench", Duration::from_secs(5), Box::new(open))
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_off_only_once_the_supply_has_drained() {
    let coil = Coil::default();
    let device = coil.device();
    assert_eq!(device.sign(), OffSign::Relay);
    assert_eq!(device.state(soon(1)).await.unwrap(), PowerState::On);
    device.off(soon(1)).await.unwrap();
    assert!(coil.is_cut());
    assert_eq!(device.state(soon(1)).await.unwrap_err().fault, Fault::Busy);
    let began = Instant::now();
    fence(&device).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(5));
    device.on(soon(1)).await.unwrap();
    assert_eq!(device.state(soon(1)).await.unwrap(), PowerState::On);
    device.off(soon(1)).await.unwrap();
    drop(device);
    assert!(!coil.is_cut(), "a dead appliance leaves the node its supply");
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_line_fails_is_not_off() {
    let coil = Coil::default();
    let device = coil.device();
    device.off(soon(1)).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    coil.fail(true);
    assert_eq!(device.off(soon(1)).await.unwrap_err().fault, Fault::Protocol);
    let error = device.state(soon(1)).await.unwrap_err();
    assert!(error.to_string().contains("isn't known"), "{error}");
    coil.fail(false);
    fence(&device).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_not_there_are_named_at_every_use() {
    let wire = |text: &str| parse_line(text).unwrap();
    let (button, led) = (wire("gpiochip4711:1"), wire("!gpiochip4711:2"));
    let dark_is_off = Duration::from_secs(3);
    let device = BoardDevice::new(BoardConfig { button, led, bias: super::Bias::Wired, dark_is_off });
    assert_eq!(device.name(), "board button gpiochip4711:1 led !gpiochip4711:2");
    for _ in 0..2 {
        let error = device.state(soon(1)).await.unwrap_err();
        assert_eq!(error.fault, Fault::Unreachable);
        assert!(error.to_string().contains("gpiochip4711:1"), "{error}");
    }
    let relay = RelayDevice::new(RelayConfig { line: wire("gpiochip4711:3"), drain: Duration::from_secs(5) });
    assert!(relay.off(soon(1)).await.unwrap_err().to_string().contains("gpiochip4711:3"));
}
